"""MCP Apps for hosts: what a page and its host say to each other."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from minimcp import Client, Context, NotApproved, Server
from minimcp.client.app_views import MAX_CALLS, AppView
from minimcp.client.tool_page import for_model
from minimcp.protocol.errors import McpError
from tests.gateways import client_of, gateway_of
from tests.test_apps import HTML, PAGE, UI, clock


class Talk:
    """A page as the test plays it."""

    def __init__(self, client: Client, tool: str = "now", greeted: bool = True, **options: Any) -> None:
        page = client.app(tool)
        assert page is not None
        self.view = AppView(client, page, **options)
        self.id = 0
        if greeted:
            self.greeting = self.ask("ui/initialize", **GREETING)
            self.after = self.say("ui/notifications/initialized")

    def reply(self, method: str, **params: Any) -> Any:
        self.id += 1
        (reply,) = self.view.receive({"jsonrpc": "2.0", "id": self.id, "method": method, "params": params})
        assert reply["jsonrpc"] == "2.0" and reply["id"] == self.id
        return reply

    def ask(self, method: str, **params: Any) -> Any:
        return self.reply(method, **params)["result"]

    def fail(self, method: str, **params: Any) -> Any:
        return self.reply(method, **params)["error"]

    def say(self, method: str, **params: Any) -> list[Any]:
        return self.view.receive({"jsonrpc": "2.0", "method": method, "params": params})


GREETING: dict[str, Any] = {
    "protocolVersion": "2026-01-26",
    "appInfo": {"name": "page", "version": "1"},
    "appCapabilities": {"availableDisplayModes": ["inline", "fullscreen"]},
}


def told(method: str, **params: Any) -> Any:
    return {"jsonrpc": "2.0", "method": method, "params": params}


def test_a_page_is_greeted_with_what_the_host_has() -> None:
    """Spec: EXT-111"""
    csp = {"connectDomains": ["https://a.example"]}
    with Client(clock(csp=csp, permissions={"camera": {}}), apps=True) as client:
        handlers = {"ui/open-link": print, "ui/message": print, "notifications/message": print}
        context = {"theme": "dark", "locale": "nb-NO"}
        talk = Talk(client, handlers=handlers, context=context, info={"name": "h", "version": "2"}, grants=True)
        (tool,) = [each for each in client.list_tools() if each["name"] == "now"]
        assert talk.greeting == {
            "protocolVersion": "2026-01-26",
            "hostInfo": {"name": "h", "version": "2"},
            "hostCapabilities": {
                "serverTools": {},
                "serverResources": {},
                "openLinks": {},
                "message": {},
                "logging": {},
                "sandbox": {"csp": csp, "permissions": {"camera": {}}},
            },
            "hostContext": {"toolInfo": {"tool": tool}, "displayMode": "inline", "theme": "dark", "locale": "nb-NO"},
        }
        plain = Talk(client).greeting
        assert plain["hostCapabilities"] == {"serverTools": {}, "serverResources": {}, "sandbox": {"csp": csp}}


def test_a_page_is_told_nothing_before_it_is_initialized() -> None:
    """Spec: EXT-110, EXT-112, EXT-113"""
    with Client(clock(), apps=True) as client:
        talk = Talk(client, greeted=False)
        assert talk.view.partial_input({"zo": "O"}) == talk.view.change(theme="dark") == []
        assert talk.view.input({"zone": "Oslo"}) == talk.view.result(client.call_tool("now", zone="Oslo")) == []
        assert talk.say("ui/notifications/initialized") == []  # it has not been greeted
        assert talk.ask("ui/initialize", **GREETING)["hostContext"]["theme"] == "dark"
        first, *others = talk.say("ui/notifications/initialized")
        assert first == told("ui/notifications/tool-input-partial", arguments={"zo": "O"})
        assert others[0] == told("ui/notifications/host-context-changed", theme="dark")
        assert others[1] == told("ui/notifications/tool-input", arguments={"zone": "Oslo"})
        assert others[2]["method"] == "ui/notifications/tool-result" and len(others) == 3
        assert others[2]["params"]["structuredContent"] == {"zone": "Oslo", "time": "12:00"}
        assert talk.say("ui/notifications/initialized") == []


def test_arguments_come_once_and_before_the_result() -> None:
    """Spec: EXT-112, EXT-113"""
    with Client(clock(), apps=True) as client:
        view = Talk(client).view
        with pytest.raises(ValueError, match="Give the page the arguments first"):
            view.result({"content": []})
        assert view.partial_input({}) == [told("ui/notifications/tool-input-partial", arguments={})]
        assert view.input({"a": 1}) == [told("ui/notifications/tool-input", arguments={"a": 1})]
        for again in (view.input, view.partial_input):
            with pytest.raises(ValueError, match="has the whole arguments already"):
                again({})
        assert view.cancelled("the user") == [told("ui/notifications/tool-cancelled", reason="the user")]
        for late in (view.cancelled, lambda: view.result({"content": []})):
            with pytest.raises(ValueError, match="knows already how the call has ended"):
                late()


def test_what_is_kept_for_a_page_is_bounded() -> None:
    with Client(clock(), apps=True) as client:
        talk = Talk(client, greeted=False)
        for number in range(1000):
            talk.view.partial_input({"n": number})
        talk.view.input({"n": 1000})
        talk.view.result({"content": []})
        for _ in range(1000):
            talk.view.change(theme="dark")
        talk.ask("ui/initialize", **GREETING)
        kept = talk.say("ui/notifications/initialized")
        assert len(kept) <= 102
        methods = [each["method"].rpartition("/")[2] for each in kept]
        assert methods[:2] == ["tool-input", "tool-result"]


def test_a_page_calls_tools_that_are_for_pages(caplog: Any) -> None:
    """Spec: EXT-105, EXT-116, EXT-117"""
    caplog.set_level(logging.INFO, "minimcp")
    server, seen = clock(), []

    @server.tool
    def look(ctx: Context, a: int = 0) -> str:
        seen.append((ctx.params, a))
        return "seen"

    @server.tool
    def fail() -> str:
        raise ValueError("no")

    with Client(server, apps=True, check=True) as client:
        talk = Talk(client)
        assert talk.ask("tools/call", name="zones", arguments={"beginning": "E"})["content"][0]["text"] == "Europe/Oslo"
        assert talk.ask("tools/call", name="now")["structuredContent"]["zone"] == "UTC"
        refused = talk.fail("tools/call", name="wind_up", arguments={})
        assert refused["code"] == -32602 and refused["message"].startswith("A page may not call the tool 'wind_up'")
        assert talk.fail("tools/call", name="other_servers_tool")["code"] == -32602
        assert (
            talk.fail("tools/call", name=5)["code"]
            == talk.fail("tools/call", name="now", arguments=[])["code"]
            == -32602
        )
        # Only the name and the arguments go on: the rest of a request is the host's own.
        forged = {"io.modelcontextprotocol/clientInfo": {"name": "forged", "version": "1"}, "progressToken": 1}
        talk.ask("tools/call", name="look", arguments={"a": 2}, _meta=forged, task={}, requestState="x")
        params, a = seen[0]
        assert a == 2 and params.keys() == {"name", "arguments", "_meta"}
        assert "progressToken" not in params["_meta"] and "forged" not in str(params)
        # A failure is the page's to show, whatever the host wants of its own calls.
        assert talk.ask("tools/call", name="fail", arguments={})["isError"] is True
        assert talk.ask("tools/call", name="now", arguments={"zone": 5})["isError"] is True
    assert "the page ui://clock/page.html calls the tool zones" in caplog.text


def test_the_hosts_consent_is_asked_for_the_calls_of_a_page() -> None:
    def approve(proposal: Any) -> bool:
        return bool(proposal.name == "now")

    with Client(clock(), apps=True, approve=approve) as client:
        talk = Talk(client)
        assert "result" in talk.reply("tools/call", name="now", arguments={})
        refused = talk.fail("tools/call", name="zones", arguments={})
        assert refused["code"] == -32000
        with pytest.raises(NotApproved):
            client.call_tool("zones")


def test_a_page_reads_resources_and_pings() -> None:
    server = clock()
    server.resource("data://x")(lambda: "text")
    with Client(server, apps=True) as client:
        talk = Talk(client)
        assert talk.ask("resources/read", uri="data://x")["contents"][0]["text"] == "text"
        unknown = talk.fail("resources/read", uri="data://y")
        assert (unknown["code"], unknown["message"], unknown["data"]) == (
            -32602,
            "Resource not found",
            {"uri": "data://y"},
        )
        assert talk.fail("resources/read", uri=None)["code"] == -32602
        assert talk.ask("ping") == {}


@pytest.mark.parametrize(
    "method",
    [
        *("tools/list", "prompts/get", "resources/subscribe", "sampling/createMessage", "initialize", "tasks/get"),
        *("ui/open-link", "ui/message", "ui/update-model-context", "ui/other", "ui/resource-teardown", "", "x" * 5000),
    ],
)
def test_what_a_host_does_not_answer_is_refused(method: str) -> None:
    """Spec: EXT-116"""
    with Client(clock(), apps=True) as client:
        refused = Talk(client).fail(method, url="https://a.example")
        assert refused["code"] == -32601 and len(refused["message"]) < 200


@pytest.mark.parametrize(
    "message, code",
    [
        (None, -32600),
        ("x", -32600),
        ([], -32600),
        ({}, -32600),
        ({"jsonrpc": "2.0"}, -32600),
        ({"jsonrpc": "1.0", "id": 1, "method": "ping"}, -32600),
        ({"jsonrpc": "2.0", "id": None, "method": "ping"}, -32600),
        ({"jsonrpc": "2.0", "id": True, "method": "ping"}, -32600),
        ({"jsonrpc": "2.0", "id": {}, "method": "ping"}, -32600),
        ({"jsonrpc": "2.0", "id": 1, "method": 5}, -32600),
        ({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": []}, -32600),
        ({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"x": "x" * 5_000_000}}, -32600),
        ({"jsonrpc": "2.0", "method": "ui/notifications/initialized", "params": 5}, None),
        ({"jsonrpc": "2.0", "method": "ui/notifications/sandbox-proxy-ready"}, None),
        ({"jsonrpc": "2.0", "method": "ui/notifications/sandbox-resource-ready", "params": {"html": "x"}}, None),
        ({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}, None),
        ({"jsonrpc": "2.0", "id": 99, "result": {}}, None),
        ({"jsonrpc": "2.0", "id": "teardown", "result": {}}, None),
    ],
)
def test_a_malformed_message_of_a_page_is_refused(message: Any, code: Any) -> None:
    """Spec: EXT-117"""
    with Client(clock(), apps=True) as client:
        view = Talk(client).view
        found = view.receive(message)
        assert [each["error"]["code"] for each in found] == ([code] if code else [])
        assert not view.closed.is_set()


def test_a_page_begins_with_initialize() -> None:
    with Client(clock(), apps=True) as client:
        talk = Talk(client, greeted=False)
        assert talk.fail("tools/call", name="now")["code"] == talk.fail("resources/read", uri=PAGE)["code"] == -32600
        assert talk.ask("ping") == {}


def test_a_page_has_so_many_calls_at_once() -> None:
    server, here, go = Server("s"), threading.Semaphore(0), threading.Event()
    server.page(PAGE, HTML)

    @server.tool(ui=PAGE)
    def wait() -> str:
        here.release()
        assert go.wait(20)
        return "x"

    with Client(server, apps=True) as client:
        talk, replies = Talk(client, "wait"), []

        def call() -> None:
            replies.extend(
                talk.view.receive({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "wait"}})
            )

        threads = [threading.Thread(target=call) for _ in range(MAX_CALLS)]
        try:
            for thread in threads:
                thread.start()
            for _ in threads:
                assert here.acquire(timeout=20)
            refused = talk.fail("tools/call", name="wait")
            assert refused == {"code": -32000, "message": f"More than {MAX_CALLS} requests at once"}
        finally:
            go.set()
            for thread in threads:
                thread.join(20)
        assert len(replies) == MAX_CALLS and all("result" in each for each in replies)
        assert "result" in talk.reply("tools/call", name="wait")


def test_a_page_asks_its_host_and_is_answered_or_refused() -> None:
    asked: list[Any] = []

    def note(params: Any) -> Any:
        asked.append(params)
        if "no" in str(params):
            raise McpError("The user declined", code=-32000)
        if "broken" in str(params):
            raise KeyError("inside")

    methods = ("ui/open-link", "ui/message", "ui/update-model-context")
    with Client(clock(), apps=True) as client:
        talk = Talk(client, handlers=dict.fromkeys(methods, note))
        assert set(talk.greeting["hostCapabilities"]) >= {"openLinks", "message", "updateModelContext"}
        text = {"type": "text", "text": "hello"}
        assert talk.ask("ui/open-link", url="https://a.example/b?c=d") == {}
        assert (
            talk.ask("ui/message", role="user", content=[text])
            == talk.ask("ui/message", role="user", content=text)
            == {}
        )
        assert talk.ask("ui/update-model-context", content=[text], structuredContent={"a": 1}) == {}
        assert asked[0] == {"url": "https://a.example/b?c=d"} and len(asked) == 4
        assert talk.fail("ui/open-link", url="https://no.example") == {"code": -32000, "message": "The user declined"}
        broken = talk.fail("ui/open-link", url="https://broken.example")
        assert broken == {"code": -32603, "message": "ui/open-link failed"}
        for url in (
            "javascript:alert(1)",
            "file:///etc/passwd",
            "data:text/html,x",
            "//a.example",
            "https://",
            None,
            5,
        ):
            assert talk.fail("ui/open-link", url=url)["code"] == -32602
        wrong: list[Any] = [
            *({"role": "assistant", "content": [text]}, {"role": "user"}, {"role": "user", "content": []}),
            *({"role": "user", "content": "hello"}, {"role": "user", "content": [text, {"type": "odd"}]}),
        ]
        for params in wrong:
            assert talk.fail("ui/message", **params)["code"] == -32602
        for params in ({"content": ["x"]}, {"structuredContent": []}):
            assert talk.fail("ui/update-model-context", **params)["code"] == -32602
        assert len(asked) == 6


def test_a_page_is_as_large_as_its_container_lets_it_be(caplog: Any) -> None:
    sizes: list[Any] = []
    context = {"containerDimensions": {"maxHeight": 600, "width": 400}}
    with Client(clock(), apps=True) as client:
        talk = Talk(client, handlers={"ui/notifications/size-changed": sizes.append}, context=context)
        for width, height in ((300, 480.2), (1e9, 1e9), (-1, "tall"), (None, float("inf")), (float("nan"), 5)):
            assert talk.say("ui/notifications/size-changed", width=width, height=height) == []
        assert sizes == [{"width": 300, "height": 481}, {"width": 400, "height": 600}, {}, {}, {"height": 5}]
        free = Talk(client, handlers={"ui/notifications/size-changed": sizes.append})
        free.say("ui/notifications/size-changed", height=1e9)
        assert sizes[-1] == {"height": 10_000}
        # What a handler does wrong is logged, and is nothing to the page.
        broken = Talk(client, handlers={"notifications/message": lambda params: params["none"]})
        assert broken.say("notifications/message", level="info", data="x") == []
        assert "the handler of notifications/message failed" in caplog.text


def test_a_page_is_asked_to_end_before_its_frame_goes() -> None:
    """Spec: EXT-114"""
    with Client(clock(), apps=True) as client:
        talk = Talk(client)
        (request,) = talk.view.teardown("the user")
        assert request == {
            "jsonrpc": "2.0",
            "id": "teardown",
            "method": "ui/resource-teardown",
            "params": {"reason": "the user"},
        }
        assert talk.view.teardown() == [] and talk.view.change(theme="dark") == []
        assert not talk.view.closed.is_set()
        # It may still save what it has.
        assert "result" in talk.reply("tools/call", name="now")
        assert talk.view.receive({"jsonrpc": "2.0", "id": "teardown", "error": {"code": 1, "message": "x"}}) == []
        assert talk.view.closed.is_set()
        assert talk.view.receive({"jsonrpc": "2.0", "id": 5, "method": "ping"}) == []
        early = Talk(client, greeted=False).view
        assert early.teardown() == [] and early.closed.is_set()


def test_a_page_may_ask_to_end_and_the_host_decides() -> None:
    with Client(clock(), apps=True) as client:
        (request,) = Talk(client).say("ui/notifications/request-teardown")
        assert request["method"] == "ui/resource-teardown"
        asked: list[Any] = []

        def stay(params: Any) -> bool:
            asked.append(params)
            return False

        talk = Talk(client, handlers={"ui/notifications/request-teardown": stay})
        assert talk.say("ui/notifications/request-teardown") == [] and asked == [{}]
        (request,) = Talk(client, handlers={"ui/notifications/request-teardown": print}).say(
            "ui/notifications/request-teardown"
        )
        assert request["method"] == "ui/resource-teardown"


def test_a_page_is_in_a_mode_that_both_sides_have() -> None:
    """Spec: EXT-115"""
    switched: list[Any] = []
    context = {"availableDisplayModes": ["inline", "fullscreen", "pip"]}
    with Client(clock(), apps=True) as client:
        talk = Talk(client, context=context, handlers={"ui/request-display-mode": switched.append})
        assert talk.ask("ui/request-display-mode", mode="fullscreen") == {"mode": "fullscreen"}
        # "pip" is none of the page's, "odd" none of the host's.
        for mode in ("pip", "odd", None, ["inline"]):
            assert talk.ask("ui/request-display-mode", mode=mode) == {"mode": "fullscreen"}
        assert switched == [{"mode": "fullscreen"}]
        with pytest.raises(ValueError, match="The page has no display mode 'pip'"):
            talk.view.change(displayMode="pip")
        changed = talk.view.change(displayMode="inline")
        assert changed == [told("ui/notifications/host-context-changed", displayMode="inline")]
        assert talk.ask("ui/request-display-mode", mode="odd") == {"mode": "inline"}
        assert Talk(client, context=context).ask("ui/request-display-mode", mode="fullscreen") == {"mode": "inline"}
        silent = Talk(client, greeted=False, context=context, handlers={"ui/request-display-mode": switched.append})
        silent.ask("ui/initialize", protocolVersion="2026-01-26", appInfo={}, appCapabilities=None)
        assert silent.ask("ui/request-display-mode", mode="pip") == {"mode": "pip"}


def test_a_handler_for_what_no_page_sends_is_refused() -> None:
    with Client(clock(), apps=True) as client, pytest.raises(ValueError, match="A page never sends ui/mesage"):
        Talk(client, handlers={"ui/mesage": print})


def test_an_app_works_behind_a_gateway() -> None:
    with gateway_of(clock(csp={"connectDomains": ["https://a.example"]})) as gateway:
        with client_of(gateway, apps=True) as client:
            page = client.app("clock_now")
            assert page is not None and (page.uri, page.html) == ("ui://clock+clock/page.html", HTML)
            assert page.domains == ["https://a.example"]
            assert UI in client.capabilities["extensions"]
            assert [tool["name"] for tool in for_model(client.list_tools())] == ["clock_now", "clock_wind_up"]
            talk = Talk(client, "clock_now")
            # From this name a page learns the prefix of its own tools.
            assert talk.greeting["hostContext"]["toolInfo"]["tool"]["name"] == "clock_now"
            assert talk.ask("tools/call", name="clock_zones")["content"][0]["text"] == "Europe/Oslo"
            assert talk.fail("tools/call", name="clock_wind_up")["code"] == -32602
            assert talk.ask("resources/read", uri=page.uri)["contents"][0]["text"] == HTML
