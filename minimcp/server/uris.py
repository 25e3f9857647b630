"""URI templates that match in one pass, and paths that stay below their root."""

from __future__ import annotations

import os
import re
from typing import Any, Optional
from urllib.parse import unquote

from ..protocol.spelling import normal, respell

MAX_URI = 8 * 1024

_EXPRESSION = re.compile(r"\{([^{}]*)\}")
_VARIABLE = re.compile(r"([+/?&]?)([A-Za-z_][A-Za-z0-9_]*)(\*?)\Z")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:[^\s\x00-\x1f\x7f\\]*\Z")
_START = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:|\{\+")  # of what can be a URI
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\"<>\\^`|]")  # in a literal of RFC 6570


def check_uri(uri: Any) -> bool:
    """Say whether a value has the form of an absolute URI: a scheme, no white space, at most `MAX_URI` characters.

    Spec: FEAT-076, FEAT-078
    """
    return isinstance(uri, str) and len(uri) <= MAX_URI and _URI.match(uri) is not None


class Template:
    """An RFC 6570 template: `{name}`, `{+path}`, `{/name}`, `{/rest*}`, `{?a,b}` and, after a query, `{&a,b}`.

    Each variable takes the text up to the next literal, so matching costs one pass whatever the URI holds.
    `{name}` never matches a slash and never yields a hidden one; `{+path}`, `{/rest*}` and the variables of a query may
    hold slashes. None yields NUL, broken UTF-8, a segment `..` or an absolute path. Spec: FEAT-079

    :param traversal: whether a variable may yield `..` and absolute paths all the same; give them to `safe_join`.
    :ivar text: the template as it is listed.
    :raises ValueError: for an expression that is not of these forms, for two variables with nothing between them, and
        for a template that no URI can match.
    """

    def __init__(self, template: str, traversal: bool = False) -> None:
        self.text = _FORBIDDEN.sub(respell, template)
        self.names: list[str] = []
        self._traversal = traversal
        # (literal before, variable name or "" for none, may hold slashes)
        self._parts: list[tuple[str, str, bool]] = []
        self._query: list[str] = []
        self._mark = ""  # "?" or "&", which the query begins with
        if not _START.match(template):
            raise ValueError(f"URI template {template!r}: begin with a scheme, for instance x://")
        *pieces, self._tail = _EXPRESSION.split(normal(template))
        for before, expression in zip(pieces[::2], pieces[1::2]):
            self._add(before, expression)
        if "{" in self._tail or "}" in self._tail:
            raise ValueError(f"URI template {template!r}: unbalanced braces")
        if self._query and self._tail:
            raise ValueError(f"URI template {template!r}: a query expression must come last")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"URI template {template!r}: a variable occurs twice")

    def _add(self, before: str, expression: str) -> None:
        names = expression.split(",")
        operator = expression[:1] if expression[:1] in ("?", "&") else ""
        if self._query:
            raise ValueError(f"URI template {self.text!r}: a query expression must come last")
        for number, name in enumerate(names):
            found = _VARIABLE.match(name)
            if found is None or (len(names) > 1 and not operator) or (number and found.group(1)):
                raise ValueError(
                    f"URI template {self.text!r}: write {{name}}, {{+path}}, {{/name}}, {{/rest*}} or {{?a,b}}"
                )
            kind, variable, star = found.groups()
            self.names.append(variable)
            if operator:
                self._query.append(variable)
                continue
            before = before + "/" if kind == "/" else before
            if not before and self._parts:
                raise ValueError(f"URI template {self.text!r}: put a literal between two variables")
            self._parts.append((before, variable, kind == "+" or bool(star)))
        if operator:
            self._mark = operator
            if ("?" in "".join(literal for literal, _, _ in self._parts) + before) != (operator == "&"):
                raise ValueError(
                    f"URI template {self.text!r}: write {{?a}} to begin a query and {{&a}} to go on with it"
                )
            self._parts.append((before, "", False))

    def match(self, uri: str) -> dict[str, str] | None:
        """Return the variables of a URI that fits, percent-decoded, or None."""
        if len(uri) > MAX_URI:
            return None
        uri, position = normal(uri), 0
        values: dict[str, Optional[str]] = {}
        for number, (before, variable, slashes) in enumerate(self._parts):
            if not uri.startswith(before, position):
                return None
            position += len(before)
            if not variable:
                continue
            following = self._parts[number + 1][0] if number + 1 < len(self._parts) else self._tail
            if following:
                last = number + 1 == len(self._parts)
                end = uri.rfind(following) if last else uri.find(following, position)
            else:
                end = uri.find(self._mark, position) if self._query else -1
                end = len(uri) if end < 0 else end
            if end <= position:
                return None
            values[variable] = self._value(uri[position:end], slashes)
            position = end
        if self._query and uri[position : position + 1] == self._mark:
            for pair in uri[position + 1 :].split("&"):
                name, _, value = pair.partition("=")
                if name in self._query:
                    values[name] = self._value(value, True)
        elif uri[position:] != self._tail:
            return None
        found = {name: value for name, value in values.items() if value is not None}
        return found if len(found) == len(values) else None

    def _value(self, raw: str, slashes: bool) -> str | None:
        """Return the value that a part of a URI stands for, or None when no handler may see it."""
        try:
            value = unquote(raw, errors="strict")
        except UnicodeDecodeError:
            return None
        if "\0" in value or (not slashes and ("/" in value or "\\" in value)):
            return None
        return value if self._traversal or not _leaves(value) else None


def _leaves(path: str) -> bool:
    """Say whether a path, joined to a root as it is, may lead out of it."""
    path = path.replace("\\", "/")
    return path.startswith("/") or _DRIVE.match(path) is not None or path == "." or ".." in path.split("/")


_DRIVE = re.compile(r"[A-Za-z]:(/|\Z)")


def is_template(uri: str) -> bool:
    """Say whether a URI has template variables."""
    return "{" in uri


_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(\..*)?\Z", re.IGNORECASE)


def is_device(name: str) -> bool:
    """Say whether a name means a device on Windows, whatever follows it."""
    return _DEVICES.match(name.rstrip(" .")) is not None


def safe_join(root: str | os.PathLike[str], path: str) -> str:
    """Join a root and a path that a client named, following links, and return the real path.

    :raises ValueError: when it is absolute, names a device, or leaves the root by `..` or by a link. Spec: FEAT-079
    """
    parts = path.replace("\\", "/").split("/")
    names_device = any(map(is_device, parts)) if os.name == "nt" else False
    if "\0" in path or path.startswith(("/", "\\")) or ".." in parts or names_device or ":" in parts[0][1:2]:
        raise ValueError(f"The path {path[:200]!r} is not below its root")
    base = os.path.realpath(root)
    joined = os.path.realpath(os.path.join(base, *parts))
    if os.path.commonpath([base, joined]) != base:
        raise ValueError(f"The path {path[:200]!r} is not below its root")
    return joined
