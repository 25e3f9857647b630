"""A small corpus: honest messages with a few bytes changed, each of which must have an orderly end.

The seed is fixed, so that a failure can be had again; MINIMCP_CORPUS makes more of them.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers import http_headers, modern
from tests.hostile.child import Child
from tests.hostile.support import LEGACY, Http, called, handshake, read_reply

COUNT = int(os.environ.get("MINIMCP_CORPUS", "400"))
HONEST: list[dict[str, Any]] = [
    modern("tools/call", 1, name="add", arguments={"a": 20, "b": 22}),
    modern("tools/call", "x", name="nested", arguments={"place": {"a": {"b": 1}}, "when": "\u00e9"}),
    modern("tools/call", 2, {"elicitation": {}}, {"progressToken": 1}, name="book", arguments={"city": "Oslo"}),
    modern("tools/list", 3, cursor="WyJ0b29scyIsIDFd"),
    modern("resources/read", 4, uri="note://abc"),
    modern("prompts/get", 5, name="greet", arguments={"name": "Ann"}),
    modern("server/discover", 6),
    handshake(),
    called("add", a=1, b=2),
    {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1, "reason": "x"}},
    {"jsonrpc": "2.0", "id": 7, "result": {"action": "accept", "content": {}}},
]
PIECES = [
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"null",
    b"1e999",
    b"-0",
    b"NaN",
    b"0" * 400,
]
PIECES += [
    b"\xff",
    b"\xed\xa0\x80",
    b"\x00",
    b"\x0b",
    b"\xc2\x85",
    b"\xe2\x80\xa8",
    b'"id":',
    b'"jsonrpc":"2.0",',
    b"_meta",
    b"1.0",
]


def mutants(count: int) -> Iterator[tuple[dict[str, Any], bytes]]:
    """An honest message, and its bytes with one to three changes, none of which is a line feed."""
    chance = random.Random(20260728)
    for number in range(count):
        honest = HONEST[number % len(HONEST)]
        data = bytearray(json.dumps(honest).encode())
        for _ in range(chance.randint(1, 3)):
            place, kind = chance.randrange(len(data)), chance.randrange(5)
            if kind == 0:
                data[place] ^= 1 << chance.randrange(8)
            elif kind == 1:
                del data[place : place + chance.randint(1, 8)]
            elif kind == 2:
                data[place:place] = chance.choice(PIECES)
            elif kind == 3:
                data[place:place] = data[place : place + chance.randint(1, 40)]
            else:
                end = place + chance.randint(1, 8)
                data[place:end] = chance.choice(PIECES)
            data = data or bytearray(b"{")
        yield honest, bytes(data).replace(b"\n", b" ")


def test_every_changed_message_has_an_orderly_answer_over_http(http: Http) -> None:
    session = http.initialize()
    with http.connect() as connection:
        for honest, data in mutants(COUNT):
            era = "_meta" in honest.get("params", {}) and "requestState" not in honest
            headers = http_headers(honest) if era else {**LEGACY, "Mcp-Session-Id": session}
            connection.sendall(http.head("POST", headers, len(data)) + data)
            reply = read_reply(connection)
            assert reply.status in (200, 202, 400, 404), (reply.status, data)
            if reply.status == 202:
                assert reply.body == b""
            elif reply.header("Content-Type") == "text/event-stream":
                assert reply.events
            else:
                answer = reply.message
                assert "result" in answer or answer["error"]["code"] in EXPECTED, (answer, data)


def test_every_changed_line_has_an_answer_or_is_a_notification_on_stdio() -> None:
    with Child() as child:
        for number, (_, data) in enumerate(mutants(COUNT)):
            mark = f"mark {number}"
            child.write(data + b"\n")
            child.send(modern("tools/call", mark, name="add", arguments={"a": 1, "b": 2}))
            answer = child.answer(mark)
            assert answer["result"]["content"][0]["text"] == "3"
        while child._unclaimed:
            answer = child.next()
            assert "result" in answer or "method" in answer or answer["error"]["code"] in EXPECTED
        child.alive()
        assert child.end() == 0


EXPECTED = (-32700, -32600, -32601, -32602, -32002, -32020, -32021, -32022)


@pytest.mark.parametrize("depth", [1, 63, 64, 65, 200, 5000])
def test_messages_of_every_depth_are_answered(http: Http, depth: int) -> None:
    value = "[" * depth + "]" * depth
    message = modern("tools/call", 1, name="add", arguments={"a": 1, "b": 2, "c": 777})
    reply = http.send(json.dumps(message).replace("777", value).encode(), http_headers(message))
    assert reply.status in (200, 400)
    assert reply.status == 200 or reply.code in (-32600, -32700)
