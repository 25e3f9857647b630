"""The client in a process that gevent has patched: greenlets instead of threads, over stdio and HTTP, in both eras.

Each test is a function that a child process runs after `gevent.monkey.patch_all()`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from minimcp import Client, ConnectionLost, Context, Server
from tests.embedded import embedded
from tests.transports import ROOT

pytest.importorskip("gevent", reason="gevent is not installed")

server = Server("green", "1.0", limits={"keepalive_s": 0.1})
woken: list[str] = []
meeting = threading.Barrier(21)


@server.tool
def sleep(seconds: float, ctx: Context) -> str:
    """Sleep until the time is over or the call is cancelled."""
    ctx.progress(0, seconds, "falling asleep")
    if ctx.cancelled.wait(seconds):
        woken.append("woken early")
    return "slept"


@server.tool
def meet(ctx: Context) -> str:
    """Wait until all have come."""
    meeting.wait(30)
    return "met"


@server.tool
def early(ctx: Context) -> str:
    """Say which sleep was cancelled, once there is one."""
    until = time.monotonic() + 30
    while not woken and time.monotonic() < until:
        ctx.cancelled.wait(0.01)
    return woken.pop()


@server.tool
def ask(ctx: Context) -> str:
    """Ask the person for a name."""
    return f"Hello {ctx.elicit('Who are you?', {'name': str})['name']}"


@server.tool
def pid() -> int:
    """Say which process this is."""
    return os.getpid()


@server.tool
def die() -> None:
    """End the process."""
    os._exit(3)


STDIO = [sys.executable, "-c", "from tests.test_client_gevent import server; server.run()"]
ON = [(door, mode) for door in ("stdio", "http") for mode in ("modern", "legacy")]


def in_green_process(work: Callable[..., None], door: str, mode: str) -> str:
    """Run a function of this file in a patched process, for the server to be met at `door`, and return its output."""
    code = (
        "import gevent.monkey; gevent.monkey.patch_all(); import sys; from tests import test_client_gevent as here\n"
        f"here.{work.__name__}(eval(sys.argv[1]), sys.argv[2])"
    )

    def run(target: Any) -> str:
        command = [sys.executable, "-W", "error", "-c", code, repr(target), mode]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    if door == "stdio":
        return run(STDIO)
    woken.clear()
    with embedded(server.wsgi) as listening:
        return run(f"http://127.0.0.1:{listening.port}/mcp")


def share(target: Any, mode: str) -> None:
    import gevent

    ticks = 0

    def tick() -> None:
        nonlocal ticks
        while True:
            gevent.sleep(0.01)
            ticks += 1

    steady = gevent.spawn(tick)
    with Client(target, mode=mode) as client:
        seen: list[Any] = []
        assert client.call_tool("sleep", {"seconds": 0}, progress=seen.append).text == "slept"
        assert seen[0]["message"] == "falling asleep"
        jobs = [gevent.spawn(client.call_tool, "meet") for _ in range(20)]
        # They wait side by side, and others run meanwhile.
        before = ticks
        while ticks - before <= 10:
            gevent.sleep(0.01)
        assert client.call_tool("meet").text == "met"
        gevent.joinall(jobs, timeout=40, raise_error=True)
        assert [job.value.text for job in jobs] == ["met"] * 20
    steady.kill()


@pytest.mark.parametrize("door, mode", ON)
def test_greenlets_share_a_client(door: str, mode: str) -> None:
    in_green_process(share, door, mode)


def answer(target: Any, mode: str) -> None:
    def elicit(question: Any) -> Any:
        # From within an answer the client can be called again.
        assert client.call_tool("pid").text.isdigit()
        return {"name": "Ann"}

    with Client(target, mode=mode, elicit=elicit) as client:
        assert client.call_tool("ask").text == "Hello Ann"


@pytest.mark.parametrize("door, mode", ON)
def test_a_question_is_answered(door: str, mode: str) -> None:
    in_green_process(answer, door, mode)


def kill(target: Any, mode: str) -> None:
    import gevent

    with Client(target, mode=mode) as client:
        asleep = gevent.event.Event()
        job = gevent.spawn(client.call_tool, "sleep", {"seconds": 600}, progress=lambda step: asleep.set())
        assert asleep.wait(20)
        job.kill()
        # The server was told, and the connection is as good as before.
        assert client.call_tool("early").text == "woken early"
        with gevent.Timeout(0.2, False):
            client.call_tool("sleep", {"seconds": 600})
            raise AssertionError("the time was not up")
        assert client.call_tool("pid").text.isdigit()


@pytest.mark.parametrize("door, mode", ON)
def test_a_killed_greenlet_takes_its_call_along(door: str, mode: str) -> None:
    in_green_process(kill, door, mode)


def lose(target: Any, mode: str) -> None:
    import gevent

    def fate(name: str, *arguments: Any, **options: Any) -> str:
        try:
            return client.call_tool(name, *arguments, **options).text
        except ConnectionLost as error:
            return str(error)

    with Client(target, mode=mode) as client:
        asleep = gevent.event.Event()
        job = gevent.spawn(fate, "sleep", {"seconds": 600}, progress=lambda step: asleep.set())
        assert asleep.wait(20)
        assert "exited with code 3" in fate("die")
        assert "exited with code 3" in job.get(timeout=20)


def test_a_server_that_dies_fails_all_calls() -> None:
    in_green_process(lose, "stdio", "modern")


def leave(target: Any, mode: str) -> None:
    client = Client(target, mode=mode).open()
    print(client.call_tool("pid").text)


def test_a_process_that_ends_takes_its_server_along() -> None:
    child = int(in_green_process(leave, "stdio", "modern"))
    until = time.monotonic() + 30
    while os.path.exists(f"/proc/{child}") and time.monotonic() < until:
        time.sleep(0.02)
    assert not os.path.exists(f"/proc/{child}")
