"""HTTP requests to one address with the settings of a `requests.Session`, without its work on every request.

Where the session's adapter is the one of `requests` and no proxy is in between, its connection pool makes and verifies
the connections, and what goes over them is written and read here. Otherwise the adapter sends, and a request is under
way only once the head of its response is there.
"""

from __future__ import annotations

import os
import re
import ssl
import threading
import time
import weakref
from collections import deque
from typing import Any, Optional
from urllib.parse import urlsplit, urlunsplit

from ..protocol.errors import ClientError, ConnectionLost, ProtocolError
from .reading import Headers, Incoming, Raw
from .reply import Fields, Reply, origin, text_of

_FORBIDDEN = re.compile(r"[\r\n\0]")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
# How long to wait for the end of a stream whose last event was read, before its connection is given up.
_END_S = 0.01
# The process in which each session was first used here.
_first_used: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


class Setup:
    """What requests are made with in one process: addresses, headers, credentials and connections."""

    def __init__(self, url: str, headers: Optional[Headers], auth: Any, session: Any) -> None:
        import requests
        from requests.auth import HTTPBasicAuth

        if session is None:
            session = requests.Session()
            # No credentials of .netrc and no proxy of the environment that nobody asked for.
            session.trust_env = False
            session.headers = requests.structures.CaseInsensitiveDict({"User-Agent": "minimcp"})
        try:
            # An `auth` of None would make the session look for one, and call it.
            prepared = session.prepare_request(requests.Request("POST", url, headers=headers, auth=_unchanged))
            self.adapter = session.get_adapter(str(prepared.url))
        except (requests.RequestException, ValueError) as problem:
            raise ProtocolError(f"The address of the server cannot be used: {problem}") from None
        self.pid = os.getpid()
        if _first_used.setdefault(session, self.pid) != self.pid:
            # The connections it holds are the parent's; closing them here does not end them there.
            _first_used[session] = self.pid
            session.close()
        self.session = session
        self.url: str = prepared.url or url
        parts = urlsplit(self.url)
        if auth is None:
            auth = session.auth
        if auth is None and parts.username:
            auth = requests.utils.get_auth_from_url(self.url)
        if auth is None and session.trust_env:
            auth = requests.utils.get_netrc_auth(self.url)
        self.auth = HTTPBasicAuth(*auth) if isinstance(auth, tuple) else auth
        self.hooks = list(session.hooks.get("response", ()))
        self.fields: Fields = {name.lower(): (name, text_of(value)) for name, value in prepared.headers.items()}
        given = {name.lower() for name in (*session.headers, *(headers or {}))}
        for name in ("content-length", *(() if "cookie" in given else ("cookie",))):
            self.fields.pop(name, None)
        self.fields["accept-encoding"] = ("Accept-Encoding", "identity")
        self.url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
        self.settings = session.merge_environment_settings(self.url, {}, True, None, None)
        self.idle: deque[Incoming] = deque()
        self.pool = self._pool(prepared)

    def _pool(self, prepared: Any) -> Any:
        """The pool that makes connections, or None where the adapter must send."""
        from requests.adapters import HTTPAdapter
        from requests.utils import select_proxy

        adapter, settings = self.adapter, self.settings
        # Something that was put in its place, in a subclass or by a tool for tests, is to be used.
        send = getattr(type(adapter), "send", None)
        if send is not HTTPAdapter.send or send.__module__ != "requests.adapters":
            return None
        if select_proxy(self.url, settings["proxies"]) or adapter.max_retries.total:
            return None
        pool = adapter.get_connection_with_tls_context(prepared, settings["verify"], {}, settings["cert"])
        try:
            adapter.cert_verify(pool, self.url, settings["verify"], settings["cert"])
        except OSError as problem:
            raise ProtocolError(f"The TLS settings cannot be used: {problem}") from None
        return pool if hasattr(pool, "_new_conn") else None


class Web:
    """Makes requests; used by any number of threads, and in a forked child with connections of its own."""

    def __init__(self, url: str, headers: Optional[Headers], auth: Any, session: Any, limits: dict[str, float]) -> None:
        self.url = url
        self.limits = limits
        self._given = (url, headers, auth, session)
        self._lock = threading.Lock()  # held while the setup is made
        self._setup: Setup | None = None
        self._closed = False

    def setup(self) -> Setup:
        """What this process makes its requests with.

        :raises ProtocolError: for an address or settings that cannot be used.
        """
        setup = self._setup
        if setup is not None and setup.pid == os.getpid():
            return setup
        if setup is not None:
            # The parent may have held it while it forked.
            self._lock = threading.Lock()
        with self._lock:
            if self._setup is None or self._setup.pid != os.getpid():
                self._setup = Setup(*self._given)
            return self._setup

    def request(
        self, method: str, headers: Headers, body: bytes, deadline: float | None, url: str | None = None
    ) -> Reply:
        """Send a request.

        :param headers: they prevail over those of the setup.
        :param url: another address of the same origin.
        :raises ClientError: when it could not be sent; `retry` is "always" when the server surely did not run it.
        """
        setup = self.setup()
        self._closed = False
        url = url or setup.url
        fields = {**setup.fields, **{name.lower(): (name, value) for name, value in headers.items()}}
        if body:
            fields["content-length"] = ("Content-Length", str(len(body)))
        prepared: Any = None
        if setup.auth is not None or setup.hooks or setup.pool is None or setup.session.cookies:
            prepared = self._prepare(setup, method, url, fields, body)
            fields = {name.lower(): (name, text_of(value)) for name, value in prepared.headers.items()}
            body = prepared.body or b""
        reply = Reply(self, setup, method, fields, body, prepared)
        reply.send(url if prepared is None else prepared.url, deadline)
        return reply

    def _prepare(self, setup: Setup, method: str, url: str, fields: Fields, body: bytes) -> Any:
        """Build what `requests` lets its auth and hooks work on, and let them."""
        import requests

        prepared: Any = requests.PreparedRequest()
        get_cookies: Any = requests.cookies.get_cookie_header
        prepared.method = method
        prepared.url = url
        prepared.headers = requests.structures.CaseInsensitiveDict(fields.values())
        prepared.body = body or None
        prepared.hooks = {"response": list(setup.hooks)}
        prepared._cookies = setup.session.cookies
        if setup.session.cookies and "cookie" not in fields:
            cookie = get_cookies(setup.session.cookies, prepared)
            if cookie is not None:
                prepared.headers["Cookie"] = cookie
        if setup.auth is not None:
            prepared = setup.auth(prepared)
            if isinstance(prepared.body, str):
                prepared.body = prepared.body.encode("utf-8")
            if method == "POST":
                prepared.headers["Content-Length"] = str(len(prepared.body or b""))
            if origin(prepared.url) != origin(setup.url):
                raise ProtocolError("The auth changed the address of a request to another origin")
        return prepared

    def open(
        self, setup: Setup, method: str, url: str, fields: Fields, body: bytes, prepared: Any, deadline: float | None
    ) -> Any:
        """Send a request and return what its response is read from."""
        if setup.pool is None:
            return self._by_adapter(setup, prepared, url, deadline)
        data = _head(method, url, fields) + body
        while True:
            source = self._idle(setup)
            fresh = source is None
            connection = self._connect(setup, deadline) if source is None else source.connection
            try:
                connection.sock.settimeout(None if deadline is None else max(deadline - time.monotonic(), 0.001))
                connection.sock.sendall(data)
            except (BrokenPipeError, ConnectionResetError):
                if not fresh:
                    # It had been closed; the server cannot have run what it never got whole.
                    connection.close()
                    continue
                # A refusal of what is too long may be waiting there.
            except OSError as problem:
                connection.close()
                raise ConnectionLost(f"The request could not be sent: {problem}", "always") from None
            return Incoming(connection, int(self.limits["head_bytes"]), method)

    def _idle(self, setup: Setup) -> Incoming | None:
        """A connection that was used before and still stands."""
        from urllib3.util.wait import wait_for_read

        while setup.idle:
            try:
                source = setup.idle.pop()
            except IndexError:
                return None
            try:
                end = time.monotonic() + _END_S
                while not source.finished and source.read(end):
                    pass
            except ClientError:
                pass
            if source.reusable and not wait_for_read(source.connection.sock, timeout=0.0):
                return source
            source.close()
        return None

    def _connect(self, setup: Setup, deadline: float | None) -> Any:
        import urllib3

        connection = setup.pool._new_conn()
        left = self.limits["connect_s"]
        if deadline is not None:
            left = min(left, max(deadline - time.monotonic(), 0.001))
        connection.timeout = left
        try:
            connection.connect()
        except (OSError, urllib3.exceptions.HTTPError) as problem:
            connection.close()
            trust = isinstance(problem, (ssl.SSLError, urllib3.exceptions.SSLError))
            raise ConnectionLost(
                f"No connection to {origin(setup.url)}: {problem}", "never" if trust else "always"
            ) from None
        return connection

    def _by_adapter(self, setup: Setup, prepared: Any, url: str, deadline: float | None) -> Raw:
        import requests

        prepared.url = url
        try:
            response = setup.adapter.send(prepared, **self.send_options(setup, deadline))
        except requests.exceptions.Timeout as problem:
            from ..protocol.errors import Timeout

            never_sent = isinstance(problem, requests.exceptions.ConnectTimeout)
            raise Timeout("The server did not answer in time", "always" if never_sent else None) from None
        except (requests.RequestException, OSError) as problem:
            raise ConnectionLost(f"No answer from {origin(url)}: {problem}") from None
        return Raw(response)

    def send_options(self, setup: Setup, deadline: float | None) -> dict[str, Any]:
        """What an adapter's `send` is called with."""
        left = None if deadline is None else max(deadline - time.monotonic(), 0.001)
        connect_s = self.limits["connect_s"]
        return {**setup.settings, "timeout": (connect_s if left is None else min(left, connect_s), left)}

    def keep(self, setup: Setup, source: Any) -> None:
        """Take back a connection whose response was read, or may end at any moment."""
        full = len(setup.idle) >= self.limits["idle_connections"]
        if isinstance(source, Raw) or full or self._closed or setup.pid != os.getpid():
            source.close()
        else:
            setup.idle.append(source)

    def close(self) -> None:
        """Close the connections that are not in use, and those in use as they come back."""
        self._closed = True
        setup = self._setup
        if setup is None or setup.pid != os.getpid():
            return
        while setup.idle:
            try:
                setup.idle.pop().close()
            except IndexError:
                break
        if self._given[3] is None:
            setup.session.close()


def _head(method: str, url: str, fields: Fields) -> bytes:
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = parts.netloc
    default = {"http": ":80", "https": ":443"}.get(parts.scheme, "")
    if default and host.endswith(default):
        host = host[: -len(default)]
    lines = [f"{method} {target} HTTP/1.1"]
    if "host" not in fields:
        lines.append(f"Host: {host}")
    for name, value in fields.values():
        if _FORBIDDEN.search(value) or not _NAME.match(name):
            raise ProtocolError(f"The header {name[:100]!r} has characters that a header may not have")
        lines.append(f"{name}: {value}")
    try:
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    except UnicodeEncodeError:
        raise ProtocolError("A header has characters that a header may not have") from None


def _unchanged(prepared: Any) -> Any:
    return prepared
