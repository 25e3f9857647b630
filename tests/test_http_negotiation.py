"""What the client makes of HTTP on top of its links: the era, mirrored headers, sessions that end."""

from __future__ import annotations

import pytest

import minimcp
from minimcp import Client
from minimcp.client import negotiation
from tests.played import DISCOVERED, INITIALIZED
from tests.scripted import scripted

CONTENT = {"content": [{"type": "text", "text": "ok"}]}


@pytest.fixture(autouse=True)
def _no_verdicts():
    negotiation._legacy.clear()
    yield
    negotiation._legacy.clear()


def played(methods, refuse=None):
    """An HTTP server that answers by method; `refuse(request)` may return a status and body instead."""

    def answer(request, peer):
        refused = refuse(request) if refuse is not None else None
        if refused is not None:
            status, body = refused
            return peer.json(body, status) if isinstance(body, dict) else peer.body(body, status)
        if request.method != "POST":
            return peer.body(status=405)
        message = request.message
        if "id" not in message:
            return peer.body(status=202)
        result = methods.get(message["method"])
        if result is None:
            return peer.json({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "no"}}, 404)
        result = result(message) if callable(result) else result
        if "code" in result:
            return peer.json({"jsonrpc": "2.0", "id": message["id"], "error": result}, 400)
        headers = {"Mcp_Session_Id": "s-1"} if message["method"] == "initialize" else {}
        return peer.json({"jsonrpc": "2.0", "id": message["id"], "result": result}, **headers)

    return scripted(answer)


def said(server):
    return [request.message["method"] for request in server.requests if request.method == "POST"]


LEGACY = {"initialize": INITIALIZED, "tools/list": {"tools": []}, "tools/call": CONTENT}


def rpc_error(code, data=None):
    return {"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": "no", **({"data": data} if data else {})}}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b""),
        (400, b"Bad Request: no session"),
        (400, rpc_error(-32000)),
        (400, rpc_error(-32600)),
        (404, b"not here"),
        (404, rpc_error(-32000)),
        (405, b""),
        (406, b"no"),
        (422, b"{}"),
        (200, rpc_error(-32601)),
        (200, rpc_error(-32602)),
    ],
)
def test_what_an_http_answer_to_the_probe_means(status, body):
    def refuse(request):
        is_probe = request.method == "POST" and request.message["method"] == "server/discover"
        return (status, body) if is_probe else None

    with played(LEGACY, refuse) as server, Client(server.url) as client:
        assert client.protocol_version == "2025-11-25"
        client.list_tools()
    assert said(server)[:3] == ["server/discover", "initialize", "notifications/initialized"]


def test_a_404_that_says_the_method_is_unknown_is_of_a_modern_server():
    with played({"tools/list": {"tools": []}}) as server, Client(server.url) as client:
        assert client.protocol_version == "2026-07-28"
        assert client.list_tools() == []
    assert said(server) == ["server/discover", "tools/list"]


@pytest.mark.parametrize("code", [-32020, -32021])
def test_a_modern_error_with_400_is_of_a_modern_server(code):
    def refuse(request):
        return 400, {**rpc_error(code), "id": request.message["id"]}

    with played({}, refuse) as server:
        with pytest.raises(minimcp.RemoteError):
            Client(server.url).open()
    assert said(server) == ["server/discover"]


def test_a_refusal_of_the_credentials_says_nothing_of_the_era_and_is_told():
    with played({}, lambda request: (401, b"no")) as server:
        with pytest.raises(minimcp.AuthorizationError):
            Client(server.url).open()
    assert said(server) == ["server/discover"]


def test_a_legacy_server_is_remembered_until_it_is_none():
    methods = dict(LEGACY)
    with played(methods) as server:
        for _ in range(2):
            server.requests.clear()
            with Client(server.url, cache=False) as client:
                assert client.protocol_version == "2026-07-28"
        methods["server/discover"] = {"code": -32602, "message": "no"}
        for expected in ("server/discover", "initialize"):
            server.requests.clear()
            with Client(server.url) as client:
                assert client.protocol_version == "2025-11-25"
            assert said(server)[0] == expected
        methods["initialize"] = {"code": -32022, "message": "no", "data": {"supported": ["2026-07-28"]}}
        methods["server/discover"] = DISCOVERED
        server.requests.clear()
        with Client(server.url) as client:
            assert client.protocol_version == "2026-07-28"
        assert said(server) == ["initialize", "server/discover"]


def test_after_falling_back_every_request_names_the_negotiated_revision():
    methods = {**LEGACY, "initialize": {**INITIALIZED, "protocolVersion": "2025-06-18"}}
    with played(methods) as server:
        with Client(server.url, mode="legacy") as client:
            client.list_tools()
        first, *later = server.requests
    assert "mcp-protocol-version" not in first.headers and "mcp-session-id" not in first.headers
    assert {request.headers["mcp-protocol-version"] for request in later} == {"2025-06-18"}
    assert {request.headers["mcp-session-id"] for request in later} == {"s-1"}
    assert later[-1].method == "DELETE"
    assert all("mcp-method" not in request.headers for request in server.requests)


def test_a_modern_request_is_mirrored_into_its_headers():
    working = {"resultType": "task", "taskId": "Zürich", "status": "working", "pollIntervalMs": 1}
    asking = {"method": "roots/list"}
    states = iter(({"status": "input_required", "inputRequests": {"q": asking}}, {"status": "odd"}))
    methods = {
        "server/discover": DISCOVERED,
        "tools/call": working,
        "tasks/get": lambda message: {"taskId": "Zürich", "pollIntervalMs": 1, **next(states)},
        "tasks/update": {},
        "tasks/cancel": {},
        "resources/read": {"contents": []},
        "prompts/get": {"messages": []},
    }
    with played(methods) as server, Client(server.url, tasks=True, roots=[], validate=False) as client:
        with pytest.raises(minimcp.ProtocolError, match="odd"):
            client.call_tool("höher")
        client.read_resource("a://b c")
        client.get_prompt("plain")
    sent = [
        (request.headers["mcp-method"], request.headers.get("mcp-name"), request.headers["mcp-protocol-version"])
        for request in server.requests
    ]
    assert sent == [
        ("server/discover", None, "2026-07-28"),
        ("tools/call", "=?base64?aMO2aGVy?=", "2026-07-28"),
        ("tasks/get", "=?base64?WsO8cmljaA==?=", "2026-07-28"),
        ("tasks/update", "=?base64?WsO8cmljaA==?=", "2026-07-28"),
        ("tasks/get", "=?base64?WsO8cmljaA==?=", "2026-07-28"),
        ("tasks/cancel", "=?base64?WsO8cmljaA==?=", "2026-07-28"),
        ("resources/read", "a://b c", "2026-07-28"),
        ("prompts/get", "plain", "2026-07-28"),
    ]


def annotated(header="Region", **more):
    field = {"type": "string", "x-mcp-header": header}
    return {"name": "t", "inputSchema": {"type": "object", "properties": {"region": field}}, **more}


def test_annotated_arguments_are_mirrored_and_wrong_annotations_cost_the_tool(caplog):
    wrong = annotated("not a name", name="wrong")
    methods = {"server/discover": DISCOVERED, "tools/list": {"tools": [annotated(), wrong]}, "tools/call": CONTENT}
    with played(methods) as server, Client(server.url) as client:
        assert [tool["name"] for tool in client.list_tools()] == ["t"]
        client.call_tool("t", region="us-west")
        client.call_tool("t", region=" é")
        client.call_tool("t", region=None)
        client.call_tool("t")
    mirrored = [request.headers.get("mcp-param-region") for request in server.requests[2:]]
    assert mirrored == ["us-west", "=?base64?IMOp?=", None, None]
    assert "'wrong' is left out" in caplog.text and "not a name" in caplog.text


def test_an_annotated_integer_that_a_header_cannot_carry_exactly_is_not_sent():
    schema = {"type": "object", "properties": {"n": {"type": "integer", "x-mcp-header": "N"}}}
    tool = {"name": "t", "inputSchema": schema}
    methods = {"server/discover": DISCOVERED, "tools/list": {"tools": [tool]}, "tools/call": CONTENT}
    with played(methods) as server, Client(server.url) as client:
        client.list_tools()
        for number in (2**53, -(2**60)):
            with pytest.raises(minimcp.ProtocolError, match=r'"n" must stay within 2\^53-1'):
                client.call_tool("t", n=number)
        client.call_tool("t", n=2**53 - 1)
        assert said(server) == ["server/discover", "tools/list", "tools/call"]
    assert server.requests[-1].headers["mcp-param-n"] == "9007199254740991"


def test_after_a_mismatch_the_tools_are_listed_again_and_the_call_repeated_once():
    def call(message):
        request = server.requests[-1]
        if "mcp-param-region" not in request.headers:
            return {"code": -32020, "message": "Header mismatch: Mcp-Param-Region is missing"}
        return CONTENT

    methods = {"server/discover": DISCOVERED, "tools/list": {"tools": [annotated()]}, "tools/call": call}
    with played(methods) as server, Client(server.url) as client:
        assert client.call_tool("t", region="x").text == "ok"
        assert said(server) == ["server/discover", "tools/call", "tools/list", "tools/call"]
        methods["tools/call"] = {"code": -32020, "message": "Header mismatch"}
        server.requests.clear()
        with pytest.raises(minimcp.RemoteError):
            client.call_tool("t", region="x")
        assert said(server) == ["tools/call", "tools/list", "tools/call"]


def test_a_session_that_is_gone_is_begun_anew_and_the_call_repeated():
    gone = []

    def refuse(request):
        if request.method == "POST" and request.message["method"] == "tools/call" and len(gone) < 1:
            gone.append(request)
            return 404, b"no such session"
        return None

    with played(LEGACY, refuse) as server:
        with Client(server.url, mode="legacy", validate=False) as client:
            assert client.call_tool("t").text == "ok"
        posts = [request for request in server.requests if request.method == "POST"]
    assert [request.message["method"] for request in posts] == [
        "initialize",
        "notifications/initialized",
        "tools/call",
        "initialize",
        "notifications/initialized",
        "tools/call",
    ]
    assert "mcp-session-id" not in posts[3].headers
    assert posts[2].message["id"] != posts[5].message["id"]


def test_a_session_that_is_always_gone_is_an_error():
    def refuse(request):
        return (404, b"") if request.method == "POST" and request.message["method"] == "tools/call" else None

    with played(LEGACY, refuse) as server, Client(server.url, mode="legacy") as client:
        with pytest.raises(minimcp.ConnectionLost) as caught:
            client.call_tool("t")
    assert caught.value.retry == "always"
    assert said(server).count("tools/call") == 2


def test_a_modern_call_is_cancelled_by_closing_its_stream_alone():
    left = []

    def answer(request, peer):
        message = request.message
        if message["method"] == "server/discover":
            return peer.json({"jsonrpc": "2.0", "id": message["id"], "result": DISCOVERED})
        peer.stream()
        left.append(peer.left())
        return None

    with scripted(answer) as server:
        with Client(server.url) as client, pytest.raises(minimcp.Timeout):
            client.call_tool("t", {}, timeout=0.2)
    assert left == [True]
    assert said(server) == ["server/discover", "tools/call"]


def test_a_modern_stream_that_breaks_is_lost_and_not_resumed():
    def answer(request, peer):
        message = request.message
        if message["method"] == "server/discover":
            return peer.json({"jsonrpc": "2.0", "id": message["id"], "result": DISCOVERED})
        return peer.stream().event("", "id: 7", "retry: 1").end()

    with scripted(answer) as server, Client(server.url) as client:
        with pytest.raises(minimcp.ConnectionLost) as caught:
            client.call_tool("t")
    assert caught.value.retry == "idempotent"
    assert [request.method for request in server.requests] == ["POST", "POST"]


READS = {
    "tools/list": lambda client: client.list_tools(),
    "resources/read": lambda client: client.read_resource("a://1"),
}


@pytest.mark.parametrize("method", READS)
@pytest.mark.parametrize("breaks", [1, 2])
def test_a_modern_request_that_only_reads_is_sent_once_more_after_its_stream_broke(method, breaks):
    results = {"tools/list": {"tools": []}, "resources/read": {"contents": []}}

    def answer(request, peer):
        message = request.message
        if message["method"] == "server/discover":
            return peer.json({"jsonrpc": "2.0", "id": message["id"], "result": DISCOVERED})
        ids.append(message["id"])
        if len(ids) <= breaks:
            return peer.stream().event("", "id: 7").end() if breaks == 1 else peer.hang_up()
        return peer.json({"jsonrpc": "2.0", "id": message["id"], "result": results[method]})

    ids = []
    with scripted(answer) as server, Client(server.url) as client:
        if breaks == 1:
            READS[method](client)
        else:
            with pytest.raises(minimcp.ConnectionLost):
                READS[method](client)
    assert len(ids) == len(set(ids)) == 2
    assert [request.method for request in server.requests] == ["POST"] * 3


@pytest.mark.parametrize("status", [400, 404, 405])
def test_where_no_post_is_accepted_the_older_transport_is_tried(status):
    def answer(request, peer):
        if request.method == "GET":
            stream.append(peer.stream().chunk(b"event: endpoint\ndata: /messages?id=1\n\n"))
            return peer.left()
        if not request.path.startswith("/messages"):
            return peer.body(b"no", status)
        message = request.message
        peer.body(status=202)
        if "id" in message:
            result = {**INITIALIZED, "protocolVersion": "2024-11-05"} if message["method"] == "initialize" else CONTENT
            stream[0].event({"jsonrpc": "2.0", "id": message["id"], "result": result})
        return None

    stream = []
    with scripted(answer) as server, Client(server.url) as client:
        assert client.protocol_version == "2024-11-05"
        assert client.call_tool("t").text == "ok"


def test_a_server_that_is_neither_is_told_with_its_status():
    with played({}, lambda request: (404, b"nothing here")) as server:
        with pytest.raises(minimcp.ClientError):
            Client(server.url).open()
