"""Files that stay open between uses, for threads and processes that share them: one to append to, and a lock."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Optional, Union

Path = Union[str, "os.PathLike[str]"]

_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
# Windows lets nobody rename or remove a file that is open.
_KEPT_S = 1.0 if os.name != "nt" else 0.0


class Descriptor(int):
    """An open file; it is closed when nobody has it any more, so that no thread closes what another writes to."""

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self)


class OpenFile:
    """A file to append to, opened anew each second, since somebody may have renamed or removed it.

    :param path: the file; one that is made is for its owner alone.
    :param flags: further flags for opening it.
    """

    def __init__(self, path: Path, flags: int = 0) -> None:
        self._path = path
        self._flags = _FLAGS | flags
        self._open: Optional[Descriptor] = None
        self._until = 0.0

    def __call__(self) -> Descriptor:
        """Return the descriptor; any thread may call it.

        :raises OSError: when the file cannot be opened.
        """
        found, now = self._open, time.monotonic()
        if found is None or now >= self._until:
            found = Descriptor(os.open(self._path, self._flags, 0o600))
            self._open, self._until = found if _KEPT_S else None, now + _KEPT_S
        return found

    def close(self) -> None:
        """Let go of it; the next use opens it again."""
        self._open = None


class FileLock:
    """Keeps other processes, and other holders of such a lock, from a file: they wait for `PATH.lock`.

    Only one thread at a time may use it. Where Python has no `fcntl`, as on Windows, nobody waits.
    """

    def __init__(self, path: Path) -> None:
        self._file = OpenFile(f"{os.fspath(path)}.lock")
        self._held: Optional[Descriptor] = None
        self._fcntl: Any = None
        try:
            import fcntl

            self._fcntl = fcntl
        except ImportError:
            pass

    def __enter__(self) -> None:
        if self._fcntl is not None:
            self._held = self._file()
            self._fcntl.flock(self._held, self._fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        if self._held is not None:
            # Not by closing alone: a child that was forked meanwhile has the file open, too.
            self._fcntl.flock(self._held, self._fcntl.LOCK_UN)
            self._held = None
