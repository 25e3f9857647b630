"""What a server has for as long as it serves: `Server(lifespan=f)`, entered once in each process, and `ctx.app`."""

from __future__ import annotations

import atexit
import inspect
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Optional

from ..engines.fork import PerProcess


def _count(thing: Any, by: str) -> None:
    """Take a reference that lasts beyond the end of the interpreter, or give it back.

    :param by: the name of the function for it, which other Pythons than CPython do not have.
    """
    try:
        import ctypes

        getattr(ctypes.pythonapi, by)(ctypes.py_object(thing))
    except (ImportError, AttributeError):
        pass


class Lifespan:
    """The context manager of an author's around the serving, entered before the first call of a process.

    :param make: makes the context manager.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[Any]]) -> None:
        self._make = make
        self._own = PerProcess(_Own)

    def enter(self) -> Any:
        """Return what the context manager of this process has returned, entering it if that has not happened yet."""
        own = self._own()
        if own.manager is None:
            with own.lock:
                if own.manager is None:
                    self._begin(own)
        return own.app

    def _begin(self, own: _Own) -> None:
        manager = self._make()
        if not hasattr(manager, "__enter__"):
            hint = "; write `with`, not `async with`" if hasattr(manager, "__aenter__") else ""
            raise TypeError(f"lifespan= returns a context manager, as @contextmanager makes one, not {manager!r}{hint}")
        own.app = manager.__enter__()
        # A child of a fork must never let go of it: a generator would end there, and close what the parent uses.
        _count(manager, "Py_IncRef")
        own.manager = manager
        atexit.register(self.leave)

    def leave(self) -> None:
        """Exit the context manager of this process, if it has been entered; a later call enters another one."""
        own = self._own()
        with own.lock:
            manager, own.manager, own.app = own.manager, None, None
        if manager is not None:
            atexit.unregister(self.leave)
            try:
                manager.__exit__(None, None, None)
            finally:
                _count(manager, "Py_DecRef")


class _Own:
    """The context manager of one process, the value of its `__enter__`, and the lock that guards both."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.manager: Optional[AbstractContextManager[Any]] = None
        self.app: Any = None


def check_lifespan(function: Any) -> None:
    """Refuse what cannot be `lifespan=`.

    :raises TypeError: with what to write.
    """
    plain = inspect.unwrap(function) if callable(function) else function
    if inspect.isasyncgenfunction(plain) or inspect.iscoroutinefunction(plain):
        raise TypeError("lifespan= is a plain context manager: write def with @contextmanager, and yield once")
    if inspect.isgeneratorfunction(function):
        raise TypeError(f"lifespan= is a context manager: write @contextmanager above {function.__name__}")
    if not callable(function):
        raise TypeError(
            "lifespan= is a function f(server) that returns a context manager, since each process enters one of its "
            f"own, not {function!r}"
        )
