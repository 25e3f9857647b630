"""Answers that may be kept: for how long, for whom, and until what."""

from __future__ import annotations

import pytest

from minimcp import Cache, Client, RemoteError, Server
from minimcp.client import cache as module
from tests.played import INITIALIZED, Scripted

CHANGED = "notifications/tools/list_changed"


def played(ttl_ms=60_000, scope="private", **more):
    kept = {"resultType": "complete", "ttlMs": ttl_ms, "cacheScope": scope}
    return Scripted(
        tools_list=lambda params, say: {**kept, "tools": [{"name": "t", "inputSchema": {"type": "object"}}]},
        resources_read=lambda params, say: {**kept, "contents": [{"uri": params["uri"], "text": "x"}]},
        resources_list=lambda params, say: {**kept, "resources": []},
        **more,
    )


def asked(server, method="tools/list"):
    return len(server.all(method))


def test_a_list_is_asked_for_once_while_it_is_fresh():
    server = played()
    with Client(server) as client:
        first = client.list_tools()
        first[0]["name"] = "spoiled"
        assert client.list_tools()[0]["name"] == "t" and asked(server) == 1
        client.list_tools(fresh=True)
        assert asked(server) == 2
    with Client(server, cache=False) as client:
        client.list_tools()
        client.list_tools()
    assert asked(server) == 4


@pytest.mark.parametrize("ttl_ms", [0, -1, None, "60000", True])
def test_what_may_not_be_kept_is_asked_for_again(ttl_ms):
    server = played(ttl_ms)
    with Client(server) as client:
        client.list_tools()
        client.list_tools()
    assert asked(server) == 2


def test_an_answer_is_stale_after_its_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    cache = Cache()
    cache.put("s", "m", {}, "", {"ttlMs": 1000, "x": 1})
    assert cache.get("s", "m", {}, "") == {"ttlMs": 1000, "x": 1}
    now[0] += 1.001
    assert cache.get("s", "m", {}, "") is None


def test_the_params_are_part_of_the_key():
    server = played()
    with Client(server) as client:
        client.read_resource("a://1")
        client.read_resource("a://2")
        client.read_resource("a://1")
    assert [message["params"]["uri"] for message in server.all("resources/read")] == ["a://1", "a://2"]


def test_a_change_notice_drops_what_it_concerns():
    cache = Cache()
    kept = {"ttlMs": 60_000}
    for server in ("s", "other"):
        for method, params in (("tools/list", {}), ("prompts/list", {}), ("resources/read", {"uri": "a://1"})):
            cache.put(server, method, params, "", kept)
        cache.put(server, "resources/read", {"uri": "a://2"}, "", kept)
    cache.changed("s", {"method": CHANGED})
    assert cache.get("s", "tools/list", {}, "") is None
    assert cache.get("s", "prompts/list", {}, "") and cache.get("other", "tools/list", {}, "")
    cache.changed("s", {"method": "notifications/resources/updated", "params": {"uri": "a://1"}})
    assert cache.get("s", "resources/read", {"uri": "a://1"}, "") is None
    assert cache.get("s", "resources/read", {"uri": "a://2"}, "")
    cache.clear()
    assert cache.get("other", "tools/list", {}, "") is None


def test_a_notice_on_a_listen_stream_reaches_the_cache():
    def listen(params, say):
        tag = {"_meta": {"io.modelcontextprotocol/subscriptionId": server.all("subscriptions/listen")[-1]["id"]}}
        accepted = {"notifications": {"toolsListChanged": True}, **tag}
        say({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": accepted})
        say({"jsonrpc": "2.0", "method": CHANGED, "params": tag})
        return {"resultType": "complete"}

    server = played(subscriptions_listen=listen)
    with Client(server) as client:
        client.list_tools()
        with client.listen(tools=True) as changes:
            assert changes.accepted == {"toolsListChanged": True}
            assert [change["method"] for change in changes] == [CHANGED]
        client.list_tools()
    assert asked(server) == 2


def test_private_answers_are_of_one_user_and_public_ones_of_all():
    for scope, expected in (("private", None), ("public", {"ttlMs": 1000, "cacheScope": "public"})):
        cache = Cache()
        cache.put("s", "m", {}, "alice", {"ttlMs": 1000, "cacheScope": scope})
        assert cache.get("s", "m", {}, "alice") is not None
        assert cache.get("s", "m", {}, "bob") == expected
    cache.put("s", "n", {}, "alice", {"ttlMs": 1000, "cacheScope": "nonsense"})
    assert cache.get("s", "n", {}, "bob") is None


def test_a_list_under_a_rule_is_never_shown_to_somebody_else():
    server = Server("s", ttl_ms=60_000, cache_scope="public", auth=lambda request: request.header("Authorization"))
    seen = []
    server.tool(lambda: "x", "everybodys")
    server.tool(lambda: "x", "roots", allow=lambda ctx: seen.append(ctx.principal.id) or ctx.principal.id == "root")
    server.resource("root://1", allow=lambda ctx: ctx.principal.id == "root")(lambda: "x")
    shared, shown = Cache(), {}
    for who in ("root", "guest", "root"):
        with Client(server.wsgi, headers={"Authorization": who}, cache=shared) as client:
            shown[who] = [tool["name"] for tool in client.list_tools()], len(client.list_resources())
            if who == "root":
                client.read_resource("root://1")
            else:
                with pytest.raises(RemoteError):
                    client.read_resource("root://1")
    assert shown == {"root": (["everybodys", "roots"], 1), "guest": (["everybodys"], 0)}
    # Root's own second visit is answered from the cache.
    assert seen == ["root", "guest"]


def test_a_cache_may_serve_several_clients():
    server, shared = played(), Cache()
    for _ in range(2):
        with Client(server, cache=shared) as client:
            client.list_tools()
    assert asked(server) == 1


def test_the_answer_to_a_retry_with_answers_is_not_kept():
    question = {"method": "roots/list"}

    def play(params, say):
        if "inputResponses" not in params:
            return {"resultType": "input_required", "inputRequests": {"q": question}}
        return {"ttlMs": 60_000, "cacheScope": "public", "contents": []}

    server = Scripted(resources_read=play)
    with Client(server, roots=[]) as client:
        client.read_resource("a://1")
        client.read_resource("a://1")
    assert asked(server, "resources/read") == 4


def test_legacy_answers_are_not_kept():
    server = played(initialize=lambda params, say: INITIALIZED)
    with Client(server, mode="legacy") as client:
        client.list_tools()
        client.list_tools()
    assert asked(server) == 2


def test_the_cache_is_bounded():
    cache = Cache()
    for number in range(1100):
        cache.put("s", "m", {"n": number}, "", {"ttlMs": 60_000})
    assert cache.get("s", "m", {"n": 99}, "") is None and cache.get("s", "m", {"n": 1099}, "")
