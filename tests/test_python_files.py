"""Python files as targets: paths of every system, files of a package, their arguments, and files that are not there."""

from __future__ import annotations

import logging
import os
import sys

import pytest

from minimcp import Client
from minimcp.__main__ import load, main
from minimcp.client import python_files
from minimcp.client.transports.command import join_words, shown, split_words
from tests.helpers import Process, modern, post
from tests.transports import ROOT

ADD = """\
from minimcp import Server
server = Server('s')
@server.tool
def add(a: int, b: int) -> int:
    return a + b
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("target", "path", "name"),
    [
        ("server.py", "server.py", ""),
        ("server.py:app", "server.py", "app"),
        (r"C:\code\server.py", r"C:\code\server.py", ""),
        (r"C:\code\server.py:app", r"C:\code\server.py", "app"),
        (r"c:server.PY:app", "c:server.PY", "app"),
        (r"\\host\share\my server.py:app", r"\\host\share\my server.py", "app"),
        ("C:/code/server.py:app", "C:/code/server.py", "app"),
        ("server:app", "server:app", ""),
    ],
)
def test_the_colon_of_a_drive_is_part_of_the_path(target, path, name):
    assert python_files.split(target) == (path, name)


@pytest.mark.skipif(os.name == "nt", reason="a backslash is a letter of names elsewhere")
@pytest.mark.parametrize("name", ["", ":server"])
def test_a_path_of_windows_is_a_python_file_all_the_way(folder, capsys, name):
    file = r"C:\Program Files\it's mine\server.py"
    (folder / file).write_text(ADD)
    with Client(file + name) as client:
        assert client.call_tool("add", a=1, b=2).data == 3
    assert main(["call", file + name, "add", "a=1", "b=2"]) == 0
    assert capsys.readouterr().out == "3\n"
    assert load(file + name).engine.identity["name"] == "s"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            r"C:\Python\python.exe C:\code\server.py --port 1",
            [r"C:\Python\python.exe", r"C:\code\server.py", "--port", "1"],
        ),
        (
            r'"C:\Program Files\node.exe" "C:\my work\s.js" it' "s",
            [r"C:\Program Files\node.exe", r"C:\my work\s.js", "its"],
        ),
        (r'npx --dir="C:\my work" x', ["npx", r"--dir=C:\my work", "x"]),
        ("  ", []),
    ],
)
def test_a_command_of_windows_keeps_its_backslashes(text, words):
    assert split_words(text, windows=True) == words
    assert split_words(join_words(words, windows=True), windows=True) == words


def test_a_command_of_other_systems_is_split_as_their_shells_do():
    assert split_words(r"python 'my server.py' a\ b", windows=False) == ["python", "my server.py", "a b"]
    assert join_words(["python", "my server.py"], windows=False) == "python 'my server.py'"
    assert shown(["python", "s.py", "--token", "x"]) == "python s.py --token ..."
    for windows in (True, False):
        with pytest.raises(ValueError, match="No closing quotation"):
            split_words('python "s.py', windows)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("server", "There is no file 'server'; did you mean server.py?"),
        ("sever.py", "There is no file 'sever.py'; did you mean server.py?"),
        ("package.part", "There is no file 'package.part'; did you mean {0}?"),
        ("package/prt.py", "There is no file 'package/prt.py'; did you mean {0}?"),
        ("package", "'package' is a folder; write a file in it"),
        ("other.py", "There is no file 'other.py'"),
        ("nowhere/server.py", "There is no file 'nowhere/server.py'"),
    ],
)
def test_a_file_that_is_not_there_is_told_with_the_one_that_was_meant(folder, capsys, given, told):
    (folder / "package").mkdir()
    for file in ("server.py", "package/part.py"):
        (folder / file).write_text(ADD)
    assert main(["run", given, "--http", "0"]) == 2
    assert capsys.readouterr().err == f"minimcp: {told.format(os.path.join('package', 'part.py'))}\n"


def test_a_client_tells_it_too(folder):
    (folder / "server.py").write_text(ADD)
    for given in ("server", "sever.py"):
        with pytest.raises(ValueError) as caught:
            Client(given)
        assert str(caught.value) == f"There is no file {given!r}; did you mean server.py?"


@pytest.mark.parametrize(
    ("first", "more"), [("", ""), ("from .served import server\n", ""), ("", "server.run_http()\n")]
)
def test_a_file_of_a_package_may_import_from_it(folder, first, more):
    package = folder / "outer" / "inner"
    package.mkdir(parents=True)
    for file in (package / "__init__.py", package.parent / "__init__.py"):
        file.write_text("")
    (package / "__init__.py").write_text(first)
    (package / "numbers_here.py").write_text("ONE = 1\n")
    (package / "served.py").write_text(ADD.replace("a + b", "a + b + ONE") + "from .numbers_here import ONE\n" + more)
    with Client("outer/inner/served.py") as client:
        assert client.call_tool("add", a=1, b=2).data == 4


def test_a_file_may_have_the_name_of_a_module(folder):
    (folder / "logging.py").write_text(ADD)
    assert load("logging.py").engine.identity["name"] == "s"
    assert sys.modules["logging"] is logging


def test_words_after_two_hyphens_are_the_arguments_of_the_file(folder):
    (folder / "f.py").write_text("import sys\n" + ADD.replace("'s'", "' '.join(sys.argv)"))

    command = [sys.executable, "-m", "minimcp", "run", "f.py", "--", "--db", "x y", "--", "z"]
    with Client(command, env={"PYTHONPATH": str(ROOT)}) as client:
        assert client.server_info["name"] == "f.py --db x y -- z"


def test_the_path_of_the_endpoint_can_be_chosen(folder):
    (folder / "f.py").write_text(ADD)
    words = [sys.executable, "-m", "minimcp", "run", "f.py", "--http", "0", "--path", "/v1/mcp"]
    with Process(words, cwd=str(folder)) as process:
        url = process.wait_for(r"s is listening on (http://127\.0\.0\.1:\d+/v1/mcp); try it").group(1)
        assert post(url, modern("tools/call", name="add", arguments={"a": 1, "b": 2}))[0] == 200
        assert post(url.replace("/v1", ""), modern("tools/list"))[0] == 404
        assert process.terminate() == 0
