"""The command `run`: serves a Server from a Python file."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
import traceback
from typing import Any, NoReturn

from ..client.transports.command import HIDING


def run(options: Any) -> int:
    """Serve until the client hangs up, or Ctrl-C.

    :param options: `target`, `trace`, and for HTTP `http`, the port, `host`, `allow_host`, host names, `tls_cert`,
        `tls_key` and `tls_ca`, paths, and `public`, whether everybody may call a server without `auth=`.
    """
    try:
        if options.http is None:
            _run_stdio(options)
        else:
            _run_http(options)
    except LoadFailed as failed:
        print(failed, file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f"minimcp: {error}", file=sys.stderr)
        return 2 if isinstance(error, WrongTarget) else 1
    return 0


class LoadFailed(Exception):
    """A Python file failed when it was imported; the text is where and how, and its traceback from the file on."""

    def __init__(self, path: str, error: Exception) -> None:
        told = traceback.TracebackException.from_exception(error)
        _keep_own_frames(told)
        last = told.stack[-1] if told.stack else None
        where = (last.filename, last.lineno) if last else (path, None)
        if isinstance(error, SyntaxError) and error.filename:
            where = error.filename, error.lineno
        name, number = where
        name = path if os.path.abspath(name) == os.path.abspath(path) else name
        said = error.msg if isinstance(error, SyntaxError) else str(error)
        first = f"{name}{f', line {number}' if number else ''}: {type(error).__name__}: {said}"
        super().__init__(f"minimcp: {first}\n{''.join(told.format())}".rstrip("\n"))


def _keep_own_frames(told: Any) -> None:
    """Drop the frames of Python's and of our own library, from the causes too."""
    import sysconfig

    libraries = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    foreign = tuple(path + os.sep for path in (ours, *libraries) if path)
    seen = told
    while seen is not None:
        own = [frame for frame in seen.stack if not frame.filename.startswith(("<frozen ", *foreign))]
        seen.stack = traceback.StackSummary.from_list(own)
        seen = seen.__cause__ or seen.__context__


class WrongTarget(ValueError):
    """The target is no file, or the Server in it is not clear."""


class NoServer(WrongTarget):
    """A Python file has no Server among its names."""


_OURS = re.compile(rb"^\s*(?:from|import)\s+minimcp\b", re.MULTILINE)
# A file with one of these is a program that may serve by itself.
_PROGRAM = re.compile(rb"__main__|\.run\(|stdin")


def load(target: str) -> Any:
    """Import a file and return its Server.

    :raises LoadFailed: when the file raises an exception.
    :raises WrongTarget: when there is no file, no Server, or more than one to choose from.
    """
    from ..server.server import Server

    path, _, name = target.partition(":") if not os.path.exists(target) else (target, "", "")
    if not os.path.isfile(path):
        raise WrongTarget(f"There is no file {path!r}")
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    module_name = os.path.splitext(os.path.basename(path))[0]
    if module_name == "minimcp":
        raise WrongTarget(HIDING.format(os.path.abspath(path)))
    if module_name in sys.modules:
        # Other modules go on finding the one that they know under this name.
        module_name = f"served_{module_name}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise WrongTarget(f"{path!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise LoadFailed(path, error) from error
    if name:
        found = getattr(module, name, None)
        if not isinstance(found, Server):
            raise WrongTarget(f"{path} has no Server named {name!r}")
        return found
    servers = {key: value for key, value in vars(module).items() if isinstance(value, Server)}
    if not servers:
        raise NoServer(f"{path} needs a module-level minimcp.Server, such as server = Server('name')")
    if len(set(map(id, servers.values()))) != 1:
        raise WrongTarget(f"{path} needs one of {', '.join(sorted(servers))}: write FILE:OBJECT")
    return next(iter(servers.values()))


def _load(options: Any) -> Any:
    server = load(options.target)
    if options.trace is not None:
        from ..server.tracing import Tracing

        Tracing(server.engine, True if options.trace == "-" else options.trace)
    if options.verbose:
        from ..server.screen import Screen

        Screen(server.engine, verbose=True)
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
        _become(options.target, pipes)
    try:
        engine = _load(options).engine
    except NoServer:
        if not _PROGRAM.search(source):
            raise
        # It makes its server in a function.
        _become(options.target, pipes)
    greet(engine, options.target, pipes[0])
    stdio.serve(engine, pipes)


def _become(file: str, pipes: tuple[int, int]) -> NoReturn:
    """Run a file that serves by itself in place of this program."""
    for fd, standard in zip(pipes, (0, 1)):
        os.dup2(fd, standard)
        os.close(fd)
    os.execv(sys.executable, [sys.executable, file])


def _run_http(options: Any) -> None:
    server = _load(options)
    if server.engine.debug is None:
        from ..engines.addresses import is_loopback

        server.engine.debug = is_loopback(options.host) and not (options.allow_host or options.public)
    name = server.engine.identity["name"]
    if options.allow_host:
        # The address that is printed has to work too.
        local = ("localhost", "127.0.0.1", "[::1]")
        server.engine.allowed_hosts = frozenset([*(server.engine.allowed_hosts or ()), *options.allow_host, *local])

    def ready(listening: Any) -> None:
        url = f"{listening.url}/mcp"
        over_http = {"mcpServers": {name: {"type": "http", "url": url}}}
        command = [sys.executable, "-m", "minimcp", "run", os.path.abspath(options.target)]
        over_stdio = {"mcpServers": {name: {"command": command[0], "args": command[1:]}}}
        print(
            f"{name} is listening on {url}; try it: minimcp list {url}\n\n"
            f"To connect a host, put this into its MCP configuration:\n  {json.dumps(over_http)}\n"
            f"or let the host start the same file over stdio:\n  {json.dumps(over_stdio)}\n\n"
            "Stop the server with Ctrl-C.",
            file=sys.stderr,
            flush=True,
        )

    server.engine.public = server.engine.public or options.public
    tls = (options.tls_cert, options.tls_key) if options.tls_cert else None
    server.run_http(host=options.host, port=options.http, tls=tls, ca=options.tls_ca, ready=ready)
