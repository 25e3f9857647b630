"""Change notices as an iterator, the same for both eras."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

import minimcp
from minimcp import Client
from minimcp.client import listen as module
from tests.embedded import embedded
from tests.played import INITIALIZED, Fault, Scripted, Silence
from tests.transcripts.server import build

ROOT = Path(__file__).resolve().parent.parent
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
            found = changes.receive(20)
            assert found["method"] == UPDATED and found["params"]["uri"] == "library://rules"
            server.tool(lambda: 1, "extra", description="Extra.")
            assert changes.receive(20)["method"] == TOOLS
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
        assert changes.receive(20)["method"] == TOOLS


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
            changes.receive(20)
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
        # Before the client goes on and opens another one.
        first.update(first or tagged(server, TOOLS))
        say(acknowledged(server, **wanted))
        raise Silence

    first: dict = {}
    server = Scripted(subscriptions_listen=play)
    with Client(server) as client, client.listen(tools=True) as one, client.listen(tools=True) as two:
        # By its subscriptionId and nothing else. Spec: TRN-019
        server.say(first)
        assert one.receive(20)["method"] == TOOLS
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
        assert changes.receive(20)["method"] == TOOLS
    assert len(rounds) == 3


CHANGING = """
import os
from minimcp import Server
server = Server("changing", "1")

@server.tool
def change(number: int) -> int:
    server.tool(lambda: 1, f"extra{number}", description="Extra.")
    return os.getpid()

@server.tool
def leave() -> None:
    os._exit(3)

@server.resource("a://1")
def first() -> str:
    return "1"
"""


@pytest.fixture
def changing(tmp_path):
    file = tmp_path / "changing.py"
    file.write_text(CHANGING)
    return [sys.executable, "-m", "minimcp", "run", str(file)]


@pytest.mark.parametrize("mode", ["2025-06-18", "2026-07-28"])
def test_after_a_restart_the_new_process_is_listened_to(changing, mode, monkeypatch):
    monkeypatch.setattr(module, "_BACKOFF_S", 0.01)
    options = {"mode": mode, "restart": True, "env": {"PYTHONPATH": str(ROOT)}}
    with Client(changing, **options) as client, client.listen(tools=True, reconnect=True) as changes:
        pid = client.call_tool("change", number=0).text
        assert changes.receive(30)["method"] == TOOLS
        found = []
        listening = threading.Thread(target=lambda: found.append(changes.receive(30)))
        listening.start()
        with pytest.raises(minimcp.ConnectionLost, match="exited with code 3"):
            client.call_tool("leave")
        for number in range(1, 1000):
            # The first ones may come before it listens again.
            assert client.call_tool("change", number=number).text != pid
            listening.join(0.02)
            if found:
                break
        listening.join(30)
        assert found[0]["method"] == TOOLS


@pytest.mark.parametrize("mode", ["2025-06-18", "2026-07-28"])
def test_a_process_that_is_not_to_be_started_again_ends_the_listening_at_once(changing, mode, monkeypatch):
    monkeypatch.setattr(module, "_BACKOFF_S", 0.01)
    monkeypatch.setattr(module, "_TRIES", 10**6)
    options = {"mode": mode, "env": {"PYTHONPATH": str(ROOT)}}
    with Client(changing, **options) as client, client.listen(tools=True, reconnect=True) as changes:
        with pytest.raises(minimcp.ConnectionLost):
            client.call_tool("leave")
        with pytest.raises(minimcp.ConnectionLost, match="exited with code 3"):
            changes.receive(30)


def test_listening_again_is_tried_a_few_times_and_then_told(monkeypatch):
    monkeypatch.setattr(module, "_BACKOFF_S", 0.001)
    tries = []

    def play(params, say):
        tries.append(1)
        if len(tries) > 1:
            raise Silence
        say(acknowledged(server, toolsListChanged=True))
        return {"resultType": "complete"}

    server = Scripted(subscriptions_listen=play)
    with Client(server) as client, client.listen(tools=True, reconnect=True) as changes:
        # What has gone well by now may take its time.
        client._connect().settings = client._connect().settings._replace(timeout_s=0.3)
        with pytest.raises(minimcp.Timeout):
            changes.receive(30)
    assert len(tries) == 1 + 5


def test_a_refusal_to_listen_again_is_told_at_once(monkeypatch):
    monkeypatch.setattr(module, "_BACKOFF_S", 0.001)
    tries = []

    def play(params, say):
        tries.append(1)
        if len(tries) > 1:
            raise Fault(-32602, "too many")
        say(acknowledged(server, toolsListChanged=True))
        return {"resultType": "complete"}

    server = Scripted(subscriptions_listen=play)
    with Client(server) as client, client.listen(tools=True, reconnect=True) as changes:
        with pytest.raises(minimcp.RemoteError, match="too many"):
            changes.receive(30)
    assert len(tries) == 2


@pytest.mark.parametrize("closed", ["listener", "client"])
def test_closing_ends_the_wait_before_listening_again(closed, monkeypatch):
    monkeypatch.setattr(module, "_BACKOFF_S", 60)
    waiting = threading.Event()

    def play(params, say):
        say(acknowledged(server, toolsListChanged=True))
        raise Silence

    server = Scripted(subscriptions_listen=play)
    with Client(server) as client, client.listen(tools=True, reconnect=True) as changes:
        if closed == "client":
            monkeypatch.setattr(module, "_BACKOFF_S", 0.001)
            client.close()
            with pytest.raises(minimcp.ConnectionLost, match="closed"):
                changes.receive(30)
            return
        monkeypatch.setattr(changes._closed, "wait", lambda s, real=changes._closed.wait: waiting.set() or real(s))
        server.say({**tagged(server, "notifications/cancelled"), "params": {"requestId": server.heard[-1]["id"]}})
        found = []
        thread = threading.Thread(target=lambda: found.append(changes.receive()))
        thread.start()
        assert waiting.wait(20)
        changes.close()
        thread.join(20)
        assert found == [None] and len(server.all("subscriptions/listen")) == 1


def test_a_session_that_was_begun_anew_is_listened_to_again(monkeypatch):
    monkeypatch.setattr(module, "_BACKOFF_S", 0.001)
    capabilities = {"resources": {"subscribe": True}, "tools": {"listChanged": True}}
    server = Scripted(initialize=lambda params, say: {**INITIALIZED, "capabilities": capabilities})
    server.methods.update({f"resources/{name}": lambda params, say: {} for name in ("subscribe", "unsubscribe")})
    with Client(server, mode="legacy") as client, client.listen(uris=["a://1"], reconnect=True) as changes:
        client._connect().renew(client.peer)
        found = []
        thread = threading.Thread(target=lambda: found.append(changes.receive(30)))
        thread.start()
        with server.changed:
            assert server.changed.wait_for(lambda: len(server.all("resources/subscribe")) == 2, 20)
        server.say({"jsonrpc": "2.0", "method": UPDATED, "params": {"uri": "a://1"}})
        thread.join(30)
        assert found[0]["params"]["uri"] == "a://1"


def test_a_legacy_subscription_that_is_refused_leaves_no_listener():
    capabilities = {"resources": {"subscribe": True}}
    server = Scripted(initialize=lambda params, say: {**INITIALIZED, "capabilities": capabilities})
    with Client(server, mode="legacy") as client:
        with pytest.raises(minimcp.RemoteError, match="resources/subscribe"):
            client.listen(uris=["a://1"])
        assert not client._connect().listeners


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
            assert changes.receive(20)["method"] == TOOLS


def test_a_stream_that_the_server_ends_by_its_id_alone_is_over():
    over = threading.Event()

    def play(params, say):
        say(acknowledged(server, toolsListChanged=True))
        assert over.wait(60)
        raise Silence

    server = Scripted(subscriptions_listen=play)
    with Client(server) as client, client.listen(tools=True) as changes:
        id = server.all("subscriptions/listen")[-1]["id"]
        # On a transport with one channel it comes on no stream, and has no tag.
        for other in (str(id), id + 1, None, id):
            server.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": other}})
            if other != id:
                with pytest.raises(minimcp.Timeout):
                    changes.receive(0.02)
        assert changes.receive(20) is None
        over.set()


def test_only_what_was_asked_for_is_told_whatever_a_legacy_server_sends():
    server = Scripted(
        initialize=lambda params, say: INITIALIZED,
        resources_subscribe=lambda params, say: {},
        resources_unsubscribe=lambda params, say: {},
    )
    with Client(server, mode="legacy") as client, client.listen(uris=["a://1"]) as changes:
        for uri in ("b://1", "a://2", 5, None, "a://1", "a://1/part"):
            server.say({"jsonrpc": "2.0", "method": UPDATED, "params": {"uri": uri}})
        server.say({"jsonrpc": "2.0", "method": TOOLS})
        assert [changes.receive(20)["params"]["uri"] for _ in range(2)] == ["a://1", "a://1/part"]
        with pytest.raises(minimcp.Timeout):
            changes.receive(0.05)
