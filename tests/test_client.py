"""The face of the client, the same over every door and in every revision."""

from __future__ import annotations

import datetime
import pickle
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import List, Optional

import pytest
from typing_extensions import TypedDict

import minimcp
from minimcp import Client, Context, Server
from minimcp.client import errors
from minimcp.client.transports import waiting
from minimcp.engines import errors as engine_errors
from tests.embedded import embedded, wait_until
from tests.helpers import Clock
from tests.played import DISCOVERED, INITIALIZED, Fault, Scripted
from tests.transcripts.server import build

SAMPLE = {"messages": [], "maxTokens": 5}
ROOT = Path(__file__).resolve().parent.parent
REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28")
COMMAND = [sys.executable, "-m", "minimcp", "run", str(ROOT / "tests" / "transcripts" / "server.py") + ":server"]


@pytest.fixture(params=["memory", "stdio", "http", "wsgi"])
def target(request):
    """The same server behind each door."""
    if request.param == "memory":
        yield build()
    elif request.param == "wsgi":
        server = build()
        # The application runs on the client's own thread, which sees to its timeout only once the reply streams.
        server.engine.limits["silence_s"] = 0.1
        yield server.wsgi
    elif request.param == "http":
        with embedded(build().wsgi) as server:
            yield f"{server.url}/mcp"
    else:
        yield {"command": COMMAND[0], "args": COMMAND[1:], "env": {"PYTHONPATH": str(ROOT)}}


@pytest.mark.parametrize("mode", REVISIONS)
def test_everything_a_server_offers_can_be_used_in_every_revision(target, mode):
    with Client(target, mode=mode) as client:
        assert client.protocol_version == mode
        assert client.server_info["name"] == "library"
        assert client.instructions == "Look a book up before you lend it."
        assert {"lookup", "show", "fail", "count"} <= {tool["name"] for tool in client.list_tools()}
        assert client.call_tool("lookup", title="abc", shelf=2).text == '{"copies":6}'
        assert [resource["uri"] for resource in client.list_resources()] == ["library://rules"]
        assert [len(listed) for listed in client.list_all().values()] == [len(client.list_tools()), 1, 1, 1]
        assert client.list_resource_templates()[0]["uriTemplate"] == "library://books/{isbn}"
        assert client.read_resource("library://rules").text == "Be quiet."
        assert [prompt["name"] for prompt in client.list_prompts()] == ["review"]
        assert client.get_prompt("review", title="Emma", tone="harsh").text.startswith("Write a harsh review of Emma.")
        assert client.complete("tone", "k", prompt="review")["values"] == ["kind", "keen"]


@pytest.mark.parametrize("mode", REVISIONS)
def test_progress_and_log_messages_reach_their_callbacks(target, mode):
    seen, logged = [], []
    with Client(target, mode=mode, on_log=lambda params: logged.append(params["level"])) as client:
        client.set_log_level("debug")
        result = client.call_tool(
            "count", {"steps": 3}, progress=lambda each: seen.append((each["progress"], threading.current_thread()))
        )
        assert result.text == "3 shelves"
        assert seen == [(step, threading.current_thread()) for step in (1, 2, 3)]
        # Over stdio a legacy server's log messages do not say which call they are of.
        wait_until(lambda: logged == ["debug", "warning"])


@pytest.mark.parametrize("mode", REVISIONS)
def test_a_log_level_may_be_given_from_the_start(mode):
    logged = []
    with Client(build(), mode=mode, log_level="debug", on_log=lambda params: logged.append(params["level"])) as client:
        client.call_tool("count", steps=1)
        wait_until(lambda: logged == ["debug", "warning"])


def test_progress_is_also_an_iterator():
    with Client(build()) as client:
        call = client.start_tool("count", steps=2)
        assert [each["message"] for each in call] == ["shelf 1", "shelf 2"]
        assert call.result().text == "2 shelves"
        assert call.result().text == "2 shelves"


@pytest.mark.parametrize("mode", ["2025-06-18", "2026-07-28"])
def test_the_three_callbacks_serve_both_eras(target, mode):
    answers = {"elicit": lambda question: {"weeks": 4} if "weeks" in question.fields else {"sure": True}}
    answers["sample"] = lambda params: f"about {params['messages'][0]['content']['text']}"
    answers["roots"] = ["/srv/books"]
    with Client(target, mode=mode, **answers) as client:
        assert client.call_tool("lend", title="Emma").text == "Emma lent for 4 weeks"
        assert client.call_tool("advise", topic="whales").text == "about A book on whales? in file:///srv/books"


@pytest.mark.parametrize("mode", ["2025-11-25", "2026-07-28"])
def test_a_callback_may_call_the_client_again(target, mode):
    def sample(params):
        return client.call_tool("lookup", title="ab").text

    client = Client(target, mode=mode, sample=sample, roots=["/srv"])
    with client:
        assert client.call_tool("advise", {"topic": "x"}, timeout=30).text == '{"copies":2} in file:///srv'


def test_opening_and_closing_may_happen_in_any_order_and_on_any_thread():
    client = Client(build())
    assert client.state == "new"
    client.close()
    thread = threading.Thread(target=client.open)
    thread.start()
    thread.join(20)
    assert (client.state, client.transport) == ("open", "memory")
    assert client.call_tool("lookup", title="a").data == {"copies": 1}
    thread = threading.Thread(target=client.close)
    thread.start()
    thread.join(20)
    client.close()
    assert client.state == "closed"
    with pytest.raises(minimcp.ConnectionLost, match="closed") as caught:
        client.call_tool("lookup", title="a")
    assert caught.value.retry == "always"
    with client.open() as same:
        assert same.call_tool("lookup", title="a").data == {"copies": 1}


def test_a_client_that_nobody_opened_opens_on_first_use():
    client = Client(build())
    assert client.call_tool("lookup", title="a").data == {"copies": 1}
    client.close()


def test_keywords_are_arguments_and_with_a_dict_they_are_options():
    server = Server("s")

    @server.tool
    def wait(timeout: int) -> int:
        return timeout

    with Client(server) as client:
        assert client.call_tool("wait", timeout=3).text == "3"
        assert client.call_tool("wait", {"timeout": 4}, timeout=5).text == "4"
        with pytest.raises(TypeError, match="no option 'tiemout'; there are check, max_timeout"):
            client.call_tool("wait", {"timeout": 4}, tiemout=5)
        with pytest.raises(TypeError, match="options follow a dict"):
            client.call_tool("wait", timeout=4, progress=print)


def test_a_tool_that_failed_raises_by_choice():
    with Client(build()) as client:
        result = client.call_tool("fail", how="told")
        assert result.is_error and result.text == "This book is lent out."
        with pytest.raises(minimcp.ToolFailed, match="lent out") as caught:
            client.call_tool("fail", {"how": "told"}, check=True)
        assert caught.value.result == result
    with Client(build(), check=True) as client, pytest.raises(minimcp.ToolFailed):
        client.call_tool("fail", how="told")


def test_results_are_dicts_with_what_one_wants_from_them():
    with Client(build()) as client:
        shown = client.call_tool("show", kind="picture")
        assert shown["content"][0]["mimeType"] == "image/png" and shown.bytes == b"\x89PNG" and shown.text == ""
        assert client.call_tool("show", kind="embedded").text == "Be quiet."
        assert client.call_tool("lookup", title="ab").data == {"copies": 2}


def test_what_a_server_does_not_offer_is_an_empty_list_or_a_clear_error():
    server = Server("bare")
    server.tool(lambda: 1, "one", description="One.")
    with Client(server) as client:
        assert client.list_prompts() == [] and client.list_resources() == []
        with pytest.raises(minimcp.ProtocolError, match="bare does not offer resources"):
            client.read_resource("a://b")
        with pytest.raises(minimcp.ProtocolError, match="ping does not exist in 2026-07-28"):
            client.ping()
        with pytest.raises(minimcp.RemoteError, match="Unknown tool") as caught:
            client.call_tool("two")
        assert caught.value.code == -32602
    with Client(server, mode="legacy") as client:
        client.ping()
        with pytest.raises(minimcp.ProtocolError, match=r"resources\.subscribe"):
            client.subscribe("a://b")


def test_many_threads_share_one_client(target):
    wrong = []

    def work(number):
        for step in range(20):
            title = "x" * (number * 20 + step)
            if client.call_tool("lookup", title=title).data != {"copies": len(title)}:
                wrong.append((number, step))

    with Client(target) as client:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert not wrong


@pytest.mark.parametrize("mode", ["2025-11-25", "2026-07-28"])
def test_a_timeout_tells_the_server_and_a_late_answer_is_dropped(target, mode):
    with Client(target, mode=mode) as client:
        with pytest.raises(minimcp.Timeout, match=r"tools/call in 0\.3 s") as caught:
            client.call_tool("wait", {}, timeout=0.3)
        assert caught.value.retry == "idempotent"
        assert client.call_tool("lookup", title="ab").text == '{"copies":2}'


def test_the_absolute_maximum_holds_however_much_progress_there_is():
    server = Server("s")

    @server.tool
    def busy(ctx: Context) -> str:
        step = 0
        while not ctx.cancelled.wait(0.01):
            step += 1
            ctx.progress(step)
        return "never"

    with Client(server) as client, pytest.raises(minimcp.Timeout):
        client.call_tool("busy", {}, timeout=5, max_timeout=0.3, progress=lambda each: None)


@pytest.mark.parametrize("mode", ["2025-11-25", "2026-07-28"])
def test_cancelling_from_another_thread_tells_the_server(target, mode):
    with Client(target, mode=mode) as client:
        call = client.start_tool("wait", {})
        assert next(call)["progress"] == 1
        threading.Thread(target=call.cancel).start()
        with pytest.raises(minimcp.CallCancelled):
            call.result()
        assert client.call_tool("lookup", title="ab").text == '{"copies":2}'


@pytest.mark.parametrize("problem", [ValueError, KeyboardInterrupt])
def test_what_a_progress_callback_raises_ends_the_call_and_the_server_is_told(problem):
    def play(params, say):
        token = params["_meta"]["progressToken"]
        say({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}})
        done.wait(20)
        return {"content": []}

    def fail(progress):
        raise problem("no more")

    server = Scripted(tools_call=play)
    done = threading.Event()
    with Client(server) as client:
        # Held, as a debugger or a notebook does, so that nothing is tidied up by accident.
        with pytest.raises(problem, match="no more") as held:
            client.call_tool("x", {}, progress=fail)
        server.wait_for("notifications/cancelled")
        done.set()
        assert held.value


@pytest.mark.parametrize("mode", ["2025-11-25", "2026-07-28"])
def test_a_call_nobody_waits_for_is_cancelled_as_well(target, mode):
    with Client(target, mode=mode) as client:
        call = client.start_tool("wait", {})
        assert next(call)["progress"] == 1
        call.cancel()
        with pytest.raises(minimcp.CallCancelled):
            next(call)
        with pytest.raises(minimcp.CallCancelled):
            call.result()
        assert list(call) == []
        unsent = client.start_tool("wait", {})
        unsent.cancel()
        with pytest.raises(minimcp.CallCancelled):
            unsent.result()


def test_cancelling_a_call_nobody_waits_for_tells_the_server_at_once():
    def play(params, say):
        token = params["_meta"]["progressToken"]
        say({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}})
        done.wait(20)
        return {"content": []}

    server = Scripted(tools_call=play)
    done = threading.Event()
    with Client(server) as client:
        call = client.start_tool("x")
        for _ in call:
            call.cancel()
            server.wait_for("notifications/cancelled")
            break
        done.set()
        with pytest.raises(minimcp.CallCancelled):
            call.result()
        assert len(server.all("notifications/cancelled")) == 1


def test_a_cancellation_names_the_request_once_and_an_answered_call_sends_none():
    server = Scripted(tools_call=lambda params, say: done.wait(20) and {"content": []})
    done = threading.Event()
    with Client(server) as client:
        with pytest.raises(minimcp.Timeout):
            client.call_tool("x", {}, timeout=0.1)
        done.set()
        sent = server.wait_for("notifications/cancelled")
        assert sent["params"]["requestId"] == server.wait_for("tools/call")["id"]
        client.call_tool("x")
        assert len(server.all("notifications/cancelled")) == 1


def test_a_call_that_is_dropped_half_way_is_cancelled():
    server = Scripted(tools_call=lambda params, say: done.wait(20) and {"content": []})
    done = threading.Event()

    def play(params, say):
        token = params["_meta"]["progressToken"]
        say({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}})
        done.wait(20)
        return {"content": []}

    server.methods["tools/call"] = play
    with Client(server) as client:
        call = client.start_tool("x")
        assert next(call)["progress"] == 1
        del call
        server.wait_for("notifications/cancelled")
        done.set()


def test_a_call_as_a_context_is_given_up_at_its_end():
    def play(params, say):
        token = params["_meta"]["progressToken"]
        say({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}})
        done.wait(20)
        return {"content": []}

    server, done = Scripted(tools_call=play), threading.Event()
    with Client(server) as client:
        with pytest.raises(KeyError), client.start_tool("x") as call:
            for _ in call:
                raise KeyError
        server.wait_for("notifications/cancelled")
        done.set()
        with client.start_tool("x") as call:
            assert call.result() == {"content": []}
    assert len(server.all("notifications/cancelled")) == 1


def test_lists_are_drained_page_by_page_and_an_empty_cursor_is_not_the_end():
    def play(params, say):
        pages.append(params.get("cursor"))
        name = {"name": f"t{len(pages)}", "inputSchema": {"type": "object"}}
        return {"tools": [name], **({"nextCursor": cursors[len(pages) - 1]} if len(pages) <= len(cursors) else {})}

    pages: list = []
    # Opaque, whatever they look like. Spec: FEAT-114
    cursors = ["", " Pa ge\t", "\u00c5=&%20+/", "bnVsbA==", "null"]
    with Client(Scripted(tools_list=play)) as client:
        assert [tool["name"] for tool in client.list_tools()] == ["t1", "t2", "t3", "t4", "t5", "t6"]
    assert pages == [None, *cursors]


@pytest.mark.parametrize("mode", ["modern", "legacy"])
def test_a_resource_is_read_by_its_uri_and_nothing_else_is_sent(mode):
    server = Scripted(initialize=lambda params, say: INITIALIZED)
    server.methods["resources/read"] = lambda params, say: {"contents": [{"uri": "a://b?c#d", "text": "x"}]}
    with Client(server, mode=mode) as client:
        assert client.read_resource("a://b?c#d").text == "x"
    [asked] = server.all("resources/read")
    assert {name: value for name, value in asked["params"].items() if name != "_meta"} == {"uri": "a://b?c#d"}


class Pages:
    """A list of two pages that may be kept; its cursors are good for one round."""

    def __init__(self, **kept):
        self.kept = {"ttlMs": 60_000, "cacheScope": "private", **kept}
        self.round = 1
        self.asked = []

    def play(self, params, say):
        cursor = params.get("cursor")
        self.asked.append(cursor)
        if cursor is None:
            return {**self.kept, "tools": [self.tool(1)], "nextCursor": f"page 2 of {self.round}"}
        if cursor != f"page 2 of {self.round}":
            raise Fault(-32602, "Invalid cursor")
        return {"tools": [self.tool(2)]}

    def tool(self, number):
        return {"name": f"{self.round}.{number}", "inputSchema": {"type": "object"}}


def test_a_list_whose_cursor_is_no_longer_good_begins_again_once():
    pages = Pages()
    with Client(Scripted(tools_list=pages.play)) as client:
        assert [tool["name"] for tool in client.list_tools()] == ["1.1", "1.2"]
        pages.round = 2
        for _ in range(2):
            # The first page of the first round is still kept, and names a cursor that is gone.
            assert [tool["name"] for tool in client.list_tools()] == ["2.1", "2.2"]
        assert pages.asked == [None, "page 2 of 1", "page 2 of 1", None, "page 2 of 2", "page 2 of 2"]

    def never(params, say):
        asked.append(params.get("cursor"))
        if params.get("cursor"):
            raise Fault(-32602, "Invalid cursor")
        return {"tools": [], "nextCursor": "x"}

    asked = []
    with Client(Scripted(tools_list=never)) as client, pytest.raises(minimcp.RemoteError, match="Invalid cursor"):
        client.list_tools()
    assert asked == [None, "x", None, "x"]


@pytest.mark.parametrize("code", [-32603, -32000])
def test_a_list_that_fails_for_another_reason_does_not_begin_again(code):
    def play(params, say):
        asked.append(params.get("cursor"))
        if params.get("cursor"):
            raise Fault(code)
        return {"tools": [], "nextCursor": "x"}

    asked = []
    with Client(Scripted(tools_list=play)) as client, pytest.raises(minimcp.RemoteError):
        client.list_tools()
    assert asked == [None, "x"]
    refused = Scripted(tools_list=fault_of_the_first_page)
    with Client(refused) as client, pytest.raises(minimcp.RemoteError):
        client.list_tools()
    assert len(refused.all("tools/list")) == 1


def fault_of_the_first_page(params, say):
    raise Fault(-32602)


def test_a_legacy_list_ends_with_an_empty_cursor_and_none():
    server = Scripted(initialize=lambda params, say: INITIALIZED)
    server.methods["tools/list"] = lambda params, say: {"tools": [], "nextCursor": ""}
    server.methods["prompts/list"] = lambda params, say: {"prompts": [], "nextCursor": None}
    with Client(server, mode="legacy") as client:
        assert client.list_tools() == [] and client.list_prompts() == []


def test_an_output_that_does_not_fit_its_schema_is_an_error_that_names_the_tool():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    tool = {"name": "t", "inputSchema": {"type": "object"}, "outputSchema": schema}
    results = {"good": {"a": 1}, "wrong": {"a": "x"}}
    server = Scripted(
        tools_list=lambda params, say: {"tools": [tool]},
        tools_call=lambda params, say: {
            "content": [],
            **(
                {"structuredContent": results[params["arguments"]["which"]]}
                if params["arguments"]["which"] in results
                else {}
            ),
        },
    )
    with Client(server) as client:
        assert client.call_tool("t", which="good").data == {"a": 1}
        with pytest.raises(minimcp.ProtocolError, match="'t' does not fit its outputSchema"):
            client.call_tool("t", which="wrong")
        with pytest.raises(minimcp.ProtocolError, match="'t' declares an outputSchema but returned no"):
            client.call_tool("t", which="none")
    with Client(server, validate=False) as client:
        assert client.call_tool("t", which="wrong").data == {"a": "x"}


class Wrapped(TypedDict):
    result: int


def typed() -> Server:
    """A server whose tools return data of every kind, and text."""
    server = Server("typed")

    def number() -> int:
        return 3

    def day() -> datetime.date:
        return datetime.date(2026, 7, 28)

    def numbers() -> List[int]:
        return [1, 2]

    def missing() -> Optional[int]:
        return None

    def own() -> Wrapped:
        return {"result": 3}

    def written() -> str:
        return '{"a":1}'

    for function in (number, day, numbers, missing, own, written):
        server.tool(function)
    server.tool(lambda: {"result": 3}, "plain")
    server.tool(lambda: {"a": [1]}, "object")
    whole = {"content": [{"type": "text", "text": "own words"}], "structuredContent": {"n": 1}}
    server.tool(lambda: whole, "whole", output_schema={"type": "object", "required": ["n"]})
    server.tool(lambda: {**whole, "structuredContent": [1]}, "unhinted")
    server.tool(lambda: [[]], "recursive", output_schema={"type": "array", "items": {"$ref": "#"}})
    return server


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("mode", REVISIONS)
def test_the_data_of_a_tool_are_the_same_in_every_revision(mode, validate):
    with Client(typed(), mode=mode, validate=validate) as client:
        # Called before they are listed.
        data = {name: client.call_tool(name).data for name in typed().engine.registry.tools}
    assert data == {
        "number": 3,
        "day": "2026-07-28",
        "numbers": [1, 2],
        "missing": None,
        "own": {"result": 3},
        "written": None,
        "plain": {"result": 3},
        "object": {"a": [1]},
        "whole": {"n": 1},
        "unhinted": [1],
        "recursive": [[]],
    }


@pytest.mark.parametrize("mode", ["modern", "legacy"])
@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize(
    "more, data",
    [
        ({}, 3),  # as the official SDK has it
        ({"x-fastmcp-wrap-result": True}, 3),
        ({"x-fastmcp-wrap-result": False}, {"result": 3}),
        ({"properties": {"result": {}, "more": {}}}, {"result": 3}),
        ({"properties": {}}, {"result": 3}),
    ],
)
def test_wrapped_data_of_other_servers_are_unwrapped(mode, validate, more, data):
    schema = {"type": "object", "properties": {"result": {"type": "integer"}}, "required": ["result"], **more}
    tool = {"name": "t", "inputSchema": {"type": "object"}, "outputSchema": schema}
    server = Scripted(
        initialize=lambda params, say: INITIALIZED,
        tools_list=lambda params, say: {"tools": [tool]},
        tools_call=lambda params, say: {"content": [], "structuredContent": {"result": 3}},
    )
    with Client(server, mode=mode, validate=validate) as client:
        found = client.call_tool("t")
        assert found.data == data and found["structuredContent"] == {"result": 3}
        assert pickle.loads(pickle.dumps(found)).data == data


@pytest.mark.parametrize("ref", ["http://127.0.0.1:9/schema.json", "file:///etc/passwd", "other.json", "#/$defs/none"])
def test_a_reference_of_an_output_schema_that_leads_outside_is_never_followed(ref, monkeypatch):
    opened = []
    monkeypatch.setattr("socket.socket.connect", lambda *args: opened.append(args))
    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **more: opened.append(args))
    schema = {"type": "object", "properties": {"a": {"$ref": ref}}}
    tool = {"name": "t", "inputSchema": {"type": "object"}, "outputSchema": schema}
    server = Scripted(
        tools_list=lambda params, say: {"tools": [tool]},
        tools_call=lambda params, say: {"content": [], "structuredContent": {"a": 1}},
    )
    with Client(server) as client:
        assert client.call_tool("t").data == {"a": 1}
    assert opened == []


def test_an_output_schema_that_multiplies_itself_costs_a_bounded_time():
    definitions = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(30)}
    schema = {"type": "object", "$ref": "#/$defs/d0", "$defs": {**definitions, "d30": {"required": ["b"]}}}
    tool = {"name": "t", "inputSchema": {"type": "object"}, "outputSchema": schema}
    server = Scripted(
        tools_list=lambda params, say: {"tools": [tool]},
        tools_call=lambda params, say: {"content": [], "structuredContent": {"a": 1}},
    )
    with Client(server) as client:
        with pytest.raises(minimcp.ProtocolError, match="'t'"):
            client.call_tool("t")


def played(schema, data=None, **more):
    """Return a server with one tool, its output schema and what it returns."""
    tool = {"name": "t", "inputSchema": {"type": "object"}, "outputSchema": schema}
    result = {"content": [], **({} if data is None else {"structuredContent": data})}
    return Scripted(tools_list=lambda params, say: {"tools": [tool]}, tools_call=lambda params, say: {**result, **more})


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"pattern": r"^\p{L}+$"}}},
        {"properties": {"a": {"anyOf": [{"pattern": r"^\p{L}+$"}, {"type": "integer"}]}}},
        {"properties": {"a": {"not": {"pattern": r"^\p{L}+$"}}}},
        {"properties": {"a": {"oneOf": [{"pattern": r"^\u{61}$"}, {"type": "string"}]}}},
        {"patternProperties": {r"^\p{L}$": {"type": "integer"}}, "additionalProperties": False},
        {"properties": {"a": {"pattern": "^(a+)+$"}}},
        {"$schema": "https://example.com/dialect", "type": "array"},
        {"properties": {"a": {"$ref": "https://example.com/other"}}},
        {"enum": [0] * 20_000},
    ],
)
def test_a_result_that_its_schema_cannot_judge_is_returned_and_noted_once(schema, caplog):
    with Client(played(schema, {"a": "Zoë"})) as client:
        assert client.call_tool("t").data == {"a": "Zoë"}
        assert client.call_tool("t").data == {"a": "Zoë"}
        client.list_tools(fresh=True)
        assert client.call_tool("t").data == {"a": "Zoë"}
    assert [record.message[:43] for record in caplog.records] == ["the tool 't' has a result that is not judge"]


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"pattern": r"^\p{L}+$", "maxLength": 2}}},
        {"properties": {"a": {"pattern": "^(?<y>[0-9]+)$"}}},
        {"properties": {"a": {"anyOf": [{"pattern": r"^\p{L}+$", "type": "null"}, {"type": "integer"}]}}},
        {"patternProperties": {r"^\p{L}$": {}}, "properties": {"b": {}}, "required": ["b"]},
        {"$schema": "https://json-schema.org/draft-07/schema#", "properties": {"a": {"type": "integer"}}},
        {"$schema": "", "title": None, "properties": {"a": {"type": "integer", "enum": [], "minimum": None}}},
        {"$schema": "http://json-schema.org/draft/2020-12/schema", "required": ["b"], "properties": None},
    ],
)
def test_what_a_schema_can_judge_is_judged_beside_what_it_cannot(schema):
    with Client(played(schema, {"a": "Zoë"})) as client:
        with pytest.raises(minimcp.ProtocolError, match="'t' does not fit its outputSchema"):
            client.call_tool("t")


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"type": "nothing known"}}},
        {"properties": {"a": {"minLength": "1"}}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"multipleOf": 0}}},
        {"$schema": 5},
        True,
        ["object"],
    ],
)
def test_a_result_does_not_pass_an_output_schema_that_is_none(schema):
    with Client(played(schema, {"a": "Zoë"})) as client:
        for _ in range(2):
            with pytest.raises(minimcp.ProtocolError, match="'t' does not fit its outputSchema"):
                client.call_tool("t")


@pytest.mark.parametrize("schema", [None, {}])
def test_an_empty_output_schema_asks_for_nothing(schema):
    with Client(played(schema)) as client:
        assert client.call_tool("t").data is None


def test_a_result_without_data_is_judged_though_nobody_listed_the_tools():
    with Client(played({"type": "object"})) as client:
        with pytest.raises(minimcp.ProtocolError, match="'t' declares an outputSchema but returned no"):
            client.call_tool("t")
    with Client(played({"type": "object"}, isError=True)) as client:
        assert client.call_tool("t", check=False).is_error


def test_a_result_is_returned_though_the_list_of_tools_fails():
    def fail(params, say):
        raise Fault(-32603, "not today")

    server = played({"type": "object"}, {"a": 1})
    server.methods["tools/list"] = fail
    with Client(server) as client:
        assert client.call_tool("t").data == {"a": 1}


@pytest.mark.parametrize(
    ("schema", "data"),
    [
        ({"properties": {"x": {"pattern": "^(?i:a[A-Z]*)*$"}}}, {"x": "a" * 40 + "!"}),
        ({"properties": {"x": {"items": {"pattern": r"\s*x\s*y"}}}}, {"x": [" " * 290] * 3000}),
        ({"not": {"$ref": "#"}}, {"a": 1}),
        (
            {"$schema": "http://json-schema.org/draft-04/schema#", "enum": [[n, str(n)][n % 2] for n in range(9900)]},
            {"a": 1},
        ),
        (
            {"properties": {"x": {"items": {"const": {"a": list(range(5000))}}}}},
            {"x": [{"a": list(range(5000))}] * 999},
        ),
        ({"patternProperties": {f"^({n}[\u4e00-\u9fff]+-)*$": {} for n in range(4000)}}, {"x": 1}),
    ],
)
def test_what_a_schema_costs_does_not_outrun_a_call_by_a_second(schema, data):
    with Client(played(schema, data)) as client:
        started = time.thread_time()
        try:
            client.call_tool("t")
        except minimcp.ProtocolError:
            pass
        assert time.thread_time() - started < 1.2


def test_tool_schemas_pass_unchanged():
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {"a": {"$anchor": "x", "type": "string"}},
        "allOf": [{"if": {"required": ["a"]}, "then": {}, "else": {}}],
        "additionalProperties": False,
    }
    with Client(Scripted(tools_list=lambda p, s: {"tools": [{"name": "t", "inputSchema": schema}]})) as client:
        assert client.list_tools() == [{"name": "t", "inputSchema": schema}]


def test_any_other_request_can_be_sent():
    server = Scripted(**{"example.com_thing": lambda params, say: {"got": params["x"]}})
    with Client(server, extensions={"com.example/thing": {}}) as client:
        assert client.request("example.com/thing", {"x": 1})["got"] == 1
    meta = server.wait_for("example.com/thing")["params"]["_meta"]
    assert meta["io.modelcontextprotocol/clientCapabilities"] == {"extensions": {"com.example/thing": {}}}


def test_a_callers_meta_goes_along():
    server = Scripted(tools_call=lambda params, say: {"content": []})
    with Client(server, info={"name": "me", "version": "2"}) as client:
        client.call_tool("x", {}, meta={"com.example/a": 1})
    meta = server.wait_for("tools/call")["params"]["_meta"]
    assert meta["com.example/a"] == 1
    assert meta["io.modelcontextprotocol/clientInfo"] == {"name": "me", "version": "2"}
    assert meta["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"


def test_legacy_subscriptions_and_roots():
    changed = threading.Event()
    uris = []

    def told(message):
        uris.append(message["params"]["uri"])
        changed.set()

    server = build()
    with Client(server, mode="2025-06-18", on_notification=told, roots=[]) as client:
        client.subscribe("library://rules")
        server.updated("library://rules")
        assert changed.wait(20) and uris == ["library://rules"]
        client.unsubscribe("library://rules")
        client.set_roots(["/srv"])


def test_roots_are_replaced_and_the_legacy_server_is_told():
    server = Scripted(initialize=lambda params, say: INITIALIZED)
    with Client(server, mode="legacy", roots=[]) as client:
        assert server.wait_for("initialize")["params"]["capabilities"] == {"roots": {"listChanged": True}}
        client.set_roots(["/srv"])
        server.wait_for("notifications/roots/list_changed")
        server.say({"jsonrpc": "2.0", "id": "q", "method": "roots/list"})
        assert server.wait_for(None)["result"] == {"roots": [{"uri": "file:///srv"}]}
    with Client(server) as client, pytest.raises(minimcp.ProtocolError, match="roots="):
        client.set_roots([])


def test_a_legacy_server_is_answered_also_when_it_asks_for_what_there_is_not():
    server = Scripted(initialize=lambda params, say: INITIALIZED)
    with Client(server, mode="legacy"):
        server.say({"jsonrpc": "2.0", "id": 1, "method": "ping"})
        assert server.wait_for(None) == {"jsonrpc": "2.0", "id": 1, "result": {}}
        server.heard.clear()
        server.say({"jsonrpc": "2.0", "id": "1", "method": "sampling/createMessage", "params": {}})
        reply = server.wait_for(None)
        assert reply["id"] == "1" and reply["error"]["code"] == -32601


@pytest.mark.parametrize("id", [7, "7", 0, -1, 2**60, "", "q", "Z\u00fcrich"])
def test_a_question_is_answered_under_its_id_with_its_json_type(id):
    server = Scripted(initialize=lambda params, say: INITIALIZED)
    with Client(server, mode="legacy", roots=[]):
        for method in ("ping", "roots/list", "sampling/createMessage"):
            server.heard.clear()
            server.say({"jsonrpc": "2.0", "id": id, "method": method, "params": {}})
            reply = server.wait_for(None)
            assert (type(reply["id"]), reply["id"]) == (type(id), id)


def test_progress_restarts_the_clock_but_not_that_of_the_longest_time(monkeypatch):
    def play(params, say):
        token = params["_meta"]["progressToken"]
        for number in range(4):
            clock.now += 20
            progress = {"progressToken": token, "progress": number}
            say({"jsonrpc": "2.0", "method": "notifications/progress", "params": progress})
            assert heard.acquire(timeout=20)
        return {"content": []}

    clock, heard = Clock(), threading.Semaphore(0)
    monkeypatch.setattr(waiting, "time", SimpleNamespace(monotonic=clock))
    options = {"timeout": 30, "progress": lambda each: heard.release()}
    with Client(Scripted(tools_call=play)) as client:
        assert client.call_tool("x", {}, **options) == {"content": []}
        with pytest.raises(minimcp.Timeout):
            client.call_tool("x", {}, max_timeout=50, **options)
        for _ in range(4):
            heard.release()


def test_a_question_that_the_server_withdraws_gets_no_answer():
    asked, withdrawn, told = threading.Event(), threading.Event(), threading.Event()

    def sample(params):
        asked.set()
        return "late" if withdrawn.wait(20) else "never"

    server = Scripted(initialize=lambda params, say: INITIALIZED)
    with Client(server, mode="legacy", sample=sample, on_notification=lambda message: told.set()) as client:
        server.say({"jsonrpc": "2.0", "id": "q", "method": "sampling/createMessage", "params": SAMPLE})
        assert asked.wait(20)
        server.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "q"}})
        assert told.wait(20)
        withdrawn.set()
        server.say({"jsonrpc": "2.0", "id": 1, "method": "ping"})
        wait_until(lambda: server.all(None))
        wait_until(lambda: not client._connect().inbox.busy)
    assert [message["id"] for message in server.all(None)] == [1]


def test_errors_are_one_family_flat_and_picklable():
    found = [
        engine_errors.Timeout("t"),
        engine_errors.ConnectionLost("c", "always"),
        errors.HTTPStatus(503, "busy", "http://x"),
        engine_errors.ProtocolError("p"),
        errors.RemoteError(-32602, "m", {"a": 1}),
        errors.UsedAfterFork("u"),
        errors.NotApproved("n"),
        errors.CallCancelled("c"),
        engine_errors.AuthorizationError("a", "invalid_grant"),
    ]
    with Client(build()) as client:
        with pytest.raises(minimcp.ToolFailed) as caught:
            client.call_tool("fail", {"how": "told"}, check=True)
        found.append(caught.value)
    for error in found:
        assert isinstance(error, minimcp.MinimcpError) and isinstance(error, Exception)
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error) and str(copy) == str(error) and vars(copy) == vars(error)
        assert error.retry in ("always", "idempotent", "never")
    assert (found[2].status, found[2].body, found[2].retry) == (503, "busy", "always")


def test_a_remote_error_has_its_code_message_and_data():
    def play(params, say):
        raise Fault(-31000, "no such book", {"isbn": 1})

    with Client(Scripted(tools_call=play)) as client, pytest.raises(minimcp.RemoteError) as caught:
        client.call_tool("x")
    assert (caught.value.code, caught.value.message, caught.value.data) == (-31000, "no such book", {"isbn": 1})
    assert DISCOVERED["supportedVersions"] == ["2026-07-28"]


def test_arguments_of_prompts_are_strings():
    server = Scripted(prompts_get=lambda params, say: {"messages": []})
    with Client(server) as client:
        client.get_prompt("p", {"a": "x", "b": 3, "c": True})
    assert server.wait_for("prompts/get")["params"]["arguments"] == {"a": "x", "b": "3", "c": "true"}


def test_completions_may_depend_on_what_is_chosen_already():
    server = Scripted(completion_complete=lambda params, say: {"completion": {"values": ["x"], "total": 1}})
    with Client(server) as client:
        assert client.complete("tone", "k", prompt="p", given={"title": "Emma"}) == {"values": ["x"], "total": 1}
        assert client.complete("isbn", "", template="a://{isbn}")["values"] == ["x"]
        with pytest.raises(TypeError):
            client.complete("tone", "k")
    first, second = (message["params"] for message in server.all("completion/complete"))
    assert first["ref"] == {"type": "ref/prompt", "name": "p"}
    assert first["argument"] == {"name": "tone", "value": "k"}
    assert first["context"] == {"arguments": {"title": "Emma"}}
    assert second["ref"] == {"type": "ref/resource", "uri": "a://{isbn}"} and "context" not in second


def test_a_notice_that_a_page_is_done_is_only_a_notice():
    told = threading.Event()
    server = Scripted(initialize=lambda params, say: INITIALIZED)
    with Client(server, mode="legacy", on_notification=lambda message: told.set()) as client:
        done = "notifications/elicitation/complete"
        server.say({"jsonrpc": "2.0", "method": done, "params": {"elicitationId": "unknown"}})
        assert told.wait(20) and client.state == "open"
