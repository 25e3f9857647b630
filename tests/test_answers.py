"""What a client answers to a server's questions, and what it declares because of it."""

from __future__ import annotations

from pathlib import Path

import pytest

import minimcp
from minimcp import Client
from minimcp.client.answers import Answers, Question
from minimcp.protocol.errors import InternalError, InvalidParams, McpError, MethodNotFound
from tests.played import INITIALIZED, Fault, Scripted

FORM = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "nights": {"type": "integer", "default": 2},
        "size": {"type": "string", "enum": ["s", "m"], "default": "m"},
    },
    "required": ["city"],
}
SAMPLE = {"messages": [], "maxTokens": 5}


def form(schema=FORM, **more):
    return {"message": "Where to?", "requestedSchema": schema, **more}


def elicited(reply, params=None):
    return Answers(elicit=lambda question: reply).answer(
        "elicitation/create", form() if params is None else params, "the server"
    )


def test_what_is_declared_is_what_there_are_callbacks_for():
    assert Answers().capabilities("2025-11-25") == {} == Answers().capabilities("2026-07-28")
    all_three = Answers(elicit=print, sample=print, roots=[])
    assert all_three.capabilities("2026-07-28") == {
        "elicitation": {"form": {}, "url": {}},
        "sampling": {},
        "roots": {},
    }
    assert all_three.capabilities("2025-11-25")["roots"] == {"listChanged": True}
    assert Answers(sample=print, sample_tools=True).capabilities("2025-11-25") == {"sampling": {"tools": {}}}


def test_fields_left_out_take_their_defaults():
    assert elicited({"city": "Rome"}) == {"action": "accept", "content": {"city": "Rome", "nights": 2, "size": "m"}}
    assert elicited({"city": "Rome", "nights": 5})["content"]["nights"] == 5
    optional = {**FORM, "required": []}
    assert elicited(True, form(optional)) == {"action": "accept", "content": {"nights": 2, "size": "m"}}


@pytest.mark.parametrize(
    ("reply", "action"), [(None, "decline"), (False, "decline"), ("decline", "decline"), ("cancel", "cancel")]
)
def test_declining_and_cancelling_have_no_content(reply, action):
    assert elicited(reply) == {"action": action}
    assert elicited({"action": action}) == {"action": action}


def test_a_whole_result_is_taken_as_it_is_unless_the_form_has_such_a_field():
    whole = {"action": "accept", "content": {"city": "Rome"}}
    assert elicited(whole)["content"] == {"city": "Rome", "nights": 2, "size": "m"}
    schema = {"type": "object", "properties": {"action": {"type": "string"}}}
    assert elicited({"action": "cancel"}, form(schema)) == {"action": "accept", "content": {"action": "cancel"}}


@pytest.mark.parametrize("reply", [{"city": 1}, {}, {"city": "Rome", "size": "xl"}, 5, ["city"], "Rome"])
def test_an_answer_that_does_not_fit_the_form_is_never_sent(reply):
    with pytest.raises(InternalError):
        elicited(reply)


def test_a_page_is_consented_to_without_content():
    page = {"mode": "url", "message": "Sign in", "url": "https://example.com/x", "elicitationId": "e1"}
    seen = []
    answers = Answers(elicit=lambda question: seen.append(question) or True)
    assert answers.answer("elicitation/create", page, "Library") == {"action": "accept"}
    question = seen[0]
    assert (question.url, question.message, question.server) == ("https://example.com/x", "Sign in", "Library")
    assert elicited({"x": 1}, page) == {"action": "accept"}
    assert elicited(None, page) == {"action": "decline"}


def test_a_question_without_a_mode_is_a_form():
    question = Question(form(), "s")
    assert question["mode"] == "form" and question.url is None
    assert list(question.fields) == ["city", "nights", "size"] and question.defaults == {"nights": 2, "size": "m"}


@pytest.mark.parametrize(
    "params",
    [
        {"message": "x"},
        {"message": "x", "requestedSchema": 1},
        {"mode": "url", "message": "x"},
        {"mode": "video", "message": "x", "requestedSchema": FORM},
        [],
    ],
)
def test_a_malformed_question_is_invalid_params(params):
    with pytest.raises(InvalidParams) as caught:
        elicited(True, params)
    assert caught.value.code == -32602


def test_text_is_a_whole_sampling_result():
    answers = Answers(sample=lambda params: "hello")
    assert answers.answer("sampling/createMessage", SAMPLE, "s") == {
        "role": "assistant",
        "content": {"type": "text", "text": "hello"},
        "model": "unknown",
        "stopReason": "endTurn",
    }
    whole = {"role": "assistant", "content": [], "model": "m"}
    assert Answers(sample=lambda params: whole).answer("sampling/createMessage", SAMPLE, "s") == whole


def test_a_rejected_sampling_request_is_the_error_minus_one():
    with pytest.raises(McpError) as caught:
        Answers(sample=lambda params: None).answer("sampling/createMessage", SAMPLE, "s")
    assert caught.value.code == -1


def test_tools_in_sampling_need_their_own_capability():
    answers = Answers(sample=lambda params: "x")
    for params in ({**SAMPLE, "tools": []}, {**SAMPLE, "toolChoice": {}}):
        with pytest.raises(InvalidParams):
            answers.answer("sampling/createMessage", params, "s")
    assert Answers(sample=lambda p: "x", sample_tools=True).answer(
        "sampling/createMessage", {**SAMPLE, "tools": []}, "s"
    )
    mixed = {"role": "user", "content": [{"type": "tool_result"}, {"type": "text", "text": "x"}]}
    with pytest.raises(InvalidParams):
        answers.answer("sampling/createMessage", {**SAMPLE, "messages": [mixed]}, "s")


def test_roots_are_folders_uris_or_dicts(tmp_path):
    roots = [tmp_path, "file:///srv/a%20b", {"uri": "file:///x", "name": "X"}]
    found = Answers(roots=roots).answer("roots/list", None, "s")["roots"]
    assert found == [{"uri": Path(tmp_path).as_uri()}, {"uri": "file:///srv/a%20b"}, {"uri": "file:///x", "name": "X"}]
    assert Answers(roots=lambda: ["/srv"]).answer("roots/list", {}, "s") == {"roots": [{"uri": "file:///srv"}]}
    with pytest.raises(InternalError):
        Answers(roots=[{"uri": "https://example.com"}]).answer("roots/list", {}, "s")


@pytest.mark.parametrize("method", ["roots/list", "sampling/createMessage", "elicitation/create", "other/method"])
def test_what_nobody_answers_is_an_unknown_method(method):
    with pytest.raises(MethodNotFound) as caught:
        Answers().answer(method, {}, "s")
    assert caught.value.code == -32601


def test_pages_that_a_2025_11_25_server_requires_are_put_to_the_callback_and_the_call_repeated():
    pages = {"elicitations": [{"mode": "url", "elicitationId": "e", "url": "https://example.com/", "message": "Go"}]}
    seen = []

    def play(params, say):
        if not seen:
            raise Fault(-32042, "visit first", pages)
        return {"content": [{"type": "text", "text": "done"}]}

    server = Scripted(initialize=lambda params, say: INITIALIZED, tools_call=play)
    with Client(server, mode="legacy", elicit=lambda question: seen.append(question.url) or True) as client:
        assert client.call_tool("x").text == "done"
    assert seen == ["https://example.com/"]
    seen.clear()
    refusing = Client(server, mode="legacy", elicit=lambda question: None)
    with refusing as client, pytest.raises(minimcp.RemoteError) as caught:
        client.call_tool("x")
    assert caught.value.code == -32042


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": [1]},
        {"properties": {"a": 1}},
        {"type": 5},
        {"type": "object", "properties": {"a": {"type": "text"}}},
        {"type": "object", "required": [["a"]]},
        {"type": "object", "properties": {"a": {"multipleOf": 0}}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": {}}}},
    ],
)
def test_a_form_that_is_none_is_refused_before_anybody_is_asked(schema):
    asked = []
    with pytest.raises(InvalidParams, match="requestedSchema"):
        Answers(elicit=asked.append).answer("elicitation/create", form(schema), "s")
    assert asked == []


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "string", "pattern": r"^\p{L}+$"}}},
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(?i:a[A-Z]*)*$"}}},
        {"type": "object", "properties": {"a": {"type": "string", "title": None, "default": None, "enum": []}}},
        {"type": "object", "properties": {"a": {"$ref": "https://example.com/other"}}},
        {"$schema": "urn:other", "type": "object", "properties": {"a": {"type": "string"}}},
        {"type": "object", "properties": None, "required": None},
        {"type": "object", "properties": {"a": {"enum": ["x"] * 20_000}}},
    ],
)
def test_a_form_that_cannot_be_judged_here_is_answered_all_the_same(schema):
    assert elicited({"a": "Zoë"}, form(schema)) == {"action": "accept", "content": {"a": "Zoë"}}
    assert elicited(True, form(schema)) == {"action": "accept", "content": {}}


def test_what_a_form_can_judge_is_judged_beside_what_it_cannot():
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": r"^\p{L}+$"}}, "required": ["b"]}
    with pytest.raises(InternalError, match='"b" missing'):
        elicited({"a": "Zoë"}, form(schema))
    with pytest.raises(InternalError, match='"a" must be a string'):
        elicited({"a": 5, "b": 1}, form(schema))


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": [{"type": ["text"]}, {"type": {"a": 1}}]}],
        [{"role": "user", "content": [{"type": None}, 5, "x"]}, 5, None],
        {"role": "user"},
        "hello",
    ],
)
def test_sampling_messages_of_any_form_end_in_no_raw_exception(messages):
    params = {"messages": messages, "maxTokens": 5}
    try:
        reply = Answers(sample=lambda params: "ok").answer("sampling/createMessage", params, "2025-11-25", "s")
    except InvalidParams as problem:
        assert problem.code == -32602
    else:
        assert reply["content"]["text"] == "ok"
