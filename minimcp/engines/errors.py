"""Errors of the engines: the root of every exception of minimcp, and those that an engine raises itself."""

from __future__ import annotations

from typing import Any


class MinimcpError(Exception):
    """The root of everything minimcp raises on purpose."""


class InvalidArguments(MinimcpError):
    """A value does not fit its schema; the message names the place and what was expected there."""


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


class ProtocolError(ClientError):
    """The server sent what the specification does not allow, or the caller asked for what it does not have."""


class AuthorizationError(ClientError):
    """A token could not be had, or was not accepted.

    :ivar error: the OAuth error code, such as "invalid_grant", or "".
    """

    def __init__(self, message: str, error: str = "") -> None:
        super().__init__(message)
        self.error = error
