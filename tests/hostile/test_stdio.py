"""T166 to T187 and T193 to T197: a conversation with a stdio server, as a child process."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import modern
from tests.hostile.child import Child, text
from tests.hostile.support import called, handshake

ADD = modern("tools/call", 1, name="add", arguments={"a": 20, "b": 22})
FORMS = {"elicitation": {}}


@pytest.fixture(scope="module")
def _child() -> Iterator[Child]:
    with Child() as child:
        yield child
        assert child.end() == 0


@pytest.fixture
def child(_child: Child) -> Iterator[Child]:
    """The child of this module, which must be alive after every case and have said nothing unasked."""
    yield _child
    _child.alive()


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"not json",
        b"{'a': 1}",
        b'{"a":1,}',
        b"// no",
        b"\xff\xfe",
        b"\0",
        b"NaN",
        b'{"a":1,"a":2}',
        b"\xef\xbb\xbf{}",
    ],
    ids=lambda line: f"T166-{line!r}",
)
def test_a_malformed_line_is_a_parse_error(child: Child, line: bytes) -> None:
    child.write(line + b"\n")
    answer = child.next()
    assert answer["error"]["code"] == -32700
    assert answer.get("id") is None


def test_blank_lines_are_ignored_and_crlf_is_accepted_T167(child: Child) -> None:
    child.write(b"\n\r\n  \n\t\n" + json.dumps(ADD).encode() + b"\r\n\r\n")
    assert text(child.answer(1)) == "42"


@pytest.mark.parametrize(
    "line",
    [b"null", b"42", b'"x"', b"true", b"[]", b"[1]", json.dumps([ADD, ADD]).encode()],
    ids=lambda l: f"T168-{l[:9]!r}",
)
def test_what_is_not_an_object_is_an_invalid_request(child: Child, line: bytes) -> None:
    child.write(line + b"\n")
    answer = child.next()
    assert answer["error"]["code"] == -32600
    assert answer.get("id") is None


@pytest.mark.parametrize(
    "member", [{"result": {}}, {"error": {"code": 1, "message": "x"}}], ids=["T168-result", "T168-error"]
)
def test_a_response_nobody_waits_for_is_met_with_silence(child: Child, member: Any) -> None:
    for id in (1, "s1", "s999"):
        child.send({"jsonrpc": "2.0", "id": id, **member})


@pytest.mark.parametrize(
    "change",
    [
        {"jsonrpc": "1.0"},
        {"jsonrpc": None},
        {"jsonrpc": 2},
        {"method": 5},
        {"method": None},
        {"params": []},
        {"params": "x"},
    ],
    ids=lambda change: "T169-" + json.dumps(change),
)
def test_a_bad_envelope_with_a_readable_id_is_answered_under_it(child: Child, change: Any) -> None:
    child.send({**ADD, "id": "bad", **change})
    assert child.answer("bad")["error"]["code"] == -32600


@pytest.mark.parametrize("id", [None, True, 1.5, [], {}, "x" * 200_000], ids=lambda id: f"T169-{str(id)[:8]}")
def test_an_id_of_the_wrong_kind_is_answered_without_one(child: Child, id: Any) -> None:
    child.send({**ADD, "id": id})
    answer = child.next()
    assert answer["error"]["code"] == -32600
    assert answer.get("id") is None
    assert len(json.dumps(answer)) < 1000


def test_neither_method_nor_result_is_answered_T169(child: Child) -> None:
    child.send({"jsonrpc": "2.0", "id": 7}, {"jsonrpc": "2.0", "id": 8, "result": {}, "error": {}})
    assert child.answer(7)["error"]["code"] == -32600
    assert child.answer(8)["error"]["code"] == -32600


@pytest.mark.parametrize(
    "id",
    [0, -7, 1, "1", 2**53 + 1, -(2**64), "", "x" * 1000, "\U0001f600", "a\nb\r\u2028", "\ud800"],
    ids=lambda id: f"T170-{json.dumps(id)[:12]}",
)
def test_an_id_comes_back_with_its_value_and_type(child: Child, id: Any) -> None:
    child.send({**ADD, "id": id})
    assert text(child.answer(id)) == "42"


@pytest.mark.parametrize("what", ["method", "name", "cursor", "uri", "prompt"], ids=lambda what: f"T024-{what}")
def test_long_text_in_a_mistake_is_not_reflected(child: Child, what: str) -> None:
    long = "y" * 200_000
    child.send(
        {
            "method": modern(long, "x"),
            "name": modern("tools/call", "x", name=long, arguments={}),
            "cursor": modern("tools/list", "x", cursor=long),
            "uri": modern("resources/read", "x", uri="note://" + long),
            "prompt": modern("prompts/get", "x", name=long),
        }[what]
    )
    assert len(json.dumps(child.answer("x"))) < 16_384


@pytest.mark.parametrize(
    "message, code",
    [
        (modern("nope", 5), -32601),
        (modern("ping", 5), -32601),
        (modern("tools/call", 5, name="nope", arguments={}), -32602),
        (modern("tools/call", 5, name="add\0x", arguments={}), -32602),
        (modern("tools/list\0", 5), -32601),
        (modern("tools/list", 5, meta={"io.modelcontextprotocol/protocolVersion": "1900-01-01"}), -32022),
        (modern("tools/list", 5, meta={"io.modelcontextprotocol/clientCapabilities": []}), -32602),
        (modern("tools/call", 5, name="book", arguments={"city": "Oslo"}), -32021),
    ],
    ids=lambda value: f"T175-{value}" if isinstance(value, int) else value["method"],
)
def test_mistakes_have_their_codes(child: Child, message: Any, code: int) -> None:
    child.send(message)
    assert child.answer(5)["error"]["code"] == code


@pytest.mark.parametrize(
    "message",
    [
        {"jsonrpc": "2.0", "method": "nope"},
        {"jsonrpc": "2.0", "method": "notifications/nope", "params": {}},
        {"jsonrpc": "2.0", "method": "notifications/cancelled"},
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "unknown"}},
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": [1]}},
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": {}, "reason": 5}},
        {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": "x"}},
        {name: value for name, value in ADD.items() if name != "id"},
    ],
    ids=lambda message: "T176-" + json.dumps(message)[17:70],
)
def test_a_notification_is_never_answered(child: Child, message: Any) -> None:
    child.send(message)


def test_a_line_that_is_too_long_is_refused_and_the_next_is_served_T177(child: Child) -> None:
    child.write(
        b'{"jsonrpc":"2.0","id":1,"method":"' + b"x" * (5 * 1024 * 1024) + b'"}\n' + json.dumps(ADD).encode() + b"\n"
    )
    refused = child.next()
    assert (refused["error"]["code"], refused.get("id")) == (-32600, 1)
    assert text(child.answer(1)) == "42"


def test_messages_arrive_in_any_pieces_T178(child: Child) -> None:
    echo = modern("tools/call", 2, name="echo", arguments={"text": "\u00e9\U0001f600"})
    line = json.dumps(echo, ensure_ascii=False).encode() + b"\n"
    for place in range(len(line)):
        child.write(line[place : place + 1])
    assert text(child.answer(2)) == "\u00e9\U0001f600"
    middle = line.index("\U0001f600".encode()) + 2
    child.write(line[:middle])
    child.write(line[middle:] + line + line)
    assert [text(child.next()) for _ in range(3)] == ["\u00e9\U0001f600"] * 3


def test_a_thousand_requests_in_one_write_have_a_thousand_answers_T179(child: Child) -> None:
    with ThreadPoolExecutor(1) as pool:
        requests = [modern("tools/call", number, name="add", arguments={"a": number, "b": 1}) for number in range(1000)]
        sent = pool.submit(child.send, *requests)
        answers = [child.next() for _ in range(1000)]
        sent.result(60)
    assert sorted(answer["id"] for answer in answers) == list(range(1000))
    assert all(text(answer) == str(answer["id"] + 1) for answer in answers)


@pytest.mark.parametrize("name", ["large", "large_apart"], ids=lambda name: f"T181-{name}")
def test_large_results_are_not_torn(child: Child, name: str) -> None:
    marks = "abcdefghijklmnopqrst"
    child.send(*(modern("tools/call", mark, name=name, arguments={"size": 10**6, "mark": mark}) for mark in marks))
    for _ in marks:
        answer = child.next()
        assert text(answer) == answer["id"] * 10**6


def test_what_a_handler_prints_is_not_on_the_wire_T182(child: Child) -> None:
    assert text(child.tool("prints", text='{"jsonrpc":"2.0","id":1,"result":{}}\n')) == "printed"


def test_a_handler_that_reads_its_input_sees_its_end_T183(child: Child) -> None:
    read = modern("tools/call", 1, name="read_input", arguments={})
    child.send(read, modern("tools/call", 2, name="add", arguments={"a": 1, "b": 2}))
    assert text(child.answer(1)) == "''b''"
    assert text(child.answer(2)) == "3"


def test_a_child_of_a_handler_sees_the_end_and_cannot_print_to_the_wire_T183(child: Child) -> None:
    child.send(modern("tools/call", 1, name="child_reads", arguments={}), *[{**ADD, "id": n} for n in range(10, 20)])
    assert text(child.answer(1)) == "0"
    assert [text(child.answer(n)) for n in range(10, 20)] == ["42"] * 10


@pytest.mark.parametrize("slow", ["linger", "hold"], ids=["T184-plain", "T184-context"])
def test_a_fast_call_is_answered_while_slow_ones_run(child: Child, slow: str) -> None:
    child.send(*(modern("tools/call", f"slow{n}", name=slow, arguments={}) for n in range(8)))
    began = time.monotonic()
    child.alive()
    assert time.monotonic() - began < 30
    if slow == "linger":
        assert text(child.tool("open_gate")) == "open"
        assert [text(child.answer(f"slow{n}")) for n in range(8)] == ["lingered"] * 8
        return
    for n in range(8):
        child.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": f"slow{n}"}})
        assert child.tool("was_told")["result"]["structuredContent"] is True


def test_a_cancelled_call_has_no_answer_and_others_go_on_T185(child: Child) -> None:
    child.send(*(modern("tools/call", n, name="hold", arguments={}) for n in ("one", "two")))
    child.send(
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "one", "reason": "x\ny"}}
    )
    assert child.tool("was_told")["result"]["structuredContent"] is True
    child.alive()
    child.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "two"}})
    assert child.tool("was_told")["result"]["structuredContent"] is True
    child.alive()


@pytest.mark.parametrize(
    "how", ["value", "exit", "memory", "recursion", "raw nan", "huge", "surrogate"], ids=lambda h: f"T187-{h}"
)
def test_whatever_a_handler_does_there_is_an_answer(child: Child, how: str) -> None:
    answer = child.tool("fail", "f", how=how)
    if how == "surrogate":
        assert text(answer) == "a\ud800z"
    elif "error" in answer:
        assert answer["error"]["code"] == -32603
    else:
        assert answer["result"]["isError"] is True


@pytest.mark.parametrize(
    "params",
    [
        None,
        {},
        {"protocolVersion": 5},
        {"protocolVersion": "2025-11-25", "capabilities": [], "clientInfo": {}},
        {"protocolVersion": "1999-01-01", "capabilities": {}, "clientInfo": {"name": "n" * 100_000}},
        {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {}},
        {"protocolVersion": "2025-11-25", "capabilities": {"x": 1}, "clientInfo": {}},
    ],
    ids=lambda params: "T193-" + json.dumps(params)[:50],
)
def test_odd_and_repeated_initialize_is_answered(child: Child, params: Any) -> None:
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize"}
    child.send(message if params is None else {**message, "params": params})
    answer = child.answer(1)
    if "error" in answer:
        assert answer["error"]["code"] == -32602
    else:
        asked = params["protocolVersion"]
        assert answer["result"]["protocolVersion"] == (asked if asked != "1999-01-01" else "2025-11-25")
    assert len(json.dumps(answer)) < 16_384


def test_a_call_before_initialize_is_refused_and_ping_is_answered_T193() -> None:
    with Child() as child:
        child.send(called("add", a=1, b=2), {"jsonrpc": "2.0", "id": 2, "method": "ping"})
        assert child.answer(1)["error"]["code"] == -32600
        assert child.answer(2)["result"] == {}
        assert child.end() == 0


def test_a_subscription_is_acknowledged_first_and_ends_on_cancel_T194(child: Child) -> None:
    key = "io.modelcontextprotocol/subscriptionId"
    for id in (7, "7"):
        child.send(modern("subscriptions/listen", id, notifications={"toolsListChanged": True}))
        first = child.next()
        assert first["method"] == "notifications/subscriptions/acknowledged"
        assert first["params"]["_meta"][key] == id
        assert type(first["params"]["_meta"][key]) is type(id)
    for id in (7, "7"):
        child.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}})
    child.alive()


def test_a_stream_too_many_is_acknowledged_empty_and_ended_T194(tmp_path: Path) -> None:
    target = tmp_path / "few.py"
    target.write_text(
        "from minimcp import Server\nserver = Server('few', limits={'streams': 2})\n\n"
        "@server.tool\ndef add(a: int, b: int) -> int:\n    return a + b\n"
    )
    with Child(str(target)) as child:
        for id in (1, 2, 3):
            child.send(modern("subscriptions/listen", id, notifications={"toolsListChanged": True}))
        # Three acknowledgements, and for the last one also its end: a notification and the result.
        heard = [child.next() for _ in range(5)]
        acknowledged = {
            message["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"]: message["params"]["notifications"]
            for message in heard
            if message.get("method") == "notifications/subscriptions/acknowledged"
        }
        assert acknowledged == {1: {"toolsListChanged": True}, 2: {"toolsListChanged": True}, 3: {}}
        assert [message["id"] for message in heard if "result" in message] == [3]
        assert child.end() == 0


def test_a_tampered_state_does_not_run_the_tool_T197(child: Child) -> None:
    book = {"name": "book", "arguments": {"city": "Oslo"}}
    child.send(modern("tools/call", 1, FORMS, **book))
    state = child.answer(1)["result"]["requestState"]
    accepted = {"q1": {"action": "accept", "content": {"nights": 2}}}
    child.send(modern("tools/call", 2, FORMS, **book, requestState="x" + state, inputResponses=accepted))
    assert child.answer(2)["error"]["code"] == -32602
    child.send(modern("tools/call", 3, FORMS, **book, requestState=state, inputResponses=accepted))
    assert text(child.answer(3)) == "2 nights in Oslo"


def test_one_call_of_a_batch_can_be_cancelled_T185() -> None:
    with Child() as child:
        child.send(handshake("2025-03-26"))
        assert child.answer(0)["result"]["protocolVersion"] == "2025-03-26"
        child.write(
            json.dumps([called("hold", id=1), called("add", id=2, a=1, b=2), modern("tools/list", 3)]).encode() + b"\n"
        )
        assert child.tool("add", "meanwhile", a=1, b=1)["id"] == "meanwhile"
        child.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})
        answers = {answer["id"]: answer for answer in child.next()}
        assert answers.keys() == {2, 3}
        assert text(answers[2]) == "3"
        # 2026-07-28 has no batches, so that its messages are no part of one.
        assert answers[3]["error"]["code"] == -32600
        assert child.end() == 0


def test_a_session_on_a_pipe_answers_old_clients_while_new_ones_interleave_T193(child: Child) -> None:
    child.send(handshake("2025-06-18", {"sampling": {}}), {"jsonrpc": "2.0", "method": "notifications/initialized"})
    assert child.answer(0)["result"]["protocolVersion"] == "2025-06-18"
    for _ in range(3):
        child.send(called("whoami", id=1), modern("tools/call", "1", FORMS, name="whoami", arguments={}))
        assert child.answer(1)["result"]["structuredContent"]["version"] == "2025-06-18"
        assert child.answer("1")["result"]["structuredContent"]["capabilities"] == FORMS
