"""All that a server sends in each revision, held against the official schema of that revision.

Every question and every answer to it, every result, notification and error; and nothing leaves that a revision does not
define, although the schemas are open. `test_revisions_client` has the other direction.
"""

from __future__ import annotations

import functools
from typing import List, Literal, Optional

import pytest

from minimcp import Context, McpError, Raw, Server, audio, image, link, resource, text
from minimcp.protocol.errors import HeaderMismatch, MissingCapability, ResourceNotFound, UrlElicitationRequired
from tests import official
from tests.asked import ALL, Answering, accept, serving
from tests.helpers import Legacy, modern, result
from tests.revised import AUDIO, DONE, FIELDS, IMAGE, LEGACY, SEVERAL, TEXT, TITLES, TOOL, USE, fits, form, user

pytestmark = pytest.mark.skipif(not official.SCHEMAS.exists(), reason="the official schemas are not beside the tree")

# Each question, and the first revision in which a client can be asked it.
QUESTIONS = {
    "a form": (lambda ctx: ctx.elicit("?", form(**FIELDS)), "2025-06-18"),
    "a form of hints": (lambda ctx: ctx.elicit("?", {"n": (int, 1), "o": Optional[str]}), "2025-06-18"),
    "a choice of several": (lambda ctx: ctx.elicit("?", {"c": List[Literal["a", "b"]]}), "2025-11-25"),
    "several with a default": (lambda ctx: ctx.elicit("?", form(one=FIELDS["one"], c=SEVERAL)), "2025-11-25"),
    "several with titles": (lambda ctx: ctx.elicit("?", form(c=TITLES)), "2025-11-25"),
    "a page": (lambda ctx: ctx.elicit_url("?", "https://pay.example/1"), "2025-11-25"),
    "text": (lambda ctx: ctx.sample("Hi"), "2024-11-05"),
    "an image": (lambda ctx: ctx.sample(user(IMAGE)), "2024-11-05"),
    "sound": (lambda ctx: ctx.sample(user(AUDIO)), "2024-11-05"),
    "several blocks": (lambda ctx: ctx.sample(user([TEXT, {**IMAGE, "_meta": {"a": 1}}, AUDIO])), "2024-11-05"),
    "no block": (lambda ctx: ctx.sample(user([])), "2024-11-05"),
    "annotations": (
        lambda ctx: ctx.sample(user(text("Hi", annotations={"priority": 1, "lastModified": "2025-01-01T00:00:00Z"}))),
        "2024-11-05",
    ),
    "marked messages": (lambda ctx: ctx.sample([{**user(TEXT)[0], "_meta": {"a": 1}}]), "2024-11-05"),
    "every option": (
        lambda ctx: ctx.sample(
            "Hi",
            system="s",
            temperature=0.5,
            stop=["."],
            preferences={"hints": [{"name": "m"}], "costPriority": 0.1},
            include_context="thisServer",
            metadata={"a": 1},
        ),
        "2024-11-05",
    ),
    "tools": (lambda ctx: ctx.sample("Hi", tools=[TOOL]), "2025-11-25"),
    "a choice of tools": (lambda ctx: ctx.sample("Hi", tool_choice={"mode": "required"}), "2025-11-25"),
    "what tools did": (
        lambda ctx: ctx.sample([{"role": "assistant", "content": [TEXT, USE]}, *user([DONE])]),
        "2024-11-05",
    ),
    "roots": (lambda ctx: ctx.list_roots(), "2024-11-05"),
}
SAMPLED = {"role": "assistant", "content": TEXT, "model": "m"}
GOOD = {"elicitation/create": {"action": "cancel"}, "sampling/createMessage": SAMPLED, "roots/list": {"roots": []}}


class Agreeable(Answering):
    """A client that declares all there is, whatever its revision has, and answers by the question's method."""

    def __init__(self, server, version, answers=None):
        super().__init__(server, [], version, **ALL)

        def hear(message):
            self.asked.append(message)
            if "id" in message:
                answer = {"result": GOOD[message["method"]]} if answers is None else answers
                server.handle({"jsonrpc": "2.0", "id": message["id"], **answer}, session=self.session)

        self.hear = hear


def asking(ask):
    def tool(ctx: Context) -> str:
        ask(ctx)
        return "asked"

    return serving(tool)


@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize("version", LEGACY)
def test_a_question_leaves_only_where_a_revision_has_it_and_in_its_words(version, name):
    ask, since = QUESTIONS[name]
    client = Agreeable(asking(ask), version)
    result = client.call()
    if version < since:
        assert client.asked == [] and result["isError"] is True
        assert result["content"][0]["text"].startswith("This client cannot be asked")
        return
    assert result == {"content": [{"type": "text", "text": "asked"}]}
    [asked] = client.asked
    assert official.violation(version, None, asked) is None
    assert official.undefined(version, official.REQUESTS[asked["method"]], asked) is None


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_is_a_result_on_2026_07_28(name):
    reply = asking(QUESTIONS[name][0]).handle(modern("tools/call", name="tool", capabilities=ALL))
    [asked] = reply["result"]["inputRequests"].values()
    fits("2026-07-28", official.REQUESTS.get(asked["method"]), asked)


ANSWERS = {
    "a form": [
        ({"result": accept(plain="y")}, True),
        ({"result": accept()}, True),
        ({"result": {"action": "decline"}}, True),
        ({"result": {"action": "cancel", "content": {"plain": 5}}}, True),
        ({"result": accept(plain=5)}, False),
        ({"result": {"action": "accept"}}, False),
        ({"result": {"action": "later"}}, False),
        ({"result": []}, False),
        ({"error": {"code": -1, "message": "no"}}, False),
    ],
    "a choice of several": [({"result": accept(c=["a"])}, True), ({"result": accept(c=["z"])}, False)],
    "a page": [({"result": {"action": "accept"}}, True), ({"result": {"action": "decline"}}, True)],
    "text": [
        ({"result": SAMPLED}, True),
        ({"result": {**SAMPLED, "content": IMAGE}}, True),
        ({"result": {**SAMPLED, "content": AUDIO}}, True),
        ({"result": {**SAMPLED, "content": [TEXT, USE], "stopReason": "toolUse"}}, True),
        ({"result": {**SAMPLED, "content": []}}, True),
        ({"result": {**SAMPLED, "role": "system"}}, False),
        ({"result": {"role": "assistant"}}, False),
        ({"result": None}, False),
        ({"error": {"code": -1, "message": "User rejected sampling request"}}, False),
    ],
    "roots": [
        ({"result": {"roots": []}}, True),
        ({"result": {"roots": [{"uri": "file:///a", "name": "A", "_meta": {}}]}}, True),
        ({"result": {"roots": [{"uri": "https://a.example"}]}}, False),
        ({"result": {}}, False),
    ],
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("version", LEGACY)
def test_every_answer_ends_in_a_result_of_the_revision(version, name):
    ask, since = QUESTIONS[name]
    for answer, good in ANSWERS[name] if version >= since else ():
        result = Agreeable(asking(ask), version, answer).call()
        assert result.get("isError", False) is not good, answer
        fits(version, "CallToolResult", result)


# Results, notifications and errors of a server.

ICON = {"src": "https://s.example/i.png", "mimeType": "image/png", "sizes": ["48x48"]}
NOTES = {"audience": ["user"], "priority": 0.5, "lastModified": "2025-01-12T15:00:58Z"}
CONTENT = {
    "text": lambda: text("Hi", annotations=NOTES, meta={"a": 1}),
    "image": lambda: image(b"hi", annotations=NOTES, meta={"a": 1}),
    "audio": lambda: audio(b"hi", annotations=NOTES, meta={"a": 1}),
    "resource": lambda: resource("a://b", "x", annotations=NOTES, meta={"a": 1}),
    "marked resource": lambda: {"type": "resource", "resource": {"uri": "a://b", "blob": "aGk=", "_meta": {"a": 1}}},
    "link": lambda: link("a://b", "b", title="B", icons=[ICON], size=3, annotations=NOTES, _meta={"a": 1}),
    "data": lambda: {"n": 1},
    "list": lambda: [1, 2],
    "number": lambda: 5,
    "whole": lambda: {"content": [audio(b"hi")], "structuredContent": {"n": 1}, "isError": False, "_meta": {"a": 1}},
    "scalar": lambda: {"content": [], "structuredContent": 5},
    "nothing": lambda: None,
}


class Modern:
    """A client without a session, with the same methods."""

    def __init__(self, server):
        self.result = functools.partial(result, server)


def furnished():
    """A server that has of everything all that can be said of it."""
    server = Server(
        "s",
        "1",
        title="S",
        description="D",
        website="https://s.example",
        icons=[ICON],
        instructions="Go.",
        page_size=50,
    )
    more = {"title": "T", "icons": [ICON], "meta": {"a": 1}}
    for name, make in CONTENT.items():
        server.tool(make, name.replace(" ", "-"), **more, annotations={"readOnlyHint": True, "title": "A"})
        if name not in ("data", "list", "number", "whole", "scalar", "nothing"):
            server.prompt(lambda a="1", make=make: [make(), {"role": "assistant", "content": make()}], name, **more)

    @server.tool
    def count() -> int:
        return 3

    @server.tool
    def fields(n: int) -> dict:
        return {"n": n}

    @server.tool
    def talk(ctx: Context) -> str:
        ctx.progress(1, 2, "half")
        ctx.progress(2)
        ctx.log("info", {"a": 1}, "logger")
        return "x"

    server.resource("a://text", **more, mime_type="text/plain", size=3, annotations=NOTES)(lambda: "abc")
    server.resource("a://bytes")(lambda: b"abc")
    marked = {"uri": "a://whole", "text": "x", "_meta": {"a": 1}}
    server.resource("a://whole")(lambda: {"contents": [marked]})
    server.resource("a://in/{id}", **more, annotations=NOTES)(lambda id: {"id": id})
    server.completion("text", "a")(lambda value, chosen: [str(n) for n in range(150)])
    return server


@pytest.mark.parametrize("version", LEGACY)
def test_every_result_is_one_of_the_revision_and_no_more(version):
    server = furnished()
    client = Legacy(server, version)
    fits(version, "InitializeResult", client.hello)
    asked = [(f"{kind}/list", {}) for kind in ("tools", "prompts", "resources", "resources/templates")]
    asked += [("tools/call", {"name": name.replace(" ", "-")}) for name in (*CONTENT, "count", "talk")]
    asked += [("tools/call", {"name": "fields", "arguments": {"n": 1}})]
    asked += [("prompts/get", {"name": name}) for name in server.engine.registry.prompts]
    asked += [("resources/read", {"uri": uri}) for uri in ("a://text", "a://bytes", "a://whole", "a://in/1")]
    argument = {"name": "a", "value": "", "context": {"arguments": {}}}
    asked += [("completion/complete", {"ref": {"type": "ref/prompt", "name": "text"}, "argument": argument})]
    asked += [("ping", {}), ("logging/setLevel", {"level": "debug"}), ("resources/subscribe", {"uri": "a://text"})]
    for method, params in asked:
        fits(version, official.RESULTS[method], client.result(method, **params))


@pytest.mark.parametrize("version", [*LEGACY, "2026-07-28"])
def test_annotations_are_said_wherever_the_revision_has_them(version):
    client = Modern(furnished()) if version == "2026-07-28" else Legacy(furnished(), version)
    kept = NOTES if version >= "2025-06-18" else {"audience": ["user"], "priority": 0.5}
    assert client.result("resources/list")["resources"][0]["annotations"] == kept
    assert client.result("resources/templates/list")["resourceTemplates"][0]["annotations"] == kept
    assert client.result("tools/call", name="text")["content"][0]["annotations"] == kept
    [tool, *_] = client.result("tools/list")["tools"]
    assert tool.get("annotations") == ({"readOnlyHint": True, "title": "A"} if version >= "2025-03-26" else None)


@pytest.mark.parametrize("version", LEGACY)
def test_every_notification_is_one_of_the_revision_and_no_more(version):
    server = furnished()
    client = Legacy(server, version)
    client.result("tools/call", name="talk", _meta={"progressToken": 1})
    client.result("resources/subscribe", uri="a://text")
    for kind in ("tools", "prompts", "resources"):
        server.changed(kind)
    server.updated("a://text")
    methods = [message["method"] for message in client.sent]
    assert methods == [
        "notifications/progress",
        "notifications/progress",
        "notifications/message",
        "notifications/tools/list_changed",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
        "notifications/resources/updated",
    ]
    for message in client.sent:
        assert "id" not in message
        assert official.violation(version, None, message) is None
        assert official.undefined(version, official.NOTIFICATIONS[message["method"]], message) is None
    assert client.sent[0]["params"].get("message") == ("half" if version >= "2025-03-26" else None)


PAGES = {"elicitations": [{"mode": "url", "message": "?", "url": "https://pay.example", "elicitationId": "e"}]}
# An author's error, and its code in a revision.
ERRORS = [
    (McpError("no"), {"2024-11-05": -32603}),
    (McpError("no", code=4711), {"2024-11-05": 4711}),
    (McpError("no", code=-31999), {"2024-11-05": -31999}),
    (McpError("no", code=-32769), {"2024-11-05": -32769}),
    (McpError("no", code=-32600), {"2024-11-05": -32600}),
    (McpError("no", code=-32768), {"2024-11-05": -32603}),
    (McpError("no", code=-32000), {"2024-11-05": -32603}),
    (McpError("no", code=-32001), {"2024-11-05": -32603}),
    (McpError("no", code=-32019), {"2024-11-05": -32603}),
    (McpError("no", code=-32050), {"2024-11-05": -32603}),
    (McpError("no", code=-32099), {"2024-11-05": -32603}),
    (McpError("no", code=-32100), {"2024-11-05": -32603}),
    (McpError("no", code=-32020), {"2024-11-05": -32603}),
    (McpError("no", code=-32021), {"2024-11-05": -32603}),
    (McpError("no", {"supported": []}, code=-32022), {"2024-11-05": -32603}),
    (HeaderMismatch("no"), {"2024-11-05": -32603, "2026-07-28": -32020}),
    (MissingCapability("no", {"sampling": {}}), {"2024-11-05": -32603, "2026-07-28": -32021}),
    (McpError("no", code=-32002), {"2024-11-05": -32002, "2026-07-28": -32602}),
    (ResourceNotFound("no", {"uri": "a://b"}), {"2024-11-05": -32002, "2026-07-28": -32602}),
    (McpError("no", code=-32042), {"2024-11-05": -32602}),
    (UrlElicitationRequired("no", PAGES), {"2024-11-05": -32602, "2025-11-25": -32042, "2026-07-28": -32602}),
]


@pytest.mark.parametrize("error, codes", ERRORS)
@pytest.mark.parametrize("version", [*LEGACY, "2026-07-28"])
def test_an_error_leaves_with_a_code_that_its_revision_has(version, error, codes):
    server = Server("s")

    def fail() -> str:
        raise error

    server.tool(fail, "fail")
    server.prompt(fail, "fail")
    server.resource("a://fail")(fail)
    expected = codes[max(first for first in codes if first <= version)]
    for method, params in (
        ("tools/call", {"name": "fail"}),
        ("prompts/get", {"name": "fail"}),
        ("resources/read", {"uri": "a://fail"}),
    ):
        if version == "2026-07-28":
            reply = server.handle(modern(method, **params))
        else:
            reply = Legacy(server, version).reply(method, **params)
        assert reply["error"]["code"] == expected and reply["error"]["message"] == "no"
        assert official.violation(version, method, reply) is None


def test_a_result_that_is_handed_on_is_not_written_anew():
    server = Server("s")
    server.tool(lambda: Raw({"content": [AUDIO]}), "t")
    assert Legacy(server, "2025-03-26").result("tools/call", name="t") == {"content": [AUDIO]}


def test_a_form_of_2025_06_18_keeps_the_default_of_a_boolean_and_the_titles_of_choices():
    client = Agreeable(asking(QUESTIONS["a form"][0]), "2025-06-18")
    client.call()
    fields = client.asked[0]["params"]["requestedSchema"]["properties"]
    assert fields["flag"] == {"type": "boolean", "default": True}
    assert fields["titled"] == {"type": "string", "enum": ["a"], "enumNames": ["A"]}
    assert [name for name, field in fields.items() if "default" in field] == ["flag"]
