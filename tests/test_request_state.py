"""The `requestState` of 2026-07-28: what it binds, how long it lives, and which answers count with it."""

from __future__ import annotations

import pytest

from minimcp import Context, Server
from minimcp.server import asking
from tests.asked import ALL, Answering, accept, call, question, serving
from tests.helpers import modern


@pytest.mark.parametrize("responses", [None, [], "x", 5])
def test_input_responses_are_an_object(responses):
    def tool(ctx: Context) -> str:
        return ctx.elicit("Name?", {"name": str})["name"]

    server = serving(tool)
    assert call(server, inputResponses=responses)["error"]["code"] == -32602


def test_a_state_is_bound_to_tool_arguments_principal_and_key():
    def tool(ctx: Context, city: str = "Oslo") -> str:
        return ctx.elicit(f"Name in {city}?", {"name": str})["name"]

    server = serving(tool)
    server.tool(tool, "other")
    state = call(server, principal="ann", arguments={"city": "Rome"})["result"]["requestState"]
    retry = {"requestState": state, "inputResponses": {"q1": accept(name="Ann")}}
    words = "The request state is not valid for this request; start again without it"
    refusal = {"code": -32602, "message": words}
    assert call(server, principal="bob", arguments={"city": "Rome"}, **retry)["error"] == refusal
    assert call(server, principal="ann", arguments={"city": "Paris"}, **retry)["error"] == refusal
    assert call(server, principal="ann", **retry)["error"] == refusal
    other = modern("tools/call", name="other", arguments={"city": "Rome"}, capabilities=ALL, **retry)
    assert server.handle(other, principal="ann")["error"] == refusal
    stranger = serving(tool)
    stranger.engine.sealer = Server("t", secret="another-key-of-16-bytes").engine.sealer
    assert call(stranger, principal="ann", arguments={"city": "Rome"}, **retry)["error"] == refusal
    for bad in ("", "x", "a.b", state + "A", state[:-2], None, 5, {}, "é"):
        assert call(server, requestState=bad)["error"] == refusal
    good = call(server, principal="ann", arguments={"city": "Rome"}, **retry)
    assert good["result"]["content"][0]["text"] == "Ann"


@pytest.mark.parametrize("params", [{"requestState": "forged"}, {"inputResponses": []}])
def test_a_tool_that_cannot_ask_checks_them_too(params):
    server = serving(lambda: "x")
    assert call(server)["result"]["content"][0]["text"] == "x"
    assert call(server, **params)["error"]["code"] == -32602


def test_a_state_expires(monkeypatch):
    def tool(ctx: Context) -> str:
        return ctx.elicit("Name?", {"name": str})["name"]

    server = serving(tool)
    state = call(server)["result"]["requestState"]
    import time

    now = time.time()
    monkeypatch.setattr("minimcp.server.seal.time.time", lambda: now + 601)
    assert call(server, requestState=state, inputResponses={"q1": accept(name="x")})["error"]["code"] == -32602


def test_rotation_accepts_states_of_the_old_key():
    def tool(ctx: Context) -> str:
        return ctx.elicit("Name?", {"name": str})["name"]

    old, new = (
        Server("s", secret="old-key-of-16-bytes"),
        Server("s", secret=["new-key-of-16-bytes", "old-key-of-16-bytes"]),
    )
    for server in (old, new):
        server.tool(tool, "tool")
    state = call(old)["result"]["requestState"]
    assert (
        call(new, requestState=state, inputResponses={"q1": accept(name="Ann")})["result"]["content"][0]["text"]
        == "Ann"
    )


def test_the_flow_is_one_through_all_rounds_and_the_rounds_are_limited():
    flows = []

    def tool(ctx: Context) -> str:
        flows.append(ctx.idempotency_key)
        for n in range(20):
            ctx.elicit(f"Question {n}?", {"x": int})
        return "never"

    server, params = serving(tool), {}
    for n in range(1, 11):
        reply = call(server, **params)["result"]
        params = {"requestState": reply["requestState"], "inputResponses": {f"q{n}": accept(x=n)}}
    error = call(server, **params)["error"]
    assert error == {"code": -32603, "message": "The call needed more than 10 rounds of questions"}
    assert len(flows) == 11 and len(set(flows)) == 1


def test_a_page_is_put_again_until_what_it_is_for_has_happened():
    paid = []

    def tool(ctx: Context) -> str:
        for _ in range(5):
            if not ctx.elicit_url("Pay here", "https://pay.example/1"):
                return "refused"
            if paid:
                return "paid"
        return "given up"

    server, params = serving(tool), {}
    for number in (1, 2, 3):
        reply = call(server, **params)["result"]
        assert reply["resultType"] == "input_required" and list(reply["inputRequests"]) == [f"q{number}"]
        assert reply["inputRequests"][f"q{number}"]["params"]["url"] == "https://pay.example/1"
        params = {"requestState": reply["requestState"], "inputResponses": {f"q{number}": {"action": "accept"}}}
    paid.append(True)
    assert call(server, **params)["result"]["content"][0]["text"] == "paid"


def test_answers_to_changed_questions_do_not_count():
    words = ["Sell the old car?"]

    def tool(ctx: Context) -> str:
        return "sold" if ctx.elicit(words[0], {"sure": bool})["sure"] else "kept"

    server = serving(tool)
    state = call(server)["result"]["requestState"]
    words[0] = "Sell the house?"
    reply = call(server, requestState=state, inputResponses={"q1": accept(sure=True)})["result"]
    assert reply["resultType"] == "input_required"
    assert reply["inputRequests"]["q1"]["params"]["message"] == "Sell the house?"


def test_answers_without_a_state_count_only_under_keys_the_author_named():
    def tool(ctx: Context) -> str:
        name = ctx.ask(name=asking.elicitation("Name?", {"name": str}))["name"]["name"]
        return name + str(ctx.elicit("Age?", {"age": int})["age"])

    server = serving(tool)
    reply = call(server, inputResponses={"name": accept(name="Ann"), "q1": accept(age=5)})["result"]
    assert reply["resultType"] == "input_required" and list(reply["inputRequests"]) == ["q1"]
    done = call(server, requestState=reply["requestState"], inputResponses={"q1": accept(age=5)})
    assert done["result"]["content"][0]["text"] == "Ann5"


def test_a_kept_answer_is_for_the_question_that_was_asked_and_no_other():
    words = ["Sell the old car?"]

    def tool(ctx: Context) -> str:
        first = ctx.elicit(words[0], {"sure": bool})["sure"]
        second = ctx.elicit("Really?", {"sure": bool})["sure"]
        return f"{words[0]} {first} {second}"

    server = serving(tool)
    state = call(server)["result"]["requestState"]
    kept = call(server, requestState=state, inputResponses={"q1": accept(sure=True)})["result"]
    assert list(kept["inputRequests"]) == ["q2"]
    words[0] = "Sell the house?"
    reply = call(server, requestState=kept["requestState"], inputResponses={"q2": accept(sure=True)})["result"]
    assert reply["inputRequests"]["q1"]["params"]["message"] == "Sell the house?"
    answered = {"q1": accept(sure=False), "q2": accept(sure=True)}
    done = call(server, requestState=reply["requestState"], inputResponses=answered)["result"]
    assert done["resultType"] == "input_required" and list(done["inputRequests"]) == ["q2"]


def test_a_state_of_one_resource_or_prompt_is_not_taken_for_another():
    server = serving(lambda: "x")

    @server.resource("a://{name}")
    def read(name: str, ctx: Context) -> str:
        return f"{name} {ctx.elicit('Sure?', {'sure': bool})['sure']}"

    def ask(ctx: Context, word: str = "a") -> str:
        return f"{word} {ctx.elicit('Sure?', {'sure': bool})['sure']}"

    server.prompt(ask, "one")
    server.prompt(ask, "other")
    for method, own, others in (
        ("resources/read", {"uri": "a://1"}, [{"uri": "a://2"}]),
        ("prompts/get", {"name": "one"}, [{"name": "other"}, {"name": "one", "arguments": {"word": "b"}}]),
    ):
        asked = server.handle(modern(method, capabilities=ALL, **own))["result"]
        retry = {"requestState": asked["requestState"], "inputResponses": {"q1": accept(sure=True)}}
        for other in others:
            assert server.handle(modern(method, capabilities=ALL, **other, **retry))["error"]["code"] == -32602
        assert server.handle(modern(method, capabilities=ALL, **own, **retry))["result"]["resultType"] == "complete"


@pytest.mark.parametrize("code", [-32000, -32001, -32010, -32019, -32042, -32603, -1, 7])
def test_the_code_of_a_clients_refusal_means_nothing_more(code):
    def tool(ctx: Context) -> str:
        return ctx.elicit("A?", {"a": int}).action

    client = Answering(serving(tool), [{"error": {"code": code, "message": "did not answer in time"}}], elicitation={})
    assert client.call() == {
        "content": [{"type": "text", "text": "The client refused: did not answer in time"}],
        "isError": True,
    }
    assert len(client.asked) == 1


def test_a_field_written_as_a_schema_has_to_be_filled_in():
    def tool(ctx: Context) -> str:
        return str(ctx.elicit("?", {"a": {"type": "string", "maxLength": 3}, "b": (int, 1)})["a"])

    form = question(tool)["params"]["requestedSchema"]
    assert form["properties"]["a"] == {"type": "string", "maxLength": 3}
    assert form["required"] == ["a"]
