"""Servers behind a gateway that lie, hang, flap or flood: it costs their own callers alone, and each call one error."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from minimcp import Client, Gateway, RemoteError, Server
from tests import official
from tests.embedded import embedded, wait_until
from tests.gateways import served
from tests.scripted import Peer, Request, Scripted, scripted

MODES = pytest.mark.parametrize("mode", ["modern", "legacy"])
LISTS = {
    "tools/list": "tools",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
    "prompts/list": "prompts",
}
TOOL = {"name": "tell", "description": "Tell.", "inputSchema": {"type": "object"}}
HINTS = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
DISCOVERED = {
    **HINTS,
    "supportedVersions": ["2026-07-28"],
    "capabilities": {"tools": {}, "resources": {}, "prompts": {}, "completions": {}},
    "serverInfo": {"name": "liar", "version": "0"},
}
Lie = Callable[[Any, Peer], Any]


def reply(id: Any, result: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "result": result}


def liar(**lies: Lie) -> Any:
    """A server that answers `f(message, peer)` where it has one by method, and honestly otherwise."""

    def answer(request: Request, peer: Peer) -> None:
        if request.method != "POST":
            peer.body(b"", 405)
            return
        message = request.message
        method = message["method"]
        lie = lies.get(method.replace("/", "_"))
        if lie is not None:
            lie(message, peer)
        elif method == "server/discover":
            peer.json(reply(message["id"], DISCOVERED))
        elif method in LISTS:
            found = [TOOL] if method == "tools/list" else []
            peer.json(reply(message["id"], {**HINTS, LISTS[method]: found}))
        else:
            error = {"code": -32601, "message": "Method not found"}
            peer.json({"jsonrpc": "2.0", "id": message["id"], "error": error}, 404)

    return scripted(answer)


def honest() -> Server:
    server = Server("honest")
    server.tool(lambda: "the truth", "truth")
    return server


@contextlib.contextmanager
def beside(server: Scripted, **more: Any) -> Iterator[Gateway]:
    """A gateway with an honest server and a liar; the tools of the first can be used in time before and after."""
    with served(honest()) as url:
        entry = {"url": server.url, "probe": 0, "timeout": 10, "connectTimeout": 10, **more}
        servers = {"honest": {"url": url, "probe": 0}, "liar": entry}
        with Gateway({"mcpServers": servers, "gateway": {"listTimeout": 20}}) as gateway:
            unharmed(gateway)
            yield gateway
            unharmed(gateway)


def unharmed(gateway: Gateway) -> None:
    """Fail unless the honest server is listed, and can be called within a bound, which a busy machine may miss once."""
    with Client(gateway, mode="modern") as client:
        assert "honest_truth" in [tool["name"] for tool in client.list_tools()]
        assert any(_took_s(client) < 1 for _ in range(3))


def _took_s(client: Client) -> float:
    begun = time.monotonic()
    assert client.call_tool("honest_truth").text == "the truth"
    return time.monotonic() - begun


DONE = {"resultType": "complete", "content": [{"type": "text", "text": "x"}], "isError": False}


def _say(**members: Any) -> Lie:
    return lambda message, peer: peer.json({**reply(message["id"], DONE), **members})


def _whole(data: bytes, kind: str, status: int = 200) -> Lie:
    return lambda message, peer: peer.body(data, status, Content_Type=kind)


def _body(make: Callable[[Any], Any]) -> Lie:
    return lambda message, peer: peer.json(make(message["id"]))


def _cut(message: Any, peer: Peer) -> None:
    peer.head(200, Content_Type="application/json", Content_Length="500").send(b'{"jsonrpc": "2.0", "id"').hang_up()


def _stream(*events: Any) -> Lie:
    def say(message: Any, peer: Peer) -> None:
        peer.stream()
        for event in events:
            peer.event({**event, "id": message["id"]} if "result" in event else event)
        peer.end()

    return say


# Each answer to a call, which none of it is.
NONSENSE: dict[str, Lie] = {
    "another id": _say(id=999_999),
    "no id": _body(lambda id: {"jsonrpc": "2.0", "result": DONE}),
    "a result and an error": _say(error={"code": -32603, "message": "both"}),
    "neither": _body(lambda id: {"jsonrpc": "2.0", "id": id}),
    "a result that is a list": _body(lambda id: reply(id, ["x"])),
    "a result that is null": _body(lambda id: reply(id, None)),
    "a number": _body(lambda id: 7),
    "an error without a code": _body(lambda id: {"jsonrpc": "2.0", "id": id, "error": {"message": "no"}}),
    "an error that is text": _body(lambda id: {"jsonrpc": "2.0", "id": id, "error": "no"}),
    "html": _whole(b"<html><body>secret stack trace</body></html>", "text/html"),
    "half of json": _whole(b'{"jsonrpc": "2.0", "id": 1, "resu', "application/json"),
    "nothing at all": _whole(b"", "application/json"),
    "204": lambda message, peer: peer.head(204),
    "202": _whole(b"", "application/json", 202),
    "500 of html": _whole(b"<html>secret stack trace</html>", "text/html", 500),
    "a body that is cut off": _cut,
    "a stream without an answer": _stream({"jsonrpc": "2.0", "method": "notifications/message", "params": {}}),
    "json that is deep": _whole(b'{"jsonrpc":"2.0","id":1,"result":' + b"[" * 100_000, "application/json"),
    "latin-1": _whole('{"jsonrpc":"2.0","id":1,"result":{"content":"é"}}'.encode("latin-1"), "application/json"),
    "a redirect": lambda message, peer: peer.body(b"", 307, Location="http://169.254.169.254/latest/meta-data/"),
    "a redirect to another": lambda message, peer: peer.body(b"", 308, Location="http://localhost:1/mcp"),
}


@MODES
@pytest.mark.parametrize("lie", NONSENSE)
def test_an_answer_that_is_none_is_one_error_for_its_caller(lie: str, mode: str) -> None:
    with liar(tools_call=NONSENSE[lie]) as server, beside(server) as gateway:
        with Client(gateway, mode=mode) as client:
            begun = time.monotonic()
            with pytest.raises(RemoteError) as caught:
                client.call_tool("liar_tell")
            assert time.monotonic() - begun < 15
        assert caught.value.code == -32603
        assert "secret" not in str(caught.value) and "Traceback" not in str(caught.value)
        called = [request for request in server.requests if b"tools/call" in request.body]
        # A call that may have run is not made again, and a redirect is not followed.
        assert len(called) == 1 and {request.path for request in server.requests} == {"/mcp"}


# What a server may answer although it makes little sense: it is for the client to judge.
ODD = {
    "an unknown kind of result": {"resultType": "riddle", "question": "What?"},
    "content of the wrong shape": {"resultType": "complete", "content": "text"},
    "no content": {"resultType": "complete"},
    "what nobody knows": {**DONE, "com.example/future": {"deep": [None, 1.5]}},
}


@pytest.mark.parametrize("odd", ODD)
def test_a_result_of_another_shape_goes_through_as_it_came(odd: str) -> None:
    with liar(tools_call=_body(lambda id: reply(id, ODD[odd]))) as server, beside(server) as gateway:
        with Client(gateway, mode="modern") as client:
            result = client.exchange("tools/call", {"name": "liar_tell", "arguments": {}})
        meta = result.pop("_meta", {})
        assert result == ODD[odd]
        # Which the official schema refuses, as it would if it came directly.
        official.violations.clear()
        assert meta.keys() <= {"io.modelcontextprotocol/serverInfo"}


def endless(message: Any, peer: Peer) -> None:
    """A page of a list that has another one behind it, always."""
    params = message.get("params") or {}
    number = int(params.get("cursor") or 0)
    tools = [{**TOOL, "name": f"tool{number}"}]
    peer.json(reply(message["id"], {**HINTS, "tools": tools, "nextCursor": str(number + 1)}))


def circular(message: Any, peer: Peer) -> None:
    peer.json(reply(message["id"], {**HINTS, "tools": [TOOL], "nextCursor": ""}))


def flooding(count: int) -> Lie:
    def say(message: Any, peer: Peer) -> None:
        # Written one by one, so that the other threads here have their turn meanwhile.
        text = json.dumps({**TOOL, "name": "tool%d"})
        tools = ",".join(text % number for number in range(count))
        whole = json.dumps(reply(message["id"], {**HINTS, "tools": ["here"]}))
        peer.body(whole.replace('"here"', tools).encode(), Content_Type="application/json")

    return say


def shapeless(tools: Any) -> Lie:
    return lambda message, peer: peer.json(reply(message["id"], {**HINTS, "tools": tools}))


def fat(message: Any, peer: Peer) -> None:
    tool = {**TOOL, "description": "x" * 10_000_000}
    peer.json(reply(message["id"], {**HINTS, "tools": [tool]}))


LISTINGS: dict[str, Lie] = {
    "pages without an end": endless,
    "one page again and again": circular,
    "a million tools": flooding(1_000_000),
    "ten thousand tools": flooding(10_000),
    "a description of 10 MB": fat,
    "tools that are text": shapeless("tools"),
    "tools that are numbers": shapeless([1, None, TOOL]),
    "a tool without a name": shapeless([{"inputSchema": {}}, TOOL]),
    "a name that is a number": shapeless([{**TOOL, "name": 7}]),
    "a name with everything": shapeless([{**TOOL, "name": "a\x1b[31m\n/../é" + "x" * 300}]),
    "a schema that is a list": shapeless([{**TOOL, "inputSchema": []}]),
    "a schema of text": shapeless([{**TOOL, "inputSchema": {"type": "string"}}]),
    "no schema": shapeless([{"name": "tell"}]),
    "an empty schema": shapeless([{**TOOL, "inputSchema": {}}]),
    "properties that are none": shapeless([{**TOOL, "inputSchema": {"type": "object", "properties": {"a": 1}}}]),
    "an output schema that is a list": shapeless([{**TOOL, "outputSchema": []}]),
    "members of the wrong type": shapeless([{**TOOL, "description": 1, "annotations": {"readOnlyHint": "yes"}}]),
    "members that are null": shapeless([{**TOOL, "description": None, "title": None, "annotations": None}]),
    "icons that are none": shapeless([{**TOOL, "icons": [{"href": "x"}]}]),
    "a schema that refers to itself": shapeless([{**TOOL, "inputSchema": {"$ref": "#"}}]),
    "a schema that refers to the web": shapeless([{**TOOL, "inputSchema": {"$ref": "http://169.254.169.254/"}}]),
    "one name twice": shapeless([TOOL, {**TOOL, "description": "Another."}]),
    "the name of another's": shapeless([{**TOOL, "name": "honest_truth"}]),
}


@pytest.mark.parametrize("listing", LISTINGS)
def test_a_list_that_is_wrong_hurts_no_other(listing: str) -> None:
    with liar(tools_list=LISTINGS[listing]) as server:
        with beside(server, prefix="" if listing == "the name of another's" else "liar") as gateway:
            wait_until(lambda: gateway.upstreams["liar"].tried, 30)
            for mode in ("modern", "legacy"):
                # What is emitted is held against the official schema, as strict clients do.
                with Client(gateway, mode=mode) as client:
                    names = [tool["name"] for tool in client.list_tools()]
                    assert len(names) == len(set(names)) <= 10_001
                    assert all(len(name) <= 64 and name.isprintable() for name in names)
            (state,) = [each for each in gateway.snapshot()["servers"] if each["name"] == "liar"]
            assert state["state"] in ("up", "down", "starting")
            json.dumps(gateway.snapshot())


@MODES
def test_a_tool_that_was_renamed_after_the_list_is_unknown_to_its_server(mode: str) -> None:
    names = ["tell"]

    def listing(message: Any, peer: Peer) -> None:
        peer.json(reply(message["id"], {**HINTS, "tools": [{**TOOL, "name": names[0]}]}))

    def call(message: Any, peer: Peer) -> None:
        name = message["params"]["name"]
        if name == names[0]:
            peer.json(reply(message["id"], DONE))
        else:
            error = {"code": -32602, "message": f"Unknown tool: {name}"}
            peer.json({"jsonrpc": "2.0", "id": message["id"], "error": error})

    with liar(tools_list=listing, tools_call=call) as server, beside(server) as gateway:
        with Client(gateway, mode=mode) as client:
            assert client.call_tool("liar_tell").text == "x"
            names[0] = "told"
            with pytest.raises(RemoteError) as caught:
                client.call_tool("liar_tell")
            assert (caught.value.code, caught.value.message) == (-32602, "Unknown tool: tell")


def drip(message: Any, peer: Peer) -> None:
    """A byte a moment, for longer than anybody waits."""
    peer.head(200, Content_Type="application/json", Content_Length="100000")
    for _ in range(400):
        peer.send(b" ")
        threading.Event().wait(0.05)


def silent(message: Any, peer: Peer) -> None:
    peer.left()


@pytest.mark.parametrize("lie", [drip, silent])
def test_a_server_that_never_comes_to_its_end_is_given_up_in_time(lie: Lie) -> None:
    with liar(tools_call=lie) as server, beside(server, timeout=2, maxTimeout=2) as gateway:
        with Client(gateway, mode="modern") as client:
            begun = time.monotonic()
            with pytest.raises(RemoteError) as caught:
                client.call_tool("liar_tell")
            assert 1.5 < time.monotonic() - begun < 15
        assert caught.value.data["mayHaveRun"] is True
        assert gateway.upstreams["liar"].slots.used == 0


def test_a_thousand_notices_of_a_change_are_a_few_lists() -> None:
    server = Server("noisy")
    server.tool(lambda: "x", "tell")
    with embedded(server.wsgi) as listening:
        url = f"http://127.0.0.1:{listening.port}/mcp"
        with Gateway({"mcpServers": {"noisy": {"url": url, "probe": 0}}}) as gateway:
            with Client(gateway, mode="modern") as client, client.listen(tools=True) as changes:
                listed: list[str] = []
                call = server.engine.call

                def counted(message: Any, **more: Any) -> Any:
                    listed.append(message["method"])
                    return call(message, **more)

                server.engine.call = counted  # type: ignore[method-assign]
                for number in range(1000):
                    server.tool(lambda: "y", f"new{number}")
                assert changes.receive(30)["method"] == "notifications/tools/list_changed"
                wait_until(lambda: len(client.list_tools(fresh=True)) == 1001, 30)
                assert listed.count("tools/list") <= 10
        server.close()


def test_a_change_is_told_when_the_list_is_as_it_will_be() -> None:
    server = Server("growing")
    for number in range(3):
        server.tool(lambda: "x", f"tool{number}")
    with embedded(server.wsgi) as listening:
        url = f"http://127.0.0.1:{listening.port}/mcp"
        with Gateway({"mcpServers": {"growing": {"url": url, "probe": 0, "prefix": ""}}}) as gateway:
            seen: list[list[str]] = []

            def look(*event: Any) -> None:
                with Client(gateway, mode="modern") as client:
                    seen.append([tool["name"] for tool in client.list_tools()])

            look()
            stop = gateway.engine.bus.subscribe(("tools",), look)
            server.tool(lambda: "x", "late")
            wait_until(lambda: len(seen) > 1)
            stop()
            assert seen[1] == ["tool0", "tool1", "tool2", "late"]
        server.close()


def test_a_server_that_flaps_costs_nothing_but_its_own_calls() -> None:
    """Up and down, faster than anything settles: the other server's calls all succeed, and threads do not pile up."""
    up = threading.Event()
    up.set()

    def flap(message: Any, peer: Peer) -> None:
        if up.is_set():
            peer.json(reply(message["id"], DONE))
        else:
            peer.reset()

    with liar(tools_call=flap, server_discover=_flapping(up)) as server, beside(server) as gateway:
        with Client(gateway, mode="modern") as client:
            outcomes: dict[str, int] = {}
            before = 0
            for turn in range(12):
                (up.clear if turn % 2 else up.set)()
                until = time.monotonic() + 0.3
                while time.monotonic() < until:
                    assert client.call_tool("honest_truth").text == "the truth"
                    try:
                        outcome = client.call_tool("liar_tell").text
                    except RemoteError as problem:
                        outcome = str(problem.code)
                    outcomes[outcome] = outcomes.get(outcome, 0) + 1
                before = before or threading.active_count()
            assert set(outcomes) == {"x", "-32603"}
            # Those of the last connections may be about to end.
            wait_until(lambda: threading.active_count() <= before + 5)
            # No storm: what is down is not asked at every call.
            asked = sum(b"tools/call" in request.body for request in server.requests)
            assert asked < sum(outcomes.values())


def _flapping(up: threading.Event) -> Lie:
    def say(message: Any, peer: Peer) -> None:
        if up.is_set():
            peer.json(reply(message["id"], DISCOVERED))
        else:
            peer.reset()

    return say
