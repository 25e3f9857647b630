"""Four ways to hold one conversation: in memory, with a child process, over Streamable HTTP and over HTTP+SSE.

Each has `send(message)`, which takes a dict, a batch or raw text, `receive()`, and `close()`, which returns what was
said beyond what was received. A `notifications/cancelled` to a 2026-07-28 request is, over HTTP, a closed connection.
"""

from __future__ import annotations

import http.client
import json
import os
import queue
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from minimcp import Server
from tests.helpers import BOTH, serving
from tests.official import check_emitted

ROOT = Path(__file__).resolve().parent.parent
VERSION = "io.modelcontextprotocol/protocolVersion"
_END = object()


def meta_version(message: Any) -> Any:
    """The revision a message's `_meta` names, or None."""
    params = message.get("params") if isinstance(message, dict) else None
    meta = params.get("_meta") if isinstance(params, dict) else None
    return meta.get(VERSION) if isinstance(meta, dict) else None


class Conversation:
    """What the four have in common: a queue of what the server said, held against the official schema."""

    def __init__(self) -> None:
        self._heard: queue.Queue[Any] = queue.Queue()
        self._asked: dict[Any, tuple[str, str]] = {}
        self.version = "2025-11-25"
        self._threads: list[threading.Thread] = []

    def send(self, message: Any) -> None:
        """Say something."""
        try:
            value = json.loads(message) if isinstance(message, str) else message
        except ValueError:
            value = None
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict) and isinstance(each.get("method"), str):
                modern = meta_version(each) is not None
                self._asked[str(each.get("id"))] = ("2026-07-28" if modern else self.version, each["method"])
        self._say(message)

    def _say(self, message: Any) -> None:
        raise NotImplementedError

    def _start(self, work: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def receive(self, timeout_s: float = 30) -> Any:
        """What the server says next."""
        message = self._heard.get(timeout=timeout_s)
        assert message is not _END, "the server has ended the conversation"
        for each in message if isinstance(message, list) else [message]:
            version, method = self._asked.get(str(each.get("id")), (self.version, None))
            if "method" in each:
                # A notification of either era; one with a tag is of the modern one.
                tagged = "io.modelcontextprotocol/subscriptionId" in each.get("params", {}).get("_meta", {})
                version = "2026-07-28" if tagged else self.version
                method = None
            check_emitted(version, method, each)
            result = each.get("result", {})
            if method == "initialize" and "protocolVersion" in result:
                self.version = result["protocolVersion"]
        return message

    def close(self) -> list[Any]:
        """Leave, and return what was not received."""
        self._leave()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        left = []
        while not self._heard.empty():
            left.append(self._heard.get())
        return [message for message in left if message is not _END]

    def _leave(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class Memory(Conversation):
    """`Server.handle`, with a session."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server
        self._session = server.engine.open_session(self._heard.put)

    def _say(self, message: Any) -> None:
        # Dicts go in as a parser would have made them: nothing is shared with the conversation.
        message = json.loads(json.dumps(message))
        if isinstance(message, dict) and ("id" not in message or "method" not in message):
            self._run(message)
        else:
            self._start(self._run, message)

    def _run(self, message: Any) -> None:
        reply = self._server.handle(message, self._heard.put, self._session)
        if reply is not None:
            self._heard.put(reply)

    def _leave(self) -> None:
        self._session.close()


class Stdio(Conversation):
    """A child process that serves a file.

    :param arguments: of the Python interpreter.
    """

    def __init__(self, *arguments: str, **env: str) -> None:
        super().__init__()
        self.child = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.errors = b""
        self._start(self._read)
        self._start(self._read_errors)

    def _read(self) -> None:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            self._heard.put(json.loads(line))
        self._heard.put(_END)

    def _read_errors(self) -> None:
        assert self.child.stderr is not None
        self.errors = self.child.stderr.read()

    def _say(self, message: Any) -> None:
        assert self.child.stdin is not None
        line = message if isinstance(message, str) else json.dumps(message)
        self.child.stdin.write(line.encode("utf-8") + b"\n")
        self.child.stdin.flush()

    def _leave(self) -> None:
        assert self.child.stdin is not None and self.child.stdout is not None and self.child.stderr is not None
        try:
            self.child.stdin.close()
            self.child.wait(20)
        finally:
            if self.child.poll() is None:
                self.child.kill()
                self.child.wait(10)
        for thread in self._threads:
            thread.join(10)
        self.child.stdout.close()
        self.child.stderr.close()
        assert self.child.returncode == 0, self.errors.decode("utf-8", "replace")


class Http(Conversation):
    """Streamable HTTP: with a session after `initialize`, without one for what is modern."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server
        self._serving = serving(server.wsgi)
        self._url = urlsplit(self._serving.__enter__())
        self._session: dict[str, str] = {}
        self._open: dict[Any, socket.socket] = {}
        self._gone: set[Any] = set()

    def _say(self, message: Any) -> None:
        method = message.get("method") if isinstance(message, dict) else None
        wanted = message.get("params", {}).get("requestId") if method == "notifications/cancelled" else None
        if wanted is not None and self._asked.get(str(wanted), ("",))[0] == "2026-07-28":
            self._gone.add(wanted)
            self._open[wanted].shutdown(socket.SHUT_RDWR)
        elif isinstance(message, dict) and "method" in message and "id" in message:
            self._start(self._post, message)
        else:
            self._post(message)
        if method == "notifications/initialized":
            ready = threading.Event()
            self._start(self._exchange, "GET", None, {"Accept": "text/event-stream", **self._session}, ready)
            assert ready.wait(20)

    def _post(self, message: Any) -> None:
        headers = {"Content-Type": "application/json", "Accept": BOTH}
        version = meta_version(message)
        if version is not None:
            headers.update({"MCP-Protocol-Version": version, "Mcp-Method": message["method"]})
            name = message["params"].get("name") or message["params"].get("uri")
            headers.update({"Mcp-Name": name} if isinstance(name, str) else {})
        else:
            headers.update(self._session)
        self._exchange("POST", message, headers)

    def _exchange(self, method: str, message: Any, headers: dict[str, str], ready: Any = None) -> None:
        connection = http.client.HTTPConnection(self._url.hostname or "", self._url.port, timeout=20)
        id = message.get("id") if isinstance(message, dict) else None
        try:
            body = None if message is None else message if isinstance(message, str) else json.dumps(message)
            connection.connect()
            self._open["GET" if message is None else id] = connection.sock
            connection.request(method, "/mcp", None if body is None else body.encode("utf-8"), headers)
            with connection.getresponse() as response:
                if ready is not None:
                    assert response.status == 200, response.read()
                    ready.set()
                self._hear(message, response)
        except (OSError, http.client.HTTPException):
            if id not in self._gone and "GET" not in self._gone:
                raise
        finally:
            connection.close()

    def _hear(self, message: Any, response: http.client.HTTPResponse) -> None:
        if response.headers.get("Content-Type") == "text/event-stream":
            for line in response:
                if line.startswith(b"data: ") and line.strip() != b"data:":
                    self._heard.put(json.loads(line[6:]))
            return
        body = response.read()
        if response.status == 202:
            assert body == b""
            return
        reply = json.loads(body)
        if "Mcp-Session-Id" in response.headers:
            self._session = {
                "Mcp-Session-Id": response.headers["Mcp-Session-Id"],
                "MCP-Protocol-Version": reply["result"]["protocolVersion"],
            }
        self._heard.put(reply)

    def _leave(self) -> None:
        self._gone.add("GET")
        self._server.close()
        if "GET" in self._open:
            try:
                self._open["GET"].shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self._serving.__exit__(None, None, None)


class Sse(Conversation):
    """HTTP+SSE: everything is heard on one stream."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server
        self._serving = serving(server.wsgi)
        self._url = urlsplit(self._serving.__enter__())
        self._stream = http.client.HTTPConnection(self._url.hostname or "", self._url.port, timeout=20)
        self._stream.request("GET", "/sse", headers={"Accept": "text/event-stream"})
        self._response = self._stream.getresponse()
        assert self._response.readline() == b"event: endpoint\n"
        self._endpoint = self._response.readline()[6:].decode().strip()
        self._start(self._read)

    def _read(self) -> None:
        event = b""
        for line in self._response:
            if line.startswith(b"event: "):
                event = line
            elif line.startswith(b"data: "):
                assert event == b"event: message\n"
                self._heard.put(json.loads(line[6:]))

    def _say(self, message: Any) -> None:
        connection = http.client.HTTPConnection(self._url.hostname or "", self._url.port, timeout=20)
        body = message if isinstance(message, str) else json.dumps(message)
        try:
            connection.request("POST", self._endpoint, body.encode("utf-8"), {"Content-Type": "application/json"})
            with connection.getresponse() as response:
                body = response.read()
                if response.status != 202:
                    self._heard.put(json.loads(body))
        finally:
            connection.close()

    def _leave(self) -> None:
        self._server.close()
        for thread in self._threads:
            thread.join(10)
        self._response.close()
        self._stream.close()
        self._serving.__exit__(None, None, None)
