"""The small examples, each run as the file it is, over stdio; hello over HTTP as well."""

from __future__ import annotations

import base64
import itertools
import json
import sys

import pytest

from minimcp import CallCancelled, Client, RemoteError
from tests import transports
from tests.embedded import wait_until
from tests.helpers import Process, free_port, modern, post

ROOT = transports.ROOT
FORMS = {"elicitation": {"form": {}, "url": {}}, "sampling": {}}


@pytest.fixture
def example(request):
    """A conversation with the example that the test's parameter names."""
    with transports.Stdio(str(ROOT / "examples" / request.param)) as talk:

        def ask(method, id=1, **params):
            talk.send(modern(method, id, **params))
            return talk.receive()

        ask.talk = talk
        ask.result = lambda *more, **params: ask(*more, **params)["result"]
        ask.call = lambda name, meta=None, **arguments: ask.result("tools/call", name=name, arguments=arguments)
        yield ask


def of(file):
    return pytest.mark.parametrize("example", [file], indirect=True, ids=[""])


@of("hello.py")
def test_hello_knows_dates_and_lengths(example):
    assert example.call("days_between", start="2026-02-27", end="2026-03-01")["structuredContent"] == 2
    assert example.call("weekday", day="2026-07-28")["content"][0]["text"] == "Tuesday"
    counted = example.call("count", text="one two\nthree")["structuredContent"]
    assert counted == {"characters": 13, "words": 3, "lines": 2}
    lost = example.call("now", zone="Middle/Earth")
    assert lost["isError"] is True and lost["content"][0]["text"].startswith("There is no time zone")
    assert example.call("now")["content"][0]["text"].count("-") == 2


def test_hello_serves_http_and_prints_how_to_connect():
    command = [sys.executable, "-m", "minimcp", "run", "examples/hello.py", "--http", "0"]
    with Process(command, cwd=str(ROOT)) as process:
        url = process.wait_for(r"hello is listening on (http://127\.0\.0\.1:\d+/mcp)").group(1)
        status, reply = post(url, modern("tools/call", name="weekday", arguments={"day": "2026-07-28", "later": 1}))
        assert status == 200 and reply["result"]["content"] == [{"type": "text", "text": "Wednesday"}]
        config = json.loads(process.wait_for(r'^ *(\{"mcpServers".*"command".*\})').group(1))
        assert process.terminate() == 0
    hello = config["mcpServers"]["hello"]
    with transports.Stdio(*hello["args"]) as talk:
        talk.send(modern("tools/call", name="weekday", arguments={"day": "2026-07-28"}))
        assert talk.receive()["result"]["content"][0]["text"] == "Tuesday"


@of("resources.py")
def test_resources_are_fixed_templated_and_files(example):
    listed = example.result("resources/list")
    assert [each["uri"] for each in listed["resources"]] == ["atlas://countries"]
    assert listed["ttlMs"] == 60_000 and listed["cacheScope"] == "private"
    whole = example.result("resources/read", uri="atlas://countries")
    assert whole["contents"][0]["text"] == '["kenya","norway","peru"]' and whole["cacheScope"] == "public"
    assert example.result("resources/read", uri="atlas://countries/peru/capital")["contents"][0]["text"] == "Lima"
    assert example("resources/read", uri="atlas://countries/atlantis/capital")["error"]["code"] == -32602
    file = example.result("resources/read", uri="files://resources.py")["contents"][0]
    assert b"safe_join" in base64.b64decode(file["blob"])
    assert example("resources/read", uri="files://../setup.cfg")["error"]["code"] == -32602
    reference = {"type": "ref/resource", "uri": "atlas://countries/{country}/capital"}
    found = example.result("completion/complete", ref=reference, argument={"name": "country", "value": "n"})
    assert found["completion"]["values"] == ["norway"]


@of("prompts.py")
def test_prompts_have_arguments_messages_and_completion(example):
    (prompt,) = example.result("prompts/list")["prompts"]
    assert prompt["arguments"] == [
        {"name": "text", "required": True, "description": "What to rewrite."},
        {"name": "language", "required": False, "description": "The language to write in."},
    ]
    messages = example.result("prompts/get", name="rewrite", arguments={"text": "Hi", "language": "French"})["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[0]["content"]["resource"]["uri"] == "guide://style"
    assert messages[2]["content"]["text"] == "Rewrite this in French:\n\nHi"
    reference, argument = {"type": "ref/prompt", "name": "rewrite"}, {"name": "language", "value": "e"}
    found = example.result("completion/complete", ref=reference, argument=argument)["completion"]
    assert found["values"] == ["English", "Estonian"]


@of("ask.py")
def test_asking_works_by_retry_for_a_modern_client(example):
    call = {"name": "book_table", "arguments": {"restaurant": "Noma"}, "capabilities": FORMS}
    asked = example.result("tools/call", **call)
    fields = asked["inputRequests"]["q1"]["params"]["requestedSchema"]["properties"]
    assert fields["guests"] == {"type": "integer", "minimum": 1, "maximum": 12}
    assert fields["outside"] == {"type": "boolean", "default": False}
    answer = {"action": "accept", "content": {"guests": 8, "time": "20:00"}}
    more = example.result("tools/call", **call, requestState=asked["requestState"], inputResponses={"q1": answer})
    agreed = {"q2": {"action": "accept", "content": {"agree": True}}}
    done = example.result("tools/call", **call, requestState=more["requestState"], inputResponses=agreed)
    assert done["content"][0]["text"] == "Booked a table for 8 at 20:00."
    page = example.result("tools/call", name="sign_in", capabilities=FORMS)["inputRequests"]["q1"]["params"]
    assert page["mode"] == "url" and page["url"] == "https://restaurant.example/sign-in"


@of("ask.py")
def test_asking_works_by_request_for_an_older_client(example):
    talk = example.talk
    hello = {"protocolVersion": "2025-11-25", "capabilities": FORMS, "clientInfo": {"name": "c", "version": "1"}}
    talk.send({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello})
    talk.receive()
    call = {"name": "book_table", "arguments": {"restaurant": "Noma"}}
    talk.send({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call})
    question = talk.receive()
    assert question["method"] == "elicitation/create" and question["params"]["mode"] == "form"
    talk.send({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "decline"}})
    assert talk.receive()["result"]["content"][0]["text"] == "Nothing was booked: the person chose to decline."
    call = {"name": "summarize", "arguments": {"text": "A long story."}}
    talk.send({"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": call})
    question = talk.receive()
    assert question["method"] == "sampling/createMessage"
    written = {"role": "assistant", "content": {"type": "text", "text": "A story."}, "model": "m"}
    talk.send({"jsonrpc": "2.0", "id": question["id"], "result": written})
    assert talk.receive()["result"]["content"][0]["text"] == "A story."


@of("progress.py")
def test_progress_is_reported_and_a_cancelled_call_ends(example):
    talk = example.talk
    meta = {"progressToken": "p", "io.modelcontextprotocol/logLevel": "info"}
    talk.send(modern("tools/call", 1, name="find_primes", arguments={"below": 30}, meta=meta))
    assert talk.receive()["params"] == {"level": "info", "data": "sieving 30 numbers"}
    steps = [talk.receive()["params"] for _ in range(9)]
    assert [step["progress"] for step in steps] == [3, 6, 9, 12, 15, 18, 21, 24, 27]
    assert steps[0] == {"progressToken": "p", "progress": 3, "total": 30, "message": "looked at 3"}
    assert talk.receive()["result"]["structuredContent"] == [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]
    talk.send(modern("tools/call", 2, name="sleep", arguments={"seconds": 600}, meta=meta))
    assert talk.receive()["params"]["message"] == "falling asleep"
    talk.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}})
    wait_until(lambda: example.call("woken")["structuredContent"] == ["woken early"])
    assert talk.close() == []


@of("listen.py")
def test_a_listener_hears_of_new_and_changed_notes(example):
    talk = example.talk
    wanted = {"resourcesListChanged": True, "resourceSubscriptions": ["note://", "note://milk"]}
    talk.send(modern("subscriptions/listen", "L", notifications=wanted))
    # There is no note on milk yet, so that one is not honoured.
    assert talk.receive()["params"]["notifications"] == {
        "resourcesListChanged": True,
        "resourceSubscriptions": ["note://"],
    }
    talk.send(modern("tools/call", 1, name="write", arguments={"title": "milk", "text": "two"}))
    heard = [talk.receive() for _ in range(3)]
    assert {message.get("method") for message in heard} == {
        "notifications/resources/list_changed",
        "notifications/resources/updated",
        None,
    }
    assert all(
        message["params"]["_meta"] == {"io.modelcontextprotocol/subscriptionId": "L"}
        for message in heard
        if "method" in message
    )
    assert example.result("resources/read", 2, uri="note://milk")["contents"][0]["text"] == "two"
    assert example.result("resources/read", 3, uri="note://")["contents"][0]["text"] == '["milk"]'
    talk.send(modern("tools/call", 4, name="tear_up", arguments={"title": "milk"}))
    heard = [talk.receive() for _ in range(3)]
    assert [message["result"]["structuredContent"] for message in heard if "result" in message] == [True]
    assert example("resources/read", 5, uri="note://milk")["error"]["code"] == -32602


@of("structured.py")
def test_results_fit_the_schemas_their_hints_make(example):
    tools = {tool["name"]: tool for tool in example.result("tools/list")["tools"]}
    assert tools["forecast"]["outputSchema"]["type"] == "array"
    assert "outputSchema" not in tools["chart"]
    days = example.call("forecast", city="Bergen", days=2)["structuredContent"]
    assert days[1] == {"day": "2026-07-29", "sky": "rain", "degrees": 17.5, "warning": None}
    assert example.call("measure", text="a short text")["structuredContent"] == {"words": 3, "longest": "short"}
    assert example.call("parity", number=3)["structuredContent"] == {"odd": True}
    words, picture = example.call("chart", bars=[10, 20])["content"]
    assert words == {"type": "text", "text": "2 bars"} and picture["mimeType"] == "image/svg+xml"
    assert example.call("forecast", city="Oslo", days=8)["isError"] is True


@of("raw_wire.py")
def test_the_raw_wire_says_what_the_library_says(example):
    assert example.result("server/discover")["supportedVersions"] == ["2026-07-28"]
    assert example.result("tools/list")["tools"][0]["name"] == "add"
    assert example.call("add", a=1, b=2.5)["content"] == [{"type": "text", "text": "3.5"}]
    assert example.call("add", a="x")["isError"] is True
    assert example("tools/call", name="subtract")["error"]["code"] == -32602
    assert example("nonsense")["error"]["code"] == -32601
    example.talk.send({"jsonrpc": "2.0", "method": "notifications/nonsense"})
    example.talk.send({"jsonrpc": "2.0", "id": 9, "method": "tools/list", "params": {}})
    assert example.talk.receive() == {
        "jsonrpc": "2.0",
        "id": 9,
        "error": {"code": -32602, "message": "_meta must name the protocol version and the client's capabilities"},
    }


@of("tasks.py")
def test_tasks_go_on_after_their_call_was_answered(example):
    tasks = {"extensions": {"io.modelcontextprotocol/tasks": {}}}
    ids = itertools.count(100)

    def result(method, **params):
        return example.result(method, next(ids), capabilities={**FORMS, **tasks}, **params)

    def until(id, *statuses):
        tasks = []
        wait_until(lambda: tasks.append(result("tasks/get", taskId=id)) or tasks[-1]["status"] in statuses)
        return tasks[-1]

    made = result("tools/call", name="count_primes", arguments={"below": 5000})
    assert made["resultType"] == "task" and made["status"] == "working"
    assert until(made["taskId"], "completed")["result"]["structuredContent"] == 669
    letters = {"name": "send_letters", "arguments": {"names": ["Ann", "Bo"]}}
    assert example("tools/call", next(ids), **letters)["error"]["code"] == -32021
    id = result("tools/call", **letters)["taskId"]
    (question,) = until(id, "input_required")["inputRequests"].values()
    assert question["params"]["message"] == "Send 2 letters?"
    result("tasks/update", taskId=id, inputResponses={"q1": {"action": "accept", "content": {"agree": True}}})
    assert until(id, "completed")["result"]["content"][0]["text"] == "Sent 2 letters."
    old = result("tools/call", name="report", arguments={"year": 2020})
    assert old["resultType"] == "complete" and "archive" in old["content"][0]["text"]
    new = result("tools/call", name="report", arguments={"year": 2027})
    assert until(new["taskId"], "completed")["result"]["content"][0]["text"] == "The report of 2027 is new."
    # Who follows no tasks waits.
    assert example.call("report", year=2027)["content"][0]["text"] == "The report of 2027 is new."


def test_tasks_are_there_after_a_crash_and_a_client_comes_back_to_them(tmp_path):
    command = [sys.executable, "-m", "minimcp", "run", "examples/tasks.py", "--http", str(free_port())]
    kept = {"TASKS_FILE": str(tmp_path / "tasks.db")}
    with Process(command, cwd=str(ROOT), **kept) as process:
        url = process.wait_for(r"tasks is listening on (http://127\.0\.0\.1:\d+/mcp)").group(1)
        with Client(url, tasks=True) as client:
            done = client.start_tool("count_primes", {"below": 100})
            assert done.result().data == 25
            asked = client.start_tool("count_primes", {"below": 100_000_000})
            id = asked.detach(20)
        process.child.kill()
        process.child.wait(20)
    with Process(command, cwd=str(ROOT), **kept) as process:
        process.wait_for(r"tasks is listening on")
        with Client(url, tasks=True) as client:
            assert client.task(done.task_id).result().data == 25
            # It would run again from the beginning; somebody finds that it takes too long.
            again = client.task(id)
            assert next(again)["message"]
            again.cancel()
            with pytest.raises(CallCancelled):
                again.result()
            with pytest.raises(RemoteError, match="Unknown task"):
                client.task("f" * 32).result()
