"""The tasks extension of a server: its methods on the wire, its states, questions, ends and notifications."""

from __future__ import annotations

import json
import logging
import threading
import time
from datetime import datetime
from typing import Any

import pytest

from minimcp import Client, Context, McpError, Principal, Raw, Server, ToolError
from minimcp.extensions.tasks import Tasks
from minimcp.protocol import spec
from minimcp.server.bus import Subscription
from tests.asked import ALL, accept
from tests.embedded import wait_until
from tests.helpers import Legacy, events, exchange, http_headers, modern, post, problem, result, serving

TASKS = "io.modelcontextprotocol/tasks"
DECLARED = {"extensions": {TASKS: {}}}
ASKABLE = {**ALL, **DECLARED}
BOUND_S = 20


@pytest.fixture
def server():
    server = Server("s")
    yield server
    assert server.tasks._work.keeper().ended(BOUND_S), "a body still runs"
    server.tasks.close()


def start(server: Server, name: str, capabilities: Any = DECLARED, **arguments: Any) -> Any:
    """Call a tool of which a task is made, and return its CreateTaskResult."""
    made = result(server, "tools/call", name=name, arguments=arguments, capabilities=capabilities)
    assert made["resultType"] == "task", made
    return made


def poll(server: Server, id: str) -> Any:
    """The answer to `tasks/get`."""
    return result(server, "tasks/get", taskId=id, capabilities=DECLARED)


def until(server: Server, id: str, *statuses: str) -> Any:
    """Wait until a task has one of these statuses, and return the answer to `tasks/get`."""
    end = time.monotonic() + BOUND_S
    with Subscription(server.engine.bus, [f"tasks/{id}"]) as news:
        while True:
            task = poll(server, id)
            if task["status"] in statuses:
                return task
            assert time.monotonic() < end, task
            news.take(1)


def update(server: Server, id: str, capabilities: Any = DECLARED, **responses: Any) -> Any:
    """The answer to `tasks/update`."""
    return result(server, "tasks/update", taskId=id, inputResponses=responses, capabilities=capabilities)


def cancel(server: Server, id: str) -> Any:
    """The answer to `tasks/cancel`."""
    return result(server, "tasks/cancel", taskId=id, capabilities=DECLARED)


def without_meta(found: Any) -> Any:
    return {name: value for name, value in found.items() if name != "_meta"}


# Making a task


def test_a_call_becomes_a_task_and_its_result_is_fetched(server):
    """Spec: EXT-020, EXT-021, EXT-022, EXT-029"""

    @server.tool(task=True)
    def add(a: int, b: int) -> int:
        assert go.wait(BOUND_S)
        return a + b

    go = threading.Event()
    made = start(server, "add", a=1, b=2)
    assert made.keys() == {
        *("resultType", "_meta", "taskId", "status", "createdAt", "lastUpdatedAt", "ttlMs", "pollIntervalMs")
    }
    assert made["status"] == "working" and made["ttlMs"] == 86_400_000
    assert type(made["pollIntervalMs"]) is int and made["pollIntervalMs"] == 50
    assert made["createdAt"].endswith("Z") and made["createdAt"] == made["lastUpdatedAt"]
    assert abs(datetime.fromisoformat(made["createdAt"].replace("Z", "+00:00")).timestamp() - time.time()) < 60
    working = poll(server, made["taskId"])
    assert working["resultType"] == "complete" and working["status"] == "working"
    assert not working.keys() & {"result", "error", "inputRequests", "task", "ttl", "pollInterval", "requestState"}
    go.set()
    done = until(server, made["taskId"], "completed")
    assert done["resultType"] == "complete" and "pollIntervalMs" not in done
    assert done["result"]["structuredContent"] == 3 and done["result"]["content"] == [{"type": "text", "text": "3"}]
    assert done["createdAt"] == made["createdAt"] <= done["lastUpdatedAt"]


def test_an_id_says_nothing_and_is_never_the_same(server):
    """Spec: EXT-053"""
    server.tool(lambda: "x", "t", task=True)
    ids = [start(server, "t")["taskId"] for _ in range(50)]
    assert len(set(ids)) == 50 and all(len(id) == 32 and int(id, 16) >= 0 for id in ids)
    for place in range(32):
        assert len({id[place] for id in ids}) > 4
    for id in ids:
        server.tasks.wait(id, BOUND_S)


def test_who_does_not_declare_the_extension_gets_the_result_itself(server):
    """Spec: EXT-013, EXT-015, EXT-016, EXT-064"""
    threads = []
    server.tool(lambda: threads.append(threading.current_thread().name) or "x", "t", task="optional")
    for capabilities in ({}, {"tasks": {"requests": {"tools": {"call": {}}}}}, {"extensions": {TASKS: None}}):
        found = result(server, "tools/call", name="t", capabilities=capabilities)
        assert found["resultType"] == "complete" and found["content"] == [{"type": "text", "text": "x"}]
    for version in spec.LEGACY_VERSIONS:
        found = Legacy(server, version, **DECLARED).result("tools/call", name="t")
        assert found == {"content": [{"type": "text", "text": "x"}]}
    assert set(threads) == {threading.current_thread().name} and server.tasks.list() == []


def test_a_tool_that_needs_tasks_refuses_who_has_none(server):
    """Spec: EXT-019, EXT-050"""
    server.tool(lambda: "x", "t", task="required")
    message = modern("tools/call", name="t")
    with serving(server.wsgi) as url:
        status, reply = post(url + "/mcp", message)
        assert post(url + "/mcp", modern("tools/call", name="t", capabilities=DECLARED))[1]["result"]["taskId"]
    assert status == 400 and reply["error"]["code"] == -32021
    assert reply["error"]["data"] == {"requiredCapabilities": {"extensions": {TASKS: {}}}}
    # An older revision has no such code.
    assert Legacy(server, **DECLARED).problem("tools/call", name="t")["code"] == -32603
    server.tasks.wait(server.tasks.list()[0]["taskId"], BOUND_S)


@pytest.mark.parametrize("options", [{"task": "always"}, {"task": 5}, {"idempotent": True}])
def test_options_that_make_no_sense_are_refused(server, options):
    with pytest.raises(ValueError, match='t: task= is True, "optional" or "required"'):
        server.tool(lambda: "x", "t", **options)


def test_arguments_are_checked_before_there_is_a_task(server):
    @server.tool(task=True)
    def add(a: int) -> int:
        return a

    for arguments in ({"a": "x"}, {}, {"a": 1, "b": 2}):
        found = result(server, "tools/call", name="add", arguments=arguments, capabilities=DECLARED)
        assert found["isError"] and found["resultType"] == "complete"
    assert problem(server, "tools/call", name="ad", capabilities=DECLARED)["code"] == -32602
    assert server.tasks.list() == []


def test_a_plain_tool_goes_on_in_a_task(server):
    @server.tool
    def report(pages: int, ctx: Context) -> dict:
        if pages < 3:
            return {"pages": pages}
        return ctx.task(write, pages, paper="A4")

    def write(pages: int, ctx: Context, paper: str) -> dict:
        ctx.progress(1, 2, "half")
        assert go.wait(BOUND_S)
        return {"pages": pages, "paper": paper, "by": ctx.principal and ctx.principal.id}

    go = threading.Event()
    small = result(server, "tools/call", name="report", arguments={"pages": 1}, capabilities=DECLARED)
    assert small["structuredContent"] == {"pages": 1}
    server.tasks.start()
    made = start(server, "report", pages=5)
    assert until(server, made["taskId"], "working")["status"] == "working"
    go.set()
    done = until(server, made["taskId"], "completed")
    assert done["result"]["structuredContent"] == {"pages": 5, "paper": "A4", "by": None}
    # Who declares no tasks waits for the result.
    waited = result(server, "tools/call", name="report", arguments={"pages": 7})
    assert waited["structuredContent"] == {"pages": 7, "paper": "A4", "by": None}


def test_a_server_without_tasks_says_how_to_have_them():
    server = Server("s", debug=True)

    @server.tool
    def t(ctx: Context) -> str:
        return ctx.task(lambda: "x")

    found = result(server, "tools/call", name="t", capabilities=DECLARED)
    assert found["isError"] and "server.use(Tasks())" in found["content"][0]["text"]


def test_only_a_call_of_a_tool_becomes_a_task(server):
    """Spec: EXT-014"""
    server.tasks.start()

    @server.prompt
    def greet(ctx: Context) -> str:
        return ctx.task(lambda: "hello")

    @server.resource("test://r")
    def r(ctx: Context) -> str:
        return ctx.task(lambda: "contents")

    @server.tool(task=True)
    def t(ctx: Context) -> str:
        return ctx.task(lambda: "no task in a task")

    got = result(server, "prompts/get", name="greet", capabilities=DECLARED)
    assert got["messages"][0]["content"]["text"] == "hello"
    assert result(server, "resources/read", uri="test://r", capabilities=DECLARED)["contents"][0]["text"] == "contents"
    done = server.tasks.wait(start(server, "t")["taskId"], BOUND_S)
    assert done["result"]["content"][0]["text"] == "no task in a task" and len(server.tasks.list()) == 1


@pytest.mark.parametrize("task", [{"ttl": 60000}, {"ttl": 0}, {"ttl": 10**12, "pollInterval": 1}, None, 5])
def test_a_wish_for_a_task_changes_nothing(server, task):
    """Spec: EXT-062"""
    server.tool(lambda: "x", "plain")
    server.tool(lambda: "x", "slow", task=True)
    assert result(server, "tools/call", name="plain", task=task, capabilities=DECLARED)["resultType"] == "complete"
    made = result(server, "tools/call", name="slow", task=task, capabilities=DECLARED)
    assert made["resultType"] == "task" and made["ttlMs"] == 86_400_000 and "ttl" not in made
    server.tasks.wait(made["taskId"], BOUND_S)


def test_what_is_advertised_and_what_was_removed(server):
    """Spec: EXT-061, EXT-063, EXT-066"""
    server.tool(lambda: "x", "t", task=True)
    told = result(server, "server/discover", capabilities=DECLARED)["capabilities"]
    assert told["extensions"] == {TASKS: {}} and "tasks" not in told
    assert "execution" not in result(server, "tools/list", capabilities=DECLARED)["tools"][0]
    with serving(server.wsgi) as url:
        for method in ("tasks/result", "tasks/list", "tasks/delete"):
            status, reply = post(url + "/mcp", modern(method, taskId="t", capabilities=DECLARED), Mcp_Name="t")
            assert status == 404 and reply["error"]["code"] == -32601
    for method in ("tasks/get", "tasks/update", "tasks/cancel", "tasks/result", "tasks/list"):
        assert Legacy(server, **DECLARED).problem(method, taskId="t")["code"] == -32601


# Ends


def test_a_tool_that_failed_has_completed_with_an_error_in_its_result(server):
    """Spec: EXT-025, EXT-026"""

    @server.tool(task=True)
    def refuse() -> str:
        raise ToolError("no paper")

    @server.tool(task=True)
    def crash() -> str:
        raise ZeroDivisionError("secret")

    for name, text in (("refuse", "no paper"), ("crash", "The tool crash failed; the logger")):
        done = server.tasks.wait(start(server, name)["taskId"], BOUND_S)
        assert done["status"] == "completed" and done["result"]["isError"] is True and "error" not in done
        assert done["result"]["content"][0]["text"].startswith(text)
        assert "secret" not in json.dumps(done)


def test_a_protocol_error_is_a_failed_task(server):
    """Spec: EXT-025, EXT-027"""

    @server.tool(task=True)
    def fail() -> str:
        raise McpError("no more", {"why": 1}, code=-31000)

    @server.tool(task=True)
    def leave() -> str:
        raise SystemExit(3)

    @server.tool(task=True)
    def nan() -> dict:
        return Raw({"content": [], "structuredContent": float("nan")})

    @server.tool(task=True)
    def lone() -> str:
        return "\ud800"

    failed = server.tasks.wait(start(server, "fail")["taskId"], BOUND_S)
    assert failed["status"] == "failed" and "result" not in failed
    assert failed["error"] == {"code": -31000, "message": "no more", "data": {"why": 1}}
    assert failed["statusMessage"] == "no more"
    assert server.tasks.wait(start(server, "leave")["taskId"], BOUND_S)["error"]["code"] == -32603
    failed = server.tasks.wait(start(server, "nan")["taskId"], BOUND_S)
    assert failed["error"] == {"code": -32603, "message": "The result cannot be written as JSON"}
    assert server.tasks.wait(start(server, "lone")["taskId"], BOUND_S)["result"]["content"][0]["text"] == "\ud800"


@pytest.mark.parametrize("state", ["queued", "working", "input_required"])
def test_a_task_is_cancelled_in_every_state(server, state):
    """Spec: EXT-024, EXT-045"""
    server.use(Tasks(workers=0 if state == "queued" else 1))

    @server.tool(task=True)
    def work(ctx: Context) -> str:
        ctx.on_cancel(told.set)
        started.set()
        if state == "input_required":
            ctx.elicit("?", {"a": int})
        assert ctx.cancelled.wait(BOUND_S)
        ended.set()
        return "dropped"

    started, told, ended = threading.Event(), threading.Event(), threading.Event()
    id = start(server, "work", ASKABLE)["taskId"]
    if state != "queued":
        assert started.wait(BOUND_S)
    until(server, id, "input_required" if state == "input_required" else "working")
    assert without_meta(cancel(server, id)) == {"resultType": "complete"}
    task = poll(server, id)
    assert task["status"] == "cancelled" and not task.keys() & {"result", "error", "inputRequests"}
    if state != "queued":
        assert told.wait(BOUND_S)
    if state == "working":
        assert ended.wait(BOUND_S)
    server.tasks._work.keeper().ended(BOUND_S)
    # The end of an end: acknowledged, and nothing changes.
    assert without_meta(cancel(server, id)) == {"resultType": "complete"}
    assert without_meta(update(server, id, q1=accept(a=1))) == {"resultType": "complete"}
    assert poll(server, id) == task and server.tasks.cancel(id) is False


@pytest.mark.parametrize("outcome", ["completed", "failed"])
def test_an_ended_task_never_changes(server, outcome):
    """Spec: EXT-024"""

    @server.tool(task=True)
    def work() -> str:
        if outcome == "failed":
            raise McpError("no", code=5)
        return "x"

    id = start(server, "work")["taskId"]
    ended = without_meta(server.tasks.wait(id, BOUND_S))
    assert ended["status"] == outcome
    assert without_meta(cancel(server, id)) == without_meta(update(server, id, a={})) == {"resultType": "complete"}
    server.tasks.run(id)
    server.tasks._work.fail(id, "too late")
    assert without_meta(poll(server, id)) == {"resultType": "complete", **ended}


def test_a_body_that_cannot_be_interrupted_is_dropped_when_it_ends(server):
    """Spec: EXT-045"""

    @server.tool(task=True)
    def work() -> str:
        started.set()
        assert go.wait(BOUND_S)
        return "too late"

    started, go = threading.Event(), threading.Event()
    id = start(server, "work")["taskId"]
    assert started.wait(BOUND_S)
    cancel(server, id)
    go.set()
    server.tasks._work.keeper().ended(BOUND_S)
    assert poll(server, id)["status"] == "cancelled" and "result" not in poll(server, id)


# Questions


def test_questions_are_put_on_the_record_and_answered_by_updates(server):
    """Spec: EXT-029, EXT-036, EXT-037, EXT-040"""

    @server.tool(task=True)
    def book(ctx: Context) -> dict:
        nights = ctx.elicit("How many nights?", {"nights": int})["nights"]
        name = ctx.sample("A name?").text
        again = ctx.elicit("How many nights?", {"nights": int})["nights"]
        return {"nights": nights, "name": name, "again": again, "roots": ctx.list_roots()}

    id = start(server, "book", ASKABLE)["taskId"]
    asked = until(server, id, "input_required")
    assert asked["inputRequests"].keys() == {"q1"}
    question = asked["inputRequests"]["q1"]
    assert question["method"] == "elicitation/create" and question["params"]["message"] == "How many nights?"
    assert without_meta(update(server, id, q1=accept(nights=3))) == {"resultType": "complete"}
    assert until(server, id, "input_required")["inputRequests"]["q2"]["method"] == "sampling/createMessage"
    said = {"role": "assistant", "content": {"type": "text", "text": "Ann"}, "model": "m"}
    update(server, id, q2=said)
    assert until(server, id, "input_required")["inputRequests"].keys() == {"q3"}
    update(server, id, q3=accept(nights=4))
    assert until(server, id, "input_required")["inputRequests"] == {"q4": {"method": "roots/list"}}
    update(server, id, q4={"roots": [{"uri": "file:///a"}]})
    done = until(server, id, "completed")["result"]["structuredContent"]
    assert done == {"nights": 3, "name": "Ann", "again": 4, "roots": [{"uri": "file:///a"}]}


def test_several_questions_may_be_answered_one_by_one(server):
    """Spec: EXT-038, EXT-039"""

    @server.tool(task=True)
    def both(ctx: Context) -> str:
        form = {"method": "elicitation/create", "params": {"mode": "form", "message": "?", "requestedSchema": SCHEMA}}
        found = ctx.ask(a=form, b=form)
        return f"{found['a']['n']} {found['b']['n']}"

    SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    id = start(server, "both", ASKABLE)["taskId"]
    assert until(server, id, "input_required")["inputRequests"].keys() == {"a", "b"}
    update(server, id, b=accept(n=2), unknown=accept(n=9))
    rest = poll(server, id)
    assert rest["status"] == "input_required" and rest["inputRequests"].keys() == {"a"}
    # A second answer to the same question is passed over.
    update(server, id, b=accept(n=7))
    update(server, id, a=accept(n=1), b=accept(n=8))
    assert until(server, id, "completed")["result"]["content"][0]["text"] == "1 2"


def test_a_key_is_never_used_twice(server):
    """Spec: EXT-040"""

    @server.tool(task=True)
    def thrice(ctx: Context) -> list:
        return [ctx.elicit("Again?", {"n": int}, key="n")["n"] for _ in range(3)]

    id, keys = start(server, "thrice", ASKABLE)["taskId"], []
    for number in range(3):
        (key,) = until(server, id, "input_required")["inputRequests"]
        keys.append(key)
        update(server, id, **{key: accept(n=number)})
    assert until(server, id, "completed")["result"]["content"][0]["text"] == "[0,1,2]"
    assert keys == ["n", "n-2", "n-3"]


@pytest.mark.parametrize(
    "response", [5, None, {}, {"action": "maybe"}, accept(nights="many"), accept(), {"action": "accept"}]
)
def test_an_answer_that_is_none_is_refused_and_the_question_stays(server, response):
    @server.tool(task=True)
    def book(ctx: Context) -> str:
        return str(ctx.elicit("How many?", {"nights": int})["nights"])

    id = start(server, "book", ASKABLE)["taskId"]
    before = until(server, id, "input_required")
    refused = problem(server, "tasks/update", taskId=id, inputResponses={"q1": response}, capabilities=DECLARED)
    assert refused["code"] == -32602 and "q1" in refused["message"]
    assert poll(server, id)["inputRequests"] == before["inputRequests"]
    update(server, id, q1=accept(nights=3))
    assert until(server, id, "completed")["result"]["content"][0]["text"] == "3"


@pytest.mark.parametrize("responses", [None, [], "x", 5])
def test_responses_that_are_no_object_are_refused(server, responses):
    server.tool(lambda: "x", "t", task=True)
    id = start(server, "t")["taskId"]
    refused = problem(server, "tasks/update", taskId=id, inputResponses=responses, capabilities=DECLARED)
    assert refused["code"] == -32602
    server.tasks.wait(id, BOUND_S)


def test_updates_of_what_was_never_asked_are_passed_over(server):
    """Spec: EXT-036, EXT-039"""

    @server.tool(task=True)
    def work() -> str:
        started.set()
        assert go.wait(BOUND_S)
        return "x"

    started, go = threading.Event(), threading.Event()
    id = start(server, "work")["taskId"]
    assert started.wait(BOUND_S)
    before = poll(server, id)
    for responses in ({}, {"q1": accept(n=1)}, {"q1": 5, "": None}):
        assert without_meta(update(server, id, **responses)) == {"resultType": "complete"}
    assert poll(server, id)["lastUpdatedAt"] == before["lastUpdatedAt"]
    go.set()
    server.tasks.wait(id, BOUND_S)


def test_questions_before_the_task_come_first(server):
    """Spec: EXT-023"""
    keys = []

    @server.tool
    def order(ctx: Context) -> str:
        size = ctx.elicit("Which size?", {"size": int})["size"]
        keys.append(ctx.idempotency_key)
        return ctx.task(bake, size)

    def bake(size: int, ctx: Context) -> str:
        keys.append(ctx.idempotency_key)
        topping = ctx.elicit("Which topping?", {"topping": str})["topping"]
        return f"{size} {topping}"

    server.tasks.start()
    asked = result(server, "tools/call", name="order", capabilities=ASKABLE)
    assert asked["resultType"] == "input_required" and "taskId" not in asked and server.tasks.list() == []
    retry = {"requestState": asked["requestState"], "inputResponses": {"q1": accept(size=30)}}
    made = result(server, "tools/call", name="order", capabilities=ASKABLE, **retry)
    assert made["resultType"] == "task" and not made.keys() & {"requestState", "inputRequests"}
    task = until(server, made["taskId"], "input_required")
    assert task["inputRequests"]["q1"]["params"]["message"] == "Which topping?"
    update(server, made["taskId"], q1=accept(topping="olives"))
    assert until(server, made["taskId"], "completed")["result"]["content"][0]["text"] == "30 olives"
    assert len(keys) == 2 and keys[0] == keys[1]


def test_who_cannot_be_asked_has_a_failed_task(server):
    @server.tool(task=True)
    def book(ctx: Context) -> str:
        ctx.sample("A name?")
        return "never"

    failed = server.tasks.wait(start(server, "book")["taskId"], BOUND_S)
    assert failed["status"] == "failed" and failed["error"]["code"] == -32021
    assert failed["error"]["data"] == {"requiredCapabilities": {"sampling": {}}}


def test_a_body_that_waits_for_an_answer_takes_up_no_thread(server):
    server.use(Tasks(workers=1, most_parked=3))

    @server.tool(task=True)
    def ask(ctx: Context) -> int:
        return ctx.elicit("?", {"n": int})["n"]

    server.tool(lambda: "x", "plain", task=True)
    ids = [start(server, "ask", ASKABLE)["taskId"] for _ in range(3)]
    for id in ids:
        until(server, id, "input_required")
    assert server.tasks.wait(start(server, "plain")["taskId"], BOUND_S)["status"] == "completed"
    # There is room for so many, and no more.
    refused = server.tasks.wait(start(server, "ask", ASKABLE)["taskId"], BOUND_S)
    assert refused["result"]["isError"] and "Too many tasks wait" in refused["result"]["content"][0]["text"]
    for number, id in enumerate(ids):
        update(server, id, q1=accept(n=number))
    assert [server.tasks.wait(id, BOUND_S)["result"]["structuredContent"] for id in ids] == [0, 1, 2]


# Progress, log messages and notifications


def test_progress_is_the_status_message_and_nothing_of_it_goes_out(server, caplog):
    """Spec: EXT-060"""
    caplog.set_level(logging.INFO, "minimcp")

    @server.tool(task=True)
    def work(ctx: Context) -> str:
        ctx.log("info", {"step": 1})
        ctx.progress(1, 2, "half done")
        assert go.wait(BOUND_S)
        return "x"

    go, sent = threading.Event(), []
    meta = {"progressToken": "p", "io.modelcontextprotocol/logLevel": "debug"}
    call = modern("tools/call", name="work", capabilities=DECLARED, meta=meta)
    id = server.handle(call, sent.append)["result"]["taskId"]
    with Subscription(server.engine.bus, [f"tasks/{id}"]) as news:
        while "statusMessage" not in poll(server, id):
            assert news.take(BOUND_S)
    assert poll(server, id)["statusMessage"] == "half done (1 of 2)"
    go.set()
    assert "statusMessage" not in server.tasks.wait(id, BOUND_S)
    assert sent == [] and f"task {id}: {{'step': 1}}" in caplog.text


def test_much_progress_is_told_in_few_writes(server):
    @server.tool(task=True)
    def work(ctx: Context) -> str:
        for number in range(2000):
            ctx.progress(number)
        return "x"

    id = start(server, "work")["taskId"]
    server.tasks.wait(id, BOUND_S)
    assert server.tasks.store.get(id).version < 200


class Listening:
    """A `subscriptions/listen` request over HTTP, read event by event."""

    def __init__(self, url, ids, capabilities=DECLARED, **headers):
        message = modern("subscriptions/listen", "L", capabilities, notifications={"taskIds": ids})
        self._open = exchange(url + "/mcp", message, http_headers(message, **headers))
        self.response = self._open.__enter__()
        self._events = events(self.response)

    def next(self):
        return next(self._events)

    def close(self):
        self._open.__exit__(None, None, None)


def test_changes_are_told_to_who_listens(server):
    """Spec: EXT-055, EXT-057, EXT-059, EXT-060"""

    @server.tool(task=True)
    def work(ctx: Context) -> str:
        ctx.progress(1)
        answer = ctx.elicit("?", {"n": int})
        return f"{answer['n']}"

    id = start(server, "work", ASKABLE)["taskId"]
    asked = until(server, id, "input_required")
    with serving(server.wsgi) as url:
        listening = Listening(url, [id, "unknown", id])
        try:
            first = listening.next()
            assert first["method"] == "notifications/subscriptions/acknowledged"
            assert first["params"]["notifications"] == {"taskIds": [id]}
            now = listening.next()
            assert now["method"] == "notifications/tasks" and "id" not in now
            assert now["params"].pop("_meta") == {"io.modelcontextprotocol/subscriptionId": "L"}
            polled = {key: value for key, value in asked.items() if key not in ("_meta", "resultType")}
            assert {**now["params"], "pollIntervalMs": 0} == {**polled, "pollIntervalMs": 0}
            update(server, id, q1=accept(n=5))
            said = [listening.next()]
            while said[-1]["params"]["status"] != "completed":
                said.append(listening.next())
            assert {each["method"] for each in said} == {"notifications/tasks"}
            assert said[-1]["params"]["result"]["content"] == [{"type": "text", "text": "5"}]
            assert all("resultType" not in each["params"] for each in said)
            assert all(each["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == "L" for each in said)
        finally:
            server.close()
            listening.close()


def test_listening_to_tasks_needs_the_extension(server):
    """Spec: EXT-058"""
    server.tool(lambda: "x", "t", task=True)
    id = start(server, "t")["taskId"]
    server.tasks.wait(id, BOUND_S)
    with serving(server.wsgi) as url:
        message = modern("subscriptions/listen", notifications={"taskIds": [id]})
        status, reply = post(url + "/mcp", message)
    assert status == 400 and reply["error"]["code"] == -32021
    assert reply["error"]["data"] == {"requiredCapabilities": {"extensions": {TASKS: {}}}}
    for ids in ("x", [1], [None], {}, ["x"] * 1001):
        refused = problem(server, "subscriptions/listen", notifications={"taskIds": ids}, capabilities=DECLARED)
        assert refused["code"] == -32602


# Whose they are


def test_a_task_is_its_principals_alone(server):
    """Spec: EXT-047, EXT-048, EXT-054"""
    server.tool(lambda: "secret", "t", task=True)
    call = modern("tools/call", name="t", capabilities=DECLARED)
    id = server.handle(call, principal="ann")["result"]["taskId"]
    server.tasks.wait(id, BOUND_S)
    unknown = {"code": -32602, "message": server.handle(_about("tasks/get", "0" * 32))["error"]["message"]}
    for principal in ("bob", None, Principal("ann", "https://other.example")):
        for method in ("tasks/get", "tasks/update", "tasks/cancel"):
            assert server.handle(_about(method, id), principal=principal)["error"] == unknown
    assert server.handle(_about("tasks/get", id), principal=Principal("ann"))["result"]["status"] == "completed"
    assert server.tasks.list("bob") == [] and len(server.tasks.list("ann")) == 1
    anonymous = start(server, "t")["taskId"]
    assert server.handle(_about("tasks/get", anonymous), principal="ann")["error"] == unknown
    server.tasks.wait(anonymous, BOUND_S)


def test_who_listens_hears_of_own_tasks_alone(server):
    """Spec: EXT-054, EXT-057"""
    server.tool(lambda: "secret", "t", task=True)
    id = server.handle(modern("tools/call", name="t", capabilities=DECLARED), principal="ann")["result"]["taskId"]
    server.tasks.wait(id, BOUND_S)
    listen = modern("subscriptions/listen", notifications={"taskIds": [id]}, capabilities=DECLARED)
    sent = []
    assert "result" in server.handle(listen, sent.append, principal="bob")
    assert [each["method"] for each in sent] == [
        *("notifications/subscriptions/acknowledged", "notifications/cancelled")
    ]
    assert sent[0]["params"]["notifications"] == {"taskIds": []}


def test_a_body_knows_its_caller_and_its_caller_alone(server):
    @server.tool(task=True)
    def who(ctx: Context) -> dict:
        found = ctx.principal
        return {**found.claims, "key": list(found.key), "scopes": list(found.scopes), "roles": list(found.roles)}

    caller = Principal("ann", "https://issuer.example", ["read"], ["staff"], {"team": 5}, "app", expires=9e9)
    call = modern("tools/call", name="who", capabilities=DECLARED, meta={"traceparent": "00-1"})
    id = server.handle(call, principal=caller)["result"]["taskId"]
    done = server.tasks.wait(id, BOUND_S)["result"]["structuredContent"]
    assert done == {"team": 5, "key": ["https://issuer.example", "ann"], "scopes": ["read"], "roles": ["staff"]}


def _about(method, id, **params):
    more = {"inputResponses": {}} if method == "tasks/update" else {}
    return modern(method, taskId=id, capabilities=DECLARED, **more, **params)


@pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel"])
def test_the_methods_need_the_extension_and_the_name_of_the_task(server, method):
    """Spec: EXT-047, EXT-048, EXT-050, EXT-051, EXT-052"""
    server.tool(lambda: "x", "t", task=True)
    id = start(server, "t")["taskId"]
    server.tasks.wait(id, BOUND_S)
    with serving(server.wsgi) as url:
        assert post(url + "/mcp", _about(method, id), Mcp_Name=id)[0] == 200
        bare = modern(method, taskId=id, inputResponses={})
        status, reply = post(url + "/mcp", bare, Mcp_Name=id)
        assert status == 400 and reply["error"]["code"] == -32021
        assert reply["error"]["data"] == {"requiredCapabilities": {"extensions": {TASKS: {}}}}
        for name in ("other", ""):
            status, reply = post(url + "/mcp", _about(method, id), Mcp_Name=name)
            assert status == 400 and reply["error"]["code"] == -32020
        assert post(url + "/mcp", _about(method, id))[1]["error"]["code"] == -32020
        status, reply = post(url + "/mcp", _about(method, "0" * 32), Mcp_Name="0" * 32)
        assert status == 400 and reply["error"]["code"] == -32602


@pytest.mark.parametrize("id", ["", "x" * 10_000, "'; DROP TABLE tasks; --", "\ud800", "\x00", 5, None, [], {"a": 1}])
def test_ids_that_are_none_are_unknown(server, id):
    """Spec: EXT-047"""
    server.tasks.start()
    for method in ("tasks/get", "tasks/update", "tasks/cancel"):
        refused = server.handle(_about(method, id))["error"]
        assert refused["code"] == -32602


def test_what_fails_inside_is_an_internal_error(server, caplog):
    """Spec: EXT-049"""
    server.tool(lambda: "x", "t", task=True)
    id = start(server, "t")["taskId"]
    server.tasks.wait(id, BOUND_S)
    server.tasks.store._opened()._writer.execute("DROP TABLE tasks")
    for method in ("tasks/get", "tasks/update", "tasks/cancel"):
        assert server.handle(_about(method, id))["error"]["code"] == -32603
    assert problem(server, "tools/call", name="t", capabilities=DECLARED)["code"] == -32603
    assert "no such table" in caplog.text


# Times and numbers


@pytest.mark.parametrize("name", ["ttl_s", "poll_s", "heartbeat_s"])
@pytest.mark.parametrize("value", [0, -1, 0.0001, float("nan"), float("inf"), 1e14])
def test_times_that_make_no_sense_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        Tasks(**{name: value})


@pytest.mark.parametrize("ttl_s, ttl_ms", [(None, None), (10**12, 10**15), (0.5, 500)])
def test_the_time_of_a_task_is_told_in_whole_milliseconds(server, ttl_s, ttl_ms):
    server.use(Tasks(ttl_s=ttl_s, poll_s=2))
    server.tool(lambda: "x", "t", task=True)
    made = start(server, "t")
    assert made["ttlMs"] == ttl_ms and (ttl_ms is None or type(made["ttlMs"]) is int) and made["pollIntervalMs"] == 2000
    ended = server.tasks.wait(made["taskId"], BOUND_S)
    # It may still be fetched for a while after its end.
    assert ended["ttlMs"] is None or ended["ttlMs"] >= ttl_ms


def test_a_task_whose_time_is_over_fails_and_is_then_forgotten(server):
    """Spec: EXT-034, EXT-047"""
    server.use(Tasks(ttl_s=1.5, heartbeat_s=0.2))

    @server.tool(task=True)
    def work(ctx: Context) -> str:
        assert ctx.cancelled.wait(BOUND_S)
        ctx.check()
        return "never"

    publish, told = server.engine.bus.publish, []

    def heard(topic, data=None):
        # Fetched as it is told, since it is kept for a short time only.
        told.append((topic, data, server.tasks.get(topic.rpartition("/")[2])))
        publish(topic, data)

    server.engine.bus.publish = heard
    id = start(server, "work")["taskId"]
    wait_until(lambda: f"tasks/{id}" in [topic for topic, *_ in told])
    [(data, failed)] = [more for topic, *more in told if topic == f"tasks/{id}"]
    assert data == "failed"
    assert failed["error"] == {"code": -32603, "message": "The task did not end within its time"}
    assert failed["statusMessage"] == failed["error"]["message"] and failed["ttlMs"] > 1500
    end = time.monotonic() + BOUND_S
    while server.tasks.get(id) is not None and time.monotonic() < end:
        server.tasks._work.keeper()._expire()
    refused = server.handle(_about("tasks/get", id))["error"]
    assert refused["code"] == -32602 and server.tasks.list() == []


def test_a_task_that_nobody_begins_in_time_fails(server):
    server.use(Tasks(ttl_s=0.1, workers=0, heartbeat_s=0.1))
    server.tool(lambda: "x", "t", task=True)
    failed = server.tasks.wait(start(server, "t")["taskId"], BOUND_S)
    assert failed["error"] == {"code": -32603, "message": "The task did not begin within its time"}


def test_there_are_only_so_many_tasks(server):
    server.use(Tasks(workers=0, most=5, most_own=3))
    server.tool(lambda: "x", "t", task=True)
    call = modern("tools/call", name="t", capabilities=DECLARED)
    made = [server.handle(call, principal="ann") for _ in range(4)]
    assert ["result" in reply for reply in made] == [True, True, True, False]
    assert made[3]["error"]["code"] == -32603
    others = [server.handle(call) for _ in range(3)]
    assert ["result" in reply for reply in others] == [True, True, False]
    with serving(server.wsgi) as url:
        status, reply = post(url + "/mcp", call)
    assert status == 503 and reply["error"]["code"] == -32603
    for task in server.tasks.list():
        assert server.tasks.cancel(task["taskId"])
    end = time.monotonic() + BOUND_S
    while "result" not in server.handle(call):
        assert time.monotonic() < end


def test_polls_leave_nothing_behind(server):
    server.tool(lambda: "x", "t", task=True)
    id = start(server, "t")["taskId"]
    server.tasks.wait(id, BOUND_S)
    before = server.tasks.store.get(id)
    guessed = _about("tasks/get", "f" * 32)
    assert server.engine.call(guessed).interactive is False, "a poll would take a thread of its own"
    for _ in range(3000):
        poll(server, id)
        assert server.handle(guessed)["error"]["code"] == -32602
    assert server.tasks.store.get(id) == before and server.tasks.store.count("", 100) == (0, 0, 1)


def test_polls_come_less_often_the_older_a_task_is(server):
    from minimcp.extensions.tasks.task_records import describe

    server.use(Tasks(workers=0))
    server.tool(lambda: "x", "t", task=True)
    id = start(server, "t")["taskId"]
    record = server.tasks.store.get(id)
    intervals = []
    for age_s in (0, 1, 10, 10_000, -10_000):
        described = server.tasks._work.describe(record._replace(created=time.time() - age_s))
        intervals.append(described["pollIntervalMs"])
    assert intervals[0] == intervals[4] == 50 and 250 <= intervals[1] <= 300 and 2500 <= intervals[2] <= 2600
    assert intervals[3] == 5000 and describe(record, 7)["pollIntervalMs"] == 7
    server.tasks.cancel(id)


# The application's side


def test_the_application_sees_and_waits_for_all_tasks(server):
    @server.tool(task=True)
    def work(n: int) -> int:
        assert go[n].wait(BOUND_S)
        return n

    go = [threading.Event(), threading.Event()]
    ids = [start(server, "work", n=n)["taskId"] for n in (0, 1)]
    assert [task["taskId"] for task in server.tasks.list()] == ids[::-1]
    assert len(server.tasks.list(limit=1)) == 1 and len(server.tasks.list(status="working")) == 2
    with pytest.raises(TimeoutError):
        server.tasks.wait(ids[0], 0.01)
    go[0].set()
    assert server.tasks.wait(ids[0], BOUND_S)["result"]["structuredContent"] == 0
    assert [task["taskId"] for task in server.tasks.list(status="completed")] == [ids[0]]
    assert server.tasks.cancel(ids[1]) is True and server.tasks.cancel(ids[1]) is False
    assert server.tasks.get(ids[1])["status"] == "cancelled"
    go[1].set()
    assert server.tasks.get("x") is None and server.tasks.cancel("x") is False
    with pytest.raises(KeyError):
        server.tasks.wait("x", 1)
    server.tasks._work.keeper().ended(BOUND_S)


def test_each_server_has_its_own_tasks():
    tasks = Tasks()
    Server("a").use(tasks)
    with pytest.raises(RuntimeError, match="its own"):
        Server("b").use(tasks)
    served = Server("c")
    served.tool(lambda: "x", "t", task=True)
    served.use(Tasks())  # in place of the default ones, before it serves
    result(served, "tools/list")
    with pytest.raises(RuntimeError, match="before it serves"):
        served.use(Tasks())
    with pytest.raises(RuntimeError, match="server.use"):
        Tasks()._work.engine  # noqa: B018


def test_a_hint_may_be_lost_doubled_and_late(server):
    class Unreliable:
        """Loses the first hint, doubles every other one, and sends them from other threads."""

        patience_s = 0.0

        def __init__(self):
            self.threads, self.sent = [], []

        def send(self, id):
            self.sent.append(id)
            if len(self.sent) == 1:
                return
            if len(self.sent) == 2:
                raise ConnectionError("the broker has gone")
            for _ in range(2):
                thread = threading.Thread(target=server.tasks.run, args=(id,))
                thread.start()
                self.threads.append(thread)

        def room(self, queued):
            return 10

    carrier, runs = Unreliable(), []
    server.use(Tasks(carrier=carrier, heartbeat_s=0.1))

    @server.tool(task=True)
    def work() -> str:
        runs.append(1)
        return "x"

    id = start(server, "work")["taskId"]
    assert server.tasks.wait(id, BOUND_S)["status"] == "completed"
    server.tasks._work.keeper().ended(BOUND_S)
    for thread in carrier.threads:
        thread.join(BOUND_S)
    assert runs == [1] and len(carrier.sent) >= 3


def test_stopping_says_what_became_of_each_task(server):
    @server.tool(task=True)
    def slow(ctx: Context) -> str:
        started.release()
        ctx.cancelled.wait(BOUND_S)
        return "x"

    started = threading.Semaphore(0)
    server.use(Tasks(workers=2))
    server.tool(slow, "again", task=True, idempotent=True)
    ids = [start(server, name)["taskId"] for name in ("slow", "again", "slow")]
    assert started.acquire(timeout=BOUND_S) and started.acquire(timeout=BOUND_S)
    store = server.tasks.store
    closed, store.close = store.close, lambda: None
    server.tasks.close()
    found = [store.get(id) for id in ids]
    assert [record.status for record in found] == ["failed", "queued", "queued"]
    assert found[0].outcome["error"]["message"] == "The task was interrupted: the process that ran it has stopped"
    server.tasks._work.keeper().ended(BOUND_S)
    store.close = closed


def test_several_processes_without_a_file_are_warned_of(server, caplog):
    server.tool(lambda: "x", "t", task=True)
    environ = {"wsgi.multiprocess": True}
    call = modern("tools/call", name="t", capabilities=DECLARED)
    for _ in range(2):
        reply = server.engine.call(call, request=environ).run()
        server.tasks.wait(reply["result"]["taskId"], BOUND_S)
    assert caplog.text.count("Tasks(") == 1


def test_a_client_of_the_server_sees_a_plain_result(server):
    @server.tool(task=True)
    def book(city: str, ctx: Context) -> dict:
        ctx.progress(1, 2, "asking")
        return {"city": city, "nights": ctx.elicit("How many nights?", {"nights": int})["nights"]}

    seen = []
    with Client(server, tasks=True, elicit=lambda question: {"nights": 2}) as client:
        assert client.call_tool("book", {"city": "Rome"}, progress=seen.append).data == {"city": "Rome", "nights": 2}
    with Client(server, elicit=lambda question: {"nights": 3}) as client:
        assert client.call_tool("book", city="Oslo").data == {"city": "Oslo", "nights": 3}
    assert {"message": "asking (1 of 2)"} in seen
