"""What a server sends of its own accord, taken off the reader thread: legacy questions, and notices of both eras."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from ..protocol.errors import InternalError

log = logging.getLogger("minimcp")

Message = dict[str, Any]

MOST_QUESTIONS = 16
MOST_NOTICES = 1000


class Inbox:
    """Runs `answer` on a thread for each request of the server, and `notice` on one thread for all notifications, in
    order. Threads start when there is something to do and end with it. A flood of notices loses the oldest.

    :param answer: `f(request)` sends the response itself; at most `MOST_QUESTIONS` run at once.
    :param refuse: `f(request, error)` answers a request beyond that.
    :param notice: `f(notification)`.
    """

    def __init__(
        self,
        answer: Callable[[Message], None],
        refuse: Callable[[Message, InternalError], None],
        notice: Callable[[Message], None],
    ) -> None:
        self._answer = answer
        self._refuse = refuse
        self._notice = notice
        self._lock = threading.Lock()  # guards everything below
        self._notices: deque[Message] = deque(maxlen=MOST_NOTICES)
        self._noticing = False
        self._open = 0
        self.answered = 0

    @property
    def busy(self) -> bool:
        """Whether a question is being answered right now."""
        return self._open > 0

    def put(self, message: Message) -> None:
        """Take a request or notification of the server; returns at once."""
        if "id" in message:
            self._question(message)
            return
        with self._lock:
            self._notices.append(message)
            if self._noticing:
                return
            self._noticing = True
        self._spawn(self._work_notices)

    def clear(self) -> None:
        """Drop the notifications that nobody looked at yet: the connection is closed."""
        with self._lock:
            self._notices.clear()

    def _question(self, message: Message) -> None:
        with self._lock:
            full = self._open >= MOST_QUESTIONS
            self._open += 1
        run = self._refuse_question if full else self._work_question
        self._spawn(lambda: run(message))

    def _spawn(self, work: Callable[[], None]) -> None:
        threading.Thread(target=work, name="minimcp-inbox", daemon=True).start()

    def _refuse_question(self, message: Message) -> None:
        try:
            self._refuse(message, InternalError("Too many questions at once"))
        finally:
            self._answer_done()

    def _work_question(self, message: Message) -> None:
        try:
            self._answer(message)
        except Exception:
            log.exception("a question of the server could not be answered")
        finally:
            self._answer_done()

    def _answer_done(self) -> None:
        with self._lock:
            self._open -= 1
            self.answered += 1

    def _work_notices(self) -> None:
        while True:
            with self._lock:
                if not self._notices:
                    self._noticing = False
                    return
                message = self._notices.popleft()
            try:
                self._notice(message)
            except Exception:
                log.exception("a callback for %s failed", message.get("method"))
