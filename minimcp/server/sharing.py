"""Legacy sessions of several processes: what a client sends to one of them reaches those that it concerns.

Any process restores a session from its id and from its record, which has what the id does not say: the level of log
messages, the subscriptions, and the process that has the session's own stream. What a client changes is in force in
every process when it is answered. Neither ids nor principals leave a process.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Optional, cast

from ..protocol import spec
from ..protocol.errors import InternalError, McpError
from ..protocol.principal import key_of
from .bus import BusDown, Fields, SharedBus
from .seal import digest
from .signed_messages import SignedMessages

if TYPE_CHECKING:
    from .engine import Engine
    from .session import Session

log = logging.getLogger("minimcp")

Message = dict[str, Any]
# `f(session, message)` takes a message of another process; it must not block.
Taker = Callable[["Session", Message], None]

_ASK_S = 1.0
_AGREE_S = 0.5
# After Redis was gone, the time in which the other processes write again what it has lost.
_BACK_S = 5.0
_CHUNK = 200
_NODE = re.compile(r"s\d+\.([0-9a-z]{1,32})")
_URI = "u:"


def share(engine: Engine) -> None:
    """Let the sessions of an engine be those of all processes, where its bus can and they have a common secret."""
    if engine.sealer.shared and hasattr(engine.bus, "swap"):
        engine.sharing = engine.sessions.sharing = Sharing(engine, cast(SharedBus, engine.bus))


class Sharing:
    """The legacy sessions of one server, in all of its processes.

    :ivar takers: what is done with a message of another process, by its "op".
    :ivar on_listening: called with each session whose stream is read here, when its record may have changed.
    :ivar on_leaving: called with each session when this process stops serving.
    """

    def __init__(self, engine: Engine, bus: SharedBus) -> None:
        self._engine = engine
        self._bus = bus
        # A client that only listens comes back with another request once its stream was ended for its age.
        self._ttl_s = engine.limits["session_idle_s"] + engine.limits["stream_s"]
        self.on_listening: Callable[[Session], None] | None = None
        self.on_leaving: Callable[[Session], None] | None = None
        self.takers: dict[str, Taker] = {
            "answer": lambda session, message: cast(None, session.resolve(message["response"])),
            "cancel": self._take_cancel,
            "end": self._take_end,
            "set": self._take_set,
        }
        self._messages = SignedMessages(bus, engine.sealer, self._hear, self._missed)
        self._missed_at = float("-inf")
        self._settling = threading.Lock()  # guards `told` of sessions, and what comes with it
        # Sessions that last as long as a connection to this process; single operations of a dict, which are atomic.
        self._connections: dict[str, Session] = {}

    @property
    def node(self) -> str:
        """The name of this process."""
        return self._bus.node

    def join(self, session: Session, id: str) -> Callable[[], None]:
        """Let other processes send messages about a session that is a connection; returns what ends that."""
        self._messages.start()
        session.key = self.key(session, id)
        self._connections[session.key] = session
        return lambda: cast(None, self._connections.pop(session.key, None))

    def key(self, session: Session, id: str) -> str:
        """Return the name that a session with an id has among processes; that of another principal has another."""
        return digest([id, key_of(session.principal)])

    # The records

    def keep(self, session: Session) -> None:
        """Make the record of a new session."""
        self._messages.start()
        try:
            self._bus.put(session.key, _record(session), self._ttl_s, used=False)
        except BusDown:
            log.warning("a session is known to this process alone until the bus is back")

    def fill(self, session: Session, key: str) -> bool:
        """Bring a session up to date with its record, and say whether there is one that has not ended.

        :raises InternalError: when that cannot be found out at the moment.
        """
        self._messages.start()
        while True:
            told = session.told
            try:
                (record,) = self._bus.read([key])
            except BusDown as problem:
                raise _busy() from problem
            if not record and time.monotonic() - self._missed_at < _BACK_S:
                raise _busy()
            try:
                with self._settling:
                    if session.told == told:
                        return bool(record) and self._apply(session, record)
            except McpError as problem:
                raise _busy() from problem

    def _apply(self, session: Session, record: Fields) -> bool:
        """Bring a session up to date, and say whether it goes on; the lock is held.

        :raises McpError: when there is no room for it.
        """
        if "ended" in record:
            return False
        level = record.get("level") or "info"
        session.log_level = level if level in spec.LOG_LEVELS else "info"
        session.client_info = {name: (record.get(name) or "")[:200] for name in ("name", "version")}
        uris = {field[len(_URI) :] for field in record if field.startswith(_URI)}
        for uri in session.uris - uris:
            session.remove_uri(uri)
        for uri in uris - session.uris:
            session.add_uri(uri, self._engine.subscribed, self._engine.limits)
        return True

    def touch(self, session: Session) -> None:
        """Keep the record of a session that is in use."""
        try:
            if not self._bus.change(session.key, {}, self._ttl_s):
                self._bus.change(session.key, _record(session), self._ttl_s)
        except BusDown:
            pass  # It is written when the bus is back.

    def begin(self, session: Session) -> bool:
        """Say whether this process passes changes on to a session, as the first that was asked to."""
        try:
            before = self._bus.swap(session.key, "holder", self.node, self._ttl_s, over=False)
        except BusDown:
            return True  # Until the bus is back, and this is found out.
        return before in ("", self.node)

    def claim(self, session: Session) -> str:
        """Make this process the one that has the session's own stream, and return which other one had it, or ""."""
        session.away = False
        try:
            before = self._bus.swap(session.key, "holder", self.node, self._ttl_s)
        except BusDown:
            return ""  # This is done again when the bus is back.
        return "" if before == self.node else before

    def holder(self, session: Session) -> str:
        """Return which other process has the session's own stream, or ""."""
        try:
            (record,) = self._bus.read([session.key])
        except BusDown:
            return ""
        found = record.get("holder", "")
        return "" if found == self.node else found

    def leave_events(self, session: Session, label: str, events: Mapping[str, str]) -> None:
        """Keep the events of a stream that has ended for the other processes, by their numbers."""
        try:
            self._bus.put(f"{session.key}:{label}", {"at": _now(), **events}, self._engine.limits["event_s"])
        except BusDown:
            log.warning("events that a client has not got are lost, since the bus is down")

    def left_events(self, session: Session, label: str) -> dict[str, str]:
        """Return the events of a stream that another process has left, by their numbers; none where there are none.

        :raises InternalError: when the bus is down.
        """
        try:
            (found,) = self._bus.read([f"{session.key}:{label}"])
        except BusDown as problem:
            raise _busy() from problem
        return {number: event for number, event in found.items() if number.isdigit()}

    # Messages to the others

    def set_level(self, session: Session, level: str) -> None:
        """Set the level of log messages everywhere else; raises InternalError when that cannot be done."""
        self._set(session, {"level": level})

    def subscribe(self, session: Session, uri: str) -> None:
        """Add a subscription everywhere else; raises InternalError when that cannot be done."""
        self._set(session, {_URI + uri: ""})
        # A record from before may have been applied meanwhile.
        session.add_uri(uri, self._engine.subscribed, self._engine.limits)

    def unsubscribe(self, session: Session, uri: str) -> None:
        """End a subscription everywhere else; raises InternalError when that cannot be done."""
        self._set(session, {_URI + uri: None})

    def _set(self, session: Session, fields: Message) -> None:
        try:
            if not self._bus.change(session.key, fields, self._ttl_s):
                self._bus.change(session.key, {**_record(session), **fields}, self._ttl_s)
            self._messages.tell(session.key, "set", {"fields": fields}, wait_s=_AGREE_S)
        except BusDown as problem:
            raise _busy(http=False) from problem
        with self._settling:
            session.told += 1

    def end(self, session: Session) -> None:
        """End a session everywhere else; raises InternalError when that cannot be done."""
        try:
            self._bus.put(session.key, {"at": _now(), "ended": "1"}, self._ttl_s)
            self._messages.tell(session.key, "end", {}, wait_s=_AGREE_S)
        except BusDown as problem:
            raise _busy() from problem

    def cancel(self, session: Session, id: Any, reason: Any) -> None:
        """Cancel a call that another process may run, now or when it can be told."""
        self._messages.publish(session.key, "cancel", {"id": id, "reason": str(reason or "")[:200]})

    def pass_answer(self, session: Session, response: Message) -> bool:
        """Pass a response to the process that has asked, and say whether that is another one.

        :raises InternalError: when it cannot be reached.
        """
        id = response.get("id")
        asked = _NODE.fullmatch(id) if isinstance(id, str) else None
        if asked is None or asked[1] == self.node:
            return False
        try:
            self._messages.tell(session.key, "answer", {"response": response}, asked[1])
        except ValueError as problem:
            large = InternalError("The answer is too large for the process that has asked")
            large.http = (413, [])
            raise large from problem
        except BusDown as problem:
            raise _busy() from problem
        return True

    def ask(
        self, session: Session, op: str, body: Message, node: str, timeout_s: float | None = None
    ) -> Optional[Message]:
        """Send a message about a session to a process and return its reply; None when it has none, or is gone.

        :raises InternalError: when the bus is down, or the message is too large.
        """
        try:
            return self._messages.ask(session.key, op, body, node, _ASK_S if timeout_s is None else timeout_s)
        except (BusDown, ValueError) as problem:
            raise _busy() from problem

    def reply(self, session: Session, message: Message, body: Message) -> None:
        """Reply to a message of `ask`, from any thread."""
        self._messages.reply(session.key, message, body)

    # Messages of the others

    def _hear(self, key: str, message: Message | None) -> bool:
        session = self._engine.sessions.find(key) or self._connections.get(key)
        if session is not None and message is not None and message.get("op") in self.takers:
            self.takers[message["op"]](session, message)
        return session is not None

    def _missed(self) -> None:
        self._missed_at = time.monotonic()
        # Not on the bus's own thread, which has to take the replies.
        threading.Thread(target=self._catch_up, name="minimcp-sharing", daemon=True).start()

    def _catch_up(self) -> None:
        """Bring all sessions up to date after messages were missed, and write the records that are lost."""
        sessions = self._engine.sessions.all()
        for start in range(0, len(sessions), _CHUNK):
            chunk = [session for session in sessions[start : start + _CHUNK] if session.key]
            told = [session.told for session in chunk]
            try:
                for session, before, record in zip(chunk, told, self._bus.read([session.key for session in chunk])):
                    self._renew(session, record, before)
            except BusDown:
                return  # This is done again when it is back.

    def _renew(self, session: Session, record: Fields, told: int) -> None:
        if not record:
            self._bus.change(session.key, _record(session), self._ttl_s)
        elif not self._goes_on(session, record, told):
            return
        if session.listening and self.on_listening is not None:
            self.on_listening(session)
        elif session.watched and not session.away:
            session.away = not self.begin(session)

    def _goes_on(self, session: Session, record: Fields, told: int) -> bool:
        try:
            with self._settling:
                fresh = session.told == told
                ended = fresh and not self._apply(session, record)
            if not fresh:
                ended = not self.fill(session, session.key)
        except McpError:
            ended = False  # What is not here in full is restored with the next request, or that is refused.
        else:
            if not ended:
                return True
        self._engine.sessions.drop(session, ended)
        return False

    def _take_cancel(self, session: Session, message: Message) -> None:
        id = message["id"]
        call = session.calls.get(id) if isinstance(id, (str, int, float)) else None
        if call is not None:
            # What is told of a cancellation may take its time.
            threading.Thread(target=call.cancel, args=(message["reason"],), name="minimcp-cancel", daemon=True).start()

    def _take_end(self, session: Session, message: Message) -> None:
        self._forget(session, ended=True)

    def _forget(self, session: Session, ended: bool) -> None:
        self._engine.sessions.forget(session, ended)
        # What is told of the end may take its time.
        threading.Thread(target=session.close, name="minimcp-end", daemon=True).start()

    def _take_set(self, session: Session, message: Message) -> None:
        with self._settling:
            session.told += 1
            self._take_fields(session, message["fields"])

    def _take_fields(self, session: Session, fields: Message) -> None:
        for field, value in fields.items():
            uri = field[len(_URI) :]
            if field == "level":
                session.log_level = value
            elif value is None:
                session.remove_uri(uri)
            else:
                try:
                    session.add_uri(uri, self._engine.subscribed, self._engine.limits)
                except McpError:
                    self._forget(session, ended=False)


def _record(session: Session) -> Fields:
    """Return what is known of a session here, as a record."""
    fields = {"at": _now(), **session.client_info, **{_URI + uri: "" for uri in session.uris}}
    if session.log_level != "info":
        fields["level"] = session.log_level
    return fields


def _now() -> str:
    return str(int(time.time()))


def _busy(http: bool = True) -> InternalError:
    problem = InternalError("The other processes of this server cannot be reached at the moment; try again")
    if http:
        problem.http = (503, [("Retry-After", "1")])
    return problem
