"""Completion of prompt arguments and template variables."""

from __future__ import annotations

import pytest

from minimcp import Server
from tests.helpers import Legacy, problem, result

PROMPT = {"type": "ref/prompt", "name": "trip"}
TEMPLATE = {"type": "ref/resource", "uri": "city://{country}/{city}"}
CITIES = {"peru": ["Lima", "Cusco"], "norway": ["Oslo", "Bergen"]}


@pytest.fixture
def server():
    server = Server("s", "1")
    server.prompt(lambda city, month="": f"A trip to {city}", "trip")
    server.resource("city://{country}/{city}")(lambda country, city: f"{city}, {country}")
    server.resource("city://all")(lambda: "x")

    @server.completion("trip", "city")
    def cities(value: str, arguments: dict) -> list[str]:
        return [f"{value}{n}" for n in range(150)]

    @server.completion("city://{country}/{city}", "city")
    def city(value: str, arguments: dict) -> list[str]:
        return CITIES.get(arguments.get("country"), [])

    return server


def complete(server, ref, name, value, **more):
    return result(server, "completion/complete", ref=ref, argument={"name": name, "value": value}, **more)["completion"]


def test_without_completions_there_is_no_capability_and_no_method():
    server = Server("s")
    server.prompt(lambda: "x", "x")
    assert "completions" not in result(server, "server/discover")["capabilities"]
    error = problem(server, "completion/complete", ref={"type": "ref/prompt", "name": "x"}, argument={})
    assert error["code"] == -32601


def test_completions_are_declared(server):
    assert result(server, "server/discover")["capabilities"]["completions"] == {}
    assert Legacy(server, "2025-03-26").hello["capabilities"]["completions"] == {}


def test_at_most_a_hundred_values_leave_and_the_rest_is_counted(server):
    found = complete(server, PROMPT, "city", "L")
    assert found["values"] == [f"L{n}" for n in range(100)]
    assert found["total"] == 150 and found["hasMore"] is True


def test_what_was_chosen_already_is_passed_on_in_order(server):
    found = complete(server, TEMPLATE, "city", "", context={"arguments": {"country": "peru"}})
    assert found == {"values": ["Lima", "Cusco"]}
    assert complete(server, TEMPLATE, "city", "") == {"values": []}


def test_an_argument_nobody_completes_has_no_values(server):
    assert complete(server, PROMPT, "month", "J") == {"values": []}
    assert complete(server, {"type": "ref/resource", "uri": "city://all"}, "x", "") == {"values": []}


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"ref": PROMPT},
        {"ref": PROMPT, "argument": {"name": "city"}},
        {"ref": PROMPT, "argument": {"name": "city", "value": 5}},
        {"ref": {"type": "ref/prompt", "name": "nothing"}, "argument": {"name": "city", "value": ""}},
        {"ref": {"type": "ref/resource", "uri": "nothing://x"}, "argument": {"name": "city", "value": ""}},
        {"ref": {"type": "ref/other", "name": "trip"}, "argument": {"name": "city", "value": ""}},
        {"ref": {"type": "ref/prompt", "name": 5}, "argument": {"name": "city", "value": ""}},
        {"ref": PROMPT, "argument": {"name": "city", "value": ""}, "context": 5},
        {"ref": PROMPT, "argument": {"name": "city", "value": ""}, "context": {"arguments": 5}},
    ],
)
def test_references_and_arguments_that_do_not_fit_are_errors(server, params):
    assert problem(server, "completion/complete", **params)["code"] == -32602
    assert Legacy(server).problem("completion/complete", **params)["code"] == -32602


def test_a_hidden_prompt_completes_nothing(server):
    server.prompt(lambda city: city, "trip", allow=lambda ctx: False)
    argument = {"name": "city", "value": ""}
    error = problem(server, "completion/complete", ref=PROMPT, argument=argument)
    assert error == {"code": -32602, "message": "Unknown reference: trip"}


def test_a_crash_is_an_internal_error_without_its_cause(server, caplog):
    @server.completion("trip", "month")
    def broken(value: str, arguments: dict) -> list[str]:
        raise KeyError("secret")

    error = problem(server, "completion/complete", ref=PROMPT, argument={"name": "month", "value": ""})
    assert error["code"] == -32603 and "secret" not in error["message"]
    assert "secret" in caplog.text
