"""A 2025-11-25 call that closes its own stream, and the client that comes back for the rest."""

from __future__ import annotations

import json
import threading
from types import SimpleNamespace
from typing import Any

from minimcp import Context, Server
from minimcp.transports.legacy_http import SessionStreams
from tests.helpers import BOTH, exchange, serving

HEADERS = {"Content-Type": "application/json", "Accept": BOTH}


def open_session(url: str) -> dict[str, str]:
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "poller", "version": "1"}}
    message = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
    with exchange(url, message, HEADERS) as response:
        assert response.status == 200
        return {**HEADERS, "Mcp-Session-Id": response.headers["Mcp-Session-Id"], "MCP-Protocol-Version": "2025-11-25"}


def call(name: str) -> dict:
    return {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": name}}


def test_a_call_that_closes_its_stream_before_it_said_anything_is_primed_and_answered_on_the_next_stream() -> None:
    server, came_back = Server("polled"), threading.Event()

    @server.tool
    def leave(ctx: Context) -> str:
        ctx.close_stream(retry_ms=20)
        assert came_back.wait(20)
        return "welcome back"

    with serving(server.wsgi) as url:
        headers = open_session(url + "/mcp")
        with exchange(url + "/mcp", call("leave"), headers) as response:
            assert response.headers["Content-Type"] == "text/event-stream"
            # Read to its end, though the call still runs.
            assert response.read() == b"id: 1-0\nretry: 500\ndata: \n\nretry: 20\n\n"
        came_back.set()
        with exchange(url + "/mcp", None, {**headers, "Last-Event-ID": "1-0"}, "GET") as response:
            assert response.status == 200
            data = [line[6:] for line in response.read().splitlines() if line.startswith(b"data: {")]
    assert [json.loads(line) for line in data] == [
        {"jsonrpc": "2.0", "id": 7, "result": {"content": [{"type": "text", "text": "welcome back"}]}}
    ]


class Ended:
    """Stands for a stream that has ended; `look` is called whenever somebody asks how much it keeps."""

    def __init__(self, size: int, look: Any = None) -> None:
        self.size, self.look = size, look

    @property
    def held(self) -> int:
        if self.look is not None:
            self.look()
        return self.size


def test_a_stream_is_read_to_its_end_while_another_ends() -> None:
    every: Any = SessionStreams()
    owner: Any = SimpleNamespace(limits={"event_bytes": 1000, "event_s": 0}, remove=lambda stream: None)
    large, reads = Ended(10**6), threading.Thread(target=lambda: every.end(owner, large, read=True))

    def meet() -> None:
        if not reads.ident:
            reads.start()
            # It would be done in this time, if it did not wait for its turn.
            reads.join(0.3)

    old = Ended(1)
    every._unread.update({old: (0.0, owner), large: (0.0, owner)})
    old.look = meet
    every.end(owner, Ended(1))
    reads.join(20)
    assert not reads.is_alive() and old not in every._unread and large not in every._unread


def test_a_call_that_closes_nothing_and_says_nothing_is_answered_in_json() -> None:
    server = Server("polled")

    @server.tool
    def stay(ctx: Context) -> str:
        return "still here"

    with serving(server.wsgi) as url:
        headers = open_session(url + "/mcp")
        with exchange(url + "/mcp", call("stay"), headers) as response:
            assert response.headers["Content-Type"] == "application/json"
            assert json.loads(response.read())["result"]["content"] == [{"type": "text", "text": "still here"}]
