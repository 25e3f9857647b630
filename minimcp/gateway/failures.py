"""The meaning of a failed request: for the replica that had it, for a repetition, and for the caller."""

from __future__ import annotations

from typing import Any, Optional

from ..client.errors import CallCancelled, HTTPStatus, NotApproved, RemoteError, ToolFailed, UsedAfterFork
from ..engines.errors import AuthorizationError, ClientError, ConnectionLost, ProtocolError, Timeout
from ..protocol import spec
from ..protocol.errors import InternalError
from ..protocol.later import seconds, try_later

Message = dict[str, Any]

# What changes nothing, beside the methods whose result may be cached.
_READS = frozenset({"prompts/get", "completion/complete"})
# Codes of a request that was refused before anything ran.
_REFUSALS = frozenset(
    {
        spec.PARSE_ERROR,
        spec.INVALID_REQUEST,
        spec.METHOD_NOT_FOUND,
        spec.INVALID_PARAMS,
        spec.HEADER_MISMATCH,
        spec.MISSING_CAPABILITY,
        spec.UNSUPPORTED_VERSION,
    }
)
# Statuses by which an address answers that there is no server behind it: its requests all have the same URL, so that
# no caller can bring them about, unlike 400 or 413.
_NOBODY = frozenset({404, 405, 410})


class UpstreamUnavailable(ClientError):
    """A server behind the gateway cannot take a request now; nothing was sent to it.

    :ivar server: its name in the configuration.
    :ivar retry_after_s: the time after which it may be worth another try.
    """

    retry = "always"

    def __init__(self, server: str, why: str, retry_after_s: float) -> None:
        super().__init__(f"The server {server!r} {why}; try again in {seconds(retry_after_s)}")
        self.server = server
        self.retry_after_s = retry_after_s

    def answer(self, version: str) -> InternalError:
        """Return the error that a client is answered with, in its revision."""
        return try_later(self.message, self.retry_after_s, 503, version, server=self.server, mayHaveRun=False)


def is_failure(error: BaseException, own_credentials: bool = False) -> bool:
    """Say whether an error counts against the replica that it came from.

    An error that a server answers with is an answer, unless it came with an HTTP status of a failing server.

    :param own_credentials: whether the request was sent with credentials of its caller, whose refusal says nothing
        about the replica for others.
    """
    if isinstance(error, AuthorizationError):
        return not own_credentials
    if isinstance(error, HTTPStatus):
        return error.status >= 500 or 300 <= error.status < 400 or error.status == 429 or error.status in _NOBODY
    if isinstance(error, RemoteError):
        return error.code == spec.INTERNAL_ERROR and error.status is not None and error.status >= 500
    return isinstance(error, (ConnectionLost, Timeout, ProtocolError))


def verdict(error: BaseException | None, own_credentials: bool = False) -> Optional[bool]:
    """Say what the end of a request shows: True that its replica works, False that it does not, None neither."""
    if error is None:
        return True
    if not isinstance(error, ClientError) or isinstance(
        error, (CallCancelled, NotApproved, UsedAfterFork, UpstreamUnavailable)
    ):
        return None
    if is_failure(error, own_credentials):
        return False
    return None if isinstance(error, AuthorizationError) else True


def may_repeat(error: BaseException, method: str, definition: Message | None = None, trusted: bool = False) -> bool:
    """Say whether a request that failed may be sent again, to the same replica or another.

    A request that has surely not run may; one that may have run only when it reads, or its tool says that a second run
    does no harm and the server is trusted. Whether another try can succeed is for the caller to know.

    :param definition: that of the tool of a `tools/call`, as its server sent it.
    :param trusted: whether its annotations are believed.
    """
    if not isinstance(error, ClientError) or isinstance(error, (CallCancelled, ToolFailed, NotApproved)):
        return False
    if error.retry == "always" and not may_have_run(error):
        return True
    if not _is_harmless(method, definition, trusted):
        return False
    return error.retry != "never" or (is_failure(error) and not isinstance(error, AuthorizationError))


def _is_harmless(method: str, definition: Message | None, trusted: bool) -> bool:
    """Say whether a request may run twice."""
    if method == "tools/call":
        annotations = (definition or {}).get("annotations")
        if not trusted or not isinstance(annotations, dict):
            return False
        # Nothing but the value true counts: what else an annotation may be is not a promise.
        return annotations.get("readOnlyHint") is True or annotations.get("idempotentHint") is True
    row = spec.METHODS.get(method)
    return method in _READS or (row is not None and row.cacheable)


def may_have_run(error: BaseException) -> bool:
    """Say whether the server may have executed the request that failed."""
    if isinstance(error, HTTPStatus):
        # 503 is not a promise: proxies send it too when the server behind them hangs up after it got the request.
        return error.status < 300 or error.status >= 500
    if isinstance(error, RemoteError):
        return error.code not in _REFUSALS
    if isinstance(error, (AuthorizationError, NotApproved)):
        return False
    return not isinstance(error, ClientError) or error.retry != "always"


def fate(error: BaseException) -> str:
    """Return half a sentence for an error message: what became of the request."""
    return "the server may have executed the request" if may_have_run(error) else "the request was not executed"
