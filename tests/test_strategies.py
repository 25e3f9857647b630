"""Strategies of asking that an author chooses, a relay's foreign state, and calls that outlive their request."""

from __future__ import annotations

import queue
import threading

import pytest

from minimcp import Context, McpError, Server
from minimcp.protocol import spec
from minimcp.protocol.content import Raw
from minimcp.protocol.errors import InputRequired
from minimcp.server import asking, methods
from tests.asked import ALL, accept
from tests.helpers import Legacy, modern, result


class Canned:
    """Answers every question by itself."""

    def __init__(self, **fields):
        self.fields = fields

    def ask(self, ctx, questions, named):
        return {key: asking.read(question, accept(**self.fields)) for key, question in questions.items()}

    def key(self):
        return "always the same"


def ask_name(ctx: Context) -> str:
    return ctx.elicit("Name?", {"name": str})["name"] + " " + ctx.idempotency_key


def test_a_strategy_is_chosen_for_each_call():
    seen = []

    def choose(ctx, entry):
        seen.append((ctx.method, ctx.version, ctx.principal and ctx.principal.id))
        return Canned(name="Ann") if entry.definition.get("title") == "Canned" else None

    server = Server("s", strategy=choose)
    server.tool(ask_name, "canned", title="Canned")
    server.tool(ask_name, "asked")
    server.tool(lambda: "x", "plain")
    canned = server.handle(modern("tools/call", name="canned"), principal="bob")["result"]
    assert canned["content"][0]["text"] == "Ann always the same"
    session = Legacy(server)
    assert session.result("tools/call", name="canned")["content"][0]["text"] == "Ann always the same"
    assert result(server, "tools/call", name="asked", capabilities=ALL)["resultType"] == "input_required"
    # A tool that cannot ask needs none.
    result(server, "tools/call", name="plain")
    assert seen == [
        ("tools/call", "2026-07-28", "bob"),
        ("tools/call", "2025-11-25", None),
        ("tools/call", "2026-07-28", None),
    ]


class Upstream:
    """Wraps the state of another server: a state that this one has not sealed reaches it, and is not refused."""

    def __init__(self, ctx, entry):
        self.state = ctx.params.get("requestState")
        self.responses = ctx.params.get("inputResponses", {})

    def ask(self, ctx, questions, named):
        if self.state is None:
            raise InputRequired(questions, "the state of another server")
        assert self.state == "the state of another server"
        return {key: asking.read(question, self.responses[key]) for key, question in questions.items()}

    def key(self):
        return "upstream"


def test_a_state_of_another_server_reaches_the_strategy():
    server = Server("s", strategy=Upstream)
    server.tool(ask_name, "ask")
    asked = result(server, "tools/call", name="ask", capabilities=ALL)
    assert asked["requestState"] == "the state of another server"
    retry = {"requestState": asked["requestState"], "inputResponses": {"q1": accept(name="Ann")}}
    done = result(server, "tools/call", name="ask", capabilities=ALL, **retry)
    assert done["content"][0]["text"] == "Ann upstream"
    # A relay that only passes results on needs no Context.
    relayed = []
    other = Server("relay", strategy=Upstream)
    other.tool(lambda: Raw(relayed[-1]), "relay")
    relayed.append({"resultType": "input_required", "inputRequests": {}, "requestState": "their state"})
    assert result(other, "tools/call", name="relay")["requestState"] == "their state"
    relayed.append({"resultType": "complete", "content": []})
    assert result(other, "tools/call", name="relay", requestState="their state")["content"] == []


class Park:
    """Puts questions on a record and waits there for the answers, on the thread that runs the call."""

    def __init__(self):
        self.asked = queue.Queue()
        self.answers = queue.Queue()

    def ask(self, ctx, questions, named):
        self.asked.put(questions)
        given = self.answers.get(timeout=10)
        return {key: asking.read(question, given[key]) for key, question in questions.items()}

    def key(self):
        return "parked"


class Jobs:
    """An extension that answers every tool call with a ticket, and runs the tool on a thread of its own."""

    identifier = "com.example/jobs"
    result_types = ("ticket",)

    def __init__(self):
        row = spec.METHODS["tools/call"]
        self.methods = {"tools/call": row._replace(handler=self.start), "jobs/answer": self.answer}
        self.park, self.replies, self.emitted = Park(), queue.Queue(), []

    def start(self, ctx, params):
        self.call = ctx.detach(methods.call_tool, self.park)
        self.thread = threading.Thread(target=lambda: self.replies.put(self.call.run(self.emitted.append)))
        self.thread.start()
        return {"resultType": "ticket", "number": 7}

    def answer(self, ctx, params):
        self.park.answers.put(params["inputResponses"])
        return {}


@pytest.fixture
def jobs():
    server, jobs = Server("s"), Jobs()
    server.use(jobs)
    jobs.server = server
    yield jobs
    jobs.thread.join(10)
    assert not jobs.thread.is_alive()


def test_a_call_goes_on_after_its_request_was_answered(jobs):
    @jobs.server.tool
    def slow(ctx: Context) -> str:
        assert answered.wait(10)
        ctx.progress(1)
        return f"{ask_name(ctx)} for {ctx.principal and ctx.principal.id}"

    answered, sent = threading.Event(), []
    message = modern("tools/call", 5, ALL, {"progressToken": 1}, name="slow")
    ticket = jobs.server.handle(message, sent.append, principal="bob")["result"]
    assert ticket["resultType"] == "ticket" and ticket["number"] == 7
    answered.set()
    assert jobs.park.asked.get(timeout=10)["q1"]["params"]["message"] == "Name?"
    result(jobs.server, "jobs/answer", inputResponses={"q1": accept(name="Ann")})
    reply = jobs.replies.get(timeout=10)
    assert reply["id"] == 5 and reply["result"]["content"][0]["text"] == "Ann parked for bob"
    assert reply["result"]["resultType"] == "complete"
    # The request's own way is closed; the call emits where its owner wants it.
    assert sent == [] and [each["method"] for each in jobs.emitted] == ["notifications/progress"]


def test_a_detached_call_is_cancelled_by_itself(jobs):
    @jobs.server.tool
    def slow(ctx: Context) -> str:
        ctx.on_cancel(lambda: told.append(True))
        started.set()
        assert ctx.cancelled.wait(10)
        ctx.check()
        return "never"

    started, told = threading.Event(), []
    request = jobs.server.engine.call(modern("tools/call", 5, name="slow"))
    request.run()
    assert started.wait(10)
    # The request is over: the end of its connection is not the end of the work.
    request.cancel("the client has gone")
    assert not jobs.call.ctx.cancelled.is_set()
    jobs.call.cancel("no longer needed")
    assert jobs.replies.get(timeout=10) is None and told == [True]


def test_a_call_may_be_detached_after_its_request():
    server, kept, emitted = Server("s"), [], []

    @server.tool
    def tool(ctx: Context) -> str:
        kept.append(ctx)
        return "x"

    result(server, "tools/call", name="tool", meta={"progressToken": 1})
    call = kept[0].detach(lambda ctx, params: ctx.progress(1) or {"content": []})
    assert call.run(emitted.append)["result"]["content"] == [] and len(emitted) == 1


def test_a_detached_call_answers_its_failures(jobs):
    @jobs.server.tool
    def fail(ctx: Context) -> str:
        raise McpError("no", code=5)

    result(jobs.server, "tools/call", name="fail")
    assert jobs.replies.get(timeout=10)["error"] == {"code": 5, "message": "no"}


def test_a_call_may_be_run_later_on_another_thread():
    server, replies = Server("s"), []
    server.tool(ask_name, "ask")
    call = server.engine.call(modern("tools/call", name="ask", capabilities=ALL))
    thread = threading.Thread(target=lambda: replies.append(call.run()))
    thread.start()
    thread.join(10)
    assert replies[0]["result"]["resultType"] == "input_required"
