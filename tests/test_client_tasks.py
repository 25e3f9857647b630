"""The tasks extension, followed to its end: polls, questions, failure, cancellation."""

from __future__ import annotations

import threading

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


def test_giving_up_cancels_the_task_and_sends_no_other_cancellation():
    server = played(task("working", pollIntervalMs=10))
    with Client(server, tasks=True) as client:
        with pytest.raises(minimcp.Timeout, match="task"):
            client.call_tool("x", {}, max_timeout=0.2)
        assert server.wait_for("tasks/cancel")["params"]["taskId"] == "t-1"
        server.heard.clear()
        call = client.start_tool("x")
        threading.Timer(0.1, call.cancel).start()
        with pytest.raises(minimcp.CallCancelled):
            call.result()
        server.wait_for("tasks/cancel")


def test_a_task_may_take_longer_than_the_time_without_a_sign_of_life():
    states = [task("working", pollIntervalMs=1)] * 5

    def slow(params, say):
        threading.Event().wait(0.15)
        return states.pop() if states else task("completed", result=DONE)

    server = played(task("working"))
    server.methods["tasks/get"] = slow
    with Client(server, tasks=True) as client:
        assert client.call_tool("x", {}, timeout=0.5).text == "42"
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
        assert waiting.wait(10)
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
