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
from collections import deque
from typing import Any, Optional
from urllib.parse import urljoin, urlsplit, urlunsplit

from ..protocol.errors import ClientError, ConnectionLost, ProtocolError
from .reading import Headers, Incoming, Raw

_FORBIDDEN = re.compile(r"[\r\n\0]")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 5
# How long to wait for the end of a stream whose last event was read, before its connection is given up.
_END_S = 0.01

Fields = dict[str, tuple[str, str]]


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
        except (requests.RequestException, ValueError) as problem:
            raise ProtocolError(f"The address of the server cannot be used: {problem}") from None
        self.pid = os.getpid()
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
        self.fields: Fields = {name.lower(): (name, _text(value)) for name, value in prepared.headers.items()}
        given = {name.lower() for name in (*session.headers, *(headers or {}))}
        for name in ("content-length", *(() if "cookie" in given else ("cookie",))):
            self.fields.pop(name, None)
        self.fields["accept-encoding"] = ("Accept-Encoding", "identity")
        self.url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
        self.settings = session.merge_environment_settings(self.url, {}, True, None, None)
        self.adapter = session.get_adapter(self.url)
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
                if self._given[3] is not None and self._setup is not None:
                    # The session's own connections are the parent's; closing them here does not end them there.
                    self._given[3].close()
                self._setup = Setup(*self._given)
            return self._setup

    def request(self, method: str, headers: Headers, body: bytes, deadline: float | None) -> Reply:
        """Send a request.

        :param headers: they prevail over those of the setup.
        :raises ClientError: when it could not be sent; `retry` is "always" when the server surely did not run it.
        """
        setup = self.setup()
        fields = {**setup.fields, **{name.lower(): (name, value) for name, value in headers.items()}}
        if body:
            fields["content-length"] = ("Content-Length", str(len(body)))
        prepared: Any = None
        if setup.auth is not None or setup.hooks or setup.pool is None or setup.session.cookies:
            prepared = self._prepare(setup, method, fields, body)
            fields = {name.lower(): (name, _text(value)) for name, value in prepared.headers.items()}
            body = prepared.body or b""
        reply = Reply(self, setup, method, fields, body, prepared)
        reply.send(setup.url if prepared is None else prepared.url, deadline)
        return reply

    def _prepare(self, setup: Setup, method: str, fields: Fields, body: bytes) -> Any:
        """Build what `requests` lets its auth and hooks work on, and let them."""
        import requests

        prepared = requests.PreparedRequest()
        prepared.method = method
        prepared.url = setup.url
        prepared.headers = requests.structures.CaseInsensitiveDict(fields.values())
        prepared.body = body or None
        prepared.hooks = {"response": list(setup.hooks)}
        prepared._cookies = setup.session.cookies
        if setup.session.cookies and "cookie" not in fields:
            cookie = requests.cookies.get_cookie_header(setup.session.cookies, prepared)
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
        if isinstance(source, Raw) or len(setup.idle) >= self.limits["idle_connections"] or setup.pid != os.getpid():
            source.close()
        else:
            setup.idle.append(source)

    def close(self) -> None:
        """Close the connections that are not in use."""
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


class Reply:
    """One request and the response to it; read by one thread, closed by any.

    :ivar sent: the headers that were sent.
    :ivar status: 0 until `head` has returned.
    :ivar headers: of the response, by lower-case name.
    """

    def __init__(self, web: Web, setup: Setup, method: str, fields: Fields, body: bytes, prepared: Any) -> None:
        self.status = 0
        self.headers: Headers = {}
        self._web = web
        self._setup = setup
        self._method = method
        self._fields = fields
        self._body = body
        self._prepared = prepared
        self._url = ""
        self._hops = 0
        self._source: Any = None
        self._lock = threading.Lock()  # guards _source, _busy and _closed
        self._busy = False
        self._closed = False

    @property
    def sent(self) -> Headers:
        """The headers that were sent, by the names they were sent under."""
        return dict(self._fields.values())

    def field(self, name: str) -> str:
        """A header that was sent, "" without it."""
        return self._fields.get(name, ("", ""))[1]

    def send(self, url: str, deadline: float | None) -> None:
        """Send the request to a URL of the same origin."""
        self._url = url
        source = self._web.open(self._setup, self._method, url, self._fields, self._body, self._prepared, deadline)
        with self._lock:
            self._source = source
            closed = self._closed
        if closed:
            source.close()
            raise ConnectionLost("The connection was closed")

    def head(self, deadline: float | None) -> int:
        """Wait for the head of the response, following redirects within the origin, and return its status.

        :raises Timeout: when it does not come in time; call it again.
        :raises ProtocolError: for a redirect to elsewhere, or a head that is not HTTP.
        """
        while not self.status:
            self._enter()
            try:
                self._source.head(deadline)
            finally:
                self._leave()
            source = self._source
            if source.cookies:
                self._take_cookies(source.cookies)
            if self._prepared is not None and self._prepared.hooks.get("response"):
                source = self._hook(source, deadline)
            if source.status in _REDIRECTS and "location" in source.headers:
                self._redirect(source, deadline)
                continue
            if source.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
                raise ProtocolError("The server compressed its answer, which it was asked not to do")
            self.headers = source.headers
            self.status = source.status
        return self.status

    def _redirect(self, source: Any, deadline: float | None) -> None:
        """Go where the server points, if that is the same origin and asks for the same request. Spec: T145"""
        there = urljoin(self._url, source.headers["location"])
        shown = there.partition("?")[0][:300]
        if origin(there) != origin(self._setup.url):
            raise ProtocolError(
                f"The server redirects to another origin, {shown}; nothing was sent there. Use that address if it is right"
            )
        if source.status not in (307, 308):
            raise ProtocolError(f"The server redirects to {shown} with HTTP {source.status}, which loses the message")
        self._hops += 1
        if self._hops > _MOST_REDIRECTS:
            raise ProtocolError("The server redirects in a circle")
        while self.read(deadline):
            pass
        with self._lock:
            self._source = None
        self._web.keep(self._setup, source)
        self.send(urlunsplit(urlsplit(there)._replace(fragment="")), deadline)

    def _hook(self, source: Any, deadline: float | None) -> Any:
        """Let the hooks of `requests` see the response; what they return in its place is what is read."""
        from requests.hooks import dispatch_hook

        response = _response(self._setup, self._prepared, source, deadline)
        options = self._web.send_options(self._setup, deadline)
        found = dispatch_hook("response", self._prepared.hooks, response, **options)
        if found is response and not response._content_consumed:
            return source
        if found is not response:
            self._fields = {name.lower(): (name, _text(value)) for name, value in found.request.headers.items()}
        new = Raw(found)
        with self._lock:
            self._source = new
        if source.finished:
            self._web.keep(self._setup, source)
        else:
            source.close()
        return new

    def _take_cookies(self, cookies: list[str]) -> None:
        import email.message

        from requests import PreparedRequest
        from requests.cookies import MockRequest, MockResponse

        message = email.message.Message()
        for cookie in cookies:
            message["Set-Cookie"] = cookie
        request = self._prepared
        if request is None:
            request = PreparedRequest()
            request.url, request.headers = self._url, self.sent
        self._setup.session.cookies.extract_cookies(MockResponse(message), MockRequest(request))

    def read(self, deadline: float | None) -> bytes:
        """Return the next bytes of the body, or b"" at its end."""
        self._enter()
        try:
            return self._source.read(deadline)  # type: ignore[no-any-return]
        finally:
            self._leave()

    def whole(self, limit: float, deadline: float | None, read: bytearray) -> bytes:
        """Read the body to its end.

        :param read: what was read of it before a Timeout.
        :raises ProtocolError: when it is longer than the limit, in bytes.
        """
        expected = self.headers.get("content-length", "0")
        self._enter()
        try:
            while len(read) <= limit and not (expected.isdigit() and int(expected[:15]) > limit):
                data = self._source.read(deadline)
                if not data:
                    return bytes(read)
                read += data
        finally:
            self._leave()
        raise ProtocolError(f"The server sent more than {limit:.0f} bytes in one answer")

    def _enter(self) -> None:
        with self._lock:
            if self._closed:
                raise ConnectionLost("The connection was closed")
            self._busy = True

    def _leave(self) -> None:
        with self._lock:
            self._busy = False
            closed = self._closed
        if closed and self._source is not None:
            self._source.close()

    def release(self) -> None:
        """Give the connection back: all that matters of the response was read."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._web.keep(self._setup, self._source)

    def close(self) -> None:
        """Hang up, and make a thread that reads come back with an error. From any thread; never blocks."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            source = self._source
            if source is None:
                return
            if self._busy:
                # Whoever reads closes it: a file number must not be given away under its reader.
                source.shutdown()
                return
        source.close()


def origin(url: Any) -> str:
    """The scheme, host and port of a URL, in one spelling."""
    parts = urlsplit(str(url))
    try:
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    except ValueError:
        port = None
    return f"{parts.scheme}://{(parts.hostname or '').lower()}:{port}"


def _response(setup: Setup, prepared: Any, source: Any, deadline: float | None) -> Any:
    """The `requests.Response` of a response that is read here."""
    import io

    import urllib3

    if isinstance(source, Raw):
        return source._response

    class Body(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            # Less than a piece at a time would need a buffer of its own.
            if not self._rest:
                self._rest = source.read(deadline)
            count = min(len(buffer), len(self._rest))
            buffer[:count] = self._rest[:count]
            self._rest = self._rest[count:]
            return count

        _rest = b""

    raw = urllib3.HTTPResponse(
        body=io.BufferedReader(Body()),
        headers=source.headers,
        status=source.status,
        version=11,
        preload_content=False,
        decode_content=False,
        request_method=prepared.method,
    )
    return setup.adapter.build_response(prepared, raw)


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


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _unchanged(prepared: Any) -> Any:
    return prepared
