"""The protocol itself, in the standard library alone: one tool over stdio for 2026-07-28 clients.

This is what `minimcp` does for you, to compare with: no sessions and older revisions, no validation beyond the obvious,
no progress, no questions, no HTTP.
"""

import json
import sys

VERSION = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
SERVER = {"io.modelcontextprotocol/serverInfo": {"name": "raw-wire", "version": "1.0"}}
CACHE = {"ttlMs": 0, "cacheScope": "private"}
ADD = {
    "name": "add",
    "description": "Add two numbers.",
    "inputSchema": {
        "type": "object",
        "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
        "required": ["a", "b"],
    },
}


class Problem(Exception):
    """A JSON-RPC error: its code, message and data."""


def answer(method: str, params: dict) -> dict:
    """The result of a request."""
    meta = params.get("_meta", {})
    if VERSION not in meta or CAPABILITIES not in meta:
        raise Problem(-32602, "_meta must name the protocol version and the client's capabilities")
    if meta[VERSION] != "2026-07-28":
        raise Problem(-32022, "Unsupported version", {"supported": ["2026-07-28"], "requested": meta[VERSION]})
    if method == "server/discover":
        return {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, **CACHE}
    if method == "tools/list":
        return {"tools": [ADD], **CACHE}
    if method != "tools/call":
        raise Problem(-32601, "Method not found")
    if params.get("name") != "add":
        raise Problem(-32602, "Unknown tool")
    arguments = params.get("arguments", {})
    if not all(type(arguments.get(name)) in (int, float) for name in "ab"):
        return {"content": [{"type": "text", "text": "a and b must be numbers"}], "isError": True}
    return {"content": [{"type": "text", "text": str(arguments["a"] + arguments["b"])}]}


def reply(message: dict) -> dict:
    """The whole answer to a request, result or error."""
    try:
        result = answer(message["method"], message.get("params", {}))
        return {"jsonrpc": "2.0", "id": message["id"], "result": {"resultType": "complete", "_meta": SERVER, **result}}
    except Problem as problem:
        error = dict(zip(("code", "message", "data"), problem.args))
        return {"jsonrpc": "2.0", "id": message["id"], "error": error}


if __name__ == "__main__":
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if "id" in message:  # a notification is never answered
            print(json.dumps(reply(message)), flush=True)
