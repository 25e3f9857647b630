"""HTTP requests to one address over connections that are kept and used again."""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Optional, Union
from urllib.parse import quote, urlsplit

from ..addresses import origin
from ..errors import ClientError, ConnectionLost, ProtocolError, Timeout
from ..fork import PerProcess
from .auth import Auth, attach, is_native
from .raw_connection import Check, RawConnection
from .reply import Reply
from .response import LIMITS, AnyResponse, Fields, Headers, Response
from .settings import HttpSettings

_FORBIDDEN = re.compile(r"[\r\n\0]")
_TARGET = re.compile(r"[!-~]+\Z")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
# How long to wait for the end of a stream whose last event was read, before its connection is given up.
END_S = 0.01


class Outgoing(NamedTuple):
    """A request that is ready to be sent.

    :ivar foreign: the same as a `requests.PreparedRequest`, where `requests` sends it.
    """

    method: str
    url: str
    fields: Fields
    body: bytes
    foreign: Any = None


class Pool:
    """Makes requests; used by any number of threads, and in a forked child with connections of its own.

    :param headers: sent with every request, unless a request has its own under the same name.
    :param auth: a user and a password, or credentials with the two methods of `auth.Auth`.
    :param limits: overrides for `response.LIMITS`.
    :param verify: as for `requests`: True, or the path of the certificates to trust.
    :param check: called with the IP address of every new connection before anything is sent over it.
    """

    def __init__(
        self,
        url: str,
        headers: Optional[Mapping[str, Any]] = None,
        auth: Union[Auth, tuple[str, str], None] = None,
        limits: Optional[Mapping[str, float]] = None,
        *,
        verify: Union[bool, str] = True,
        check: Check | None = None,
    ) -> None:
        self.auth: Auth | None = auth if is_native(auth) else None  # type: ignore[assignment]
        # Whether preparing a request may take the time of a person.
        self.pauses = self.auth is not None
        self.limits = {**LIMITS, **(limits or {})}
        self.settings = PerProcess(lambda: HttpSettings(url, headers, auth, verify, check))
        # Until the first request there is nothing to close.
        self._closed = True
        self._fingerprint = ("", "")

    def ready(self) -> None:
        """Check the address and the settings, without a connection.

        :raises ProtocolError: when they cannot be used.
        """
        self.settings()

    def request(
        self,
        method: str,
        headers: Headers,
        body: bytes,
        deadline: float | None,
        url: str | None = None,
        before: Optional[Callable[[Headers], Any]] = None,
        raw: bool = False,
    ) -> Reply:
        """Send a request.

        :param headers: they prevail over those of the pool.
        :param deadline: a `time.monotonic()`; put off by the time that the auth takes, which may ask a person.
        :param url: another address of the same origin.
        :param before: called with the headers just before they are sent.
        :param raw: whether to return redirects and compressed answers as they come, instead of following or refusing.
        :raises ClientError: when it could not be sent; `retry` is "always" when the server surely did not run it.
        """
        self._closed = False
        base_url, base = self.base()
        fields = {**base, **{name.lower(): (name, value) for name, value in headers.items()}}
        if body:
            fields["content-length"] = ("Content-Length", str(len(body)))
        reply = Reply(self, method, fields, body, base_url, raw)
        reply.send(url or base_url, deadline, before)
        return reply

    def base(self) -> tuple[str, Fields]:
        """Return the address and the headers that every request has."""
        settings = self.settings()
        return settings.url, settings.fields

    def prepare(self, method: str, url: str, fields: Fields, body: bytes) -> Outgoing:
        """Add cookies and credentials to a request."""
        cookie = self.settings().cookies.header(url)
        if cookie is not None and "cookie" not in fields:
            fields = {**fields, "cookie": ("Cookie", cookie)}
        if self.auth is not None:
            more = self.auth.sign(method, url, dict(fields.values()))
            fields = {**fields, **{name.lower(): (name, value) for name, value in more.items()}}
        return Outgoing(method, url, fields, body)

    def open(self, request: Outgoing, deadline: float | None) -> AnyResponse:
        """Send a request and return what its response is read from."""
        settings = self.settings()
        data = _head(request) + request.body
        while True:
            source = self._idle(settings)
            fresh = source is None
            connection = self._connect(settings, deadline) if source is None else source.connection
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
            return Response(connection, int(self.limits["head_bytes"]), request.method)

    def _idle(self, settings: HttpSettings) -> Response | None:
        """Take a connection that was used before and still stands."""
        while settings.idle:
            try:
                source = settings.idle.pop()
            except IndexError:
                return None
            if time.monotonic() - source.kept_at > self.limits["idle_s"]:
                # Whatever is in between may have forgotten it without a word.
                source.close()
                continue
            try:
                end = time.monotonic() + END_S
                while not source.finished and source.read(end):
                    pass
            except ClientError:
                pass
            if source.reusable and not _readable(source.connection.sock):
                return source
            source.close()
        return None

    def _connect(self, settings: HttpSettings, deadline: float | None) -> RawConnection:
        connection = settings.connection()
        left = self.limits["connect_s"]
        if deadline is not None:
            left = min(left, max(deadline - time.monotonic(), 0.001))
        try:
            connection.connect(left)
        except (OSError, ValueError) as problem:
            # A ValueError is about a host name that is none.
            connection.close()
            if deadline is not None and time.monotonic() >= deadline:
                raise Timeout(f"No connection to {origin(settings.url)} in time", "always") from None
            retry = "never" if "SSL" in type(problem).__name__ else "always"
            raise ConnectionLost(f"No connection to {origin(settings.url)}: {problem}", retry) from None
        except BaseException:
            connection.close()
            raise
        return connection

    def received(self, url: str, source: AnyResponse) -> None:
        """Keep the cookies of a response whose head is there."""
        if source.cookies:
            self.settings().cookies.take(url, source.cookies)

    def keep(self, source: AnyResponse) -> None:
        """Take back a connection whose response was read, or may end at any moment."""
        settings = self.settings()
        if not isinstance(source, Response) or source.connection.pid != settings.pid:
            source.close()
            return
        if self._closed or len(settings.idle) >= self.limits["idle_connections"]:
            source.close()
        else:
            source.kept_at = time.monotonic()
            settings.idle.append(source)

    def close(self) -> None:
        """Close the connections that are not in use, and those in use as they come back."""
        if self._closed:
            return
        self._closed = True
        idle = self.settings().idle
        while idle:
            try:
                idle.pop().close()
            except IndexError:
                break

    def fingerprint(self, credentials: str) -> str:
        """Return a digest of credentials, "" for none; that of the newest ones is remembered."""
        if not credentials:
            return ""
        known, digest = self._fingerprint
        if known != credentials:
            import hashlib

            digest = hashlib.sha256(credentials.encode("latin-1", "replace")).hexdigest()[:16]
            self._fingerprint = credentials, digest
        return digest


def make_pool(
    url: str, headers: Optional[Mapping[str, Any]], auth: Any, session: Any, limits: Optional[Mapping[str, float]]
) -> Pool:
    """Make a pool: one of its own connections, or where something was made for `requests`, one that leaves all to it.

    :param auth: a user and a password, credentials as in `auth.Auth`, or what `requests` takes.
    :param session: a requests.Session or None.
    """
    if session is None and (auth is None or isinstance(auth, tuple) or is_native(auth)):
        return Pool(url, headers, auth, limits)
    from .foreign import SessionPool

    return SessionPool(url, headers, partial(attach, auth) if is_native(auth) else auth, session, limits)


def _head(request: Outgoing) -> bytes:
    parts = urlsplit(request.url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not _TARGET.match(target):
        target = quote(target, safe="!#$%&'()*+,/:;=?@[]~")
    host = parts.netloc.rpartition("@")[2]
    default = {"http": ":80", "https": ":443"}.get(parts.scheme, "")
    if default and host.endswith(default):
        host = host[: -len(default)]
    lines = [f"{request.method} {target} HTTP/1.1"]
    if "host" not in request.fields:
        lines.append(f"Host: {host}")
    for name, value in request.fields.values():
        if _FORBIDDEN.search(value) or not _NAME.match(name):
            raise ProtocolError(f"The header {name[:100]!r} has characters that a header may not have")
        lines.append(f"{name}: {value}")
    try:
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    except UnicodeEncodeError:
        raise ProtocolError("A header has characters that a header may not have") from None


def _readable(sock: Any) -> bool:
    """Say whether there is something to read on a socket, such as its end."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([sock], [], [], 0)[0])
