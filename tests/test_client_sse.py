"""The HTTP+SSE link of the client: one stream that brings everything, and POSTs that are only accepted."""

from __future__ import annotations

import os
import threading

import pytest

from minimcp import Context, Server
from minimcp.client.errors import HTTPStatus, UsedAfterFork
from minimcp.client.transports.http_sse import HttpSseTransport
from minimcp.engines.errors import ConnectionLost, ProtocolError, Timeout
from tests.embedded import embedded, wait_until
from tests.scripted import NOTE, PING, received, result, scripted

HELLO = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}},
}
READY = {"jsonrpc": "2.0", "method": "notifications/initialized"}
CHANGED = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}


class Door:
    """A scripted server with both endpoints; what is POSTed is answered by `reply(message)`, a list of messages."""

    def __init__(self, reply=lambda message: [result(message["id"])], endpoint="/messages?id=1", status=202):
        self.reply = reply
        self.endpoint = endpoint
        self.status = status
        self.stream = None
        self.over = threading.Event()

    def __call__(self, request, peer):
        if request.method == "GET":
            self.stream = peer.stream()
            self.stream.event(self.endpoint, "event: endpoint")
            self.over.wait(20)
            peer.hang_up()
            return
        peer.body(b"Accepted", self.status)
        if self.status == 202 and "id" in request.message:
            for message in self.reply(request.message):
                self.stream.event(message, "event: message")


def opened(server, **options):
    link = HttpSseTransport(server.origin + "/sse", **options)
    link.open(5)
    return link


def served(door):
    class Context:
        def __enter__(self):
            self._scripted = scripted(door)
            return self._scripted.__enter__()

        def __exit__(self, *_):
            door.over.set()
            self._scripted.__exit__(None, None, None)

    return Context()


def test_messages_are_posted_where_the_server_says_and_answered_on_the_stream():
    heard = []
    door = Door(lambda message: [CHANGED, NOTE, result(message["id"])])
    with served(door) as server:
        link = opened(server, headers={"X-Key": "k"}, auth=("user", "password"))
        link.on_message = heard.append
        link.record = lambda *arguments, **more: records.append(arguments[:2])
        records = []
        exchange = link.start(PING, {"Mcp-Method": "ping"}, 5)
        assert received(exchange) == [NOTE, result()]
        assert len(exchange.identity) == 16
        link.send(READY, {}, 5)
        wait_until(lambda: heard)
        assert heard == [CHANGED]
        assert records == [
            ("sent", PING),
            ("received", CHANGED),
            ("received", NOTE),
            ("received", result()),
            ("sent", READY),
        ]
        link.close()
        link.close()
    get, *posts = server.requests
    assert (get.method, get.path, get.headers["accept"]) == ("GET", "/sse", "text/event-stream")
    assert [(post.method, post.path) for post in posts] == [("POST", "/messages?id=1")] * 2
    for request in server.requests:
        assert request.headers["x-key"] == "k"
        assert request.headers["authorization"] == "Basic dXNlcjpwYXNzd29yZA=="
    assert not any("mcp-method" in post.headers for post in posts)


def test_answers_find_their_requests_in_any_order():
    waiting = []

    def reply(message):
        waiting.append(result(message["id"]))
        return [*reversed(waiting), result("0"), result(99)] if len(waiting) == 8 else []

    with served(Door(reply)) as server:
        link = opened(server)
        found = {}

        def call(id):
            found[id] = received(link.start({**PING, "id": id}, {}, 5))

        threads = [threading.Thread(target=call, args=(id,)) for id in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert found == {id: [result(id)] for id in range(8)}
        link.close()


@pytest.mark.parametrize("endpoint", ["messages?id=1", "{origin}/messages?id=1"])
def test_the_address_may_be_relative_or_absolute(endpoint):
    door = Door()
    with served(door) as server:
        door.endpoint = endpoint.format(origin=server.origin)
        link = opened(server)
        assert received(link.start(PING, {}, 5)) == [result()]
        assert server.requests[1].path == "/messages?id=1"
        link.close()


@pytest.mark.parametrize(
    "endpoint", ["http://localhost:{port}/m?k=abc", "https://127.0.0.1:{port}/m?k=abc", "//evil.example/m?k=abc"]
)
def test_an_address_of_another_origin_is_refused(endpoint):
    door = Door()
    with served(door) as server:
        door.endpoint = endpoint.format(port=server.port)
        link = HttpSseTransport(server.origin + "/sse")
        with pytest.raises(ProtocolError, match="another origin") as caught:
            link.open(5)
        assert "abc" not in str(caught.value)
        link.close()
        assert len(server.requests) == 1


def test_what_is_no_stream_is_an_error():
    def refuse(request, peer):
        peer.body(b"no", 404) if request.path == "/a" else peer.json({})

    with scripted(refuse) as server:
        with pytest.raises(HTTPStatus) as caught:
            HttpSseTransport(server.origin + "/a").open(5)
        assert caught.value.status == 404
        with pytest.raises(ProtocolError):
            HttpSseTransport(server.origin + "/b").open(5)


def test_a_stream_that_does_not_say_where_to_post():
    over = threading.Event()

    def silent(request, peer):
        peer.stream()
        if request.path == "/silent":
            assert peer.left()
        elif request.path == "/other":
            peer.event(CHANGED, "event: message")
        over.set()
        peer.hang_up()

    with scripted(silent) as server:
        while not server.requests:
            # The time may be up before anything was sent.
            with pytest.raises(Timeout):
                HttpSseTransport(server.origin + "/silent").open(0.1)
        # It has hung up.
        assert over.wait(10)
        with pytest.raises(ProtocolError):
            HttpSseTransport(server.origin + "/other").open(5)
        with pytest.raises(ConnectionLost):
            HttpSseTransport(server.origin + "/closed").open(5)


def test_a_post_that_is_refused_is_an_error_of_that_request():
    door = Door(status=404)
    with served(door) as server:
        link = opened(server)
        with pytest.raises(HTTPStatus):
            link.start(PING, {}, 5)
        with pytest.raises(HTTPStatus):
            link.send(READY, {}, 5)
        door.status = 202
        assert received(link.start(PING, {}, 5)) == [result()]
        link.close()


def test_a_stream_that_ends_fails_all_and_is_told_once():
    lost = []
    door = Door(lambda message: [])
    with served(door) as server:
        link = opened(server)
        link.on_lost = lost.append
        exchange = link.start(PING, {}, 5)
        door.over.set()
        with pytest.raises(ConnectionLost) as caught:
            exchange.receive(10)
        assert caught.value.retry == "idempotent"
        wait_until(lambda: lost)
        with pytest.raises(ConnectionLost) as caught:
            link.start(PING, {}, 5)
        assert caught.value.retry == "always"
        assert len(lost) == 1
        # It can be opened again.
        door.over.clear()
        door.reply = lambda message: [result(message["id"])]
        link.open(5)
        assert received(link.start(PING, {}, 5)) == [result()]
        link.close()
        assert len(lost) == 1


def test_a_call_fails_once_the_loss_is_told():
    lost, door = [], Door(lambda message: [])
    with served(door) as server:
        link = opened(server)
        link.on_lost = lambda error: (threading.Event().wait(0.3), lost.append(error))
        exchange = link.start(PING, {}, 5)
        door.over.set()
        with pytest.raises(ConnectionLost):
            exchange.receive(20)
        assert len(lost) == 1
        link.close()


def test_closing_fails_what_is_open_and_is_not_a_loss():
    lost = []
    with served(Door(lambda message: [])) as server:
        link = opened(server)
        link.on_lost = lost.append
        exchange = link.start(PING, {}, 5)
        with pytest.raises(Timeout):
            exchange.receive(0.05)
        link.close()
        with pytest.raises(ConnectionLost):
            exchange.receive(20)
        with pytest.raises(ConnectionLost):
            link.send(READY, {}, 5)
    assert lost == []


def test_a_forked_child_cannot_use_the_stream_of_its_parent(monkeypatch):
    with served(Door()) as server:
        link = opened(server)
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: 1)
            with pytest.raises(UsedAfterFork):
                link.start(PING, {}, 5)
        assert received(link.start(PING, {}, 5)) == [result()]
        link.close()


def test_garbage_on_the_stream_is_dropped():
    with served(Door(lambda message: ["{", "[1]", '{"jsonrpc":"2.0","id":1}', NOTE, result()])) as server:
        link = opened(server)
        assert received(link.start(PING, {}, 5)) == [NOTE, result()]
        link.close()


def test_our_own_server_answers():
    server = Server("mine", "1")

    @server.tool
    def count(to: int, ctx: Context) -> str:
        for number in range(to):
            ctx.progress(number + 1, to)
        return "counted"

    with embedded(server.wsgi) as running:
        link = HttpSseTransport(f"http://127.0.0.1:{running.port}/sse")
        link.open(5)
        link.open(5)
        assert received(link.start(HELLO, {}, 5))[-1]["result"]["protocolVersion"] == "2024-11-05"
        link.send(READY, {}, 5)
        params = {"name": "count", "arguments": {"to": 3}, "_meta": {"progressToken": 7}}
        found = received(link.start({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}, {}, 10))
        assert [each["params"]["progress"] for each in found[:-1]] == [1, 2, 3]
        assert found[-1]["result"]["content"] == [{"type": "text", "text": "counted"}]
        link.close()
        server.close()
