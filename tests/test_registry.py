"""Registration: decorators and plain calls, and what they refuse."""

from __future__ import annotations

import threading

import pytest

from minimcp import Context, Server
from minimcp.protocol import spec
from minimcp.server.makers import make_resource, make_tool
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


def entries(*named):
    return {name: make_tool(lambda: "x", name, description=text) for name, text in named}


def told(server):
    """The registry of a server that serves, and the topics that it publishes from now on."""
    topics = []
    server.engine.serving = True
    server.engine.bus.subscribe(("tools", "resources", "prompts"), lambda topic, data: topics.append(topic))
    return server.engine.registry, topics


def test_all_entries_of_an_origin_change_in_one_step_and_keep_their_places():
    server = Server("s")
    server.tool(lambda: "x", "first")
    registry, topics = told(server)
    files = {"x://1": make_resource(lambda: "1", "x://1", name="1")}
    templates = {"t://{id}": make_resource(lambda id: id, "t://{id}", name="t")}
    wanted = {"tools": entries(("a", "1"), ("b", "1")), "resources": files, "resourceTemplates": templates}
    assert registry.update("up", wanted) == ({"tools", "resources"}, [])
    assert topics == ["resources", "tools"]
    server.tool(lambda: "x", "last")
    assert names(server) == ["first", "a", "b", "last"]
    assert {entry.origin for entry in registry.tools.values()} == {"", "up"}
    del topics[:]
    assert registry.update("up", {"tools": entries(("c", "1"), ("b", "2"))}) == ({"tools"}, [])
    assert topics == ["tools"] and names(server) == ["first", "b", "last", "c"]
    assert result(server, "tools/list")["tools"][1]["description"] == "2"
    assert names(server, "resources") == ["1"], "a kind that was not given stays"
    assert registry.update("up", {kind: {} for kind in ("tools", "resources", "resourceTemplates")}).changed
    assert names(server) == ["first", "last"] and names(server, "resources") == []


def test_what_is_equal_on_the_wire_is_replaced_without_a_word():
    server = Server("s")
    registry, topics = told(server)
    registry.update("up", {"tools": entries(("a", "1"))})
    del topics[:]
    fresh = entries(("a", "1"))
    assert registry.update("up", {"tools": fresh, "prompts": {}}) == (set(), []) and topics == []
    assert registry.tools["a"] is fresh["a"]


def test_what_another_origin_holds_is_left_to_it():
    server = Server("s")
    registry, topics = told(server)
    server.tool(lambda: "own", "mine")
    registry.update("one", {"tools": entries(("a", "one's"))})
    del topics[:]
    updated = registry.update("two", {"tools": entries(("a", "two's"), ("mine", "two's"), ("b", "two's"))})
    assert updated.collisions == [("tools", "a", "one"), ("tools", "mine", "")]
    assert topics == ["tools"] and names(server) == ["mine", "a", "b"]
    assert result(server, "tools/call", name="mine", arguments={})["content"][0]["text"] == "own"
    registry.update("one", {"tools": {}})
    assert registry.update("two", {"tools": entries(("a", "two's"))}).collisions == []
    assert registry.tools["a"].origin == "two"
    same = {"x://%7Ea": make_resource(lambda: "1", "x://~a", name="1"), "x://~a": registry.tools["a"]}
    assert registry.update("two", {"resources": same}).collisions == [("resources", "x://~a", "two")]


def test_what_an_origin_brings_is_offered():
    def offered(entry, kind="tools"):
        server = Server("s")
        server.engine.registry.update("up", {kind: {"x://{a}" if kind != "tools" else "a": entry}})
        return set(result(server, "server/discover")["capabilities"])

    def logs(ctx: Context) -> str:
        return "x"

    completed = make_resource(lambda a: a, "x://{a}")
    completed.completer = lambda ctx, reference, argument: lambda value, arguments: [f"{reference['uri']} {argument}"]
    assert offered(make_tool(lambda: "x", "a")) == {"tools"}
    assert offered(make_tool(logs, "a")) == {"tools", "logging"}
    assert offered(completed, "resourceTemplates") == {"resources", "completions"}
    server = Server("s")
    server.engine.registry.update("up", {"resourceTemplates": {"x://{a}": completed}})
    asked = {"ref": {"type": "ref/resource", "uri": "x://{a}"}, "argument": {"name": "a", "value": ""}}
    assert result(server, "completion/complete", **asked)["completion"]["values"] == ["x://{a} a"]


def test_a_watcher_hears_of_a_change_before_the_clients():
    server, heard = Server("s"), []
    registry, topics = told(server)
    registry.watch(lambda: heard.append((list(registry.tools), list(topics))))
    server.tool(lambda: "x", "a")
    registry.update("up", {"tools": entries(("b", "1"))})
    server.remove_tool("a")
    server.completion("p", "x")(lambda value, arguments: [])
    assert heard == [
        *((["a"], []), (["a", "b"], ["tools"])),
        *((["b"], ["tools", "tools"]), (["b"], ["tools", "tools", "tools"])),
    ]
