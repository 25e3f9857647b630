"""Streams of legacy sessions whose process is another one: a client comes back to any, and misses nothing.

The session's own stream moves to the process where the client opens it, with what was not read before. The stream of
a call stays where the call runs; another process fetches its events from there, a few at a time.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Generic

from ..protocol import sse
from ..protocol.errors import McpError
from ..protocol.principal import Principal
from ..protocol.served import Environ, Message, Response, S, SharedSessions
from .bodies import respond_with_events
from .legacy_http import INITIALIZED, no_stream, parse, priming, session_streams
from .workers import http_workers

if TYPE_CHECKING:
    from .http import HttpApp

log = logging.getLogger("minimcp")

# The bytes of events that one message between processes carries, beside one event of any size.
_PIECE = 1024 * 1024
_REPLY_S = 1.0


class SharedStreams(Generic[S]):
    """The streams of the sessions of an HttpApp in all processes.

    :param app: the HttpApp, for its engine and limits.
    :param sharing: the messages between the processes.
    """

    def __init__(self, app: HttpApp[S], sharing: SharedSessions) -> None:
        self._app = app
        self._limits = app.limits
        self._sharing = sharing
        sharing.takers.update(say=self._take_say, release=self._take_release, events=self._take_events)
        sharing.on_listening, sharing.on_leaving = self.take_over, self._leave

    @property
    def node(self) -> str:
        """The name of this process."""
        return self._sharing.node

    def is_elsewhere(self, event_id: str | None) -> bool:
        """Say whether an event id names another process."""
        named = parse(event_id) if event_id is not None else None
        return named is not None and named[1] not in ("", self.node)

    # The session's own stream

    def send(self, session: S, message: Message) -> None:
        """Send a message that belongs to no call on the session's own stream, which may be another process's."""
        if session.away or not session.watched:
            holder = self._sharing.holder(session)
            if holder and self._asked(session, "say", {"message": message}, holder) is not None:
                return
            # Nobody has it, or a process that is gone.
            self.take_over(session)
        session_streams().of(session, self._limits, self).standing.send(message)

    def take_over(self, session: S, event_id: str | None = None) -> None:
        """Make a session's own stream this process's, with what its client has not got.

        :param event_id: the newest event that the client has got.
        """
        before = self._sharing.claim(session)
        self._app.engine.call(INITIALIZED, session=session)
        if not before:
            return
        rest = self._asked(session, "release", {"last": event_id}, before)
        standing = session_streams().of(session, self._limits, self).standing
        if rest is None:
            # Nobody knows what the client was not told.
            if session.tell_all is not None:
                session.tell_all()
            return
        for text in rest["messages"]:
            standing.send(json.loads(text))
        for key, text in rest["notes"]:
            standing.note(tuple(key), text.encode("utf-8"))

    def _asked(self, session: S, op: str, body: Message, node: str) -> Message | None:
        try:
            return self._sharing.ask(session, op, body, node)
        except McpError:
            return None

    def _take_say(self, session: S, message: Message) -> None:
        session_streams().of(session, self._limits, self).standing.send(message["message"])
        self._sharing.reply(session, message, {})

    def _take_release(self, session: S, message: Message) -> None:
        session.away, session.listening = True, False
        standing = session_streams().of(session, self._limits, self).standing
        named = parse(message["last"]) if isinstance(message["last"], str) else None
        after = named[2] if named is not None and named[:2] == (0, self.node) else None
        events, notes = standing.hand_over(after)
        taken, size = [], 0
        for event in reversed(events):
            size += len(event)
            if size > _PIECE:
                break  # As in any stream the oldest are dropped.
            taken.append(sse.data_of(event).decode("utf-8"))
        texts = [(key, data.decode("utf-8")) for key, data in notes.items()]
        self._sharing.reply(session, message, {"messages": taken[::-1], "notes": texts})

    # The streams of calls

    def follow(
        self, environ: Environ, session: S, event_id: str | None, principal: Principal | None
    ) -> Response | None:
        """Go on with the stream of a call that another process runs; None for the session's own stream.

        :raises Refused: when it is not there any more.
        """
        named = parse(event_id or "")
        if named is None or named[0] == 0:
            return None
        number, node, after = named
        wanted = {"stream": number, "after": after, "reader": 0, "wait_s": 0.0}
        begun = self._ask(session, node, wanted) or self._left(session, node, number, after)
        if begun is None:
            raise no_stream()
        keepalive_s, until, first = self._limits["keepalive_s"], self._app.until(principal), begun["start"]

        def batches() -> Iterator[bytes]:
            yield priming(session, f"{number}.{node}-{first}")
            got: Message | None = begun
            while got:
                yield "".join(got["events"]).encode("utf-8")
                if got["over"] or session.closed or time.monotonic() >= until:
                    return
                after = got["after"]
                wanted = {"stream": number, "after": after, "reader": got["reader"], "wait_s": keepalive_s}
                try:
                    got = self._ask(session, node, wanted) or self._left(session, node, number, after)
                except McpError:
                    return

        return respond_with_events(environ, batches(), _nothing, _no_nudge)

    def _ask(self, session: S, node: str, wanted: Message) -> Message | None:
        found = self._sharing.ask(session, "events", wanted, node, _REPLY_S + wanted["wait_s"])
        return found or None

    def _leave(self, session: S) -> None:
        """Leave what was not read of calls that have ended to the other processes, since this one stops serving."""
        for stream in session_streams().of(session, self._limits, self).unread():
            events, size = {}, 0
            for number, event in stream.events():
                size += len(event)
                events[str(number)] = event.decode("utf-8")
            if size <= _PIECE:
                self._sharing.leave_events(session, stream.label, events)

    def _left(self, session: S, node: str, number: int, after: int) -> Message | None:
        """Return the events that a process which has stopped left of a stream, or None."""
        found = self._sharing.left_events(session, f"{number}.{node}")
        numbers = sorted(map(int, found))
        if not numbers:
            return None
        events = [found[str(each)] for each in numbers if each > after]
        return {"events": events, "after": numbers[-1], "over": True, "reader": 0, "start": min(after, numbers[-1])}

    def _take_events(self, session: S, message: Message) -> None:
        streams = session_streams().of(session, self._limits, self)
        stream = streams.find(message["stream"])
        if stream is None or stream is streams.standing:
            self._sharing.reply(session, message, {})
            return
        start = min(message["after"], stream.newest)
        reader = message["reader"] or stream.attach()

        def work() -> None:
            stream.resume(reader)
            found, over = stream.take(start, message["wait_s"], reader)
            stream.leave(reader)
            events: list[str] = []
            size = 0
            for _, event in found:
                size += len(event)
                if events and size > _PIECE:
                    over = False
                    break
                events.append(event.decode("utf-8"))
            after = found[len(events) - 1][0] if events else start
            body = {"events": events, "after": after, "over": over, "reader": reader, "start": start}
            self._sharing.reply(session, message, body)
            if over and stream.done:
                session_streams().end(streams, stream, read=True)

        try:
            http_workers().submit(work)
        except RuntimeError:
            log.warning("no thread is free for an event stream that another process reads")


def _nothing(ended: bool) -> None:
    """Stand in for `on_close`: the process of a stream notices by itself that nobody fetches its events."""


def _no_nudge() -> None:
    """Stand in for `nudge`: a stream that is fetched looks for its client between two pieces."""
