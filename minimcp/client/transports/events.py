"""Server-sent events out of pieces of a stream, and the messages in them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from ...engines.errors import ProtocolError
from ...protocol import sse, wire
from ...protocol.errors import McpError

log = logging.getLogger("minimcp")

# What each line of an event costs beside its bytes, so that a flood of short ones is bounded as well.
_LINE_COST = 64
_ID_BYTES = 4096
_RETRY_BYTES = 32
# Nobody would sit through a longer wait.
_MOST_RETRY_MS = 86_400_000
_MAX_DEPTH = 200
_MAX_ELEMENTS = 10_000_000


class Events:
    """Server-sent events out of pieces of a stream; remembers where to go on with it.

    :ivar last_id: the id of the newest event that had one, or None.
    :ivar retry_s: how long to wait before coming back, as the server wished, or None.
    """

    def __init__(self, limit: float) -> None:
        self.last_id: str | None = None
        self.retry_s: float | None = None
        self._limit = limit
        self.restart()

    def restart(self) -> None:
        """Forget an event that was cut off: the stream begins anew."""
        self._lines: list[bytes] = []
        self._line = bytearray()
        self._size = 0
        self._after_cr = False

    def feed(self, data: bytes) -> Iterator[tuple[str, str]]:
        """Yield the name and the data of every event that is complete; the name is "message" unless it has another.

        :raises ProtocolError: for an event that is longer than the limit.
        """
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
        self._after_cr = data.endswith(b"\r")
        for line in data.splitlines(keepends=True):
            self._size += len(line)
            if self._size > self._limit:
                raise ProtocolError(f"The server sent an event of more than {self._limit:.0f} bytes")
            self._line += line
            if not line.endswith((b"\n", b"\r")):
                return
            whole = bytes(self._line.rstrip(b"\r\n"))
            self._line.clear()
            if whole:
                self._size += _LINE_COST
                if len(whole) <= _RETRY_BYTES or not whole.startswith(b"retry"):
                    self._lines.append(whole)
                continue
            lines, self._lines, self._size = self._lines, [], 0
            for event in sse.decode([*lines, b""]):
                self._remember(event)
                if event["data"]:
                    yield event.get("event") or "message", event["data"]

    def _remember(self, event: dict[str, Any]) -> None:
        id = event.get("id")
        if id is not None and len(id) <= _ID_BYTES and "\0" not in id:
            self.last_id = id or None
        if "retry" in event:
            self.retry_s = min(event["retry"], _MOST_RETRY_MS) / 1000


def messages(name: str, text: str) -> list[dict[str, Any]]:
    """The messages in an event; what is none is dropped. A 2025-03-26 server may send several at once."""
    if name != "message":
        return []
    try:
        found = parse(text.encode("utf-8"))
    except ProtocolError as problem:
        log.debug("an event of the server is dropped: %s", problem)
        return []
    items = found if isinstance(found, list) else [found]
    good = [message for message in items if kind_of(message) is not None]
    if len(good) < len(items):
        log.debug("an event of the server is dropped: it is not a JSON-RPC message")
    return good


def parse(body: bytes) -> Any:
    """Parse what a server sent.

    :raises ProtocolError: when it is not JSON, or is too deep.
    """
    try:
        return wire.loads(body, _MAX_DEPTH, _MAX_ELEMENTS)
    except McpError as problem:
        raise ProtocolError(f"The server sent what is not a message: {problem}") from None


def kind_of(message: Any) -> str | None:
    """What a message is, or None for what is none; an error may lack an id."""
    try:
        return wire.check(message)
    except McpError:
        error = isinstance(message, dict) and "error" in message and not {"method", "result"} & message.keys()
        return "response" if error and message.get("id") is None else None
