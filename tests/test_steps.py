"""Step by step: what is sent by hand, what is received, the states, and the rules that a wrong order breaks."""

from __future__ import annotations

import contextlib
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from minimcp import Client, ConnectionLost, Context, HTTPStatus, ProtocolError, RemoteError, Server, Timeout
from tests.helpers import modern, serving
from tests.played import INITIALIZED, Fault, Scripted

ROOT = Path(__file__).resolve().parent.parent
HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "me", "version": "1"}}


def build():
    made = Server("s", "1")

    @made.tool
    def add(a: int, b: int) -> int:
        return a + b

    @made.tool
    def count(ctx: Context) -> str:
        ctx.progress(1, 2)
        ctx.log("info", "half way")
        return "done"

    @made.tool
    def ask(ctx: Context) -> str:
        return str(ctx.elicit("How many?", {"n": int})["n"])

    return made


server = build()


def request(method, id=1, **params):
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}


@contextlib.contextmanager
def manual(door, **options):
    """A client that does nothing by itself, behind each door."""
    with contextlib.ExitStack() as stack:
        if door == "memory":
            target = build()
        elif door == "stdio":
            command = [sys.executable, "-m", "minimcp", "run", f"{__file__}:server"]
            target = {"command": command[0], "args": command[1:], "env": {"PYTHONPATH": str(ROOT)}}
        elif door == "wsgi":
            target = build().wsgi
        else:
            target = {"type": door, "url": stack.enter_context(over_http()) + ("/sse" if door == "sse" else "/mcp")}
        yield stack.enter_context(Client(target, auto=False, **options))


@contextlib.contextmanager
def over_http():
    made = build()
    with serving(made.wsgi) as url:
        yield url
        made.close()


ALL = pytest.mark.parametrize("door", ["memory", "stdio", "http", "sse", "wsgi"])
PIPES = pytest.mark.parametrize("door", ["memory", "stdio"])


@ALL
def test_a_legacy_server_step_by_step(door):
    with manual(door) as client:
        assert client.state == "new"
        client.start()
        assert client.state == "started"
        assert client.initialize("2024-11-05" if door == "sse" else "2025-06-18")["serverInfo"]["name"] == "s"
        assert client.state == "initializing"
        client.initialized()
        assert client.state == "ready"
        client.send(request("tools/call", "mine", name="add", arguments={"a": 1, "b": 2}))
        found = client.receive(20)
        assert found["id"] == "mine" and found["result"]["content"][0]["text"] == "3"
        assert {tool["name"] for tool in client.list_tools()} == {"add", "ask", "count"}
        assert client.call_tool("add", a=2, b=3).text == "5"
    assert client.state == "closed"


@pytest.mark.parametrize("door", ["memory", "stdio", "http", "wsgi"])
def test_a_modern_server_step_by_step(door):
    with manual(door) as client:
        client.start()
        assert client.discover()["supportedVersions"][-1] == "2026-07-28"
        assert client.state == "discovered"
        client.send(modern("tools/call", "mine", name="add", arguments={"a": 1, "b": 2}))
        found = client.receive(20)
        assert found["id"] == "mine" and found["result"]["content"][0]["text"] == "3"
        assert client.call_tool("add", a=2, b=3).text == "5"
        assert client.protocol_version == "2026-07-28"


@pytest.mark.parametrize("door", ["memory", "stdio", "http", "wsgi"])
def test_everything_can_be_said_by_hand_and_is_received_in_order(door):
    with manual(door) as client:
        client.start()
        client.send(request("initialize", 0, **{**HELLO, "capabilities": {"elicitation": {}}}))
        assert client.receive(20)["result"]["protocolVersion"] == "2025-11-25"
        client.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        client.send(request("logging/setLevel", 1, level="debug"))
        assert client.receive(20) == {"jsonrpc": "2.0", "id": 1, "result": {}}
        client.send(request("tools/call", 2, name="count", _meta={"progressToken": "p"}))
        said = [client.receive(20) for _ in range(3)]
        assert [each.get("method") for each in said] == ["notifications/progress", "notifications/message", None]
        client.send(request("tools/call", 3, name="ask"))
        question = client.receive(20)
        assert question["method"] == "elicitation/create"
        client.send({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"n": 7}}})
        assert client.receive(20)["result"]["content"][0]["text"] == "7"
        assert client.state == "started"


@pytest.mark.parametrize("door", ["memory", "stdio", "http"])
def test_nonsense_is_sent_as_it_is_and_its_answer_received(door):
    with manual(door) as client:
        client.start()
        for wrong in ({"hello": "world"}, {"jsonrpc": "1.0", "id": 1, "method": "ping"}, {}):
            client.send(wrong)
            assert client.receive(20)["error"]["code"] == -32600
        client.send({"jsonrpc": "2.0", "id": 5, "method": ["tools/list"]})
        found = client.receive(20)
        assert found["error"]["code"] == -32600 and found["id"] == 5


def test_over_http_a_wrong_header_can_be_sent_on_purpose():
    seen = []
    with manual("http", trace=seen.append) as client:
        client.start()
        client.send(modern("tools/list"), headers={"Mcp-Method": "tools/call"})
        assert client.receive(20)["error"]["code"] == -32020
        client.send(modern("tools/list"))
        assert "result" in client.receive(20)
    sent = [each["http"]["headers"]["Mcp-Method"] for each in seen if each["direction"] == "sent"]
    assert sent == ["tools/call", "tools/list"]
    assert [each["http"]["status"] for each in seen if each["direction"] == "received"] == [400, 200]


def test_a_reply_that_is_no_message_is_an_error_of_receive():
    def app(environ, start_response):
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"nothing here"]

    with serving(app) as url, Client(url + "/mcp", auto=False) as client:
        client.start()
        client.send(modern("tools/list"))
        with pytest.raises(HTTPStatus, match="HTTP 404 .*nothing here"):
            client.receive(20)
        with pytest.raises(HTTPStatus):
            client.send({"jsonrpc": "2.0", "method": "notifications/initialized"})


@PIPES
def test_questions_that_come_while_a_method_waits_are_for_the_callbacks(door):
    with manual(door, elicit=lambda question: {"n": 4}) as client:
        client.start()
        client.initialize()
        client.initialized()
        assert client.call_tool("ask").text == "4"
        with pytest.raises(Timeout, match="The server sent nothing in 0 s"):
            client.receive(0)


def test_an_id_that_was_used_by_hand_is_not_used_again():
    seen = []
    with manual("memory", trace=seen.append) as client:
        client.start()
        client.discover()
        client.send(modern("tools/list", 7))
        client.send(modern("tools/list", 1))
        assert [client.receive(5)["id"] for _ in range(2)] == [7, 1]
        client.list_tools()
    assert [each["message"]["id"] for each in seen if each["direction"] == "sent"] == [1, 7, 1, 8]


WRONG = [
    ([], "send", r"send\(\) cannot come while the client is 'new': call start\(\) first.*TRN-009"),
    ([], "receive", "call start.. first.*TRN-009"),
    ([], "discover", "TRN-009"),
    ([], "initialize", "TRN-009"),
    ([], "initialized", "TRN-009"),
    ([], "list_tools", "TRN-009"),
    ([], "open", "TRN-009"),
    (["start"], "start", "it was started already"),
    (["start"], "initialized", 'call initialize.. first, "after a successful answer send .*BASE-098'),
    (["start"], "list_tools", "This cannot come while the client is 'started': call discover.*TRN-028.*BASE-099"),
    (["start", "initialize"], "initialize", '"initialize is the first interaction" .BASE-096'),
    (["start", "initialize"], "discover", '"probe with server/discover before any other request" .TRN-028'),
    (["start", "initialize"], "list_tools", "call initialized.. first.*BASE-098"),
    (["start", "initialize", "initialized"], "initialized", "BASE-098"),
    (["start", "initialize", "initialized"], "initialize", "BASE-096"),
    (["start", "initialize", "initialized"], "discover", "TRN-028"),
    (["start", "discover"], "initialize", '"modern revisions have no handshake" .BASE-106'),
    (["start", "discover"], "initialized", "BASE-106"),
    (["start", "discover"], "discover", "TRN-028"),
]


@pytest.mark.parametrize(("before", "step", "rule"), WRONG, ids=lambda value: str(value)[:30])
def test_the_wrong_order_is_refused_with_the_rule(before, step, rule):
    with manual("memory") as client:
        for each in before:
            getattr(client, each)()
        state = client.state
        arguments = [{"jsonrpc": "2.0", "method": "x"}] if step == "send" else []
        with pytest.raises(ProtocolError, match=rule):
            getattr(client, step)(*arguments)
        assert client.state == state


def old(path, reply):
    """A server that answers any request in the same way, or not at all."""
    path.write_text(
        textwrap.dedent(f"""
            import json, sys
            for line in sys.stdin:
                message = json.loads(line)
                reply = {reply!r}
                if message["method"] == "initialize":
                    reply = {{"result": {{"protocolVersion": "2025-03-26", "capabilities": {{}}, "serverInfo": {{}}}}}}
                if reply and "id" in message:
                    print(json.dumps({{"jsonrpc": "2.0", "id": message["id"], **reply}}), flush=True)
        """)
    )
    return [sys.executable, str(path)]


@pytest.mark.parametrize("reply", [{"error": {"code": -32601, "message": "no"}}, None])
def test_a_legacy_server_that_is_asked_the_modern_way_is_known_by_it(tmp_path, reply):
    with Client(old(tmp_path / "old.py", reply), auto=False, probe_timeout=0.3) as client:
        client.start()
        with pytest.raises(ProtocolError, match=r"legacy era, call initialize\(\).*BASE-089"):
            client.discover()
        assert client.state == "started"
        assert client.initialize()["protocolVersion"] == "2025-03-26"
        client.initialized()
        assert client.protocol_version == "2025-03-26"


def test_a_refused_step_can_be_taken_again():
    def moody(params, say):
        if len(server.heard) == 1:
            raise Fault(-32602, "not now")
        return INITIALIZED

    server = Scripted(initialize=moody)
    with Client(server, auto=False) as client:
        client.start()
        with pytest.raises(RemoteError, match="not now"):
            client.initialize()
        assert client.state == "started"
        client.initialize()
        client.initialized()
        assert client.state == "ready"
    assert [message["method"] for message in server.heard] == ["initialize"] * 2 + ["notifications/initialized"]


def test_a_server_that_dies_is_lost_for_receive_too(tmp_path):
    (tmp_path / "die.py").write_text("import sys; sys.stdin.readline(); sys.exit(3)")
    with Client([sys.executable, str(tmp_path / "die.py")], auto=False) as client:
        client.start()
        client.send(request("ping"))
        for _ in range(2):
            with pytest.raises(ConnectionLost, match="3"):
                client.receive(20)
        assert client.state == "lost"
        with pytest.raises(ConnectionLost):
            client.send(request("ping"))


def test_closing_wakes_who_receives_and_the_steps_can_begin_anew():
    with manual("memory") as client:
        client.start()
        waiting = threading.Timer(0.1, client.close)
        waiting.start()
        with pytest.raises(ConnectionLost, match="The client was closed"):
            client.receive(20)
        waiting.join()
        assert client.state == "closed"
        with pytest.raises(ConnectionLost):
            client.list_tools()
        client.start()
        client.discover()
        assert client.call_tool("add", a=1, b=1).text == "2"


def test_a_session_that_is_over_is_begun_anew_by_hand():
    made = build()
    with serving(made.wsgi) as url, Client(url + "/mcp", auto=False) as client:
        client.start()
        client.initialize()
        client.initialized()
        assert client.call_tool("add", a=1, b=1).text == "2"
        made.close()
        with pytest.raises(ProtocolError, match="'started': call discover"):
            client.call_tool("add", a=1, b=1)
        assert client.state == "started"
        client.initialize()
        client.initialized()
        assert client.call_tool("add", a=1, b=1).text == "2"
        made.close()


def test_a_client_that_goes_by_itself_has_no_steps():
    with Client(build()) as client:
        for step in (client.start, client.receive, client.discover, client.initialize, client.initialized):
            with pytest.raises(ProtocolError, match="make it with auto=False"):
                step()
        with pytest.raises(ProtocolError, match="make it with auto=False"):
            client.send({})


def test_a_flood_of_notifications_is_bounded(tmp_path):
    said = '{"jsonrpc": "2.0", "method": "notifications/message", "params": {}}\\n'
    (tmp_path / "flood.py").write_text(
        f"import sys\nsys.stdout.write('{said}' * 5000)\nsys.stdin.readline()\n"
        """print('{"jsonrpc": "2.0", "id": 1, "result": {}}', flush=True)\nsys.stdin.readline()\n"""
    )
    with Client([sys.executable, str(tmp_path / "flood.py")], auto=False) as client:
        client.start()
        client.send(request("ping"))
        count = 0
        while "method" in client.receive(20):
            count += 1
        assert 0 < count <= 5000 and len(next(iter(client._connections.values()))._heard) <= 1000
