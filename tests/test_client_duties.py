"""The client's half of the rules that bind both sides: questions answered, notifications taken, codes and clocks."""

from __future__ import annotations

import logging
import threading

import pytest

import minimcp
from minimcp import Client
from minimcp.client import cache
from tests.embedded import wait_until
from tests.played import DISCOVERED, INITIALIZED, Fault, Scripted, Silence
from tests.transcripts.server import build

PNG = "iVBORw0KGgo="


def legacy(version="2025-11-25", **methods):
    return Scripted(initialize=lambda params, say: {**INITIALIZED, "protocolVersion": version}, **methods)


def answered(server, number):
    """Wait for that many responses of the client and return them."""
    wait_until(lambda: len(server.all(None)) >= number)
    return server.all(None)


@pytest.mark.parametrize("id", [0, 7, "7", "", "é/1", 2**53 - 1, -1])
def test_an_answer_has_the_id_of_its_question_with_its_type(id):
    server = legacy()

    def play(params, say):
        say({"jsonrpc": "2.0", "id": id, "method": "roots/list"})
        answered(server, 2)
        return {"content": []}

    server.methods["tools/call"] = play
    with Client(server, mode="legacy", roots=[]) as client:
        server.say({"jsonrpc": "2.0", "id": id, "method": "ping"})
        assert answered(server, 1) == [{"jsonrpc": "2.0", "id": id, "result": {}}]
        client.call_tool("x")
        server.say({"jsonrpc": "2.0", "id": id, "method": "no/such"})
        ids = [(type(message["id"]), message["id"]) for message in answered(server, 3)]
    assert ids == [(type(id), id)] * 3
    assert server.all(None)[1]["result"] == {"roots": []}
    assert server.all(None)[2]["error"]["code"] == -32601


def test_both_sides_may_use_the_same_id_for_different_requests():
    server = legacy()

    def play(params, say):
        own = server.all("tools/call")[0]["id"]
        say(
            {
                "jsonrpc": "2.0",
                "id": own,
                "method": "sampling/createMessage",
                "params": {"messages": [], "maxTokens": 5},
            }
        )
        answer = server.wait_for(None)
        assert answer["id"] == own
        return {"content": [answer["result"]["content"]]}

    server.methods["tools/call"] = play
    with Client(server, mode="legacy", sample=lambda params: "mine") as client:
        assert client.call_tool("x").text == "mine"


@pytest.mark.parametrize("mode", ["legacy", "modern"])
def test_a_notification_is_never_answered_and_a_malformed_cancellation_never_mentioned(mode, caplog):
    tools = {"tools": [{"name": "x", "inputSchema": {"type": "object"}}]}
    server = legacy(tools_call=lambda params, say: {"content": []}, tools_list=lambda params, say: tools)
    heard = []
    with Client(server, mode=mode, on_notification=lambda message: heard.append(message["method"])) as client:
        for params in (
            {},
            None,
            [],
            [1],
            {"requestId": None},
            {"requestId": []},
            {"requestId": 99},
            {"requestId": "x"},
        ):
            server.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})
        server.say({"jsonrpc": "2.0", "method": "notifications/cancelled"})
        server.say({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": [1]})
        server.say({"jsonrpc": "2.0", "method": "notifications/of/no/kind", "params": {"a": 1}})
        server.say({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "x"}})
        wait_until(lambda: "tools/call" in heard)
        client.call_tool("x")
        assert "notifications/of/no/kind" in heard
        wait_until(lambda: not client._connect().inbox.busy)
        known = {"server/discover", "initialize", "notifications/initialized", "tools/call", "tools/list"}
        assert {message.get("method") for message in server.heard} <= known
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_cancellation_that_comes_after_the_answer_changes_nothing():
    server = legacy(tools_call=lambda params, say: {"content": []})
    told = threading.Event()
    with Client(server, mode="legacy", on_notification=lambda message: told.set()) as client:
        server.say({"jsonrpc": "2.0", "id": "q", "method": "ping"})
        answered(server, 1)
        server.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "q"}})
        assert told.wait(20)
        server.say({"jsonrpc": "2.0", "id": "q2", "method": "ping"})
        assert [message["id"] for message in answered(server, 2)] == ["q", "q2"]
        client.call_tool("x")


def test_the_reason_of_a_withdrawn_question_is_logged(caplog):
    asked, withdrawn = threading.Event(), threading.Event()

    def sample(params):
        asked.set()
        assert withdrawn.wait(20)
        return "late"

    caplog.set_level(logging.DEBUG, "minimcp")
    server = legacy()
    with Client(server, mode="legacy", sample=sample, on_notification=lambda message: withdrawn.set()) as client:
        server.say(
            {
                "jsonrpc": "2.0",
                "id": "q",
                "method": "sampling/createMessage",
                "params": {"messages": [], "maxTokens": 5},
            }
        )
        assert asked.wait(20)
        params = {"requestId": "q", "reason": "the user left\nthe room"}
        server.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})
        assert withdrawn.wait(20)
        wait_until(lambda: not client._connect().inbox.busy)
    assert "'the user left\\nthe room'" in caplog.text
    assert not server.all(None)


def test_the_tokens_of_calls_at_once_differ():
    together = threading.Barrier(8)

    def play(params, say):
        together.wait(10)
        return {"content": []}

    server = Scripted(tools_call=play)
    with Client(server) as client:
        calls = [client.start_tool("x", {}) for _ in range(8)]
        for call in calls:
            call.result()
    tokens = [message["params"]["_meta"]["progressToken"] for message in server.all("tools/call")]
    assert len(set(tokens)) == 8 and {type(token) for token in tokens} <= {int, str}


def test_what_is_no_progress_does_not_restart_the_clock():
    def play(params, say):
        for step in range(6):
            threading.Event().wait(0.1)
            say({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": step}})
        return {"content": []}

    with Client(Scripted(tools_call=play)) as client:
        with pytest.raises(minimcp.Timeout):
            client.call_tool("log", {}, timeout=0.35)


@pytest.mark.parametrize("task", [{}, {"ttl": 60_000}, 5, None])
def test_a_wish_for_a_task_is_ignored(task):
    server = legacy()
    with Client(server, mode="legacy", sample=lambda params: "now", elicit=lambda question: {"a": 1}, tasks=True):
        params = {"messages": [], "maxTokens": 5, "task": task}
        server.say({"jsonrpc": "2.0", "id": 1, "method": "sampling/createMessage", "params": params})
        assert answered(server, 1)[0]["result"]["content"] == {"type": "text", "text": "now"}
        form = {"type": "object", "properties": {"a": {"type": "integer"}}}
        params = {"message": "?", "requestedSchema": form, "task": task}
        server.say({"jsonrpc": "2.0", "id": 2, "method": "elicitation/create", "params": params})
        assert answered(server, 2)[1]["result"] == {"action": "accept", "content": {"a": 1}}
        server.say({"jsonrpc": "2.0", "id": 3, "method": "tasks/get", "params": {"taskId": "t"}})
        assert answered(server, 3)[2]["error"]["code"] == -32601
    assert "tasks" not in server.all("initialize")[0]["params"]["capabilities"]


def test_nothing_of_one_sampling_request_is_in_the_next():
    seen = []
    server = legacy()
    with Client(server, mode="legacy", sample=lambda params: seen.append(params) or "x"):
        for number in (1, 2, 3):
            messages = [{"role": "user", "content": {"type": "text", "text": str(number)}}]
            params = {"messages": messages, "maxTokens": number}
            server.say({"jsonrpc": "2.0", "id": number, "method": "sampling/createMessage", "params": params})
            answered(server, number)
    assert [each["maxTokens"] for each in seen] == [1, 2, 3]
    assert [[message["content"]["text"] for message in each["messages"]] for each in seen] == [["1"], ["2"], ["3"]]


@pytest.mark.parametrize("choice", [{"mode": "auto"}, {"mode": "required"}, {"mode": "none"}, {}])
def test_tools_of_a_sampling_request_reach_the_callback_and_their_uses_the_server(choice):
    use = {"type": "tool_use", "id": "u1", "name": "add", "input": {"a": 1}}
    done = {"type": "tool_result", "toolUseId": "u1", "content": [{"type": "text", "text": "2"}], "isError": False}
    params = {
        "messages": [
            {"role": "user", "content": {"type": "text", "text": "1+1?"}},
            {"role": "assistant", "content": [use]},
            {"role": "user", "content": [{**done, "structuredContent": {"sum": 2}}]},
        ],
        "tools": [{"name": "add", "inputSchema": {"type": "object"}}],
        "toolChoice": choice,
        "maxTokens": 9,
    }
    seen = []

    def sample(params):
        seen.append(params)
        return {"role": "assistant", "content": [{**use, "id": "u2"}], "model": "m", "stopReason": "toolUse"}

    server = legacy()
    with Client(server, mode="legacy", sample=sample, sample_tools=True):
        server.say({"jsonrpc": "2.0", "id": 1, "method": "sampling/createMessage", "params": params})
        (answer,) = answered(server, 1)
    assert seen == [params]
    assert answer["result"]["content"] == [{**use, "id": "u2"}] and answer["result"]["stopReason"] == "toolUse"


@pytest.mark.parametrize("mode", ["legacy", "modern"])
@pytest.mark.parametrize("code", [-32000, -32001, -32003, -32009, -32019])
def test_a_code_that_has_no_meaning_is_only_handed_on(mode, code):
    def play(params, say):
        raise Fault(code, "whatever", {"a": 1})

    server = legacy(tools_call=play)
    with Client(server, mode=mode) as client, pytest.raises(minimcp.RemoteError) as caught:
        client.call_tool("x")
    assert (caught.value.code, caught.value.message, caught.value.data) == (code, "whatever", {"a": 1})
    assert caught.value.retry == "never"
    assert len(server.all("tools/call")) == 1


def test_an_error_of_a_callback_goes_out_with_its_code_and_data():
    def elicit(question):
        raise minimcp.McpError("no such form", data={"a": [1, None]}, code=4711)

    server = legacy()
    with Client(server, mode="legacy", elicit=elicit):
        params = {"message": "?", "requestedSchema": {"type": "object", "properties": {}}}
        server.say({"jsonrpc": "2.0", "id": 1, "method": "elicitation/create", "params": params})
        (answer,) = answered(server, 1)
    assert answer["error"] == {"code": 4711, "message": "no such form", "data": {"a": [1, None]}}


def test_an_error_of_the_server_is_never_taken_for_one_of_the_client():
    def play(params, say):
        if params["name"] == "silent":
            raise Silence
        raise Fault(-32603, "Timeout: connection lost")

    with Client(Scripted(tools_call=play)) as client:
        with pytest.raises(minimcp.RemoteError) as told:
            client.call_tool("x")
        with pytest.raises(minimcp.Timeout) as waited:
            client.call_tool("silent", {}, timeout=0.05)
    with pytest.raises(minimcp.ConnectionLost) as lost:
        client.call_tool("x")
    kinds = (minimcp.RemoteError, minimcp.Timeout, minimcp.ConnectionLost)
    for error, kind in zip((told.value, waited.value, lost.value), kinds):
        assert [isinstance(error, each) for each in kinds] == [each is kind for each in kinds]
        assert hasattr(error, "code") is (kind is minimcp.RemoteError)


@pytest.mark.parametrize("mode", ["legacy", "modern"])
def test_the_name_of_a_server_changes_nothing(mode):
    heard = []
    for info in ({"name": "minimcp", "version": "1"}, {"name": "FastMCP", "version": "99"}, {"name": ""}, 5, None):
        named = {"serverInfo": info, "_meta": {"io.modelcontextprotocol/serverInfo": info}}
        server = Scripted(
            server_discover=lambda params, say, named=named: {**DISCOVERED, **named},
            initialize=lambda params, say, named=named: {**INITIALIZED, **named},
            tools_list=lambda params, say: {"tools": [{"name": "x", "inputSchema": {"type": "object"}}]},
            tools_call=lambda params, say: {"content": []},
        )
        with Client(server, mode=mode, roots=["/srv"]) as client:
            client.list_tools()
            client.call_tool("x", {"a": 1})
        heard.append(server.heard)
    assert len(heard[0]) >= 3 and all(messages == heard[0] for messages in heard)


@pytest.mark.parametrize(
    "meta",
    [
        {"com.example/a": [1, None]},
        {"progressToken": {}, "traceparent": 5},
        {"io.modelcontextprotocol/serverInfo": "me", "io.modelcontextprotocol/subscriptionId": None},
        {"io.modelcontextprotocol/of-tomorrow": True},
        [],
        "x",
        None,
    ],
)
@pytest.mark.parametrize("mode", ["legacy", "modern"])
def test_a_meta_of_any_shape_is_tolerated(mode, meta):
    server = legacy(tools_call=lambda params, say: {"content": [{"type": "text", "text": "x"}], "_meta": meta})
    with Client(server, mode=mode, sample=lambda params: "yes") as client:
        assert client.call_tool("x").text == "x"
        server.say({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "_meta": meta}})
        if mode == "legacy":
            params = {"messages": [], "maxTokens": 5, "_meta": meta}
            server.say({"jsonrpc": "2.0", "id": 1, "method": "sampling/createMessage", "params": params})
            assert answered(server, 1)[0]["result"]["content"] == {"type": "text", "text": "yes"}
        wait_until(lambda: not client._connect().inbox.busy)


@pytest.mark.parametrize(
    "block",
    [
        {"type": "text", "text": "x", "annotations": {"audience": ["user"], "priority": 0.5}},
        {"type": "image", "data": PNG, "mimeType": "image/png"},
        {"type": "audio", "data": PNG, "mimeType": "audio/wav"},
        {"type": "resource_link", "uri": "a://b", "name": "b", "size": 5, "icons": [{"src": "https://x/i"}]},
        {"type": "resource", "resource": {"uri": "a://b", "text": "x", "mimeType": "text/plain"}},
        {"type": "resource", "resource": {"uri": "a://b", "blob": PNG}},
        {"type": "of_tomorrow", "_meta": {"a": 1}},
    ],
)
def test_a_block_of_any_kind_reaches_the_caller_as_it_is(block):
    server = Scripted(
        tools_call=lambda params, say: {"content": [block, block]},
        prompts_get=lambda params, say: {"messages": [{"role": "user", "content": block}]},
    )
    with Client(server) as client:
        assert client.call_tool("x")["content"] == [block, block]
        assert client.get_prompt("p")["messages"] == [{"role": "user", "content": block}]


def test_names_of_tools_that_differ_in_case_are_different_tools():
    def tool(name, kind):
        schema = {"type": "object", "properties": {"a": {"type": kind}}}
        return {"name": name, "inputSchema": {"type": "object"}, "outputSchema": schema}

    server = Scripted(
        tools_list=lambda params, say: {"tools": [tool("echo", "integer"), tool("Echo", "string")]},
        tools_call=lambda params, say: {"content": [], "structuredContent": {"a": 1}},
    )
    with Client(server) as client:
        assert client.call_tool("echo").data == {"a": 1}
        with pytest.raises(minimcp.ProtocolError, match="'Echo'"):
            client.call_tool("Echo")
    assert [message["params"]["name"] for message in server.all("tools/call")] == ["echo", "Echo"]


def test_an_output_schema_is_2020_12_unless_it_says_otherwise(caplog):
    def tool(name, **more):
        pair = {"items": [{"type": "integer"}], "prefixItems": [{"type": "string"}]}
        if not more:
            pair["items"] = {"type": "integer"}
        schema = {"type": "object", "properties": {"a": {"type": "array", **pair}}, **more}
        return {"name": name, "inputSchema": {"type": "object"}, "outputSchema": schema}

    old = tool("old", **{"$schema": "http://json-schema.org/draft-07/schema#"})
    unknown = tool("unknown", **{"$schema": "https://example.com/dialect"})
    sent = {}
    server = Scripted(
        tools_list=lambda params, say: {"tools": [tool("new"), old, unknown]},
        tools_call=lambda params, say: {"content": [], "structuredContent": sent},
    )
    with Client(server) as client:
        sent["a"] = ["x", 1]  # fits prefixItems, which draft-07 does not have
        assert client.call_tool("new").data == sent
        with pytest.raises(minimcp.ProtocolError, match="'old'"):
            client.call_tool("old")
        # What cannot be judged is not judged, and that is said.
        assert client.call_tool("unknown").data == sent
        assert "https://example.com/dialect" in caplog.text
        sent["a"] = [1, "x"]
        assert client.call_tool("old").data == sent
        with pytest.raises(minimcp.ProtocolError, match="'new'"):
            client.call_tool("new")


def test_levels_are_the_eight_and_no_other():
    names = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]
    server = legacy(logging_setLevel=lambda params, say: {})
    with Client(server, mode="legacy") as client:
        for name in names:
            client.set_log_level(name)
        for wrong in ("Debug", "loud", "", "warn"):
            with pytest.raises(ValueError, match=", ".join(names)):
                client.set_log_level(wrong)
    assert [message["params"]["level"] for message in server.all("logging/setLevel")] == names


def test_one_process_serves_conversations_and_threads_until_the_client_closes():
    import sys
    from pathlib import Path

    root = Path(__file__).resolve().parent.parent
    program = (
        "import os; from minimcp import Server\n"
        "server = Server('s')\n"
        "server.tool(os.getpid, 'pid', description='Which process this is.')\n"
        "server.run()"
    )
    command = {"command": sys.executable, "args": ["-c", program], "env": {"PYTHONPATH": str(root)}}
    found = []
    with Client(command) as client:
        for _ in range(3):  # one conversation after the other
            found.append(client.call_tool("pid").text)
        threads = [threading.Thread(target=lambda: found.append(client.call_tool("pid").text)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        pid = int(found[0])
        assert found == [str(pid)] * 7
        assert Path(f"/proc/{pid}").exists() or sys.platform != "linux"
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("mode", ["2025-03-26", "2026-07-28"])
def test_what_a_client_that_asks_for_nothing_gets_is_no_progress(mode):
    seen = []
    with Client(build(), mode=mode, on_notification=seen.append) as client:
        client.call_tool("count", steps=2)
    assert [each for each in seen if each["method"] == "notifications/progress"] == []


def test_a_server_without_logging_is_not_asked_for_a_level():
    quiet = {**INITIALIZED, "capabilities": {"tools": {}}}
    server = Scripted(initialize=lambda params, say: quiet)
    with Client(server, mode="legacy") as client, pytest.raises(minimcp.ProtocolError, match="logging"):
        client.set_log_level("debug")
    assert not server.all("logging/setLevel")


def test_the_end_of_its_time_alone_sends_nothing(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(cache.time, "monotonic", lambda: now[0])
    kept = {"resultType": "complete", "ttlMs": 60_000, "contents": []}
    server = Scripted(resources_read=lambda params, say: kept)
    with Client(server) as client:
        client.read_resource("a://1")
        now[0] += 10_000_000
        asked = len(server.heard)
        threading.Event().wait(0.05)
        assert len(server.heard) == asked
        client.read_resource("a://1")
        assert len(server.heard) == asked + 1
