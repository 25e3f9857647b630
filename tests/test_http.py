"""Streamable HTTP, both eras: who is let in, statuses, streams, sessions, resuming."""

from __future__ import annotations

import contextlib
import http.client
import inspect
import json
import socket
import threading
from typing import Any
from urllib.parse import urlsplit

import pytest
from werkzeug.test import Client

from minimcp import Context, Server
from tests.helpers import BOTH, exchange, http_headers, modern, serving
from tests.official import check_emitted

HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
META = {"progressToken": "p"}


class Steps:
    """What the handlers of a server wait for and report."""

    def __init__(self):
        self.started, self.go, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.cancelled: Any = None


@pytest.fixture
def steps():
    return Steps()


@pytest.fixture
def server(steps):
    server = Server("s", "1", limits={"keepalive_s": 0.05}, allowed_origins=["https://app.example"])

    @server.tool
    def plain() -> str:
        return "x"

    @server.tool
    def three(ctx: Context) -> str:
        for n in (1, 2, 3):
            ctx.progress(n)
        return "done"

    @server.tool
    def held(ctx: Context) -> str:
        ctx.progress(1)
        steps.started.set()
        while not (steps.go.is_set() or ctx.cancelled.wait(0.01)):
            pass
        steps.cancelled = ctx.cancelled.is_set()
        steps.ended.set()
        ctx.progress(2)
        return "held"

    @server.tool
    def polled(ctx: Context) -> str:
        ctx.progress(1)
        ctx.close_stream(retry_ms=40)
        assert steps.go.wait(10)
        ctx.progress(2)
        return "polled"

    @server.tool
    def ask(ctx: Context) -> str:
        return ctx.elicit("Name?", {"name": str})["name"]

    server.add_resource(lambda: "x", "a://1")
    yield server
    steps.go.set()
    server.close()


@pytest.fixture
def client(server):
    return Client(server.wsgi)


def post(client, message, headers=None, path="/mcp", **more):
    data = message if isinstance(message, (str, bytes)) else json.dumps(message)
    found = {"Content-Type": "application/json", "Accept": BOTH, **(headers or {}), **more}
    return client.post(path, data=data, headers={name: value for name, value in found.items() if value is not None})


def send(client, message, **more):
    """A modern request with its headers; those that are None are left out."""
    return post(
        client, message, {**http_headers(message), **{key.replace("_", "-"): value for key, value in more.items()}}
    )


def legacy(client, method, id=1, session=None, version="2025-11-25", **params):
    """A legacy request, with its session."""
    message = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
    headers = {"Mcp-Session-Id": session, "MCP-Protocol-Version": version} if session else {}
    return post(client, message, headers)


def opened(client, version="2025-11-25", **capabilities):
    """The id of a new session."""
    response = legacy(client, "initialize", **{**HELLO, "protocolVersion": version, "capabilities": capabilities})
    assert response.status_code == 200
    id = response.headers["Mcp-Session-Id"]
    note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert post(client, note, {"Mcp-Session-Id": id}).status_code == 202
    return id


# Who is let in


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
    for options in ({}, {"principal": lambda environ: environ["HTTP_X_USER"]}):
        server = Server("s", **options)

        @server.tool
        def who(ctx: Context) -> str:
            seen.append((ctx.principal, ctx.request["HTTP_X_USER"]))
            return "x"

        message = modern("tools/call", name="who")
        environ = {"REMOTE_USER": "ann"}
        headers = {**http_headers(message), "X-User": "bob"}
        Client(server.wsgi).post("/mcp", data=json.dumps(message), headers=headers, environ_base=environ)
    assert seen == [("ann", "bob"), ("bob", "bob")]


# Modern statuses


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


# Modern streams


@contextlib.contextmanager
def streaming(url, message, headers, method="POST"):
    """A response that is still coming, and a function that reads its next event."""
    with exchange(url, message, headers, method) as response:

        def event():
            fields: dict[str, str] = {}
            for line in response:
                if line.startswith(b":"):
                    fields["comment"] = ""
                elif line == b"\n":
                    if set(fields) - {"comment"}:
                        return fields
                elif line.strip():
                    name, _, value = line.decode().strip().partition(":")
                    fields[name] = value.strip()
            return None

        yield response, event


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
            server.add_tool(lambda: "x", "new")
            changed = json.loads(event()["data"])
            assert changed["method"] == "notifications/tools/list_changed"
            assert changed["params"]["_meta"] == {"io.modelcontextprotocol/subscriptionId": "L"}
            server.close()
            assert json.loads(event()["data"])["method"] == "notifications/cancelled"
            assert json.loads(event()["data"])["result"]["resultType"] == "complete"
            assert event() is None
        with streaming(url + "/mcp", message, http_headers(message)) as (response, event):
            event()
            assert len(server._listeners) == 1
    # The server has noticed that its client has gone.
    assert server._listeners == set() and server.bus._listeners == ()


def test_without_room_for_a_stream_listening_is_acknowledged_empty_and_ended():
    server = Server("s", limits={"foreign_streams": 0})
    server.add_tool(lambda: "x", "t")
    message = modern("subscriptions/listen", notifications={"toolsListChanged": True})
    response = send(Client(server.wsgi), message)
    events = [json.loads(line[6:]) for line in response.data.splitlines() if line.startswith(b"data: ")]
    assert events[0]["params"]["notifications"] == {}
    assert [each.get("method", "result") for each in events[1:]] == ["notifications/cancelled", "result"]
    refused = modern("subscriptions/listen", notifications=5)
    assert send(Client(server.wsgi), refused).status_code == 400


# The session form


def test_a_session_is_assigned_with_the_answer_and_needed_afterwards(client):
    response = legacy(client, "initialize", **HELLO)
    id = response.headers["Mcp-Session-Id"]
    assert set(map(ord, id)) <= set(range(0x21, 0x7F)) and id != opened(client)
    assert legacy(client, "tools/list", session=id).json["result"]["tools"]
    without = legacy(client, "tools/list")
    assert without.status_code == 400 and without.json["error"]["code"] == -32600
    for unknown in ("nonsense", id + "x"):
        assert legacy(client, "tools/list", session=unknown).status_code == 404


def test_a_failed_handshake_opens_no_session(client):
    response = legacy(client, "initialize", protocolVersion=5)
    assert response.json["error"]["code"] == -32602 and "Mcp-Session-Id" not in response.headers


def test_the_version_header_is_checked_and_may_be_absent(client):
    id = opened(client, "2025-06-18")
    call = {"name": "plain"}
    assert legacy(client, "tools/call", session=id, version="2025-06-18", **call).status_code == 200
    assert legacy(client, "tools/call", session=id, version=None, **call).status_code == 200
    for bad in ("2020-01-01", "nonsense", ""):
        assert legacy(client, "tools/call", session=id, version=bad, **call).status_code == 400


def test_deleting_a_session_ends_it(client):
    id = opened(client)
    headers = {"Mcp-Session-Id": id}
    assert client.delete("/mcp", headers=headers).status_code == 204
    assert legacy(client, "tools/list", session=id).status_code == 404
    assert client.get("/mcp", headers={**headers, "Accept": "text/event-stream"}).status_code == 404
    assert client.delete("/mcp", headers=headers).status_code == 404
    assert client.delete("/mcp").status_code == 405 and client.get("/mcp").status_code == 405
    assert client.put("/mcp").status_code == 405 and "POST" in client.put("/mcp").headers["Allow"]


def test_notifications_and_responses_are_accepted_without_a_word(client):
    headers = {"Mcp-Session-Id": opened(client, "2025-03-26")}
    note, answer = {"jsonrpc": "2.0", "method": "notifications/x"}, {"jsonrpc": "2.0", "id": 1, "result": {}}
    for body in (note, answer, [note, answer]):
        response = post(client, body, headers)
        assert response.status_code == 202 and response.data == b""
    assert post(client, {"jsonrpc": "2.0", "method": []}, headers).status_code == 400


def test_errors_of_a_session_are_answers_with_status_200(client):
    id = opened(client)
    response = legacy(client, "nonsense", session=id)
    assert response.status_code == 200 and response.json["error"]["code"] == -32601
    response = legacy(client, "resources/read", session=id, uri="a://2")
    assert response.status_code == 200 and response.json["error"]["code"] == -32002


def test_a_batch_is_answered_with_an_array(client):
    headers = {"Mcp-Session-Id": opened(client, "2025-03-26")}
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "plain"}}
    assert [each["id"] for each in post(client, [ping, call], headers).json] == [1, 2]
    refused = post(client, [ping], {"Mcp-Session-Id": opened(client)})
    assert refused.status_code == 400 and refused.json["error"]["code"] == -32600


@contextlib.contextmanager
def session(server, version="2025-11-25", **capabilities):
    """A server on a socket and the headers of a session with it."""
    id = opened(Client(server.wsgi), version, **capabilities)
    with serving(server.wsgi) as url:
        yield (
            url + "/mcp",
            {
                "Content-Type": "application/json",
                "Accept": BOTH,
                "Mcp-Session-Id": id,
                "MCP-Protocol-Version": version,
            },
        )


def called(name, id=1, meta=META):
    return {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": name, "_meta": meta}}


def test_a_2025_11_25_stream_is_primed_numbered_and_ended(server):
    with session(server) as (url, headers), streaming(url, called("three"), headers) as (_, event):
        primed = event()
        assert primed["data"] == "" and primed["retry"] == "500" and primed["id"]
        events = [event() for _ in range(4)]
        assert event() is None
    assert [json.loads(each["data"]).get("method", "reply") for each in events] == ["notifications/progress"] * 3 + [
        "reply"
    ]
    ids = [primed["id"], *(each["id"] for each in events)]
    assert len(set(ids)) == 5


@pytest.mark.parametrize("version", ["2025-03-26", "2025-06-18"])
def test_older_clients_are_neither_primed_nor_left(server, steps, version):
    steps.go.set()
    with session(server, version) as (url, headers), streaming(url, called("polled"), headers) as (_, event):
        events = [event() for _ in range(3)]
        assert event() is None
    assert all("retry" not in each and each["data"] for each in events)


def test_event_ids_are_unique_in_a_session_and_name_their_stream(server):
    seen = []
    with session(server) as (url, headers):
        for id in (1, 2):
            with streaming(url, called("three", id), headers) as (_, event):
                seen.append([event()["id"] for _ in range(5)])
        assert len({*seen[0], *seen[1]}) == 10
        # Coming back after the second event of the first stream brings what followed it there, and nothing else.
        get = {**headers, "Accept": "text/event-stream", "Last-Event-ID": seen[0][2]}
        with streaming(url, None, get, "GET") as (_, event):
            replayed = []
            while (each := event()) is not None:
                replayed.append(each)
    messages = [json.loads(each["data"]) for each in replayed if each["data"]]
    assert [each.get("id", each.get("params", {}).get("progress")) for each in messages] == [3, 1]
    assert [each["id"] for each in replayed if each["data"]] == seen[0][3:]


@pytest.mark.parametrize("id", ["nonsense", "99-1", "1", "-", "1-x", "٣-1", "0-" + "9" * 40])
def test_an_event_id_of_no_stream_is_refused(client, id):
    headers = {
        "Mcp-Session-Id": opened(client),
        "Accept": "text/event-stream",
        "Last-Event-ID": id.encode().decode("latin-1"),
    }
    assert client.get("/mcp", headers=headers).status_code == 400


def test_a_call_may_close_its_stream_and_be_polled_for(server, steps):
    with session(server) as (url, headers):
        with streaming(url, called("polled"), headers) as (_, event):
            events = []
            while (each := event()) is not None:
                events.append(each)
        assert events[-1].get("retry") == "40"
        steps.go.set()
        last = [each["id"] for each in events if "id" in each][-1]
        get = {**headers, "Accept": "text/event-stream", "Last-Event-ID": last}
        with streaming(url, None, get, "GET") as (_, event):
            messages = []
            while (each := event()) is not None:
                messages += [json.loads(each["data"])] if each.get("data") else []
    assert messages[0]["params"]["progress"] == 2 and messages[1]["result"]["content"][0]["text"] == "polled"


def test_a_legacy_client_that_disconnects_has_not_cancelled_and_may_come_back(server, steps):
    with session(server) as (url, headers):
        with streaming(url, called("held"), headers) as (_, event):
            event()
            first = event()
        assert not steps.ended.wait(0.3)
        steps.go.set()
        assert steps.ended.wait(10) and steps.cancelled is False
        get = {**headers, "Accept": "text/event-stream", "Last-Event-ID": first["id"]}
        with streaming(url, None, get, "GET") as (_, event):
            messages = []
            while (each := event()) is not None:
                messages += [json.loads(each["data"])] if each.get("data") else []
    assert messages[-1]["result"]["content"][0]["text"] == "held"


def test_the_get_stream_carries_notifications_and_no_responses_and_there_is_one(server):
    with session(server) as (url, headers):
        get = {**headers, "Accept": "text/event-stream"}
        with streaming(url, None, get, "GET") as (response, event):
            assert response.status == 200 and response.headers["Content-Type"] == "text/event-stream"
            assert event()["data"] == ""
            with exchange(url, None, get, "GET") as second:
                assert second.status == 409
            with exchange(url, {"jsonrpc": "2.0", "id": 5, "method": "ping"}, headers) as answer:
                assert json.loads(answer.read()) == {"jsonrpc": "2.0", "id": 5, "result": {}}
            server.changed("tools")
            heard = event()
            assert json.loads(heard["data"]) == {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
        # What comes while nobody listens is kept for the one who comes back.
        server.changed("resources")
        with streaming(url, None, {**get, "Last-Event-ID": heard["id"]}, "GET") as (_, event):
            primed, missed = event(), event()
            assert primed["data"] == ""
            assert json.loads(missed["data"])["method"] == "notifications/resources/list_changed"


def test_what_belongs_to_a_call_goes_on_its_stream_alone(server):
    with session(server) as (url, headers):
        get = {**headers, "Accept": "text/event-stream"}
        with streaming(url, None, get, "GET") as (_, standing):
            standing()
            with streaming(url, called("three"), headers) as (_, event):
                own = [event() for _ in range(5)]
            server.changed("tools")
            assert "list_changed" in standing()["data"]
    assert sum("progress" in each["data"] for each in own) == 3


def test_a_question_is_asked_on_the_calls_stream_and_answered_by_a_post(server):
    with session(server, elicitation={}) as (url, headers), streaming(url, called("ask"), headers) as (_, event):
        event()
        asked = json.loads(event()["data"])
        assert asked["method"] == "elicitation/create"
        answer = {"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept", "content": {"name": "Ann"}}}
        with exchange(url, answer, headers) as response:
            assert response.status == 202 and response.read() == b""
        assert json.loads(event()["data"])["result"]["content"][0]["text"] == "Ann"


def test_the_same_id_in_two_sessions_is_two_calls(server, steps):
    with session(server) as (url, one), session(server) as (_, two), streaming(url, called("held"), one) as (_, event):
        event()
        event()
        cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
        with exchange(url, cancel, two) as response:
            assert response.status == 202
        assert not steps.ended.is_set()
        with exchange(url, cancel, one) as response:
            assert response.status == 202
        assert steps.ended.wait(10) and steps.cancelled is True
        assert event() is None
