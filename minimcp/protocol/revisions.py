"""Differences among the legacy revisions: tables of what each of them has, and writers that leave out the rest."""

from __future__ import annotations

import os
import re
from typing import Any

from . import content, spec
from .errors import HeaderMismatch, InternalError, InvalidParams, McpError

Message = dict[str, Any]

# Older peers are not sent these members of what is listed, of blocks, annotations and roots. Spec: FEAT-046, FEAT-047
FIELDS_SINCE = {
    "title": "2025-06-18",
    "outputSchema": "2025-06-18",
    "_meta": "2025-06-18",
    "icons": "2025-11-25",
}
NESTED_FIELDS_SINCE = {"annotations": {"lastModified": "2025-06-18"}, "resource": {"_meta": "2025-06-18"}}
TOOL_FIELDS_SINCE = {**FIELDS_SINCE, "annotations": "2025-03-26"}
IMPLEMENTATION_FIELDS_SINCE = {
    "title": "2025-06-18",
    "description": "2025-11-25",
    "icons": "2025-11-25",
    "websiteUrl": "2025-11-25",
}
CAPABILITIES_SINCE = {"completions": "2025-03-26"}
BLOCKS_SINCE = {
    "audio": "2025-03-26",
    "resource_link": "2025-06-18",
    "tool_use": "2025-11-25",
    "tool_result": "2025-11-25",
}
PROGRESS_FIELDS_SINCE = {"message": "2025-03-26"}
COMPLETION_FIELDS_SINCE = {"context": "2025-06-18"}
QUESTION_FIELDS_SINCE = {"mode": "2025-11-25", "tools": "2025-11-25", "toolChoice": "2025-11-25"}
CLIENT_CAPABILITIES_SINCE = {"elicitation": "2025-06-18"}
# Modes of elicitation and parts of sampling are declared one by one from here on; before, the capability alone means
# these parts, and there are no others. Spec: FEAT-173, FEAT-179
PARTS_SINCE = "2025-11-25"
PARTS_BEFORE: dict[str, Message] = {"elicitation": {"form": {}}, "sampling": {"context": {}}}
# Several blocks in one sampling message. Spec: FEAT-158, FEAT-163
BLOCK_LISTS_SINCE = "2025-11-25"
# Defaults, titled choices and choices of several in elicitation forms. Spec: FEAT-185 to FEAT-190
FULL_FORMS_SINCE = "2025-11-25"
STRUCTURED_SINCE = "2025-06-18"
# The member of a result's `_meta` with structured content that the revision has no other place for.
STRUCTURED_META = "structuredContent"
# The key of the `_meta` of tools, resources and prompts that holds their tags; it is ours.
TAGS_META = "minimcp/tags"
# The keyword of an output schema that says whether its only member `result` stands for a value that is no object.
WRAPPED = "x-fastmcp-wrap-result"
# Tool arguments that do not fit are results with isError from here on, errors before. Spec: FEAT-031, FEAT-032
ARGUMENT_RESULTS_SINCE = "2025-11-25"

# Codes between -32768 and -32000 that a revision has beside those of JSON-RPC; and the members of `data` without which
# an error is not the one that its code says. Spec: BASE-055 to BASE-060, FEAT-209
_JSON_RPC = {spec.PARSE_ERROR, spec.INVALID_REQUEST, spec.METHOD_NOT_FOUND, spec.INVALID_PARAMS, spec.INTERNAL_ERROR}
_LEGACY_CODES = {spec.RESOURCE_NOT_FOUND}
_CODES = {
    "2025-11-25": {spec.RESOURCE_NOT_FOUND, spec.URL_ELICITATION_REQUIRED},
    "2026-07-28": {spec.HEADER_MISMATCH, spec.MISSING_CAPABILITY, spec.UNSUPPORTED_VERSION},
}
_TELLING = {
    spec.URL_ELICITATION_REQUIRED: {"elicitations"},
    spec.MISSING_CAPABILITY: {"requiredCapabilities"},
    spec.UNSUPPORTED_VERSION: {"supported", "requested"},
}


def known(version: str, fields: Message, since: dict[str, str]) -> Message:
    """Return the fields that a revision has.

    :param since: the first revision of those that not all of them have.
    """
    return {name: value for name, value in fields.items() if version >= since.get(name, version)}


def block(version: str, value: Any) -> Any:
    """Return a block as a revision has it; one of a kind that it lacks is put into words, so that nothing is lost."""
    if not isinstance(value, dict):
        return value
    kind = str(value.get("type"))
    if kind == "text" and len(value) == 2:
        return value
    if version < BLOCKS_SINCE.get(kind, version):
        return content.text(_in_words(value))
    return part(version, value)


def part(version: str, value: Message, since: dict[str, str] = FIELDS_SINCE) -> Message:
    """Return a listed item, a block or a root without the members that a revision lacks."""
    nested = [name for name in NESTED_FIELDS_SINCE if isinstance(value.get(name), dict)]
    if not nested and since.keys().isdisjoint(value):
        return value
    kept = known(version, value, since)
    kept.update({name: known(version, kept[name], NESTED_FIELDS_SINCE[name]) for name in nested if name in kept})
    return kept


def _in_words(value: Message) -> str:
    kind = value.get("type")
    if kind == "text":
        return str(value.get("text", ""))
    if kind == "resource_link":
        return f"{value.get('name', '')}: {value.get('uri', '')}"
    of_type = f" of type {value['mimeType']}" if "mimeType" in value else ""
    return f"({kind} content{of_type}, which this protocol revision cannot carry)"


def declared(version: str, capabilities: Message, needed: Message) -> bool:
    """Say whether a client's capabilities, as a revision means them, cover what is needed.

    `elicitation: {}` means forms. Spec: FEAT-179
    """
    for name, parts in needed.items():
        have = capabilities.get(name)
        if not isinstance(have, dict) or version < CLIENT_CAPABILITIES_SINCE.get(name, version):
            return False
        if version < PARTS_SINCE or (name == "elicitation" and not have):
            have = PARTS_BEFORE.get(name, have)
        if any(each not in have for each in parts):
            return False
    return True


def declaration(version: str, capabilities: Message) -> Message:
    """Write a client's capabilities as a revision has them. Spec: FEAT-155, FEAT-179"""
    found = known(version, capabilities, CLIENT_CAPABILITIES_SINCE)
    return {name: {} if version < PARTS_SINCE and name in PARTS_BEFORE else parts for name, parts in found.items()}


def unsayable(version: str, question: Message) -> str:
    """Say which part of a question a legacy revision has no words for, "" for none. Spec: FEAT-190"""
    form = question.get("params", {}).get("requestedSchema", {})
    for name, field in form.get("properties", {}).items():
        if field.get("type") == "array" and version < FULL_FORMS_SINCE:
            return f"a choice of several, as in the field {name!r}"
    return ""


def question(version: str, question: Message) -> Message:
    """Write a question as a legacy revision spells it."""
    params = known(version, question.get("params", {}), QUESTION_FIELDS_SINCE)
    if params.get("mode") == "url":
        params.setdefault("elicitationId", os.urandom(12).hex())
    if "requestedSchema" in params and version < FULL_FORMS_SINCE:
        form = params["requestedSchema"]
        fields = {name: _plain_field(field) for name, field in form["properties"].items()}
        params["requestedSchema"] = {**form, "properties": fields}
    if "messages" in params and version < BLOCK_LISTS_SINCE:
        params["messages"] = [
            {"role": message["role"], "content": block(version, each)}
            for message in params["messages"]
            for each in as_list(message["content"])
        ]
    return {"method": question["method"], "params": params} if params else {"method": question["method"]}


def _plain_field(field: Message) -> Message:
    """Write a form field for 2025-06-18: no default but a boolean's, titles of choices beside them. Spec: FEAT-191"""
    plain = {name: value for name, value in field.items() if name != "default" or field.get("type") == "boolean"}
    choices = plain.pop("oneOf", None)
    if choices is not None:
        plain.update(enum=[item["const"] for item in choices], enumNames=[item["title"] for item in choices])
    return plain


def check_fields(version: str, fields: Message) -> None:
    """Refuse answers to a form that a revision cannot carry. Spec: FEAT-194

    :raises ValueError: naming the field.
    """
    for name, value in fields.items():
        several = isinstance(value, list) and all(isinstance(each, str) for each in value)
        if not isinstance(value, (str, int, float)) and not (several and version >= FULL_FORMS_SINCE):
            raise ValueError(f"revision {version} has no answers like that to the field {name!r}")


def sampled(version: str, result: Message) -> Message:
    """Write the answer of a client's model: before lists of blocks it has one, of several blocks their words."""
    if version >= BLOCK_LISTS_SINCE:
        return result
    blocks = as_list(result["content"])
    one = block(version, blocks[0]) if len(blocks) == 1 else content.text("\n".join(map(_in_words, blocks)))
    return {**result, "content": one}


def as_list(value: Any) -> list[Any]:
    """Return the blocks of a sampling message, which may have one or a list."""
    return value if isinstance(value, list) else [value]


def error(version: str, problem: McpError) -> McpError:
    """Return an error as a revision may send it: one whose code is reserved, and not for it, gets another code.

    Spec: BASE-055 to BASE-060, FEAT-209
    """
    code = problem.code
    if not -32768 <= code <= -32000 or code in _JSON_RPC:
        return problem
    told = problem.data.keys() if isinstance(problem.data, dict) else set()
    fits = isinstance(problem, HeaderMismatch) if code == spec.HEADER_MISMATCH else _TELLING.get(code, set()) <= told
    if fits and code in _CODES.get(version, _LEGACY_CODES):
        return problem
    older = code in (spec.RESOURCE_NOT_FOUND, spec.URL_ELICITATION_REQUIRED)
    return (InvalidParams if older else InternalError)(problem.message, problem.data)


_EXTENSION = re.compile(r"[A-Za-z](?:[A-Za-z0-9.-]*[A-Za-z0-9])?/[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?\Z")


def check_extension(identifier: object) -> None:
    """Check the identifier of an extension. Spec: EXT-001

    :raises ValueError: when it has no prefix.
    """
    if not isinstance(identifier, str) or not _EXTENSION.match(identifier):
        raise ValueError(f"An extension is named with a prefix, such as 'com.example/thing', not {identifier!r}")
