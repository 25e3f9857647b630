"""The official clients through a gateway, to servers of either era over either transport: the walk of `test_peers`."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.gateway_processes import ROOT, GatewayProcess, python
from tests.helpers import Process
from tests.test_peers import (  # noqa: F401
    Seen,
    leftovers,
    peer_command,
    run,
    test_a_peer_accepts_one_question_and_declines_another,
    test_a_peer_calls_tools_and_reads_their_content_and_errors,
    test_a_peer_completes_arguments_of_prompts_and_templates,
    test_a_peer_ends_without_trouble_and_leaves_nothing_behind,
    test_a_peer_gets_a_prompt,
    test_a_peer_gets_each_progress_report_while_the_call_runs,
    test_a_peer_hears_of_a_new_tool_and_calls_it,
    test_a_peer_lists_everything_in_order_over_all_pages,
    test_a_peer_meets_the_server_in_the_expected_revision,
    test_a_peer_reads_a_resource_and_a_template,
    test_a_peer_tells_its_roots_and_has_its_model_write,
)

CASES = [
    ("python_client_v1.py", "default", "2025-11-25"),
    ("python_client_v2.py", "auto", "2026-07-28"),
    ("typescript_client_v1.mjs", "default", "2025-11-25"),
    ("typescript_client_v2.mjs", "auto", "2026-07-28"),
]
BACKS = [("legacy", "stdio"), ("legacy", "http"), ("modern", "stdio"), ("modern", "http")]
RUNS = [(*case, *back) for case in CASES for back in BACKS]
PROGRAM = "import sys; from tests import gateway_upstream; from tests.peers.server import server; "
PROGRAM += "gateway_upstream.serve(server, *sys.argv[1:3])"


def run_id(case: tuple[str, ...]) -> str:
    """The name of a run in the report."""
    return "-".join((case[0].rsplit(".")[0].replace("_client_", "-"), *case[3:]))


@pytest.fixture(scope="module", params=RUNS, ids=run_id)
def case(request: Any, tmp_path_factory: Any) -> dict[str, Any]:
    """A finished run: what the peer saw, the revision it should have used, and how the gateway ended."""
    peer, mode, version, era, door = request.param
    command = peer_command(peer, mode)
    folder: Path = tmp_path_factory.mktemp("peer")
    arguments = ("-c", PROGRAM, era, door, str(folder))
    if door == "stdio":
        # One process for all, since a tool that is registered in it is nowhere else.
        done, gateway, code = walked(command, python(*arguments, sessions="shared"), folder)
    else:
        with Process([sys.executable, *arguments], cwd=str(ROOT), PYTHONPATH=str(ROOT)) as process:
            url = process.wait_for(r"listening on (\S+)")[1]
            done, gateway, code = walked(command, {"url": url}, folder)
    return {
        "peer": peer,
        "seen": Seen(done),
        "version": version,
        "info": {"name": "peers", "version": "1.2.3"},
        "instructions": "Ask for the sum.",
        "pages": 1,
        "served": SimpleNamespace(log="\n".join(gateway.lines), violations=folder / "violations"),
        "code": code,
        "left": leftovers(str(folder)),
    }


def walked(command: list[str], entry: dict[str, Any], folder: Path) -> tuple[Any, GatewayProcess, int]:
    """What a peer printed, its gateway, and how that ended."""
    servers = {"up": {**entry, "prefix": ""}}
    with GatewayProcess(servers, folder, name="peers", version="1.2.3", listTimeout=60) as gateway:
        done = run([*command, gateway.url])
        return done, gateway, gateway.terminate()


@pytest.fixture
def seen(case: dict[str, Any]) -> Seen:
    """What the peer of a run saw."""
    return case["seen"]
