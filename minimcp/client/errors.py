"""Errors that only a client of the protocol raises; the rest of the `ClientError` family is in `engines.errors`."""

from __future__ import annotations

import html
import json
import re
from typing import Any

from ..engines.errors import AuthorizationError, ClientError
from ..protocol import spec


class UsedAfterFork(ClientError):
    """The connection belongs to the parent process; make a client in this one, or one with `restart=True`."""

    retry = "always"


class HTTPStatus(ClientError):
    """The server answered with an HTTP status and something that is not an MCP message.

    :ivar body: the beginning of the response's body, as text; the message has the title of a page, or the first words.
    :ivar authorized: whether the request had credentials.
    """

    def __init__(
        self, status: int, body: str = "", url: str = "", retry: str | None = None, authorized: bool = False
    ) -> None:
        said = _gist(body)
        super().__init__(f"HTTP {status}{url and f' from {url}'}{said and f': {said}'}", retry)
        if retry is None and status in (429, 503):
            self.retry = "always"
        self.status = status
        self.body = body
        self.authorized = authorized


# What to do about missing credentials.
GIVE = 'give auth="TOKEN", or auth=OAuth("my program")'


def unauthorized(problem: HTTPStatus) -> AuthorizationError:
    """Return the error for an HTTP status 401, with what to do about it."""
    if not problem.authorized:
        return AuthorizationError(f"The server wants authorization (HTTP 401), and none was given; {GIVE}")
    said = _gist(problem.body)
    return AuthorizationError(
        f"The server does not accept the authorization that was given (HTTP 401){said and f': {said}'}"
    )


_GIST = 300
_MARKUP = re.compile(r"<(script|style)\b.*?(</\1\s*>|\Z)|<!--.*?(-->|\Z)|<[^>]*(>|\Z)", re.DOTALL | re.IGNORECASE)
_TITLE = re.compile(r"<(title|h1)\b[^>]*>(.*?)</", re.DOTALL | re.IGNORECASE)


def _gist(body: str) -> str:
    """Return what the body of an error says, on one line: the message of a JSON-RPC error, or the title of a page."""
    text = body.strip()
    if text[:1] == "{":
        try:
            found = json.loads(text)
            error = found.get("error")
            text = str(error["message"]) if isinstance(error, dict) and "message" in error else text
        except (ValueError, RecursionError):
            pass  # It is cut off, or no JSON.
    elif text[:1] == "<":
        titles = [html.unescape(_MARKUP.sub(" ", found[2])) for found in _TITLE.finditer(text)]
        text = next(filter(str.strip, titles), "") or html.unescape(_MARKUP.sub(" ", text))
    return " ".join(text.split())[:_GIST]


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
