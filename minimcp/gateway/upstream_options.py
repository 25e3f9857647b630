"""The options of one server: an `mcpServers` entry of hosts, with the gateway's own keys beside it."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
from typing import TYPE_CHECKING, Any

from ..client import targets
from ..client.negotiation import MODES
from ..server import names
from .checks import (
    Option,
    Place,
    fields,
    flag,
    json_object,
    known_fields,
    members,
    number,
    one_of,
    text,
    texts,
    whole,
)
from .forwarded import checked

if TYPE_CHECKING:
    from .config import UpstreamSettings

Message = dict[str, Any]

_ADDRESS = ("url", "serverUrl", "httpUrl")
_FOR_URL = ("headers", "type", "transport")
_FOR_PROCESS = ("args", "env", "cwd", "sandbox")
_ENTRY = (*_ADDRESS, "command", *_FOR_URL, *_FOR_PROCESS)
# Keys that hosts know and that mean nothing here.
_PASSED = frozenset(
    {
        *("description", "title", "displayName", "icon", "iconUrl", "version", "gallery", "note", "notes", "comment"),
        *("alwaysAllow", "autoApprove", "autoApproveTools", "trust", "alwaysLoad", "watchPaths", "dev", "source"),
        *("remoteConfigured", "start_on_launch", "autoStart", "oauthScopes", "sandboxEnabled", "instructions"),
    }
)
# Keys that hosts know and that change how a server is reached: whoever wrote them has to be told.
_MISSED = {
    "envFile": "is not read; name its variables in env",
    "headersHelper": "is not run; name the headers, with ${file:PATH} for secrets",
    "oauth": "is not used; the gateway authenticates itself by credentials",
    "auth": "is not used; the gateway authenticates itself by credentials",
    "authProviderType": "is not used; the gateway authenticates itself by credentials",
}
_LONGEST_PREFIX = 32
_MOST_REPLICAS = 100
_DAY_S = 86_400
# Fingerprints are of this process: somebody who sees one cannot try out what it may be of.
_KEY = os.urandom(32)


def _prefix(value: Any, place: Place) -> str:
    if not isinstance(value, str):
        raise place.wrong('must be a string, "" for none')
    found: str = place.expand(value)
    if not re.fullmatch(r"[A-Za-z0-9_-]*", found):
        raise place.wrong("has characters that names of tools cannot have; there are A to Z, a to z, 0 to 9, _ and -")
    if len(found) > _LONGEST_PREFIX:
        raise place.wrong(f"must have at most {_LONGEST_PREFIX} characters, since a name has 64 in all")
    return found


def _header_names(value: Any, place: Place) -> tuple[str, ...]:
    return tuple(checked(texts(value, place), place))


def _filter(value: Any, place: Place) -> Any:
    from .config import Filter

    if isinstance(value, (list, str)):
        return Filter(texts(value, place))
    return Filter(**fields(value, place, {"allow": Option(texts), "deny": Option(texts)}))


_OPTIONS = {
    "prefix": Option(_prefix),
    "mode": Option(one_of(*MODES)),
    "timeout": Option(number(0.1, 3600), name="timeout_s"),
    "maxTimeout": Option(number(0.1, _DAY_S), name="max_timeout_s"),
    "connectTimeout": Option(number(0.1, 300), name="connect_timeout_s"),
    "concurrency": Option(whole(1, 10_000)),
    "sessions": Option(one_of("own", "principal", "shared")),
    "maxSessions": Option(whole(1, 10_000)),
    "idle": Option(number(1, 7 * _DAY_S), name="idle_s"),
    "trusted": Option(flag),
    "disabled": Option(flag),
    "credentials": Option(json_object),
    "forwardHeaders": Option(_header_names),
    "tools": Option(_filter),
    "resources": Option(_filter),
    "prompts": Option(_filter),
    "expectTools": Option(texts),
    "probe": Option(number(0, 3600), name="probe_s"),
}
# The lists of tools, and the switch, as hosts write them.
_OF_HOSTS = {
    "disabledTools": Option(texts),
    "excludeTools": Option(texts),
    "includeTools": Option(texts),
    "enabled": Option(flag),
}


def read_server(name: str, entry: Message, place: Place) -> tuple[UpstreamSettings, list[str]]:
    """Read the entry of a server, and what whoever wrote it has to be told.

    :raises ValueError: naming the option that is wrong.
    """
    from .config import Filter, UpstreamSettings

    known = (*_OPTIONS, *_ENTRY, "replicas")
    members(entry, place, known, {*_PASSED, *_MISSED, *_OF_HOSTS})
    found = known_fields(entry, place, _OPTIONS)
    hosts = known_fields(entry, place, _OF_HOSTS)
    found["disabled"] = found.get("disabled", False) or not hosts.get("enabled", True)
    tools = found.get("tools", Filter(hosts.get("include_tools", ("*",))))
    left_out = (*hosts.get("disabled_tools", ()), *hosts.get("exclude_tools", ()))
    found["tools"] = tools._replace(deny=(*tools.deny, *left_out))
    _check_times(found, place)
    found.setdefault("prefix", _default_prefix(name))
    # A slug, but for its plus, which stands between the prefix of a URI and the URI.
    found["uri_prefix"] = names.slug(found["prefix"]).replace("+", "-")
    entries = _replicas(entry, place)
    content: list[Any] = list(entries)
    if not found["disabled"]:
        several = isinstance(entry.get("replicas"), list)
        places = (place.at("replicas").at(number_) if several else place for number_ in range(len(entries)))
        content = [_check_entry(each, where) for each, where in zip(entries, places)]
    made = UpstreamSettings(name=name, entries=entries, **found)
    notes = [f"{place.text} {key} {said}" for key, said in _MISSED.items() if key in entry]
    return made._replace(fingerprint=_fingerprint([content, made])), notes


def _check_times(found: Message, place: Place) -> None:
    """Make the longest time of a call no shorter than that without a sign of life."""
    timeout = found.get("timeout_s", 0.0)
    longest = found.get("max_timeout_s")
    if longest is None:
        found["max_timeout_s"] = max(600.0, timeout)
    elif longest < timeout:
        raise place.at("maxTimeout").wrong(f"must not be less than timeout, which is {timeout:g}")


def _default_prefix(name: str) -> str:
    """Make a prefix of a name; what is too long is cut, and ends in digits of a hash of the whole."""
    found = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    if len(found) <= _LONGEST_PREFIX:
        return found
    digits = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return f"{found[: _LONGEST_PREFIX - 7]}-{digits}"


def _replicas(entry: Message, place: Place) -> tuple[Message, ...]:
    """Return the entry of each replica, with what the outer entry shares among them."""
    own = _own_entry(entry, place)
    replicas = entry.get("replicas")
    if replicas is None:
        return (own,)
    place = place.at("replicas")
    if not isinstance(replicas, list):
        if "url" in own:
            raise place.wrong("must be a list of entries, one for each URL; a number is for a command")
        count: int = whole(1, _MOST_REPLICAS)(replicas, place)
        return (own,) * count
    if not 0 < len(replicas) <= _MOST_REPLICAS:
        raise place.wrong(f"must be a list of 1 to {_MOST_REPLICAS} entries")
    if "url" in own or "command" in own:
        raise place.wrong("is a list of entries, so that there is no url or command beside it")
    made = []
    for number_, each in enumerate(replicas):
        inner = _own_entry(members(each, place.at(number_), _ENTRY, _PASSED), place.at(number_))
        if not ("url" in inner or "command" in inner):
            raise place.at(number_).wrong("needs a url or a command")
        shared = {key: own[key] for key in (_FOR_URL if "url" in inner else _FOR_PROCESS) if key in own}
        for key in ("headers", "env"):
            if isinstance(shared.get(key), dict) and isinstance(inner.get(key), dict):
                inner[key] = {**shared[key], **inner[key]}
        made.append({**shared, **inner})
    return tuple(made)


def _own_entry(entry: Message, place: Place) -> Message:
    """Return the keys of an entry that a client knows, without those that are null."""
    found = {key: value for key, value in entry.items() if key in _ENTRY and value is not None}
    addresses = [found.pop(key) for key in _ADDRESS if key in found]
    if len(addresses) > 1 or (addresses and "command" in found):
        raise place.wrong("has more than one of url and command")
    if addresses:
        found["url"] = addresses[0]
    for key in ("url", "command", "cwd", "type", "transport"):
        if key in found and not isinstance(found[key], str):
            raise place.at(key).wrong("must be a string")
    if "url" in found and "sandbox" in found:
        raise place.at("sandbox").wrong("is for a process that the gateway starts")
    return found


def _check_entry(entry: Message, place: Place) -> Message:
    """Make sure that a client can use an entry, and return it without variables."""
    if "url" in entry:
        address = text(entry["url"], place.at("url"))
        if not re.match(r"https?://[^\s/]", address, re.IGNORECASE) or re.search(r"[\s\x00-\x1f]", address):
            raise place.at("url").wrong("must be a URL that begins with http:// or https://")
    elif not place.at("command").expand(entry.get("command", "")).strip():
        raise place.wrong("needs a url, a command or replicas")
    found: Message = {key: place.at(key).expand(value) for key, value in entry.items()}
    place.make(targets.read, entry, None, {})
    return found


def _fingerprint(content: Any) -> str:
    written = json.dumps(content, sort_keys=True, default=str).encode()
    return hmac.new(_KEY, written, hashlib.sha256).hexdigest()
