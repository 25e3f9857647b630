"""Further endpoints of a gateway: a part of what there is, under a path and names of its own."""

from __future__ import annotations

import contextlib
import logging

import pytest
import requests

from minimcp import Client, ClientError, RemoteError, Server
from minimcp.gateway import config
from tests.embedded import embedded
from tests.gateways import client_of, gateway_of

BOTH = pytest.mark.parametrize("mode", ["modern", "legacy"])
SPEC = {
    "servers": ["crm"],
    "instructions": "Only for finance.",
    "tools": {
        "crm_search": {
            "name": "find",
            "description": "Find a customer.",
            "fixed": {"region": "EU"},
            "hidden": ["debug"],
        }
    },
}
KEYS = {"ada": {"key": "a-key-of-at-least-16-characters"}}


def crm() -> Server:
    server = Server("crm")

    @server.tool
    def search(text: str, region: str = "all", debug: bool = False) -> str:
        """Search."""
        return f"{text} in {region}, {debug}"

    server.resource("crm://all")(lambda: "everybody")
    return server


def other() -> Server:
    server = Server("other")
    server.tool(lambda: "other", "look")
    return server


@contextlib.contextmanager
def serving(*servers, **options):
    with gateway_of(*servers, **options) as gateway, embedded(gateway.wsgi) as listening:
        yield gateway, f"http://127.0.0.1:{listening.port}"


@BOTH
def test_an_endpoint_shows_its_part_under_its_names(mode):
    with serving(crm(), other(), gateway={"endpoints": {"finance": SPEC}}) as (_, root):
        with Client(root + "/finance/mcp", mode=mode) as client:
            (tool,) = client.list_tools()
            assert (tool["name"], tool["description"]) == ("find", "Find a customer.")
            assert set(tool["inputSchema"]["properties"]) == {"text"}
            assert client.call_tool("find", text="Bo").text == "Bo in EU, False"
            assert client.instructions == "Only for finance."
            for name in ("crm_search", "other_look"):
                with pytest.raises(RemoteError) as caught:
                    client.call_tool(name, text="x")
                assert caught.value.code == -32602
            assert client.read_resource("crm+crm://all").text == "everybody"
        with Client(root + "/mcp", mode=mode) as client:
            assert [tool["name"] for tool in client.list_tools()] == ["crm_search", "other_look"]


@BOTH
def test_what_is_fixed_or_hidden_cannot_be_sent(mode):
    with serving(crm(), gateway={"endpoints": {"finance": SPEC}}) as (_, root):
        with Client(root + "/finance/mcp", mode=mode) as client:
            for more in ({"region": "US"}, {"debug": True}):
                result = client.call_tool("find", {"text": "Bo", **more})
                assert result.is_error, more


def test_a_session_of_one_endpoint_is_none_of_another():
    gateway = {"endpoints": {"finance": SPEC}, "secret": "a secret of at least 16 bytes"}
    with serving(crm(), gateway=gateway) as (_, root):
        initialize = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        accept = {"Accept": "application/json, text/event-stream"}
        first = requests.post(
            root + "/finance/mcp",
            json={"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": initialize},
            headers=accept,
        )
        session = first.headers["Mcp-Session-Id"]
        listing = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
        headers = {**accept, "Mcp-Session-Id": session}
        assert requests.post(root + "/finance/mcp", json=listing, headers=headers).status_code == 200
        assert requests.post(root + "/mcp", json=listing, headers=headers).status_code == 404


def test_an_endpoint_asks_who_is_calling_like_the_gateway():
    with serving(crm(), gateway={"endpoints": {"finance": SPEC}, "auth": {"keys": KEYS}}) as (_, root):
        answer = requests.post(root + "/finance/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "ping"})
        assert answer.status_code == 401
        with Client(root + "/finance/mcp", auth=KEYS["ada"]["key"]) as client:
            assert [tool["name"] for tool in client.list_tools()] == ["find"]


def test_rules_are_about_the_name_that_a_tool_has_in_the_gateway():
    rules = [{"allow": "tools:find"}, {"allow": "resources:*"}]
    with serving(crm(), gateway={"endpoints": {"finance": SPEC}, "rules": rules}) as (_, root):
        with Client(root + "/finance/mcp") as client:
            assert client.list_tools() == []
            with pytest.raises(RemoteError):
                client.call_tool("find", text="x")


def test_endpoints_come_and_go_with_a_reload():
    with serving(crm()) as (gateway, root):
        entries = {"crm": {**gateway.settings.upstreams["crm"].entries[0], "probe": 0}}
        gateway.reload(config.read({"mcpServers": entries, "gateway": {"endpoints": {"finance": SPEC}}}))
        client = Client(root + "/finance/mcp", mode="legacy")
        with client, client.listen(tools=True) as changes:
            assert [tool["name"] for tool in client.list_tools()] == ["find"]
            changed = {**SPEC, "tools": {"crm_search": {"name": "look"}}}
            gateway.reload(config.read({"mcpServers": entries, "gateway": {"endpoints": {"finance": changed}}}))
            assert changes.receive(60)["method"] == "notifications/tools/list_changed"
            assert [tool["name"] for tool in client.list_tools()] == ["look"]
        gateway.reload(config.read({"mcpServers": entries, "gateway": {}}))
        with pytest.raises(ClientError):
            Client(root + "/finance/mcp", mode="modern").open()


@BOTH
def test_many_tools_are_found_by_searching(mode, caplog):
    caplog.set_level(logging.ERROR)
    many = Server("many")
    for number in range(30):
        schema, text = {"type": "object"}, f"Make number {number}."
        many.tool(lambda number=number: f"{number}", f"tool{number}", input_schema=schema, description=text)
    with gateway_of(many, crm(), gateway={"search": True}) as gateway, client_of(gateway, mode) as client:
        assert [tool["name"] for tool in client.list_tools()] == ["search_tools", "describe_tool", "call_tool"]
        found = client.call_tool("search_tools", {"query": "number 17"}).text
        assert "many_tool17" in found
        assert "inputSchema" in client.call_tool("describe_tool", {"name": "crm_search"}).text
        result = client.call_tool("call_tool", {"name": "crm_search", "arguments": {"text": "Bo"}})
        assert result.text == "Bo in all, False"
        assert {each.name for each in gateway.calls.recent()} >= {"search_tools", "describe_tool", "crm_search"}
