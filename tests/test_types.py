"""The TypedDicts against the official schemas of the two newest revisions, and what they are to type hints."""

from __future__ import annotations

import json
import typing
from pathlib import Path
from typing import List, Union

import pytest

from minimcp import Server, audio, image, link, resource, text
from minimcp.protocol import types

SCHEMAS = Path(__file__).resolve().parents[2] / "shared" / "protocol" / "schema"
SHAPES = sorted(name for name, value in vars(types).items() if hasattr(value, "__total__") and not name.startswith("_"))
JSON_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object"}


@pytest.fixture(scope="module")
def revisions():
    """The definitions of both revisions."""
    if not SCHEMAS.is_dir():
        pytest.skip("the official schemas are not beside this repository")
    return [json.loads((SCHEMAS / f"{name}.json").read_text())["$defs"] for name in ("2025-11-25", "2026-07-28")]


def members(hint: object) -> List[str]:
    """The members of a union, by the names of their classes; those of a list in the union by `list of`."""
    found: List[str] = []
    for part in typing.get_args(hint) if typing.get_origin(hint) is Union else [hint]:
        inner = typing.get_args(part) if typing.get_origin(part) is list else None
        found += [f"list of {name}" for name in members(inner[0])] if inner else [part.__name__]
    return sorted(found)


def schema_members(schema: dict, defs: dict) -> List[str]:
    """The same, of a schema."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return schema_members(defs[name], defs) if "anyOf" in defs[name] else [name]
    if schema.get("type") == "array":
        return [f"list of {name}" for name in schema_members(schema["items"], defs)]
    return sorted(name for branch in schema["anyOf"] for name in schema_members(branch, defs))


def test_the_shapes_are_those_that_users_annotate_with():
    assert SHAPES == [
        "Annotations",
        "AudioContent",
        "BlobResourceContents",
        "CallToolResult",
        "ClientCapabilities",
        "CreateMessageResult",
        "ElicitResult",
        "EmbeddedResource",
        "Error",
        "GetPromptResult",
        "Icon",
        "ImageContent",
        "Implementation",
        "JSONRPCErrorResponse",
        "JSONRPCNotification",
        "JSONRPCRequest",
        "JSONRPCResultResponse",
        "Prompt",
        "PromptArgument",
        "PromptMessage",
        "ReadResourceResult",
        "Resource",
        "ResourceLink",
        "ResourceTemplate",
        "Root",
        "SamplingMessage",
        "ServerCapabilities",
        "TextContent",
        "TextResourceContents",
        "Tool",
        "ToolAnnotations",
        "ToolResultContent",
        "ToolUseContent",
    ]


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_has_the_keys_of_both_revisions_and_requires_what_both_require(name, revisions):
    shape = getattr(types, name)
    old, new = (revision[name] for revision in revisions)
    assert set(typing.get_type_hints(shape)) == set(old["properties"]) | set(new["properties"])
    assert shape.__required_keys__ == set(old.get("required", ())) & set(new.get("required", ()))


@pytest.mark.parametrize("name", SHAPES)
def test_each_member_has_the_type_the_schema_says(name, revisions):
    for defs in revisions:
        for key, schema in defs[name]["properties"].items():
            hint = typing.get_type_hints(getattr(types, name))[key]
            while "$ref" in schema and "anyOf" not in defs[schema["$ref"].rpartition("/")[2]]:
                target = schema["$ref"].rpartition("/")[2]
                if target in SHAPES:
                    assert hint is getattr(types, target), key
                schema = defs[target]
            if typing.get_origin(hint) is typing.Literal:
                allowed = schema.get("enum", [schema.get("const")])
                # cacheScope, resultType and the like are Literals only where the schema closes them.
                assert sorted(typing.get_args(hint)) == sorted(allowed), key
            elif key == "structuredContent" or (name, key) == ("Error", "data"):
                assert hint is typing.Any
            elif isinstance(schema.get("type"), list):
                assert sorted(JSON_TYPES[part] for part in typing.get_args(hint)) == sorted(schema["type"]), key
            elif "type" in schema:
                kind = typing.get_origin(hint) or (dict if hasattr(hint, "__total__") else hint)
                assert JSON_TYPES[kind] == schema["type"], key
                items = schema.get("items", {})
                if "$ref" in items or "anyOf" in items:
                    if items.get("$ref", "").endswith("/Role"):
                        assert typing.get_args(hint) == (types.Role,)
                    else:
                        assert members(hint) == sorted(schema_members(schema, defs)), key
            else:
                assert members(hint) == schema_members(schema, defs), key


def test_builders_make_the_shapes_that_their_annotations_name():
    made = {
        "TextContent": text("a"),
        "ImageContent": image(b"a"),
        "AudioContent": audio(b"a"),
        "EmbeddedResource": resource("a://b", "c"),
        "ResourceLink": link("a://b", "c", title="d"),
    }
    for name, block in made.items():
        shape = getattr(types, name)
        assert shape.__required_keys__ <= set(block) <= set(typing.get_type_hints(shape))


def content_tools() -> List[object]:
    """Functions whose hints are blocks of content."""

    def one() -> types.ImageContent:
        return image(b"a")

    def many() -> List[types.ContentBlock]:
        return [text("a"), image(b"a")]

    def whole() -> types.CallToolResult:
        return {"content": [text("a")], "isError": True}

    def perhaps() -> typing.Optional[types.TextContent]:
        return text("a")

    return [one, many, whole, perhaps]


@pytest.mark.parametrize("function", content_tools(), ids=lambda function: function.__name__)
def test_a_tool_annotated_with_content_has_no_output_schema(function):
    server = Server("types")
    server.tool(function)
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "0"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    listed = server.handle({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}})
    assert "outputSchema" not in listed["result"]["tools"][0]
    params = {"name": function.__name__, "_meta": meta}
    result = server.handle({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params})["result"]
    assert "structuredContent" not in result
    assert [block["type"] for block in result["content"]] in (["text"], ["image"], ["text", "image"])
    assert result.get("isError", False) is (function.__name__ == "whole")


def test_a_tool_annotated_with_a_shape_that_is_no_content_has_structured_output():
    def roots() -> List[types.Root]:
        return [{"uri": "file:///a", "name": "a"}]

    server = Server("types")
    server.tool(roots)
    output = server.engine.registry.tools["roots"].definition["outputSchema"]
    assert output["type"] == "array"
    assert "uri" in json.dumps(output)
