"""The official suite's server scenarios, directly and through a gateway: the results are the same, check by check.

The suite is looked for as in `test_conformance`, which holds the direct results to what the revision requires.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.gateway_processes import ROOT, GatewayProcess, python
from tests.helpers import Process
from tests.test_conformance import BOUND_S, LATER, REQUIRED, problems_in, read_checks, suite

SERVER = str(ROOT / "tests" / "conformance" / "everything_server.py")
# A server that hangs up in the middle of a call does so to the gateway, which comes back for the result and has no
# reason to hang up on its own client; so the scenario finds nothing to look at, and nothing wrong.
OWN = {"server-sse-polling"}

Results = dict[str, list[tuple[str, str]]]


def scenarios(url: str, revision: str, folder: Path) -> tuple[Results, list[str]]:
    """The checks of each scenario with their status, and what did not pass."""
    command = [*suite(), "server", "--url", url, "--requirements", revision, "--output-dir", str(folder)]
    with Process(command, cwd=str(folder)) as run:
        run.child.wait(BOUND_S)
    everything = read_checks(folder, "server-")
    checks = {name: found for name, found in everything.items() if not name.startswith(LATER)}
    assert len(checks) >= REQUIRED[revision], "\n".join(run.lines[-20:])
    return {name: _statuses(found) for name, found in checks.items()}, problems_in(checks)


def _statuses(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return sorted((check["id"], check["status"]) for check in found)


def _nothing_wrong(found: Any) -> bool:
    return bool(found) and all(status in ("SUCCESS", "INFO") for _, status in found)


@pytest.fixture(scope="module")
def direct(tmp_path_factory: Any) -> Any:
    """The results without a gateway, by revision; each is taken once."""
    taken: dict[str, Results] = {}

    def results(revision: str) -> Results:
        if revision not in taken:
            with Process([sys.executable, SERVER, "--port", "0"], cwd=str(ROOT), PYTHONPATH=str(ROOT)) as process:
                url = process.wait_for(r"listening on (\S+)")[1]
                taken[revision] = scenarios(url, revision, tmp_path_factory.mktemp("direct"))[0]
        return taken[revision]

    return results


@pytest.mark.parametrize("revision", REQUIRED)
@pytest.mark.parametrize("door", ["http", "stdio"])
def test_each_scenario_ends_through_the_gateway_as_it_does_directly(
    door: str, revision: str, direct: Any, tmp_path: Path
) -> None:
    expected = direct(revision)
    suite_folder = tmp_path / "suite"
    suite_folder.mkdir()
    if door == "stdio":
        entry = python("-m", "minimcp", "run", SERVER)
        with GatewayProcess({"everything": {**entry, "prefix": ""}}, tmp_path) as gateway:
            found, problems = scenarios(gateway.url, revision, suite_folder)
            assert gateway.terminate() == 0
    else:
        with Process([sys.executable, SERVER, "--port", "0"], cwd=str(ROOT), PYTHONPATH=str(ROOT)) as process:
            url = process.wait_for(r"listening on (\S+)")[1]
            with GatewayProcess({"everything": {"url": url, "prefix": ""}}, tmp_path) as gateway:
                found, problems = scenarios(gateway.url, revision, suite_folder)
                assert gateway.terminate() == 0
    different = {
        name: {"directly": expected.get(name), "through": found.get(name)}
        for name in expected.keys() | found.keys()
        if expected.get(name) != found.get(name) and not (name in OWN and _nothing_wrong(found.get(name, ())))
    }
    assert not different, "\n".join([*(f"{name}: {each}" for name, each in sorted(different.items())), *problems])
    assert not any("Traceback" in line for line in gateway.lines), "\n".join(gateway.lines)
    assert gateway.violations == ""
