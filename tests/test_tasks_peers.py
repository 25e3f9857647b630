"""Other implementations of the tasks extension: their clients against our server, and our client against theirs.

They live in the folder that MINIMCP_PEERS_DIR names: `@modelcontextprotocol/ext-tasks` in the npm prefix `node`, and
`fastmcp[tasks]` in the virtual environment `fastmcp`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from minimcp import CallCancelled, Client, ConnectionLost
from tests.helpers import Process, free_port
from tests.test_peers import HERE, node, peer_file, run

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = str(ROOT / "examples" / "tasks.py")
RESULTS = [
    ("count_primes", "669", []),
    ("send_letters", "Sent 2 letters.", ["Send 2 letters?"]),
    ("report", "The report of 2020 is in the archive.", []),
    ("report", "The report of 2027 is new.", []),
]


def fastmcp() -> str:
    """The interpreter that has FastMCP and its tasks."""
    python = peer_file("fastmcp", "bin", "python")
    if run([python, "-c", "import fastmcp_tasks"]).returncode != 0:
        pytest.skip("fastmcp in MINIMCP_PEERS_DIR has no tasks: install fastmcp[tasks]")
    return python


def steps(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_the_official_client_follows_our_tasks():
    peer_file("node", "node_modules", "@modelcontextprotocol", "ext-tasks")
    with Process([sys.executable, "-m", "minimcp", "run", EXAMPLE, "--http", "0"], cwd=str(ROOT)) as server:
        url = server.wait_for(r"tasks is listening on (http://\S+/mcp)")[1]
        seen = steps(run([*node(), str(HERE / "ext_tasks.mjs"), peer_file("node"), url]))
    assert [(each["step"], each["text"], each["asked"]) for each in seen[:-1]] == RESULTS
    assert [each["kind"] for each in seen[:-1]] == ["task", "task", "immediate", "task"]
    assert seen[-1] == {"step": "cancelled", "status": "cancelled"}


def test_fastmcps_client_follows_our_tasks():
    seen = steps(
        run([fastmcp(), str(HERE / "fastmcp_tasks_client.py"), sys.executable, "-m", "minimcp", "run", EXAMPLE])
    )
    assert [(each["step"], each["text"], each["asked"]) for each in seen[:-1]] == RESULTS
    assert seen[-1] == {"step": "cancelled", "status": "cancelled"}


def test_our_client_follows_fastmcps_tasks():
    port = free_port()
    command = [fastmcp(), str(HERE / "servers" / "fastmcp_tasks_server.py"), str(port)]
    with Process(command) as server:
        client, until = Client(f"http://127.0.0.1:{port}/mcp", tasks=True), time.monotonic() + 60
        while True:
            try:
                client.open()
                break
            except ConnectionLost:
                client.close()
                assert time.monotonic() < until and server.child.poll() is None, server.lines
        with client:
            added = client.start_tool("add", {"a": 1, "b": 2})
            assert added.result().data == 3 and added.task_id
            failed = client.call_tool("fail", {})
            assert failed.is_error and "no paper" in failed.text
            id = client.start_tool("forever", {}).detach(20)
            again = client.task(id)
            again.detach(20)
            again = client.task(id)
            again.cancel()
            with pytest.raises(CallCancelled):
                again.result()
            assert client.request("tasks/get", {"taskId": id})["status"] == "cancelled"
