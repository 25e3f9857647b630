"""Output of the commands; control characters that a server sends are escaped on a terminal."""

from __future__ import annotations

import json
import shlex
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..client.consent import printable
from . import schemas

Message = dict[str, Any]

_BAR = 30


def out(text: str) -> None:
    """Write to standard output, escaping what its encoding lacks."""
    try:
        sys.stdout.write(text)
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding or "ascii"
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))


def as_json(value: Any) -> None:
    """Write JSON over several lines."""
    out(json.dumps(value, indent=2) + "\n")


def safe(text: str) -> str:
    """Return a text for standard output: unchanged for a file, without control characters for a terminal."""
    if not sys.stdout.isatty():
        return text
    return "\n".join("\t".join(printable(part) for part in line.split("\t")) for line in text.split("\n"))


def offer(info: Message, version: str, instructions: Any, lists: Message) -> None:
    """Show what a server offers.

    :param lists: `tools`, `resources`, `resourceTemplates`, `prompts`.
    """
    name = info.get("title") or info.get("name") or "a server without a name"
    out(f"{_short(name)} {_short(info.get('version', ''))} ({version})\n")
    if isinstance(instructions, str):
        _paragraph(instructions, "")
    for key, heading, line in (
        ("tools", "Tools", _tool),
        ("resources", "Resources", _resource),
        ("resourceTemplates", "Resource templates", _resource),
        ("prompts", "Prompts", _prompt),
    ):
        if lists[key]:
            out(f"\n{heading}\n")
        for item in lists[key]:
            if isinstance(item, dict):
                out(f"  {line(item)}\n")
                _paragraph(item.get("description"), "      ")


def _short(value: Any) -> str:
    return printable(str(value), 300)


def _paragraph(text: Any, indent: str) -> None:
    if isinstance(text, str) and text.strip():
        for line in text.strip().split("\n")[:40]:
            out(f"{indent}{printable(line.strip(), 1000)}".rstrip() + "\n")


def _tool(tool: Message) -> str:
    schema = tool["inputSchema"]
    return f"{_short(tool['name'])}({', '.join(schemas.parts(schema, schema))}){_titled(tool)}"


def tool(tool: Message, target: str) -> None:
    """Show one tool in full, with a call to copy.

    :param target: the server as the user typed it.
    """
    out(_tool(tool) + "\n")
    _paragraph(tool.get("description"), "  ")
    schema = tool["inputSchema"]
    members, required = schema.get("properties"), schema.get("required")
    wanted = required if isinstance(required, list) else []
    if isinstance(members, dict) and members:
        out("\nArguments\n")
    for line, (name, member) in zip(
        schemas.parts(schema, schema), members.items() if isinstance(members, dict) else ()
    ):
        out(f"  {line}{'  (required)' if name in wanted else ''}\n")
        _paragraph(member.get("description") if isinstance(member, dict) else None, "      ")
    if isinstance(tool.get("outputSchema"), dict):
        out(f"\nResult\n  {schemas.shape(tool['outputSchema'], tool['outputSchema'])}\n")
    hints = tool.get("annotations")
    if isinstance(hints, dict) and hints:
        out("\nHints of the server\n  " + ", ".join(f"{_short(key)}: {_short(hints[key])}" for key in hints) + "\n")
    words = ["minimcp", "call", target, str(tool["name"])]
    if isinstance(members, dict):
        for name in wanted:
            value = schemas.example(members.get(name), schema)
            words.append(f"{name}={value}" if isinstance(value, str) else f"{name}={json.dumps(value)}")
    out(f"\nTo call it\n  {printable(shlex.join(words), 2000)}\n")


def _resource(item: Message) -> str:
    kind = item.get("mimeType")
    return _short(item.get("uri", item.get("uriTemplate", "?"))) + (f"  {_short(kind)}" if kind else "") + _titled(item)


def _prompt(prompt: Message) -> str:
    listed = prompt.get("arguments")
    parts = [
        _short(each.get("name")) + ("" if each.get("required") else "?")
        for each in (listed if isinstance(listed, list) else ())
        if isinstance(each, dict)
    ]
    return f"{_short(prompt.get('name'))}({', '.join(parts)}){_titled(prompt)}"


def _titled(item: Message) -> str:
    return f"  - {_short(item['title'])}" if isinstance(item.get("title"), str) else ""


def content(blocks: Any, data: Any = None) -> str:
    """Return content blocks as text; a binary block is named.

    :param data: structured content, shown when there are no blocks.
    """
    blocks = blocks if isinstance(blocks, list) else [blocks]
    lines = [_block(block) for block in blocks if isinstance(block, dict)]
    if not lines and data is not None:
        lines = [json.dumps(data, indent=2)]
    return "\n".join(lines)


def _block(block: Message) -> str:
    kind = block.get("type")
    if isinstance(block.get("text"), str):
        return str(block["text"])
    if kind == "resource" and isinstance(block.get("resource"), dict):
        inner = block["resource"]
        return str(inner["text"]) if isinstance(inner.get("text"), str) else f"[{inner.get('uri')}: bytes]"
    if kind == "resource_link":
        return f"[link to {block.get('uri')}]"
    size = len(block["data"]) * 3 // 4 if isinstance(block.get("data"), str) else 0
    return f"[{kind} {block.get('mimeType', '')}, about {size} bytes; -o FILE writes them]"


class Bar:
    """Shows the progress of a call on one line of a terminal."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._lock = threading.RLock()  # a question of a legacy server comes on another thread; guards what follows
        self._width = 0
        self._hidden = False

    def __call__(self, progress: Message) -> None:
        """Draw `{"progress": number, "total"?: number, "message"?: str}`."""
        text = str(progress["progress"])[:20]
        try:
            share = min(max(float(progress["progress"]) / float(progress["total"]), 0.0), 1.0)
            full = int(share * _BAR)
            text = f"[{'#' * full}{'.' * (_BAR - full)}] {share:4.0%}"
        except (ArithmeticError, KeyError, TypeError, ValueError):
            pass  # There is no total, or not a valid one.
        if isinstance(progress.get("message"), str):
            text += " " + printable(progress["message"], 100)
        with self._lock:
            if not self._hidden:
                self._stream.write("\r" + text.ljust(self._width))
                self._stream.flush()
                self._width = len(text)

    def clear(self) -> None:
        """Clear the line."""
        with self._lock:
            if self._width:
                self._stream.write("\r" + " " * self._width + "\r")
                self._stream.flush()
                self._width = 0

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Keep the line cleared for the duration, so that something else can be shown."""
        with self._lock:
            self.clear()
            self._hidden = True
        try:
            yield
        finally:
            self._hidden = False
