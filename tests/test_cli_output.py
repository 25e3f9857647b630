"""What the commands show: lines that fit the terminal, one thing in full, bytes in files, and names to choose from."""

from __future__ import annotations

import io
import shlex
import sys

import pytest

from minimcp.__main__ import main
from minimcp.cli import show
from tests.transports import ROOT

OFFER = '''
from minimcp import Server, image
server = Server("s", instructions="Ask for the weather first, and then, if it is fine, for a boat on the lake.")

@server.tool
def order(article: str, number: int = 1, wrapping: str = "paper", address: str = "") -> str:
    """Order something; it comes in a day or two, by whatever way is the shortest on that day, often by bicycle."""
    return article

@server.tool
def pictures() -> list:
    return [image(b"one"), "between", {"type": "audio", "data": "dHdv", "mimeType": "audio/wav"}]

@server.resource("boat://{name}", mime_type="application/json")
def boat(name: str) -> dict:
    """One boat."""
    return {"name": name}

@server.resource("boats://photo", size=3, mime_type="image/png")
def photo() -> bytes:
    return b"\\\\x00\\\\x01\\\\x02"

@server.prompt
def review(title: str, tone: str = "kind") -> str:
    """Review a book.

    :param title: of the book
    """
    return f"{tone} {title}"
'''.replace("\\\\\\\\", "\\\\").replace("\\\\x", "\\x")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder with the file, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "f.py").write_text(OFFER)
    return tmp_path


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch, columns: int, *words: str) -> list[str]:
    """The lines of a command on a terminal of some columns."""
    terminal = Terminal()
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(list(words)) == 0
    return terminal.getvalue().splitlines()


def shown(capsys, *words: str) -> str:
    assert main(list(words)) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_lines_are_folded_between_words_where_the_terminal_ends(monkeypatch):
    assert on_terminal(monkeypatch, 44, "list", "f.py")[:14] == [
        "s 0 (2026-07-28)",
        "Ask for the weather first, and then, if it",
        "is fine, for a boat on the lake.",
        "",
        "Tools",
        "  order(article: string, number: integer =",
        '      1, wrapping: string = "paper",',
        '      address: string = "")',
        "      Order something; it comes in a day or",
        "      two, by whatever way is the shortest",
        "      on that day, often by bicycle.",
        "  pictures()",
        "",
        "Resources",
    ]
    assert max(map(len, on_terminal(monkeypatch, 60, "describe", "f.py", "order"))) <= 60


def test_in_a_pipe_each_thing_is_one_line(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "30")
    lines = shown(capsys, "list", "f.py").splitlines()
    tool = '  order(article: string, number: integer = 1, wrapping: string = "paper", address: string = "")'
    assert tool in lines


def test_the_bar_is_no_wider_than_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    stream = io.StringIO()
    show.Bar(stream)({"progress": 1, "total": 2, "message": "long " * 20})
    assert stream.getvalue() == "\r[###############...............]"[:30]


def test_a_prompt_and_resources_are_described_too(capsys):
    assert shown(capsys, "describe", "f.py", "review").splitlines() == [
        "review(title, tone?)",
        "  Review a book.",
        "",
        "Arguments",
        "  title  (required)",
        "      of the book",
        "  tone",
        "",
        "To see it",
        "  minimcp prompt f.py review title=...",
    ]
    assert shown(capsys, "describe", "f.py", "boat://{name}").splitlines() == [
        "boat://{name}  application/json",
        "  One boat.",
        "",
        "To read it",
        "  minimcp read f.py 'boat://{name}'",
    ]
    assert shown(capsys, "describe", "f.py", "boats://photo").splitlines() == [
        "boats://photo  image/png",
        "  3 bytes",
        "",
        "To read it",
        "  minimcp read f.py boats://photo",
    ]
    last = shown(capsys, "describe", "f.py", "review").splitlines()[-1]
    assert shown(capsys, *shlex.split(last)[1:]) == "user: kind ...\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["describe", "f.py"], "say of what: order, pictures, boats://photo, boat://{name}, review"),
        (["describe", "f.py", "reviev"], "the server lists no tool, prompt or resource 'reviev'; there is review"),
        (["read", "f.py"], "say which resource: boats://photo, boat://{name}"),
        (["prompt", "f.py"], "say which prompt: review"),
        (
            ["call", "f.py", "order", "tea", "2"],
            "an argument is KEY=VALUE or KEY:=JSON, not 'tea'; the tool takes article, number, wrapping, address",
        ),
    ],
)
def test_without_a_name_those_that_there_are_are_told(capsys, words, said):
    assert main(words) == 2
    assert capsys.readouterr().err == f"minimcp: {said}\n"


def test_all_bytes_of_a_result_go_to_files(folder, capsys):
    assert main(["call", "f.py", "pictures", "-o", "cat.png"]) == 0
    assert capsys.readouterr() == ("between\n", "minimcp: 2 files: cat.png, cat-2.png\n")
    assert (folder / "cat.png").read_bytes() == b"one" and (folder / "cat-2.png").read_bytes() == b"two"


def test_a_resource_goes_to_a_file(folder, capsys, monkeypatch):
    assert shown(capsys, "read", "f.py", "boats://photo", "-o", "boat.png") == ""
    assert (folder / "boat.png").read_bytes() == b"\x00\x01\x02"
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert main(["read", "f.py", "boats://photo"]) == 2
    assert capsys.readouterr().err == "minimcp: the resource is binary (3 bytes); write it to a file: -o FILE\n"
