"""A protected server: verifiers asked in order, challenges to the letter, and its metadata.

Spec: AUTH-012 to AUTH-019, AUTH-087 to AUTH-093, RFC 6750, RFC 9728
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from ..protocol.errors import Forbidden, InvalidRequest, McpError, Unauthorized
from ..protocol.principal import Authenticated, Principal, as_principal
from .verifier import Auth, AuthRequest, Environ, PublicAddress

log = logging.getLogger("minimcp")

WELL_KNOWN = "/.well-known/oauth-protected-resource"
# A refresh token is a matter between the client and the authorization server. Spec: AUTH-026
_NOT_OURS = frozenset({"offline_access"})

Response = tuple[int, list[tuple[str, str]], Iterable[bytes]]


class Unavailable(McpError):
    """The caller could not be verified, since something that the verifier needs has failed: HTTP status 503."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.http = (503, [("Retry-After", "5")])


class ProtectedServer:
    """Finds the caller of each request, refuses those without one, and says where tokens come from.

    :param auth: a verifier, a function `f(AuthRequest)`, or a list of them; "public" in it lets those call too who have
        no credential.
    :param public_url: see `PublicAddress`, also for `trusted_proxy`.
    :param implied_scopes: `{scope: narrower scopes}`, see `Server`.
    """

    def __init__(
        self,
        auth: Auth,
        public_url: str | None = None,
        trusted_proxy: str | Collection[str] = (),
        implied_scopes: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        verifiers = list(auth) if isinstance(auth, (list, tuple)) else [auth]
        self._anonymous = "public" in verifiers
        verifiers = [each for each in verifiers if each != "public"]
        if not verifiers:
            raise ValueError('auth= is an empty list: name a verifier, or write auth="public" for an open server')
        if public_url is None and any(getattr(each, "needs_public_url", False) for each in verifiers):
            # Taken from the request, it would be whatever the sender of a stolen token writes into Host.
            raise ValueError("Name the audience of the tokens: audience=... of the verifier, or Server(public_url=...)")
        if not trusted_proxy and any(getattr(each, "needs_trusted_proxy", False) for each in verifiers):
            raise ValueError("Name the proxy whose headers say who is calling: Server(trusted_proxy=...)")
        self._implied = dict(implied_scopes or {})
        self.address = PublicAddress(public_url, trusted_proxy)
        # Each function with the scopes that its principals need.
        self._verifiers = [(_function_of(each), frozenset(getattr(each, "scopes", ()))) for each in verifiers]
        self.scopes = _union(verifiers, "scopes")
        self.issuers = _union(verifiers, "issuers")
        self.schemes = _union(verifiers, "schemes") or ("Bearer",)

    def principal(self, environ: Environ) -> Principal | None:
        """Return the caller of a request; None for one without a credential, where these may call.

        :raises Unauthorized: when nobody is recognized; its challenge says how to become somebody.
        :raises Forbidden: when the caller lacks a scope that every request needs.
        :raises Unavailable: when a verifier failed; the cause is in the log.
        """
        address = self.address
        request = AuthRequest(environ, address.endpoint, address.public_url or "", address.trusts(environ))
        for verify, needed in self._verifiers:
            try:
                found = as_principal(verify(request))
            except Unauthorized as problem:
                raise self._refused(environ, problem) from None
            except McpError:
                raise
            except Exception:
                log.exception("the caller could not be verified")
                raise Unavailable("The caller could not be verified; try again later") from None
            if found is not None:
                if found.expires is not None and found.lasts_s() <= 0:
                    raise self._refused(environ, Unauthorized("The credential has expired"))
                found = self._with_implied(found) if self._implied else found
                if needed and not needed <= set(found.scopes):
                    raise self.insufficient(environ, sorted(needed))
                return found
        if "HTTP_AUTHORIZATION" in environ or "HTTP_X_API_KEY" in environ:
            raise self._refused(environ, Unauthorized("The credential is not valid here"), "invalid_token")
        if self._anonymous:
            return None
        raise self._refused(environ, Unauthorized("Authentication is required"), "")

    def _with_implied(self, principal: Principal) -> Principal:
        """Add the scopes that those of a principal include."""
        scopes, more = dict.fromkeys(principal.scopes), list(principal.scopes)
        while more:
            more = [scope for each in more for scope in self._implied.get(each, ()) if scope not in scopes]
            scopes.update(dict.fromkeys(more))
        if len(scopes) == len(principal.scopes):
            return principal
        values = (principal.issuer, tuple(scopes), principal.roles, principal.claims, principal.via)
        return Principal(principal.id, *values, expires=principal.expires)

    def insufficient(self, environ: Environ, scopes: Collection[str]) -> Forbidden:
        """Make the refusal of a caller that lacks a scope; it names all that the operation needs. Spec: AUTH-091"""
        challenge = self.challenge(environ, "insufficient_scope", scopes)
        return Forbidden("A scope is missing", challenge, {"scopes": list(scopes)})

    def challenge(self, environ: Environ, error: str = "", scopes: Collection[str] = (), text: str = "") -> str:
        """Write a `WWW-Authenticate` value, with one challenge for each scheme. Spec: AUTH-018, AUTH-087"""
        params = [f'error="{error}"'] if error else []
        if text:
            text = text.replace("\\", "").replace('"', "'")
            params.append(f'error_description="{text}"')
        named = [scope for scope in scopes or self.scopes if scope not in _NOT_OURS]
        if named:
            params.append(f'scope="{" ".join(named)}"')
        if self.issuers:
            params.append(f'resource_metadata="{self.metadata_url(environ)}"')
        return ", ".join(f"{scheme} {', '.join(params)}".rstrip() for scheme in self.schemes)

    def metadata_url(self, environ: Environ) -> str:
        """Return the address of the metadata of this server. Spec: AUTH-019, RFC 9728 section 3.1"""
        resource = urlsplit(self.address.endpoint(environ))
        path = resource.path if resource.path != "/" else ""
        return f"{resource.scheme}://{resource.netloc}{WELL_KNOWN}{path}"

    def metadata(self, environ: Environ) -> Response:
        """Answer a GET below `/.well-known/oauth-protected-resource`. Spec: AUTH-017

        With a public URL only its own document exists; without one, a path stands for the endpoint at that path.
        """
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        if not self.issuers or not (path == WELL_KNOWN or path.startswith(WELL_KNOWN + "/")):
            raise _not_here()
        endpoint = {**environ, "SCRIPT_NAME": "", "PATH_INFO": path[len(WELL_KNOWN) :]}
        resource = self.address.endpoint(endpoint)
        if urlsplit(self.metadata_url(endpoint)).path != path.rstrip("/"):
            raise _not_here()
        document: dict[str, Any] = {
            "resource": resource,
            "authorization_servers": list(self.issuers),
            "bearer_methods_supported": ["header"],
        }
        if self.scopes:
            document["scopes_supported"] = [scope for scope in self.scopes if scope not in _NOT_OURS]
        if "DPoP" in self.schemes:
            document["dpop_signing_alg_values_supported"] = ["ES256", "RS256", "EdDSA"]
        body = json.dumps(document).encode()
        fields = [("Content-Type", "application/json"), ("Cache-Control", "max-age=3600")]
        return 200, [*fields, ("Content-Length", str(len(body)))], [body]

    def _refused(self, environ: Environ, problem: Unauthorized, error: str | None = None) -> Unauthorized:
        """Put this server's challenge in place of the default one, and leave a verifier's own."""
        if problem.http is None or problem.http[1] == [("WWW-Authenticate", "Bearer")]:
            code = "invalid_token" if error is None else error
            challenge = self.challenge(environ, code, text=problem.message if code else "")
            problem.http = (401, [("WWW-Authenticate", challenge)])
        return problem


def _not_here() -> McpError:
    problem = InvalidRequest("There is no protected resource at this path")
    problem.http = (404, [])
    return problem


def _function_of(verifier: Any) -> Callable[[AuthRequest], Authenticated]:
    found = getattr(verifier, "verify", verifier)
    if not callable(found):
        raise TypeError(f'auth= takes verifiers, functions or "public", not {verifier!r}')
    function: Callable[[AuthRequest], Authenticated] = found
    return function


def _union(verifiers: Iterable[Any], name: str) -> tuple[str, ...]:
    """Return the values of an attribute of all verifiers, each once, in order."""
    return tuple(dict.fromkeys(value for verifier in verifiers for value in getattr(verifier, name, ())))
