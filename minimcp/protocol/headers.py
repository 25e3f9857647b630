"""The `Mcp-*` headers: one source for what a client sends and what a server checks.

Spec: TRN-055 to TRN-094, 26:basic/transports/streamable-http#request-metadata
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..engines.errors import InvalidArguments
from . import spec
from .errors import HeaderMismatch

Get = Callable[[str], "str | None"]
# Where an annotated argument lives in `arguments`, the full header name, and its JSON type.
Annotation = tuple[tuple[str, ...], str, str]

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_PLAIN = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?\Z|\Z")
_SENTINEL = re.compile(r"=\?base64\?(.*)\?=\Z", re.DOTALL)
_SAFE_INTEGER = 2**53 - 1


def is_modern(message: Any, get: Get | None) -> bool:
    """Say whether a message is of the modern era: its `_meta` names a version, or its header a modern one.

    Spec: BASE-082
    """
    params = message.get("params") if isinstance(message, dict) else None
    meta = params.get("_meta") if isinstance(params, dict) else None
    if isinstance(meta, dict) and spec.META_VERSION in meta:
        return True
    return get is not None and get("MCP-Protocol-Version") in spec.MODERN_VERSIONS


def encode(value: Any) -> str:
    """Write a string, integer or boolean as a header value. Spec: TRN-084 to TRN-087"""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if _PLAIN.match(text) and not _SENTINEL.match(text):
        return text
    return "=?base64?" + base64.b64encode(text.encode("utf-8")).decode("ascii") + "?="


def decode(name: str, value: str) -> str:
    """Read a header value back.

    :raises HeaderMismatch: for characters a header may not hold, or a sentinel that is not canonical Base64 of UTF-8.
    """
    if not _PLAIN.match(value):
        raise HeaderMismatch(f"Header mismatch: {name} has characters a header value may not have")
    sentinel = _SENTINEL.match(value)
    if sentinel is None:
        return value
    payload = sentinel.group(1)
    try:
        raw = base64.b64decode(payload, validate=True)
        if payload and base64.b64encode(raw).decode("ascii") == payload:
            return raw.decode("utf-8")
    except (binascii.Error, ValueError):
        pass
    raise HeaderMismatch(f"Header mismatch: {name} is not valid Base64 of UTF-8")


def mirror(message: Mapping[str, Any], name_param: str | None, annotations: list[Annotation]) -> dict[str, str]:
    """Build the headers that go with a modern request. Spec: TRN-055, TRN-061, TRN-062, TRN-083"""
    params = message.get("params", {})
    version = params.get("_meta", {}).get(spec.META_VERSION)
    headers = {"Mcp-Method": message["method"]}
    if version is not None:
        headers["MCP-Protocol-Version"] = version
    if name_param is not None:
        headers["Mcp-Name"] = encode(params[name_param])
    for path, header, _ in annotations:
        value = argument_at(params.get("arguments"), path)
        if value is not None:
            headers[header] = encode(value)
    return headers


def check(get: Get, message: Mapping[str, Any], name_param: str | None, annotations: list[Annotation]) -> None:
    """Hold the headers of a modern request against its body, which stays authoritative.

    :param get: returns a header's value by name, or None.
    Spec: TRN-056, TRN-066 to TRN-068, TRN-088, TRN-167

    :raises HeaderMismatch: when one is missing, malformed or different.
    """
    params = message.get("params", {})
    meta = params.get("_meta")
    version = meta.get(spec.META_VERSION) if isinstance(meta, dict) else None
    # A body without a version is refused for its `_meta` later, with another code.
    if isinstance(version, str):
        _same("MCP-Protocol-Version", get("MCP-Protocol-Version"), version)
    _same("Mcp-Method", get("Mcp-Method"), message["method"])
    if name_param is not None and isinstance(params.get(name_param), str):
        name = get("Mcp-Name")
        _same("Mcp-Name", name if name is None else decode("Mcp-Name", name), params[name_param])
    for path, header, kind in annotations:
        value, sent = argument_at(params.get("arguments"), path), get(header)
        if value is None and sent is not None:
            raise HeaderMismatch(f"Header mismatch: {header} mirrors an argument that the body does not have")
        if value is not None:
            if sent is None:
                raise HeaderMismatch(f"Header mismatch: {header} is missing")
            _same_argument(header, decode(header, sent), value, kind)


def _same(name: str, sent: str | None, body: str) -> None:
    if sent is None:
        raise HeaderMismatch(f"Header mismatch: {name} is missing")
    if sent != body:
        raise HeaderMismatch(f"Header mismatch: {name} differs from the body")


def _same_argument(header: str, sent: str, value: Any, kind: str) -> None:
    if kind == "integer" and not isinstance(value, bool) and isinstance(value, (int, float)):
        # 42.0 equals 42. Spec: TRN-091
        if re.fullmatch(r"-?[0-9]{1,20}(\.0{1,20})?", sent) and int(sent.partition(".")[0]) == value:
            return
    elif sent == (("true" if value else "false") if isinstance(value, bool) else str(value)):
        return
    raise HeaderMismatch(f"Header mismatch: {header} differs from the argument it mirrors")


def argument_at(arguments: Any, path: tuple[str, ...]) -> Any:
    """Return the argument at a `properties` path, or None where there is none."""
    for key in path:
        if not isinstance(arguments, dict):
            return None
        arguments = arguments.get(key)
    return arguments


def check_integers(arguments: Any, annotations: list[Annotation]) -> None:
    """Hold annotated integers to what every reader of a header can represent.

    :raises InvalidArguments: naming the argument. Spec: TRN-077
    """
    for path, header, kind in annotations:
        value = argument_at(arguments, path) if kind == "integer" else None
        if isinstance(value, (int, float)) and abs(value) > _SAFE_INTEGER:
            raise InvalidArguments(f'"{".".join(path)[:120]}" must stay within 2^53-1, because {header} mirrors it')


def annotated(schema: Any) -> list[Annotation]:
    """Collect the `x-mcp-header` annotations of an input schema.

    :raises ValueError: when one breaks a rule of the specification. Spec: TRN-073 to TRN-079
    """
    found = list(_reachable(schema, ()))
    names = [header.lower() for _, header, _ in found]
    if len(set(names)) != len(names):
        raise ValueError("two x-mcp-header annotations have the same name")
    if _count(schema) != len(found):
        raise ValueError("x-mcp-header may only stand on properties reached through `properties` alone")
    return found


def _reachable(schema: Any, path: tuple[str, ...]) -> Iterator[Annotation]:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict):
        return
    for key, part in properties.items():
        if not isinstance(part, dict):
            continue
        if "x-mcp-header" in part:
            name, kind = part["x-mcp-header"], part.get("type")
            if not isinstance(name, str) or not _TOKEN.match(name):
                raise ValueError(f"x-mcp-header {name!r} is not a header name")
            if kind not in ("string", "integer", "boolean"):
                raise ValueError(f"x-mcp-header {name!r} needs a property of type string, integer or boolean")
            bounds = [abs(part[key]) for key in ("minimum", "maximum") if isinstance(part.get(key), (int, float))]
            if kind == "integer" and any(bound > _SAFE_INTEGER for bound in bounds):
                raise ValueError(f"x-mcp-header {name!r}: integers must stay within 2^53-1")
            yield (*path, key), f"Mcp-Param-{name}", kind
        yield from _reachable(part, (*path, key))


def _count(part: Any) -> int:
    """Count the annotations anywhere in a schema; data keywords cannot hold one."""
    if isinstance(part, list):
        return sum(_count(item) for item in part)
    if not isinstance(part, dict):
        return 0
    total = 0
    for key, value in part.items():
        if key == "x-mcp-header":
            total += 1
        elif key in ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas"):
            # The members of these are named by the author: a property may itself be called x-mcp-header.
            total += sum(_count(item) for item in value.values()) if isinstance(value, dict) else 0
        elif key not in ("default", "const", "enum", "examples"):
            total += _count(value)
    return total
