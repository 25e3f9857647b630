"""HTTP requests that `requests` sends whole: those of a session of the user's, or with credentials made for it.

Its own rules hold then for connections, proxies, certificates, cookies and hooks. Redirects are left to `Reply`, and
`open` returns with the head of the response: only from then on can a request be cancelled.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
import time
import weakref
from collections.abc import Mapping
from functools import partial
from typing import Any, Optional, Union

import requests
import urllib3

from ..addresses import origin
from ..errors import AuthorizationError, ClientError, ConnectionLost, ProtocolError, Timeout
from ..fork import number_of
from .connections import AGENT, Connections
from .request import Auth, Outgoing, SignedAnswer, fields_of, is_native
from .response import AnyResponse, Fields, seconds_left

_PIECE = 65536
_TIMED_OUT = (socket.timeout, urllib3.exceptions.TimeoutError, requests.exceptions.Timeout)
# The process in which each session was last used here.
_used_in: weakref.WeakKeyDictionary[requests.Session, int] = weakref.WeakKeyDictionary()


class SessionConnections(Connections):
    """Requests through a `requests.Session`.

    :param auth: as `requests` takes it, or credentials with the two methods of `Auth`.
    :param session: None for one of its own, which looks neither at .netrc nor at the environment.
    """

    pauses = True

    def __init__(
        self,
        url: str,
        headers: Optional[Mapping[str, Any]] = None,
        auth: Any = None,
        session: Optional[requests.Session] = None,
        limits: Optional[Mapping[str, float]] = None,
    ) -> None:
        super().__init__(url, headers, limits, agent=None)
        self._own = session is None
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
            auth = self.user
        self._given_auth = auth
        self._auth = partial(attach, auth) if is_native(auth) else auth
        try:
            session.get_adapter(self.url)
        except requests.RequestException as problem:
            raise ProtocolError(f"The address of the server cannot be used: {problem}") from None

    def prepare(self, method: str, url: str, fields: Fields, body: bytes) -> Outgoing:
        """Let the session prepare a request, which calls the auth."""
        given = {name: value for key, (name, value) in fields.items() if key != "content-length"}
        try:
            prepared = self.session.prepare_request(
                requests.Request(method, url, headers=given, data=body or None, auth=self._auth)
            )
        except requests.RequestException as problem:
            raise ProtocolError(f"The request cannot be sent: {problem}") from None
        if origin(prepared.url or "") != origin(self.url):
            raise ProtocolError("The auth changed the address of a request to another origin")
        return Outgoing(method, prepared.url or "", fields_of(prepared.headers), body, prepared)

    def caller(self) -> str:
        """Name the session, and what in it and in the auth may say who is calling without a header."""
        known = [] if self._own else [self.session, self.session.auth]
        things = [thing for thing in (*known, self._given_auth) if thing is not None]
        return repr([[number_of(thing) for thing in things], self.session.cert])

    def open(self, request: Outgoing, deadline: float | None) -> AnyResponse:
        """Send a request, and wait for the head of its response."""
        times = (self.connect_s(deadline), seconds_left(deadline))
        watch = _Watch(request.foreign)
        try:
            settings = self.session.merge_environment_settings(request.url, {}, True, None, None)
            response = self.session.send(request.foreign, timeout=times, allow_redirects=False, **settings)
        except requests.exceptions.Timeout as problem:
            never_sent = isinstance(problem, requests.exceptions.ConnectTimeout)
            raise Timeout("The server did not answer in time", "always" if never_sent else None) from None
        except UnicodeError:
            raise ProtocolError("A header has characters that a header may not have") from None
        except (requests.RequestException, OSError) as problem:
            retry = "never" if isinstance(problem, requests.exceptions.SSLError) else None
            raise ConnectionLost(f"No answer from {origin(request.url)}: {problem}", retry) from None
        return RequestsResponse(response, watch)

    def keep(self, source: AnyResponse) -> None:
        """Give a connection back to the session."""
        source.drain()
        source.close()

    def close(self) -> None:
        """Close the session, unless it is the user's."""
        super().close()
        if self._own:
            self.session.close()


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


class RequestsResponse(AnyResponse):
    """A response that `requests` has received, head first.

    A read of `requests` that timed out cannot be taken up again. So a thread reads a stream, one piece ahead, and its
    reader may stop waiting and come back. Any other body is over with a Timeout.
    """

    def __init__(self, response: requests.Response, watch: _Watch) -> None:
        self.status = response.status_code
        self.headers = {name.lower(): value for name, value in response.headers.items()}
        if watch.location is not None:
            self.headers["location"] = watch.location
        self.sent = fields_of(response.request.headers)
        self.paused_s = watch.paused_s
        self._response = response
        # The raw response is that of urllib3, or what an adapter puts in its place. Where it ends with its connection,
        # the socket is out of reach, and silence may last no longer than the request had time.
        self._raw: Any = response.raw
        self._socket = getattr(getattr(response.raw, "connection", None), "sock", None)
        # The next piece, or the end: b"" or an error.
        self._pieces: queue.Queue[Union[bytes, ClientError]] = queue.Queue(1)
        self._begun = self._stopped = False
        self._streams = self.headers.get("content-type", "").lower().startswith("text/event-stream")
        if self._streams:
            self._limit_silence(None)
            try:
                threading.Thread(target=self._run, name="minimcp-requests", daemon=True).start()
            except RuntimeError as problem:
                response.close()
                raise ConnectionLost(f"No thread could be started to read the answer: {problem}") from None

    def _run(self) -> None:
        while self._advance() and not self._stopped:
            pass
        self._response.close()

    def _advance(self) -> bool:
        """Read the next piece; False for the end."""
        found: Union[bytes, ClientError]
        try:
            if hasattr(self._raw, "read1"):
                found = self._raw.read1(_PIECE)
            else:
                # Before urllib3 2 all of a larger piece would be waited for.
                found = self._raw.read(1 if self._streams else _PIECE)
            if not found and not self._begun:
                # A hook may have read it.
                found = self._response.content
        except _TIMED_OUT:
            found = Timeout("The server did not answer in time")
        except Exception as problem:
            found = ConnectionLost(f"The connection to the server broke: {problem}")
        self._begun = True
        self._pieces.put(found or b"")
        return bool(found) and isinstance(found, bytes)

    def _limit_silence(self, timeout_s: float | None) -> None:
        if self._socket is not None and self._socket.fileno() >= 0:
            # It is closed once a response that ends with the connection has been read.
            self._socket.settimeout(timeout_s)

    def read(self, deadline: float | None) -> bytes:
        """Return the next bytes of the body as soon as there are any, or b"" at its end."""
        left = None if deadline is None else deadline - time.monotonic()
        try:
            if left is not None and left <= 0:
                raise queue.Empty
            if not self._streams and self._pieces.empty():
                self._limit_silence(left)
                self._advance()
            found = self._pieces.get(timeout=left)
        except queue.Empty:
            raise Timeout("The server did not answer in time") from None
        if isinstance(found, Timeout):
            self._pieces.put(ConnectionLost("The server was silent for longer than the request had time"))
        elif isinstance(found, ClientError) or not found:
            self._pieces.put(found)
        if isinstance(found, ClientError):
            raise found
        self.finished = not found
        return found

    def shutdown(self) -> None:
        """Make a thread that is reading come back at once."""
        try:
            # By the file number, since a response that ends with its connection has taken the socket along.
            with socket.fromfd(self._raw.fileno(), socket.AF_INET, socket.SOCK_STREAM) as same:
                same.shutdown(socket.SHUT_RDWR)
        except (OSError, ValueError, AttributeError):
            pass

    def close(self) -> None:
        """Give the connection back to its pool when all was read, else close it."""
        if not self.finished:
            self.shutdown()
        self._stopped = True
        if self._streams:
            # The thread closes it, once there is room for its last piece.
            with contextlib.suppress(queue.Empty):
                self._pieces.get_nowait()
        else:
            self._response.close()


def attach(auth: Auth, request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Do for a request of `requests` what its `auth=` is called for."""
    request.headers.update(auth.sign(request.method or "", request.url or "", dict(request.headers)))
    request.register_hook("response", partial(_answered, auth))  # type: ignore[no-untyped-call]
    return request


def _answered(auth: Auth, response: requests.Response, **how: Any) -> requests.Response:
    """Replace an answer by that to a second request, as often as the credentials say so."""
    answers: list[SignedAnswer] = []
    try:
        while True:
            request = response.request
            sent = {name.lower(): str(value) for name, value in request.headers.items()}
            headers = {name.lower(): value for name, value in response.headers.items()}
            answers.append(SignedAnswer(request.method or "", request.url or "", response.status_code, headers, sent))
            if not auth.answered(answers):
                return response
            response = _again(auth, response, how)
    except BaseException:
        response.close()
        raise


def _again(auth: Auth, response: requests.Response, how: dict[str, Any]) -> requests.Response:
    """Send the request of a response once more, as `requests.auth.HTTPDigestAuth` does."""
    if not how.get("stream"):
        response.content  # noqa: B018  # what requests would have read anyway
    response.close()
    request = response.request.copy()
    if getattr(request.body, "seek", None) is not None:
        requests.utils.rewind_body(request)
    elif hasattr(request.body, "__next__"):
        raise AuthorizationError("The body was a generator and cannot be sent again with a token; send it once more")
    request.headers.update(auth.sign(request.method or "", request.url or "", dict(request.headers)))
    connection: Any = response.connection
    again: requests.Response = connection.send(request, **how)
    again.history.append(response)
    again.request = request
    return again
