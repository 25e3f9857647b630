"""Every exception of minimcp: one root, a class for each code that goes over the wire, and those of a client."""

from __future__ import annotations

from typing import Any

from . import spec


class MinimcpError(Exception):
    """The root of everything minimcp raises on purpose."""


class ToolError(MinimcpError):
    """Raised by a tool for the model to read: the text goes out as a result with `isError`. Spec: FEAT-030"""


class InvalidArguments(MinimcpError):
    """A value does not fit its schema; the message names the place and what was expected there."""


class SessionNotFound(MinimcpError):
    """No session has this id, or it belongs to another principal; the two must look the same. Spec: TRN-148, TRN-155"""


class TooManySessions(MinimcpError):
    """The cap on sessions is reached and none of them can be given up."""


class McpError(MinimcpError):
    """An error that is answered as a JSON-RPC error.

    :param code: an application's own codes belong outside -32768 to -32000. Spec: BASE-060
    :param data: any JSON value with further detail.
    """

    code = spec.INTERNAL_ERROR

    def __init__(self, message: str, data: Any = None, code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.data = data
        if code is not None:
            self.code = code

    def __reduce__(self) -> Any:
        return type(self), (self.message, self.data, self.code)


class ParseError(McpError):
    """The bytes are not JSON."""

    code = spec.PARSE_ERROR


class InvalidRequest(McpError):
    """The JSON is not a JSON-RPC message."""

    code = spec.INVALID_REQUEST


class MethodNotFound(McpError):
    """No such method in this revision, or its capability was not advertised."""

    code = spec.METHOD_NOT_FOUND


class InvalidParams(McpError):
    """The parameters do not fit the method."""

    code = spec.INVALID_PARAMS


class InternalError(McpError):
    """Something failed inside the server; the cause is in its log."""

    code = spec.INTERNAL_ERROR


class ResourceNotFound(McpError):
    """No resource has this URI; the legacy era answers it with -32002. Spec: FEAT-063, FEAT-064"""

    code = spec.INVALID_PARAMS


class HeaderMismatch(McpError):
    """An HTTP header is missing, malformed or different from the body. Spec: TRN-066, TRN-067"""

    code = spec.HEADER_MISMATCH


class MissingCapability(McpError):
    """The call needs something this client did not declare. Spec: BASE-044

    :param required: what is missing, shaped like a ClientCapabilities object.
    """

    code = spec.MISSING_CAPABILITY

    def __init__(self, message: str, required: Any, code: int | None = None) -> None:
        if "requiredCapabilities" not in required:
            required = {"requiredCapabilities": required}
        super().__init__(message, required, code)


class UnsupportedVersion(McpError):
    """The requested revision is not served. Spec: BASE-075"""

    code = spec.UNSUPPORTED_VERSION


class UrlElicitationRequired(McpError):
    """A 2025-11-25 client must visit a URL first. Spec: FEAT-208"""

    code = spec.URL_ELICITATION_REQUIRED


class ClientError(MinimcpError):
    """A failure that a client's caller sees; pickles, and says in `retry` what may safely be done next.

    :ivar retry: "always": the server has not run the request; "idempotent": it may have, so repeat only what may run
        twice; "never": the same request would fail again.
    """

    retry = "never"

    def __init__(self, message: str, retry: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if retry is not None:
            self.retry = retry

    def __reduce__(self) -> Any:
        # Not by calling the class, whose parameters are its own affair.
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[ClientError], args: tuple[Any, ...], members: dict[str, Any]) -> ClientError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(members)
    return error


class Timeout(ClientError):
    """No answer came in time; the server was told that it is no longer awaited. Spec: BASE-138"""

    retry = "idempotent"


class ConnectionLost(ClientError):
    """The server could not be reached, hung up, or died before it answered."""

    retry = "idempotent"


class UsedAfterFork(ClientError):
    """The connection belongs to the parent process; make a client in this one, or one with `restart=True`."""

    retry = "always"


class HTTPStatus(ClientError):
    """The server answered with an HTTP status and something that is not an MCP message.

    :ivar body: the beginning of what came with it, as text.
    """

    def __init__(self, status: int, body: str = "", url: str = "", retry: str | None = None) -> None:
        hint = f": {body[:300]}" if body.strip() else ""
        super().__init__(f"HTTP {status}{url and f' from {url}'}{hint}", retry)
        if retry is None and status in (429, 503):
            self.retry = "always"
        self.status = status
        self.body = body


class ProtocolError(ClientError):
    """The server sent what the specification does not allow, or the caller asked for what it does not have."""


class RemoteError(ClientError):
    """The server answered with a JSON-RPC error. Spec: BASE-062"""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message
        self.data = data


class ToolFailed(ClientError):
    """A tool answered with `isError`; the message is what it says, for a model to read. Spec: FEAT-033

    :ivar result: the whole CallToolResult.
    """

    retry = "idempotent"

    def __init__(self, name: str, result: Any) -> None:
        super().__init__(result.text or f"The tool {name!r} failed without saying why")
        self.name = name
        self.result = result


class NotApproved(ClientError):
    """`approve` did not let a tool call pass; nothing was sent. Spec: FEAT-039"""


class CallCancelled(ClientError):
    """The call was cancelled by `cancel()` on another thread; the server was told."""

    retry = "idempotent"


class AuthorizationError(ClientError):
    """A token could not be had, or was not accepted.

    :ivar error: the OAuth error code, such as "invalid_grant", or "".
    """

    def __init__(self, message: str, error: str = "") -> None:
        super().__init__(message)
        self.error = error


class Unwind(BaseException):
    """Ends a handler from within; not an `Exception`, so that a tool's `except Exception` lets it pass."""


class InputRequired(Unwind):
    """The handler asked something a modern client has not answered yet.

    :param requests: `{key: {"method": ..., "params": ...}}` for `inputRequests`.
    :param state: the sealed `requestState`.
    """

    def __init__(self, requests: dict[str, Any], state: str) -> None:
        super().__init__("input required")
        self.requests = requests
        self.state = state


class Cancelled(Unwind):
    """The client cancelled this call or went away; nothing more is sent for it. Spec: BASE-132"""
