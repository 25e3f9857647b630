"""The configuration of a gateway: an `mcpServers` file with keys of the gateway beside those of hosts."""

from __future__ import annotations

import json
import os
import stat
import sys
from typing import Any, NamedTuple, Optional, Union

from ..client.host_files import load, read_bytes
from ..client.variables import anchored
from .checks import Place, members
from .gateway_options import make_auth, read_options
from .upstream_options import read_server

Message = dict[str, Any]


class Filter(NamedTuple):
    """Patterns of names, in which `*` stands for anything; what is denied is not listed and cannot be used."""

    allow: tuple[str, ...] = ("*",)
    deny: tuple[str, ...] = ()


class UpstreamSettings(NamedTuple):
    """The settings of one server behind the gateway; times are in seconds.

    :ivar name: its key in the configuration.
    :ivar entries: the `mcpServers` entry of each of its replicas.
    :ivar prefix: stands before the names of its tools and prompts, "" for none.
    :ivar uri_prefix: stands before its URIs, "" for none.
    :ivar sessions: who shares a legacy session: "own": nobody, "principal": the sessions of one caller, "shared": all.
    :ivar trusted: whether its annotations of tools and its caching hints are believed.
    :ivar credentials: how a connection to it authenticates itself, beside the headers of its entry: a dict, what
        `Client(auth=)` takes, or None.
    :ivar forward_headers: the headers of a caller that it gets.
    :ivar expect_tools: the tools without which a replica does not count as healthy.
    :ivar probe_s: the time between two probes of a replica; 0 for none.
    :ivar fingerprint: differs when anything of this does, or a variable in it; it shows nothing of what it is made of.
    """

    name: str
    entries: tuple[Message, ...]
    prefix: str = ""
    uri_prefix: str = ""
    mode: str = "auto"
    timeout_s: float = 60.0
    max_timeout_s: float = 600.0
    connect_timeout_s: float = 10.0
    concurrency: int = 100
    sessions: str = "own"
    max_sessions: int = 64
    idle_s: float = 600.0
    trusted: bool = False
    disabled: bool = False
    credentials: Any = None
    forward_headers: tuple[str, ...] = ()
    tools: Filter = Filter()
    resources: Filter = Filter()
    prompts: Filter = Filter()
    expect_tools: tuple[str, ...] = ()
    probe_s: float = 15.0
    fingerprint: str = ""

    def __repr__(self) -> str:
        # An entry may have secrets.
        return f"<settings of the server {self.name!r}, {len(self.entries)} replicas>"


class GatewaySettings(NamedTuple):
    """A configuration that has been read and checked.

    :ivar upstreams: the servers by name, in the order of the file.
    :ivar options: the members of "gateway", under names such as `public_url`, each with its default.
    :ivar path: the file that it was read from, or None.
    :ivar notes: what is right and yet should be known, such as a key of a host that has no effect here.
    """

    upstreams: dict[str, UpstreamSettings]
    options: Message
    path: Optional[str] = None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<settings of a gateway for {', '.join(map(repr, self.upstreams)) or 'no server'}>"


Settings = GatewaySettings

_LONGEST_NAME = 200
# Keys that hosts have beside their servers.
_OF_HOSTS = (
    "$schema",
    "inputs",
    "globalShortcut",
    "preferences",
    "scale",
    "isUsingBuiltInNodeForMcp",
    "version",
    "name",
)


def read(source: Union[Message, str, os.PathLike[str]]) -> Settings:
    """Read and check a configuration: a dict, or the path of a JSON or TOML file.

    Variables stay as they are in the entries of servers, until a client is made of one; elsewhere they are replaced.

    :raises ValueError: naming the place that is wrong and what was probably meant.
    """
    path = None if isinstance(source, dict) else os.fspath(source)
    found = _plain(source) if isinstance(source, dict) else _load(os.fspath(source))
    folder = os.getcwd() if path is None else os.path.dirname(os.path.abspath(path))
    where = "" if path is None else f"{path}: "
    place = Place("", folder)
    try:
        settings = _settings(found, path, place)
        open_to_all = path is not None and os.name == "posix" and os.stat(path).st_mode & stat.S_IWOTH
        note = "Everybody on this machine can write this file, and with it start programs: chmod o-w"
        return settings._replace(notes=(*settings.notes, note)) if open_to_all else settings
    except RecursionError:
        raise ValueError(f"{where}Values are nested too deeply within each other") from None
    except ValueError as problem:
        raise ValueError(where + place.redact(str(problem))) from None


def diff(old: Settings, new: Settings) -> dict[str, list[str]]:
    """Return what becomes of each server when one configuration takes the place of another, by content.

    :return: `{"added", "removed", "changed", "kept": names of servers, "options": names of options that differ}`.
    """
    both = [name for name in new.upstreams if name in old.upstreams]
    kept = [name for name in both if new.upstreams[name] == old.upstreams[name]]
    return {
        "added": [name for name in new.upstreams if name not in old.upstreams],
        "removed": [name for name in old.upstreams if name not in new.upstreams],
        "changed": [name for name in both if name not in kept],
        "kept": kept,
        "options": sorted(
            name for name in {**old.options, **new.options} if old.options.get(name) != new.options.get(name)
        ),
    }


def _plain(source: Message) -> Message:
    """Return a copy of a dict as a file would have it."""
    try:
        copied: Message = json.loads(json.dumps(source))
    except (TypeError, ValueError, RecursionError) as problem:
        raise ValueError(f"The configuration has no JSON form: {problem}") from None
    return copied


def _load(path: str) -> Any:
    try:
        if not path.lower().endswith(".toml"):
            return load(path)
        if sys.version_info >= (3, 11):
            import tomllib

            try:
                found = tomllib.loads(read_bytes(path).decode())
            except (ValueError, RecursionError) as problem:
                raise ValueError(f"{path}: This is not TOML: {problem}") from None
            return anchored(found, os.path.dirname(os.path.abspath(path)))
        raise ValueError(f"{path}: TOML is read with Python 3.11 or later; write the file as JSON")
    except FileNotFoundError:
        raise ValueError(f"There is no file {path!r}") from None
    except OSError as problem:
        raise ValueError(f"{path}: {problem.strerror}") from None


def _settings(found: Any, path: Optional[str], place: Place) -> Settings:
    if not isinstance(found, dict) or not ("mcpServers" in found or "servers" in found):
        raise ValueError('A configuration has the form {"mcpServers": {NAME: {...}}, "gateway": {...}}')
    members(found, place, ("mcpServers", "servers", "gateway"), _OF_HOSTS)
    if "mcpServers" in found and "servers" in found:
        raise ValueError('There are both "mcpServers" and "servers"; put the servers into one of them')
    key = "mcpServers" if "mcpServers" in found else "servers"
    entries = found[key]
    if not isinstance(entries, dict):
        raise place.at(key).wrong("must be an object of servers by name")
    upstreams, notes = {}, []
    for name, entry in entries.items():
        if not name.strip() or len(name) > _LONGEST_NAME:
            raise place.at(key).wrong(f"has a server whose name has no letters, or more than {_LONGEST_NAME}")
        upstreams[name], told = read_server(name, entry, place.named(f"The server {name[:100]!r}:"))
        notes += told
    _check_prefixes(upstreams)
    options = read_options(found.get("gateway"), place.at("gateway"), list(upstreams))
    _check_credentials(upstreams, options)
    return Settings(upstreams, options, path, tuple(notes))


def _check_credentials(upstreams: dict[str, UpstreamSettings], options: Message) -> None:
    """Make what the servers that are used authenticate with, so that an error in it is one of the configuration."""
    secured = [each for each in upstreams.values() if each.credentials is not None and not each.disabled]
    if secured:
        from .credentials import Credentials

        auth = make_auth(options)
        for settings in secured:
            Credentials(settings, auth, options["public_url"])


def _check_prefixes(upstreams: dict[str, UpstreamSettings]) -> None:
    """Refuse two servers whose names or URIs would be mixed up."""
    for field, what in (("prefix", "names"), ("uri_prefix", "URIs")):
        owners: dict[str, str] = {}
        for name, settings in upstreams.items():
            prefix = getattr(settings, field)
            if prefix and owners.setdefault(prefix, name) != name:
                raise ValueError(
                    f"The servers {owners[prefix]!r} and {name!r} have the same prefix {prefix!r} before their {what}; "
                    'give one of them another "prefix"'
                )
