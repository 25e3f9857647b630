"""Request heads and bodies from bytes: what is refused, and what the application is told."""

from __future__ import annotations

from typing import Any

import pytest

from minimcp.engines.http_server import framing
from minimcp.engines.http_server.framing import BadRequest

LIMITS = {"line_bytes": 200, "head_bytes": 1000, "headers": 5, "body_bytes": 100}


def head(*lines: str, first: str = "POST /mcp HTTP/1.1", host: str = "Host: x") -> framing.Head:
    fields = [line for line in (first, host, *lines) if line]
    return framing.parse_head("".join(f"{line}\r\n" for line in fields).encode("latin-1") + b"\r\n", LIMITS)


def refused(status: int, *lines: str, **more: str) -> None:
    with pytest.raises(BadRequest) as caught:
        head(*lines, **more)
    assert caught.value.status == status


def fed(*parts: bytes) -> Any:
    """What receives these parts one after the other, and then the end of the stream."""
    left = list(parts)

    def receive(size: int) -> bytes:
        data, rest = (left[0][:size], left[0][size:]) if left else (b"", b"")
        left[:1] = [rest] if rest else []
        return data

    return receive


def test_a_head_becomes_the_variables_of_pep_3333() -> None:
    found = head(
        "Content-Type: application/json",
        "content-length:  7 ",
        "Mcp-Name: a",
        first="POST /a%20b;c?d=%20&e HTTP/1.1",
        host="Host: x:80",
    )
    assert found.environ == {
        "REQUEST_METHOD": "POST",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "PATH_INFO": "/a b;c",
        "QUERY_STRING": "d=%20&e",
        "REQUEST_URI": "/a%20b;c?d=%20&e",
        "RAW_URI": "/a%20b;c?d=%20&e",
        "HTTP_HOST": "x:80",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": "7",
        "HTTP_MCP_NAME": "a",
    }
    assert (found.method, found.length, found.close, found.expects) == ("POST", 7, False, False)


def test_bytes_outside_ascii_reach_the_application_as_latin_1() -> None:
    assert head("X-A: \xe9", first="GET /%c3%a9 HTTP/1.1").environ["PATH_INFO"] == "/\xc3\xa9"
    assert head("X-A: \xe9").environ["HTTP_X_A"] == "\xe9"


@pytest.mark.parametrize(
    "status, first",
    [
        (400, "GET /"),
        (400, "GET  / HTTP/1.1"),
        (400, "GET / HTTP/1.1 "),
        (400, "GET / HTTP/1"),
        (400, "GET /\xe9 HTTP/1.1"),
        (400, "GET /#a HTTP/1.1"),
        (400, "GET a HTTP/1.1"),
        (400, "OPTIONS x:1 HTTP/1.1"),
        (505, "GET / HTTP/2.0"),
        (505, "GET / HTTP/9.9"),
        (505, "PRI * HTTP/2.0"),
        (501, "post / HTTP/1.1"),
        (501, "TRACE / HTTP/1.1"),
        (501, "CONNECT x:1 HTTP/1.1"),
        (501, "PROPFIND / HTTP/1.1"),
        (414, "GET /" + "a" * 200 + " HTTP/1.1"),
    ],
)
def test_request_lines_that_are_not_served(status: int, first: str) -> None:
    refused(status, first=first)


def test_an_absolute_target_is_served_only_when_it_names_the_same_host() -> None:
    assert head(first="GET http://X/a?b HTTP/1.1").environ["PATH_INFO"] == "/a"
    assert head(first="GET http://x?b HTTP/1.1").environ["PATH_INFO"] == "/"
    refused(400, first="GET http://evil.example/a HTTP/1.1")
    refused(400, first="GET http://x@evil.example/a HTTP/1.1")
    refused(400, first="GET http://evil.example/a HTTP/1.0", host="")


@pytest.mark.parametrize(
    "line",
    [
        "A : b",
        " A: b",
        "\tA: b",
        "A",
        ": b",
        "A: b\0",
        "A: b\rC: d",
        "A: b\nC: d",
        "A: \x7f",
        "A(: b",
        "Content-Length : 5",
        "A: b\r\n folded",
    ],
)
def test_malformed_headers_are_refused(line: str) -> None:
    refused(400, line)


@pytest.mark.parametrize(
    "host", ["", "Host:", "Host: a b", "Host: a/b", "Host: a?b", "Host: a#b", "Host: a@b", "Host: a,b"]
)
def test_a_missing_or_malformed_host_is_refused(host: str) -> None:
    refused(400, host=host)


@pytest.mark.parametrize(
    "name",
    ["Host", "Origin", "Content-Type", "Content-Length", "Authorization", "MCP-Protocol-Version", "mcp-param-region"],
)
def test_headers_that_decide_something_are_refused_twice(name: str) -> None:
    refused(400, f"{name}: 1", f"{name.lower()}: 1", host="" if name == "Host" else "Host: x")


def test_other_repeated_headers_are_joined() -> None:
    environ = head("Accept: a", "Accept: b", "Cookie: a=1", "Cookie: b=2").environ
    assert environ["HTTP_ACCEPT"] == "a,b"
    assert environ["HTTP_COOKIE"] == "a=1; b=2"


def test_header_names_with_an_underscore_are_dropped() -> None:
    environ = head("Mcp_Name: a", "Content_Length: 5").environ
    assert "HTTP_MCP_NAME" not in environ
    assert "CONTENT_LENGTH" not in environ


@pytest.mark.parametrize(
    "value", ["", "+5", "-1", "5_0", "0x5", "5, 5", "5 5", "\u0665".encode().decode("latin-1"), "9" * 30]
)
def test_lengths_that_are_not_digits_are_refused(value: str) -> None:
    refused(400, f"Content-Length: {value}")


def test_a_body_beyond_the_limit_is_refused_by_its_length() -> None:
    assert head("Content-Length: 100").length == 100
    refused(413, "Content-Length: 101")
    refused(413, "Content-Length: 10737418240")


@pytest.mark.parametrize(
    "value", ["xchunked", "chunked, gzip", "gzip, chunked", "chunked, chunked", "identity", "", "chunked;a"]
)
def test_transfer_codings_other_than_chunked_are_not_served(value: str) -> None:
    refused(501, f"Transfer-Encoding: {value}")


def test_two_ways_to_tell_the_length_are_refused() -> None:
    refused(400, "Content-Length: 5", "Transfer-Encoding: chunked")
    refused(400, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked")
    refused(400, "Transfer-Encoding: chunked", first="POST / HTTP/1.0")
    refused(400, "Transfer-Encoding: \x0bchunked")
    assert head("Transfer-Encoding: Chunked").length is None


def test_which_requests_end_the_connection() -> None:
    assert head(first="GET / HTTP/1.0", host="").close
    assert head("Connection: keep-alive", first="GET / HTTP/1.0").close
    assert head("Connection: a,Close").close
    assert not head("Connection: keep-alive").close


def test_expectations() -> None:
    assert head("Expect: 100-Continue", "Content-Length: 5").expects
    assert not head("Expect: 100-continue", first="POST / HTTP/1.0").expects
    refused(417, "Expect: the-unexpected")


def test_too_many_headers_are_refused() -> None:
    assert head(*["A: b"] * 4)
    refused(431, *["A: b"] * 5)


@pytest.mark.parametrize(
    "status, data",
    [
        (400, b"\x16\x03\x01\x02\x00"),
        (400, b"\r\n"),
        (400, b"GET /\r\n"),
        (400, b"GET / HTTP/1.1\nHost: x\n\n"),
        (400, b"GET / HTTP/1.1\r\nA: b\rc"),
        (505, b"PRI * HTTP/2.0\r\n"),
        (501, b"post / HTTP/1.1\r\nHo"),
        (414, b"GET /" + b"a" * 200),
        (431, b"GET / HTTP/1.1\r\nA: " + b"a" * 1000),
    ],
)
def test_what_can_no_longer_become_a_head_is_refused_at_once(status: int, data: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        framing.check_part(data, LIMITS)
    assert caught.value.status == status


def test_what_may_still_become_a_head_is_waited_for() -> None:
    whole = b"POST /mcp HTTP/1.1\r\nHost: x\r\n\r\n"
    for end in range(1, len(whole)):
        framing.check_part(whole[:end], LIMITS)


def test_a_known_head_is_found_again_and_the_memory_is_bounded() -> None:
    known: dict[bytes, framing.Head] = {}
    data = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"
    first = framing.take_head(data % 1, LIMITS, known)
    assert framing.take_head(data % 1, LIMITS, known) is first
    for number in range(1000):
        framing.take_head(data % number, LIMITS, known)
    assert len(known) <= 256


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_a_body_is_read_whatever_the_parts_it_comes_in(step: int) -> None:
    data = b"5;a=b;c\r\nhello\r\n00a\r\n, world.\r\n\r\n0\r\nHost: evil\r\nContent-Length: 3\r\n\r\nNEXT"
    parts = [data[at : at + step] for at in range(0, len(data), step)]
    body, rest = framing.read_chunked(b"", 100, fed(*parts))
    assert body == b"hello, world.\r\n"
    assert b"NEXT".startswith(rest)
    assert framing.read_exactly(b"ab", 5, fed(b"c", b"de")) == (b"abcde", b"")
    assert framing.read_exactly(b"abcdef", 5, fed()) == (b"abcde", b"f")


@pytest.mark.parametrize(
    "data",
    [
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"1_0\r\nhello\r\n0\r\n\r\n",
        b"\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"5\r\nhello!\r\n0\r\n\r\n",
        b"5\r\nhell\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello\r\n",
        b"5\r\nhel",
        b"5\r\nhello\r\n0\r\n",
        b"000000005\r\nhello\r\n0\r\n\r\n",
        b"5;a\0b\r\nhello\r\n0\r\n\r\n",
        b"5;" + b"a" * 65536 + b"\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\n" + b"A: b\r\n" * 1000 + b"\r\n",
        b"5\r\nhello\r\n0\r\nA b\r\n\r\n",
        b"5\r\nhello\r\n0\r\nA: b\n\r\n",
    ],
)
def test_malformed_chunks_are_refused(data: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        framing.read_chunked(data, 100, fed())
    assert caught.value.status == 400


def test_a_chunked_body_is_refused_at_the_limit_and_before_it_is_read() -> None:
    assert framing.read_chunked(b"64\r\n" + b"a" * 100 + b"\r\n0\r\n\r\n", 100, fed())[0] == b"a" * 100
    with pytest.raises(BadRequest) as caught:
        framing.read_chunked(b"ffffffff\r\n", 100, fed())
    assert caught.value.status == 413
    with pytest.raises(BadRequest) as caught:
        framing.read_chunked(b"", 100, lambda size: b"1\r\na\r\n")
    assert caught.value.status == 413


def test_chunks_without_end_are_refused_even_when_they_are_within_the_limit() -> None:
    with pytest.raises(BadRequest) as caught:
        framing.read_chunked(b"", 100_000, lambda size: b"1\r\na\r\n" * 500)
    assert caught.value.status == 413
