"""Targets of a client: a URL, a command, an `mcpServers` entry or file, a Server, a WSGI callable."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional
from urllib.parse import urlsplit

from ..engines.addresses import is_local, is_loopback, without_secrets
from ..engines.errors import ConnectionLost
from ..engines.fork import number_of
from . import python_files
from .host_files import load
from .transports.command import environment, find, shown, split_words
from .transports.server_lines import ServerLines
from .transports.transport import Transport
from .variables import expand, verbatim

if TYPE_CHECKING:
    from .sandbox import Sandbox

Message = dict[str, Any]
Make = Callable[[], Transport]

# A host, as it is often written without a scheme, and the path.
_NO_SCHEME = re.compile(
    r"(?:(?:localhost|[\d.]{7,15}|\[[0-9a-fA-F:]+\])(?::\d+)?|[\w.-]+:\d+|[\w-]+(?:\.[\w-]+)+(?=/))(/.*)?\Z"
)
_ENTRY = "an entry has a command (with args, env, cwd, sandbox) or a url (with headers)"

# The options of a client that depend on the kind of its target.
_HTTP = ("headers", "auth", "session", "limits")
_WSGI = ("headers", "auth", "limits")
_PROCESS = ("env", "cwd", "stderr", "sandbox", "limits")
_ELSEWHERE = {
    "headers": "is for HTTP; a process gets its credentials by env=",
    "auth": "is for HTTP; a process gets its credentials by env=",
    "session": "is for HTTP servers with a URL",
    "env": "is for a process that the client starts",
    "cwd": "is for a process that the client starts",
    "stderr": "is for a process that the client starts",
    "sandbox": "is for a process that the client starts",
    "limits": "is for servers outside this process",
}


class Target:
    """A resolved target.

    :ivar transports: functions that make the transport to try first, and those to fall back to.
    :ivar key: names the server among all others; it may hold secrets.
    :ivar name: the server's name in messages to people; `shown` is where it is, without secrets.
    :param lasting: returns what `identity` is.
    """

    def __init__(
        self, transports: list[Make], key: str, name: str, shown: str = "", lasting: Optional[Callable[[], str]] = None
    ) -> None:
        self.transports = transports
        self.key = key
        self.name = name
        self.shown = shown or key
        self._lasting = lasting

    @functools.cached_property
    def identity(self) -> str:
        """Names the server for other processes, too, such as later ones; "" where nothing surely does.

        A server of this process has but a number, and over plain HTTP anybody on the way can be the server.
        """
        return self._lasting() if self._lasting is not None else ""

    @property
    def is_process(self) -> bool:
        """Whether the client starts the server."""
        return self.key.startswith("stdio:")


def read(target: Any, server: Optional[str], options: Message) -> Target:
    """Resolve a target.

    :param server: the name of the entry in a file with several.
    :param options: `headers auth session env cwd stderr sandbox limits`, for the transports that know them.
    :raises ValueError: when the target is not supported, or does not know an option.
    :raises TypeError: likewise, by type.
    """
    config = isinstance(target, dict) or str(target).lower().endswith(".json")
    if server is not None and not config:
        raise ValueError("server= cannot be used for this target: it is for an mcpServers file, which may have several")
    if hasattr(target, "engine") and not callable(target):
        from .transports.memory import MemoryTransport

        _known(options, ())
        key = f"memory:{number_of(target)}"
        return Target([lambda: MemoryTransport(target.engine)], key, target.engine.identity["name"])
    if isinstance(target, dict):
        return _entry(*pick(target, server), options)
    if isinstance(target, (list, tuple)):
        return _command([os.fspath(part) for part in target], options)
    if isinstance(target, (str, os.PathLike)):
        return _text(target, server, options)
    if callable(target) and not isinstance(target, type) and _takes_two(target):
        from .transports.wsgi import WsgiTransport

        known = _known(_with_token(options), _WSGI)
        key = f"wsgi:{number_of(target)}"
        return Target([lambda: WsgiTransport(target, **known)], key, "the WSGI application")
    named = getattr(target, "__name__", "")
    kind = "class" if isinstance(target, type) else "function" if inspect.isroutine(target) else type(target).__name__
    raise TypeError(
        "A client needs a URL, a command, a Python file, an mcpServers entry or file, a Server or a WSGI callable, "
        f"not {f'the {kind} {named}' if named else kind}"
    )


def _takes_two(function: Callable[..., Any]) -> bool:
    """Say whether a callable may be a WSGI application, which takes an environ and start_response."""
    try:
        inspect.signature(function).bind({}, print)
    except TypeError:
        return False
    except ValueError:
        pass  # It does not say.
    return True


def _known(options: Message, names: tuple[str, ...]) -> Message:
    """Return the options that were given.

    :raises ValueError: for one that such a target does not know, since it would be lost without a word.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in names:
            raise ValueError(f"{name}= cannot be used for this target: it {_ELSEWHERE[name]}")
    return given


def _with_token(options: Message) -> Message:
    """Return the options with a bearer token that was given as `auth=` among the headers.

    :raises ValueError: when the headers have credentials too.
    """
    token, headers = options.get("auth"), options.get("headers") or {}
    if not isinstance(token, str):
        return options
    if any(name.lower() == "authorization" for name in headers):
        raise ValueError("auth= and headers= both have credentials; give one of them")
    words = token.split()
    if len(words) != 1 and not (len(words) == 2 and words[0].lower() == "bearer"):
        raise ValueError(
            "auth= is a bearer token, which has no spaces, or a user and a password: auth=(user, password)"
        )
    return {**options, "auth": None, "headers": {**headers, "Authorization": f"Bearer {words[-1]}"}}


def _text(target: Any, server: Optional[str], options: Message) -> Target:
    text = os.fspath(target)
    if text.lower().startswith(("http://", "https://")):
        return _url(text, None, options)
    path, name = python_files.split(text)
    is_file = os.path.isfile(path)
    if is_file and path.lower().endswith(".py"):
        return _python(path, name, options)
    if is_file and path.lower().endswith(".json"):
        return _entry(*pick(load(text), server, f"{text}: "), options, f"{text}: ")
    parts = [text] if isinstance(target, os.PathLike) else split_words(text)
    if not parts:
        raise ValueError("The target is empty; give a URL, a command or a file")
    if len(parts) == 1 and shutil.which(text) is None and not is_file:
        _check_no_url(text)
    meant = path.lower().endswith((".json", ".py")) or os.path.isfile(f"{path}.py")
    if meant and not is_file and (len(parts) == 1 or shutil.which(parts[0]) is None):
        raise ValueError(python_files.no_file(path))
    return _command(parts, options)


def _check_no_url(text: str) -> None:
    """Refuse a URL that is not written in full, which would be run as a command.

    :raises ValueError: with what to write.
    """
    if "://" in text:
        raise ValueError(f"The URL of a server begins with http:// or https://, not with {text.partition('://')[0]}://")
    found = _NO_SCHEME.match(text)
    if found:
        url = f"{'http' if is_local(f'http://{text}') else 'https'}://{text}{'' if found[1] else '/mcp'}"
        raise ValueError(f"There is no command {text!r}; if it is a URL, write {url}")


def _python(path: str, name: str, options: Message) -> Target:
    """Return the target for a Python file.

    :param name: the name of a Server in the file, or "".
    """
    python_files.check_hidden(path, options.get("cwd") or os.curdir)
    name = f":{name}" if name else ""
    entry = python_files.entry((os.path.abspath(path) if options.get("cwd") else path) + name)
    env = {**entry["env"], **(options.get("env") or {})}
    made = _command([entry["command"], *entry["args"]], {**options, "env": env})
    made.name = path + name
    return made


def as_entry(target: Any, server: Optional[str] = None) -> tuple[Message, str]:
    """Return the `mcpServers` entry that stands for a target outside this process, and the name of its server.

    :raises ValueError: for a target that is none.
    """
    name = read(target, server, {}).name
    if isinstance(target, (list, tuple)):
        words = [os.fspath(part) for part in target]
    elif isinstance(target, dict):
        return pick(target, server)
    else:
        text = os.fspath(target)
        if text.lower().startswith(("http://", "https://")):
            return {"url": verbatim(text)}, name
        if text.lower().endswith(".json") and os.path.isfile(text):
            return pick(load(text), server)
        path = python_files.split(text)[0]
        if path.lower().endswith(".py") and os.path.isfile(path):
            return verbatim(python_files.entry(text)), name
        words = [text] if isinstance(target, os.PathLike) else split_words(text)
    return verbatim({"command": words[0], "args": words[1:]}), name


def entries(config: Any, where: str = "") -> dict[str, Message]:
    """Return the entries of a dict or file of the `mcpServers` form, by name.

    :param where: names the file in messages.
    :raises ValueError: when it has another form.
    """
    if isinstance(config, (str, os.PathLike)):
        return entries(load(config), f"{os.fspath(config)}: ")
    found = config.get("mcpServers", config.get("servers")) if isinstance(config, dict) else None
    if not isinstance(found, dict) or not all(isinstance(entry, dict) for entry in found.values()):
        raise ValueError(where + 'A configuration has the form {"mcpServers": {NAME: {...}}}; ' + _ENTRY)
    return found


def pick(config: Any, server: Optional[str], where: str = "") -> tuple[Message, str]:
    """Return one entry of a configuration and its name, or the dict itself, without one, when it is an entry."""
    if isinstance(config, dict) and "mcpServers" not in config and "servers" not in config:
        if server is not None:
            raise ValueError(f"{where}server= cannot be used for this target: it is one entry, without a name")
        return config, ""
    found = entries(config, where)
    if server is None and len(found) == 1:
        server = next(iter(found))
    if server not in found:
        names = ", ".join(map(repr, sorted(found)))
        told = f"Say which server: server= one of {names}"
        if server is not None:
            told = f"There is no server {server!r}; there are {names}"
        raise ValueError(where + (told if found else "There are no servers in it"))
    return found[server], server


def fitting(entry: Message, options: Message) -> Message:
    """Return the options of a client without those that an entry of this kind does not know."""
    names = _HTTP if isinstance(entry.get("url"), str) else _PROCESS
    return {name: value for name, value in options.items() if name in names or name not in _ELSEWHERE}


def _entry(entry: Message, name: str, options: Message, where: str = "") -> Target:
    try:
        is_url = isinstance(entry.get("url"), str)
        known = ("url", "headers", "sandbox") if is_url else ("command", "args", "env", "cwd", "sandbox")
        entry = {**entry, **{key: expand(entry[key], key) for key in known if key in entry}}
        if is_url:
            if entry.get("sandbox") is not None:
                raise ValueError("a sandbox is for a process that the client starts")
            kind = entry.get("type", entry.get("transport"))
            given = {**_texts(entry, "headers"), **(options.get("headers") or {})}
            return _url(entry["url"], kind, {**options, "headers": given or None})
        if isinstance(entry.get("command"), str):
            arguments = entry.get("args") or []
            if not isinstance(arguments, list):
                raise ValueError("args must be a list of strings")
            words = [_as_text(word, f"args[{place}]") for place, word in enumerate(arguments)]
            env = {**_texts(entry, "env"), **(options.get("env") or {})}
            cwd = options.get("cwd") or (_as_text(entry["cwd"], "cwd") if entry.get("cwd") else None)
            given = {**options, "env": env, "cwd": cwd, "sandbox": _sandbox(entry, options.get("sandbox"))}
            return _command([entry["command"], *words], given)
        raise ValueError(f"This is not a server entry: {_ENTRY}")
    except ValueError as problem:
        raise ValueError(where + (f"The server {name!r}: " if name else "") + str(problem)) from None


def _sandbox(entry: Message, given: Optional[Sandbox]) -> Optional[Sandbox]:
    """Return the sandbox of an entry, or the one that the client was given."""
    settings = entry.get("sandbox")
    if settings is None:
        return given
    if given is not None:
        raise ValueError("it has a sandbox of its own, so sandbox= cannot be given too")
    if not isinstance(settings, dict):
        raise ValueError("sandbox must be an object of options")
    from .sandbox import Sandbox

    return Sandbox.of(settings)


def _texts(entry: Message, key: str) -> dict[str, str]:
    """Return a member of an entry that is an object of texts; null is no value."""
    found = entry.get(key) or {}
    if not isinstance(found, dict):
        raise ValueError(f"{key} must be an object of strings")
    return {name: _as_text(value, f"{key}.{name}") for name, value in found.items() if value is not None}


def _as_text(value: Any, place: str) -> str:
    """Return a text, or a number or boolean as text.

    :raises ValueError: for anything else.
    """
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    if not isinstance(value, str):
        raise ValueError(f"{place} must be a string, not {type(value).__name__}")
    return value


def _url(url: str, kind: Any, options: Message) -> Target:
    known = _known(_with_token(options), _HTTP)
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
    bare = without_secrets(url)
    parts = urlsplit(url)
    sure = parts.scheme.lower() == "https" or is_loopback(parts.hostname or "")
    return Target(transports, url, bare, bare, lambda: url if sure else "")


def _command(command: list[str], options: Message) -> Target:
    known = _known({**options, "env": options.get("env") or None}, _PROCESS)
    if "sandbox" in known and not hasattr(known["sandbox"], "wrap"):
        raise TypeError(f"sandbox= is a Sandbox, such as Sandbox(memory='512M'), not {known['sandbox']!r}")
    known.setdefault("stderr", ServerLines())
    limits = known.pop("limits", {})
    if "line_bytes" in limits:
        known["line_bytes"] = int(limits["line_bytes"])

    def process() -> Transport:
        from .transports.stdio import StdioTransport

        return StdioTransport(command, **known)

    # With another environment, folder or sandbox it is another server, and may be another user's.
    bounds = [repr(known["sandbox"])] if "sandbox" in known else []
    place = json.dumps([known.get("env"), str(known.get("cwd") or ""), *bounds], sort_keys=True, default=repr)
    key = f"stdio:{shlex.join(command)} {hashlib.sha256(place.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"

    def lasting() -> str:
        cwd = known.get("cwd")
        try:
            program = find(command, environment(known.get("env")), cwd)[0]
        except ConnectionLost:
            return ""
        # A program or an argument may be a path below the folder.
        return json.dumps([os.path.abspath(program), command[1:], os.path.abspath(cwd or os.curdir), place])

    return Target([process], key, command[0], f"stdio:{shown(command)}", lasting)
