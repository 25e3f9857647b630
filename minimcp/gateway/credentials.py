"""The credentials of a gateway at its servers: of its own, or in exchange for its caller's token, which stays here.

A server's `credentials` in a configuration have one of these members:

    {"bearer": "TOKEN"}
    {"clientCredentials": {"clientId", "clientSecret", "scope"?, "resource"?, "issuer"? or "tokenUrl"?, ...}}
    {"tokenExchange": {"tokenUrl", "clientId", "clientSecret", "audience"? or "resource"?, "scope"?, ...}}
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, Optional
from urllib.parse import urlsplit

from ..engines.addresses import is_loopback
from ..engines.errors import AuthorizationError, ClientError, ConnectionLost
from ..engines.oauth.endpoint import EndpointAuth, EndpointTokens, TokenEndpoint
from ..engines.oauth.grants import ACCESS_TOKEN, TokenExchange
from ..protocol.errors import Unauthorized
from .checks import Option, Place, fields, flag, members, one_of
from .forwarded import Forwarded

if TYPE_CHECKING:
    from ..engines.http_client.request import SignedAnswer
    from ..engines.http_client.response import Headers
    from ..protocol.principal import Principal
    from .config import UpstreamSettings

log = logging.getLogger("minimcp")

Message = dict[str, Any]

# The callers whose tokens are kept, the last ones to call.
MOST_CALLERS = 10_000


def _text(value: Any, place: Place) -> str:
    # Variables in it are replaced already; a secret may look like one.
    if not isinstance(value, str) or not value:
        raise place.wrong("must be a string that is not empty")
    return value


_METHOD = Option(one_of("client_secret_basic", "client_secret_post"))
_CLIENT = {
    "clientId": Option(_text, required=True),
    "clientSecret": Option(_text, required=True),
    "scope": Option(_text),
    "resource": Option(_text),
}
_OPTIONS = {
    "clientCredentials": {
        **_CLIENT,
        "tokenUrl": Option(_text),
        "audience": Option(_text),
        "method": _METHOD,
        "issuer": Option(_text),
        "privateAddresses": Option(flag),
    },
    "tokenExchange": {
        **_CLIENT,
        "tokenUrl": Option(_text, required=True),
        "audience": Option(_text),
        "method": _METHOD,
        "subjectTokenType": Option(_text),
    },
}
_KINDS = ("bearer", *_OPTIONS)
_AT_ENDPOINT = ("audience", "method")
_DISCOVERED = ("issuer", "private_addresses")


class _Acting(NamedTuple):
    """The caller whose request this thread is relaying."""

    principal: Optional[Principal]
    environ: Optional[Message]


_acting: ContextVar[Optional[_Acting]] = ContextVar("minimcp_acting", default=None)


@contextlib.contextmanager
def _act(acting: _Acting) -> Iterator[None]:
    token = _acting.set(acting)
    try:
        yield
    finally:
        _acting.reset(token)


class Credentials:
    """The credentials of connections to one server.

    :param settings: of the server; credentials that are no dict are taken as they are, as what `Client(auth=)` takes.
    :param auth: the verifier of the gateway's own callers, or several: a token that a `Jwt` or an `Introspection` among
        them has verified can be exchanged, and nothing else.
    :param public_url: that of the gateway, which such tokens may be issued for.
    :ivar per_principal: whether what the server lists and does depends on the caller, so that no connection is shared.
    :raises ValueError: naming what is wrong in `credentials` or `forward_headers`.
    """

    def __init__(self, settings: UpstreamSettings, auth: Any = None, public_url: str | None = None) -> None:
        self._name = settings.name
        self._auth = auth
        self._verifiers: list[Any] = []
        self._public_url = public_url or ""
        place = Place(f"The server {settings.name!r}:")
        self._forwarded = Forwarded(settings.name, settings.forward_headers, place.at("forwardHeaders"))
        self._fixed: Any = None
        self._exchange: Optional[_Exchanges] = None
        if settings.credentials is not None and not isinstance(settings.credentials, dict):
            self._fixed = settings.credentials
        elif settings.credentials is not None:
            self._read(settings, place.at("credentials"))
        self.per_principal = self._exchange is not None

    def _read(self, settings: UpstreamSettings, place: Place) -> None:
        given = members(settings.credentials, place, _KINDS)
        if len(given) != 1:
            raise place.wrong(f"has one of {', '.join(_KINDS)}")
        _check_entries(settings, place, secret=next(iter(given)) != "bearer")
        ((kind, value),) = given.items()
        if kind == "bearer":
            self._fixed = _bearer(value, place.at(kind))
            return
        found = fields(value, place.at(kind), _OPTIONS[kind])
        if kind == "clientCredentials":
            self._fixed = _Told(settings.name, _of_program(found, place.at(kind)))
            return
        if not ("audience" in found or "resource" in found):
            raise place.at(kind).wrong("needs 'audience' or 'resource': whom the new token is for")
        self._verifiers = _of_tokens(self._auth)
        if not self._verifiers:
            raise place.at(kind).wrong(
                "needs callers with access tokens: the gateway's auth has neither jwt nor introspection"
            )
        self._exchange = _Exchanges(found, _endpoint(found, place.at(kind)))

    def auth_for(self, principal: Principal | None) -> Any:
        """Return what `Client(auth=)` takes for a connection of this caller, None for nothing."""
        if self._exchange is None:
            return self._fixed
        return _Told(self._name, EndpointAuth(lambda: self._tokens(principal)))

    def acting(self, principal: Principal | None, environ: Message | None) -> AbstractContextManager[None]:
        """Act for a caller while this thread opens a connection or sends a request; see `per_principal`.

        What other threads send meanwhile, such as a stream that is opened again, has the caller's last token.

        :param environ: the WSGI environ of the caller's request, None for one that did not come over HTTP.
        """
        return contextlib.nullcontext() if self._exchange is None else _act(_Acting(principal, environ))

    def headers_for(self, environ: Message | None) -> dict[str, str]:
        """Return the headers of a caller's request that the server gets; one that cannot be sent is left out."""
        return self._forwarded.headers(environ)

    def _tokens(self, principal: Principal | None) -> EndpointTokens:
        """Return the tokens for the request that this thread sends for a caller.

        :raises NotExchangeable: when the caller has no token to exchange.
        """
        exchange, acting = self._exchange, _acting.get()
        assert exchange is not None
        if principal is None:
            raise NotExchangeable(self._name)
        if acting is None:
            subject = exchange.last(principal)
        elif acting.principal == principal:
            subject = self._subject(principal, acting.environ)
        else:
            # A mistake that would let one caller act as another.
            raise AuthorizationError(f"A connection to {self._name!r} was used for another caller than it was made for")
        if subject is None:
            raise NotExchangeable(self._name)
        return exchange.tokens(principal, subject)

    def _subject(self, principal: Principal, environ: Message | None) -> str | None:
        """Return the caller's bearer token, if a verifier of tokens says that it is this caller's."""
        from ..auth.verifier import AuthRequest

        if environ is None:
            return None
        request = AuthRequest(environ, "", self._public_url)
        if request.scheme != "bearer":
            return None
        for verifier in self._verifiers:
            try:
                # It remembers the tokens that it has verified.
                if verifier.verify(request) == principal:
                    return request.token
            except Unauthorized:
                continue
        return None


class NotExchangeable(AuthorizationError):
    """The caller has no token that could be exchanged for one of the server."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"The server {name!r} is used in the name of its caller: sign in with a bearer access token; "
            "an API key, a certificate or a token bound to a key cannot be exchanged"
        )


class _Exchanges:
    """The tokens that came for those of callers, by caller and by token; those who called last stay."""

    def __init__(self, options: Message, endpoint: TokenEndpoint) -> None:
        self._endpoint = endpoint
        self._subject_type = options.get("subject_token_type", ACCESS_TOKEN)
        self._options = options
        self._lock = threading.Lock()  # guards both
        self._found: OrderedDict[Any, EndpointTokens] = OrderedDict()
        self._last: OrderedDict[Any, str] = OrderedDict()

    def last(self, principal: Principal) -> str | None:
        """Return the last token of a caller."""
        return self._last.get(principal.key)

    def tokens(self, principal: Principal, subject: str) -> EndpointTokens:
        """Return the tokens for one of a caller, which need not be there yet."""
        key = (principal.key, hashlib.sha256(subject.encode("utf-8")).digest())
        with self._lock:
            found = self._found.get(key)
            if found is None:
                found = self._found[key] = self._make(subject)
            self._last[principal.key] = subject
            for kept, used in ((self._found, key), (self._last, principal.key)):
                kept.move_to_end(used)
                if len(kept) > MOST_CALLERS:
                    kept.popitem(last=False)
            return found

    def _make(self, subject: str) -> EndpointTokens:
        options = self._options
        grant = TokenExchange(self._endpoint.credentials, subject, self._subject_type, options.get("audience"))
        return self._endpoint.tokens(grant, options.get("scope", ""), options.get("resource"))


class _Told:
    """Credentials whose failures are told to the log, and to callers without what an authorization server said."""

    def __init__(self, name: str, auth: Any) -> None:
        self._name = name
        self._auth = auth
        self.extensions = getattr(auth, "extensions", {})

    def __repr__(self) -> str:
        return f"<credentials for {self._name}>"

    def for_server(self, url: str) -> _Told:
        """Return these credentials for the server at a URL alone."""
        return _Told(self._name, self._auth.for_server(url))

    def sign(self, method: str, url: str, headers: Headers) -> Headers:
        """Return the headers with the token."""
        with self._telling():
            signed: Headers = self._auth.sign(method, url, headers)
            return signed

    def answered(self, answers: Sequence[SignedAnswer]) -> bool:
        """Get another token when the newest answer refuses the one there is."""
        with self._telling():
            return bool(self._auth.answered(answers))

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except NotExchangeable:
            raise
        except ClientError as problem:
            log.warning("No token for %s: %s", self._name, problem)
            if isinstance(problem, ConnectionLost):
                text = f"The authorization server of {self._name!r} does not answer"
                raise ConnectionLost(text, "always") from None
            error = problem.error if isinstance(problem, AuthorizationError) else ""
            reason = f": {error}" if error else ""
            raise AuthorizationError(f"There is no access to the server {self._name!r}{reason}", error) from None


def _of_tokens(auth: Any) -> list[Any]:
    """Return the verifiers of bearer tokens among those of a server."""
    from ..auth.introspection import Introspection
    from ..auth.jwt import Jwt

    given = list(auth) if isinstance(auth, (list, tuple)) else [auth]
    return [each for each in given if isinstance(each, (Jwt, Introspection))]


def _bearer(value: Any, place: Place) -> str:
    token = _text(value, place)
    if not re.match(r"[\x21-\x7e]+\Z", token):
        raise place.wrong("is a token, which has no spaces and only ASCII characters")
    return token


def _of_program(found: Message, place: Place) -> Any:
    """Return the credentials of the gateway itself, from an endpoint that is named or one to be discovered."""
    if "token_url" in found:
        _only(found, _DISCOVERED, place, "goes without tokenUrl")
        auth = _endpoint(found, place)
        options: Message = {name: found[name] for name in ("scope", "audience", "resource") if name in found}
        return place.make(auth.client_credentials, **options)
    _only(found, _AT_ENDPOINT, place, "goes with tokenUrl")
    from ..engines.oauth.oauth import OAuth

    options = {name: found[name] for name in ("scope", "resource", *_DISCOVERED) if name in found}
    return place.make(OAuth.client_credentials, found["client_id"], found["client_secret"], **options)


def _only(found: Message, names: Sequence[str], place: Place, said: str) -> None:
    for name in names:
        if name in found:
            key = re.sub(r"_(.)", lambda letter: letter[1].upper(), name)
            raise place.at(key).wrong(said)


def _endpoint(found: Message, place: Place) -> TokenEndpoint:
    try:
        return TokenEndpoint(found["token_url"], found["client_id"], found["client_secret"], method=found.get("method"))
    except AuthorizationError as problem:
        raise place.at("tokenUrl").wrong(f"cannot be used. {problem.message}") from None


def _check_entries(settings: UpstreamSettings, place: Place, secret: bool) -> None:
    """Make sure that there is something to authenticate to, and no other credential.

    :param secret: whether the token is one that nobody on the way may read.
    """
    addresses = [each for each in settings.entries if "url" in each]
    if not addresses:
        raise place.wrong("is for a server with a url; a process gets its credentials by env")
    for entry in addresses:
        headers = entry.get("headers")
        if isinstance(headers, dict) and any(str(name).lower() == "authorization" for name in headers):
            raise place.wrong("and the header Authorization of the server are both credentials; name one")
        parts = urlsplit(str(entry["url"]))
        if secret and parts.scheme.lower() == "http" and not is_loopback(parts.hostname or ""):
            raise place.wrong("needs https: the url of the server is http, and not on this machine")
