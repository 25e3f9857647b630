"""Server-sent events: one event as bytes, and events out of the pieces of a stream."""

from __future__ import annotations

from collections.abc import Iterator

from ..engines.errors import ProtocolError

COMMENT = b":\n\n"

# The cost of each line of an event beside its bytes, so that a flood of short ones is bounded as well.
_LINE_COST = 64
_ID_CHARACTERS = 4096
_RETRY_BYTES = 32
_BOM = b"\xef\xbb\xbf"
# Nobody would sit through a longer wait.
_MOST_RETRY_MS = 86_400_000


def encode(data: bytes, event: str | None = None, id: str | None = None, retry_ms: int | None = None) -> bytes:
    """Encode one event; `data` is one line (JSON never holds a raw line break), or empty for a priming event."""
    if event is None and id is None and retry_ms is None:
        return b"data: " + data + b"\n\n"
    lines = []
    if event is not None:
        lines.append(b"event: " + event.encode())
    if id is not None:
        lines.append(b"id: " + id.encode())
    if retry_ms is not None:
        lines.append(b"retry: " + str(retry_ms).encode())
    lines.append(b"data: " + data)
    return b"\n".join(lines) + b"\n\n"


def data_of(event: bytes) -> bytes:
    """Return the data of an event that `encode` has made."""
    return event[event.index(b"data: ") + 6 : -2]


class EventReader:
    """An incremental, bounded parser of an event stream, used by one thread; it remembers where to resume.

    :param limit: the most bytes that an event may have, with its comments.
    :ivar last_id: the id of the newest event that had one, or None.
    :ivar retry_s: how long to wait before coming back, as the server wished, or None.
    """

    def __init__(self, limit: float) -> None:
        self.last_id: str | None = None
        self.retry_s: float | None = None
        self._limit = limit
        self.restart()

    def restart(self) -> None:
        """Forget an event that was cut off: the stream begins again."""
        self._fields: dict[str, str] = {}
        self._data: list[str] = []
        self._line = bytearray()
        self._size = 0
        self._after_cr = False
        self._begun = False

    def feed(self, data: bytes) -> Iterator[tuple[str, str]]:
        """Yield the name and the data of every event that is complete; the name is "message" unless it has another.

        Lines end in LF, CR or CRLF, and a BOM may come before the first. Events without data are not yielded, but their
        id and retry count.

        :raises ProtocolError: for an event that is longer than the limit.
        """
        if not data:
            return
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
        self._after_cr = data.endswith(b"\r")
        for piece in data.splitlines(keepends=True):
            self._size += len(piece)
            if self._size > self._limit:
                raise ProtocolError(f"The server sent an event of more than {self._limit:.0f} bytes")
            self._line += piece
            if not piece.endswith((b"\n", b"\r")):
                return
            line = bytes(self._line.rstrip(b"\r\n"))
            self._line.clear()
            if not self._begun:
                self._begun = True
                line = line[len(_BOM) :] if line.startswith(_BOM) else line
            if line:
                self._size += _LINE_COST
                self._take(line)
                continue
            fields, lines = self._fields, self._data
            self._fields, self._data, self._size = {}, [], 0
            self._remember(fields)
            text = "\n".join(lines)
            if text:
                yield fields.get("event") or "message", text

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        text = (value[1:] if value.startswith(b" ") else value).decode("utf-8", "replace")
        if name == b"data":
            self._data.append(text)
        elif name in (b"event", b"id") or (name == b"retry" and len(line) <= _RETRY_BYTES and _is_number(text)):
            self._fields[name.decode()] = text

    def _remember(self, fields: dict[str, str]) -> None:
        id = fields.get("id")
        if id is not None and len(id) <= _ID_CHARACTERS and "\0" not in id:
            self.last_id = id or None
        if "retry" in fields:
            self.retry_s = min(int(fields["retry"]), _MOST_RETRY_MS) / 1000


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
