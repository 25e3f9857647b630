"""The stdio door, as a child process: lines, order, cancellation, and the end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest

from tests.helpers import modern
from tests.transports import ROOT, Stdio

SERVER = """
import os, subprocess, sys, threading, time
from minimcp import Context, Server
server = Server("s", "1", limits={"body_bytes": 2000})
go = threading.Event()
print("a banner on import")

@server.tool
def noisy() -> str:
    print("a stray print")
    sys.stdout.write("and another")
    os.write(1, b"even to the descriptor\\n")
    subprocess.run([sys.executable, "-c", "print('from a child'); import sys; print(sys.stdin.read())"])
    return "quiet"

@server.tool
def block(name: str) -> str:
    go.wait(20)
    return name

@server.tool
def release() -> str:
    go.set()
    return "released"

@server.tool
def echo(text: str) -> str:
    return text

@server.tool
def until_cancelled(ctx: Context) -> str:
    ctx.progress(1)
    ctx.cancelled.wait(20)
    print("was cancelled", file=sys.stderr)
    ctx.progress(2)
    return "x"

@server.tool
def crash() -> str:
    raise SystemExit(3)

@server.tool
def burst(ctx: Context) -> str:
    for n in range(1, 51):
        ctx.progress(n)
    return "done"

if __name__ == "__main__":
    server.run()
"""


@pytest.fixture
def talk(tmp_path):
    (tmp_path / "server.py").write_text(SERVER)
    with Stdio("-m", "minimcp", "run", str(tmp_path / "server.py")) as talk:
        yield talk


def call(talk, tool, id=1, meta=None, **arguments):
    talk.send(modern("tools/call", id, name=tool, arguments=arguments, meta=meta))


def said(message):
    return message["result"]["content"][0]["text"]


def test_what_files_handlers_and_their_children_print_goes_to_standard_error(talk):
    call(talk, "noisy")
    assert said(talk.receive()) == "quiet"
    assert talk.close() == []
    for words in (b"a banner", b"a stray print", b"and another", b"even to the descriptor", b"from a child"):
        assert words in talk.errors


def test_a_reply_is_one_line_whatever_its_text_holds(talk):
    text = "a\nb\r\nc\u2028d\u0085e \U0001f600 \\u0000"
    call(talk, "echo", text=text)
    assert said(talk.receive()) == text


def test_blank_lines_and_carriage_returns_are_tolerated(talk):
    talk.send("")
    talk.send("  ")
    talk.send(json.dumps(modern("tools/call", 1, name="echo", arguments={"text": "x"})) + "\r")
    assert said(talk.receive()) == "x"


def test_a_line_that_is_too_long_is_refused_and_the_next_one_served(talk):
    talk.send("x" * 3000)
    assert talk.receive()["error"]["code"] == -32600
    talk.send("x" * 200_000)
    assert talk.receive()["error"]["code"] == -32600
    call(talk, "echo", text="x")
    assert said(talk.receive()) == "x"


def test_a_slow_handler_does_not_hold_up_the_others(talk):
    for id in (1, 2, 3):
        call(talk, "block", id, name=str(id))
    call(talk, "echo", 4, text="overtakes")
    assert talk.receive()["id"] == 4
    call(talk, "release", 5)
    assert {talk.receive()["id"] for _ in range(4)} == {1, 2, 3, 5}


def test_a_hundred_calls_at_once_are_each_answered_with_their_own(talk):
    for id in range(100):
        call(talk, "echo", id, text=f"text {id}")
    replies = [talk.receive() for _ in range(100)]
    assert {reply["id"]: said(reply) for reply in replies} == {id: f"text {id}" for id in range(100)}


def test_what_a_call_emits_comes_in_order_before_its_reply(talk):
    call(talk, "burst", meta={"progressToken": "p"})
    steps = [talk.receive()["params"]["progress"] for _ in range(50)]
    assert steps == list(range(1, 51))
    assert said(talk.receive()) == "done"


def test_a_cancelled_call_is_told_and_never_heard_of_again(talk):
    call(talk, "until_cancelled", "w", meta={"progressToken": 1})
    assert talk.receive()["params"]["progress"] == 1
    talk.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "w", "reason": "enough"}})
    call(talk, "echo", text="x")
    assert said(talk.receive()) == "x"
    assert talk.close() == [] and b"was cancelled" in talk.errors


def test_a_handler_that_exits_does_not_end_the_server(talk):
    call(talk, "crash")
    assert talk.receive()["error"]["code"] == -32603
    call(talk, "echo", text="still here")
    assert said(talk.receive()) == "still here"


def test_at_the_end_of_input_running_calls_finish_and_the_process_exits_with_0(talk):
    call(talk, "block", 1, name="late")
    call(talk, "release", 2)
    assert {message["id"] for message in talk.close()} == {1, 2}
    assert talk.child.returncode == 0


def test_an_open_listen_stream_does_not_hold_up_the_end(talk):
    talk.send(modern("subscriptions/listen", "L", notifications={"toolsListChanged": True}))
    assert talk.receive()["method"] == "notifications/subscriptions/acknowledged"
    assert talk.close() == [] and talk.child.returncode == 0


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_it_without_a_traceback(talk, name):
    call(talk, "echo", text="x")
    talk.receive()
    talk.child.send_signal(getattr(signal, name))
    assert talk.child.wait(10) == 0
    talk.close()
    assert b"Traceback" not in talk.errors


def test_a_client_that_no_longer_reads_ends_it(tmp_path):
    (tmp_path / "server.py").write_text(SERVER)
    child = subprocess.Popen(
        [sys.executable, "-m", "minimcp", "run", str(tmp_path / "server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    line = json.dumps(modern("tools/call", 1, name="echo", arguments={"text": "x"})).encode() + b"\n"
    child.stdin.write(line)
    child.stdin.flush()
    assert child.stdout.readline()
    child.stdout.close()
    try:
        # The input stays open: it is the failing write that tells the server.
        child.stdin.write(line)
        child.stdin.flush()
        assert child.wait(10) == 0
    finally:
        child.kill()
        child.wait(10)
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
