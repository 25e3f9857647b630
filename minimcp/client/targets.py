"""Targets of a client: a URL, a command, an `mcpServers` entry or file, a Server, a WSGI callable."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Callable
from typing import Any, Optional

from .transports.transport import Transport

Message = dict[str, Any]
Make = Callable[[], Transport]

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
_ENTRY = "an entry has a command (with args, env, cwd) or a url (with headers)"


class Target:
    """A resolved target.

    :ivar transports: functions that make the transport to try first, and those to fall back to.
    :ivar key: names the server among all others.
    :ivar name: the server's name in messages to people.
    """

    def __init__(self, transports: list[Make], key: str, name: str) -> None:
        self.transports = transports
        self.key = key
        self.name = name


def read(target: Any, server: Optional[str], options: Message) -> Target:
    """Resolve a target.

    :param server: the name of the entry in a file with several.
    :param options: `headers auth session env cwd stderr limits`, for the transports that know them.
    :raises ValueError: when the target is not supported.
    :raises TypeError: likewise, by type.
    """
    if hasattr(target, "engine") and not callable(target):
        from .transports.memory import MemoryTransport

        return Target([lambda: MemoryTransport(target.engine)], f"memory:{id(target)}", target.engine.identity["name"])
    if isinstance(target, dict):
        return _entry(pick(target, server), options)
    if isinstance(target, (list, tuple)):
        return _command([os.fspath(part) for part in target], options)
    if isinstance(target, (str, os.PathLike)):
        return _text(os.fspath(target), server, options)
    if callable(target):
        from .transports.wsgi import WsgiTransport

        known = {key: value for key, value in options.items() if key in ("headers", "auth") and value is not None}
        return Target([lambda: WsgiTransport(target, **known)], f"wsgi:{id(target)}", "the WSGI application")
    raise TypeError(
        "A client needs a URL, a command, an mcpServers entry or file, a Server or a WSGI callable, "
        f"not {type(target).__name__}"
    )


def _text(target: str, server: Optional[str], options: Message) -> Target:
    if target.lower().startswith(("http://", "https://")):
        return _url(target, None, options)
    if target.endswith(".json") and os.path.isfile(target):
        with open(target, encoding="utf-8") as file:
            return _entry(pick(json.load(file), server), options)
    if target.endswith(".py") and os.path.isfile(target):
        return _command([sys.executable, target], options)
    # On Windows a backslash separates folders.
    parts = shlex.split(target, posix=os.name == "posix")
    if not parts:
        raise ValueError("The target is empty; give a URL, a command or a file")
    return _command(parts, options)


def entries(config: Any) -> dict[str, Message]:
    """Return the entries of a dict or file of the `mcpServers` form, by name.

    :raises ValueError: when it has another form.
    """
    if isinstance(config, (str, os.PathLike)):
        with open(config, encoding="utf-8") as file:
            config = json.load(file)
    found = config.get("mcpServers", config.get("servers")) if isinstance(config, dict) else None
    if not isinstance(found, dict) or not all(isinstance(entry, dict) for entry in found.values()):
        raise ValueError('A configuration has the form {"mcpServers": {NAME: {...}}}; ' + _ENTRY)
    return found


def pick(config: Message, server: Optional[str]) -> Message:
    """Return one entry of a configuration, or the dict itself when it is one."""
    if "mcpServers" not in config and "servers" not in config:
        return config
    found = entries(config)
    if server is None and len(found) == 1:
        return next(iter(found.values()))
    if server not in found:
        raise ValueError(f"Say which server: server= one of {', '.join(map(repr, sorted(found)))}")
    return found[server]


def _entry(entry: Message, options: Message) -> Target:
    entry = _expand(entry)
    if isinstance(entry.get("url"), str):
        given = {**(entry.get("headers") or {}), **(options.get("headers") or {})}
        return _url(entry["url"], entry.get("type", entry.get("transport")), {**options, "headers": given})
    if isinstance(entry.get("command"), str):
        arguments = entry.get("args") or []
        if not isinstance(arguments, list):
            raise ValueError("args must be a list of strings")
        env = {**(entry.get("env") or {}), **(options.get("env") or {})}
        cwd = options.get("cwd") or entry.get("cwd")
        return _command([entry["command"], *map(str, arguments)], {**options, "env": env, "cwd": cwd})
    raise ValueError(f"This is not a server entry: {_ENTRY}")


def _expand(value: Any) -> Any:
    """Replace `${NAME}` and `${NAME:-default}` by the environment, as hosts do.

    :raises ValueError: for a variable that is not set and has no default.
    """
    if isinstance(value, dict):
        return {key: _expand(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item) for item in value]
    return _VARIABLE.sub(_variable, value) if isinstance(value, str) else value


def _variable(found: re.Match[str]) -> str:
    value = os.environ.get(found.group(1), found.group(2))
    if value is None:
        raise ValueError(f"The configuration needs the environment variable {found.group(1)}, which is not set")
    return value


def _url(url: str, kind: Optional[str], options: Message) -> Target:
    known = {key: options[key] for key in ("headers", "auth", "session", "limits") if options.get(key) is not None}
    if hasattr(known.get("auth"), "for_server"):
        # HTTP+SSE has two addresses, which take the same token.
        known["auth"] = known["auth"].for_server(url)

    def streamable() -> Transport:
        from .transports.http import HttpTransport

        return HttpTransport(url, **known)

    def two_endpoints() -> Transport:
        from .transports.http_sse import HttpSseTransport

        return HttpSseTransport(url, **known)

    transports: list[Make] = [two_endpoints] if kind == "sse" else [streamable, two_endpoints]
    return Target(transports, url, url)


def _command(command: list[str], options: Message) -> Target:
    known = {key: options[key] for key in ("env", "cwd", "stderr", "limits") if options.get(key) is not None}

    def process() -> Transport:
        from .transports.stdio import StdioTransport

        return StdioTransport(command, **known)

    return Target([process], "stdio:" + shlex.join(command), command[0])
