"""The command `run`: serves a Server from a Python file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from ..client import python_files
from . import hosts
from .loading import LoadFailed, NoServer, WrongTarget, load


def run(options: Any) -> int:
    """Serve until the client hangs up, or Ctrl-C.

    :param options: `target`, `words`, what the file gets as `sys.argv`, `trace`, and for HTTP `http`, the port, `path`,
        `host`, `allow_host`, host names, `tls_cert`, `tls_key` and `tls_ca`, paths, and `public`, whether everybody may
        call a server without `auth=`.
    """
    return with_file(options, _run_stdio if options.http is None else _run_http)


def with_file(options: Any, work: Callable[[Any], None]) -> int:
    """Call a function that loads a file, with `sys.argv` as that shall see it; what goes wrong is told, not raised."""
    before = sys.argv
    sys.argv = [python_files.split(options.target)[0], *options.words]
    try:
        work(options)
    except LoadFailed as failed:
        print(failed, file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f"minimcp: {error}", file=sys.stderr)
        return 2 if isinstance(error, WrongTarget) else 1
    finally:
        sys.argv = before
    return 0


_OURS = re.compile(rb"^\s*(?:from|import)\s+minimcp\b", re.MULTILINE)
# A file with one of these is a program that may serve by itself.
_PROGRAM = re.compile(rb"__main__|\.run\(|stdin")


def _load(options: Any) -> Any:
    server = load(options.target)
    if options.trace is not None:
        from ..server.tracing import Tracing

        Tracing(server.engine, True if options.trace == "-" else options.trace)
    if options.verbose:
        from ..server.screen import Screen

        Screen(server.engine, verbose=True)
    try:
        server.engine.lifespans.enter()
    except Exception as error:
        raise LoadFailed(python_files.split(options.target)[0], error) from error
    return server


def _run_stdio(options: Any) -> None:
    from ..server.screen import greet
    from ..transports import stdio

    # Taken away before the file runs, so that even what it prints on import cannot reach the protocol.
    pipes = stdio.take_pipes()
    source = b""
    if os.path.isfile(options.target):
        with open(options.target, "rb") as file:
            source = file.read()
    if _PROGRAM.search(source) and not _OURS.search(source):
        _become(options.words, options.target, pipes)
    try:
        engine = _load(options).engine
    except NoServer:
        if not _PROGRAM.search(source):
            raise
        # It makes its server in a function.
        _become(options.words, options.target, pipes)
    greet(engine, options.target, pipes[0])
    with engine.lifespans:
        stdio.serve(engine, pipes)


def _become(words: list[str], file: str, pipes: tuple[int, int]) -> NoReturn:
    """Run a file that serves by itself in place of this program.

    :param words: its arguments.
    """
    for fd, standard in zip(pipes, (0, 1)):
        os.dup2(fd, standard)
        os.close(fd)
    command = [sys.executable, file, *words]
    if os.name == "nt":
        # There the new program would not take the place of this one, but run beside whoever waits for it.
        sys.exit(subprocess.call(command))
    os.execv(sys.executable, command)


def _run_http(options: Any) -> None:
    server = _load(options)
    if server.engine.debug is None:
        from ..engines.addresses import is_loopback

        server.engine.debug = is_loopback(options.host) and not (options.allow_host or options.public)
    name, path = server.engine.identity["name"], options.path or "/mcp"
    if options.allow_host:
        # The address that is printed has to work too.
        local = ("localhost", "127.0.0.1", "[::1]")
        server.engine.allowed_hosts = frozenset([*(server.engine.allowed_hosts or ()), *options.allow_host, *local])

    def ready(listening: Any) -> None:
        url = listening.url + path
        over_http = {"mcpServers": {name: {"type": "http", "url": url}}}
        command = [sys.executable, "-m", "minimcp", "run", os.path.abspath(options.target)]
        over_stdio = {"mcpServers": {name: {"command": command[0], "args": command[1:]}}}
        print(
            f"{name} is listening on {url}; try it: minimcp list {url}\n\n"
            f"To connect a host: minimcp install HOST {url} (HOST is one of {', '.join(hosts.HOSTS)})\n"
            f"or put this into its MCP configuration:\n  {json.dumps(over_http)}\n"
            f"or let the host start the same file over stdio:\n  {json.dumps(over_stdio)}\n\n"
            "Stop the server with Ctrl-C.",
            file=sys.stderr,
            flush=True,
        )

    server.engine.public = server.engine.public or options.public
    tls = (options.tls_cert, options.tls_key) if options.tls_cert else None
    server.run_http(host=options.host, port=options.http, path=path, tls=tls, ca=options.tls_ca, ready=ready)
