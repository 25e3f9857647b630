"""T188 to T192, T198 and T199: how a stdio server starts, what it survives, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import modern
from tests.hostile.child import SERVER, Child, text

ADD = modern("tools/call", 1, name="add", arguments={"a": 20, "b": 22})


@pytest.mark.parametrize("said", [b"", json.dumps(ADD).encode() + b"\n"], ids=["T188-at-once", "T188-after-a-call"])
def test_at_the_end_of_input_the_server_exits(said: bytes) -> None:
    with Child() as child:
        child.write(said)
        if said:
            assert text(child.answer(1)) == "42"
        assert child.end() == 0
        assert len(child.raw) == bool(said)


def test_a_last_line_without_its_end_is_not_executed_T188() -> None:
    with Child() as child:
        child.alive()
        child.write(json.dumps(ADD).encode())
        assert child.end() == 0
        assert len(child.raw) == 1


@pytest.mark.parametrize("name", ["hold", "linger"], ids=["T188-context", "T188-plain"])
def test_the_end_of_input_ends_the_server_even_while_a_handler_runs(name: str) -> None:
    with Child() as child:
        child.send(*(modern("tools/call", n, name=name, arguments={}) for n in range(3)))
        child.alive()
        assert child.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["T190-term", "T190-int"])
@pytest.mark.parametrize("busy", [None, "hold", "linger"], ids=["idle", "context", "plain"])
def test_a_signal_ends_the_server(number: int, busy: str | None) -> None:
    with Child() as child:
        child.alive()
        if busy:
            child.send(modern("tools/call", 1, name=busy, arguments={}))
            child.alive()
        child.signal(number)
        assert child.exited() == 0
        assert len(child.raw) == (2 if busy else 1)


@pytest.mark.parametrize("name", ["add", "large_apart", "steps"], ids=lambda name: f"T191-{name}")
def test_a_client_that_closes_its_end_is_given_up(tmp_path: Path, name: str) -> None:
    arguments = {"add": {"a": 1, "b": 2}, "large_apart": {"size": 10**6, "mark": "x"}, "steps": {"count": 10}}[name]
    reading, writing = os.pipe()
    with open(tmp_path / "errors", "wb") as errors, Child(stdout=writing, stderr=errors) as child:
        os.close(writing)
        child.send(ADD)
        os.read(reading, 1)
        os.close(reading)
        child.send(modern("tools/call", 2, meta={"progressToken": 1}, name=name, arguments=arguments))
        assert child.exited() == 0
    assert b"Traceback" not in (tmp_path / "errors").read_bytes()


def test_a_full_standard_error_stops_nothing_T192() -> None:
    with Child(stderr=subprocess.PIPE) as child:
        for number in range(3):
            assert text(child.tool("complain", f"c{number}", lines=1000)) == "complained"
        assert child.tool("fail", how="value")["result"]["isError"] is True
        child.alive()
        assert child.end() == 0


def test_a_closed_standard_error_stops_nothing_T192() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with Child(stderr=writing) as child:
        os.close(writing)
        assert text(child.tool("complain", lines=10)) == "complained"
        assert child.tool("fail", how="value")["result"]["isError"] is True
        child.alive()
        assert child.end() == 0


def test_without_a_standard_error_from_the_start_the_wire_stays_clean_T192(tmp_path: Path) -> None:
    launcher = tmp_path / "launch.py"
    launcher.write_text(
        "import os, sys\nos.close(2)\nos.execv(sys.executable, [sys.executable, '-m', 'minimcp', 'run', sys.argv[1]])\n"
    )
    with Child(command=[sys.executable, str(launcher), SERVER], stderr=None) as child:
        assert text(child.tool("prints", text="x\n")) == "printed"
        assert text(child.tool("complain", lines=10)) == "complained"
        child.alive()
        assert child.end() == 0


@pytest.mark.parametrize(
    "env, python",
    [
        ({"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, ()),
        ({"PYTHONIOENCODING": "ascii"}, ()),
        ({"PYTHONIOENCODING": "cp1252:strict"}, ()),
        ({}, ("-u",)),
        ({}, ("-O",)),
        ({}, ("-OO",)),
        ({}, ("-X", "dev")),
    ],
    ids=["T198-lang", "T198-ascii", "T198-cp1252", "T198-u", "T198-O", "T198-OO", "T198-dev"],
)
def test_the_wire_is_utf8_however_python_was_started(env: Any, python: Any) -> None:
    with Child(env=env, python=python) as child:
        assert text(child.tool("echo", text="\u00e9\u20ac\U0001f600")) == "\u00e9\u20ac\U0001f600"
        assert text(child.tool("prints", text="\u00e9\u20ac\U0001f600")) == "printed"
        child.write(b'{"jsonrpc":"2.0","id":1.5,"method":"x"}\n')
        assert child.next()["error"]["code"] == -32600
        child.send({**ADD, "params": {**ADD["params"], "arguments": {"a": "x", "b": 1}}})
        assert child.answer(1)["result"]["isError"] is True
        assert child.end() == 0


def test_quick_starts_and_stops_leave_nothing_T199(tmp_path: Path) -> None:
    """Twenty instead of the row's hundred, four at a time: each costs a tenth of a second of processor time."""
    target = tmp_path / "quick.py"
    target.write_text(
        "from minimcp import Server\nserver = Server('quick')\n\n"
        "@server.tool\ndef add(a: int, b: int) -> int:\n    return a + b\n"
    )

    def once(number: int) -> int:
        with Child(str(target)) as child:
            if number % 2:
                child.alive()
            return child.end(60)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(once, range(20))) == [0] * 20
