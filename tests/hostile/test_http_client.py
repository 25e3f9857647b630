"""Servers that mean harm, and what the client's HTTP links make of them: an error, in time and in bounded memory.

T145, T206, T237, T239 of the security catalogue.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import socket
import threading
import time
import tracemalloc

import pytest

from minimcp.client.errors import HTTPStatus
from minimcp.client.transports.http import HttpTransport
from minimcp.client.transports.http_sse import HttpSseTransport
from minimcp.client.transports.messages import LIMITS
from minimcp.client.transports.transport import SessionExpired
from minimcp.engines.errors import ClientError, ConnectionLost, ProtocolError, Timeout
from tests.embedded import wait_until
from tests.scripted import NOTE, PING, Linked, result, scripted

MIB = 1024 * 1024
JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


@contextlib.contextmanager
def frugal(most=8 * MIB):
    """Fail when Python holds more memory than this at any moment."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def repeated(peer, data):
    """Send something until the client has had enough."""
    while True:
        peer.send(data)


def test_the_documented_limits():
    assert LIMITS["head_bytes"] == 65_536
    assert LIMITS["body_bytes"] == 67_108_864
    assert LIMITS["event_bytes"] == 67_108_864
    assert LIMITS["events"] == 1_000_000


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 1073741824\r\n\r\n",
        b"Content-Length: 99999999999999999999999999\r\n\r\n",
        b"\r\n",
    ],
)
def test_a_gibibyte_of_json(head):
    endless = Linked(lambda request, peer: repeated(peer.send(JSON_HEAD + head), b"[" * 65536))
    with endless as linked, frugal(220 * MIB), pytest.raises(ProtocolError, match="67108864 bytes"):
        linked.call(timeout_s=30)


def test_a_gibibyte_in_chunks_with_a_lower_limit():
    def answer(request, peer):
        repeated(peer.send(JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n"), b"10000\r\n" + b" " * 65536 + b"\r\n")

    with Linked(answer, limits={"body_bytes": MIB}) as linked, frugal(), pytest.raises(ProtocolError):
        linked.call()


def test_a_refusal_with_an_endless_body():
    def answer(request, peer):
        repeated(peer.send(b"HTTP/1.1 500 No\r\nContent-Type: application/json\r\n\r\n"), b"x" * 65536)

    with Linked(answer) as linked, frugal(), pytest.raises(HTTPStatus) as caught:
        linked.call()
    assert caught.value.body == "x" * 2000


@pytest.mark.parametrize(
    "piece",
    [b"data: " + b"x" * 65530, b"x" * 65536, b":" + b"x" * 65535, b"data: x\n" * 8192, b"\r:" * 30000],
    ids=["data", "field", "comment", "lines", "comments"],
)
def test_an_endless_event(piece):
    def answer(request, peer):
        repeated(peer.send(STREAM_HEAD + b"\r\n"), piece)

    endless = Linked(answer, limits={"event_bytes": MIB})
    with endless as linked, frugal(), pytest.raises(ProtocolError, match="1048576 bytes"):
        linked.call(timeout_s=20)


def test_an_event_just_below_the_limit_arrives():
    text = json.dumps(result(text="x" * (MIB - 200)))
    with Linked(lambda request, peer: peer.stream().event(text).end(), limits={"event_bytes": MIB}) as linked:
        assert len(linked.call()[0]["result"]["text"]) == MIB - 200


@pytest.mark.parametrize(
    "piece",
    [b"X-Header: x\r\n", b"x" * 1000, b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n"],
)
def test_an_endless_head(piece):
    start = b"" if piece.startswith(b"HTTP") else b"HTTP/1.1 200 OK\r\n"
    endless = Linked(lambda request, peer: repeated(peer.send(start), piece * 50))
    with endless as linked, frugal(), pytest.raises(ProtocolError, match="65536 bytes"):
        linked.call()


def test_endless_trailers_and_chunk_extensions():
    def trailers(request, peer):
        repeated(peer.send(STREAM_HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"), b"X: y\r\n")

    def extensions(request, peer):
        repeated(peer.send(STREAM_HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;"), b"x" * 1000)

    for answer in (trailers, extensions):
        with Linked(answer) as linked, frugal(), pytest.raises(ProtocolError):
            linked.call()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n folded: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nSpace : x\r\n\r\n",
        JSON_HEAD + b"Content-Length: -1\r\n\r\n",
        JSON_HEAD + b"Content-Length: 1e3\r\n\r\n",
        JSON_HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}   ",
        JSON_HEAD + "Content-Length: \u0663\r\n\r\n".encode(),
        JSON_HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n-5\r\n",
        JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n",
        JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\n",
        JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}oops\r\n0\r\n\r\n",
    ],
)
def test_what_is_not_http(sent):
    with Linked(lambda request, peer: peer.send(sent).hang_up()) as linked, pytest.raises(ProtocolError):
        linked.call()


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
def test_a_compressed_answer_was_not_asked_for(coding):
    bomb = gzip.compress(b"x" * 10 * MIB)
    with Linked(
        lambda request, peer: peer.body(bomb, Content_Type="application/json", Content_Encoding=coding)
    ) as linked:
        with frugal(), pytest.raises(ProtocolError, match="compressed"):
            linked.call()
        assert linked.server.requests[0].headers["accept-encoding"] == "identity"


def test_a_million_events():
    event = b"data: " + json.dumps(NOTE).encode() + b"\n\n"
    with Linked(
        lambda request, peer: repeated(peer.send(STREAM_HEAD + b"\r\n"), event * 500), limits={"events": 20_000}
    ) as linked:
        exchange = linked.transport.start(PING, {}, 10)
        with frugal(), pytest.raises(ProtocolError, match="20000 events"):
            for _ in range(20_001):
                assert exchange.receive(10) == NOTE


def test_events_that_are_never_read_stay_with_the_server():
    event = b"data: " + json.dumps({**NOTE, "params": {"text": "x" * 10_000}}).encode() + b"\n\n"
    with Linked(lambda request, peer: repeated(peer.send(STREAM_HEAD + b"\r\n"), event)) as linked, frugal():
        exchange = linked.transport.start(PING, {}, 10)
        exchange.receive(10)
        threading.Event().wait(0.2)
        exchange.close()


@pytest.mark.parametrize("piece", [b":\n\n", b"data: {\n\n", b"event: x\ndata: y\n\n", b"id: 1\n\n", b"x: y\n"])
def test_noise_does_not_stop_the_clock(piece):
    head = STREAM_HEAD + b"\r\n"
    with Linked(lambda request, peer: repeated(peer.send(head), piece * 100)) as linked:
        exchange = linked.transport.start(PING, {}, 10)
        began = time.monotonic()
        with pytest.raises(Timeout):
            exchange.receive(0.3)
        assert time.monotonic() - began < 15
        exchange.close()


@pytest.mark.parametrize(
    "start",
    [b"", b"HTTP/1.1 200 OK\r\nX: ", JSON_HEAD + b"\r\n", STREAM_HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;"],
)
def test_bytes_that_dribble_do_not_stop_the_clock(start):
    def answer(request, peer):
        peer.send(start)
        for byte in itertools.cycle(b"HTTP/1.1 200 OK "):
            peer.send(bytes([byte]))
            threading.Event().wait(0.01)

    with Linked(answer) as linked:
        exchange = linked.transport.start(PING, {}, 10)
        began = time.monotonic()
        with pytest.raises(Timeout):
            exchange.receive(0.3)
        assert time.monotonic() - began < 15
        exchange.close()


def test_a_server_that_never_reads():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link = HttpTransport(f"http://127.0.0.1:{listener.getsockname()[1]}/mcp")
        link.open(5)
        began = time.monotonic()
        with pytest.raises(ClientError):
            link.start({**PING, "params": {"text": "x" * 20 * MIB}}, {}, 0.3)
        assert time.monotonic() - began < 15
        link.close()


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe", b"", b"null", b"1" * 5000])
def test_json_that_is_none(body):
    whole = Linked(lambda request, peer: peer.body(body, Content_Type="application/json"))
    with whole as linked, pytest.raises(ProtocolError):
        linked.call()
    with Linked(lambda request, peer: peer.stream().chunk(b"data: " + body + b"\n\n").event(result()).end()) as linked:
        assert linked.call() == [result()]


def test_both_a_result_and_an_error_completes_nothing():
    both = {**result(), "error": {"code": 1, "message": "x"}}
    again = result(second=True)
    with Linked(lambda request, peer: peer.stream().event(both).event(result()).event(again).end()) as linked:
        exchange = linked.transport.start(PING, {}, 5)
        assert exchange.receive(20) == result()
        # A second response to the same id is never seen.
        with pytest.raises(ConnectionLost):
            exchange.receive(20)


@pytest.mark.parametrize("retry", ["99999999999999999999", "9" * 100_000, "-1", "1.5", "abc", "\u0661", "1" + "0" * 30])
def test_a_wish_for_a_wait_that_nobody_has(retry):
    def answer(request, peer):
        if request.method == "POST":
            peer.stream().event("", "id: 1", f"retry: {retry}").end()
        else:
            peer.stream().event(result()).end()

    with Linked(answer, "2025-11-25") as linked:
        exchange = linked.transport.start(PING, {}, 5)
        with pytest.raises(Timeout):
            exchange.receive(0.2)
        exchange.close()


def test_an_event_id_cannot_add_a_header():
    ids = ["a\0b", "x" * 10_000, "tab\there", "\x01\x7f"]

    def answer(request, peer):
        if request.method == "POST":
            number = request.message["id"]
            peer.stream().event("", "retry: 1", "id: first").event("", f"id: {ids[number]}").end()
        else:
            peer.stream().event(result(last)).end()

    with Linked(answer, "2025-11-25") as linked:
        for last in range(len(ids)):
            linked.call({**PING, "id": last})
        gets = [request.headers for request in linked.server.requests if request.method == "GET"]
        assert [headers["last-event-id"] for headers in gets] == ["first", "first", "tab\there", "\x01\x7f"]


def test_a_redirect_on_the_get_stream_and_on_the_farewell_goes_nowhere_else():
    with scripted(lambda request, peer: peer.body()) as elsewhere:

        def answer(request, peer):
            peer.body(b"", 307, Location=elsewhere.url)

        with Linked(answer, "2025-11-25", headers={"Authorization": "Bearer t"}) as linked:
            linked.transport.session.began("the-session")
            linked.transport.listen()
            with pytest.raises(ProtocolError):
                linked.call()
        with pytest.raises(ProtocolError):
            _redirected(elsewhere.url)
        assert elsewhere.requests == []


def _redirected(target):
    with scripted(lambda request, peer: peer.body(b"", 307, Location=target)) as server:
        HttpSseTransport(server.origin + "/sse", headers={"Authorization": "Bearer t"}).open(5)


@pytest.mark.parametrize(
    "location",
    ["http:///mcp", "//", "http://[::1/", "javascript:alert(1)", "http://127.0.0.1:99999/", "\\\\evil.example\\mcp"],
)
def test_a_redirect_to_what_is_no_address(location):
    with Linked(lambda request, peer: peer.body(b"", 307, Location=location)) as linked:
        with pytest.raises(ClientError):
            linked.call()
        assert len({request.connection for request in linked.server.requests}) == 1


def test_a_session_that_expires_with_every_answer():
    with Linked(lambda request, peer: peer.body(b"", 404), "2025-11-25") as linked:
        linked.transport.session.began("the-session")
        for _ in range(3):
            with pytest.raises(SessionExpired):
                linked.call()


def test_a_flood_on_an_sse_stream_is_bounded():
    posted = threading.Event()
    last = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}

    def answer(request, peer):
        if request.method == "POST":
            peer.body(status=202)
            posted.set()
            return
        peer.stream().event("/messages", "event: endpoint")
        posted.wait(10)
        flood = json.dumps(NOTE)
        for _ in range(5000):
            peer.event(flood)
        peer.event(result()).event(last)
        peer.left()

    with scripted(answer) as server:
        link = HttpSseTransport(server.origin + "/sse")
        heard = []
        link.on_message = heard.append
        link.open(5)
        exchange = link.start(PING, {}, 5)
        wait_until(lambda: heard)
        found = [exchange.receive(10)]
        while "method" in found[-1]:
            found.append(exchange.receive(10))
        assert found[-1] == result()
        assert len(found) <= 1001
        link.close()
