"""The names of the package: each loads, from the module that defines it, and type checkers know its type."""

from __future__ import annotations

import pydoc
import re
import subprocess
import sys
from pathlib import Path

import pytest

import minimcp

ROOT = Path(__file__).resolve().parent.parent
NAMES = [name for name in minimcp.__all__ if name != "__version__"]


def test_the_names_are_sorted_and_each_has_a_home():
    assert minimcp.__all__ == sorted(minimcp.__all__)
    assert list(minimcp._HOMES) == sorted(minimcp._HOMES) == NAMES
    assert [name for name in dir(minimcp) if not name.startswith("__")] == NAMES
    assert "__version__" in dir(minimcp)


def test_help_names_each_once_with_a_line_about_it():
    lines = re.findall(r"^- (\w+(?:, \w+)*): [^\n]+$", minimcp.__doc__, re.MULTILINE)
    assert sorted(name for line in lines for name in line.split(", ")) == NAMES
    shown = pydoc.render_doc(minimcp, renderer=pydoc.plaintext)
    assert "    - Server: register functions as tools" in shown


@pytest.mark.parametrize("name", NAMES)
def test_each_name_loads(name):
    value = getattr(minimcp, name)
    home = f"minimcp.{minimcp._HOMES[name]}"
    assert (value.__name__ if home.endswith(f".{name}") else value.__module__) == home


def test_a_name_that_there_is_not_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'minimcp' has no attribute 'Clinet'"):
        minimcp.Clinet  # noqa: B018


def test_mypy_knows_the_type_of_each_name(tmp_path):
    pytest.importorskip("mypy")
    lines = ["import minimcp", *(f"reveal_type(minimcp.{name})" for name in minimcp.__all__)]
    (tmp_path / "user.py").write_text("\n".join([*lines, "from minimcp import *", "reveal_type(Steps)", ""]))
    command = [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={tmp_path / 'cache'}", str(tmp_path / "user.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    found = [line for line in done.stdout.splitlines() if "Revealed type is" in line]
    assert done.returncode == 0 and len(found) == len(minimcp.__all__) + 1, done.stdout + done.stderr
    assert not [line for line in found if '"Any"' in line]
