"""The requests of an authorization flow: bounded, without redirects to elsewhere, checked after resolution."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from json import dumps, loads
from typing import Any, NamedTuple, Union
from urllib.parse import urlencode, urljoin, urlsplit

from ..addresses import check_url, may_connect, origin, show
from ..errors import AuthorizationError, ClientError, ConnectionLost
from ..http_client.connections import Connections, HttpConnections
from ..http_client.pool import Pool
from ..http_client.reply import Reply

MOST_BYTES = 256 * 1024
MOST_REDIRECTS = 3
# Members that are None are left out.
Form = Mapping[str, Union[str, None]]


class Fetched(NamedTuple):
    """A status, the headers by lower-case name, and the JSON object that came, or None if it was none."""

    status: int
    headers: Mapping[str, str]
    body: dict[str, Any] | None


class NotServed(ConnectionLost):
    """The host answers, but with a failure of its own, which need not concern another path."""


class Fetcher:
    """The HTTP of one flow, with connections of its own: no cookie, proxy or .netrc of the caller's takes part.

    :param local: whether private addresses are allowed.
    :param timeout_s: how long one request may take.
    :param verify: as for `requests`: True or the path of a CA bundle.
    :param proxies: as for `requests`; a proxy resolves names itself, so only written addresses are checked then.
    """

    def __init__(
        self, local: bool, timeout_s: float, verify: Union[bool, str] = True, proxies: dict[str, str] | None = None
    ) -> None:
        self._local = local
        self._timeout_s = timeout_s
        self._verify = verify
        self._proxies = proxies or {}
        self._pools: dict[str, Pool] = {}  # by origin

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_: Any) -> None:
        for pool in self._pools.values():
            pool.close()

    def trusting(self) -> Fetcher:
        """Return one for an address that the user configured, wherever that is."""
        return Fetcher(True, self._timeout_s, self._verify, self._proxies)

    def get(self, url: str, what: str, headers: Mapping[str, str] | None = None) -> dict[str, Any] | None:
        """Read a JSON document; None when there is none at this address.

        Redirects are followed on the same origin only. Spec: AUTH-105
        :raises AuthorizationError: when the address may not be used.
        :raises ConnectionLost: when the host cannot be reached; `NotServed` when it fails.
        """
        for _ in range(MOST_REDIRECTS + 1):
            reply = self._send("GET", url, what, dict(headers or {}))
            if reply.status not in (301, 302, 303, 307, 308):
                break
            try:
                target = urljoin(url, reply.headers.get("location", ""))
                elsewhere = origin(target) != origin(url)
            except ValueError:
                raise ConnectionLost(f"The {what} at {show(url)} redirects to an invalid address", "always") from None
            if elsewhere:
                return None
            url = target
        if reply.status >= 500 or reply.status == 429:
            raise NotServed(f"HTTP {reply.status} for the {what} at {show(url)}", "always")
        return reply.body if reply.status == 200 else None

    def post(self, url: str, what: str, *, form: Form | None = None, json: Any = None, headers: Any = None) -> Fetched:
        """Send a form or JSON; a redirect is not followed, since the body holds secrets. Spec: AUTH-105"""
        if form is None:
            kind, body = "application/json", dumps(json)
        else:
            kind = "application/x-www-form-urlencoded"
            body = urlencode({name: value for name, value in form.items() if value is not None})
        return self._send("POST", url, what, {**(headers or {}), "Content-Type": kind}, body.encode("utf-8"))

    def _send(self, method: str, url: str, what: str, headers: dict[str, str], body: bytes = b"") -> Fetched:
        check_url(url, what)
        pool = self._pool(url, what)
        deadline = time.monotonic() + self._timeout_s
        reply: Reply | None = None
        try:
            reply = pool.request(method, {"Accept": "application/json", **headers}, body, deadline, url, raw=True)
            fetched = Fetched(reply.head(deadline), reply.headers, _read(reply, what, deadline))
            reply.release()
            return fetched
        except AuthorizationError:
            raise
        except ClientError as error:
            raise ConnectionLost(f"The {what} at {show(url)} could not be reached: {error}", "always") from None
        finally:
            if reply is not None:
                reply.close()

    def _pool(self, url: str, what: str) -> Pool:
        """Return the pool for the origin of a URL: of this flow's own connections, or through `requests` to a proxy."""
        place, proxied = origin(url), False
        if self._proxies:
            from requests.utils import select_proxy

            proxied = select_proxy(url, self._proxies) is not None
        self._check_host(url, what, proxied)
        if place not in self._pools:
            self._pools[place] = Pool(lambda: self._by_proxy(place) if proxied else self._direct(place))
        return self._pools[place]

    def _direct(self, place: str) -> Connections:
        return HttpConnections(place, verify=self._verify, check=self._check_peer)

    def _by_proxy(self, place: str) -> Connections:
        from ..http_client.foreign import SessionConnections

        connections = SessionConnections(place)
        connections.session.verify, connections.session.proxies = self._verify, self._proxies
        return connections

    def _check_host(self, url: str, what: str, proxied: bool) -> None:
        """Refuse a host one of whose addresses may not be connected to. Spec: AUTH-104"""
        parts = urlsplit(url)
        host = parts.hostname or ""
        flags = socket.AI_NUMERICHOST if proxied else 0
        try:
            found = socket.getaddrinfo(host, parts.port or 443, type=socket.SOCK_STREAM, flags=flags)
        except (OSError, UnicodeError):
            if proxied:
                return
            raise ConnectionLost(f"The {what} at {show(url)} could not be reached: unknown host", "always") from None
        if not all(may_connect(str(address[4][0]), self._local) for address in found):
            raise AuthorizationError(
                f"The {what} at {show(url)} is on a private or link-local address, which a server elsewhere may not "
                "name; pass private_addresses=True if this is your own network"
            )

    def _check_peer(self, address: str) -> None:
        """Hang up on an address that may not be connected to, whatever the name resolved to before."""
        if not may_connect(address, self._local):
            raise AuthorizationError(
                "An authorization host resolved to a private or link-local address; "
                "pass private_addresses=True if this is your own network"
            )


def _read(reply: Reply, what: str, deadline: float) -> dict[str, Any] | None:
    """Read the JSON object of a response; None for something else.

    :raises AuthorizationError: when it is longer than `MOST_BYTES`.
    """
    read = bytearray()
    for part in iter(lambda: reply.read(deadline), b""):
        read += part
        if len(read) > MOST_BYTES:
            raise AuthorizationError(f"The {what} is longer than {MOST_BYTES} bytes")
    try:
        found = loads(read)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
