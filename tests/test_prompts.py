"""Prompts and what completes their arguments and those of resource templates."""

from __future__ import annotations

import json

import pytest

from minimcp import Server, audio, image, link, resource
from tests.helpers import Legacy, problem, result


@pytest.fixture
def server():
    server = Server("s", "1")

    @server.prompt(title="Greet", icons=[{"src": "https://x.example/i.png"}], meta={"com.example/x": 1})
    def greet(name: str, times: int = 1) -> str:
        """Greet somebody.

        Args:
            name: Whom to greet.
        """
        return f"Hello {name}! " * times

    return server


def get(server, name, **arguments):
    return result(server, "prompts/get", name=name, arguments=arguments)["messages"]


def test_text_is_said_by_the_user(server):
    server.prompt(lambda: ["one", {"role": "assistant", "content": "two"}], "talk")
    server.prompt(lambda: "hello", "hello")
    assert get(server, "hello") == [{"role": "user", "content": {"type": "text", "text": "hello"}}]
    assert get(server, "talk") == [
        {"role": "user", "content": {"type": "text", "text": "one"}},
        {"role": "assistant", "content": {"type": "text", "text": "two"}},
    ]


def test_without_prompts_there_is_no_capability_and_no_method():
    server = Server("s")
    assert "prompts" not in result(server, "server/discover")["capabilities"]
    assert problem(server, "prompts/list")["code"] == -32601
    assert problem(server, "prompts/get", name="x")["code"] == -32601


def test_prompts_declare_list_changes_and_list_their_arguments(server):
    assert result(server, "server/discover")["capabilities"]["prompts"] == {"listChanged": True}
    assert result(server, "prompts/list")["prompts"] == [
        {
            "name": "greet",
            "title": "Greet",
            "description": "Greet somebody.",
            "arguments": [
                {"name": "name", "required": True, "description": "Whom to greet."},
                {"name": "times", "required": False},
            ],
            "icons": [{"src": "https://x.example/i.png"}],
            "_meta": {"com.example/x": 1},
        }
    ]
    assert Legacy(server, "2025-06-18").result("prompts/list")["prompts"][0].keys() == {
        "name",
        "title",
        "description",
        "arguments",
        "_meta",
    }
    assert Legacy(server, "2024-11-05").result("prompts/list")["prompts"][0].keys() == {
        "name",
        "description",
        "arguments",
    }


def test_text_is_a_message_of_the_user_and_arguments_are_strings(server):
    found = result(server, "prompts/get", name="greet", arguments={"name": "Ann", "times": "2"})
    assert found["description"] == "Greet somebody."
    assert found["messages"] == [{"role": "user", "content": {"type": "text", "text": "Hello Ann! Hello Ann! "}}]


def test_messages_of_every_kind(server):
    server.prompt(
        lambda: [
            "text",
            {"role": "assistant", "content": "said"},
            image(b"\x89PNG"),
            audio(b"RIFF"),
            resource("x://y", "z", "text/plain"),
            link("x://y", "y"),
            {"role": "user", "content": {"data": 1}},
        ],
        "many",
    )
    assert [(message["role"], message["content"]) for message in get(server, "many")] == [
        ("user", {"type": "text", "text": "text"}),
        ("assistant", {"type": "text", "text": "said"}),
        ("user", {"type": "image", "data": "iVBORw==", "mimeType": "image/png"}),
        ("user", {"type": "audio", "data": "UklGRg==", "mimeType": "audio/wav"}),
        ("user", {"type": "resource", "resource": {"uri": "x://y", "mimeType": "text/plain", "text": "z"}}),
        ("user", {"type": "resource_link", "uri": "x://y", "name": "y"}),
        ("user", {"type": "text", "text": '{"data":1}'}),
    ]
    older = Legacy(server, "2024-11-05").result("prompts/get", name="many")["messages"]
    assert [message["content"]["type"] for message in older] == [
        "text",
        "text",
        "image",
        "text",
        "resource",
        "text",
        "text",
    ]


def test_a_whole_result_goes_through(server):
    whole = {"description": "d", "messages": [{"role": "assistant", "content": {"type": "text", "text": "x"}}]}
    server.prompt(lambda: whole, "whole")
    found = result(server, "prompts/get", name="whole")
    assert found["description"] == "d" and found["messages"] == whole["messages"]


def test_a_message_with_several_blocks_is_a_message_for_each(server):
    picture = {"type": "image", "data": "iVBORw==", "mimeType": "image/png"}
    blocks = [{"type": "text", "text": "a"}, picture]
    for value in (
        [{"role": "assistant", "content": blocks}],
        [{"role": "assistant", "content": ["a", (b"\x89PNG", "image/png")]}],
        {"messages": [{"role": "assistant", "content": blocks}]},
        {
            "messages": [
                {"role": "assistant", "content": "a"},
                {"role": "assistant", "content": (b"\x89PNG", "image/png")},
            ]
        },
    ):
        server.prompt(lambda value=value: value, "several", description="d")
        for found in (
            result(server, "prompts/get", name="several"),
            Legacy(server).result("prompts/get", name="several"),
        ):
            assert found["messages"] == [{"role": "assistant", "content": block} for block in blocks]
            assert found["description"] == "d"
    server.prompt(lambda: (b"\x89PNG", "image/png"), "one")
    assert get(server, "one") == [{"role": "user", "content": picture}]
    server.prompt(lambda: None, "none")
    assert get(server, "none") == []


@pytest.mark.parametrize(
    "value",
    [
        {"messages": ["a"]},
        {"messages": [{"role": "system", "content": "a"}]},
        {"messages": [{"role": ["user"], "content": "a"}]},
        {"messages": [{"role": "user"}]},
        {"messages": [], "unread": 0},
        {"type": {"name": "Bug"}},
        {"role": "admin", "content": "x"},
    ],
)
def test_data_that_resemble_messages_are_data(server, value):
    server.prompt(lambda: value, "data")
    (message,) = get(server, "data")
    assert message["role"] == "user" and json.loads(message["content"]["text"]) == value


@pytest.mark.parametrize(
    "params",
    [
        {"name": "nothing"},
        {"name": 5},
        {},
        {"name": "greet"},
        {"name": "greet", "arguments": {"name": "Ann", "times": "many"}},
        {"name": "greet", "arguments": {"name": 5}},
        {"name": "greet", "arguments": ["Ann"]},
        {"name": "greet", "arguments": {"name": "Ann", "other": "x"}},
    ],
)
def test_names_and_arguments_that_do_not_fit_are_errors(server, params):
    assert problem(server, "prompts/get", **params)["code"] == -32602
    assert Legacy(server).problem("prompts/get", **params)["code"] == -32602


def test_a_crash_is_an_internal_error_without_its_cause(server, caplog):
    server.prompt(lambda: 1 / 0, "bad")
    assert problem(server, "prompts/get", name="bad") == {
        "code": -32603,
        "message": 'The prompt bad failed; the logger "minimcp" of the server has the details',
    }
    assert "ZeroDivisionError" in caplog.text


def test_hidden_prompts_look_as_if_they_were_not_there(server):
    server.prompt(lambda: "x", "secret", allow=lambda ctx: False)
    assert [each["name"] for each in result(server, "prompts/list")["prompts"]] == ["greet"]
    assert problem(server, "prompts/get", name="secret")["message"] == "Unknown prompt: secret"


def test_prompts_come_and_go(server):
    assert server.remove_prompt("greet") is True
    assert server.remove_prompt("greet") is False
    assert result(server, "prompts/list")["prompts"] == []
