"""The words of `gateway --explain`: whether a caller may see and use something, and why."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from ..engines.errors import printable
from ..protocol.principal import Principal

if TYPE_CHECKING:
    from ..gateway.gateway import Gateway

Message = dict[str, Any]

_NOTHING = "there is nothing named {!r} among the {}"
_KINDS = ("tools", "prompts", "resources")


def caller(text: str, options: Message) -> Optional[Principal]:
    """Return the principal of words such as `ada role:staff scope:read`; None for `-`.

    An id among the keys of the configuration has the roles and scopes that it has there.

    :raises ValueError: for an id that is no key, where callers come by keys alone.
    """
    words = re.split(r"[\s,]+", text.strip())
    if words == ["-"]:
        return None
    given: dict[str, list[str]] = {"role": [], "scope": []}
    ids = []
    for word in words:
        kind, colon, value = word.partition(":")
        if colon and kind in given and value:
            given[kind].append(value)
        else:
            ids.append(word)
    if len(ids) > 1 or not all(words):
        raise ValueError(f"{text!r} is no caller: write - or an id, and role:NAME or scope:NAME")
    if not ids:
        return Principal("somebody", "", given["scope"], given["role"])
    keys, others = _keys(options)
    known = keys.get(ids[0])
    if known is None and keys and not others and not (given["role"] or given["scope"]):
        near = difflib.get_close_matches(ids[0], keys, 3) or sorted(keys)[:20]
        raise ValueError(f"There is no key named {ids[0]!r}; there is {', '.join(near)}")
    known = known if isinstance(known, dict) else {}
    scopes, roles = ([*(known.get(f"{kind}s") or ()), *given[kind]] for kind in ("scope", "role"))
    return Principal(ids[0], "", scopes, roles)


def _keys(options: Message) -> tuple[Message, bool]:
    """Return the keys of a configuration by name, and whether callers come by other ways, too."""
    from ..auth.keys import read_file

    found: Message = {}
    others = False
    for each in options["auth"] or ():
        if each == "public" or each[0] != "keys":
            others = True
            continue
        source = each[1]["source"]
        found.update(source if isinstance(source, dict) else read_file(Path(source)))
    return found, others


def explanation(gateway: Gateway, who: Optional[Principal], name: str) -> tuple[bool, list[str]]:
    """Return whether a caller may use what has this name, and the lines that say why.

    Servers that are not there yet are waited for.
    """
    gateway.settle()
    lines = [_introduction(who)]
    allowed = False
    for kind in _KINDS:
        seen = gateway.explain(who, name, kind)
        if seen["reasons"][:1] == [_NOTHING.format(name, kind)]:
            continue
        used = gateway.explain(who, name, kind, {})
        allowed = allowed or seen["allowed"]
        origin = _origin(gateway, kind, name)
        of = f" of the server {origin!r}" if origin else ""
        verdict = "visible and callable" if seen["allowed"] else "neither visible nor callable"
        if seen["allowed"] and not used["allowed"]:
            verdict = "visible, and callable with some arguments alone"
        lines.append(f"the {kind[:-1]} {printable(name, 200)}{of}: {verdict}")
        reasons = used["reasons"] or [_allowing(gateway, who, kind, name, origin)]
        lines += [f"  {printable(reason, 1000)}" for reason in reasons]
    if len(lines) == 1:
        lines.append(f"nothing is named {printable(name, 200)!r}{_near(gateway, name)}")
        lines += [f"  {printable(each, 1000)}" for each in _absent(gateway, name)]
    return allowed, lines


def _introduction(who: Optional[Principal]) -> str:
    if who is None:
        return "a caller without a credential"
    parts = [
        f"the {kind} {', '.join(found)}" for kind, found in (("roles", who.roles), ("scopes", who.scopes)) if found
    ]
    return f"{printable(who.id)}, with {' and '.join(parts) or 'no roles and scopes'}"


def _origin(gateway: Gateway, kind: str, name: str) -> str:
    """Return the name of the server that something is of; "" for the gateway itself, or by a template."""
    found = getattr(gateway.federation, kind).get(name)
    return "" if found is None else str(found.origin)


def _allowing(gateway: Gateway, who: Optional[Principal], kind: str, name: str, origin: str) -> str:
    decide = getattr(gateway.engine.policy, "decide", None)
    if decide is None:
        return "there are no rules, so that every caller may use everything"
    return str(decide(who, kind, name, None, *filter(None, [origin])).reason)


def _near(gateway: Gateway, name: str) -> str:
    names = [each for kind in (*_KINDS, "resourceTemplates") for each in getattr(gateway.federation, kind)]
    near = difflib.get_close_matches(name, names, 3)
    return f"; there is {', '.join(printable(each, 200) for each in near)}" if near else ""


def _absent(gateway: Gateway, name: str) -> list[str]:
    """Return why something may not be there: filters that leave it out, and servers that did not answer."""
    from ..gateway.entries import passes

    found = []
    for server, settings in gateway.settings.upstreams.items():
        begin = f"{settings.prefix}_" if settings.prefix else ""
        if name.startswith(begin) and not passes(settings.tools, name[len(begin) :]):
            found.append(f"the option tools of the server {server!r} leaves out tools of this name")
        upstream = gateway.upstreams.get(server)
        if upstream is None:
            found.append(f"the server {server!r} is disabled")
        elif upstream.credentials.per_principal:
            found.append(f"the server {server!r} lists its tools to callers with a token alone")
        elif upstream.error is not None:
            found.append(f"the server {server!r} is not there: {upstream.error}")
        elif not upstream.settled.is_set():
            found.append(f"the server {server!r} has not answered yet")
    return found
