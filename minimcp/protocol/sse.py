"""Server-sent events: one event as bytes, and events out of lines of bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

COMMENT = b":\n\n"


def encode(data: bytes, event: str | None = None, id: str | None = None, retry_ms: int | None = None) -> bytes:
    """Encode one event; `data` is one line (JSON never holds a raw line break), or empty for a priming event."""
    lines = []
    if event is not None:
        lines.append(b"event: " + event.encode())
    if id is not None:
        lines.append(b"id: " + id.encode())
    if retry_ms is not None:
        lines.append(b"retry: " + str(retry_ms).encode())
    lines.append(b"data: " + data)
    return b"\n".join(lines) + b"\n\n"


def decode(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield `{"data": str, "event"?: str, "id"?: str, "retry"?: int}` for every event in the lines.

    Lines may end in LF, CRLF or nothing; comments are skipped; an event that the end cuts off is dropped.
    """
    event: dict[str, Any] = {}
    data: list[str] = []
    for raw in lines:
        line = raw.rstrip(b"\r\n").decode("utf-8", "replace")
        if not line:
            if data or event:
                yield {"data": "\n".join(data), **event}
            event, data = {}, []
            continue
        field, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if field == "data":
            data.append(value)
        elif field == "retry" and value.isascii() and value.isdigit():
            event["retry"] = int(value)
        elif field in ("event", "id"):
            event[field] = value
