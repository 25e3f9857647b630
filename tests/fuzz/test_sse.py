"""The reader of event streams on arbitrary bytes: the events of the grammar for any split, and no exception."""

from __future__ import annotations

import os
import re

import pytest

from minimcp.engines.errors import ProtocolError
from minimcp.protocol.sse import EventReader

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

EXAMPLES = int(os.environ.get("MINIMCP_FUZZ_EXAMPLES", "400"))
bounded = hypothesis.settings(max_examples=EXAMPLES, deadline=None, database=None)

BOM = b"\xef\xbb\xbf"
WORDS = [b"data", b"data: ", b"data:", b"id: 7", b"id", b"event: x", b"event:", b"retry: 20", b"retry: x", b":", b" "]
ENDS = [
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"\r\r",
    b"\0",
    BOM,
    "\u2028é".encode(),
    b"\xe2\x80",
    b"\xff",
    b'{"jsonrpc":"2.0"}',
]
streams = st.lists(st.one_of(st.sampled_from(WORDS + ENDS), st.binary(max_size=4)), max_size=40).map(b"".join)
cuts = st.lists(st.integers(0, 200), max_size=20)


def read(raw, at, limit):
    """The events of a stream cut at these places, what is remembered of it, and whether it was too long."""
    reader = EventReader(limit)
    edges = [0, *sorted(min(each, len(raw)) for each in at), len(raw)]
    events = []
    try:
        for start, end in zip(edges, edges[1:]):
            events += reader.feed(raw[start:end])
    except ProtocolError:
        return events, "too long"
    return events, (reader.last_id, reader.retry_s)


@bounded
@hypothesis.given(streams, cuts, st.sampled_from([10**6, 150]))
def test_a_stream_has_the_same_events_however_it_is_cut(raw, at, limit):
    whole, pieces = read(raw, [], limit), read(raw, at, limit)
    # One that is too long may be noticed before the events in the same piece are handed out.
    assert pieces == whole or (pieces[1] == whole[1] == "too long" and limit == 150)


@bounded
@hypothesis.given(streams)
def test_the_events_are_those_of_the_grammar(raw):
    text = raw[3:] if raw.startswith(BOM) else raw
    ended = re.compile(rb"(.*?)(?:\r\n|\n|\r)", re.DOTALL)
    events, data, name = [], [], ""
    for line in ended.findall(text):
        if not line:
            if "\n".join(data):
                events.append((name or "message", "\n".join(data)))
            data, name = [], ""
            continue
        field, _, value = line.partition(b":")
        value = (value[1:] if value.startswith(b" ") else value).decode("utf-8", "replace")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    assert read(raw, [], 10**6)[0] == events
