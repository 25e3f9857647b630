"""The era bridge: clients of both eras, over each transport, in front of servers of both eras, over each transport.

A cell is one walk of a client through a gateway to a server that refuses the other era; every cell sees the same.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from minimcp import CallCancelled, Client, RemoteError
from tests.gateway_processes import ROOT, GatewayProcess, python, watched, write_config
from tests.helpers import Process

PROGRAM = str(ROOT / "tests" / "gateway_upstream.py")
BOUND_S = 60
PATIENT = {"listTimeout": 60}
VERSIONS = {"legacy": "2025-11-25", "modern": "2026-07-28"}
FRONTS = [("legacy", "http"), ("legacy", "sse"), ("legacy", "stdio"), ("modern", "http"), ("modern", "stdio")]
BACKS = [("legacy", "http"), ("legacy", "sse"), ("legacy", "stdio"), ("modern", "http"), ("modern", "stdio")]
CELLS = [(*front, *back) for front in FRONTS for back in BACKS]
TOOLS = ["add", "picture", "fail", "steps", "seen", "chat", "wait", "waiting", "given_up", "book", "travel"]
TOOLS += ["name_folder", "ran", "grow", "touch"]


class Front:
    """A client with everything, and what it was asked and told."""

    def __init__(self, target: Any, era: str) -> None:
        self.forms: list[dict[str, Any]] = []
        self.samples: list[dict[str, Any]] = []
        self.logs: list[dict[str, Any]] = []
        self._changed = threading.Condition()  # guards logs
        self.client = Client(
            target,
            mode=era,
            elicit=self._elicit,
            sample=self._sample,
            roots=[{"uri": "file:///tmp/a", "name": "A"}],
            on_log=self._log,
            log_level="info",
            timeout=BOUND_S,
            stderr=None,
        )

    def _elicit(self, question: Any) -> Any:
        self.forms.append({"message": question.message, "fields": sorted(question["requestedSchema"]["properties"])})
        answers: dict[str, Any] = {
            "How many nights in Oslo?": {"nights": 3},
            "Where to?": {"city": "Lima"},
            "With whom to Lima?": {"friend": "Eve"},
        }
        return answers.get(question.message)

    def _sample(self, params: dict[str, Any]) -> dict[str, Any]:
        self.samples.append(params)
        return {"role": "assistant", "content": {"type": "text", "text": "Attic"}, "model": "a model"}

    def _log(self, params: dict[str, Any]) -> None:
        with self._changed:
            self.logs.append(params)
            self._changed.notify_all()

    def logged(self, count: int) -> list[dict[str, Any]]:
        """What was logged, when that many messages are there."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.logs) >= count, BOUND_S)
            return list(self.logs)


@contextlib.contextmanager
def backed(era: str, door: str, folder: Path) -> Any:
    """The `mcpServers` entry of the server behind."""
    if door == "stdio":
        # Callers have processes of their own, which all follow the same data.
        news = folder / "news"
        news.touch()
        yield python(PROGRAM, era, "stdio", prefix="", env={"GATEWAY_NEWS": str(news)})
        return
    with Process([sys.executable, PROGRAM, era, door], cwd=str(ROOT), PYTHONPATH=str(ROOT)) as process:
        url = process.wait_for(r"listening on (\S+)")[1]
        yield {"url": url, "prefix": ""}
        assert not any("Traceback" in line for line in process.lines), "\n".join(process.lines)


@contextlib.contextmanager
def fronted(door: str, servers: dict[str, Any], folder: Path, trouble: list[str]) -> Any:
    """The target for a client of a gateway."""
    if door == "stdio":
        file = folder / "gateway.json"
        write_config(file, servers, **PATIENT)
        violations = folder / "violations"
        yield [*watched(violations), "gateway", str(file), "--stdio"]
        trouble += violations.read_text(encoding="utf-8").splitlines()
        return
    with GatewayProcess(servers, folder, **PATIENT) as gateway:
        yield gateway.url if door == "http" else gateway.url.replace("/mcp", "/sse")
        if gateway.terminate() != 0 or any("Traceback" in line for line in gateway.lines):
            trouble += gateway.lines
    trouble += gateway.violations.splitlines()


@pytest.fixture(scope="module", params=CELLS, ids="-".join)
def cell(request: Any, tmp_path_factory: Any) -> Any:
    """A finished walk: what came, by step."""
    client_era, front_door, server_era, back_door = request.param
    seen: dict[str, Any] = {"client": client_era, "server": server_era, "front": front_door, "trouble": []}
    folder = tmp_path_factory.mktemp("cell")
    with backed(server_era, back_door, folder) as entry:
        with fronted(front_door, {"up": entry}, folder, seen["trouble"]) as target:
            front = Front(target, client_era)
            seen["heard"] = front
            with front.client as client:
                walk(client, front, seen)
    return seen


def walk(client: Client, front: Front, seen: dict[str, Any]) -> None:
    """Use everything once."""
    seen["version"] = client.protocol_version
    seen["instructions"] = client.instructions
    seen["tools"] = client.list_tools()
    seen["resources"] = client.list_resources()
    seen["templates"] = client.list_resource_templates()
    seen["prompts"] = client.list_prompts()
    seen["add"] = client.call_tool("add", a=2, b=3)
    seen["picture"] = client.call_tool("picture")
    seen["fail"] = client.call_tool("fail")
    with pytest.raises(RemoteError) as caught:
        client.call_tool("nothing")
    seen["unknown"] = caught.value
    seen["wrong"] = client.call_tool("add", a="two")
    seen["read"] = client.read_resource("config://app")
    seen["template"] = client.read_resource("weather://Oslo/today")
    with pytest.raises(RemoteError) as caught:
        client.read_resource("nowhere://at/all")
    seen["nowhere"] = caught.value
    seen["prompt"] = client.get_prompt("report", city="Oslo")
    seen["cities"] = client.complete("city", "Ber", prompt="report")
    seen["more cities"] = client.complete("city", "L", template="weather://{city}/today")
    steps = client.start_tool("steps", {"count": 3})
    seen["progress"] = []
    for step in steps:
        seen["progress"].append((step["progress"], step["total"], step["message"]))
        client.call_tool("seen")
    seen["steps"] = steps.result()
    seen["chat"] = client.call_tool("chat")
    seen["logs"] = front.logged(2)
    waiting = client.start_tool("wait")
    assert client.call_tool("waiting").data is True
    waiting.cancel()
    with pytest.raises(CallCancelled):
        waiting.result()
    seen["given up"] = client.call_tool("given_up")
    seen["booked"] = [client.call_tool("book", city=city).text for city in ("Oslo", "Lima")]
    seen["travelled"] = client.call_tool("travel")
    seen["named"] = client.call_tool("name_folder")
    seen["ran"] = client.call_tool("ran").data
    with client.listen(tools=True) as changes:
        seen["grew"] = client.call_tool("grow", {"name": "newcomer"})
        seen["tools changed"] = changes.receive(BOUND_S)
    seen["grown"] = client.list_tools(fresh=True)
    seen["newcomer"] = client.call_tool("newcomer")
    with client.listen(uris=["config://app"]) as changes:
        client.call_tool("touch")
        seen["resource changed"] = changes.receive(BOUND_S)


def test_the_client_speaks_its_own_revision(cell: Any) -> None:
    assert cell["version"] == VERSIONS[cell["client"]]
    assert "Ask for the sum." in cell["instructions"]


def test_everything_is_listed_in_order_over_all_pages(cell: Any) -> None:
    assert [tool["name"] for tool in cell["tools"]] == TOOLS
    add = cell["tools"][0]
    assert add["description"] == "Add two numbers."
    assert add["annotations"] == {"readOnlyHint": True}
    assert add["_meta"] == {"com.example/kept": [1, None, {"deep": False}]}
    assert add["inputSchema"]["properties"] == {"a": {"type": "integer"}, "b": {"type": "integer", "default": 1}}
    assert [each["uri"] for each in cell["resources"]] == ["config://app"]
    assert [each["uriTemplate"] for each in cell["templates"]] == ["weather://{city}/today"]
    assert [each["name"] for each in cell["prompts"]] == ["report"]


def test_calls_are_answered(cell: Any) -> None:
    assert cell["add"].data == {"sum": 5}
    assert cell["picture"]["content"] == [
        {"type": "text", "text": "one pixel"},
        {"type": "image", "data": "iVBORw==", "mimeType": "image/png"},
    ]
    assert cell["fail"].is_error and cell["fail"].text == "out of stock"
    assert cell["wrong"].is_error
    assert (cell["unknown"].code, cell["unknown"].message) == (-32602, "Unknown tool: nothing")
    # The two eras have different codes for it.
    assert cell["nowhere"].code == {"legacy": -32002, "modern": -32602}[cell["client"]]


def test_resources_prompts_and_completions_are_answered(cell: Any) -> None:
    assert cell["read"]["contents"] == [{"uri": "config://app", "mimeType": "text/plain", "text": "debug = no"}]
    assert cell["template"]["contents"][0]["uri"] == "weather://Oslo/today"
    assert cell["prompt"].text == "Write a report on Oslo."
    assert cell["cities"]["values"] == ["Bergen", "Berlin"]
    assert cell["more cities"]["values"] == ["Lima"]


def test_each_step_is_reported_while_the_call_runs(cell: Any) -> None:
    assert cell["progress"] == [(1, 3, "step 1"), (2, 3, "step 2"), (3, 3, "step 3")]
    assert cell["steps"].text == "3 steps done"


def test_log_messages_come_from_the_level_that_the_client_wants(cell: Any) -> None:
    assert cell["chat"].text == "logged"
    assert [(log["level"], log["data"], log["logger"]) for log in cell["logs"]] == [
        ("info", {"said": "info"}, "chat"),
        ("error", {"said": "error"}, "chat"),
    ]


def test_a_call_that_is_given_up_is_given_up_at_the_server(cell: Any) -> None:
    assert cell["given up"].data is True


def test_questions_are_asked_and_answered_one_by_one(cell: Any) -> None:
    heard = cell["heard"]
    assert heard.forms == [
        {"message": "How many nights in Oslo?", "fields": ["nights"]},
        {"message": "How many nights in Lima?", "fields": ["nights"]},
        {"message": "Where to?", "fields": ["city"]},
        {"message": "With whom to Lima?", "fields": ["friend"]},
    ]
    assert cell["booked"] == ["booked 3 nights in Oslo", "not booked: decline"]
    assert cell["travelled"].text == "to Lima with Eve"


def test_the_client_tells_its_roots_and_has_its_model_write(cell: Any) -> None:
    assert cell["named"].text == "A is now Attic (a model)"
    (asked,) = cell["heard"].samples
    assert asked["messages"] == [{"role": "user", "content": {"type": "text", "text": "Name the folder file:///tmp/a"}}]
    assert (asked["systemPrompt"], asked["maxTokens"]) == ("Be brief.", 20)


def test_a_legacy_server_runs_a_tool_that_asks_once_and_a_modern_one_once_more_per_round(cell: Any) -> None:
    once = {"book": 2, "name_folder": 1, "travel": 1}
    assert cell["ran"] == (once if cell["server"] == "legacy" else {"book": 4, "name_folder": 3, "travel": 3})


def test_a_change_of_the_tools_is_told_and_seen(cell: Any) -> None:
    assert cell["grew"].text == "newcomer is there"
    assert cell["tools changed"]["method"] == "notifications/tools/list_changed"
    assert [tool["name"] for tool in cell["grown"]] == [*TOOLS, "newcomer"]
    assert cell["newcomer"].text == "I am newcomer"


def test_a_change_of_a_resource_is_told(cell: Any) -> None:
    assert cell["resource changed"]["method"] == "notifications/resources/updated"
    assert cell["resource changed"]["params"]["uri"] == "config://app"


def test_nothing_breaks_a_schema_and_the_gateway_ends_well(cell: Any) -> None:
    assert cell["trouble"] == []
