"""Errors that only a client of the protocol raises; the rest of the `ClientError` family is in `engines.errors`."""

from __future__ import annotations

from typing import Any

from ..engines.errors import ClientError
from ..protocol import spec


class UsedAfterFork(ClientError):
    """The connection belongs to the parent process; make a client in this one, or one with `restart=True`."""

    retry = "always"


class HTTPStatus(ClientError):
    """The server answered with an HTTP status and something that is not an MCP message.

    :ivar body: the beginning of the response's body, as text.
    """

    def __init__(self, status: int, body: str = "", url: str = "", retry: str | None = None) -> None:
        hint = f": {body[:300]}" if body.strip() else ""
        super().__init__(f"HTTP {status}{url and f' from {url}'}{hint}", retry)
        if retry is None and status in (429, 503):
            self.retry = "always"
        self.status = status
        self.body = body


class RemoteError(ClientError):
    """The server answered with a JSON-RPC error. Spec: BASE-062

    :ivar status: the HTTP status that it came with, None where there is none.
    """

    status: int | None = None

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(f"{message} ({code}){_advice(code, data)}")
        self.code = code
        self.message = message
        self.data = data


def _advice(code: int, data: Any) -> str:
    """Return the options of a client that declare what a call needs."""
    needed = data.get("requiredCapabilities") if code == spec.MISSING_CAPABILITY and isinstance(data, dict) else None
    options = {"elicitation": "elicit", "sampling": "sample", "roots": "roots"}
    found = [f"{options[name]}=" for name in needed if name in options] if isinstance(needed, dict) else []
    extensions = needed.get("extensions") if isinstance(needed, dict) else None
    if isinstance(extensions, dict) and spec.TASKS in extensions:
        return "; its answer is a task: give Client(..., tasks=True)"
    return f"; it asks the client: give Client(..., {', '.join(found)}...)" if found else ""


class ToolFailed(ClientError):
    """A tool answered with `isError`; the message is the text of its result, for a model to read. Spec: FEAT-033

    :ivar result: the whole CallToolResult.
    """

    retry = "idempotent"

    def __init__(self, name: str, result: Any) -> None:
        super().__init__(result.text or f"The tool {name!r} failed without saying why")
        self.name = name
        self.result = result


class NotApproved(ClientError):
    """`approve` refused a tool call; nothing was sent. Spec: FEAT-039"""


class CallCancelled(ClientError):
    """The call was cancelled by `cancel()`, or its `RunningCall` was dropped; the server was told."""

    retry = "idempotent"
