"""Finding the authorization server of an MCP server: challenge, protected resource metadata, server metadata.

Spec: AUTH-017 to AUTH-041, 26:basic/authorization/authorization-server-discovery
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

from ..addresses import canonical, check_url, covers, is_local, origin, same_issuer, show
from ..errors import AuthorizationError, ClientError
from .fetching import Fetcher, NotServed

_LONGEST_HEADER = 8192
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# A parameter, or the name of a scheme, or (after a scheme, without a comma) credentials as one word.
_PART = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"=][^\s,"]*))|([^\s,"]+)')
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+\Z")
_PRM = "/.well-known/oauth-protected-resource"
_RFC8414 = "/.well-known/oauth-authorization-server"
_OPENID = "/.well-known/openid-configuration"

Choose = Callable[[list[str]], str]


class Challenge(NamedTuple):
    """The challenge of a 401 or 403 response.

    :ivar schemes: the lowercase names of the schemes offered.
    :ivar scopes: the scopes named, or None when it names none.
    """

    schemes: tuple[str, ...] = ()
    error: str = ""
    scopes: tuple[str, ...] | None = None
    metadata_url: str = ""


class ProtectedResource(NamedTuple):
    """Protected resource metadata that was checked.

    :ivar resource: the identifier of the server.
    :ivar issuers: the authorization servers it names; empty for the origin of the server itself, as with a server of
        2025-03-26, which has no such document.
    :ivar scopes: its `scopes_supported`, or None.
    """

    resource: str
    issuers: list[str]
    scopes: tuple[str, ...] | None


def read_challenge(header: str | None) -> Challenge:
    """Read `WWW-Authenticate`, of several challenges those for bearer and DPoP tokens as one. Spec: AUTH-021"""
    text = (header or "")[:_LONGEST_HEADER]
    schemes: list[str] = []
    params: dict[str, str] = {}
    at, comma = 0, True
    while at < len(text):
        part = _PART.match(text, at)
        if part is None:
            comma = comma or text[at] == ","
            at += 1
            continue
        if part[1] is None:
            # A word with no comma before it belongs to the scheme before.
            schemes += [part[4].lower()] if comma else []
        elif schemes and schemes[-1] in ("bearer", "dpop"):
            value = part[3] if part[2] is None else re.sub(r"\\(.)", r"\1", part[2])
            params.setdefault(part[1].lower(), value)
        at, comma = part.end(), False
    scopes = scope_list(params.get("scope", ""))
    return Challenge(tuple(schemes), params.get("error", ""), scopes or None, params.get("resource_metadata", ""))


def scope_list(value: Any) -> tuple[str, ...]:
    """Return the scopes of a space-separated string or a list, without what cannot be a scope."""
    parts = value.split(" ") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else ()
    return tuple(dict.fromkeys(part for part in parts if isinstance(part, str) and _SCOPE.match(part)))


def union(*scopes: Any) -> str:
    """Join the scopes of several strings or sequences, each once, in order. Spec: AUTH-095"""
    return " ".join(dict.fromkeys(name for item in scopes for name in scope_list(item)))


def find_target(fetch: Fetcher, url: str, challenge: Challenge) -> ProtectedResource:
    """Read the protected resource metadata of the server at a URL.

    :raises AuthorizationError: when there is one, but none that is about this server.
    :raises NotServed: when there is none, and a place for it failed.
    Spec: AUTH-020, AUTH-022, AUTH-023, AUTH-037, AUTH-046
    """
    path = urlsplit(canonical(url)).path.rstrip("/")
    places = [f"{origin(url)}{_PRM}{path}", f"{origin(url)}{_PRM}"]
    hint = urljoin(url, challenge.metadata_url) if challenge.metadata_url else None
    others = []
    problem: NotServed | None = None
    for place in dict.fromkeys(([hint] if hint else []) + places):
        try:
            document = fetch.get(place, "protected resource metadata")
        except ClientError as failure:
            if isinstance(failure, NotServed):
                problem = problem or failure
            elif place != hint:
                raise
            # A hint that leads nowhere is none.
            continue
        if document is None:
            continue
        resource = document.get("resource")
        if covers(resource, url):
            issuers = document.get("authorization_servers") or []
            if not isinstance(issuers, list) or not all(isinstance(item, str) for item in issuers):
                raise AuthorizationError(f"The metadata at {show(place)} names no authorization server")
            scopes = scope_list(document.get("scopes_supported"))
            return ProtectedResource(
                str(resource), [check_url(item, "authorization server") for item in issuers], scopes or None
            )
        others.append(resource)
        if place == hint:
            break
    if others:
        raise AuthorizationError(
            f"The server's metadata is about another resource, {show(others[0])}, not {show(canonical(url))}; "
            "authorization ends here"
        )
    if problem is not None:
        raise problem
    return ProtectedResource(canonical(url), [], None)


def find_server(fetch: Fetcher, issuer: str, needed: str = "token_endpoint") -> dict[str, Any]:
    """Read the metadata of an authorization server, or of another issuer of tokens.

    :param needed: the endpoint that the caller wants of it.
    :raises AuthorizationError: when there is none, or it names another issuer. Spec: AUTH-029 to AUTH-033
    """
    if urlsplit(issuer).query:
        raise AuthorizationError(f"An issuer has no query: {show(issuer)}")
    path, base = urlsplit(issuer).path.rstrip("/"), origin(issuer)
    places = [f"{base}{_RFC8414}{path}", f"{base}{_OPENID}{path}"] + ([f"{base}{path}{_OPENID}"] if path else [])
    mismatch = None
    problem: NotServed | None = None
    for place in places:
        try:
            document = fetch.get(place, "authorization server metadata")
        except NotServed as failure:
            problem = problem or failure
            continue
        if document is None:
            continue
        if same_issuer(document.get("issuer"), issuer):
            return _checked(document, needed)
        mismatch = document.get("issuer")
    if mismatch is not None:
        raise AuthorizationError(f"The metadata of {show(issuer)} names another issuer, {show(mismatch)}")
    if problem is not None:
        raise problem
    raise AuthorizationError(f"No metadata was found for the authorization server {show(issuer)}")


def legacy_server(fetch: Fetcher, url: str) -> dict[str, Any]:
    """Return the authorization server of a server without resource metadata: itself. Spec: AUTH-037 to AUTH-041"""
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
    # Either spelling leads to this place, and nobody has said which it is.
    if document.get("issuer") not in (base, f"{base}/"):
        raise AuthorizationError(f"The metadata of {base} names another issuer, {show(document.get('issuer'))}")
    return _checked(document)


def _checked(document: dict[str, Any], needed: str = "token_endpoint") -> dict[str, Any]:
    """Return the members of metadata that have their types, and the endpoints that may be used."""
    found = {"issuer": document["issuer"]}
    endpoints = (
        "authorization_endpoint",
        "token_endpoint",
        "registration_endpoint",
        "introspection_endpoint",
        "jwks_uri",
    )
    for name in endpoints:
        if document.get(name) is not None:
            found[name] = check_url(document[name], name.replace("_", " "))
    shown = found.get("authorization_endpoint", "https://")
    # It is opened in the user's browser, which reaches what a server elsewhere does not.
    if not is_local(document["issuer"]) and (not shown.startswith("https:") or is_local(shown)):
        raise AuthorizationError(f"The authorization endpoint must be https and not on this machine: {show(shown)}")
    for name, value in document.items():
        # Names in the plural have lists of strings, the others say yes or no.
        if name.endswith("s_supported") and isinstance(value, list):
            found[name] = [item for item in value if isinstance(item, str)]
        elif name.endswith("_supported") and not name.endswith("s_supported") and isinstance(value, bool):
            found[name] = value
    if needed not in found:
        raise AuthorizationError(f"The metadata of {show(document['issuer'])} has no {needed.replace('_', ' ')}")
    return found
