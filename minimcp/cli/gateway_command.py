"""The command `gateway`: serves many servers as one, and tells what a configuration of it says."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    from ..gateway.config import GatewaySettings
    from ..gateway.gateway import Gateway


def add_gateway(commands: Any, port: Any, trace: str) -> None:
    """Add the command to a parser.

    :param port: reads a port; `trace` is the help of its option.
    """
    text = "serve many servers as one, from a file of the mcpServers form"
    parser = commands.add_parser(
        "gateway",
        help=text,
        description=text[0].upper() + text[1:] + ", over HTTP unless --stdio is given. It follows changes of the file.",
        epilog="exit codes: 0 done, 1 it could not be served, or --explain finds that it is denied, 2 an error in FILE",
    )
    parser.add_argument("file", metavar="FILE", help="the configuration, in JSON or TOML")
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--http", type=port, metavar="PORT", help="the port to listen on (default: that of the file)")
    ways.add_argument("--stdio", action="store_true", help="serve over stdio, as hosts start it")
    ways.add_argument("--check", action="store_true", help="read the file only, and say whether there is an error")
    ways.add_argument("--diff", metavar="OTHER", help="say what would change if OTHER took the place of the file")
    ways.add_argument(
        "--explain",
        nargs=2,
        metavar=("PRINCIPAL", "NAME"),
        help="say whether a caller may see and use a tool, prompt or resource: PRINCIPAL is the name of a key, words "
        "such as 'ada role:staff scope:read', or - for a caller without a credential",
    )
    parser.add_argument("--host", metavar="HOST", help="the address to listen on (default: that of the file)")
    parser.add_argument("--trace", metavar="FILE", help=trace)
    parser.add_argument("-v", "--verbose", action="store_true", help="show every request on standard error")
    parser.add_argument("--no-reload", action="store_true", help="do not follow changes of the file")


def gateway(options: Any) -> int:
    """Serve, or tell what was asked for; an error is one line on standard error."""
    from ..transports import stdio
    from .commands import logged

    # Taken away before anything else happens, so that nothing else reaches the protocol.
    pipes = stdio.take_pipes() if options.stdio else None
    with logged("INFO" if options.verbose else None):
        try:
            if options.check:
                return _check(options.file)
            if options.diff is not None:
                return _diff(options.file, options.diff)
            if options.explain is not None:
                return _explain(options.file, *options.explain)
        except ValueError as problem:
            return complain(problem, 2)
        return _serve(options, pipes)


def complain(problem: object, code: int) -> int:
    """Show an error on standard error and return the exit code."""
    print(f"minimcp: {problem}", file=sys.stderr)
    return code


def _read(file: str) -> GatewaySettings:
    from ..gateway import config

    settings = config.read(file)
    for note in settings.notes:
        print(f"minimcp: {file}: {note}", file=sys.stderr)
    return settings


def _check(file: str) -> int:
    settings = _read(file)
    found = settings.options
    disabled = sum(each.disabled for each in settings.upstreams.values())
    parts = [_count(len(settings.upstreams), "server") + (f" ({disabled} disabled)" if disabled else "")]
    parts += [_count(len(found[name]), name[:-1]) for name in ("rules", "rates", "endpoints") if found[name]]
    auth = [each if isinstance(each, str) else each[0] for each in found["auth"] or ()]
    parts.append(f"callers by {', '.join(auth)}" if auth else "no authentication, so that only this machine is served")
    print(f"{file}: {', '.join(parts)}; no error")
    return 0


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _diff(file: str, other: str) -> int:
    from ..gateway import config

    old, new = _read(file), _read(other)
    found = config.diff(old, new)
    for mark, what in (("+", "added"), ("-", "removed"), ("~", "changed"), ("=", "kept")):
        for name in found[what]:
            print(f"{mark} {what:8}{name!r}{_fields(old, new, name) if what == 'changed' else ''}")
    for name in found["options"]:
        print(f"~ option  {name}")
    return 0


def _fields(old: GatewaySettings, new: GatewaySettings, name: str) -> str:
    """Name what differs between two servers of one name, without the values, which may be secrets."""
    one, other = old.upstreams[name], new.upstreams[name]
    changed = [field for field in one._fields[:-1] if getattr(one, field) != getattr(other, field)]
    return f": {', '.join(changed) or 'what its variables stand for'}"


def _explain(file: str, principal: str, name: str) -> int:
    from ..gateway.gateway import Gateway
    from .explanation import caller, explanation

    settings = _read(file)
    who = caller(principal, settings.options)
    # Nothing is written by asking.
    quiet = {**settings.options, "audit": None, "log": "", "pins": None}
    with Gateway(settings._replace(options=quiet)) as made:
        allowed, lines = explanation(made, who, name)
    print("\n".join(lines))
    return 0 if allowed else 1


def _serve(options: Any, pipes: Optional[tuple[int, int]]) -> int:
    from ..gateway.gateway import Gateway
    from ..gateway.reload import Reloader

    reloader = Reloader(options.file)
    try:
        settings = _read(options.file)
        made = Gateway(settings, **serving_options(options))
    except ValueError as problem:
        return complain(problem, 2)
    except OSError as problem:
        return complain(problem, 1)
    told = logging.getLogger("minimcp.gateway")
    before = told.level
    told.setLevel("INFO")
    if not options.no_reload:
        reloader.start(made)
    try:
        return serve(made, options, pipes, f" for {_count(len(settings.upstreams), 'server')}")
    finally:
        reloader.stop()
        told.setLevel(before)


def serving_options(options: Any) -> dict[str, Any]:
    """Return the options of `Server` for `--trace` and `--verbose`."""
    found: dict[str, Any] = {}
    if options.trace is not None:
        found["trace"] = True if options.trace == "-" else options.trace
    if options.verbose:
        from types import SimpleNamespace

        from ..server.screen import Screen

        # As a hook of its author's it stays when a reload exchanges those of the gateway.
        shown: Any = SimpleNamespace(around_request=None)
        Screen(shown, verbose=True)
        found["around_request"] = shown.around_request
    return found


def serve(made: Gateway, options: Any, pipes: Optional[tuple[int, int]], what: str = "") -> int:
    """Serve a gateway over stdio, or over HTTP where there are no pipes.

    :param what: stands in the greeting after its name.
    """
    from ..server.screen import greet
    from ..transports import stdio

    name = made.engine.identity["name"]

    def ready(listening: Any) -> None:
        url = listening.url + made.settings.options["path"]
        said = f"{name}{what} is listening on {url}; try it: minimcp list {url}"
        print(said, file=sys.stderr, flush=True)

    try:
        if pipes is None:
            made.run_http(host=options.host, port=options.http, ready=ready)
        else:
            made.single = True
            greet(made.engine, "", pipes[0])
            stdio.serve(made.engine, pipes)
    except (OSError, ValueError) as problem:
        return complain(problem, 1)
    finally:
        made.close()
    return 0
