"""The principal: the authenticated caller of a request."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Optional, Union


class Principal:
    """An authenticated caller; two are equal when `key` is. It cannot be changed.

    :param id: the identifier of the user or the program, unique for its issuer.
    :param issuer: the authority that says so, such as the URL of an authorization server.
    :param scopes: the scopes that were granted to this request.
    :param roles: the caller's roles.
    :param claims: further statements of the issuer, such as the claims of a token.
    :param via: the program that acts for the caller, such as the client id of a token.
    :param expires: the time at which the credential ends, in seconds since 1970; None for never. Streams end then.
    :raises ValueError: without an id, since all such callers would be one; for an expiry that is no number.
    """

    __slots__ = ("claims", "expires", "id", "issuer", "roles", "scopes", "via")

    id: str
    issuer: str
    scopes: tuple[str, ...]
    roles: tuple[str, ...]
    claims: Mapping[str, Any]
    via: str
    expires: Optional[float]

    def __init__(
        self,
        id: str,
        issuer: str = "",
        scopes: Sequence[str] = (),
        roles: Sequence[str] = (),
        claims: Optional[Mapping[str, Any]] = None,
        via: str = "",
        *,
        expires: Optional[float] = None,
    ) -> None:
        if not isinstance(id, str) or not id:
            raise ValueError(f"A principal has an id, a string that is not empty, unlike {id!r}")
        if expires is not None and (isinstance(expires, bool) or not isinstance(expires, (int, float))):
            raise ValueError(f"expires= is a number of seconds since 1970, unlike {expires!r}")
        values = (MappingProxyType(dict(claims or {})), expires, id, issuer, tuple(roles), tuple(scopes), via)
        for name, value in zip(self.__slots__, values):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"A principal cannot be changed; make another one with the {name} you need")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("A principal cannot be changed")

    @property
    def key(self) -> tuple[str, str]:
        """The issuer and the id, by which sessions and states are bound to a principal."""
        return self.issuer, self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Principal) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"Principal({self.id!r}, {self.issuer!r})" if self.issuer else f"Principal({self.id!r})"

    def __reduce__(self) -> Any:
        values = (self.id, self.issuer, self.scopes, self.roles, dict(self.claims), self.via)
        return functools.partial(type(self), expires=self.expires), values

    def lasts_s(self) -> float:
        """Return for how many seconds the credential still holds; infinity for ever."""
        return math.inf if self.expires is None else max(0.0, self.expires - time.time())


# The result of a verifier: a string is the id of a principal.
Authenticated = Union[Principal, str, None]


def as_principal(found: Authenticated) -> Principal | None:
    """Return the principal that a string names; None and an empty string stand for an anonymous caller.

    :raises TypeError: for a value of another type.
    """
    if found is None or isinstance(found, Principal):
        return found
    if not isinstance(found, str):
        raise TypeError(f"a verifier returns a Principal, a string or None, not {type(found).__name__}")
    return Principal(found) if found else None


def key_of(principal: Principal | None) -> list[str] | None:
    """Return the key of a principal in the form in which states and session ids hold it."""
    return None if principal is None else list(principal.key)
