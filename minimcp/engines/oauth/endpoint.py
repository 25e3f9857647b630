"""Tokens of a token endpoint that is configured: nothing is discovered, and no server says where credentials go.

endpoint = TokenEndpoint("https://id.example/token", "my-program", "s3cret")
Client("https://crm.example/mcp", auth=endpoint.client_credentials(scope="crm"))
Client("https://crm.example/mcp", auth=endpoint.exchange(token_of_my_user, audience="crm"))
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Union
from urllib.parse import urlsplit

from ..addresses import canonical, check_url, is_loopback, origin, show
from ..errors import AuthorizationError, ClientError
from ..fork import PerProcess
from ..http_client.request import SignedAnswer
from ..http_client.response import Headers
from .fetching import Fetcher
from .grants import ACCESS_TOKEN, ClientCredentials, ClientIdentity, Flow, Grant, Secret, TokenExchange
from .tokens import Token, has_expired

if TYPE_CHECKING:
    import requests

# A refusal counts for this long, and a token that is younger is not replaced.
_PAUSE_S = 5.0


class TokenEndpoint:
    """A token endpoint, and the credentials of this program there.

    :param url: https, or http on this machine.
    :param method: how the program authenticates itself: "client_secret_basic" or "client_secret_post"; with a
        `private_key`, which is PEM text or a key object, "private_key_jwt".
    :param timeout: seconds that one request may take.
    :param verify: True or the path of a CA bundle, as for `requests`; `proxies` as well.
    :raises AuthorizationError: for another URL.
    """

    def __init__(
        self,
        url: str,
        client_id: str,
        client_secret: str | None = None,
        *,
        private_key: Any = None,
        key_id: str | None = None,
        algorithm: str | None = None,
        method: str | None = None,
        timeout: float = 30,
        verify: Union[bool, str] = True,
        proxies: dict[str, str] | None = None,
    ) -> None:
        self.url = check_url(url, "token endpoint")
        self.credentials = ClientIdentity(client_id, client_secret, method, private_key, key_id, algorithm)
        # It is where the user says, so it may be on a private network.
        self._fetcher: Callable[[], Fetcher] = lambda: Fetcher(True, timeout, verify, proxies)

    def __repr__(self) -> str:
        return f"<TokenEndpoint {show(self.url)}>"

    def client_credentials(
        self, *, scope: str = "", audience: str | None = None, resource: str | None = None
    ) -> EndpointAuth:
        """Return credentials of the program itself, as `auth=` for a `Client` or for `requests`."""
        grant = ClientCredentials(self.credentials, audience)
        tokens = self.tokens(grant, scope, resource)
        return EndpointAuth(lambda: tokens, extension=grant.extension)

    def exchange(
        self,
        subject: Secret,
        *,
        scope: str = "",
        audience: str | None = None,
        resource: str | None = None,
        subject_type: str = ACCESS_TOKEN,
    ) -> EndpointAuth:
        """Return credentials for acting as the user whose token is exchanged, as `auth=`. Spec: RFC 8693

        :param subject: the user's token, or a function that returns it; it is sent to the token endpoint alone.
        :param subject_type: the URN of its type.
        """
        tokens = self.tokens(TokenExchange(self.credentials, subject, subject_type, audience), scope, resource)
        return EndpointAuth(lambda: tokens)

    def tokens(self, grant: Grant, scope: str = "", resource: str | None = None) -> EndpointTokens:
        """Return the tokens of a grant from this endpoint."""
        server = {"issuer": self.url, "token_endpoint": self.url}
        named = canonical(resource) if resource else ""

        def get() -> Token:
            with self._fetcher() as fetch:
                return grant.get(Flow(fetch, server, named, scope, scope))

        return EndpointTokens(get)


class EndpointTokens:
    """The token of one grant, kept until shortly before it expires; one thread gets it, and the others wait for it.

    :param get: gets a new one.
    """

    def __init__(self, get: Callable[[], Token]) -> None:
        self._get = get
        # Held by the thread that gets a token, and guards everything; `_token` is also read without it.
        self._lock = PerProcess(threading.Lock)
        self._token: Token | None = None
        self._since = 0.0
        self._attempts = 0
        self._failure: ClientError | None = None
        self._failed = 0.0

    def access_token(self) -> str:
        """Return a token that has not expired.

        :raises ClientError: when there is none to be had. Those that wait meanwhile fail with it; a refusal of the
            authorization server stands for some seconds.
        """
        token = self._token
        if token is None or has_expired(token):
            token = self._renewed()
        return str(token["access_token"])

    def _renewed(self) -> Token:
        attempts = self._attempts
        with self._lock():
            if self._token is not None and not has_expired(self._token):
                return self._token
            if self._failure is not None and (self._attempts != attempts or self._is_refused()):
                raise copy.copy(self._failure)
            try:
                token = self._get()
            except ClientError as problem:
                self._failure, self._failed = problem, time.monotonic()
                raise
            finally:
                self._attempts += 1
            self._token, self._since, self._failure = token, time.monotonic(), None
            return token

    def _is_refused(self) -> bool:
        return isinstance(self._failure, AuthorizationError) and time.monotonic() - self._failed < _PAUSE_S

    def drop(self, sent: str) -> bool:
        """Take note that a server refused a token; False when it is too new for another one to help."""
        with self._lock():
            if self._token is None or self._token["access_token"] != sent:
                return True
            if time.monotonic() - self._since < _PAUSE_S:
                return False
            self._token = None
            return True


class EndpointAuth:
    """Signs requests with tokens of an endpoint, as `http_client.request.Auth` or as `auth=` of `requests`.

    :param tokens: returns the tokens for the request at hand.
    :param extension: what a client declares when it uses this, or "".
    :param place: the origin that alone gets the token, "" for any.
    """

    def __init__(self, tokens: Callable[[], EndpointTokens], place: str = "", extension: str = "") -> None:
        self._tokens = tokens
        self._place = place
        self.extensions: dict[str, dict[str, Any]] = {extension: {}} if extension else {}

    def for_server(self, url: str) -> EndpointAuth:
        """Return these credentials for the server at a URL alone."""
        return EndpointAuth(self._tokens, origin(url), "".join(self.extensions))

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the token to a request of `requests`, and send it again with another one if it was refused."""
        from ..http_client.foreign import attach

        return attach(self if self._place else self.for_server(request.url or ""), request)

    def sign(self, method: str, url: str, headers: Headers) -> Headers:
        """Return the header with the token.

        :raises AuthorizationError: when the token could be read on the way, or there is none.
        """
        if self._place and origin(url) != self._place:
            return {}
        parts = urlsplit(url)
        if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
            raise AuthorizationError(f"A token is sent over https, or to this machine, but not to {show(url)}")
        return {"Authorization": f"Bearer {self._tokens().access_token()}"}

    def answered(self, answers: Sequence[SignedAnswer]) -> bool:
        """Get another token when the newest answer refuses the one there is.

        :raises AuthorizationError: when that one is new.
        """
        answer = answers[-1]
        if answer.status != 401 or (self._place and origin(answer.url) != self._place):
            return False
        if not self._tokens().drop(answer.sent.get("authorization", "").partition(" ")[2]):
            raise AuthorizationError(f"{show(answer.url)} answers 401 to a token that was just issued for it")
        return True
