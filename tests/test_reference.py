"""The API reference, which is made of docstrings: every public name has one, and the command of the guide shows all."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import minimcp
import minimcp.auth
from minimcp.protocol import app_pages
from minimcp.server import entry_options
from tests.documents import ROOT

_OPTIONS = ("PromptOptions", "ResourceOptions", "ToolOptions")
NAMES = [
    *((minimcp, name) for name in minimcp.__all__ if name != "__version__"),
    *((minimcp.auth, name) for name in minimcp.auth.__all__),
    *((entry_options, name) for name in _OPTIONS),
    *((app_pages, name) for name in ("AppCsp", "AppPermissions", "PageUi", "ToolUi")),
]


def missing(found: Any, name: str) -> list[str]:
    """Return the names without a text of their own: a public name, and the public members of a class or module."""
    lacking = [] if _text(found) else [name]
    if inspect.isclass(found):
        members = {
            key: value
            for kind in reversed(found.__mro__)
            if kind.__module__.startswith("minimcp")
            for key, value in vars(kind).items()
        }
    elif isinstance(found, ModuleType):
        members = {
            key: value for key, value in vars(found).items() if getattr(value, "__module__", "") == found.__name__
        }
    else:
        return lacking
    for key, value in members.items():
        value = getattr(value, "__func__", value)
        if str(getattr(value, "__module__", "")).startswith("tests."):
            continue  # A test has put itself around it, to see what is sent.
        if not key.startswith("_") and (callable(value) or isinstance(value, property)) and not _text(value):
            lacking.append(f"{name}.{key}")
    return lacking


def _text(found: Any) -> str:
    text = found.__dict__.get("__doc__") if inspect.isclass(found) else getattr(found, "__doc__", None)
    return (text or "").strip()


@pytest.mark.parametrize("module, name", NAMES, ids=lambda each: each if isinstance(each, str) else "")
def test_every_public_name_and_its_members_have_a_text(module: ModuleType, name: str) -> None:
    assert missing(getattr(module, name), name) == []


def test_a_name_without_a_text_is_found() -> None:
    class Bare:
        __module__ = "minimcp.of_this_test"

        def method(self) -> None:
            pass

        def _private(self) -> None:
            pass

    assert missing(Bare, "Bare") == ["Bare", "Bare.method"]


def test_the_command_of_the_guide_makes_a_page_with_every_name(tmp_path: Path) -> None:
    pytest.importorskip("pdoc", reason="the extra docs is not installed")
    guide = (ROOT / "examples/guide/README.md").read_text(encoding="utf-8")
    command = re.search(r"^    python -W ignore -m (pdoc .*)$", guide, re.MULTILINE)
    assert command is not None
    words = [sys.executable, "-m", *command.group(1).split(), "--output-directory", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for module, name in NAMES:
        if name != "consent":
            page = tmp_path / (module.__name__.replace(".", "/") + ".html")
            _, found, rest = page.read_text(encoding="utf-8").partition(f'<section id="{name}">')
            own = rest.partition("<section id=")[0].partition("<div id=")[0]
            assert found and 'class="docstring"' in own, f"{page} has no text for {name}"
    assert 'id="terminal"' in (tmp_path / "minimcp/client/consent.html").read_text(encoding="utf-8")
