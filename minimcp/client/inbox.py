"""Callbacks for requests and notifications of the server, run off the thread that reads them."""

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
    """Runs `answer` on a thread for each request of the server, and `notice` on one thread for all notifications.

    Notifications keep their order; a flood loses the oldest. Threads start when there is something to do and end with
    it.

    :param answer: `f(request, call)` sends the response itself; at most `MOST_QUESTIONS` run at once.
    :param refuse: `f(request, error)` answers a request beyond that.
    :param notice: `f(notification)`.
    :ivar answered: how many requests were answered so far.
    """

    def __init__(
        self,
        answer: Callable[[Message, Any], None],
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
        """Whether a request is being answered right now."""
        return self._open > 0

    def put(self, message: Message, call: Any = None) -> None:
        """Take a request or notification of the server; returns at once.

        :param call: the call on whose stream a request came, if that is known; `answer` gets it.
        """
        if "id" in message:
            self._question(message, call)
            return
        with self._lock:
            self._notices.append(message)
            if self._noticing:
                return
            self._noticing = True
        self._spawn(self._work_notices)

    def clear(self) -> None:
        """Drop the notifications that were not handled yet: the connection is closed."""
        with self._lock:
            self._notices.clear()

    def _question(self, message: Message, call: Any) -> None:
        with self._lock:
            full = self._open >= MOST_QUESTIONS
            self._open += 1
        self._spawn(lambda: self._work_question(message, call, full))

    def _spawn(self, work: Callable[[], None]) -> None:
        threading.Thread(target=work, name="minimcp-inbox", daemon=True).start()

    def _work_question(self, message: Message, call: Any, full: bool) -> None:
        try:
            if full:
                self._refuse(message, InternalError("Too many questions at once"))
            else:
                self._answer(message, call)
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
