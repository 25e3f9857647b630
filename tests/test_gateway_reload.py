"""Reloading a gateway: what makes it read its file again, and what a file with an error changes, which is nothing."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from minimcp import Client
from minimcp.gateway import config, reload
from minimcp.gateway.gateway import Gateway
from minimcp.gateway.reload import Reloader, told
from tests.helpers import Process

ROOT = Path(__file__).resolve().parent.parent
BOUND_S = 60
HELLO = {
    "command": sys.executable,
    "args": ["-m", "minimcp", "run", str(ROOT / "examples/hello.py")],
    "env": {"PYTHONPATH": str(ROOT)},
}


class Taken:
    """Counts what a gateway takes over, in place of one with servers; its lock guards the list."""

    def __init__(self):
        self.settings = []
        self.problem = None
        self.changed = threading.Condition()

    def reload(self, settings):
        with self.changed:
            self.settings.append(settings)
            self.changed.notify_all()
        if self.problem is not None:
            raise self.problem
        return {"added": ["x"], "removed": [], "changed": [], "kept": [], "options": ["port"]}

    def wait(self, number):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.settings) >= number, BOUND_S)
        return self.settings[number - 1]


class Lines(logging.Handler):
    """The lines of the log, to be waited for."""

    def __init__(self):
        super().__init__()
        self.changed = threading.Condition()  # guards lines
        self.lines = []

    def emit(self, record):
        with self.changed:
            self.lines.append(f"{record.levelname}: {record.getMessage()}")
            self.changed.notify_all()

    def wait_for(self, part, number=1):
        with self.changed:
            assert self.changed.wait_for(lambda: sum(part in each for each in self.lines) >= number, BOUND_S), (
                self.lines
            )


@pytest.fixture
def lines():
    handler, log = Lines(), logging.getLogger("minimcp.gateway")
    log.addHandler(handler)
    log.setLevel("INFO")
    yield handler
    log.removeHandler(handler)
    log.setLevel("NOTSET")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "gateway.json"
    write(path, {"a": {"command": "x"}})
    return path


def write(path, servers, **options):
    """Replace a file at once, as editors do."""
    new = path.with_suffix(".new")
    # A busy machine may take its time to start a server.
    new.write_text(json.dumps({"mcpServers": servers, "gateway": {"listTimeout": 60, **options}}))
    os.replace(new, path)


@pytest.fixture
def watched(file):
    taken = Taken()
    reloader = Reloader(str(file), every_s=0.01).start(taken)
    yield taken
    reloader.stop()


def test_a_file_that_changed_is_read_again(file, watched, lines):
    write(file, {"a": {"command": "x"}, "b": {"command": "y"}})
    assert list(watched.wait(1).upstreams) == ["a", "b"]
    lines.wait_for(f"INFO: The configuration {file} was read again: added 'x'; other options port")
    write(file, {"c": {"command": "x"}})
    assert list(watched.wait(2).upstreams) == ["c"]


def test_a_file_with_an_error_changes_nothing(file, watched, lines):
    file.write_text("{nonsense")
    lines.wait_for("ERROR: The configuration cannot be used, and what it said before holds. ")
    assert "This is not JSON" in lines.lines[-1]
    write(file, {"a": {"command": "x", "prefx": "b"}})
    lines.wait_for("did you mean 'prefix'?")
    os.remove(file)
    lines.wait_for("There is no file")
    assert watched.settings == []
    write(file, {"b": {"command": "x", "envFile": "e"}})
    assert list(watched.wait(1).upstreams) == ["b"]
    lines.wait_for("WARNING: ")
    assert any("envFile is not read" in each for each in lines.lines)


@pytest.mark.parametrize("problem", [ValueError("no room"), RuntimeError("broken")])
def test_a_gateway_that_cannot_take_it_over_is_asked_again_after_the_next_change(file, watched, lines, problem):
    watched.problem = problem
    write(file, {"b": {"command": "x"}})
    lines.wait_for(
        "no room" if isinstance(problem, ValueError) else f"The configuration {file} could not be taken over"
    )
    watched.problem = None
    write(file, {"c": {"command": "x", "args": []}})
    assert list(watched.wait(2).upstreams) == ["c"]
    lines.wait_for("was read again")


def test_a_change_between_the_first_reading_and_the_start_is_not_missed(file):
    taken = Taken()
    reloader = Reloader(str(file), every_s=0.01)
    config.read(file)
    write(file, {"b": {"command": "x"}})
    reloader.start(taken)
    try:
        assert list(taken.wait(1).upstreams) == ["b"]
    finally:
        reloader.stop()


def test_a_file_that_did_not_change_is_left_alone(monkeypatch, file):
    looks, looked = [], threading.Event()
    original = reload._state

    def look(path):
        looks.append(path)
        if len(looks) > 5:
            looked.set()
        return original(path)

    monkeypatch.setattr(reload, "_state", look)
    taken = Taken()
    reloader = Reloader(str(file), every_s=0.01).start(taken)
    try:
        assert looked.wait(BOUND_S)
    finally:
        reloader.stop()
    assert taken.settings == []


def test_it_stops_at_once_and_may_be_stopped_twice(file):
    before = set(threading.enumerate())
    reloader = Reloader(str(file), every_s=3600).start(Taken())
    (thread,) = set(threading.enumerate()) - before
    assert thread.daemon and thread.name == "minimcp-gateway-reload"
    reloader.stop()
    assert not thread.is_alive()
    reloader.stop()
    Reloader(str(file)).stop()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP here")
def test_sighup_reads_a_file_again_that_did_not_change(file):
    taken = Taken()
    before = signal.getsignal(signal.SIGHUP)
    reloader = Reloader(str(file), every_s=3600).start(taken)
    try:
        for number in (1, 2):
            signal.raise_signal(signal.SIGHUP)
            assert list(taken.wait(number).upstreams) == ["a"]
    finally:
        reloader.stop()
    assert signal.getsignal(signal.SIGHUP) == before


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP here")
def test_on_another_thread_signals_are_left_alone(file):
    before = signal.getsignal(signal.SIGHUP)
    reloader = Reloader(str(file), every_s=3600)
    thread = threading.Thread(target=reloader.start, args=(Taken(),))
    thread.start()
    thread.join(BOUND_S)
    assert signal.getsignal(signal.SIGHUP) == before
    reloader.stop()


@pytest.mark.parametrize(
    ("difference", "text"),
    [
        ({}, "no difference"),
        ({"added": ["a", "b"], "changed": ["c\n"], "kept": ["d"]}, r"added 'a', 'b'; changed 'c\n'"),
        ({"removed": ["a"], "options": ["auth", "port"]}, "removed 'a'; other options auth, port"),
    ],
)
def test_a_difference_is_told_in_a_line(difference, text):
    parts = ("added", "removed", "changed", "kept", "options")
    assert told({part: difference.get(part, []) for part in parts}) == text


def test_a_gateway_keeps_the_process_of_a_server_that_did_not_change(file, lines):
    write(file, {"hello": HELLO})
    reloader = Reloader(str(file), every_s=0.01)
    with Gateway(str(file)) as gateway, Client(gateway) as client:
        assert "hello_count" in [tool["name"] for tool in client.list_tools()]
        kept = gateway.upstreams["hello"]
        reloader.start(gateway)
        try:
            write(file, {"hello": HELLO, "again": {**HELLO, "tools": ["count"]}})
            lines.wait_for("was read again: added 'again'")
            assert gateway.upstreams["hello"] is kept and list(gateway.upstreams) == ["hello", "again"]
            names = [tool["name"] for tool in client.list_tools(fresh=True)]
            assert "hello_count" in names and [name for name in names if name.startswith("again")] == ["again_count"]
            write(file, {"again": HELLO})
            lines.wait_for("was read again: removed 'hello'; changed 'again'")
            assert "hello_count" not in [tool["name"] for tool in client.list_tools(fresh=True)]
        finally:
            reloader.stop()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP here")
def test_the_command_follows_its_file_and_sighup(file):
    write(file, {}, name="first", port=0)
    command = [sys.executable, "-m", "minimcp", "gateway", str(file)]
    with Process(command, cwd=str(ROOT)) as process:
        url = process.wait_for(r"first for 0 servers is listening on (\S+);")[1]
        write(file, {"hello": HELLO}, name="first", port=0)
        process.wait_for("was read again: added 'hello'")
        os.kill(process.child.pid, signal.SIGHUP)
        process.wait_for("was read again: no difference")
        file.write_text("{")
        process.wait_for("cannot be used, and what it said before holds.*This is not JSON")
        with Client(url) as client:
            assert client.call_tool("hello_count", text="one two").data["words"] == 2
