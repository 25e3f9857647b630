"""Tools with `timeout=`: what the caller gets, what the function notices, and what is left of a call that goes on."""

from __future__ import annotations

import contextvars
import logging
import os
import threading

import pytest

from minimcp import Client, Context, Server, ToolError
from minimcp.extensions.tasks import Tasks
from minimcp.server import time_limits
from tests.embedded import embedded, wait_until
from tests.helpers import Legacy, modern, post, result

LATE = {"content": [{"type": "text", "text": "The tool slow did not end within 0.05 s"}], "isError": True}


@pytest.fixture
def server():
    server = Server("s", "1")
    yield server
    wait_until(lambda: not any(each.name == "minimcp-limited" for each in threading.enumerate()), 10)


def content(found):
    return {name: found[name] for name in ("content", "isError") if name in found}


def test_a_call_in_time_is_like_any_other(server):
    @server.tool(timeout=60)
    def add(a: int, b: int = 2) -> dict:
        """Add."""
        return {"sum": a + b}

    @server.tool(timeout=60.5)
    def fails() -> None:
        raise ToolError("no")

    assert result(server, "tools/list")["tools"][0]["description"] == "Add."
    assert result(server, "tools/call", name="add", arguments={"a": 1})["structuredContent"] == {"sum": 3}
    assert result(server, "tools/call", name="add", arguments={"a": "x"})["isError"] is True
    assert content(result(server, "tools/call", name="fails")) == {
        "content": [{"type": "text", "text": "no"}],
        "isError": True,
    }


@pytest.mark.parametrize("old", [False, True])
def test_a_call_that_takes_too_long_fails_and_its_function_is_cancelled(server, old, caplog):
    noticed, told, go = threading.Event(), threading.Event(), threading.Event()

    @server.tool(timeout=0.05)
    def slow(ctx: Context) -> str:
        ctx.on_cancel(told.set)
        assert ctx.cancelled.wait(10) and go.wait(10)
        noticed.set()
        ctx.progress(1)
        return "never"

    caller = Legacy(server) if old else None
    found = caller.result("tools/call", name="slow") if caller else result(server, "tools/call", name="slow")
    assert content(found) == LATE and told.wait(10) and not noticed.is_set()
    go.set()
    assert noticed.wait(10)
    assert "tool slow goes on after its 0.05 s are over" in caplog.text


def test_a_function_without_a_context_goes_on_and_its_result_is_dropped(server):
    go, ended = threading.Event(), threading.Event()

    @server.tool(timeout=0.05)
    def slow() -> str:
        assert go.wait(10)
        ended.set()
        return "never"

    with embedded(server.wsgi) as listening:
        status, reply = post(listening.url + "/mcp", modern("tools/call", name="slow"))
        assert status == 200 and content(reply["result"]) == LATE
    go.set()
    assert ended.wait(10)


def test_questions_progress_and_context_variables_work_within_a_limit(server):
    variable = contextvars.ContextVar("variable", default="none")
    seen = []

    @server.tool(timeout=60)
    def book(ctx: Context) -> str:
        ctx.progress(1, 2)
        answer = ctx.elicit("Sure?", {"sure": bool})
        return f"{answer['sure']} {variable.get()}"

    for mode in ("modern", "legacy"):
        variable.set(mode)
        with Client(server, mode=mode, elicit=lambda question: {"sure": True}) as client:
            assert client.call_tool("book", {}, progress=seen.append).text.startswith("True")
    assert len(seen) >= 2


def test_the_hook_of_the_author_is_around_the_call_and_its_variables_are_seen():
    variable = contextvars.ContextVar("variable", default="none")

    class Hook:
        def __init__(self, ctx):
            pass

        def __enter__(self):
            self._token = variable.set("within")

        def __exit__(self, *_):
            variable.reset(self._token)

    server = Server("s", around_call=Hook)
    server.tool(lambda: variable.get(), "seen", timeout=60)
    assert result(server, "tools/call", name="seen")["content"][0]["text"] == "within"


def test_calls_that_do_not_end_are_bounded(server, monkeypatch):
    monkeypatch.setattr(time_limits, "_MOST_LATE", 3)
    go = threading.Event()
    server.tool(lambda: str(go.wait(10)), "slow", timeout=0.05)
    for _ in range(3):
        assert content(result(server, "tools/call", name="slow")) == LATE
    assert content(result(server, "tools/call", name="slow")) == {
        "content": [{"type": "text", "text": "Too many calls of slow go on after their time; try again later"}],
        "isError": True,
    }
    go.set()
    wait_until(lambda: result(server, "tools/call", name="slow")["content"][0]["text"] == "True", 10)


def test_the_body_of_a_task_has_the_limit(server):
    go = threading.Event()
    server.use(Tasks())
    server.tool(lambda: str(go.wait(10)), "slow", timeout=0.05, task=True)
    with Client(server) as client:
        assert client.call_tool("slow").text == "The tool slow did not end within 0.05 s"
    go.set()
    server.tasks.close(10)


def test_a_mounted_tool_keeps_its_limit(server):
    go = threading.Event()
    inner = Server("inner")
    inner.tool(lambda: str(go.wait(10)), "slow", timeout=0.05)
    server.mount("in", inner)
    assert content(result(server, "tools/call", name="in_slow")) == LATE
    go.set()


@pytest.mark.parametrize("timeout", [0, -1, True, "5", float("nan"), float("inf"), 1e12])
def test_a_limit_is_a_positive_number(server, timeout):
    with pytest.raises(ValueError, match=r"slow: timeout= is a positive number of seconds, not "):
        server.tool(lambda: "x", "slow", timeout=timeout)


def test_a_thread_that_cannot_start_fails_its_call_alone(server, monkeypatch, caplog):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    server.tool(lambda: "x", "t", timeout=60)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert result(server, "tools/call", name="t")["isError"] is True
    assert result(server, "tools/call", name="t")["content"][0]["text"] == "x"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_function_that_forks_ends_its_child(server):
    @server.tool(timeout=60)
    def forks() -> int:
        pid = os.fork()
        if pid == 0:
            return 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert result(server, "tools/call", name="forks")["structuredContent"] == 0


def test_nothing_is_logged_for_a_call_in_time(server, caplog):
    caplog.set_level(logging.WARNING, "minimcp")
    server.tool(lambda: "x", "t", timeout=60)
    result(server, "tools/call", name="t")
    assert caplog.text == ""
