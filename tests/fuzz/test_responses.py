"""The reader of HTTP responses on arbitrary bytes, in arbitrary pieces: one kind of error, the same in every split."""

from __future__ import annotations

import os
import re

import pytest

from minimcp.engines.errors import ClientError
from minimcp.engines.http_client.response import Response

pytest.importorskip("hypothesis")

from hypothesis import given, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("MINIMCP_FUZZ_EXAMPLES", "300"))
fuzzed = settings(max_examples=EXAMPLES, deadline=None)

WORDS = [
    *(
        b"HTTP/1.1 200 OK",
        b"HTTP/1.0 404 ",
        b"HTTP/1.1 100 Continue",
        b"HTTP/1.1 204 No",
        b"HTTP/2 200",
        b"HTTP/1.1 099 ",
    ),
    *(b"\r\n", b"\r\n\r\n", b"\n", b"\n\n", b"\r", b" ", b"\t", b":", b",", b";", b"\0", b"\xff"),
    *(
        b"Content-Length: 5",
        b"Content-Length: 0",
        b"content-length: 5, 5",
        b"Content-Length: -1",
        b"Content-Length: +5",
    ),
    *(b"Content-Length: " + b"9" * 5000, b"Content-Length: 00000005", b"Content-Length: \xb2"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding:"),
    *(b"Connection: close", b"Connection: keep-alive", b"Set-Cookie: a=b", b"Location: /x", b"X : y", b" folded"),
    *(
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"5;a=b\r\nhello\r\n",
        b"FFFFFFFFFFFFFFF\r\n",
        b"-5\r\n",
        b"0x5\r\n",
        b"5\r\nhello",
    ),
    *(b"0\r\nTrailer: x\r\n\r\n", b"hello", b"{}"),
]
pieces = st.lists(st.one_of(st.sampled_from(WORDS), st.binary(max_size=8)), max_size=12)
heads = st.lists(st.sampled_from(WORDS[18:-9]), max_size=4).map(
    lambda lines: b"HTTP/1.1 200 OK\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"
)
documents = st.one_of(pieces.map(b"".join), st.tuples(heads, pieces.map(b"".join)).map(b"".join))


class Pipe:
    """A socket whose bytes come in the pieces that a test cuts."""

    def __init__(self, data, cuts):
        edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
        self.pieces = [data[start:end] for start, end in zip(edges, edges[1:])]

    def settimeout(self, seconds):
        pass

    def recv(self, size):
        assert self.pieces is not None, "read after the end"
        return self.pieces.pop(0) if self.pieces else b""


def read(data, cuts, method="POST", head_bytes=65536):
    """Everything a reader makes of some bytes, its error last."""
    response = Response(Pipe(data, cuts), head_bytes, method)
    body = b""
    try:
        response.head(None)
        while part := response.read(None):
            body += part
        end = "whole"
        assert response.finished
    except ClientError as problem:
        end = f"{type(problem).__name__}: {problem}"
    assert len(body) <= len(data)
    # With bytes that nobody asked for behind it, or an end by the connection, a connection is not used again.
    if response.reusable:
        assert end == "whole" and response.read(None) == b""
    return response.status, response.headers, response.cookies, body, end


@fuzzed
@given(documents, st.lists(st.integers(0, 10_000), max_size=6), st.sampled_from(["POST", "HEAD"]))
def test_any_bytes_end_in_a_response_or_one_kind_of_error_however_they_are_cut(data, cuts, method):
    whole = read(data, (), method)
    assert read(data, cuts, method) == whole
    assert read(data, range(len(data)) if len(data) < 300 else cuts, method) == whole


@fuzzed
@given(
    st.binary(max_size=200),
    st.lists(st.integers(1, 40), max_size=8),
    st.lists(st.integers(0, 1000), max_size=5),
    st.booleans(),
)
def test_a_body_arrives_whole_in_either_framing(body, sizes, cuts, chunked):
    if chunked:
        parts, at = [], 0
        for size in [*sizes, len(body)]:
            part = body[at : at + size]
            at += len(part)
            parts += [b"%x;ext=1\r\n%s\r\n" % (len(part), part)] if part else []
        data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(parts) + b"0\r\nX: y\r\n\r\n"
    else:
        data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    assert read(data, cuts) == (200, read(data, ())[1], [], body, "whole")
    for end in {cut % len(data) for cut in cuts}:
        assert read(data[:end], cuts)[-1].startswith("ConnectionLost: ")


@fuzzed
@given(pieces.map(b"".join), st.integers(1, 200))
def test_a_head_is_never_longer_than_its_limit(data, limit):
    data = b"HTTP/1.1 200 OK\r\n" + data
    status, *_ = read(data, (), head_bytes=limit)
    found = re.search(rb"\n\r?\n", data)
    assert not status or (found and found.end() <= limit)
