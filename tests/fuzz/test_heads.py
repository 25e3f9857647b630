"""The parser of request heads and bodies on arbitrary bytes in arbitrary pieces: a request or a clean refusal."""

from __future__ import annotations

import os
import socket
import threading
from typing import Any

import pytest

from minimcp.engines.http_server import framing
from minimcp.engines.http_server.framing import BadRequest, Head
from tests.embedded import Wire, echo, embedded, wait_until

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

EXAMPLES = int(os.environ.get("MINIMCP_FUZZ_EXAMPLES", "200"))
bounded = hypothesis.settings(
    max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
)
LIMITS = {"line_bytes": 300, "head_bytes": 900, "headers": 8, "body_bytes": 500}
STATUSES = {400, 408, 413, 414, 417, 431, 501, 503, 505}

# What a request is made of, and what it is not; an example joins any of them.
LINES = [
    b"GET / HTTP/1.1",
    b"POST /mcp?x=%00 HTTP/1.1",
    b"OPTIONS * HTTP/1.0",
    b"GET http://x/a#b HTTP/1.1",
    b"PUT //x/../%zz HTTP/1.1",
    b"PRI * HTTP/2.0",
    b"get  / HTTP/1.1",
    b"GET /\xff HTTP/1.1",
]
FIELDS = [
    b"Host: x",
    b"Host: [::1]:80",
    b"Content-Length: 3",
    b"Content-Length: +3",
    b"Content-Length: 99999999999999999999999",
    b"Content-Length: \xb2",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Connection: close",
    b"Connection: keep-alive, upgrade",
    b"Expect: 100-continue",
    b"Expect: tea",
    b"Content_Length: 5",
    b"Cookie: a=1",
    b"X-Long: " + b"x" * 200,
    b"Mcp-Method: a",
    b" folded: line",
    b"No-Colon",
    b": empty",
    b"Nul: \0",
]
BODIES = [
    b"",
    b"abc",
    b"3\r\nabc\r\n0\r\n\r\n",
    b"ffffffff\r\n",
    b"0\r\nA: b\r\n\r\n",
    b"-1\r\n",
    b"3;x=\r\nabcd\r\n",
    b"{}",
]
ENDS = [b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\r\n"]


def join(line: bytes, fields: list[bytes], ends: list[bytes], body: bytes) -> bytes:
    parts = [line, *fields, b""]
    return b"".join(part + end for part, end in zip(parts, ends)) + body


heads = st.builds(
    join,
    st.sampled_from(LINES) | st.binary(max_size=30),
    st.lists(st.sampled_from(FIELDS) | st.binary(max_size=20), max_size=10),
    st.lists(st.sampled_from(ENDS), min_size=12, max_size=12) | st.just([b"\r\n"] * 12),
    st.sampled_from(BODIES) | st.binary(max_size=40),
)
streams = st.binary(max_size=200) | heads | st.lists(heads, max_size=3).map(b"".join)


def checked(head: Head) -> None:
    """Check that a head that was taken is whole and unambiguous."""
    assert head.method in framing.METHODS and head.environ["REQUEST_METHOD"] == head.method
    assert all(type(key) is str and type(value) is str for key, value in head.environ.items())
    assert not any(mark in value for value in head.environ.values() for mark in "\r\n")
    assert head.length is None or 0 <= head.length <= LIMITS["body_bytes"]
    assert "HTTP_TRANSFER_ENCODING" not in head.environ
    assert head.environ["PATH_INFO"][:1] in ("/", "*")


@bounded
@hypothesis.given(streams)
def test_a_head_is_taken_or_refused_with_a_status(data: bytes) -> None:
    whole, found, _ = data.partition(b"\r\n\r\n")
    try:
        if found:
            checked(framing.parse_head(whole + found, LIMITS))
        else:
            framing.check_part(data or b"\0", LIMITS)
    except BadRequest as problem:
        assert problem.status in STATUSES and str(problem).isascii()


@bounded
@hypothesis.given(streams)
def test_a_beginning_is_refused_only_if_the_whole_would_be(data: bytes) -> None:
    whole, found, _ = data.partition(b"\r\n\r\n")
    hypothesis.assume(found)
    try:
        framing.parse_head(whole + found, LIMITS)
    except BadRequest:
        return
    for end in range(1, min(len(whole), 899)):
        framing.check_part(whole[:end], LIMITS)


@bounded
@hypothesis.given(st.sampled_from(BODIES) | st.binary(max_size=80), st.lists(st.binary(max_size=9), max_size=9))
def test_a_body_is_read_or_refused_however_it_is_cut(first: bytes, pieces: list[bytes]) -> None:
    def read(parts: list[bytes]) -> Any:
        left = [part for part in parts if part]
        try:
            body, rest = framing.read_chunked(b"", 60, lambda size: cut(left, size))
        except BadRequest as problem:
            assert problem.status in STATUSES
            return None
        return body, rest + b"".join(left)

    whole = first + b"".join(pieces)
    taken = read([whole])
    assert taken is None or len(taken[0]) <= 60
    assert read([first, *pieces]) == taken == read([whole[at : at + 1] for at in range(len(whole))])


def cut(left: list[bytes], size: int) -> bytes:
    """Return the next bytes, at most so many."""
    if not left:
        return b""
    part = left.pop(0)
    if len(part) > size:
        left.insert(0, part[size:])
    return part[:size]


@pytest.fixture(scope="module")
def listening() -> Any:
    with embedded(echo, head_s=2, body_s=2, idle_s=2, **LIMITS) as server:
        yield server


@hypothesis.settings(bounded, max_examples=max(20, EXAMPLES // 2))
@hypothesis.given(streams, st.lists(st.integers(1, 200), max_size=3))
def test_a_server_answers_bytes_in_pieces_cleanly_and_keeps_no_thread(
    listening: Any, caplog: Any, data: bytes, cuts: list[int]
) -> None:
    with Wire(listening, 5) as wire:
        at = 0
        for size in [*cuts, len(data)]:
            wire.send(data[at : at + size])
            at += size
        try:
            wire.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # It has refused what came first.
        answers = wire.until(b"\0 never sent")
    while answers:
        head, _, answers = answers.partition(b"\r\n\r\n")
        status = int(head.split(b" ")[1])
        assert head.startswith(b"HTTP/1.1 ") and status in STATUSES | {100, 200}, head
        if status == 100:
            continue
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        # The answer to HEAD has none, but no example asks for it.
        answers = answers[length:]
    wait_until(lambda: not [each for each in threading.enumerate() if each.name == "minimcp-connection"])
    assert not [record for record in caplog.records if record.exc_info]
