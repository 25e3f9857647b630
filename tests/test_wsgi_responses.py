"""What the embedded server promises an application, by PEP 3333 and beyond, and its clients over TLS and IPv6."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.embedded import Wire, echo, embedded, wait_until


def one(app: Any, *requests: str, **options: Any) -> list[tuple[int, bytes]]:
    """The answers of an application to these paths, each on a connection of its own that ends with it."""
    found = []
    with embedded(app, **options) as listening:
        for path in requests:
            with Wire(listening) as connection:
                status, fields = connection.get(path, "Connection: close").head()
                found.append((status, connection.until(b"\0 never sent")))
                assert fields.get("connection") == "close"
    return found


def test_the_environ_is_complete() -> None:
    seen: list[dict[str, Any]] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append(environ)
        return echo(environ, start_response)

    with embedded(app) as listening:
        with Wire(listening) as connection:
            connection.send(b"POST /a?b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
            assert connection.answer() == (200, b"abc")
        port = listening.port
    environ = seen[0]
    expected = {
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(port),
        "SERVER_SOFTWARE": "minimcp",
        "REMOTE_ADDR": "127.0.0.1",
        "SCRIPT_NAME": "",
        "QUERY_STRING": "b",
        "CONTENT_LENGTH": "3",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    assert {key: environ[key] for key in expected} == expected


def test_the_socket_tells_whether_the_client_is_still_there() -> None:
    looked: list[Any] = []
    there, left = threading.Event(), threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        peek = environ["werkzeug.socket"].recv
        try:
            peek(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            looked.append("there")
        there.set()
        left.wait(20)
        # Blocking, so that it waits for the end that is on its way.
        looked.append(peek(1, socket.MSG_PEEK))
        return echo(environ, start_response)

    with embedded(app) as listening:
        with Wire(listening) as connection:
            connection.get("/")
            assert there.wait(20)
        left.set()
        wait_until(lambda: len(looked) == 2)
    assert looked == ["there", b""]


@pytest.mark.parametrize(
    "error", [ValueError("secret"), OSError("secret"), SystemExit("secret"), MemoryError("secret")]
)
def test_an_application_that_raises_is_answered_for(error: BaseException) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        raise error

    for status, body in one(app, "/", "/"):
        assert status == 500
        assert b"secret" not in body and b"Traceback" not in body


@pytest.mark.parametrize(
    "status, fields",
    [
        ("200 OK\r\nSet-Cookie: a", []),
        ("200 OK", [("A", "b\r\nSet-Cookie: a")]),
        ("200 OK", [("A", "b\nC: d")]),
        ("200 OK", [("A\r\nB", "c")]),
        ("200 OK", [("A", "b\0")]),
        ("200 OK", [("A", "\u20ac")]),
        ("OK", []),
        ("200 OK", [("Content-Length", "7")]),
        ("200 OK", [("Content-Length", "-1")]),
    ],
)
def test_a_response_that_would_break_the_framing_is_replaced(status: str, fields: list[tuple[str, str]]) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response(status, fields)
        return [b"body"]

    [(found, body)] = one(app, "/")
    assert found == 500
    assert b"Cookie" not in body


def test_parts_are_sent_as_they_come_and_the_iterable_is_closed() -> None:
    more, closed = threading.Event(), threading.Event()

    class Parts:
        def __iter__(self) -> Iterator[bytes]:
            yield b"first"
            more.wait(20)
            yield b""
            yield b"second"

        def close(self) -> None:
            closed.set()

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return Parts()

    with embedded(app) as listening, Wire(listening) as connection:
        assert connection.get("/").head()[1]["transfer-encoding"] == "chunked"
        assert connection.until(b"first\r\n") == b"5\r\nfirst\r\n"
        more.set()
        assert connection.until(b"0\r\n\r\n") == b"6\r\nsecond\r\n0\r\n\r\n"
        assert closed.wait(20)
        assert connection.get("/again").head()[0] == 200


def test_an_iterable_is_closed_when_its_client_has_gone() -> None:
    closed = threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            while True:
                yield b"x" * 100_000
        finally:
            closed.set()

    with embedded(app) as listening:
        with Wire(listening) as connection:
            connection.get("/").head()
        assert closed.wait(20)


def test_a_stream_that_fails_is_cut_off_and_not_ended() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"some"
        raise ValueError("secret")

    with embedded(app) as listening, Wire(listening) as connection:
        assert connection.get("/").head()[0] == 200
        assert connection.until(b"\0 never sent") == b"4\r\nsome\r\n"


def test_a_declared_length_is_kept_to() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", "4")])
        yield b"ab"
        yield {"/long": b"cdef", "/short": b"c"}.get(environ["PATH_INFO"], b"cd")

    assert one(app, "/right", "/long", "/short") == [(200, b"abcd"), (200, b"abcd"), (200, b"abc")]
    with embedded(app) as listening:
        for path in ("/long", "/short"):
            with Wire(listening) as connection:
                connection.get(path).head()
                assert len(connection.until(b"\0 never sent")) <= 4


def test_http_1_0_gets_a_stream_without_chunks() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"a"
        yield b"b"

    with embedded(app) as listening, Wire(listening) as connection:
        assert "transfer-encoding" not in connection.send(b"GET / HTTP/1.0\r\n\r\n").head()[1]
        assert connection.until(b"\0 never sent") == b"ab"


def test_start_response_may_replace_an_answer_until_it_is_sent() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        if environ["PATH_INFO"] == "/twice":
            start_response("200 OK", [])
        try:
            raise ValueError
        except ValueError:
            start_response("404 Not Found", [], sys.exc_info())
        return [b"a", b"b"] if environ["PATH_INFO"] == "/list" else (b"ab",)

    assert [status for status, _ in one(app, "/", "/list", "/twice")] == [404, 404, 500]


def test_write_and_empty_and_bodyless_answers() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        path = environ["PATH_INFO"]
        write = start_response("204 No Content" if path == "/204" else "200 OK", [])
        if path == "/write":
            write(b"written ")
        return [b"body"] if path == "/write" else []

    assert one(app, "/empty", "/204") == [(200, b""), (204, b"")]
    [(status, body)] = one(app, "/write")
    assert (status, body) == (200, b"8\r\nwritten \r\n4\r\nbody\r\n0\r\n\r\n")


def test_an_application_can_end_the_connection_but_not_frame_it() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Connection", "close"), ("Transfer-Encoding", "chunked"), ("Server", "x/1.0")])
        return [b"body"]

    with embedded(app) as listening, Wire(listening) as connection:
        _, fields = connection.get("/").head()
        assert (fields["connection"], fields["server"]) == ("close", "minimcp")
        assert "transfer-encoding" not in fields
        assert connection.until(b"\0 never sent") == b"body"


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl to make a certificate")
def test_tls(tmp_path: Path) -> None:
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-keyout", key, "-out", cert], check=True, stderr=subprocess.DEVNULL)
    probed: list[Any] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        answer = echo(environ, start_response)
        try:
            environ["werkzeug.socket"].recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            probed.append(environ["wsgi.url_scheme"])
        return answer

    with embedded(app, tls=(cert, key)) as listening:
        assert listening.url == f"https://127.0.0.1:{listening.port}"
        context = ssl.create_default_context(cafile=cert)
        with Wire(listening) as connection:
            connection.socket = context.wrap_socket(connection.socket, server_hostname="localhost")
            assert connection.post(b"x" * 300_000).answer() == (200, b"x" * 300_000)
            assert connection.get("/next").answer() == (200, b"/next")
            assert connection.get("/last", "Connection: close").answer() == (200, b"/last")
            assert connection.closed()
        with Wire(listening) as connection:
            # Plain HTTP to a TLS port.
            assert connection.get("/").closed()
    assert probed == ["https"] * 3


@pytest.mark.skipif(os.name != "posix", reason="needs an IPv6 loopback")
def test_ipv6() -> None:
    from minimcp.engines.http_server.wsgi_server import make_server

    try:
        listening = make_server(echo, "::1", 0)
    except OSError:
        pytest.skip("there is no IPv6 here")
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    try:
        assert listening.url == f"http://[::1]:{listening.port}"
        with socket.create_connection(("::1", listening.port), 30) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
    finally:
        listening.shutdown()
        thread.join(20)
