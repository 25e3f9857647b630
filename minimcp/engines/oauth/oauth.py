"""`OAuth`: authorization for `requests`, or for a `Client`, that gets and renews its tokens by itself.

    requests.post("https://example.com/mcp", json=..., auth=OAuth("My program"))

A request is sent with the current token, if there is one. A server that answers 401 or 403 says what it requires; a
token is obtained for that, and the request is sent again. Spec: 26:basic/authorization
"""

from __future__ import annotations

import webbrowser
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Union
from urllib.parse import urlsplit

from ..addresses import canonical, is_local, is_loopback, origin, show
from ..errors import AuthorizationError
from ..http_client.request import SignedAnswer
from ..http_client.response import Headers
from .access import MOST_ATTEMPTS, ServerTokens, SharedSettings, not_enough
from .discovery import Challenge, Choose, read_challenge
from .dpop import Prover
from .fetching import Fetcher
from .grants import ID_TOKEN, ClientCredentials, ClientIdentity, Enterprise, Grant, Secret, Workload
from .login import Code
from .tokens import Store

if TYPE_CHECKING:
    import requests


class OAuth:
    """Authorization by OAuth 2.1 as MCP specifies it, as `auth=` for a `Client` or for plain `requests`.

    The constructor is for programs whose user signs in with a browser; the others are made by `client_credentials`,
    `enterprise` and `workload`. Several threads may share an object. An object, and a store, are for one user.

    :param client_name: the name of this program on the consent page.
    :param client_id: for a client that is registered already, with `client_secret` or `private_key` if it has one.
    :param issuer: the authorization server that `client_id` belongs to; without it the first one that a server names
        is taken, and no other later.
    :param client_metadata_url: the https URL of a client ID metadata document.
    :param scope: scopes to ask for beside those that the server names, separated by spaces.
    :param resource: the identifier of the server, when requests go to several URLs under it.
    :param store: where tokens and registrations are kept: any mapping from strings to dicts, such as a `FileStore`.
    :param redirect_port: the port of 127.0.0.1 that the browser is sent back to, 0 for any; or `redirect_uri`, all of
        it, such as "http://localhost:3000/callback".
    :param open_browser: shows the user a URL; may return False for a failure.
    :param login: instead of browser and port: takes the authorization URL, returns the one the user came back to.
    :param choose: picks one of several authorization servers, from a list of issuers.
    :param offline_access: whether to ask for a refresh token where that takes a scope.
    :param dpop: bind tokens to a key of this object, which lives as long as it does.
    :param private_addresses: allow authorization servers in the private network of a server that is not there itself.
    :param timeout: seconds that one request to an authorization server may take; `login_timeout` those that the user
        may take.
    :param verify: True or the path of a CA bundle, as for `requests`; for metadata and tokens.
    :param proxies: as for `requests`; for metadata and tokens.
    :raises AuthorizationError: out of a request, when no token can be obtained or none is accepted.
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
        timeout: float = 30,
        login_timeout: float = 300,
        verify: Union[bool, str] = True,
        proxies: dict[str, str] | None = None,
        _grant: Grant | None = None,
    ) -> None:
        if client_secret is not None and client_id is None:
            raise ValueError("client_secret= needs client_id=")
        store = {} if store is None else store
        credentials = ClientIdentity(client_id, client_secret, private_key=private_key, key_id=key_id)
        grant = _grant or Code(
            credentials,
            store,
            metadata={"client_name": client_name},
            metadata_url=client_metadata_url,
            open_browser=open_browser,
            login=login,
            redirect_uri=redirect_uri,
            redirect_port=redirect_port,
            timeout_s=login_timeout,
        )
        self._resource = None if resource is None else canonical(resource)
        self._grant = grant
        self._prover = Prover() if dpop else None
        self._common = SharedSettings(
            grant,
            store,
            lambda key: Fetcher(private_addresses or is_local(key), timeout, verify, proxies),
            self._prover,
            issuer,
            scope or "",
            choose,
            offline_access and grant.interactive,
        )
        self._servers: dict[str, ServerAuth] = {}  # grows by setdefault, which is atomic

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
        """Make one for a program that acts for itself.

        :param private_key: PEM text, or a key object; signs instead of `client_secret`, by `algorithm` if given.
        :param audience: what the signed assertion is addressed to, instead of the issuer.
        :param options: `issuer`, `scope`, `resource`, `store`, `dpop` and others that need no user.
        """
        if client_secret is None and private_key is None:
            raise ValueError("client_credentials needs client_secret= or private_key=")
        own = ClientIdentity(client_id, client_secret, None, private_key, key_id, algorithm, audience)
        return cls(**options, _grant=ClientCredentials(own))

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
        """Make one for a user whom an enterprise's identity provider has signed in.

        :param id_token: the user's ID token, or a function that returns a fresh one.
        :param idp_token_endpoint: where the identity provider exchanges it, as the client `idp_client_id`.
        """
        idp = ClientIdentity(idp_client_id, idp_client_secret, None, idp_private_key, key_id)
        own = ClientIdentity(client_id, client_secret, None, private_key, key_id)
        grant = Enterprise(own, idp_token_endpoint, idp, id_token, subject_token_type)
        return cls(**options, _grant=grant)

    @classmethod
    def workload(cls, jwt: Secret, **options: Any) -> OAuth:
        """Make one for a program that the platform it runs on vouches for.

        :param jwt: the workload's JWT, or a function that is called for a fresh one each time.
        """
        return cls(**options, _grant=Workload(jwt))

    @property
    def extensions(self) -> dict[str, dict[str, Any]]:
        """Return what a client declares as `capabilities.extensions` when it uses this. Spec: AUTH-111, AUTH-119"""
        names = [self._grant.extension] + (["io.modelcontextprotocol/auth/dpop"] if self._prover else [])
        return {name: {} for name in names if name}

    def client_metadata(self) -> dict[str, Any]:
        """Return the document to put at `client_metadata_url`; with a `private_key` it needs `jwks_uri` or `jwks`, too.

        Spec: AUTH-051
        """
        if not isinstance(self._grant, Code):
            raise ValueError("Only a client that signs in a user has a metadata document")
        return self._grant.document()

    def __repr__(self) -> str:
        return f"<OAuth {self._grant.kind} {self._grant.credentials.client_id or ''}>"

    def for_server(self, url: str) -> ServerAuth:
        """Return the credentials for all requests to one server, whatever their path; HTTP+SSE has two."""
        key = self._resource or canonical(url)
        found = self._servers.get(key)
        if found is None:
            found = self._servers.setdefault(key, ServerAuth(key, ServerTokens(key, self._common), self._prover))
        return found

    def sign(self, method: str, url: str, headers: Headers) -> Headers:
        """Return the headers with the token there is; see `http_client.request.Auth`."""
        return self.for_server(url).sign(method, url, headers)

    def answered(self, answers: Sequence[SignedAnswer]) -> bool:
        """Get a token if an answer asks for one; see `http_client.request.Auth`."""
        return self.for_server(answers[0].url).answered(answers)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the token to a request of `requests`, and send it again where its answer asks for that."""
        return self.for_server(request.url or "")(request)


class ServerAuth:
    """The credentials for one server, as `http_client.request.Auth`, or as `auth=` of `requests`.

    :param key: the name of the server: its URL, or the `resource` that was configured.
    """

    def __init__(self, key: str, tokens: ServerTokens, prover: Prover | None) -> None:
        self._key = key
        self._origin = origin(key)
        self._tokens = tokens
        self._prover = prover

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the token to a request of `requests`, and send it again where its answer asks for that."""
        from ..http_client.foreign import attach

        return attach(self, request)

    def sign(self, method: str, url: str, headers: Headers) -> Headers:
        """Return the headers with the token, if there is one and it may go to this URL. Spec: AUTH-009, AUTH-010"""
        if origin(url) != self._origin:
            return {}
        token = self._tokens.ready()
        if token is None or not (self._origin.startswith("https:") or is_loopback(urlsplit(url).hostname or "")):
            return {}
        if self._prover is None:
            return {"Authorization": f"Bearer {token['access_token']}"}
        proof = self._prover.proof("resource", method, url, token["access_token"])
        return {"Authorization": f"DPoP {token['access_token']}", "DPoP": proof}

    def answered(self, answers: Sequence[SignedAnswer]) -> bool:
        """Get a token, or another one, if the newest answer asks for it.

        :raises AuthorizationError: when none can be obtained, or none is accepted.
        """
        answer, attempt, tokens = answers[-1], len(answers) - 1, self._tokens
        if origin(answer.url) != self._origin:
            # The caller followed a redirect to another origin.
            return False
        nonce = self._prover is not None and self._prover.note("resource", answer.url, answer.headers)
        challenge = read_challenge(answer.headers.get("www-authenticate"))
        if not _concerns_us(answer.status, challenge):
            stepped = [earlier for earlier in answers[:-1] if earlier.status == 403]
            if stepped:
                tokens.succeeded(read_challenge(stepped[-1].headers.get("www-authenticate")))
            return False
        sent = answer.sent.get("authorization", "").partition(" ")[2]
        more = answer.status == 403
        if attempt == MOST_ATTEMPTS and more:
            raise not_enough(challenge)
        if attempt == MOST_ATTEMPTS or (attempt and not more and sent == tokens.granted and not nonce):
            raise AuthorizationError(
                f"{show(self._key)} answers {answer.status} to a token that was just issued for it"
            )
        if not (nonce and challenge.error == "use_dpop_nonce"):
            tokens.renew(challenge, sent, more, attempt > 0)
        return True


def _concerns_us(status: int, challenge: Challenge) -> bool:
    """Say whether a response asks for a token of ours. A 401 without a challenge does. Spec: AUTH-021, AUTH-091"""
    if status == 403:
        return challenge.error == "insufficient_scope"
    return status == 401 and (not challenge.schemes or bool({"bearer", "dpop"} & set(challenge.schemes)))
