"""The gateway: the lists of many servers as one, and requests that reach the right one unchanged."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
import time

import pytest

from minimcp import CallCancelled, Client, Context, Gateway, McpError, Raw, RemoteError, Server, Timeout, link
from minimcp import resource as embedded_resource
from minimcp.engines.http_server.wsgi_server import make_server
from minimcp.gateway.upstream import Upstream
from tests import official
from tests.embedded import embedded, wait_until
from tests.gateways import client_of, gateway_of, served
from tests.helpers import free_port

BOTH = pytest.mark.parametrize("mode", ["modern", "legacy"])


def weather() -> Server:
    server = Server("weather", "1.0", instructions="Ask for cities.")

    @server.tool(annotations={"readOnlyHint": True})
    def forecast(city: str) -> dict:
        return {"city": city}

    @server.resource("weather://{city}")
    def current(city: str) -> str:
        return f"sunny in {city}"

    @server.resource("weather://all")
    def everything() -> str:
        return "sunny everywhere"

    @server.prompt
    def report(city: str) -> str:
        return f"Report on {city}"

    server.completion("report", "city")(lambda value, arguments: [value + "lo", value + "mar"])
    server.completion("weather://{city}", "city")(lambda value, arguments: [value.upper()])
    return server


def files() -> Server:
    server = Server("files", "1.0")

    @server.tool
    def read(path: str) -> str:
        return f"the file {path}"

    @server.tool
    def links():
        return [
            link("file:///a.txt", "a"),
            link("https://example.com/b", "b"),
            embedded_resource("file:///c.txt", "text"),
        ]

    return server


@BOTH
def test_the_lists_of_all_servers_are_one_under_prefixed_names(mode):
    with gateway_of(weather(), files()) as gateway, client_of(gateway, mode) as client:
        assert [tool["name"] for tool in client.list_tools()] == ["weather_forecast", "files_read", "files_links"]
        assert [each["name"] for each in client.list_prompts()] == ["weather_report"]
        assert [each["uri"] for each in client.list_resources()] == ["weather+weather://all"]
        assert [each["uriTemplate"] for each in client.list_resource_templates()] == ["weather+weather://{city}"]
        assert "[weather] (names begin with weather_)\nAsk for cities." in client.instructions
        assert client.server_info["name"] == "gateway"


@BOTH
def test_each_request_reaches_the_server_that_has_it(mode):
    with gateway_of(weather(), files()) as gateway, client_of(gateway, mode) as client:
        assert client.call_tool("weather_forecast", city="Oslo").data == {"city": "Oslo"}
        assert client.call_tool("files_read", path="x").text == "the file x"
        assert client.read_resource("weather+weather://Oslo").text == "sunny in Oslo"
        assert client.read_resource("weather+weather://all")["contents"][0]["uri"] == "weather+weather://all"
        assert client.get_prompt("weather_report", city="Oslo")["messages"][0]["content"]["text"] == "Report on Oslo"
        found = client.complete("city", "Os", prompt="weather_report")
        assert found["values"] == ["Oslo", "Osmar"]
        assert client.complete("city", "os", template="weather+weather://{city}")["values"] == ["OS"]


@BOTH
@pytest.mark.parametrize("name", ["forecast", "Weather_forecast", "files_forecast", "weather__forecast", "weather_"])
def test_no_other_name_reaches_a_tool(mode, name):
    with gateway_of(weather(), files()) as gateway, client_of(gateway, mode) as client:
        with pytest.raises(RemoteError) as caught:
            client.call_tool(name, city="x")
        assert caught.value.code == -32602
        assert caught.value.message == f"Unknown tool: {name}"


@BOTH
def test_uris_in_results_lead_back_to_their_server_and_those_of_the_web_stay(mode):
    with gateway_of(files()) as gateway, client_of(gateway, mode) as client:
        first, second, third = client.call_tool("files_links")["content"]
        assert first["uri"] == "files+file:///a.txt"
        assert second["uri"] == "https://example.com/b"
        assert third["resource"]["uri"] == "files+file:///c.txt"


def test_a_page_of_an_app_is_found_under_the_gateways_uri():
    server = Server("clock")
    page = "ui://clock/page.html"

    @server.tool(meta={"ui": {"resourceUri": page, "visibility": ["model"]}, "ui/resourceUri": page})
    def now() -> str:
        return "noon"

    server.resource(page, mime_type="text/html;profile=mcp-app")(lambda: "<!doctype html><p>noon</p>")
    with gateway_of(server) as gateway, client_of(gateway) as client:
        meta = client.list_tools()[0]["_meta"]
        assert meta["ui"] == {"resourceUri": "ui://clock+clock/page.html", "visibility": ["model"]}
        assert meta["ui/resourceUri"] == "ui://clock+clock/page.html"
        assert client.read_resource(meta["ui"]["resourceUri"]).text == "<!doctype html><p>noon</p>"


def strange() -> Server:
    server = Server("strange")
    schema = {"type": "object", "properties": {"a": {"type": "integer", "x-unknown": [1, {"b": None}]}}}

    @server.tool(input_schema=schema, meta={"com.example/x": {"y": False}}, annotations={"destructiveHint": False})
    def odd(**arguments):
        return Raw(
            content=[{"type": "text", "text": "t", "com.example": 1.50, "annotations": {"priority": 0}}],
            structuredContent={"given": arguments, "z": None},
            isError=False,
            future={"deep": [True, "\u2028"]},
            _meta={"com.example/trace": "é"},
        )

    server.engine.registry.tools["odd"].definition["tomorrow"] = {"n": 0}
    return server


@BOTH
def test_what_the_gateway_does_not_know_goes_through_unchanged(mode):
    server = strange()
    with gateway_of(server, entries={"strange": {"prefix": ""}}) as gateway, served(server) as url:
        with client_of(gateway, mode) as through, Client(url, mode=mode) as direct:
            assert json.dumps(through.list_tools()) == json.dumps(direct.list_tools())
            found, expected = (each.call_tool("odd", {"a": 7, "b": []}) for each in (through, direct))
            for result in (found, expected):
                result.get("_meta", {}).pop("io.modelcontextprotocol/serverInfo", None)
            assert json.dumps(found, sort_keys=True) == json.dumps(expected, sort_keys=True)
            assert found["future"] == {"deep": [True, "\u2028"]}
    official.violations.clear()  # that a legacy revision has no such member is what this is about


@BOTH
def test_an_error_of_a_server_keeps_its_code_and_data(mode):
    server = Server("s")

    @server.tool
    def fail() -> str:
        raise McpError("no room", {"left": 0}, code=4711)

    with gateway_of(server) as gateway, client_of(gateway, mode) as client:
        with pytest.raises(RemoteError) as caught:
            client.call_tool("s_fail")
        assert (caught.value.code, caught.value.message, caught.value.data) == (4711, "no room", {"left": 0})


def test_arguments_that_are_mirrored_in_headers_are_mirrored_anew():
    server = Server("s")
    schema = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
    seen = []

    @server.tool(input_schema=schema)
    def where(region: str) -> str:
        return region

    @contextlib.contextmanager
    def around(ctx):
        if ctx.method == "tools/call":
            seen.append((ctx.request["HTTP_MCP_NAME"], ctx.request["HTTP_MCP_PARAM_REGION"]))
        yield

    server.engine.around_call = around
    with gateway_of(server) as gateway, client_of(gateway) as client:
        assert client.call_tool("s_where", region="eu").text == "eu"
    assert seen == [("where", "eu")]


def test_a_tool_that_wants_other_headers_than_it_said_is_listed_again_and_called_once_more():
    server = Server("s")
    ran = []

    def tool(header):
        schema = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": header}}}
        server.tool(lambda region: ran.append(region) or region, "where", input_schema=schema)

    tool("Region")
    with gateway_of(server) as gateway, client_of(gateway) as client:
        assert client.call_tool("s_where", region="eu").text == "eu"
        upstream = gateway.upstreams["s"]
        upstream.refresh_soon = lambda: None  # as if the notice of the change were on its way
        tool("Place")
        assert client.call_tool("s_where", region="us").text == "us"
        assert ran == ["eu", "us"]


def test_long_names_are_cut_the_same_way_every_time_and_still_work():
    server = Server("s")
    name = "n" * 100
    server.tool(lambda: "long", name)
    server.tool(lambda: "other", name + "x")
    names = []
    for _ in range(2):
        with gateway_of(server) as gateway, client_of(gateway) as client:
            listed = [tool["name"] for tool in client.list_tools()]
            assert [client.call_tool(each).text for each in listed] == ["long", "other"]
            names.append(listed)
    assert names[0] == names[1]
    assert all(len(each) == 64 for each in names[0])


def test_two_servers_with_one_name_are_told_and_the_first_one_has_it(caplog):
    first, second = Server("first"), Server("second")
    first.tool(lambda: "first", "search")
    second.tool(lambda: "second", "search")
    second.tool(lambda: "only", "find")
    bare = {"first": {"prefix": ""}, "second": {"prefix": ""}}
    with gateway_of(first, second, entries=bare) as gateway, client_of(gateway) as client:
        assert [tool["name"] for tool in client.list_tools()] == ["search", "find"]
        assert client.call_tool("search").text == "first"
        assert "first and second both have 'search'" in gateway.snapshot()["collisions"][0]
    assert "first and second both have 'search'" in caplog.text


def test_a_name_stays_what_it_is_when_servers_come_and_go():
    with gateway_of(weather()) as alone, client_of(alone) as client:
        before = [tool["name"] for tool in client.list_tools()]
    with gateway_of(files(), weather()) as both, client_of(both) as client:
        assert set(before) < {tool["name"] for tool in client.list_tools()}


def test_filters_hide_and_refuse():
    entries = {"files": {"tools": {"allow": ["*"], "deny": ["re*"]}}}
    with gateway_of(files(), entries=entries) as gateway, client_of(gateway) as client:
        assert [tool["name"] for tool in client.list_tools()] == ["files_links"]
        with pytest.raises(RemoteError) as caught:
            client.call_tool("files_read", path="x")
        assert caught.value.code == -32602


def test_all_pages_of_a_server_are_listed():
    server = Server("s", page_size=3)
    for number in range(10):
        server.tool(lambda: "x", f"t{number}")
    with gateway_of(server) as gateway, client_of(gateway) as client:
        assert len(client.list_tools()) == 10


def test_the_gateway_has_pages_and_tools_of_its_own():
    with gateway_of(files(), page_size=2) as gateway, client_of(gateway) as client:
        gateway.tool(lambda: "mine", "own")
        page = client.request("tools/list")
        assert [tool["name"] for tool in page["tools"]] == ["own", "files_read"]
        assert [tool["name"] for tool in client.list_tools()] == ["own", "files_read", "files_links"]
        assert client.call_tool("own").text == "mine"


def test_a_server_that_is_not_there_costs_only_its_own_tools_and_is_told_of_when_it_comes():
    port = free_port()
    entries = {
        "mcpServers": {
            "late": {"url": f"http://127.0.0.1:{port}/mcp", "probe": 0, "connectTimeout": 5},
        },
        "gateway": {"listTimeout": 60},
    }
    changed = threading.Event()
    with contextlib.ExitStack() as stack:
        entries["mcpServers"]["files"] = {"url": stack.enter_context(served(files()))}
        gateway = stack.enter_context(Gateway(entries))
        # So that no change is told but that of the server that comes.
        gateway.settle()
        client = stack.enter_context(client_of(gateway))
        with client.listen(tools=True) as changes:
            watcher = threading.Thread(target=lambda: [changed.set() for _ in changes])
            watcher.start()
            assert [tool["name"] for tool in client.list_tools()] == ["files_read", "files_links"]
            states = {each["name"]: each["state"] for each in gateway.snapshot()["servers"]}
            assert states == {"late": "down", "files": "up"}
            server = weather()
            listening = make_server(server.wsgi, "127.0.0.1", port)
            thread = threading.Thread(target=listening.serve_forever)
            thread.start()
            try:
                assert changed.wait(60)
                assert client.list_tools(fresh=True)[0]["name"] == "late_forecast"
                assert client.call_tool("late_forecast", city="Oslo").data == {"city": "Oslo"}
            finally:
                changes.close()
                watcher.join(10)
                gateway.close()
                server.close()
                listening.close(grace_s=0.5)
                thread.join(10)


def test_a_list_never_waits_longer_than_the_deadline_for_a_server_that_hangs():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        entries = {"silent": {"url": f"http://127.0.0.1:{silent.getsockname()[1]}/mcp", "connectTimeout": 15}}
        with served(files()) as url:
            entries["files"] = {"url": url}
            with Gateway({"mcpServers": entries, "gateway": {"listTimeout": 0.3}}) as gateway:
                assert gateway.upstreams["files"].settled.wait(30)
                began = time.monotonic()
                with client_of(gateway) as client:
                    assert len(client.list_tools()) == 2
                assert time.monotonic() - began < 10
                assert gateway.snapshot()["servers"][0]["state"] == "starting"


def test_a_change_of_a_servers_list_is_told_once(caplog):
    caplog.set_level(logging.ERROR)
    server = files()
    with gateway_of(server) as gateway, client_of(gateway) as client:
        assert len(client.list_tools()) == 2
        with client.listen(tools=True) as changes:
            for _ in range(50):
                server.changed("tools")
            server.tool(lambda: "new", "new")
            assert changes.receive(60)["method"] == "notifications/tools/list_changed"
            assert "files_new" in [tool["name"] for tool in client.list_tools(fresh=True)]
            server.changed("tools")
            with pytest.raises(Timeout):
                changes.receive(0.5)


@BOTH
@pytest.mark.parametrize("upstream", ["modern", "legacy"])
def test_a_subscription_to_a_resource_reaches_its_server_and_its_updates_come_back(mode, upstream):
    server = weather()
    with gateway_of(server, entries={"weather": {"mode": upstream}}) as gateway, client_of(gateway, mode) as client:
        with client.listen(uris=["weather+weather://all"]) as changes:
            server.updated("weather://other")
            server.updated("weather://all")
            event = changes.receive(60)
            assert event["method"] == "notifications/resources/updated"
            assert event["params"]["uri"] == "weather+weather://all"


def test_a_subscription_that_comes_before_the_stream_of_changes_leaves_one_stream(monkeypatch):
    server, go, follow = weather(), threading.Event(), Upstream._follow

    def late(upstream, lease):
        assert go.wait(30)
        follow(upstream, lease)

    monkeypatch.setattr(Upstream, "_follow", late)
    uri = "weather+weather://all"
    with gateway_of(server) as gateway, client_of(gateway) as client, client.listen(uris=[uri]) as changes:
        upstream = gateway.upstreams["weather"]
        first = upstream._listen
        go.set()
        wait_until(lambda: upstream._listen is not first)
        wait_until(lambda: len(server.engine._streams) == 1)
        server.updated("weather://all")
        assert changes.receive(60)["params"]["uri"] == uri


def test_a_legacy_session_subscribes_in_its_own_session_at_a_legacy_server():
    server = weather()

    @server.tool
    def whose(ctx: Context) -> str:
        return " ".join(ctx.session.uris) or "none"

    with gateway_of(server, entries={"weather": {"mode": "legacy"}}) as gateway:
        with client_of(gateway, "legacy") as one, client_of(gateway, "legacy") as other:
            one.subscribe("weather+weather://all")
            assert [each.call_tool("weather_whose").text for each in (one, other)] == ["weather://all", "none"]
            one.unsubscribe("weather+weather://all")
            assert one.call_tool("weather_whose").text == "none"


@BOTH
@pytest.mark.parametrize("upstream", ["modern", "legacy"])
def test_a_cancelled_call_is_cancelled_at_its_server(mode, upstream):
    server = Server("s")
    began, ended = threading.Event(), threading.Event()

    @server.tool
    def wait(ctx: Context) -> str:
        began.set()
        if ctx.cancelled.wait(60):
            ended.set()
        return "late"

    with gateway_of(server, entries={"s": {"mode": upstream}}) as gateway, client_of(gateway, mode) as client:
        call = client.start_tool("s_wait")
        assert began.wait(30)
        call.cancel()
        with pytest.raises(CallCancelled):
            call.result()
        assert ended.wait(30)


def test_a_gateway_that_leads_to_itself_is_refused():
    gateway = Gateway({"mcpServers": {"self": {"url": "http://127.0.0.1:1/mcp"}}})
    with embedded(gateway.wsgi) as listening:
        entry = {"self": {"url": f"http://127.0.0.1:{listening.port}/mcp", "probe": 0}}
        gateway.settings = Gateway({"mcpServers": entry, "gateway": {"listTimeout": 60}}).settings
        with gateway, client_of(gateway) as client:
            assert client.list_tools() == []
            assert "leads back to it" in gateway.snapshot()["servers"][0]["error"]


def test_the_state_of_everything_is_one_dict():
    with gateway_of(files(), weather()) as gateway, client_of(gateway) as client:
        client.call_tool("files_read", path="x")
        found = gateway.snapshot()
        assert found["ready"] is True
        first = found["servers"][0]
        assert (first["name"], first["state"], first["tools"], first["revision"]) == ("files", "up", 2, "2026-07-28")
        assert first["transport"] == "http"
        assert first["replicas"][0]["calls"] == 1
        assert first["replicas"][0]["state"] == "closed"
        json.dumps(found)
