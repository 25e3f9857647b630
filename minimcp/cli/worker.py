"""The command `worker`: runs the tasks of a Server from a Python file, for processes that only hand them over."""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from .commands import logged
from .loading import WrongTarget, load
from .run import with_file

if TYPE_CHECKING:
    from ..extensions.tasks import TaskStore
    from ..server.server import Server

_WORKERS = 16
_LOOK_S = 1.0  # between two looks for a signal


def worker(options: Any) -> int:
    """Run tasks until SIGTERM or Ctrl-C; what then runs may go on for a while, and what is queued stays queued.

    :param options: `target`, `words`, what the file gets as `sys.argv`, `workers`, `grace` in seconds, and `verbose`.
    """
    with logged("INFO" if options.verbose else None):
        try:
            return with_file(options, _work)
        except KeyboardInterrupt:
            # Before it began.
            return 130


def _work(options: Any) -> None:
    server = load(options.target)
    name, tasks = server.engine.identity["name"], server.engine.tasks
    if tasks is None:
        raise WrongTarget(f'{name} has no tasks; they begin with server.use(Tasks("tasks.db")), or redis://')
    if not tasks.store.lasting:
        raise WrongTarget(
            f"the tasks of {name} live in the memory of the process that made them; give Tasks a file or redis://"
        )
    try:
        tasks.workers = options.workers or tasks.workers or _WORKERS
    except RuntimeError as problem:
        raise WrongTarget(f"{name}: {problem}") from None
    _check_store(tasks.store)
    place = getattr(tasks.store, "path", type(tasks.store).__name__)
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        tasks.start()
        _say(f"worker for {name}: runs the tasks of {place}, {tasks.workers} at once")
        while True:
            # Never for long: a signal that was taken by another thread, as after SIGCONT, ends no sleep of this one.
            time.sleep(_LOOK_S)
    except KeyboardInterrupt:
        _stop(server, options.grace)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_store(store: TaskStore) -> None:
    """Look whether a store is of use; one that is gone for a while is waited for.

    :raises OSError: when it is of none.
    """
    from ..extensions.tasks import UnusableStore

    try:
        store.queued(1)
    except UnusableStore as problem:
        if not problem.passing:
            raise OSError(str(problem)) from None
        _say(f"minimcp: {problem}; it is tried again")


def _stop(server: Server, grace_s: float) -> None:
    """Let what runs go on for a while, which another signal ends; a third one ends the process."""
    try:
        # First, so that what ends after these words makes room for nothing.
        server.tasks.begin_no_more()
        _say(
            f"worker for {server.engine.identity['name']}: stops; what runs has {grace_s:g} s, a second signal ends it"
        )
        server.tasks.close(grace_s)
    except KeyboardInterrupt:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        server.tasks.close()
    server.close()


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
