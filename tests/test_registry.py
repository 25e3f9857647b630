"""Registration: decorators and plain calls, and what they refuse."""

from __future__ import annotations

import threading

import pytest

from minimcp import Server
from minimcp.protocol import spec
from tests.helpers import result


def names(server, kind="tools"):
    return [each["name"] for each in result(server, f"{kind}/list")[kind]]


def test_decorators_return_the_function_and_take_options_or_none():
    server = Server("s")

    @server.tool
    def one() -> str:
        """The first."""
        return "1"

    @server.tool(name="two", description="The second.")
    def other() -> str:
        return "2"

    @server.prompt
    def three() -> str:
        return "3"

    @server.prompt(name="four")
    def another() -> str:
        return "4"

    @server.resource("a://5")
    def five() -> str:
        return "5"

    assert [one(), other(), three(), another(), five()] == ["1", "2", "3", "4", "5"]
    assert names(server) == ["one", "two"] and names(server, "prompts") == ["three", "four"]
    assert names(server, "resources") == ["five"]


@pytest.mark.parametrize(
    "register, words",
    [
        (lambda server: server.tool("name"), "name="),
        (lambda server: server.prompt("name"), "name="),
        (lambda server: server.resource(lambda: "x"), "Write the URI"),
        (lambda server: server.tool(lambda *args: "x", "x"), r"\*args"),
        (lambda server: server.tool(dict), "not a function"),
    ],
)
def test_what_cannot_be_registered_is_told_how_to_write_it(register, words):
    with pytest.raises((TypeError, ValueError), match=words):
        register(Server("s"))


def test_methods_of_objects_are_functions_too():
    class Shop:
        def __init__(self, stock):
            self.stock = stock

        def left(self, sold: int) -> int:
            """How many are left."""
            return self.stock - sold

    server = Server("s")
    server.tool(Shop(5).left)
    assert result(server, "tools/call", name="left", arguments={"sold": 2})["structuredContent"] == 3


def test_registering_while_others_list_and_call_never_shows_half_a_change():
    server = Server("s", page_size=7)
    server.tool(lambda: "x", "first")
    stop = threading.Event()

    def churn():
        while not stop.is_set():
            for n in range(20):
                server.tool(lambda: "x", f"t{n}")
            for n in range(20):
                server.remove_tool(f"t{n}")

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(200):
            assert names(server)[0] == "first"
            assert result(server, "tools/call", name="first")["content"][0]["text"] == "x"
    finally:
        stop.set()
        thread.join(10)


def test_a_server_says_who_it_is_in_full():
    icons = [{"src": "https://x.example/i.png"}]
    server = Server("s", "2", title="T", description="D", website="https://x.example", icons=icons, instructions="I")
    found = result(server, "server/discover")
    assert found["_meta"]["io.modelcontextprotocol/serverInfo"] == {
        "name": "s",
        "version": "2",
        "title": "T",
        "description": "D",
        "websiteUrl": "https://x.example",
        "icons": icons,
    }
    assert found["instructions"] == "I"


def test_limits_are_known_by_name():
    with pytest.raises(ValueError, match="body_bytes"):
        Server("s", limits={"body": 5})
    assert Server("s", limits={"body_bytes": 5}).engine.limits["body_bytes"] == 5
    assert spec.LIMITS["body_bytes"] == 4 * 1024 * 1024
