"""`Tasks`: the tasks of a server, as its application and its tools use them."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Optional, Union

from ...protocol import spec
from ...protocol.principal import Authenticated, as_principal
from ...server.bus import Subscription
from ...server.redis_client import SCHEMES
from .redis_store import RedisStore
from .sqlite_store import MEMORY, SqliteStore
from .task_methods import TaskMethods, check_declared
from .task_records import ENDED, UNFINISHED, Carrier, Message, TaskStore, principal_text
from .task_runs import TaskRun, call_function, refer
from .task_work import Bounds, TaskWork

if TYPE_CHECKING:
    from ...server.context import Context
    from ...server.registration import Registration

_LARGEST = 2**53


class Tasks:
    """The tasks extension: `server.use(Tasks("tasks.db"))`, then `@server.tool(task=True)` or `return ctx.task(...)`.

    :param store: the file that keeps the tasks, the URL of a Redis, or a `TaskStore`; by default memory, which ends
        with the process.
    :param carrier: carries the hints to workers; by default threads of this process.
    :param workers: how many bodies run at once here, beside those that wait for an answer; 0 leaves them to others.
    :param ttl_s: the time after which a task is forgotten, or fails if it has not ended; None for never.
    :param poll_s: the seconds that clients are asked to wait between two polls; by default more the older a task is.
    :param heartbeat_s: a process that has stopped is noticed within two of these; the same for all that share a store.
    :param most: how many tasks may be unfinished, `most_own` of them of one principal, and `most_kept` kept in all.
    :param most_parked: how many may wait for an answer in one process.
    """

    identifier = spec.TASKS
    settings: Message = {}
    result_types = ("task",)

    def __init__(
        self,
        store: Union[str, os.PathLike[str], TaskStore] = MEMORY,
        *,
        carrier: Carrier | None = None,
        workers: int = 16,
        ttl_s: float | None = 86_400.0,
        poll_s: float | None = None,
        heartbeat_s: float = 5.0,
        most: int = 10_000,
        most_own: int = 1_000,
        most_kept: int = 100_000,
        most_parked: int = 200,
    ) -> None:
        for name, value in (("ttl_s", ttl_s), ("poll_s", poll_s), ("heartbeat_s", heartbeat_s)):
            if value is not None and not (math.isfinite(value) and 1 <= value * 1000 <= _LARGEST):
                raise ValueError(f"{name}= is a number of seconds, of at least 0.001, unlike {value!r}")
        if isinstance(store, str) and store.startswith(SCHEMES):
            store = RedisStore(store)
        self.store: TaskStore = SqliteStore(store) if isinstance(store, (str, os.PathLike)) else store
        self._workers = workers
        bounds = Bounds(ttl_s, poll_s, heartbeat_s, workers, most, most_own, most_kept, most_parked)
        self._work = work = TaskWork(self.store, carrier, bounds)
        answers = TaskMethods(work)
        self.accept, self.notification = answers.accept, answers.notification
        self.methods = {"tasks/get": answers.get, "tasks/update": answers.update, "tasks/cancel": answers.cancel}

    def setup(self, server: Registration) -> None:
        """Become the tasks of a server, in place of those that it had before it served.

        :raises RuntimeError: when these are another server's, or that one's are in use.
        """
        engine = server.engine
        if self._work.attached or (engine.tasks is not None and engine.serving):
            raise RuntimeError("Each server has its own Tasks, from before it serves")
        attach = getattr(self._work.carrier, "attach", None)
        if attach is not None:
            attach(engine.identity["name"], self)
        self._work.attach(engine)
        engine.tasks = self
        rows = engine.methods["modern"]
        for method in self.methods:
            # They emit nothing, so that they are answered on the thread that takes them.
            rows[method] = rows[method]._replace(interactive=False)

    def get(self, id: str) -> Message | None:
        """Return a task, as `tasks/get` shows it, or None."""
        record = self.store.get(id)
        return None if record is None else self._work.describe(record)

    def list(
        self, principal: Authenticated = None, status: Optional[str] = None, limit: int = 100
    ) -> Sequence[Message]:
        """Return the newest tasks, the newest first.

        :param principal: whose they are; None for everybody's.
        :param status: "working", "input_required", "completed", "failed" or "cancelled"; None for any.
        """
        statuses = (*UNFINISHED, *ENDED) if status is None else ("queued", status) if status == "working" else (status,)
        whose = None if principal is None else principal_text(as_principal(principal))
        return [self._work.describe(record) for record in self.store.find(whose, statuses, limit)]

    def cancel(self, id: str) -> bool:
        """Cancel a task, and say whether that ended it: False for one that is unknown or has ended before."""
        return self._work.cancel(id)

    def wait(self, id: str, timeout: float | None = None) -> Message:
        """Wait for the end of a task and return it, with its `result` or `error`.

        :raises KeyError: when it is unknown.
        :raises TimeoutError: when it has not ended after `timeout` seconds.
        """
        until = math.inf if timeout is None else time.monotonic() + timeout
        with Subscription(self._work.engine.bus, [f"tasks/{id}"]) as news:
            while True:
                record = self.store.get(id)
                if record is None:
                    raise KeyError(id)
                if record.status in ENDED:
                    return self._work.describe(record)
                left_s = until - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError(f"The task {id} has not ended in time")
                news.take(min(left_s, 1.0))

    def start(self) -> None:
        """Go on with the tasks that are kept, in this process; `run`, `run_http` and the first message do so, too."""
        if self.store.lasting:
            self._work.keeper().start()

    @property
    def workers(self) -> int:
        """The number of bodies that run at once in this process; another one may be set before it starts.

        :raises RuntimeError: for tasks that a carrier takes elsewhere.
        """
        return self._workers

    @workers.setter
    def workers(self, workers: int) -> None:
        self._work.set_workers(workers)
        self._workers = workers

    def begin_no_more(self) -> None:
        """Leave what is queued to other processes, and go on with what runs, as `close` does at first."""
        self._work.keeper().begin_no_more()

    def close(self, wait_s: float = 0.0) -> None:
        """Stop here: what is queued stays queued, what runs gets some seconds, then its record says what became of it.

        Bodies that may run again are queued anew. The store is closed.
        """
        self._work.keeper().stop(wait_s)
        self._work.wait_for_looks()
        self.store.close()

    def run(self, id: str) -> None:
        """Run the body of a queued task on this thread, unless another worker does; carriers call it."""
        self._work.run(id)

    # Called for tools; see `Background`

    def takes(self, ctx: Context, required: bool = False) -> bool:
        """Say whether this call becomes a task. Spec: EXT-014 to EXT-016, EXT-019"""
        if ctx.method != "tools/call" or isinstance(ctx._strategy, TaskRun):
            return False
        if required:
            check_declared(ctx)
        return ctx.extension(spec.TASKS) is not None

    def add(self, ctx: Context, arguments: Message, idempotent: bool) -> Message:
        """Make a task of the call of a tool."""
        return self._work.create(ctx, arguments, {"idempotent": idempotent})

    def hand_over(self, ctx: Context, work: Callable[..., object], args: tuple[object, ...], named: Message) -> object:
        """Make a task of a function with its arguments; where there can be none, call it and return its result.

        :raises RuntimeError: for a function that only this process could run, when it leaves tasks to others.
        """
        if not self.takes(ctx):
            return call_function(work, args, named, ctx)
        reference = refer(ctx._entry.function, work, args, named) if ctx._entry is not None else None
        function = None if reference is not None else partial(call_function, work, args, named)
        if function is not None and not self._workers:
            raise RuntimeError(
                "This process leaves tasks to others, Tasks(workers=0): give ctx.task a function at the top of the "
                "tool's module, and arguments of JSON"
            )
        return self._work.create(ctx, ctx.params.get("arguments") or {}, {"work": reference}, function)
