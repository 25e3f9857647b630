"""All that a client and a server say to each other in one long conversation over HTTP, held against literal rules."""

from __future__ import annotations

import json
import re

import pytest

import minimcp
from minimcp import Client
from tests.transcripts.server import build

LEGACY = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
MODERN = "2026-07-28"
META = "io.modelcontextprotocol/"
ANSWERS = {
    "elicit": lambda question: {"weeks": 4} if "weeks" in question.fields else {"sure": True},
    "sample": lambda params: None if params["messages"][0]["content"]["text"] == "no" else "about Ø",
    "roots": ["/srv/books"],
}


class Wire:
    """A WSGI application that keeps the bytes of both directions.

    :ivar sent: (HTTP method, headers by their CGI names, body) of each request.
    :ivar said: the messages of the server, each with the method of the request that it came with.
    """

    def __init__(self, server):
        self.app = server.wsgi
        self.sent = []
        self.said = []

    def __call__(self, environ, start_response):
        body = environ["wsgi.input"].read()
        environ["wsgi.input"].seek(0)
        self.sent.append((environ["REQUEST_METHOD"], environ, body))
        method = json.loads(body).get("method") if body else None
        return self._kept(self.app(environ, start_response), method)

    def _kept(self, pieces, method):
        try:
            for piece in pieces:
                for line in piece.split(b"\n"):
                    if line.startswith((b"{", b"data: {")):
                        self.said.append((method, json.loads(line[line.index(b"{") :])))
                yield piece
        finally:
            pieces.close() if hasattr(pieces, "close") else None

    @property
    def posted(self):
        """The messages of the client."""
        return [json.loads(body) for method, _, body in self.sent if method == "POST"]


def conversation(mode):
    """Use everything a server offers, properly and wrongly, and return the wire."""
    server = build()
    server.engine.limits["silence_s"] = 0.1

    @server.tool
    def rejected(ctx: minimcp.Context) -> str:
        return ctx.sample("no", max_tokens=1).text

    wire = Wire(server)
    with Client(wire, mode=mode, on_log=lambda params: None, **ANSWERS) as client:
        client.list_tools()
        client.set_log_level("debug")
        seen = []
        client.call_tool("count", {"steps": 3}, progress=seen.append)
        assert len(seen) == 3
        client.call_tool("show", kind="embedded")
        client.call_tool("fail", how="crash")
        client.call_tool("lookup", title="abc", shelf=2)  # has an output schema
        client.call_tool("advise", topic="Ærø")
        if mode >= "2025-06-18":
            assert client.call_tool("lend", title="Emma").text == "Emma lent for 4 weeks"
        client.list_resources()
        client.list_resource_templates()
        client.read_resource("library://books/9789100")
        client.list_prompts()
        client.get_prompt("review", title="Ø", tone="harsh")
        if mode in LEGACY:
            client.ping()
            client.subscribe("library://rules")
            client.unsubscribe("library://rules")
            client.set_roots(["/srv"])
        for wrong in (
            lambda: client.call_tool("rejected", {}, check=True),
            lambda: client.call_tool("nowhere"),
            lambda: client.read_resource("library://nowhere"),
            lambda: client.get_prompt("nowhere"),
            lambda: client.get_prompt("review"),
            lambda: client.request("tools/list", {"cursor": "nowhere"}),
            lambda: client.request("no/such/method"),
            lambda: client.call_tool("wait", {}, timeout=0.2),
        ):
            with pytest.raises(minimcp.MinimcpError):
                wrong()
    return wire


@pytest.fixture(scope="module", params=[*LEGACY, MODERN])
def spoken(request):
    """A conversation of each revision, as (revision, wire)."""
    return request.param, conversation(request.param)


def both_ways(spoken):
    return [*spoken[1].posted, *(message for _, message in spoken[1].said)]


def test_every_message_is_one_object_of_one_kind(spoken):
    for message in both_ways(spoken):
        assert message["jsonrpc"] == "2.0"
        assert len(message.keys() & {"method", "result", "error"}) == 1
        if "method" in message:
            assert message.keys() <= {"jsonrpc", "id", "method", "params"} and type(message["method"]) is str
        else:
            assert message.keys() - {"id"} in ({"jsonrpc", "result"}, {"jsonrpc", "error"})


def test_requests_have_an_id_and_notifications_none(spoken):
    methods = set()
    for message in both_ways(spoken):
        if "method" in message:
            methods.add(message["method"])
            told = message["method"].startswith("notifications/")
            assert ("id" in message) is not told, message
            assert told or type(message["id"]) in (int, str), message
    assert {"notifications/progress", "notifications/message", "tools/call"} <= methods
    if spoken[0] in LEGACY:
        assert {"notifications/initialized", "notifications/roots/list_changed", "roots/list"} <= methods


def test_no_id_is_given_twice_by_the_same_side(spoken):
    for side in (spoken[1].posted, [message for _, message in spoken[1].said]):
        ids = [message["id"] for message in side if "method" in message and "id" in message]
        assert len(set(ids)) == len(ids)


def test_every_response_has_the_id_of_a_request_with_its_type(spoken):
    sent, said = spoken[1].posted, [message for _, message in spoken[1].said]
    for asking, answering in ((sent, said), (said, sent)):
        asked = [json.dumps(message["id"]) for message in asking if "method" in message and "id" in message]
        answers = [json.dumps(message["id"]) for message in answering if "method" not in message]
        assert len(set(answers)) == len(answers)
        assert set(answers) <= set(asked)


def test_an_error_has_a_code_and_one_short_sentence(spoken):
    errors = [message["error"] for message in both_ways(spoken) if "error" in message]
    assert len(errors) >= 6
    for error in errors:
        assert error.keys() <= {"code", "message", "data"} and type(error["code"]) is int
        assert type(error["message"]) is str and 0 < len(error["message"]) < 200
        assert "\n" not in error["message"] and not re.search(r"[.!?] [A-Z]", error["message"])


def test_no_side_makes_up_a_reserved_code(spoken):
    codes = {message["error"]["code"] for message in both_ways(spoken) if "error" in message}
    reserved = {code for code in codes if -32099 <= code <= -32000}
    assert reserved <= ({-32002} if spoken[0] in LEGACY else {-32020, -32021, -32022})
    assert {-32601, -32602} <= codes
    own = {code for code in codes if not -32768 <= code <= -32000}
    assert own == ({-1} if spoken[0] in LEGACY else set())


def test_a_body_is_one_message_in_utf8(spoken):
    bodies = [body for method, _, body in spoken[1].sent if method == "POST"]
    assert len(bodies) > 20
    for body in bodies:
        assert type(json.loads(body.decode("utf-8"))) is dict
    if spoken[0] == MODERN:
        assert all("method" in json.loads(body) for body in bodies)


def test_a_client_reports_no_progress_and_on_2026_07_28_answers_nothing(spoken):
    sent = spoken[1].posted
    assert not [message for message in sent if message.get("method") == "notifications/progress"]
    answers = [message for message in sent if "method" not in message]
    assert bool(answers) is (spoken[0] in LEGACY)


def test_every_request_of_2026_07_28_says_what_it_needs():
    sent = conversation(MODERN).posted
    assert {"server/discover", "tools/list", "tools/call", "prompts/get"} <= {message["method"] for message in sent}
    assert len([message for message in sent if "inputResponses" in message["params"]]) >= 3
    for message in sent:
        meta = message["params"]["_meta"]
        assert meta[META + "protocolVersion"] == MODERN
        assert meta[META + "clientCapabilities"].keys() == {"elicitation", "sampling", "roots"}


def test_a_tool_is_called_by_name_with_an_object_of_arguments(spoken):
    calls = [message["params"] for message in spoken[1].posted if message.get("method") == "tools/call"]
    assert [params["name"] for params in calls][:3] == ["count", "show", "fail"]
    assert [params["arguments"] for params in calls][:3] == [{"steps": 3}, {"kind": "embedded"}, {"how": "crash"}]
    for params in calls:
        assert type(params["name"]) is str and type(params["arguments"]) is dict
        assert params.keys() <= {"name", "arguments", "_meta", "inputResponses", "requestState"}


def test_keys_of_meta_that_the_package_writes_are_the_specifications_or_its_own(spoken):
    keys = {key for message in both_ways(spoken) for key in message.get("params", {}).get("_meta", {})}
    keys |= {key for message in both_ways(spoken) for key in message.get("result", {}).get("_meta", {})}
    known = ("protocolVersion", "clientInfo", "clientCapabilities", "logLevel", "serverInfo", "subscriptionId")
    # What a revision has no place for is kept under the name that the specification has for it.
    own = keys - {"progressToken", "structuredContent", *(META + key for key in known)}
    label = r"[A-Za-z](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
    for key in own:
        assert re.fullmatch(rf"(?:{label}\.)*minimcp/[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?", key), key


def test_progress_has_the_token_of_its_request_and_rises(spoken):
    (asked,) = [m["params"] for m in spoken[1].posted if (m.get("params") or {}).get("name") == "count"]
    told = [m["params"] for _, m in spoken[1].said if m.get("method") == "notifications/progress"]
    told = [params for params in told if params["progressToken"] == asked["_meta"]["progressToken"]]
    assert [(params["progress"], params["total"]) for params in told] == [(1, 3), (2, 3), (3, 3)]
    assert all(type(params["progressToken"]) is type(asked["_meta"]["progressToken"]) for params in told)


def test_a_resource_is_read_by_its_uri_alone(spoken):
    reads = [message["params"] for message in spoken[1].posted if message.get("method") == "resources/read"]
    for params in reads:
        params.pop("_meta", None)
    assert reads == [{"uri": "library://books/9789100"}, {"uri": "library://nowhere"}]


def test_closing_a_subscription_over_http_closes_its_stream_and_sends_nothing():
    wire = Wire(build())
    with Client(wire, mode=MODERN) as client:
        with client.listen(tools=True):
            pass
        client.call_tool("lookup", title="a")
    assert [message["method"] for message in wire.posted][:3] == [
        *("server/discover", "subscriptions/listen", "tools/call")
    ]
    assert not [message for message in wire.posted if "id" not in message]


def test_structured_content_is_there_as_text_too(spoken):
    answers = {message["id"]: message["result"] for _, message in spoken[1].said if "result" in message}
    found = [
        answers[message["id"]] for message in spoken[1].posted if (message.get("params") or {}).get("name") == "lookup"
    ]
    assert len(found) == 1
    assert found[0]["content"] == [{"type": "text", "text": '{"copies":6}'}]
    if spoken[0] >= "2025-06-18":
        assert found[0]["structuredContent"] == {"copies": 6}
