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
from collections.abc import Callable
from typing import Any, Optional
from urllib.parse import quote, urlsplit

from ..addresses import origin
from ..errors import ClientError, ConnectionLost, ProtocolError, Timeout
from .reply import Reply
from .response import Headers, RequestsResponse, Response
from .settings import Fields, HttpSettings, text_of

_FORBIDDEN = re.compile(r"[\r\n\0]")
_TARGET = re.compile(r"[!-~]+\Z")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
# How long to wait for the end of a stream whose last event was read, before its connection is given up.
_END_S = 0.01


class Pool:
    """Makes requests; used by any number of threads, and in a forked child with connections of its own."""

    def __init__(self, url: str, headers: Optional[Headers], auth: Any, session: Any, limits: dict[str, float]) -> None:
        self.url = url
        self.limits = limits
        self._given = (url, headers, auth, session)
        self._lock = threading.Lock()  # held while the setup is made
        self._setup: HttpSettings | None = None
        self._closed = False

    def setup(self) -> HttpSettings:
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
                self._setup = HttpSettings(*self._given)
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

    def _prepare(self, setup: HttpSettings, method: str, url: str, fields: Fields, body: bytes) -> Any:
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
        self,
        setup: HttpSettings,
        method: str,
        url: str,
        fields: Fields,
        body: bytes,
        prepared: Any,
        deadline: float | None,
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
            return Response(connection, int(self.limits["head_bytes"]), method)

    def _idle(self, setup: HttpSettings) -> Response | None:
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

    def _connect(self, setup: HttpSettings, deadline: float | None) -> Any:
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

    def _by_adapter(self, setup: HttpSettings, prepared: Any, url: str, deadline: float | None) -> RequestsResponse:
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
        return RequestsResponse(response)

    def send_options(self, setup: HttpSettings, deadline: float | None) -> dict[str, Any]:
        """What an adapter's `send` is called with."""
        left = None if deadline is None else max(deadline - time.monotonic(), 0.001)
        connect_s = self.limits["connect_s"]
        return {**setup.settings, "timeout": (connect_s if left is None else min(left, connect_s), left)}

    def keep(self, setup: HttpSettings, source: Any) -> None:
        """Take back a connection whose response was read, or may end at any moment."""
        if isinstance(source, RequestsResponse):
            source.drain(time.monotonic() + _END_S)
            source.close()
            return
        full = len(setup.idle) >= self.limits["idle_connections"]
        if full or self._closed or setup.pid != os.getpid():
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
