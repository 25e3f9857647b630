"""The requests of an authorization flow: bounded, without redirects to elsewhere, checked after resolution."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, Union
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from ..addresses import check_url, may_connect, origin, show
from ..errors import AuthorizationError, ConnectionLost

MOST_BYTES = 256 * 1024
MOST_REDIRECTS = 3
Form = Mapping[str, Any]


class Fetched(NamedTuple):
    """A status, the headers, and the JSON object that came, or None if it was none."""

    status: int
    headers: Mapping[str, str]
    body: dict[str, Any] | None


class Fetcher:
    """One flow's HTTP: a session of its own, so that no cookie, proxy or .netrc of the caller's takes part.

    :param local: whether private addresses are allowed.
    :param timeout_s: how long one request may take.
    :param verify: as for `requests`: True or the path of a CA bundle.
    :param proxies: as for `requests`; a proxy resolves names itself, so only written addresses are checked then.
    """

    def __init__(
        self, local: bool, timeout_s: float, verify: Union[bool, str] = True, proxies: dict[str, str] | None = None
    ) -> None:
        self._local = local
        self._how = timeout_s, verify, proxies
        self._timeout_s = timeout_s
        self._proxied = bool(proxies)
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = verify
        self._session.proxies = proxies or {}
        adapter = _Adapter(local)
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_: Any) -> None:
        self._session.close()

    def trusting(self) -> Fetcher:
        """One for an address that the user configured, wherever that is."""
        return Fetcher(True, *self._how)

    def get(self, url: str, what: str, headers: Mapping[str, str] | None = None) -> dict[str, Any] | None:
        """Read a JSON document; None when there is none at this address.

        Redirects are followed on the same origin only. Spec: AUTH-105
        :raises AuthorizationError: when the address may not be used.
        :raises ConnectionLost: when the host cannot be reached or fails.
        """
        for _ in range(MOST_REDIRECTS + 1):
            reply = self._send("GET", url, what, dict(headers or {}))
            if reply.status not in (301, 302, 303, 307, 308):
                break
            target = urljoin(url, reply.headers.get("Location", ""))
            if origin(target) != origin(url):
                return None
            url = target
        if reply.status >= 500 or reply.status == 429:
            raise ConnectionLost(f"HTTP {reply.status} for the {what} at {show(url)}", "always")
        return reply.body if reply.status == 200 else None

    def post(self, url: str, what: str, *, form: Form | None = None, json: Any = None, headers: Any = None) -> Fetched:
        """Send a form or JSON; a redirect is not followed, since the body holds secrets. Spec: AUTH-105"""
        return self._send("POST", url, what, dict(headers or {}), data=form, json=json)

    def _send(self, method: str, url: str, what: str, headers: dict[str, str], **body: Any) -> Fetched:
        check_url(url, what)
        self._check_host(url, what)
        # `identity`: the limit below then counts what is held in memory.
        headers = {"User-Agent": "minimcp", "Accept": "application/json", "Accept-Encoding": "identity", **headers}
        until = time.monotonic() + self._timeout_s
        try:
            with self._session.request(
                method, url, headers=headers, timeout=self._timeout_s, allow_redirects=False, stream=True, **body
            ) as response:
                return Fetched(response.status_code, response.headers, _read(response, what, until))
        except (requests.RequestException, HTTPError, ValueError) as error:
            # A ValueError is about a Location, which requests reads even if it is not to follow it.
            kind = type(error).__name__
            raise ConnectionLost(f"The {what} at {show(url)} could not be reached ({kind})", "always") from None

    def _check_host(self, url: str, what: str) -> None:
        """Refuse a host one of whose addresses may not be connected to. Spec: AUTH-104"""
        parts = urlsplit(url)
        host = parts.hostname or ""
        flags = socket.AI_NUMERICHOST if self._proxied else 0
        try:
            found = socket.getaddrinfo(host, parts.port or 443, type=socket.SOCK_STREAM, flags=flags)
        except (OSError, UnicodeError):
            if self._proxied:
                return
            raise ConnectionLost(f"The {what} at {show(url)} could not be reached: unknown host", "always") from None
        if not all(may_connect(str(address[4][0]), self._local) for address in found):
            raise _refused(url, what)


def _refused(url: str, what: str) -> AuthorizationError:
    return AuthorizationError(
        f"The {what} at {show(url)} is on a private or link-local address, which a server elsewhere may not name; "
        "pass private_addresses=True if this is your own network"
    )


def _read(response: requests.Response, what: str, until: float) -> dict[str, Any] | None:
    """The JSON object of a response, or None.

    :raises AuthorizationError: when it is longer than `MOST_BYTES` or takes too long.
    """
    parts, size = [], 0
    read = getattr(response.raw, "read1", response.raw.read)
    while True:
        part = read(16384)
        if not part:
            break
        parts.append(part)
        size += len(part)
        if size > MOST_BYTES:
            raise AuthorizationError(f"The {what} is longer than {MOST_BYTES} bytes")
        if time.monotonic() > until:
            raise ConnectionLost(f"The {what} did not arrive in time", "always")
    try:
        found = json.loads(b"".join(parts))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


class _Adapter(HTTPAdapter):
    """Looks at the address a socket is really connected to before anything is sent over it."""

    def __init__(self, local: bool) -> None:
        self._local = local
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **named: Any) -> None:
        super().init_poolmanager(*args, **named)
        pools = {}
        for scheme, pool in (("http", HTTPConnectionPool), ("https", HTTPSConnectionPool)):
            connection = type("Checked", (_Checked, pool.ConnectionCls), {"local": self._local})
            pools[scheme] = type("CheckedPool", (pool,), {"ConnectionCls": connection})
        self.poolmanager.pool_classes_by_scheme = pools


class _Checked:
    """A urllib3 connection that hangs up on an address it should not talk to, whatever the name resolved to before."""

    local = False

    def _new_conn(self) -> socket.socket:
        made: socket.socket = super()._new_conn()  # type: ignore[misc]
        if not may_connect(str(made.getpeername()[0]), self.local):
            made.close()
            raise AuthorizationError(
                "An authorization host resolved to a private or link-local address; "
                "pass private_addresses=True if this is your own network"
            )
        return made
