"""Finding the authorization server of an MCP server: challenge, protected resource metadata, server metadata.

Spec: AUTH-017 to AUTH-041, 26:basic/authorization/authorization-server-discovery
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from ..protocol.errors import AuthorizationError
from .addresses import canonical, check_url, covers, origin, show

_LONGEST_HEADER = 8192
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAM = re.compile(rf"({_TOKEN})[ \t]*=[ \t]*(?:\"((?:[^\"\\]|\\.)*)\"|({_TOKEN}))(?=[ \t]*(?:,|\Z))")
_SCHEME = re.compile(rf"({_TOKEN})(?:[ \t]+|(?=,)|\Z)(?:[A-Za-z0-9\-._~+/]+=*(?=[ \t]*(?:,|\Z)))?")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+\Z")
_PRM = "/.well-known/oauth-protected-resource"
_RFC8414 = "/.well-known/oauth-authorization-server"
_OPENID = "/.well-known/openid-configuration"

Choose = Callable[[list[str]], str]


class Gets(Protocol):
    """What discovery needs of a `Fetcher`."""

    def get(self, url: str, what: str, headers: Any = None) -> dict[str, Any] | None: ...


class Challenge(NamedTuple):
    """What a 401 or 403 asks for.

    :ivar schemes: the lowercase names of the schemes offered.
    :ivar scopes: the scopes named, or None when it names none.
    """

    schemes: tuple[str, ...] = ()
    error: str = ""
    scopes: tuple[str, ...] | None = None
    metadata_url: str = ""


class Target(NamedTuple):
    """What protected resource metadata says, checked.

    :ivar resource: the identifier of the server.
    :ivar issuers: the authorization servers it names; empty for a server of 2025-03-26, which has no such document.
    :ivar scopes: its `scopes_supported`, or None.
    """

    resource: str
    issuers: list[str]
    scopes: tuple[str, ...] | None


def read_challenge(header: str | None) -> Challenge:
    """Read `WWW-Authenticate`, several challenges in one or more fields included. Spec: AUTH-021"""
    found: list[tuple[str, dict[str, str]]] = []
    text, at = (header or "")[:_LONGEST_HEADER], 0
    while at < len(text):
        if text[at] in ", \t":
            at += 1
        elif found and (match := _PARAM.match(text, at)):
            value = match[3] if match[2] is None else re.sub(r"\\(.)", r"\1", match[2])
            found[-1][1].setdefault(match[1].lower(), value)
            at = match.end()
        elif match := _SCHEME.match(text, at):
            found.append((match[1].lower(), {}))
            # What looks like token68 may be the first parameter.
            rest = _PARAM.match(
                text, match.end(1) + len(text[match.end(1) :]) - len(text[match.end(1) :].lstrip(" \t"))
            )
            at = rest.start() if rest else match.end()
        else:
            break
    for scheme, params in found:
        if scheme in ("bearer", "dpop") and (params or scheme == "bearer"):
            scopes = scope_list(params["scope"]) if "scope" in params else None
            names = tuple(name for name, _ in found)
            return Challenge(names, params.get("error", ""), scopes or None, params.get("resource_metadata", ""))
    return Challenge(tuple(name for name, _ in found))


def scope_list(value: Any) -> tuple[str, ...]:
    """The scopes of a space-separated string or a list, without those that no scope can look like."""
    parts = value.split(" ") if isinstance(value, str) else value if isinstance(value, list) else []
    return tuple(dict.fromkeys(part for part in parts if isinstance(part, str) and _SCOPE.match(part)))


def find_target(fetch: Gets, url: str, challenge: Challenge) -> Target:
    """Read the protected resource metadata of the server at a URL.

    :raises AuthorizationError: when there is one, but none that is about this server.
    Spec: AUTH-020, AUTH-022, AUTH-023, AUTH-037, AUTH-046
    """
    path = urlsplit(canonical(url)).path.rstrip("/")
    places = [f"{origin(url)}{_PRM}{path}", f"{origin(url)}{_PRM}"]
    if challenge.metadata_url:
        places.insert(0, check_url(challenge.metadata_url, "protected resource metadata"))
    others = []
    for place in dict.fromkeys(places):
        document = fetch.get(place, "protected resource metadata")
        if document is None:
            continue
        resource = document.get("resource")
        if isinstance(resource, str) and covers(resource, url):
            issuers = document.get("authorization_servers")
            if not isinstance(issuers, list) or not issuers or not all(isinstance(item, str) for item in issuers):
                raise AuthorizationError(f"The metadata at {show(place)} names no authorization server")
            scopes = scope_list(document.get("scopes_supported"))
            return Target(resource, [check_url(item, "authorization server") for item in issuers], scopes or None)
        others.append(resource)
        if place == challenge.metadata_url:
            break
    if others:
        raise AuthorizationError(
            f"The server's metadata is about another resource, {show(others[0])}, not {show(canonical(url))}; "
            "authorization ends here"
        )
    return Target(canonical(url), [], None)


def find_server(fetch: Gets, issuer: str) -> dict[str, Any]:
    """Read the metadata of an authorization server.

    :raises AuthorizationError: when there is none, or it names another issuer. Spec: AUTH-029 to AUTH-033
    """
    if urlsplit(issuer).query:
        raise AuthorizationError(f"An issuer has no query: {show(issuer)}")
    path, base = urlsplit(issuer).path.rstrip("/"), origin(issuer)
    places = [f"{base}{_RFC8414}{path}", f"{base}{_OPENID}{path}"] + ([f"{base}{path}{_OPENID}"] if path else [])
    mismatch = None
    for place in places:
        document = fetch.get(place, "authorization server metadata")
        if document is None:
            continue
        if document.get("issuer") == issuer:
            return _checked(document)
        mismatch = document.get("issuer")
    if mismatch is not None:
        raise AuthorizationError(f"The metadata of {show(issuer)} names another issuer, {show(mismatch)}")
    raise AuthorizationError(f"No metadata was found for the authorization server {show(issuer)}")


def legacy_server(fetch: Gets, url: str) -> dict[str, Any]:
    """The authorization server of a server without resource metadata: itself. Spec: AUTH-037 to AUTH-041"""
    base = origin(check_url(url, "server"))
    headers = {"MCP-Protocol-Version": "2025-03-26"}
    document = fetch.get(base + _RFC8414, "authorization server metadata", headers)
    if document is None:
        # S256 is what the defaults of 2025-03-26 stand for.
        return {
            "issuer": base,
            "authorization_endpoint": f"{base}/authorize",
            "token_endpoint": f"{base}/token",
            "registration_endpoint": f"{base}/register",
            "code_challenge_methods_supported": ["S256"],
            "defaults": True,
        }
    if document.get("issuer") != base:
        raise AuthorizationError(f"The metadata of {base} names another issuer, {show(document.get('issuer'))}")
    return _checked(document)


def _checked(document: dict[str, Any]) -> dict[str, Any]:
    """Metadata whose members have their types and whose endpoints may be used; others are left out."""
    found = {"issuer": document["issuer"]}
    for name in ("authorization_endpoint", "token_endpoint", "registration_endpoint"):
        if document.get(name) is not None:
            found[name] = check_url(document[name], name.replace("_", " "))
    for name, value in document.items():
        strings = isinstance(value, list) and all(isinstance(item, str) for item in value)
        if name.endswith("_supported") and (strings or isinstance(value, bool)):
            found[name] = value
    if "token_endpoint" not in found:
        raise AuthorizationError(f"The metadata of {show(document['issuer'])} has no token endpoint")
    return found
