"""Readers of streams that hang up: their place and their thread are free at once, long before the next comment."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from typing import Any

import pytest

from minimcp import Context, Server
from minimcp.transports import hangups
from minimcp.transports.streams import open_streams
from tests.embedded import Wire, embedded, wait_until
from tests.helpers import BOTH, http_headers, modern
from tests.test_admission import certificate  # noqa: F401
from tests.test_wsgi_limits import connections

pytestmark = pytest.mark.skipif(not hangups._EVENTS, reason="the system cannot watch sockets")
SOON_S = 15.0


def server(**limits: float) -> tuple[Server, threading.Event, threading.Event]:
    """A server that sends no comment while a test runs, and events for its tool's start and cancellation."""
    found = Server("s", limits={"keepalive_s": 120, "silence_s": 120, **limits})
    running, cancelled = threading.Event(), threading.Event()

    @found.tool
    def patience(ctx: Context, talk: bool = False) -> str:
        if talk:
            ctx.progress(1)
        running.set()
        if ctx.cancelled.wait(60):
            cancelled.set()
        return "never read"

    return found, running, cancelled


def request(wire: Wire, message: dict[str, Any] | None, path: str = "/mcp", **fields: str) -> Wire:
    """Send a request."""
    body = b"" if message is None else json.dumps(message).encode()
    method = "GET" if message is None else "POST"
    headers = {"Host": "localhost", "Accept": BOTH, **fields}
    if message is not None:
        headers.update({**http_headers(message), "Content-Length": str(len(body))})
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return wire.send("\r\n".join(lines).encode() + body)


LISTEN = modern("subscriptions/listen", notifications={"toolsListChanged": True})


def call(talk: bool) -> dict[str, Any]:
    return modern("tools/call", meta={"progressToken": 1}, name="patience", arguments={"talk": talk})


@pytest.mark.parametrize("how", ["close", "reset", "half"])
@pytest.mark.parametrize("path, message", [("/mcp", LISTEN), ("/sse", None)])
def test_the_place_of_a_stream_is_free_at_once(path: str, message: Any, how: str) -> None:
    found, *_ = server()
    before = open_streams().used
    with embedded(found.wsgi) as listening:
        for _ in range(5):
            with Wire(listening) as wire:
                request(wire, message, path).until(b"data: ")
                assert open_streams().used == before + 1
                if how == "reset":
                    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                if how == "half":
                    wire.socket.shutdown(socket.SHUT_WR)
                    wait_until(lambda: open_streams().used == before, SOON_S)
            wait_until(lambda: open_streams().used == before, SOON_S)
        wait_until(lambda: connections() == 0, SOON_S)
        assert hangups.hangups().is_idle()


@pytest.mark.parametrize("talk", [False, True])
def test_a_call_whose_client_hangs_up_is_cancelled_at_once(talk: bool) -> None:
    found, running, cancelled = server()
    with embedded(found.wsgi) as listening:
        with Wire(listening) as wire:
            request(wire, call(talk))
            assert running.wait(10)
        assert cancelled.wait(SOON_S)
        wait_until(lambda: connections() == 0, SOON_S)


def test_a_hundred_streams_that_are_opened_and_dropped_leave_nothing() -> None:
    found, *_ = server(streams=10)
    before = open_streams().used
    with embedded(found.wsgi) as listening:
        for _ in range(10):
            wires = [request(Wire(listening), LISTEN) for _ in range(10)]
            for wire in wires:
                assert b"toolsListChanged" in wire.until(b"\n\n")
                wire.socket.close()
            wait_until(lambda: open_streams().used == before, SOON_S)
        wait_until(lambda: connections() == 0, SOON_S)


def test_a_hang_up_is_noticed_under_tls(certificate: tuple[str, str]) -> None:  # noqa: F811
    found, *_ = server()
    before = open_streams().used
    context = ssl.create_default_context(cafile=certificate[0])
    with embedded(found.wsgi, tls=certificate) as listening:
        for politely in (True, False):
            with Wire(listening) as wire:
                wire.socket = context.wrap_socket(wire.socket, server_hostname="localhost")
                request(wire, LISTEN).until(b"data: ")
                if politely:
                    wire.socket.settimeout(0.5)
                    with pytest.raises((OSError, ValueError)):
                        # Says that its session ends, and waits for an answer in vain.
                        wire.socket.unwrap()
            wait_until(lambda: open_streams().used == before, SOON_S)


def test_a_legacy_call_goes_on_and_its_thread_is_free() -> None:
    found, running, cancelled = server()
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
    with embedded(found.wsgi) as listening:
        with Wire(listening) as wire:
            begin = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
            body = json.dumps(begin).encode()
            head = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            wire.send(f"{head}Accept: {BOTH}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            session = wire.head()[1]["mcp-session-id"]
        with Wire(listening) as wire:
            said = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "patience", "arguments": {}}}
            body = json.dumps(said).encode()
            fields = f"Mcp-Session-Id: {session}\r\nContent-Length: {len(body)}\r\n\r\n"
            wire.send(f"{head}Accept: {BOTH}\r\n{fields}".encode() + body)
            assert running.wait(10)
        wait_until(lambda: connections() == 0, SOON_S)
        assert not cancelled.is_set()
        found.close()


def test_a_stream_whose_client_sends_its_next_request_early_goes_on() -> None:
    found, *_ = server()
    with embedded(found.wsgi) as listening, Wire(listening) as wire:
        request(wire, LISTEN).until(b"\n\n")
        request(wire, modern("server/discover"))
        found.tool(lambda: "x", "late")
        assert b"list_changed" in wire.until(b"\n\n")
        found.close()


def test_where_no_thread_can_be_started_streams_are_served_all_the_same(monkeypatch: Any) -> None:
    watcher = hangups.Hangups()
    start = threading.Thread.start

    def failing(thread: threading.Thread) -> None:
        if thread.name == "minimcp-hangups":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", failing)
    with socket.socket() as own:
        watcher.watch(own.fileno(), own.close)
        watcher.forget(own.fileno(), own.close)
    assert not watcher._running


@pytest.mark.parametrize("exposed", [None, object(), socket.socket])
def test_what_is_no_open_socket_is_not_watched(exposed: Any) -> None:
    if exposed is socket.socket:
        exposed = socket.socket()
        exposed.close()
    hangups.watch({"gunicorn.socket": exposed}, lambda: None)()
    assert hangups.hangups().is_idle()
