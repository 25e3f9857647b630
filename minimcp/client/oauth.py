"""`OAuth`: authorization for `requests`, or for a `Client`, that gets and renews its tokens by itself.

    requests.post("https://example.com/mcp", json=..., auth=OAuth("My program"))

A request goes out with the token there is, or none. A server that answers 401 or 403 says what it wants; a token is got
for that, and the request is sent again. Spec: 26:basic/authorization
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
import webbrowser
from collections.abc import Callable
from functools import partial
from typing import Any, Union
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase

from ..protocol.errors import AuthorizationError, ClientError, MinimcpError
from .addresses import canonical, is_local, is_loopback, origin, show
from .discovery import Challenge, Choose, Target, find_server, find_target, legacy_server, read_challenge, scope_list
from .dpop import Prover
from .fetching import Fetcher
from .grants import ID_TOKEN, ClientCredentials, Credentials, Enterprise, Flow, Grant, Secret, Workload, request_token
from .login import Code
from .tokens import Store, Token, has_expired

# How often one request may be answered with 401 or 403 before it fails. Spec: AUTH-096
MOST_ATTEMPTS = 3

_instances: weakref.WeakSet[OAuth] = weakref.WeakSet()


class _Access:
    """What is known of one server.

    `lock` is held by the thread that gets a token, and guards the rest; `token` is also read without it.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.loaded = False
        self.token: Token | None = None
        self.issuer: str | None = None
        self.target: Target | None = None
        self.server: dict[str, Any] | None = None
        self.asked = ""
        # How often each set of scopes was asked for in vain.
        self.tried: dict[frozenset[str], int] = {}
        # Those that waited while another thread failed fail with it.
        self.turn = 0
        self.failure: MinimcpError | None = None


class OAuth(AuthBase):
    """Authorization by OAuth 2.1 as MCP specifies it, as `auth=` for a `Client` or for plain `requests`.

    Made like this it lets the user sign in with a browser; see `client_credentials`, `enterprise` and `workload` for
    programs without one. Several threads may share it. An object, and a store, are for one user.

    :param client_name: what the consent page calls this program.
    :param client_id: for a client that is registered already, with `client_secret` or `private_key` if it has one.
    :param issuer: the authorization server that `client_id` belongs to; without it the first one that a server names
        is taken, and no other later.
    :param client_metadata_url: the https URL of a client ID metadata document.
    :param scope: scopes to ask for beside those that the server names, separated by spaces.
    :param resource: the identifier of the server, when requests go to several URLs under it.
    :param store: where tokens and registrations are kept: any mapping from strings to dicts, such as a `FileStore`.
    :param redirect_port: the port of 127.0.0.1 that the browser is sent back to, 0 for any.
    :param open_browser: shows the user a URL; may return False for a failure.
    :param login: instead of browser and port: takes the authorization URL, returns the one the user came back to.
    :param redirect_uri: with `login`, where the user is sent back to.
    :param choose: picks one of several authorization servers, from a list of issuers.
    :param offline_access: whether to ask for a refresh token where that takes a scope.
    :param dpop: bind tokens to a key of this object, which lives as long as it does.
    :param private_addresses: allow authorization servers in the private network of a server that is not there itself.
    :param timeout_s: how long one request to an authorization server may take.
    :param login_timeout_s: how long the user may take.
    :param verify: True or the path of a CA bundle, as for `requests`; for metadata and tokens.
    :param proxies: as for `requests`; for metadata and tokens.
    :raises AuthorizationError: out of a request, when no token can be had or none is accepted.
    """

    def __init__(
        self,
        client_name: str = "minimcp",
        *,
        client_id: str | None = None,
        client_secret: str | None = None,
        private_key: Any = None,
        key_id: str | None = None,
        issuer: str | None = None,
        client_metadata_url: str | None = None,
        scope: str | None = None,
        resource: str | None = None,
        store: Store | None = None,
        redirect_port: int = 0,
        redirect_uri: str | None = None,
        open_browser: Callable[[str], Any] = webbrowser.open,
        login: Callable[[str], str] | None = None,
        choose: Choose | None = None,
        offline_access: bool = True,
        dpop: bool = False,
        private_addresses: bool = False,
        timeout_s: float = 30,
        login_timeout_s: float = 300,
        verify: Union[bool, str] = True,
        proxies: dict[str, str] | None = None,
    ) -> None:
        self._store: Store = {} if store is None else store
        credentials = Credentials(client_id, client_secret, private_key=private_key, key_id=key_id)
        self._grant: Grant = Code(
            credentials,
            self._store,
            metadata={"client_name": client_name},
            metadata_url=client_metadata_url,
            open_browser=open_browser,
            login=login,
            redirect_uri=redirect_uri,
            redirect_port=redirect_port,
            timeout_s=login_timeout_s,
        )
        self._issuer = issuer
        self._scope = scope or ""
        self._resource = None if resource is None else canonical(resource)
        self._choose = choose
        self._offline_access = offline_access
        self._prover = Prover() if dpop else None
        self._private = private_addresses
        self._how: Any = timeout_s, verify, proxies
        self._accesses: dict[str, _Access] = {}
        _instances.add(self)

    @classmethod
    def client_credentials(
        cls,
        client_id: str,
        client_secret: str | None = None,
        *,
        private_key: Any = None,
        key_id: str | None = None,
        algorithm: str | None = None,
        audience: str | None = None,
        **options: Any,
    ) -> OAuth:
        """For a program that acts for itself.

        :param private_key: PEM text, or a key object; signs instead of `client_secret`, by `algorithm` if given.
        :param audience: what the signed assertion is addressed to, instead of the issuer.
        :param options: `issuer`, `scope`, `resource`, `store`, `dpop` and others that need no user.
        """
        if client_secret is None and private_key is None:
            raise ValueError("client_credentials needs client_secret= or private_key=")
        made = cls(**options)
        made._grant = ClientCredentials(
            Credentials(client_id, client_secret, None, private_key, key_id, algorithm, audience)
        )
        return made

    @classmethod
    def enterprise(
        cls,
        client_id: str,
        client_secret: str | None = None,
        *,
        id_token: Secret,
        idp_token_endpoint: str,
        idp_client_id: str,
        idp_client_secret: str | None = None,
        idp_private_key: Any = None,
        private_key: Any = None,
        key_id: str | None = None,
        subject_token_type: str = ID_TOKEN,
        **options: Any,
    ) -> OAuth:
        """For a user whom an enterprise's identity provider has signed in.

        :param id_token: the user's ID token, or a function that returns a fresh one.
        :param idp_token_endpoint: where the identity provider exchanges it, as the client `idp_client_id`.
        """
        made = cls(**options)
        idp = Credentials(idp_client_id, idp_client_secret, None, idp_private_key, key_id)
        own = Credentials(client_id, client_secret, None, private_key, key_id)
        made._grant = Enterprise(own, idp_token_endpoint, idp, id_token, subject_token_type)
        return made

    @classmethod
    def workload(cls, jwt: Secret, **options: Any) -> OAuth:
        """For a program that the platform it runs on vouches for.

        :param jwt: the workload's JWT, or a function that is called for a fresh one each time.
        """
        made = cls(**options)
        made._grant = Workload(jwt)
        return made

    @property
    def extensions(self) -> dict[str, dict[str, Any]]:
        """What a client declares as `capabilities.extensions` when it uses this. Spec: AUTH-111, AUTH-119"""
        names = [self._grant.extension] + (["io.modelcontextprotocol/auth/dpop"] if self._prover else [])
        return {name: {} for name in names if name}

    def __repr__(self) -> str:
        return f"<OAuth {self._grant.kind} {self._grant.credentials.client_id or ''}>"

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the token to a request, and stay there for its answer. Spec: AUTH-009, AUTH-010"""
        url = request.url or ""
        key = self._key(url)
        if key is None:
            return request
        access = self._access(key)
        if not access.loaded:
            with access.lock:
                self._load(key, access)
        if access.token is not None and has_expired(access.token) and access.server is not None:
            with access.lock:
                if access.token is not None and has_expired(access.token):
                    self._refresh(key, access)
        self._attach(request, access.token)
        request.register_hook("response", partial(self._answered, key))  # type: ignore[no-untyped-call]
        return request

    def _key(self, url: str) -> str | None:
        """The name of the server a URL belongs to, or None when it is not to get a token."""
        if self._resource is None:
            return canonical(url)
        return self._resource if origin(url) == origin(self._resource) else None

    def _access(self, key: str) -> _Access:
        return self._accesses.setdefault(key, _Access())

    def _attach(self, request: requests.PreparedRequest, token: Token | None) -> None:
        if token is None or not _is_safe(request.url or ""):
            return
        if self._prover is None:
            request.headers["Authorization"] = f"Bearer {token['access_token']}"
            return
        method, url = request.method or "", request.url or ""
        request.headers["Authorization"] = f"DPoP {token['access_token']}"
        request.headers["DPoP"] = self._prover.proof("resource", method, url, token["access_token"])

    def _answered(self, key: str, response: requests.Response, **how: Any) -> requests.Response:
        """Look at an answer; one that asks for a token, or another one, is replaced by that to a second request."""
        access = self._access(key)
        attempts, fresh, stepped = 0, None, None
        try:
            while True:
                url = response.request.url or ""
                if origin(url) != origin(key):
                    # Somebody followed a redirect to elsewhere.
                    return response
                nonce = self._prover is not None and self._prover.note("resource", url, response.headers)
                if response.status_code not in (401, 403):
                    if stepped is not None:
                        access.tried.pop(stepped, None)
                    return response
                challenge = read_challenge(response.headers.get("WWW-Authenticate"))
                sent = (response.request.headers.get("Authorization") or "").partition(" ")[2]
                if response.status_code == 403 and challenge.error != "insufficient_scope":
                    return response
                if challenge.schemes and not {"bearer", "dpop"} & set(challenge.schemes):
                    return response
                if attempts >= MOST_ATTEMPTS:
                    raise AuthorizationError(f"{show(key)} answered {response.status_code} to every token it was sent")
                attempts += 1
                if not (nonce and challenge.error == "use_dpop_nonce"):
                    if response.status_code == 403:
                        stepped = frozenset(challenge.scopes or ())
                    elif sent and sent == fresh:
                        raise AuthorizationError(f"{show(key)} does not accept the token that was just issued for it")
                    fresh = self._renew(key, access, challenge, sent, response.status_code == 403)
                response = self._again(response, access.token, **how)
        except BaseException:
            response.close()
            raise

    def _again(self, response: requests.Response, token: Token | None, **how: Any) -> requests.Response:
        """Send the request of a response once more, as `requests.auth.HTTPDigestAuth` does."""
        if not how.get("stream"):
            response.content  # noqa: B018  # what requests would have read anyway
        response.close()
        request = response.request.copy()
        if getattr(request, "_body_position", None) is not None:
            requests.utils.rewind_body(request)
        self._attach(request, token)
        connection: Any = response.connection  # type: ignore[attr-defined]
        again: requests.Response = connection.send(request, **how)
        again.history.append(response)
        again.request = request
        return again

    def _renew(self, key: str, access: _Access, challenge: Challenge, sent: str, more: bool) -> str | None:
        """Get a token after one was refused; what another thread got meanwhile will do.

        :param sent: the token that was refused, or "".
        :param more: whether it lacked scopes.
        :returns: the token if a new grant, not a refresh, was made for it.
        """
        turn = access.turn
        with access.lock:
            if access.token is not None and access.token["access_token"] != sent:
                return None
            if access.turn != turn and access.failure is not None:
                raise access.failure
            access.turn += 1
            try:
                access.failure = None
                return self._obtain(key, access, challenge, more)
            except ClientError as error:
                access.failure = error
                raise

    def _obtain(self, key: str, access: _Access, challenge: Challenge, more: bool) -> str | None:
        """Refresh, or make a new grant; `access.lock` is held."""
        if more:
            self._count(access, challenge)
        with self._fetcher(key) as fetch:
            if not more or access.server is None:
                self._discover(key, access, challenge, fetch)
            assert access.target is not None and access.server is not None
            self._load(key, access)
            if not more and access.token is not None and self._refresh(key, access, fetch):
                return None
            granted = (access.token or {}).get("scope")
            named = challenge.scopes or (() if more or self._scope else access.target.scopes)
            scope = union(self._scope, access.asked, granted, named)
            offline = self._offline_access and self._grant.interactive
            if scope and offline and "offline_access" in access.server.get("scopes_supported", ()):
                scope = union(scope, "offline_access")  # Spec: AUTH-100
            flow = Flow(fetch, access.server, access.target.resource, scope, self._prover)
            token = self._grant.get(flow)
            access.asked = scope
            self._keep(key, access, {**token, "scope": token["scope"] or scope})
            return str(token["access_token"])

    def _count(self, access: _Access, challenge: Challenge) -> None:
        """Take note of a step-up, and refuse one too many. Spec: AUTH-094, AUTH-096"""
        wanted = frozenset(challenge.scopes or ())
        access.tried[wanted] = access.tried.get(wanted, 0) + 1
        if not self._grant.steps_up or access.tried[wanted] >= MOST_ATTEMPTS:
            names = " ".join(sorted(wanted)) or "more than the token has"
            raise AuthorizationError(
                f"The server wants the scope {names!r}, which could not be had", "insufficient_scope"
            )

    def _discover(self, key: str, access: _Access, challenge: Challenge, fetch: Fetcher) -> None:
        """Find the authorization server, and forget the token of another. Spec: AUTH-024, AUTH-025, AUTH-063"""
        target = find_target(fetch, key, challenge)
        if target.issuers:
            issuer = self._pick(target.issuers, access)
            self._bind(issuer)
            server = find_server(fetch, issuer)
        else:
            server = legacy_server(fetch, key)
            issuer = server["issuer"]
            self._bind(issuer)
        if access.issuer not in (None, issuer):
            access.token, access.asked = None, ""
        access.loaded = access.loaded and access.issuer == issuer
        access.issuer, access.target, access.server = issuer, target, server
        self._store[f"issuer {self._who()} {key}"] = {"issuer": issuer}

    def _pick(self, issuers: list[str], access: _Access) -> str:
        """One of several authorization servers: the configured one, the user's choice, one used before, the first."""
        if self._choose is not None:
            picked = self._choose(list(issuers))
            if picked not in issuers:
                raise AuthorizationError("choose= returned an authorization server that was not in the list")
            return picked
        bound = self._issuer or self._store.get(f"bound {self._who()}", {}).get("issuer")
        known = [item for item in issuers if item in (bound, access.issuer) or f"client {item}" in self._store]
        return (known or issuers)[0]

    def _bind(self, issuer: str) -> None:
        """Hold credentials that were configured to one authorization server. Spec: AUTH-061, AUTH-062, AUTH-064"""
        if self._grant.interactive and self._grant.credentials.client_id is None and self._issuer is None:
            return
        who = f"bound {self._who()}"
        bound = self._issuer or self._store.get(who, {}).get("issuer")
        if bound is None:
            self._store[who] = {"issuer": issuer}
        elif bound != issuer:
            raise AuthorizationError(
                f"The server names the authorization server {show(issuer)}, but the client's credentials belong to "
                f"{show(bound)}; nothing was sent there"
            )

    def _refresh(self, key: str, access: _Access, fetch: Fetcher | None = None) -> bool:
        """Use the refresh token if there is one; False when that gave no token. `access.lock` is held."""
        with contextlib.ExitStack() as stack:
            locked = getattr(self._store, "locked", None)
            if locked is not None:
                stack.enter_context(locked())
            used = access.token
            # Another process may have been faster, and used up the refresh token.
            access.loaded = False
            self._load(key, access)
            if used is None or access.token is None or access.server is None or access.target is None:
                return False
            if access.token["access_token"] != used["access_token"] and not has_expired(access.token):
                return True
            refresh_token = access.token.get("refresh_token")
            if not refresh_token:
                self._drop(key, access)
                return False
            if fetch is None:
                fetch = stack.enter_context(self._fetcher(key))
            flow = Flow(fetch, access.server, access.target.resource, "", self._prover)
            form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
            try:
                token = request_token(flow, form, self._grant.current(flow))
            except AuthorizationError:
                self._drop(key, access)
                return False
            # A server that does not rotate sends no new one. Kept before it is used. Spec: AUTH-078
            token["refresh_token"] = token["refresh_token"] or refresh_token
            self._keep(key, access, {**token, "scope": token["scope"] or access.token.get("scope")})
            return True

    def _who(self) -> str:
        return f"{self._grant.kind}:{self._grant.credentials.client_id or ''}"

    def _load(self, key: str, access: _Access) -> None:
        """Take what the store has for a server, once. `access.lock` is held."""
        if access.loaded:
            return
        access.loaded = True
        if access.issuer is None:
            access.issuer = self._store.get(f"issuer {self._who()} {key}", {}).get("issuer")
        kept = self._store.get(f"token {self._who()} {access.issuer} {key}") if access.issuer else None
        # A bound token is of no use without its key.
        if kept is not None and kept.get("token_type") == "bearer" and self._prover is None:
            access.token = kept
            access.asked = access.asked or kept.get("scope") or ""

    def _keep(self, key: str, access: _Access, token: Token) -> None:
        if self._prover is None:
            self._store[f"token {self._who()} {access.issuer} {key}"] = token
        access.token, access.loaded = token, True

    def _drop(self, key: str, access: _Access) -> None:
        access.token = None
        self._store.pop(f"token {self._who()} {access.issuer} {key}", None)

    def _fetcher(self, key: str) -> Fetcher:
        return Fetcher(self._private or is_local(key), *self._how)

    def _after_fork(self) -> None:
        """In the child: a lock that another thread of the parent held would never be let go."""
        for access in self._accesses.values():
            access.lock = threading.Lock()
        if self._prover is not None:
            self._prover.renew_lock()


def union(*scopes: Any) -> str:
    """The scopes of several strings or tuples, each once, in order. Spec: AUTH-095"""
    return " ".join(
        dict.fromkeys(name for item in scopes for name in (scope_list(item) if isinstance(item, str) else item or ()))
    )


def _is_safe(url: str) -> bool:
    """Whether a token may go there. Spec: AUTH-131"""
    parts = urlsplit(url)
    return parts.scheme == "https" or is_loopback(parts.hostname or "")


def _renew_locks() -> None:
    for instance in list(_instances):
        instance._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
