"""The stdio loop under load and under failure, in this process or as a child process."""

from __future__ import annotations

import itertools
import json
import os
import select
import subprocess
import sys
import threading
import time

import pytest

from minimcp import Context, Server
from minimcp.protocol.lines import LineSplitter, read_head
from minimcp.transports.stdio import StdioLoop, serve
from tests.embedded import wait_until
from tests.helpers import modern
from tests.transports import ROOT, Stdio

NOTE = {"jsonrpc": "2.0", "method": "notifications/x"}
HELLO = {"protocolVersion": "2025-11-25", "capabilities": {"elicitation": {}}, "clientInfo": {}}


class Pipes:
    """A loop over two pipes in this process; `ask` sends lines and `hear` gives the next message."""

    def __init__(self, server):
        self.server = server
        (self._in, self._ours), (self._out, self._back) = os.pipe(), os.pipe()
        self.loop = StdioLoop(server.engine, self._in, self._back)
        self._thread = threading.Thread(target=self.loop.run, daemon=True)
        self._thread.start()
        self._lines = os.fdopen(self._out, "rb")

    def say(self, *messages):
        data = b"".join(each if isinstance(each, bytes) else json.dumps(each).encode() + b"\n" for each in messages)
        view = memoryview(data)
        while view:
            view = view[os.write(self._ours, view) :]

    def hear(self):
        return json.loads(self._lines.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self._ours)
        self._thread.join(10)
        assert not self._thread.is_alive()
        self.loop.close()
        os.close(self._back)
        assert self._lines.read() == b"", "more was said than was heard"
        self._lines.close()
        os.close(self._in)


@pytest.fixture
def gate():
    found = threading.Event()
    yield found
    found.set()


@pytest.fixture
def server(gate):
    server = Server("s", "1", limits={"body_bytes": 3000})

    @server.tool
    def block() -> str:
        assert gate.wait(60)
        return "x"

    @server.tool
    def echo(text: str) -> str:
        return text

    @server.tool
    def ask(ctx: Context) -> str:
        return str(ctx.elicit("Name?", {"name": str}))

    @server.tool
    def open_gate(ctx: Context) -> str:
        gate.set()
        return "open"

    yield server
    server.close()


def call(id, name, **arguments):
    return modern("tools/call", id, name=name, arguments=arguments)


def test_tools_that_block_hold_up_neither_ping_nor_other_tools(server, gate):
    with Pipes(server) as pipes:
        pipes.say(*(call(n, "block") for n in range(80)))
        began = time.monotonic()
        pipes.say({"jsonrpc": "2.0", "id": "p", "method": "ping"}, call("e", "echo", text="fast"))
        assert {pipes.hear()["id"], pipes.hear()["id"]} == {"p", "e"}
        assert time.monotonic() - began < 30
        gate.set()
        assert {pipes.hear()["id"] for _ in range(80)} == set(range(80))


def test_beyond_the_limit_calls_wait_and_beyond_that_they_are_refused_and_ping_is_answered(server, gate, monkeypatch):
    monkeypatch.setattr("minimcp.transports.stdio._WAITING", 5)
    server.engine.limits["calls"] = 3
    with Pipes(server) as pipes:
        pipes.say(*(call(n, "block") for n in range(40)), {"jsonrpc": "2.0", "id": "p", "method": "ping"})
        refused = []
        while (reply := pipes.hear())["id"] != "p":
            assert reply["error"]["code"] == -32603
            refused.append(reply["id"])
        # At least three run on workers and five wait; a few more are with threads that were reading.
        assert 40 - 3 - 5 - 5 <= len(refused) <= 40 - 3 - 5
        gate.set()
        assert {pipes.hear()["id"] for _ in range(40 - len(refused))} == set(range(40)) - set(refused)


def test_what_waits_for_a_worker_is_bounded_in_bytes(server, gate, monkeypatch):
    monkeypatch.setattr("minimcp.transports.stdio._WAITING_BYTES", 5000)
    server.engine.limits["calls"] = 1
    with Pipes(server) as pipes:
        pipes.say(*(call(n, "block") for n in range(7)))
        pipes.say(*(call(f"w{n}", "echo", text="x" * 2000) for n in range(8)))
        refused = []
        pipes.say({"jsonrpc": "2.0", "id": "p", "method": "ping"})
        while (reply := pipes.hear())["id"] != "p":
            assert reply.get("error", {}).get("code") == -32603, reply
            refused.append(reply["id"])
        assert 6 <= len(refused) <= 7
        gate.set()
        for _ in range(7 + 8 - len(refused)):
            assert "result" in pipes.hear()


@pytest.mark.parametrize(
    "start, id",
    [
        (b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","arguments":{"id":1,"text":"', 7),
        (b' { "id" : "a\\u0062" , "params" : [1, {"id": 5}, "', "ab"),
        (b'{"method":"x","params":{"id":9},"id":"late","more":"', "late"),
        (b'{"jsonrpc":"2.0","method":"x","params":{"id":9,"text":"', None),
        (b'{"id":{"id":3},"text":"', None),
        (b'{"id":true,"text":"', None),
        (b'[{"id":3,"text":"', None),
        (b'"id":3,"', None),
        (b"\xff\xfe{", None),
        (b'{"id":1' + b"1" * 17000, None),
    ],
)
def test_a_line_that_is_too_long_is_answered_under_the_id_at_its_start(server, start, id):
    with Pipes(server) as pipes:
        pipes.say(start + b"x" * 20_000 + b'"}}\n', {"jsonrpc": "2.0", "id": "p", "method": "ping"})
        refused = pipes.hear()
        assert refused["error"]["code"] == -32600 and "3000 bytes" in refused["error"]["message"]
        assert refused.get("id") == id and ("id" in refused) is (id is not None)
        assert pipes.hear() == {"jsonrpc": "2.0", "id": "p", "result": {}}


def test_an_answer_that_is_too_long_ends_the_question(server):
    with Pipes(server) as pipes:
        pipes.say({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": HELLO})
        pipes.hear()
        pipes.say({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "ask"}})
        asked = pipes.hear()["id"]
        answer = {"jsonrpc": "2.0", "id": asked, "result": {"action": "accept", "content": {"name": "x" * 5000}}}
        pipes.say(answer)
        result = pipes.hear()["result"]
        assert result["isError"] is True and "3000 bytes" in result["content"][0]["text"]


def test_beginnings_are_read_however_the_bytes_came():
    line = b'{"id":7,"text":"' + b"x" * 50
    for size in (1, 3, 1000):
        splitter = LineSplitter(20)
        data = line + b"\n" + line + b"\n[]\n"
        found = [each for at in range(0, len(data), size) for each in splitter.feed(data[at : at + size])]
        assert found == [None, None, b"[]"] and [read_head(head)["id"] for head in splitter.heads] == [7, 7]


def test_a_line_that_is_still_being_taken_when_the_input_ends_is_answered(server, monkeypatch):
    real, returned, ended = server.engine.call, threading.Event(), []

    def slow(message, **more):
        ended.append(loop._ended.wait(20))
        # `run` would return in this time, if it did not wait.
        returned.wait(0.3)
        return real(message, **more)

    monkeypatch.setattr(server.engine, "call", slow)
    (theirs, ours), (out, back) = os.pipe(), os.pipe()
    loop = StdioLoop(server.engine, theirs, back)
    os.write(ours, json.dumps({"jsonrpc": "2.0", "id": "p", "method": "ping"}).encode() + b"\n")
    os.close(ours)
    try:
        loop.run()
        answered = bool(select.select([out], [], [], 0)[0])
    finally:
        returned.set()
        said = os.read(out, 1000)
        loop.close()
        for fd in (theirs, out, back):
            os.close(fd)
    assert ended == [True] and answered and json.loads(said)["id"] == "p"


@pytest.mark.parametrize(
    "broken", [{"params": []}, {"params": "x"}, {"params": 5, "jsonrpc": "1.0"}, {"params": None}, {"_meta": None}]
)
def test_a_notification_is_never_answered_whatever_is_wrong_with_it(server, broken):
    with Pipes(server) as pipes:
        pipes.say({**NOTE, **broken}, {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {**HELLO}})
        assert pipes.hear()["id"] == 0
        assert server.handle({**NOTE, **broken}) is None


def test_a_message_that_cannot_be_taken_is_an_internal_error_under_its_id(server, monkeypatch, caplog):
    real, broken = server.engine.call, [OSError("disk"), SystemExit(3)]

    def fail(message, **more):
        if message["method"] == "ping":
            return real(message, **more)
        raise broken.pop()

    monkeypatch.setattr(server.engine, "call", fail)
    with Pipes(server) as pipes:
        for id in ("a", "b"):
            pipes.say({"jsonrpc": "2.0", "id": id, "method": "tools/list"})
            assert pipes.hear() == {"jsonrpc": "2.0", "id": id, "error": {"code": -32603, "message": "Internal error"}}
        pipes.say({"jsonrpc": "2.0", "id": 1, "method": "ping"})
        assert pipes.hear()["result"] == {}
    assert "could not be taken" in caplog.text


def test_without_a_thread_for_it_a_call_is_refused_and_a_reader_goes_on(server, gate, monkeypatch):
    real, failed = threading.Thread.start, []

    def start(thread):
        if not failed or failed[-1] < 3:
            failed.append(len(failed) + 1)
            raise RuntimeError("can't start new thread")
        real(thread)

    with Pipes(server) as pipes:
        pipes.say({"jsonrpc": "2.0", "id": "p", "method": "ping"})
        pipes.hear()
        monkeypatch.setattr(threading.Thread, "start", start)
        # A worker is needed at once, and there is none.
        pipes.say(call(1, "open_gate"))
        assert pipes.hear()["error"]["code"] == -32603
        assert not pipes.loop._session.calls and not pipes.loop._unanswered
        # The reader cannot be relieved the first time, and is the next time.
        pipes.say(call(2, "block"), call(3, "echo", text="x"))
        assert pipes.hear()["id"] == 3
        assert failed == [1, 2, 3]
        gate.set()
        assert pipes.hear()["id"] == 2


def test_callbacks_that_raise_stop_neither_the_reader_nor_the_others(server, caplog):
    told, ready = [], threading.Semaphore(0)

    @server.tool
    def watch(ctx: Context) -> str:
        ctx.on_cancel(lambda: sys.exit("from a callback"))
        ctx.on_cancel(lambda: 1 / 0)
        ctx.on_cancel(lambda: told.append(1))
        ready.release()
        ctx.cancelled.wait(60)
        ctx.on_cancel(lambda: sys.exit("too late"))
        return "x"

    with Pipes(server) as pipes:
        for id in range(70):
            pipes.say(call(id, "watch"))
            assert ready.acquire(timeout=60)
            pipes.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}})
        pipes.say({"jsonrpc": "2.0", "id": "p", "method": "ping"})
        assert pipes.hear()["id"] == "p"
        # Another reader may have taken the ping, where the callbacks took their time.
        wait_until(lambda: len(told) == 70)
    assert "from a callback" in caplog.text and "ZeroDivisionError" in caplog.text


def test_a_signal_that_comes_as_soon_as_it_may_ends_the_serving(server, monkeypatch):
    def install(number, handler):
        # As if the signal had come right after the handler was there.
        handler(number, None)

    monkeypatch.setattr("minimcp.transports.stdio.signal.signal", install)
    pipes = os.pipe()
    try:
        serve(server.engine, pipes)
    except KeyboardInterrupt:
        pytest.fail("the signal was not caught")
    finally:
        for fd in pipes:
            os.close(fd)


@pytest.mark.parametrize("moment", range(24))
def test_a_signal_at_any_moment_of_the_wait_leaves_no_lock_that_the_end_needs(server, moment):
    (theirs, ours), (out, back) = os.pipe(), os.pipe()
    loop, lines = StdioLoop(server.engine, theirs, back), itertools.count()

    parts = loop._ended, loop._ended._cond

    def trace(frame, event, arg):
        if not any(frame.f_locals.get("self") is part for part in parts):
            return None
        if event == "line" and next(lines) == moment:
            raise KeyboardInterrupt
        return trace

    end = threading.Timer(0.02, os.close, (ours,))
    end.start()
    sys.settrace(trace)
    try:
        loop.run()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
        end.join(20)
    closes = threading.Thread(target=loop.close, daemon=True)
    closes.start()
    closes.join(20)
    assert not closes.is_alive()
    for fd in (theirs, out, back):
        os.close(fd)


PRINTS = """
import sys
from minimcp import Server
print("a line")
sys.stdout.write("Loading... ")
Server("s").run()
"""

FORKS = """
import os, sys
from minimcp import Context, Server
server = Server("s")

@server.tool
def fork(how: str, ctx: Context) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if hasattr(os, "waitstatus_to_exitcode") else 0
    ctx.progress(1)
    if how == "exit":
        sys.exit(3)
    if how == "raise":
        raise ValueError("in the child")
    return 7

@server.tool
def fork_here(how: str) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if how == "exit":
        sys.exit(3)
    if how == "raise":
        raise ValueError("in the child")
    return 7

if __name__ == "__main__":
    server.run()
"""


def test_what_a_file_printed_before_it_serves_goes_to_standard_error(tmp_path):
    (tmp_path / "prints.py").write_text(PRINTS)
    ping = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode() + b"\n"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    env.pop("PYTHONUNBUFFERED", None)
    ended = subprocess.run([sys.executable, str(tmp_path / "prints.py")], input=ping, capture_output=True, env=env)
    assert ended.stdout == b'{"jsonrpc":"2.0","id":1,"result":{}}\n'
    assert ended.stderr.startswith(b"a line\nLoading... ")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("tool", ["fork", "fork_here"])
@pytest.mark.parametrize("how, code", [("exit", 3), ("raise", 1), ("return", 0)])
def test_a_forked_child_neither_answers_nor_reads(tmp_path, tool, how, code):
    (tmp_path / "forks.py").write_text(FORKS)
    with Stdio(str(tmp_path / "forks.py")) as talk:
        for id in (1, 2):
            talk.send(modern("tools/call", id, name=tool, arguments={"how": how}, meta={"progressToken": id}))
            reply = talk.receive()
            assert reply["id"] == id and reply["result"]["structuredContent"] == code
        assert talk.close() == []
