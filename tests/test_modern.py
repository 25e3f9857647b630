"""The modern era: everything from this message's `_meta`, nothing from before, and listen streams."""

from __future__ import annotations

import threading

import pytest

from minimcp import Context, McpError, Principal, Server
from tests.helpers import Legacy, modern, problem, result

VERSION = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
INFO = "io.modelcontextprotocol/clientInfo"
TAG = "io.modelcontextprotocol/subscriptionId"


@pytest.fixture
def server():
    server = Server("s", "1")
    server.tool(lambda: "x", "t")
    server.resource("a://1")(lambda: "x")
    server.resource("b://{id}")(lambda id: "x")
    return server


def raw(server, params, method="tools/list"):
    return server.handle({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})


@pytest.mark.parametrize(
    "meta, code",
    [
        ({VERSION: "2026-07-28"}, -32602),
        ({VERSION: 5, CAPABILITIES: {}}, -32602),
        ({VERSION: None, CAPABILITIES: {}}, -32602),
        ({VERSION: "2026-07-28", CAPABILITIES: None}, -32602),
        ({VERSION: "2026-07-28", CAPABILITIES: []}, -32602),
        ({VERSION: "2026-07-28", CAPABILITIES: {}, INFO: "me"}, -32602),
        ({VERSION: "2099-01-01", CAPABILITIES: {}}, -32022),
        ({VERSION: "2025-11-25", CAPABILITIES: {}}, -32022),
        ({VERSION: "", CAPABILITIES: {}}, -32022),
        ({VERSION: "2026-07-28", CAPABILITIES: {}, "io.modelcontextprotocol/logLevel": "loud"}, -32602),
    ],
)
def test_what_a_request_must_say_is_checked(server, meta, code):
    for method in ("tools/list", "server/discover", "subscriptions/listen", "tools/call"):
        assert raw(server, {"_meta": meta}, method)["error"]["code"] == code


def test_an_unsupported_version_is_answered_with_those_that_are_served(server):
    error = raw(server, {"_meta": {VERSION: "2025-11-25", CAPABILITIES: {}}})["error"]
    assert error["data"] == {"supported": ["2026-07-28"], "requested": "2025-11-25"}
    assert "initialize" in error["message"]


def test_client_info_is_optional_and_unknown_members_are_tolerated(server):
    assert result(server, "tools/list")["tools"]
    meta = {"com.example/x": [1], "baggage": "a=b", INFO: {"name": "c", "version": "1", "nonsense": 5}}
    assert result(server, "tools/list", meta=meta)["tools"]


def test_every_result_has_its_type_and_the_servers_identity(server):
    server.prompt(lambda: "x", "p")
    server.completion("p", "a")(lambda value, arguments: [])
    calls = {
        "server/discover": {},
        "tools/list": {},
        "tools/call": {"name": "t"},
        "resources/list": {},
        "resources/templates/list": {},
        "resources/read": {"uri": "a://1"},
        "prompts/list": {},
        "prompts/get": {"name": "p"},
        "completion/complete": {"ref": {"type": "ref/prompt", "name": "p"}, "argument": {"name": "a", "value": ""}},
    }
    hinted = set()

    @server.tool
    def ask(ctx: Context) -> str:
        return ctx.list_roots()[0]["uri"]

    asked = result(server, "tools/call", name="ask", capabilities={"roots": {}})
    assert asked["resultType"] == "input_required" and asked["inputRequests"] == {"q1": {"method": "roots/list"}}
    for method, params in calls.items():
        found = result(server, method, **params)
        assert found["resultType"] == "complete"
        assert found["_meta"] == {"io.modelcontextprotocol/serverInfo": {"name": "s", "version": "1"}}
        if "ttlMs" in found:
            assert type(found["ttlMs"]) is int and found["ttlMs"] >= 0 and found["cacheScope"] == "private"
            hinted.add(method)
    assert hinted == {
        "server/discover",
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "resources/read",
    }


@pytest.mark.parametrize(
    "method",
    ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe", "tasks/get", "x", ""],
)
def test_methods_of_the_handshake_era_do_not_exist(server, method):
    assert problem(server, method) == {"code": -32601, "message": f"Method not found: {method}"}


@pytest.mark.parametrize("code", [-32002, -32042])
def test_codes_of_the_older_era_never_leave(server, code):
    page = {"mode": "url", "message": "Pay", "url": "https://pay.example", "elicitationId": "e1"}
    data = {"elicitations": [page]}

    def refuse() -> str:
        raise McpError("no", data, code=code)

    server.tool(refuse, "refuse")
    server.resource("a://2")(refuse)
    for method, params in (("tools/call", {"name": "refuse"}), ("resources/read", {"uri": "a://2"})):
        assert problem(server, method, **params) == {"code": -32602, "message": "no", "data": data}
        assert Legacy(server).problem(method, **params)["code"] == code


def test_nothing_is_remembered_between_requests(server):
    first = result(server, "tools/list", capabilities={"sampling": {}})
    session = Legacy(server, "2024-11-05").session
    assert server.handle(modern("tools/list"), session=session)["result"] == first
    assert raw(server, {})["error"]["code"] == -32600


def test_ids_come_back_as_they_are(server):
    for id in (0, "0", "", -1, 2**60, "ü"):
        reply = server.handle(modern("tools/list", id))
        assert reply["id"] == id and type(reply["id"]) is type(id)


def test_a_notification_is_never_answered(server):
    for method in ("tools/list", "notifications/cancelled", "notifications/initialized", "nonsense"):
        message = modern(method)
        del message["id"]
        assert server.handle(message) is None


class Listening:
    """A listen stream on a thread of its own."""

    def __init__(self, server, id=1, meta=None, **notifications):
        self.heard, self._changed = [], threading.Condition()
        self.session = server.engine.open_session()
        message = modern("subscriptions/listen", id, notifications=notifications, meta=meta)
        self.reply = None
        self.server = server
        # A test that fails does not keep the process: the thread ends with it.
        self._thread = threading.Thread(target=self._run, args=(message,), daemon=True)
        self._thread.start()
        self.wait(1)

    def _run(self, message):
        self.reply = self.server.handle(message, self._hear, self.session)

    def _hear(self, message):
        with self._changed:
            self.heard.append(message)
            self._changed.notify_all()

    def wait(self, count):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.heard) >= count, 10), self.heard
        return self.heard[count - 1]

    def join(self):
        self._thread.join(10)
        assert not self._thread.is_alive()
        return self.reply


@pytest.mark.parametrize("id", [7, "7"])
def test_a_stream_is_acknowledged_first_tagged_throughout_and_ended_gracefully(server, id):
    stream = Listening(server, id, toolsListChanged=True, resourceSubscriptions=["a://1", "b://9", "c://1"])
    acknowledged = stream.wait(1)
    assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
    assert acknowledged["params"]["_meta"] == {TAG: id} and type(acknowledged["params"]["_meta"][TAG]) is type(id)
    assert acknowledged["params"]["notifications"] == {
        "toolsListChanged": True,
        "resourceSubscriptions": ["a://1", "b://9"],
    }
    server.changed("prompts")
    server.changed("resources")
    server.updated("c://1")
    server.changed("tools")
    assert stream.wait(2)["method"] == "notifications/tools/list_changed"
    server.updated("b://9")
    assert stream.wait(3) == {
        "jsonrpc": "2.0",
        "method": "notifications/resources/updated",
        "params": {"_meta": {TAG: id}, "uri": "b://9"},
    }
    server.close()
    reply = stream.join()
    assert stream.heard[3:] == [
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"_meta": {TAG: id}, "requestId": id}}
    ]
    assert reply["id"] == id and reply["result"]["resultType"] == "complete"
    assert reply["result"]["_meta"][TAG] == id and type(reply["result"]["_meta"][TAG]) is type(id)


def test_a_cancelled_stream_says_nothing_more_and_frees_its_place(server):
    stream = Listening(server, 5, toolsListChanged=True)
    cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}}
    server.handle(cancel, session=stream.session)
    assert stream.join() is None
    server.changed("tools")
    assert len(stream.heard) == 1 and server.engine._streams == set() and server.engine.bus._listeners == ()


def test_every_stream_gets_its_own_copy(server):
    streams = [Listening(server, id, toolsListChanged=True) for id in (1, 2, "1")]
    server.changed("tools")
    assert [stream.wait(2)["params"]["_meta"][TAG] for stream in streams] == [1, 2, "1"]
    server.close()
    assert [stream.join()["id"] for stream in streams] == [1, 2, "1"]


def test_what_belongs_to_a_call_never_comes_on_a_listen_stream(server):
    @server.tool
    def loud(ctx: Context) -> str:
        ctx.progress(1)
        ctx.log("error", "x")
        return "x"

    meta = {"progressToken": 1, "io.modelcontextprotocol/logLevel": "debug"}
    stream = Listening(server, 1, meta, toolsListChanged=True)
    own = []
    assert "result" in server.handle(modern("tools/call", 2, name="loud", meta=meta), own.append, stream.session)
    assert [message["method"] for message in own] == ["notifications/progress", "notifications/message"]
    server.changed("tools")
    assert stream.wait(2)["method"] == "notifications/tools/list_changed"
    server.close()
    stream.join()
    assert len(stream.heard) == 3


def test_only_what_is_offered_is_honoured(server):
    stream = Listening(server, 1, toolsListChanged=False, promptsListChanged=True, resourceSubscriptions=[])
    assert stream.wait(1)["params"]["notifications"] == {"resourceSubscriptions": []}
    # Nothing is left to wait for, so the server ends it.
    assert stream.join()["result"]["resultType"] == "complete"


@pytest.mark.parametrize(
    "notifications",
    [
        None,
        [],
        "x",
        {"toolsListChanged": 1},
        {"toolsListChanged": "yes"},
        {"resourceSubscriptions": "a://1"},
        {"resourceSubscriptions": [5]},
        {"resourceSubscriptions": ["not a uri"]},
        {"resourceSubscriptions": ["a://1"] * 1001},
    ],
)
def test_a_filter_that_is_none_is_refused(server, notifications):
    assert problem(server, "subscriptions/listen", notifications=notifications)["code"] == -32602


def test_a_hidden_resource_is_left_out_like_one_that_is_not_there(server):
    server.resource("secret://1", allow=lambda ctx: ctx.principal == Principal("ann"))(lambda: "x")
    stream = Listening(server, 1, resourceSubscriptions=["secret://1", "a://1"])
    assert stream.wait(1)["params"]["notifications"] == {"resourceSubscriptions": ["a://1"]}
    server.close()
    stream.join()
