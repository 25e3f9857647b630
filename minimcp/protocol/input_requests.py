"""Questions to a client, as both ends know them: their rules, and the capability that each needs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from ..engines.errors import InvalidArguments
from ..engines.schema.validator import Validator
from . import content, forms, revisions

Params = dict[str, Any]

# The questions of the protocol, and the client capability without which each is not asked.
QUESTIONS = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}
# The capabilities of a client that can be asked whatever there is.
ANY_QUESTION: dict[str, Any] = {"elicitation": {"form": {}, "url": {}}, "sampling": {"tools": {}}, "roots": {}}

_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_NUMBER = (int, float)
# The type of each member of a sampling question. Spec: 26:client/sampling
_SAMPLING: dict[str, Any] = {
    "messages": list,
    "maxTokens": int,
    "systemPrompt": str,
    "temperature": _NUMBER,
    "stopSequences": list,
    "modelPreferences": dict,
    "includeContext": str,
    "metadata": dict,
    "tools": list,
    "toolChoice": dict,
}
# The members that each kind of block in a sampling message needs.
_NEEDED: dict[Any, dict[str, Any]] = {
    "text": {"text": str},
    "image": {"data": str, "mimeType": str},
    "audio": {"data": str, "mimeType": str},
    "tool_use": {"id": str, "name": str, "input": dict},
    "tool_result": {"toolUseId": str, "content": list},
}
_CONTEXTS = ("none", "thisServer", "allServers")
_CHOICES = ("auto", "required", "none")


def required(question: Params) -> dict[str, Any]:
    """Return the client capability that a question needs, shaped like ClientCapabilities. Spec: BASE-177"""
    params = question.get("params", {})
    if question["method"] == "elicitation/create":
        return {"elicitation": {params.get("mode") or "form": {}}}
    if question["method"] == "sampling/createMessage":
        needed = {"tools": "tools" in params or "toolChoice" in params}
        needed["context"] = params.get("includeContext", "none") != "none"
        return {"sampling": {name: {} for name in needed if needed[name]}}
    return {"roots": {}}


def check(question: Params) -> Params:
    """Return a question that an author wrote, if it is one.

    :raises TypeError: for a value of the wrong type, or a form that is none.
    :raises ValueError: for another wrong value.
    """
    method, params = question.get("method"), question.get("params", {})
    rule = _RULES.get(str(method))
    if rule is None:
        raise ValueError(f"{method!r} is not a question to a client; there are {', '.join(_RULES)}")
    if not isinstance(params, dict):
        raise TypeError(f"The params of {method} are a dict")
    rule(params)
    return question


def _check_elicitation(params: Params) -> None:
    check_members("An elicitation", params, {"message": str})
    mode = params.get("mode", "form")
    if mode == "url":
        _check_url(params.get("url"))
    elif mode == "form":
        forms.check(params.get("requestedSchema"))
    else:
        raise ValueError(f'The mode of an elicitation is "form" or "url", not {mode!r}')


def _check_url(url: Any) -> None:
    """Refuse an address that no browser should be sent to. Spec: FEAT-204, FEAT-217"""
    try:
        parts = urlsplit(url) if isinstance(url, str) and _PRINTABLE.fullmatch(url) else None
        fits = parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"The url of an elicitation is an http or https address in ASCII, not {str(url)[:200]!r}")
    if parts is not None and "@" in parts.netloc:
        raise ValueError("The url of an elicitation has no user name and no password")


def _check_sampling(params: Params) -> None:
    needed = {name: kind for name, kind in _SAMPLING.items() if name in params or name in ("messages", "maxTokens")}
    check_members("A sampling question", params, needed)
    for name, value, allowed in (
        ("includeContext", params.get("includeContext", "none"), _CONTEXTS),
        ("mode of toolChoice", params.get("toolChoice", {}).get("mode", "auto"), _CHOICES),
    ):
        if value not in allowed:
            raise ValueError(f"{name} is one of {', '.join(allowed)}, not {value!r}")
    for tool in params.get("tools", ()):
        check_members("A tool for sampling", tool, {"name": str, "inputSchema": dict})
    for message in params["messages"]:
        check_message(message)
    check_pairs(params["messages"])
    _check_tool_results(params["messages"], params.get("tools", ()))


def check_message(message: Any) -> None:
    """Check a message to or from a model. Spec: FEAT-158, FEAT-167

    :raises ValueError: with what is wrong.
    """
    if not isinstance(message, dict) or message.get("role") not in ("user", "assistant") or "content" not in message:
        raise ValueError('A message is a dict with content and the role "user" or "assistant"')
    for block in revisions.as_list(message["content"]):
        _check_block(block, "text", "image", "audio", "tool_use", "tool_result")


def _check_block(value: Any, *kinds: str) -> None:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind not in kinds:
        raise ValueError(f"A content block is a dict whose type is one of {', '.join(kinds)}, not {kind!r:.50}")
    check_members(f"A block of type {kind!r}", value, _NEEDED[kind])
    if kind in ("image", "audio") and not content.is_base64(value["data"]):
        raise ValueError(f"The data of a block of type {kind!r} is base64")
    if kind == "tool_result":
        for block in value["content"]:
            if not content.is_block(block):
                raise ValueError("The content of a tool_result is a list of content blocks")


def check_members(what: str, value: Any, needed: dict[str, Any]) -> None:
    """Refuse a value that is no dict, or that lacks one of these members.

    :param needed: the type of each, as for `isinstance`.
    :raises ValueError: naming the member.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{what} is a dict, not {type(value).__name__}")
    for name, kind in needed.items():
        if not isinstance(value.get(name), kind) or isinstance(value[name], bool):
            raise ValueError(f"{what} needs {name!r} as {_NAMES[kind]}, not {value.get(name)!r:.100}")


_NAMES = {str: "text", dict: "a dict", list: "a list", int: "a whole number", _NUMBER: "a number"}


def blocks(message: Any) -> list[Params]:
    """Return the blocks of a sampling message, which may have one or a list, as far as they are dicts."""
    found = revisions.as_list(message.get("content")) if isinstance(message, dict) else []
    return [block for block in found if isinstance(block, dict)]


def check_pairs(messages: list[Any]) -> None:
    """Refuse tool uses and results that do not pair up, which no model provider takes. Spec: FEAT-168 to FEAT-170

    :raises ValueError: with what is out of place.
    """
    open_uses: set[str] = set()
    for message in messages:
        found = blocks(message)
        kinds = [block.get("type") for block in found]
        results = [str(block.get("toolUseId")) for block in found if block.get("type") == "tool_result"]
        if "tool_result" in kinds and set(kinds) != {"tool_result"}:
            raise ValueError("A message with a tool_result has only tool_result blocks")
        if open_uses != set(results) or len(results) != len(set(results)):
            raise ValueError("Every tool_use is followed at once by exactly one tool_result")
        open_uses = {str(block.get("id")) for block in found if block.get("type") == "tool_use"}
    if open_uses:
        raise ValueError("The last message has a tool_use without its tool_result")


def _check_tool_results(messages: list[Params], tools: list[Params]) -> None:
    """Hold the structured content of each tool_result against its tool's output schema. Spec: FEAT-225

    :raises ValueError: naming the tool.
    """
    schemas = {tool["name"]: tool["outputSchema"] for tool in tools if "outputSchema" in tool}
    used: dict[Any, Any] = {}
    for message in messages if schemas else ():
        for block in blocks(message):
            used[block.get("id")] = block.get("name")
            name = used.get(block.get("toolUseId"))
            if "structuredContent" in block and name in schemas and not block.get("isError"):
                try:
                    Validator(schemas[name]).check(block["structuredContent"])
                except InvalidArguments as error:
                    raise ValueError(f"A tool_result does not fit the outputSchema of {name!r}: {error}") from None


_RULES: dict[str, Callable[[Params], None]] = {
    "elicitation/create": _check_elicitation,
    "sampling/createMessage": _check_sampling,
    "roots/list": lambda params: None,
}
