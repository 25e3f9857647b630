"""Answers that may be kept: for how long, for whom, and until what."""

from __future__ import annotations

import gc
import os
import sys

import pytest
import requests

from minimcp import Cache, Client, Context, RemoteError, Server
from minimcp.client import cache as module
from minimcp.engines.http_client.pool import make_pool
from tests.helpers import serving
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


def test_an_answer_that_was_on_its_way_during_a_change_is_not_kept():
    """Spec: FEAT-137"""
    cache, server = Cache(), played()
    listed = server.methods["tools/list"]

    def overtaken(params, say):
        found = listed(params, say)
        if asked(server) == 1:
            # As if the list were told to have changed after it was made, and before it came.
            cache.changed(server_key, {"method": CHANGED})
        return found

    server.methods["tools/list"] = overtaken
    with Client(server, cache=cache) as client:
        server_key = client.settings.target.key
        for _ in range(3):
            client.list_tools()
        assert asked(server) == 2


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
    for scope, expected in (("private", None), ("public", {"ttlMs": 60_000, "cacheScope": "public"})):
        cache = Cache()
        cache.put("s", "m", {}, "alice", {"ttlMs": 60_000, "cacheScope": scope})
        assert cache.get("s", "m", {}, "alice") is not None
        assert cache.get("s", "m", {}, "bob") == expected
    cache.put("s", "n", {}, "alice", {"ttlMs": 60_000, "cacheScope": "nonsense"})
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


def test_the_cache_is_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 100_000)
    cache = Cache()
    for number in range(20):
        cache.put("s", "m", {"n": number}, "alice", {"ttlMs": 60_000, "text": "x" * 10_000})
    kept = [number for number in range(20) if cache.get("s", "m", {"n": number}, "alice")]
    assert kept == list(range(11, 20))
    cache.put("s", "m", {"n": 0}, "alice", {"ttlMs": 60_000, "text": "x" * 100_000})
    assert not any(cache.get("s", "m", {"n": number}, "alice") for number in range(20))
    for _ in range(100):  # the same entry again weighs nothing more
        cache.put("s", "m", {"n": 1}, "alice", {"ttlMs": 60_000, "text": "x" * 10_000})
    cache.put("s", "m", {"n": 2}, "bob", {"ttlMs": 60_000})
    assert cache.get("s", "m", {"n": 1}, "alice") and cache.get("s", "m", {"n": 2}, "bob")


@pytest.mark.parametrize("ttl_ms", [10**400, 1e308, float("inf")])
def test_a_life_beyond_all_bounds_is_a_day(monkeypatch, ttl_ms):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    cache = Cache()
    cache.put("s", "m", {}, "", {"ttlMs": ttl_ms})
    now[0] += 86_399
    assert cache.get("s", "m", {}, "")
    now[0] += 2
    assert cache.get("s", "m", {}, "") is None


# What is kept for one caller never reaches another, whatever says who is calling.


def _who(request):
    """The caller, by any of the ways in which a server may learn it."""
    for name in ("HTTP_AUTHORIZATION", "HTTP_X_API_KEY", "HTTP_COOKIE", "HTTP_HOST", "HTTP_USER_AGENT"):
        found = [who for who in ("alice", "bob") if who in request.environ.get(name, "")]
        if found:
            return found[0]
    return "nobody"


@pytest.fixture(scope="module")
def mailbox():
    server = Server("mail", ttl_ms=60_000, auth=_who, allowed_hosts=["alice", "bob", "127.0.0.1"])

    @server.resource("mail://inbox")
    def inbox(ctx: Context) -> str:
        return f"mail of {ctx.principal.id}"

    with serving(server.wsgi) as url:
        yield f"{url}/mcp"


class Native:
    """Credentials made for the client, which may become another's."""

    def __init__(self, who):
        self.who = who

    def sign(self, method, url, headers):
        return {"X-API-Key": self.who}

    def answered(self, answers):
        return False


def _cookie(who):
    session = requests.Session()
    session.cookies.set("login", who)
    return session


def _given(session, **members):
    for name, value in members.items():
        setattr(session, name, value)
    return session


def _foreign(who):
    def auth(prepared):
        prepared.headers["X-API-Key"] = who
        return prepared

    return auth


CALLERS = {
    "authorization": lambda who: {"headers": {"Authorization": who}},
    "header": lambda who: {"headers": {"X-API-Key": who}},
    "protocol header": lambda who: {"headers": {"Mcp-Who": who, "X-API-Key": who}},
    "user agent": lambda who: {"headers": {"User-Agent": who}},
    "host": lambda who: {"headers": {"Host": who}},
    "cookie header": lambda who: {"headers": {"Cookie": f"login={who}"}},
    "user and password": lambda who: {"auth": ("who", who), "headers": {"X-API-Key": who}},
    "session with cookies": lambda who: {"session": _cookie(who)},
    "session with headers": lambda who: {"session": _given(requests.Session(), headers={"X-API-Key": who})},
    "session with auth": lambda who: {"session": _given(requests.Session(), auth=_foreign(who))},
    "auth of requests": lambda who: {"auth": _foreign(who)},
    "auth of ours": lambda who: {"auth": Native(who)},
}


def mail(target, options, shared, **more):
    with Client(target, cache=shared, **options, **more) as client:
        return client.read_resource("mail://inbox").text


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("remembered", [False, True])
def test_what_is_kept_for_one_caller_never_reaches_another(mailbox, caller, remembered):
    make, shared, more = CALLERS[caller], Cache(), {}
    if remembered:
        with Client(mailbox) as client:
            more["discovery"] = client.discovery
            # What was kept for nobody is not bob's either.
            assert mail(mailbox, {}, shared) == "mail of nobody"
    alice, bob = make("alice"), make("bob")
    assert mail(mailbox, alice, shared, **more) == "mail of alice"
    assert mail(mailbox, bob, shared, **more) == "mail of bob"
    assert mail(mailbox, alice, shared, **more) == "mail of alice"


@pytest.mark.parametrize("kind", ["cookies", "auth of ours", "auth of requests"])
def test_a_client_whose_credentials_become_anothers_finds_nothing_that_was_kept_before(mailbox, kind):
    who = ["alice"]
    session = _cookie("alice")
    native = Native("alice")

    def auth(prepared):
        prepared.headers["X-API-Key"] = who[0]
        return prepared

    options = {"cookies": {"session": session}, "auth of ours": {"auth": native}, "auth of requests": {"auth": auth}}
    with Client(mailbox, **options[kind]) as client:
        assert client.read_resource("mail://inbox").text == "mail of alice"
        who[0] = native.who = "bob"
        session.cookies.set("login", "bob")
        assert client.read_resource("mail://inbox").text == "mail of bob"


@pytest.mark.parametrize("options", [{}, {"headers": {"X-API-Key": "alice"}}, {"auth": Native("alice")}])
def test_a_second_visit_of_the_same_caller_is_answered_from_the_cache(options):
    server, shared = Server("s", ttl_ms=60_000), Cache()
    ran = []
    server.resource("mail://inbox")(lambda: ran.append(1) or "x")
    for _ in range(2):
        mail(server.wsgi, options, shared)
    assert len(ran) == 1


def test_two_sessions_are_two_callers_even_with_the_same_headers(mailbox):
    # What tells them apart may be a certificate, a proxy, or an adapter.
    identities = []
    for session in (requests.Session(), requests.Session()):
        for cert in (None, "client.pem"):
            session.cert = cert
            pool = make_pool(mailbox, None, None, session, None)
            identities.append(pool.identity({}))
            assert pool.identity({}) == identities[-1]
    assert len(set(identities)) == 4


def test_before_the_first_request_only_public_results_are_looked_up():
    cache = Cache()
    cache.put("s", "m", {}, "", {"ttlMs": 60_000, "cacheScope": "private"})
    assert cache.get("s", "m", {}, None) is None and cache.get("s", "m", {}, lambda: None) is None
    assert cache.get("s", "m", {}, lambda: "") is not None
    cache.put("s", "m", {}, "", {"ttlMs": 60_000, "cacheScope": "public"})
    assert cache.get("s", "m", {}, None) is not None


def test_credentials_are_asked_for_only_where_something_private_is_kept():
    cache, asked = Cache(), []
    cache.put("s", "m", {}, "", {"ttlMs": 60_000, "cacheScope": "public"})
    assert cache.get("s", "m", {}, lambda: asked.append(1)) and cache.get("s", "n", {}, lambda: asked.append(1)) is None
    assert asked == []


def test_processes_with_another_environment_or_folder_are_not_one_server(tmp_path):
    program = tmp_path / "server.py"
    program.write_text(
        "import os, sys\n"
        f"sys.path.insert(0, {os.getcwd()!r})\n"
        "from minimcp import Server\n"
        "server = Server('mail', ttl_ms=60_000)\n"
        "server.resource('mail://inbox')(lambda: f\"mail of {os.environ.get('WHO')} in {os.getcwd()}\")\n"
        "server.run()\n"
    )
    shared = Cache()
    folders = [str(tmp_path), str(tmp_path.parent)]
    options = [{"env": {"WHO": who}, "cwd": folder} for who in ("alice", "bob") for folder in folders]
    found = [mail([sys.executable, str(program)], each, shared) for each in options]
    assert found == [f"mail of {each['env']['WHO']} in {os.path.realpath(each['cwd'])}" for each in options]


def test_an_application_that_is_gone_leaves_nothing_to_the_next_at_its_place():
    shared = Cache()

    def visit(who):
        server = Server("s", ttl_ms=60_000)
        server.resource("mail://inbox")(lambda: f"mail of {who}")
        return mail(lambda environ, start: server.wsgi(environ, start), {}, shared), mail(server, {}, shared)

    # What earlier tests left is not looked through twenty times.
    gc.freeze()
    try:
        for number in range(20):
            assert visit(number) == (f"mail of {number}",) * 2
            gc.collect()
    finally:
        gc.unfreeze()
