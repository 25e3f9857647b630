"""The hook around every request: it sees who asked for what and how it ended, refused requests too, and may refuse."""

from __future__ import annotations

import collections
import io
import json
import threading
from contextlib import contextmanager

import pytest

from minimcp import Context, McpError, Principal, Server, ToolError
from minimcp.protocol import errors
from tests.helpers import Legacy, exchange, http_headers, modern, problem, result, serving


class Watched:
    """A server whose hook keeps what it saw."""

    def __init__(self, **options):
        self.seen = []
        self.server = Server("s", around_request=self.around, **options)
        self.server.tool(lambda: "x", "t")

    @contextmanager
    def around(self, outcome):
        assert outcome.reply is None and outcome.duration_s == 0.0
        yield
        assert outcome.duration_s > 0
        self.seen.append(outcome)

    def __call__(self, message, **more):
        reply = self.server.handle(message, **more)
        (outcome,) = self.seen
        assert outcome.reply == reply
        self.seen.clear()
        return outcome


@pytest.fixture
def watched():
    return Watched()


def test_a_request_is_seen_with_its_reply(watched):
    outcome = watched(modern("tools/call", name="t"), principal="ann")
    assert (outcome.method, outcome.name, outcome.error) == ("tools/call", "t", None)
    assert outcome.principal == Principal("ann")
    assert outcome.reply["result"]["content"][0]["text"] == "x"
    assert outcome.ctx.version == "2026-07-28"
    watched.server.resource("a://1")(lambda: "x")
    assert watched(modern("resources/read", uri="a://1")).name == "a://1"
    assert watched(modern("tools/list")).name is None


@pytest.mark.parametrize(
    "message, method, code",
    [
        (modern("nonsense"), "nonsense", -32601),
        (modern("tools/call", name="other"), "tools/call", -32602),
        (modern("tools/call", name=5), "tools/call", -32602),
        ({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, "tools/list", -32600),
        ({"jsonrpc": "1.0", "id": 1, "method": "tools/list"}, "tools/list", -32600),
        ({"jsonrpc": "2.0", "id": 1, "method": 5, "params": 5}, None, -32600),
        ("no object", None, -32600),
        ([], None, -32600),
    ],
)
def test_a_refused_request_is_seen_too(watched, message, method, code):
    outcome = watched(message)
    assert (outcome.method, outcome.error["code"]) == (method, code)


def test_a_failing_tool_is_seen(watched):
    @watched.server.tool
    def fail() -> str:
        raise ToolError("no")

    outcome = watched(modern("tools/call", name="fail"))
    assert outcome.error is None and outcome.reply["result"]["isError"] is True


def test_what_http_refuses_is_seen(watched):
    def post(body, **headers):
        environ = {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": "/mcp",
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
            "HTTP_HOST": "localhost",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_MCP_PROTOCOL_VERSION": "2026-07-28",
            **headers,
        }
        list(watched.server.wsgi(environ, lambda status, headers: None))
        return watched.seen.pop()

    assert post(b"{").error["code"] == -32700
    call = json.dumps(modern("tools/call", name="t")).encode()
    mismatch = post(call, HTTP_MCP_METHOD="tools/call", HTTP_MCP_NAME="other")
    assert (mismatch.method, mismatch.name, mismatch.error["code"]) == ("tools/call", "t", -32020)
    assert post(call, HTTP_MCP_METHOD="tools/call", HTTP_MCP_NAME="t").error is None


def test_a_hook_may_count_and_stop_callers_that_are_refused():
    """A limit of failed sign-ins by address, with what the hook is given."""
    failures, seen = collections.Counter(), []

    @contextmanager
    def limit(outcome):
        address = outcome.request["REMOTE_ADDR"]
        if failures[address] >= 2:
            problem = McpError("Too many tries", code=-31000)
            problem.http = (429, [("Retry-After", "60")])
            raise problem
        yield
        seen.append(outcome.http)
        if outcome.http is not None and outcome.http[0] == 401:
            failures[address] += 1

    def authenticate(request):
        if request.token != "right":
            raise errors.Unauthorized("A token is needed")
        return "ann"

    server = Server("s", auth=authenticate, around_request=limit)
    message = modern("server/discover")
    found = []
    with serving(server.wsgi) as url:
        for token in ("right", "wrong", "wrong", "wrong", "right"):
            with exchange(url + "/mcp", message, http_headers(message, Authorization=f"Bearer {token}")) as response:
                found.append((response.status, response.headers["Retry-After"]))
                response.read()
    assert found == [(200, None), (401, None), (401, None), (429, "60"), (429, "60")]
    challenge = 'Bearer error="invalid_token", error_description="A token is needed"'
    unauthorized = (401, [("WWW-Authenticate", challenge)])
    assert seen == [None, unauthorized, unauthorized]


def test_a_stream_is_seen_once_at_its_end(watched):
    sent = []
    thread = threading.Thread(
        target=lambda: sent.append(
            watched.server.handle(modern("subscriptions/listen", notifications={"toolsListChanged": True}), hear)
        )
    )
    acknowledged = threading.Event()

    def hear(message):
        sent.append(message["method"])
        acknowledged.set()

    thread.start()
    assert acknowledged.wait(10) and watched.seen == []
    watched.server.close()
    thread.join(10)
    (outcome,) = watched.seen
    assert outcome.method == "subscriptions/listen" and outcome.reply == sent[-1]


def test_a_stream_that_its_client_leaves_has_no_reply(watched):
    call = watched.server.engine.call(modern("subscriptions/listen", notifications={"toolsListChanged": True}))
    messages = call.messages()
    next(messages)
    call.cancel("the client has gone")
    messages.close()
    (outcome,) = watched.seen
    assert outcome.reply is None and watched.server.engine._streams == set()


def test_a_cancelled_call_has_no_reply(watched):
    @watched.server.tool
    def tool(ctx: Context) -> str:
        cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}}
        watched.server.handle(cancel, session=session)
        return "x"

    session = watched.server.engine.open_session()
    outcome = watched(modern("tools/call", 5, name="tool"), session=session)
    assert outcome.reply is None and outcome.error is None and outcome.duration_s > 0


def test_the_members_of_a_batch_are_seen_one_by_one(watched):
    session = Legacy(watched.server, "2025-03-26")
    watched.seen.clear()
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    session.server.handle([ping, {"id": 2}, {**ping, "id": 3}], session=session.session)
    assert [(outcome.method, outcome.error is None) for outcome in watched.seen] == [
        (None, False),
        ("ping", True),
        ("ping", True),
    ]


def test_it_may_refuse_and_nothing_runs():
    ran = []

    @contextmanager
    def limit(outcome):
        if outcome.method == "tools/call" and outcome.principal is None:
            raise McpError("Too many requests", {"retry": 5}, code=-31000)
        yield

    server = Server("s", around_request=limit)
    server.tool(lambda: ran.append(1), "t")
    assert problem(server, "tools/call", name="t") == {
        "code": -31000,
        "message": "Too many requests",
        "data": {"retry": 5},
    }
    assert ran == []
    assert "result" in server.handle(modern("tools/call", name="t"), principal="ann") and ran == [1]


def test_a_hook_that_fails_is_an_internal_error(caplog):
    def broken(outcome):
        raise RuntimeError("no")

    server = Server("s", around_request=broken)
    assert problem(server, "tools/list") == {
        "code": -32603,
        "message": 'Internal error; the logger "minimcp" of the server has the details',
    }
    assert problem(server, "subscriptions/listen", notifications={})["code"] == -32603
    assert server.handle({"id": 1})["error"]["code"] == -32603
    assert caplog.text.count("RuntimeError: no") == 3


def test_it_is_around_the_handler_for_tracing():
    steps = []

    @contextmanager
    def trace(outcome):
        steps.append("in")
        yield
        steps.append("out")

    server = Server("s", around_request=trace)
    server.tool(lambda: steps.append("tool"), "t")
    result(server, "tools/call", name="t")
    assert steps == ["in", "tool", "out"]


def test_an_error_carries_its_http_status_and_headers():
    challenge = 'Bearer error="insufficient_scope", scope="write"'

    def refuse() -> str:
        raise errors.Forbidden("You may not write", challenge)

    server = Server("s")
    server.tool(refuse, "t")
    call = server.engine.call(modern("tools/call", name="t"))
    assert call.http is None
    assert call.run()["error"] == {"code": -32600, "message": "You may not write"}
    assert call.http == (403, [("WWW-Authenticate", challenge)])
    assert errors.Forbidden("no").http == (403, [])
    assert errors.Unauthorized("who?").http == (401, [("WWW-Authenticate", "Bearer")])
    assert McpError("plain").http is None


def test_such_errors_survive_pickling():
    import pickle

    for error in (errors.Forbidden("no", "Bearer x", [1]), errors.Unauthorized("who?", "Basic", {"a": 1})):
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error) and (copy.message, copy.data, copy.http) == (
            error.message,
            error.data,
            error.http,
        )
