"""T031 to T045: the `_meta` of a modern request, and the headers that mirror its body."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.helpers import http_headers, modern
from tests.hostile.support import Http

VERSION = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
CLIENT = "io.modelcontextprotocol/clientInfo"
LEVEL = "io.modelcontextprotocol/logLevel"


def with_meta(meta: Any) -> dict[str, Any]:
    """A tools/list with this `_meta`."""
    return {"jsonrpc": "2.0", "id": 5, "method": "tools/list", "params": {"_meta": meta}}


def sentinel(data: bytes) -> str:
    return "=?base64?" + base64.b64encode(data).decode() + "?="


@pytest.mark.parametrize(
    "params",
    [
        None,
        {},
        {"_meta": {}},
        {"_meta": {VERSION: "2026-07-28"}},
        {"_meta": {CAPABILITIES: {}}},
        {"_meta": {VERSION: None, CAPABILITIES: {}}},
    ],
    ids=["T031-params", "T031-meta", "T031-both", "T031-capabilities", "T031-version", "T031-null"],
)
def test_a_request_without_its_required_meta_is_refused(http: Http, params: Any) -> None:
    message = {"jsonrpc": "2.0", "id": 5, "method": "tools/list", "params": params}
    if params is None:
        del message["params"]
    reply = http.send(message, http_headers(with_meta({})))
    assert (reply.status, reply.code, reply.message["id"]) == (400, -32602, 5)


@pytest.mark.parametrize(
    "meta",
    [
        [],
        "x",
        5,
        None,
        {VERSION: "2026-07-28", CAPABILITIES: []},
        {VERSION: "2026-07-28", CAPABILITIES: "x"},
        {VERSION: "2026-07-28", CAPABILITIES: None},
        {VERSION: "2026-07-28", CAPABILITIES: {}, CLIENT: 7},
        {VERSION: "2026-07-28", CAPABILITIES: {}, CLIENT: ["x"]},
        {VERSION: 20260728, CAPABILITIES: {}},
        {VERSION: ["2026-07-28"], CAPABILITIES: {}},
    ],
    ids=lambda meta: "T032-" + json.dumps(meta).replace("io.modelcontextprotocol/", ""),
)
def test_a_meta_of_the_wrong_shape_is_refused(http: Http, meta: Any) -> None:
    reply = http.send(with_meta(meta), http_headers(with_meta({})))
    assert (reply.status, reply.code, reply.message["id"]) == (400, -32602, 5)


@pytest.mark.parametrize(
    "capabilities",
    [{"elicitation": []}, {"elicitation": True}, {"sampling": "x"}, {"extensions": [1]}, {"roots": None}],
    ids=lambda value: "T032-" + json.dumps(value),
)
def test_capabilities_of_odd_shapes_are_as_good_as_none(http: Http, capabilities: Any) -> None:
    reply = http.tool("book", capabilities=capabilities, city="Oslo")
    assert (reply.status, reply.code) == (400, -32021)


@pytest.mark.parametrize(
    "version", ["1900-01-01", "2099-12-31", "latest", "", "2026-07-28x"], ids=lambda v: f"T033-{v}"
)
def test_an_unknown_version_is_answered_with_the_known_ones(http: Http, version: str) -> None:
    message = with_meta({VERSION: version, CAPABILITIES: {}})
    reply = http.send(message, http_headers(message, MCP_Protocol_Version=version))
    assert (reply.status, reply.code, reply.message["id"]) == (400, -32022, 5)
    data = reply.message["error"]["data"]
    assert "2026-07-28" in data["supported"]
    assert data["requested"] == version


@pytest.mark.parametrize("header", ["2025-11-25", "2099-12-31", "2026-07-28x", ""], ids=lambda v: f"T034-{v}")
def test_a_version_header_that_differs_from_the_body_is_a_mismatch(http: Http, header: str) -> None:
    reply = http.call(modern("tools/list", 5), MCP_Protocol_Version=header)
    assert (reply.status, reply.code, reply.message["id"]) == (400, -32020, 5)


def test_a_version_in_the_body_alone_is_a_mismatch_T034(http: Http) -> None:
    headers = http_headers(modern("tools/list"))
    del headers["MCP-Protocol-Version"]
    reply = http.send(modern("tools/list", 5), headers)
    assert (reply.status, reply.code, reply.message["id"]) == (400, -32020, 5)


@pytest.mark.parametrize("value", [None, "", "tools/call", "Tools/List", "TOOLS/LIST"], ids=lambda v: f"T035-{v}")
def test_the_method_header_is_the_method(http: Http, value: str | None) -> None:
    headers = http_headers(modern("tools/list"))
    del headers["Mcp-Method"]
    if value is not None:
        headers["Mcp-Method"] = value
    reply = http.send(modern("tools/list", 5), headers)
    assert (reply.status, reply.code, reply.message["id"]) == (400, -32020, 5)


@pytest.mark.parametrize("value", [None, "", "echo", "Add", "ADD", "add,add"], ids=lambda v: f"T036-{v}")
def test_the_name_header_is_the_name(http: Http, value: str | None) -> None:
    message = modern("tools/call", 5, name="add", arguments={"a": 1, "b": 2})
    headers = http_headers(message)
    del headers["Mcp-Name"]
    if value is not None:
        headers["Mcp-Name"] = value
    reply = http.send(message, headers)
    assert (reply.status, reply.code, reply.message["id"]) == (400, -32020, 5)


@pytest.mark.parametrize("header", ["Mcp-Method", "Mcp-Name"], ids=["T037-method", "T037-name"])
@pytest.mark.parametrize("first", [True, False], ids=["right-first", "right-last"])
def test_a_doubled_routing_header_is_refused(http: Http, header: str, first: bool) -> None:
    message = modern("tools/call", 5, name="add", arguments={"a": 1, "b": 2})
    headers = list(http_headers(message).items())
    headers.insert(len(headers) if first else 0, (header, "echo" if header == "Mcp-Name" else "tools/list"))
    reply = http.send(message, headers)
    assert reply.status == 400


def test_a_name_header_in_base64_is_decoded_T038(http: Http) -> None:
    reply = http.call(modern("tools/call", 5, name="add", arguments={"a": 1, "b": 2}), Mcp_Name="=?base64?YWRk?=")
    assert reply.status == 200
    assert reply.message["result"]["content"][0]["text"] == "3"


@pytest.mark.parametrize(
    "value",
    [
        "=?base64?YWRk",
        "=?base64?YWR?=",
        "=?base64?YWRk====?=",
        "=?base64?Y W R k?=",
        "=?base64?YWRk!?=",
        "=?base64?YWRl?=",
        "=?base64?YW-_?=",
        "=?base64??=",
        "=?BASE64?YWRk?=",
        "=?base64?ywrk?=",
        sentinel(b"\xff\xfe\xfd"),
        sentinel(b"add") + " ",
        sentinel(sentinel(b"add").encode()),
        "=?base64?YWRk?==?base64?YWRk?=",
    ],
    ids=lambda value: f"T039-{value}",
)
def test_a_sentinel_that_is_not_canonical_is_a_mismatch(http: Http, value: str) -> None:
    # A space at the end is not part of a header's value; servers differ in who removes it.
    allowed = ((400, -32020), (200, None)) if value.endswith(" ") else ((400, -32020),)
    reply = http.call(modern("tools/call", 5, name="add", arguments={"a": 1, "b": 2}), Mcp_Name=value)
    assert (reply.status, reply.code if reply.status != 200 else None) in allowed


def test_a_header_with_an_underscore_is_not_the_header_T040(http: Http) -> None:
    headers = {name: value for name, value in http_headers(modern("tools/list")).items() if name != "Mcp-Method"}
    reply = http.send(modern("tools/list", 5), {**headers, "Mcp_Method": "tools/list"})
    assert reply.status == 400
    headers["Mcp-Method"] = "tools/list"
    reply = http.send(modern("tools/list", 5), {**headers, "Mcp_Method": "tools/call"})
    assert reply.status in (200, 400)


@pytest.mark.parametrize(
    "value", [b"a\x01dd", b"\x7fadd", b"add\xc3\xa9", b"\xff", b"ad\x80d", b"a\x1bdd"], ids=lambda v: f"T041-{v!r}"
)
@pytest.mark.parametrize("header", [b"Mcp-Name", b"Mcp-Method", b"MCP-Protocol-Version"], ids=lambda h: h.decode())
def test_a_routing_header_with_odd_bytes_is_refused(http: Http, header: bytes, value: bytes) -> None:
    message = modern("tools/call", 5, name="add", arguments={"a": 1, "b": 2})
    headers = [
        (n.encode(), v.encode()) for n, v in http_headers(message).items() if n.lower() != header.decode().lower()
    ]
    reply = http.send(message, [*headers, (header, value)])
    assert reply.status == 400


REGION = modern("tools/call", 5, name="region", arguments={"region": "north"})


@pytest.mark.parametrize(
    "values",
    [[], ["south"], ["North"], ["north", "south"], ["south", "north"], ["north", "north"], [""], ["=?base64?bm9ydG?="]],
    ids=lambda values: "T042-" + "+".join(values),
)
def test_a_parameter_header_is_the_argument(http: Http, values: list[str]) -> None:
    headers = [*http_headers(REGION).items(), *(("Mcp-Param-Region", value) for value in values)]
    reply = http.send(REGION, headers)
    assert reply.status == 400
    if "json" in (reply.header("Content-Type") or ""):
        assert (reply.code, reply.message["id"]) == (-32020, 5)


@pytest.mark.parametrize("value", ["north", "=?base64?bm9ydGg=?="], ids=["T042-plain", "T042-base64"])
def test_the_right_parameter_header_is_served(http: Http, value: str) -> None:
    reply = http.call(REGION, Mcp_Param_Region=value)
    assert reply.message["result"]["content"][0]["text"] == "north"


@pytest.mark.parametrize(
    "token", [{}, True, None, 1.5, [], "x" * 5000], ids=lambda token: "T043-" + json.dumps(token)[:9]
)
def test_a_progress_token_of_a_wrong_type_is_ignored(http: Http, token: Any) -> None:
    reply = http.tool("steps", meta={"progressToken": token}, count=3)
    assert reply.status == 200
    assert reply.header("Content-Type") == "application/json"
    assert reply.message["result"]["content"][0]["text"] == "done"


@pytest.mark.parametrize(
    "level", ["loud", "", "INFO", 5, True, [], {}, ["info"], {"info": 1}], ids=lambda level: "T044-" + json.dumps(level)
)
def test_an_unknown_log_level_is_refused(http: Http, level: Any) -> None:
    reply = http.tool("steps", 5, meta={LEVEL: level}, count=1)
    assert (reply.status, reply.code, reply.message["id"]) == (400, -32602, 5)


@pytest.mark.parametrize("method", ["tools/list", "resources/list", "resources/templates/list", "prompts/list"])
@pytest.mark.parametrize(
    "cursor",
    [
        "nope",
        "",
        5,
        0,
        {},
        [],
        True,
        "x" * 100_000,
        "WyJ0b29scyIsIDFd",
        "WyJub3BlIiwgMV0=",
        "W10=",
        "bnVsbA==",
        "\ud800",
    ],
    ids=lambda cursor: "T045-" + json.dumps(cursor)[:20],
)
def test_a_cursor_of_another_is_refused(http: Http, method: str, cursor: Any) -> None:
    reply = http.call(modern(method, 5, cursor=cursor))
    # One of them is a cursor of tools/list, as this server writes it.
    if cursor == "WyJ0b29scyIsIDFd" and method == "tools/list":
        assert reply.status == 200
        return
    assert (reply.status, reply.code, reply.message["id"]) == (400, -32602, 5)
