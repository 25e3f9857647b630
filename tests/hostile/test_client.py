"""A server that breaks the rules, or overdoes what they allow, in front of the client."""

from __future__ import annotations

import threading

import pytest

import minimcp
from minimcp import Client
from tests.embedded import wait_until
from tests.played import INITIALIZED, Fault, Scripted

SAMPLE = {"messages": [], "maxTokens": 5}
QUESTION = {"method": "elicitation/create", "params": {"message": "?", "requestedSchema": {"type": "object"}}}


def modern(**methods):
    return Scripted(**methods)


def test_t126_a_server_that_asks_for_ever_is_left_after_ten_rounds():
    """T126"""
    states = []

    def play(params, say):
        states.append(params.get("requestState"))
        state = f"é {len(states)} \U0001f600"
        return {"resultType": "input_required", "inputRequests": {"q": QUESTION}, "requestState": state}

    server = modern(tools_call=play)
    with Client(server, elicit=lambda question: {}) as client:
        with pytest.raises(minimcp.ProtocolError, match="more than 10 times"):
            client.call_tool("x")
        assert states == [None, *(f"é {number} \U0001f600" for number in range(1, 11))]
        server.methods["tools/call"] = lambda params, say: {"content": []}
        client.call_tool("x")
    last = server.all("tools/call")[-1]["params"]
    assert "requestState" not in last and "inputResponses" not in last
    ids = [message["id"] for message in server.all("tools/call")]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("state", [[], {}, 5, True, ["s"]])
def test_t126_a_state_that_is_no_text_is_never_sent_back(state):
    server = modern(tools_call=lambda params, say: {"resultType": "input_required", "requestState": state})
    with Client(server) as client, pytest.raises(minimcp.ProtocolError, match="requestState is not text"):
        client.call_tool("x")
    assert len(server.all("tools/call")) == 1


def test_t126_a_state_without_questions_is_sent_back_at_once_and_none_is_made_up():
    replies = [
        {"resultType": "input_required", "requestState": "s"},
        {"resultType": "input_required", "inputRequests": {"q": QUESTION}},
        {"content": []},
    ]
    server = modern(tools_call=lambda params, say: replies.pop(0))
    with Client(server, elicit=lambda question: True) as client:
        client.call_tool("x", {"a": 1})
    sent = [message["params"] for message in server.all("tools/call")]
    for params in sent:
        del params["_meta"]
    own = {"name": "x", "arguments": {"a": 1}}
    answers = {"q": {"action": "accept", "content": {}}}
    assert sent == [own, {**own, "requestState": "s"}, {**own, "inputResponses": answers}]


@pytest.mark.parametrize(
    "result",
    [
        {"resultType": "surprise", "content": []},
        {"resultType": 1, "content": []},
        {"resultType": "input_required"},
        {"resultType": "task", "taskId": "1", "status": "working"},
        {"resultType": "input_required", "inputRequests": []},
        {"resultType": "input_required", "inputRequests": {"q": 1}},
        {"resultType": "input_required", "inputRequests": {"q": {"method": "x/y"}}},
    ],
)
def test_t127_a_result_of_no_known_type_is_an_error_and_not_tried_again(result):
    """T127"""
    server = modern(tools_call=lambda params, say: result)
    with Client(server, elicit=lambda question: {}) as client, pytest.raises(minimcp.ProtocolError):
        client.call_tool("x")
    assert len(server.all("tools/call")) == 1


def test_t127_a_list_does_not_ask():
    server = modern(tools_list=lambda p, s: {"resultType": "input_required", "inputRequests": {"q": QUESTION}})
    with Client(server, elicit=lambda question: {}) as client:
        with pytest.raises(minimcp.ProtocolError, match="tools/list"):
            client.list_tools()


@pytest.mark.parametrize("result", [None, 1, [], "x"])
def test_a_result_that_is_no_object_is_an_error(result):
    with Client(modern(tools_call=lambda params, say: result)) as client, pytest.raises(minimcp.ProtocolError):
        client.call_tool("x")


@pytest.mark.parametrize("error", [1, None, {}, {"code": "x"}, {"code": True, "message": "m"}])
def test_an_error_without_a_code_is_a_protocol_error(error):
    def play(params, say):
        fault = Fault(0)
        fault.error = error
        raise fault

    with Client(modern(tools_call=play)) as client, pytest.raises(minimcp.ClientError):
        client.call_tool("x", {}, timeout=1)


def test_t238_pages_without_end_are_left():
    """T238"""
    count = []

    def forever(params, say):
        count.append(1)
        return {"tools": [], "nextCursor": str(len(count))}

    with Client(modern(tools_list=forever)) as client:
        with pytest.raises(minimcp.ProtocolError, match="more than 1000 pages"):
            client.list_tools()
    with Client(modern(tools_list=lambda p, s: {"tools": [], "nextCursor": "again"})) as client:
        with pytest.raises(minimcp.ProtocolError, match="no end"):
            client.list_tools()
    for wrong in (1, {}, ["x"]):
        with Client(modern(tools_list=lambda p, s, wrong=wrong: {"tools": [], "nextCursor": wrong})) as client:
            with pytest.raises(minimcp.ProtocolError, match="no end"):
                client.list_tools()


def test_ten_thousand_tools_are_no_trouble():
    tools = [{"name": f"t{number}", "inputSchema": {"type": "object"}} for number in range(10_000)]
    with Client(modern(tools_list=lambda params, say: {"tools": tools})) as client:
        assert len(client.list_tools()) == 10_000


def test_t163_what_is_no_tool_is_left_out_and_the_others_are_usable(caplog):
    """T163"""
    tools = [{"name": f"t{number}", "inputSchema": {"type": "object"}} for number in range(499)]
    for broken in (None, 1, {}, {"name": 1}, {"name": "x"}, {"name": "null", "inputSchema": None}):
        with Client(modern(tools_list=lambda p, s, broken=broken: {"tools": [broken, *tools]})) as client:
            assert client.list_tools() == tools
    assert "'null' is left out" in caplog.text


@pytest.mark.parametrize("value", [None, 1, "x", {}])
def test_a_list_that_is_none_is_an_error(value):
    with Client(modern(tools_list=lambda p, s: {"tools": value})) as client:
        with pytest.raises(minimcp.ProtocolError, match="without a list of tools"):
            client.list_tools()


def test_t165_a_broken_output_schema_does_not_let_a_result_pass():
    """T165: a schema that is not valid is an error that names the tool."""
    for schema in ({"type": 1}, {"$ref": "#/$defs/a", "$defs": {"a": {"type": 1}}}, {"properties": [1]}, {"allOf": 5}):
        tool = {"name": "t", "inputSchema": {"type": "object"}, "outputSchema": schema}
        server = modern(
            tools_list=lambda p, s, tool=tool: {"tools": [tool]},
            tools_call=lambda p, s: {"content": [], "structuredContent": {"a": 1}},
        )
        with Client(server) as client, pytest.raises(minimcp.ProtocolError, match="'t'"):
            client.call_tool("t")


def test_progress_for_others_or_without_numbers_is_not_told():
    def play(params, say):
        token = params["_meta"]["progressToken"]
        wrong = [
            {"progressToken": str(token), "progress": 1},
            {"progressToken": token + 1, "progress": 1},
            {"progressToken": token, "progress": "1"},
            {"progressToken": token, "progress": True},
            {"progressToken": token},
            {"progressToken": [token], "progress": 1},
        ]
        for each in wrong:
            say({"jsonrpc": "2.0", "method": "notifications/progress", "params": each})
        say({"jsonrpc": "2.0", "method": "notifications/progress", "params": [token]})
        say({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 0.5}})
        return {"content": []}

    seen = []
    with Client(modern(tools_call=play)) as client:
        client.call_tool("x", {}, progress=seen.append)
    assert [each["progress"] for each in seen] == [0.5]


def test_t239_a_flood_of_progress_and_notices_is_bounded_and_timeouts_still_fire():
    """T239"""
    stop = threading.Event()

    def play(params, say):
        token, number = params["_meta"]["progressToken"], 0
        while not stop.is_set() and number < 50_000:
            number += 1
            say(
                {
                    "jsonrpc": "2.0",
                    "method": "notifications/progress",
                    "params": {"progressToken": token, "progress": number},
                }
            )
            say({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        return {"content": []}

    slow = threading.Event()
    with Client(modern(tools_call=play), on_notification=lambda message: slow.wait(0.2)) as client:
        with pytest.raises(minimcp.Timeout):
            client.call_tool("x", {}, timeout=10, max_timeout=0.3, progress=lambda each: slow.wait(0.01))
        stop.set()
        slow.set()


def test_t206_answers_that_nobody_waits_for_complete_nothing():
    """T206"""

    def play(params, say):
        for id in ("1", 99, 1.0, True, None, [1]):
            say({"jsonrpc": "2.0", "id": id, "result": {"content": [{"type": "text", "text": "wrong"}]}})
        return {"content": [{"type": "text", "text": "right"}]}

    with Client(modern(tools_call=play)) as client:
        for _ in range(3):
            assert client.call_tool("x").text == "right"


def test_t213_a_flood_of_questions_is_refused_and_the_reader_goes_on():
    """T213"""
    gate = threading.Event()
    server = Scripted(initialize=lambda params, say: INITIALIZED, tools_list=lambda p, s: {"tools": []})

    def sample(params):
        gate.wait(60)
        return "x"

    with Client(server, mode="legacy", sample=sample) as client:
        for number in range(40):
            server.say({"jsonrpc": "2.0", "id": number, "method": "sampling/createMessage", "params": SAMPLE})
        assert client.list_tools() == []
        refused = server.wait_for(None)
        assert refused["error"]["code"] == -32603
        gate.set()
        with server.changed:
            assert server.changed.wait_for(lambda: len(server.all(None)) == 40, 60)
    assert sum("result" in message for message in server.all(None)) == 16


def test_a_modern_server_that_sends_requests_is_not_answered(caplog):
    answered = threading.Event()
    server = modern(tools_list=lambda params, say: {"tools": []})
    with Client(server, sample=lambda params: answered.set() or "x") as client:
        for id, method in ((1, "ping"), ("a", "sampling/createMessage")):
            server.say({"jsonrpc": "2.0", "id": id, "method": method, "params": {}})
        assert client.list_tools() == []
        wait_until(lambda: caplog.text.count("which may send none") == 2)
    assert not server.all(None) and not answered.is_set()


def test_a_callback_that_fails_fails_its_call_on_modern_and_the_question_on_legacy():
    def broken(question):
        raise KeyError("secret")

    server = modern(tools_call=lambda p, s: {"resultType": "input_required", "inputRequests": {"q": QUESTION}})
    with Client(server, elicit=broken) as client, pytest.raises(KeyError):
        client.call_tool("x")
    server = Scripted(initialize=lambda params, say: INITIALIZED)
    with Client(server, mode="legacy", elicit=broken):
        server.say({"jsonrpc": "2.0", "id": 7, **QUESTION})
        reply = server.wait_for(None)
    assert reply["id"] == 7 and reply["error"]["code"] == -32603 and "secret" not in reply["error"]["message"]


def test_a_greeting_of_nonsense_does_not_crash_the_client():
    for greeting in (
        {"supportedVersions": ["2026-07-28"], "capabilities": 1, "serverInfo": [], "instructions": 3, "_meta": 4},
        {"supportedVersions": ["2026-07-28"]},
    ):
        server = Scripted(server_discover=lambda p, s, greeting=greeting: greeting)
        with Client(server) as client:
            assert client.server_info == {} and client.capabilities == {} and client.instructions is None
