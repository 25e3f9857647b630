"""What both official Python SDKs keep events in, so that a stream that broke off can be gone on with."""

from __future__ import annotations

from mcp.server.streamable_http import EventMessage, EventStore


class MemoryStore(EventStore):
    """Numbers events, over all streams."""

    def __init__(self) -> None:
        self._events: list[tuple] = []

    async def store_event(self, stream_id, message) -> str:
        self._events.append((stream_id, message))
        return str(len(self._events))

    async def replay_events_after(self, last_event_id, send_callback):
        stream, _ = self._events[int(last_event_id) - 1]
        for number, (stream_id, message) in enumerate(list(self._events), 1):
            if number > int(last_event_id) and stream_id == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream
