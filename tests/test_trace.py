"""The trace: what a record holds, what it hides, and where it goes."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import requests

from minimcp import Client, ClientError, Context, RemoteError, Server
from minimcp.engines import trace as tracing
from minimcp.protocol.redaction import NAMES
from tests.helpers import serving

ROOT = Path(__file__).resolve().parent.parent
SECRET = "hunter2-hunter2-hunter2"


def recorder(trace):
    return tracing.recorder(trace, NAMES)


def server():
    made = Server("s", "1")

    @made.tool
    def add(a: int, b: int) -> int:
        return a + b

    @made.tool
    def ask(ctx: Context) -> str:
        return str(ctx.elicit("How many?", {"n": int}))

    return made


def records(trace):
    return [json.loads(line) for line in trace.getvalue().splitlines()]


def test_a_call_is_two_records_that_belong_together():
    seen = []
    with Client(server(), mode="2026-07-28", trace=seen.append) as client:
        assert client.call_tool("add", a=1, b=2).data == 3
    sent, received = seen[2:4]
    assert sent["direction"] == "sent" and received["direction"] == "received"
    assert sent["transport"] == received["transport"] == "memory"
    assert sent["message"]["params"]["arguments"] == {"a": 1, "b": 2}
    assert received["message"]["result"]["structuredContent"] == 3
    assert received["answers"] == {"id": sent["message"]["id"], "method": "tools/call"}
    assert received["ms"] >= 0
    assert "answers" not in sent and "ms" not in sent and "http" not in sent
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", each["time"]) for each in seen)


def test_questions_of_a_legacy_server_are_matched_with_the_client_s_answers():
    seen = []
    with Client(
        server(), mode="2025-11-25", trace=seen.append, elicit=lambda question: {"n": 3}, validate=False
    ) as client:
        client.call_tool("ask")
    methods = [
        (each["direction"], each["message"].get("method"), each.get("answers", {}).get("method")) for each in seen
    ]
    assert methods == [
        ("sent", "initialize", None),
        ("received", None, "initialize"),
        ("sent", "notifications/initialized", None),
        ("sent", "tools/call", None),
        ("received", "elicitation/create", None),
        ("sent", None, "elicitation/create"),
        ("received", None, "tools/call"),
    ]


def test_a_process_is_traced_line_by_line_into_a_file_that_json_tool_reads(tmp_path):
    (tmp_path / "it.py").write_text("from minimcp import Server\ns = Server('s', '1')\ns.tool(lambda: 'x', 't')\n")
    path = tmp_path / "trace.jsonl"
    with Client(
        [sys.executable, "-m", "minimcp", "run", str(tmp_path / "it.py")], trace=path, validate=False
    ) as client:
        assert client.call_tool("t").text == "x"
    with Client(server(), trace=str(path)) as client:
        client.list_tools()
    assert path.stat().st_mode & 0o777 == 0o600
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [each["transport"] for each in lines] == ["stdio"] * 4 + ["memory"] * 4
    assert [each["direction"] for each in lines] == ["sent", "received"] * 4
    tool = [sys.executable, "-m", "json.tool", "--json-lines"]
    done = subprocess.run(tool, input=path.read_bytes(), capture_output=True, timeout=30)
    assert done.returncode == 0


def test_true_is_standard_error_as_it_is_at_the_time(capsys):
    client = Client(server(), trace=True)
    with client:
        pass
    lines = capsys.readouterr().err.splitlines()
    assert [json.loads(line)["message"].get("method") for line in lines] == ["server/discover", None]


def test_text_and_binary_files_get_one_ascii_line_for_each_record():
    text, binary = io.StringIO(), io.BytesIO()
    message = {"jsonrpc": "2.0", "method": "m", "params": {"x": "\x1b[31m\u2028\n\ud800å"}}
    for file in (text, binary):
        recorder(file).bind("stdio")("sent", message)
    assert text.getvalue().encode() == re.sub(rb'"time": "[^"]+"', b'"time": "T"', binary.getvalue()).replace(
        b'"T"', json.dumps(records(text)[0]["time"]).encode()
    )
    assert text.getvalue().count("\n") == 1 and text.getvalue().isascii()
    assert records(text)[0]["message"] == message


def test_what_http_knows_is_under_http():
    trace = io.StringIO()
    record = recorder(trace).bind("http")
    record("sent", {"id": 1, "method": "ping"}, method="POST", headers={"Accept": "*/*"})
    record("received", {"id": 1, "result": {}}, status=200, headers={"Content-Type": "application/json"})
    record("received", None, status=202, headers={})
    one, two, three = records(trace)
    assert one["http"] == {"method": "POST", "headers": {"Accept": "*/*"}}
    assert two["http"] == {"status": 200, "headers": {"Content-Type": "application/json"}}
    assert two["answers"] == {"id": 1, "method": "ping"}
    assert three["http"] == {"status": 202, "headers": {}} and three["message"] is None


def test_over_http_a_reply_without_a_message_is_recorded_too():
    seen = []
    with serving(server().wsgi) as url:
        with Client(url + "/mcp", mode="2025-11-25", trace=seen.append) as client:
            client.call_tool("add", a=1, b=2)
    received = [
        (each["http"]["status"], (each["message"] or {}).get("id")) for each in seen[:6] if "status" in each["http"]
    ]
    assert received == [(200, 1), (202, None), (200, 2)]
    sent = [each["http"] for each in seen if each["direction"] == "sent"]
    assert {each["method"] for each in sent} == {"POST"}
    assert sent[1]["headers"]["Mcp-Session-Id"] == "[redacted]"
    assert sent[1]["headers"]["MCP-Protocol-Version"] == "2025-11-25"

    def closed(environ, start_response):
        start_response("401 Unauthorized", [("WWW-Authenticate", 'Bearer scope="x"')])
        return [b""]

    seen.clear()
    with serving(closed) as url, pytest.raises(ClientError):
        Client(url + "/mcp", trace=seen.append, headers={"Authorization": f"Bearer {SECRET}"}).open()
    assert seen[0]["http"]["headers"]["Authorization"] == "[redacted]"
    assert seen[1]["message"] is None and seen[1]["http"]["status"] == 401
    assert seen[1]["http"]["headers"]["www-authenticate"] == 'Bearer scope="x"'


@pytest.mark.parametrize(
    "name",
    ["Authorization", "authorization", "Proxy-Authorization", "Cookie", "Set-Cookie", "DPoP", "MCP-Session-Id"]
    + ["X-Api-Key", "X-Auth-Token", "Mcp-Param-Password"],
)
def test_secret_headers_are_redacted(name):
    trace = io.StringIO()
    recorder(trace).bind("http")("sent", {"method": "m"}, method="POST", headers={name: SECRET, "Mcp-Method": "m"})
    assert records(trace)[0]["http"]["headers"] == {name: "[redacted]", "Mcp-Method": "m"}


@pytest.mark.parametrize(
    "message",
    [
        {"params": {"arguments": {"password": SECRET}}},
        {"params": {"arguments": {"db_Password": {"value": [SECRET]}}}},
        {"params": {"arguments": {"api_key": SECRET, "apiKey": SECRET, "API-KEY": SECRET}}},
        {"result": {"content": [{"type": "text", "text": '{"access_token": "' + SECRET + '"}'}]}},
        {"result": {"content": [{"type": "text", "text": '{"a":{"clientSecret":"' + SECRET + '\\"' + SECRET + '"}}'}]}},
        {"result": {"structuredContent": {"refresh_token": SECRET, "list": [{"client_secret": SECRET}]}}},
        {"params": {"uri": f"https://host/x?a=1&access_token={SECRET}&b=2"}},
        {"params": {"text": f"curl -H 'Authorization: Bearer {SECRET}'"}},
        {"result": {"tools": [{"inputSchema": {"properties": {"token": {"type": "string", "default": SECRET}}}}]}},
        {"params": {"arguments": {"inputSchema": {"password": SECRET}}}},
        {"params": {"_meta": {"authorization": SECRET}}},
    ],
    ids=str,
)
def test_secrets_in_messages_are_redacted(message):
    trace = io.StringIO()
    recorder(trace).bind("stdio")("sent", message)
    assert SECRET not in trace.getvalue() and "[redacted]" in trace.getvalue()


@pytest.mark.parametrize(
    "message",
    [
        {"id": 1, "method": "tools/call", "params": {"_meta": {"progressToken": 1}}},
        {"method": "notifications/progress", "params": {"progressToken": "a", "progress": 1}},
        {"id": 1, "method": "sampling/createMessage", "params": {"maxTokens": 100}},
        {"result": {"tools": [{"inputSchema": {"properties": {"token": {"type": "string", "title": "T"}}}}]}},
        {"result": {"tools": [{"inputSchema": {"properties": {"a": {}}, "required": ["password"]}}]}},
        {"params": {"password": None, "text": "a token=1, and ?page=2", "n": [1.5, True, None]}},
    ],
    ids=str,
)
def test_what_is_no_secret_is_recorded_as_it_is(message):
    trace = io.StringIO()
    recorder(trace).bind("stdio")("sent", message)
    assert records(trace)[0]["message"] == message


def test_a_record_is_a_copy():
    seen = []
    message = {"method": "m", "params": {"a": [1]}}
    recorder(seen.append).bind("memory")("sent", message)
    seen[0]["message"]["params"]["a"].append(2)
    assert message == {"method": "m", "params": {"a": [1]}}


def test_ids_of_different_types_are_different():
    trace = io.StringIO()
    record = recorder(trace).bind("stdio")
    for id in (1, "1"):
        record("sent", {"id": id, "method": f"m{id!r}"})
    record("received", {"id": 5, "method": "theirs"})
    record("received", {"id": True, "result": {}})
    record("received", {"id": [1], "result": {}})
    record("received", {"id": "1", "result": {}})
    record("received", {"id": 1, "error": {}})
    record("received", {"id": 1, "result": {}})
    record("sent", {"id": 5, "result": {}})
    found = [each.get("answers", {}).get("method") for each in records(trace)[3:]]
    assert found == [None, None, "m'1'", "m1", None, "theirs"]


def test_requests_that_are_never_answered_are_forgotten():
    made = recorder(lambda record: None)
    record = made.bind("stdio")
    for id in range(5000):
        record("sent", {"id": id, "method": "m"})
    assert len(made._unanswered().open) == 1000


def test_a_trace_that_fails_does_not_fail_the_call(caplog):
    def broken(record):
        raise OSError("disk full")

    with Client(server(), trace=broken) as client:
        for _ in range(5):
            assert client.call_tool("add", a=1, b=2).data == 3
    assert [each.message for each in caplog.records] == ["a message could not be recorded: OSError('disk full')"] * 3


def test_what_cannot_be_json_is_still_recorded():
    trace = io.StringIO()
    recorder(trace).bind("memory")("sent", {"a": float("nan"), "b": {1, 2}, "c": b"x"})
    assert records(trace)[0]["message"] == {"a": "nan", "b": "{1, 2}", "c": "b'x'"}
    deep = []
    for _ in range(100_000):
        deep = [deep]
    recorder(trace).bind("memory")("sent", {"a": deep})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_traces_although_a_thread_of_the_parent_was_at_it(tmp_path):
    code = """
import os, sys, threading
from minimcp.engines import trace
from minimcp.protocol.redaction import NAMES
made = trace.recorder(sys.argv[1], NAMES)
record = made.bind("stdio")
with made._unanswered().lock, trace._writing():
    pid = os.fork()
    if pid == 0:
        record("sent", {"id": 1, "method": "m"})
        trace.recorder(sys.stderr, NAMES).bind("stdio")("sent", {"id": 1, "method": "m"})
        os._exit(0)
print(os.waitpid(pid, 0)[1])
"""
    command = [sys.executable, "-c", code, str(tmp_path / "trace")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.stdout == "0\n" and len((tmp_path / "trace").read_text().splitlines()) == 1
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("wrong", [1, {"path": "x"}])
def test_anything_else_is_refused_at_once(wrong, tmp_path):
    with pytest.raises(TypeError, match="trace must be True, a path, a file or a callable"):
        Client(server(), trace=wrong)
    with pytest.raises(OSError):
        Client(server(), trace=tmp_path / "no" / "folder")


def test_threads_never_mix_their_lines(tmp_path):
    path = tmp_path / "trace.jsonl"
    trace = io.StringIO()
    both = [recorder(path).bind("a"), recorder(path).bind("b"), recorder(trace).bind("c"), recorder(trace).bind("d")]

    def work(record):
        for number in range(100):
            record("sent", {"id": number, "method": "m" * 500})

    threads = [threading.Thread(target=work, args=(record,)) for record in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(records(trace)) == 200
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 200


class Signed:
    """Credentials that sign with a header of their own."""

    def sign(self, method, url, headers):
        return {"X-Signature": "hunter2"}

    def answered(self, answers):
        return False


@pytest.mark.parametrize("kind", ["http", "wsgi", "session"])
def test_every_header_that_the_caller_brought_is_redacted(kind):
    server, records = Server("s"), []
    names = ("Ocp-Apim-Subscription-Key", "X-Functions-Key", "X-Auth", "Mcp-Thing", "User-Agent")
    options = {"headers": dict.fromkeys(names, "hunter2"), "trace": records.append}
    if kind == "session":
        options["session"] = requests.Session()
        options["session"].headers["X-Mine"] = "hunter2"
    else:
        options["auth"] = Signed()
    with serving(server.wsgi) as url, Client(server.wsgi if kind == "wsgi" else f"{url}/mcp", **options) as client:
        client.list_tools()
    sent = [record["http"]["headers"] for record in records if record["direction"] == "sent"]
    assert sent and "hunter2" not in json.dumps(records)
    for headers in sent:
        assert all(headers[name] == "[redacted]" for name in names)
        assert headers["Mcp-Method"] and headers["Content-Type"] == "application/json"


def test_headers_of_the_caller_are_redacted_on_both_addresses_of_http_sse():
    records = []
    server = Server("s")
    with serving(server.wsgi) as url:
        entry = {"url": f"{url}/sse", "type": "sse", "headers": {"X-Auth": "hunter2"}}
        with Client(entry, mode="legacy", trace=records.append) as client:
            client.ping()
    assert "hunter2" not in json.dumps(records)
    assert any(record.get("http", {}).get("headers", {}).get("X-Auth") == "[redacted]" for record in records)


def test_a_pretty_trace_is_a_short_line_for_each_message(capsys):
    server = Server("s")

    @server.tool
    def echo(text: str) -> str:
        return text

    with Client(server, trace="pretty") as client:
        client.call_tool("echo", text="h\xe9llo")
        client.call_tool("echo", text="x" * 1000)
        with pytest.raises(RemoteError):
            client.call_tool("ech", text="x")
    lines = capsys.readouterr().err.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d\.\d{3} (->|<-) #\d+ ", line) and len(line) <= 160 for line in lines)
    plain = [re.sub(r"^\S+ | \d+ ms", "", line) for line in lines]
    assert plain[0] == "-> #1 server/discover" and plain[1].startswith("<- #1 server/discover {")
    assert plain[2] == '-> #2 tools/call {"name": "echo", "arguments": {"text": "h\\u00e9llo"}}'
    assert plain[3].startswith('<- #2 tools/call {"content": [{"type": "text", "text": "h')
    assert any(line.endswith("xxx...") for line in plain)
    assert '{"code": -32602, "message": "Unknown tool: ech"}' in "\n".join(plain)


def test_a_pretty_trace_shows_what_is_no_message_and_plays_no_tricks(capsys):
    write = tracing.writer("pretty")
    head = {"time": "2026-07-28T09:30:00.125Z", "transport": "http"}
    write({**head, "direction": "sent", "message": None, "http": {"method": "DELETE"}})
    write({**head, "direction": "received", "message": None, "http": {"status": 202}})
    write({**head, "direction": "received", "message": {"method": "\x1b[31mred", "params": [1]}})
    assert capsys.readouterr().err == (
        "09:30:00.125 -> DELETE\n09:30:00.125 <- HTTP 202\n09:30:00.125 <- \\u001b[31mred [1]\n"
    )
