"""The stdio link of the client: a server as a child process, from its start to its end, by hand-made messages."""

from __future__ import annotations

import io
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from minimcp.client.errors import CallCancelled
from minimcp.client.transports import command, process, stdio
from minimcp.client.transports.process import end
from minimcp.client.transports.stdio import StdioTransport
from minimcp.client.transports.waiting import Mailbox
from minimcp.engines.errors import ClientError, ConnectionLost, ProtocolError, Timeout
from minimcp.protocol.lines import LineSplitter
from tests.helpers import modern

ROOT = Path(__file__).resolve().parent.parent
WAIT_S = 60

SERVER = """
import os, sys, threading, time
from minimcp import Context, Server
server = Server("s", "1")
go = threading.Event()

@server.tool
def add(a: int, b: int) -> int:
    return a + b

@server.tool
def echo(text: str) -> str:
    return text

@server.tool
def steps(count: int, ctx: Context) -> str:
    for step in range(count):
        ctx.progress(step + 1, count)
    return "done"

@server.tool
def slow(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"

@server.tool
def hold() -> str:
    go.wait(60)
    return "held"

@server.tool
def release() -> str:
    go.set()
    return "released"

@server.tool
def leave(code: int) -> str:
    os._exit(code)

@server.tool
def about() -> dict:
    return {"pid": os.getpid(), "cwd": os.getcwd(), "env": dict(os.environ)}
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("stdio") / "server.py"
    path.write_text(SERVER)
    return str(path)


def unopened(file: str, **options: Any) -> StdioTransport:
    env = {"PYTHONPATH": str(ROOT), **options.pop("env", {})}
    options.setdefault("patience_s", WAIT_S)
    return StdioTransport([sys.executable, "-m", "minimcp", "run", file], env, **options)


@contextmanager
def opened(file: str, **options: Any) -> Iterator[StdioTransport]:
    link = unopened(file, **options)
    link.open(5)
    try:
        yield link
    finally:
        link.close()


def call(link: StdioTransport, tool: str, id: Any = 1, timeout_s: float = WAIT_S, **arguments: Any) -> Any:
    """Call a tool and return its value."""
    exchange = link.start(modern("tools/call", id, name=tool, arguments=arguments), {}, timeout_s)
    try:
        result = exchange.receive(timeout_s)["result"]
    finally:
        exchange.close()
    return result["structuredContent"] if "structuredContent" in result else result["content"][0]["text"]


def test_a_server_is_started_called_and_ended(file: str) -> None:
    link = unopened(file)
    link.open(5)
    link.open(5)
    assert call(link, "add", 1, a=20, b=22) == 42
    child = link._connection._child  # type: ignore[union-attr]
    link.close()
    link.close()
    assert child._process.returncode == 0
    with pytest.raises(ConnectionLost, match="is not open") as caught:
        link.start(modern("tools/list"), {}, 5)
    assert caught.value.retry == "always"


def test_closing_fails_what_is_open_at_once(file: str) -> None:
    with opened(file) as link:
        exchange = link.start(modern("tools/call", 1, name="slow", arguments={"seconds": 0.5}), {}, WAIT_S)
        caught: list[Any] = []

        def wait() -> None:
            try:
                exchange.receive(WAIT_S)
            except ConnectionLost as error:
                caught.append(error.message)

        waiting = threading.Thread(target=wait)
        waiting.start()
        told: list[Any] = []
        link.on_lost = told.append
        link.close()
        waiting.join(WAIT_S)
        assert caught == ["The connection was closed"]
        assert told == []


def test_it_can_be_opened_again_after_closing_and_after_the_servers_end(file: str) -> None:
    with opened(file) as link:
        first = call(link, "about")["pid"]
        link.close()
        link.open(5)
        second = call(link, "about")["pid"]
        lost = threading.Event()
        link.on_lost = lambda error: lost.set()
        with pytest.raises(ConnectionLost, match="exited with code 7") as caught:
            call(link, "leave", 2, code=7)
        assert caught.value.retry == "idempotent"
        assert lost.wait(WAIT_S)
        link.open(5)
        assert len({first, second, call(link, "about")["pid"]}) == 3


def test_a_call_fails_once_the_loss_is_told(file: str) -> None:
    with opened(file) as link:
        told: list[Any] = []
        link.on_lost = lambda error: (threading.Event().wait(0.3), told.append(error))
        with pytest.raises(ConnectionLost, match="exited with code 7"):
            call(link, "leave", code=7)
        assert len(told) == 1


def test_the_loss_may_be_answered_by_closing_and_opening_in_the_callback(file: str) -> None:
    with opened(file) as link:
        again = threading.Event()

        def reopen(error: ClientError) -> None:
            link.close()
            link.open(5)
            again.set()

        link.on_lost = reopen
        with pytest.raises(ConnectionLost):
            call(link, "leave", code=7)
        assert again.wait(WAIT_S)
        assert call(link, "add", 2, a=1, b=2) == 3


def test_many_threads_share_a_link_and_close_it_together(file: str) -> None:
    with opened(file) as link:
        sums: list[Any] = []

        def work(number: int) -> None:
            for step in range(50):
                id = number * 100 + step
                sums.append(call(link, "add", id, a=id, b=1) == id + 1)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        assert sums == [True] * 400
        threads = [threading.Thread(target=link.close) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)


def test_threads_that_change_at_any_moment_lose_no_answer(file: str) -> None:
    before = sys.getswitchinterval()
    with opened(file) as link:
        failures: list[Any] = []

        def work(number: int) -> None:
            pick = random.Random(number)
            for step in range(100):
                id = number * 1000 + step
                exchange = link.start(modern("tools/call", id, name="add", arguments={"a": id, "b": 0}), {}, WAIT_S)
                if pick.random() < 0.1:
                    exchange.close()
                    continue
                threading.Event().wait(pick.choice([0, 0, 0, 0.001]))
                try:
                    failures.extend([id] * (exchange.receive(WAIT_S)["result"]["structuredContent"] != id))
                except ClientError as error:
                    failures.append(error)

        sys.setswitchinterval(1e-6)
        try:
            threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(WAIT_S)
        finally:
            sys.setswitchinterval(before)
        assert failures == []
        assert not any(thread.is_alive() for thread in threads)


def test_a_fast_call_passes_a_slow_one_and_both_get_theirs(file: str) -> None:
    with opened(file) as link:
        slow = link.start(modern("tools/call", "slow", name="hold", arguments={}), {}, WAIT_S)
        answers: list[Any] = []
        waiting = threading.Thread(target=lambda: answers.append(slow.receive(WAIT_S)))
        waiting.start()
        assert [call(link, "add", id, a=id, b=0) for id in range(1, 20)] == list(range(1, 20))
        assert answers == []
        assert call(link, "release", 20) == "released"
        waiting.join(WAIT_S)
        assert answers[0]["id"] == "slow"


def test_a_long_call_and_a_short_one_after_it_are_answered(file: str) -> None:
    with opened(file) as link:
        assert call(link, "slow", 1, seconds=0.3) == "slept"
        assert call(link, "slow", 2, seconds=0.0) == "slept"


def test_progress_goes_to_the_call_it_belongs_to_TRN_019(file: str) -> None:
    with opened(file) as link:
        exchanges = [
            link.start(
                modern("tools/call", id, meta={"progressToken": id}, name="steps", arguments={"count": count}),
                {},
                WAIT_S,
            )
            for id, count in ((1, 3), ("1", 5))
        ]
        for exchange, count in zip(exchanges, (3, 5)):
            came = [exchange.receive(WAIT_S)]
            while "method" in came[-1]:
                came.append(exchange.receive(WAIT_S))
            assert [message["params"]["progress"] for message in came[:-1]] == list(range(1, count + 1))


def test_a_call_can_be_ended_from_another_thread(file: str) -> None:
    with opened(file) as link:
        exchange = link.start(modern("tools/call", 1, name="hold", arguments={}), {}, WAIT_S)
        timer = threading.Timer(0.02, exchange.abort, [CallCancelled("enough")])
        timer.start()
        with pytest.raises(CallCancelled, match="enough"):
            exchange.receive(WAIT_S)
        timer.join()
        call(link, "release", 2)


def test_large_messages_pass_both_ways(file: str) -> None:
    text = "é" * 1_500_000
    with opened(file) as link:
        assert call(link, "echo", text=text) == text


def test_every_message_is_recorded(file: str) -> None:
    with opened(file) as link:
        seen: list[Any] = []
        link.record = lambda direction, message: seen.append((direction, message["id"]))
        call(link, "add", 5, a=1, b=1)
        assert seen == [("sent", 5), ("received", 5)]


def test_what_is_not_json_is_not_sent(file: str) -> None:
    with opened(file) as link:
        for bad in (float("nan"), {1, 2}, object()):
            with pytest.raises(ProtocolError, match="cannot be written as JSON"):
                call(link, "echo", text=bad)
        assert call(link, "add", 2, a=1, b=1) == 2


def test_line_breaks_in_a_message_never_break_the_line_TRN_011(file: str) -> None:
    with opened(file) as link:
        text = "a\nb\r\nc\u2028d\x85e\x00"
        assert call(link, "echo", text=text) == text


def test_the_directory_and_the_environment_are_given(file: str, tmp_path: Path) -> None:
    with opened(file, cwd=str(tmp_path), env={"WHO": "me", "HOME": "/elsewhere"}) as link:
        about = call(link, "about")
        assert os.path.realpath(about["cwd"]) == os.path.realpath(tmp_path)
        assert about["env"]["WHO"] == "me"
        assert about["env"]["HOME"] == "/elsewhere"


@pytest.mark.parametrize("kind", ["function", "file", "shown", "nothing"])
def test_standard_error_goes_where_it_is_told_TRN_015(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    text = io.StringIO()
    code = (
        "import sys; sys.stderr.write('one\\r\\n\\xe9\\n'); sys.stderr.buffer.write(b'\\xff\\nlast'); sys.stdin.read()"
    )
    sink: Any = {"function": lines.append, "file": text, "shown": None, "nothing": False}[kind]
    link = StdioTransport([sys.executable, "-c", code], {"PYTHONIOENCODING": "utf-8"}, stderr=sink, patience_s=WAIT_S)
    link.open(5)
    child = link._connection._child  # type: ignore[union-attr]
    link.close()
    child._drainer.join(WAIT_S)
    found = {"function": lines, "file": text.getvalue().splitlines()}.get(kind, capsys.readouterr().err.splitlines())
    assert found == ([] if kind == "nothing" else ["one", "é", "\ufffd", "last"])


def test_a_wait_that_is_interrupted_leaves_the_link_usable(file: str) -> None:
    if not hasattr(signal, "setitimer"):
        pytest.skip("no timer signals here")
    with opened(file) as link:
        before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            for id, moment in enumerate((0.01, 0.03, 0.1, 0.2)):
                exchange = link.start(modern("tools/call", id, name="hold", arguments={}), {}, WAIT_S)
                with pytest.raises(KeyboardInterrupt):
                    signal.setitimer(signal.ITIMER_REAL, moment)
                    exchange.receive(WAIT_S)
                exchange.close()
                assert call(link, "add", f"after {id}", a=1, b=1) == 2
            call(link, "release", "last")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def test_an_answer_that_an_interrupt_meets_is_not_lost(file: str) -> None:
    met = []

    def interrupt(direction: str, message: Any) -> None:
        if direction == "received" and threading.current_thread() is threading.main_thread() and not met:
            met.append(message["id"])
            raise KeyboardInterrupt

    with opened(file) as link:
        link.record = interrupt
        for id in range(100):
            exchange = link.start(modern("tools/call", id, name="add", arguments={"a": id, "b": 1}), {}, WAIT_S)
            try:
                assert exchange.receive(WAIT_S)["result"]["structuredContent"] == id + 1
            except KeyboardInterrupt:
                assert exchange.receive(WAIT_S)["result"]["structuredContent"] == id + 1
            exchange.close()
        assert met


LATE = """
import json, sys
for line in sys.stdin:
    print(json.dumps({"jsonrpc": "2.0", "id": json.loads(line)["id"], "result": {}}), flush=True)
    if json.loads(line)["method"] == "last":
        print(json.dumps({"jsonrpc": "2.0", "method": "notifications/late"}), flush=True)
"""


def test_a_notice_that_follows_the_last_answer_is_heard() -> None:
    heard: queue.Queue[Any] = queue.Queue()
    link = StdioTransport([sys.executable, "-c", LATE])
    link.on_message = heard.put
    link.open(5)
    try:
        for id, method in enumerate(["first"] * 20 + ["last"]):
            exchange = link.start({"jsonrpc": "2.0", "id": id, "method": method}, {}, WAIT_S)
            assert exchange.receive(WAIT_S)["id"] == id
            exchange.close()
        assert heard.get(timeout=WAIT_S)["method"] == "notifications/late"
    finally:
        link.close()


def test_a_wait_of_no_time_takes_only_what_is_there(file: str) -> None:
    with opened(file) as link:
        exchange = link.start(modern("tools/call", 1, name="hold", arguments={}), {}, WAIT_S)
        with pytest.raises(Timeout):
            exchange.receive(0)
        with pytest.raises(Timeout):
            exchange.receive(-1)
        call(link, "release", 2)
        assert exchange.receive(None)["id"] == 1


def test_several_servers_are_ended_together() -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('{}', flush=True); time.sleep(60)"
    links = [StdioTransport([sys.executable, "-c", code], patience_s=2) for _ in range(5)]
    try:
        for link in links:
            link.open(20)
        began = time.monotonic()
        end([link._connection._child for link in links])  # type: ignore[union-attr]
        # One alone takes 2 s twice.
        assert time.monotonic() - began < 4 * 4
    finally:
        for link in links:
            link.close()


@pytest.mark.parametrize("command", ["python server.py", [], [sys.executable, 1]])
def test_a_command_is_a_list_of_words(command: Any) -> None:
    with pytest.raises(ValueError, match="The command is a list"):
        StdioTransport(command)


def run(script: str) -> list[str]:
    """What a program of its own prints; it has `opened`, `call` and the path of a server."""
    head = """
import tempfile
from tests.test_client_stdio import *
file = tempfile.mkdtemp() + "/server.py"
Path(file).write_text(SERVER)
"""
    done = subprocess.run(
        [sys.executable, "-c", script.replace("# HEAD", head)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_it_works_where_the_standard_streams_are_no_files() -> None:
    script = """
# HEAD
out = sys.stdout
sys.stdin, sys.stdout, sys.stderr = io.StringIO(), io.StringIO(), io.StringIO()
with opened(file, stderr=sys.stderr) as link:
    print(call(link, "add", a=1, b=2), file=out)
"""
    assert run(script) == ["3"]


def test_it_works_inside_a_running_event_loop() -> None:
    script = """
# HEAD
import asyncio
async def cell():
    with opened(file) as link:
        print(call(link, "add", a=1, b=2))
asyncio.run(cell())
"""
    assert run(script) == ["3"]


def test_it_is_cooperative_under_gevent() -> None:
    pytest.importorskip("gevent")
    script = """
from gevent import monkey; monkey.patch_all()
import gevent
# HEAD
beats = []
def beat():
    while True:
        gevent.sleep(0.01)
        beats.append(1)
gevent.spawn(beat)
with opened(file) as link:
    print(call(link, "add", a=1, b=2))
    def release():
        before = len(beats)
        while len(beats) - before <= 10:
            gevent.sleep(0.01)
        call(link, "release", 3)
    releasing = gevent.spawn(release)
    print(call(link, "hold", 2))
    releasing.join()
    def work(number):
        return [call(link, "add", number * 100 + step, a=number, b=step) for step in range(20)]
    jobs = [gevent.spawn(work, number) for number in range(1, 9)]
    gevent.joinall(jobs, raise_error=True)
    print([job.value for job in jobs] == [[number + step for step in range(20)] for number in range(1, 9)])
    try:
        call(link, "leave", 3, code=4)
    except ConnectionLost as error:
        print("exited with code 4" in str(error))
link = StdioTransport([sys.executable, "-c", "import time; time.sleep(60)"], patience_s=0.2)
link.open(5)
before = len(beats)
try:
    link.start(modern("x", 1, text="x" * 1_000_000), {}, 2)
except Timeout:
    print("timeout", len(beats) - before > 5)
link.close()
unclosed = opened(file).__enter__()
"""
    assert run(script) == ["3", "held", "True", "True", "timeout True"]


# The pieces.


def test_lines_are_split_at_lf_alone_however_they_come() -> None:
    lines = [b'{"a":"\xc2\x85\xe2\x80\xa8\x0b\x0c\r"}', b"x" * 300, b"last"]
    data = b"\n".join([lines[0], b"", b" \t\r", lines[1], b"", lines[2]]) + b"\nrest"
    for seed in range(50):
        pick = random.Random(seed)
        splitter, found = LineSplitter(1000), []
        at = 0
        while at < len(data):
            size = pick.choice([1, 2, 7, 100, 1000])
            found += splitter.feed(data[at : at + size])
            at += size
        assert found == lines
        assert not splitter.too_long


@pytest.mark.parametrize("chunk", [1, 3, 10, 100])
def test_a_line_of_just_the_limit_is_taken_and_one_more_is_not(chunk: int) -> None:
    def feed(data: bytes) -> tuple[list[Any], bool]:
        splitter, found = LineSplitter(10), []
        for at in range(0, len(data), chunk):
            found += splitter.feed(data[at : at + chunk])
        return found, splitter.too_long

    assert feed(b"0123456789\n" * 3) == ([b"0123456789"] * 3, False)
    assert feed(b"0123456789") == ([], False)
    assert feed(b"01234567890") == ([], True)
    assert feed(b"0\n01234567890\n1\n") == ([b"0", None, b"1"], False)
    # The line after a long one is taken, however long that was, and in as many parts as it comes.
    splitter = LineSplitter(10)
    assert [splitter.feed(b"x" * 11), splitter.feed(b"\n01234"), splitter.feed(b"56789"), splitter.feed(b"\n")] == [
        *([], [None], [], [b"0123456789"])
    ]
    for length in range(11, 35):
        assert feed(b"x" * length + b"\n0123456789\n") == ([None, b"0123456789"], False)
        assert feed(b" " * length + b"\n") == ([None], False)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["npx", "-y", "@scope/server"], "npx -y @scope/server"),
        (["s", "--api-key", "abc", "x"], "s --api-key ... x"),
        (["s", "--token=abc", "API_KEY=abc"], "s --token=... API_KEY=..."),
        (["s", "--header", "Authorization: Bearer abc"], "s --header Authorization:..."),
        (["s", "--header", "X: Bearer abc"], "s --header 'X: Bearer ...'"),
        (["s", "https://host/x?a=b&api_key=abc"], "s 'https://host/x?a=b&api_key=...'"),
        (["s", "https://user:abc@host/x"], "s https://...@host/x"),
        (["python", "-c", "a\nb"], "python -c 'a b'"),
        (["x" * 500], "x" * 197 + "..."),
    ],
)
def test_a_command_is_shown_without_its_secrets(words: list[str], shown: str) -> None:
    assert command.shown(words) == shown


def test_only_harmless_variables_are_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        monkeypatch.delenv(name)
    inherited = {"PATH": "/bin", "HOME": "/h", "LANG": "C", "LC_ALL": "C", "XDG_RUNTIME_DIR": "/r", "TMPDIR": "/t"}
    others = {"AWS_SECRET_ACCESS_KEY": "x", "PYTHONPATH": "x", "LD_PRELOAD": "x", "USER": "() { :; }", "path": "x"}
    for name, value in {**inherited, **others}.items():
        monkeypatch.setenv(name, value)
    if os.name == "posix":
        assert command.environment(None) == inherited
        assert command.environment({"HOME": "/o", "A": "b"}) == {**inherited, "HOME": "/o", "A": "b"}


def test_a_program_is_found_on_the_path_of_the_child_and_beside_its_directory(tmp_path: Path) -> None:
    for name in ("tool", "tool.cmd"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    env = {"PATH": str(tmp_path)}
    assert command.find(["tool", "a"], env, None) == [str(tmp_path / "tool"), "a"]
    assert command.find(["./tool"], {"PATH": ""}, str(tmp_path)) == [str(tmp_path / "tool")]
    with pytest.raises(ConnectionLost, match="'tool' was not found on the PATH"):
        command.find(["tool"], {"PATH": "/nowhere"}, str(tmp_path))


@pytest.mark.parametrize("argument", ["a&b", "%PATH%", 'a"b', "a|b", "a^b", "a>b", "a\nb"])
def test_a_batch_file_gets_nothing_that_its_shell_would_run(tmp_path: Path, argument: str) -> None:
    (tmp_path / "npx.cmd").write_text("")
    (tmp_path / "npx.cmd").chmod(0o755)
    assert command.find(["npx.cmd", "-y", "@scope/server"], {"PATH": str(tmp_path)}, None)[1:] == [
        "-y",
        "@scope/server",
    ]
    with pytest.raises(ConnectionLost, match="is a batch file"):
        command.find(["npx.cmd", argument], {"PATH": str(tmp_path)}, None)


def test_a_mailbox_never_waits_longer_than_it_was_told() -> None:
    box = Mailbox()
    for _ in range(3):
        # What SimpleQueue does not survive up to 3.12: it was filled, emptied, and there is no time.
        box.put(1)
        assert box.get(0) == 1
        for timeout_s in (0, 1e-9, -1, 0.01):
            with pytest.raises(queue.Empty):
                box.get(timeout_s)


def test_a_mailbox_gives_each_thing_to_one_of_those_who_wait() -> None:
    box, taken = Mailbox(), []
    threads = [threading.Thread(target=lambda: taken.append(box.get(WAIT_S))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for number in range(8):
        box.put(number)
    for thread in threads:
        thread.join(WAIT_S)
    assert sorted(taken) == list(range(8)) and len(box) == 0


LAST_WORDS = """
import os, sys
sys.stdin.readline()
os.write(1, b'{"jsonrpc":"2.0","id":1,"result":{"last":"word"}}' + bytes([10]))
os.write(2, b"the end" + bytes([10]))
os._exit(7)
"""


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="this system has no waitid")
@pytest.mark.parametrize("names", [("read", "read_into"), ("_drain",), ("_wait",)], ids=lambda names: names[0])
def test_last_words_of_a_server_count_though_a_thread_is_behind(names: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a busy machine: a thread of ours goes on only long after the process has ended."""

    def behind(real: Any) -> Any:
        def late(child: Any, *given: Any) -> Any:
            with suppress(ChildProcessError):
                os.waitid(os.P_PID, child._process.pid, os.WEXITED | os.WNOWAIT)
            threading.Event().wait(0.3)
            return real(child, *given)

        return late

    monkeypatch.setattr(stdio, "_DRAIN_S", 0.02)
    monkeypatch.setattr(process, "_LAST_WORDS_S", 0.02)
    for name in names:
        monkeypatch.setattr(process.Child, name, behind(getattr(process.Child, name)))
    lines: list[str] = []
    told: queue.Queue[Any] = queue.Queue()
    link = StdioTransport([sys.executable, "-c", LAST_WORDS], stderr=lines.append)
    link.on_lost = told.put
    link.open(5)
    assert link.start(modern("ping"), {}, 5).receive(WAIT_S)["result"] == {"last": "word"}
    error = str(told.get(timeout=WAIT_S))
    link.close()
    assert "exited with code 7" in error and error.endswith("the end") and lines == ["the end"]
