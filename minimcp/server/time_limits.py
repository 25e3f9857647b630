"""Time limits of tools, `@server.tool(timeout=30)`: a call that takes longer fails, and its function is cancelled."""

from __future__ import annotations

import contextvars
import functools
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional

from ..engines import fork
from ..protocol.errors import ToolError
from . import hooks

if TYPE_CHECKING:
    from .context import Context

log = logging.getLogger("minimcp")

# Calls of one tool in a process whose time is over, and that do not end.
_MOST_LATE = 100
# The longest time for which a thread can wait.
_LONGEST_S = threading.TIMEOUT_MAX


def limited(function: Callable[..., Any], name: str, context: Optional[str], timeout_s: float) -> Callable[..., Any]:
    """Return a function that calls another one on a thread of its own, and fails where that takes too long.

    No thread can be stopped from outside: the function goes on until it looks at its Context, where it has one.

    :param name: the name of the tool.
    :param context: the parameter that gets the Context, or None.
    :raises ValueError: for a limit that is no positive number.
    """
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, (int, float)) or not 0 < timeout_s <= _LONGEST_S:
        raise ValueError(f"{name}: timeout= is a positive number of seconds, not {timeout_s!r}")
    late = fork.PerProcess(_Late)

    @functools.wraps(function)
    def run(**values: Any) -> Any:
        if late().count >= _MOST_LATE:
            raise ToolError(f"Too many calls of {name} go on after their time; try again later")
        ctx: Optional[Context] = values.get(context) if context is not None else None
        work = _LimitedRun(functools.partial(function, **values), ctx, late())
        if not work.wait(timeout_s):
            log.warning("tool %s goes on after its %g s are over", name, timeout_s)
            raise ToolError(f"The tool {name} did not end within {timeout_s:g} s")
        if work.error is not None:
            raise work.error
        return work.value

    return run


class _Late:
    """The number of calls of a tool that go on after their time, and the lock that guards it."""

    def __init__(self) -> None:
        self.count = 0
        self.lock = threading.Lock()


class _LimitedRun:
    """A function that runs on a thread of its own."""

    def __init__(self, function: Callable[[], Any], ctx: Optional[Context], late: _Late) -> None:
        self.value: Any = None
        self.error: Optional[BaseException] = None
        self._function = function
        self._ctx = ctx
        self._late = late
        self._is_late = False  # guarded by the lock of _late
        self._done = threading.Lock()  # released when it has ended
        self._done.acquire()
        target = contextvars.copy_context().run
        threading.Thread(target=target, args=(self._run,), name="minimcp-limited", daemon=True).start()

    def _run(self) -> None:
        since = fork.generation
        if self._ctx is not None:
            self._ctx._thread = threading.get_ident()
        try:
            self.value = self._function()
        except BaseException as error:
            self.error = error
        fork.end_child(since, self.error)
        with self._late.lock:
            self._late.count -= self._is_late
            self._done.release()

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end, and say whether it came in time; otherwise, and when interrupted, it is cancelled."""
        ended = False
        try:
            ended = self._done.acquire(timeout=timeout_s)
        finally:
            if not ended:
                self._cancel()
        return ended

    def _cancel(self) -> None:
        with self._late.lock:
            self._is_late = self._done.locked()
            self._late.count += self._is_late
        if self._ctx is not None:
            self._ctx.cancelled.set()
            hooks.notify_once(self._ctx._on_cancel)
