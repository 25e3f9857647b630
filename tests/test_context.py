"""What a handler may know and do in a call: progress, logs, cancellation, identity."""

from __future__ import annotations

import threading
from datetime import date
from pathlib import Path

import pytest

from minimcp import Cancelled, Context, Principal, Server
from tests.helpers import Legacy, modern, result

LEVEL = "io.modelcontextprotocol/logLevel"
LEVELS = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]


def emitted(handler, **meta):
    """What a tool emits in a call with this `_meta`."""
    server, sent = Server("s"), []
    server.tool(handler, "tool")
    reply = server.handle(modern("tools/call", name="tool", meta=meta), sent.append)
    assert "result" in reply, reply
    return sent


@pytest.mark.parametrize("token", ["abc", 7, "7", 0, ""])
def test_progress_carries_the_token_with_its_type_and_always_rises(token):
    def tool(ctx: Context) -> str:
        for step in (1, 1, 0.5, 1.5, 3):
            ctx.progress(step, 3.5)
        ctx.progress(4, message="more than was expected")
        return "done"

    sent = emitted(tool, progressToken=token)
    assert [message["params"] for message in sent] == [
        {"progressToken": token, "progress": 1, "total": 3.5},
        {"progressToken": token, "progress": 1.5, "total": 3.5},
        {"progressToken": token, "progress": 3, "total": 3.5},
        {"progressToken": token, "progress": 4, "message": "more than was expected"},
    ]
    assert all(type(message["params"]["progressToken"]) is type(token) for message in sent)
    assert {message["method"] for message in sent} == {"notifications/progress"}


class Ticks:
    """A clock that goes on by so many seconds with each look."""

    def __init__(self, step):
        self.now, self.step = 100.0, step

    def monotonic(self):
        self.now += self.step
        return self.now


def told(handler):
    return [
        tuple(message["params"].get(key) for key in ("progress", "total", "message"))
        for message in emitted(handler, progressToken=1)
    ]


def test_a_tracked_loop_reports_what_is_done(monkeypatch):
    monkeypatch.setattr("minimcp.server.context.time", Ticks(1.0))

    def tool(ctx: Context) -> str:
        kept = list(ctx.track("abc", message=lambda item: f"reads {item}"))
        kept += ctx.track(iter([1, 2]), message="more")
        kept += ctx.track([], message="never")
        return str(kept)

    assert told(tool) == [
        (0, 3, "reads a"),
        (1, 3, "reads b"),
        (2, 3, "reads c"),
        (3, 3, None),
        (4, None, "more"),
        (5, None, "more"),
    ]


def test_a_tracked_loop_says_little_and_stops_when_it_is_cancelled(monkeypatch):
    monkeypatch.setattr("minimcp.server.context.time", Ticks(0.001))
    seen = []

    def tool(ctx: Context) -> str:
        for number in ctx.track(range(1000), total=1000):
            seen.append(number)
        return "done"

    found = [progress for progress, _, _ in told(tool)]
    assert found[0] == 0 and found[-1] == 1000 and 9 <= len(found) <= 13 and found == sorted(found)

    def stopped(ctx: Context) -> str:
        for number in ctx.track(range(1000)):
            seen.append(number)
            if number == 5:
                ctx.cancelled.set()
        return "done"

    seen.clear()
    server = Server("s")
    server.tool(stopped)
    assert server.handle(modern("tools/call", name="stopped")) is None and seen == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("meta", [{}, {"progressToken": None}, {"progressToken": True}, {"progressToken": 1.5}])
def test_without_a_usable_token_there_is_no_progress(meta):
    def tool(ctx: Context) -> str:
        ctx.progress(1)
        return "done"

    assert emitted(tool, **meta) == []


def test_nothing_is_sent_once_the_call_is_over():
    kept = []

    def tool(ctx: Context) -> str:
        kept.append(ctx)
        return "done"

    server, sent = Server("s"), []
    server.tool(tool, "tool")
    server.handle(modern("tools/call", name="tool", meta={"progressToken": 1, LEVEL: "debug"}), sent.append)
    kept[0].progress(1)
    kept[0].log("error", "late")
    assert sent == []


@pytest.mark.parametrize("level", LEVELS)
def test_a_log_level_lets_itself_and_what_is_worse_through(level):
    def tool(ctx: Context) -> str:
        for each in LEVELS:
            ctx.log(each, {"was": each}, logger="test")
        return "done"

    sent = emitted(tool, **{LEVEL: level})
    assert [message["params"]["level"] for message in sent] == LEVELS[LEVELS.index(level) :]
    assert sent[0] == {
        "jsonrpc": "2.0",
        "method": "notifications/message",
        "params": {"level": level, "data": {"was": level}, "logger": "test"},
    }
    assert emitted(tool) == []


def test_a_level_nobody_knows_is_the_authors_mistake():
    def tool(ctx: Context) -> str:
        with pytest.raises(ValueError, match="not a log level"):
            ctx.log("loud", "x")
        return "done"

    assert emitted(tool, **{LEVEL: "debug"}) == []


def test_log_data_is_taken_apart_as_results_are():
    def tool(ctx: Context) -> str:
        ctx.log("info", {"on": date(2026, 7, 28), "at": Path("a/b")})
        with pytest.raises(TypeError):
            ctx.log("info", object())
        return "done"

    (message,) = emitted(tool, **{LEVEL: "debug"})
    assert message["params"]["data"] == {"on": "2026-07-28", "at": "a/b"}


def test_logging_is_declared_by_servers_whose_handlers_can_log():
    server = Server("s")
    server.tool(lambda: "x", "plain")
    assert "logging" not in result(server, "server/discover")["capabilities"]
    assert Legacy(server).problem("logging/setLevel", level="info")["code"] == -32601

    @server.tool
    def tool(ctx: Context) -> str:
        return "x"

    assert result(server, "server/discover")["capabilities"]["logging"] == {}
    session = Legacy(server)
    assert session.result("logging/setLevel", level="info") == {}
    for level in ("loud", None, 3):
        assert session.problem("logging/setLevel", level=level)["code"] == -32602


def test_the_context_knows_its_call():
    seen = {}

    def tool(x: int, ctx: Context) -> str:
        for name in ("method", "version", "principal", "request", "session", "client_info", "capabilities", "meta"):
            seen[name] = getattr(ctx, name)
        seen["can"] = ctx.can("sampling"), ctx.can("sampling", "tools"), ctx.can("elicitation", "url"), ctx.can("roots")
        return "x"

    server = Server("s")
    server.tool(tool)
    trace = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "a=b",
        "baggage": "c=d",
    }
    info = {"io.modelcontextprotocol/clientInfo": {"name": "c", "version": "2"}}
    message = modern(
        "tools/call", name="tool", arguments={"x": 1}, capabilities={"sampling": {}}, meta={**trace, **info}
    )
    server.handle(message, principal="ann")
    assert seen["method"] == "tools/call" and seen["version"] == "2026-07-28" and seen["principal"] == Principal("ann")
    assert seen["client_info"] == {"name": "c", "version": "2"} and seen["capabilities"] == {"sampling": {}}
    assert {name: seen["meta"][name] for name in trace} == trace
    assert seen["request"] is None and seen["session"] is None
    assert seen["can"] == (True, False, False, False)
    Legacy(server, "2025-06-18", elicitation={}).result("tools/call", name="tool", arguments={"x": 1})
    assert seen["version"] == "2025-06-18" and seen["client_info"] == {"name": "client", "version": "1"}
    assert seen["capabilities"] == {"elicitation": {}}


def test_the_context_is_hidden_from_the_schema_wherever_it_stands():
    server = Server("s")

    @server.tool
    def tool(a: int, context: Context, b: str = "x") -> str:
        return type(context).__name__

    (listed,) = result(server, "tools/list")["tools"]
    assert set(listed["inputSchema"]["properties"]) == {"a", "b"}
    assert result(server, "tools/call", name="tool", arguments={"a": 1})["content"][0]["text"] == "Context"
    refused = result(server, "tools/call", name="tool", arguments={"a": 1, "context": {}})
    assert refused["isError"] is True


def test_a_cancelled_call_raises_where_the_handler_looks_and_sends_nothing_more():
    server, sent, steps = Server("s"), [], []
    started, told, over = threading.Event(), threading.Event(), threading.Event()

    @server.tool
    def tool(ctx: Context) -> str:
        ctx.on_cancel(lambda: (steps.append("told"), told.set()))
        started.set()
        # It is cancelled before anybody is told.
        assert ctx.cancelled.wait(10) and told.wait(10)
        ctx.on_cancel(lambda: steps.append("told late"))
        for look in (lambda: ctx.progress(1), lambda: ctx.log("error", "x"), ctx.check, ctx.list_roots):
            try:
                look()
            except Exception:
                steps.append("swallowed")
            except Cancelled:
                steps.append("raised")
        ctx._emit("notifications/progress", {"progressToken": 1, "progress": 2})
        over.set()
        return "a result nobody gets"

    session = server.engine.open_session(sent.append)
    replies = []
    meta = {"progressToken": 1, LEVEL: "debug"}
    thread = threading.Thread(
        target=lambda: replies.append(
            server.handle(modern("tools/call", 5, name="tool", meta=meta), sent.append, session)
        )
    )
    thread.start()
    assert started.wait(10)
    server.handle({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}}, session=session)
    thread.join(10)
    assert over.is_set() and replies == [None] and sent == []
    assert steps == ["told", "told late", "raised", "raised", "raised", "raised"]


def test_a_function_that_is_named_while_the_call_is_cancelled_is_called_once():
    server, told = Server("s"), []
    session = server.engine.open_session()

    @server.tool
    def tool(ctx: Context) -> str:
        cancel = ctx.cancelled.set

        def set_and_name() -> None:
            cancel()
            # As another thread does that has seen the cancellation.
            ctx.on_cancel(lambda: told.append("late"))

        ctx.cancelled.set = set_and_name
        ctx.on_cancel(lambda: told.append("early"))
        params = {"requestId": 5}
        server.handle({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}, session=session)
        return "x"

    assert server.handle(modern("tools/call", 5, name="tool"), None, session) is None
    assert told == ["early", "late"]


def test_cancelling_twice_or_too_late_does_nothing():
    server = Server("s")
    server.tool(lambda: "x", "tool")
    session = server.engine.open_session()
    assert server.handle(modern("tools/call", 5, name="tool"), None, session)["result"]["content"][0]["text"] == "x"
    for _ in range(2):
        cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}}
        assert server.handle(cancel, session=session) is None
    assert server.handle(modern("tools/call", 5, name="tool"), None, session)["id"] == 5


def test_the_reason_of_a_cancellation_is_logged(caplog):
    server = Server("s")
    session = server.engine.open_session()

    @server.tool
    def tool(ctx: Context) -> str:
        params = {"requestId": 5, "reason": "the user went home"}
        server.handle({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}, session=session)
        return "x"

    with caplog.at_level("INFO", logger="minimcp"):
        assert server.handle(modern("tools/call", 5, name="tool"), None, session) is None
    assert "the user went home" in caplog.text


def test_around_call_wraps_every_handler():
    from contextlib import contextmanager

    seen = []

    @contextmanager
    def around(ctx):
        seen.append("in")
        try:
            yield
        except RuntimeError as error:
            seen.append(str(error))
            raise
        finally:
            seen.append("out")

    server = Server("s", around_call=around)

    @server.tool
    def good() -> str:
        seen.append("good")
        return "x"

    @server.tool
    def bad() -> str:
        raise RuntimeError("bad")

    result(server, "tools/call", name="good")
    assert result(server, "tools/call", name="bad")["isError"] is True
    assert seen == ["in", "good", "out", "in", "bad", "out"]


def test_the_flow_of_a_legacy_call_is_its_own():
    server, flows = Server("s"), []

    @server.tool
    def tool(ctx: Context) -> str:
        flows.append(ctx.idempotency_key)
        return "x"

    session = Legacy(server)
    for _ in range(2):
        session.result("tools/call", name="tool")
    assert len(set(flows)) == 2


@pytest.mark.parametrize("version", ["2024-11-05", "2025-11-25"])
def test_a_legacy_client_that_set_no_level_gets_info_and_what_is_worse(version):
    def tool(ctx: Context) -> str:
        for each in LEVELS:
            ctx.log(each, "x")
        return "done"

    server = Server("s")
    server.tool(tool, "tool")
    session = Legacy(server, version)
    session.result("tools/call", name="tool")
    assert [message["params"]["level"] for message in session.sent] == LEVELS[1:]
