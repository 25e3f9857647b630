"""OAuth under a `Client`: one sign-in for all that a server's transports need, whatever way they go."""

from __future__ import annotations

import json
import threading

import pytest

from minimcp import AuthorizationError, Client, Context, OAuth, Server
from tests.authority import Authority, Browser
from tests.helpers import serving

PRM = "/.well-known/oauth-protected-resource"


class Gate:
    """A WSGI application in front of a server, which wants a token for every path but that of its metadata.

    :ivar needs: the scope that an MCP method needs.
    """

    def __init__(self, app, authority, path):
        self.app = app
        self.authority = authority
        self.path = path
        self.url = ""
        self.needs = {}
        self.refused = []

    def __call__(self, environ, start_response):
        path, token = environ["PATH_INFO"], environ.get("HTTP_AUTHORIZATION", "")[7:]
        if path == PRM + self.path:
            document = {"resource": self.url + self.path, "authorization_servers": [self.authority.issuer]}
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(document).encode()]
        if path.startswith("/.well-known"):
            start_response("404 Not Found", [])
            return [b""]
        need = self.needs.get(environ.get("HTTP_MCP_METHOD"), "")
        if token not in self.authority.issued:
            status, challenge = "401 Unauthorized", 'Bearer error="invalid_token"'
        elif need not in ["", *self.authority.issued[token].split()]:
            status, challenge = "403 Forbidden", f'Bearer error="insufficient_scope", scope="{need}"'
        else:
            return self.app(environ, start_response)
        self.refused.append(path)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response(status, [("WWW-Authenticate", challenge), ("Content-Length", "0")])
        return [b""]


@pytest.fixture
def authority():
    with Authority() as site:
        yield site


@pytest.fixture
def server():
    made = Server("guarded", limits={"keepalive_s": 0.05})

    @made.tool
    def slow(ctx: Context) -> str:
        """Report twice and answer."""
        ctx.progress(1)
        ctx.progress(2)
        return "done"

    yield made
    made.close()


@pytest.fixture
def guarded(server, authority):
    gate = Gate(server.wsgi, authority, "/mcp")
    with serving(gate) as url:
        gate.url = url
        yield gate


@pytest.fixture
def browser():
    return Browser()


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_signs_in_once_and_streams(guarded, browser, mode):
    told = []
    with Client(guarded.url + "/mcp", auth=OAuth(login=browser), mode=mode) as client:
        assert client.call_tool("slow", {}, progress=told.append).text == "done"
        assert [tool["name"] for tool in client.list_tools()] == ["slow"]
    assert len(browser.opened) == 1 and guarded.refused == ["/mcp"]


def test_both_addresses_of_http_sse_have_one_token(guarded, browser):
    guarded.path = "/sse"
    entry = {"mcpServers": {"old": {"type": "sse", "url": guarded.url + "/sse"}}}
    with Client(entry, auth=OAuth(login=browser), mode="legacy") as client:
        assert client.call_tool("slow", {}).text == "done"
        guarded.authority.issued.clear()
        assert client.call_tool("slow", {}).text == "done"
    assert len(browser.opened) == 1 and guarded.refused == ["/sse", "/messages"]


def test_a_call_that_needs_another_scope_asks_for_it(guarded, browser):
    guarded.needs = {"tools/call": "tools"}
    with Client(guarded.url + "/mcp", auth=OAuth(login=browser)) as client:
        client.list_tools()
        assert client.call_tool("slow", {}).text == "done"
    assert [browser.query(index).get("scope") for index in (0, 1)] == [None, "tools"]


def test_the_time_that_a_user_takes_is_not_the_servers(guarded, browser):
    waited = threading.Event()

    def login(url):
        waited.wait(5.5)
        return browser(url)

    with Client(guarded.url + "/mcp", auth=OAuth(login=login), timeout=5, probe_timeout=5) as client:
        assert client.call_tool("slow", {}).text == "done"


def test_a_refusal_reaches_the_caller_and_is_asked_for_once(guarded):
    asked = []

    def login(url):
        asked.append(url)
        return "error=access_denied&state=" + url.partition("state=")[2].partition("&")[0]

    with (
        pytest.raises(AuthorizationError, match="access_denied"),
        Client(guarded.url + "/mcp", auth=OAuth(login=login)) as client,
    ):
        client.list_tools()
    assert len(asked) == 1


def test_a_client_declares_the_extension_it_gets_in_by(server, authority):
    seen = []

    def app(environ, start_response):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        seen.append(json.loads(body))
        from io import BytesIO

        environ["wsgi.input"] = BytesIO(body)
        return server.wsgi(environ, start_response)

    authority.metadata["token_endpoint_auth_methods_supported"] = ["client_secret_basic"]
    gate = Gate(app, authority, "/mcp")
    with serving(gate) as gate.url:
        auth = OAuth.client_credentials("me", "secret", issuer=authority.issuer)
        with Client(gate.url + "/mcp", auth=auth) as client:
            client.list_tools()
    meta = seen[-1]["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"]
    assert meta["extensions"] == {"io.modelcontextprotocol/oauth-client-credentials": {}}
