"""The connections of one process to Redis: one that listens, on a thread of its own, and those that send."""

from __future__ import annotations

import itertools
import json
import logging
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any, Optional, TypeVar

from ..protocol import wire
from .bus import BusDown
from .hooks import notify
from .redis_client import MISSED, LinkSettings, Unsent, connect, errors, is_disconnection

log = logging.getLogger("minimcp")

T = TypeVar("T")

_CONNECTIONS = 16
_TICK_S = 1.0
# The ticks of silence after which the connections are tried, and after which they are made anew.
_TRY_TICKS = 5
_LOST_TICKS = 15
_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0
_COMPLAIN_S = 60.0


class RedisLink:
    """A process that listens to topics over Redis and publishes to the others.

    Its thread begins with the first use and connects again, for as long as it takes, when the connection is lost.
    Messages that cannot be sent meanwhile are kept, those alike as one; too many of them become one about all topics.

    :param topics: returns the topics to listen to: the same object as long as they stay the same.
    :param hear: called with the topic and the data of each message of another process.
    :param missed: called after messages may have been missed.
    :ivar node: the name of the process.
    """

    def __init__(
        self,
        settings: LinkSettings,
        topics: Callable[[], frozenset[str]],
        hear: Callable[[str, Any], None],
        missed: Callable[[], None],
    ) -> None:
        self.node = os.urandom(6).hex()
        self._settings = settings
        self._topics = topics
        self._hear = hear
        self._on_missed = missed
        self._numbers = itertools.count(1)
        self._unsent = Unsent(settings.most_bytes, self.encode({"from": self.node, "data": None}))
        self._stop = threading.Event()
        self._changed = threading.Condition()  # guards everything below
        self._thread: Optional[threading.Thread] = None
        self._sender: Any = None
        self._up = self._tried = self._suspect = self._missed = False
        self._confirmed: set[str] = set()  # the channels that are listened to, and shall be
        self._acks: dict[int, int] = {}  # how many processes have got a message, while somebody waits for that
        self._complained: dict[str, float] = {}  # used by the thread alone
        self._unanswered: Counter[str] = Counter()  # likewise: what was asked of Redis about a channel

    @property
    def up(self) -> bool:
        """Whether it is connected and listens."""
        return self._up

    def start(self) -> None:
        """Start the thread, unless it runs."""
        if self._thread is not None or self._stop.is_set():
            return
        with self._changed:
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="minimcp-redis", daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    log.warning("no thread could be started to listen to Redis")
                    return
                self._thread = thread

    def close(self) -> None:
        """End the thread and the connections for good; calling it twice is fine."""
        self._stop.set()
        self._wake()
        with self._changed:
            thread, sender, self._up = self._thread, self._sender, False
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_TICK_S + 2 * self._settings.timeout_s)
        if sender is not None:
            notify(sender.connection_pool.disconnect)

    def listen(self, topics: Collection[str], news: bool) -> None:
        """Wait until some topics are listened to, unless Redis is gone.

        :param news: whether nobody listened to one of them until now.
        """
        self.start()
        if news:
            self._wake()
        wanted = {self._channel(topic) for topic in topics}

        def settled() -> bool:
            # Until it is up the first time, also where a topic is confirmed before the channels of every process.
            return self._stop.is_set() or (wanted <= self._confirmed if self._up else self._tried)

        with self._changed:
            if threading.current_thread() is not self._thread:
                self._changed.wait_for(settled, self._settings.timeout_s)
            # What comes before they are listened to would be missed.
            self._missed = self._missed or not (self._up and wanted <= self._confirmed)

    def publish(self, topic: str, data: bytes) -> None:
        """Send encoded data to the other processes, now or when Redis is back."""
        raw = b'{"from":"%b","data":%b}' % (self.node.encode(), data)
        if self._stop.is_set():
            return
        if self._up or self._thread is None:
            try:
                self._sending().publish(self._channel(topic), raw)
                return
            except errors() as problem:
                self._failed(problem)
        self._unsent.add(topic, raw)
        self.start()

    def send(self, topic: str, data: Any, node: str, wait_s: float) -> int:
        """Send a message to the others or to one, and return how many have got it, once they did or the time is over.

        :raises BusDown: when it cannot be sent.
        """
        if node == self.node:
            return 0
        message = {"from": self.node, "topic": topic, "data": data}
        number = next(self._numbers)
        if wait_s > 0 and threading.current_thread() is not self._thread:
            message["number"] = number
            with self._changed:
                self._acks[number] = 0
        try:
            raw = self.encode(message)
            channel = self._own(node) if node else self._channel(topic)
            count: int = self.run(lambda redis: redis.publish(channel, raw))
            with self._changed:
                if channel in self._confirmed:
                    count -= 1  # this process
                if number in self._acks:
                    self._changed.wait_for(lambda: self._acks[number] >= count or not self._up, wait_s)
            return max(0, count)
        finally:
            with self._changed:
                self._acks.pop(number, None)

    def run(self, work: Callable[[Any], T]) -> T:
        """Return what a function does with a client of Redis.

        :raises BusDown: when Redis is gone, or refuses that.
        """
        self.start()
        with self._changed:
            self._changed.wait_for(lambda: self._tried or self._up or self._stop.is_set(), self._settings.timeout_s)
            if not self._up:
                raise BusDown("Redis cannot be reached at the moment")
        try:
            return work(self._sending())
        except errors() as problem:
            self._failed(problem)
            raise BusDown(f"Redis has failed: {type(problem).__name__}") from problem

    def encode(self, message: Any) -> bytes:
        """Encode a message.

        :raises ValueError: when it is not JSON, or too large.
        """
        raw = wire.dumps(message)
        if len(raw) > self._settings.most_bytes:
            raise ValueError(f"A message between processes has at most {self._settings.most_bytes} bytes")
        return raw

    def _channel(self, topic: str) -> str:
        return f"{self._settings.prefix}:{topic}"

    def _own(self, node: str) -> str:
        return f"{self._settings.prefix}:@{node}"

    def _sending(self) -> Any:
        with self._changed:
            if self._sender is None:
                self._sender = connect(self._settings, 1, _CONNECTIONS)
            return self._sender

    def _failed(self, problem: Exception) -> None:
        """Take note of a failure; where the connection itself failed, everything waits for a new one."""
        if is_disconnection(problem):
            with self._changed:
                self._up, self._suspect = False, True
                self._changed.notify_all()

    def _wake(self) -> None:
        """Make the thread look for new topics."""
        if self._up:
            try:
                self._sending().publish(self._own(self.node), b"")
            except errors() as problem:
                self._failed(problem)

    # The thread

    def _work(self) -> None:
        listening, pause_s = None, _PAUSE_S
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                listening = listening or connect(self._settings, 0, 1)
                with listening.pubsub() as pubsub:
                    self._follow(pubsub)
            except Exception as problem:
                with self._changed:
                    was_up = self._up
                    self._up, self._tried, self._missed = False, True, True
                    self._confirmed = set()
                    self._changed.notify_all()
                if not self._stop.is_set():
                    self._complain("Redis cannot be reached", problem)
                if was_up or time.monotonic() - began > _LONGEST_PAUSE_S:
                    pause_s = _PAUSE_S
                self._stop.wait(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        if listening is not None:
            notify(listening.connection_pool.disconnect)

    def _follow(self, pubsub: Any) -> None:
        """Listen until the connection is lost or the link is closed."""
        self._unanswered.clear()
        with self._changed:
            self._suspect = False
        topics, first = self._ask(pubsub, set())
        asked, silent, ready = first, 0, False
        while not self._stop.is_set():
            message = pubsub.get_message(timeout=_TICK_S)
            if self._suspect:
                raise ConnectionError("a message could not be sent")
            silent = 0 if message is not None else silent + 1
            if silent >= _LOST_TICKS:
                raise ConnectionError("nothing comes any more")
            if silent % _TRY_TICKS == _TRY_TICKS - 1:
                self._sending().publish(self._own(self.node), b"")
            if message is not None:
                self._take(message)
            if not ready and first & asked <= self._confirmed:
                ready = True
                self._became_ready()
            if topics is not self._topics():
                topics, asked = self._ask(pubsub, asked)
            if ready and self._unsent:
                self._unsent.send(lambda topic, raw: self._sending().publish(self._channel(topic), raw))

    def _ask(self, pubsub: Any, asked: set[str]) -> tuple[frozenset[str], set[str]]:
        """Ask Redis for the topics that are wanted now, and return them and all channels that it was asked for."""
        with self._changed:
            # Whoever wants one again after this look finds that it is not listened to.
            topics = self._topics()
            wanted = {self._own(self.node), self._channel(MISSED), *map(self._channel, topics)}
            self._confirmed &= wanted
        for ask, channels in ((pubsub.subscribe, wanted - asked), (pubsub.unsubscribe, asked - wanted)):
            if channels:
                self._unanswered.update(channels)
                ask(*channels)
        return topics, wanted

    def _became_ready(self) -> None:
        with self._changed:
            self._up = self._tried = True
            missed, self._missed = self._missed, False
            self._changed.notify_all()
        self._complained.clear()
        if missed:
            log.info("Redis is reached again")
            notify(self._on_missed)

    def _take(self, message: dict[str, Any]) -> None:
        kind, channel = message["type"], message["channel"].decode("utf-8", "replace")
        if kind in ("subscribe", "unsubscribe"):
            self._unanswered[channel] -= 1
            if self._unanswered[channel] <= 0:
                # Of several questions the last one counts.
                del self._unanswered[channel]
                if kind == "subscribe":
                    with self._changed:
                        self._confirmed.add(channel)
                        self._changed.notify_all()
            return
        raw = message["data"]
        if kind != "message" or not raw:
            return
        try:
            if len(raw) > self._settings.most_bytes:
                raise ValueError("it is too large")
            found = json.loads(raw)
            if not isinstance(found, dict):
                raise ValueError("it is no object")
        except (ValueError, RecursionError) as problem:
            self._complain("a message came through Redis that is none of a bus", problem)
            return
        self._deliver(channel, found)

    def _deliver(self, channel: str, message: dict[str, Any]) -> None:
        acknowledged, sender, number = message.get("got"), message.get("from"), message.get("number")
        if isinstance(acknowledged, int):
            with self._changed:
                if acknowledged in self._acks:
                    self._acks[acknowledged] += 1
                    self._changed.notify_all()
            return
        if sender == self.node:
            return
        topic = message.get("topic") if channel == self._own(self.node) else channel[len(self._settings.prefix) + 1 :]
        if topic == MISSED:
            notify(self._on_missed)
        elif isinstance(topic, str):
            self._hear(topic, message.get("data"))
        if isinstance(number, int) and isinstance(sender, str):
            self._sending().publish(self._own(sender), self.encode({"got": number}))

    def _complain(self, text: str, problem: Exception) -> None:
        now = time.monotonic()
        if now - self._complained.get(text, -_COMPLAIN_S) >= _COMPLAIN_S:
            self._complained[text] = now
            log.warning("%s: %s: %.200s", text, type(problem).__name__, problem)
