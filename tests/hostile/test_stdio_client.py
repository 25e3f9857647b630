"""T200 to T213, T237, T239: what a server at the other end of two pipes may do to a client."""

from __future__ import annotations

import itertools
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from minimcp.client.transports.stdio import StdioTransport
from minimcp.engines.errors import ClientError, ConnectionLost, ProtocolError, Timeout

ROOT = Path(__file__).resolve().parent.parent.parent
WAIT_S = 60

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the tests look at processes through /proc")

PRELUDE = """
import json, os, signal, subprocess, sys, time

def hear():
    return json.loads(sys.stdin.readline())

def say(message):
    os.write(1, json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\\n")

def answer(id, text="ok"):
    say({"id": id, "result": {"text": text}})

def forever():
    while True:
        time.sleep(60)
"""


@contextmanager
def server(code: str, on_message: Any = None, on_lost: Any = None, **options: Any) -> Iterator[StdioTransport]:
    """A link to a server whose code is given.

    :param on_message: that of the link; so is `on_lost`. A server may say or do something before `open` returns.
    """
    link = StdioTransport([sys.executable, "-c", PRELUDE + code], **{"patience_s": 0.05, **options})
    link.on_message = on_message or link.on_message
    link.on_lost = on_lost or link.on_lost
    try:
        link.open(5)
        yield link
    finally:
        link.close()


def request(id: Any = 1, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "method": "x", "params": params}


def result(link: StdioTransport, id: Any = 1, timeout_s: float = WAIT_S) -> Any:
    """Send a request and return the result, passing over what comes before it."""
    call = link.start(request(id), {}, timeout_s)
    try:
        while True:
            message = call.receive(timeout_s)
            if "method" not in message:
                return message["result"]["text"]
    finally:
        call.close()


def alive(pid: int) -> bool:
    """Whether a process runs; one that is only waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def soon(condition: Callable[[], Any]) -> bool:
    """Whether something becomes true."""
    until = time.monotonic() + WAIT_S
    while not condition() and time.monotonic() < until:
        threading.Event().wait(0.02)
    return bool(condition())


def gone(*pids: int) -> bool:
    """Whether these processes end soon."""
    return soon(lambda: not any(map(alive, pids)))


def run(script: str, timeout_s: float = 120) -> list[str]:
    """The lines that a program of its own prints; it has `server` and the rest of this module."""
    head = "from tests.hostile.test_stdio_client import *\n"
    done = subprocess.run(
        [sys.executable, "-c", head + script],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=timeout_s,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return [*done.stdout.splitlines(), *done.stderr.splitlines()[-3:]]


# T200: servers that do not start.


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["/nowhere/server"], "was not found"),
        (["no-such-command-anywhere"], "was not found on the PATH"),
        ([os.path.dirname(__file__)], "was not found"),
        ([__file__], "is not executable"),
    ],
)
def test_a_command_that_cannot_be_started_is_named_at_once_T200(command: list[str], said: str) -> None:
    began = time.monotonic()
    with pytest.raises(ConnectionLost, match=said) as caught:
        StdioTransport(command).open(20)
    assert repr(command[0]) in str(caught.value)
    assert caught.value.retry == "always"
    assert time.monotonic() - began < 10


def test_a_file_that_no_system_can_run_is_named_T200(tmp_path: Path) -> None:
    (tmp_path / "server").write_bytes(b"\0\1\2")
    (tmp_path / "server").chmod(0o755)
    with pytest.raises(ConnectionLost, match="did not start: .*Exec format error") as caught:
        StdioTransport(["./server"], cwd=str(tmp_path)).open(5)
    assert caught.value.retry == "always"


def test_a_working_directory_that_is_not_there_is_named_T200() -> None:
    with pytest.raises(ConnectionLost, match="did not start: .*/nowhere"):
        StdioTransport([sys.executable], cwd="/nowhere").open(5)


def test_a_server_that_exits_at_once_is_told_with_its_last_words_T200() -> None:
    lost: list[ClientError] = []
    with server("sys.stderr.write('no licence\\nask sales\\n'); sys.exit(3)", on_lost=lost.append) as link:
        with pytest.raises(ConnectionLost) as caught:
            result(link)
        assert "exited with code 3" in str(caught.value)
        assert "no licence\nask sales" in str(caught.value)
        assert sys.executable in str(caught.value)
        # What is sent later was surely not run.
        with pytest.raises(ConnectionLost, match="exited with code 3") as caught:
            result(link)
        assert caught.value.retry == "always"
        with pytest.raises(ConnectionLost, match="exited with code 3"):
            link.send({"jsonrpc": "2.0", "method": "notifications/x"}, {}, 5)
        assert soon(lambda: lost)
    assert len(lost) == 1


# T201, T206: what is not the answer.


def test_what_is_no_message_is_skipped_and_logged_T201(caplog: pytest.LogCaptureFixture) -> None:
    code = """
id = hear()["id"]
os.write(1, b"Welcome to the server!\\n\\n   \\r\\n\\xff\\xfe not text\\n")
os.write(1, b'[1, 2\\n42\\nnull\\n"text"\\n[]\\n[[]]\\n{}\\n')
os.write(1, b'{"jsonrpc":"2.0","id":7,"result":{"a":1,"a":2}}\\n{"jsonrpc":"2.0","method":"x","params":NaN}\\n')
os.write(1, b"{'level': 'info', 'message': 'started', 'id': 1}\\n" + b'{"level": "info", "id": 1, "took": NaN}\\n')
os.write(1, b"[" * 5000 + b"\\n")
half = json.dumps({"jsonrpc": "2.0", "id": id, "result": {"text": "a\\u2028b"}}, ensure_ascii=False).encode()
for at in range(len(half)):
    os.write(1, half[at:at + 1])
time.sleep(0.05)
os.write(1, b"\\r\\n")
forever()
"""
    with server(code) as link, caplog.at_level(logging.WARNING, "minimcp"):
        assert result(link) == "a\u2028b"
    assert "Welcome to the server!" in caplog.text


BROKEN = [
    b'{"jsonrpc":"2.0","id":1,"result":{"took":NaN}}',
    b'{"jsonrpc":"2.0","id":1,"result":{"text":"a\tb"}}',
    '{"jsonrpc":"2.0","id":1,"result":{"text":"caf\u00e9"}}'.encode("latin-1"),
    '{"jsonrpc":"2.0","id":1,"result":{}}'.encode("utf-16"),
    b'{"jsonrpc":"2.0","id":"1","result":{"a":1,"a":2}}',
    b'{"jsonrpc":"2.0","id":1,"result":{"text":"cut',
    b"{'jsonrpc': '2.0', 'id': 1, 'result': {}}",
    b'Loading... {"jsonrpc":"2.0","id":1,"result":{}}',
    b'  "jsonrpc": "2.0",',
    b'{"jsonrpc":"2.0","id":1,"result":{"deep":' + b"[" * 300 + b"]" * 300 + b"}}",
    b'[{"jsonrpc":"2.0","id":1,"result":Infinity}]',
    b'{"id":1,"result":{}}',
    b'{"jsonrpc":"2.0","id":1}',
    b'{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":"both"}}',
]


@pytest.mark.parametrize("line", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_answer_fails_the_only_call_at_once_with_the_reason_T201(line: bytes) -> None:
    code = f"hear(); os.write(1, {line!r} + b'\\n'); answer(hear()['id']); forever()"
    with server(code) as link:
        began = time.monotonic()
        with pytest.raises(ProtocolError, match="answered with a line that is no message: "):
            result(link)
        assert time.monotonic() - began < WAIT_S / 2
        assert result(link, 2) == "ok"


def test_a_broken_line_fails_none_of_several_calls_T201() -> None:
    code = f"hear(); hear(); os.write(1, {BROKEN[0]!r} + b'\\n'); answer(2); answer(1); forever()"
    with server(code) as link:
        calls = [link.start(request(id), {}, 5) for id in (1, 2)]
        assert [call.receive(WAIT_S)["result"]["text"] for call in calls] == ["ok", "ok"]


def test_the_text_of_an_id_null_members_and_a_bom_are_taken_T206() -> None:
    code = """
for id in range(1, 4):
    hear()
    wrong = {"id": "0" + str(id), "result": {"text": "wrong"}}
    extra = {"error": None} if id == 1 else {"error": None, "method": None, "params": None} if id == 2 else {}
    say(wrong)
    bom = b"\\xef\\xbb\\xbf" if id < 3 else b""
    line = json.dumps({"jsonrpc": "2.0", "id": str(id), "result": {"text": "ok"}, **extra})
    os.write(1, bom + line.encode() + b"\\n")
say({"id": None, "method": "notifications/x", "params": None})
forever()
"""
    with server(code) as link:
        strays: list[Any] = []
        arrived = threading.Event()
        link.on_message = lambda message: (strays.append(message), arrived.set())
        assert [result(link, id) for id in (1, 2, 3)] == ["ok"] * 3
        assert arrived.wait(WAIT_S)
        assert strays == [{"jsonrpc": "2.0", "method": "notifications/x"}]


def test_a_flood_of_garbage_fills_no_log_T201(caplog: pytest.LogCaptureFixture) -> None:
    code = (
        "answer(hear()['id']); id = hear()['id']\nfor n in range(2000): print('x' * 5000)\n"
        "sys.stdout.flush(); answer(id); forever()"
    )
    with server(code) as link, caplog.at_level(logging.WARNING, "minimcp"):
        assert result(link) == result(link, 2) == "ok"
    assert len(caplog.records) == 5
    assert len(caplog.text) < 5 * 600


def test_a_2025_03_26_batch_is_taken_apart_T201() -> None:
    code = """
first, second = hear()["id"], hear()["id"]
batch = [{"id": second, "result": {"text": "2"}}, {"method": "notifications/y"}, {"id": first, "result": {"text": "1"}}]
batch = [{"jsonrpc": "2.0", **message} for message in batch]
print(json.dumps([batch[0], 7, *batch[1:]]))
sys.stdout.flush(); forever()
"""
    with server(code) as link:
        strays: list[Any] = []
        link.on_message = strays.append
        calls = [link.start(request(id), {}, 5) for id in (1, 2)]
        assert [call.receive(WAIT_S)["result"]["text"] for call in calls] == ["1", "2"]
        assert [stray["method"] for stray in strays] == ["notifications/y"]


def test_only_the_answer_with_the_right_id_counts_T206() -> None:
    code = """
ids = [hear()["id"] for _ in range(3)]
assert ids == [1, "1", 2]
for wrong in (99, "2", 1.0, True, None, [1], {"id": 1}, 10**30, "x" * 5000, ""):
    say({"id": wrong, "result": {"text": "wrong"}})
say({"result": {"text": "no id"}})
say({"id": 1, "result": {"text": "both"}, "error": {"code": 1, "message": "both"}})
say({"id": 1})
os.write(1, b'{"id":1,"result":{"text":"no version"}}\\n{"jsonrpc":"1.0","id":1,"result":{"text":"old"}}\\n')
answer(2, "two"); answer("1", "text one"); answer(1, "one"); answer(1, "one again"); answer(2, "two again")
answer(hear()["id"], "next")
forever()
"""
    with server(code) as link:
        strays: list[Any] = []
        link.on_message = strays.append
        calls = [link.start(request(id), {}, 5) for id in (1, "1", 2)]
        assert [call.receive(WAIT_S)["result"]["text"] for call in calls] == ["one", "text one", "two"]
        assert result(link, 3) == "next"
        assert strays == []


def test_a_late_answer_is_dropped_T211() -> None:
    code = """
late = hear()["id"]
cancelled = hear()
assert cancelled["method"] == "notifications/cancelled" and cancelled["params"]["requestId"] == late
answer(late, "late")
answer(hear()["id"], "in time")
forever()
"""
    with server(code) as link:
        call = link.start(request(1), {}, 5)
        with pytest.raises(Timeout):
            call.receive(0.1)
        with pytest.raises(Timeout):
            call.receive(0)
        call.close()
        link.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}, {}, 5)
        assert result(link, 2) == "in time"
        with pytest.raises(Timeout):
            call.receive(0)


# T202, T203, T205, T237, T239: too much, or nothing at all.


def test_standard_error_is_drained_whoever_reads_it_T202() -> None:
    code = "id = hear()['id']; sys.stderr.write('e' * 99 + '\\n'); os.write(2, b'x' * 1_000_000); answer(id); forever()"
    heard: list[str] = []
    with server(code, stderr=heard.append) as link:
        assert result(link) == "ok"
    assert soon(lambda: sum(map(len, heard)) == 1_000_099)
    assert max(map(len, heard)) < 200_000


def test_a_failing_reader_of_standard_error_stops_nothing_T202(caplog: pytest.LogCaptureFixture) -> None:
    def fail(line: str) -> None:
        raise RuntimeError("full")

    code = "id = hear()['id']\nfor n in range(30000): os.write(2, b'0123456789\\n')\nanswer(id); sys.exit(5)"
    with server(code, stderr=fail) as link:
        assert result(link) == "ok"
        with pytest.raises(ConnectionLost, match="code 5.*\n0123456789\n0123456789"):
            result(link, 2)
    assert caplog.text.count("RuntimeError: full") == 1


def test_a_server_that_never_reads_keeps_nobody_longer_than_he_waits_T203() -> None:
    with server("forever()") as link:
        began = time.monotonic()
        with pytest.raises(Timeout, match="did not read in time") as caught:
            link.start(request(1, text="x" * 10_000_000), {}, 0.2)
        # A part of it was sent, so the server may run it yet.
        assert caught.value.retry == "idempotent"
        failed: list[Any] = []

        def wait(send: Any) -> None:
            try:
                send({"jsonrpc": "2.0", "id": 2, "method": "x"}, {}, 0.2)
            except Timeout as error:
                failed.append(error.retry)

        others = [threading.Thread(target=wait, args=(send,)) for send in (link.start, link.send) * 4]
        for thread in others:
            thread.start()
        for thread in others:
            thread.join(WAIT_S)
        # Nothing of these was.
        assert failed == ["always"] * 8
        with pytest.raises(Timeout):
            link.send({"jsonrpc": "2.0", "method": "notifications/x"}, {}, 0)
        link.close()
        assert time.monotonic() - began < 15


def test_what_waits_for_a_server_that_does_not_read_is_bounded_T203() -> None:
    script = """
import resource
with server("forever()") as link:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    retries = []
    for id in range(300):
        try:
            link.start(request(id, text="x" * 1_000_000), {}, 0)
        except Timeout as error:
            retries.append(error.retry)
    print(retries == ["idempotent"] + ["always"] * 299)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024 < 30)
"""
    assert run(script) == ["True", "True"]


@pytest.mark.parametrize("keeper", [False, True], ids=["", "a-grandchild-keeps-the-input"])
def test_closing_frees_a_caller_that_waits_for_a_server_to_read_T203(keeper: bool) -> None:
    code = "'sleep', '120'], start_new_session=True).pid" if keeper else "'true']).wait()"
    up = threading.Event()
    pids: list[int] = []

    def note(message: Any) -> None:
        pids.append(message["params"]["pid"])
        up.set()

    code = f"say({{'method': 'up', 'params': {{'pid': subprocess.Popen([{code}}}}}); forever()"
    with server(code, on_message=note) as link:
        assert up.wait(WAIT_S)
        failed: list[Any] = []

        def wait() -> None:
            try:
                link.start(request(1, text="x" * 1_000_000), {}, None)
            except ConnectionLost as error:
                failed.append(error.message)

        waiting = threading.Thread(target=wait)
        waiting.start()
        connection = link._connection
        assert connection is not None and soon(lambda: connection._child._unsent)
        waiting.join(0.2)
        assert waiting.is_alive()
        began = time.monotonic()
        link.close()
        waiting.join(20)
        if keeper:
            os.kill(pids[0], signal.SIGKILL)
        assert failed == ["The connection was closed"]
        assert time.monotonic() - began < 15


def test_a_server_that_dies_frees_a_caller_that_waits_for_it_to_read_T203() -> None:
    with server("time.sleep(0.3); sys.exit(8)") as link:
        with pytest.raises(ConnectionLost, match="exited with code 8"):
            link.start(request(1, text="x" * 1_000_000), {}, None)


def test_a_server_that_reads_at_last_gets_every_line_whole_and_in_order_T203() -> None:
    code = """
time.sleep(0.2)
for number in range(300):
    message = hear()
    assert message["id"] == number and set(message["params"]["text"]) <= {"x"}
    answer(number, str(len(message["params"]["text"])))
forever()
"""
    sizes = [10, 4000, 5000, 70_000, 200_000, 0] * 50
    with server(code) as link:
        calls = [link.start(request(id, text="x" * size), {}, WAIT_S) for id, size in enumerate(sizes)]
        assert [int(call.receive(WAIT_S)["result"]["text"]) for call in calls] == sizes


def test_a_line_beyond_the_limit_ends_the_connection_T205() -> None:
    code = "hear()\ntry:\n    while True: os.write(1, b'x' * 50000)\nexcept OSError: pass"
    with server(code, line_bytes=1_000_000) as link:
        lost: list[ClientError] = []
        link.on_lost = lost.append
        with pytest.raises(ProtocolError, match="a line of more than 1000000 bytes"):
            result(link)
        with pytest.raises(ProtocolError, match="a line of more than 1000000 bytes"):
            result(link, 2)
        assert soon(lambda: lost)
    assert len(lost) == 1


@pytest.mark.parametrize("size", [1_000_000, 1_000_001])
def test_the_limit_holds_for_a_line_that_ends_T205(size: int) -> None:
    frame = len('{"jsonrpc": "2.0", "id": 1, "result": {"text": ""}}')
    code = f"answer(hear()['id'], 'x' * {size - frame}); forever()"
    with server(code, line_bytes=1_000_000) as link:
        if size > 1_000_000:
            with pytest.raises(ProtocolError):
                result(link)
        else:
            assert set(result(link)) == {"x"}


def test_an_endless_line_takes_bounded_memory_T205() -> None:
    script = """
import resource
code = "hear()\\ntry:\\n    while True: os.write(1, b'x' * 65536)\\nexcept OSError: pass"
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with server(code) as link:
    try:
        result(link)
    except ProtocolError as error:
        print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024 < 150)
"""
    assert run(script)[:2] == ["The server sent a line of more than 67108864 bytes", "True"]


def test_a_flood_of_notifications_is_bounded_and_the_call_still_ends_T239() -> None:
    code = """
id = hear()["id"]
line = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}\\n'
stray = b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}\\n'
sys.stdout.buffer.write((line + stray) * 30000); sys.stdout.flush()
answer(1)
answer(hear()["id"], "after")
forever()
"""
    with server(code) as link:
        strays: list[Any] = []
        link.on_message = strays.append
        call = link.start(request(1), {}, 5)
        # Answered after the flood, which nobody takes meanwhile.
        assert result(link, 2) == "after"
        came = [call.receive(0)]
        while "method" in came[-1]:
            came.append(call.receive(0))
        assert len(came) <= 1001
        assert came[-1]["result"]["text"] == "ok"
        assert len(strays) == 30000


FLOODS = {
    "notifications/tools/list_changed": "{}",
    "notifications/message": '{"level":"info","data":"x"}',
}


@pytest.mark.parametrize("method", FLOODS)
def test_an_endless_flood_does_not_stop_the_clock_T239(method: str) -> None:
    code = f"""
hear()
line = b'{{"jsonrpc":"2.0","method":"{method}","params":{FLOODS[method]}}}\\n' * 100
while True: sys.stdout.buffer.write(line); sys.stdout.buffer.flush()
"""
    with server(code) as link:
        call = link.start(request(1), {}, 5)
        began = time.monotonic()
        with pytest.raises(Timeout):
            # A log message is for the only call; others are for none.
            while time.monotonic() - began < 0.3:
                call.receive(0.3)
            raise Timeout("much was said, and no answer")
        assert time.monotonic() - began < 15


def test_a_flood_for_another_call_does_not_keep_a_caller_T239() -> None:
    code = """
hear(); hear()
line = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}\\n' * 100
while True: sys.stdout.buffer.write(line); sys.stdout.buffer.flush()
"""
    with server(code) as link:
        link.start(request(1), {}, 5)
        with pytest.raises(Timeout):
            link.start(request(2), {}, 5).receive(0.3)


def test_a_huge_answer_arrives_whole_T237() -> None:
    with server("answer(hear()['id'], 'x' * 20_000_000); forever()") as link:
        assert len(result(link)) == 20_000_000


# T204, T207, T208, T209: the end.


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_server_that_dies_fails_every_call_T204(number: int) -> None:
    pid: list[int] = []
    lost: list[ClientError] = []
    told = threading.Event()

    def note(message: Any) -> None:
        pid.append(message["params"]["pid"])
        told.set()

    code = "say({'method': 'n', 'params': {'pid': os.getpid()}}); forever()"
    with server(code, on_message=note, on_lost=lost.append) as link:
        calls = [link.start(request(id), {}, 5) for id in range(20)]
        errors: list[Any] = []

        def wait(call: Any) -> None:
            try:
                call.receive(WAIT_S)
            except ConnectionLost as error:
                errors.append(error)

        waiting = [threading.Thread(target=wait, args=(call,)) for call in calls]
        for thread in waiting:
            thread.start()
        assert told.wait(WAIT_S)
        began = time.monotonic()
        os.kill(pid[0], number)
        for thread in waiting:
            thread.join(WAIT_S)
        assert time.monotonic() - began < WAIT_S / 2
        assert len(errors) == 20
        assert {error.retry for error in errors} == {"idempotent"}
        assert f"was ended by {signal.Signals(number).name}" in str(errors[0])
        assert soon(lambda: lost)
    assert len(lost) == 1


def test_a_server_that_dies_while_nobody_waits_is_noticed_T204() -> None:
    told = threading.Event()
    with server("answer(hear()['id']); time.sleep(0.2); sys.exit(9)") as link:
        link.on_lost = lambda error: told.set() if "exited with code 9" in str(error) else None
        assert result(link) == "ok"
        assert told.wait(WAIT_S)


def test_the_last_answer_of_a_server_that_exits_counts_T204() -> None:
    for _ in range(10):
        with server("id = hear()['id']; os.write(1, b'x' * 60000 + b'\\n'); answer(id); os._exit(0)") as link:
            assert result(link) == "ok"


@pytest.mark.parametrize("ending", ["os.close(1); forever()", "os.close(1); os.close(2); time.sleep(0.1)"])
def test_a_server_that_closes_its_output_is_lost_T204(ending: str) -> None:
    with server(f"hear(); {ending}") as link, pytest.raises(ConnectionLost, match="closed its standard|exited with"):
        result(link)


def test_a_server_that_closes_its_input_gets_nothing_more_T204() -> None:
    with server("answer(hear()['id']); os.close(0); answer(1); forever()") as link:
        assert result(link) == "ok"
        told = threading.Event()
        link.on_message = lambda message: told.set()
        until = time.monotonic() + WAIT_S
        with pytest.raises(ConnectionLost, match="has closed its standard input") as caught:
            for id in itertools.count(2):
                link.start(request(id), {}, 5)
                told.wait(0.02)
                assert time.monotonic() < until
        assert caught.value.retry == "always"


def test_what_is_above_the_link_cannot_end_the_reading_T204(caplog: pytest.LogCaptureFixture) -> None:
    def fail(*args: Any) -> None:
        raise RuntimeError("above")

    code = "id = hear()['id']; say({'method': 'n'}); answer(id); answer(hear()['id'], 'two'); sys.exit(1)"
    with server(code) as link:
        link.on_message = link.on_lost = fail
        assert result(link) == "ok"
        link.record = lambda direction, message: fail() if direction == "received" else None
        assert result(link, 2) == "two"
        with pytest.raises(ConnectionLost, match="code 1"):
            result(link, 3)


def test_a_reader_that_breaks_fails_every_call_T204(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> Any:
        raise MemoryError("no room")

    with server("id = hear()['id']; answer(id); forever()") as link:
        monkeypatch.setattr("minimcp.protocol.wire.loads", broken)
        with pytest.raises(ConnectionLost, match="MemoryError"):
            result(link)


STUBBORN = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", '''
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
last = subprocess.Popen(["sleep", "60"], preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN))
print(last.pid, flush=True)
time.sleep(60)
'''], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
pids = [os.getpid(), child.pid, int(child.stdout.readline())]
id = hear()["id"]
say({"id": id, "result": {"text": pids}})
"""


@pytest.mark.parametrize("ending", ["forever()", "sys.stdin.read(); os._exit(0)"], ids=["stays", "leaves-the-others"])
def test_a_whole_stubborn_group_is_ended_T207(ending: str) -> None:
    with server(STUBBORN + ending) as link:
        pids = result(link)
        assert len(pids) == 3 and all(map(alive, pids))
        began = time.monotonic()
        link.close()
        assert time.monotonic() - began < 15
        assert gone(*pids)


def test_each_step_of_the_end_gets_its_time_T207() -> None:
    code = """
def leave(*_):
    say({"method": "terminated"}); sys.exit(0)
signal.signal(signal.SIGTERM, leave)
answer(hear()["id"])
sys.stdin.read()
say({"method": "input ended"})
forever()
"""
    heard: list[str] = []
    with server(code, patience_s=3) as link:
        link.on_message = lambda message: heard.append(message["method"])
        assert result(link) == "ok"
        link.close()
        assert soon(lambda: len(heard) == 2)
    assert heard == ["input ended", "terminated"]


def test_a_server_that_leaves_at_the_end_of_input_is_not_hurried_T207() -> None:
    with server(
        "answer(hear()['id']); sys.stdin.read(); time.sleep(0.3); say({'method': 'done'})", patience_s=60
    ) as link:
        heard: list[str] = []
        link.on_message = lambda message: heard.append(message["method"])
        assert result(link) == "ok"
        child = link._connection._child
        link.close()
        assert child._process.returncode == 0
        assert soon(lambda: heard) and heard == ["done"]


DAEMON = """
daemon = subprocess.Popen(["sleep", "120"], start_new_session=True)
say({"id": hear()["id"], "result": {"text": daemon.pid}})
"""


@pytest.mark.parametrize("ending", ["os._exit(6)", "sys.stdin.read()"], ids=["dies", "is-closed"])
def test_a_grandchild_that_keeps_the_pipes_open_blocks_nobody_T208(ending: str) -> None:
    with server(DAEMON + ending) as link:
        pid = result(link)
        try:
            began = time.monotonic()
            if "6" in ending:
                with pytest.raises(ConnectionLost, match="exited with code 6"):
                    result(link, 2)
            link.close()
            assert time.monotonic() - began < 15
        finally:
            os.kill(pid, signal.SIGKILL)


def test_many_links_leave_nothing_T209() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    for cycle in range(200):
        if cycle == 5:
            before = descriptors(), threading.active_count()
        link = StdioTransport(["cat"] if cycle % 4 else ["/nowhere"], patience_s=2)
        try:
            link.open(5)
            with pytest.raises(Timeout):
                link.start(request(cycle), {}, 5).receive(0)
        except ConnectionLost:
            assert cycle % 4 == 0
        link.close()
        if cycle % 8 == 1:
            link.open(5)
            link.close()
    assert soon(lambda: descriptors() <= before[0])
    assert soon(lambda: threading.active_count() <= before[1])


# T210, T212, T213: the process around the client.


def test_a_server_inherits_no_descriptor_and_no_secret_T210(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_TOKEN", "secret")
    monkeypatch.setenv("LC_TEST", "() { :; }; echo gotcha")
    monkeypatch.setenv("LC_NUMERIC", "C")
    code = """
id = hear()["id"]
# The last descriptor is the one that lists them.
descriptors = sorted(map(int, os.listdir("/proc/self/fd")))[:-1]
answer(id, [descriptors, dict(os.environ), os.getsid(0) == os.getpid()])
"""
    keep = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(keep, True)
    try:
        with server(code, env={"GIVEN": "yes"}) as link:
            descriptors, environ, leads = result(link)
    finally:
        os.close(keep)
    assert descriptors == [0, 1, 2]
    assert environ["GIVEN"] == "yes"
    assert environ["LC_NUMERIC"] == "C"
    assert "PATH" in environ
    assert not {"MY_API_TOKEN", "LC_TEST", "PYTEST_CURRENT_TEST"} & environ.keys()
    assert leads


FORKING = """
import gc, warnings
from minimcp.client.errors import UsedAfterFork
warnings.simplefilter("ignore")
code = "for line in sys.stdin: answer(json.loads(line)['id'], str(os.getpid()))"

def in_child(function):
    print(end="", flush=True)
    pid = os.fork()
    if pid == 0:
        try:
            function()
            sys.stdout.flush()
            os._exit(0)
        except BaseException as error:
            print("in the child:", repr(error), flush=True)
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
"""


def test_a_forked_process_cannot_use_or_harm_its_parents_server_T210() -> None:
    script = (
        FORKING
        + """
with server(code) as link:
    server_pid = result(link, 1)
    waiting = link.start(request(2), {}, 5)

    def use():
        for use in (lambda: link.start(request(3), {}, 5), lambda: link.send(request(3), {}, 5), lambda: link.open(5),
                    lambda: waiting.receive(20)):
            try:
                use()
                print("used")
            except UsedAfterFork as error:
                print(error.retry)
        waiting.close()
        link.close()
        # Closed, it is anyone's: a server of our own.
        link.open(5)
        print(result(link, 4) != server_pid)
        link.close()

    def drop():
        global link, waiting
        del link, waiting
        gc.collect()

    in_child(use)
    in_child(drop)
    in_child(lambda: os.kill(os.getppid(), 0))
    print(waiting.receive(20)["result"]["text"] == server_pid)
    print(result(link, 5) == server_pid)
"""
    )
    assert run(script) == ["always"] * 4 + ["True"] * 3


def test_a_forked_process_does_not_keep_the_servers_input_open_T210() -> None:
    script = (
        FORKING
        + """
import multiprocessing
with server(code, patience_s=60) as link:
    result(link, 1)
    other = multiprocessing.get_context("fork").Process(target=time.sleep, args=(120,))
    other.start()
    began = time.monotonic()
    child = link._connection._child
    link.close()
    print(child._process.returncode, time.monotonic() - began < 40)
    other.kill()
    other.join()
"""
    )
    assert run(script) == ["0 True"]


def test_a_link_opened_by_nobody_can_be_used_by_a_forked_process_T210() -> None:
    script = (
        FORKING
        + """
link = StdioTransport([sys.executable, "-c", PRELUDE + code])
def use():
    link.open(5)
    print(result(link, 1).isdigit())
    link.close()
in_child(use)
"""
    )
    assert run(script) == ["True"]


@pytest.mark.parametrize(
    "ending",
    [
        "",
        "raise KeyboardInterrupt",
        "os.kill(os.getpid(), signal.SIGINT); time.sleep(5)",
        "signal.signal(signal.SIGALRM, signal.default_int_handler); signal.alarm(1); result(link, 3)",
        "sys.exit(3)",
        "threading.Thread(target=lambda: result(link, 9, 0.2), daemon=True).start()",
    ],
)
def test_the_end_of_the_interpreter_ends_the_server_T212(ending: str) -> None:
    script = f"""
code = "signal.signal(signal.SIGTERM, signal.SIG_IGN); answer(hear()['id'], os.getpid()); forever()"
link = StdioTransport([sys.executable, "-c", PRELUDE + code], patience_s=0.2)
link.open(5)
print(result(link), flush=True)
{ending}
"""
    said = run(script)
    assert gone(int(said[0]))
    assert "ignored" not in said[-1]


def test_an_impatient_end_of_the_interpreter_kills_the_server_T212() -> None:
    script = """
code = "signal.signal(signal.SIGTERM, signal.SIG_IGN); answer(hear()['id'], os.getpid()); forever()"
link = StdioTransport([sys.executable, "-c", PRELUDE + code], patience_s=60)
link.open(5)
print(result(link), flush=True)
signal.signal(signal.SIGALRM, signal.default_int_handler)
# The first one may come before the end has begun.
signal.setitimer(signal.ITIMER_REAL, 0.3, 3)
"""
    assert gone(int(run(script)[0]))


@pytest.mark.parametrize("stubborn", ["", "signal.signal(signal.SIGTERM, signal.SIG_IGN); "], ids=["", "stubborn"])
def test_a_link_that_nobody_holds_ends_its_server_T212(stubborn: str) -> None:
    code = stubborn + "answer(hear()['id'], os.getpid()); forever()"
    link = StdioTransport([sys.executable, "-c", PRELUDE + code], patience_s=0.2)
    link.open(5)
    pid = result(link)
    del link
    assert gone(pid)


def test_a_link_in_a_cycle_is_collected_while_its_own_locks_are_held_T212() -> None:
    script = """
import gc
gc.disable()
link = StdioTransport([sys.executable, "-c", PRELUDE + "answer(hear()['id'], os.getpid()); forever()"], patience_s=0.2)
link.open(5)
pid = result(link)
link.on_lost = lambda error, link=link: None
connection = link._connection
child = connection._child
locks = [connection._lost_lock, connection._pending._lock, child._input_lock, child._sweeping]
locks.append(threading._active_limbo_lock)
for lock in locks:
    lock.acquire()
del link
gc.collect()
print("collected", flush=True)
for lock in locks:
    lock.release()
print(gone(pid))
"""
    assert run(script) == ["collected", "True"]


def test_a_link_dropped_where_no_thread_is_free_ends_its_server_T218(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise RuntimeError("can't start new thread")

    link = StdioTransport([sys.executable, "-c", PRELUDE + "answer(hear()['id'], os.getpid()); forever()"])
    link.open(5)
    pid = result(link)
    monkeypatch.setattr("minimcp.client.transports.process._thread.start_new_thread", refuse)
    del link
    assert gone(pid)


def test_what_a_server_asks_goes_to_on_message_and_answers_pass_T213() -> None:
    code = """
id = hear()["id"]
say({"id": id, "method": "sampling/createMessage", "params": {}})
say({"id": "p", "method": "ping"})
say({"method": "notifications/unknown", "params": {}})
say({"id": "r", "method": "roots/list"})
answers = [hear() for _ in range(3)]
answer(id, [answer["id"] for answer in answers])
forever()
"""
    with server(code) as link:
        heard: list[Any] = []

        def note(message: Any) -> None:
            heard.append(message["method"])
            if "id" in message:
                link.send({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "no"}}, {}, 5)

        link.on_message = note
        assert result(link) == [1, "p", "r"]
        assert heard == ["sampling/createMessage", "ping", "notifications/unknown", "roots/list"]


def test_every_thread_that_cannot_be_started_leaves_nothing_T218(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start
    for last in range(3):
        started = []

        def refuse(thread: threading.Thread, last: int = last, started: Any = started) -> None:
            if thread.name.startswith("minimcp-stdio"):
                if len(started) == last:
                    raise RuntimeError("can't start new thread")
                started.append(thread)
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(ConnectionLost, match="can't start new thread"), server("forever()"):
            pass


def test_a_message_whose_time_is_up_halfway_is_completed_by_the_next_T203() -> None:
    code = """
told = []
signal.signal(signal.SIGUSR1, lambda *_: told.append(1))
answer(hear()["id"], os.getpid())
while not told:
    time.sleep(0.01)
for id, size in ((1, 1_000_000), (3, 10), (4, 300_000)):
    message = hear()
    assert message["id"] == id and message["params"]["text"] == str(id) * size, str(message)[:200]
answer(1, "too late"); answer(3, "three"); answer(4, "four")
forever()
"""
    with server(code) as link:
        pid = result(link, 0)
        with pytest.raises(Timeout) as caught:
            link.start(request(1, text="1" * 1_000_000), {}, 0.1)
        assert caught.value.retry == "idempotent"
        with pytest.raises(Timeout) as caught:
            link.start(request(2, text="never sent"), {}, 0.1)
        assert caught.value.retry == "always"
        os.kill(pid, signal.SIGUSR1)
        calls = [link.start(request(id, text=str(id) * size), {}, 5) for id, size in ((3, 10), (4, 300_000))]
        assert [call.receive(WAIT_S)["result"]["text"] for call in calls] == ["three", "four"]


def test_a_caller_whose_message_another_completes_does_not_wait_for_that_others_T203() -> None:
    with server("forever()") as link:
        child = link._connection._child
        first, second = b"1" * 300_000 + b"\n", b"2" * 300_000 + b"\n"
        pipe = os.open(f"/proc/{child._process.pid}/fd/0", os.O_RDONLY | os.O_NONBLOCK)

        def meanwhile(timeout_s: float) -> None:
            """Read the first message in place of the server, and begin the second as another thread would."""
            del child._wait_for_room
            retry = "always"
            while retry == "always":
                while select.select([pipe], [], [], 0)[0]:
                    os.read(pipe, 65536)
                with pytest.raises(Timeout) as caught:
                    child.write(second, 0)
                retry = caught.value.retry

        child._wait_for_room = meanwhile
        try:
            child.write(first, 30)
        finally:
            os.close(pipe)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer signals here")
def test_a_message_that_is_interrupted_halfway_is_completed_by_the_next_T203() -> None:
    code = """
told = []
signal.signal(signal.SIGUSR1, lambda *_: told.append(1))
answer(hear()["id"], os.getpid())
while not told:
    time.sleep(0.01)
assert len(hear()["params"]["text"]) == 1_000_000
answer(hear()["id"])
forever()
"""
    with server(code) as link:
        pid = result(link, 0)
        child, interrupted = link._connection._child, []

        def interrupt(*_: Any) -> None:
            # Not before the message is begun, however late that is.
            if child._unsent and not interrupted:
                interrupted.append(True)
                raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            with pytest.raises(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
                link.start(request(1, text="x" * 1_000_000), {}, None)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        os.kill(pid, signal.SIGUSR1)
        assert result(link, 2) == "ok"


def test_threads_that_wait_for_room_together_mix_no_lines_T203() -> None:
    code = """
for line in sys.stdin:
    message = json.loads(line)
    answer(message["id"], [len(message["params"]["text"]), message["params"]["text"][:1] or "-"])
"""
    with server(code) as link:
        wrong: list[Any] = []

        def work(number: int) -> None:
            letter = "abcdefgh"[number]
            for step in range(20):
                size = (step * 37_813) % 300_000 + 1
                call = link.start(request(number * 100 + step, text=letter * size), {}, WAIT_S)
                if call.receive(WAIT_S)["result"]["text"] != [size, letter]:
                    wrong.append((number, step))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        assert not any(thread.is_alive() for thread in threads)
        assert wrong == []


@pytest.mark.skipif(sys.version_info < (3, 13), reason="subprocess itself lost descriptors then")
def test_without_free_descriptors_a_start_fails_clean_T216() -> None:
    script = """
import resource
def descriptors():
    return set(os.listdir("/proc/self/fd"))
link = StdioTransport(["cat"], patience_s=2)
link.open(5)
link.close()
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
before = descriptors()
seen = set()
for more in range(16):
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(before) + more, hard))
    try:
        link.open(5)
        seen.add("opened")
    except ConnectionLost as error:
        seen.add((error.retry, "Too many open files" in str(error)))
    link.close()
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
print(sorted(seen, key=str))
soon(lambda: descriptors() == before and threading.active_count() == 1)
print(descriptors() == before, threading.active_count())
"""
    assert run(script) == ["[('always', True), 'opened']", "True 1"]
