"""The lines that a server writes to standard error for the person who started it at a terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from ..engines.errors import printable

if TYPE_CHECKING:
    from ..engines.http_server.wsgi_server import WsgiServer
    from .engine import Engine
    from .hooks import Outcome


class Screen:
    """Notes the requests of a server in progress, and shows each when it has been answered.

    :param verbose: whether to show them; the notes are kept in any case.
    """

    def __init__(self, engine: Engine, verbose: bool = False) -> None:
        self._verbose = verbose
        self._running: dict[int, str] = {}  # each step on it is one operation of a dict, so that it needs no lock
        self._inner = engine.around_request
        engine.around_request = self._around

    def _around(self, outcome: Outcome) -> AbstractContextManager[Any]:
        inner = self._inner(outcome) if self._inner is not None else ExitStack()
        return self._noted(outcome, inner)

    @contextmanager
    def _noted(self, outcome: Outcome, inner: AbstractContextManager[Any]) -> Iterator[None]:
        request = printable(f"{outcome.method or 'what could not be read'} {outcome.name or ''}".strip(), 200)
        if outcome.ctx is None or not outcome.ctx._row.streams:
            self._running[id(outcome)] = request
        try:
            with inner:
                yield
        finally:
            self._running.pop(id(outcome), None)
            if self._verbose:
                caller = f" by {printable(outcome.principal.id, 200)}" if outcome.principal is not None else ""
                took = f"{outcome.duration_s * 1000:.0f} ms"
                say(f"{time.strftime('%H:%M:%S')} {request}{caller}: {_end(outcome)}, {took}")

    def stopping(self, grace_s: float) -> None:
        """Say what is waited for when the server is told to stop, if there is anything."""
        running = list(self._running.values())
        if running:
            more = f" and {len(running) - 5} more" if len(running) > 5 else ""
            say(f"Waiting up to {grace_s:g} s for {', '.join(running[:5])}{more}; Ctrl-C stops at once.")


def say(line: str) -> None:
    """Write a line to standard error, if there is one."""
    if sys.stderr is not None:
        print(line, file=sys.stderr, flush=True)


def greet(engine: Engine, file: str, fd: int = 0) -> None:
    """Say on a terminal that standard input is waited for, and how to try the server.

    :param file: the Python file that serves.
    :param fd: the descriptor that messages come from.
    """
    if os.isatty(fd):
        import shlex

        file = shlex.quote(file) if os.name != "nt" else f'"{file}"' if " " in file else file
        advice = f"; try it from another terminal: minimcp list {file}" if ".py" in file else ""
        say(f"{printable(str(engine.identity['name']), 200)} waits for MCP messages on standard input{advice}")


def watched(engine: Engine, path: str, ready: Callable[[WsgiServer], object] | None) -> Callable[[WsgiServer], None]:
    """Return the function that an HTTP server calls when it listens: `ready`, or on a terminal a line that says where.

    :param path: the path of the endpoint.
    """
    terminal = sys.stderr is not None and sys.stderr.isatty()
    screen = Screen(engine) if terminal else None

    def on_ready(listening: WsgiServer) -> None:
        if screen is not None:
            listening.on_shutdown.append(lambda: screen.stopping(listening.limits["grace_s"]))
        if ready is not None:
            ready(listening)
        elif terminal:
            url = listening.url + path
            say(f"{printable(str(engine.identity['name']), 200)} is listening on {url}; try it: minimcp list {url}")

    return on_ready


def _end(outcome: Outcome) -> str:
    if outcome.reply is None:
        return "no reply"
    error = outcome.error
    if error is not None:
        return printable(f"error {error.get('code')}: {error.get('message')}", 200)
    result = outcome.reply.get("result")
    if isinstance(result, dict) and result.get("isError"):
        return "the tool failed"
    return "a question" if isinstance(result, dict) and result.get("resultType") == "input_required" else "done"
