"""Claims of a token: what its audience, times, scopes and roles say, whatever form an identity provider gives them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Union

from ..protocol.errors import Unauthorized
from ..protocol.principal import Principal

Claims = Mapping[str, Any]
# Where the roles are: the path of a claim with dots between its parts, several of them, or a function of the claims.
Roles = Union[str, Iterable[str], Callable[[Claims], Iterable[str]], None]


# The schemes of the challenge, by the `dpop` option of a verifier of tokens.
SCHEMES = {False: ("Bearer",), True: ("Bearer", "DPoP"), "required": ("DPoP",)}


def audiences_of(audience: Union[str, Iterable[str], None]) -> frozenset[str]:
    """Return the audiences that a verifier is told of, none where it leaves them to the server's public URL.

    :raises ValueError: for an empty list, by which everything would be for somebody else.
    """
    found = frozenset([audience] if isinstance(audience, str) else audience or ())
    if audience is not None and not found:
        raise ValueError("audience= is empty: name whom tokens are issued for")
    return found


def check_times(claims: Claims, leeway_s: float, required: bool = True) -> float:
    """Check `exp`, `nbf` and `iat`, and return the time at which the token ends; infinity for never.

    :raises Unauthorized: when it has ended, has not begun, or says neither where `exp` is required.
    """
    now = time.time()
    times: dict[str, Any] = {}
    for name in ("exp", "nbf", "iat"):
        times[name] = seconds(claims.get(name))
        if times[name] is None and claims.get(name) is not None:
            raise Unauthorized(f"The token's {name} is not a number")
    if times["exp"] is None and required:
        raise Unauthorized("The token has no exp")
    if times["exp"] is not None and not now < times["exp"] + leeway_s:
        raise Unauthorized("The token has expired")
    for name in ("nbf", "iat"):
        if times[name] is not None and times[name] > now + leeway_s:
            raise Unauthorized("The token is not valid yet")
    return float("inf") if times["exp"] is None else min(times["exp"] + leeway_s, now + 1e9)


def seconds(value: Any) -> float | None:
    """Return a time of a token, which may be infinite or NaN; None for what is no number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def check_audience(claims: Claims, audiences: Iterable[str]) -> None:
    """Check that the token was issued for one of these audiences. Spec: AUTH-013

    :raises Unauthorized: when it was issued for others, or for nobody in particular.
    """
    named = claims.get("aud")
    named = [named] if isinstance(named, str) else named
    if not isinstance(named, list) or not any(isinstance(each, str) and each in audiences for each in named):
        raise Unauthorized("The token was not issued for this server")


def names(value: Any) -> tuple[str, ...]:
    """Return the names in a claim: a list of strings, or one string with spaces between them."""
    if isinstance(value, str):
        return tuple(value.split())
    if isinstance(value, (list, tuple)):
        return tuple(each for each in value if isinstance(each, str) and each)
    return ()


def scopes_of(claims: Claims) -> tuple[str, ...]:
    """Return the scopes of a token: `scope` by RFC 9068, `scp` by the providers that call it so."""
    return names(claims.get("scope")) or names(claims.get("scp"))


def roles_of(claims: Claims, roles: Roles) -> tuple[str, ...]:
    """Return the roles of a token; a claim that is missing, or has another form, gives none."""
    if roles is None:
        return ()
    if callable(roles):
        return tuple(roles(claims))
    found: list[str] = []
    for path in [roles] if isinstance(roles, str) else roles:
        found += names(_at(claims, path))
    return tuple(dict.fromkeys(found))


def _at(claims: Any, path: str) -> Any:
    """Return the claim at a path; a claim whose name has dots itself, such as a URL, is found by its whole name."""
    if isinstance(claims, Mapping) and path in claims:
        return claims[path]
    for part in path.split("."):
        claims = claims.get(part) if isinstance(claims, Mapping) else None
    return claims


def principal_of(
    claims: Claims, issuer: str, roles: Roles, id_claim: str = "sub", until: float = math.inf
) -> Principal:
    """Make the principal of a token whose claims were verified.

    A token that a program got for itself may have no `sub`; then its client is the principal.

    :param until: the time at which the token ends.
    :raises Unauthorized: when nobody is named.
    """
    client = next((claims[name] for name in ("client_id", "azp", "cid", "appid") if claims.get(name)), "")
    id = claims.get(id_claim) or (client if id_claim == "sub" else None)
    if not isinstance(id, str) or not id:
        raise Unauthorized(f"The token's {id_claim} names nobody")
    expires = None if until == math.inf else until
    return Principal(id, issuer, scopes_of(claims), roles_of(claims, roles), claims, str(client), expires=expires)


class Verified:
    """Tokens that were verified, by their digest, until they end; the oldest are forgotten beyond `limit`.

    A dict is enough: each operation on it is one step, and two threads that verify the same token write the same.
    """

    def __init__(self, limit: int = 10_000) -> None:
        self._limit = limit
        self._found: dict[bytes, tuple[float, Any]] = {}

    def get(self, digest: bytes) -> Any:
        """Return what was kept for a token, None when there is nothing or it has ended."""
        found = self._found.get(digest)
        if found is None:
            return None
        if found[0] <= time.time():
            self._found.pop(digest, None)
            return None
        return found[1]

    def put(self, digest: bytes, until: float, value: Any) -> None:
        """Keep something for a token until a time, in seconds since 1970."""
        while len(self._found) >= self._limit:
            try:
                self._found.pop(next(iter(self._found)), None)
            except (StopIteration, RuntimeError):
                break  # Another thread changes it too; the next one tries again.
        self._found[digest] = (until, value)

    def clear(self) -> None:
        """Forget everything."""
        self._found = {}

    def __len__(self) -> int:
        return len(self._found)
