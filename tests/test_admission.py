"""Connections and bodies at their limits: who makes room, and that honest clients are served all the same."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from minimcp import Server, Unauthorized
from minimcp.auth import AuthRequest
from minimcp.engines.http_server import admission
from minimcp.engines.http_server.wsgi_server import LIMITS, make_server
from tests.embedded import Wire, echo, embedded, wait_until
from tests.helpers import Process, http_headers, modern
from tests.test_wsgi_limits import ROOT, Held, connections, held

HALF = b"POST /half HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc"
LARGE = 4 * 1024 * 1024


@pytest.fixture(autouse=True)
def patient(monkeypatch: Any) -> None:
    """A connection that was given up is waited for, however long its thread does not run."""
    monkeypatch.setattr(admission, "_CLOSING_S", 20.0)


def served_soon(listening: Any, wire: Wire | None = None) -> bool:
    """Whether an honest client gets its answer before anybody is given up for being slow."""
    began = time.monotonic()
    with wire or Wire(listening) as client:
        return client.post(b"honest").answer() == (200, b"honest") and time.monotonic() - began < 25


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HT",
        HALF,
        HALF.replace(b"abc", b""),
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\nab",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + HALF,
    ],
)
def test_whatever_a_crowd_has_left_unfinished_it_makes_room(sent: bytes) -> None:
    with embedded(echo, connections=10) as listening, contextlib.ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(Wire(listening)).send(sent)
        for _ in range(3):
            assert served_soon(listening)
        for _ in range(40):
            stack.enter_context(Wire(listening)).send(sent)
        # Among forty that arrive at once ten places are a lottery.
        wait_until(lambda: connections() <= 10)
        assert served_soon(listening)


def test_the_order_is_silent_then_idle_then_slow_and_running_ones_stay(monkeypatch: Any) -> None:
    monkeypatch.setattr(admission, "_FRESH_S", 0)
    with held(connections=4) as (app, listening), contextlib.ExitStack() as stack:
        slow, running, idle, silent = (stack.enter_context(Wire(listening)) for _ in range(4))
        for wire in (slow, idle):
            assert wire.get("/a").answer()[0] == 200
        slow.send(HALF)
        running.get("/held")
        app.wait_for(1)
        wait_until(lambda: busy(listening) == {port_of(slow), port_of(running)})
        for leaving in (silent, idle, slow):
            stack.enter_context(Wire(listening)).get("/held")
            app.wait_for(1)
            assert leaving.closed()
        with Wire(listening) as refused:
            assert refused.answer()[0] == 503
        app.go.set()
        assert running.answer() == (200, b"/held")


def port_of(wire: Wire) -> int:
    port: int = wire.socket.getsockname()[1]
    return port


def busy(listening: Any) -> set[int]:
    """The ports of the clients whose requests have begun."""
    return {each.client_address[1] for each in list(listening.admission._open) if each.busy}


def large(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer with much more than the system buffers, or echo a body."""
    if environ["REQUEST_METHOD"] == "POST":
        return echo(environ, start_response)
    start_response("200 OK", [])
    return [bytes(64 * 1024 * 1024)]


def test_clients_that_do_not_read_make_room() -> None:
    with embedded(large, connections=4) as listening, contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(Wire(listening)).get("/").until(b"\r\n\r\n")
        for _ in range(3):
            assert served_soon(listening)


def test_a_client_that_reads_slowly_for_ever_is_given_up() -> None:
    with embedded(large, send_s=0.3, send_rate=1024**3) as listening, Wire(listening) as wire:
        wire.get("/")
        read, began = 0, time.monotonic()
        with contextlib.suppress(ConnectionError):
            while part := wire.socket.recv(100_000):
                read += len(part)
                threading.Event().wait(0.02)
        assert read < 60 * 1024 * 1024 and time.monotonic() - began < 30


def test_a_client_that_reads_steadily_gets_all_of_a_large_answer_even_if_the_server_stops() -> None:
    with embedded(large, send_s=3) as listening, Wire(listening) as wire:
        wire.get("/").until(b"\r\n\r\n")
        closing = threading.Thread(target=listening.close, args=(60,))
        closing.start()
        read = len(wire._buffer)
        while part := wire.socket.recv(1 << 18):
            read += len(part)
            threading.Event().wait(0.012)
        closing.join(20)
        assert read == 64 * 1024 * 1024


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: Any) -> tuple[str, str]:
    if not shutil.which("openssl"):
        pytest.skip("needs openssl to make a certificate")
    home = tmp_path_factory.mktemp("tls")
    cert, key = str(home / "cert.pem"), str(home / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-keyout", key, "-out", cert], check=True, stderr=subprocess.DEVNULL)
    return cert, key


@pytest.mark.parametrize("hello", [b"", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n"])
def test_connections_without_a_tls_hello_make_room(certificate: tuple[str, str], hello: bytes) -> None:
    context = ssl.create_default_context(cafile=certificate[0])
    with embedded(echo, tls=certificate, connections=5) as listening, contextlib.ExitStack() as stack:
        before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
        for _ in range(60):
            stack.enter_context(Wire(listening)).send(hello)
        # Among sixty that arrive at once five places are a lottery.
        wait_until(lambda: connections() <= 6)
        with Wire(listening) as wire:
            wire.socket = context.wrap_socket(wire.socket, server_hostname="localhost")
            assert served_soon(listening, wire)
        wait_until(lambda: connections() <= 6)
        if before is not None:
            wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before + 60 + 10)


def test_refused_connections_keep_few_threads() -> None:
    with held(connections=2) as (app, listening), contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(Wire(listening)).get("/held")
        app.wait_for(2)
        refused = [stack.enter_context(Wire(listening)) for _ in range(60)]
        for wire in refused:
            assert wire.answer()[0] == 503
        wait_until(lambda: connections() <= 2 + 16)


# Descriptors

SCRIPT = """
import resource, socket, sys, threading
from minimcp.engines.http_server.wsgi_server import make_server
limit, later = int(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"done"]
server = make_server(app, port=0)
if later:
    resource.setrlimit(resource.RLIMIT_NOFILE, (later, later))
print("port", server.port, server.limits["connections"], flush=True)
server.serve_forever()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts descriptors")
@pytest.mark.parametrize("limit, later, most", [(128, 0, 96), (2048, 64, 1500)])
def test_where_few_files_may_be_open_silent_connections_make_room(limit: int, later: int, most: int) -> None:
    words = [sys.executable, "-c", SCRIPT, str(limit), str(later)]
    with Process(words, PYTHONPATH=ROOT) as process, contextlib.ExitStack() as stack:
        found = process.wait_for(r"port (\d+) (\d+)")
        assert int(found[2]) == most
        address = ("127.0.0.1", int(found[1]))
        for _ in range(200):
            stack.enter_context(contextlib.closing(socket.create_connection(address, 10)))
        began = time.monotonic()
        with socket.create_connection(address, 20) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert client.makefile("rb").read().endswith(b"done")
        assert time.monotonic() - began < 20
        process.child.kill()


def test_the_cap_leaves_descriptors_to_the_application(monkeypatch: Any) -> None:
    for found, wanted, most in ((None, 1500, 1500), (768, 1500, 768), (9000, 1500, 1500), (9000, 20, 20)):
        monkeypatch.setattr("minimcp.engines.http_server.wsgi_server.descriptors", lambda found=found: found)
        server = make_server(echo, port=0, limits={"connections": wanted})
        assert server.limits["connections"] == server.admission.most == most
        server.close()
    resource = pytest.importorskip("resource")
    for soft, most in ((1024, 768), (256, 192), (4, 3), (1, 1), (resource.RLIM_INFINITY, None)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert admission.descriptors() == most


# Bodies


def guarded() -> Server:
    def authenticate(request: AuthRequest) -> str:
        if request.token != "good":
            raise Unauthorized("This key is not known")
        return "ada"

    server = Server("guarded", auth=authenticate)
    server.tool(lambda: "x", "plain")
    return server


FIELDS = {**http_headers(modern("tools/list")), "Host": "localhost", "Authorization": "Bearer good"}


@pytest.mark.parametrize("body", ["Content-Length: 4000000", "Transfer-Encoding: chunked", "Content-Length: 10"])
@pytest.mark.parametrize(
    "method, path, fields, status",
    [
        ("POST", "/mcp", {"Host": "evil.example"}, 403),
        ("POST", "/mcp", {"Origin": "http://evil.example"}, 403),
        ("POST", "/mcp", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("POST", "/nowhere", {}, 404),
        ("PUT", "/mcp", {}, 405),
        ("POST", "/mcp", {"Authorization": "Bearer bad"}, 401),
        ("POST", "/mcp", {"Accept": "text/html"}, 406),
        ("POST", "/mcp", {"Content-Type": "text/plain"}, 415),
        ("POST", "/mcp", {"Content-Encoding": "gzip"}, 415),
    ],
)
def test_a_head_is_judged_before_its_body_arrives(
    body: str, method: str, path: str, fields: dict[str, str], status: int
) -> None:
    lines = [f"{method} {path} HTTP/1.1", body, *(f"{name}: {value}" for name, value in {**FIELDS, **fields}.items())]
    with embedded(guarded().wsgi) as listening, Wire(listening) as wire:
        wire.send("\r\n".join([*lines, "", ""]).encode() + b"1\r\n{")
        assert wire.answer()[0] == status
        assert [each.held for each in listening.admission._open] in ([0], [])
        if body == "Content-Length: 10":
            # What is small may still arrive, and the next request after it.
            wire.send(b"456789" + b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert wire.answer()[0] == 404
        else:
            wire.socket.shutdown(socket.SHUT_WR)
            assert wire.closed()


def test_a_client_that_asks_first_is_told_to_go_on_or_why_not() -> None:
    def ask(listening: Any, body: bytes, *lines: str) -> Wire:
        fields = [f"{name}: {value}" for name, value in FIELDS.items() if name != "Host"]
        wire = Wire(listening)
        head = ["POST /mcp HTTP/1.1", *fields, *lines, f"Content-Length: {len(body)}", "Expect: 100-continue", "", ""]
        return wire.send("\r\n".join(head).encode())

    message = b'{"jsonrpc":"2.0","method":"notifications/cancelled"}'
    with embedded(guarded().wsgi) as listening:
        with ask(listening, message, "Host: localhost") as wire:
            assert wire.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert wire.send(message).answer()[0] in (202, 400)
        with ask(listening, message, "Host: evil.example") as wire:
            status, fields = wire.head()
            assert (status, fields["connection"]) == (403, "close")


def test_an_application_that_hides_that_a_body_never_came_is_overruled() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        with contextlib.suppress(Exception):
            environ["wsgi.input"].read()
        with contextlib.suppress(Exception):
            list(environ["wsgi.input"])
        start_response("200 OK", [])
        return [b"executed"]

    with embedded(app, body_s=1) as listening:
        with Wire(listening) as wire:
            assert wire.send(HALF).answer()[0] == 408
        listening.limits["body_s"] = 30
        with Wire(listening) as wire:
            wire.send(HALF).socket.shutdown(socket.SHUT_WR)
            assert wire.answer()[0] == 400


@pytest.mark.parametrize("read", ["read", "readline", "readlines", "iter", "part"])
def test_a_late_body_is_a_file_like_any_other(read: str) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = environ["wsgi.input"]
        start_response("200 OK", [])
        if read == "part":
            return [body.read(2), body.read(2), body.read(), body.read()]
        if read == "iter":
            return list(body)
        found = getattr(body, read)()
        return found if isinstance(found, list) else [found, body.read()]

    with embedded(app) as listening, Wire(listening) as wire:
        for _ in range(2):
            wire.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\n")
            threading.Event().wait(0.02)
            assert wire.send(b"ab\ncd\n").answer() == (200, b"ab\ncd\n")


def half(listening: Any, size: int = LARGE, chunked: bool = False) -> Wire:
    """A connection whose body of this size lacks its last byte."""
    wire = Wire(listening)
    if chunked:
        wire.post(b"%x\r\n" % size + bytes(size - 1), "Transfer-Encoding: chunked")
    else:
        wire.post(bytes(size - 1), f"Content-Length: {size}")
    return wire


def counted(listening: Any, wire: Wire) -> int:
    """The bytes of a body that count for a connection."""
    return sum(each.held for each in list(listening.admission._open) if each.client_address[1] == port_of(wire))


@pytest.mark.parametrize("chunked", [False, True])
def test_the_bytes_of_half_read_bodies_have_a_budget_and_the_oldest_makes_room(chunked: bool) -> None:
    with embedded(echo, bodies_bytes=3 * LARGE) as listening, contextlib.ExitStack() as stack:
        unfinished = []
        for _ in range(8):
            unfinished.append(stack.enter_context(half(listening, chunked=chunked)))
            # What came with the head is not counted.
            wait_until(lambda: counted(listening, unfinished[-1]) >= LARGE - 100_000)
            # Read without its lock: a part that was just received may be in it.
            assert listening.admission._bytes <= 3 * LARGE + 300_000
        assert unfinished[0].closed()
        # A whole body finds room, and the newest unfinished one may still be finished.
        with Wire(listening) as wire:
            assert wire.post(bytes(LARGE)).answer() == (200, bytes(LARGE))
        end = b"\0\r\n0\r\n\r\n" if chunked else b"\0"
        assert unfinished[-1].send(end).answer() == (200, bytes(LARGE))
        wait_until(lambda: listening.admission._bytes <= 2 * (LARGE + LARGE // 256))
    wait_until(lambda: listening.admission._bytes == 0)


def test_large_bodies_of_running_requests_are_waited_for_and_then_refused() -> None:
    class Reading(Held):
        def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
            environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read())
            return super().__call__(environ, start_response)

    app = Reading()
    with embedded(app, bodies_bytes=1_000_000) as listening, contextlib.ExitStack() as stack:
        running = [stack.enter_context(Wire(listening)) for _ in range(2)]
        for wire in running:
            wire.send(b"POST /held HTTP/1.1\r\nHost: x\r\nContent-Length: 450000\r\n\r\n" + bytes(450_000))
        app.wait_for(2)
        listening.limits["body_s"] = 2
        with Wire(listening) as wire:
            assert wire.post(bytes(450_000)).answer()[0] == 503
        listening.limits["body_s"] = 30
        assert served_soon(listening)
        waiting = stack.enter_context(Wire(listening)).post(bytes(450_000))
        app.go.set()
        assert waiting.answer()[0] == 200
        for wire in running:
            assert wire.answer()[0] == 200


def test_a_stream_does_not_count_the_body_that_it_has_read() -> None:
    go = threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        environ["wsgi.input"].read()
        start_response("200 OK", [])
        yield b"open"
        go.wait(10)

    with embedded(app) as listening, Wire(listening) as wire:
        wire.post(bytes(300_000)).until(b"open")
        wait_until(lambda: listening.admission._bytes == 0)
        go.set()


def test_every_budget_of_the_server_has_a_default() -> None:
    assert (LIMITS["connections"], LIMITS["bodies_bytes"]) == (1500, 64 * 1024 * 1024)
    assert (LIMITS["send_s"], LIMITS["send_rate"]) == (30, 32 * 1024)
