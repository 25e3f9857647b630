"""Errors of the engines: the root of every exception of minimcp, those that an engine raises, and text fit for them."""

from __future__ import annotations

from typing import Any


class MinimcpError(Exception):
    """The root of every exception that minimcp raises on purpose."""


class InvalidArguments(MinimcpError):
    """A value does not fit its schema; the message names the place and what was expected there."""


class ClientError(MinimcpError):
    """A failure that a client's caller sees; it pickles, and says in `retry` whether the request may be repeated.

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
        # Calling the class would need the parameters of each subclass.
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[ClientError], args: tuple[Any, ...], members: dict[str, Any]) -> ClientError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(members)
    return error


class Timeout(ClientError):
    """No answer came in time; the request was cancelled. Spec: BASE-138"""

    retry = "idempotent"


class ConnectionLost(ClientError):
    """The server could not be reached, hung up, or died before it answered."""

    retry = "idempotent"


class ProtocolError(ClientError):
    """The server broke the protocol, or the caller asked for a feature that the server does not have."""


class AuthorizationError(ClientError):
    """No access token could be obtained, or the server rejected it.

    :ivar error: the OAuth error code, such as "invalid_grant", or "".
    """

    def __init__(self, message: str, error: str = "") -> None:
        super().__init__(message)
        self.error = error


def printable(text: str, most: int | None = None) -> str:
    """Make a text fit for a terminal: escape control and invisible characters, and cut it after `most` characters."""
    shown = text if most is None else text[:most]
    shown = "".join(each if each.isprintable() else _escape(each) for each in shown)
    return shown if most is None or len(text) <= most else f"{shown}... [{len(text)} characters in all]"


def _escape(character: str) -> str:
    return {"\n": "\\n", "\t": "\\t"}.get(character, f"\\u{ord(character):04x}")
