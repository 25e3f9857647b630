"""Requests to a token endpoint: client authentication, and the grants that need no user.

Spec: AUTH-066, AUTH-111 to AUTH-131, AUTH-145 to AUTH-149
"""

from __future__ import annotations

import base64
import copy
import re
import time
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple, Union
from urllib.parse import quote

from ..addresses import check_url, show
from ..errors import AuthorizationError, ConnectionLost
from .dpop import Prover, jwt_library
from .fetching import Fetcher, Form
from .tokens import Token, read_token

TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ID_JAG = "urn:ietf:params:oauth:token-type:id-jag"
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
_JWT = "urn:ietf:params:oauth:token-type:jwt"
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ALGORITHMS = ("ES256", "RS256", "PS256", "EdDSA", "ES384", "RS384", "PS384", "ES512", "RS512", "PS512")
_CODE = re.compile(r"[a-z0-9_.:/-]{1,100}\Z")

# A string, or a function that is called for each request and returns one.
Secret = Union[str, Callable[[], str]]


class ClientIdentity(NamedTuple):
    """The identity of a client at one authorization server, and what proves it.

    :ivar method: the authentication method it was registered with, or None to choose from what the server supports.
    :ivar private_key: PEM text or a key object, for `private_key_jwt`.
    :ivar audience: the addressee of a signed assertion; None for the issuer.
    """

    client_id: str | None = None
    secret: str | None = None
    method: str | None = None
    private_key: Any = None
    key_id: str | None = None
    algorithm: str | None = None
    audience: str | None = None

    def __repr__(self) -> str:
        return f"ClientIdentity({self.client_id!r})"


class Flow(NamedTuple):
    """The circumstances of one token request.

    :ivar server: metadata of the authorization server.
    :ivar resource: the identifier of the MCP server.
    :ivar scope: the scopes to ask for, space-separated, or ""; `all_scopes` has those that may be asked for later, too.
    """

    fetch: Fetcher
    server: dict[str, Any]
    resource: str
    scope: str
    all_scopes: str
    prover: Prover | None = None


def request_token(flow: Flow, form: Form, credentials: ClientIdentity) -> Token:
    """Ask the token endpoint of a flow for a token.

    :raises AuthorizationError: when it refuses, or its answer cannot be used.
    """
    # Without a resource where the endpoint was configured for something that has another name. Spec: AUTH-070
    reply = _ask(flow, {**form, "resource": flow.resource or None}, credentials)
    issued = (reply or {}).get("issued_token_type", ACCESS_TOKEN)
    if form["grant_type"] == TOKEN_EXCHANGE and issued not in (ACCESS_TOKEN, _JWT):
        raise AuthorizationError("The token endpoint sent another kind of token than an access token")
    return read_token(reply, dpop=flow.prover is not None)


def _ask(flow: Flow, form: Form, credentials: ClientIdentity) -> dict[str, Any] | None:
    """Send a form to a token endpoint and return its answer, again when it wants a nonce. Spec: AUTH-135"""
    url, prover = flow.server["token_endpoint"], flow.prover
    for attempt in range(2):
        # Made again for each attempt: an assertion is for one use.
        headers, more = authenticate(flow.server, credentials)
        if prover is not None:
            headers["DPoP"] = prover.proof("token", "POST", url)
        reply = flow.fetch.post(url, "token endpoint", form={**form, **more}, headers=headers)
        fresh = prover is not None and prover.note("token", url, reply.headers)
        error = (reply.body or {}).get("error")
        if reply.status in (200, 201) and not error:
            return reply.body
        if reply.status >= 500 or reply.status == 429:
            raise ConnectionLost(f"HTTP {reply.status} from the token endpoint at {show(url)}", "always")
        if not (attempt == 0 and fresh and error == "use_dpop_nonce"):
            break
    sent = [*form.values(), *more.values(), credentials.secret, headers.get("Authorization", "").partition(" ")[2]]
    raise refusal("token endpoint", reply.status, reply.body, sent)


def refusal(what: str, status: int, body: dict[str, Any] | None, secrets: list[str | None]) -> AuthorizationError:
    """Return the error for a refused request: its code and description, nothing secret that was sent. Spec: AUTH-147"""
    code = (body or {}).get("error")
    code = code if isinstance(code, str) and _CODE.match(code) else ""
    detail = (body or {}).get("error_description")
    detail = detail if isinstance(detail, str) else ""
    for secret in secrets:
        if secret and len(secret) > 5:
            code, detail = code.replace(secret, "..."), detail.replace(secret, "...")
    detail = re.sub(r"[^\x20-\x7e]+", " ", detail)[:200].strip()
    reason = ": ".join(filter(None, (code or f"HTTP {status}", detail)))
    return AuthorizationError(f"The {what} refused: {reason}", code)


def authenticate(server: dict[str, Any], credentials: ClientIdentity) -> tuple[dict[str, str], dict[str, str]]:
    """Return the headers and form members that authenticate the client, by a method the server supports.

    Spec: AUTH-066, AUTH-116
    :raises AuthorizationError: when they have no method in common.
    """
    client_id, secret = credentials.client_id, credentials.secret
    if client_id is None:
        return {}, {}
    method = credentials.method or _method(server, credentials)
    if method == "private_key_jwt":
        return {}, {"client_id": client_id, **_assertion(server, credentials)}
    if method == "client_secret_basic" and secret is not None:
        pair = f"{quote(client_id, safe='')}:{quote(secret, safe='')}"
        header = {"Authorization": "Basic " + base64.b64encode(pair.encode("ascii")).decode("ascii")}
        # The header says who it is, but servers made with the official SDK look for it in the form.
        return header, {"client_id": client_id}
    if method == "client_secret_post" and secret is not None:
        return {}, {"client_id": client_id, "client_secret": secret}
    if method == "none":
        return {}, {"client_id": client_id}
    raise AuthorizationError(f"The client has no credentials for the authentication method {method!r}")


def _method(server: dict[str, Any], credentials: ClientIdentity) -> str:
    able = ["none"]
    if credentials.secret is not None:
        able = ["client_secret_basic", "client_secret_post", "none"]
    if credentials.private_key is not None:
        able.insert(0, "private_key_jwt")
    supported = server.get("token_endpoint_auth_methods_supported")
    # Many servers list only the methods of clients with a secret, and take those that are public nevertheless.
    if supported is None or able == ["none"]:
        return able[0]
    for method in able:
        if method in supported:
            return method
    raise AuthorizationError(
        f"The authorization server takes {', '.join(supported) or 'nothing'} for authentication at its token endpoint, "
        f"and this client can do {', '.join(able)}"
    )


def _assertion(server: dict[str, Any], credentials: ClientIdentity) -> dict[str, str]:
    """Make a client assertion for one request. Spec: AUTH-115, RFC 7523 section 2.2"""
    jwt = jwt_library()
    now = int(time.time())
    claims = {
        "iss": credentials.client_id,
        "sub": credentials.client_id,
        "aud": credentials.audience or server["issuer"],
        "iat": now,
        "exp": now + 300,
        "jti": str(uuid.uuid4()),
    }
    supported = server.get("token_endpoint_auth_signing_alg_values_supported")
    wanted = [credentials.algorithm] if credentials.algorithm else [a for a in _ALGORITHMS if a in (supported or [a])]
    headers = {"kid": credentials.key_id} if credentials.key_id else None
    for algorithm in wanted:
        try:
            signed = jwt.encode(claims, credentials.private_key, algorithm=algorithm, headers=headers)
        except (jwt.PyJWTError, TypeError, ValueError, AttributeError, NotImplementedError):
            # Not a key for this algorithm. What the library says may quote the key.
            continue
        return {"client_assertion_type": _ASSERTION, "client_assertion": signed}
    raise AuthorizationError(f"The private key cannot sign with any of {', '.join(wanted) or 'no algorithm'}")


class Grant:
    """A way to get a token.

    :cvar kind: its name in a store.
    :cvar extension: the identifier a client declares for it, or "".
    :cvar steps_up: whether a token with more scopes may be asked for when a server wants more.
    """

    kind = ""
    extension = ""
    steps_up = True
    interactive = False

    def __init__(self, credentials: ClientIdentity) -> None:
        self.credentials = credentials

    def get(self, flow: Flow) -> Token:
        """Get a token, or raise AuthorizationError."""
        raise NotImplementedError

    def current(self, token: Token) -> ClientIdentity:
        """Return the credentials that a token was obtained with; a refresh needs them."""
        return self.credentials


class ClientCredentials(Grant):
    """The grant for a client that acts for itself. Spec: AUTH-112 to AUTH-116

    :param audience: whom the token is for, where an authorization server wants that beside the resource.
    """

    kind = "client_credentials"
    extension = "io.modelcontextprotocol/oauth-client-credentials"

    def __init__(self, credentials: ClientIdentity, audience: str | None = None) -> None:
        super().__init__(credentials)
        self._audience = audience

    def get(self, flow: Flow) -> Token:
        form = {"grant_type": "client_credentials", "audience": self._audience, "scope": flow.scope or None}
        return request_token(flow, form, self.credentials)


class TokenExchange(Grant):
    """The grant for a program that has somebody's token, and acts for them elsewhere. Spec: RFC 8693

    :param subject: the token, or a function that returns a fresh one; it goes to the token endpoint alone.
    :param audience: whom the new token is for, beside or instead of a resource.
    """

    kind = "exchange"

    def __init__(
        self,
        credentials: ClientIdentity,
        subject: Secret,
        subject_type: str = ACCESS_TOKEN,
        audience: str | None = None,
    ) -> None:
        super().__init__(credentials)
        self._subject = subject
        self._subject_type = subject_type
        self._audience = audience

    def get(self, flow: Flow) -> Token:
        form = {
            "grant_type": TOKEN_EXCHANGE,
            "requested_token_type": ACCESS_TOKEN,
            "subject_token": _value(self._subject),
            "subject_token_type": self._subject_type,
            "audience": self._audience,
            "scope": flow.scope or None,
        }
        return request_token(flow, form, self.credentials)


class Enterprise(Grant):
    """The grant for a user whom an enterprise's identity provider vouches for. Spec: AUTH-120 to AUTH-126

    :param idp_token_endpoint: where the identity provider exchanges tokens.
    :param idp: the client's credentials there.
    :param subject: the user's ID token, or a function that returns a fresh one.
    """

    kind = "enterprise"
    extension = "io.modelcontextprotocol/enterprise-managed-authorization"

    def __init__(
        self,
        credentials: ClientIdentity,
        idp_token_endpoint: str,
        idp: ClientIdentity,
        subject: Secret,
        subject_type: str,
    ) -> None:
        super().__init__(credentials)
        self._idp_token_endpoint = check_url(idp_token_endpoint, "token endpoint of the identity provider")
        self._idp = idp
        self._subject = subject
        self._subject_type = subject_type

    def get(self, flow: Flow) -> Token:
        form = {
            "grant_type": TOKEN_EXCHANGE,
            "requested_token_type": ID_JAG,
            "audience": flow.server["issuer"],
            "resource": flow.resource,
            "subject_token": _value(self._subject),
            "subject_token_type": self._subject_type,
            "scope": flow.scope or None,
        }
        server = {"issuer": self._idp_token_endpoint, "token_endpoint": self._idp_token_endpoint}
        with flow.fetch.trusting() as fetch:
            reply = _ask(flow._replace(fetch=fetch, server=server, prover=None), form, self._idp) or {}
        assertion = reply.get("access_token")
        if reply.get("issued_token_type") != ID_JAG or str(reply.get("token_type", "")).lower() != "n_a":
            raise AuthorizationError("The identity provider sent something else than an ID-JAG")
        if not isinstance(assertion, str) or not assertion:
            raise AuthorizationError("The identity provider sent no ID-JAG")
        return request_token(flow, {"grant_type": JWT_BEARER, "assertion": assertion}, self.credentials)


class Workload(Grant):
    """The grant for a program that its platform vouches for; a refused JWT is not tried again.

    Spec: AUTH-145 to AUTH-149

    :param jwt: the workload's JWT, or a function that returns a fresh one.
    """

    kind = "workload"
    extension = "io.modelcontextprotocol/auth/wif"
    steps_up = False

    def __init__(self, jwt: Secret) -> None:
        super().__init__(ClientIdentity())
        self._jwt = jwt
        self._refused: tuple[str, AuthorizationError] | None = None

    def get(self, flow: Flow) -> Token:
        jwt = _value(self._jwt)
        if self._refused is not None and self._refused[0] == jwt:
            raise copy.copy(self._refused[1])
        try:
            form = {"grant_type": JWT_BEARER, "assertion": jwt, "scope": flow.scope or None}
            return request_token(flow, form, self.credentials)
        except AuthorizationError as error:
            self._refused = jwt, error
            raise


def _value(secret: Secret) -> str:
    return secret if isinstance(secret, str) else secret()
