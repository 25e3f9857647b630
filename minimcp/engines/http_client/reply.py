"""One HTTP request and its response: credentials, redirects, and a body that is read by one thread, closed by any."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from typing import Any, Optional
from urllib.parse import urljoin, urlsplit, urlunsplit

from ..addresses import origin, show
from ..errors import ClientError, ConnectionLost, ProtocolError
from .connections import Connections
from .request import ALWAYS, SignedAnswer, fingerprint
from .response import AnyResponse, Fields, Headers

_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 5
# How often credentials may have a request sent again.
_MOST_ANSWERS = 10
_EXCERPT = 2000
_EXCERPT_BYTES = 1024 * 1024
_EXCERPT_S = 5.0


class Reply:
    """One request and the response to it.

    :param own: the names of headers that belong to the request, not to the caller.
    :ivar url: the address it was sent to, after redirects.
    :ivar paused_s: seconds that the auth and hooks took; they may have asked a person.
    :ivar status: 0 until `head` has returned.
    :ivar headers: of the response, by lower-case name.
    """

    def __init__(
        self, connections: Connections, method: str, fields: Fields, body: bytes, raw: bool, own: Collection[str]
    ) -> None:
        self.url = ""
        self.paused_s = 0.0
        self.status = 0
        self.headers: Headers = {}
        self._connections = connections
        self._method = method
        self._given = self._fields = fields
        self._body = body
        self._raw = raw
        self._own = (*connections.ours, *own)
        self._hops = 0
        self._answers: list[SignedAnswer] = []
        self._source: Optional[AnyResponse] = None
        self._lock = threading.Lock()  # guards _source, _busy and _closed
        self._busy = False
        self._closed = False

    @property
    def sent(self) -> Headers:
        """The headers that were sent, by the names they were sent under."""
        return dict(self._fields.values())

    @property
    def shown(self) -> Headers:
        """The headers that were sent, without the values of those that the caller brought, which may be secret."""
        from ..trace import REDACTED

        return {name: REDACTED if self._is_callers(key) else value for key, (name, value) in self._fields.items()}

    def _is_callers(self, key: str) -> bool:
        return key not in self._own and key not in ALWAYS

    @property
    def kind(self) -> str:
        """The media type of the response, "" without one."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def field(self, name: str) -> str:
        """Return a header that was sent, "" without it."""
        return self._fields.get(name, ("", ""))[1]

    def until(self, deadline: float | None) -> float | None:
        """Put a deadline that was set before the request off by the time that the auth and hooks took."""
        return None if deadline is None else deadline + self.paused_s

    def identity(self) -> str:
        """Return a fingerprint of all that the caller brought to what was sent, "" for nothing."""
        return fingerprint(self._fields, self._own, self._connections.caller())

    def send(self, url: str, deadline: float | None, before: Optional[Callable[[Reply], Any]] = None) -> None:
        """Send the request to a URL of the same origin."""
        self.url = url
        began = time.monotonic()
        outgoing = self._connections.prepare(self._method, url, self._given, self._body)
        if self._connections.pauses:
            pause = time.monotonic() - began
            self.paused_s += pause
            deadline = None if deadline is None else deadline + pause
        self.url, self._fields = outgoing.url, outgoing.fields
        if before is not None:
            before(self)
        source = self._connections.open(outgoing, deadline)
        self.paused_s += source.paused_s
        self._fields = source.sent or outgoing.fields
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
        before_s = self.paused_s

        def until() -> float | None:
            # The time that the auth takes does not count.
            return None if deadline is None else deadline + self.paused_s - before_s

        while not self.status:
            source = self._source
            if source is None:
                # A second request could not be sent in time.
                self.send(self.url, until())
                continue
            self._enter()
            try:
                source.head(until())
            finally:
                self._leave()
            self._connections.received(self.url, source)
            if self._refused(source):
                self._send_again(source, self.url, until())
            elif not self._raw and source.status in _REDIRECTS and "location" in source.headers:
                there = self._redirect(source)
                while self.read(until()):
                    pass
                self._send_again(source, there, until())
            elif not self._raw and source.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
                raise ProtocolError("The server compressed its answer, which it was asked not to do")
            else:
                self.headers = source.headers
                self.status = source.status
        return self.status

    def _refused(self, source: AnyResponse) -> bool:
        """Show an answer to the auth, and say whether it wants the request sent again."""
        auth = self._connections.auth
        if auth is None or len(self._answers) >= _MOST_ANSWERS:
            return False
        began = time.monotonic()
        sent = {name: value for name, (_, value) in self._fields.items()}
        self._answers.append(SignedAnswer(self._method, self.url, source.status, source.headers, sent))
        again = auth.answered(self._answers)
        self.paused_s += time.monotonic() - began
        return again

    def _send_again(self, source: AnyResponse, url: str, deadline: float | None) -> None:
        with self._lock:
            self._source = None
            closed = self._closed
        if not closed:
            self._connections.keep(source)
        self.send(url, deadline)

    def _redirect(self, source: AnyResponse) -> str:
        """Return where the server points, if that is the same origin and asks for the same request."""
        there = resolve(self.url, source.headers["location"])
        if origin(there) != origin(self._connections.url):
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
        return there

    def read(self, deadline: float | None) -> bytes:
        """Return the next bytes of the body, or b"" at its end."""
        source = self._source
        assert source is not None
        self._enter()
        try:
            return source.read(deadline)
        finally:
            self._leave()

    def whole(self, limit: float, deadline: float | None, read: bytearray) -> bytes:
        """Read the body to its end.

        :param read: what was read of it before a Timeout.
        :raises ProtocolError: when it is longer than the limit, in bytes.
        """
        expected = self.headers.get("content-length", "0")
        while len(read) <= limit and not (expected.isdigit() and int(expected[:15]) > limit):
            data = self.read(deadline)
            if not data:
                return bytes(read)
            read += data
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
        if self._source is not None:
            self._connections.keep(self._source)

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
                # The reader closes it: a file number must not be given away under its reader.
                source.shutdown()
                return
        source.close()


def excerpt(reply: Reply, deadline: float | None, read: bytearray | None = None) -> str:
    """Return the first 2,000 characters of an error body, reading for at most 5 s; all bytes are appended to `read`."""
    read = bytearray() if read is None else read
    soon = time.monotonic() + _EXCERPT_S
    deadline = soon if deadline is None else min(deadline, soon)
    try:
        reply.whole(_EXCERPT_BYTES, deadline, read)
    except ClientError:
        pass
    return bytes(read[:_EXCERPT]).decode("utf-8", "replace")


def resolve(base: str, reference: str) -> str:
    """Return the address that a server names, relative to the one it was asked at.

    :raises ProtocolError: when it is none.
    """
    try:
        parts = urlsplit(urljoin(base, reference))
        # Reading it checks it.
        parts.port  # noqa: B018
        return urlunsplit(parts._replace(fragment=""))
    except ValueError:
        raise ProtocolError("The server names an invalid address") from None
