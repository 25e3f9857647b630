"""Tasks from their making to their end: records are changed here, and bodies are run."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, NamedTuple, Optional

from ...engines.fork import PerProcess
from ...protocol import spec, wire
from ...protocol.errors import InternalError, McpError
from ...server import hooks
from .keeper import QUEUED, Keeper
from .task_records import ENDED, Carrier, Message, TaskRecord, TaskStore, describe, principal_text
from .task_runs import TaskRun, make_call, principal_fields
from .thread_carrier import ThreadCarrier

if TYPE_CHECKING:
    from ...server.context import Context
    from ...server.engine import Engine

log = logging.getLogger("minimcp")

_KEPT_AFTER_S = 3600.0
_LEAST_POLL_MS, _MOST_POLL_MS = 50, 5000
_COUNTED_S = 1.0
# Between two tries to keep the end of a task.
_PAUSES_S = (0.1, 0.5, 2.0, 5.0, 5.0)


class Bounds(NamedTuple):
    """The settings of `Tasks`, under their names there."""

    ttl_s: Optional[float]
    poll_s: Optional[float]
    heartbeat_s: float
    workers: int
    most: int
    most_own: int
    most_kept: int
    most_parked: int


class TaskWork:
    """The engine of `Tasks`."""

    def __init__(self, store: TaskStore, carrier: Carrier | None, bounds: Bounds) -> None:
        self.store = store
        self.heartbeat_s = bounds.heartbeat_s
        self.keeper = PerProcess(lambda: Keeper(self))
        self._bounds = bounds
        self._threads = ThreadCarrier(self.run, self._more, bounds.workers, bounds.most_parked)
        self.carrier: Carrier = carrier or self._threads
        self._engine: Optional[Engine] = None
        self._lock = threading.Lock()  # guards _room
        self._room: dict[str, tuple[float, int]] = {}  # by principal: when it was counted, and how many more fit
        self._warned = False

    @property
    def attached(self) -> bool:
        """Whether these are the tasks of a server."""
        return self._engine is not None

    def attach(self, engine: Engine) -> None:
        """Become the tasks of a server."""
        self._engine = engine

    @property
    def engine(self) -> Engine:
        """The engine of the server that the tasks belong to."""
        if self._engine is None:
            raise RuntimeError("These tasks belong to no server yet: write server.use(tasks)")
        return self._engine

    # Making

    def create(
        self, ctx: Context, arguments: Message, more: Message, function: Callable[[Context], object] | None = None
    ) -> Message:
        """Keep a new task, send its hint, and return its CreateTaskResult. Spec: EXT-020, EXT-022, EXT-053

        :param more: further members of the record's `request`.
        :param function: runs in place of the tool, and in this process alone.
        :raises InternalError: when there are too many tasks, or it cannot be kept.
        """
        try:
            record = self._keep(ctx, arguments, more, function is not None)
        except McpError:
            raise
        except Exception as error:
            log.exception("a task could not be kept")
            raise InternalError(hooks.describe(ctx, "The task could not be kept", error)) from None
        keeper = self.keeper()
        if function is not None:
            keeper.works[record.id] = function
        keeper.start()
        if function is not None:
            self._threads.send(record.id)
        else:
            self.hint(record.id)
        return {"resultType": "task", **self.describe(record)}

    def _keep(self, ctx: Context, arguments: Message, more: Message, here: bool) -> TaskRecord:
        """Keep a new task and return its record.

        :param here: whether this process alone can run it.
        """
        principal, now = principal_text(ctx.principal), time.time()
        self._take_room(principal, ctx.principal is not None)
        if ctx.request is not None and ctx.request.get("wsgi.multiprocess") and not self.store.lasting:
            self._warn()
        name = ctx._entry.definition["name"] if ctx._entry is not None else ctx.params["name"]
        record = TaskRecord(
            id=os.urandom(16).hex(),
            status="queued",
            version=1,
            owner=self.owner if here else "",
            principal=principal,
            created=now,
            updated=now,
            expires=None if self._bounds.ttl_s is None else now + self._bounds.ttl_s,
            request={
                # The name that the tool has in this server: within a mounted one it has its own there.
                "params": {"name": name, "arguments": arguments, "_meta": ctx.meta},
                "principal": principal_fields(ctx.principal),
                "key": None if ctx._strategy is None else ctx.idempotency_key,
                "local": ctx.session is not None and ctx.session.local,
                **more,
            },
            state={"runs": 0, "questions": {}, "answers": {}, "issued": []},
            outcome=None,
        )
        self.store.add(record)
        return record

    def _take_room(self, principal: str, known: bool) -> None:
        """Take one of the places that are left, as they were counted a moment ago."""
        now, bounds = time.monotonic(), self._bounds
        with self._lock:
            counted_at, room = self._room.get(principal, (-math.inf, 0))
        if now - counted_at > (_COUNTED_S if room > 0 else _COUNTED_S / 10):
            own, unfinished, kept = self.store.count(principal, max(bounds.most, bounds.most_kept))
            room = min(bounds.most - unfinished, bounds.most_kept - kept)
            room, counted_at = min(room, bounds.most_own - own) if known else room, now
        with self._lock:
            if len(self._room) > 1000:
                self._room.clear()
            self._room[principal] = counted_at, room - 1
        if room <= 0:
            problem = InternalError("There are too many tasks; try again when some have ended")
            problem.http = (503, [("Retry-After", "10")])
            raise problem

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "Several processes serve, and each keeps tasks in its own memory: a poll that reaches another one "
                'finds no task. Give them a file: server.use(Tasks("tasks.db"))'
            )

    @property
    def runs_queued(self) -> bool:
        """Whether this process runs tasks that others have queued."""
        return self.store.lasting and self.carrier is self._threads and self._threads.limit > 0

    def set_workers(self, workers: int) -> None:
        """Run so many bodies at once in this process.

        :raises RuntimeError: for tasks that a carrier takes elsewhere.
        """
        if self.carrier is not self._threads:
            raise RuntimeError(f"These tasks are carried by {type(self.carrier).__name__}; start its own workers")
        self._threads.limit = workers

    def hint(self, id: str) -> None:
        """Send the hint to run a task; one that does not go out is sent again."""
        try:
            self.carrier.send(id)
        except Exception:
            log.warning("the hint to run task %s could not be sent; it will be sent again", id, exc_info=True)
        if self.carrier is self._threads and not self._threads.limit:
            hooks.notify(self.engine.bus.publish, QUEUED)

    def _more(self, limit: int) -> Sequence[str]:
        """Return ids of queued tasks, whoever has made them."""
        keeper = self.keeper()
        try:
            queued = self.store.queued(limit) if self.runs_queued and not keeper.ends else ()
        except Exception:
            keeper.complain()
            return ()
        return [id for id in queued if id not in keeper.runs]

    def stop_sending(self) -> None:
        """Forget the hints that no thread of this process has taken; their tasks stay queued."""
        self._threads.clear()

    def wait_for_looks(self) -> None:
        """Wait until no thread looks for queued tasks; after the end of the keeper none begins to."""
        self._threads.wait_for_looks()

    # Running

    def run(self, id: str) -> bool:
        """Run the body of a queued task on this thread, unless another worker does; say whether it was run here."""
        keeper = self.keeper()
        run = TaskRun(self, id)
        if keeper.runs.setdefault(id, run) is not run:
            return False
        try:
            keeper.start()
            function = keeper.works.get(id)

            def claimed(record: TaskRecord) -> TaskRecord | None:
                if record.status != "queued" or record.owner != ("" if function is None else keeper.owner):
                    return None
                state = {**record.state, "runs": record.state["runs"] + 1}
                return record._replace(status="working", owner=keeper.owner, state=state)

            record = self.change(id, claimed, tell=False, whole=True)
            if record is not None:
                self._finish(run, record, self._reply(run, record, function))
            return record is not None
        finally:
            keeper.forget(run)

    def _reply(self, run: TaskRun, record: TaskRecord, function: Callable[[Context], object] | None) -> Message | None:
        """Run a body and return the reply of the call that the task stands for, None for one that was cancelled."""
        try:
            call = make_call(self.engine, record, run, function)
        except Exception as error:
            log.exception("task %s could not begin", record.id)
            run.runs = record.state["runs"]
            return wire.error(
                record.id, error if isinstance(error, McpError) else InternalError("The task could not begin")
            )
        run.begin(record, call)
        reply = call.run(run.send)
        run.done = True
        return reply

    def _finish(self, run: TaskRun, record: TaskRecord, reply: Message | None) -> None:
        """Keep the end of a run, with some patience. Spec: EXT-024 to EXT-027"""
        status, outcome, message = _outcome(reply)

        def ended(record: TaskRecord) -> TaskRecord | None:
            return self._ended(record, status, outcome, message) if run.ours(record) is not None else None

        for pause_s in (*_PAUSES_S, None):
            try:
                self.change(run.id, ended, known=record)
                return
            except ValueError as problem:
                log.error("the result of task %s is not JSON: %s", run.id, problem)
                status, message = "failed", "The result cannot be written as JSON"
                outcome = {"error": {"code": spec.INTERNAL_ERROR, "message": message}}
            except Exception:
                # The keeper says later that the task was interrupted.
                log.warning("the end of task %s could not be kept", run.id, exc_info=True)
                if pause_s is not None:
                    threading.Event().wait(pause_s)

    def parked(self) -> AbstractContextManager[None]:
        """Return a context in which a body that waits for an answer takes up none of the threads."""
        return self._threads.parked() if self.carrier is self._threads else nullcontext()

    # Records

    @property
    def owner(self) -> str:
        """The name of this process in the records."""
        return self.keeper().owner

    def change(
        self,
        id: str,
        edit: Callable[[TaskRecord], Optional[TaskRecord]],
        tell: bool = True,
        whole: bool = False,
        known: TaskRecord | None = None,
    ) -> TaskRecord | None:
        """Change a record unless it has ended, and tell who listens; return the new one, or None if nothing changed.

        :param edit: returns the record as it shall be, or None to leave it.
        :param whole: whether that needs its `request`.
        :param known: the record as it may still be, which saves looking.
        """
        while True:
            record, known = known or self.store.get(id, whole), None
            new = edit(record) if record is not None and record.status not in ENDED else None
            if record is None or new is None:
                return None
            new = new._replace(version=record.version + 1, updated=max(time.time(), record.updated))
            if self.store.replace(new):
                if tell:
                    self._tell(new)
                return new

    def _tell(self, record: TaskRecord) -> None:
        keeper, ended = self.keeper(), record.status in ENDED
        run = keeper.runs.get(record.id)
        if run is not None and (ended or record.owner != keeper.owner):
            run.stop()
        elif run is not None:
            run.look()
        elif record.owner not in ("", keeper.owner):
            hooks.notify(self.engine.bus.publish, f"tasks/of/{record.owner}", record.id)
        if ended:
            keeper.works.pop(record.id, None)
        hooks.notify(self.engine.bus.publish, f"tasks/{record.id}", record.status)

    def cancel(self, id: str) -> bool:
        """Cancel a task, and say whether that ended it."""
        return self.change(id, lambda record: self._ended(record, "cancelled", None, None)) is not None

    def fail(self, id: str, reason: str, owner: str | None = None, status: str | None = None) -> None:
        """Have a task fail for a reason, if it still has this owner and this status."""

        def failed(record: TaskRecord) -> TaskRecord | None:
            if owner not in (None, record.owner) or status not in (None, record.status):
                return None
            outcome = {"error": {"code": spec.INTERNAL_ERROR, "message": reason}}
            return self._ended(record, "failed", outcome, reason)

        self.change(id, failed)

    def _ended(self, record: TaskRecord, status: str, outcome: Message | None, message: str | None) -> TaskRecord:
        expires = record.expires
        if expires is not None:
            # The result of one that took nearly all of its time can still be fetched.
            expires = max(expires, time.time() + min(_KEPT_AFTER_S, self._bounds.ttl_s or _KEPT_AFTER_S))
        state = {**record.state, "message": message, "questions": {}}
        return record._replace(status=status, outcome=outcome, state=state, expires=expires)

    def describe(self, record: TaskRecord) -> Message:
        """Return a task as the protocol describes it in full; a client polls less often the older it is."""
        if self._bounds.poll_s is not None:
            return describe(record, round(1000 * self._bounds.poll_s))
        age_ms = round(1000 * (time.time() - record.created))
        return describe(record, min(max(age_ms // 4, _LEAST_POLL_MS), _MOST_POLL_MS))

    def unfinished(self) -> bool:
        """Say whether any task has not ended."""
        return self.store.count("", 1)[1] > 0


def _outcome(reply: Message | None) -> tuple[str, Message | None, str | None]:
    """Return the status, the outcome and the status message that the reply of a call stands for."""
    if reply is None:
        return "cancelled", None, None
    if "error" not in reply and reply["result"].get("resultType", "complete") != "complete":
        log.error("a task ended with the result type %r", reply["result"]["resultType"])
        reply = wire.error(reply["id"], InternalError("The task ended with what is no result"))
    if "error" in reply:
        return "failed", {"error": reply["error"]}, reply["error"]["message"]
    return "completed", {"result": reply["result"]}, None
