"""Legacy sessions of the client over HTTP: ids, resumed streams, the GET stream, and the end."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from minimcp import Context, Server
from minimcp.client.errors import HTTPStatus
from minimcp.client.transports import legacy_http
from minimcp.client.transports.http import HttpTransport
from minimcp.client.transports.transport import SessionExpired
from minimcp.engines.errors import ConnectionLost, ProtocolError, Timeout
from tests.embedded import embedded, wait_until
from tests.scripted import NOTE, PING, Linked, received, result

HELLO = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}},
}
READY = {"jsonrpc": "2.0", "method": "notifications/initialized"}
CHANGED = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(legacy_http, "RETRY_S", 0.05)
    # A farewell is heard, and the thread of a GET stream gone, when a link is closed, however busy the machine is.
    monkeypatch.setattr(legacy_http, "_BYE_S", 30.0)


def in_session(answer, id="the-session", version="2025-11-25", **options):
    """A link that has initialized a session; `answer` is asked for what comes after."""

    def dispatch(request, peer):
        if request.method == "POST" and request.message.get("method") == "initialize":
            more = {"Mcp_Session_Id": id} if id else {}
            peer.json(result(0, protocolVersion=version), **more)
        else:
            answer(request, peer)

    linked = Linked(dispatch, **options)
    assert linked.call(HELLO) == [result(0, protocolVersion=version)]
    linked.transport.settle(version)
    return linked


def plain(request, peer):
    if request.method == "POST":
        message = request.message
        peer.json(result(message["id"])) if "id" in message else peer.body(status=202)
    else:
        peer.body(status=405)


@pytest.mark.parametrize(
    ("version", "named"),
    [("2025-03-26", None), ("2025-06-18", "2025-06-18"), ("2025-11-25", "2025-11-25")],
)
def test_every_request_of_a_session_names_it_and_its_revision(version, named):
    with in_session(plain, version=version) as linked:
        linked.call()
        linked.transport.send(READY, {}, 5)
        linked.transport.listen()
        wait_until(lambda: len(linked.server.requests) == 4)
    first, *others = linked.server.requests
    assert "mcp-session-id" not in first.headers
    assert "mcp-protocol-version" not in first.headers
    assert [request.method for request in others] == ["POST", "POST", "GET", "DELETE"]
    for request in others:
        assert request.headers["mcp-session-id"] == "the-session"
        assert request.headers.get("mcp-protocol-version") == named
    assert others[2].headers["accept"] == "text/event-stream"


def test_a_server_without_sessions_gets_no_id_and_no_farewell():
    with in_session(plain, id=None) as linked:
        linked.call()
    assert [request.method for request in linked.server.requests] == ["POST", "POST"]
    assert "mcp-session-id" not in linked.server.requests[1].headers


def test_the_id_may_come_with_a_stream():
    def answer(request, peer):
        if request.message["method"] == "initialize":
            peer.stream(mcp_session_id="streamed").event(result(0)).end()
        else:
            plain(request, peer)

    with Linked(answer) as linked:
        linked.call(HELLO)
        linked.transport.settle("2025-11-25")
        linked.call()
        assert linked.server.requests[1].headers["mcp-session-id"] == "streamed"
        linked.transport.session.id = None


def test_a_session_that_the_server_forgot_is_told_apart_and_begun_anew():
    gone = []

    def answer(request, peer):
        if gone and request.headers.get("mcp-session-id") == "the-session":
            body = {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Session not found"}}
            peer.json(body, 404)
        else:
            plain(request, peer)

    with in_session(answer) as linked:
        gone.append(True)
        with pytest.raises(SessionExpired) as caught:
            linked.call()
        assert caught.value.retry == "always"
        with pytest.raises(SessionExpired):
            linked.transport.send(READY, {}, 5)
        linked.call(HELLO)
        assert "mcp-session-id" not in linked.server.requests[-1].headers
        assert "mcp-protocol-version" not in linked.server.requests[-1].headers
        gone.clear()
        linked.call()


@pytest.mark.parametrize("id", [None, PING["id"]])
def test_the_400_of_the_official_typescript_examples_means_a_forgotten_session(id):
    said = {"code": -32000, "message": "Bad Request: No valid session ID provided"}
    refusal = {"jsonrpc": "2.0", "id": id, "error": said}

    def answer(request, peer):
        peer.json(refusal, 400)

    with in_session(answer) as linked, pytest.raises(SessionExpired, match="No valid session ID"):
        linked.call()
    with in_session(answer, id=None) as linked:
        assert linked.call() == [refusal]


def test_a_404_without_a_session_is_a_status():
    with in_session(lambda request, peer: peer.body(status=404), id=None) as linked, pytest.raises(HTTPStatus):
        linked.call()


@pytest.mark.parametrize("id", ["a b", "\u00e4", "x" * 5000, "a\tb"])
def test_an_id_with_other_characters_is_refused(id):
    def answer(request, peer):
        peer.json(result(0), Mcp_Session_Id=id)

    with Linked(answer) as linked, pytest.raises(ProtocolError):
        linked.call(HELLO)


def test_a_modern_server_gets_no_session():
    with in_session(plain, version="2026-07-28") as linked:
        linked.call()
        linked.transport.listen()
    assert [request.method for request in linked.server.requests] == ["POST", "POST"]
    assert "mcp-session-id" not in linked.server.requests[1].headers


def test_the_id_is_in_no_log_and_no_message(caplog):
    caplog.set_level(logging.DEBUG)

    def answer(request, peer):
        peer.body(status=500 if request.method == "POST" else 404)

    with in_session(answer, id="s3cr3t") as linked:
        linked.transport.listen()
        with pytest.raises(HTTPStatus) as caught:
            linked.call()
        wait_until(lambda: any(request.method == "GET" for request in linked.server.requests))
    assert "s3cr3t" not in caplog.text + str(caught.value) + repr(caught.value)


def test_the_farewell_is_not_waited_for_forever_and_may_fail(monkeypatch):
    monkeypatch.setattr(legacy_http, "_BYE_S", 0.2)
    over = threading.Event()

    def answer(request, peer):
        if request.method == "DELETE":
            over.wait(60)

    with in_session(answer) as linked:
        began = time.monotonic()
        linked.transport.close()
        assert time.monotonic() - began < 30
        over.set()
        wait_until(lambda: linked.server.requests[-1].method == "DELETE")


# Streams that are gone on with


def test_a_stream_that_ends_early_is_gone_on_with_after_the_wait_the_server_wants():
    at = []

    def answer(request, peer):
        at.append(time.monotonic())
        if request.method == "POST":
            peer.stream().event("", "id: 4-0", "retry: 300").event(NOTE, "id: 4-1")
            # Before its end, after which the client may come again at any moment.
            at[-1] = time.monotonic()
            peer.end()
        elif request.method == "GET":
            peer.stream().event("", "id: 4-1b").event(result(), "id: 4-2").end()
        else:
            peer.body(status=405)

    with in_session(answer) as linked:
        assert linked.call() == [NOTE, result()]
        get = linked.server.requests[2]
        assert (get.method, get.headers["last-event-id"]) == ("GET", "4-1")
        assert get.headers["mcp-session-id"] == "the-session"
        assert get.headers["accept"] == "text/event-stream"
        assert 0.28 <= at[1] - at[0] < 10


def test_a_broken_stream_is_gone_on_with_as_often_as_something_comes():
    numbers = iter(range(1, 100))

    def answer(request, peer):
        number = next(numbers)
        if request.method == "DELETE":
            peer.body()
        elif number < 12:
            peer.stream().event("", f"id: {number}").send(b"20\r\ndata: {").hang_up()
        else:
            peer.stream().event(result()).end()

    with in_session(answer) as linked:
        assert linked.call() == [result()]
        gets = [request.headers["last-event-id"] for request in linked.server.requests if request.method == "GET"]
        assert gets == [str(number) for number in range(1, 12)]


def test_attempts_that_bring_nothing_are_bounded(monkeypatch):
    monkeypatch.setattr(legacy_http, "RETRY_S", 0.002)

    def answer(request, peer):
        if request.method == "POST":
            peer.stream().event("", "id: 1").end()
        elif request.method == "GET":
            peer.hang_up()
        else:
            peer.body()

    with in_session(answer) as linked:
        with pytest.raises(ConnectionLost) as caught:
            linked.call()
        assert caught.value.retry == "idempotent"
        assert sum(request.method == "GET" for request in linked.server.requests) == 5


def test_a_server_that_is_gone_when_its_stream_is_to_be_gone_on_with(monkeypatch):
    monkeypatch.setattr(legacy_http, "RETRY_S", 0.002)

    def answer(request, peer):
        if request.method == "POST":
            linked.server.stop_listening()
            peer.stream().event("", "id: 1").hang_up()
        else:
            peer.body()

    with in_session(answer) as linked:
        with pytest.raises(ConnectionLost, match="broke 6 times before the response: No connection to") as caught:
            linked.call()
        assert caught.value.retry == "idempotent"


def test_a_stream_without_ids_is_lost():
    def answer(request, peer):
        peer.stream().event(NOTE).end() if request.method == "POST" else peer.body()

    with in_session(answer) as linked:
        with pytest.raises(ConnectionLost):
            linked.call()
        assert not any(request.method == "GET" for request in linked.server.requests)


@pytest.mark.parametrize("status", [405, 404, 400])
def test_a_stream_that_the_server_will_not_go_on_with_is_lost(status):
    def answer(request, peer):
        peer.stream().event("", "id: 1").end() if request.method == "POST" else peer.body(status=status)

    with in_session(answer) as linked:
        with pytest.raises(ConnectionLost) as caught:
            linked.call()
        # The request may have run.
        assert not isinstance(caught.value, SessionExpired)
        assert caught.value.retry == "idempotent"


def test_waiting_to_go_on_can_time_out_and_be_aborted():
    def answer(request, peer):
        peer.stream().event("", "id: 1", "retry: 60000").end() if request.method == "POST" else peer.body()

    with in_session(answer) as linked:
        exchange = linked.transport.start(PING, {}, 5)
        for _ in range(2):
            with pytest.raises(Timeout):
                exchange.receive(0.05)
        ending = threading.Timer(0.1, exchange.abort, [ConnectionLost("enough")])
        ending.start()
        with pytest.raises(ConnectionLost, match="enough"):
            exchange.receive(20)
        ending.join()
        other = linked.transport.start(PING, {}, 5)
        with pytest.raises(Timeout):
            other.receive(0.05)
        threading.Timer(0.1, linked.transport.close).start()
        with pytest.raises(ConnectionLost):
            other.receive(20)


# The GET stream


def test_the_get_stream_brings_messages_and_is_opened_again_where_it_ended():
    question = {"jsonrpc": "2.0", "id": 5, "method": "roots/list"}
    over = threading.Event()
    gets = []

    def answer(request, peer):
        if request.method != "GET":
            plain(request, peer)
            return
        gets.append(request)
        if len(gets) == 1:
            peer.stream().event("", "id: 0-0", "retry: 20").event(CHANGED, "id: 0-1").event(result(77)).end()
        elif len(gets) == 2:
            peer.stream().event("{", "id: 0-2").event(question, "id: 0-3")
            peer.hang_up()
        else:
            peer.stream().event(CHANGED)
            over.wait(10)

    heard = []
    with in_session(answer) as linked:
        linked.transport.on_message = heard.append
        linked.transport.listen()
        linked.transport.listen()
        wait_until(lambda: len(heard) == 3)
        assert heard == [CHANGED, question, CHANGED]
        assert [get.headers.get("last-event-id") for get in gets] == [None, "0-1", "0-3"]
        assert sum(thread.name == "minimcp-stream" for thread in threading.enumerate()) == 1
        linked.call()
        linked.transport.close()
        over.set()
        assert not any(thread.name == "minimcp-stream" for thread in threading.enumerate())


@pytest.mark.parametrize("status", [405, 404, 400])
def test_a_server_without_a_get_stream_is_not_asked_again(status, caplog):
    caplog.set_level(logging.INFO)

    def answer(request, peer):
        plain(request, peer) if request.method != "GET" else peer.body(status=status)

    with in_session(answer) as linked:
        linked.transport.listen()
        wait_until(lambda: not any(thread.name == "minimcp-stream" for thread in threading.enumerate()))
        assert sum(request.method == "GET" for request in linked.server.requests) == 1
        assert caplog.messages == []
        linked.call()


def test_an_id_that_was_reset_is_not_sent():
    gets = []

    def answer(request, peer):
        if request.method != "GET":
            plain(request, peer)
            return
        gets.append(request.headers.get("last-event-id"))
        lines = {1: ["id: a"], 2: ["id:"], 3: ["id: x\0y"], 4: ["id: \u20ac"]}.get(len(gets), [])
        peer.stream().event(CHANGED, *lines).end()

    with in_session(answer) as linked:
        linked.transport.listen()
        wait_until(lambda: len(gets) > 4)
    assert gets[:5] == [None, "a", None, None, "\u20ac".encode().decode("latin-1")]


def test_the_calls_and_the_polls_of_our_own_server():
    server = Server("mine", "1")

    @server.tool
    def work(ctx: Context) -> str:
        ctx.progress(1, 2)
        ctx.close_stream()
        ctx.progress(2, 2)
        return "done"

    with embedded(server.wsgi) as running:
        link = HttpTransport(f"http://127.0.0.1:{running.port}/mcp")
        link.open(5)
        heard = []
        link.on_message = heard.append
        assert received(link.start(HELLO, {}, 5))[-1]["result"]["protocolVersion"] == "2025-11-25"
        link.settle("2025-11-25")
        link.send(READY, {}, 5)
        link.listen()
        params = {"name": "work", "arguments": {}, "_meta": {"progressToken": 2}}
        found = received(link.start({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params}, {}, 10))
        assert found[-1]["result"]["content"] == [{"type": "text", "text": "done"}]
        assert [each["params"]["progress"] for each in found[:-1]] == [1, 2]

        @server.tool
        def another() -> str:
            return ""

        wait_until(lambda: CHANGED["method"] in [message["method"] for message in heard])
        old = link.session.id
        link.close()
        # The session is over.
        link.open(5)
        link.session.id = old
        with pytest.raises(SessionExpired):
            link.start(PING, {}, 5).receive(20)
        link.session.id = None
        link.close()
