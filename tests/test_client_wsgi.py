"""The link to a WSGI callable: the same conversations as over HTTP, without a port."""

from __future__ import annotations

import json
import threading

import pytest

from minimcp import Context, Server
from minimcp.client.errors import HTTPStatus
from minimcp.client.transports.transport import SessionExpired
from minimcp.client.transports.wsgi import WsgiTransport
from minimcp.engines.errors import ConnectionLost, ProtocolError, Timeout
from tests.embedded import wait_until
from tests.helpers import http_headers, modern
from tests.scripted import NOTE, PING, received, result

HELLO = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}},
}
READY = {"jsonrpc": "2.0", "method": "notifications/initialized"}


class App:
    """An application that answers with what it is given and remembers its environs."""

    def __init__(self, body=None, status="200 OK", headers=(("Content-Type", "application/json"),)):
        self.environs = []
        self.closed = 0
        self.taken = 0
        self._body = [json.dumps(result()).encode()] if body is None else body
        self._status, self._headers = status, list(headers)

    def __call__(self, environ, start_response):
        self.environs.append({**environ, "body": environ["wsgi.input"].read()})
        start_response(self._status, self._headers)
        self._pieces = iter(self._body)
        return self

    def __iter__(self):
        return self

    def __next__(self):
        piece = next(self._pieces)
        self.taken += 1
        return piece

    def close(self):
        self.closed += 1


def linked(app, **options):
    link = WsgiTransport(app, **options)
    link.open(5)
    return link


def event(message):
    return b"data: " + json.dumps(message).encode() + b"\n\n"


def test_the_application_sees_a_request_with_headers_and_credentials():
    app = App()
    link = linked(app, url="https://host.example:8443/base/mcp?x=1", headers={"X-Key": "k"}, auth=("user", "password"))
    exchange = link.start(PING, {"Mcp-Method": "ping"}, 5)
    assert exchange.receive(20) == result()
    assert exchange.status == 200
    assert len(exchange.identity) == 16
    (environ,) = app.environs
    assert json.loads(environ["body"]) == PING
    assert environ["REQUEST_METHOD"] == "POST"
    assert environ["PATH_INFO"] == "/base/mcp"
    assert environ["QUERY_STRING"] == "x=1"
    assert environ["HTTP_HOST"] == "host.example:8443"
    assert environ["wsgi.url_scheme"] == "https"
    assert environ["CONTENT_TYPE"] == "application/json"
    assert environ["CONTENT_LENGTH"] == str(len(environ["body"]))
    assert environ["HTTP_ACCEPT"] == "application/json, text/event-stream"
    assert environ["HTTP_MCP_METHOD"] == "ping"
    assert environ["HTTP_X_KEY"] == "k"
    assert environ["HTTP_AUTHORIZATION"] == "Basic dXNlcjpwYXNzd29yZA=="
    assert app.closed == 1
    link.close()


def test_an_auth_of_requests_adds_its_headers():
    def auth(prepared):
        prepared.headers["X-Signed"] = f"{prepared.method} {prepared.url}"
        return prepared

    app = App()
    link = linked(app, auth=auth)
    assert link.start(PING, {}, 5).receive(20) == result()
    assert app.environs[0]["HTTP_X_SIGNED"] == "POST http://localhost/mcp"
    assert json.loads(app.environs[0]["body"]) == PING
    link.close()


def test_a_stream_is_taken_piece_by_piece():
    app = App([event(NOTE), b":\n\n", event(result())], headers=[("Content-Type", "text/event-stream")])
    link = linked(app)
    exchange = link.start(PING, {}, 5)
    assert exchange.receive(20) == NOTE
    assert app.taken == 1
    assert exchange.receive(20) == result()
    assert app.closed == 1
    link.close()


def test_closing_early_tells_the_application():
    def endless():
        while True:
            yield event(NOTE)

    app = App(endless(), headers=[("Content-Type", "text/event-stream")])
    link = linked(app)
    exchange = link.start(PING, {}, 5)
    assert exchange.receive(20) == NOTE
    exchange.close()
    assert app.closed == 1
    with pytest.raises(ConnectionLost):
        exchange.receive(20)
    link.close()


def test_a_timeout_is_noticed_between_two_pieces():
    def comments():
        while True:
            threading.Event().wait(0.02)
            yield b":\n\n"

    link = linked(App(comments(), headers=[("Content-Type", "text/event-stream")]))
    exchange = link.start(PING, {}, 5)
    with pytest.raises(Timeout):
        exchange.receive(0.1)
    ending = threading.Timer(0.1, exchange.abort, [ConnectionLost("enough")])
    ending.start()
    with pytest.raises(ConnectionLost, match="enough"):
        exchange.receive(20)
    ending.join()
    link.close()


def test_an_application_that_fails():
    def fail(environ, start_response):
        raise KeyError("no such thing")

    def fail_late():
        yield event(NOTE)
        raise KeyError("no such thing")

    link = linked(fail)
    with pytest.raises(ConnectionLost, match="KeyError") as caught:
        link.start(PING, {}, 5)
    assert isinstance(caught.value.__cause__, KeyError)
    link.close()
    link = linked(App(fail_late(), headers=[("Content-Type", "text/event-stream")]))
    exchange = link.start(PING, {}, 5)
    assert exchange.receive(20) == NOTE
    with pytest.raises(ConnectionLost, match="KeyError"):
        exchange.receive(20)
    link.close()


def test_statuses_and_redirects():
    link = linked(App([b"no"], "403 Forbidden"))
    with pytest.raises(HTTPStatus) as caught:
        link.start(PING, {}, 5).receive(20)
    assert (caught.value.status, caught.value.body) == (403, "no")
    link.close()
    link = linked(App([b""], "307 Temporary Redirect", [("Location", "http://elsewhere.example/mcp")]))
    with pytest.raises(ProtocolError, match=r"elsewhere\.example"):
        link.start(PING, {}, 5).receive(20)
    link.close()


def test_cookies_are_kept():
    app = App(headers=[("Content-Type", "application/json"), ("Set-Cookie", "route=a; Path=/")])
    link = linked(app)
    for _ in range(2):
        assert link.start(PING, {}, 5).receive(20) == result()
    assert "HTTP_COOKIE" not in app.environs[0]
    assert app.environs[1]["HTTP_COOKIE"] == "route=a"
    link.close()


def counting():
    server = Server("mine", "1")

    @server.tool
    def count(to: int, ctx: Context) -> str:
        for number in range(to):
            ctx.progress(number + 1, to)
        return "counted"

    return server


def test_our_own_server_in_the_modern_era():
    link = linked(counting().wsgi)
    message = modern("tools/call", 4, meta={"progressToken": 4}, name="count", arguments={"to": 3})
    found = received(link.start(message, http_headers(message), 10))
    assert [each["params"]["progress"] for each in found[:-1]] == [1, 2, 3]
    assert found[-1]["result"]["content"] == [{"type": "text", "text": "counted"}]
    link.close()


def test_our_own_server_in_a_session_with_its_get_stream():
    server = counting()
    link = linked(server.wsgi)
    heard = []
    link.on_message = heard.append
    received(link.start(HELLO, {}, 5))
    link.settle("2025-11-25")
    link.send(READY, {}, 5)
    link.listen()
    params = {"name": "count", "arguments": {"to": 2}, "_meta": {"progressToken": 2}}
    found = received(link.start({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params}, {}, 10))
    assert found[-1]["result"]["content"] == [{"type": "text", "text": "counted"}]

    @server.tool
    def another() -> str:
        return ""

    wait_until(lambda: heard)
    assert heard == [{"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}]
    old = link.session.id
    link.close()
    link.open(5)
    link.session.id = old
    with pytest.raises(SessionExpired):
        link.start(PING, {}, 5).receive(20)
    link.session.id = None
    link.close()
