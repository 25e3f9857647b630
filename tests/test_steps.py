"""Step by step: what is sent by hand, what is received, the states, and the rules that a wrong order breaks."""

from __future__ import annotations

import contextlib
import queue
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from minimcp import Client, ConnectionLost, Context, HTTPStatus, ProtocolError, RemoteError, Server, Steps, Timeout
from tests.embedded import wait_until
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
    """A client that does nothing by itself, over each transport."""
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
        # A process needs a while to start, and one that is late is taken for one of the legacy era.
        yield stack.enter_context(Steps(target, **{"probe_timeout": 60, **options}))


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
    with manual(door) as steps:
        assert steps.state == "new"
        steps.start()
        assert steps.state == "started"
        assert steps.initialize("2024-11-05" if door == "sse" else "2025-06-18")["serverInfo"]["name"] == "s"
        assert steps.state == "initializing"
        steps.initialized()
        assert steps.state == "ready"
        steps.send(request("tools/call", "mine", name="add", arguments={"a": 1, "b": 2}))
        found = steps.receive(20)
        assert found["id"] == "mine" and found["result"]["content"][0]["text"] == "3"
        client = steps.client()
        assert steps.state == "handed over" and client.state == "open"
        assert {tool["name"] for tool in client.list_tools()} == {"add", "ask", "count"}
        assert client.call_tool("add", a=2, b=3).text == "5"
    assert steps.state == client.state == "closed"


@pytest.mark.parametrize("door", ["memory", "stdio", "http", "wsgi"])
def test_a_modern_server_step_by_step(door):
    with manual(door) as steps:
        steps.start()
        assert steps.discover()["supportedVersions"][-1] == "2026-07-28"
        assert steps.state == "discovered"
        steps.send(modern("tools/call", "mine", name="add", arguments={"a": 1, "b": 2}))
        found = steps.receive(20)
        assert found["id"] == "mine" and found["result"]["content"][0]["text"] == "3"
        client = steps.client()
        assert client.call_tool("add", a=2, b=3).text == "5"
        assert client.protocol_version == "2026-07-28" and client.server_info["name"] == "s"


@pytest.mark.parametrize("door", ["memory", "stdio", "http", "wsgi"])
def test_everything_can_be_said_by_hand_and_is_received_in_order(door):
    with manual(door) as steps:
        steps.start()
        steps.send(request("initialize", 0, **{**HELLO, "capabilities": {"elicitation": {}}}))
        assert steps.receive(20)["result"]["protocolVersion"] == "2025-11-25"
        steps.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        steps.send(request("logging/setLevel", 1, level="debug"))
        assert steps.receive(20) == {"jsonrpc": "2.0", "id": 1, "result": {}}
        steps.send(request("tools/call", 2, name="count", _meta={"progressToken": "p"}))
        said = [steps.receive(20) for _ in range(3)]
        assert [each.get("method") for each in said] == ["notifications/progress", "notifications/message", None]
        steps.send(request("tools/call", 3, name="ask"))
        question = steps.receive(20)
        assert question["method"] == "elicitation/create"
        steps.send({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"n": 7}}})
        assert steps.receive(20)["result"]["content"][0]["text"] == "7"
        assert steps.state == "started"


@pytest.mark.parametrize("door", ["memory", "stdio", "http"])
def test_nonsense_is_sent_as_it_is_and_its_answer_received(door):
    with manual(door) as steps:
        steps.start()
        for wrong in ({"hello": "world"}, {"jsonrpc": "1.0", "id": 1, "method": "ping"}, {}):
            steps.send(wrong)
            assert steps.receive(20)["error"]["code"] == -32600
        steps.send({"jsonrpc": "2.0", "id": 5, "method": ["tools/list"]})
        found = steps.receive(20)
        assert found["error"]["code"] == -32600 and found["id"] == 5


def test_over_http_a_wrong_header_can_be_sent_on_purpose():
    seen = []
    with manual("http", trace=seen.append) as steps:
        steps.start()
        steps.send(modern("tools/list"), headers={"Mcp-Method": "tools/call"})
        assert steps.receive(20)["error"]["code"] == -32020
        steps.send(modern("tools/list"))
        assert "result" in steps.receive(20)
    sent = [each["http"]["headers"]["Mcp-Method"] for each in seen if each["direction"] == "sent"]
    assert sent == ["tools/call", "tools/list"]
    assert [each["http"]["status"] for each in seen if each["direction"] == "received"] == [400, 200]


def test_a_reply_that_is_no_message_is_an_error_of_receive():
    def app(environ, start_response):
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"nothing here"]

    with serving(app) as url, Steps(url + "/mcp") as steps:
        steps.start()
        steps.send(modern("tools/list"))
        with pytest.raises(HTTPStatus, match="HTTP 404 .*nothing here"):
            steps.receive(20)
        with pytest.raises(HTTPStatus):
            steps.send({"jsonrpc": "2.0", "method": "notifications/initialized"})


@pytest.mark.parametrize("door", ["memory", "stdio", "http", "wsgi"])
def test_after_the_hand_over_questions_are_for_the_callbacks(door):
    with manual(door, capabilities={"elicitation": {}}) as steps:
        steps.start()
        steps.initialize()
        steps.initialized()
        assert steps.client(elicit=lambda question: {"n": 4}).call_tool("ask").text == "4"
        with pytest.raises(ProtocolError, match=r"'handed over': client\(\) handed the connection to a Client"):
            steps.receive(0)


@PIPES
def test_a_receive_without_a_message_times_out(door):
    with manual(door) as steps:
        steps.start()
        steps.discover()
        for seconds in (0, 0.01):
            with pytest.raises(Timeout, match=f"The server sent nothing in {seconds} s"):
                steps.receive(seconds)


@PIPES
def test_requests_that_were_not_received_are_answered_after_the_hand_over(door):
    notices = queue.Queue()
    with manual(door, capabilities={"elicitation": {}}) as steps:
        steps.start()
        steps.initialize()
        steps.initialized()
        steps.send(request("tools/call", 7, name="ask"))
        wait_until(lambda: not steps._heard.empty())
        client = steps.client(elicit=lambda question: notices.put(question.message) or {"n": 4})
        assert notices.get(timeout=20) == "How many?"
        assert client.call_tool("add", a=1, b=1).text == "2"


def test_an_id_that_was_used_by_hand_is_not_used_again():
    seen = []
    with manual("memory", trace=seen.append) as steps:
        steps.start()
        steps.discover()
        steps.send(modern("tools/list", 7))
        steps.send(modern("tools/list", 1))
        assert [steps.receive(20)["id"] for _ in range(2)] == [7, 1]
        steps.client().list_tools()
    assert [each["message"]["id"] for each in seen if each["direction"] == "sent"] == [1, 7, 1, 8]


WRONG = [
    ([], "send", r"send\(\) cannot come while the client is 'new': call start\(\) first.*TRN-009"),
    ([], "receive", "call start.. first.*TRN-009"),
    ([], "discover", "TRN-009"),
    ([], "initialize", "TRN-009"),
    ([], "initialized", "TRN-009"),
    ([], "client", "TRN-009"),
    (["start"], "start", "it was started already"),
    (["start"], "initialized", 'call initialize.. first, "after a successful answer send .*BASE-098'),
    (["start"], "client", r"client\(\) cannot come while the client is 'started': call discover.*TRN-028.*BASE-099"),
    (["start", "initialize"], "initialize", '"initialize is the first interaction" .BASE-096'),
    (["start", "initialize"], "discover", '"probe with server/discover before any other request" .TRN-028'),
    (["start", "initialize"], "client", "call initialized.. first.*BASE-098"),
    (["start", "initialize", "initialized"], "initialized", "BASE-098"),
    (["start", "initialize", "initialized"], "initialize", "BASE-096"),
    (["start", "initialize", "initialized"], "discover", "TRN-028"),
    (["start", "discover"], "initialize", '"modern revisions have no handshake" .BASE-106'),
    (["start", "discover"], "initialized", "BASE-106"),
    (["start", "discover"], "discover", "TRN-028"),
    (["start", "discover"], "start", "it was started already"),
    (["start", "discover", "client"], "send", "handed the connection to a Client"),
    (["start", "discover", "client"], "discover", "handed the connection to a Client"),
    (["start", "discover", "client"], "client", "handed the connection to a Client"),
]


@pytest.mark.parametrize(("before", "step", "rule"), WRONG, ids=lambda value: str(value)[:30])
def test_the_wrong_order_is_refused_with_the_rule(before, step, rule):
    with manual("memory") as steps:
        for each in before:
            getattr(steps, each)()
        state = steps.state
        arguments = [{"jsonrpc": "2.0", "method": "x"}] if step == "send" else []
        with pytest.raises(ProtocolError, match=rule):
            getattr(steps, step)(*arguments)
        assert steps.state == state


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
    with Steps(old(tmp_path / "old.py", reply), probe_timeout=0.3) as steps:
        steps.start()
        with pytest.raises(ProtocolError, match=r"legacy era, call initialize\(\).*BASE-089"):
            steps.discover()
        assert steps.state == "started"
        assert steps.initialize()["protocolVersion"] == "2025-03-26"
        steps.initialized()
        assert steps.client().protocol_version == "2025-03-26"


def test_a_refused_step_can_be_taken_again():
    def moody(params, say):
        if len(server.heard) == 1:
            raise Fault(-32602, "not now")
        return INITIALIZED

    server = Scripted(initialize=moody)
    with Steps(server) as steps:
        steps.start()
        with pytest.raises(RemoteError, match="not now"):
            steps.initialize()
        assert steps.state == "started"
        steps.initialize()
        steps.initialized()
        assert steps.state == "ready"
    assert [message["method"] for message in server.heard] == ["initialize"] * 2 + ["notifications/initialized"]


def test_a_server_that_dies_is_lost_for_receive_too(tmp_path):
    (tmp_path / "die.py").write_text("import sys; sys.stdin.readline(); sys.exit(3)")
    with Steps([sys.executable, str(tmp_path / "die.py")]) as steps:
        steps.start()
        steps.send(request("ping"))
        for _ in range(2):
            with pytest.raises(ConnectionLost, match="3"):
                steps.receive(20)
        assert steps.state == "lost"
        with pytest.raises(ConnectionLost):
            steps.send(request("ping"))


def test_closing_wakes_who_receives_and_the_steps_can_begin_anew():
    with manual("memory") as steps:
        steps.start()
        waiting = threading.Timer(0.1, steps.close)
        waiting.start()
        with pytest.raises(ConnectionLost, match="The connection was closed"):
            steps.receive(20)
        waiting.join()
        assert steps.state == "closed"
        with pytest.raises(ConnectionLost):
            steps.client()
        steps.start()
        steps.discover()
        assert steps.client().call_tool("add", a=1, b=1).text == "2"


def add(steps):
    steps.send(request("tools/call", "add", name="add", arguments={"a": 1, "b": 1}))
    return steps.receive(20)["result"]["content"][0]["text"]


def test_a_session_that_is_over_is_begun_anew_by_hand():
    made = build()
    with serving(made.wsgi) as url, Steps(url + "/mcp") as steps:
        steps.start()
        steps.initialize()
        steps.initialized()
        assert add(steps) == "2"
        made.close()
        with pytest.raises(ConnectionLost, match="no longer knows the session"):
            add(steps)
        assert steps.state == "started"
        steps.initialize()
        made.close()
        with pytest.raises(ConnectionLost, match="no longer knows the session"):
            steps.initialized()
        assert steps.state == "started"
        steps.initialize()
        steps.initialized()
        assert add(steps) == "2"
        client = steps.client()
        made.close()
        assert client.call_tool("add", a=1, b=1).text == "2"
        made.close()


def test_a_client_has_no_steps():
    for step in ("start", "send", "receive", "discover", "initialize", "initialized"):
        assert not hasattr(Client, step)


def test_an_option_that_there_is_not_is_refused():
    with pytest.raises(TypeError, match="Steps has no option 'elicit'"):
        Steps(build(), elicit=print)


def test_a_flood_of_notifications_is_bounded(tmp_path):
    said = '{"jsonrpc": "2.0", "method": "notifications/message", "params": {}}\\n'
    (tmp_path / "flood.py").write_text(
        f"import sys\nsys.stdout.write('{said}' * 5000)\nsys.stdin.readline()\n"
        """print('{"jsonrpc": "2.0", "id": 1, "result": {}}', flush=True)\nsys.stdin.readline()\n"""
    )
    with Steps([sys.executable, str(tmp_path / "flood.py")]) as steps:
        steps.start()
        steps.send(request("ping"))
        count = 0
        while "method" in steps.receive(20):
            count += 1
        assert 0 < count <= 5000 and steps._heard.qsize() <= 1000
