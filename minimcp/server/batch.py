"""Batches, which only 2025-03-26 has: an array of messages, answered by one array. Spec: BASE-022, BASE-025"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Optional, cast

from ..protocol import headers, spec, wire
from ..protocol.errors import HttpAnswer, InvalidRequest, McpError
from .dispatcher import Call, Message, Send

if TYPE_CHECKING:
    from ..protocol.principal import Principal
    from .engine import Engine
    from .session import Session


class Batch:
    """The calls of a batch, run one after the other, with the interface of a Call."""

    streams = quick = False
    deadline: float | None = None
    http: HttpAnswer | None = None

    def __init__(self, calls: list[Call], refused: list[Message]) -> None:
        self.calls = calls
        self.id = None
        self.refused = refused
        self.contexts = [call.ctx for call in calls]
        self.interactive = any(call.interactive for call in calls)

    def run(self, send: Send | None = None) -> list[Message] | None:
        """Run every call and return their replies as one array, or None when there is nothing to say."""
        replies = [reply for reply in (call.run(send) for call in self.calls) if reply is not None]
        return self.refused + replies or None

    def messages(self, send: Send | None = None) -> Generator[Optional[Message], None, None]:
        """Yield nothing: no call of a batch is long-lived."""
        yield from ()

    def cancel(self, reason: Any = None) -> None:
        """Cancel every call."""
        for call in self.calls:
            call.cancel(reason)


def read_batch(
    engine: Engine, messages: list[Any], session: Session | None, principal: Principal | None, request: Any
) -> Batch | None:
    """Make the calls of a batch; None for one that has only notifications and responses.

    :raises InvalidRequest: outside a 2025-03-26 session, or for a batch that is empty or too long.
    """
    if session is None or session.version != spec.BATCHES:
        raise InvalidRequest(f"A message is a JSON object; arrays exist only in a {spec.BATCHES} session")
    limit = int(engine.limits["batch"])
    if not 0 < len(messages) <= limit:
        raise InvalidRequest(f"A batch has 1 to {limit} messages")
    calls: list[Call] = []
    refused: list[Message] = []
    for message in messages:
        try:
            if isinstance(message, dict) and message.get("method") == "initialize":
                raise InvalidRequest("initialize must not be part of a batch")
            if isinstance(message, list):
                raise InvalidRequest("A message is a JSON object")
            if headers.is_modern(message, None):
                raise InvalidRequest("A 2026-07-28 request is never part of a batch")
            call = engine.call(message, session=session, principal=principal, request=request)
        except McpError as problem:
            reply = engine.refuse(message, problem, principal, request)
            if not wire.is_notification(message):
                refused.append(reply)
        else:
            if call is not None:
                calls.append(cast(Call, call))
    return Batch(calls, refused) if calls or refused else None
