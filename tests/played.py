"""A server that says what a test wants it to say, however wrong, behind the client's in-memory link."""

from __future__ import annotations

import threading
from typing import Any, Callable, Optional

DISCOVERED = {
    "resultType": "complete",
    "supportedVersions": ["2026-07-28"],
    "capabilities": {"tools": {}, "resources": {}, "prompts": {}, "completions": {}},
    "serverInfo": {"name": "scripted", "version": "0"},
}
INITIALIZED = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {}, "resources": {"subscribe": True}, "prompts": {}, "logging": {}},
    "serverInfo": {"name": "scripted", "version": "0"},
}


class Fault(Exception):
    """Answered as a JSON-RPC error."""

    def __init__(self, code: int, message: str = "no", data: Any = None) -> None:
        self.error = {"code": code, "message": message}
        if data is not None:
            self.error["data"] = data


class Silence(Exception):
    """Not answered at all."""


class Scripted:
    """A server whose methods are functions `f(params, say) -> result`; `say` sends a message before the result.

    :param methods: by method name with underscores for slashes; what is missing is answered with -32601.
    :ivar heard: every message that came in.
    :ivar prompt: the methods that are answered, or not, before the client can begin to wait, however short its time is.
    """

    def __init__(self, **methods: Callable[[dict[str, Any], Callable[[Any], None]], Any]) -> None:
        self.engine = self
        self.identity = {"name": "scripted"}
        self.methods: dict[str, Any] = {"server/discover": lambda params, say: DISCOVERED}
        self.methods.update({name.replace("_", "/"): method for name, method in methods.items()})
        self.heard: list[dict[str, Any]] = []
        self.prompt: set[str] = set()
        self.say: Any = None
        self.changed = threading.Condition()

    def open_session(self, send: Any) -> Any:
        self.say = send
        return self

    def close_session(self, session: Any) -> None:
        pass

    def close(self) -> None:
        pass

    def add_call(self, call: Any) -> None:
        pass

    def remove_call(self, call: Any) -> None:
        pass

    def call(self, message: dict[str, Any], session: Any = None) -> Any:
        with self.changed:
            self.heard.append(message)
            self.changed.notify_all()
        return Played(self, message) if "method" in message and "id" in message else None

    def wait_for(self, method: Optional[str], timeout_s: float = 20) -> dict[str, Any]:
        """The first message of a method that came in, None for a response."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.all(method), timeout_s), f"no {method} came"
            return self.all(method)[0]

    def all(self, method: Optional[str]) -> list[dict[str, Any]]:
        """The messages of a method that came in."""
        return [message for message in self.heard if message.get("method") == method]


class Played:
    """One request on its way through the script."""

    streams = False

    def __init__(self, server: Scripted, message: dict[str, Any]) -> None:
        self.server = server
        self.message = message
        # What is not runs on the thread of the caller.
        self.interactive = message["method"] not in server.prompt

    def run(self, send: Any) -> Any:
        id, method = self.message["id"], self.message["method"]
        play = self.server.methods.get(method)
        try:
            if play is None:
                raise Fault(-32601, f"Method not found: {method}")
            return {"jsonrpc": "2.0", "id": id, "result": play(self.message.get("params", {}), send)}
        except Fault as fault:
            return {"jsonrpc": "2.0", "id": id, "error": fault.error}
        except Silence:
            return None
