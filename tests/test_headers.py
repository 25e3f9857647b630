"""The `Mcp-*` headers: how values are written, and how they are held against the body."""

from __future__ import annotations

import pytest

from minimcp import Server
from minimcp.protocol import headers
from minimcp.protocol.errors import HeaderMismatch
from tests.helpers import modern

ORDER = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "count": {"type": "integer", "x-mcp-header": "Count"},
        "gift": {"type": "boolean", "x-mcp-header": "Gift"},
        "to": {"type": "object", "properties": {"zip": {"type": "string", "x-mcp-header": "Zip"}}},
    },
}


@pytest.mark.parametrize(
    "value, text",
    [
        ("plain", "plain"),
        ("two words", "two words"),
        ("", ""),
        ("é", "=?base64?w6k=?="),
        (" lead", "=?base64?IGxlYWQ=?="),
        ("trail ", "=?base64?dHJhaWwg?="),
        ("a\r\nb", "=?base64?YQ0KYg==?="),
        ("=?base64?eA==?=", "=?base64?PT9iYXNlNjQ/ZUE9PT89?="),
        ("=?BASE64?eA==?=", "=?BASE64?eA==?="),
        (-5, "-5"),
        (True, "true"),
        (False, "false"),
    ],
)
def test_values_are_written_as_they_are_or_in_base64(value, text):
    assert headers.encode(value) == text
    if isinstance(value, str):
        assert headers.decode("X", text) == value


@pytest.mark.parametrize(
    "value", ["é", "a\nb", "=?base64?eA?=", "=?base64?e A==?=", "=?base64?/w==?=", "=?base64?eB==?=", "\x7f"]
)
def test_malformed_values_are_refused(value):
    with pytest.raises(HeaderMismatch) as caught:
        headers.decode("X", value)
    assert caught.value.code == -32020


def order(sent, **arguments):
    """The reply to a call with these headers besides the usual ones."""
    server = Server("s")
    server.tool(lambda **given: "ok", "order", input_schema=ORDER)
    message = modern("tools/call", name="order", arguments=arguments)
    found = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "order", **sent}
    call = server.engine.call(message, get_header=lambda name: found.get(name.lower()))
    return call.run()


@pytest.mark.parametrize(
    "sent, arguments",
    [
        ({}, {}),
        ({}, {"region": None}),
        ({"mcp-param-region": "eu"}, {"region": "eu"}),
        ({"mcp-param-region": "=?base64?w6k=?="}, {"region": "é"}),
        ({"mcp-param-region": "=?base64?ZXU=?="}, {"region": "eu"}),
        ({"mcp-param-region": "=?base64??="}, {"region": ""}),
        ({"mcp-param-region": ""}, {"region": ""}),
        ({"mcp-param-count": "42"}, {"count": 42}),
        ({"mcp-param-count": "42.0"}, {"count": 42}),
        ({"mcp-param-count": "42"}, {"count": 42.0}),
        ({"mcp-param-count": "-7"}, {"count": -7}),
        ({"mcp-param-gift": "false"}, {"gift": False}),
        ({"mcp-param-zip": "0150"}, {"to": {"zip": "0150"}}),
        ({"mcp-param-other": "whatever", "mcp-session-id": "old"}, {}),
        ({"mcp-name": "=?base64?b3JkZXI=?="}, {}),
    ],
)
def test_headers_that_mirror_the_body_pass(sent, arguments):
    reply = order(sent, **arguments)
    assert "result" in reply, reply
    # The markers are in lower case; in any other they are text. Spec: TRN-087
    for marked in ("=?BASE64?b3JkZXI=?=", "=?Base64?b3JkZXI=?="):
        assert order({**sent, "mcp-name": marked}, **arguments)["error"]["code"] == -32020


@pytest.mark.parametrize(
    "sent, arguments",
    [
        ({"mcp-protocol-version": None}, {}),
        ({"mcp-protocol-version": "2025-11-25"}, {}),
        ({"mcp-method": None}, {}),
        ({"mcp-method": "TOOLS/CALL"}, {}),
        ({"mcp-method": "tools/list"}, {}),
        ({"mcp-name": None}, {}),
        ({"mcp-name": "Order"}, {}),
        ({"mcp-name": "=?base64?b3JkZXI?="}, {}),
        ({}, {"region": "eu"}),
        ({"mcp-param-region": "us"}, {"region": "eu"}),
        ({"mcp-param-region": "eu"}, {}),
        ({"mcp-param-region": "eu"}, {"region": None}),
        ({"mcp-param-region": ""}, {}),
        ({"mcp-param-region": "=?base64??="}, {}),
        ({"mcp-param-region": "=?base64??="}, {"region": None}),
        ({"mcp-param-region": "=?base64?!!?="}, {}),
        ({"mcp-param-region": "=?base64?=?="}, {"region": ""}),
        ({"mcp-param-count": "0"}, {"count": None}),
        ({"mcp-param-gift": "false"}, {}),
        ({"mcp-param-zip": "0150"}, {"to": {}}),
        ({"mcp-param-region": "EU"}, {"region": "eu"}),
        ({"mcp-param-region": "é"}, {"region": "é"}),
        ({"mcp-param-count": "43"}, {"count": 42}),
        ({"mcp-param-count": "42.5"}, {"count": 42}),
        ({"mcp-param-count": "0x2a"}, {"count": 42}),
        ({"mcp-param-gift": "True"}, {"gift": True}),
        ({"mcp-param-gift": "1"}, {"gift": True}),
        ({}, {"to": {"zip": "0150"}}),
    ],
)
def test_headers_that_are_missing_or_differ_are_refused(sent, arguments):
    reply = order(sent, **arguments)
    assert reply["error"]["code"] == -32020 and reply["id"] == 1


# Spec: TRN-074
NO_TOKEN = '\0\t\x1f\x7f\u00e9\u20ac()/,;<=>?@[\\]{}"'


@pytest.mark.parametrize("name", [*"!#$%&'*+-.^_`|~09AZaz", "X-Y_z.1"])
def test_every_token_is_a_header_name(name):
    schema = {"type": "object", "properties": {"a": {"type": "string", "x-mcp-header": name}}}
    assert headers.annotated(schema) == [(("a",), f"Mcp-Param-{name}", "string")]


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"type": "string", "x-mcp-header": ""}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": "a b"}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": "a:b"}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": "a\r\nb"}}},
        *({"properties": {"a": {"type": "string", "x-mcp-header": f"a{each}b"}}} for each in NO_TOKEN),
        {"properties": {"a": {"type": "string", "x-mcp-header": 5}}},
        {"properties": {"a": {"type": "number", "x-mcp-header": "A"}}},
        {"properties": {"a": {"type": "object", "x-mcp-header": "A"}}},
        {"properties": {"a": {"x-mcp-header": "A"}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": "A"}, "b": {"type": "string", "x-mcp-header": "a"}}},
        {"properties": {"a": {"type": "array", "items": {"type": "string", "x-mcp-header": "A"}}}},
        {"properties": {"a": {"oneOf": [{"type": "string", "x-mcp-header": "A"}]}}},
        {"$defs": {"d": {"type": "string", "x-mcp-header": "A"}}, "properties": {"a": {"$ref": "#/$defs/d"}}},
        {"allOf": [{"properties": {"a": {"type": "string", "x-mcp-header": "A"}}}]},
        {"if": {"properties": {"a": {"type": "string", "x-mcp-header": "A"}}}},
        {"properties": {"a": {"type": "integer", "x-mcp-header": "A", "maximum": 2**53}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": "user_id"}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": "_"}}},
        {
            "properties": {
                "a": {"type": "string", "x-mcp-header": "a-b"},
                "b": {"type": "object", "properties": {"c": {"type": "string", "x-mcp-header": "A_B"}}},
            }
        },
    ],
)
def test_annotations_that_break_a_rule_are_refused_at_registration(schema):
    with pytest.raises(ValueError, match="x-mcp-header"):
        Server("s").tool(lambda **given: "x", "x", input_schema={"type": "object", **schema})


def test_annotations_are_listed_and_a_property_may_have_that_name():
    server = Server("s")
    server.tool(lambda **given: "x", "x", input_schema=ORDER)
    server.tool(
        lambda **given: "x", "y", input_schema={"type": "object", "properties": {"x-mcp-header": {"type": "string"}}}
    )
    listed = server.handle(modern("tools/list"))["result"]["tools"]
    assert listed[0]["inputSchema"] == ORDER


def test_a_client_keeps_a_tool_of_a_server_that_can_receive_underscores():
    schema = {"properties": {"a": {"type": "string", "x-mcp-header": "user_id"}}}
    assert headers.annotated(schema) == [(("a",), "Mcp-Param-user_id", "string")]


def test_what_a_client_sends_is_what_a_server_accepts():
    annotations = headers.annotated(ORDER)
    arguments = {"region": " é", "count": -3, "gift": True, "to": {"zip": "=?base64?x?="}}
    message = modern("tools/call", name="order", arguments=arguments)
    sent = {name.lower(): value for name, value in headers.mirror(message, "name", annotations).items()}
    headers.check(lambda name: sent.get(name.lower()), message, "name", annotations)
    assert sent["mcp-param-count"] == "-3" and sent["mcp-param-region"] == "=?base64?IMOp?="


@pytest.mark.parametrize("number", [2**53, -(2**53), 2**60, 1e300])
def test_an_annotated_integer_that_a_header_cannot_carry_exactly_is_refused(number):
    server = Server("s")
    inner = {"type": "object", "properties": {"n": {"type": "integer", "x-mcp-header": "N"}}}
    schema = {"type": "object", "properties": {"deep": inner, "other": {"type": "integer"}}}
    server.tool(lambda **given: str(given), "count", input_schema=schema)
    reply = server.handle(modern("tools/call", name="count", arguments={"deep": {"n": number}}))
    assert reply["result"]["isError"] is True
    assert '"deep.n" must stay within 2^53-1' in reply["result"]["content"][0]["text"]
    for arguments in ({"deep": {"n": 2**53 - 1}}, {"deep": {"n": 1 - 2**53}, "other": number}, {"deep": {}}, {}):
        assert "isError" not in server.handle(modern("tools/call", name="count", arguments=arguments))["result"]


@pytest.mark.parametrize("keyword", ["default", "const", "enum", "examples"])
def test_data_in_a_schema_is_no_annotation(keyword):
    data = {"x-mcp-header": "not a name"}
    field = {"type": "object", keyword: [data] if keyword in ("enum", "examples") else data}
    schema = {"type": "object", "properties": {"a": field, "b": {"type": "string", "x-mcp-header": "B"}}}
    assert headers.annotated(schema) == [(("b",), "Mcp-Param-B", "string")]
