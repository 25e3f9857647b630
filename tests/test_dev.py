"""`minimcp dev`: a file is served again whenever it changes, and whoever is connected stays connected."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from minimcp import Client
from minimcp.__main__ import main
from minimcp.cli.dev import Restarts
from minimcp.cli.parser import parse
from minimcp.cli.watched_files import WatchedFiles
from tests.helpers import Process
from tests.transports import ROOT

FILE = """\
import os
from minimcp import Context, Server
from parts import WORD
server = Server('notes', '3')
@server.tool
def say() -> str:
    return WORD + os.environ.get('OF_THE_USER', '')
"""
MORE = "@server.tool\ndef more() -> str:\n    return 'more'\n@server.prompt\ndef ask() -> str:\n    return 'ask'\n"
BACK = "notes.py is there again after "


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with the file and a module of it, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OF_THE_USER", "!")
    (tmp_path / "notes.py").write_text(FILE)
    (tmp_path / "parts.py").write_text("WORD = 'one'\n")
    return tmp_path


class Lines:
    """The lines that a server writes to standard error; `wait_for` waits for one with a text and returns it."""

    def __init__(self):
        self._lines, self._changed = [], threading.Condition()

    def __call__(self, line):
        with self._changed:
            self._lines.append(line)
            self._changed.notify_all()

    def wait_for(self, text):
        with self._changed:
            assert self._changed.wait_for(lambda: any(text in line for line in self._lines), 120), self._lines
            place = next(number for number, line in enumerate(self._lines) if text in line)
            found = self._lines[place]
            del self._lines[: place + 1]
            return found


def words(*more: str) -> list[str]:
    return [sys.executable, "-m", "minimcp", "dev", "notes.py", *more]


@pytest.mark.parametrize("mode", ["2026-07-28", "2025-06-18"])
@pytest.mark.parametrize("way", ["stdio", "http"])
def test_a_client_stays_connected_and_is_told_of_what_has_changed(folder, way, mode):
    lines = Lines()
    env = {"PYTHONPATH": str(ROOT), "OF_THE_USER": "!"}
    with Process(words("--http", "0"), cwd=str(folder)) if way == "http" else Here() as process:
        if way == "http":
            target = process.wait_for(r"notes is listening on (\S+); try it").group(1)
            wait_for, options = (lambda text: process.wait_for(text).group(0)), {}
        else:
            target, wait_for, options = words(), lines.wait_for, {"env": env, "stderr": lines}
        with Client(target, mode=mode, **options) as client:
            assert client.server_info["name"] == "notes" and client.server_info["version"] == "3"
            with client.listen(tools=True, prompts=True) as changes:
                assert client.call_tool("say").text == "one!"
                # A module of the file, changed within the same second and of the same size.
                (folder / "parts.py").write_text("WORD = 'two'\n")
                wait_for("it offers the same")
                assert client.call_tool("say").text == "two!"
                (folder / "notes.py").write_text(FILE + MORE)
                assert next(changes)["method"].endswith("/list_changed")
                wait_for("tool more, . prompt ask" if way == "http" else "+ tool more, + prompt ask")
                assert [tool["name"] for tool in client.list_tools(fresh=True)] == ["say", "more"]
                assert client.get_prompt("ask").text == "ask"
                # One that does not load changes nothing.
                (folder / "notes.py").write_text(FILE + "1 / 0\n")
                wait_for("ZeroDivisionError: division by zero")
                wait_for("notes.py does not load: the server goes on as it was before, until the next change")
                assert client.call_tool("more").text == "more"
                (folder / "notes.py").write_text(FILE)
                wait_for("- tool more, - prompt ask")
                assert [tool["name"] for tool in client.list_tools(fresh=True)] == ["say"]
        if way == "http":
            assert process.terminate() == 0


class Here:
    """Stands for a process where a client starts its own."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_a_file_that_does_not_load_yet_is_served_once_it_does(folder):
    (folder / "notes.py").write_text("1 / 0\n")
    lines = Lines()
    with Client(words(), mode="2025-06-18", env={"PYTHONPATH": str(ROOT)}, stderr=lines) as client:
        lines.wait_for("notes.py, line 1: ZeroDivisionError")
        lines.wait_for(f"notes.py is not served until it loads; watching 2 files at {folder.resolve()} for changes")
        assert client.list_tools() == [] and {"tools", "prompts", "resources"} <= client.capabilities.keys()
        (folder / "notes.py").write_text(FILE)
        assert lines.wait_for(BACK).endswith(" s: + tool say")
        assert client.call_tool("say").text == "one"


def test_a_call_in_progress_ends_before_its_server_goes(folder):
    (folder / "notes.py").write_text(
        FILE + "@server.tool\ndef wait(ctx: Context) -> str:\n    import time\n    ctx.progress(1)\n"
        "    until = time.monotonic() + 60\n    while not os.path.exists('go') and time.monotonic() < until:\n"
        "        time.sleep(0.02)\n    return WORD\n"
    )
    lines = Lines()
    with Client(words(), env={"PYTHONPATH": str(ROOT)}, stderr=lines, timeout=120) as client:
        call = client.start_tool("wait")
        assert next(iter(call))["progress"] == 1
        (folder / "parts.py").write_text("WORD = 'two'\n")
        lines.wait_for(BACK)
        assert client.call_tool("say").text == "two"
        (folder / "go").write_text("")
        assert call.result().text == "one"


def test_a_question_of_the_server_reaches_the_client(folder):
    (folder / "notes.py").write_text(
        FILE + "@server.tool\ndef ask(ctx: Context) -> str:\n    return str(ctx.elicit('How many?', {'n': int})['n'])\n"
    )
    for mode in ("2026-07-28", "2025-06-18"):
        with Client(
            words(), mode=mode, elicit=lambda q: {"n": 3}, env={"PYTHONPATH": str(ROOT)}, stderr=False
        ) as client:
            assert client.call_tool("ask").text == "3"


def test_a_server_that_has_loaded_is_waited_for_as_long_as_that_may_take(folder):
    restarts = Restarts(parse(["dev", "notes.py"]), "notes.py", WatchedFiles(["notes.py"]))
    # By default a gateway waits less for its servers, and would say that the server is there before it lists anything.
    assert restarts.begin().settings.options["list_timeout"] == 30


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["nofile.py"], "There is no file 'nofile.py'"),
        (["note.py"], "There is no file 'note.py'; did you mean notes.py?"),
        (["notes.py", "--watch", "nothing"], "--watch: there is no file or folder 'nothing'"),
    ],
)
def test_what_cannot_be_served_is_told_in_a_line(capsys, given, told):
    assert main(["dev", *given, "--http", "0"]) == 2
    assert capsys.readouterr().err == f"minimcp: {told}\n"


def test_a_server_for_everybody_has_to_be_said_to_be_one(folder, capsys):
    assert main(["dev", "notes.py", "--http", "0", "--host", "0.0.0.0"]) == 1
    assert 'give it Server(auth=...), or, if everybody may call, auth="public"' in capsys.readouterr().err


def test_python_files_are_watched_but_for_other_peoples(folder):
    for path in ("a/b.py", ".hidden/c.py", "venv/d.py", "node_modules/e.py", "__pycache__/f.py"):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text("")
    (folder / "venv" / "pyvenv.cfg").write_text("")
    (folder / "data.json").write_text("{}")
    files = WatchedFiles([str(folder)])
    assert [os.path.relpath(path, folder) for path in sorted(files._seen)] == ["a/b.py", "notes.py", "parts.py"]
    assert WatchedFiles([str(folder), "data.json"]).told().startswith("watching 4 files at ")
    stopping = threading.Event()
    (folder / "a/b.py").unlink()
    (folder / "a/new.py").write_text("")
    assert [os.path.basename(path) for path in files.wait(stopping)] == ["b.py", "new.py"]
    stopping.set()
    assert files.wait(stopping) is None
