"""Our client against servers nobody here wrote: each is a process that is walked through, and what came is looked at.

They live in the folder that MINIMCP_PEERS_DIR names, as `test_peers` describes it. Beside what is there, the npm prefix
`node` has `@modelcontextprotocol/server@2`, `@modelcontextprotocol/node@2`, `zod@4` and the servers
`@modelcontextprotocol/server-everything`, `server-filesystem` and `server-memory`; and there are the virtual
environments `fastmcp` (`fastmcp`) and `servers` (`mcp-server-time` and `mcp-server-git`).
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from minimcp.client.client import Client
from minimcp.client.errors import CallCancelled, RemoteError, ToolFailed
from minimcp.engines.errors import Timeout
from tests import official
from tests.helpers import Process, free_port
from tests.test_peers import node, outlives, peer_file

BOUND_S = 30
MARK = "MINIMCP_PEER_MARK"


class Server:
    """A server to be walked through: over HTTP in a process of its own, or as the command a client starts.

    :param command: the server; `{port}` in it is replaced.
    :param path: where it serves HTTP, or None for stdio.
    :param up: what a server over HTTP prints when it can be reached.
    :ivar target: what a client is given, with `env` beside it.
    """

    def __init__(self, command: list[str], path: str | None = None, up: str = "", cwd: str | None = None) -> None:
        self.env = {MARK: uuid.uuid4().hex}
        self.target: object = command
        self._process: Process | None = None
        if path is not None:
            port = free_port()
            self._process = Process(
                [word.replace("{port}", str(port)) for word in command], cwd, PORT=str(port), **self.env
            )
            try:
                self._process.wait_for(up, BOUND_S)
            except BaseException:
                self.stop()
                raise
            self.target = f"http://127.0.0.1:{port}{path}"

    def client(self, **options) -> Client:
        """A client of it, not yet open."""
        if self._process is None:
            options["env"] = {**options.get("env", {}), **self.env}
            options.setdefault("stderr", lambda line: None)
        return Client(self.target, timeout=20, **options)

    def stop(self) -> None:
        """End it, where it did not end with its client."""
        if self._process is not None:
            self._process.__exit__()

    def left(self) -> list[int]:
        """The processes of it that do not end by themselves."""
        mark = f"{MARK}={self.env[MARK]}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (folder / "environ").read_bytes() and outlives(int(folder.name)):
                    found.append(int(folder.name))
        return found


class Heard:
    """What a client was told and asked, for as long as it is waited for."""

    def __init__(self) -> None:
        self.logs: list[dict] = []
        self.notices: list[str] = []
        self.questions: list[dict] = []
        self.samples: list[dict] = []
        self._changed = threading.Condition()  # guards the lists above

    def log(self, params: dict) -> None:
        self._add(self.logs, params)

    def notice(self, message: dict) -> None:
        self._add(self.notices, message["method"])

    def sample(self, params: dict) -> dict:
        self._add(self.samples, params)
        return {"role": "assistant", "content": {"type": "text", "text": "Attic"}, "model": "a model"}

    def _add(self, where: list, what: object) -> None:
        with self._changed:
            where.append(what)
            self._changed.notify_all()

    def wait(self, true) -> bool:
        """Wait until `true()`, and say whether that happened."""
        with self._changed:
            return self._changed.wait_for(true, BOUND_S)


def package(name: str) -> str:
    """The program of a reference server."""
    return peer_file("node", "node_modules", "@modelcontextprotocol", name, "dist", "index.js")


def refused(call) -> RemoteError:
    """The error a call ends with."""
    with pytest.raises(RemoteError) as caught:
        call()
    return caught.value


# The server that has everything, through each of its transports.

TEXT = "demo://resource/dynamic/text/1"


@pytest.fixture(scope="module", params=["stdio", "streamableHttp", "sse"])
def everything(request):
    """A finished walk through server-everything: what came, by step."""
    command = [*node(), package("server-everything"), request.param]
    path = {"stdio": None, "streamableHttp": "/mcp", "sse": "/sse"}[request.param]
    server = Server(command, path, "listening on port|running on port")
    heard = Heard()

    def elicit(question):
        heard.questions.append(question)
        return True if question.url else {"name": "Ada", "integer": 7}

    seen: dict = {"heard": heard, "server": server}
    official.violations.clear()
    try:
        with server.client(
            elicit=elicit, sample=heard.sample, roots=["file:///tmp/a"], on_log=heard.log, on_notification=heard.notice
        ) as client:
            _walk_everything(client, heard, seen)
    finally:
        server.stop()
        seen["left"] = server.left()
    seen["violations"] = list(official.violations)
    return seen


def _walk_everything(client: Client, heard: Heard, seen: dict) -> None:
    seen["version"] = client.protocol_version
    seen["capabilities"] = client.capabilities
    seen["instructions"] = client.instructions
    seen["tools"] = {tool["name"]: tool for tool in client.list_tools()}
    seen["resources"] = client.list_resources()
    seen["templates"] = client.list_resource_templates()
    seen["prompts"] = client.list_prompts()
    seen["structured"] = client.call_tool("get-structured-content", location="Chicago")
    seen["image"] = client.call_tool("get-tiny-image")
    seen["links"] = client.call_tool("get-resource-links", count=2)
    seen["wrong"] = client.call_tool("get-sum", a="one", b=2)
    seen["text"] = client.read_resource(TEXT)
    seen["blob"] = client.read_resource("demo://resource/dynamic/blob/2")
    seen["unknown"] = refused(lambda: client.read_resource("demo://nothing"))
    seen["prompt"] = client.get_prompt("args-prompt", city="Oslo", state="Norway")
    seen["first"] = client.complete("department", "S", prompt="completable-prompt")
    seen["second"] = client.complete("name", "", prompt="completable-prompt", given={"department": "Sales"})
    seen["id"] = client.complete("resourceId", "1", template="demo://resource/dynamic/text/{resourceId}")
    call = client.start_tool("trigger-long-running-operation", {"duration": 0.2, "steps": 4})
    seen["progress"] = [(step["progress"], step["total"]) for step in call]
    seen["long"] = call.result()
    seen["form"] = client.call_tool("trigger-elicitation-request")
    seen["page"] = client.call_tool("trigger-url-elicitation", url="https://example.com/a", errorPath=True)
    seen["sampled"] = client.call_tool("trigger-sampling-request", prompt="Hello", maxTokens=20)
    seen["roots"] = client.call_tool("get-roots-list")
    client.set_log_level("debug")
    client.call_tool("toggle-simulated-logging")
    seen["logged"] = heard.wait(lambda: any("message" in str(log["data"]) for log in heard.logs))
    with client.listen(uris=[TEXT]) as changes:
        client.call_tool("toggle-subscriber-updates")
        seen["change"] = changes.receive(BOUND_S)
        client.call_tool("toggle-subscriber-updates")
    if seen["version"] < "2026-07-28":
        client.ping()
    with pytest.raises(Timeout):
        client.call_tool("trigger-long-running-operation", {"duration": 30, "steps": 1}, timeout=0.3)
    seen["after"] = client.call_tool("echo", message="still here")
    seen["task"] = client.call_tool("simulate-research-query", topic="tea")


def test_everything_says_what_it_is(everything):
    assert everything["version"] == "2025-11-25"
    assert {"tools", "prompts", "resources", "logging", "completions"} <= everything["capabilities"].keys()
    assert everything["instructions"].startswith("# Everything Server")


def test_everything_lists_what_it_has(everything):
    tools = everything["tools"]
    assert {"echo", "get-sum", "get-roots-list", "trigger-sampling-request", "trigger-url-elicitation"} <= tools.keys()
    assert tools["get-structured-content"]["outputSchema"]["required"] == ["temperature", "conditions", "humidity"]
    assert "demo://resource/static/document/features.md" in [found["uri"] for found in everything["resources"]]
    assert [found["uriTemplate"] for found in everything["templates"]] == [
        "demo://resource/dynamic/text/{resourceId}",
        "demo://resource/dynamic/blob/{resourceId}",
    ]
    assert [found["name"] for found in everything["prompts"]] == [
        "simple-prompt",
        "args-prompt",
        "completable-prompt",
        "resource-prompt",
    ]


def test_everything_answers_calls_reads_and_prompts(everything):
    assert everything["structured"].data == {
        "temperature": 36,
        "conditions": "Light rain / drizzle",
        "humidity": 82,
    }
    assert everything["image"].bytes.startswith(b"\x89PNG")
    assert [block["type"] for block in everything["links"]["content"]] == ["text", "resource_link", "resource_link"]
    assert everything["text"].text.startswith("Resource 1: This is a plaintext resource")
    assert everything["blob"].bytes.startswith(b"Resource 2: This is a base64 blob")
    assert everything["prompt"].text == "What's weather in Oslo, Norway?"


def test_everything_tells_an_error_of_a_tool_from_one_of_the_protocol(everything):
    assert everything["wrong"].is_error
    assert "Input validation error" in everything["wrong"].text
    assert everything["unknown"].code == -32602
    assert everything["task"].is_error and "-32601" in everything["task"].text, everything["task"]


def test_everything_completes_by_what_is_given(everything):
    assert everything["first"]["values"] == ["Sales", "Support"]
    assert everything["second"]["values"] == ["David", "Eve", "Frank"]
    assert everything["id"]["values"] == ["1"]


def test_everything_reports_each_step(everything):
    assert everything["progress"] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert everything["long"].text == "Long running operation completed. Duration: 0.2 seconds, Steps: 4."


def test_everything_has_its_questions_answered(everything):
    form, prerequisite, page = everything["heard"].questions
    assert form["requestedSchema"]["required"] == ["name"]
    assert "- Name: Ada" in everything["form"].text and "- Favorite Integer: 7" in everything["form"].text
    # What the person left out has its default.
    assert '"firstLine": "It was a dark and stormy night."' in everything["form"].text
    assert (prerequisite.url, page.url) == ("https://modelcontextprotocol.io", "https://example.com/a")
    assert "User completed the URL elicitation flow" in everything["page"].text
    (asked,) = everything["heard"].samples
    assert (asked["systemPrompt"], asked["maxTokens"]) == ("You are a helpful test server.", 20)
    assert '"text": "Attic"' in everything["sampled"].text
    assert "URI: file:///tmp/a" in everything["roots"].text


def test_everything_logs_and_tells_of_changes(everything):
    assert everything["logged"]
    assert everything["change"]["method"] == "notifications/resources/updated"
    assert everything["change"]["params"]["uri"] == TEXT


def test_everything_serves_on_after_a_call_was_given_up(everything):
    assert everything["after"].text == "Echo: still here"


def test_everything_is_left_behind_clean(everything):
    assert everything["violations"] == []
    assert everything["left"] == []


def test_everything_started_anew_is_met_anew():
    """It answers 400 to a session it does not know, where the specification has 404."""
    port = str(free_port())
    command = [*node(), package("server-everything"), "streamableHttp"]
    client = Client(f"http://127.0.0.1:{port}/mcp", timeout=20)
    for start in (1, 2):
        with Process(command, PORT=port) as server:
            server.wait_for("listening on port", BOUND_S)
            assert client.call_tool("get-sum", a=1, b=start).text == f"The sum of 1 and {start} is {1 + start}."
            if start == 2:
                client.close()


# Servers people use, over stdio.


@contextlib.contextmanager
def walking(command: list[str], **options):
    """An open client of a server over stdio, of which nothing may be left afterwards."""
    server = Server(command)
    with server.client(**options) as client:
        yield client
    assert server.left() == []


def test_the_filesystem_server_keeps_to_the_roots_it_is_told(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "note.txt").write_text("one\ntwo\n", encoding="utf-8")
    (outside / "secret.txt").write_text("secret", encoding="utf-8")
    told = threading.Event()

    def stderr(line: str) -> None:
        if "Updated allowed directories" in line:
            told.set()

    command = [*node(), package("server-filesystem"), str(outside)]
    with walking(command, roots=[inside], stderr=stderr) as client:
        assert client.protocol_version == "2025-11-25"
        assert client.server_info["name"] == "secure-filesystem-server"
        assert told.wait(BOUND_S)
        tools = {tool["name"]: tool for tool in client.list_tools()}
        assert tools["read_text_file"]["annotations"]["readOnlyHint"] is True
        path = str(inside / "note.txt")
        assert client.call_tool("read_text_file", path=path, head=1).data == {"content": "one"}
        client.call_tool("write_file", {"path": path, "content": "three\n" * 50_000}, check=True)
        assert client.call_tool("read_text_file", path=path).data["content"].count("three") == 50_000
        refusal = client.call_tool("read_text_file", path=str(outside / "secret.txt"))
        assert refusal.is_error and "Access denied" in refusal.text
        with pytest.raises(ToolFailed, match="Access denied"):
            client.call_tool("read_text_file", {"path": "/etc/passwd"}, check=True)
        assert client.list_resources() == client.list_prompts() == []


def test_the_memory_server_keeps_a_graph(tmp_path):
    command = [*node(), package("server-memory")]
    options = {"env": {"MEMORY_FILE_PATH": str(tmp_path / "memory.jsonl")}}
    ada = {"name": "Ada", "entityType": "person", "observations": ["writes programs"]}
    with walking(command, **options) as client:
        assert client.protocol_version == "2025-11-25"
        assert client.call_tool("create_entities", entities=[ada]).data == {"entities": [ada]}
        found = client.call_tool("search_nodes", query="programs")
        assert found.data["entities"] == [ada] and found.data["relations"] == []
    with walking(command, **options) as client:
        (graph,) = client.list_resources()
        assert json.loads(client.read_resource(graph["uri"]).text)["entities"][0]["name"] == "Ada"


ERAS = [("auto", "2026-07-28"), ("legacy", "2025-11-25")]


@pytest.mark.parametrize(("mode", "version"), ERAS)
def test_the_time_server_converts_times(mode, version):
    with walking([peer_file("servers", "bin", "mcp-server-time"), "--local-timezone=Etc/UTC"], mode=mode) as client:
        assert client.protocol_version == version
        assert client.server_info["name"] == "mcp-time"
        assert [tool["name"] for tool in client.list_tools()] == ["get_current_time", "convert_time"]
        times = {"source_timezone": "Etc/UTC", "time": "12:00", "target_timezone": "Asia/Kathmandu"}
        assert client.call_tool("convert_time", times).data["time_difference"] == "+5.75h"
        assert client.call_tool("get_current_time", timezone="Nowhere/Town").is_error
        assert refused(lambda: client.call_tool("nothing")).code == -32602


@pytest.mark.parametrize(("mode", "version"), ERAS)
def test_the_git_server_shows_a_commit(tmp_path, mode, version):
    def git(*arguments: str) -> None:
        given = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *given, *arguments], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)

    git("init", "--quiet")
    (tmp_path / "note.txt").write_text("one\n", encoding="utf-8")
    git("add", "note.txt")
    git("commit", "--quiet", "-m", "first note")
    (tmp_path / "note.txt").write_text("two\n", encoding="utf-8")
    command = [peer_file("servers", "bin", "mcp-server-git"), "--repository", str(tmp_path)]
    with walking(command, mode=mode) as client:
        assert client.protocol_version == version
        assert "git_log" in [tool["name"] for tool in client.list_tools()]
        repository = str(tmp_path)
        assert "first note" in client.call_tool("git_log", repo_path=repository, max_count=1).text
        assert "+two" in client.call_tool("git_diff_unstaged", repo_path=repository).text
        refusal = client.call_tool("git_status", repo_path=str(tmp_path.parent))
        assert refusal.is_error and "outside" in refusal.text


# Small servers made with what most servers are made with. They all have the same.

MADE = Path(__file__).resolve().parent / "peers" / "servers"
BOTH = [("auto", "2026-07-28"), ("legacy", "2025-11-25")]
OLD = [("auto", "2025-11-25"), ("legacy", "2025-11-25")]
KITS = {"python_sdk1": OLD, "python_sdk2": BOTH, "fastmcp_kit": BOTH, "typescript_sdk1": OLD, "typescript_sdk2": BOTH}
RUNS = [(kit, door, *era) for kit, eras in KITS.items() for door in ("stdio", "http") for era in eras]
RUNS.append(("python_sdk1", "sse", "auto", "2025-11-25"))
FOLDERS = {"python_sdk1": "sdk1", "python_sdk2": "sdk2", "fastmcp_kit": "fastmcp"}
RESUMABLE = {"python_sdk1", "python_sdk2", "typescript_sdk1", "typescript_sdk2"}
WITHOUT_LISTEN = {("fastmcp_kit", "2026-07-28")}
TOOLS = ["add", "fail", "steps", "book", "name_folder", "wait", "waited", "grow", "big", "polled"]


def made(kit: str, door: str) -> Server:
    """A server of ours made with somebody else's kit."""
    if kit in FOLDERS:
        command = [peer_file(FOLDERS[kit], "bin", "python"), str(MADE / f"{kit}.py")]
    else:
        peer_file("node", "node_modules", "@modelcontextprotocol", {"1": "sdk", "2": "node"}[kit[-1]])
        command = [*node(), str(MADE / f"{kit}.mjs"), peer_file("node")]
    if door == "stdio":
        return Server([*command, door])
    return Server([*command, door, "{port}"], {"http": "/mcp", "sse": "/sse"}[door], "^listening|Uvicorn running")


@pytest.fixture(scope="module", params=RUNS, ids="-".join)
def walked(request):
    """A finished walk through a server: what came, by step, and the revision it should have been in."""
    kit, door, mode, version = request.param
    heard = Heard()

    def elicit(question):
        heard.questions.append(question)
        return {"nights": 3} if len(heard.questions) == 1 else None

    seen: dict = {"kit": kit, "door": door, "expected": version, "heard": heard}
    # The first Python SDK has no code for what is not there.
    seen["missing"] = 0 if kit == "python_sdk1" else -32602
    official.violations.clear()
    server = made(kit, door)
    try:
        with server.client(
            mode=mode,
            elicit=elicit,
            sample=heard.sample,
            roots=[{"uri": "file:///tmp/a", "name": "A"}],
            on_log=heard.log,
            log_level="debug",
        ) as client:
            _walk(client, seen)
            _grow(client, seen, (kit, version) not in WITHOUT_LISTEN)
    finally:
        server.stop()
        seen["left"] = server.left()
    seen["violations"] = list(official.violations)
    return seen


def _walk(client: Client, seen: dict) -> None:
    seen["version"] = client.protocol_version
    seen["name"] = client.server_info["name"]
    seen["instructions"] = client.instructions
    seen["tools"] = client.list_tools()
    seen["resources"] = client.list_resources()
    seen["templates"] = client.list_resource_templates()
    seen["prompts"] = client.list_prompts()
    seen["add"] = client.call_tool("add", a=2, b=3)
    seen["fail"] = client.call_tool("fail")
    seen["wrong"] = client.call_tool("add", a="two")
    seen["read"] = client.read_resource("config://app")
    seen["template"] = client.read_resource("weather://Oslo/today")
    seen["unknown"] = refused(lambda: client.read_resource("nowhere://at/all"))
    seen["prompt"] = client.get_prompt("report", city="Oslo")
    seen["cities"] = client.complete("city", "Ber", prompt="report")
    seen["more cities"] = client.complete("city", "L", template="weather://{city}/today")
    call = client.start_tool("steps", {"count": 3})
    seen["progress"] = [(step["progress"], step["total"], step["message"]) for step in call]
    seen["steps"] = call.result()
    seen["booked"] = [client.call_tool("book", city=city) for city in ("Oslo", "Lima")]
    seen["named"] = client.call_tool("name_folder")
    call = client.start_tool("wait")
    assert next(call)["progress"] == 1, "it says that it has begun"
    call.cancel()
    with pytest.raises(CallCancelled):
        call.result()
    seen["waited"] = client.call_tool("waited")
    call = client.start_tool("polled")
    seen["polling"] = [step["message"] for step in call]
    seen["polled"] = call.result()
    with ThreadPoolExecutor(8) as threads:
        seen["together"] = list(threads.map(lambda n: _steps_and_sum(client, n), range(24)))
    seen["big"] = client.call_tool("big", size=3 * 1024 * 1024)


def _grow(client: Client, seen: dict, listens: bool) -> None:
    if not listens:
        assert refused(lambda: client.listen(tools=True)).code == -32601
        seen["change"] = None
        client.call_tool("grow", {"name": "newcomer"}, check=True)
    else:
        with client.listen(tools=True) as changes:
            client.call_tool("grow", {"name": "newcomer"}, check=True)
            seen["change"] = changes.receive(BOUND_S)
    seen["grown"] = client.list_tools()
    seen["newcomer"] = client.call_tool("newcomer")


def _steps_and_sum(client: Client, number: int) -> tuple:
    steps: list[float] = []
    client.call_tool("steps", {"count": number % 5}, progress=lambda step: steps.append(step["progress"]))
    return steps, client.call_tool("add", a=number, b=1).data["sum"]


def test_a_server_is_met_in_its_newest_revision(walked):
    assert (walked["version"], walked["name"]) == (walked["expected"], "peer")
    assert walked["instructions"] == "Ask for the sum."


def test_what_a_server_has_is_listed(walked):
    assert [tool["name"] for tool in walked["tools"]] == TOOLS
    assert walked["tools"][0]["inputSchema"]["required"] == ["a"]
    assert [found["uri"] for found in walked["resources"]] == ["config://app"]
    assert [found["uriTemplate"] for found in walked["templates"]] == ["weather://{city}/today"]
    (prompt,) = walked["prompts"]
    assert prompt["name"] == "report"
    assert [(argument["name"], argument["required"]) for argument in prompt["arguments"]] == [("city", True)]


def test_a_server_answers_calls_reads_prompts_and_completions(walked):
    assert walked["add"].data == {"sum": 5}
    assert walked["read"].text == "debug = no"
    assert json.loads(walked["template"].text) == {"city": "Oslo"}
    assert walked["prompt"].text == "Write a report on Oslo."
    assert walked["cities"]["values"] == ["Bergen", "Berlin"]
    assert walked["more cities"]["values"] == ["Lima"]


def test_a_server_s_errors_are_told_apart(walked):
    assert walked["fail"].is_error and "out of stock" in walked["fail"].text
    assert walked["wrong"].is_error
    assert walked["unknown"].code == walked["missing"]


def test_progress_and_log_messages_come_with_the_call(walked):
    assert walked["progress"] == [(1, 3, "step 1"), (2, 3, "step 2"), (3, 3, "step 3")]
    assert walked["steps"].text == "3 steps done"
    told = [log["data"] for log in walked["heard"].logs if log["level"] == "warning"]
    said = [data["msg"] if isinstance(data, dict) else data for data in told]
    # Those of the calls that came later may follow.
    assert said[:3] == ["did 1", "did 2", "did 3"]


def test_a_server_s_questions_are_answered(walked):
    heard = walked["heard"]
    assert [question.message for question in heard.questions] == [
        "How many nights in Oslo?",
        "How many nights in Lima?",
    ]
    assert [result.text for result in walked["booked"]] == ["booked 3 nights", "not booked: decline"]
    (asked,) = heard.samples
    assert asked["messages"] == [{"role": "user", "content": {"type": "text", "text": "Name the folder file:///tmp/a"}}]
    assert (asked["systemPrompt"], asked["maxTokens"]) == ("Be brief.", 20)
    assert walked["named"].text == "A is now Attic (a model)"


def test_eight_threads_that_share_a_client_get_what_is_theirs(walked):
    assert walked["together"] == [(list(range(1, number % 5 + 1)), number + 1) for number in range(24)]


def test_a_server_learns_that_a_call_was_given_up(walked):
    assert walked["waited"].data is True


def test_a_stream_that_the_server_hangs_up_is_gone_on_with(walked):
    assert walked["polling"] == ["before", "after"]
    hung_up = walked["door"] == "http" and walked["version"] == "2025-11-25" and walked["kit"] in RESUMABLE
    assert walked["polled"].data is hung_up


def test_an_answer_of_three_mebibytes_comes_whole(walked):
    assert len(walked["big"].text) == 3 * 1024 * 1024


def test_a_change_of_the_tools_is_told_and_seen(walked):
    if (walked["kit"], walked["version"]) not in WITHOUT_LISTEN:
        assert walked["change"]["method"] == "notifications/tools/list_changed"
        assert [tool["name"] for tool in walked["grown"]] == [*TOOLS, "newcomer"]
        assert walked["newcomer"].text == "I am newcomer"


def test_a_walk_leaves_nothing_behind_and_breaks_no_schema(walked):
    assert walked["violations"] == []
    assert walked["left"] == []
