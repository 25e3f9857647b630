"""The session form of Streamable HTTP: the session's id, the GET stream, and how a closed stream is resumed.

Legacy only, 2025-03-26 to 2025-11-25. Spec: TRN-121 to TRN-157
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from typing import TYPE_CHECKING

from ...engines.errors import ClientError, ConnectionLost, ProtocolError, Timeout
from ...engines.fork import PerProcess
from ...engines.http_client.reply import Reply
from ...engines.http_client.response import Headers, deadline_of
from ...protocol import spec
from ...protocol.sse import EventReader
from ..errors import HTTPStatus
from .messages import on_stream
from .transport import begin

if TYPE_CHECKING:
    from .http import HttpTransport

log = logging.getLogger("minimcp")

# How long to wait before coming back to a stream, unless the server says something else.
RETRY_S = 1.0
_LEAST_RETRY_S = 0.02  # so that a server which wishes for no wait is asked 50 times a second at most
_MOST_RETRIES = 5
_MOST_RETRY_S = 30.0
_STREAM = {"Accept": "text/event-stream"}
_BYE_S = 2.0
_ID = re.compile(r"[\x21-\x7e]{1,4096}\Z")


class LegacySession:
    """The legacy session of a transport, which may have no id.

    :ivar id: as secret as a credential: it is in no log and no message. Spec: TRN-145
    """

    def __init__(self, transport: HttpTransport) -> None:
        self.id: str | None = None
        self._transport = transport
        self._pid = 0  # of the process that began the session, and may end it
        self._listening = PerProcess(_Listening)

    def fields(self) -> Headers:
        """Return the headers of every request in the session. Spec: TRN-144, TRN-156"""
        found: Headers = {}
        if self.id is not None:
            found["Mcp-Session-Id"] = self.id
        version = self._transport.version
        if version is not None and "2025-06-18" <= version <= spec.LATEST_LEGACY:
            found["MCP-Protocol-Version"] = version
        return found

    def began(self, id: str | None) -> None:
        """Take note of the id that came with the answer to `initialize`, if one did. Spec: TRN-141"""
        if id is not None and not _ID.match(id):
            raise ProtocolError("The server sent a session id with characters that it may not have")
        self.id, self._pid = id, os.getpid()

    def get(self, last_id: str | None, deadline: float | None) -> Reply:
        """Ask for the standing stream, or for the rest of the stream that an event id names. Spec: TRN-121, TRN-131"""
        # An event id is any text, and goes out as the bytes it came in.
        more = {} if last_id is None else {"Last-Event-ID": last_id.encode("utf-8").decode("latin-1")}
        return self._transport.pool.request("GET", {**_STREAM, **self.fields(), **more}, b"", deadline)

    def listen(self) -> None:
        """Hold the standing stream open from now on, if the server has one."""
        mine = self._listening()
        with mine.lock:
            if mine.stream is None:
                stream = StandingStream(self._transport)
                begin(stream.thread)
                mine.stream = stream

    def end(self) -> None:
        """Tell the server that the session is over, and stop listening. Spec: TRN-150, TRN-151"""
        if self.id is not None and self._pid == os.getpid():
            try:
                reply = self._transport.pool.request("DELETE", self.fields(), b"", deadline_of(_BYE_S))
                try:
                    reply.head(deadline_of(_BYE_S))
                finally:
                    reply.close()
            except Exception as problem:  # of the network, or of what the user's auth does
                log.debug("the server could not be told that the session is over: %s", type(problem).__name__)
        self.id = None
        mine = self._listening()
        with mine.lock:
            stream, mine.stream = mine.stream, None
        if stream is not None:
            stream.stop()


class _Listening:
    """The standing stream of one process, if it has one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # guards stream
        self.stream: StandingStream | None = None


class StandingStream:
    """The GET stream on which a server speaks of its own accord, and the thread that reads it."""

    def __init__(self, transport: HttpTransport) -> None:
        self.thread = threading.Thread(target=self._run, name="minimcp-stream", daemon=True)
        self._transport = transport
        self._events = EventReader(transport.limits["event_bytes"])
        self._over = threading.Event()
        self._reply: Reply | None = None

    def stop(self) -> None:
        """Close the stream and wait for the thread, though not for long."""
        self._over.set()
        reply = self._reply
        if reply is not None:
            reply.close()
        if threading.current_thread() is not self.thread:
            self.thread.join(_BYE_S)

    def _run(self) -> None:
        failures = 0
        while not self._over.is_set():
            try:
                if not self._follow():
                    return
                failures = 0
            except ClientError as problem:
                failures += 1
                log.debug("the GET stream broke: %s", problem)
            except Exception:
                # The user's auth may do anything; without it there is nothing to come back with.
                log.exception("the GET stream ended")
                return
            wait_s = _retry_s(self._events.retry_s)
            self._over.wait(max(wait_s, min(wait_s * 2 ** min(failures, 8), _MOST_RETRY_S)))

    def _follow(self) -> bool:
        """Read the stream until it ends; False when the server does not want to be asked again."""
        transport, events = self._transport, self._events
        reply = transport.session.get(events.last_id, deadline_of(transport.limits["connect_s"]))
        self._reply = reply
        try:
            if self._over.is_set():
                return False
            status = reply.head(None)
            if not is_stream(reply):
                log.debug("the server has no GET stream: HTTP %d", status)
                return status >= 500 and status != 501
            events.restart()
            for message in on_stream(reply, events):
                if "method" in message:
                    if transport.record is not None:
                        transport.record("received", message, status=status, headers=reply.headers)
                    transport.on_message(message)
            return True
        finally:
            reply.close()


class Resumption:
    """The wait before a broken stream is resumed, and how often it broke since something came on it."""

    def __init__(self) -> None:
        self._tries = 0
        self._back_at = 0.0
        self._cancelled = threading.Event()

    def plan(self, retry_s: float | None, problem: ConnectionLost) -> None:
        """Set when to resume, never earlier than the server wished. Spec: TRN-138

        :raises ConnectionLost: when the stream broke too often.
        """
        self._tries += 1
        if self._tries > _MOST_RETRIES:
            raise ConnectionLost(f"The stream broke {self._tries} times before the response: {problem}")
        self._back_at = time.monotonic() + _retry_s(retry_s) * 2.0 ** (self._tries - 1)

    def cancelled(self, deadline: float | None) -> bool:
        """Wait until it is time to resume; True when that was cancelled.

        :raises Timeout: when the time comes after the deadline.
        """
        until = self._back_at if deadline is None else min(self._back_at, deadline)
        if self._cancelled.wait(max(0.0, until - time.monotonic())):
            return True
        if self._back_at > time.monotonic():
            raise Timeout("The server did not answer in time")
        return False

    def cancel(self) -> None:
        """End the wait; called from any thread."""
        self._cancelled.set()


def _retry_s(wished_s: float | None) -> float:
    """Return how long to wait before coming back: as long as the server wished, but never at once."""
    return RETRY_S if wished_s is None else max(wished_s, _LEAST_RETRY_S)


def is_stream(reply: Reply) -> bool:
    """Say whether a reply is a stream of events."""
    return reply.status == 200 and reply.kind == "text/event-stream"


def not_resumed(reply: Reply) -> ClientError:
    """Return the error for a stream that cannot be resumed; its request may or may not have run."""
    if reply.status == 404:
        return ConnectionLost("The session ended before the response came")
    if reply.status >= 500:
        return HTTPStatus(reply.status, retry="idempotent")
    return ConnectionLost(f"The stream ended before the response, and the server refuses the rest: HTTP {reply.status}")
