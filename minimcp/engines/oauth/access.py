"""The token for one server: stored, refreshed, and requested by one thread at a time.

Spec: AUTH-024, AUTH-061 to AUTH-064, AUTH-088 to AUTH-101
"""

from __future__ import annotations

import contextlib
import copy
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..addresses import canonical, same_issuer, show
from ..errors import AuthorizationError, ClientError, ConnectionLost
from ..fork import PerProcess
from .discovery import Challenge, Choose, ProtectedResource, find_server, find_target, legacy_server, union
from .dpop import Prover
from .fetching import Fetcher, NotServed
from .grants import Flow, Grant, request_token
from .tokens import Store, Token, has_expired

# How often one request, or one set of scopes within some minutes, may end with 401 or 403. Spec: AUTH-096
MOST_ATTEMPTS = 3
_FORGOTTEN_S = 600


@dataclass(eq=False, repr=False)
class SharedSettings:
    """The settings that all servers of one `OAuth` share; `lock` guards `bound`.

    :param fetcher: makes a `Fetcher` for the server of this name.
    :ivar bound: the authorization server that configured credentials are for, once that is known.
    """

    grant: Grant
    store: Store
    fetcher: Callable[[str], Fetcher]
    prover: Prover | None
    issuer: str | None
    scope: str
    choose: Choose | None
    offline_access: bool

    def __post_init__(self) -> None:
        client_id = self.grant.credentials.client_id
        self.who = f"{self.grant.kind}:{client_id or ''}"
        # A client that registers itself, or has a metadata document, is at home everywhere. Spec: AUTH-065
        self.binds = self.issuer is not None or not self.grant.interactive or client_id is not None
        self.bound = self.issuer or (self.store.get(f"bound {self.who}", {}).get("issuer") if self.binds else None)
        self.lock = PerProcess(threading.Lock)

    def bind(self, issuer: str) -> None:
        """Hold configured credentials to one authorization server. Spec: AUTH-061, AUTH-062, AUTH-064

        :raises AuthorizationError: when they belong to another.
        """
        with self.lock():
            if self.binds and self.bound is None:
                self.bound = issuer
            if self.binds and not same_issuer(self.bound, issuer):
                raise AuthorizationError(
                    f"The server names the authorization server {show(issuer)}, but the client's credentials belong to "
                    f"{show(self.bound)}; nothing was sent there"
                )

    def keep(self, key: str, value: dict[str, Any]) -> None:
        """Store something unless it is there already."""
        if self.store.get(key) != value:
            self.store[key] = value


class ServerTokens:
    """The token for one server, and what was found out about its authorization server.

    `_turn.lock` is held by the thread that gets a token, and guards everything; `token` is also read without it.

    :param key: the name of the server: its URL, or the `resource` that was configured.
    :ivar granted: the last access token that came of a new grant, `refreshed` of a refresh token.
    """

    def __init__(self, key: str, common: SharedSettings) -> None:
        self._turn = PerProcess(_Turn)
        self.token: Token | None = None
        self.granted = self.refreshed = ""
        self._key = key
        self._common = common
        self._loaded = False
        self._issuer: str | None = None
        self._target: ProtectedResource | None = None
        self._server: dict[str, Any] | None = None
        self._asked = ""
        # When each set of scopes was asked for in vain.
        self._tried: dict[frozenset[str], list[float]] = {}
        # How often in a row a refresh ended without an answer.
        self._troubles = 0
        # Those that wait while another thread fails, fail with it.
        self._attempts = 0
        self._failure: ClientError | None = None

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock.

        :raises AuthorizationError: when this thread holds it already: `login=` uses the server it signs in to.
        """
        turn = self._turn()
        if turn.owner == threading.get_ident():
            raise AuthorizationError("The function that gets a token, such as login=, may not need that token itself")
        with turn.lock:
            turn.owner = threading.get_ident()
            try:
                yield
            finally:
                turn.owner = 0

    def ready(self) -> Token | None:
        """Return the token for the next request, refreshed if it is about to expire; None if there is none."""
        if not self._loaded or (self._server is not None and self._is_over()):
            with self._alone():
                self._load()
                if self._server is not None and self._is_over():
                    self._refresh()
        return self.token

    def _is_over(self) -> bool:
        return self.token is not None and has_expired(self.token)

    def renew(self, challenge: Challenge, sent: str, more: bool, again: bool) -> None:
        """Get another token after one was refused, unless another thread got one meanwhile.

        :param sent: the access token that was refused, or "".
        :param more: whether it lacked scopes.
        :param again: whether the same request was refused before; a refresh that led to this is not repeated.
        :raises ClientError: when none can be obtained.
        """
        attempts = self._attempts
        with self._alone():
            if self.token is not None and self.token["access_token"] != sent:
                return
            if self._attempts != attempts and self._failure is not None:
                raise copy.copy(self._failure)
            self._failure = None
            try:
                if more:
                    self._count(challenge)
                with self._common.fetcher(self._key) as fetch:
                    self._obtain(fetch, challenge, more, refresh=not more and not (again and sent == self.refreshed))
            except ClientError as error:
                self._failure = error
                raise
            finally:
                self._attempts += 1

    def succeeded(self, challenge: Challenge) -> None:
        """Forget the failed step-ups for this challenge, since one succeeded."""
        self._tried.pop(frozenset(challenge.scopes or ()), None)

    def _count(self, challenge: Challenge) -> None:
        """Count a step-up, and refuse one too many. Spec: AUTH-094, AUTH-096, AUTH-118"""
        wanted, now = frozenset(challenge.scopes or ()), time.monotonic()
        times = [item for item in self._tried.get(wanted, ()) if now - item < _FORGOTTEN_S] + [now]
        self._tried[wanted] = times[-MOST_ATTEMPTS:]
        if not self._common.grant.steps_up or len(times) >= MOST_ATTEMPTS:
            raise not_enough(challenge)

    def _obtain(self, fetch: Fetcher, challenge: Challenge, more: bool, refresh: bool) -> None:
        """Refresh, or make a new grant."""
        common = self._common
        if not more or self._server is None:
            self._discover(fetch, challenge)
        assert self._target is not None and self._server is not None
        self._load()
        if refresh and self.token is not None and self._refresh(fetch):
            return
        named = challenge.scopes or (() if common.scope and not more else self._target.scopes)
        scope = union(common.scope, self._asked, (self.token or {}).get("scope"), named)
        # On its own it would stand for all the scopes that come without asking. Spec: AUTH-100
        if scope and common.offline_access and "offline_access" in self._server.get("scopes_supported", ()):
            scope = union(scope, "offline_access")
        flow = Flow(fetch, self._server, self._target.resource, scope, union(scope, self._target.scopes), common.prover)
        token = common.grant.get(flow)
        if not common.grant.interactive:
            token["refresh_token"] = None
        self._asked, self.granted = scope, token["access_token"]
        self._keep({**token, "scope": token["scope"] or scope})

    def _discover(self, fetch: Fetcher, challenge: Challenge) -> None:
        """Find the authorization server, and forget the token of another. Spec: AUTH-025, AUTH-063"""
        try:
            target = find_target(fetch, self._key, challenge)
        except NotServed:
            server = legacy_server(fetch, self._key)
            if server.get("defaults"):
                # They are guessed, and what says otherwise may only be out of order.
                raise
            target = ProtectedResource(canonical(self._key), [], None)
        if target.issuers:
            issuer = self._pick(target.issuers)
            self._common.bind(issuer)
            server = find_server(fetch, issuer)
        else:
            server = legacy_server(fetch, self._key)
            issuer = server["issuer"]
            self._common.bind(issuer)
        if not same_issuer(self._issuer, issuer):
            self.token, self._asked, self._loaded = None, "", False
        self._issuer, self._target, self._server = issuer, target, server

    def _pick(self, issuers: list[str]) -> str:
        """Return one of several authorization servers: the chosen one, the one in use, one that knows us, the first."""
        common = self._common
        if common.choose is not None:
            picked = common.choose(list(issuers))
            if picked not in issuers:
                raise AuthorizationError("choose= returned an authorization server that is not in the list")
            return picked
        known = [item for item in issuers if item in (common.bound, self._issuer) or f"client {item}" in common.store]
        return (known or issuers)[0]

    def _refresh(self, fetch: Fetcher | None = None) -> bool:
        """Use the refresh token if there is one; False when that gave no token."""
        common = self._common
        with contextlib.ExitStack() as stack:
            if hasattr(common.store, "locked"):
                stack.enter_context(common.store.locked())
            used = self.token
            # Another process may have been faster, and used the refresh token up.
            self._loaded = False
            self._load()
            if used is None or self.token is None or self._server is None or self._target is None:
                return False
            if self.token["access_token"] != used["access_token"] and not has_expired(self.token):
                return True
            refresh_token = self.token.get("refresh_token")
            try:
                if not refresh_token:
                    raise AuthorizationError("There is no refresh token")
                fetch = fetch or stack.enter_context(common.fetcher(self._key))
                flow = Flow(fetch, self._server, self._target.resource, "", "", common.prover)
                form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
                token = request_token(flow, form, common.grant.current(self.token))
            except AuthorizationError:
                self.token = None
                common.store.pop(self._name(), None)
                return False
            except ConnectionLost:
                # It may pass. If it does not, nobody should have to clear a store to get in again.
                self._troubles += 1
                if self._troubles < MOST_ATTEMPTS:
                    raise
                return False
            self._troubles = 0
            # A server that does not rotate sends no new one. Kept before the token is used. Spec: AUTH-078
            token["refresh_token"] = token["refresh_token"] or refresh_token
            self.refreshed = token["access_token"]
            kept = {name: self.token[name] for name in ("client",) if name in self.token}
            self._keep({**token, **kept, "scope": token["scope"] or self.token.get("scope")})
            return True

    def _name(self) -> str:
        return f"token {self._common.who} {self._issuer} {self._key}"

    def _load(self) -> None:
        """Take the token of this server from the store, once."""
        if self._loaded:
            return
        store, place = self._common.store, f"issuer {self._common.who} {self._key}"
        self._issuer = self._issuer or store.get(place, {}).get("issuer")
        kept = store.get(self._name())
        # A bound token needs its key, which is not stored.
        if kept is not None and kept.get("token_type") == "bearer" and self._common.prover is None:
            self.token = kept
            self._asked = self._asked or kept.get("scope") or ""
        self._loaded = True

    def _keep(self, token: Token) -> None:
        common = self._common
        common.keep(f"issuer {common.who} {self._key}", {"issuer": self._issuer})
        if common.binds:
            common.keep(f"bound {common.who}", {"issuer": self._issuer})
        if common.prover is None:
            common.store[self._name()] = token
        self.token, self._loaded = token, True


def not_enough(challenge: Challenge) -> AuthorizationError:
    """Return the error for a server that requires scopes which no token gets."""
    names = f"the scope {' '.join(challenge.scopes)!a}" if challenge.scopes else "a scope that it does not name"
    return AuthorizationError(
        f"The server requires {names}, which the authorization server did not grant", "insufficient_scope"
    )


class _Turn:
    """The turn to get a token, within one process; `owner` is the thread that has it, or 0."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.owner = 0
