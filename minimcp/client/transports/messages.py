"""Messages out of what a server sent over HTTP: parsed within bounds, and checked once."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, Optional

from ...engines.errors import ProtocolError
from ...engines.http_client.reply import Reply
from ...engines.http_client.response import LIMITS as HTTP_LIMITS
from ...protocol import wire
from ...protocol.errors import McpError
from ...protocol.sse import EventReader
from .transport import Message

log = logging.getLogger("minimcp")

# What a client accepts of a server by default; `limits=` changes it.
LIMITS: dict[str, float] = {
    **HTTP_LIMITS,
    "body_bytes": 64 * 1024 * 1024,  # a JSON reply
    "event_bytes": 64 * 1024 * 1024,  # one server-sent event
    "events": 1_000_000,  # events before the response; a listen stream may have any number
}
_MAX_DEPTH = 200
_MAX_ELEMENTS = 5_000_000


def with_defaults(given: Optional[Mapping[str, float]]) -> dict[str, float]:
    """Return `LIMITS` with those that were given; keys for other transports are left out."""
    return {**LIMITS, **{key: value for key, value in (given or {}).items() if key in LIMITS}}


def in_event(name: str, text: str) -> list[Message]:
    """Return the messages in an event, without those that are none; a 2025-03-26 server may send several at once."""
    if name != "message":
        return []
    try:
        found = parse(text.encode("utf-8"))
    except ProtocolError as problem:
        log.debug("an event of the server is dropped: %s", problem)
        return []
    items = found if isinstance(found, list) else [found]
    good = [message for message in items if is_message(message)]
    if len(good) < len(items):
        log.debug("an event of the server is dropped: it is not a JSON-RPC message")
    return good


def on_stream(reply: Reply, events: EventReader) -> Iterator[Message]:
    """Yield the messages on a stream until it ends."""
    for data in iter(lambda: reply.read(None), b""):
        for name, text in events.feed(data):
            yield from in_event(name, text)


def parse(body: bytes) -> Any:
    """Parse JSON.

    :raises ProtocolError: when it is not JSON, or is too deep.
    """
    try:
        return wire.loads(body, _MAX_DEPTH, _MAX_ELEMENTS)
    except McpError as problem:
        raise ProtocolError(f"The server sent what is not a message: {problem}") from None


def is_message(found: Any) -> bool:
    """Say whether this is a JSON-RPC message; an error may lack an id."""
    try:
        wire.check(found)
    except McpError:
        is_error = isinstance(found, dict) and "error" in found and not {"method", "result"} & found.keys()
        return is_error and found.get("id") is None
    return True
