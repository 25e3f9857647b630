"""The thread that keeps all tasks going: it makes heartbeats, sends lost hints, and ends what nobody runs any more."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...server.bus import Subscription
from .task_records import ENDED, TaskRecord, UnusableStore
from .task_runs import TaskRun

if TYPE_CHECKING:
    from .task_work import TaskWork

log = logging.getLogger("minimcp")

# A body that was interrupted so often is the likely cause of it.
MOST_RUNS = 3
# Of the time between two heartbeats, after which an owner that has made none is taken for dead.
_SILENCE = 1.25
_MOST_AT_ONCE = 500
_COMPLAIN_S = 60.0
_JOIN_S = 5.0
# For bodies that were given up to notice that.
_NOTICE_S = 0.5
# For the bodies that run when the process exits.
_GRACE_S = 3.0
# Between two looks for tasks that other processes have queued, while there is a thread for them.
_LOOK_S = 0.2
# The topic on which processes that run no tasks say that one is queued.
QUEUED = "tasks/queued"


class Keeper:
    """The tasks of one process, and the thread that looks after all tasks as long as there is something to do.

    An owner is dead when its heartbeats stay the same for a while on this process's own monotonic clock, so that no
    clock that is wrong or set anew ends a task.

    When the process exits, the bodies that run get three seconds, and the others are interrupted at once.

    :ivar owner: the name of the process in the records.
    :ivar runs: the tasks whose bodies run here; single operations of a dict, which are atomic.
    :ivar ends: whether no further task shall begin here, and the thread end once none runs; the newest value counts.
    :ivar works: the functions that only this process can run, by task; likewise.
    """

    def __init__(self, work: TaskWork) -> None:
        self.owner = f"{socket.gethostname()[:64]}:{os.getpid()}:{os.urandom(8).hex()}"
        self.runs: dict[str, TaskRun] = {}
        self.works: dict[str, Callable[..., Any]] = {}
        self.pid = os.getpid()
        self.ends = False
        self._work = work
        self._lock = threading.Lock()  # guards _thread
        self._thread: threading.Thread | None = None
        self._news: Subscription | None = None  # the thread waits on it
        self._idle = threading.Condition()  # notified when a run ends, and when the thread shall
        self._beat_at = self._owned_at = self._swept_at = self._complained_at = float("-inf")
        self._seen: dict[str, tuple[int, float]] = {}  # used by the thread alone
        self._suspects: set[str] = set()  # likewise
        self._orphans: set[str] = set()  # likewise
        self._waiting: dict[str, float] = {}  # likewise

    def start(self) -> None:
        """Start the thread, if it does not run."""
        if self._thread is not None:
            return
        news = self._listen()
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._keep, args=(news,), name="minimcp-tasks", daemon=True)
                self.ends = False
                try:
                    thread.start()
                    self._thread, news = thread, None
                    _KEEPERS.add(self)
                except RuntimeError:
                    log.warning("no thread could be started to look after the tasks")
        self._hang_up(news)

    def _listen(self) -> Subscription | None:
        """Subscribe to news of the tasks that run here; without a bus the thread looks by itself."""
        engine = self._work.engine
        try:
            topics = [f"tasks/of/{self.owner}"] + ([QUEUED] if self._work.runs_queued else [])
            news = Subscription(engine.bus, topics)
        except Exception:
            self.complain()
            return None
        # So that the end of the server is the end of the thread too, once its tasks have ended.
        engine.add_stream(news)
        return news

    def _hang_up(self, news: Subscription | None) -> None:
        if news is not None:
            self._work.engine.remove_stream(news)
            news.close()

    def stop(self, wait_s: float) -> None:
        """Wait for the bodies that run here, then give them up, and have the thread end."""
        self.begin_no_more()
        self._wait(wait_s)
        self.give_up()
        _KEEPERS.discard(self)
        news, thread = self._news, self._thread
        if news is not None:
            news.close()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_NOTICE_S if self.runs else _JOIN_S)

    def begin_no_more(self) -> None:
        """Leave what is queued to other processes, and go on with what runs."""
        self.ends = True
        # After that, since a thread that looks for more asks first whether it may.
        self._work.stop_sending()

    def leave(self, until: float) -> None:
        """Begin nothing more, and wait for the bodies that run here until a time on the monotonic clock."""
        self.begin_no_more()
        self._wait(max(0.0, until - time.monotonic()))

    def _wait(self, wait_s: float) -> None:
        """Wait for the bodies that run here, but for those that wait for an answer."""
        with self._idle:
            self._idle.notify_all()
            self._idle.wait_for(lambda: all(run.waits for run in list(self.runs.values())), wait_s)

    def give_up(self) -> None:
        """Interrupt the bodies that run here."""
        self.ends = True
        for id in [*(run.id for run in list(self.runs.values()) if run.runs), *self.works]:
            try:
                self._interrupted(id, self.owner)
            except Exception:
                # Others will find that its heartbeat has stopped.
                log.warning("the end of task %s could not be kept", id, exc_info=True)

    def ended(self, wait_s: float) -> bool:
        """Wait until no body runs here, and say whether it came to that."""
        with self._idle:
            return self._idle.wait_for(lambda: not self.runs, wait_s)

    def note_wait(self) -> None:
        """Take note that a body begins to wait for an answer."""
        with self._idle:
            self._idle.notify_all()

    def forget(self, run: TaskRun) -> None:
        """Forget a run that has ended."""
        with self._idle:
            self.runs.pop(run.id, None)
            self.works.pop(run.id, None)
            self._idle.notify_all()

    def _keep(self, news: Subscription | None) -> None:
        told = True
        try:
            while self.runs or not self.ends:
                self._news = news = news or self._listen()
                if self._look(told):
                    return
                pause_s = min(self._pause_s(), _LOOK_S) if self._looks() else self._pause_s()
                if news is None or self.ends:
                    with self._idle:
                        told = bool(self.runs or not self.ends) and self._idle.wait(pause_s)
                    continue
                found = news.take(pause_s)
                if found is None:
                    self.begin_no_more()
                told = any(topic != QUEUED for topic, _ in found or ())
        finally:
            self._hang_up(news)
            with self._lock:
                if self._thread is threading.current_thread():
                    self._thread = None

    def _look(self, told: bool) -> bool:
        """Look after all tasks, and say whether nothing is left to do here.

        :param told: whether there is news of tasks that run here.
        """
        try:
            self._look_after(told)
            return self._may_end()
        except Exception:
            # While the store cannot be reached, nobody is silent.
            self._seen.clear()
            self.complain()
            return False

    def _may_end(self) -> bool:
        """Say whether nothing is left to do, and nothing can come from elsewhere; a new task starts another thread."""
        if self._work.store.lasting or self.runs or self.ends or self._work.unfinished():
            return False
        with self._lock:
            self._thread = None
        if self._work.unfinished():
            # Whoever made it saw this thread.
            self.start()
        return True

    def _pause_s(self) -> float:
        return min(self._work.heartbeat_s / 4, 1.0)

    def _looks(self) -> bool:
        """Say whether this process waits for tasks that others queue."""
        work = self._work
        return work.runs_queued and not self.ends and work.carrier.room(1) > 0

    def complain(self) -> None:
        """Log the exception that is being handled, once in a while."""
        now = time.monotonic()
        if now - self._complained_at >= _COMPLAIN_S:
            self._complained_at = now
            problem = sys.exc_info()[1]
            told = not isinstance(problem, UnusableStore)
            log.error("the tasks cannot be looked after at the moment: %s", problem, exc_info=told)

    def _look_after(self, told: bool) -> None:
        now = time.monotonic()
        if not told and now - self._owned_at < 0.9 * self._pause_s():
            if self._looks():
                self._send_again()
            return
        self._owned_at = now
        self._own()
        if now - self._swept_at >= self._pause_s() / 2:
            # Not with each of many news.
            self._swept_at = now
            self._end_abandoned()
            self._expire()
            if not self.ends:
                self._send_again()

    def _own(self) -> None:
        """Make a heartbeat, and bring the bodies that run here up to date with their records."""
        work, now = self._work, time.monotonic()
        for run in list(self.runs.values()):
            if run.until is not None and now >= run.until:
                work.fail(run.id, "The task did not end within its time")
            run.tell()
        running, works = [run for run in self.runs.values() if run.runs], list(self.works)
        owned = work.store.owned(self.owner)
        if owned and now - self._beat_at >= work.heartbeat_s / 2:
            self._beat_at = now
            work.store.beat(self.owner)
        for run in running:
            if run.id in owned:
                run.look()
            else:
                run.stop()
        for id in works:
            if id not in owned:
                self.works.pop(id, None)
        # Twice in a row, since a run may have begun or ended since the question.
        lost = owned.keys() - self.runs.keys() - self.works.keys()
        for id in lost & self._orphans:
            self._interrupted(id, self.owner)
        self._orphans = lost

    def _end_abandoned(self) -> None:
        """End the tasks of owners whose heartbeat has stopped, or queue them anew."""
        store, now = self._work.store, time.monotonic()
        owners = store.owners()
        owners.pop(self.owner, None)
        self._seen = {owner: seen for owner, seen in self._seen.items() if owner in owners}
        suspects = set()
        for owner, beats in owners.items():
            if self._seen.get(owner, (-1, 0.0))[0] != beats:
                self._seen[owner] = beats, now
            elif now - self._seen[owner][1] >= _SILENCE * self._work.heartbeat_s:
                suspects.add(owner)
        # One that could not write, since the store was locked, gets another look after this process could.
        for owner in suspects & self._suspects:
            log.warning("the process %s has stopped in the middle of tasks", owner)
            for id in store.owned(owner):
                self._interrupted(id, owner)
        if suspects:
            store.beat(self.owner)
        self._suspects = suspects

    def _interrupted(self, id: str, owner: str) -> None:
        """End a task that nobody runs any more; one that may run again is queued."""

        def again(record: TaskRecord) -> TaskRecord | None:
            if record.owner != owner or not record.request.get("idempotent") or record.state["runs"] >= MOST_RUNS:
                return None
            state = {**record.state, "questions": {}, "message": "The task was interrupted, and begins anew"}
            return record._replace(status="queued", owner="", state=state)

        if self._work.change(id, again, whole=True) is not None:
            if not self.ends:
                self._work.hint(id)
        else:
            self._work.fail(id, "The task was interrupted: the process that ran it has stopped", owner=owner)

    def _send_again(self) -> None:
        """Send the hints again of tasks that stay queued."""
        carrier, now = self._work.carrier, time.monotonic()
        queued = self._work.store.queued(_MOST_AT_ONCE)
        self._waiting = {id: self._waiting.get(id, now) for id in queued}
        due = [id for id, since in self._waiting.items() if now - since >= carrier.patience_s]
        for id in due[: carrier.room(len(queued))] if due else ():
            self._waiting[id] = now
            self._work.hint(id)

    def _expire(self) -> None:
        """Forget what has ended and whose time is over; what is still queued fails."""
        store = self._work.store
        for id in store.expired(time.time(), _MOST_AT_ONCE):
            record = store.get(id)
            if record is not None and record.status in ENDED:
                store.remove(id)
            else:
                self._work.fail(id, "The task did not begin within its time", status="queued")


# Those of this process that have begun, and maybe of its parent.
_KEEPERS: weakref.WeakSet[Keeper] = weakref.WeakSet()


def _of_this_process() -> list[Keeper]:
    return [keeper for keeper in list(_KEEPERS) if keeper.pid == os.getpid()]


def _give_up_all() -> None:
    """Interrupt what runs when the process exits."""
    for keeper in _of_this_process():
        keeper.give_up()


def _wait_for_all() -> None:
    """Wait a while for what runs when the process exits; a signal ends the wait."""
    until = time.monotonic() + _GRACE_S
    with contextlib.suppress(KeyboardInterrupt, SystemExit):
        for keeper in _of_this_process():
            keeper.leave(until)


# The last one is called first. Wherever a signal ends a call, the next one is made.
for _function in (_give_up_all, _give_up_all, _wait_for_all):
    atexit.register(_function)
