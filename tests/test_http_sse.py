"""HTTP+SSE, the two endpoints of 2024-11-05."""

from __future__ import annotations

import json

import pytest
from werkzeug.test import Client

from minimcp import Context, Server
from minimcp.auth.protected import ProtectedServer
from tests import transports
from tests.helpers import exchange, serving

HELLO = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def server():
    server = Server("s", "1", limits={"keepalive_s": 0.05})

    @server.tool
    def slow(ctx: Context) -> str:
        ctx.progress(1)
        return "done"

    yield server
    server.close()


def test_the_first_event_tells_where_to_post(server):
    with serving(server.wsgi) as url, exchange(url + "/sse", None, {"Accept": "text/event-stream"}, "GET") as response:
        assert response.status == 200 and response.headers["Content-Type"] == "text/event-stream"
        assert response.readline() == b"event: endpoint\n"
        endpoint = response.readline()
        assert endpoint.startswith(b"data: /messages?session_id=") and len(endpoint) > 50
        target = url + endpoint[6:].decode().strip()
        ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        parts = target.split("?")
        client = Client(server.wsgi)
        accepted = client.post("/messages?" + parts[1], data=json.dumps(ping), headers=JSON)
        assert accepted.status_code == 202 and accepted.data == b""
        lines = iter(response.readline, b"")
        assert next(line for line in lines if line.startswith(b"event")) == b"event: message\n"
        assert json.loads(next(lines)[6:]) == {"jsonrpc": "2.0", "id": 1, "result": {}}
        refused = client.post("/messages?" + parts[1], data="{", headers=JSON)
        assert refused.status_code == 400 and refused.json["error"]["code"] == -32700


def test_everything_comes_on_the_stream(server):
    with transports.Sse(server) as talk:
        talk.send({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO})
        assert talk.receive()["result"]["protocolVersion"] == "2024-11-05"
        talk.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        params = {"name": "slow", "_meta": {"progressToken": "p"}}
        talk.send({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params})
        assert talk.receive()["method"] == "notifications/progress"
        assert talk.receive()["result"]["content"][0]["text"] == "done"
        server.changed("tools")
        assert talk.receive() == {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}


def test_posts_to_no_session_are_refused(server):
    client = Client(server.wsgi)
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"})
    for target in ("/messages", "/messages?session_id=", "/messages?session_id=nonsense"):
        assert client.post(target, data=body, headers=JSON).status_code == 404
    assert client.post("/sse").status_code == 405 and client.get("/messages").status_code == 405


def test_origins_are_checked_on_both_endpoints(server):
    client, headers = Client(server.wsgi), {"Origin": "https://evil.example"}
    assert client.get("/sse", headers=headers).status_code == 403
    assert client.post("/messages?session_id=x", headers=headers).status_code == 403


def test_a_session_belongs_to_who_opened_its_stream(server):
    server.engine.auth = ProtectedServer(lambda request: request.header("X-User"))
    with serving(server.wsgi) as url, exchange(url + "/sse", None, {"X-User": "ann"}, "GET") as response:
        response.readline()
        target = response.readline()[6:].decode().strip()
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"})
        client = Client(server.wsgi)
        assert client.post(target, data=body, headers={**JSON, "X-User": "bob"}).status_code == 404
        assert client.post(target, data=body, headers={**JSON, "X-User": "ann"}).status_code == 202
    # Without its stream the session is over.
    assert client.post(target, data=body, headers={**JSON, "X-User": "ann"}).status_code == 404


def test_streams_are_limited():
    server = Server("s", limits={"foreign_streams": 0})
    assert Client(server.wsgi).get("/sse").status_code == 503
