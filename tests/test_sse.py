"""Server-sent events as bytes and back."""

from __future__ import annotations

import pytest

from minimcp.protocol import sse


def read(raw, size=None):
    """All events of a stream that comes in pieces of a size, and the reader after them."""
    reader = sse.EventReader(1000)
    pieces = [raw[at : at + size] for at in range(0, len(raw), size)] if size else [raw]
    return [event for piece in pieces for event in reader.feed(piece)], reader


def test_an_event_is_its_fields_and_a_blank_line():
    assert sse.encode(b"{}") == b"data: {}\n\n"
    assert sse.encode(b"{}", event="message") == b"event: message\ndata: {}\n\n"
    assert sse.encode(b"", id="1-0", retry_ms=500) == b"id: 1-0\nretry: 500\ndata: \n\n"
    assert sse.COMMENT == b":\n\n"


@pytest.mark.parametrize("size", [1, 2, 3, 7, None])
def test_events_are_read_whatever_ends_their_lines_and_however_they_are_cut(size):
    raw = b": hello\nid: 1\r\nevent: other\r\ndata: a\r\ndata:b\r\n\r\n"
    events, reader = read(raw, size)
    assert events == [("other", "a\nb")]
    assert (reader.last_id, reader.retry_s) == ("1", None)
    raw += b":\n\nretry: 20\nid: 2\ndata: \n\nretry: x\rdata: c\r\rid: 3\ndata: cut"
    events, reader = read(raw, size)
    assert events == [("other", "a\nb"), ("message", "c")]
    assert (reader.last_id, reader.retry_s) == ("2", 0.02)
    assert list(reader.feed(b"\n\n")) == [("message", "cut")]
    assert reader.last_id == "3"


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, None])
def test_a_bom_before_a_stream_is_no_part_of_it(size):
    bom = b"\xef\xbb\xbf"
    assert read(bom + b"data: a\n\n" + bom + b"data: b\n\ndata: c\n\n", size)[0] == [("message", "a"), ("message", "c")]
    assert read(bom + b"\r\ndata: a\n\n", size)[0] == [("message", "a")]
    _, reader = read(bom + b"data: cut", size)
    reader.restart()
    assert list(reader.feed(bom + b"data: b\n\n")) == [("message", "b")]


def test_an_event_that_was_cut_off_is_forgotten():
    _, reader = read(b"id: 1\ndata: a\n\nid: 2\nevent: x\ndata: cut")
    reader.restart()
    assert list(reader.feed(b"data: b\n\n")) == [("message", "b")]
    assert reader.last_id == "1"


def test_what_is_written_is_read():
    raw = sse.encode(b'{"a":1}', "message", "7-1") + sse.encode(b"", None, "7-2", 500)
    events, reader = read(raw)
    assert events == [("message", '{"a":1}')]
    assert (reader.last_id, reader.retry_s) == ("7-2", 0.5)


def test_an_empty_id_ends_the_memory_of_one_and_a_wish_is_bounded():
    _, reader = read(b"id: 1\n\nid\n\nretry: 999999999999\n\nretry: " + b"9" * 100 + b"\n\nid: a\0b\n\n")
    assert (reader.last_id, reader.retry_s) == (None, 86_400)


def test_line_separators_of_unicode_end_no_line():
    events, _ = read("data: a\u2028b\u0085c\n\n".encode())
    assert events == [("message", "a\u2028b\u0085c")]


def test_an_event_is_bounded_by_its_bytes_and_its_lines():
    for raw in (b"data: " + b"x" * 1000, b"a\n" * 20, b":\n" * 20):
        with pytest.raises(sse.ProtocolError, match="1000 bytes"):
            read(raw)
    assert len(read(b"data: " + b"x" * 900 + b"\n\n" + b"a\n" * 10)[0]) == 1
