"""OAuth against authorization servers nobody here wrote: FastMCP's, which has the official Python SDK's handlers, and
that of the official TypeScript SDK's examples.

They live in the folder that MINIMCP_PEERS_DIR names; see `test_peer_servers`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from minimcp import AuthorizationError, Client, OAuth
from tests.authority import Browser
from tests.helpers import Process, free_port
from tests.test_peers import node, peer_file

SERVER = Path(__file__).resolve().parent / "peers" / "servers" / "fastmcp_oauth.py"


@pytest.fixture(scope="module")
def url():
    port = free_port()
    with Process([peer_file("fastmcp", "bin", "python"), str(SERVER), str(port)]) as process:
        process.wait_for("Uvicorn running")
        yield f"http://127.0.0.1:{port}/mcp"


@pytest.mark.parametrize("by_browser", [True, False])
def test_a_user_signs_in_and_the_token_is_refreshed(url, by_browser):
    browser, store = Browser(), {}
    how = {"open_browser": browser.open} if by_browser else {"login": browser}
    with Client(url, auth=OAuth("Tests", store=store, **how)) as client:
        assert client.call_tool("add", {"a": 1, "b": 2}).text == "3"
    asked = browser.query()
    assert asked["scope"] == "read" and asked["resource"] == url
    (place,) = [key for key in store if key.startswith("token")]
    for _ in range(2):
        before = store[place]
        store[place] = {**before, "access_token": "no-longer-valid"}
        with Client(url, auth=OAuth("Tests", store=store, **how)) as client:
            assert client.call_tool("add", {"a": 1, "b": 2}).text == "3"
        assert store[place]["refresh_token"] not in (None, before["refresh_token"])
    assert len(browser.opened) == 1


def test_a_user_who_goes_away_is_no_user(url):
    with pytest.raises(AuthorizationError, match="state"), Client(url, auth=OAuth(login=lambda url: "")) as client:
        client.list_tools()


EXAMPLE = ("node", "node_modules", "@modelcontextprotocol", "sdk", "dist", "esm", "examples", "server")


@pytest.fixture(scope="module")
def example():
    port = free_port()
    command = [*node(), peer_file(*EXAMPLE, "simpleStreamableHttp.js"), "--oauth"]
    with Process(command, MCP_PORT=str(port), MCP_AUTH_PORT=str(free_port())) as process:
        process.wait_for("MCP Streamable HTTP Server listening")
        yield f"http://localhost:{port}/mcp"


def test_a_user_signs_in_at_a_server_beside(example):
    browser, store = Browser(), {}
    with Client(example, auth=OAuth("Tests", store=store, open_browser=browser.open)) as client:
        assert client.call_tool("greet", {"name": "you"}).text == "Hello, you!"
    assert browser.query()["scope"] == "mcp:tools" and browser.query()["resource"] == example
    with Client(example, auth=OAuth("Tests", store=store, open_browser=browser.open)) as client:
        assert client.list_tools()
    assert len(browser.opened) == 1
