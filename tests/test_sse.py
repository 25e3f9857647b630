"""Server-sent events as bytes and back."""

from __future__ import annotations

from minimcp.protocol import sse


def test_an_event_is_its_fields_and_a_blank_line():
    assert sse.encode(b"{}") == b"data: {}\n\n"
    assert sse.encode(b"{}", event="message") == b"event: message\ndata: {}\n\n"
    assert sse.encode(b"", id="1-0", retry_ms=500) == b"id: 1-0\nretry: 500\ndata: \n\n"
    assert sse.COMMENT == b":\n\n"


def test_events_are_read_whatever_ends_their_lines():
    raw = b": hello\nid: 1\r\nevent: message\r\ndata: a\r\ndata:b\r\n\r\n"
    raw += b":\n\nretry: 20\nid: 2\ndata: \n\nretry: x\ndata: cut"
    assert list(sse.decode(raw.splitlines(keepends=True))) == [
        {"data": "a\nb", "id": "1", "event": "message"},
        {"data": "", "id": "2", "retry": 20},
    ]


def test_what_is_written_is_read():
    events = [(b'{"a":1}', "message", "7-1", None), (b"", None, "7-2", 500)]
    lines = b"".join(sse.encode(*event) for event in events).splitlines(keepends=True)
    assert list(sse.decode(lines)) == [
        {"data": '{"a":1}', "event": "message", "id": "7-1"},
        {"data": "", "id": "7-2", "retry": 500},
    ]


def test_line_separators_of_unicode_end_no_line():
    (event,) = sse.decode(["data: a\u2028b\u0085c".encode(), b""])
    assert event["data"] == "a\u2028b\u0085c"
