"""Streamable HTTP: who is let in, what a modern request is answered with, and its streams."""

from __future__ import annotations

import http.client
import inspect
import json
import socket
from urllib.parse import urlsplit

import pytest
from werkzeug.test import Client

from minimcp import Context, Server
from minimcp.transports.streams import open_streams
from tests.held import META, Steps, held_server, post, streaming
from tests.helpers import exchange, http_headers, modern, serving
from tests.official import check_emitted


@pytest.fixture
def steps():
    return Steps()


@pytest.fixture
def server(steps):
    yield from held_server(steps)


@pytest.fixture
def client(server):
    return Client(server.wsgi)


def send(client, message, **more):
    """A modern request with its headers; those that are None are left out."""
    return post(
        client, message, {**http_headers(message), **{key.replace("_", "-"): value for key, value in more.items()}}
    )


@pytest.mark.parametrize("path", ["", "/", "/mcp", "/mcp/"])
def test_one_endpoint_takes_posts_and_never_redirects(client, path):
    message = modern("tools/call", name="plain")
    response = post(client, message, http_headers(message), path=path)
    assert response.status_code == 200 and response.headers["Content-Type"] == "application/json"
    assert response.json["result"]["content"] == [{"type": "text", "text": "x"}]
    assert int(response.headers["Content-Length"]) == len(response.data)
    assert "Mcp-Session-Id" not in response.headers
    assert client.post("/elsewhere").status_code == 404


@pytest.mark.parametrize(
    "host, origin, status",
    [
        ("localhost:8000", None, 200),
        ("localhost:8000", "http://localhost:8000", 200),
        ("127.0.0.1:8000", "http://127.0.0.1:8000", 200),
        ("[::1]:8000", "http://[::1]:8000", 200),
        ("127.0.0.1:8000", "http://localhost:5173", 200),
        ("localhost", "https://app.example", 200),
        ("localhost", "https://evil.example", 403),
        ("localhost", "https://app.example.evil.example", 403),
        ("localhost", "null", 403),
        ("localhost", "file://", 403),
        ("localhost", "http://localhost@evil.example", 403),
        ("evil.example", None, 403),
        ("evil.example:8000", "http://evil.example:8000", 403),
        ("localhost.evil.example", None, 403),
        ("local host", None, 403),
    ],
)
def test_host_and_origin_decide_before_anything_is_read(client, host, origin, status):
    for method in ("post", "get", "delete"):
        headers = {"Host": host, **({"Origin": origin} if origin else {})}
        if method == "post":
            response = send(client, modern("tools/list"), **headers)
            assert response.status_code == status
        else:
            response = getattr(client, method)("/mcp", headers=headers)
            assert (response.status_code == 403) is (status == 403)
        if status == 403:
            assert response.json["error"]["code"] == -32600 and "id" not in response.json
            assert "Access-Control-Allow-Origin" not in response.headers


def test_pages_of_allowed_origins_may_read_the_answers(client):
    response = send(client, modern("tools/list"), Origin="https://app.example")
    assert response.headers["Access-Control-Allow-Origin"] == "https://app.example"
    assert response.headers["Access-Control-Expose-Headers"] == "Mcp-Session-Id"
    asked = client.options("/mcp", headers={"Origin": "https://app.example", "Access-Control-Request-Method": "POST"})
    assert asked.status_code == 204 and "Mcp-Method" in asked.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Origin" not in send(client, modern("tools/list")).headers


def test_a_server_listens_on_the_loopback_address_by_default():
    assert inspect.signature(Server.run_http).parameters["host"].default == "127.0.0.1"


def test_the_principal_comes_from_the_environment_or_a_function_of_it():
    seen = []
    for options in ({}, {"auth": lambda request: request.header("X-User")}):
        server = Server("s", **options)

        @server.tool
        def who(ctx: Context) -> str:
            seen.append((ctx.principal.id, ctx.request["HTTP_X_USER"]))
            return "x"

        message = modern("tools/call", name="who")
        environ = {"REMOTE_USER": "ann"}
        headers = {**http_headers(message), "X-User": "bob"}
        Client(server.wsgi).post("/mcp", data=json.dumps(message), headers=headers, environ_base=environ)
    assert seen == [("ann", "bob"), ("bob", "bob")]


@pytest.mark.parametrize(
    "message, headers, status, code",
    [
        (modern("nonsense"), {}, 404, -32601),
        (modern("ping"), {}, 404, -32601),
        (modern("prompts/list"), {}, 404, -32601),
        (modern("tools/list", capabilities=5), {}, 400, -32602),
        (modern("tools/list"), {"Mcp_Method": None}, 400, -32020),
        (modern("tools/list"), {"Mcp_Method": "TOOLS/LIST"}, 400, -32020),
        (modern("tools/list"), {"MCP_Protocol_Version": None}, 400, -32020),
        (modern("tools/list"), {"MCP_Protocol_Version": "2025-11-25"}, 400, -32020),
        (modern("tools/call", name="plain"), {"Mcp_Name": "three"}, 400, -32020),
        (modern("tools/call", name="plain"), {"Mcp_Name": None}, 400, -32020),
        (modern("tools/call", name="plain"), {"Mcp_Name": "=?base64?cGxhaW4=?="}, 200, None),
        (modern("tools/call", name="plain"), {"Mcp_Name": "=?base64?cGxhaW4?="}, 400, -32020),
        (modern("tools/call", name="plain"), {"MCP_SESSION_ID": "old", "Last_Event_ID": "1-1"}, 200, None),
        (modern("tools/call", name="nothing"), {}, 400, -32602),
        (modern("resources/read", uri="a://2"), {}, 400, -32602),
        (modern("tools/call", name="ask"), {}, 400, -32021),
        (modern("resources/read", uri="a://1"), {}, 200, None),
    ],
)
def test_a_modern_request_is_answered_with_its_status_and_code(client, message, headers, status, code):
    response = send(client, message, **headers)
    assert response.status_code == status
    assert response.json.get("error", {}).get("code") == code and response.json["id"] == 1


def test_the_body_is_checked_in_the_order_header_meta_version_method(client):
    other = modern("nonsense", meta={"io.modelcontextprotocol/protocolVersion": "2099-01-01"})
    assert send(client, other).json["error"]["code"] == -32020
    response = send(client, other, MCP_Protocol_Version="2099-01-01")
    assert response.status_code == 400 and response.json["error"]["code"] == -32022
    assert response.json["error"]["data"] == {"supported": ["2026-07-28"], "requested": "2099-01-01"}
    bare = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    headers = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/list"}
    response = post(client, bare, headers)
    assert response.status_code == 400 and response.json["error"]["code"] == -32602


def test_header_names_are_compared_without_regard_to_case(client):
    message = modern("tools/call", name="plain")
    headers = {name.upper(): value for name, value in http_headers(message).items()}
    assert post(client, message, headers).status_code == 200


@pytest.mark.parametrize(
    "body, headers, status",
    [
        (b"{", {}, 400),
        (b"[]", {}, 400),
        (b"5", {}, 400),
        (b'{"jsonrpc":"2.0","method":5}', {}, 400),
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b"{}", {"Content-Type": None}, 415),
        (b"{}", {"Content-Encoding": "gzip"}, 415),
        (b"{}", {"Accept": "text/html"}, 406),
        (b"x" * (4 * 1024 * 1024 + 1), {}, 413),
    ],
)
def test_what_is_no_message_is_refused_with_its_status_and_without_an_id(client, body, headers, status):
    response = post(client, body, headers)
    assert response.status_code == status
    assert response.json["error"]["code"] in (-32700, -32600) and "id" not in response.json


def test_a_notification_is_accepted_without_a_word(client):
    message = modern("notifications/whatever")
    del message["id"]
    for headers in (http_headers(message), {}, {"MCP-Protocol-Version": "2026-07-28"}):
        response = post(client, message, headers)
        assert response.status_code == 202 and response.data == b""


def test_a_client_that_takes_no_streams_gets_only_the_answer(client):
    message = modern("tools/call", name="three", meta=META)
    response = send(client, message, Accept="application/json")
    assert response.headers["Content-Type"] == "application/json" and "result" in response.json
    listening = modern("subscriptions/listen", notifications={"toolsListChanged": True})
    assert send(client, listening, Accept="application/json").status_code == 406
    for accept in ("*/*", "application/*", "text/event-stream", None):
        assert send(client, modern("tools/call", name="plain"), Accept=accept).status_code == 200


def test_what_precedes_the_answer_makes_it_a_stream_that_ends_with_it(server):
    message = modern("tools/call", name="three", meta=META)
    with serving(server.wsgi) as url, streaming(url + "/mcp", message, http_headers(message)) as (response, event):
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream"
        assert response.headers["X-Accel-Buffering"] == "no"
        assert response.headers["Cache-Control"] == "no-cache, no-transform"
        assert response.headers["Content-Encoding"] == "identity"
        heard = [json.loads(event()["data"]) for _ in range(4)]
        assert event() is None
    assert [each["params"]["progress"] for each in heard[:3]] == [1, 2, 3]
    assert heard[3]["id"] == 1 and heard[3]["result"]["content"][0]["text"] == "done"
    assert not any("id" in each and "method" in each for each in heard)
    for each in heard:
        check_emitted("2026-07-28", "tools/call", each)


def test_a_silent_stream_carries_comments(server, steps):
    message = modern("tools/call", name="held", meta=META)
    with serving(server.wsgi) as url, exchange(url + "/mcp", message, http_headers(message)) as response:
        lines = [response.readline() for _ in range(4)]
        steps.go.set()
        assert b":\n" in lines
        assert b'"text":"held"' in response.read()


def test_closing_the_stream_cancels_a_modern_call(server, steps):
    message = modern("tools/call", name="held", meta=META)
    with serving(server.wsgi) as url:
        with exchange(url + "/mcp", message, http_headers(message)) as response:
            assert response.readline().startswith(b"data: ")
            assert not steps.ended.is_set()
        assert steps.ended.wait(10) and steps.cancelled is True


def test_hanging_up_before_the_first_byte_cancels_a_modern_call_too(server, steps):
    message = modern("tools/call", name="held")
    with serving(server.wsgi) as url:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
        connection.request("POST", "/mcp", json.dumps(message), http_headers(message))
        assert steps.started.wait(10)
        connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()
        assert steps.ended.wait(10) and steps.cancelled is True


def test_the_status_tells_a_worker_calls_error_when_nothing_went_before(client):
    response = send(client, modern("tools/call", name="ask"))
    assert response.status_code == 400 and response.json["error"]["code"] == -32021
    asked = send(client, modern("tools/call", name="ask", capabilities={"elicitation": {}}))
    assert asked.status_code == 200 and asked.json["result"]["resultType"] == "input_required"


def test_a_listen_stream_stays_open_and_is_tagged_and_released(server):
    message = modern("subscriptions/listen", "L", notifications={"toolsListChanged": True})
    with serving(server.wsgi) as url:
        with streaming(url + "/mcp", message, http_headers(message)) as (response, event):
            assert response.headers["Content-Type"] == "text/event-stream"
            assert "subscriptions/acknowledged" in event()["data"]
            server.tool(lambda: "x", "new")
            changed = json.loads(event()["data"])
            assert changed["method"] == "notifications/tools/list_changed"
            assert changed["params"]["_meta"] == {"io.modelcontextprotocol/subscriptionId": "L"}
            server.close()
            assert json.loads(event()["data"])["method"] == "notifications/cancelled"
            assert json.loads(event()["data"])["result"]["resultType"] == "complete"
            assert event() is None
        with streaming(url + "/mcp", message, http_headers(message)) as (response, event):
            event()
            assert len(server.engine._streams) == 1
    # The server has noticed that its client has gone.
    assert server.engine._streams == set() and server.engine.bus._listeners == ()


def test_without_room_for_a_stream_listening_is_acknowledged_empty_and_ended():
    server = Server("s", limits={"foreign_streams": 0})
    server.tool(lambda: "x", "t")
    message = modern("subscriptions/listen", notifications={"toolsListChanged": True})
    response = send(Client(server.wsgi), message)
    events = [json.loads(line[6:]) for line in response.data.splitlines() if line.startswith(b"data: ")]
    assert events[0]["params"]["notifications"] == {}
    assert [each.get("method", "result") for each in events[1:]] == ["notifications/cancelled", "result"]
    refused = modern("subscriptions/listen", notifications=5)
    assert send(Client(server.wsgi), refused).status_code == 400


def test_the_limit_of_streams_is_the_processs_and_not_an_applications():
    servers = [Server(name, limits={"foreign_streams": 1, "keepalive_s": 0.1}) for name in ("one", "other")]
    for each in servers:
        each.tool(lambda: "x", "t")
    message = modern("subscriptions/listen", notifications={"toolsListChanged": True})
    with serving(servers[0].wsgi) as first, serving(servers[1].wsgi) as second:
        for url, other in ((first, second), (second, first)):
            with streaming(url + "/mcp", message, http_headers(message)) as (_, event):
                assert json.loads(event()["data"])["params"]["notifications"] == {"toolsListChanged": True}
                with streaming(other + "/mcp", message, http_headers(message)) as (_, refused):
                    assert json.loads(refused()["data"])["params"]["notifications"] == {}
                with exchange(other + "/sse", None, {}, "GET") as response:
                    assert response.status == 503
                servers[0].close()
                servers[1].close()
                while event() is not None:
                    pass
    leave = open_streams().enter(1)
    assert leave is not None
    leave()
