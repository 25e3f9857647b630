"""Results that are passed on as they are: members and result types of tomorrow, and `_meta`."""

from __future__ import annotations

import json

import pytest

from minimcp import Context, Server
from minimcp.protocol.content import Raw
from tests.helpers import Legacy, result

IDENTITY = "io.modelcontextprotocol/serverInfo"
THEIRS = {IDENTITY: {"name": "upstream", "version": "9"}, "com.example/trace": "abc"}
TOMORROW = {
    "resultType": "complete",
    "content": [{"type": "text", "text": "x", "mood": "good"}],
    "structuredContent": [1, 2],
    "tomorrow": {"members": True},
    "_meta": THEIRS,
}


def relay(found):
    server = Server("relay", "1")

    @server.tool
    def tool() -> dict:
        return Raw(found)

    return server


def test_a_result_of_tomorrow_is_passed_on_verbatim():
    before = json.dumps(TOMORROW)
    assert json.dumps(result(relay(TOMORROW), "tools/call", name="tool"), sort_keys=True) == json.dumps(
        TOMORROW, sort_keys=True
    )
    assert json.dumps(TOMORROW) == before


def test_only_what_is_missing_of_the_envelope_is_added():
    found = result(relay({"content": [], "later": 1, "_meta": {"com.example/trace": "abc"}}), "tools/call", name="tool")
    assert found == {
        "content": [],
        "later": 1,
        "resultType": "complete",
        "_meta": {IDENTITY: {"name": "relay", "version": "1"}, "com.example/trace": "abc"},
    }


def test_the_same_dict_without_the_mark_is_data():
    server = Server("s")
    server.tool(lambda: dict(TOMORROW), "tool")
    assert result(server, "tools/call", name="tool")["structuredContent"] == TOMORROW


def test_a_result_type_of_another_server_is_passed_on():
    task = {"resultType": "task", "taskId": "t1", "status": "working"}
    assert result(relay(task), "tools/call", name="tool").items() >= task.items()


def test_resources_and_prompts_are_passed_on():
    server = Server("s", ttl_ms=5)
    contents = [{"uri": "a://1", "text": "x", "later": 1}]
    server.resource("a://1")(lambda: Raw(contents=contents, ttlMs=7, cacheScope="public", later=2))
    server.prompt(lambda: Raw(messages=[], later=3), "p")
    read = result(server, "resources/read", uri="a://1")
    assert (read["contents"], read["ttlMs"], read["cacheScope"], read["later"]) == (contents, 7, "public", 2)
    assert result(server, "prompts/get", name="p")["later"] == 3


def test_a_result_that_depends_on_the_caller_stays_private():
    server = Server("s")
    server.resource("a://1", allow=lambda ctx: True)(lambda: Raw(contents=[], ttlMs=7, cacheScope="public"))
    assert result(server, "resources/read", uri="a://1")["cacheScope"] == "private"


def test_a_scope_of_another_server_is_passed_on():
    server = Server("s", ttl_ms=5, cache_scope="public")
    server.resource("a://1")(lambda: Raw(contents=[], cacheScope="private"))
    assert result(server, "resources/read", uri="a://1")["cacheScope"] == "private"


def test_an_extensions_result_is_passed_on():
    class Relay:
        identifier = "com.example/relay"

        def __init__(self):
            self.methods = {"relay/it": lambda ctx, params: Raw(TOMORROW)}

    server = Server("s")
    server.use(Relay())
    assert result(server, "relay/it") == TOMORROW


def test_the_legacy_era_passes_it_on_too():
    found = Legacy(relay({"content": [], "later": 1, "_meta": {"a": 1}})).result("tools/call", name="tool")
    assert found == {"content": [], "later": 1, "_meta": {"a": 1}}
    # This revision has no structured content, and a result of the server's own would lose it.
    older = Legacy(relay({"content": [], "structuredContent": {"a": 1}}), "2025-03-26")
    assert older.result("tools/call", name="tool")["structuredContent"] == {"a": 1}


@pytest.mark.parametrize("failed", [True, False])
def test_a_relayed_failure_is_a_result(failed):
    server = Server("s")

    @server.tool
    def tool(ctx: Context) -> dict:
        return Raw(content=[], isError=failed)

    assert result(server, "tools/call", name="tool")["isError"] is failed


def test_a_completer_may_answer_with_a_whole_result():
    server = Server("relay")
    server.prompt(lambda city: city, "p")
    found = {"completion": {"values": [str(n) for n in range(3)], "total": 900, "hasMore": True}, "tomorrow": 1}
    server.completion("p", "city")(lambda value, arguments: Raw(found))
    asked = {"ref": {"type": "ref/prompt", "name": "p"}, "argument": {"name": "city", "value": ""}}
    assert Legacy(server).result("completion/complete", **asked) == found
    assert result(server, "completion/complete", **asked).items() >= found.items()
