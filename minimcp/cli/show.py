"""Output of the commands; control characters that a server sends are escaped on a terminal."""

from __future__ import annotations

import difflib
import json
import shutil
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional

from ..client.transports.command import shown
from ..engines.errors import printable
from . import schemas

Message = dict[str, Any]

_BAR = 30
_MOST_NAMED = 20


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


def wide() -> Optional[int]:
    """Return the columns of the terminal that standard output is, None where it is none and lines stay whole."""
    return max(20, shutil.get_terminal_size().columns) if sys.stdout.isatty() else None


def line(text: str, indent: str = "", more: str = "    ") -> None:
    """Write a line, folded between words where the terminal ends.

    :param indent: stands before it; before its further lines `more` stands, too.
    """
    width = wide()
    if width is None or len(indent) + len(text) <= width:
        out(f"{indent}{text}".rstrip() + "\n")
        return
    fold = textwrap.TextWrapper(width, indent, indent + more, break_long_words=False, break_on_hyphens=False)
    for part in fold.wrap(text):
        out(part + "\n")


def paragraph(text: Any, indent: str) -> None:
    """Write a text of the server, of which very long ones are cut."""
    if isinstance(text, str) and text.strip():
        for part in text.strip().split("\n")[:40]:
            line(printable(part.strip(), 1000), indent, "")


def offer(info: Message, version: str, instructions: Any, lists: Message) -> None:
    """Show what a server offers.

    :param lists: `tools`, `resources`, `resourceTemplates`, `prompts`.
    """
    name = info.get("title") or info.get("name") or "a server without a name"
    line(f"{short(name)} {short(info.get('version', ''))} ({version})")
    if isinstance(instructions, str):
        paragraph(instructions, "")
    for key, heading, title in (
        ("tools", "Tools", tool),
        ("resources", "Resources", resource),
        ("resourceTemplates", "Resource templates", resource),
        ("prompts", "Prompts", prompt),
    ):
        if lists[key]:
            out(f"\n{heading}\n")
        for item in lists[key]:
            if isinstance(item, dict):
                line(title(item), "  ")
                paragraph(item.get("description"), "      ")


def short(value: Any) -> str:
    """Return a name of the server for a terminal."""
    return printable(str(value), 300)


def target(given: Any) -> str:
    """Return a target as it is typed."""
    return given if isinstance(given, str) else shown(given)


def missing(kind: str, name: str, names: list[str]) -> str:
    """Return the text for a name that the server does not list."""
    near = difflib.get_close_matches(name, names, 3) or names[:_MOST_NAMED]
    return f"the server lists no {kind} {name!r}; there is {', '.join(near) or 'none'}"


def tool(item: Message) -> str:
    """Return a tool as it is called."""
    schema = item["inputSchema"]
    return f"{short(item['name'])}({', '.join(schemas.parts(schema, schema))}){_titled(item)}"


def resource(item: Message) -> str:
    """Return the URI of a resource or of a template, and what it is."""
    kind = item.get("mimeType")
    return short(item.get("uri", item.get("uriTemplate", "?"))) + (f"  {short(kind)}" if kind else "") + _titled(item)


def prompt(item: Message) -> str:
    """Return a prompt with its arguments; those with a question mark may be left out."""
    parts = [short(each.get("name")) + ("" if each.get("required") else "?") for each in arguments_of(item)]
    return f"{short(item.get('name'))}({', '.join(parts)}){_titled(item)}"


def arguments_of(item: Message) -> list[Message]:
    """Return the arguments of a prompt."""
    listed = item.get("arguments")
    return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []


def _titled(item: Message) -> str:
    return f"  - {short(item['title'])}" if isinstance(item.get("title"), str) else ""


# The end of the line that stands for bytes.
SAVES = "; -o FILE writes them]"


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
    return f"[{kind} {block.get('mimeType', '')}, about {size} bytes{SAVES}"


class Bar:
    """Shows the progress of a call on one line of a terminal."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._lock = threading.RLock()  # a question of a legacy server comes on another thread; guards what follows
        self._width = 0
        self._hidden = False

    def __call__(self, progress: Message) -> None:
        """Draw `{"progress": number, "total"?: number, "message"?: str}`; a task has but a message."""
        text = str(progress.get("progress", ""))[:20]
        try:
            share = min(max(float(progress["progress"]) / float(progress["total"]), 0.0), 1.0)
            full = int(share * _BAR)
            text = f"[{'#' * full}{'.' * (_BAR - full)}] {share:4.0%}"
        except (ArithmeticError, KeyError, TypeError, ValueError):
            pass  # There is no total, or not a valid one.
        if isinstance(progress.get("message"), str):
            text = f"{text} {printable(progress['message'], 100)}".lstrip()
        text = text[: shutil.get_terminal_size().columns - 1]
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
