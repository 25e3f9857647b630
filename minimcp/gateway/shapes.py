"""The shape of what servers list: many clients refuse a whole list for one definition that is not as specified."""

from __future__ import annotations

from typing import Any, Union

Message = dict[str, Any]
Types = Union[type, tuple[type, ...]]

_ALL: dict[str, Types] = {"name": str, "title": str, "description": str, "icons": list, "_meta": dict}
_MEMBERS: dict[str, dict[str, Types]] = {
    "tools": {**_ALL, "inputSchema": dict, "outputSchema": dict, "annotations": dict, "execution": dict},
    "resources": {**_ALL, "uri": str, "mimeType": str, "size": (int, float), "annotations": dict},
    "resourceTemplates": {**_ALL, "uriTemplate": str, "mimeType": str, "annotations": dict},
    "prompts": {**_ALL, "arguments": list},
}
_REQUIRED = {
    "tools": ("name", "inputSchema"),
    "resources": ("uri", "name"),
    "resourceTemplates": ("uriTemplate", "name"),
    "prompts": ("name",),
}
_SCHEMA: dict[str, Types] = {"properties": dict, "required": list}
_HINTS: dict[str, Types] = {
    "title": str,
    "readOnlyHint": bool,
    "destructiveHint": bool,
    "idempotentHint": bool,
    "openWorldHint": bool,
    "audience": list,
    "priority": (int, float),
    "lastModified": str,
}
_ARGUMENT: dict[str, Types] = {"name": str, "title": str, "description": str, "required": bool}


def repaired(kind: str, item: Message) -> Message:
    """Return a definition with what goes without saying: no member that is null, a name, the type of arguments."""
    item = _known(item)
    if kind.startswith("resource"):
        return {"name": item.get("uri", item.get("uriTemplate")), **item}
    schema = item.get("inputSchema")
    if kind == "tools" and isinstance(schema, dict) and "type" not in schema:
        return {**item, "inputSchema": {"type": "object", **schema}}
    return item


def _known(item: Message) -> Message:
    return {name: value for name, value in item.items() if value is not None}


def fault_of(kind: str, item: Message) -> str:
    """Say what in a definition is not as the specification has it, "" for nothing that a list is refused for."""
    missing = [name for name in _REQUIRED[kind] if name not in item]
    if missing:
        return f"it has no {missing[0]}"
    if not str(item["name"]).isprintable():
        return "its name has characters that cannot be seen"
    found = _wrong(item, _MEMBERS[kind]) or _wrong(item.get("annotations", {}), _HINTS, "annotations.")
    for number, icon in enumerate(item.get("icons", ())):
        found = found or _part(icon, {"src": str}, "src", f"icons[{number}]")
    for number, argument in enumerate(item.get("arguments", ()) if kind == "prompts" else ()):
        found = found or _part(argument, _ARGUMENT, "name", f"arguments[{number}]")
    if found or kind != "tools":
        return found
    schema = item["inputSchema"]
    if schema.get("type") != "object":
        return 'its inputSchema is not of "type": "object"'
    return _schema(schema, "inputSchema") or _schema(item.get("outputSchema", {}), "outputSchema")


def _schema(schema: Message, place: str) -> str:
    properties, required = schema.get("properties", {}), schema.get("required", [])
    found = _wrong(schema, _SCHEMA, f"{place}.")
    if found:
        return found
    if not all(isinstance(each, (dict, bool)) for each in properties.values()):
        return f"its {place}.properties has a member that is no schema"
    return "" if all(isinstance(each, str) for each in required) else f"its {place}.required has what is no text"


def _part(value: Any, members: dict[str, Types], needed: str, place: str) -> str:
    if not isinstance(value, dict) or needed not in value:
        return f"its {place} has no {needed}"
    return _wrong(_known(value), members, f"{place}.")


def _wrong(value: Message, members: dict[str, Types], place: str = "") -> str:
    """Name the first member that is of another type than it should be."""
    for name, types in members.items():
        found = value.get(name)
        if name in value and (not isinstance(found, types) or (isinstance(found, bool) and types is not bool)):
            return f"its {place}{name} is {type(found).__name__}"
    return ""
