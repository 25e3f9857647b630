"""The requests that every peer is sent, with HTTP's headers beside them; literals, no constants of ours."""

from __future__ import annotations

import json
from typing import Any, Dict, NamedTuple, Optional, Tuple

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "benchmark", "version": "1.0"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": "init",
    "method": "initialize",
    "params": {
        "protocolVersion": LEGACY,
        "capabilities": {},
        "clientInfo": {"name": "benchmark", "version": "1.0"},
    },
}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}
ID_MARK = 918273645


class Request(NamedTuple):
    """One request as text around the place of its id, and its HTTP headers."""

    head: str
    tail: str
    headers: Dict[str, str]

    def body(self, number: int) -> bytes:
        """The JSON with `number` as its id."""
        return f"{self.head}{number}{self.tail}".encode()


def request(method: str, params: Dict[str, Any], *, modern: bool = True, session: Optional[str] = None) -> Request:
    """Build a request of the modern era, or a legacy one on `session`; progress is asked for with a token."""
    params = dict(params)
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": MODERN if modern else LEGACY,
    }
    if modern:
        params["_meta"] = {**META, **params.get("_meta", {})}
        headers["Mcp-Method"] = method
        if "name" in params:
            headers["Mcp-Name"] = params["name"]
    if session:
        headers["Mcp-Session-Id"] = session
    text = json.dumps({"jsonrpc": "2.0", "id": ID_MARK, "method": method, "params": params})
    head, tail = text.split(str(ID_MARK))
    return Request(head, tail, headers)


def add(**options: Any) -> Request:
    """``tools/call`` of ``add`` with 20 and 22."""
    return request("tools/call", {"name": "add", "arguments": {"a": 20, "b": 22}}, **options)


def steps() -> Request:
    """``tools/call`` of ``steps`` with five progress notifications."""
    params = {"name": "steps", "arguments": {"count": 5}, "_meta": {"progressToken": "p"}}
    return request("tools/call", params)


def big() -> Request:
    """``tools/call`` of ``big``."""
    return request("tools/call", {"name": "big", "arguments": {}})


def compute() -> Request:
    """``tools/call`` of ``compute``, which computes for half a millisecond."""
    return request("tools/call", {"name": "compute", "arguments": {}})


def wait() -> Request:
    """``tools/call`` of ``wait``, which waits for 5 ms."""
    return request("tools/call", {"name": "wait", "arguments": {}})


def listing() -> Request:
    """``tools/list`` without a cursor."""
    return request("tools/list", {})


def listen() -> Request:
    """``subscriptions/listen`` for changes of the tool list."""
    return request("subscriptions/listen", {"notifications": {"toolsListChanged": True}})


def messages_of(kind: str, body: bytes) -> Tuple[Dict[str, Any], ...]:
    """Decode a JSON or event-stream reply into its messages."""
    if "event-stream" not in kind:
        return (json.loads(body),)
    lines = body.replace(b"\r\n", b"\n").split(b"\n")
    return tuple(json.loads(line[5:]) for line in lines if line.startswith(b"data:") and line[5:].strip())
