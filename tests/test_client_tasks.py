"""The tasks extension, followed to its end: polls, questions, failure, cancellation."""

from __future__ import annotations

import gc
import threading
import time

import pytest

import minimcp
from minimcp import Client
from tests.played import DISCOVERED, INITIALIZED, Fault, Scripted
from tests.scripted import scripted

TASK = {"taskId": "t-1", "createdAt": "2026-11-21T00:00:00Z", "lastUpdatedAt": "2026-11-21T00:00:00Z", "ttlMs": None}
DONE = {"content": [{"type": "text", "text": "42"}]}
QUESTION = {"method": "elicitation/create", "params": {"message": "?", "requestedSchema": {"type": "object"}}}


def task(status, **more):
    return {"resultType": "complete", **TASK, "status": status, "pollIntervalMs": 1, **more}


def played(*states, **more):
    """A server whose tool makes a task that goes through these states, the last of them for ever."""
    left = list(states)
    return Scripted(
        tools_call=lambda params, say: {**task("working"), "resultType": "task"},
        tasks_get=lambda params, say: left.pop(0) if len(left) > 1 else left[0],
        tasks_update=lambda params, say: {"resultType": "complete"},
        tasks_cancel=lambda params, say: {"resultType": "complete"},
        **more,
    )


def test_a_task_is_polled_until_its_result_is_there():
    server = played(task("working"), task("working", statusMessage="half"), task("completed", result=DONE))
    with Client(server, tasks=True) as client:
        seen = []
        assert client.call_tool("x", {}, progress=seen.append).text == "42"
        assert seen == [{"message": "half"}]
    assert [message["params"]["taskId"] for message in server.all("tasks/get")] == ["t-1"] * 3
    declared = server.all("tools/call")[0]["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"]
    assert declared == {"extensions": {"io.modelcontextprotocol/tasks": {}}}
    assert not server.all("tasks/cancel")


def test_without_the_extension_a_task_is_an_invalid_result():
    server = played(task("completed", result=DONE))
    with Client(server) as client, pytest.raises(minimcp.ProtocolError, match="'task'"):
        client.call_tool("x")


def test_a_plain_result_is_still_a_result():
    with Client(Scripted(tools_call=lambda params, say: DONE), tasks=True) as client:
        assert client.call_tool("x").text == "42"


def test_each_question_is_answered_once_however_often_it_is_repeated():
    asking = task("input_required", inputRequests={"a": QUESTION})
    both = task("input_required", inputRequests={"a": QUESTION, "b": QUESTION})
    server = played(asking, asking, both, task("working"), task("completed", result=DONE))
    with Client(server, tasks=True, elicit=lambda question: {"n": 1}) as client:
        assert client.call_tool("x").text == "42"
    sent = [message["params"]["inputResponses"] for message in server.all("tasks/update")]
    accepted = {"action": "accept", "content": {"n": 1}}
    assert sent == [{"a": accepted}, {"b": accepted}]
    assert all(message["params"]["taskId"] == "t-1" for message in server.all("tasks/update"))


def test_a_failed_task_is_the_error_it_failed_with():
    server = played(task("failed", error={"code": -31000, "message": "no paper", "data": 1}))
    with Client(server, tasks=True) as client, pytest.raises(minimcp.RemoteError) as caught:
        client.call_tool("x")
    assert (caught.value.code, caught.value.message, caught.value.data) == (-31000, "no paper", 1)


def test_a_completed_task_may_be_a_tool_that_failed():
    server = played(task("completed", result={**DONE, "isError": True}))
    with Client(server, tasks=True, check=True) as client, pytest.raises(minimcp.ToolFailed, match="42"):
        client.call_tool("x")


def test_a_task_that_the_server_cancelled_raises():
    with Client(played(task("cancelled")), tasks=True) as client, pytest.raises(minimcp.CallCancelled):
        client.call_tool("x")


class Ahead:
    """Stands for `time` where a call looks how long it has taken: its clock is ahead by `by_s`, which only grows."""

    by_s = 0.0

    def monotonic(self):
        return time.monotonic() + self.by_s


@pytest.fixture
def ahead(monkeypatch):
    clock = Ahead()
    monkeypatch.setattr("minimcp.client.transports.waiting.time", clock)
    return clock


def test_giving_up_cancels_the_task_and_sends_no_other_cancellation(ahead):
    server = played(task("working", pollIntervalMs=10))
    polled = server.methods["tasks/get"]

    def late(params, say):
        ahead.by_s = 600
        return polled(params, say)

    with Client(server, tasks=True) as client:
        server.methods["tasks/get"] = late
        with pytest.raises(minimcp.Timeout, match="task"):
            client.call_tool("x", {}, max_timeout=60)
        assert server.wait_for("tasks/cancel")["params"]["taskId"] == "t-1"
        server.methods["tasks/get"] = polled
        server.heard.clear()
        call = client.start_tool("x")
        server.wait_for("tasks/get")
        call.cancel()
        with pytest.raises(minimcp.CallCancelled):
            call.result()
        server.wait_for("tasks/cancel")


def test_a_task_may_take_longer_than_the_time_without_a_sign_of_life(ahead):
    states = [task("working", pollIntervalMs=1)] * 5

    def slow(params, say):
        ahead.by_s += 30
        threading.Event().wait(0.05)  # longer than a call whose time is up waits
        return states.pop() if states else task("completed", result=DONE)

    server = played(task("working"))
    server.methods["tasks/get"] = slow
    with Client(server, tasks=True) as client:
        assert client.call_tool("x", {}, timeout=120).text == "42"
    assert len(server.all("tasks/get")) == 6


def test_every_method_of_a_task_names_it_in_a_header():
    states = [task("input_required", inputRequests={"a": QUESTION}), task("working", pollIntervalMs=60_000)]
    results = {
        "server/discover": DISCOVERED,
        "tools/call": {**task("working", taskId="Zürich"), "resultType": "task"},
        "tasks/update": {"resultType": "complete"},
        "tasks/cancel": {"resultType": "complete"},
    }
    waiting = threading.Event()

    def answer(request, peer):
        method = request.message["method"]
        found = states.pop(0) if method == "tasks/get" else results[method]
        peer.json({"jsonrpc": "2.0", "id": request.message["id"], "result": found})
        if not states:
            waiting.set()

    with scripted(answer) as server, Client(server.url, tasks=True, elicit=lambda question: {}) as client:
        call = client.start_tool("x", {})
        assert waiting.wait(30)
        call.cancel()
        with pytest.raises(minimcp.CallCancelled):
            call.result()
    sent = [(request.headers["mcp-method"], request.headers.get("mcp-name")) for request in server.requests[2:]]
    name = "=?base64?WsO8cmljaA==?="
    assert sent == [("tasks/get", name), ("tasks/update", name), ("tasks/get", name), ("tasks/cancel", name)]


@pytest.mark.parametrize(
    "state",
    [
        task("dreaming"),
        task("completed"),
        task("completed", result=[]),
        task("input_required"),
        task("input_required", inputRequests={"a": 1}),
        {"resultType": "complete"},
    ],
)
def test_a_state_that_makes_no_sense_is_a_protocol_error(state):
    following = Client(played(state), tasks=True, elicit=lambda question: {})
    with following as client, pytest.raises(minimcp.ProtocolError):
        client.call_tool("x")


def test_a_task_that_vanished_is_a_remote_error():
    def gone(params, say):
        raise Fault(-32602, "unknown task")

    server = played(task("working"))
    server.methods["tasks/get"] = gone
    with Client(server, tasks=True) as client, pytest.raises(minimcp.RemoteError, match="unknown task"):
        client.call_tool("x")


def test_a_task_without_an_id_is_a_protocol_error():
    server = Scripted(tools_call=lambda params, say: {"resultType": "task", "status": "working"})
    with Client(server, tasks=True) as client, pytest.raises(minimcp.ProtocolError, match="taskId"):
        client.call_tool("x")


def test_a_legacy_server_is_not_told_of_the_extension():
    server = Scripted(initialize=lambda params, say: INITIALIZED, tools_call=lambda params, say: DONE)
    with Client(server, mode="legacy", tasks=True, extensions={"com.example/x": {}}) as client:
        assert client.call_tool("x").text == "42"
    declared = server.wait_for("initialize")["params"]["capabilities"]
    assert declared == {"extensions": {"com.example/x": {}}}


# Coming back to a task


def test_a_call_says_the_id_of_its_task_and_may_be_detached():
    server = played(task("working", pollIntervalMs=60_000))
    with Client(server, tasks=True) as client:
        call = client.start_tool("x")
        assert call.detach(30) == call.task_id == "t-1"
        with pytest.raises(minimcp.CallCancelled, match=r"client\.task\('t-1'\)"):
            call.result()
        # Neither then nor when nobody holds it any more is the server told anything.
        del call
        gc.collect()
        server.methods["tasks/get"] = lambda params, say: task("completed", result=DONE)
        assert client.task("t-1").result().text == "42"
    assert not server.all("tasks/cancel") and len(server.all("tools/call")) == 1


def test_a_call_that_is_no_task_cannot_be_detached():
    answered = threading.Event()

    def answer(params, say):
        answered.wait(10)
        return DONE

    with Client(Scripted(tools_call=answer), tasks=True) as client:
        call = client.start_tool("x")
        assert call.task_id is None
        with pytest.raises(minimcp.Timeout, match="has not made a task"):
            call.detach(0.01)
        answered.set()
        assert call.result().text == "42" and call.task_id is None
        with pytest.raises(minimcp.ProtocolError, match="without making a task"):
            call.detach(30)
    with Client(Scripted(tools_call=fault), tasks=True) as client, pytest.raises(minimcp.RemoteError, match="no such"):
        client.start_tool("x").detach(30)


def fault(params, say):
    raise Fault(-32602, "no such tool")


def test_a_task_that_has_ended_is_detached_without_effect():
    with Client(played(task("completed", result=DONE)), tasks=True) as client:
        call = client.start_tool("x")
        assert call.result().text == "42" and call.detach() == "t-1" and call.result().text == "42"


def test_another_client_comes_back_to_a_task_and_answers_its_questions():
    server = played(
        task("working", statusMessage="half"),
        task("input_required", inputRequests={"a": QUESTION}),
        task("completed", result=DONE),
    )
    with Client(server, tasks=True, elicit=lambda question: {"n": 1}) as client:
        call = client.task("t-1")
        assert list(call) == [{"message": "half"}] and call.result().text == "42" and call.task_id == "t-1"
    (sent,) = server.all("tasks/update")
    assert sent["params"]["inputResponses"] == {"a": {"action": "accept", "content": {"n": 1}}}
    assert not server.all("tools/call") and not server.all("tasks/cancel")


def test_a_task_that_is_come_back_to_may_be_cancelled():
    server = played(task("working", pollIntervalMs=60_000))
    with Client(server, tasks=True) as client:
        with client.task("t-1") as call:
            assert call.detach(30) == "t-1"
        assert not server.all("tasks/cancel")
        for wait in (True, False):
            server.heard.clear()
            call = client.task("t-1")
            if wait:
                server.wait_for("tasks/get")
            call.cancel()
            with pytest.raises(minimcp.CallCancelled):
                call.result()
            assert server.wait_for("tasks/cancel")["params"]["taskId"] == "t-1"


def test_a_tool_that_failed_in_a_task_raises_where_that_was_asked_for():
    failed = {**DONE, "isError": True}
    for of_client, of_call, raises in (
        (False, None, False),
        (True, None, True),
        (True, False, False),
        (False, True, True),
    ):
        with Client(played(task("completed", result=failed)), tasks=True, check=of_client) as client:
            call = client.task("t-1", check=of_call)
            if raises:
                with pytest.raises(minimcp.ToolFailed, match="42"):
                    call.result()
            else:
                assert call.result().is_error


def test_an_unknown_task_is_a_remote_error():
    def unknown(params, say):
        raise Fault(-32602, "unknown task")

    server = played(task("working"))
    server.methods["tasks/get"] = unknown
    with Client(server, tasks=True) as client, pytest.raises(minimcp.RemoteError, match="unknown task"):
        client.task("elsewhere").result()


def test_tasks_need_a_client_and_a_server_that_speak_of_them():
    with Client(played(task("working"))) as client, pytest.raises(minimcp.ProtocolError, match="tasks=True"):
        client.task("t-1")
    old = Scripted(initialize=lambda params, say: INITIALIZED)
    with Client(old, mode="legacy", tasks=True) as client, pytest.raises(minimcp.ProtocolError, match="2025-11-25"):
        client.task("t-1")


def test_a_server_that_needs_tasks_has_the_client_say_what_to_write():
    def needs(params, say):
        raise Fault(-32021, "no", {"requiredCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}}})

    with Client(Scripted(tools_call=needs)) as client, pytest.raises(minimcp.RemoteError, match=r"tasks=True"):
        client.call_tool("x")


def test_polls_survive_a_server_that_is_started_anew():
    results = {
        "server/discover": DISCOVERED,
        "tools/list": {"resultType": "complete", "tools": []},
        "tools/call": {**task("working"), "resultType": "task"},
    }
    trouble = ["503", "hang up", "502"]

    def answer(request, peer):
        method = request.message["method"]
        if method == "tasks/get" and trouble:
            kind = trouble.pop(0)
            if kind == "hang up":
                peer.hang_up()
            else:
                peer.body(b"starting", int(kind), Content_Type="text/plain")
            return
        found = task("completed", result=DONE) if method == "tasks/get" else results[method]
        peer.json({"jsonrpc": "2.0", "id": request.message["id"], "result": found})

    with scripted(answer) as server, Client(server.url, tasks=True) as client:
        assert client.call_tool("x", {}).text == "42"
    assert trouble == [] and not [each for each in server.requests if each.message["method"] == "tasks/cancel"]


def test_a_server_that_stays_away_leaves_the_id_of_the_task(monkeypatch):
    monkeypatch.setattr("minimcp.client.tasks._TRIES", 2)
    results = {"server/discover": DISCOVERED, "tools/call": {**task("working"), "resultType": "task"}}

    def answer(request, peer):
        method = request.message["method"]
        if method not in results:
            peer.hang_up()
            return
        peer.json({"jsonrpc": "2.0", "id": request.message["id"], "result": results[method]})

    with scripted(answer) as server, Client(server.url, tasks=True) as client:
        with pytest.raises(minimcp.ConnectionLost, match=r"client\.task\('t-1'\) comes back"):
            client.call_tool("x", {})
    sent = [each.message["method"] for each in server.requests]
    assert sent.count("tasks/get") >= 3 and "tasks/cancel" not in sent
