"""The smallest relay on `Client.exchange`: what one side sends reaches the other as it is, in both directions."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

import minimcp
from minimcp import Client, Context, Server
from tests.embedded import embedded
from tests.helpers import modern
from tests.played import INITIALIZED, Fault, Scripted

VERSION = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
CLIENT = "io.modelcontextprotocol/clientInfo"
TOMORROW = {"resultType": "complete", "content": [], "tomorrow": {"a": [1]}, "_meta": {"com.example/x": 1}}
ERAS = ["2025-11-25", "2026-07-28"]


def upstream() -> Server:
    server = Server("upstream", secret="0123456789abcdef")

    @server.tool
    def count(ctx: Context) -> str:
        ctx.progress(1, 2, "half")
        ctx.log("warning", "nearly")
        return "counted"

    @server.tool
    def book(city: str, ctx: Context) -> str:
        return f"{ctx.elicit('How many nights?', {'nights': int})['nights']} nights in {city}"

    @server.tool
    def fail() -> str:
        raise minimcp.ToolError("no")

    return server


@pytest.fixture(params=["memory", "http"])
def target(request: Any) -> Iterator[Any]:
    server = upstream()
    if request.param == "memory":
        yield server
        return
    with embedded(server.wsgi) as served:
        yield f"{served.url}/mcp"


class Relay:
    """Passes a request of a client on to a server, and what comes before the answer back to the client."""

    def __init__(self, client: Client, answers: Any = None) -> None:
        self.client = client
        self.answers = answers or {}
        self.told: list[Any] = []
        self.asked: list[Any] = []

    def __call__(self, method: str, params: Any, meta: Any = None) -> Any:
        call = (method, params)

        def hear(message: Any, reply: Any) -> None:
            if reply is None:
                self.told.append(message)
                return
            self.asked.append((call, message))
            reply(self.answers[message["method"]])

        return self.client.exchange(method, params, meta=meta, on_message=hear)


@pytest.mark.parametrize("mode", ERAS)
def test_progress_and_logs_come_back_under_the_callers_token(target, mode):
    meta = {"progressToken": "theirs", "io.modelcontextprotocol/logLevel": "debug"}
    with Client(target, mode=mode, log_level="debug") as client:
        relay = Relay(client)
        result = relay("tools/call", {"name": "count", "arguments": {}}, meta)
    assert result["content"] == [{"type": "text", "text": "counted"}]
    progress, log = relay.told
    assert progress["method"] == "notifications/progress"
    assert progress["params"] == {"progressToken": "theirs", "progress": 1, "total": 2, "message": "half"}
    assert log["method"] == "notifications/message" and log["params"]["data"] == "nearly"


def test_a_legacy_question_reaches_the_relay_with_its_call_and_so_does_the_answer(target):
    accepted = {"result": {"action": "accept", "content": {"nights": 3}}}
    with Client(target, mode="2025-11-25", elicit=lambda question: None) as client:
        relay = Relay(client, {"elicitation/create": accepted})
        params = {"name": "book", "arguments": {"city": "Oslo"}}
        assert relay("tools/call", params)["content"][0]["text"] == "3 nights in Oslo"
    [(call, question)] = relay.asked
    assert call == ("tools/call", params)
    assert question["method"] == "elicitation/create" and question["params"]["message"] == "How many nights?"


def test_two_legacy_questions_at_once_keep_their_calls(target):
    """On a stream for each call, or in memory, where each call is known."""
    both = threading.Barrier(2, timeout=60)

    def relayed(city: str, nights: int) -> str:
        def hear(message: Any, reply: Any) -> None:
            if reply is not None:
                both.wait()
                reply({"result": {"action": "accept", "content": {"nights": nights}}})

        params = {"name": "book", "arguments": {"city": city}}
        return client.exchange("tools/call", params, on_message=hear)["content"][0]["text"]

    found: dict[str, str] = {}
    with Client(target, mode="2025-11-25", elicit=lambda question: None) as client:
        threads = [
            threading.Thread(target=lambda city=city, nights=nights: found.update({city: relayed(city, nights)}))
            for city, nights in (("Oslo", 2), ("Rome", 5))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(90)
    assert found == {"Oslo": "2 nights in Oslo", "Rome": "5 nights in Rome"}


def test_a_modern_question_is_a_result_like_any_other(target):
    params = {"name": "book", "arguments": {"city": "Oslo"}}
    meta = {CAPABILITIES: {"elicitation": {"form": {}}}}
    with Client(target, mode="2026-07-28") as client:
        asked = client.exchange("tools/call", params, meta)
        assert asked["resultType"] == "input_required"
        [key] = asked["inputRequests"]
        answers = {key: {"action": "accept", "content": {"nights": 4}}}
        more = {**params, "inputResponses": answers, "requestState": asked["requestState"]}
        assert client.exchange("tools/call", more, meta)["content"][0]["text"] == "4 nights in Oslo"


@pytest.mark.parametrize("mode", ERAS)
def test_an_error_is_a_remote_error_and_a_failed_tool_is_a_result(target, mode):
    with Client(target, mode=mode, check=True) as client:
        assert client.exchange("tools/call", {"name": "fail"})["isError"] is True
        with pytest.raises(minimcp.RemoteError) as caught:
            client.exchange("com.example/nothing")
        assert caught.value.code == -32601


def test_a_result_of_tomorrow_is_returned_untouched():
    server = Scripted(tools_call=lambda params, say: {**TOMORROW, "resultType": "of tomorrow"})
    with Client(server) as client:
        assert client.exchange("tools/call", {"name": "x"}) == {**TOMORROW, "resultType": "of tomorrow"}


def test_meta_goes_out_as_it_is_but_for_the_version_and_the_token():
    server = Scripted(tools_call=lambda params, say: TOMORROW)
    theirs = {CAPABILITIES: {"roots": {}}, CLIENT: {"name": "theirs", "version": "9"}, "com.example/a": {"b": None}}
    with Client(server) as client:
        client.exchange("tools/call", {"name": "x"}, {**theirs, VERSION: "2030-01-01", "progressToken": "t"})
        client.exchange("tools/call", {"name": "x", "_meta": theirs})
        client.exchange("tools/call", {"name": "x"})
    sent = server.all("tools/call")
    ours = {VERSION: "2026-07-28", CAPABILITIES: {}, CLIENT: {"name": "minimcp", "version": minimcp.__version__}}
    assert sent[0]["params"]["_meta"] == {**theirs, VERSION: "2026-07-28", "progressToken": sent[0]["id"]}
    assert sent[1]["params"]["_meta"] == {**theirs, VERSION: "2026-07-28"}
    assert sent[2]["params"]["_meta"] == ours


def test_a_legacy_server_gets_the_meta_alone():
    server = Scripted(initialize=lambda params, say: INITIALIZED, tools_call=lambda params, say: {"content": []})
    server.methods["resources/list"] = lambda params, say: {"resources": []}
    with Client(server, mode="legacy") as client:
        client.exchange("tools/call", {"name": "x"}, {"com.example/a": 1, VERSION: "2026-07-28"})
        client.exchange("tools/call", {"name": "x"})
        client.exchange("resources/list")
    first, second = server.all("tools/call")
    assert first["params"] == {"name": "x", "_meta": {"com.example/a": 1}}
    assert second["params"] == {"name": "x"}
    assert "params" not in server.all("resources/list")[0]


@pytest.mark.parametrize("reply", [None, {"error": {"code": -1, "message": "The user refused", "data": [1]}}])
def test_a_question_is_answered_with_the_error_given_or_with_one_when_there_is_no_reply(reply):
    def play(params, say):
        say({"jsonrpc": "2.0", "id": "q", "method": "sampling/createMessage", "params": {"messages": []}})
        server.wait_for(None)
        return {"content": []}

    server = Scripted(initialize=lambda params, say: INITIALIZED, tools_call=play)
    with Client(server, mode="legacy") as client:
        client.exchange("tools/call", {"name": "x"}, on_message=lambda message, send: reply and send(reply))
    [answer] = server.all(None)
    assert answer["id"] == "q"
    assert answer["error"] == (reply or {"error": {"code": -32603, "message": "The client could not answer"}})["error"]


def test_a_ping_of_the_server_is_not_relayed():
    def play(params, say):
        say({"jsonrpc": "2.0", "id": 5, "method": "ping"})
        server.wait_for(None)
        return {"content": []}

    server, heard = Scripted(initialize=lambda params, say: INITIALIZED, tools_call=play), []
    with Client(server, mode="legacy") as client:
        client.exchange("tools/call", {"name": "x"}, on_message=lambda *each: heard.append(each))
    assert server.all(None) == [{"jsonrpc": "2.0", "id": 5, "result": {}}] and heard == []


def test_an_error_of_the_server_keeps_its_data():
    def refuse(params, say):
        raise Fault(-32042, "visit", {"elicitations": [{"a": 1}]})

    server = Scripted(initialize=lambda params, say: INITIALIZED, tools_call=refuse)
    with Client(server, mode="legacy", elicit=lambda question: True) as client:
        with pytest.raises(minimcp.RemoteError) as caught:
            client.exchange("tools/call", {"name": "x"})
    assert (caught.value.code, caught.value.data) == (-32042, {"elicitations": [{"a": 1}]})
    assert len(server.all("tools/call")) == 1


@pytest.mark.parametrize("mode", ERAS)
def test_callbacks_know_the_calls_their_questions_came_with(target, mode):
    both = threading.Barrier(2, timeout=60)

    def elicit(question: Any) -> Any:
        both.wait()
        assert question.call["method"] == "tools/call"
        return {"nights": len(question.call["params"]["arguments"]["city"])}

    with Client(target, mode=mode, elicit=elicit) as client:
        calls = [client.start_tool("book", city=city) for city in ("Oslo", "Tromsø")]
        found = [call.result().text for call in calls]
    assert found == ["4 nights in Oslo", "6 nights in Tromsø"]


def test_a_timeout_of_its_own_and_the_cancellation_are_those_of_any_call():
    done = threading.Event()
    server = Scripted(tools_call=lambda params, say: done.wait(10) and {})
    with Client(server) as client:
        with pytest.raises(minimcp.Timeout):
            client.exchange("tools/call", {"name": "x"}, timeout=0.1)
        cancelled = server.wait_for("notifications/cancelled")
        assert cancelled["params"]["requestId"] == server.all("tools/call")[0]["id"]
        done.set()


def test_a_message_of_a_modern_client_is_relayed_as_it_is():
    server = Scripted(tools_call=lambda params, say: TOMORROW)
    message = modern("tools/call", name="x", arguments={"a": 1})
    message["params"]["_meta"][CLIENT] = {"name": "theirs", "version": "9"}
    with Client(server) as client:
        assert Relay(client)(message["method"], message["params"]) == TOMORROW
    assert server.wait_for("tools/call")["params"] == message["params"]
