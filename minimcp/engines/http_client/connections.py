"""The connections of one process to one address: used again, over TLS where it is https, with headers and cookies."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Optional, Union
from urllib.parse import urlsplit

from ..addresses import origin
from ..errors import ConnectionLost, ProtocolError, Timeout
from .request import Auth, Outgoing, basic, fields_of, head_of, split_url
from .response import LIMITS, AnyResponse, Fields, Response, seconds_left

if TYPE_CHECKING:
    import ssl
    from http.cookiejar import CookieJar

AGENT = "minimcp"

# Takes the IP address that was connected to, and raises for one that may not be used.
Check = Callable[[str], None]


class Connections:
    """The connections of one process to one address; used by any number of threads.

    :param headers: sent with every request, unless a request has its own under the same name.
    :param limits: overrides for `response.LIMITS`.
    :ivar user: the user and password in the address, or None.
    :ivar auth: credentials that sign requests and see their answers.
    :ivar pauses: whether preparing a request may take the time of a person.
    :ivar closed: whether connections that come back are closed.
    :ivar ours: the names of headers that the caller did not bring.
    """

    ours: tuple[str, ...] = ()

    auth: Auth | None = None
    pauses = False
    closed = False

    def __init__(
        self,
        url: str,
        headers: Optional[Mapping[str, Any]] = None,
        limits: Optional[Mapping[str, float]] = None,
        agent: str | None = AGENT,
    ) -> None:
        self.url, self.user = split_url(url)
        self.fields = fields_of(headers)
        if agent is not None and "user-agent" not in self.fields:
            self.fields["user-agent"], self.ours = ("User-Agent", agent), ("user-agent",)
        self.fields["accept-encoding"] = ("Accept-Encoding", "identity")
        self.limits = {**LIMITS, **(limits or {})}

    def prepare(self, method: str, url: str, fields: Fields, body: bytes) -> Outgoing:
        """Add cookies and credentials to a request."""
        raise NotImplementedError

    def caller(self) -> str:
        """Name what the caller brought beside headers, such as a session, "" for nothing."""
        return ""

    def open(self, request: Outgoing, deadline: float | None) -> AnyResponse:
        """Send a request and return its response, of which nothing needs to be there yet."""
        raise NotImplementedError

    def received(self, url: str, source: AnyResponse) -> None:
        """Take note of a response whose head is there."""

    def keep(self, source: AnyResponse) -> None:
        """Take back a connection whose response was read, or may end at any moment."""
        source.close()

    def close(self) -> None:
        """Close the connections that are not in use, and those in use as they come back."""
        self.closed = True

    def connect_s(self, deadline: float | None) -> float:
        """Return how long connecting may take."""
        left, most = seconds_left(deadline), self.limits["connect_s"]
        return most if left is None else min(left, most)


class HttpConnections(Connections):
    """Connections of our own.

    :param auth: a user and a password, or credentials with the two methods of `Auth`.
    :param verify: as for `requests`: True for the authorities that it trusts, or the path of a file or folder of
        certificates.
    :param check: called with the IP address of every new connection before anything is sent, TLS included.
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
        super().__init__(url, headers, limits)
        credentials = self.user if auth is None else auth
        if isinstance(credentials, tuple):
            self.fields["authorization"] = ("Authorization", basic(*credentials))
        elif credentials is not None:
            self.auth, self.pauses = credentials, True
        parts = urlsplit(self.url)
        self._host = parts.hostname or ""
        self._secure = parts.scheme == "https"
        self._port = parts.port or (443 if self._secure else 80)
        self._verify = verify
        self._check = check
        self._tls: Optional[ssl.SSLContext] = None
        self._pid = os.getpid()
        # To use again, with the last response on each; threads append and pop, which is atomic.
        self._idle: deque[Response] = deque()
        self._lock = threading.Lock()  # guards the making of _jar, which has a lock of its own
        self._jar: CookieJar | None = None

    def prepare(self, method: str, url: str, fields: Fields, body: bytes) -> Outgoing:
        """Add cookies and credentials to a request."""
        if self._jar is not None and "cookie" not in fields:
            from urllib.request import Request

            request = Request(url)
            self._jar.add_cookie_header(request)
            cookie = request.get_header("Cookie")
            if cookie is not None:
                fields = {**fields, "cookie": ("Cookie", cookie)}
        if self.auth is not None:
            more = self.auth.sign(method, url, dict(fields.values()))
            fields = {**fields, **{name.lower(): (name, value) for name, value in more.items()}}
        return Outgoing(method, url, fields, body)

    def received(self, url: str, source: AnyResponse) -> None:
        """Keep the cookies of a response, which may be how a load balancer knows a session."""
        if not source.cookies:
            return
        import email.message
        from http.cookiejar import CookieJar
        from types import SimpleNamespace
        from urllib.request import Request

        headers = email.message.Message()
        for value in source.cookies:
            headers["Set-Cookie"] = value
        with self._lock:
            self._jar = self._jar or CookieJar()
        answer: Any = SimpleNamespace(info=lambda: headers)
        self._jar.extract_cookies(answer, Request(url))

    def open(self, request: Outgoing, deadline: float | None) -> AnyResponse:
        """Send a request over a connection that is idle, or a new one."""
        data = head_of(request) + request.body
        while True:
            idle = self._take()
            sock = self._connect(deadline) if idle is None else idle.sock
            try:
                sock.settimeout(seconds_left(deadline))
                sock.sendall(data)
            except socket.timeout:
                sock.close()
                raise Timeout("The request could not be sent in time", "always") from None
            except OSError as problem:
                # The server cannot have run what it never got whole.
                if idle is not None:
                    sock.close()
                    continue
                if not isinstance(problem, (BrokenPipeError, ConnectionResetError)):
                    sock.close()
                    raise ConnectionLost(f"The request could not be sent: {problem}", "always") from None
                # A refusal of what is too long may be waiting there.
            return Response(sock, int(self.limits["head_bytes"]), request.method)

    def _take(self) -> Response | None:
        """Take a connection that was used before and still stands."""
        while self._idle:
            try:
                source = self._idle.pop()
            except IndexError:
                return None
            if time.monotonic() - source.kept_at > self.limits["idle_s"]:
                # Whatever is in between may have forgotten it without a word.
                source.close()
                continue
            source.drain()
            if source.reusable and not _readable(source.sock):
                return source
            source.close()
        return None

    def _connect(self, deadline: float | None) -> Any:
        """Return a connected socket.

        :raises ProtocolError: when the certificates to trust cannot be read.
        """
        if self._secure and self._tls is None:
            # It takes its time, and two threads that both make one do no harm.
            self._tls = _tls_context(self._verify)
        sock: Any = None
        try:
            until = time.monotonic() + self.connect_s(deadline)
            sock = _connected(self._host, self._port, until)
            if self._check is not None:
                self._check(str(sock.getpeername()[0]))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(seconds_left(until))
            return sock if self._tls is None else self._tls.wrap_socket(sock, server_hostname=self._host.rstrip("."))
        except BaseException as problem:
            if sock is not None:
                sock.close()
            if not isinstance(problem, (OSError, ValueError)):
                raise
            # A ValueError is about a host name that is none.
            if deadline is not None and time.monotonic() >= deadline:
                raise Timeout(f"No connection to {origin(self.url)} in time", "always") from None
            retry = "never" if "SSL" in type(problem).__name__ else "always"
            why = "nothing listens there" if isinstance(problem, ConnectionRefusedError) else str(problem)
            if getattr(problem, "reason", "") in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
                why = f"the answer is not encrypted; write http:{origin(self.url).partition(':')[2]} if it speaks http"
            raise ConnectionLost(f"No connection to {origin(self.url)}: {why}", retry) from None

    def keep(self, source: AnyResponse) -> None:
        """Take back a connection whose response was read, or may end at any moment."""
        full = len(self._idle) >= self.limits["idle_connections"]
        # In a forked child it is the parent's.
        if self.closed or full or not isinstance(source, Response) or self._pid != os.getpid():
            source.close()
        else:
            source.kept_at = time.monotonic()
            self._idle.append(source)

    def close(self) -> None:
        """Close the connections that are not in use, and those in use as they come back."""
        super().close()
        while self._idle:
            try:
                self._idle.pop().close()
            except IndexError:
                break


def _connected(host: str, port: int, until: float) -> socket.socket:
    """Connect to the first address of a host that answers; those that are left share the time that is left."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    problem: OSError = OSError("the host has no address")
    for number, (family, kind, protocol, _, address) in enumerate(found):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout((seconds_left(until) or 0) / (len(found) - number))
            sock.connect(address)
            return sock
        except OSError as failure:
            sock.close()
            problem = failure
        except BaseException:
            sock.close()
            raise
    raise problem


def _tls_context(verify: Union[bool, str]) -> ssl.SSLContext:
    import ssl

    if not isinstance(verify, str):
        from requests.utils import DEFAULT_CA_BUNDLE_PATH

        place = DEFAULT_CA_BUNDLE_PATH
    else:
        place = verify
    folder = os.path.isdir(place)
    try:
        context = ssl.create_default_context(cafile=None if folder else place, capath=place if folder else None)
    except OSError as problem:
        raise ProtocolError(f"The TLS settings cannot be used: {problem}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _readable(sock: Any) -> bool:
    """Say whether there is something to read on a socket, such as its end."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([sock], [], [], 0)[0])
