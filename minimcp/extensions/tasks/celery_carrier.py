"""Tasks that the workers of a Celery application run."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional

from .broker import BrokerCarrier

if TYPE_CHECKING:
    from .background import Tasks

# One more try, at once: a connection may have been closed since it was used.
_RETRIES = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}
_taken: weakref.WeakKeyDictionary[Any, set[str]] = weakref.WeakKeyDictionary()


class CeleryCarrier(BrokerCarrier):
    """Has tasks run by the workers of a Celery application: `Tasks("tasks.db", carrier=CeleryCarrier(app), workers=0)`.

    The worker is the usual one, `celery -A MODULE worker`, where the module is that of the server, or imports it.
    Celery's settings can be any, its defaults among them: a message that is lost is sent again, one that comes twice
    runs nothing twice, and no result backend is used. Time limits of the application hold for tasks, too.

    :param app: the `celery.Celery`.
    :param name: the name of the job in Celery; by default "minimcp.run_task." and the name of the server.
    :param queue: the queue that the hints go to; by default the one that the application's routes say.
    """

    def __init__(
        self, app: Any, *, name: Optional[str] = None, queue: Optional[str] = None, patience_s: float = 10.0
    ) -> None:
        if not callable(getattr(app, "task", None)) or not hasattr(app, "producer_or_acquire"):
            raise TypeError(f"CeleryCarrier takes a celery.Celery, not {type(app).__name__}")
        super().__init__(patience_s)
        self._app = app
        self._name = name
        self._queue = {} if queue is None else {"queue": queue}
        self._job: Any = None

    def attach(self, server: str, tasks: Tasks) -> None:
        """Register the job that runs a task.

        :raises ValueError: for tasks that no other process can reach, and for a name that another server has taken.
        """
        super().attach(server, tasks)
        self._name = self._name or f"minimcp.run_task.{server}"
        names = _taken.setdefault(self._app, set())
        if self._name in names:
            raise ValueError(
                f"This Celery application has a job {self._name!r} already, of another server: give the servers "
                "different names, or CeleryCarrier(app, name=...)"
            )
        names.add(self._name)
        # Not `shared`, which would register it with every other application.
        self._job = self._app.task(name=self._name, ignore_result=True, shared=False)(_job(tasks.run))

    def _publish(self, id: str) -> None:
        if self._app.conf.task_always_eager:
            self._job.apply_async((id,), **self._queue)
            return
        with self._app.producer_or_acquire() as producer:
            # Celery's own patience with a broker that is gone has no end in some versions.
            producer.connection.ensure_connection(**_RETRIES)
            self._job.apply_async((id,), producer=producer, retry=True, retry_policy=_RETRIES, **self._queue)

    def _held(self) -> int:
        queue = self._app.amqp.router.route(dict(self._queue), self._name, ())["queue"]
        with self._app.connection_for_write() as connection:
            connection.ensure_connection(**_RETRIES)
            try:
                found = queue.bind(connection.default_channel).queue_declare(passive=True)
            except connection.channel_errors:
                # There is no such queue as long as nothing was sent, or, in Redis, when all was taken.
                return 0
            return int(found.message_count)


def _job(run: Callable[[str], None]) -> Callable[[str], None]:
    def run_task(id: str) -> None:
        run(id)

    return run_task
