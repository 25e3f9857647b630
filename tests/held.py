"""A server whose handlers wait to be told, and clients of it over HTTP that read event by event."""

from __future__ import annotations

import contextlib
import json
import threading
from typing import Any

from minimcp import Context, Server
from tests.helpers import BOTH, exchange

HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
META = {"progressToken": "p"}


class Steps:
    """What the handlers of a server wait for and report."""

    def __init__(self):
        self.started, self.go, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.cancelled: Any = None


def held_server(steps):
    """A server to attack the streams of; yields it, and lets its handlers go at the end."""
    server = Server("s", "1", limits={"keepalive_s": 0.05}, allowed_origins=["https://app.example"])

    @server.tool
    def plain() -> str:
        return "x"

    @server.tool
    def three(ctx: Context) -> str:
        for n in (1, 2, 3):
            ctx.progress(n)
        return "done"

    @server.tool
    def held(ctx: Context) -> str:
        ctx.progress(1)
        steps.started.set()
        while not (steps.go.is_set() or ctx.cancelled.wait(0.01)):
            pass
        steps.cancelled = ctx.cancelled.is_set()
        steps.ended.set()
        ctx.progress(2)
        return "held"

    @server.tool
    def polled(ctx: Context) -> str:
        ctx.progress(1)
        ctx.close_stream(retry_ms=40)
        assert steps.go.wait(10)
        ctx.progress(2)
        return "polled"

    @server.tool
    def ask(ctx: Context) -> str:
        return ctx.elicit("Name?", {"name": str})["name"]

    server.resource("a://1")(lambda: "x")
    yield server
    steps.go.set()
    server.close()


def post(client, message, headers=None, path="/mcp", **more):
    data = message if isinstance(message, (str, bytes)) else json.dumps(message)
    found = {"Content-Type": "application/json", "Accept": BOTH, **(headers or {}), **more}
    return client.post(path, data=data, headers={name: value for name, value in found.items() if value is not None})


def legacy(client, method, id=1, session=None, version="2025-11-25", **params):
    """A legacy request, with its session."""
    message = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
    headers = {"Mcp-Session-Id": session, "MCP-Protocol-Version": version} if session else {}
    return post(client, message, headers)


def opened(client, version="2025-11-25", **capabilities):
    """The id of a new session."""
    response = legacy(client, "initialize", **{**HELLO, "protocolVersion": version, "capabilities": capabilities})
    assert response.status_code == 200
    id = response.headers["Mcp-Session-Id"]
    note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert post(client, note, {"Mcp-Session-Id": id}).status_code == 202
    return id


@contextlib.contextmanager
def streaming(url, message, headers, method="POST"):
    """A response that is still coming, and a function that reads its next event."""
    with exchange(url, message, headers, method) as response:

        def event():
            fields: dict[str, str] = {}
            for line in response:
                if line.startswith(b":"):
                    fields["comment"] = ""
                elif line == b"\n":
                    if set(fields) - {"comment"}:
                        return fields
                elif line.strip():
                    name, _, value = line.decode().strip().partition(":")
                    fields[name] = value.strip()
            return None

        yield response, event
