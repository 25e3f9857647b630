"""Tasks that the workers of an RQ queue run."""

from __future__ import annotations

import importlib
import re
from typing import Any

from ...engines.errors import MinimcpError
from .broker import BrokerCarrier

_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*\Z")
_FAILURES_KEPT_S = 3600


class RqCarrier(BrokerCarrier):
    """Has tasks run by the workers of an RQ queue: `Tasks("tasks.db", carrier=RqCarrier(queue, "reports:server"))`.

    The worker is the usual one, `rq worker`, where that module can be imported. No time limit is set, whatever the
    queue's is; the one of tasks is `Tasks(ttl_s=)`. RQ keeps no results, and failures for an hour.

    :param queue: the `rq.Queue`.
    :param server: where the worker finds the server, as "module:name".
    """

    def __init__(self, queue: Any, server: str, *, patience_s: float = 10.0) -> None:
        if not callable(getattr(queue, "enqueue_call", None)):
            raise TypeError(f"RqCarrier takes an rq.Queue, not {type(queue).__name__}")
        if not _REFERENCE.match(server):
            raise ValueError(f'RqCarrier(queue, "module:name") says where workers find the server, unlike {server!r}')
        super().__init__(patience_s)
        self._queue = queue
        self._server = server

    def _publish(self, id: str) -> None:
        self._queue.enqueue_call(
            "minimcp.extensions.tasks.rq_carrier.run_task",
            args=(self._server, id),
            timeout=-1,
            result_ttl=0,
            failure_ttl=_FAILURES_KEPT_S,
            # Without the id, since who knows that of a task without a principal may read its result.
            description=f"a task of {self._server}",
        )

    def _held(self) -> int:
        return int(self._queue.count)


class UnknownServer(MinimcpError):
    """A worker does not find the server that a hint names; the message says why, and what to do."""


def run_task(server: str, id: str) -> None:
    """Run the body of a task; this is the job in RQ.

    :param server: where the server is, as "module:name".
    :raises UnknownServer: when it is not there.
    """
    module, _, name = server.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as problem:
        if problem.name is None or not f"{module}.".startswith(f"{problem.name}."):
            raise
        raise UnknownServer(
            f"there is no module {module} here: start `rq worker` where it can be imported, or name another one "
            'with RqCarrier(queue, "module:name")'
        ) from None
    for part in name.split("."):
        found = getattr(found, part, None)
    from ...server.server import Server

    if not isinstance(found, Server):
        raise UnknownServer(f'{module} has no Server named {name}: see RqCarrier(queue, "module:name")')
    found.tasks.run(id)
