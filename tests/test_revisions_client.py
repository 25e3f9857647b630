"""All that a client declares and answers in each revision, held against the official schema of that revision."""

from __future__ import annotations

import pytest

from minimcp import Client, Context, Server
from minimcp.client.transports.memory import MemoryTransport
from minimcp.protocol import wire
from tests import official
from tests.asked import accept
from tests.played import INITIALIZED, Scripted
from tests.revised import AUDIO, DONE, FIELDS, IMAGE, LEGACY, SEVERAL, TEXT, TOOL, USE, fits, form, user

pytestmark = pytest.mark.skipif(not official.SCHEMAS.exists(), reason="the official schemas are not beside the tree")

NEVER = "9999"


@pytest.mark.parametrize(
    "version, declared",
    [
        ("2024-11-05", {"roots": {"listChanged": True}, "sampling": {}}),
        ("2025-03-26", {"roots": {"listChanged": True}, "sampling": {}}),
        ("2025-06-18", {"roots": {"listChanged": True}, "sampling": {}, "elicitation": {}}),
        (
            "2025-11-25",
            {"roots": {"listChanged": True}, "sampling": {"tools": {}}, "elicitation": {"form": {}, "url": {}}},
        ),
        ("2026-07-28", {"roots": {}, "sampling": {"tools": {}}, "elicitation": {"form": {}, "url": {}}}),
    ],
)
def test_a_client_declares_what_the_revision_has(version, declared):
    seen = []
    server = Server("s")

    @server.tool
    def tool(ctx: Context) -> str:
        seen.append(ctx.capabilities)
        return "x"

    with Client(server, mode=version, elicit=print, sample=print, sample_tools=True, roots=[]) as client:
        client.call_tool("tool")
    [sent] = seen
    sent.pop("extensions", None)
    assert sent == declared


def scripted(version, *questions):
    """A server of a revision that asks each of these in a call, one after the other."""

    def call(params, say):
        for number, (method, params) in enumerate(questions):
            say({"jsonrpc": "2.0", "id": f"q{number}", "method": method, "params": params})
            with server.changed:
                assert server.changed.wait_for(lambda: len(server.all(None)) > number, 10)  # noqa: B023
        return {"content": []}

    greeting = {**INITIALIZED, "protocolVersion": version}
    server = Scripted(initialize=lambda params, say: greeting, tools_call=call)
    return server


def answer(version, method, params, **callbacks):
    """A client's response to a question in a revision."""
    server = scripted(version, (method, params))
    with Client(server, mode=version, **callbacks) as client:
        client.call_tool("x")
    [response] = server.all(None)
    definition = "JSONRPCError" if version < "2025-11-25" else "JSONRPCErrorResponse"
    if "error" in response:
        fits(version, definition, response)
        return response["error"]["code"]
    name = {"elicitation/create": "ElicitResult", "roots/list": "ListRootsResult"}.get(method, "CreateMessageResult")
    fits(version, name, response["result"])
    return response["result"]


FORM = {"message": "?", "requestedSchema": form(plain=FIELDS["plain"], whole=FIELDS["whole"])}
PAGE = {"mode": "url", "message": "?", "url": "https://pay.example", "elicitationId": "e"}
# A question, a callback's reply, the first revision whose client answers so, and the answer; before, it is an error.
REPLIES = [
    (FORM, {"plain": "y"}, "2025-06-18", accept(plain="y", whole=3)),
    ({**FORM, "mode": "form"}, True, "2025-06-18", accept(plain="x", whole=3)),
    ({**FORM, "mode": None}, "cancel", "2025-06-18", {"action": "cancel"}),
    (FORM, None, "2025-06-18", {"action": "decline"}),
    (FORM, {"action": "decline", "content": {"plain": [{}]}}, "2025-06-18", {"action": "decline"}),
    (FORM, {"plain": 5}, NEVER, None),
    ({**FORM, "requestedSchema": form(r={"type": "number"})}, {"r": 0.5}, "2025-06-18", accept(r=0.5)),
    ({**FORM, "requestedSchema": form(c=SEVERAL)}, {"c": ["b"]}, "2025-11-25", accept(c=["b"])),
    ({**FORM, "requestedSchema": form(c={"type": "array"})}, {"c": [1]}, NEVER, None),
    ({**FORM, "requestedSchema": form(c={"type": "object"})}, {"c": {}}, NEVER, None),
    ({**FORM, "requestedSchema": form(c={})}, {"c": None}, NEVER, None),
    (PAGE, True, "2025-11-25", {"action": "accept"}),
    (PAGE, {"action": "accept", "content": {"a": 1}}, "2025-11-25", {"action": "accept"}),
    (PAGE, None, "2025-11-25", {"action": "decline"}),
    ({**PAGE, "mode": "video"}, True, NEVER, None),
    ({**PAGE, "mode": ["url"]}, True, NEVER, None),
]


@pytest.mark.parametrize("params, reply, since, expected", REPLIES)
@pytest.mark.parametrize("version", LEGACY)
def test_a_client_answers_an_elicitation_as_the_revision_has_it(version, params, reply, since, expected):
    found = answer(version, "elicitation/create", params, elicit=lambda question: reply)
    if version < "2025-06-18":
        assert found == -32601
    elif version < since:
        assert found in (-32602, -32603)
    else:
        assert found == expected


def test_a_mode_that_was_not_declared_is_invalid_params():
    for version in ("2025-06-18", "2025-11-25"):
        assert answer(version, "elicitation/create", {**PAGE, "mode": "video"}, elicit=lambda q: True) == -32602
    assert answer("2025-06-18", "elicitation/create", PAGE, elicit=lambda question: True) == -32602


CANNOT = "which this protocol revision cannot carry)"
SOUND = {"type": "text", "text": f"(audio content of type audio/wav, {CANNOT}"}
PICTURE = f"(image content of type image/png, {CANNOT}"
# The content of a model's answer, and how each revision writes it.
CONTENTS = [
    (TEXT, {"2024-11-05": TEXT}),
    (IMAGE, {"2024-11-05": IMAGE}),
    (AUDIO, {"2024-11-05": SOUND, "2025-03-26": AUDIO}),
    ([TEXT], {"2024-11-05": TEXT, "2025-11-25": [TEXT]}),
    ([AUDIO], {"2024-11-05": SOUND, "2025-03-26": AUDIO, "2025-11-25": [AUDIO]}),
    ([TEXT, TEXT], {"2024-11-05": {"type": "text", "text": "Hi\nHi"}, "2025-11-25": [TEXT, TEXT]}),
    ([TEXT, IMAGE], {"2024-11-05": {"type": "text", "text": f"Hi\n{PICTURE}"}, "2025-11-25": [TEXT, IMAGE]}),
    ([], {"2024-11-05": {"type": "text", "text": ""}, "2025-11-25": []}),
    (USE, {"2024-11-05": {"type": "text", "text": f"(tool_use content, {CANNOT}"}, "2025-11-25": USE}),
    ({**TEXT, "_meta": {"a": 1}}, {"2024-11-05": TEXT, "2025-06-18": {**TEXT, "_meta": {"a": 1}}}),
]


@pytest.mark.parametrize("content, written", CONTENTS)
@pytest.mark.parametrize("version", LEGACY)
def test_a_client_writes_a_models_answer_as_the_revision_has_it(version, content, written):
    reply = {"role": "assistant", "content": content, "model": "m", "stopReason": None}
    found = answer(version, "sampling/createMessage", {"messages": [], "maxTokens": 5}, sample=lambda params: reply)
    expected = written[max(first for first in written if first <= version)]
    assert found == {"role": "assistant", "content": expected, "model": "m"}


@pytest.mark.parametrize(
    "reply",
    [
        5,
        {},
        {"role": "system", "content": TEXT, "model": "m"},
        {"role": "assistant", "content": "Hi", "model": "m"},
        {"role": "assistant", "content": {"type": "text"}, "model": "m"},
        {"role": "assistant", "content": {"type": "video"}, "model": "m"},
        {"role": "assistant", "content": {**IMAGE, "data": "no base64"}, "model": "m"},
        {"role": "assistant", "content": [TEXT, None], "model": "m"},
        {"role": "assistant", "content": TEXT, "model": 5},
        {"role": "assistant", "content": TEXT, "model": "m", "stopReason": 5},
    ],
)
@pytest.mark.parametrize("version", LEGACY)
def test_a_models_answer_that_is_none_is_not_sent(version, reply):
    params = {"messages": [], "maxTokens": 5}
    assert answer(version, "sampling/createMessage", params, sample=lambda params: reply) == -32603


@pytest.mark.parametrize(
    "params, since",
    [
        ({"messages": user(TEXT), "maxTokens": 5}, "2024-11-05"),
        ({"messages": user([TEXT, IMAGE]), "maxTokens": 5, "includeContext": "thisServer"}, "2024-11-05"),
        ({"messages": user(TEXT), "maxTokens": 5, "tools": [TOOL]}, "2025-11-25"),
        ({"messages": user(TEXT), "maxTokens": 5, "toolChoice": {"mode": "auto"}}, "2025-11-25"),
        ({"messages": user(TEXT)}, NEVER),
        ({"maxTokens": 5}, NEVER),
        ({"messages": "Hi", "maxTokens": 5}, NEVER),
        ({"messages": user(TEXT), "maxTokens": "5"}, NEVER),
        ({"messages": [{"role": "assistant", "content": USE}], "maxTokens": 5}, NEVER),
        ({"messages": [{"role": "assistant", "content": USE}, *user(TEXT)], "maxTokens": 5}, NEVER),
        (
            {"messages": [{"role": "assistant", "content": USE}, *user({**DONE, "toolUseId": "9"})], "maxTokens": 5},
            NEVER,
        ),
        ({"messages": [{"role": "assistant", "content": USE}, *user([DONE, TEXT])], "maxTokens": 5}, NEVER),
    ],
)
@pytest.mark.parametrize("version", LEGACY)
def test_a_client_samples_for_a_request_of_its_revision_and_no_other(version, params, since):
    seen = []
    found = answer(
        version, "sampling/createMessage", params, sample=lambda params: seen.append(params) or "x", sample_tools=True
    )
    if version < since:
        assert found == -32602 and seen == []
    else:
        assert found["content"] == {"type": "text", "text": "x"} and seen == [params]


def test_an_answer_that_is_not_json_is_an_error_for_the_server(monkeypatch):
    send = MemoryTransport.send

    def encoding(self, message, *arguments):
        wire.dumps(message)
        send(self, message, *arguments)

    monkeypatch.setattr(MemoryTransport, "send", encoding)
    for odd in (float("nan"), float("inf")):
        reply = {"role": "assistant", "content": {**TEXT, "_meta": {"a": odd}}, "model": "m"}
        params = {"messages": [], "maxTokens": 5}
        assert answer("2025-11-25", "sampling/createMessage", params, sample=lambda params: reply) == -32603  # noqa: B023


@pytest.mark.parametrize("version", LEGACY)
def test_a_client_answers_with_roots_of_the_revision(version):
    roots = ["/srv", {"uri": "file:///a", "name": "A", "_meta": {"a": 1}}]
    found = answer(version, "roots/list", {}, roots=roots)["roots"]
    marked = {"_meta": {"a": 1}} if version >= "2025-06-18" else {}
    assert found == [{"uri": "file:///srv"}, {"uri": "file:///a", "name": "A", **marked}]
    assert answer(version, "roots/list", {}, roots=[{"uri": "file:///a", "name": 5}]) == -32603


@pytest.mark.parametrize("version", [*LEGACY, "2026-07-28"])
def test_a_completion_has_its_context_where_the_revision_has_one(version):
    heard = []
    server = Server("s")
    server.prompt(lambda a, b: "x", "p")
    server.completion("p", "a")(lambda value, chosen: heard.append(chosen) or ["1"])
    if version == "2024-11-05":
        # Which has no capability for what it can do.
        return
    with Client(server, mode=version) as client:
        assert client.complete("a", "", prompt="p", given={"b": "2"})["values"] == ["1"]
    assert heard == [{"b": "2"} if version >= "2025-06-18" else {}]
