"""One HTTP request and its response: redirects, hooks and cookies, read by one thread and closed by any."""

from __future__ import annotations

import threading
import time
from typing import Any
from urllib.parse import urljoin, urlsplit, urlunsplit

from ..addresses import origin, show
from ..errors import ClientError, ConnectionLost, ProtocolError
from .response import Headers, RequestsResponse
from .settings import Fields, HttpSettings, text_of

_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 5
_EXCERPT = 2000
_EXCERPT_BYTES = 1024 * 1024
_EXCERPT_S = 5.0


class Reply:
    """One request and the response to it; read by one thread, closed by any.

    :param web: the `Pool` that opens connections and takes them back.
    :ivar url: the address it was sent to, after redirects.
    :ivar sent: the headers that were sent.
    :ivar paused_s: what the auth and hooks took of the time; they may have asked a person.
    :ivar status: 0 until `head` has returned.
    :ivar headers: of the response, by lower-case name.
    """

    def __init__(self, web: Any, setup: HttpSettings, method: str, fields: Fields, body: bytes, prepared: Any) -> None:
        self.paused_s = 0.0
        self.status = 0
        self.headers: Headers = {}
        self._web = web
        self._setup = setup
        self._method = method
        self._fields = fields
        self._body = body
        self._prepared = prepared
        self.url = ""
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

    def until(self, deadline: float | None) -> float | None:
        """A deadline that was set before the request, put off by the time that the auth and hooks took."""
        return None if deadline is None else deadline + self.paused_s

    def identity(self) -> str:
        """A fingerprint of the credentials that were sent, "" for none."""
        value = self.field("authorization")
        if not value:
            return ""
        import hashlib

        return hashlib.sha256(value.encode("latin-1", "replace")).hexdigest()[:16]

    def send(self, url: str, deadline: float | None) -> None:
        """Send the request to a URL of the same origin."""
        self.url = url
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
                began = time.monotonic()
                source = self._hook(source, deadline)
                self.paused_s += time.monotonic() - began
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
        there = resolve(self.url, source.headers["location"])
        if origin(there) != origin(self._setup.url):
            raise ProtocolError(
                f"The server redirects to another origin, {show(there)}; nothing was sent there. Use it if it is right"
            )
        if source.status not in (307, 308):
            raise ProtocolError(
                f"The server redirects to {show(there)} with HTTP {source.status}, which loses the message"
            )
        self._hops += 1
        if self._hops > _MOST_REDIRECTS:
            raise ProtocolError("The server redirects in a circle")
        while self.read(deadline):
            pass
        with self._lock:
            self._source = None
        self._web.keep(self._setup, source)
        self.send(there, deadline)

    def _hook(self, source: Any, deadline: float | None) -> Any:
        """Let the hooks of `requests` see the response; what they return in its place is what is read."""
        import requests

        dispatch: Any = requests.hooks.dispatch_hook
        response = _response(self._setup, self._prepared, source, deadline)
        options = self._web.send_options(self._setup, deadline)
        found = dispatch("response", self._prepared.hooks, response, **options)
        if found is response and not response._content_consumed:
            return source
        if found is not response:
            self._fields = {name.lower(): (name, text_of(value)) for name, value in found.request.headers.items()}
        new = RequestsResponse(found)
        with self._lock:
            self._source = new
            closed = self._closed
        if closed:
            new.close()
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
            request.prepare_url(self.url, None)
            request.prepare_headers(self.sent)
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


def excerpt(reply: Reply, deadline: float | None, read: bytearray | None = None) -> str:
    """The beginning of a refusal's body as text, or of what can soon be had of it; the whole goes into `read`."""
    read = bytearray() if read is None else read
    soon = time.monotonic() + _EXCERPT_S
    deadline = soon if deadline is None else min(deadline, soon)
    try:
        reply.whole(_EXCERPT_BYTES, deadline, read)
    except ClientError:
        pass
    return bytes(read[:_EXCERPT]).decode("utf-8", "replace")


def resolve(base: str, reference: str) -> str:
    """The address that a server names, relative to the one it was asked at.

    :raises ProtocolError: when it is none.
    """
    try:
        parts = urlsplit(urljoin(base, reference))
        # Reading it checks it.
        parts.port  # noqa: B018
        return urlunsplit(parts._replace(fragment=""))
    except ValueError:
        raise ProtocolError("The server names an address that is none") from None


def _response(setup: HttpSettings, prepared: Any, source: Any, deadline: float | None) -> Any:
    """The `requests.Response` of a response that is read here."""
    import io

    import urllib3

    if isinstance(source, RequestsResponse):
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
