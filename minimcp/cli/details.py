"""One tool, prompt or resource in full, as the command `describe` shows it, with a command to copy."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ..client.transports.command import join_words
from ..engines.errors import printable
from ..protocol import revisions
from . import schemas
from .show import arguments_of, line, out, paragraph, prompt, resource, short, tool

Message = dict[str, Any]


def _begin(title: str, item: Message) -> None:
    """Write what every kind begins with."""
    line(title)
    paragraph(item.get("description"), "  ")
    meta = item.get("_meta")
    tags = meta.get(revisions.TAGS_META) if isinstance(meta, dict) else None
    if isinstance(tags, list) and tags:
        line(f"tags: {', '.join(map(short, tags))}", "  ")


def _tool(item: Message, target: str) -> None:
    _begin(tool(item), item)
    schema = item["inputSchema"]
    members, required = schema.get("properties"), schema.get("required")
    members = members if isinstance(members, dict) else {}
    wanted = required if isinstance(required, list) else []
    if members:
        out("\nArguments\n")
    for part, (name, member) in zip(schemas.parts(schema, schema), members.items()):
        line(f"{part}{'  (required)' if name in wanted else ''}", "  ")
        paragraph(member.get("description") if isinstance(member, dict) else None, "      ")
    if isinstance(item.get("outputSchema"), dict):
        out("\nResult\n")
        line(schemas.shape(item["outputSchema"], item["outputSchema"]), "  ")
    hints = item.get("annotations")
    if isinstance(hints, dict) and hints:
        out("\nHints of the server\n")
        line(", ".join(f"{short(key)}: {short(hints[key])}" for key in hints), "  ")
    words = []
    for name in wanted:
        value = schemas.example(members.get(name), schema)
        words.append(f"{name}={value}" if isinstance(value, str) else f"{name}={json.dumps(value)}")
    _to_copy("To call it", "call", target, item["name"], *words)


def _prompt(item: Message, target: str) -> None:
    _begin(prompt(item), item)
    arguments = arguments_of(item)
    if arguments:
        out("\nArguments\n")
    for each in arguments:
        line(f"{short(each.get('name'))}{'  (required)' if each.get('required') else ''}", "  ")
        paragraph(each.get("description"), "      ")
    words = [f"{each.get('name')}=..." for each in arguments if each.get("required")]
    _to_copy("To see it", "prompt", target, item.get("name"), *words)


def _resource(item: Message, target: str) -> None:
    _begin(resource(item), item)
    size = item.get("size")
    if isinstance(size, (int, float)):
        line(f"{size} bytes", "  ")
    _to_copy("To read it", "read", target, item.get("uri", item.get("uriTemplate")))


def _to_copy(heading: str, *words: Any) -> None:
    out(f"\n{heading}\n  {printable(join_words(['minimcp', *map(str, words)]), 2000)}\n")


# By kind: takes what the server lists, and the server as the user typed it.
DETAILS: dict[str, Callable[[Message, str], None]] = {
    "tools": _tool,
    "prompts": _prompt,
    "resources": _resource,
    "resourceTemplates": _resource,
}
