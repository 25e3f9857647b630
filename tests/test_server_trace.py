"""The trace of a server: it records what a client's trace does, from the other end, over every transport."""

from __future__ import annotations

import io
import json
import sys

import pytest

from minimcp import Client, Context, Server, Steps
from tests.embedded import wait_until
from tests.helpers import BOTH, events, exchange, http_headers, modern, post, serving
from tests.transports import ROOT

SECRET = "hunter2-hunter2-hunter2"
SOURCE = """
from minimcp import Context, Server

def build(**options):
    server = Server("s", "1", **options)

    @server.tool
    def add(a: int, b: int) -> int:
        return a + b

    @server.tool
    def ask(ctx: Context) -> str:
        ctx.progress(1, 2)
        return str(ctx.elicit("How many?", {"n": int})["n"])

    @server.tool
    def fail() -> str:
        raise RuntimeError("no")

    return server

server = build()
"""


def build(**options) -> Server:
    found: dict = {}
    exec(SOURCE, found)
    return found["build"](**options)


def told(records):
    """Who said what, with each message as text, in an order that threads cannot change."""
    return sorted((each["direction"], json.dumps(each["message"], sort_keys=True)) for each in records)


def mirrored(records):
    turned = {"sent": "received", "received": "sent"}
    # An HTTP reply without a message is not one that the server sends.
    return told([{**each, "direction": turned[each["direction"]]} for each in records if each["message"]])


def converse(target, mode, seen, **options):
    with Client(target, mode=mode, trace=seen.append, elicit=lambda question: {"n": 3}, **options) as client:
        client.list_tools()
        assert client.call_tool("add", a=1, b=2).text == "3"
        client.call_tool("ask", {}, progress=lambda progress: None)
        assert client.call_tool("fail").is_error


MODES = pytest.mark.parametrize("mode", ["2026-07-28", "2025-11-25", "2025-06-18"])


@MODES
def test_in_memory_both_ends_record_the_same(mode):
    ours, theirs = [], []
    converse(build(trace=ours.append), mode, theirs)
    assert told(ours) == mirrored(theirs)
    assert {each["transport"] for each in ours} == {"memory"}
    assert all("answers" in each and each["ms"] >= 0 for each in ours if "method" not in each["message"])


@MODES
def test_over_http_both_ends_record_the_same(mode):
    ours, theirs = [], []
    server = build(trace=ours.append)
    with serving(server.wsgi) as url:
        converse(url + "/mcp", mode, theirs, headers={"Authorization": f"Bearer {SECRET}"})
        server.close()
    assert told(ours) == mirrored(theirs)
    assert {each["transport"] for each in ours} == {"http"}
    assert all("answers" in each for each in ours if "method" not in each["message"])
    received = [each["http"] for each in ours if each["direction"] == "received"]
    assert {each["method"] for each in received} == {"POST"}
    assert received[-1]["headers"]["Content-Type"] == "application/json"
    assert SECRET not in json.dumps(ours) and received[-1]["headers"]["Authorization"] == "[redacted]"
    if mode != "2026-07-28":
        assert received[-1]["headers"]["Mcp-Session-Id"] == "[redacted]"


def test_over_http_sse_both_ends_record_the_same():
    ours, theirs = [], []
    server = build(trace=ours.append)
    with serving(server.wsgi) as url:
        with Client({"type": "sse", "url": url + "/sse"}, mode="legacy", trace=theirs.append) as client:
            assert client.call_tool("add", a=1, b=2).text == "3"
        server.close()
    assert told(ours) == mirrored(theirs)
    assert {each["transport"] for each in ours} == {"sse"}


@MODES
def test_run_records_a_process_from_within(mode, tmp_path):
    (tmp_path / "it.py").write_text(SOURCE)
    command = [sys.executable, "-m", "minimcp", "run", str(tmp_path / "it.py"), f"--trace={tmp_path / 'trace'}"]
    theirs = []
    converse({"command": command[0], "args": command[1:], "env": {"PYTHONPATH": str(ROOT)}}, mode, theirs)
    ours = [json.loads(line) for line in (tmp_path / "trace").read_text().splitlines()]
    assert told(ours) == mirrored(theirs)
    assert {each["transport"] for each in ours} == {"stdio"}
    assert all("answers" in each for each in ours if "method" not in each["message"])


def test_run_shows_the_trace_on_standard_error(tmp_path):
    (tmp_path / "it.py").write_text(SOURCE)
    lines = []
    target = {"command": sys.executable, "args": ["-m", "minimcp", "run", "--trace", str(tmp_path / "it.py")]}
    with Client({**target, "env": {"PYTHONPATH": str(ROOT)}}, mode="2026-07-28", stderr=lines.append) as client:
        client.call_tool("add", a=1, b=2)
        wait_until(lambda: len(lines) >= 4)
    methods = [json.loads(line)["message"].get("method") for line in lines]
    assert methods[:4] == ["server/discover", None, "tools/call", None]


def test_a_change_that_a_session_is_told_of_is_recorded():
    ours, theirs, changed = [], [], []
    server = build(trace=ours.append)
    with Client(server, mode="2025-11-25", trace=theirs.append, on_notification=changed.append):
        server.tool(lambda: "x", "later")
        wait_until(lambda: changed)
    assert ours[-1]["message"] == {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
    assert told(ours) == mirrored(theirs)


def test_a_listen_stream_is_recorded_to_its_end():
    seen = []
    server = build(trace=seen.append)
    message = modern("subscriptions/listen", notifications={"toolsListChanged": True})
    with serving(server.wsgi) as url, exchange(url + "/mcp", message, http_headers(message)) as response:
        came = events(response)
        first = next(came)
        server.tool(lambda: "x", "later")
        second = next(came)
        server.close()
        read = [first, second, *came]
    said = ["notifications/subscriptions/acknowledged", "notifications/tools/list_changed", "notifications/cancelled"]
    assert [each.get("method") for each in read] == [*said, None]
    assert [each["message"] for each in seen] == [message, *read]
    assert seen[-1]["answers"]["method"] == "subscriptions/listen"


def test_both_ends_record_a_listen_stream():
    ours, theirs = [], []
    server = build(trace=ours.append)
    with serving(server.wsgi) as url, Client(url + "/mcp", mode="2026-07-28", trace=theirs.append) as client:
        with client.listen(tools=True) as changes:
            server.tool(lambda: "x", "later")
            next(iter(changes))
            server.close()
            assert not list(changes)
    # The client hangs up at the cancellation, mostly before the result that follows it.
    assert set(mirrored(theirs)) <= set(told(ours))


def test_what_is_refused_is_recorded_too():
    seen = []
    server = build(trace=seen.append)
    wrong = {"jsonrpc": "2.0", "id": 1}
    assert server.handle(wrong)["error"]["code"] == -32600
    assert server.handle(modern("no/such"))["error"]["code"] == -32601
    assert [each["message"] for each in seen[::2]] == [wrong, modern("no/such")]
    assert [each["message"]["error"]["code"] for each in seen[1::2]] == [-32600, -32601]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "known"),
    [
        ("PUT", "/mcp", {}, 405, False),
        ("POST", "/nothing", {}, 404, False),
        ("POST", "/mcp", {"Content-Type": "text/plain"}, 415, False),
        ("POST", "/mcp", {"Host": "evil.example"}, 403, False),
        ("POST", "/mcp", {"Mcp-Method": "tools/call"}, 400, True),
        ("POST", "/mcp", {"MCP-Protocol-Version": "2025-11-25", "Mcp-Session-Id": SECRET}, 400, True),
    ],
)
def test_a_request_that_http_refuses_is_recorded(method, path, headers, status, known):
    seen = []
    with serving(build(trace=seen.append).wsgi) as url:
        message = modern("tools/list")
        with exchange(url + path, message, {**http_headers(message), **headers}, method) as response:
            assert response.status == status
            body = json.loads(response.read())
    one, two = seen
    assert one["direction"] == "received" and one["message"] == (message if known else None)
    assert one["http"]["method"] == method and SECRET not in json.dumps(seen)
    assert two["direction"] == "sent" and two["message"] == body
    assert known or two["http"] == {"status": status}


def test_a_session_that_is_not_known_is_recorded_with_its_status():
    seen = []
    with serving(build(trace=seen.append).wsgi) as url:
        ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        headers = {"Content-Type": "application/json", "Accept": BOTH, "Mcp-Session-Id": "unknown"}
        with exchange(url + "/mcp", ping, headers) as response:
            assert response.status == 404
    assert seen[0]["message"] == ping and seen[1]["http"] == {"status": 404}


def test_bytes_that_are_no_message_are_recorded_without_one(tmp_path):
    seen = []
    with serving(build(trace=seen.append).wsgi) as url:
        assert post(url + "/mcp", modern("tools/list"))[0] == 200
        with exchange(url + "/mcp", None, {"Content-Type": "application/json", "Accept": BOTH}) as response:
            assert response.status == 400
    assert seen[2]["message"] is None and seen[3]["message"]["error"]["code"] == -32700
    assert seen[3]["http"] == {"status": 400}
    (tmp_path / "it.py").write_text(SOURCE)
    command = [sys.executable, "-m", "minimcp", "run", str(tmp_path / "it.py"), f"--trace={tmp_path / 'trace'}"]
    with Steps({"command": command[0], "args": command[1:], "env": {"PYTHONPATH": str(ROOT)}}) as steps:
        steps.start()
        steps.send(["x" * 10])
        assert steps.receive(20)["error"]["code"] == -32600
    lines = [json.loads(line) for line in (tmp_path / "trace").read_text().splitlines()]
    assert [line["message"] if "error" not in line["message"] else "error" for line in lines] == [["x" * 10], "error"]


def test_each_message_of_a_batch_has_its_record():
    seen = []
    server = build(trace=seen.append)
    sent = []
    session = server.engine.open_session(sent.append)
    hello = {"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
    server.handle({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}, session=session)
    batch = [{"jsonrpc": "2.0", "id": id, "method": "ping"} for id in (1, 2)] + [{"jsonrpc": "2.0", "id": 3}]
    replies = server.handle(batch, session=session)
    assert [each["message"] for each in seen[2:]] == batch + replies and len(replies) == 3
    answered = [each["answers"] for each in seen[2:] if "result" in each["message"]]
    assert answered == [{"id": 1, "method": "ping"}, {"id": 2, "method": "ping"}]


def test_equal_ids_of_two_clients_are_not_confused():
    seen = []
    server = build(trace=seen.append)
    slow = server.engine.call(modern("tools/call", 1, name="add", arguments={"a": 1, "b": 2}))
    server.handle(modern("tools/list", 1))
    slow.run()
    assert [each["answers"]["method"] for each in seen if "answers" in each] == ["tools/list", "tools/call"]


def test_without_a_trace_a_call_is_what_it_was():
    server = build()
    assert type(server.engine.call(modern("tools/list"))).__name__ == "Call"


def test_the_places_to_write_to_are_those_of_the_client(tmp_path, capsys):
    file = io.StringIO()
    for trace in (True, tmp_path / "trace", file):
        build(trace=trace).handle(modern("tools/list"))
    written = [capsys.readouterr().err, (tmp_path / "trace").read_text(), file.getvalue()]
    assert [len(text.splitlines()) for text in written] == [2, 2, 2]
    with pytest.raises(TypeError, match="trace must be True, a path, a file or a callable"):
        build(trace=1)


def test_a_context_is_the_same_with_and_without_a_trace():
    made = Server("s", "1", trace=lambda record: None)
    got = []

    @made.tool
    def look(ctx: Context) -> str:
        got.append(ctx.cancelled.is_set())
        return "x"

    call = made.engine.call(modern("tools/call", name="look"))
    assert call.interactive and not call.streams and call.id == 1
    call.deadline = 5.0
    call.cancel("enough")
    assert call.run(None) is None and got == [True]
