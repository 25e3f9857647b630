"""Lists and results as notebooks show them: tables, pictures and sounds. All text of a server is escaped."""

from __future__ import annotations

import base64
import binascii
import html
import json
from collections.abc import Iterable
from typing import Any, Optional

Message = dict[str, Any]

_MOST_ROWS = 500
_MOST_TEXT = 2000
_MOST_BYTES = 8 * 1024 * 1024
# What is shown in an `img`, where even a drawing runs no script, and how sound is.
_PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml")
_LEFT = "text-align: left; vertical-align: top"


def table(items: list[Any]) -> Optional[str]:
    """Return the table of a list of tools, resources, templates or prompts, None for a list of something else."""
    dicts = [item for item in items if isinstance(item, dict)]
    if not dicts:
        return None
    key, heading = next(((key, key) for key in ("uri", "uriTemplate") if key in dicts[0]), ("name", "name"))
    columns = [heading, *(["arguments"] if key == "name" else ["name", "mimeType"]), "description"]
    rows = [[_cell(item, column) for column in columns] for item in dicts[:_MOST_ROWS]]
    if len(dicts) > _MOST_ROWS:
        rows.append([f"and {len(dicts) - _MOST_ROWS} more", *[""] * (len(columns) - 1)])
    head = "".join(f'<th style="{_LEFT}">{_text(column)}</th>' for column in columns)
    body = "".join(f"<tr>{''.join(f'<td style={_LEFT!r}>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(item: Message, column: str) -> str:
    if column == "arguments":
        return "<br>".join(map(_text, _arguments(item)))
    return _text(item.get(column, item.get("title", "") if column == "name" else ""))


def _arguments(item: Message) -> Iterable[str]:
    """Yield the arguments of a tool or prompt, with their types; those with a question mark may be left out."""
    schema, listed = item.get("inputSchema"), item.get("arguments")
    if isinstance(schema, dict) and isinstance(schema.get("properties"), dict):
        required = schema.get("required")
        for name, member in schema["properties"].items():
            kind = member.get("type") if isinstance(member, dict) else None
            optional = "" if isinstance(required, list) and name in required else "?"
            yield f"{name}{optional}" + (f": {kind}" if isinstance(kind, str) else "")
    elif isinstance(listed, list):
        for each in listed:
            if isinstance(each, dict):
                yield f"{each.get('name')}{'' if each.get('required') else '?'}"


def _text(value: Any) -> str:
    said = value if isinstance(value, str) else json.dumps(value, default=str)
    return html.escape(said[:_MOST_TEXT] + ("..." if len(said) > _MOST_TEXT else ""))


def media(blocks: list[Message]) -> Optional[str]:
    """Return the blocks of a result with its pictures and sounds, None where it has neither."""
    shown = [(block, _medium(block)) for block in blocks]
    if not any(found for _, found in shown):
        return None
    parts = [found or f"<pre>{_text(_said(block))}</pre>" for block, found in shown]
    return f"<div>{''.join(parts)}</div>"


def _said(block: Message) -> Any:
    if isinstance(block.get("text"), str):
        return block["text"]
    return block if block.get("type") == "resource_link" else f"[{block.get('mimeType', block.get('type'))}]"


def _medium(block: Message) -> str:
    """Return the element of a picture or a sound, "" for anything else."""
    data, kind = block.get("data", block.get("blob")), str(block.get("mimeType")).lower()
    if not isinstance(data, str) or len(data) > _MOST_BYTES:
        return ""
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return ""
    source = html.escape(f"data:{kind};base64,{data}")
    if kind in _PICTURES:
        return f'<img src="{source}" style="max-width: 100%">'
    return f'<audio controls src="{source}"></audio>' if kind.startswith("audio/") else ""
