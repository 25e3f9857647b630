"""The HTTP request as verifiers see it, and the interface of a verifier."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Iterable
from typing import Any, Protocol, Union
from urllib.parse import quote, urlsplit

from ..protocol.principal import Authenticated

Environ = dict[str, Any]

# Scheme and token68 of RFC 9110; credentials of more than one word are not ours.
_CREDENTIAL = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}) +([A-Za-z0-9\-._~+/]+=*)\Z")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?\Z")
_PREFIX = re.compile(r"/[A-Za-z0-9\-._~/]*\Z")


class AuthRequest:
    """An HTTP request before its body is read.

    :ivar environ: the WSGI environ.
    :ivar scheme: the scheme of the `Authorization` header in lower case, such as "bearer"; "" without one.
    :ivar token: the credential after the scheme; "" without one, or where the header is malformed.
    :ivar resource: the server's `public_url`, by which tokens name it; "" where it has none.
    :ivar trusted: whether a proxy of `trusted_proxy=` sent it, whose headers may say who is calling.
    """

    __slots__ = ("_url", "environ", "resource", "scheme", "token", "trusted")

    def __init__(
        self, environ: Environ, url: str | Callable[[Environ], str], resource: str, trusted: bool = False
    ) -> None:
        self.environ = environ
        self._url = url
        self.resource = resource
        self.trusted = trusted
        value = environ.get("HTTP_AUTHORIZATION")
        found = _CREDENTIAL.match(value) if value else None
        self.scheme = found[1].lower() if found else ""
        self.token = found[2] if found else ""

    @property
    def url(self) -> str:
        """The address of the request as its caller wrote it, without query; behind a trusted proxy, the public one."""
        return self._url if isinstance(self._url, str) else self._url(self.environ)

    @property
    def method(self) -> str:
        """The HTTP method."""
        method: str = self.environ["REQUEST_METHOD"]
        return method

    def header(self, name: str) -> str | None:
        """Return a header's value; one that was sent twice has both, joined by a comma."""
        value: str | None = self.environ.get("HTTP_" + name.upper().replace("-", "_"))
        return value

    @property
    def foreign_page(self) -> bool:
        """Whether a browser sent it for a page of another origin: then a cookie in it says nothing about its sender."""
        site, origin = (self.header("Sec-Fetch-Site") or "").lower(), self.header("Origin") or ""
        if site:
            return site not in ("same-origin", "none")
        return bool(origin) and origin.partition("://")[2].lower() != urlsplit(self.url).netloc.lower()


class Verifier(Protocol):
    """An object that finds the caller of a request.

    Optional attributes say more to clients: `schemes`, the schemes of its challenge (by default ("Bearer",)), `scopes`,
    those that every request needs, and `issuers`, the URLs of the authorization servers whose tokens it takes.
    `needs_public_url` and `needs_trusted_proxy` name settings of the server without which it protects nothing.
    """

    def verify(self, request: AuthRequest) -> Authenticated:
        """Return the caller; None when the request has no credential of this verifier's kind.

        :raises Unauthorized: for a credential of its kind that is not valid; no further verifier is asked then.
        """
        ...


Auth = Union[Verifier, Callable[[AuthRequest], Authenticated], str, Iterable[Any]]


class PublicAddress:
    """The address of a server as its callers see it.

    :param public_url: the URL of the endpoint, such as "https://tools.example/mcp"; None to take it from each request.
    :param trusted_proxy: the addresses or networks of proxies whose X-Forwarded-Proto, -Host and -Prefix count.
    :raises ValueError: for a URL without http(s), or with a query or fragment; for a network that is none.
    """

    def __init__(self, public_url: str | None = None, trusted_proxy: str | Collection[str] = ()) -> None:
        if public_url is not None:
            parts = urlsplit(public_url)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
                raise ValueError(f"public_url is the http(s) URL of the endpoint, unlike {public_url!r}")
        self.public_url = public_url
        networks = [trusted_proxy] if isinstance(trusted_proxy, str) else trusted_proxy
        self._networks = [ipaddress.ip_network(each, strict=False) for each in networks]

    def trusts(self, environ: Environ) -> bool:
        """Say whether a trusted proxy sent the request."""
        if not self._networks:
            return False
        try:
            peer = ipaddress.ip_address(environ.get("REMOTE_ADDR", ""))
        except ValueError:
            return False
        # A socket that takes IPv6 and IPv4 writes IPv4 addresses so.
        peer = getattr(peer, "ipv4_mapped", None) or peer
        return any(peer in network for network in self._networks)

    def origin(self, environ: Environ) -> str:
        """Return the scheme, host and port by which the caller reached the server."""
        if self.public_url is not None:
            parts = urlsplit(self.public_url)
            return f"{parts.scheme}://{parts.netloc}"
        scheme, host = environ.get("wsgi.url_scheme", "http"), environ.get("HTTP_HOST", "")
        if self.trusts(environ):
            scheme = _last(environ, "HTTP_X_FORWARDED_PROTO") or scheme
            host = _last(environ, "HTTP_X_FORWARDED_HOST") or host
        if scheme not in ("http", "https") or not _HOST.match(host):
            scheme, host = environ.get("wsgi.url_scheme", "http"), environ.get("SERVER_NAME", "localhost")
        return f"{scheme}://{host}"

    def endpoint(self, environ: Environ) -> str:
        """Return the URL of the endpoint that this request is for."""
        if self.public_url is not None:
            return self.public_url
        prefix = _last(environ, "HTTP_X_FORWARDED_PREFIX") if self.trusts(environ) else ""
        if not _PREFIX.match(prefix):
            prefix = ""
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        return self.origin(environ) + prefix.rstrip("/") + quote(path.encode("latin-1").rstrip(b"/"))


def _last(environ: Environ, name: str) -> str:
    """Return the value that the nearest proxy wrote; those before it may be a stranger's."""
    value: str = environ.get(name, "")
    return value.rpartition(",")[2].strip()
