"""Lines of a stream of bytes, each of which is a message on stdio."""

from __future__ import annotations

import json
import re
from typing import Any

# As much of a line that is too long as is kept to find out whom to answer.
_HEAD = 16 * 1024
_decode = json.JSONDecoder().raw_decode
_SPACE = re.compile(r"[ \t\r\n]*")


class LineSplitter:
    """Splits bytes at LF alone and leaves out blank lines; one thread at a time. Spec: TRN-010, TRN-011

    :param limit: the longest line in bytes, without its LF.
    :ivar too_long: whether the line that has not ended yet is longer.
    :ivar heads: the beginnings of the lines that were too long and have ended, oldest first; its user takes them out.
    """

    def __init__(self, limit: int) -> None:
        self.too_long = False
        self.heads: list[bytes] = []
        self._head = b""  # the beginning of the line that is too long and has not ended yet
        self._limit = limit
        self._parts: list[bytes] = []  # of the line that has not ended yet
        self._size = 0

    @property
    def begun(self) -> bool:
        """Whether a line has begun and not ended yet."""
        return self.too_long or bool(self._parts)

    def feed(self, chunk: bytes) -> list[bytes | None]:
        """Take some bytes and return the lines that end in them, None for one longer than the limit."""
        *ended, rest = chunk.split(b"\n")
        lines: list[bytes | None] = []
        for line in ended:
            if self._parts:
                line = b"".join([*self._parts, line])
                self._parts.clear()
                self._size = 0
            if self.too_long or len(line) > self._limit:
                self.heads.append(self._head if self.too_long else line[:_HEAD])
                self.too_long = False
                lines.append(None)
            elif line and not line.isspace():
                lines.append(line)
        if rest:
            self._parts.append(rest)
            self._size += len(rest)
            if self._size > self._limit:
                # The rest of the line is not kept either, so that an endless one takes bounded memory.
                if not self.too_long:
                    self._head = b"".join(self._parts)[:_HEAD]
                self.too_long = True
                self._parts.clear()
                self._size = 0
        return lines


def read_head(head: bytes) -> dict[str, Any]:
    """Read the members of an object of which only the beginning is there; the last may be cut off, and is None then."""
    text = head.decode("utf-8", "replace")
    found: dict[str, Any] = {}
    at = _after_space(text, 0)
    while text[at : at + 1] == ("," if found else "{"):
        start = _after_space(text, at + 1)
        try:
            name, colon = _decode(text, start)
        except (ValueError, RecursionError):
            break
        colon = _after_space(text, colon)
        if not isinstance(name, str) or text[colon : colon + 1] != ":":
            break
        value = None
        try:
            value, at = _decode(text, _after_space(text, colon + 1))
            at = _after_space(text, at)
        except (ValueError, RecursionError):
            at = len(text)
        # A number at the very end may go on beyond it.
        found.setdefault(name, value if at < len(text) else None)
    return found


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()
