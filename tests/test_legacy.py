"""The legacy era: the handshake, what needs it, and sessions that are sealed."""

from __future__ import annotations

import pytest

from minimcp import Context, Server
from minimcp.protocol.errors import InvalidParams, SessionNotFound, TooManySessions
from tests.helpers import Legacy

HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}


@pytest.fixture
def server():
    server = Server("s", secret="0123456789abcdef", limits={"sessions": 3})
    server.tool(lambda: "x", "t")
    return server


@pytest.mark.parametrize(
    "asked, given",
    [
        ("2024-11-05", "2024-11-05"),
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
        ("2030-01-01", "2025-11-25"),
        ("1.0", "2025-11-25"),
    ],
)
def test_a_known_revision_is_echoed_and_others_get_the_latest_with_a_handshake(server, asked, given):
    assert Legacy(server, asked).hello["protocolVersion"] == given


@pytest.mark.parametrize(
    "broken", [{"protocolVersion": 5}, {"protocolVersion": None}, {"capabilities": []}, {"clientInfo": "x"}]
)
def test_a_handshake_that_is_none_is_refused_and_may_be_tried_again(server, broken):
    session = server.engine.open_session()
    request = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {**HELLO, **broken}}
    assert server.handle(request, session=session)["error"]["code"] == -32602
    assert server.handle({**request, "params": HELLO}, session=session)["result"]["protocolVersion"] == "2025-11-25"


def test_before_the_handshake_only_ping_is_answered(server):
    session = server.engine.open_session()
    for session in (server.engine.open_session(), None):
        ping = {"jsonrpc": "2.0", "id": "p", "method": "ping"}
        assert server.handle(ping, session=session) == {"jsonrpc": "2.0", "id": "p", "result": {}}
        listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        error = server.handle(listing, session=session)["error"]
        assert error["code"] == -32600 and "initialize" in error["message"]


def test_the_server_says_nothing_before_initialized(server):
    sent = []
    session = server.engine.open_session(sent.append)
    server.handle({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO}, session=session)
    server.changed("tools")
    assert sent == []


def test_unknown_notifications_and_responses_nobody_waits_for_are_not_answered(server):
    client = Legacy(server)
    client.notify("notifications/nonsense")
    client.notify("notifications/roots/list_changed")
    client.notify("tools/list")
    for extra in ({"result": {}}, {"error": {"code": 1, "message": "x"}}, {"error": "x"}):
        assert server.handle({"jsonrpc": "2.0", "id": "s1", **extra}, session=client.session) is None
    assert client.result("tools/list")["tools"]


def test_a_response_without_a_session_answers_nobody(server):
    error = server.handle({"jsonrpc": "2.0", "id": 1, "result": {}})["error"]
    assert error["code"] == -32600


def test_members_of_meta_are_tolerated_everywhere(server):
    client = Legacy(server)
    meta = {"com.example/x": {"deep": [1]}, "progressToken": "t", "traceparent": "x"}
    assert client.result("tools/list", _meta=meta)["tools"]
    assert client.result("tools/call", name="t", _meta=meta)["content"]
    assert client.result("tools/list", _meta=5)["tools"]


def test_a_batch_is_only_for_its_revision(server):
    batch = [{"jsonrpc": "2.0", "id": 1, "method": "ping"}, {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}]
    for version in ("2024-11-05", "2025-06-18", "2025-11-25"):
        client = Legacy(server, version)
        assert server.handle(batch, session=client.session)["error"]["code"] == -32600
    assert server.handle(batch)["error"]["code"] == -32600
    client = Legacy(server, "2025-03-26")
    assert [reply["id"] for reply in server.handle(batch, session=client.session)] == [1, 2]
    for bad in ([], [batch[0]] * 101):
        assert server.handle(bad, session=client.session)["error"]["code"] == -32600
    replies = server.handle([[], 5, None, batch[0]], session=client.session)
    assert [reply.get("error", {}).get("code") for reply in replies] == [-32600, -32600, -32600, None]
    assert server.handle([{"jsonrpc": "2.0", "method": "notifications/x"}], session=client.session) is None


def test_session_ids_are_sealed_and_visible_ascii(server):
    sessions = []
    for _ in range(2):
        session = Legacy(server).session
        id = server.engine.keep_session(session)
        assert set(map(ord, id)) <= set(range(0x21, 0x7F)) and len(id) > 60
        assert server.engine.open_session(id=id) is session
        sessions.append(id)
    assert sessions[0] != sessions[1]
    for bad in ("", "x", sessions[0] + "x", sessions[0][:-1]):
        with pytest.raises(SessionNotFound):
            server.engine.open_session(id=bad)


def test_another_process_with_the_same_secret_restores_a_session(server):
    session = Legacy(server, "2025-06-18", elicitation={}).session
    id = server.engine.keep_session(session)
    other = Server("s", secret=["a-newer-key-of-16-bytes", "0123456789abcdef"])
    other.tool(lambda: "x", "t")
    restored = other.engine.open_session(id=id)
    assert restored.version == "2025-06-18" and restored.capabilities == {"elicitation": {}}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "t"}}
    assert other.handle(call, session=restored)["result"] == {"content": [{"type": "text", "text": "x"}]}
    with pytest.raises(SessionNotFound):
        Server("s", secret="quite-another-key").engine.open_session(id=id)


def test_without_a_shared_secret_no_session_is_restored(monkeypatch):
    monkeypatch.delenv("MINIMCP_SECRET", raising=False)
    server = Server("s")
    session = Legacy(server).session
    id = server.engine.keep_session(session)
    server.engine.close_session(session)
    with pytest.raises(SessionNotFound):
        server.engine.open_session(id=id)


def test_a_session_belongs_to_its_principal(server):
    session = server.engine.open_session(principal="ann")
    server.handle({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO}, session=session)
    id = server.engine.keep_session(session)
    assert server.engine.open_session(id=id, principal="ann") is session
    words = set()
    for principal in ("bob", None):
        with pytest.raises(SessionNotFound) as caught:
            server.engine.open_session(id=id, principal=principal)
        words.add(str(caught.value))
    with pytest.raises(SessionNotFound) as caught:
        server.engine.open_session(id="nonsense", principal="bob")
    assert words == {str(caught.value)}


def test_an_ended_session_stays_ended(server):
    client = Legacy(server)
    id = server.engine.keep_session(client.session)
    server.engine.close_session(client.session)
    with pytest.raises(SessionNotFound):
        server.engine.open_session(id=id)


def test_sessions_are_limited_and_the_longest_idle_goes_first(server):
    ids = [server.engine.keep_session(Legacy(server).session) for _ in range(3)]
    server.engine.open_session(id=ids[0])
    fourth = server.engine.keep_session(Legacy(server).session)
    assert server.engine.sessions.all() and {session.id for session in server.engine.sessions.all()} == {
        ids[0],
        ids[2],
        fourth,
    }
    for session in server.engine.sessions.all():
        session.calls[1] = object()
    with pytest.raises(TooManySessions):
        server.engine.keep_session(Legacy(server).session)
    for session in server.engine.sessions.all():
        session.calls.clear()


def test_idle_sessions_are_forgotten(monkeypatch):
    server = Server("s", limits={"session_idle_s": 10})
    id = server.engine.keep_session(Legacy(server).session)
    assert server.engine.open_session(id=id)
    import time

    later = time.monotonic() + 11
    monkeypatch.setattr("minimcp.server.session.time.monotonic", lambda: later)
    with pytest.raises(SessionNotFound):
        server.engine.open_session(id=id)


def test_capabilities_too_large_for_an_id_are_refused(server):
    client = Legacy(server, experimental={"x": {"y": "z" * 4000}})
    with pytest.raises(InvalidParams):
        server.engine.keep_session(client.session)


def test_an_id_in_use_stays_with_the_earlier_call(server):
    seen = []

    @server.tool
    def twice(ctx: Context) -> str:
        if not seen:
            seen.append(server.handle({**call, "params": {"name": "t"}}, session=client.session))
            cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
            server.handle(cancel, session=client.session)
            seen.append(ctx.cancelled.is_set())
        return "x"

    client = Legacy(server)
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "twice"}}
    assert server.handle(call, session=client.session) is None
    assert seen[0]["result"]["content"][0]["text"] == "x" and seen[1] is True
