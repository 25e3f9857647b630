"""Files that are looked at again and again, for changes."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Optional

EVERY_S = 0.3
_MOST_FILES = 5000
# Folders with other people's files.
_SKIPPED = ("node_modules", "site-packages", "build", "dist")

State = dict[str, tuple[int, int, int]]


class WatchedFiles:
    """The Python files below folders, and single files of any kind.

    :param paths: the folders and files.
    :raises ValueError: for a path that there is not.
    """

    def __init__(self, paths: list[str]) -> None:
        for path in paths:
            if not os.path.exists(path):
                raise ValueError(f"--watch: there is no file or folder {path!r}")
        self._paths = list(dict.fromkeys(map(os.path.abspath, paths)))
        self._seen = self._look()

    def told(self) -> str:
        """Say what is watched."""
        number = len(self._seen)
        return f"watching {number} file{'s' * (number != 1)} at {', '.join(self._paths)}"

    def wait(self, stopping: threading.Event) -> Optional[list[str]]:
        """Wait for a change, and until whoever makes it is done; return the paths, or None once told to stop."""
        before, changed = self._seen, False
        while not stopping.wait(EVERY_S):
            now = self._look()
            if now != self._seen:
                self._seen, changed = now, True
            elif changed and now != before:
                return sorted(path for path in {*before, *now} if before.get(path) != now.get(path))
            else:
                changed = False
        return None

    def _look(self) -> State:
        found: State = {}
        for path in self._files():
            try:
                known = os.stat(path)
            except OSError:
                continue
            found[path] = known.st_ino, known.st_mtime_ns, known.st_size
            if len(found) >= _MOST_FILES:
                break
        return found

    def _files(self) -> Iterator[str]:
        for path in self._paths:
            if not os.path.isdir(path):
                yield path
            for folder, folders, names in os.walk(path):
                folders[:] = [
                    name
                    for name in sorted(folders)
                    if not name.startswith((".", "__"))
                    and name not in _SKIPPED
                    and not os.path.exists(os.path.join(folder, name, "pyvenv.cfg"))
                ]
                yield from (os.path.join(folder, name) for name in sorted(names) if name.endswith(".py"))
