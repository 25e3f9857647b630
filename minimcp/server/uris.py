"""URI templates that match in one pass, and paths that stay below their root."""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import unquote

MAX_URI = 8 * 1024

_EXPRESSION = re.compile(r"\{([^{}]*)\}")
_VARIABLE = re.compile(r"([+/?&]?)([A-Za-z_][A-Za-z0-9_]*)(\*?)\Z")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:[^\s\x00-\x1f\x7f\\]*\Z")


def check_uri(uri: Any) -> bool:
    """Say whether a value has the form of an absolute URI: a scheme, no white space, at most `MAX_URI` characters.

    Spec: FEAT-076, FEAT-078
    """
    return isinstance(uri, str) and len(uri) <= MAX_URI and _URI.match(uri) is not None


class Template:
    """An RFC 6570 template: `{name}`, `{+path}`, `{/name}`, `{/rest*}` and `{?a,b}`.

    Each variable takes the text up to the next literal, so matching costs one pass whatever the URI holds.
    `{name}` never matches a slash and never yields `.`, `..` or a hidden separator; `{+path}` and `{/rest*}` may
    hold slashes: give what they yield to `safe_join` before it touches a file system.

    :raises ValueError: for an expression that is not of these forms, or for two variables with nothing between them.
    """

    def __init__(self, template: str) -> None:
        self.text = template
        self.names: list[str] = []
        # (literal before, variable name or "" for none, may hold slashes)
        self._parts: list[tuple[str, str, bool]] = []
        self._query: list[str] = []
        *pieces, self._tail = _EXPRESSION.split(template)
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
        operator = expression[:1] if expression[:1] in "?&" else ""
        for number, name in enumerate(names):
            found = _VARIABLE.match(name)
            if found is None or (len(names) > 1 and not operator) or (number and found.group(1)):
                raise ValueError(
                    f"URI template {self.text!r}: write {{name}}, {{+path}}, {{/name}}, {{/rest*}} or {{?a,b}}"
                )
            kind, variable, star = found.groups()
            self.names.append(variable)
            if operator:
                if before and number == 0:
                    self._parts.append((before, "", False))
                self._query.append(variable)
                continue
            before = before + "/" if kind == "/" else before
            if not before and self._parts:
                raise ValueError(f"URI template {self.text!r}: put a literal between two variables")
            self._parts.append((before, variable, kind == "+" or bool(star)))

    def match(self, uri: str) -> dict[str, str] | None:
        """Return the variables of a URI that fits, percent-decoded, or None."""
        if len(uri) > MAX_URI:
            return None
        values: dict[str, str] = {}
        if self._query:
            uri, _, query = uri.partition("?")
            for pair in query.split("&"):
                name, _, value = pair.partition("=")
                if name in self._query:
                    values[name] = unquote(value)
        position = 0
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
                end = len(uri)
            found = self._value(uri[position:end], slashes) if end > position else None
            if found is None:
                return None
            values[variable] = found
            position = end
        return values if uri[position:] == self._tail else None

    @staticmethod
    def _value(raw: str, slashes: bool) -> str | None:
        if not slashes and "/" in raw:
            return None
        try:
            value = unquote(raw, errors="strict")
        except UnicodeDecodeError:
            return None
        if "\0" in value:
            return None
        if not slashes and (value in (".", "..") or "/" in value or "\\" in value):
            return None
        return value


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
