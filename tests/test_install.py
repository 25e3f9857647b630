"""`minimcp install`: an entry in the configuration of a host, and everything else in the file as it was."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest

from minimcp import Client, Server
from minimcp.__main__ import main
from minimcp.cli import hosts, install
from minimcp.client import host_files
from tests.embedded import embedded
from tests.transports import ROOT

SERVER = """\
from minimcp import Server
server = Server('my notes', '1')
@server.tool
def add(a: int, b: int) -> int:
    return a + b
@server.tool
def sub(a: int, b: int) -> int:
    return a - b
@server.prompt
def review(title: str) -> str:
    return title
"""
RUN = [sys.executable, "-m", "minimcp"]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home with a project in it, which is the current folder."""
    for name in ("XDG_CONFIG_HOME", "APPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(hosts.sys, "platform", "linux")
    for folder in (".cursor", ".config/Claude", ".config/Code/User", "work"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    (tmp_path / "work" / "server.py").write_text(SERVER)
    return tmp_path


def entry(*words: str, **env: str) -> dict:
    """What a host gets of a command of this package; `env` is beside what Python needs to find it."""
    if not install._importable():
        env = {"PYTHONPATH": str(ROOT), **env}
    return {"command": sys.executable, "args": ["-m", "minimcp", *words], **({"env": env} if env else {})}


def said(capsys, *words: str, code: int = 0) -> str:
    assert main(["install", *words]) == code
    out, err = capsys.readouterr()
    assert out == ""
    return err


def test_a_server_is_in_the_file_of_the_host_with_absolute_paths(home, capsys):
    file = str(home / "work" / "server.py")
    for host, path, key in (
        ("claude-desktop", ".config/Claude/claude_desktop_config.json", "mcpServers"),
        ("claude-code", ".claude.json", "mcpServers"),
        ("cursor", ".cursor/mcp.json", "mcpServers"),
        ("vscode", ".config/Code/User/mcp.json", "servers"),
    ):
        told = said(capsys, host, "server.py:server")
        assert told == (
            f"my-notes (2 tools, 1 prompt) is in {home / path}.\n{hosts.HOSTS[host].then}\n"
            f"To undo this: minimcp install {host} --undo --name my-notes\n"
        )
        expected = entry("run", file + ":server")
        if host != "claude-desktop":
            expected = {"type": "stdio", **expected}
        assert json.loads((home / path).read_text()) == {key: {"my-notes": expected}}
        assert stat.S_IMODE((home / path).stat().st_mode) == 0o600
        # A host starts it anywhere, with an environment of its own.
        found = json.loads((home / path).read_text())[key]["my-notes"]
        with Client(found, cwd="/") as client:
            assert client.call_tool("add", a=1, b=2).data == 3


COMMENTED = """\
// my servers
{
    "servers": {
        "files": { "type": "stdio", "command": "npx" }, // do not touch
    },
    "inputs": [],
}
"""


def test_everything_else_in_the_file_stays_and_undo_brings_back_each_byte(home, capsys):
    path = home / ".config/Code/User/mcp.json"
    path.write_text(COMMENTED)
    path.chmod(0o640)
    told = said(capsys, "vscode", "server.py", "--name", "notes")
    assert f"The file as it was is {path}.before-notes.\n" in told
    text = path.read_text()
    shown = json.dumps({"type": "stdio", **entry("run", str(home / "work" / "server.py"))}, indent=4)
    added = f'        "notes": {shown}'.replace("\n", "\n        ")
    assert text == COMMENTED.replace("// do not touch\n", f"// do not touch\n{added},\n")
    assert Path(f"{path}.before-notes").read_text() == COMMENTED
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert said(capsys, "vscode", "server.py", "--name", "notes") == (
        f"notes (2 tools, 1 prompt) is in {path} already.\n"
    )
    assert said(capsys, "vscode", "--undo", "--name", "notes") == f"The installation of notes in {path} is undone.\n"
    assert path.read_text() == COMMENTED and not Path(f"{path}.before-notes").exists()


def test_undo_keeps_what_has_changed_since(home, capsys):
    path = home / ".cursor/mcp.json"
    path.write_text('{"mcpServers": {"my-notes": {"command": "mine"}, "b": {"command": "x"}}}')
    assert "in place of another of that name" in said(capsys, "cursor", "server.py")
    text = path.read_text().replace('"x"', '"y"')
    path.write_text(text)
    said(capsys, "cursor", "server.py", "--undo")
    assert json.loads(path.read_text()) == {"mcpServers": {"my-notes": {"command": "mine"}, "b": {"command": "y"}}}
    said(capsys, "cursor", "server.py", "--name", "one")
    said(capsys, "cursor", "server.py", "--name", "two")
    said(capsys, "cursor", "--undo", "--name", "one")
    assert [*json.loads(path.read_text())["mcpServers"]] == ["my-notes", "b", "two"]


def test_a_file_that_install_has_made_is_gone_after_undo(home, capsys):
    said(capsys, "cursor", "server.py")
    said(capsys, "cursor", "server.py", "--undo")
    assert os.listdir(home / ".cursor") == []


def test_the_first_state_is_the_one_that_undo_brings_back(home, capsys):
    path = home / ".cursor/mcp.json"
    path.write_text('{"mcpServers": {"n": {"command": "mine"}}}')
    said(capsys, "cursor", "server.py", "--name", "n")
    said(capsys, "cursor", "server.py", "--name", "n", "--env", "A=1")
    assert json.loads(path.read_text())["mcpServers"]["n"]["env"]["A"] == "1"
    said(capsys, "cursor", "--undo", "--name", "n")
    assert path.read_text() == '{"mcpServers": {"n": {"command": "mine"}}}'


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["cursor", "--undo"], "say which server: TARGET or --name NAME"),
        (["cursor", "--undo", "server.py"], "{0} has no such server; there is other: --name NAME"),
        (["cursor", "--undo", "--name", "nothing"], "{0} has no such server; there is other: --name NAME"),
        (
            ["cursor", "--undo", "--name", "other"],
            "'other' in {0} does not come from here, as far as one can see; take it out by hand",
        ),
    ],
)
def test_undo_touches_nothing_that_install_did_not_write(home, capsys, words, told):
    path = home / ".cursor/mcp.json"
    path.write_text('{"mcpServers": {"other": {"command": "x"}}, "a": 1}')
    assert said(capsys, *words, code=2) == f"minimcp: {told.format(path)}\n"
    assert path.read_text() == '{"mcpServers": {"other": {"command": "x"}}, "a": 1}'


def test_a_project_has_a_configuration_of_its_own(home, capsys):
    for host, path, key in (
        ("claude-code", ".mcp.json", "mcpServers"),
        ("cursor", ".cursor/mcp.json", "mcpServers"),
        ("vscode", ".vscode/mcp.json", "servers"),
    ):
        told = said(capsys, host, "server.py", "--project", ".")
        assert told.endswith(f"minimcp install {host} --undo --name my-notes --project .\n")
        assert [*json.loads((home / "work" / path).read_text())[key]] == ["my-notes"]
    assert said(capsys, "claude-desktop", "server.py", "--project", ".", code=2) == (
        "minimcp: Claude Desktop has no configuration of a project\n"
    )


def test_what_would_be_written_can_be_printed(home, capsys):
    expected = entry("run", str(home / "work" / "server.py"), KEY="a b")
    for words, key in ((["json"], "mcpServers"), (["vscode", "--print"], "servers")):
        assert main(["install", *words, "server.py", "--env", "KEY=a b"]) == 0
        out, err = capsys.readouterr()
        shown = {"type": "stdio", **expected} if key == "servers" else expected
        assert json.loads(out) == {key: {"my-notes": shown}} and err == ""
    assert not (home / ".config/Code/User/mcp.json").exists()
    said(capsys, "json", "server.py", "--file", "mcp.json")
    with Client("mcp.json") as client:
        assert client.server_info["name"] == "my notes"


def test_a_url_goes_in_as_it_is_or_over_a_bridge(home, capsys):
    server = Server("remote")
    with embedded(server.wsgi) as listening:
        url = f"{listening.url}/mcp"
        said(capsys, "cursor", url, "--header", "X-Key: k")
        found = json.loads((home / ".cursor/mcp.json").read_text())["mcpServers"]["remote"]
        assert found == {"type": "http", "url": url, "headers": {"X-Key": "k"}}
        told = said(capsys, "claude-desktop", url, "--header", "X-Key: k")
        assert told.startswith("remote (it offers nothing yet) is in ")
        path = home / ".config/Claude/claude_desktop_config.json"
        found = json.loads(path.read_text())["mcpServers"]["remote"]
        assert found == entry("bridge", url, "--header", "X-Key: k")


def test_a_server_that_wants_a_login_is_installed_all_the_same(home, capsys):
    server = Server("guarded", auth=lambda request: None)
    with embedded(server.wsgi) as listening:
        told = said(capsys, "cursor", f"{listening.url}/mcp")
    assert told.startswith("127-0-0-1 (it wants a login) is in ")


def test_commands_and_files_of_servers_go_in_too(home, capsys, monkeypatch):
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"])
    file = str(home / "work" / "server.py")
    variables = [word for pair in entry().get("env", {}).items() for word in ("--env", "=".join(pair))]
    said(
        capsys,
        "cursor",
        "--name",
        "c",
        *variables,
        "--",
        os.path.basename(sys.executable),
        "-m",
        "minimcp",
        "run",
        "server.py",
    )
    (home / "work" / "mcp.json").write_text(
        json.dumps({"mcpServers": {"a": entry("run", file), "b": entry("run", file)}})
    )
    said(capsys, "cursor", "mcp.json", "--name", "all")
    said(capsys, "cursor", "mcp.json", "--server", "b", "--name", "b")
    found = json.loads((home / ".cursor/mcp.json").read_text())["mcpServers"]
    assert os.path.isabs(found["c"]["command"]) and found["c"]["args"] == ["-m", "minimcp", "run", file]
    assert found["all"] == {"type": "stdio", **entry("gateway", str(home / "work" / "mcp.json"), "--stdio")}
    assert found["b"] == {"type": "stdio", **entry("run", file)}


def test_a_server_that_does_not_start_is_told_and_nothing_is_written(home, capsys):
    (home / "work" / "broken.py").write_text("import nothing_here\n")
    told = said(capsys, "cursor", "broken.py", code=1)
    assert told.startswith(
        "minimcp: broken.py, line 1: ModuleNotFoundError: No module named 'nothing_here'\n".replace(
            "broken.py", str(home / "work" / "broken.py")
        )
    )
    assert told.endswith(" exited with code 1\nNothing was written; --no-check writes it all the same\n")
    assert os.listdir(home / ".cursor") == []
    assert said(capsys, "cursor", "broken.py", "--no-check").startswith(f"broken is in {home / '.cursor/mcp.json'}.\n")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["cursor"], "TARGET is missing: the server to install"),
        (["cursor", "nofile.py"], "There is no file 'nofile.py'"),
        (["cursor", "server.py", "--name", "my notes"], "--name is up to 60 of A-Z a-z 0-9 _ -"),
        (["cursor", "server.py", "--header", "A: b"], "--header does not apply to a process; give it --env NAME=VALUE"),
        (["cursor", "http://127.0.0.1:1/mcp", "--env", "A=b"], "--env does not apply to a URL"),
        (["cursor", "server.py", "--file", "list.json"], "{0}/list.json: This is no JSON object; nothing was changed"),
        (
            ["cursor", "server.py", "--file", "bad.json"],
            "{0}/bad.json: This is not JSON: Expecting ',' delimiter: line 1 column 9 (char 8); nothing was changed",
        ),
        (
            ["cursor", "server.py", "--file", "other.json"],
            "{0}/other.json: 'mcpServers' is not an object; nothing was changed",
        ),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(home, capsys, words, told):
    for name, text in (("list.json", "[]"), ("bad.json", '{"a": 1 "b": 2}'), ("other.json", '{"mcpServers": []}')):
        (home / "work" / name).write_text(text)
    assert said(capsys, *words, code=2) == f"minimcp: {told.format(home / 'work')}\n"
    assert (home / "work" / "other.json").read_text() == '{"mcpServers": []}'


def test_a_host_that_is_not_there_gets_no_folder(home, capsys):
    (home / ".config/Claude").rmdir()
    folder = home / ".config/Claude"
    assert said(capsys, "claude-desktop", "server.py", code=2) == (
        f"minimcp: Claude Desktop is not here: there is no folder {folder}; --file FILE names its configuration\n"
    )
    assert not folder.exists()


def test_a_file_that_another_program_writes_meanwhile_is_left_to_it(home, capsys, monkeypatch):
    path = home / ".cursor/mcp.json"
    path.write_text("{}")
    put = install.jsonc.put

    def meanwhile(text, place, value):
        path.write_text('{"theirs": 1}')
        return put(text, place, value)

    monkeypatch.setattr(install.jsonc, "put", meanwhile)
    told = said(capsys, "cursor", "server.py", code=1)
    assert told == f"minimcp: {path} has changed this moment; nothing was changed, try again\n"
    assert path.read_text() == '{"theirs": 1}'
    assert os.listdir(home / ".cursor") == ["mcp.json"]


def test_a_link_stays_one_and_a_mark_of_the_byte_order_too(home, capsys):
    real = home / "dotfiles.json"
    real.write_bytes(b"\xef\xbb\xbf{}")
    (home / ".cursor/mcp.json").symlink_to(real)
    said(capsys, "cursor", "server.py")
    assert (home / ".cursor/mcp.json").is_symlink() and real.read_bytes().startswith(b"\xef\xbb\xbf{\n")
    assert [*host_files.load(real)["mcpServers"]] == ["my-notes"]


@pytest.mark.parametrize(
    ("system", "host", "path"),
    [
        ("darwin", "claude-desktop", "Library/Application Support/Claude/claude_desktop_config.json"),
        ("darwin", "vscode", "Library/Application Support/Code/User/mcp.json"),
        ("win32", "claude-desktop", "AppData/Roaming/Claude/claude_desktop_config.json"),
        ("win32", "cursor", ".cursor/mcp.json"),
        ("linux", "vscode", ".config/Code/User/mcp.json"),
    ],
)
def test_each_system_has_its_places(home, monkeypatch, system, host, path):
    monkeypatch.setattr(hosts.sys, "platform", system)
    assert hosts.HOSTS[host].path() == str(home / path)
    monkeypatch.setenv("APPDATA", "/roaming")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/settings")
    if (system, host) in (("win32", "claude-desktop"), ("linux", "vscode")):
        first = "/roaming" if system == "win32" else "/settings"
        assert hosts.HOSTS[host].path() == first + "/" + path.split("/", 2 if system == "win32" else 1)[-1]
