"""Reloading a gateway when its configuration changes, or on SIGHUP; a configuration with an error changes nothing."""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
from typing import Any, Optional, Protocol

from . import config

log = logging.getLogger("minimcp.gateway")

_STOP_S = 10.0
_QUIET_S = 0.2


class Reloadable(Protocol):
    """The part of a gateway that is used here."""

    def reload(self, settings: config.GatewaySettings) -> dict[str, list[str]]:
        """Take over another configuration, all of it or nothing, and return `config.diff` of the two."""


class Reloader:
    """Watches the file of a configuration and gives a gateway what it becomes.

    Make it before the file is read the first time, so that no change is missed. Files that a configuration refers to
    are not watched; SIGHUP reads them again.

    :param every_s: the time between two looks at the file.
    """

    def __init__(self, path: str, every_s: float = 1.0) -> None:
        self._path = path
        self._every_s = every_s
        self._seen = _state(path)
        # Its put() may interrupt itself, as a handler of a signal does.
        self._wishes: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread: Optional[threading.Thread] = None
        self._before: Any = None

    def start(self, gateway: Reloadable) -> Reloader:
        """Watch from now on, on a thread; on the main thread SIGHUP is taken, too."""
        self._thread = threading.Thread(target=self._watch, args=(gateway,), name="minimcp-gateway-reload", daemon=True)
        self._thread.start()
        if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGHUP, lambda number, frame: self._wishes.put("reload"))
        return self

    def stop(self) -> None:
        """Watch no longer; a reload in progress is waited for."""
        if self._before is not None:
            signal.signal(signal.SIGHUP, self._before)
            self._before = None
        thread, self._thread = self._thread, None
        if thread is not None:
            self._wishes.put("stop")
            thread.join(_STOP_S)

    def _watch(self, gateway: Reloadable) -> None:
        changed = False
        while True:
            try:
                wish = self._wishes.get(timeout=min(_QUIET_S, self._every_s) if changed else self._every_s)
            except queue.Empty:
                wish = ""
            if wish == "stop":
                return
            now = _state(self._path)
            if now != self._seen and not wish:
                # Whoever writes it may not be done.
                self._seen, changed = now, True
            elif changed or wish:
                self._seen, changed = now, False
                self._reload(gateway)

    def _reload(self, gateway: Reloadable) -> None:
        try:
            settings = config.read(self._path)
            for note in settings.notes:
                log.warning("%s: %s", self._path, note)
            found = gateway.reload(settings)
        except ValueError as problem:
            log.error("The configuration cannot be used, and what it said before holds. %s", problem)
        except Exception:
            log.exception("The configuration %s could not be taken over", self._path)
        else:
            log.info("The configuration %s was read again: %s", self._path, told(found))


def told(difference: dict[str, list[str]]) -> str:
    """Say in a line what differs between two configurations."""
    parts = [
        f"{what} {', '.join(map(repr, difference[what]))}"
        for what in ("added", "removed", "changed")
        if difference[what]
    ]
    if difference["options"]:
        parts.append(f"other options {', '.join(difference['options'])}")
    return "; ".join(parts) or "no difference"


def _state(path: str) -> Optional[tuple[int, int, int]]:
    """Return what differs when a file has been written or replaced, None when there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
