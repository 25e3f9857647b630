"""The limits of a server, each with its default; `Server(limits={...})` overrides them one by one."""

from __future__ import annotations

MIB = 1024 * 1024

LIMITS: dict[str, float] = {
    # One message.
    "body_bytes": 4 * MIB,  # an HTTP body or a stdio line
    "depth": 64,  # nesting of a message
    "elements": 250_000,  # members and items of a message
    "batch": 100,  # messages in a 2025-03-26 batch
    # Calls.
    "calls": 128,  # in progress in one legacy session over HTTP, or on one stdio connection
    "session_calls": 1000,  # in progress in all legacy sessions of a process over HTTP
    "silence_s": 15,  # before a silent call's reply becomes a stream
    "ask_s": 600,  # waiting for a legacy client's answer
    "unread_s": 60,  # the same while nobody reads the stream on which it was asked
    # Legacy sessions.
    "sessions": 10_000,
    "session_idle_s": 1800,
    "session_s": 86_400,  # how long a session id can be restored by another worker
    # Streams.
    "streams": 500,  # open listen and GET streams per process on the embedded server
    "foreign_streams": 2,  # the same on another WSGI server, whose few threads they would starve
    "stream_s": 3600,  # the age at which a listen or GET stream is ended
    "keepalive_s": 5,  # between comments on a silent stream; a disconnect is noticed within one
    "subscriptions": 1000,  # URIs in one listen request, or per legacy session
    "subscription_bytes": MIB // 4,  # of their URIs; of a listen request as a whole
    "all_subscription_bytes": 64 * MIB,  # the same in all listen streams and legacy sessions of a server
    "events": 1000,  # kept per legacy stream for Last-Event-ID
    "event_bytes": 32 * MIB,  # of the events that all legacy streams of a process keep
    "event_s": 60,  # how long a stream is kept after its end
}
