"""The limit for HTTP: Werkzeug's threaded server with keep-alive, of MCP only the answers' shape."""

from __future__ import annotations

import json
from typing import Any, Dict, Iterable, Tuple

import options
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

arguments = options.parse()
ADDED = {
    "content": [{"type": "text", "text": "42"}],
    "structuredContent": {"result": 42},
    "resultType": "complete",
}
FIXED = json.dumps({"jsonrpc": "2.0", "id": 1, "result": ADDED}).encode()
SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer", "default": 3},
        "metric": {"type": "boolean", "default": True},
    },
    "required": ["city"],
}
TOOLS = [
    {"name": tool.__name__, "description": tool.__doc__, "inputSchema": SCHEMA}
    for tool in options.extra_tools(arguments.tools)
]


def events() -> Iterable[bytes]:
    """Five progress notifications and the answer, each its own chunk."""
    for step in range(1, 6):
        params = {"progressToken": "p", "progress": step, "total": 5}
        note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}
        yield b"event: message\ndata: " + json.dumps(note).encode() + b"\n\n"
    done = {"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": "done"}]}}
    yield b"event: message\ndata: " + json.dumps(done).encode() + b"\n\n"


def answer(body: bytes) -> Tuple[str, Iterable[bytes]]:
    """Choose the answer by the request's method and tool name."""
    message: Dict[str, Any] = json.loads(body)
    if message["method"] == "tools/list":
        return "application/json", [json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": TOOLS}}).encode()]
    name = message["params"]["name"]
    if name == "steps":
        return "text/event-stream", events()
    if name == "big":
        result = {"content": [{"type": "text", "text": options.BIG}]}
        return "application/json", [json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()]
    if name in ("compute", "wait"):
        result = {"content": [{"type": "text", "text": options.compute() if name == "compute" else options.wait()}]}
        return "application/json", [json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()]
    return "application/json", [FIXED]


class KeepAlive(WSGIRequestHandler):
    """Answers one WSGI request and keeps the connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def run_wsgi(self) -> None:
        environ = self.make_environ()
        kind, body = answer(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        self.send_response(200)
        self.send_header("Content-Type", kind)
        if isinstance(body, list):
            self.send_header("Content-Length", str(len(body[0])))
            self._headers_buffer.append(b"\r\n" + body[0])
            self.flush_headers()
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in body:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        self.wfile.write(b"0\r\n\r\n")

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Stay silent."""


ThreadedWSGIServer("127.0.0.1", arguments.port, lambda environ, start: [], KeepAlive).serve_forever()
