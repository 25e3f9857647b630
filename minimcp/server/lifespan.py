"""The context managers of authors around the life of a server, `Server(lifespan=f)`: each process enters them once."""

from __future__ import annotations

import atexit
import inspect
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Optional

from ..engines.fork import PerProcess
from . import hooks


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

    :param function: makes the context manager of a server.
    :raises TypeError: for something else, with what to write.
    """

    def __init__(self, function: Callable[[Any], AbstractContextManager[Any]], server: object) -> None:
        _check(function)
        self._make = partial(function, server)
        self._own = PerProcess(_Entered)

    def enter(self) -> Any:
        """Return what the context manager of this process has returned, entering it if that has not happened yet."""
        own = self._own()
        if own.manager is None:
            with own.lock:
                if own.manager is None:
                    self._begin(own)
        return own.app

    def _begin(self, own: _Entered) -> None:
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


class _Entered:
    """The context manager of one process, the value of its `__enter__`, and the lock that guards both."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.manager: Optional[AbstractContextManager[Any]] = None
        self.app: Any = None


def _check(function: Any) -> None:
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


class Lifespans(list[Lifespan]):
    """The lifespans of a server and of the servers within it; a context in which they are entered.

    :ivar own: that of the server itself, or None.
    """

    own: Optional[Lifespan] = None

    def begin(self, function: Callable[[Any], AbstractContextManager[Any]] | None, server: object) -> None:
        """Begin with that of the server itself, if it has one."""
        if function is not None:
            self.own = Lifespan(function, server)
            self.append(self.own)

    def include(self, others: Lifespans) -> None:
        """Add those of another server that are not there yet."""
        self += [each for each in others if each not in self]

    def enter(self) -> None:
        """Enter what has not been entered in this process."""
        for each in self:
            each.enter()

    def leave(self) -> None:
        """Exit what was entered, the last first; a failure of one is logged and stops none of the others."""
        for each in reversed(self):
            hooks.notify(each.leave)

    def __enter__(self) -> None:
        if loading.here:
            raise StopLoading
        self.enter()

    def __exit__(self, *_: object) -> None:
        self.leave()


class StopLoading(BaseException):
    """Raised when a file that is loaded has come to a `run` or `run_http` of its own."""


class Loading(threading.local):
    """Says whether this thread loads a file whose server a command is going to serve: `here`."""

    here = False


loading = Loading()
