"""The OpenAPI 3.1 document of tools: one POST operation for each, with their schemas."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

Message = dict[str, Any]

_KEY = re.compile(r"[A-Za-z0-9._-]{1,200}")
_SCHEMAS = "#/components/schemas/"
# Keywords of JSON Schema whose value is data, and those whose value names schemas.
_VALUES = frozenset({"const", "enum", "default", "examples", "example", "required"})
_MEMBERS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"})
_ERROR: Message = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message"],
            "properties": {"code": {"type": "integer"}, "message": {"type": "string"}, "data": {}, "result": {}},
        }
    },
}
_REFUSED = (
    "The request was refused: 400 for arguments that do not fit, 401 without a valid credential, 404 for a tool that "
    "is not there for this caller, 409 when the tool asks its caller something, which REST has no way to answer, 422 "
    "when the tool says that it failed, 429 when there are too many requests; Retry-After says when to try again."
)
_FAILED = (
    "The call failed: 502 when the server of the tool gave no proper answer, 504 when it gave none in time, 503 when "
    "it was not asked since it cannot take requests now; Retry-After says when to try again."
)
_SAID = "The structured content of the result; the whole result, with its content, when it has none."


def document(info: Message, tools: Iterable[Message], base: str, secured: bool) -> Message:
    """Return the document.

    :param info: the members `title`, `version` and perhaps `description`.
    :param tools: the definitions of `tools/list`.
    :param base: the path below which the operations are, "" for the root.
    :param secured: whether callers need a credential.
    """
    schemas: Message = {"Error": _ERROR}
    paths: Message = {}
    for number, tool in enumerate(tools, 1):
        name = tool["name"]
        key = name if _KEY.fullmatch(name) else f"tool{number}"
        operation: Message = {"operationId": name, "tags": ["tools"]}
        for member, source in (("summary", "title"), ("description", "description")):
            if isinstance(tool.get(source), str):
                operation[member] = tool[source]
        schemas[f"{key}.input"] = moved(tool.get("inputSchema"), f"{_SCHEMAS}{key}.input")
        operation["requestBody"] = {"required": True, "content": _json({"$ref": f"{_SCHEMAS}{key}.input"})}
        answer: Message = {}
        if isinstance(tool.get("outputSchema"), dict):
            schemas[f"{key}.output"] = moved(tool["outputSchema"], f"{_SCHEMAS}{key}.output")
            answer = {"$ref": f"{_SCHEMAS}{key}.output"}
        operation["responses"] = {
            "200": {"description": _SAID, "content": _json(answer)},
            "4XX": {"$ref": "#/components/responses/Refused"},
            "5XX": {"$ref": "#/components/responses/Failed"},
        }
        paths[f"/tools/{quote(name, safe='')}"] = {"post": operation}
    error = _json({"$ref": f"{_SCHEMAS}Error"})
    responses = {
        "Refused": {"description": _REFUSED, "content": error},
        "Failed": {"description": _FAILED, "content": error},
    }
    components: Message = {"schemas": schemas, "responses": responses}
    found: Message = {"openapi": "3.1.0", "info": info, "paths": paths, "components": components}
    if base:
        found["servers"] = [{"url": base}]
    if secured:
        components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"bearer": []}]
    return found


def _json(schema: Message) -> Message:
    return {"application/json": {"schema": schema}}


def moved(schema: Any, place: str) -> Any:
    """Return a schema as it stands at a place of another document: references into itself point there.

    References to other documents are left out, so that nobody who reads this one is sent anywhere.
    """
    if not isinstance(schema, dict):
        return {}
    return _moved({name: part for name, part in schema.items() if name not in ("$schema", "$id")}, place)


def _moved(part: Any, place: str, named: bool = False) -> Any:
    """Copy a part of a schema.

    :param named: whether its members are names of schemas and no keywords.
    """
    if isinstance(part, list):
        return [_moved(item, place) for item in part]
    if not isinstance(part, dict):
        return part
    if not named and isinstance(part.get("$id"), str):
        # A document of its own, in which references mean what they meant.
        return part
    found = {}
    for name, item in part.items():
        if named:
            found[name] = _moved(item, place)
        elif name in ("$ref", "$dynamicRef") and isinstance(item, str):
            if item == "#" or item.startswith("#/"):
                found[name] = place + item[1:]
            elif item.startswith("#"):
                found[name] = item
        elif name in _VALUES:
            found[name] = item
        else:
            found[name] = _moved(item, place, name in _MEMBERS)
    return found
