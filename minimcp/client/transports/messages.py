"""Messages out of what a server sent: parsed within bounds, and checked once, with some leniency towards the field.

In the envelope null means absent, the id of an answer may be the text of a number, and a BOM may come first.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
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
_BOM = b"\xef\xbb\xbf"
_TELLING = {"jsonrpc", "result", "error"}
_lenient = json.JSONDecoder(strict=False).decode


def with_defaults(given: Optional[Mapping[str, float]]) -> dict[str, float]:
    """Return `LIMITS` with those that were given; keys for other transports are left out."""
    return {**LIMITS, **{key: value for key, value in (given or {}).items() if key in LIMITS}}


def _log_dropped(text: str) -> None:
    log.debug("%s", text)


def in_event(name: str, text: str, dropped: Callable[[str], None] = _log_dropped) -> list[Message]:
    """Return the messages in an event, without those that are none; a 2025-03-26 server may send several at once.

    :param dropped: called with a sentence about each that is none.
    """
    if name != "message":
        return []
    try:
        found = parse(text.encode("utf-8"))
    except ProtocolError as problem:
        dropped(f"an event of the server was dropped: {problem}")
        return []
    items = list(map(tidy, found if isinstance(found, list) else [found]))
    good = [message for message in items if is_message(message)]
    if len(good) < len(items):
        dropped("an event of the server was dropped: it is not a JSON-RPC message")
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
        return wire.loads(without_bom(body), _MAX_DEPTH, _MAX_ELEMENTS)
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


def without_bom(data: bytes) -> bytes:
    """Return the bytes without the BOM that some servers begin with."""
    return data[len(_BOM) :] if data.startswith(_BOM) else data


def tidy(message: Any) -> Any:
    """Leave out what is null in the envelope of a message, as far as it can be left out."""
    if not isinstance(message, dict) or None not in message.values():
        return message
    absent = {"method", "params", "error"}
    if message.get("method") is not None:
        absent |= {"id", "result"}
    elif message.get("error") is not None:
        absent.add("result")
    return {key: value for key, value in message.items() if value is not None or key not in absent}


def same_id(given: Any, id: Any) -> bool:
    """Say whether the id in an answer is that of a request, or its text. Spec: BASE-006"""
    if type(given) is type(id):
        return bool(given == id)
    return isinstance(given, str) and type(id) is int and given == str(id)


def may_answer(line: bytes, id: Any) -> bool:
    """Say whether a line that is no message may be the broken answer to the only request that is open.

    Other things that a program prints, such as a greeting, do not speak of JSON-RPC.
    """
    try:
        found = _lenient(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return b"jsonrpc" in line.replace(b"\0", b"")
    answers = [item for item in (found if isinstance(found, list) else [found]) if isinstance(item, dict)]
    return any(
        "method" not in item and not _TELLING.isdisjoint(item) and same_id(item.get("id"), id) for item in answers
    )
