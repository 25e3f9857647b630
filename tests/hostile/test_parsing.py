"""T001 to T030: what is not a JSON-RPC message, or only just one."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.helpers import http_headers, modern
from tests.hostile.support import Gate, Http

ADD = modern("tools/call", 1, name="add", arguments={"a": 20, "b": 22})
HEADERS = http_headers(ADD)


def raw(http: Http, body: bytes, **headers: str) -> Any:
    return http.send(body, {**HEADERS, **{name.replace("_", "-"): value for name, value in headers.items()}})


def text_of(message: Any) -> bytes:
    return json.dumps(message, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "body",
    [b"{", b"not json", b"{'jsonrpc': '2.0'}", text_of(ADD)[:-1] + b",}", b"/* no */ " + text_of(ADD), b"}{", b"\0"],
    ids=lambda body: "T001-" + repr(body[:12]),
)
def test_malformed_json_is_a_parse_error(http: Http, body: bytes) -> None:
    reply = raw(http, body)
    assert (reply.status, reply.code) == (400, -32700)
    assert reply.message.get("id") is None


def test_duplicate_members_are_a_parse_error_T001(http: Http) -> None:
    reply = raw(http, b'{"jsonrpc":"2.0","id":1,"id":2,"method":"tools/list","params":{}}')
    assert (reply.status, reply.code) == (400, -32700)


@pytest.mark.parametrize("body", [b"", b" ", b"\r\n\r\n"], ids=["T002-none", "T002-space", "T002-lines"])
def test_an_empty_body_is_a_parse_error(http: Http, body: bytes) -> None:
    reply = raw(http, body)
    assert (reply.status, reply.code) == (400, -32700)


@pytest.mark.parametrize("body", [b"null", b"42", b'"x"', b"true", b"1.5"], ids=lambda body: f"T003-{body.decode()}")
def test_a_scalar_is_not_a_message(http: Http, body: bytes) -> None:
    reply = raw(http, body)
    assert (reply.status, reply.code) == (400, -32600)


@pytest.mark.parametrize(
    "batch",
    [[], [ADD], [ADD] * 200, [1, {}, ADD, None], [[ADD]]],
    ids=["T004-empty", "T004-one", "T004-200", "T004-garbage", "T004-nested"],
)
def test_a_batch_is_refused_once_and_nothing_in_it_runs(http: Http, gate: Gate, batch: Any) -> None:
    gate.ran.clear()
    text = json.dumps(batch).replace('"add"', '"echo"').replace('"a": 20, "b": 22', '"text": "in a batch"')
    reply = raw(http, text.encode())
    assert (reply.status, reply.code) == (400, -32600)
    assert isinstance(reply.message, dict)
    assert gate.ran == []


@pytest.mark.parametrize("member", ["result", "error"], ids=["T005-result", "T005-error"])
def test_a_response_from_a_client_is_refused(http: Http, member: str) -> None:
    value = {"code": 1, "message": "no"} if member == "error" else {}
    reply = raw(http, text_of({"jsonrpc": "2.0", "id": "s1", member: value}))
    assert (reply.status, reply.code) == (400, -32600)


@pytest.mark.parametrize("id", [None, True, False, 1.5, [], {}, 1e300], ids=lambda id: f"T006-{json.dumps(id)}")
def test_an_id_is_a_string_or_an_integer(http: Http, id: Any) -> None:
    reply = raw(http, text_of({**ADD, "id": id}))
    assert (reply.status, reply.code) == (400, -32600)
    assert reply.message.get("id") is None


@pytest.mark.parametrize("value", [None, "1.0", 2.0, 2, ["2.0"], "", {}], ids=lambda value: f"T007-{json.dumps(value)}")
def test_jsonrpc_is_the_string_2_0(http: Http, value: Any) -> None:
    reply = raw(http, text_of({**ADD, "jsonrpc": value}))
    assert (reply.status, reply.code) == (400, -32600)
    assert reply.message["id"] == 1


def test_jsonrpc_may_not_be_missing_T007(http: Http) -> None:
    reply = raw(http, text_of({name: value for name, value in ADD.items() if name != "jsonrpc"}))
    assert (reply.status, reply.code, reply.message["id"]) == (400, -32600, 1)


@pytest.mark.parametrize("value", [7, None, ["tools/list"], {}, True], ids=lambda value: f"T008-{json.dumps(value)}")
def test_a_method_is_a_string(http: Http, value: Any) -> None:
    reply = raw(http, text_of({**ADD, "method": value}))
    assert (reply.status, reply.code, reply.message["id"]) == (400, -32600, 1)


def test_a_method_may_not_be_missing_T008(http: Http) -> None:
    reply = raw(http, text_of({name: value for name, value in ADD.items() if name != "method"}))
    assert (reply.status, reply.code, reply.message["id"]) == (400, -32600, 1)


@pytest.mark.parametrize("value", [[], [1], "x", 5, True], ids=lambda value: f"T009-{json.dumps(value)}")
def test_params_are_an_object(http: Http, value: Any) -> None:
    reply = raw(http, text_of({**ADD, "params": value}))
    assert (reply.status, reply.code, reply.message["id"]) == (400, -32600, 1)


@pytest.mark.parametrize("name", ["ID", "Id", "\u0130d", "id ", " id", "id\0"], ids=lambda name: f"T010-{name!r}")
def test_a_member_is_known_by_its_exact_name(http: Http, name: str) -> None:
    message = {key: value for key, value in ADD.items() if key != "id"}
    reply = raw(http, text_of({**message, name: 1}))
    assert (reply.status, reply.body) == (202, b"")
    for member in ("jsonrpc", "method"):
        renamed = {key.upper() if key == member else key: value for key, value in ADD.items()}
        reply = raw(http, text_of(renamed))
        assert (reply.status, reply.code, reply.message["id"]) == (400, -32600, 1)
    reply = raw(http, text_of({**message, "id": 1, "PARAMS": message["params"], "params": {}}))
    assert (reply.status, reply.code) == (400, -32602)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"], ids=lambda word: f"T012-{word}")
@pytest.mark.parametrize("place", ["id", "argument"])
def test_what_is_not_a_json_number_is_a_parse_error(http: Http, word: str, place: str) -> None:
    body = text_of({**ADD, "id": 777} if place == "id" else {**ADD, "params": {**ADD["params"], "x": 777}})
    reply = raw(http, body.replace(b"777", word.encode()))
    assert (reply.status, reply.code) == (400, -32700)


def test_a_number_beyond_all_bounds_never_comes_back_as_infinity_T013(http: Http) -> None:
    body = text_of(modern("tools/call", 1, name="double", arguments={"number": 777})).replace(b"777", b"1e999")
    reply = raw(http, body, Mcp_Name="double")
    assert b"Infinity" not in reply.body
    assert "error" in reply.message or reply.message["result"]["isError"] is True
    reply = raw(http, text_of({**ADD, "id": 777}).replace(b"777", b"1e999"))
    assert (reply.status, reply.code) == (400, -32600)


@pytest.mark.parametrize("place", ["T014-id", "T014-argument"])
def test_an_integer_of_5000_digits_is_refused_or_served_but_never_a_failure(http: Http, place: str) -> None:
    digits = b"7" * 5000
    message = (
        {**ADD, "id": 777} if place == "T014-id" else modern("tools/call", 1, name="add", arguments={"a": 777, "b": 1})
    )
    reply = raw(http, text_of(message).replace(b"777", digits))
    assert reply.status in (200, 400)
    if reply.status == 400:
        assert reply.code in (-32700, -32600)


@pytest.mark.parametrize(
    "bad",
    [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\xf8\x88\x80\x80\x80"],
    ids=["T017-ff", "T017-overlong", "T017-surrogate", "T017-truncated", "T017-five"],
)
def test_what_is_not_utf8_is_a_parse_error(http: Http, bad: bytes) -> None:
    body = text_of(modern("tools/call", 1, name="echo", arguments={"text": "TEXT"})).replace(b"TEXT", bad)
    reply = raw(http, body, Mcp_Name="echo")
    assert (reply.status, reply.code) == (400, -32700)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"], ids=lambda name: f"T019-{name}")
def test_a_byte_order_mark_or_another_encoding_is_a_parse_error(http: Http, encoding: str) -> None:
    reply = raw(http, json.dumps(ADD).encode(encoding))
    assert (reply.status, reply.code) == (400, -32700)


def test_a_name_with_a_nul_never_matches_its_beginning_T021(http: Http) -> None:
    reply = raw(http, text_of(modern("tools/list\0", 1)), Mcp_Method="tools/list")
    assert (reply.status, reply.code) == (400, -32020)
    encoded = "=?base64?YWRkAHg=?="
    reply = raw(http, text_of(modern("tools/call", 1, name="add\0x", arguments={"a": 1, "b": 2})), Mcp_Name=encoded)
    assert (reply.status, reply.code) == (400, -32602)


@pytest.mark.parametrize(
    "id",
    [0, -7, 1, "1", 2**53 + 1, "", "x" * 1000, "\U0001f600", "a\nb", -(2**70), "\u2028", "null", 1e2],
    ids=lambda id: f"T023-{json.dumps(id)[:20]}",
)
def test_an_id_comes_back_with_its_value_and_type(http: Http, id: Any) -> None:
    reply = raw(http, text_of({**ADD, "id": id}))
    if isinstance(id, float):
        assert (reply.status, reply.code) == (400, -32600)
        return
    assert reply.status == 200
    assert reply.message["id"] == id
    assert type(reply.message["id"]) is type(id)


def test_an_id_as_long_as_a_book_is_refused_and_not_reflected_T024(http: Http) -> None:
    reply = raw(http, text_of({**ADD, "id": "x" * 200_000}))
    assert (reply.status, reply.code) == (400, -32600)
    assert len(reply.body) < 16_384


@pytest.mark.parametrize("what", ["method", "name", "argument", "version", "level", "cursor"])
def test_long_text_in_a_mistake_is_not_reflected_T024(http: Http, gate: Gate, what: str) -> None:
    long = "y" * 200_000
    message = {
        "method": modern(long, 1),
        "name": modern("tools/call", 1, name=long, arguments={}),
        "argument": modern("tools/call", 1, name="add", arguments={"a": long, long: 2}),
        "version": modern("tools/list", 1, meta={"io.modelcontextprotocol/protocolVersion": long}),
        "level": modern("tools/list", 1, meta={"io.modelcontextprotocol/logLevel": long}),
        "cursor": modern("tools/list", 1, cursor=long),
    }[what]
    # Headers of that length never get this far, so the message goes to the server itself; the stdio cases send it too.
    from tests.hostile.support import attacked

    answer = json.dumps(attacked(gate).handle(message))
    assert len(answer) < 16_384
    assert ("error" in json.loads(answer)) or json.loads(answer)["result"]["isError"]


@pytest.mark.parametrize(
    "method", ["nope", "tools/unknown", "notifications/initialized"], ids=lambda name: f"T025-{name}"
)
def test_an_unknown_method_is_not_found(http: Http, method: str) -> None:
    reply = http.call(modern(method, "seven"))
    assert (reply.status, reply.code, reply.message["id"]) == (404, -32601, "seven")


@pytest.mark.parametrize("method", ["__class__", "Tools/list", "tools.list", "rpc.discover", "", "tools/call/../list"])
def test_a_method_is_looked_up_in_a_table_T026(http: Http, method: str) -> None:
    reply = http.call(modern(method, 9))
    assert (reply.status, reply.code, reply.message["id"]) == (404, -32601, 9)


@pytest.mark.parametrize("method", ["notifications/nope", "nope", "notifications/progress", "tools/call"])
def test_a_notification_is_taken_without_an_answer_T027(http: Http, gate: Gate, method: str) -> None:
    gate.ran.clear()
    message = {"jsonrpc": "2.0", "method": method, "params": {"name": "echo", "arguments": {"text": "no id"}}}
    reply = raw(http, text_of(message), Mcp_Method=method)
    assert (reply.status, reply.body) == (202, b"")
    assert gate.ran == []


@pytest.mark.parametrize(
    "method", ["ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe", "initialize"]
)
def test_methods_of_the_session_era_do_not_exist_in_a_modern_request_T028(http: Http, method: str) -> None:
    reply = http.call(modern(method, 3, level="info", uri="config://app"))
    assert (reply.status, reply.code, reply.message["id"]) == (404, -32601, 3)


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("add", {}),
        ("add", {"a": "1", "b": 2}),
        ("add", {"a": 1.5, "b": 2}),
        ("add", {"a": True, "b": 2}),
        ("add", {"a": None, "b": 2}),
        ("add", {"a": {"b": {"c": []}}, "b": 2}),
        ("nested", {"place": {"x": {"y": "z"}}}),
        ("nested", {"place": {"x": {"y": 1}}, "when": 3}),
        ("total", {"items": [1, 2, "3"]}),
        ("total", {"items": {}}),
    ],
    ids=lambda value: f"T029-{json.dumps(value)}" if isinstance(value, dict) else None,
)
def test_arguments_that_do_not_fit_are_explained_to_the_model(http: Http, name: str, arguments: Any) -> None:
    reply = http.tool(name, **arguments)
    assert reply.status == 200
    assert reply.message["result"]["isError"] is True
    assert len(reply.message["result"]["content"][0]["text"]) > 10


@pytest.mark.parametrize("arguments", [[], "x", 5, True], ids=lambda value: f"T029-{json.dumps(value)}")
def test_arguments_are_an_object(http: Http, arguments: Any) -> None:
    reply = http.call(modern("tools/call", 1, name="add", arguments=arguments))
    assert (reply.status, reply.code) == (400, -32602)


@pytest.mark.parametrize(
    "name, arguments, expected",
    [
        ("total", {"items": [1] * 200_000}, "200000"),
        ("members", {"value": {f"k{number}": number for number in range(50_000)}}, "50000"),
    ],
    ids=["T030-array", "T030-object"],
)
def test_many_elements_are_answered_soon(http: Http, name: str, arguments: Any, expected: str) -> None:
    body = text_of(modern("tools/call", 1, name=name, arguments=arguments))
    began = time.monotonic()
    reply = raw(http, body, Mcp_Name=name)
    assert time.monotonic() - began < 12
    assert reply.message["result"]["content"][0]["text"] == expected


@pytest.mark.parametrize(
    "value",
    [b"[" * 100_000, b'{"a":' * 50_000, b"[" * 500 + b"]" * 500, b"[" + b"1," * 300_000 + b"1]"],
    ids=["T030-open-arrays", "T030-open-objects", "T030-deep", "T030-too-many"],
)
def test_too_deep_or_too_many_is_refused(http: Http, value: bytes) -> None:
    body = text_of(modern("tools/call", 1, name="members", arguments={"value": 777})).replace(b"777", value)
    began = time.monotonic()
    reply = raw(http, body, Mcp_Name="members")
    assert time.monotonic() - began < 12
    assert reply.status == 400
    assert reply.code in (-32700, -32600)
