"""Bytes to messages and back: strictness, bounds, ids."""

from __future__ import annotations

import pytest

from minimcp.protocol import wire
from minimcp.protocol.errors import InvalidRequest, McpError, ParseError


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b'{"a":1}x',
        b"\xff",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1,"a":2}',
        b"{'a':1}",
        b'{"a":"\n"}',
        "\ufeff{}".encode(),
        "{}".encode("utf-16"),
        b'{"a":01}',
    ],
)
def test_what_is_not_json_is_a_parse_error(raw):
    with pytest.raises(ParseError) as caught:
        wire.loads(raw)
    assert caught.value.code == -32700 and len(caught.value.message) < 200


def test_depth_and_size_are_bounded():
    assert wire.loads(b"[" * 64 + b"]" * 64)
    for raw in (b"[" * 65 + b"]" * 65, b"[" * 100_000, b"[" + b"0," * 250_001 + b"0]"):
        with pytest.raises((InvalidRequest, ParseError)):
            wire.loads(raw)
    assert len(wire.loads(b"[" + b"[]," * 1000 + b"[]]")) == 1001


@pytest.mark.parametrize(
    "message, kind",
    [
        ({"jsonrpc": "2.0", "id": 1, "method": "m"}, "request"),
        ({"jsonrpc": "2.0", "id": "", "method": "m", "params": {}}, "request"),
        ({"jsonrpc": "2.0", "method": "m"}, "notification"),
        ({"jsonrpc": "2.0", "id": 1, "result": None}, "response"),
        ({"jsonrpc": "2.0", "id": "a", "error": {}}, "response"),
        ({"jsonrpc": "2.0", "id": "a", "result": None, "error": {}}, "response"),
        ({"jsonrpc": "2.0", "id": "a", "result": {}, "error": None}, "response"),
        ({"jsonrpc": "2.0", "id": 1, "method": "m", "params": None}, "request"),
        ({"jsonrpc": "2.0", "method": "m", "params": None}, "notification"),
    ],
)
def test_messages_are_told_apart(message, kind):
    assert wire.check(message) == kind


@pytest.mark.parametrize(
    "message",
    [
        None,
        5,
        "x",
        [],
        {},
        {"id": 1, "method": "m"},
        {"jsonrpc": 2.0, "id": 1, "method": "m"},
        {"jsonrpc": "2.0", "id": None, "method": "m"},
        {"jsonrpc": "2.0", "id": True, "method": "m"},
        {"jsonrpc": "2.0", "id": 1.5, "method": "m"},
        {"jsonrpc": "2.0", "id": [1], "method": "m"},
        {"jsonrpc": "2.0", "id": 1, "method": None},
        {"jsonrpc": "2.0", "id": 1, "method": "m", "params": []},
        {"jsonrpc": "2.0", "id": 1},
        {"jsonrpc": "2.0", "id": 1, "result": 1, "error": {}},
        {"jsonrpc": "2.0", "id": 1, "error": None},
        {"jsonrpc": "2.0", "id": 1, "result": {}, "error": ""},
        {"jsonrpc": "2.0", "result": 1},
    ],
)
def test_what_is_no_message_is_an_invalid_request(message):
    with pytest.raises(InvalidRequest) as caught:
        wire.check(message)
    assert caught.value.code == -32600


def test_bytes_are_one_line_of_utf8():
    assert wire.dumps({"a": "å\u2028\n"}) == '{"a":"å\u2028\\n"}'.encode()
    assert wire.dumps("\ud800") == b'"\\ud800"'
    for value in (float("nan"), float("inf"), object(), {1, 2}, b"x"):
        with pytest.raises(ValueError):
            wire.dumps(value)


def test_a_reply_json_cannot_say_becomes_an_error_with_its_id(caplog):
    raw = wire.encode({"jsonrpc": "2.0", "id": "a", "result": {"x": float("nan")}})
    assert wire.loads(raw) == {
        "jsonrpc": "2.0",
        "id": "a",
        "error": {"code": -32603, "message": "The result cannot be written as JSON"},
    }
    assert "not JSON" in caplog.text


@pytest.mark.parametrize("id", [1, "1", 0, "", -5, 2**70])
def test_an_id_comes_back_with_its_type(id):
    assert wire.result(id, {})["id"] is id
    assert wire.error(id, McpError("x"))["id"] is id


def test_an_error_has_an_id_only_when_there_was_one_and_data_only_when_there_is_some():
    assert wire.error(None, McpError("x", code=5)) == {"jsonrpc": "2.0", "error": {"code": 5, "message": "x"}}
    assert wire.error(1, McpError("x", {"a": 1}, 5))["error"] == {"code": 5, "message": "x", "data": {"a": 1}}
    assert wire.readable_id({"id": None}) is None and wire.readable_id([]) is None and wire.readable_id({"id": 1}) == 1
