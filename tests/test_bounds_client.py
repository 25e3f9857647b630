"""What a server may send to a client at most, and that whatever it sends ends in one kind of exception."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time

import pytest

import minimcp
from minimcp import Client, ClientError, ProtocolError, Server
from minimcp.client import methods as module
from minimcp.client import tasks
from minimcp.client.transports import legacy_http, transport
from minimcp.client.transports.stdio import StdioTransport
from minimcp.engines.http_client import connections
from minimcp.engines.http_client.connections import HttpConnections
from tests.embedded import wait_until
from tests.helpers import Clock, serving
from tests.played import DISCOVERED, Scripted
from tests.scripted import PING, Linked, result, scripted

ECHO = "import sys\nfor line in sys.stdin: sys.stdout.write(line); sys.stdout.flush()"


def kind_of(value):
    return type(value).__name__


@pytest.fixture(scope="module")
def toy():
    server = Server("toy")

    @server.tool(
        input_schema={
            "type": "object",
            "properties": {"region": {"type": "string", "x-mcp-header": "Region"}, "number": {}},
        }
    )
    def add(**arguments) -> str:
        return json.dumps(arguments)

    with serving(server.wsgi) as url:
        yield server, f"{url}/mcp"


# Raw exceptions


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**5000, {1, 2}, b"x", object()], ids=kind_of)
@pytest.mark.parametrize("kind", ["memory", "wsgi", "http", "stdio"])
def test_what_json_cannot_say_is_a_client_error_on_every_transport(toy, kind, value):
    server, url = toy
    targets = {"memory": server, "wsgi": server.wsgi, "http": url}
    if kind == "stdio":
        link = StdioTransport([sys.executable, "-c", ECHO])
        link.open(5)
        try:
            with pytest.raises(ProtocolError, match="cannot be written as JSON"):
                link.start({**PING, "params": {"x": value}}, {}, 5)
        finally:
            link.close()
        return
    with Client(targets[kind]) as client:
        with pytest.raises(ProtocolError, match="cannot be written as JSON"):
            client.call_tool("add", number=value)
        assert client.call_tool("add", number=1).text == '{"number": 1}'


@pytest.mark.parametrize("value", ["\ud800", ["a"], {"a": 1}, 10**5000], ids=kind_of)
def test_an_argument_without_a_form_as_a_header_is_a_client_error(toy, value):
    with Client(toy[1]) as client:
        client.list_tools()
        with pytest.raises(ClientError):
            client.call_tool("add", region=value)
        with pytest.raises(ClientError):
            client.call_tool("\ud800")
        assert client.call_tool("add", region="é").text == '{"region": "\\u00e9"}'


@pytest.mark.parametrize("digits", [19, 400, 5000, 60_000])
def test_a_length_of_many_digits_is_refused_as_too_long(digits):
    def answer(request, peer):
        peer.head(200, Content_Type="application/json", Content_Length="9" * digits)

    with Linked(answer) as linked, pytest.raises(ProtocolError, match="67108864 bytes|longer than"):
        linked.call()


def test_a_length_may_begin_with_zeros():
    body = json.dumps(result()).encode()

    def answer(request, peer):
        peer.head(200, Content_Type="application/json", Content_Length="0" * 5000 + str(len(body))).send(body)

    with Linked(answer) as linked:
        assert linked.call() == [result()]


@pytest.mark.parametrize(
    ("given", "seconds"),
    [(10**400, 60.0), (1e308, 60.0), (0, 0.02), (-5, 0.02), (250, 0.25), (None, 1.0), (True, 1.0), ("9", 1.0)],
)
def test_the_interval_of_polls_is_the_servers_within_bounds(given, seconds):
    assert tasks._pause_s({"pollIntervalMs": given}) == seconds


def test_the_servers_interval_of_polls_is_kept(monkeypatch):
    polls = []
    task = {"resultType": "task", "taskId": "1", "status": "working", "pollIntervalMs": 150}

    def get(params, say):
        polls.append(time.monotonic())
        done = len(polls) == 3
        return (
            {**task, "status": "completed", "result": {"content": []}} if done else {**task, "resultType": "complete"}
        )

    discovered = {**DISCOVERED, "capabilities": {"tools": {}, "extensions": {"io.modelcontextprotocol/tasks": {}}}}
    server = Scripted(
        tools_call=lambda params, say: polls.append(time.monotonic()) or polls.clear() or task,
        tasks_get=get,
        server_discover=lambda params, say: discovered,
    )
    with Client(server, tasks=True) as client:
        began = time.monotonic()
        client.call_tool("x")
    assert [later - earlier >= 0.14 for earlier, later in zip([began, *polls], polls)] == [True] * 3


# Bounds of bytes, time and number


def paged(text="", wait=None):
    def tools_list(params, say):
        number = int(params.get("cursor", 0))
        if wait is not None:
            wait.wait(0.05)
        return {"tools": [{"name": f"t{number}", "inputSchema": {"description": text}}], "nextCursor": str(number + 1)}

    return Scripted(tools_list=tools_list)


def test_pages_are_counted_in_bytes(monkeypatch):
    monkeypatch.setattr(module, "MAX_LIST_BYTES", 100_000)
    server = paged("x" * 9_000)
    with Client(server) as client, pytest.raises(ProtocolError, match="larger than 100000 bytes"):
        client.list_tools()
    assert 5 < len(server.all("tools/list")) < 13


def test_pages_are_counted_in_time():
    with Client(paged(wait=threading.Event()), timeout=5, max_timeout=0.5) as client:
        began = time.monotonic()
        with pytest.raises(minimcp.Timeout):
            client.list_tools()
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("retry", [0, 1])
def test_a_stream_is_not_asked_for_again_at_once_however_the_server_wishes(retry):
    asked = []

    def answer(request, peer):
        if request.method == "GET":
            asked.append(time.monotonic())
            peer.stream().chunk(f"retry: {retry}\n\n".encode()).end()
        else:
            peer.body(b"", 202)

    with Linked(answer, version="2025-11-25") as linked:
        linked.transport.listen()
        wait_until(lambda: len(asked) >= 10)
        linked.transport.session.end()
    assert asked[9] - asked[0] >= 0.1


def test_a_stream_whose_thread_does_not_start_is_tried_again(monkeypatch):
    class NoThread(threading.Thread):
        def start(self):
            raise RuntimeError("can't start new thread")

    def answer(request, peer):
        peer.body(b"", 405)

    with Linked(answer, version="2025-11-25") as linked:
        with monkeypatch.context() as patch:
            patch.setattr(legacy_http.threading, "Thread", NoThread)
            with pytest.raises(minimcp.ConnectionLost, match="No thread could be started") as caught:
                linked.transport.listen()
        assert caught.value.retry == "always" and transport.begin
        linked.transport.listen()
        linked.transport.session._listening().stream.thread.join(20)
        assert [request.method for request in linked.server.requests] == ["GET"]


def test_the_addresses_of_a_name_share_one_time(monkeypatch):
    dead = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"192.0.2.{number}", 9)) for number in range(4)]
    given, clock = [], Clock()

    class Dead:
        def __init__(self, *_):
            self.timeout = None

        def settimeout(self, seconds):
            self.timeout = seconds

        def connect(self, address):
            given.append((address[0], self.timeout))
            clock.now += self.timeout
            raise socket.timeout("timed out")

        def close(self):
            pass

    monkeypatch.setattr(connections.socket, "getaddrinfo", lambda *_, **__: dead)
    monkeypatch.setattr(connections.socket, "socket", Dead)
    monkeypatch.setattr(connections.time, "monotonic", clock)
    with pytest.raises(minimcp.Timeout, match="No connection"):
        HttpConnections("http://four.example:9/")._connect(1000.8)
    assert clock.now == pytest.approx(1000.8)
    assert [address for address, _ in given] == [f"192.0.2.{number}" for number in range(4)]
    assert [seconds for _, seconds in given] == pytest.approx([0.2] * 4)


def test_the_next_address_is_used_when_one_is_dead(monkeypatch):
    with scripted(lambda request, peer: peer.json(result())) as server:
        real = socket.getaddrinfo("127.0.0.1", server.port, type=socket.SOCK_STREAM)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
            refused = [(*real[0][:4], taken.getsockname())]
            monkeypatch.setattr(connections.socket, "getaddrinfo", lambda *_, **__: refused + real)
            with HttpConnections(server.url)._connect(time.monotonic() + 60) as sock:
                assert sock.getpeername()[1] == server.port


@pytest.mark.parametrize(
    "identifier", ["noprefix", "", "/x", "com.example/", "com example/x", "é.example/x", 5, "-a/x"]
)
def test_an_extension_is_named_with_a_prefix(identifier):
    with pytest.raises(ValueError, match="named with a prefix"):
        Client(Server("s"), extensions={identifier: {}})
    with pytest.raises(ValueError, match="named with a prefix"):
        Server("s").use(type("Extension", (), {"identifier": identifier})())
