"""A server beside the two official extensions: it does not speak tasks, and lets authors describe pages of MCP Apps."""

from __future__ import annotations

import pytest

from minimcp import Client, Context, Server
from minimcp.protocol import spec
from minimcp.protocol.errors import MissingCapability
from tests.helpers import Legacy, http_headers, modern, post, problem, result, serving

TASKS = "io.modelcontextprotocol/tasks"
UI = "io.modelcontextprotocol/ui"
LEGACY_TASKS = {"tasks": {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}}
DECLARED = {"extensions": {TASKS: {}}}
PAGE = "<!doctype html><title>Shop</title><p>Ø"


def plain_server(**options):
    server = Server("s", **options)
    server.tool(lambda: "done", "work", description="Work.")
    return server


class Jobs:
    """An application's own way to answer with tasks: the least of the extension that shows who gets one."""

    identifier = TASKS
    result_types = ("task",)

    def __init__(self):
        self.methods = {"tasks/get": self.get}

    def get(self, ctx, params):
        if ctx.extension(TASKS) is None:
            raise MissingCapability("Tasks were not declared", DECLARED)
        return {"taskId": params["taskId"], "status": "working"}


def tasks_server():
    server = Server("s")
    server.use(Jobs())

    @server.tool
    def work(ctx: Context) -> dict:
        if ctx.extension(TASKS) is None:
            return {"content": [{"type": "text", "text": "done"}]}
        return {"resultType": "task", "taskId": "t", "status": "working"}

    return server


@pytest.mark.parametrize("method", ["tasks/result", "tasks/list", "tasks/get", "tasks/update", "tasks/cancel"])
def test_methods_of_tasks_do_not_exist(method):
    message = modern(method, taskId="t", capabilities={**DECLARED, **LEGACY_TASKS})
    with serving(plain_server().wsgi) as url:
        status, reply = post(url + "/mcp", message, Mcp_Name="t")
    assert status == 404 and reply["error"]["code"] == -32601
    assert Legacy(plain_server(), tasks={}).problem(method, taskId="t")["code"] == -32601


@pytest.mark.parametrize("task", [{}, {"ttl": 60_000}, {"ttl": "x"}, None, 5])
@pytest.mark.parametrize("version", [*spec.VERSIONS])
def test_a_wish_for_a_task_is_ignored(version, task):
    server = plain_server()
    if version == "2026-07-28":
        found = result(server, "tools/call", name="work", task=task, capabilities={**DECLARED, **LEGACY_TASKS})
        assert found["resultType"] == "complete"
    else:
        found = Legacy(server, version, **LEGACY_TASKS).result("tools/call", name="work", task=task)
        assert found.keys() == {"content"}
    assert found["content"] == [{"type": "text", "text": "done"}]


def test_no_server_advertises_the_tasks_of_2025_11_25_and_none_an_extension_by_itself():
    for server, extensions in ((plain_server(), None), (tasks_server(), {TASKS: {}})):
        for version in spec.LEGACY_VERSIONS:
            told = Legacy(server, version).hello["capabilities"]
            assert "tasks" not in told and told.get("extensions") == extensions
        told = result(server, "server/discover")["capabilities"]
        assert "tasks" not in told and told.get("extensions") == extensions


def test_a_task_goes_only_to_a_request_that_declares_the_extension_itself():
    server = tasks_server()
    for capabilities, kind in (
        (DECLARED, "task"),
        ({}, "complete"),
        (LEGACY_TASKS, "complete"),
        ({"extensions": {"com.example/other": {}, UI: {}}}, "complete"),
        ({"extensions": {TASKS: None}}, "complete"),
        ({"extensions": {TASKS: True}}, "complete"),
        (DECLARED, "task"),
    ):
        assert result(server, "tools/call", name="work", capabilities=capabilities)["resultType"] == kind
    session = server.engine.open_session([].append)
    for capabilities, kind in ((DECLARED, "task"), ({}, "complete")):
        reply = server.handle(modern("tools/call", name="work", capabilities=capabilities), [].append, session)
        assert reply["result"]["resultType"] == kind
    server.engine.close_session(session)
    assert "resultType" not in Legacy(server, extensions={TASKS: {}}).result("tools/call", name="work")


def test_what_a_request_lacks_is_named_and_no_earlier_request_counts():
    server = tasks_server()
    message = modern("tasks/get", taskId="t")
    with serving(server.wsgi) as url:
        declared = modern("tasks/get", taskId="t", capabilities=DECLARED)
        assert post(url + "/mcp", declared, Mcp_Name="t")[1]["result"]["status"] == "working"
        status, reply = post(url + "/mcp", message, Mcp_Name="t")
    assert status == 400 and reply["error"]["code"] == -32021
    assert reply["error"]["data"] == {"requiredCapabilities": {"extensions": {TASKS: {}}}}


@pytest.mark.parametrize("name", ["other", "", None])
def test_a_name_that_is_not_that_of_the_task_is_a_mismatch(name):
    message = modern("tasks/get", taskId="t", capabilities=DECLARED)
    headers = {"Mcp-Name": name} if name is not None else {}
    with serving(tasks_server().wsgi) as url:
        assert "Mcp-Name" not in http_headers(message)
        status, reply = post(url + "/mcp", message, **headers)
    assert status == 400 and reply["error"]["code"] == -32020


@pytest.fixture
def app():
    """A server with a page: a template, a tool that it belongs to, and one that only the page may call."""
    server = Server("s")
    ui = {"csp": {"connectDomains": ["https://api.example"]}, "permissions": {"camera": {}}, "prefersBorder": True}

    @server.resource("ui://shop/basket", mime_type="text/html;profile=mcp-app")
    def basket() -> dict:
        contents = {"uri": "ui://shop/basket", "mimeType": "text/html;profile=mcp-app", "text": PAGE}
        return {"contents": [{**contents, "_meta": {"ui": ui}}]}

    @server.resource("ui://shop/{page}", mime_type="text/html;profile=mcp-app")
    def page(page: str) -> str:
        return PAGE

    @server.tool(meta={"ui": {"resourceUri": "ui://shop/basket"}})
    def show() -> str:
        """Show the basket."""
        return "Two books"

    @server.tool(meta={"ui": {"resourceUri": "ui://shop/basket", "visibility": ["app"]}})
    def remove() -> str:
        """Remove a book."""
        return "removed"

    @server.tool
    def plain(ctx: Context) -> str:
        """Say which pages the client renders."""
        return str((ctx.extension(UI) or {}).get("mimeTypes"))

    class Pages:
        identifier = UI

    server.use(Pages())
    return server


@pytest.mark.parametrize("mode", ["2025-11-25", "2026-07-28"])
def test_pages_and_their_links_reach_a_host_as_the_author_wrote_them(app, mode):
    with Client(app, mode=mode) as host:
        assert UI in host.capabilities["extensions"]
        tools = {tool["name"]: tool.get("_meta") for tool in host.list_tools()}
        assert tools == {
            "show": {"ui": {"resourceUri": "ui://shop/basket"}},
            "remove": {"ui": {"resourceUri": "ui://shop/basket", "visibility": ["app"]}},
            "plain": None,
        }
        (listed,) = host.list_resources()
        assert listed["uri"] == "ui://shop/basket" and listed["mimeType"] == "text/html;profile=mcp-app"
        (contents,) = host.read_resource("ui://shop/basket")["contents"]
        assert contents["mimeType"] == "text/html;profile=mcp-app" and contents["text"] == PAGE
        assert contents["_meta"]["ui"] == {
            "csp": {"connectDomains": ["https://api.example"]},
            "permissions": {"camera": {}},
            "prefersBorder": True,
        }
        # A page of a template is read like any other, and is not in the list.
        (contents,) = host.read_resource("ui://shop/checkout")["contents"]
        assert contents == {"uri": "ui://shop/checkout", "mimeType": "text/html;profile=mcp-app", "text": PAGE}
        assert host.call_tool("show").text == "Two books"


def test_a_tool_knows_which_pages_this_very_request_renders(app):
    rendering = {"extensions": {UI: {"mimeTypes": ["text/html;profile=mcp-app"]}}}
    for capabilities, words in ((rendering, "['text/html;profile=mcp-app']"), ({}, "None")):
        found = result(app, "tools/call", name="plain", capabilities=capabilities)
        assert found["content"][0]["text"] == words
    assert problem(app, "resources/read", uri="ui://elsewhere")["code"] == -32602
