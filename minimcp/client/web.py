"""HTTP requests to one address with the settings of a `requests.Session`, without its work on every request.

Where the session's adapter is the one of `requests` and no proxy is in between, its connection pool makes and verifies
the connections, and what goes over them is written and read here. Otherwise the adapter sends, and a request is under
way only once the head of its response is there.
"""

from __future__ import annotations

import os
import re
import select
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Optional
from urllib.parse import quote, urlsplit, urlunsplit

from ..protocol.errors import ClientError, ConnectionLost, ProtocolError, Timeout
from .addresses import origin
from .reading import Headers, Incoming, Raw
from .reply import Fields, Reply, text_of

_FORBIDDEN = re.compile(r"[\r\n\0]")
# An address that needs nothing done to it.
_PLAIN = re.compile(r"http://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~/?=&+,;:-]*)?\Z")
_AGENT = "minimcp"
_TARGET = re.compile(r"[!-~]+\Z")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
# How long to wait for the end of a stream whose last event was read, before its connection is given up.
_END_S = 0.01
# The process in which each session was first used here.
_first_used: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


class Setup:
    """What requests are made with in one process: addresses, headers, credentials and connections.

    :ivar connect: makes a connection that is not connected yet, or None where the adapter must send.
    """

    def __init__(self, url: str, headers: Optional[Headers], auth: Any, session: Any) -> None:
        self.pid = os.getpid()
        self.idle: deque[Incoming] = deque()
        self.url = url
        self.auth: Any = None
        self.hooks: list[Any] = []
        self.connect: Optional[Callable[[], Any]] = None
        self._session: Any = None
        if session is None and auth is None and _PLAIN.match(url):
            # Nothing that `requests` is needed for, and it takes its time to load.
            parts = urlsplit(url)
            try:
                host, port = parts.hostname or "", parts.port or 80
            except ValueError as problem:
                raise ProtocolError(f"The address of the server cannot be used: {problem}") from None
            self.connect = lambda: _Connection(host, port)
            given = (headers or {}).items()
            self.fields: Fields = {name.lower(): (name, text_of(value)) for name, value in given if value is not None}
            self.fields.setdefault("user-agent", ("User-Agent", _AGENT))
        else:
            self._adopt(session or self.session, headers, auth)
        self.fields["accept-encoding"] = ("Accept-Encoding", "identity")

    @property
    def session(self) -> Any:
        """The session of `requests`; one of its own when it was given none."""
        if self._session is None:
            import requests

            self._session = requests.Session()
            # No credentials of .netrc and no proxy of the environment that nobody asked for.
            self._session.trust_env = False
            self._session.headers = requests.structures.CaseInsensitiveDict({"User-Agent": _AGENT})
        return self._session

    @property
    def cookies(self) -> Any:
        """The cookies to send, if any."""
        return None if self._session is None else self._session.cookies

    def close(self) -> None:
        """Close what this made, and not what it was given."""
        if self._session is not None and self._session not in _first_used:
            self._session.close()

    def _adopt(self, session: Any, headers: Optional[Headers], auth: Any) -> None:
        """Take what a session has to say about requests to this address."""
        import requests
        from requests.auth import HTTPBasicAuth

        if session is not self._session:
            self._session = session
            if _first_used.setdefault(session, self.pid) != self.pid:
                # The connections it holds are the parent's; closing them here does not end them there.
                _first_used[session] = self.pid
                session.close()
        try:
            # An `auth` of None would make the session look for one, and call it.
            prepared = session.prepare_request(requests.Request("POST", self.url, headers=headers, auth=_unchanged))
            self.adapter = session.get_adapter(prepared.url)
        except (requests.RequestException, ValueError) as problem:
            raise ProtocolError(f"The address of the server cannot be used: {problem}") from None
        parts = urlsplit(prepared.url)
        if auth is None:
            auth = session.auth
        if auth is None and parts.username:
            auth = requests.utils.get_auth_from_url(prepared.url)
        if auth is None and session.trust_env:
            auth = requests.utils.get_netrc_auth(prepared.url)
        self.auth = HTTPBasicAuth(*auth) if isinstance(auth, tuple) else auth
        self.hooks = list(session.hooks.get("response", ()))
        self.fields = {name.lower(): (name, text_of(value)) for name, value in prepared.headers.items()}
        self.fields.pop("content-length", None)
        if "cookie" not in {name.lower() for name in (*session.headers, *(headers or {}))}:
            # Those of the session's jar are found anew for every request.
            self.fields.pop("cookie", None)
        self.url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
        self.settings = session.merge_environment_settings(self.url, {}, True, None, None)
        self.connect = self._connector(prepared)

    def _connector(self, prepared: Any) -> Optional[Callable[[], Any]]:
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
        return getattr(pool, "_new_conn", None)


class _Connection:
    """A TCP connection, with as much of an interface as those of urllib3 are used by."""

    timeout: float | None = None
    sock: Any = None

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)

    def connect(self) -> None:
        self.sock = socket.create_connection(self._address, self.timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()


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
        self,
        method: str,
        headers: Headers,
        body: bytes,
        deadline: float | None,
        url: str | None = None,
        before: Optional[Callable[[Headers], Any]] = None,
    ) -> Reply:
        """Send a request.

        :param headers: they prevail over those of the setup.
        :param deadline: put off by the time that the auth takes, which may ask a person.
        :param url: another address of the same origin.
        :param before: takes the headers just before they are sent.
        :raises ClientError: when it could not be sent; `retry` is "always" when the server surely did not run it.
        """
        setup = self.setup()
        self._closed = False
        url = url or setup.url
        fields = {**setup.fields, **{name.lower(): (name, value) for name, value in headers.items()}}
        if body:
            fields["content-length"] = ("Content-Length", str(len(body)))
        prepared: Any = None
        began = time.monotonic()
        if setup.auth is not None or setup.hooks or setup.connect is None or setup.cookies:
            prepared = self._prepare(setup, method, url, fields, body)
            fields = {name.lower(): (name, text_of(value)) for name, value in prepared.headers.items()}
            body = prepared.body or b""
        reply = Reply(self, setup, method, fields, body, prepared)
        if setup.auth is not None:
            reply.paused_s = time.monotonic() - began
            deadline = None if deadline is None else deadline + reply.paused_s
        if before is not None:
            before(reply.sent)
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
        if setup.cookies and "cookie" not in fields:
            cookie = get_cookies(setup.cookies, prepared)
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
        if setup.connect is None:
            return self._by_adapter(setup, prepared, url, deadline)
        data = _head(method, url, fields) + body
        while True:
            source = self._idle(setup)
            fresh = source is None
            connection = self._connect(setup, deadline) if source is None else source.connection
            try:
                connection.sock.settimeout(None if deadline is None else max(deadline - time.monotonic(), 0.001))
                connection.sock.sendall(data)
            except socket.timeout:
                connection.close()
                raise Timeout("The request could not be sent in time", "always") from None
            except OSError as problem:
                # The server cannot have run what it never got whole.
                if not fresh:
                    connection.close()
                    continue
                if not isinstance(problem, (BrokenPipeError, ConnectionResetError)):
                    connection.close()
                    raise ConnectionLost(f"The request could not be sent: {problem}", "always") from None
                # A refusal of what is too long may be waiting there.
            return Incoming(connection, int(self.limits["head_bytes"]), method)

    def _idle(self, setup: Setup) -> Incoming | None:
        """A connection that was used before and still stands."""
        while setup.idle:
            try:
                source = setup.idle.pop()
            except IndexError:
                return None
            if time.monotonic() - source.kept_at > self.limits["idle_s"]:
                # Whatever is in between may have forgotten it without a word.
                source.close()
                continue
            try:
                end = time.monotonic() + _END_S
                while not source.finished and source.read(end):
                    pass
            except ClientError:
                pass
            if source.reusable and not _readable(source.connection.sock):
                return source
            source.close()
        return None

    def _connect(self, setup: Setup, deadline: float | None) -> Any:
        assert setup.connect is not None
        connection = setup.connect()
        left = self.limits["connect_s"]
        if deadline is not None:
            left = min(left, max(deadline - time.monotonic(), 0.001))
        connection.timeout = left
        try:
            connection.connect()
        except Exception as problem:
            # An OSError, or what urllib3 makes of one.
            connection.close()
            if deadline is not None and time.monotonic() >= deadline:
                raise Timeout(f"No connection to {origin(setup.url)} in time", "always") from None
            retry = "never" if "SSL" in type(problem).__name__ or "Certificate" in type(problem).__name__ else "always"
            raise ConnectionLost(f"No connection to {origin(setup.url)}: {problem}", retry) from None
        return connection

    def _by_adapter(self, setup: Setup, prepared: Any, url: str, deadline: float | None) -> Raw:
        import requests

        prepared.url = url
        try:
            response = setup.adapter.send(prepared, **self.send_options(setup, deadline))
        except requests.exceptions.Timeout as problem:
            never_sent = isinstance(problem, requests.exceptions.ConnectTimeout)
            raise Timeout("The server did not answer in time", "always" if never_sent else None) from None
        except (requests.RequestException, OSError) as problem:
            retry = "never" if isinstance(problem, requests.exceptions.SSLError) else None
            raise ConnectionLost(f"No answer from {origin(url)}: {problem}", retry) from None
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
            source.kept_at = time.monotonic()
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
        setup.close()


def _head(method: str, url: str, fields: Fields) -> bytes:
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not _TARGET.match(target):
        target = quote(target, safe="!#$%&'()*+,/:;=?@[]~")
    host = parts.netloc.rpartition("@")[2]
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


def _readable(sock: Any) -> bool:
    """Whether there is something to read on a socket, such as its end."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([sock], [], [], 0)[0])


def _unchanged(prepared: Any) -> Any:
    return prepared
