"""The embedded server on the wire: framing, keep-alive, and that no request hides in another."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from minimcp.engines.http_server.wsgi_server import WsgiServer
from tests.embedded import Wire, calls, echo, embedded


@pytest.fixture(scope="module")
def server() -> Iterator[WsgiServer]:
    with embedded(echo) as listening:
        yield listening


@pytest.fixture
def wire(server: WsgiServer) -> Iterator[Wire]:
    """A connection to the echo; afterwards the server must still answer another."""
    calls.clear()
    with Wire(server) as connection:
        yield connection
    with Wire(server) as connection:
        assert connection.get("/alive").answer() == (200, b"/alive")


def test_four_requests_on_one_connection_and_then_close(wire: Wire) -> None:
    for number in range(4):
        assert wire.post(b"%d" % number).answer() == (200, b"%d" % number)
    wire.get("/last", "Connection: close")
    status, fields = wire.head()
    assert (status, fields["connection"]) == (200, "close")
    assert wire.until(b"/last") == b"/last"
    assert wire.closed()


def test_pipelined_requests_are_answered_in_order(wire: Wire) -> None:
    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n"
    wire.send(b"".join(request + b"%d" % number for number in range(9)))
    assert [wire.answer() for _ in range(9)] == [(200, b"%d" % number) for number in range(9)]


def test_http_1_0_is_served_and_closed(wire: Wire) -> None:
    wire.send(b"GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert wire.answer() == (200, b"/old")
    assert wire.closed()


def test_head_has_no_body(wire: Wire) -> None:
    wire.send(b"HEAD /four HTTP/1.1\r\nHost: x\r\n\r\n")
    status, fields = wire.head()
    assert (status, fields["content-length"]) == (200, "5")
    assert wire.get("/next").answer() == (200, b"/next")


def test_the_server_header_has_no_version(wire: Wire) -> None:
    _, fields = wire.get("/").head()
    assert fields["server"] == "minimcp"
    assert fields["date"].endswith(" GMT")


def test_a_request_that_comes_byte_by_byte_is_served(wire: Wire) -> None:
    wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab":
        wire.send(bytes([byte]))
    assert wire.answer() == (200, b"ab")


def test_a_chunked_body_is_decoded(wire: Wire) -> None:
    wire.post(b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nHost: evil\r\n\r\n", "Transfer-Encoding: chunked")
    assert wire.answer() == (200, b"abcde")
    assert wire.post(b"next").answer() == (200, b"next")


HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Content-Length: 5", "Content-Length: 300"),
        ("Content-Length: 5", "Content-Length: 5"),
        ("Content-Length: +5",),
        ("Content-Length : 5",),
        ("Transfer-Encoding: xchunked",),
        ("Transfer-Encoding: chunked, gzip",),
        ("Transfer-Encoding : chunked",),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
        ("A: b", " Transfer-Encoding: chunked"),
        ("Host: evil.example",),
        ("Content-Type: a", "Content-Type: b"),
        ("Expect: the-unexpected",),
        ("A: b\0c",),
    ],
)
def test_an_ambiguous_request_ends_the_connection_and_hides_no_other(wire: Wire, lines: tuple[str, ...]) -> None:
    wire.post(b"0\r\n\r\n" + HIDDEN, *lines)
    status, fields = wire.head()
    assert status in (400, 417, 501)
    assert fields["connection"] == "close"
    assert b"HTTP/1.1" not in wire.until(b"\0 never sent")
    assert calls == []


@pytest.mark.parametrize(
    "chunk", [b"0x1\r\na\r\n", b"+1\r\na\r\n", b"1_0\r\na\r\n", b"1\r\nabc\r\n", b"1\na\r\n", b"\r\na\r\n"]
)
def test_malformed_chunks_end_the_connection(wire: Wire, chunk: bytes) -> None:
    wire.post(chunk + b"0\r\n\r\n" + HIDDEN, "Transfer-Encoding: chunked")
    assert wire.head()[0] == 400
    assert b"HTTP/1.1" not in wire.until(b"\0 never sent")
    assert calls == []


def test_a_body_that_ends_early_is_not_executed(wire: Wire) -> None:
    wire.post(b"5\r\nhel", "Transfer-Encoding: chunked").socket.shutdown(socket.SHUT_WR)
    assert wire.head()[0] == 400
    assert calls == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
def test_a_request_in_the_body_of_another_is_never_answered(wire: Wire, method: str) -> None:
    wire.send(f"{method} /outer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(HIDDEN)}\r\n\r\n".encode() + HIDDEN)
    assert wire.head()[0] == 200
    wire.get("/next", "Connection: close").until(b"\0 never sent")
    assert calls == ["/outer", "/next"]


@pytest.mark.parametrize(
    "data",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\r\n\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"post / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 1_000_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 1000 + b"\r\n",
    ],
)
def test_what_is_not_http_1_1_is_refused_at_once(wire: Wire, data: bytes) -> None:
    # One that is waited for in vain is refused with 408.
    assert wire.send(data).head()[0] in (400, 414, 431, 501, 505)
    wire.until(b"\0 never sent")
    assert calls == []


def test_a_body_of_the_limit_is_served_and_one_byte_more_refused(wire: Wire, server: WsgiServer) -> None:
    limit = 4 * 1024 * 1024
    assert wire.post(b"x" * limit).answer() == (200, b"x" * limit)
    assert wire.post(b"x" * (limit + 1)).answer()[0] == 413
    assert wire.closed()
    for size, status in ((limit, 200), (limit + 1, 413)):
        with Wire(server) as other:
            other.post(b"%x\r\n" % size + b"x" * size + b"\r\n0\r\n\r\n", "Transfer-Encoding: chunked")
            assert other.answer()[0] == status


def test_an_endless_chunked_body_is_cut_off(wire: Wire) -> None:
    wire.post(b"", "Transfer-Encoding: chunked")
    sent = 0
    try:
        while sent < 40_000_000:
            wire.socket.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            sent += 65536
    except ConnectionError:
        pass
    assert sent < 40_000_000
    assert calls == []


def test_continue_is_said_only_after_the_checks(wire: Wire, server: WsgiServer) -> None:
    wire.post(b"", "Content-Length: 2", "Expect: 100-continue")
    assert wire.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert wire.send(b"ab").answer() == (200, b"ab")
    wire.post(b"a" * 1000, "Content-Length: 10737418240", "Expect: 100-continue")
    assert wire.answer()[0] == 413
    with Wire(server) as other:
        assert other.post(b"ab", "Content-Length: 2", "Expect: 100-continue").answer() == (200, b"ab")


def test_a_client_that_half_closes_is_answered(wire: Wire) -> None:
    wire.get("/half").socket.shutdown(socket.SHUT_WR)
    assert wire.answer() == (200, b"/half")
    assert wire.closed()
