"""The grant with a user: registration, PKCE, the browser, the code. Spec: AUTH-047 to AUTH-086"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode, urlsplit

from ..addresses import check_url, is_loopback, show, with_query
from ..errors import AuthorizationError
from .dpop import base64url
from .grants import ClientIdentity, Flow, Grant, refusal, request_token
from .redirect import Receiver, read_answer
from .tokens import Store, Token

_METHODS = ("none", "client_secret_basic", "client_secret_post")


class Code(Grant):
    """Authorization code with PKCE.

    :param metadata: the client metadata of a registration.
    :param metadata_url: the URL of the client's metadata document, its `client_id` at servers that read such documents.
    :param login: takes the authorization URL, lets the user sign in, returns the URL they were sent back to.
    :param redirect_uri: the URL they are sent back to; without `login` on this machine, with a port.
    """

    kind = "code"
    interactive = True

    def __init__(
        self,
        credentials: ClientIdentity,
        store: Store,
        *,
        metadata: dict[str, Any],
        metadata_url: str | None,
        open_browser: Callable[[str], Any],
        login: Callable[[str], str] | None,
        redirect_uri: str | None,
        redirect_port: int,
        timeout_s: float,
    ) -> None:
        super().__init__(credentials)
        url = urlsplit(metadata_url or "https://a/b")
        if url.scheme != "https" or url.path in ("", "/"):
            raise ValueError("client_metadata_url must be an https URL with a path")  # AUTH-050
        if redirect_uri is None and (login is not None or redirect_port):
            redirect_uri = f"http://127.0.0.1{f':{redirect_port}' if redirect_port else ''}/callback"
        if redirect_uri is not None:
            back = urlsplit(check_url(redirect_uri, "redirect URI"))
            if login is None and not (back.scheme == "http" and back.port):
                raise ValueError("redirect_uri needs login=, or has to be an http URL of this machine with a port")
        self._store = store
        self._metadata = metadata
        self._metadata_url = metadata_url
        self._open_browser = open_browser
        self._login = login
        self._redirect_uri = redirect_uri
        self._timeout_s = timeout_s

    def get(self, flow: Flow) -> Token:
        """Send the user to the authorization server and trade the code they come back with."""
        server = flow.server
        # Refuse before anything is registered. Spec: AUTH-069
        if "S256" not in server.get("code_challenge_methods_supported", ()):
            raise AuthorizationError(f"The authorization server {show(server['issuer'])} does not offer PKCE with S256")
        if "authorization_endpoint" not in server:
            raise AuthorizationError(f"The metadata of {show(server['issuer'])} has no authorization endpoint")
        try:
            return self._once(flow)
        except AuthorizationError as error:
            if not self._forget(flow, error.error):
                raise
        return self._once(flow)

    def _once(self, flow: Flow) -> Token:
        if self._login is not None and self._redirect_uri is not None:
            return self._sign_in(flow, self._redirect_uri, None)
        receiver = self._listen(flow.server["issuer"])
        try:
            return self._sign_in(flow, receiver.uri, receiver)
        finally:
            receiver.close()

    def _forget(self, flow: Flow, error: str) -> bool:
        """Drop a registration that the server does not know or that lacks scopes; False for another cause."""
        place = f"client {flow.server['issuer']}"
        kept = self._store.get(place) if self._static(flow) is None else None
        lacking = set(flow.scope.split()) - set((kept or {}).get("scope", "").split())
        if kept is None or not (error == "invalid_client" or (error == "invalid_scope" and lacking)):
            return False
        del self._store[place]
        return True

    def _listen(self, issuer: str) -> Receiver:
        """Listen on the configured port, or on the one that is registered, or on any."""
        try:
            return Receiver(self._redirect_uri or self._store.get(f"client {issuer}", {}).get("redirect_uri"))
        except OSError:
            if self._redirect_uri:
                raise AuthorizationError(
                    f"The port of {self._redirect_uri} is taken by another program, or this machine lacks the address"
                ) from None
            return Receiver()

    def _sign_in(self, flow: Flow, redirect_uri: str, receiver: Receiver | None) -> Token:
        server, state, verifier = flow.server, secrets.token_urlsafe(24), secrets.token_urlsafe(48)
        credentials = self._credentials(flow, redirect_uri)
        query = {
            "response_type": "code",
            "client_id": credentials.client_id,
            "redirect_uri": redirect_uri,
            "state": state,
            "code_challenge": base64url(hashlib.sha256(verifier.encode("ascii")).digest()),
            "code_challenge_method": "S256",
            "resource": flow.resource,
        }
        if flow.scope:
            query["scope"] = flow.scope
        if "offline_access" in flow.scope.split():
            # OpenID providers grant it only to a user who was asked.
            query["prompt"] = "consent"
        url = check_url(with_query(server["authorization_endpoint"], urlencode(query)), "authorization endpoint")
        location = self._visit(url, state, receiver)
        promised = server.get("authorization_response_iss_parameter_supported") is True
        code = read_answer(location, state, server["issuer"], promised)
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        token = request_token(flow, form, credentials)
        # A later registration may replace this one, and a refresh token belongs to the client it was issued to.
        if self._static(flow) is None:
            token["client"] = [credentials.client_id, credentials.secret, credentials.method]
        return token

    def _visit(self, url: str, state: str, receiver: Receiver | None) -> str:
        """Let the user sign in and return the URL they were sent back to. Spec: AUTH-106, AUTH-107"""
        if receiver is None:
            assert self._login is not None
            location = self._login(url)
            if not isinstance(location, str):
                raise AuthorizationError("login= did not return the URL that the user was sent back to")
            return location
        receiver.expect(state)
        if self._open_browser(url) is False:
            raise AuthorizationError(
                "No browser could be opened; pass open_browser=print to see the address, or login= to do it otherwise"
            )
        return receiver.wait(self._timeout_s)

    def current(self, token: Token) -> ClientIdentity:
        """Return the credentials that a token was obtained with."""
        if "client" in token:
            return ClientIdentity(*token["client"])
        return self.credentials._replace(client_id=self.credentials.client_id or self._metadata_url)

    def _credentials(self, flow: Flow, redirect_uri: str) -> ClientIdentity:
        """Return credentials: configured, of a metadata document, stored, or registered now. Spec: AUTH-047"""
        known = self._static(flow) or self._kept(flow, redirect_uri)
        if known is not None:
            return known
        if "registration_endpoint" not in flow.server:
            raise AuthorizationError(
                f"The authorization server {show(flow.server['issuer'])} registers no clients by itself: "
                "register one there by hand and pass client_id= (and client_secret= if it has one)"
            )
        return self._register(flow, redirect_uri)

    def _static(self, flow: Flow) -> ClientIdentity | None:
        """Return the configured credentials, if this server takes them."""
        if self.credentials.client_id is not None:
            return self.credentials
        if self._metadata_url is not None and flow.server.get("client_id_metadata_document_supported") is True:
            return self.credentials._replace(client_id=self._metadata_url)
        return None

    def _kept(self, flow: Flow, redirect_uri: str) -> ClientIdentity | None:
        """Return the credentials of an earlier registration. Spec: AUTH-061"""
        kept = self._store.get(f"client {flow.server['issuer']}")
        if kept is None or kept.get("redirect_uri") != redirect_uri:
            return None
        if 0 < kept.get("secret_expires_at", 0) < time.time():
            return None
        return ClientIdentity(kept["client_id"], kept.get("client_secret"), kept.get("method"))

    def document(self) -> dict[str, Any]:
        """Return the client metadata document. Spec: AUTH-051"""
        # The port of a redirect to this machine is left open. RFC 8252 section 7.3
        redirect_uri = self._redirect_uri or "http://127.0.0.1/callback"
        method = "none" if self.credentials.private_key is None else "private_key_jwt"
        return {"client_id": self._metadata_url, **self._describe(redirect_uri, method)}

    def _describe(self, redirect_uri: str, method: str) -> dict[str, Any]:
        """Return the client metadata of a registration. Spec: AUTH-057, AUTH-058, AUTH-099"""
        return {
            **self._metadata,
            "redirect_uris": [redirect_uri],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": method,
            "application_type": "native" if is_loopback(urlsplit(redirect_uri).hostname or "") else "web",
        }

    def _register(self, flow: Flow, redirect_uri: str) -> ClientIdentity:
        """Register the client. Spec: AUTH-056 to AUTH-061, AUTH-075"""
        server = flow.server
        supported = server.get("token_endpoint_auth_methods_supported") or ["client_secret_basic", "none"]
        asked = self._describe(redirect_uri, next((method for method in _METHODS if method in supported), "none"))
        if flow.all_scopes:
            asked["scope"] = flow.all_scopes
        reply = flow.fetch.post(server["registration_endpoint"], "registration endpoint", json=asked)
        body = reply.body or {}
        if asked.pop("scope", None) and body.get("error") == "invalid_client_metadata":
            # The scopes of a resource need not be scopes of the server that issues tokens for it.
            reply = flow.fetch.post(server["registration_endpoint"], "registration endpoint", json=asked)
            body = reply.body or {}
        if reply.status in (404, 405) and server.get("defaults"):
            raise AuthorizationError(
                f"The server wants a token but does not say where to get one: {show(server['issuer'])} has neither "
                "authorization metadata nor a place to register; if it takes a token of another kind, send that instead"
            )
        if reply.status not in (200, 201):
            error = refusal("registration endpoint", reply.status, reply.body, [])
            if error.error == "invalid_redirect_uri":
                error = AuthorizationError(
                    f"{error.message}. It does not take {redirect_uri} as a redirect URI; register the client by hand "
                    "and pass client_id=, or pass redirect_port= or redirect_uri= with one that it takes",
                    error.error,
                )
            raise error
        client_id, secret, method = (
            body.get(name) for name in ("client_id", "client_secret", "token_endpoint_auth_method")
        )
        if not isinstance(client_id, str) or not client_id or not isinstance(secret, (str, type(None))):
            raise AuthorizationError("The registration endpoint sent no usable client_id")
        expires_at = body.get("client_secret_expires_at")
        self._store[f"client {server['issuer']}"] = {
            "client_id": client_id,
            "client_secret": secret,
            "method": method if isinstance(method, str) else None,
            "secret_expires_at": expires_at if isinstance(expires_at, (int, float)) else 0,
            "redirect_uri": redirect_uri,
            "scope": flow.all_scopes,
        }
        return ClientIdentity(client_id, secret, method if isinstance(method, str) else None)
