"""Any JSON message, in both eras, over every door: one answer to a request, and none to anything else."""

from __future__ import annotations

import json
import os
import threading

import pytest
from werkzeug.test import Client

from minimcp import Server
from minimcp.protocol import wire
from minimcp.protocol.errors import McpError
from minimcp.transports.stdio import StdioLoop
from tests.held import HELLO
from tests.helpers import BOTH

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

EXAMPLES = int(os.environ.get("MINIMCP_FUZZ_EXAMPLES", "60"))
VERSION = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"

bounded = settings(
    max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
)
names = st.sampled_from(
    ["name", "uri", "arguments", "cursor", "_meta", "ref", "argument", "context", "value", "level", "requestId"]
    + ["notifications", "resourceSubscriptions", "toolsListChanged", "protocolVersion", "capabilities", "clientInfo"]
    + ["inputResponses", "requestState", "progressToken", "type", "id", "method", "params", VERSION, CAPABILITIES]
)
values = st.recursive(
    scalars | st.sampled_from(["t", "p", "a://1", "ref/prompt", "2025-11-25", "2026-07-28", "debug"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | st.text(max_size=3), inner, max_size=4),
    max_leaves=8,
)
methods = st.sampled_from(
    ["initialize", "ping", "tools/list", "tools/call", "resources/list", "resources/read", "resources/subscribe"]
    + ["resources/unsubscribe", "resources/templates/list", "prompts/list", "prompts/get", "completion/complete"]
    + ["logging/setLevel", "server/discover", "notifications/cancelled", "notifications/initialized"]
    + ["notifications/x", "nonsense", ""]
)
metas = st.fixed_dictionaries(
    {}, optional={VERSION: st.just("2026-07-28") | values, CAPABILITIES: st.just({}) | values}
)
params = st.dictionaries(names, values, max_size=5).flatmap(
    lambda found: st.just(found) | metas.map(lambda meta: {**found, "_meta": meta})
)
near = st.fixed_dictionaries(
    {"method": methods},
    optional={
        "jsonrpc": st.just("2.0") | st.just("2.0") | st.just("2.0") | values,
        "id": st.integers(0, 5) | st.text(max_size=3) | values,
        "params": params | params | values,
        "result": values,
        "error": values,
    },
)
answers = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0"), "id": st.sampled_from(["s1", 1, None]) | values},
    optional={"result": values, "error": values},
)
messages = near | near.map(lambda found: {"jsonrpc": "2.0", **found}) | answers | values
batches = messages | st.lists(messages, max_size=3)


def made() -> Server:
    server = Server("s", "1", secret="0123456789abcdef")
    server.tool(lambda: "x", "t")
    server.prompt(lambda: "x", "p")
    server.resource("a://1")(lambda: "x")
    server.completion("p", "a")(lambda value, arguments: [value])
    return server


def is_request(message) -> bool:
    """Whether a message is surely a request, which must be answered under its id."""
    try:
        return wire.check(message) == "request"
    except McpError:
        return False


def judge(message, reply) -> None:
    """Hold a reply in memory against what JSON-RPC says of it."""
    if isinstance(message, list):
        replies = [] if reply is None else reply if isinstance(reply, list) else [reply]
        for each in replies:
            assert ("result" in each) != ("error" in each)
        if isinstance(reply, list):
            asked = [each["id"] for each in message if is_request(each)]
            heard = [each["id"] for each in reply if "id" in each]
            assert all(heard.count(id) >= asked.count(id) for id in asked)
            assert len(reply) <= len(message)
        return
    if is_request(message):
        assert reply["id"] == message["id"] and type(reply["id"]) is type(message["id"])
    elif wire.is_notification(message):
        assert reply is None
    if reply is not None:
        assert reply["jsonrpc"] == "2.0" and ("result" in reply) != ("error" in reply)
        assert "error" not in reply or isinstance(reply["error"]["code"], int)


@bounded
@given(batches, st.sampled_from([None, "", "2024-11-05", "2025-03-26", "2025-11-25"]))
def test_in_memory(message, version) -> None:
    server = made()
    session = None if version is None else server.engine.open_session()
    if version:
        hello = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {**HELLO, "protocolVersion": version}}
        assert server.handle(hello, session=session)["result"]
    judge(message, server.handle(message, session=session))
    server.close()


@bounded
@given(batches, st.sampled_from(["", "2025-03-26", "2025-11-25"]), st.booleans())
def test_over_http(message, version, named) -> None:
    server = made()
    client = Client(server.wsgi)
    headers = {"Content-Type": "application/json", "Accept": BOTH}
    if version:
        params = {**HELLO, "protocolVersion": version}
        hello = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
        opened = client.post("/mcp", data=json.dumps(hello), headers=headers)
        headers["Mcp-Session-Id"] = opened.headers["Mcp-Session-Id"]
    if named and isinstance(message, dict):
        method = str(message.get("method", "")).encode("ascii", "ignore").decode()
        headers.update({"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": method})
    response = client.post("/mcp", data=json.dumps(message), headers=headers)
    assert response.status_code < 500
    reply = json.loads(response.data) if response.data else None
    if is_request(message):
        # Refused for its HTTP part it may lack an id; otherwise it has the request's.
        assert reply is not None and reply.get("id", message["id"]) == message["id"]
    elif wire.is_notification(message) and reply is not None:
        assert response.status_code >= 400 and "error" in reply and "id" not in reply
    server.close()


class Lines:
    """A stdio loop whose every line is followed by a ping, so that it is known what it answered."""

    def __init__(self) -> None:
        (self._in, self._ours), (out, self._back) = os.pipe(), os.pipe()
        self.loop = StdioLoop(made().engine, self._in, self._back)
        self._thread = threading.Thread(target=self.loop.run, daemon=True)
        self._thread.start()
        self._out = os.fdopen(out, "rb")

    def say(self, message) -> list:
        ping = {"jsonrpc": "2.0", "id": "the end of it", "method": "ping"}
        os.write(self._ours, json.dumps(message).encode() + b"\n" + json.dumps(ping).encode() + b"\n")
        found = []
        while True:
            found.append(json.loads(self._out.readline()))
            if isinstance(found[-1], dict) and found[-1].get("id") == ping["id"]:
                return found[:-1]

    def close(self) -> None:
        os.close(self._ours)
        self._thread.join(10)
        self.loop.close()
        for end in (self._in, self._back):
            os.close(end)
        self._out.close()


def test_over_stdio() -> None:
    lines = Lines()

    @bounded
    @given(messages.filter(lambda message: not (isinstance(message, dict) and message.get("id") == "the end of it")))
    def run(message) -> None:
        # What a subscription brings is no answer.
        heard = [each for each in lines.say(message) if "method" not in each]
        assert len(heard) <= 1
        judge(message, heard[0] if heard else None)

    try:
        run()
    finally:
        lines.close()
