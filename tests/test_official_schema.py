"""The check that every test carries: it lets through what is right and sees what is wrong."""

from __future__ import annotations

import pytest

from minimcp import Client, Context, Raw, Server
from tests import emitted, official
from tests.helpers import modern

pytestmark = pytest.mark.skipif(not official.SCHEMAS.exists(), reason="the official schemas are not beside the tree")

IDENTITY = {"io.modelcontextprotocol/serverInfo": {"name": "s", "version": "1"}}


def result(**members):
    return {"jsonrpc": "2.0", "id": 1, "result": members}


@pytest.mark.parametrize("version", [*official.LEGACY, official.MODERN])
def test_every_definition_that_is_looked_up_exists_in_some_revision(version):
    known = official.definitions(version)
    names = {*official.RESULTS.values(), *official.NOTIFICATIONS.values(), *official.REQUESTS.values()}
    for name in names & known.keys():
        official.validator(version, name).is_valid({})
    assert {"ListToolsResult", "CallToolResult", "ReadResourceResult", "CompleteResult"} <= known.keys()


@pytest.mark.parametrize(
    "version, method, message, words",
    [
        ("2026-07-28", "tools/list", result(tools=[]), "resultType"),
        ("2026-07-28", "tools/list", result(resultType="complete", tools=[]), "required property"),
        ("2026-07-28", "tools/list", result(resultType="input_required", requestState="x"), "must not"),
        ("2026-07-28", "ping", result(resultType="complete"), "no result in"),
        ("2026-07-28", None, {"jsonrpc": "2.0", "id": "s1", "method": "roots/list"}, "no request"),
        ("2026-07-28", None, {"jsonrpc": "2.0", "id": 1, "error": {"code": -32002, "message": "x"}}, "-32002"),
        ("2026-07-28", None, {"jsonrpc": "2.0", "id": 1, "error": {"code": -32021, "message": "x"}}, "data"),
        ("2025-11-25", "tools/list", result(tools=[], resultType="complete"), "resultType"),
        ("2025-11-25", "tools/call", result(), "content"),
        ("2025-11-25", None, {"jsonrpc": "2.0", "method": "notifications/progress", "params": {}}, "progress"),
        ("2025-06-18", "tools/call", result(content=[{"type": "text"}]), "text"),
        ("2025-03-26", None, {"jsonrpc": "2.0", "id": "s1", "method": "elicitation/create"}, "no elicitation/create"),
        ("2024-11-05", "tools/call", result(content=[{"type": "audio", "data": "", "mimeType": "a/b"}]), "content"),
        ("2024-11-05", "prompts/get", {"jsonrpc": "2.0", "id": None, "result": {"messages": []}}, "id"),
    ],
)
def test_a_message_that_breaks_its_revision_is_seen(version, method, message, words):
    assert words in (official.violation(version, method, message) or "")


@pytest.mark.parametrize(
    "version, method, message",
    [
        ("2026-07-28", "tools/call", result(resultType="complete", content=[], structuredContent=None)),
        ("2026-07-28", None, {"jsonrpc": "2.0", "error": {"code": -32700, "message": "x"}}),
        ("2024-11-05", None, {"jsonrpc": "2.0", "error": {"code": -32700, "message": "x"}}),
        ("2025-11-25", None, {"jsonrpc": "2.0", "id": 1, "error": {"code": 4711, "message": "our own"}}),
        (
            "2026-07-28",
            "server/discover",
            result(
                resultType="complete",
                supportedVersions=["2026-07-28"],
                capabilities={"extensions": {"com.example/x": {"ratio": 0.5, "none": None}}},
                ttlMs=0,
                cacheScope="private",
                _meta=IDENTITY,
            ),
        ),
    ],
)
def test_a_message_that_fits_passes(version, method, message):
    assert official.check_emitted(version, method, message) == message


def test_what_a_server_emits_is_really_looked_at(monkeypatch):
    seen = []
    monkeypatch.setattr(official, "violation", lambda version, method, message: seen.append((version, method)))
    server = Server("s")

    @server.tool
    def report(ctx: Context) -> str:
        ctx.progress(1)
        return "done"

    server.handle(modern("tools/call", name="report", meta={"progressToken": 1}), [].append)
    server.handle([])
    session = server.engine.open_session([].append)
    session.send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    assert seen == [
        ("2026-07-28", None),
        ("2026-07-28", "tools/call"),
        ("2025-11-25", None),
        ("2025-11-25", None),
    ]


def test_a_handler_that_returns_nonsense_is_caught():
    server = Server("s")

    @server.tool
    def broken() -> dict:
        return Raw({"content": [{"type": "text"}]})

    server.handle(modern("tools/call", name="broken"))
    assert "CallToolResult" in official.violations.pop()


@pytest.mark.parametrize(
    "version, message, words",
    [
        ("2026-07-28", {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": {}}}, "required"),
        ("2026-07-28", {"jsonrpc": "2.0", "id": 1, "method": "ping"}, "no ping in"),
        ("2026-07-28", {"jsonrpc": "2.0", "id": 1, "result": {}}, "no response"),
        ("2025-11-25", {"jsonrpc": "2.0", "id": 1, "method": "server/discover"}, "no server/discover in"),
        ("2025-11-25", {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": 1}}, "string"),
        ("2024-11-05", {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {}}, "requestId"),
    ],
)
def test_a_wrong_message_of_a_client_is_seen(version, message, words):
    assert words in (emitted.violation(version, message) or "")


def test_what_a_client_emits_is_really_looked_at(monkeypatch):
    seen = []
    monkeypatch.setattr(emitted, "violation", lambda version, message: seen.append((version, message.get("method"))))
    server = Server("s")

    @server.tool
    def where(ctx: Context) -> str:
        return ctx.list_roots()[0]["uri"]

    for mode in ("2024-11-05", "2026-07-28"):
        with Client(server, mode=mode, roots=["/srv"]) as client:
            assert client.call_tool("where").text == "file:///srv"
    assert seen == [
        ("2024-11-05", "initialize"),
        ("2024-11-05", "notifications/initialized"),
        ("2024-11-05", "tools/call"),
        ("2024-11-05", None),
        ("2026-07-28", "server/discover"),
        ("2026-07-28", "tools/call"),
        ("2026-07-28", "tools/call"),
    ]
