"""The embedded server under load and at its limits, and how it starts and stops."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minimcp.engines.http_server import admission, wsgi_server
from minimcp.engines.http_server.wsgi_server import make_server
from tests.embedded import Wire, echo, embedded, wait_until
from tests.helpers import Process

ROOT = str(Path(__file__).resolve().parent.parent)


class Held:
    """An application whose calls to /held wait until they are let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.arrived = threading.Semaphore(0)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/held":
            self.arrived.release()
            assert self.go.wait(120)
        if environ["PATH_INFO"] == "/stream":
            start_response("200 OK", [("Content-Type", "text/event-stream")])
            return self.stream()
        return echo(environ, start_response)

    def stream(self) -> Iterator[bytes]:
        """One part, and another when it is let go."""
        yield b"open"
        assert self.go.wait(120)
        yield b"done"

    def wait_for(self, number: int) -> None:
        """Wait until so many calls are being held."""
        for _ in range(number):
            assert self.arrived.acquire(timeout=20)


@contextlib.contextmanager
def held(**limits: Any) -> Iterator[tuple[Held, Any]]:
    app = Held()
    with embedded(app, **limits) as listening:
        try:
            yield app, listening
        finally:
            app.go.set()


def connections() -> int:
    """How many connection threads there are."""
    return sum(thread.name == "minimcp-connection" for thread in threading.enumerate())


def test_many_clients_get_their_own_answers() -> None:
    wrong: list[Any] = []

    def client(listening: Any, name: int) -> None:
        with Wire(listening, 20) as wire:
            for number in range(6):
                body = b"%d-%d" % (name, number)
                if wire.post(body).answer() != (200, body):
                    wrong.append(body)

    with embedded(echo) as listening:
        threads = [threading.Thread(target=client, args=(listening, name)) for name in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert wrong == []


@pytest.mark.parametrize("slow", [8, 200])
def test_slow_calls_do_not_hold_a_fast_one_up(slow: int) -> None:
    with held() as (app, listening), contextlib.ExitStack() as stack:
        for _ in range(slow):
            stack.enter_context(Wire(listening)).get("/held")
        with Wire(listening) as wire:
            began = time.monotonic()
            assert wire.get("/fast").answer() == (200, b"/fast")
            assert time.monotonic() - began < 60
        app.wait_for(slow)


def test_a_thousand_idle_connections_and_five_hundred_streams_are_held_and_calls_go_on() -> None:
    admission.raise_descriptor_limit(4000)
    with held(idle_s=300) as (app, listening), contextlib.ExitStack() as stack:
        idle = [stack.enter_context(Wire(listening, 30)) for _ in range(990)]
        assert idle[0].get("/first").answer() == (200, b"/first")
        streams = [stack.enter_context(Wire(listening, 30)).get("/stream") for _ in range(500)]
        for wire in streams:
            assert wire.until(b"open\r\n").endswith(b"4\r\nopen\r\n")
        with Wire(listening, 30) as wire:
            for _ in range(20):
                assert wire.get("/call").answer() == (200, b"/call")
        for wire in (idle[0], idle[500], idle[-1]):
            assert wire.get("/still").answer() == (200, b"/still")
        app.go.set()
        for wire in streams:
            assert wire.until(b"0\r\n\r\n") == b"4\r\ndone\r\n0\r\n\r\n"


def test_at_the_cap_idle_connections_make_room_and_the_strangers_go_first(monkeypatch: Any) -> None:
    # One that is given up has ended before the next is refused, however busy the machine is.
    monkeypatch.setattr(admission, "_CLOSING_S", 30.0)
    with held(connections=3) as (app, listening), contextlib.ExitStack() as stack:

        def connect(number: int) -> Wire:
            """The next connection, once its thread has counted it: they have threads of their own."""
            wire: Wire = stack.enter_context(Wire(listening))
            wait_until(lambda: len(listening.admission._open) == number)
            return wire

        known = connect(1)
        assert known.get("/a").answer()[0] == 200
        silent, half_read = connect(2), connect(3)
        half_read.send(b"GET / HT")
        third = stack.enter_context(Wire(listening))
        # The silent one has gone to make room for the third.
        assert silent.closed()
        third.get("/held")
        app.wait_for(1)
        fourth = stack.enter_context(Wire(listening)).get("/held")
        assert half_read.closed()
        app.wait_for(1)
        known.get("/held")
        app.wait_for(1)
        with Wire(listening) as refused:
            assert refused.answer()[0] == 503
        app.go.set()
        for wire in (known, third, fourth):
            assert wire.answer() == (200, b"/held")


def test_five_hundred_connections_without_a_byte_and_sixty_resets_leave_nothing(caplog: Any) -> None:
    def reset(wire: Wire) -> None:
        # Closing with this option sends a reset.
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        wire.socket.close()

    with held() as (app, listening):
        with Wire(listening) as wire:
            assert wire.get("/").answer()[0] == 200
        wait_until(lambda: connections() == 0)
        descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
        for _ in range(500):
            Wire(listening).socket.close()
        for number in range(60):
            wire = Wire(listening)
            if number % 3 == 0:
                wire.post(b"half", "Content-Length: 100")
            elif number % 3 == 1:
                wire.get("/stream").until(b"open")
            else:
                wire.get("/held")
            reset(wire)
        app.go.set()
        with Wire(listening) as wire:
            assert wire.get("/alive").answer() == (200, b"/alive")
        wait_until(lambda: connections() == 0)
        if descriptors is not None:
            assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize(
    "sent, status",
    [
        (b"", 0),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", 408),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc", 408),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", 408),
    ],
)
def test_silent_and_half_sent_requests_are_dropped_in_time(sent: bytes, status: int) -> None:
    idle_s = 60 if sent else 1  # a test that is held up before it sends is not idle
    with embedded(echo, idle_s=idle_s, head_s=0.3, body_s=0.3) as listening, Wire(listening) as wire:
        assert wire.send(sent).head()[0] == status


@pytest.mark.parametrize(
    "head", [b"GET / HTTP/1.1\r\nA: ", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n"]
)
def test_a_deadline_is_for_the_whole_and_not_for_each_byte(head: bytes) -> None:
    with embedded(echo, idle_s=120, head_s=0.5, body_s=0.5) as listening, Wire(listening) as wire:
        began = time.monotonic()
        wire.send(head)
        wire.socket.settimeout(0.05)
        status = 0
        while status == 0 and time.monotonic() - began < 100:
            wire.send(b"x")
            with contextlib.suppress(socket.timeout):
                status = wire.head()[0]
        assert status == 408
        assert time.monotonic() - began < 60


def test_an_idle_kept_connection_is_dropped_and_a_used_one_is_not() -> None:
    with embedded(echo, idle_s=4) as listening, Wire(listening) as idle, Wire(listening) as used:
        assert idle.get("/").answer()[0] == 200
        for _ in range(3):
            threading.Event().wait(1.4)
            assert used.get("/").answer()[0] == 200
        assert idle.closed()


def test_a_client_that_does_not_read_is_given_up() -> None:
    closed = threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            while True:
                yield b"x" * 1_000_000
        finally:
            closed.set()

    with embedded(app, send_s=0.3) as listening, Wire(listening) as wire:
        wire.get("/")
        assert closed.wait(20)


def test_no_descriptor_left_is_survived_and_logged_once(caplog: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(wsgi_server, "_PAUSE_S", 0.01)
    with embedded(echo) as listening:

        class Exhausted:
            left = 5

            def accept(self) -> Any:
                if self.left:
                    self.left -= 1
                    raise OSError(errno.EMFILE, "Too many open files")
                return real.accept()

            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

        real = listening.socket
        listening.socket = Exhausted()  # type: ignore[assignment]
        with Wire(listening) as wire:
            assert wire.get("/").answer()[0] == 200
    assert len([record for record in caplog.records if "Too many open files" in record.getMessage()]) == 1


def test_a_thread_that_cannot_be_started_costs_one_connection(monkeypatch: Any) -> None:
    start = threading.Thread.start
    failures = iter([True, False])

    def failing(thread: threading.Thread) -> None:
        if thread.name == "minimcp-connection" and next(failures, False):
            raise RuntimeError("can't start new thread")
        start(thread)

    with embedded(echo) as listening:
        monkeypatch.setattr(threading.Thread, "start", failing)
        with Wire(listening) as wire:
            assert wire.answer()[0] == 503
            assert wire.closed()
        with Wire(listening) as wire:
            assert wire.get("/").answer()[0] == 200


# Start and stop


def test_closing_finishes_what_runs_and_ends_streams_and_idle_connections() -> None:
    with held() as (app, listening):
        listening.on_shutdown.append(app.go.set)
        idle, running, stream = Wire(listening), Wire(listening), Wire(listening)
        assert idle.get("/").answer()[0] == 200
        running.get("/held")
        app.wait_for(1)
        stream.get("/stream").until(b"open\r\n")
        listening.close(grace_s=60)
        assert running.answer() == (200, b"/held")
        assert stream.until(b"0\r\n\r\n").endswith(b"done\r\n0\r\n\r\n")
        assert idle.closed() and running.closed() and stream.closed()
        for wire in (idle, running, stream):
            wire.socket.close()
        with pytest.raises(ConnectionError):
            Wire(listening)


def test_what_does_not_finish_within_the_grace_time_is_cut_off() -> None:
    with held() as (app, listening), Wire(listening) as wire:
        wire.get("/held")
        app.wait_for(1)
        began = time.monotonic()
        listening.close(grace_s=0.2)
        assert time.monotonic() - began < 60
        assert wire.closed()


SCRIPT = """
import sys, threading
from minimcp.engines.http_server.wsgi_server import serve
def app(environ, start_response):
    if environ["PATH_INFO"] == "/held":
        print("held", flush=True)
        threading.Event().wait(float(environ["QUERY_STRING"]))
    start_response("200 OK", [])
    return [b"done"]
serve(app, port=0, ready=lambda server: print("port", server.port, flush=True))
print("over", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_after_what_runs_and_without_a_traceback(number: int) -> None:
    with Process([sys.executable, "-c", SCRIPT], PYTHONPATH=ROOT) as process:
        port = int(process.wait_for(r"port (\d+)")[1])
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.sendall(b"GET /held?0.5 HTTP/1.1\r\nHost: x\r\n\r\n")
            process.wait_for("held")
            process.child.send_signal(number)
            data = b""
            while part := client.recv(1000):
                data += part
        assert data.endswith(b"\r\n\r\ndone")
        assert process.child.wait(60) == 0
        process.wait_for("over")
        assert not [line for line in process.lines if "Traceback" in line]


def test_a_second_signal_ends_the_process_at_once() -> None:
    with Process([sys.executable, "-c", SCRIPT], PYTHONPATH=ROOT) as process:
        port = int(process.wait_for(r"port (\d+)")[1])
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.sendall(b"GET /held?200 HTTP/1.1\r\nHost: x\r\n\r\n")
            process.wait_for("held")
            process.child.send_signal(signal.SIGTERM)
            # Nothing tells that the first has been taken, and until then another is one with it.
            for _ in range(120):
                threading.Event().wait(0.5)
                process.child.send_signal(signal.SIGTERM)
                if process.child.poll() is not None:
                    break
            assert process.child.wait(20) == -signal.SIGTERM


def test_a_port_in_use_is_a_sentence() -> None:
    with embedded(echo) as listening:
        with pytest.raises(OSError) as caught:
            make_server(echo, "127.0.0.1", listening.port)
        assert str(caught.value).startswith(f"Port {listening.port} on 127.0.0.1 is in use")
    with pytest.raises(OSError, match="is not a port"):
        make_server(echo, "127.0.0.1", 70_000)
    with pytest.raises(OSError, match="Cannot listen on 192.0.2.1"):
        make_server(echo, "192.0.2.1", 0)
    with pytest.raises(ValueError, match="conections"):
        make_server(echo, "127.0.0.1", 0, limits={"conections": 1})


@pytest.mark.parametrize("host, warned", [("127.0.0.1", 0), ("0.0.0.0", 1)])
def test_listening_to_everyone_is_warned_about(caplog: Any, host: str, warned: int) -> None:
    caplog.set_level(logging.WARNING)
    wsgi_server.serve(echo, host, 0, ready=lambda server: server.stop(), warn_open=True)
    assert len([record for record in caplog.records if "does not ask who is calling" in record.getMessage()]) == warned
