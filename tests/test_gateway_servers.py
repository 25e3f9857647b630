"""Servers nobody here wrote behind a gateway, with clients of either era in front: the walks of `test_peer_servers`."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minimcp import Client
from tests import official
from tests.gateway_processes import GatewayProcess
from tests.test_peer_servers import (  # noqa: F401
    BOUND_S,
    TOOLS,
    Heard,
    Server,
    _walk,
    _walk_everything,
    made,
    package,
    refused,
    test_a_server_answers_calls_reads_prompts_and_completions,
    test_a_server_learns_that_a_call_was_given_up,
    test_a_server_s_errors_are_told_apart,
    test_a_server_s_questions_are_answered,
    test_a_stream_that_the_server_hangs_up_is_gone_on_with,
    test_a_walk_leaves_nothing_behind_and_breaks_no_schema,
    test_an_answer_of_three_mebibytes_comes_whole,
    test_eight_threads_that_share_a_client_get_what_is_theirs,
    test_everything_answers_calls_reads_and_prompts,
    test_everything_completes_by_what_is_given,
    test_everything_has_its_questions_answered,
    test_everything_is_left_behind_clean,
    test_everything_lists_what_it_has,
    test_everything_logs_and_tells_of_changes,
    test_everything_reports_each_step,
    test_everything_serves_on_after_a_call_was_given_up,
    test_everything_tells_an_error_of_a_tool_from_one_of_the_protocol,
    test_progress_and_log_messages_come_with_the_call,
    test_what_a_server_has_is_listed,
)
from tests.test_peers import node, peer_file

VERSIONS = {"legacy": "2025-11-25", "modern": "2026-07-28"}
# A kit, its transport, the era in which the gateway speaks with it, and that of the client.
RUNS = [
    ("python_sdk1", "stdio", "legacy", "modern"),
    ("python_sdk1", "http", "legacy", "legacy"),
    ("python_sdk1", "sse", "legacy", "modern"),
    ("python_sdk2", "stdio", "modern", "legacy"),
    ("python_sdk2", "http", "modern", "modern"),
    ("python_sdk2", "http", "legacy", "modern"),
    ("fastmcp_kit", "stdio", "modern", "modern"),
    ("fastmcp_kit", "http", "legacy", "modern"),
    ("fastmcp_kit", "http", "modern", "legacy"),
    ("typescript_sdk1", "http", "legacy", "modern"),
    ("typescript_sdk2", "http", "modern", "legacy"),
]


@contextlib.contextmanager
def through(server: Server, folder: Path, mode: str, entry: dict[str, Any], **options: Any) -> Iterator[Client]:
    """An open client of a gateway with one server, of which nothing may be left afterwards."""
    if isinstance(server.target, str):
        entry = {"url": server.target, **entry}
    else:
        program, *arguments = server.target
        entry = {"command": program, "args": arguments, **entry, "env": {**server.env, **entry.get("env", {})}}
    with GatewayProcess({"up": {"prefix": "", **entry}}, folder, listTimeout=60) as gateway:
        with Client(gateway.url, mode=mode, timeout=20, **options) as client:
            assert client.protocol_version == VERSIONS[mode]
            yield client
        assert gateway.terminate() == 0
        assert not any("Traceback" in line for line in gateway.lines), "\n".join(gateway.lines)
        assert gateway.violations == ""


@pytest.fixture(scope="module", params=RUNS, ids="-".join)
def walked(request: Any, tmp_path_factory: Any) -> dict[str, Any]:
    """A finished walk: what came, by step."""
    kit, door, era, mode = request.param
    heard = Heard()

    def elicit(question: Any) -> Any:
        heard.questions.append(question)
        return {"nights": 3} if len(heard.questions) == 1 else None

    seen: dict[str, Any] = {"kit": kit, "door": door, "heard": heard}
    # The legacy era has a code of its own for what is not there, and the first Python SDK has none.
    seen["missing"] = 0 if kit == "python_sdk1" else -32002 if mode == "legacy" else -32602
    official.violations.clear()
    server = made(kit, door)
    options: dict[str, Any] = {"elicit": elicit, "sample": heard.sample, "on_log": heard.log, "log_level": "debug"}
    options["roots"] = [{"uri": "file:///tmp/a", "name": "A"}]
    try:
        entry = {"mode": "legacy"} if era == "legacy" else {}
        with through(server, tmp_path_factory.mktemp("kit"), mode, entry, **options) as client:
            _walk(client, seen)
    finally:
        server.stop()
        seen["left"] = server.left()
    seen["version"] = VERSIONS[era]
    seen["violations"] = list(official.violations)
    return seen


@pytest.fixture(
    scope="module",
    params=[("stdio", "legacy"), ("stdio", "modern"), ("streamableHttp", "legacy"), ("sse", "modern")],
    ids="-".join,
)
def everything(request: Any, tmp_path_factory: Any) -> dict[str, Any]:
    """A finished walk through server-everything: what came, by step."""
    door, mode = request.param
    command = [*node(), package("server-everything"), door]
    path = {"stdio": None, "streamableHttp": "/mcp", "sse": "/sse"}[door]
    server = Server(command, path, "listening on port|running on port")
    heard = Heard()

    def elicit(question: Any) -> Any:
        heard.questions.append(question)
        return True if question.url else {"name": "Ada", "integer": 7}

    seen: dict[str, Any] = {"heard": heard, "server": server}
    official.violations.clear()
    options: dict[str, Any] = {"elicit": elicit, "sample": heard.sample, "roots": ["file:///tmp/a"]}
    options.update(on_log=heard.log, on_notification=heard.notice)
    try:
        with through(server, tmp_path_factory.mktemp("everything"), mode, {}, **options) as client:
            _walk_everything(client, heard, seen)
    finally:
        server.stop()
        seen["left"] = server.left()
    seen["violations"] = list(official.violations)
    return seen


def test_the_filesystem_server_keeps_to_the_roots_of_the_session(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "note.txt").write_text("one\ntwo\n", encoding="utf-8")
    (outside / "secret.txt").write_text("secret", encoding="utf-8")
    server = Server([*node(), package("server-filesystem"), str(outside)])
    path = str(inside / "note.txt")
    with through(server, tmp_path, "legacy", {}, roots=[inside]) as client:
        tools = {tool["name"]: tool for tool in client.list_tools()}
        assert tools["read_text_file"]["annotations"]["readOnlyHint"] is True
        # It asks for the roots by itself, some time after the beginning of the session.
        until = time.monotonic() + BOUND_S
        while (read := client.call_tool("read_text_file", path=path, head=1)).is_error and time.monotonic() < until:
            threading.Event().wait(0.05)
        assert read.data == {"content": "one"}
        client.call_tool("write_file", {"path": path, "content": "three\n" * 50_000}, check=True)
        assert client.call_tool("read_text_file", path=path).data["content"].count("three") == 50_000
        refusal = client.call_tool("read_text_file", path=str(outside / "secret.txt"))
        assert refusal.is_error and "Access denied" in refusal.text
    assert server.left() == []


def test_the_filesystem_server_keeps_to_its_own_folders_where_nobody_can_be_asked(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("one\n", encoding="utf-8")
    server = Server([*node(), package("server-filesystem"), str(tmp_path)])
    with through(server, tmp_path, "modern", {}, roots=["file:///elsewhere"]) as client:
        assert client.call_tool("read_text_file", path=str(tmp_path / "note.txt")).data == {"content": "one\n"}
        refusal = client.call_tool("read_text_file", path="/etc/passwd")
        assert refusal.is_error and "Access denied" in refusal.text
    assert server.left() == []


@pytest.mark.parametrize("mode", VERSIONS)
def test_the_time_server_converts_times(mode: str, tmp_path: Path) -> None:
    server = Server([peer_file("servers", "bin", "mcp-server-time"), "--local-timezone=Etc/UTC"])
    with through(server, tmp_path, mode, {}) as client:
        assert [tool["name"] for tool in client.list_tools()] == ["get_current_time", "convert_time"]
        times = {"source_timezone": "Etc/UTC", "time": "12:00", "target_timezone": "Asia/Kathmandu"}
        assert client.call_tool("convert_time", times).data["time_difference"] == "+5.75h"
        assert client.call_tool("get_current_time", timezone="Nowhere/Town").is_error
        assert refused(lambda: client.call_tool("nothing")).code == -32602
    assert server.left() == []


@pytest.mark.parametrize("mode", VERSIONS)
def test_the_git_server_shows_a_commit(mode: str, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()

    def git(*arguments: str) -> None:
        given = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *given, *arguments], cwd=repository, check=True, stdout=subprocess.DEVNULL)

    git("init", "--quiet")
    (repository / "note.txt").write_text("one\n", encoding="utf-8")
    git("add", "note.txt")
    git("commit", "--quiet", "-m", "first note")
    server = Server([peer_file("servers", "bin", "mcp-server-git"), "--repository", str(repository)])
    with through(server, tmp_path, mode, {}) as client:
        assert "first note" in client.call_tool("git_log", repo_path=str(repository), max_count=1).text
        refusal = client.call_tool("git_status", repo_path=str(tmp_path))
        assert refusal.is_error and "outside" in refusal.text
    assert server.left() == []


def test_six_servers_of_all_kinds_are_one(tmp_path: Path) -> None:
    everything = Server([*node(), package("server-everything"), "stdio"])
    clock = Server([peer_file("servers", "bin", "mcp-server-time"), "--local-timezone=Etc/UTC"])
    kits = {
        "one": made("python_sdk1", "http"),
        "two": made("python_sdk2", "stdio"),
        "fast": made("fastmcp_kit", "http"),
    }
    kits["sse"] = made("python_sdk1", "sse")
    servers: dict[str, Any] = {}
    for name, each in {"everything": everything, "time": clock, **kits}.items():
        if isinstance(each.target, str):
            servers[name] = {"url": each.target}
        else:
            servers[name] = {"command": each.target[0], "args": each.target[1:], "env": each.env}
    try:
        with GatewayProcess(servers, tmp_path, listTimeout=60) as gateway:
            for mode in VERSIONS:
                with Client(gateway.url, mode=mode, timeout=20, elicit=lambda question: {"nights": 2}) as client:
                    names = {tool["name"] for tool in client.list_tools()}
                    for kit in kits:
                        assert {f"{kit}_{tool}" for tool in TOOLS} <= names
                        assert client.call_tool(f"{kit}_add", a=2, b=3).data == {"sum": 5}
                        assert client.call_tool(f"{kit}_book", city="Oslo").text == "booked 2 nights"
                        assert client.read_resource(f"{kit}+config://app").text == "debug = no"
                    assert client.call_tool("everything_echo", message="hello").text == "Echo: hello"
                    assert not client.call_tool("time_get_current_time", timezone="Etc/UTC").is_error
            assert gateway.terminate() == 0
            assert gateway.violations == ""
    finally:
        for each in (everything, clock, *kits.values()):
            each.stop()
    assert [pid for each in (everything, clock, *kits.values()) for pid in each.left()] == []
