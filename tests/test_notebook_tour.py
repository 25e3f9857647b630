"""The example `examples/notebook_tour.ipynb`: every cell runs without an error, with Jupyter and without it."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from minimcp import Client
from tests.transports import ROOT

NOTEBOOK = ROOT / "examples" / "notebook_tour.ipynb"

# Without Jupyter: the code of the cells in order, with a standard error that has no file number.
PLAIN = """
import io, json, sys
sys.stderr = io.StringIO()
tour = {"__name__": "__main__"}
for cell in json.load(open("notebook_tour.ipynb", encoding="utf-8"))["cells"]:
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), cell["id"], "exec"), tour)
traces = [list(map(tour["what"], tour[era])) for era in ("legacy", "modern")]
print(json.dumps([tour["primes"][-1], tour["booked"], traces]))
"""
# With Jupyter: the outputs of each cell.
JUPYTER = """
import json, nbclient, nbformat
notebook = nbformat.read("notebook_tour.ipynb", as_version=4)
nbformat.validate(notebook)
nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
print(json.dumps([cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"]))
"""


@pytest.fixture
def run(tmp_path: Any) -> Any:
    """Runs code in a folder that has what the notebook needs, and returns what it prints last, as JSON."""
    for needed in (NOTEBOOK, ROOT / "examples" / "ask.py", ROOT / "examples" / "progress.py", ROOT / "minimcp"):
        (tmp_path / needed.name).symlink_to(needed)

    def run(code: str) -> Any:
        # A kernel and its settings are those of this interpreter.
        env = {**os.environ, "PYTHONPATH": str(tmp_path), "JUPYTER_PREFER_ENV_PATH": "1", "IPYTHONDIR": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_the_cells_run_in_order_without_jupyter(run: Any) -> None:
    prime, booked, (legacy, modern) = run(PLAIN)
    assert prime == 499979 and booked == "Booked a table for 2 at 20:00."
    assert legacy == [
        "→ initialize",
        "← result of initialize",
        "→ notifications/initialized",
        "→ tools/call",
        "← elicitation/create",
        "→ result of elicitation/create",
        "← result of tools/call",
        "→ tools/list",
        "← result of tools/list",
    ]
    assert modern == [
        "→ server/discover",
        "← complete of server/discover",
        "→ tools/call",
        "← input_required of tools/call",
        "→ tools/call",
        "← complete of tools/call",
        "→ tools/list",
        "← complete of tools/list",
    ]


@pytest.mark.skipif(importlib.util.find_spec("nbclient") is None, reason="nbclient is not installed")
@pytest.mark.skipif(importlib.util.find_spec("ipykernel") is None, reason="ipykernel is not installed")
def test_the_cells_run_in_jupyter(run: Any) -> None:
    outputs = run(JUPYTER)
    kinds = [output["output_type"] for cell in outputs for output in cell]
    assert "error" not in kinds
    assert not [output for cell in outputs for output in cell if output.get("name") == "stderr"]
    shown = "".join(str(output) for cell in outputs for output in cell)
    assert "<table>" in shown and "[#" in shown and "The server asks: A table at Noma" in shown


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert [cell["outputs"] for cell in cells if cell["cell_type"] == "code"] == [[]] * 8
    assert all(cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")


@pytest.mark.parametrize("stderr", [io.StringIO(), None], ids=["no file number", "none at all"])
def test_a_server_can_be_started_without_a_standard_error(stderr: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.chdir(ROOT)
    with Client([sys.executable, "-m", "minimcp", "run", "examples/hello.py"], trace=True) as client:
        assert client.call_tool("weekday", day="2026-07-28").text == "Tuesday"
    assert stderr is None or '"tools/call"' in stderr.getvalue()
