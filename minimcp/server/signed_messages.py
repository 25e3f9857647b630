"""Messages between the processes of a server, signed: who may write to their bus can pretend nothing to them."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Optional

from ..protocol import wire
from .bus import BusDown, SharedBus
from .seal import Sealer

log = logging.getLogger("minimcp")

Message = dict[str, Any]

_TOPIC = "sessions"
_MEMBERS = ("key", "text", "signature")


class SignedMessages:
    """The messages of processes with a common secret about sessions, by the keys of these.

    :param hear: `f(key, message)` takes a message, without blocking, and says whether the session is known here; None
        asks for that alone.
    :param missed: called when messages may have been missed.
    """

    def __init__(
        self,
        bus: SharedBus,
        sealer: Sealer,
        hear: Callable[[str, Optional[Message]], bool],
        missed: Callable[[], None],
    ) -> None:
        self._bus = bus
        self._sealer = sealer
        self._hear = hear
        self._missed = missed
        self._lock = threading.Lock()  # guards everything below
        self._listening = False
        self._asked: dict[str, Future[Optional[Message]]] = {}

    def start(self) -> None:
        """Begin to listen in this process, unless it does."""
        with self._lock:
            first, self._listening = not self._listening, True
        if first:
            self._bus.subscribe([_TOPIC], self._receive)
        self._bus.start()

    def tell(self, key: str, op: str, body: Message, node: str = "", wait_s: float = 0.0) -> int:
        """Send a message to all other processes, or to one, and return how many have got it.

        :param wait_s: how long to wait until they have taken it.
        :raises BusDown: when it cannot be sent.
        :raises ValueError: when it is too large.
        """
        self.start()
        return self._bus.send(_TOPIC, {**self._signed(key, op, body), "direct": bool(node)}, node, wait_s)

    def publish(self, key: str, op: str, body: Message) -> None:
        """Send a message to all other processes, now or when the bus is back."""
        self.start()
        self._bus.publish(_TOPIC, self._signed(key, op, body))

    def ask(self, key: str, op: str, body: Message, node: str, timeout_s: float) -> Optional[Message]:
        """Send a message to a process and return its reply; None when it has none, or is gone.

        :raises BusDown: when it cannot be sent.
        :raises ValueError: when it is too large.
        """
        number, reply = os.urandom(8).hex(), Future[Optional[Message]]()
        with self._lock:
            self._asked[number] = reply
        try:
            if not self.tell(key, op, {**body, "number": number}, node):
                return None
            return reply.result(timeout_s)
        except FutureTimeout:
            return None
        finally:
            with self._lock:
                self._asked.pop(number, None)

    def reply(self, key: str, message: Message, body: Optional[Message]) -> None:
        """Reply to a message of `ask`, from any thread."""
        try:
            self.tell(key, "reply", {"number": message.get("number"), "body": body}, message["from"])
        except (BusDown, ValueError) as problem:
            log.warning("a reply to another process is lost: %s", problem)

    def _signed(self, key: str, op: str, body: Message) -> Message:
        text = wire.dumps({**body, "op": op, "from": self._bus.node}).decode("utf-8")
        return {"key": key, "text": text, "signature": self._sealer.sign(_TOPIC, key + text)}

    def _receive(self, topic: str, data: Any) -> None:
        if data is None:
            self._missed()
            return
        key, text, signature = (data.get(name) if isinstance(data, dict) else None for name in _MEMBERS)
        if not isinstance(key, str) or not isinstance(text, str):
            return
        known = self._hear(key, None)
        if not known and not data.get("direct"):
            return  # It is for those that have the session.
        if not self._sealer.verify(_TOPIC, key + text, signature):
            if known:
                log.warning("a message about a session came that no process of this server has signed")
            return
        message = json.loads(text)
        if message["op"] == "reply":
            with self._lock:
                reply = self._asked.pop(message["number"], None)
            if reply is not None:
                reply.set_result(message["body"])
        elif not self._hear(key, message) and "number" in message:
            self.reply(key, message, None)
