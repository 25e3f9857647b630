"""Completion in shells: what may follow, and the scripts as the shells themselves run them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from minimcp.__main__ import main
from minimcp.cli.completion import candidates
from minimcp.cli.hosts import HOSTS
from tests.transports import ROOT


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with a file of servers and the program, which is the current one."""
    monkeypatch.chdir(tmp_path)
    servers = {"mcpServers": {"first": {"command": "x"}, "second": {"command": "y"}}}
    (tmp_path / "mcp.json").write_text(json.dumps(servers))
    program = tmp_path / "bin" / "minimcp"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m minimcp "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["l"], ["list"]),
        (["de"], ["describe", "dev"]),
        (["--v"], ["--version"]),
        (["help", "ins"], ["install"]),
        (["install", ""], list(HOSTS)),
        (["install", "--undo", "c"], ["claude-desktop", "claude-code", "cursor"]),
        (["install", "cursor", ""], []),
        (["install", "cursor", "--pr"], ["--project", "--print"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["audit", ""], ["verify"]),
        (["list", "x", "--mode", "a"], ["auto"]),
        (["list", "--mode", "auto", "x", "--ti"], ["--timeout"]),
        (["list", "--timeout", ""], []),
        (["list", "mcp.json", "--server", ""], ["first", "second"]),
        (["call", "--server", "s", "mcp.json"], []),
        (["list", "nothing.json", "--server", ""], []),
        (["list", "--trace", "--js"], ["--json"]),
        (["run", "f.py", "--", "--h"], []),
        (["nothing", ""], []),
    ],
)
def test_what_may_follow(words, found):
    assert candidates(words) == found


def completed(words: list[str], cwd: object) -> str:
    done = subprocess.run(words, cwd=str(cwd), capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_with_its_script(folder):
    script = (
        'eval "$(minimcp completion bash)"; complete -p minimcp; '
        'try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _minimcp; echo "${COMPREPLY[*]}"; }; '
        "try minimcp de; try minimcp list mcp.json --server ''; try minimcp install cursor ''"
    )
    assert completed(["bash", "--norc", "-c", script], folder).splitlines() == [
        "complete -o bashdefault -o default -F _minimcp minimcp",
        "describe dev",
        "first second",
        "",
    ]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_completes_with_its_script(folder):
    script = (
        'autoload -U compinit; compinit -u -d ./dump; eval "$(minimcp completion zsh)"; echo ${_comps[minimcp]}; '
        "compadd() { echo $found }; _files() { echo files }; "
        "words=(minimcp de); CURRENT=2; _minimcp; words=(minimcp list mcp.json --server ''); CURRENT=5; _minimcp; "
        "words=(minimcp install cursor ''); CURRENT=4; _minimcp"
    )
    assert completed(["zsh", "-f", "-c", script], folder).splitlines() == [
        "_minimcp",
        "describe dev",
        "first second",
        "files",
    ]


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes_with_its_script(folder):
    script = 'minimcp completion fish | source; complete -C "minimcp de"; complete -C "minimcp list mcp.json --server "'
    lines = completed(["fish", "--no-config", "-c", script], folder).splitlines()
    assert lines[:2] == ["describe", "dev"] and {"first", "second"} <= set(lines)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_script_asks_the_program_that_is_typed(shell, capsys):
    assert main(["completion", shell]) == 0
    assert f"completion {shell} -- " in capsys.readouterr().out
    assert main(["completion", shell, "--", "audit", ""]) == 0
    assert capsys.readouterr().out == "verify\n"
