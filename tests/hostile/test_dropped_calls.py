"""Calls that are started, read a little and dropped, while other threads use the same client."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from minimcp import Client
from tests.embedded import embedded, wait_until
from tests.hostile.dropped import server

ROOT = Path(__file__).resolve().parents[2]
# A minute shows a lock that a finalizer meets again for certain, some seconds show most.
SECONDS = os.environ.get("MINIMCP_STRESS_S", "4")


def run(target: str) -> str:
    """Run the program that drops calls, and return what it says of it."""
    program = [sys.executable, "-m", "tests.hostile.dropped", target, SECONDS]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=float(SECONDS) + 60)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    return done.stdout


def test_dropped_calls_stop_no_other_thread_of_the_client_over_stdio():
    assert run("stdio").startswith("ended")


def test_dropped_calls_stop_no_other_thread_of_the_client_over_http():
    with embedded(server.wsgi) as served:
        assert run(served.url).startswith("ended")


@pytest.mark.parametrize("transport", ["stdio", "http", "memory"])
def test_a_dropped_call_is_ended_and_leaves_no_thread(transport):
    target = [sys.executable, "-m", "tests.hostile.dropped"] if transport == "stdio" else server
    with embedded(server.wsgi) as served, Client(served.url if transport == "http" else target) as client:
        for _ in client.start_tool("slow"):
            break
        wait_until(lambda: not any(thread.name.startswith("minimcp-call") for thread in threading.enumerate()))
        assert client.call_tool("add", a=1, b=2).data == {"sum": 3}


def test_dropping_a_call_takes_no_lock_and_sends_nothing():
    """It returns at once on the thread that drops it, though every lock on the way of a cancellation is held."""
    with Client(server) as client:
        call = client.start_tool("slow")
        next(call)
        transport = client._connect().transport
        began = time.monotonic()
        with transport._pending._lock:
            del call
        assert time.monotonic() - began < 1
        wait_until(lambda: not any(thread.name.startswith("minimcp-call") for thread in threading.enumerate()))
