"""The command `bridge`: one server over another transport, in every revision, with its own names and URIs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..client import targets
from ..client.sandbox import Sandbox
from ..client.variables import verbatim
from . import commands
from .gateway_command import complain, serve, serving_options

if TYPE_CHECKING:
    from ..gateway.gateway import Gateway

Message = dict[str, Any]

# A bridge leaves it to its clients how long a call may take.
LONGEST_S = 3600.0
DAY_S = 86_400.0


def bridge(options: Any) -> int:
    """Serve the target over stdio, or over HTTP with `--http PORT`."""
    from ..gateway import config
    from ..gateway.gateway import Gateway
    from ..transports import stdio

    pipes = stdio.take_pipes() if options.http is None else None
    with commands.logged("INFO" if options.verbose else None):
        try:
            entry, name = entry_of(options)
            entry.update(prefix="", mode=options.mode, timeout=LONGEST_S, maxTimeout=DAY_S, probe=0)
            entry["connectTimeout"] = min(options.timeout, 300.0)
            front = {"name": name, "status": False, "auth": "public" if options.public else None}
            settings = config.read({"mcpServers": {name: entry}, "gateway": front})
            if options.login:
                (only,) = settings.upstreams.values()
                only = only._replace(credentials=commands.login(options.login))
                settings = settings._replace(upstreams={name: only})
            made = Gateway(settings, **serving_options(options))
        except (OSError, ValueError) as problem:
            return complain(problem, 2)
        allow_hosts(made, options.allow_host)
        return serve(made, options, pipes)


def allow_hosts(made: Gateway, names: list[str]) -> None:
    """Serve requests for further host names, beside those of this machine."""
    if names:
        made.engine.allowed_hosts = frozenset([*names, "localhost", "127.0.0.1", "[::1]"])


def entry_of(options: Any) -> tuple[Message, str]:
    """Return the `mcpServers` entry of the target, and the name of the server.

    :raises ValueError: when it is no target, or an option does not apply to it.
    """
    target, _ = commands.target_of(options.target)
    given: Message = {
        "headers": dict(commands.pair(word, ":", "--header 'NAME: VALUE'") for word in options.header),
        "env": dict(commands.pair(word, "=", "--env NAME=VALUE") for word in options.env),
        "sandbox": Sandbox.settings(options.sandbox) if options.sandbox is not None else None,
    }
    entry, name = targets.as_entry(target, options.server)
    if options.login and "url" not in entry:
        raise ValueError("--login is for HTTP; a process gets its credentials by --env")
    for key, value in given.items():
        if value and ("url" in entry) != (key == "headers"):
            raise ValueError(f"--{key.rstrip('s')} does not apply to this target")
        if value:
            entry = {**entry, key: {**(entry.get(key) or {}), **verbatim(value)}}
    if not str(target).lower().endswith(".json"):
        name = urlsplit(name).netloc or os.path.basename(name)
    return dict(entry), name[:100].strip() or "server"
