"""Names and URIs of a server within another one: a prefix put before them, and taken off again.

A URI gets a marker at its scheme: `file:///a` of "weather" is `weather+file:///a`; after the scheme of `ui://`, which
hosts recognize: `ui://weather+host/x`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Optional

from ..protocol.content import Raw

Message = dict[str, Any]
Rename = Callable[[str], str]

LONGEST_NAME = 64  # that every host and model takes

_UI = "ui://"
_OUTSIDE = re.compile(r"(?:https?|data):", re.IGNORECASE)


def public_name(prefix: str, name: str) -> str:
    """Return the name of a tool or prompt with a prefix; "" leaves it as it is.

    One of more than 64 characters is cut, and ends in eight digits of a hash of the whole.
    """
    if not prefix:
        return name
    found = f"{prefix}_{name}"
    if len(found) <= LONGEST_NAME:
        return found
    digits = hashlib.sha256(found.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{found[: LONGEST_NAME - 9]}_{digits}"


@lru_cache(maxsize=1024)
def slug(prefix: str) -> str:
    """Return a prefix as it may begin the scheme of a URI: in lower case, a dot for each underscore."""
    found = "".join(
        each if each in _OF_SCHEMES else "." if each == "_" else f".{ord(each):x}." for each in prefix.lower()
    )
    # No scheme begins with a digit, so that what follows this plus is no URI that another server may have.
    return found if not found or found[0].isalpha() else f"x+{found}"


_OF_SCHEMES = frozenset("abcdefghijklmnopqrstuvwxyz0123456789+-.")


def public_uri(prefix: str, uri: str) -> str:
    """Return a URI or template with the marker of a prefix; "" leaves it as it is."""
    if not prefix:
        return uri
    if uri[:5].lower() == _UI:
        return f"{uri[:5]}{slug(prefix)}+{uri[5:]}"
    return f"{slug(prefix)}+{uri}"


def original_uri(prefix: str, uri: str) -> Optional[str]:
    """Return a URI without the marker of a prefix, or None where it has no such marker.

    A spelling that `public_uri` does not write has none, so that no rule about a URI is evaded by another one.
    """
    if not prefix:
        return uri
    mark = slug(prefix) + "+"
    if uri[:5].lower() == _UI:
        return uri[:5] + uri[5 + len(mark) :] if uri.startswith(mark, 5) else None
    if not uri.startswith(mark) or uri[len(mark) : len(mark) + 5].lower() == _UI:
        return None
    return uri[len(mark) :]


def rewrite_definition(kind: str, definition: Message, rename: Rename, rewrite: Rename) -> Message:
    """Return the definition of a tool, resource, template or prompt under its public name and URI.

    :param kind: "tools", "resources", "resourceTemplates" or "prompts".
    :param rename: makes the public name of a tool or prompt.
    :param rewrite: makes the public URI of a resource or template, and of the `ui://` resource that a tool shows.
    """
    if kind in ("tools", "prompts"):
        return _meta({**definition, "name": rename(definition["name"])}, rewrite)
    member = "uri" if kind == "resources" else "uriTemplate"
    return {**definition, member: rewrite(definition[member])}


def rewrite_result(rewrite: Rename, result: Message, listed: Callable[[str], bool] = lambda uri: False) -> Message:
    """Return a result with public URIs in its links, embedded resources, contents and `_meta.ui`.

    What does not change is the same object as before, and members that are not known are left alone.

    :param rewrite: makes the public URI of an original one.
    :param listed: says whether a URI is one of the server's resources. Those with http, https and data that are not
        lead elsewhere and stay.
    """

    def one(uri: str) -> str:
        return uri if _OUTSIDE.match(uri) and not listed(uri) else rewrite(uri)

    found = _meta(result, one)
    for member, change in (("content", _block), ("contents", _uri), ("messages", _message)):
        items = found.get(member)
        if isinstance(items, list):
            found = _with(found, member, _each(items, change, one))
    return Raw(found) if isinstance(result, Raw) and found is not result else found


def rewrite_block(rewrite: Rename, block: Any, listed: Callable[[str], bool] = lambda uri: False) -> Any:
    """Return a content block as `rewrite_result` does."""
    return rewrite_result(rewrite, {"content": [block]}, listed)["content"][0]


def with_sections(own: Optional[str], sections: Iterable[tuple[str, str, Optional[str]]]) -> Optional[str]:
    """Return instructions with those of other servers below their own, or None where there are none.

    :param sections: `(name, prefix, instructions)` of each other server.
    """
    found = [own] if own else []
    for name, prefix, text in sections:
        if text:
            hint = f" (names begin with {prefix}_)" if prefix else ""
            found.append(f"[{name}]{hint}\n{text}")
    return "\n\n".join(found) or None


def _with(value: Message, member: str, part: Any) -> Message:
    return value if part is value[member] else {**value, member: part}


def _each(items: Any, change: Callable[[Any, Rename], Any], rewrite: Rename) -> Any:
    found = [change(item, rewrite) for item in items]
    return items if all(new is old for new, old in zip(found, items)) else found


def _meta(value: Message, rewrite: Rename) -> Message:
    """Rewrite the `ui://` resource that `_meta` names, in the form of today and in that of earlier clients."""
    meta = value.get("_meta")
    if not isinstance(meta, dict):
        return value
    found = _uri(meta, rewrite, "ui/resourceUri")
    if isinstance(meta.get("ui"), dict):
        found = _with(found, "ui", _uri(meta["ui"], rewrite, "resourceUri"))
    return _with(value, "_meta", found)


def _uri(value: Any, rewrite: Rename, member: str = "uri") -> Any:
    uri = value.get(member) if isinstance(value, dict) else None
    if not isinstance(uri, str):
        return value
    found = rewrite(uri)
    return value if found == uri else {**value, member: found}


def _block(value: Any, rewrite: Rename) -> Any:
    if not isinstance(value, dict):
        return value
    kind = value.get("type")
    if kind == "resource_link":
        return _uri(value, rewrite)
    if kind == "resource":
        return _with(value, "resource", _uri(value["resource"], rewrite)) if "resource" in value else value
    if kind == "tool_result" and isinstance(value.get("content"), list):
        return _with(value, "content", _each(value["content"], _block, rewrite))
    return value


def _message(value: Any, rewrite: Rename) -> Any:
    if not isinstance(value, dict) or "content" not in value:
        return value
    content = value["content"]
    if isinstance(content, (list, tuple)):
        return _with(value, "content", _each(content, _block, rewrite))
    return _with(value, "content", _block(content, rewrite))
