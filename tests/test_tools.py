"""Tools: what is listed, how results are made of what functions return, and what happens when they fail."""

from __future__ import annotations

import json
import logging
import math
from typing import Any, Dict, Optional

import pytest

from minimcp import McpError, Principal, Server, ToolError, audio, image, link, resource, text
from tests.helpers import Legacy, problem, result


@pytest.fixture
def server():
    return Server("s", "1")


def call(server, tool, *, version=None, **arguments):
    if version is not None:
        return Legacy(server, version).result("tools/call", name=tool, arguments=arguments)
    return result(server, "tools/call", name=tool, arguments=arguments)


def test_a_server_without_tools_neither_declares_nor_serves_them(server):
    assert result(server, "server/discover")["capabilities"] == {}
    assert problem(server, "tools/list")["code"] == -32601
    assert problem(server, "tools/call", name="x")["code"] == -32601
    assert "tools" not in Legacy(server).hello["capabilities"]
    server.tool(lambda: "x", "x")
    assert result(server, "server/discover")["capabilities"] == {"tools": {"listChanged": True}}
    assert Legacy(server).hello["capabilities"]["tools"] == {"listChanged": True}


def test_the_last_tool_may_go_and_the_list_is_empty(server):
    server.tool(lambda: "x", "x")
    assert server.remove_tool("x") is True and server.remove_tool("x") is False
    assert result(server, "tools/list")["tools"] == []


def test_tools_are_listed_in_order_of_registration_and_replacing_keeps_the_place(server):
    for name in ("zebra", "ant", "Ant"):
        server.tool(lambda: "x", name)
    server.tool(lambda: "y", "zebra", description="new")
    names = [tool["name"] for tool in result(server, "tools/list")["tools"]]
    assert names == ["zebra", "ant", "Ant"] == [tool["name"] for tool in Legacy(server).result("tools/list")["tools"]]
    assert result(server, "tools/list")["tools"][0]["description"] == "new"
    assert call(server, "zebra")["content"] == [{"type": "text", "text": "y"}]


def test_names_are_case_sensitive(server):
    server.tool(lambda: "lower", "ant")
    assert problem(server, "tools/call", name="Ant") == {"code": -32602, "message": "Unknown tool: Ant"}


@pytest.mark.parametrize("name", ["a b", "a/b", "é", "x" * 129, "a,b"])
def test_names_others_could_not_use_are_refused(server, name):
    with pytest.raises(ValueError, match="tool name"):
        server.tool(lambda: "x", name)


def test_every_field_of_a_tool_is_listed(server):
    @server.tool(
        name="full.name-1",
        title="Full",
        description="Everything.",
        annotations={"readOnlyHint": True, "destructiveHint": False, "idempotentHint": True, "openWorldHint": False},
        icons=[{"src": "https://x.example/i.png", "mimeType": "image/png", "sizes": ["48x48"], "theme": "dark"}],
        meta={"com.example/tier": 2},
        output_schema={"type": "object", "properties": {"n": {"type": "integer"}}},
    )
    def full(n: int) -> dict:
        return {"n": n}

    (tool,) = result(server, "tools/list")["tools"]
    assert tool == {
        "name": "full.name-1",
        "title": "Full",
        "description": "Everything.",
        "inputSchema": {
            "type": "object",
            "properties": {"n": {"type": "integer"}},
            "required": ["n"],
            "additionalProperties": False,
        },
        "outputSchema": {"type": "object", "properties": {"n": {"type": "integer"}}},
        "annotations": {
            "readOnlyHint": True,
            "destructiveHint": False,
            "idempotentHint": True,
            "openWorldHint": False,
        },
        "icons": [{"src": "https://x.example/i.png", "mimeType": "image/png", "sizes": ["48x48"], "theme": "dark"}],
        "_meta": {"com.example/tier": 2},
    }
    assert Legacy(server, "2025-06-18").result("tools/list")["tools"][0].keys() == tool.keys() - {"icons"}
    assert Legacy(server, "2025-03-26").result("tools/list")["tools"][0].keys() == {
        "name",
        "description",
        "inputSchema",
        "annotations",
    }


def test_a_tool_without_parameters_takes_none(server):
    server.tool(lambda: "x", "x")
    assert result(server, "tools/list")["tools"][0]["inputSchema"] == {"type": "object", "additionalProperties": False}
    assert call(server, "x", extra=1)["isError"] is True
    assert result(server, "tools/call", name="x")["content"] == [{"type": "text", "text": "x"}]


def test_a_raw_schema_is_listed_word_for_word(server):
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$defs": {"size": {"$anchor": "size", "enum": ["s", "m"]}},
        "type": "object",
        "properties": {"size": {"$ref": "#/$defs/size"}, "gift": {"type": "boolean"}},
        "allOf": [
            {
                "if": {"properties": {"gift": {"const": True}}, "required": ["gift"]},
                "then": {"required": ["to"]},
                "else": {},
            }
        ],
        "anyOf": [{"required": ["size"]}],
        "unevaluatedProperties": True,
    }
    server.tool(lambda **order: order, "order", input_schema=schema)
    assert result(server, "tools/list")["tools"][0]["inputSchema"] == schema
    assert call(server, "order", size="m")["structuredContent"] == {"size": "m"}
    assert call(server, "order", size="m", gift=True)["isError"] is True
    assert call(server, "order", size="xl")["isError"] is True


@pytest.mark.parametrize(
    "schema",
    [
        5,
        {"type": "array"},
        {"type": "object", "properties": {"a": {"type": "nonsense"}}},
        {"type": "object", "$schema": "https://example.com/own-dialect"},
        {"type": "object", "properties": {"a": {"$ref": "https://example.com/a.json"}}},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/missing"}}},
    ],
)
def test_an_input_schema_that_is_none_is_refused_at_registration(server, schema):
    with pytest.raises((ValueError, TypeError)):
        server.tool(lambda **given: "x", "x", input_schema=schema)
    assert result(server, "server/discover")["capabilities"] == {}


def test_an_older_dialect_is_kept_and_honoured(server):
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {"pair": {"type": "array", "items": [{"type": "integer"}, {"type": "string"}]}},
    }
    server.tool(lambda pair: "fits", "pair", input_schema=schema)
    assert call(server, "pair", pair=[1, "a"])["content"][0]["text"] == "fits"
    assert call(server, "pair", pair=["a", 1])["isError"] is True


def test_what_a_function_returns_becomes_content(server):
    cases = {
        "text": ("hello", [{"type": "text", "text": "hello"}]),
        "nothing": (None, []),
        "png": ((b"\x89PNG", "image/png"), [{"type": "image", "data": "iVBORw==", "mimeType": "image/png"}]),
        "wav": ((b"RIFF", "audio/wav"), [{"type": "audio", "data": "UklGRg==", "mimeType": "audio/wav"}]),
        "built": (
            [text("a"), image(b"\x89PNG"), audio(b"RIFF"), link("x://y", "y"), resource("x://y", "z", "text/plain")],
            [
                {"type": "text", "text": "a"},
                {"type": "image", "data": "iVBORw==", "mimeType": "image/png"},
                {"type": "audio", "data": "UklGRg==", "mimeType": "audio/wav"},
                {"type": "resource_link", "uri": "x://y", "name": "y"},
                {"type": "resource", "resource": {"uri": "x://y", "mimeType": "text/plain", "text": "z"}},
            ],
        ),
        "annotated": (
            text("a", annotations={"audience": ["user"], "priority": 0.5, "lastModified": "2026-01-01T00:00:00Z"}),
            [
                {
                    "type": "text",
                    "text": "a",
                    "annotations": {"audience": ["user"], "priority": 0.5, "lastModified": "2026-01-01T00:00:00Z"},
                }
            ],
        ),
        "whole": ({"content": [text("a")], "_meta": {"com.example/x": 1}}, [{"type": "text", "text": "a"}]),
    }
    for name, (value, content) in cases.items():
        server.tool(lambda value=value: value, name, input_schema={"type": "object"})
        assert call(server, name)["content"] == content, name
    assert result(server, "tools/call", name="whole")["_meta"]["com.example/x"] == 1


def test_a_dict_is_structured_content_and_its_json_as_text(server):
    server.tool(lambda: {"å": [1, None]}, "data")
    found = call(server, "data")
    assert found["structuredContent"] == {"å": [1, None]}
    assert found["content"] == [{"type": "text", "text": '{"å":[1,null]}'}]
    assert call(server, "data", version="2025-06-18") == {
        "content": [{"type": "text", "text": '{"å":[1,null]}'}],
        "structuredContent": {"å": [1, None]},
    }
    # Where a revision has no place for it, a client of ours finds it beside the content.
    assert call(server, "data", version="2024-11-05") == {
        "content": [{"type": "text", "text": '{"å":[1,null]}'}],
        "_meta": {"structuredContent": {"å": [1, None]}},
    }
    # The same with an outputSchema. Spec: FEAT-025
    schema = {"type": "object", "properties": {"å": {"type": "array"}}}
    server.tool(lambda: {"å": [1, None]}, "declared", output_schema=schema)
    for version in ("2026-07-28", "2025-11-25", "2025-06-18"):
        declared = call(server, "declared", version=version)
        assert declared["structuredContent"] == {"å": [1, None]}
        assert declared["content"] == [{"type": "text", "text": '{"å":[1,null]}'}]


def test_an_output_schema_of_any_shape_is_for_modern_clients_and_one_of_objects_for_all(server):
    @server.tool
    def numbers() -> list[int]:
        return [1, 2]

    @server.tool
    def maybe() -> Optional[int]:
        return None

    listed = {tool["name"]: tool for tool in result(server, "tools/list")["tools"]}
    assert listed["numbers"]["outputSchema"] == {"type": "array", "items": {"type": "integer"}}
    assert call(server, "numbers")["structuredContent"] == [1, 2]
    # None is a value like any other: the member is there.
    assert call(server, "maybe")["structuredContent"] is None
    for version in ("2025-06-18", "2025-11-25"):
        wrapped = [tool["outputSchema"] for tool in Legacy(server, version).result("tools/list")["tools"]]
        assert wrapped == [
            {"type": "object", "properties": {"result": schema}, "required": ["result"], "x-fastmcp-wrap-result": True}
            for schema in (listed["numbers"]["outputSchema"], listed["maybe"]["outputSchema"])
        ]
        assert call(server, "numbers", version=version) == {
            "content": [{"type": "text", "text": "[1,2]"}],
            "structuredContent": {"result": [1, 2]},
        }
        assert call(server, "maybe", version=version)["structuredContent"] == {"result": None}


def test_a_schema_keeps_its_references_when_it_is_wrapped_or_is_left_out(server):
    known = {"$defs": {"n": {"type": "integer"}}, "type": "array", "items": {"$ref": "#/$defs/n"}}
    server.tool(lambda: [1], "known", output_schema=known)
    server.tool(lambda: [[]], "itself", output_schema={"type": "array", "items": {"$ref": "#"}})
    session = Legacy(server)
    schemas = {tool["name"]: tool.get("outputSchema") for tool in session.result("tools/list")["tools"]}
    assert schemas["known"]["$defs"] == known["$defs"]
    assert schemas["known"]["properties"]["result"] == {"type": "array", "items": {"$ref": "#/$defs/n"}}
    assert session.result("tools/call", name="known")["structuredContent"] == {"result": [1]}
    assert schemas["itself"] is None
    assert session.result("tools/call", name="itself") == {
        "content": [{"type": "text", "text": "[[]]"}],
        "_meta": {"structuredContent": [[]]},
    }


def test_a_result_that_breaks_its_output_schema_is_a_failure(server, caplog):
    @server.tool(output_schema={"type": "object", "required": ["n"]})
    def broken() -> dict:
        return {"m": 1}

    found = call(server, "broken")
    assert found["isError"] is True and "structuredContent" not in found
    assert "broken" in caplog.text


@pytest.mark.parametrize("more", [{}, {"structuredContent": {"n": "x"}}, {"structuredContent": None}])
def test_a_whole_result_is_held_against_the_output_schema_too(server, more):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    server.tool(lambda: {"content": [text("own words")], **more}, "own", output_schema=schema)
    for version in (None, "2025-11-25", "2024-11-05"):
        found = call(server, "own", version=version)
        assert found["isError"] is True and "structuredContent" not in found


def test_a_whole_result_that_fits_keeps_its_own_text_and_a_failure_needs_no_data(server):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    own = {"content": [text("one")], "structuredContent": {"n": 1}, "_meta": {"com.example/x": 1}}
    server.tool(lambda: own, "own", output_schema=schema)
    server.tool(lambda: {"content": [text("no")], "isError": True}, "failed", output_schema=schema)
    assert call(server, "own", version="2025-11-25") == own
    assert call(server, "failed", version="2025-11-25") == {"content": [text("no")], "isError": True}


@pytest.mark.parametrize(
    "value",
    [
        {"number": 1, "type": {"name": "Bug"}},
        {"type": ["string", "null"]},
        {"type": "text", "text": 5},
        {"type": "image", "data": [1, 2], "mimeType": "image/png"},
        {"type": "image", "data": "AA=="},
        {"type": "resource", "resource": "x"},
        {"type": "resource", "resource": {"uri": "x://y"}},
        {"type": "resource_link", "uri": "x://y"},
        {"type": "resource_link", "uri": 5, "name": "y"},
        {"resultType": [1]},
        {"resultType": {}},
        {"content": ["First", "Second"]},
        {"content": [{"type": "text", "text": "a"}, "b"]},
        {"content": [{"type": "text"}]},
        {"content": [], "isError": "no"},
        {"content": [], "_meta": 5},
        {"content": [], "total": 0},
        {"content": "text"},
    ],
)
def test_data_that_resemble_content_or_a_result_are_data(server, value):
    server.tool(lambda: value, "plain", input_schema={"type": "object"})
    server.tool(lambda: [value, "and text"], "listed")
    server.tool(lambda: {"inner": [value]}, "inner")

    @server.tool
    def hinted() -> Dict[str, Any]:
        return value

    for name, data in (("plain", value), ("hinted", value), ("inner", {"inner": [value]})):
        assert call(server, name, version="2025-11-25")["structuredContent"] == data
        (block,) = call(server, name)["content"]
        assert json.loads(block["text"]) == data
    (block,) = call(server, "listed")["content"]
    assert json.loads(block["text"]) == [value, "and text"]


def test_a_list_within_a_list_is_data(server):
    server.tool(lambda: [["a", "b"], ["c"]], "table")
    assert call(server, "table", version="2025-11-25") == {"content": [text('[["a","b"],["c"]]')]}


def test_a_tool_error_is_read_by_the_model_and_a_crash_is_logged(server, caplog):
    @server.tool
    def told() -> str:
        raise ToolError("No more tickets.")

    @server.tool
    def crash() -> str:
        raise KeyError("/etc/secret/path")

    assert call(server, "told") == {
        "resultType": "complete",
        "content": [{"type": "text", "text": "No more tickets."}],
        "isError": True,
        "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "s", "version": "1"}},
    }
    with caplog.at_level(logging.ERROR):
        found = call(server, "crash")
    assert found["isError"] is True and "secret" not in str(found) and "KeyError" not in str(found)
    assert "/etc/secret/path" in caplog.text


def test_a_result_json_cannot_say_is_a_failure(server, caplog):
    server.tool(lambda: {"x": float("nan")}, "nan")
    server.tool(lambda: object(), "thing")
    assert call(server, "nan")["isError"] is True and call(server, "thing")["isError"] is True
    assert "nan" in caplog.text


def test_a_tool_may_answer_with_an_error_of_the_application(server):
    @server.tool
    def limited() -> str:
        raise McpError("Too many calls", {"retryAfter": 5}, code=4290)

    error = problem(server, "tools/call", name="limited")
    assert error == {"code": 4290, "message": "Too many calls", "data": {"retryAfter": 5}}


def test_debugging_tells_what_a_crash_was(caplog):
    server = Server("s", debug=True)

    @server.tool
    def crash() -> str:
        raise KeyError("which")

    assert call(server, "crash")["content"][0]["text"] == "The tool crash failed: KeyError: 'which'"
    assert "crash" in caplog.text


@pytest.mark.parametrize("params", [{}, {"name": 5}, {"name": None}, {"name": "x", "arguments": []}])
def test_params_that_make_no_call_are_an_error(server, params):
    server.tool(lambda: "x", "x")
    assert problem(server, "tools/call", **params)["code"] == -32602
    assert Legacy(server).problem("tools/call", **params)["code"] == -32602


def test_arguments_that_do_not_fit_are_a_result_since_2025_11_25_and_an_error_before(server):
    @server.tool
    def double(n: int) -> int:
        return 2 * n

    arguments = {"n": "two"}
    for found in (call(server, "double", n="two"), call(server, "double", version="2025-11-25", n="two")):
        assert found["isError"] is True and '"n"' in found["content"][0]["text"].replace("'", '"')
    for version in ("2025-06-18", "2025-03-26", "2024-11-05"):
        error = Legacy(server, version).problem("tools/call", name="double", arguments=arguments)
        assert error["code"] == -32602


def test_who_may_not_see_a_tool_may_not_call_it(server):
    @server.tool(allow=lambda ctx: ctx.principal == Principal("ann"))
    def private() -> str:
        return "for ann"

    def ask(method, principal, **params):
        from tests.helpers import modern

        return server.handle(modern(method, **params), principal=principal)

    assert ask("tools/list", "ann")["result"]["tools"][0]["name"] == "private"
    assert ask("tools/list", None)["result"]["tools"] == []
    assert ask("tools/call", "ann", name="private")["result"]["content"][0]["text"] == "for ann"
    refused = ask("tools/call", "bob", name="private")["error"]
    assert refused == {"code": -32602, "message": "Unknown tool: private"}


def test_async_functions_are_refused_with_what_to_write(server):
    async def later() -> str:
        return "x"

    with pytest.raises(TypeError, match="write def"):
        server.tool(later)
    with pytest.raises(TypeError):
        server.completion("x", "y")(later)


def test_lists_do_not_depend_on_who_asked_what_before(server):
    for name in ("a", "b"):
        server.tool(lambda: "x", name)
    before = result(server, "tools/list")
    session = Legacy(server, "2024-11-05")
    session.result("tools/call", name="a")
    result(server, "tools/call", name="b")
    assert result(server, "tools/list") == before


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize(
    "more",
    [
        *(
            {"input_schema": {"type": "object", "properties": {"x": {word: None}}}}
            for word in ("maximum", "multipleOf")
        ),
        *({"input_schema": {"type": "object", "properties": {"x": {word: None}}}} for word in ("const", "default")),
        {"input_schema": {"type": "object", "x-more": [None]}},
        {"output_schema": {"type": "object", "properties": {"x": {"enum": [None]}}}},
        {"annotations": {"priority": None}},
        {"meta": {"a": {"b": None}}},
    ],
)
def test_a_definition_that_json_cannot_say_is_refused_at_registration(more, number):
    def filled(part):
        if isinstance(part, dict):
            return {key: filled(inner) for key, inner in part.items()}
        return [filled(inner) for inner in part] if isinstance(part, list) else number if part is None else part

    server = Server("s")
    with pytest.raises(ValueError, match="cannot be listed|is not valid JSON Schema"):
        server.tool(lambda x=0: "x", "t", **filled(more))
    server.tool(lambda x=0: "x", "good")
    assert [tool["name"] for tool in result(server, "tools/list")["tools"]] == ["good"]


@pytest.mark.parametrize(
    "data", ["no base64", "aGk", "aGk=\n", "data:image/png;base64,aGk=", "aG-_", "\u00e4\u00e4\u00e4\u00e4"]
)
def test_text_that_is_not_base64_never_leaves_as_an_image(server, data):
    """Spec: FEAT-041"""
    for build in (image, audio):
        with pytest.raises(ValueError, match="base64"):
            build(data)
        assert build("aGk=")["data"] == "aGk="
    server.tool(lambda: {"type": "image", "data": data, "mimeType": "image/png"}, "drawn")
    assert [block["type"] for block in call(server, "drawn")["content"]] == ["text"]
    server.tool(lambda: {"type": "image", "data": "aGk=", "mimeType": "image/png"}, "painted")
    assert [block["type"] for block in call(server, "painted")["content"]] == ["image"]
    server.tool(lambda: {"type": ["image"], "data": data}, "listed")
    assert call(server, "listed")["structuredContent"] == {"type": ["image"], "data": data}


def test_tags_are_kept_in_the_meta_of_a_definition():
    server = Server("s")
    server.tool(lambda: "", "a", tags=["b", "a", "b"])
    server.tool(lambda: "", "b", tags={"y", "x"}, meta={"own/key": 1})
    server.tool(lambda: "", "c", tags=[])
    server.prompt(lambda: "", "p", tags=("q",))
    server.resource("a://b", tags=["r"])(lambda: "")
    assert [tool.get("_meta") for tool in result(server, "tools/list")["tools"]] == [
        {"minimcp/tags": ["b", "a"]},
        {"minimcp/tags": ["x", "y"], "own/key": 1},
        None,
    ]
    assert result(server, "prompts/list")["prompts"][0]["_meta"] == {"minimcp/tags": ["q"]}
    assert result(server, "resources/list")["resources"][0]["_meta"] == {"minimcp/tags": ["r"]}
    with pytest.raises(TypeError) as caught:
        server.tool(lambda: "", "d", tags="db")
    assert str(caught.value) == "tags= is a list: write tags=['db']"
