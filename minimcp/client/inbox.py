"""Callbacks for requests and notifications of the server, run off the thread that reads them."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Optional

from ..engines.bounds import weight
from ..engines.errors import ClientError
from ..protocol.errors import InternalError

log = logging.getLogger("minimcp")

Message = dict[str, Any]

MOST_QUESTIONS = 16
MOST_NOTICES = 1000
# Of the notices that wait, and again of the questions that are open, beside the newest.
MOST_BYTES = 16 * 1024 * 1024
# Answers that need no callback and are not sent yet.
MOST_BRIEF = 64


class Inbox:
    """Runs `answer` on a thread for each request of the server, and `notice` on one thread for all notifications.

    Notifications keep their order; a flood loses the oldest. A ping, and a question beyond the bounds, is answered on
    one more thread; of a flood of these most get no answer. Threads start when there is something to do and end with
    it.

    :param answer: `f(request, call)` sends the response itself; at most `MOST_QUESTIONS` run at once.
    :param brief: `f(request, error)` answers a ping, for which error is None, or refuses a question.
    :param notice: `f(notification)`.
    :ivar answered: how many questions were answered so far.
    """

    def __init__(
        self,
        answer: Callable[[Message, Any], None],
        brief: Callable[[Message, Optional[InternalError]], None],
        notice: Callable[[Message], None],
    ) -> None:
        self._answer = answer
        self._lock = threading.Lock()  # guards everything below
        self._notices = _Line(self._lock, notice, MOST_NOTICES)
        self._brief = _Line(self._lock, lambda item: brief(*item), MOST_BRIEF)
        self._open = 0
        self._open_bytes = 0
        self.answered = 0

    @property
    def busy(self) -> bool:
        """Whether a request is being answered right now."""
        return self._open > 0

    def put(self, message: Message, call: Any = None) -> None:
        """Take a request or notification of the server; returns at once.

        :param call: the call on whose stream a request came, if that is known; `answer` gets it.
        """
        if "id" not in message:
            self._notices.put(message, weight(message, MOST_BYTES), newest=True)
        elif message["method"] == "ping":
            self._brief.put(({name: message[name] for name in ("id", "method")}, None), 0)
        elif not self._question(message, call):
            self._brief.put(
                ({name: message[name] for name in ("id", "method")}, InternalError("Too many questions at once")), 0
            )

    def clear(self) -> None:
        """Drop what was not handled yet: the connection is closed."""
        self._notices.clear()
        self._brief.clear()

    def _question(self, message: Message, call: Any) -> bool:
        """Answer a question on a thread of its own; False when there are too many."""
        size = weight(message, MOST_BYTES)
        with self._lock:
            if self._open and (self._open >= MOST_QUESTIONS or self._open_bytes + size > MOST_BYTES):
                return False
            self._open += 1
            self._open_bytes += size

        def work() -> None:
            try:
                self._answer(message, call)
            except Exception:
                log.exception("a question of the server could not be answered")
            finally:
                self._answer_done(size)

        if _spawn(work):
            return True
        self._answer_done(size)
        return False

    def _answer_done(self, size: int) -> None:
        with self._lock:
            self._open -= 1
            self._open_bytes -= size
            self.answered += 1


class _Line:
    """Items that wait for one thread, which starts with the first and ends with the last.

    :param lock: guards everything here.
    """

    def __init__(self, lock: threading.Lock, work: Callable[[Any], None], most: int) -> None:
        self._lock = lock
        self._work = work
        self._most = most
        self._items: deque[tuple[Any, int]] = deque()
        self._bytes = 0
        self._running = False

    def put(self, item: Any, size: int, newest: bool = False) -> None:
        """Add an item; where there is no room, drop it, or with `newest` the oldest ones."""
        with self._lock:
            if not newest and len(self._items) >= self._most:
                return
            while self._items and (len(self._items) >= self._most or self._bytes + size > MOST_BYTES):
                self._bytes -= self._items.popleft()[1]
            self._items.append((item, size))
            self._bytes += size
            if self._running:
                return
            self._running = True
        if not _spawn(self._run):
            # The next item tries again.
            with self._lock:
                self._running = False

    def clear(self) -> None:
        with self._lock:
            self._items.clear()
            self._bytes = 0

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._items:
                    self._running = False
                    return
                item, size = self._items.popleft()
                self._bytes -= size
            try:
                self._work(item)
            except ClientError as problem:
                log.debug("a message of the server could not be handled: %s", problem)
            except Exception:
                log.exception("a callback for a message of the server failed")


def _spawn(work: Callable[[], None]) -> bool:
    """Run work on a thread of its own; False when the system has none to give."""
    try:
        threading.Thread(target=work, name="minimcp-inbox", daemon=True).start()
    except RuntimeError as problem:
        log.warning("a message of the server cannot be handled: %s", problem)
        return False
    return True
