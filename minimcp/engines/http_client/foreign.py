"""HTTP requests that `requests` sends whole: those of a session of the user's, or with credentials made for it.

Its own rules hold then for connections, proxies, certificates, cookies and hooks. Redirects are left to `Reply`, and
`send` returns with the head of the response: only from then on can a request be cancelled.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import queue
import socket
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Optional, Union

import requests
import urllib3

from ..addresses import origin
from ..errors import ClientError, ConnectionLost, ProtocolError, Timeout
from ..fork import PerProcess
from .pool import END_S, Outgoing, Pool
from .response import AnyResponse, Fields, Headers
from .settings import AGENT, fields_of, split_url

_PIECE = 65536
_TIMED_OUT = (socket.timeout, urllib3.exceptions.TimeoutError, requests.exceptions.Timeout)
_BROKEN = (OSError, ValueError, AttributeError, http.client.HTTPException, urllib3.exceptions.HTTPError)
# The process in which each session was last used here.
_used_in: weakref.WeakKeyDictionary[requests.Session, int] = weakref.WeakKeyDictionary()


class SessionSettings:
    """The settings of one process: its session, the address, and the headers and credentials of every request."""

    def __init__(
        self, url: str, headers: Optional[Mapping[str, Any]], auth: Any, session: Optional[requests.Session]
    ) -> None:
        self.url, user = split_url(url)
        self.fields = fields_of(headers)
        self.fields["accept-encoding"] = ("Accept-Encoding", "identity")
        self.auth = auth
        self.own = session is None
        if session is None:
            session = requests.Session()
            # No credentials of .netrc and no proxy of the environment that nobody asked for.
            session.trust_env = False
            session.headers.clear()
            session.headers["User-Agent"] = AGENT
        elif _used_in.setdefault(session, os.getpid()) != os.getpid():
            # The connections it holds are the parent's; closing them here does not end them there.
            _used_in[session] = os.getpid()
            session.close()
        self.session = session
        if auth is None and session.auth is None:
            self.auth = user
        try:
            session.get_adapter(self.url)
        except requests.RequestException as problem:
            raise ProtocolError(f"The address of the server cannot be used: {problem}") from None


class SessionPool(Pool):
    """Makes requests through a `requests.Session`.

    :param auth: as `requests` takes it.
    :param session: None for one of its own, which looks neither at .netrc nor at the environment.
    """

    def __init__(
        self,
        url: str,
        headers: Optional[Mapping[str, Any]],
        auth: Any,
        session: Optional[requests.Session],
        limits: Optional[Mapping[str, float]] = None,
    ) -> None:
        super().__init__(url, headers, None, limits)
        self.pauses = True
        self._sessions = PerProcess(lambda: SessionSettings(url, headers, auth, session))

    def ready(self) -> None:
        """Check the address."""
        self._sessions()

    def base(self) -> tuple[str, Fields]:
        """Return the address and the headers that every request has."""
        settings = self._sessions()
        return settings.url, settings.fields

    def prepare(self, method: str, url: str, fields: Fields, body: bytes) -> Outgoing:
        """Let the session prepare a request, which calls the auth."""
        settings = self._sessions()
        given = {name: value for key, (name, value) in fields.items() if key != "content-length"}
        try:
            prepared = settings.session.prepare_request(
                requests.Request(method, url, headers=given, data=body or None, auth=settings.auth)
            )
        except requests.RequestException as problem:
            raise ProtocolError(f"The request cannot be sent: {problem}") from None
        if origin(prepared.url or "") != origin(settings.url):
            raise ProtocolError("The auth changed the address of a request to another origin")
        return Outgoing(method, prepared.url or "", fields_of(prepared.headers), body, prepared)

    def open(self, request: Outgoing, deadline: float | None) -> AnyResponse:
        """Send a request, and wait for the head of its response."""
        session, prepared = self._sessions().session, request.foreign
        left = None if deadline is None else max(deadline - time.monotonic(), 0.001)
        connect_s = self.limits["connect_s"]
        times = (connect_s if left is None else min(left, connect_s), left)
        watch = _Watch(prepared)
        try:
            settings = session.merge_environment_settings(request.url, {}, True, None, None)
            response = session.send(prepared, timeout=times, allow_redirects=False, **settings)
        except requests.exceptions.Timeout as problem:
            never_sent = isinstance(problem, requests.exceptions.ConnectTimeout)
            raise Timeout("The server did not answer in time", "always" if never_sent else None) from None
        except UnicodeError:
            raise ProtocolError("A header has characters that a header may not have") from None
        except (requests.RequestException, OSError) as problem:
            retry = "never" if isinstance(problem, requests.exceptions.SSLError) else None
            raise ConnectionLost(f"No answer from {origin(request.url)}: {problem}", retry) from None
        return RequestsResponse(response, watch)

    def received(self, url: str, source: AnyResponse) -> None:
        """Leave cookies to the session."""

    def keep(self, source: AnyResponse) -> None:
        """Give a connection back to the session."""
        if isinstance(source, RequestsResponse):
            source.drain(time.monotonic() + END_S)
        source.close()

    def close(self) -> None:
        """Close the session, unless it is the user's."""
        if not self._closed:
            self._closed = True
            settings = self._sessions()
            if settings.own:
                settings.session.close()


class _Watch:
    """The first and the last of a request's hooks: how long those of the user took, and where the answer points.

    The session would read the whole body of a redirect, which has no bound, and follow its own rules for it; so the
    Location is taken out of the answer.
    """

    def __init__(self, prepared: requests.PreparedRequest) -> None:
        self.paused_s = 0.0
        self.location: str | None = None
        self._began = 0.0
        hooks = prepared.hooks.get("response") or []
        prepared.hooks = {**prepared.hooks, "response": [self._first, *hooks, self._last]}

    def _first(self, response: requests.Response, **_: Any) -> None:
        self._began = time.monotonic()

    def _last(self, response: requests.Response, **_: Any) -> None:
        self.paused_s = time.monotonic() - self._began
        self.location = response.headers.pop("Location", None)


class RequestsResponse:
    """A response that `requests` has received, head first; see `AnyResponse`.

    Where it ends with its connection, silence may last no longer than the request had time.
    """

    def __init__(self, response: requests.Response, watch: _Watch) -> None:
        self.status = response.status_code
        self.headers: Headers = {name.lower(): value for name, value in response.headers.items()}
        if watch.location is not None:
            self.headers["location"] = watch.location
        self.cookies: list[str] = []
        self.finished = False
        self.sent: Optional[Fields] = fields_of(response.request.headers)
        self.paused_s = watch.paused_s
        self._response = response
        self._begun = False
        # A read of `requests` that timed out cannot be taken up again.
        self._late = False
        # The raw response is that of urllib3, or what an adapter puts in its place.
        self._raw: Any = response.raw
        self._socket = getattr(getattr(self._raw, "connection", None), "sock", None)
        self._streams = self.headers.get("content-type", "").lower().startswith("text/event-stream")
        self._pump: _Pump | None = None
        if self._streams:
            self._limit_silence(None)
            self._pump = _Pump(self._piece, self._hang_up)

    def head(self, deadline: float | None) -> None:
        """Return; the head is there already."""

    def read(self, deadline: float | None) -> bytes:
        """Return the next bytes of the body, or b"" at its end; after a Timeout only a stream can be read on."""
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise Timeout("The server did not answer in time")
        try:
            if self._late:
                raise socket.timeout
            if self._pump is not None:
                data = self._pump.take(left)
            else:
                self._limit_silence(left)
                data = self._piece()
        except queue.Empty:
            raise Timeout("The server did not answer in time") from None
        except _TIMED_OUT:
            if self._pump is None and not self._late:
                self._late = True
                raise Timeout("The server did not answer in time") from None
            raise ConnectionLost("The server was silent for longer than the request had time") from None
        except _BROKEN as problem:
            raise ConnectionLost(f"The connection to the server broke: {problem}") from None
        self.finished = not data
        return data

    def _piece(self) -> bytes:
        if hasattr(self._raw, "read1"):
            data = self._raw.read1(_PIECE)
        else:
            # Before urllib3 2 all of a larger piece would be waited for.
            data = self._raw.read(1 if self._streams else _PIECE)
        if not data and not self._begun:
            # A hook may have read it.
            data = self._response.content
        self._begun = True
        return data or b""

    def _limit_silence(self, timeout_s: float | None) -> None:
        if self._socket is not None and self._socket.fileno() >= 0:
            # It is closed once a response that ends with the connection has been read.
            self._socket.settimeout(timeout_s)

    def shutdown(self) -> None:
        """Make a thread that is reading come back at once."""
        try:
            # By the file number, since a response that ends with its connection has taken the socket along.
            with socket.fromfd(self._raw.fileno(), socket.AF_INET, socket.SOCK_STREAM) as same:
                same.shutdown(socket.SHUT_RDWR)
        except (OSError, ValueError, AttributeError):
            pass

    def drain(self, deadline: float) -> None:
        """Read what is left of the body, so that the connection goes back to its pool."""
        try:
            while self._socket is not None and not self.finished:
                self.read(deadline)
        except ClientError:
            pass

    def close(self) -> None:
        """Give the connection back to its pool when all was read, else close it."""
        if self._pump is None:
            self._hang_up()
            return
        if not self.finished:
            self.shutdown()
        self._pump.stop()

    def _hang_up(self) -> None:
        if self.finished and hasattr(self._raw, "release_conn"):
            self._raw.release_conn()
        self._raw.close()


class _Pump:
    """Reads a stream on a thread, one piece ahead, so that its reader may stop waiting and come back.

    The queue, which has a lock of its own, holds one piece or the error that the stream ended with.
    """

    def __init__(self, read: Callable[[], bytes], close: Callable[[], None]) -> None:
        self._read = read
        self._close = close
        self._pieces: queue.Queue[Union[bytes, Exception]] = queue.Queue(1)
        self._stopped = False
        threading.Thread(target=self._run, name="minimcp-requests", daemon=True).start()

    def _run(self) -> None:
        found: Union[bytes, Exception] = b" "
        while found and not self._stopped and not isinstance(found, Exception):
            try:
                found = self._read()
            except Exception as problem:
                found = problem
            self._pieces.put(found)
        self._close()

    def take(self, timeout_s: float | None) -> bytes:
        """Return the next piece, b"" at the end.

        :raises queue.Empty: when there is none in time.
        """
        found = self._pieces.get(timeout=timeout_s)
        if not found or isinstance(found, Exception):
            # The last one is for everybody who asks.
            self._pieces.put(found)
        if isinstance(found, Exception):
            raise found
        return found

    def stop(self) -> None:
        """Let the thread end: it has read its last piece."""
        self._stopped = True
        with contextlib.suppress(queue.Empty):
            self._pieces.get_nowait()
