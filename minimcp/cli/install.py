"""The command `install`: writes a server into the configuration of a host, and takes it out again."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from typing import Any, Optional
from urllib.parse import urlsplit

from ..client import host_files, python_files, targets
from ..client.client import Client
from ..client.transports.command import join_words, split_words
from ..client.transports.process import SAID
from ..engines.errors import AuthorizationError, ClientError
from . import hosts, jsonc
from .commands import pair

Message = dict[str, Any]

_CHECK_S = 30.0


def install(options: Any) -> int:
    """Write an entry, print it, or undo that; an error is told in a line and changes nothing."""
    host = hosts.HOSTS[options.host]
    try:
        entry = _entry(options, host) if options.target is not None else None
        if options.undo:
            return _undo(options, host, _path(options, host), entry)
        if entry is None:
            raise ValueError("TARGET is missing: the server to install")
        name, offer = _look(options, _entry(options, hosts.HOSTS["json"]))
        shown = {host.key: {name: host.entry(entry)}}
        if options.print or (options.host == "json" and options.file is None):
            print(json.dumps(shown, indent=2))
            return 0
        return _write(options, host, _path(options, host), name, host.entry(entry), offer)
    except ClientError as problem:
        said = str(problem).partition(SAID)[0]
        return _complain(f"{said}\nNothing was written; --no-check writes it all the same", 1)
    except (OSError, ValueError) as problem:
        return _complain(str(problem), 2 if isinstance(problem, ValueError) else 1)


def _complain(text: str, code: int) -> int:
    print(f"minimcp: {text}", file=sys.stderr)
    return code


def _entry(options: Any, host: hosts.Host) -> Message:
    """Return the entry of the target, with absolute paths, since a host starts it in a folder of its own."""
    env = dict(pair(word, "=", "--env NAME=VALUE") for word in options.env)
    headers = dict(pair(word, ":", "--header 'NAME: VALUE'") for word in options.header)
    target, python = options.target, [sys.executable, "-m", "minimcp"]
    text = target if isinstance(target, str) else ""
    is_file = text.lower().endswith(".json") and os.path.isfile(text)
    if not is_file:
        targets.read(target, options.server, {})  # It is a target at all.
    path, name = python_files.split(text)
    if text.lower().startswith(("http://", "https://")):
        if env:
            raise ValueError("--env does not apply to a URL")
        if host.urls:
            return {"url": text, **({"headers": headers} if headers else {})}
        more = [word for key, value in headers.items() for word in ("--header", f"{key}: {value}")]
        return _process([*python, "bridge", text, *more], {})
    if headers:
        raise ValueError("--header does not apply to a process; give it --env NAME=VALUE")
    if is_file:
        found = targets.entries(text)
        if options.server is None and len(found) > 1:
            return _process([*python, "gateway", os.path.abspath(text), "--stdio"], env)
        picked = targets.pick(host_files.load(text), options.server, f"{text}: ")[0]
        return {**picked, "env": {**(picked.get("env") or {}), **env}} if env else picked
    if path.lower().endswith(".py") and os.path.isfile(path):
        return _process([*python, "run", os.path.abspath(path) + (f":{name}" if name else "")], env)
    words = target if isinstance(target, list) else split_words(text)
    program = shutil.which(words[0]) or words[0]
    return {
        "command": os.path.abspath(program) if os.path.exists(program) else program,
        "args": [_absolute(word) for word in words[1:]],
        **({"env": env} if env else {}),
    }


def _absolute(word: str) -> str:
    """Return an argument that names a file or folder here with its whole path, any other as it is."""
    return os.path.abspath(word) if not word.startswith("-") and os.path.exists(word) else word


def _process(words: list[str], env: dict[str, str]) -> Message:
    """Return the entry of a command of this package, which Python has to find without this process's environment."""
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if not _importable():
        env = {"PYTHONPATH": home, **env}
    return {"command": words[0], "args": words[1:], **({"env": env} if env else {})}


def _importable() -> bool:
    """Say whether Python finds this package where nothing helps it."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [sys.executable, "-c", "import minimcp.cli.hosts"]
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(command, env=env, cwd=folder, capture_output=True, check=False).returncode == 0


def _look(options: Any, entry: Message) -> tuple[str, str]:
    """Start the server once, and return a name for it and what it offers.

    :raises ClientError: when it does not start.
    """
    given, offer = options.name, ""
    if options.name is not None and not re.fullmatch(r"[A-Za-z0-9_-]{1,60}", options.name):
        raise ValueError("--name is up to 60 of A-Z a-z 0-9 _ -")
    if not options.no_check:
        try:
            with Client(entry, timeout=_CHECK_S, info={"name": "minimcp-install", "version": "1"}) as client:
                given = given or str(client.server_info.get("name"))
                counts = {"tool": len(client.list_tools()), "resource": len(client.list_resources())}
                counts["prompt"] = len(client.list_prompts())
            parts = [f"{count} {kind}{'s' * (count != 1)}" for kind, count in counts.items() if count]
            offer = f" ({', '.join(parts) or 'it offers nothing yet'})"
        except AuthorizationError:
            offer = " (it wants a login)"
    return _name(given or _named(options.target)), offer


def _named(target: Any) -> str:
    """Return a name for a server that did not say its own."""
    words = target if isinstance(target, list) else [python_files.split(target)[0]]
    if "://" in words[0]:
        return urlsplit(words[0]).hostname or "server"
    return os.path.splitext(os.path.basename(words[-1]))[0]


def _name(text: str) -> str:
    """Return a name that all hosts take."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")[:60] or "server"


def _path(options: Any, host: hosts.Host) -> str:
    """Return the path of the configuration; a link is followed.

    :raises ValueError: when the host has none here.
    """
    if options.file is not None:
        return str(os.path.realpath(options.file))
    if options.project is not None:
        if not host.project:
            raise ValueError(f"{host.title} has no configuration of a project")
        return os.path.realpath(host.path(options.project))
    if options.host == "json":
        raise ValueError("--file FILE is missing: the configuration to change")
    path = os.path.realpath(host.path())
    if not os.path.isdir(os.path.dirname(path)):
        raise ValueError(
            f"{host.title} is not here: there is no folder {os.path.dirname(path)}; --file FILE names its configuration"
        )
    return path


def _read(path: str) -> tuple[bytes, str, Message]:
    """Return a configuration as bytes, as text and as its value; a file that is not there is empty."""
    raw = host_files.read_bytes(path) if os.path.exists(path) else b""
    try:
        text = raw.decode("utf-8-sig")
        value = host_files.parsed(text) if text.strip() else {}
    except (ValueError, RecursionError) as problem:
        raise ValueError(f"{path}: This is not JSON: {problem}; nothing was changed") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: This is no JSON object; nothing was changed")
    return raw, text, value


def _servers(path: str, key: str, value: Message) -> Message:
    servers = value.get(key, {})
    if not isinstance(servers, dict):
        raise ValueError(f"{path}: {key!r} is not an object; nothing was changed")
    return servers


def _write(options: Any, host: hosts.Host, path: str, name: str, entry: Message, offer: str) -> int:
    raw, text, value = _read(path)
    servers = _servers(path, host.key, value)
    if servers.get(name) == entry:
        print(f"{name}{offer} is in {path} already.", file=sys.stderr)
        return 0
    changed = jsonc.put(text, [host.key, name], entry)
    if host_files.parsed(changed) != {**value, host.key: {**servers, name: entry}}:
        raise ValueError(f"{path} cannot be changed safely; --print shows what belongs there")
    kept = _backup(path, name)
    copied = bool(raw) and not os.path.exists(kept)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        if copied:
            shutil.copy2(path, kept)
        _replace(path, raw, changed)
    except BaseException:
        if copied:
            os.unlink(kept)
        raise
    said = [f"{name}{offer} is in {path}{', in place of another of that name' if name in servers else ''}."]
    if raw:
        said.append(f"The file as it was is {kept}.")
    undo = join_words(["minimcp", "install", options.host, "--undo", "--name", name, *_where(options)])
    said += [host.then, f"To undo this: {undo}"]
    print("\n".join(filter(None, said)), file=sys.stderr)
    return 0


def _where(options: Any) -> list[str]:
    file = ["--file", options.file] if options.file is not None else []
    return [*file, *(["--project", options.project] if options.project is not None else [])]


def _backup(path: str, name: str) -> str:
    """Return the path of the file as it was before the first change of an entry."""
    return f"{path}.before-{name}"


def _replace(path: str, before: bytes, text: str) -> None:
    """Replace a file by a text, unless somebody else has changed it meanwhile; there is no moment without a whole file.

    :raises OSError: when that is not possible.
    """
    mark = b"\xef\xbb\xbf" if before.startswith(b"\xef\xbb\xbf") else b""
    handle, name = tempfile.mkstemp(dir=os.path.dirname(path), prefix=f".{os.path.basename(path)}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(mark + text.encode())
        if os.path.exists(path):
            shutil.copymode(path, name)
        if (host_files.read_bytes(path) if os.path.exists(path) else b"") != before:
            raise OSError(f"{path} has changed this moment; nothing was changed, try again")
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _undo(options: Any, host: hosts.Host, path: str, entry: Optional[Message]) -> int:
    """Put an entry back to what it was before `install`; everything else in the file stays as it is now."""
    raw, text, value = _read(path)
    servers = _servers(path, host.key, value)
    name = _installed(options, host, path, servers, entry)
    kept, place = _backup(path, name), [host.key, name]
    found = servers.get(name)
    had = os.path.exists(kept)
    old_raw, old_text, old_value = _read(kept) if had else (b"", "", {})
    if found is not None and jsonc.put(old_text, place, found) == text:
        # Nothing else was changed.
        if had:
            _replace(path, raw, old_text)
        else:
            os.unlink(path)
    elif had or (entry is not None and _same(found, host.entry(entry))):
        old = _servers(kept, host.key, old_value).get(name)
        _replace(path, raw, jsonc.take(text, place) if old is None else jsonc.put(text, place, old))
    else:
        raise ValueError(f"{name!r} in {path} does not come from here, as far as one can see; take it out by hand")
    if had:
        os.unlink(kept)
    print(f"The installation of {name} in {path} is undone.", file=sys.stderr)
    return 0


def _installed(options: Any, host: hosts.Host, path: str, servers: Message, entry: Optional[Message]) -> str:
    """Return the name of the entry that is meant."""
    if options.name is not None:
        names: list[str] = (
            [options.name] if options.name in servers or os.path.exists(_backup(path, options.name)) else []
        )
    elif entry is not None:
        names = [name for name, each in servers.items() if _same(each, host.entry(entry))]
    else:
        raise ValueError("say which server: TARGET or --name NAME")
    if len(names) != 1:
        there = f"; there is {', '.join(servers)}" if servers else ""
        raise ValueError(f"{path} has {'several such servers' if names else 'no such server'}{there}: --name NAME")
    return names[0]


def _same(one: Any, other: Message) -> bool:
    """Say whether two entries are of one server, whatever its variables are."""
    keys = ("command", "args", "url")
    return isinstance(one, dict) and [one.get(key) for key in keys] == [other.get(key) for key in keys]
