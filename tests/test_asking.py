"""Asking the client, by retry on 2026-07-28 and by request before: forms, URLs, sampling, roots."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Literal

import pytest

from minimcp import Context, Server
from minimcp.protocol import spec
from tests.asked import ALL, Answering, accept, call, question, serving
from tests.helpers import Legacy, modern


def test_a_form_of_every_kind_of_field():
    @dataclass
    class Booking:
        nights: Annotated[int, "how many", {"minimum": 1, "maximum": 30}]
        email: Annotated[str, {"format": "email"}]
        room: Literal["single", "double"] = "single"

    def tool(ctx: Context) -> str:
        ctx.elicit("Book?", Booking)
        return "x"

    asked = question(tool)
    assert asked == {
        "method": "elicitation/create",
        "params": {
            "mode": "form",
            "message": "Book?",
            "requestedSchema": {
                "type": "object",
                "properties": {
                    "nights": {"type": "integer", "description": "how many", "minimum": 1, "maximum": 30},
                    "email": {"type": "string", "format": "email"},
                    "room": {"type": "string", "enum": ["single", "double"], "default": "single"},
                },
                "required": ["nights", "email"],
            },
        },
    }


def test_a_ready_form_goes_out_word_for_word():
    form = {
        "type": "object",
        "properties": {
            "plain": {
                "type": "string",
                "title": "T",
                "description": "D",
                "minLength": 1,
                "maxLength": 9,
                "default": "x",
            },
            "real": {"type": "number", "minimum": 0.5, "maximum": 2, "default": 1.5},
            "flag": {"type": "boolean", "default": True},
            "titled": {"type": "string", "oneOf": [{"const": "a", "title": "A"}], "default": "a"},
            "old": {"type": "string", "enum": ["a", "b"], "enumNames": ["A", "B"]},
            "many": {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}, "minItems": 1, "maxItems": 2},
            "titles": {"type": "array", "items": {"anyOf": [{"const": "a", "title": "A"}]}, "default": ["a"]},
        },
        "required": ["flag"],
    }

    def tool(ctx: Context) -> str:
        ctx.elicit("Fill in.", form)
        return "x"

    assert question(tool)["params"]["requestedSchema"] == form


@pytest.mark.parametrize(
    "fields", [{"a": dict}, {"a": list[int]}, {"type": "object", "properties": {"a": {"type": "object"}}}]
)
def test_a_form_that_is_not_flat_is_the_authors_mistake(fields, caplog):
    def tool(ctx: Context) -> str:
        with pytest.raises(TypeError):
            ctx.elicit("x", fields)
        return "told"

    assert call(serving(tool))["result"]["content"][0]["text"] == "told"


def test_answers_reach_the_handler_as_they_are_and_falsy_when_declined():
    seen = []

    def tool(ctx: Context) -> str:
        answer = ctx.elicit("Name?", {"name": str})
        seen.append((bool(answer), answer.action, dict(answer)))
        return answer["name"]

    server = serving(tool)
    state = call(server)["result"]["requestState"]

    def answered(answer):
        return call(server, requestState=state, inputResponses={"q1": answer})["result"]

    assert answered(accept(name="Ann"))["content"][0]["text"] == "Ann"
    for action in ("decline", "cancel"):
        refused = answered({"action": action})
        assert refused["isError"] is True and action in refused["content"][0]["text"]
    assert seen == [(True, "accept", {"name": "Ann"}), (False, "decline", {}), (False, "cancel", {})]


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "yes",
        {},
        {"action": "maybe"},
        {"action": "accept"},
        accept(name=5),
        accept(),
        {"action": "accept", "content": []},
    ],
)
def test_an_answer_that_is_none_is_an_error_of_the_client(answer):
    def tool(ctx: Context) -> str:
        return ctx.elicit("Name?", {"name": str})["name"]

    server = serving(tool)
    state = call(server)["result"]["requestState"]
    error = call(server, requestState=state, inputResponses={"q1": answer})["error"]
    assert error["code"] == -32602 and "q1" in error["message"]


def test_an_exception_handler_in_a_tool_does_not_swallow_the_question():
    def tool(ctx: Context) -> str:
        try:
            ctx.elicit("Name?", {"name": str})
        except Exception:
            return "swallowed"
        return "x"

    assert call(serving(tool))["result"]["resultType"] == "input_required"


@pytest.mark.parametrize(
    "ask, needed",
    [
        (lambda ctx: ctx.elicit("?", {"x": int}), {"elicitation": {"form": {}}}),
        (lambda ctx: ctx.elicit_url("?", "https://x.example"), {"elicitation": {"url": {}}}),
        (lambda ctx: ctx.sample("?"), {"sampling": {}}),
        (
            lambda ctx: ctx.sample("?", tools=[{"name": "t", "inputSchema": {"type": "object"}}]),
            {"sampling": {"tools": {}}},
        ),
        (lambda ctx: ctx.sample("?", tool_choice={"mode": "none"}), {"sampling": {"tools": {}}}),
        (lambda ctx: ctx.list_roots(), {"roots": {}}),
    ],
)
def test_what_was_not_declared_is_not_asked(ask, needed):
    def tool(ctx: Context) -> str:
        ask(ctx)
        return "x"

    server = serving(tool)
    error = call(server, capabilities={})["error"]
    assert error["code"] == -32021 and error["data"] == {"requiredCapabilities": needed}
    almost = {name: {} for name in needed if name != "roots"}
    if needed not in ({"sampling": {}}, {"roots": {}}, {"elicitation": {"form": {}}}):
        assert call(server, capabilities=almost)["error"]["code"] == -32021
    assert call(server)["result"]["resultType"] == "input_required"
    session = Legacy(server)
    refused = session.result("tools/call", name="tool")
    assert refused["isError"] is True and session.sent == []


def test_an_empty_elicitation_capability_means_forms():
    def tool(ctx: Context) -> str:
        return ctx.elicit("?", {"x": int}).action

    server = serving(tool)
    assert call(server, capabilities={"elicitation": {}})["result"]["resultType"] == "input_required"
    assert call(server, capabilities={"elicitation": {"url": {}}})["error"]["code"] == -32021


def test_a_url_is_agreed_to_and_carries_no_content():
    def tool(ctx: Context) -> str:
        return "yes" if ctx.elicit_url("Pay here", "https://pay.example/1") else "no"

    server = serving(tool)
    asked = call(server)["result"]
    assert asked["inputRequests"]["q1"] == {
        "method": "elicitation/create",
        "params": {"mode": "url", "message": "Pay here", "url": "https://pay.example/1"},
    }
    for action, word in (("accept", "yes"), ("decline", "no")):
        done = call(server, requestState=asked["requestState"], inputResponses={"q1": {"action": action}})
        assert done["result"]["content"][0]["text"] == word


def test_sampling_has_every_parameter_under_its_name():
    tools = [{"name": "t", "inputSchema": {"type": "object"}}]

    def tool(ctx: Context) -> str:
        return ctx.sample(
            [{"role": "user", "content": {"type": "text", "text": "Hi"}}],
            max_tokens=7,
            system="Be brief.",
            tools=tools,
            tool_choice={"mode": "auto"},
            temperature=0.5,
            stop=["."],
            preferences={"hints": [{"name": "claude"}], "costPriority": 0.1},
            include_context="none",
            metadata={"a": 1},
        ).text

    server = serving(tool)
    asked = call(server)["result"]
    assert asked["inputRequests"]["q1"] == {
        "method": "sampling/createMessage",
        "params": {
            "messages": [{"role": "user", "content": {"type": "text", "text": "Hi"}}],
            "maxTokens": 7,
            "systemPrompt": "Be brief.",
            "tools": tools,
            "toolChoice": {"mode": "auto"},
            "temperature": 0.5,
            "stopSequences": ["."],
            "modelPreferences": {"hints": [{"name": "claude"}], "costPriority": 0.1},
            "includeContext": "none",
            "metadata": {"a": 1},
        },
    }
    blocks = [
        {"type": "text", "text": "Good "},
        {"type": "tool_use", "id": "1", "name": "t", "input": {}},
        {"type": "text", "text": "day"},
    ]
    answer = {"role": "assistant", "content": blocks, "model": "m", "stopReason": "toolUse"}
    done = call(server, requestState=asked["requestState"], inputResponses={"q1": answer})
    assert done["result"]["content"][0]["text"] == "Good day"
    for bad in ({}, {"role": "system", "content": {}}, {"role": "user"}, []):
        assert call(server, requestState=asked["requestState"], inputResponses={"q1": bad})["error"]["code"] == -32602


USE = {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "t", "input": {}}]}


RESULT = {"type": "tool_result", "toolUseId": "1", "content": []}


@pytest.mark.parametrize(
    "messages, fits",
    [
        ([USE, {"role": "user", "content": [RESULT]}], True),
        ([USE, {"role": "user", "content": RESULT}], True),
        ([USE], False),
        ([USE, {"role": "user", "content": {"type": "text", "text": "x"}}], False),
        ([USE, {"role": "user", "content": [RESULT, {"type": "text", "text": "x"}]}], False),
        ([USE, {"role": "user", "content": [RESULT, RESULT]}], False),
        ([{"role": "user", "content": [RESULT]}], False),
    ],
)
def test_tool_uses_and_results_pair_up(messages, fits, caplog):
    def tool(ctx: Context) -> str:
        try:
            ctx.sample(messages)
        except ValueError as error:
            return str(error)
        return "x"

    reply = call(serving(tool))["result"]
    assert (reply["resultType"] == "input_required") is fits


@pytest.mark.parametrize(
    "result, fits",
    [
        ({"structuredContent": {"n": 1}}, True),
        ({"structuredContent": {"n": "one"}}, False),
        ({"structuredContent": {"n": "one"}, "isError": True}, True),
        ({}, True),
    ],
)
def test_a_tool_result_fits_the_output_schema_of_its_tool(result, fits):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    tools = [{"name": "count", "inputSchema": {"type": "object"}, "outputSchema": schema}]

    def tool(ctx: Context) -> str:
        use = {"type": "tool_use", "id": "u1", "name": "count", "input": {}}
        found = {"type": "tool_result", "toolUseId": "u1", "content": [], **result}
        messages = [{"role": "user", "content": {"type": "text", "text": "How many?"}}]
        messages += [{"role": "assistant", "content": [use]}, {"role": "user", "content": [found]}]
        try:
            return ctx.sample(messages, tools=tools).text
        except ValueError as error:
            return str(error)

    reply = call(serving(tool))["result"]
    assert (reply["resultType"] == "input_required") is fits
    assert fits or "outputSchema of 'count'" in reply["content"][0]["text"]


def test_roots_are_file_uris():
    def tool(ctx: Context) -> str:
        return ctx.list_roots()[0]["uri"]

    server = serving(tool)
    asked = call(server)["result"]
    assert asked["inputRequests"] == {"q1": {"method": "roots/list"}}

    def answered(roots):
        return call(server, requestState=asked["requestState"], inputResponses={"q1": {"roots": roots}})

    assert answered([{"uri": "file:///a"}])["result"]["content"][0]["text"] == "file:///a"
    for bad in ([{"uri": "https://x.example"}], [{}], [5], "x", None):
        assert answered(bad)["error"]["code"] == -32602


def test_resources_and_prompts_may_ask_and_completions_may_not(caplog):
    server = Server("s", secret="0123456789abcdef")

    def ask(ctx: Context) -> str:
        return ctx.elicit("Name?", {"name": str})["name"]

    server.resource("me://name")(ask)
    server.prompt(ask, "ask")
    server.tool(ask, "ask")
    server.completion("ask", "a")(lambda value, chosen: [])
    for method, params in (("resources/read", {"uri": "me://name"}), ("prompts/get", {"name": "ask"})):
        asked = server.handle(modern(method, capabilities=ALL, **params))["result"]
        assert asked["resultType"] == "input_required" and "ttlMs" not in asked and "cacheScope" not in asked
        retry = {"requestState": asked["requestState"], "inputResponses": {"q1": accept(name="Ann")}}
        assert "Ann" in json.dumps(server.handle(modern(method, capabilities=ALL, **params, **retry))["result"])
    assert {method for method, row in spec.METHODS.items() if row.may_ask} == {
        "tools/call",
        "resources/read",
        "prompts/get",
    }
    completing = {"ref": {"type": "ref/prompt", "name": "ask"}, "argument": {"name": "a", "value": ""}}
    for method, params in (("completion/complete", completing), ("tools/list", {}), ("prompts/list", {})):
        ctx = server.engine.call(modern(method, capabilities=ALL, **params)).ctx
        for ask, arguments in ((ctx.elicit, ("?", {"a": int})), (ctx.list_roots, ()), (ctx.sample, ("Hi",))):
            with pytest.raises(RuntimeError, match="cannot ask"):
                ask(*arguments)


def test_asking_from_another_thread_is_the_authors_mistake():
    caught = []

    def tool(ctx: Context) -> str:
        def ask():
            try:
                ctx.elicit("x", {"x": int})
            except RuntimeError as error:
                caught.append(str(error))

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join(10)
        return "x"

    assert call(serving(tool))["result"]["resultType"] == "complete"
    assert "thread that runs the handler" in caught[0]


def test_a_legacy_client_is_asked_by_request_and_ids_are_the_servers_own():
    def tool(ctx: Context) -> str:
        first, second = ctx.elicit("A?", {"a": int}), ctx.elicit("B?", {"b": int})
        return str(first["a"] + second["b"])

    client = Answering(serving(tool), [{"result": accept(a=1)}, {"result": accept(b=2)}], elicitation={})
    assert client.call()["content"][0]["text"] == "3"
    ids = [message["id"] for message in client.asked]
    assert len(set(ids)) == 2 and all(isinstance(id, str) for id in ids)
    assert client.asked[0]["method"] == "elicitation/create"


def test_a_url_question_of_2025_11_25_has_an_elicitation_id():
    def tool(ctx: Context) -> str:
        return ctx.elicit_url("Pay", "https://pay.example").action

    client = Answering(serving(tool), [{"result": {"action": "accept"}}], elicitation={"url": {}})
    assert client.call()["content"][0]["text"] == "accept"
    params = client.asked[0]["params"]
    assert params["mode"] == "url" and isinstance(params["elicitationId"], str) and params["elicitationId"]


def test_a_legacy_client_that_says_no_or_nothing_makes_a_result_for_the_model():
    def tool(ctx: Context) -> str:
        return ctx.elicit("A?", {"a": int}).action

    server = serving(tool, limits={"ask_s": 0.05})
    for answers, words in (
        ([{"error": {"code": -1, "message": "User rejected"}}], "The client refused: User rejected"),
        ([{"result": accept(a="x")}], "does not fit the question"),
        ([{"result": 5}], "does not fit the question"),
        ([], "did not answer in time"),
    ):
        client = Answering(server, answers, elicitation={})
        found = client.call()
        assert found["isError"] is True and words in found["content"][0]["text"]
    cancelled = client.asked[-1]
    assert cancelled["method"] == "notifications/cancelled"
    assert cancelled["params"]["requestId"] == client.asked[0]["id"]


def test_sampling_on_older_revisions_says_only_what_they_know():
    def tool(ctx: Context) -> str:
        return ctx.sample("Hi", max_tokens=5).text

    answer = {"role": "assistant", "content": {"type": "text", "text": "Yo"}, "model": "m"}
    for version in ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"):
        client = Answering(serving(tool), [{"result": answer}], version, sampling={})
        assert client.call()["content"][0]["text"] == "Yo"
        assert client.asked[0]["params"].keys() == {"messages", "maxTokens"}


def test_answers_arrive_as_the_annotated_types_and_what_cannot_be_one_is_told_to_the_model():
    seen = []

    def handler(ctx: Context) -> str:
        answer = ctx.elicit("When?", {"day": date, "nights": (int, 1)}, key="when")
        seen.append(dict(answer))
        return "booked"

    server = serving(handler)
    reply = call(server, inputResponses={"when": accept(day="2026-02-28", nights=2)})
    assert reply["result"]["content"] == [{"type": "text", "text": "booked"}]
    assert seen == [{"day": date(2026, 2, 28), "nights": 2}]
    reply = call(server, inputResponses={"when": accept(day="2026-02-30")})
    assert reply["result"]["isError"] is True
    assert '"day"' in reply["result"]["content"][0]["text"]
    assert len(seen) == 1


def refused(ask):
    """The type of the exception with which a question is refused before it leaves, or None when it leaves."""
    caught = []

    def tool(ctx: Context) -> str:
        try:
            ask(ctx)
        except Exception as error:
            caught.append(type(error))
        return "told"

    reply = call(serving(tool))["result"]
    assert (reply["resultType"] == "complete") is bool(caught)
    return caught[0] if caught else None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "not a url",
        "pay.example/1",
        "//pay.example",
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "ftp://pay.example",
        "https://",
        "https:///path",
        "https://?q",
        "https://pay.example:port/",
        "https://pay.example:99999/",
        "https://pay.example/a b",
        "https://pay.example/\n",
        "https://p\u00e4y.example/",
        "https://[::1/",
        "https://user:secret@pay.example/",
        "https://bank.example@evil.example/",
        None,
        5,
        b"https://pay.example",
    ],
)
def test_a_page_that_is_no_web_address_is_never_asked_for(url):
    assert refused(lambda ctx: ctx.elicit_url("Go", url)) is ValueError
    question = {"method": "elicitation/create", "params": {"mode": "url", "message": "Go", "url": url}}
    assert refused(lambda ctx: ctx.ask(a=question)) is ValueError


@pytest.mark.parametrize(
    "url", ["https://pay.example", "http://localhost:8000/x?y=1#z", "HTTPS://PAY.example/%C3%A9", "http://[::1]:80/"]
)
def test_a_page_at_a_web_address_is_asked_for(url):
    assert refused(lambda ctx: ctx.elicit_url("Go", url)) is None


TEXT = {"type": "text", "text": "Hi"}
HI = [{"role": "user", "content": TEXT}]


@pytest.mark.parametrize(
    "messages, options",
    [
        ([{"role": "system", "content": TEXT}], {}),
        ([{"content": TEXT}], {}),
        ([{"role": "user"}], {}),
        (["Hi"], {}),
        ([{"role": "user", "content": "Hi"}], {}),
        ([{"role": "user", "content": None}], {}),
        ([{"role": "user", "content": {"type": "text"}}], {}),
        ([{"role": "user", "content": {"type": "video", "data": ""}}], {}),
        ([{"role": "user", "content": {"type": ["text"], "text": "x"}}], {}),
        ([{"role": "user", "content": {"type": "image", "data": "no base64", "mimeType": "image/png"}}], {}),
        ([{"role": "user", "content": {"type": "image", "data": "aGk="}}], {}),
        ([{"role": "user", "content": {"type": "resource", "resource": {"uri": "a://b", "text": "x"}}}], {}),
        ([{"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "t"}]}], {}),
        ([USE, {"role": "user", "content": {**RESULT, "content": [{"type": "text"}]}}], {}),
        ([USE, {"role": "user", "content": {**RESULT, "content": ["Hi"]}}], {}),
        (5, {}),
        (HI, {"max_tokens": "5"}),
        (HI, {"max_tokens": True}),
        (HI, {"tool_choice": {"mode": "bogus"}}),
        (HI, {"tool_choice": "auto"}),
        (HI, {"tools": [{"name": "t"}]}),
        (HI, {"tools": {"name": "t"}}),
        (HI, {"include_context": "everything"}),
        (HI, {"temperature": "hot"}),
        (HI, {"stop": "."}),
        (HI, {"system": 5}),
        (HI, {"preferences": ["fast"]}),
        (HI, {"metadata": "x"}),
    ],
)
def test_a_sampling_question_that_is_none_never_leaves(messages, options):
    assert refused(lambda ctx: ctx.sample(messages, **options)) is ValueError


@pytest.mark.parametrize("mode", ["auto", "required", "none"])
def test_each_choice_of_tools_leaves(mode):
    assert refused(lambda ctx: ctx.sample(HI, tool_choice={"mode": mode})) is None
    assert refused(lambda ctx: ctx.sample(HI, tool_choice={})) is None


@pytest.mark.parametrize(
    "question",
    [
        {"method": "tools/list"},
        {"params": {}},
        {"method": "roots/list", "params": []},
        {"method": "elicitation/create", "params": {"message": "?"}},
        {"method": "elicitation/create", "params": {"requestedSchema": {"type": "object", "properties": {}}}},
        {"method": "elicitation/create", "params": {"message": 5, "mode": "url", "url": "https://pay.example"}},
        {"method": "elicitation/create", "params": {"message": "?", "requestedSchema": {"n": int}}},
        {"method": "elicitation/create", "params": {"message": "?", "mode": "video"}},
        {"method": "sampling/createMessage", "params": {"messages": HI}},
        {"method": "sampling/createMessage", "params": {"maxTokens": 5}},
    ],
)
def test_a_question_written_by_hand_is_looked_at_too(question):
    assert refused(lambda ctx: ctx.ask(a=question)) in (TypeError, ValueError)


def test_context_is_wanted_only_of_a_client_that_offers_it():
    def tool(ctx: Context) -> str:
        return ctx.sample("Hi", include_context="thisServer").text

    server = serving(tool)
    error = call(server, capabilities={"sampling": {}})["error"]
    assert error["code"] == -32021 and error["data"] == {"requiredCapabilities": {"sampling": {"context": {}}}}
    asked = call(server, capabilities={"sampling": {"context": {}}})["result"]["inputRequests"]["q1"]
    assert asked["params"]["includeContext"] == "thisServer"
    refusing = Answering(server, [], "2025-11-25", sampling={"tools": {}})
    assert refusing.call()["isError"] is True and refusing.asked == []
    answer = {"role": "assistant", "content": TEXT, "model": "m"}
    for version, capability in (("2025-06-18", {}), ("2025-11-25", {"context": {}})):
        client = Answering(server, [{"result": answer}], version, sampling=capability)
        assert client.call()["content"][0]["text"] == "Hi"
        assert client.asked[0]["params"]["includeContext"] == "thisServer"


def test_a_handler_is_told_what_the_clients_revision_can_be_asked():
    seen = []

    def tool(ctx: Context) -> str:
        parts = (("elicitation", None), ("elicitation", "form"), ("elicitation", "url"), ("sampling", "tools"))
        seen.append([ctx.can(*part) for part in parts])
        return "x"

    for version in ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"):
        Answering(serving(tool), [], version, **ALL).call()
    assert seen == [[False] * 4, [False] * 4, [True, True, False, False], [True] * 4]
