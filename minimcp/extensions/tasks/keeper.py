"""The threads of a process: those that run tasks, and one that keeps all tasks going.

That one makes the heartbeats, sends lost hints again, and ends what nobody runs any more.
"""

from __future__ import annotations

import atexit
import logging
import os
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ...engines.fork import PerProcess
from ...protocol.errors import ToolError
from ...server.bus import Subscription
from .task_records import ENDED, TaskRecord
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
# For the bodies that run when the process exits.
_GRACE_S = 3.0


class Keeper:
    """The tasks of one process, and the thread that looks after all tasks as long as there is something to do.

    An owner is dead when its heartbeats stay the same for a while on this process's own monotonic clock, so that no
    clock that is wrong or set anew ends a task.

    When the process exits, the bodies that run get three seconds, and the others are interrupted at once.

    :ivar owner: the name of the process in the records.
    :ivar runs: the tasks whose bodies run here; single operations of a dict, which are atomic.
    :ivar works: the functions that only this process can run, by task; likewise.
    """

    def __init__(self, work: TaskWork) -> None:
        self.owner = f"{socket.gethostname()[:64]}:{os.getpid()}:{os.urandom(8).hex()}"
        self.runs: dict[str, TaskRun] = {}
        self.works: dict[str, Callable[..., Any]] = {}
        self.pid = os.getpid()
        self._work = work
        self._lock = threading.Lock()  # guards _thread
        self._thread: threading.Thread | None = None
        self._news: Subscription | None = None  # the thread waits on it
        self._over = threading.Event()  # set when the thread shall end, once nothing runs here
        self._idle = threading.Condition()  # notified when a run ends
        self._beat_at = self._swept_at = self._complained_at = float("-inf")
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
                self._over.clear()
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
            news = Subscription(engine.bus, [f"tasks/of/{self.owner}"])
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
        self._wind_up(wait_s)
        news, thread = self._news, self._thread
        if news is not None:
            news.close()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_JOIN_S)

    def leave(self, until: float) -> None:
        """Give up what runs here since the process exits, at the latest at a time on the monotonic clock."""
        self._work.stop_sending()
        try:
            self._wind_up(max(0.0, until - time.monotonic()))
        except KeyboardInterrupt:
            self._wind_up(0.0)

    def _wind_up(self, wait_s: float) -> None:
        """Wait for the bodies that run here, but for those that wait for an answer, and interrupt what is left."""
        self._over.set()
        with self._idle:
            self._idle.wait_for(lambda: all(run.waits for run in list(self.runs.values())), wait_s)
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
        try:
            while self.runs or not self._over.is_set():
                self._news = news = news or self._listen()
                try:
                    self._look_after()
                    if self._may_end():
                        return
                except Exception:
                    self.complain()
                if news is None or self._over.is_set():
                    with self._idle:
                        self._idle.wait(self._pause_s())
                elif news.take(self._pause_s()) is None:
                    self._over.set()
                    self._work.stop_sending()
        finally:
            self._hang_up(news)
            with self._lock:
                if self._thread is threading.current_thread():
                    self._thread = None

    def _may_end(self) -> bool:
        """Say whether nothing is left to do, and nothing can come from elsewhere; a new task starts another thread."""
        if self._work.store.lasting or self.runs or self._over.is_set() or self._work.unfinished():
            return False
        with self._lock:
            self._thread = None
        if self._work.unfinished():
            # Whoever made it saw this thread.
            self.start()
        return True

    def _pause_s(self) -> float:
        return min(self._work.heartbeat_s / 4, 1.0)

    def complain(self) -> None:
        """Log the exception that is being handled, once in a while."""
        now = time.monotonic()
        if now - self._complained_at >= _COMPLAIN_S:
            self._complained_at = now
            log.exception("the tasks cannot be looked after at the moment")

    def _look_after(self) -> None:
        self._own()
        now = time.monotonic()
        if now - self._swept_at >= self._pause_s() / 2:
            # Not with each of many news.
            self._swept_at = now
            self._end_abandoned()
            self._expire()
            if not self._over.is_set():
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
            if not self._over.is_set():
                self._work.hint(id)
        else:
            self._work.fail(id, "The task was interrupted: the process that ran it has stopped", owner=owner)

    def _send_again(self) -> None:
        """Send the hints again of tasks that stay queued."""
        carrier, now = self._work.carrier, time.monotonic()
        room = carrier.room()
        queued = self._work.store.queued(min(room, _MOST_AT_ONCE)) if room > 0 else ()
        self._waiting = {id: self._waiting.get(id, now) for id in queued}
        for id, since in list(self._waiting.items()):
            if now - since >= carrier.patience_s:
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


@atexit.register
def _stop_all() -> None:
    """Stop the keepers of a process that exits; a signal ends the wait for what runs."""
    until = time.monotonic() + _GRACE_S
    for keeper in list(_KEEPERS):
        if keeper.pid == os.getpid():
            keeper.leave(until)


class ThreadCarrier:
    """Runs tasks on threads of this process, which begin with a hint and end when there is none.

    :param run: `Tasks.run`.
    :param limit: how many threads may run at once, beside those that wait for an answer; 0 runs none here.
    :param most_parked: how many may wait for an answer.
    """

    patience_s = 0.0

    def __init__(self, run: Callable[[str], None], limit: int, most_parked: int) -> None:
        self._run = run
        self._limit = limit
        self._most_parked = most_parked
        self._threads = PerProcess(_Threads)

    def send(self, id: str) -> None:
        """Run a task soon."""
        threads = self._threads()
        with threads.lock:
            if self._limit and id not in threads.known:
                threads.known.add(id)
                threads.ids.append(id)
                self._start(threads)

    def room(self) -> int:
        """Return how many threads have nothing to do."""
        threads = self._threads()
        with threads.lock:
            return max(0, self._limit - threads.active - len(threads.ids))

    def clear(self) -> None:
        """Forget the hints that no thread has taken; their tasks stay queued."""
        threads = self._threads()
        with threads.lock:
            threads.ids.clear()
            threads.known.clear()

    @contextmanager
    def parked(self) -> Iterator[None]:
        """Let another thread take this one's place while it waits for an answer.

        :raises ToolError: when too many wait already.
        """
        threads = self._threads()
        with threads.lock:
            if threads.parked >= self._most_parked:
                raise ToolError("Too many tasks wait for an answer; try again later")
            threads.parked += 1
            threads.active -= 1
            self._start(threads)
        try:
            yield
        finally:
            with threads.lock:
                threads.parked -= 1
                threads.active += 1

    def _start(self, threads: _Threads) -> None:
        """Start a thread if there is work for it; the lock is held."""
        if threads.ids and threads.active < self._limit:
            try:
                threading.Thread(target=self._work, args=(threads,), name="minimcp-task", daemon=True).start()
                threads.active += 1
            except RuntimeError:
                # The system has no thread to give; the hint waits for one that runs, or is sent again.
                log.warning("no thread could be started for a task")

    def _work(self, threads: _Threads) -> None:
        while True:
            with threads.lock:
                if not threads.ids or threads.active > self._limit:
                    threads.active -= 1
                    return
                id = threads.ids.popleft()
                threads.known.discard(id)
            try:
                self._run(id)
            except BaseException:
                log.exception("task %s could not be run", id)


class _Threads:
    """The threads of one process and what they have to do."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # guards all of the rest
        self.ids: deque[str] = deque()
        self.known: set[str] = set()  # the same as `ids`
        self.active = 0
        self.parked = 0
