"""Errors of the wire: one class for each code, and exceptions that end a handler from within."""

from __future__ import annotations

from typing import Any

from ..engines.errors import MinimcpError
from . import spec

# The status of an HTTP response, and headers beside those that every response has.
HttpAnswer = tuple[int, list[tuple[str, str]]]


class ToolError(MinimcpError):
    """A failure that the model should read: raised by a tool, its text is a result with `isError`. Spec: FEAT-030"""


class ClientRefused(ToolError):
    """The client answered a question with an error.

    :ivar error: `{"code": int, "message": str, "data"?}` as it came.
    """

    def __init__(self, message: str, error: Any) -> None:
        super().__init__(message)
        self.error = error


class SessionNotFound(MinimcpError):
    """The session id is unknown, or belongs to another principal; both look the same. Spec: TRN-148, TRN-155"""


class TooManySessions(MinimcpError):
    """The limit of sessions is reached and each of them is in use."""


class McpError(MinimcpError):
    """An error that is answered as a JSON-RPC error.

    :param code: an application's own codes belong outside -32768 to -32000. Spec: BASE-060
    :param data: any JSON value with further detail.
    :ivar http: the answer over HTTP that carries it; None for the status of its code.
    """

    code = spec.INTERNAL_ERROR
    http: HttpAnswer | None = None

    def __init__(self, message: str, data: Any = None, code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.data = data
        if code is not None:
            self.code = code


class ParseError(McpError):
    """The bytes are not JSON."""

    code = spec.PARSE_ERROR


class InvalidRequest(McpError):
    """The JSON is not a JSON-RPC message."""

    code = spec.INVALID_REQUEST


class MethodNotFound(McpError):
    """The method does not exist in this revision, or its capability was not advertised."""

    code = spec.METHOD_NOT_FOUND


class InvalidParams(McpError):
    """The parameters do not fit the method."""

    code = spec.INVALID_PARAMS


class InternalError(McpError):
    """Something failed inside the server; the cause is in its log."""


class ResourceNotFound(McpError):
    """No resource has this URI; the legacy era answers it with -32002. Spec: FEAT-063, FEAT-064"""

    code = spec.INVALID_PARAMS


class Unauthorized(McpError):
    """The request has no principal, or its credentials are not valid: HTTP status 401.

    :param challenge: the value of `WWW-Authenticate`.
    """

    code = spec.INVALID_REQUEST

    def __init__(self, message: str = "Sign in first", challenge: str = "Bearer", data: Any = None) -> None:
        super().__init__(message, data)
        self.http = (401, [("WWW-Authenticate", challenge)])


class Forbidden(McpError):
    """The principal may not do this: HTTP status 403; a challenge may name the scope that is missing."""

    code = spec.INVALID_REQUEST

    def __init__(self, message: str = "The caller may not do this", challenge: str = "", data: Any = None) -> None:
        super().__init__(message, data)
        self.http = (403, [("WWW-Authenticate", challenge)] if challenge else [])


class HeaderMismatch(McpError):
    """An HTTP header is missing, malformed or different from the body. Spec: TRN-066, TRN-067"""

    code = spec.HEADER_MISMATCH


class MissingCapability(McpError):
    """The call needs a capability that this client did not declare. Spec: BASE-044

    :param required: the capabilities that are missing, shaped like a ClientCapabilities object.
    """

    code = spec.MISSING_CAPABILITY

    def __init__(self, message: str, required: Any, code: int | None = None) -> None:
        if "requiredCapabilities" not in required:
            required = {"requiredCapabilities": required}
        super().__init__(message, required, code)

    def __reduce__(self) -> Any:
        return type(self), (self.message, self.data), vars(self)


class UnsupportedVersion(McpError):
    """The requested revision is not served. Spec: BASE-075"""

    code = spec.UNSUPPORTED_VERSION


class UrlElicitationRequired(McpError):
    """A 2025-11-25 client must visit a URL first. Spec: FEAT-208"""

    code = spec.URL_ELICITATION_REQUIRED


class Unwind(BaseException):
    """The end of a handler from within; not an `Exception`, so that a tool's `except Exception` lets it pass."""


class InputRequired(Unwind):
    """The handler asked a question that a modern client has not answered yet.

    :param requests: `{key: {"method": ..., "params": ...}}` for `inputRequests`.
    :param state: the sealed `requestState`.
    """

    def __init__(self, requests: dict[str, Any], state: str) -> None:
        super().__init__("input required")
        self.requests = requests
        self.state = state


class Cancelled(Unwind):
    """The client cancelled this call or went away; nothing more is sent for it. Spec: BASE-132"""
