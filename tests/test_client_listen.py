"""Change notices as an iterator, the same for both eras."""

from __future__ import annotations

import threading

import pytest

import minimcp
from minimcp import Client
from minimcp.client import listen as module
from tests.embedded import embedded
from tests.played import INITIALIZED, Fault, Scripted, Silence
from tests.transcripts.server import build

TOOLS = "notifications/tools/list_changed"
UPDATED = "notifications/resources/updated"


@pytest.fixture(params=["memory", "http", "wsgi"])
def door(request):
    """A server and what to point a client at."""
    server = build()
    if request.param == "http":
        with embedded(server.wsgi) as listening:
            yield server, f"{listening.url}/mcp"
        server.close()
    else:
        yield server, server if request.param == "memory" else server.wsgi


@pytest.mark.parametrize("mode", ["2025-06-18", "2026-07-28"])
def test_changes_arrive_in_order_and_only_those_asked_for(door, mode):
    server, target = door
    with Client(target, mode=mode) as client:
        with client.listen(tools=True, uris=["library://rules"]) as changes:
            assert changes.accepted == {"toolsListChanged": True, "resourceSubscriptions": ["library://rules"]}
            server.updated("library://other")
            server.updated("library://rules")
            found = changes.receive(5)
            assert found["method"] == UPDATED and found["params"]["uri"] == "library://rules"
            server.tool(lambda: 1, "extra", description="Extra.")
            assert changes.receive(5)["method"] == TOOLS
        assert client.call_tool("lookup", title="a").text == '{"copies":1}'


@pytest.mark.parametrize("mode", ["2025-06-18", "2026-07-28"])
def test_closing_from_another_thread_ends_the_iteration(door, mode):
    server, target = door
    with Client(target, mode=mode) as client:
        changes = client.listen(tools=True)
        threading.Timer(0.1, changes.close).start()
        assert list(changes) == []
        changes.close()
        assert changes.receive(0) is None


@pytest.mark.parametrize("mode", ["2025-06-18", "2026-07-28"])
def test_waiting_is_bounded_when_asked(door, mode):
    with Client(door[1], mode=mode) as client, client.listen(tools=True) as changes:
        with pytest.raises(minimcp.Timeout):
            changes.receive(0.1)
        door[0].tool(lambda: 1, "extra", description="Extra.")
        assert changes.receive(5)["method"] == TOOLS


def test_a_stream_that_the_server_ends_ends_the_iteration():
    server = build()
    with Client(server) as client, client.listen(tools=True) as changes:
        server.close()
        assert list(changes) == []


def test_closing_the_client_ends_the_iteration_too():
    for mode in ("legacy", "modern"):
        client = Client(build(), mode=mode)
        changes = client.listen(tools=True)
        client.close()
        with pytest.raises(minimcp.ConnectionLost):
            changes.receive(5)
        changes.close()


def tagged(server, message, **params):
    id = server.all("subscriptions/listen")[-1]["id"]
    meta = {"io.modelcontextprotocol/subscriptionId": id}
    return {"jsonrpc": "2.0", "method": message, "params": {**params, "_meta": meta}}


def acknowledged(server, **notifications):
    return tagged(server, "notifications/subscriptions/acknowledged", notifications=notifications)


def test_each_of_several_streams_gets_its_own():
    def play(params, say):
        wanted = params["notifications"]
        say(acknowledged(server, **wanted))
        if not first:
            first.update(tagged(server, TOOLS))
        raise Silence

    first: dict = {}
    server = Scripted(subscriptions_listen=play)
    with Client(server) as client, client.listen(tools=True) as one, client.listen(tools=True) as two:
        # By its subscriptionId and nothing else. Spec: TRN-019
        server.say(first)
        assert one.receive(5)["method"] == TOOLS
        with pytest.raises(minimcp.Timeout):
            two.receive(0.05)
    ended = [message["params"]["requestId"] for message in server.all("notifications/cancelled")]
    assert sorted(ended) == sorted(message["id"] for message in server.all("subscriptions/listen"))


@pytest.mark.parametrize("how", ["cancelled", "result"])
def test_either_way_of_ending_a_stream_is_understood(how):
    def play(params, say):
        say(acknowledged(server, toolsListChanged=True))
        if how == "result":
            return {"resultType": "complete"}
        id = server.all("subscriptions/listen")[-1]["id"]
        say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}})
        raise Silence

    server = Scripted(subscriptions_listen=play)
    with Client(server) as client, client.listen(tools=True) as changes:
        assert list(changes) == []


def test_what_the_server_did_not_agree_to_can_be_seen():
    def play(params, say):
        say(acknowledged(server))
        return {"resultType": "complete"}

    server = Scripted(subscriptions_listen=play)
    with Client(server) as client, client.listen(tools=True, reconnect=True) as changes:
        assert changes.accepted == {} and list(changes) == []
    assert len(server.all("subscriptions/listen")) == 1


def test_a_refusal_and_an_end_without_acknowledgement_are_errors():
    def refuse(params, say):
        raise Fault(-32602, "too many")

    with Client(Scripted(subscriptions_listen=refuse)) as client, pytest.raises(minimcp.RemoteError, match="too many"):
        client.listen(tools=True)
    early = Client(Scripted(subscriptions_listen=lambda params, say: {}))
    with early as client, pytest.raises(minimcp.ProtocolError, match="without acknowledging"):
        client.listen(tools=True)


def test_a_stream_that_ended_is_opened_anew_by_choice(monkeypatch):
    monkeypatch.setattr(module, "_BACKOFF_S", 0.01)
    rounds = []

    def play(params, say):
        rounds.append(1)
        say(acknowledged(server, toolsListChanged=True))
        if len(rounds) < 3:
            return {"resultType": "complete"}
        say(tagged(server, TOOLS))
        raise Silence

    server = Scripted(subscriptions_listen=play)
    with Client(server) as client, client.listen(tools=True, reconnect=True) as changes:
        assert changes.receive(5)["method"] == TOOLS
    assert len(rounds) == 3


def test_the_filter_says_what_is_wanted_and_nothing_else():
    wanted = module.wanted(True, False, True, "a://1", ["t1"])
    assert wanted == {
        "toolsListChanged": True,
        "resourcesListChanged": True,
        "resourceSubscriptions": ["a://1"],
        "taskIds": ["t1"],
    }


def test_a_legacy_server_without_subscriptions_says_so():
    server = Scripted(initialize=lambda params, say: {**INITIALIZED, "capabilities": {"resources": {}}})
    with Client(server, mode="legacy") as client:
        with pytest.raises(minimcp.ProtocolError, match=r"resources\.subscribe"):
            client.listen(uris=["a://1"])
        with client.listen(tools=True) as changes:
            # Not declared, but servers of the official SDK tell all the same.
            assert changes.accepted == {}
            server.say({"jsonrpc": "2.0", "method": TOOLS})
            assert changes.receive(5)["method"] == TOOLS
