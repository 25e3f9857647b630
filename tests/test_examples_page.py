"""Every command of examples/README.md prints what the page says."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.documents import ROOT, Page
from tests.fake_llm import FakeLLM, calls
from tests.helpers import serving

EXAMPLES = ROOT / "examples"


def test_every_command_prints_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("flask", "sqlalchemy", "django", "celery", "alembic", "nbclient"):
        pytest.importorskip(name)
    left = shutil.ignore_patterns("__pycache__", "*.db", "*.sqlite3", "report-queue")
    folder = tmp_path / "examples"
    shutil.copytree(EXAMPLES, folder, ignore=left)
    monkeypatch.chdir(folder)
    model = FakeLLM(calls(("weekday", {"day": "2026-07-28"})), "It is a Tuesday.")
    with serving(model) as url:
        Page(EXAMPLES / "README.md", folder, {"11434": url.rpartition(":")[2]}).run()


def test_the_page_names_every_example() -> None:
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    present = {
        path.name
        for path in EXAMPLES.iterdir()
        if path.suffix in (".py", ".ipynb") or (path.is_dir() and path.name != "__pycache__")
    }
    linked = {target.strip("/").split("/")[0] for target in re.findall(r"\]\(([^)#:]+)\)", page)}
    assert present <= linked, f"examples without a word: {present - linked}"
