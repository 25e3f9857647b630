"""Advice to a caller whose call cannot be meant as it is: options among the arguments, names that nothing has."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..engines.errors import ClientError
from ..protocol import spec
from .errors import RemoteError
from .options import OF_A_CALL

if TYPE_CHECKING:
    from .methods import Methods

Message = dict[str, Any]

_MOST_NAMED = 5


def check_keywords(name: str, keywords: Message, known: Callable[[], object]) -> None:
    """Refuse keywords that are options of a call, unless the tool or prompt has arguments of these names.

    :param known: returns the schema of the arguments; asked only when there is such a keyword.
    :raises TypeError: with what to write.
    """
    meant = sorted(OF_A_CALL & keywords.keys())
    if isinstance(keywords.get("arguments"), dict):
        meant.append("arguments")
    if not meant:
        return
    try:
        schema = known()
    except ClientError:
        return  # The call itself says what is wrong.
    if not isinstance(schema, dict) or not isinstance(schema.get("properties", {}), dict) or not _is_closed(schema):
        return
    for option in meant:
        if option in schema.get("properties", {}):
            continue
        if option == "arguments":
            raise TypeError(f"arguments= is no argument of {name}; write the dict itself: ({name!r}, {{...}})")
        raise TypeError(
            f"{option}= is no argument of {name}; options follow a dict of arguments: ({name!r}, {{...}}, {option}=...)"
        )


def _is_closed(schema: Message) -> bool:
    """Say whether a schema names all arguments that there may be, as far as one can see."""
    open_words = ("patternProperties", "$ref", "allOf", "anyOf", "oneOf", "if", "dependentSchemas")
    named = "properties" in schema or schema.get("additionalProperties") is False
    return named and not schema.get("additionalProperties") and not any(word in schema for word in open_words)


def prompt_schema(prompts: list[Any], name: str) -> object:
    """Return the schema of the arguments of a prompt, None for one that is not listed."""
    for prompt in prompts:
        if isinstance(prompt, dict) and prompt.get("name") == name:
            listed = prompt.get("arguments") or ()
            names: Message = {each["name"]: {} for each in listed if isinstance(each, dict) and "name" in each}
            return {"properties": names, "additionalProperties": False}
    return None


def about(client: Methods, method: str, name: str, problem: RemoteError) -> str:
    """Return what to add to the error of a call: the names that a server has, when it does not know the one it got."""
    if method == "resources/read":
        return _about_resource(client, name, problem)
    kind = "tool" if method == "tools/call" else "prompt"
    if problem.code != spec.INVALID_PARAMS or f"nknown {kind}" not in problem.message:
        return ""
    return near(name, client.list_tools if kind == "tool" else client.list_prompts)


def near(name: str, listed: Callable[[], Any]) -> str:
    """Return the question whether something of a similar name was meant, or "" without one.

    :param listed: returns the list of the server.
    """
    try:
        names = _texts(listed(), "name")
    except ClientError:
        return ""
    if name in names:
        return "; it is listed, so that the server refuses this call of it, or has just removed it"
    found = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {found[0]}?" if found else ""


def _about_resource(client: Methods, uri: str, problem: RemoteError) -> str:
    said = problem.message.lower()
    unknown = problem.code == spec.INVALID_PARAMS and ("not found" in said or "unknown resource" in said)
    if problem.code != spec.RESOURCE_NOT_FOUND and not unknown:
        return ""
    named = "" if uri in problem.message else f": {uri}"
    try:
        names: list[str] = _texts(client.list_resources(), "uri")
        names += _texts(client.list_resource_templates(), "uriTemplate")
    except ClientError:
        return named
    close = difflib.get_close_matches(uri, names, 1, 0.75)
    if close:
        return f"{named}; did you mean {close[0]}?"
    more = ", ..." if len(names) > _MOST_NAMED else ""
    return f"{named}; the server lists {', '.join(names[:_MOST_NAMED]) or 'no resources'}{more}"


def _texts(items: list[Any], key: str) -> list[str]:
    return [item[key] for item in items if isinstance(item, dict) and isinstance(item.get(key), str)]
