"""A program as type checkers see it: functions keep their types, and mistakes are found where they are made."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
PROGRAMS = ("typed_program.py", "mistaken_program.py")


def found(*command: str, cwd: Path) -> str:
    """Run a type checker and return what it prints; it ends with 1 since it has found something."""
    env = {**os.environ, "MYPYPATH": str(TESTS.parent)}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=cwd, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def by_mypy(folder: Path) -> set[tuple[str, int]]:
    """The file and line of each error."""
    options = ("--strict", "--config-file=", "--cache-dir=cache", "--follow-imports=silent", "--no-color-output")
    printed = found("mypy", *options, *PROGRAMS, cwd=folder)
    return {(file, int(line)) for file, line in re.findall(r"^(\w+\.py):(\d+): error", printed, re.MULTILINE)}


def by_pyright(folder: Path) -> set[tuple[str, int]]:
    """The file and line of each error."""
    settings = {"extraPaths": [str(TESTS.parent)], "typeCheckingMode": "strict", "pythonVersion": "3.10"}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    report = json.loads(found("pyright", "--outputjson", cwd=folder))
    errors = [each for each in report["generalDiagnostics"] if each["severity"] == "error"]
    return {(Path(each["file"]).name, each["range"]["start"]["line"] + 1) for each in errors}


@pytest.mark.parametrize("checker", [by_mypy, by_pyright])
def test_a_type_checker_finds_every_mistake_of_an_author_and_no_other(checker, tmp_path):
    name = checker.__name__[3:]
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    if name == "pyright" and shutil.which("node") is None:
        pytest.skip("pyright needs node, which is not here")
    mistakes = set()
    for program in PROGRAMS:
        text = (TESTS / program).read_text(encoding="utf-8")
        (tmp_path / program).write_text(text, encoding="utf-8")
        lines = enumerate(text.splitlines(), 1)
        mistakes |= {(program, number) for number, line in lines if line.endswith("# mistake")}
    assert len(mistakes) > 20 and {program for program, _ in mistakes} == {"mistaken_program.py"}
    assert checker(tmp_path) == mistakes
