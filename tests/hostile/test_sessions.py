"""T088 to T097: sessions of 2025-11-25 and before."""

from __future__ import annotations

import math
import re
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from minimcp import Server
from minimcp.server import sessions as session_module
from minimcp.transports.streams import open_streams
from tests.embedded import wait_until
from tests.helpers import http_headers, modern
from tests.hostile.support import LEGACY, SECRET, Gate, Http, attacked, called, handshake

LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}


def plain(**options: Any) -> Server:
    """A server whose sessions live in its memory alone, since it has no secret."""
    server = Server("plain", "1.0", **options)

    @server.tool
    def add(a: int, b: int) -> int:
        return a + b

    return server


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock of the sessions; `ahead` moves it, in seconds."""
    import time

    found = SimpleNamespace(ahead=0.0)
    found.monotonic = lambda: time.monotonic() + found.ahead
    found.time = lambda: time.time() + found.ahead
    monkeypatch.setattr(session_module, "time", found)
    return found


def test_session_ids_are_long_random_and_visible_T088(http: Http) -> None:
    ids = [http.initialize() for _ in range(3)]
    assert len(set(ids)) == 3
    for id in ids:
        assert re.fullmatch(r"[\x21-\x7e]+", id)
    # No two share more than a beginning: what differs is at least 128 bits of base64.
    differing = sum(a != b for a, b in zip(ids[0], ids[1]))
    assert differing * 6 * (63 / 64) >= 128


def test_session_ids_without_a_secret_are_as_good_T088(host: Any) -> None:
    http = host(plain())
    ids = {http.initialize() for _ in range(3)}
    assert len(ids) == 3
    assert all(len(id) * math.log2(64) >= 128 and re.fullmatch(r"[\x21-\x7e]+", id) for id in ids)


def test_an_unknown_session_is_not_found_T089(http: Http) -> None:
    reply = http.legacy("0123456789abcdef", LIST)
    assert reply.status == 404
    assert (reply.code, reply.message["id"]) == (-32600, 1)


def test_an_expired_session_is_not_found_T089(host: Any, clock: Any) -> None:
    http = host(plain(limits={"session_idle_s": 1000}))
    id = http.initialize()
    clock.ahead = 900
    assert http.legacy(id, LIST).status == 200
    clock.ahead = 1800
    assert http.legacy(id, LIST).status == 200
    clock.ahead = 2801
    assert http.legacy(id, LIST).status == 404


def test_a_session_id_of_another_key_is_not_found_T089(host: Any, gate: Gate, http: Http) -> None:
    elsewhere = host(plain(secret="another secret, 0123456789"))
    assert http.legacy(elsewhere.initialize(), LIST).status == 404
    assert elsewhere.legacy(http.initialize(), LIST).status == 404


def test_a_session_id_with_one_changed_character_is_not_found_T089(http: Http) -> None:
    id = http.initialize()
    for place in (0, len(id) // 2, len(id) - 2):
        other = "A" if id[place] != "A" else "B"
        assert http.legacy(id[:place] + other + id[place + 1 :], LIST).status == 404
    assert http.legacy(id, LIST).status == 200


@pytest.mark.parametrize(
    "id",
    [b"\x80\xff", "x" * 5000, "a b", "", "é".encode(), "..", "a.b.c", ".", b"a\tb", "null", "0", "\u0660".encode()],
    ids=lambda id: f"T090-{id[:8]!r}",
)
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
def test_an_odd_session_id_is_refused(http: Http, id: Any, method: str) -> None:
    headers = [*LEGACY.items(), ("Mcp-Session-Id", id)]
    reply = http.send(LIST if method == "POST" else None, headers, method)
    assert reply.status in ((400, 404) if method == "POST" else (400, 404, 405))


def test_the_session_of_another_principal_looks_like_none_T091(host: Any, gate: Gate) -> None:
    http = host(attacked(gate, auth=[lambda request: request.header("X-User"), "public"]))
    id = http.initialize(**{"X-User": "ann"})
    assert http.legacy(id, LIST, X_User="ann").status == 200
    unknown = http.legacy("no such session", LIST, X_User="bob")
    for reply in (http.legacy(id, LIST, X_User="bob"), http.legacy(id, LIST)):
        assert (reply.status, reply.body) == (404, unknown.body)
    for method in ("GET", "DELETE"):
        theirs = http.send(None, {**LEGACY, "Mcp-Session-Id": id, "X-User": "bob"}, method)
        nobodys = http.send(None, {**LEGACY, "Mcp-Session-Id": "no such session", "X-User": "bob"}, method)
        assert (theirs.status, theirs.body) == (404, nobodys.body)
    assert http.legacy(id, LIST, X_User="ann").status == 200


def test_two_sessions_with_one_request_id_have_their_own_answers_and_cancellations_T092(http: Http, gate: Gate) -> None:
    first, second = http.initialize(), http.initialize()
    with ThreadPoolExecutor(2) as pool:
        held = [pool.submit(http.legacy, session, called("hold", id=1)) for session in (first, second)]
        for _ in held:
            assert gate.entered.acquire(timeout=10)
        http.legacy(second, {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})
        assert gate.told.acquire(timeout=10)
        held[1].result(10)
        assert not held[0].done()
        assert http.legacy(first, called("add", id=2, a=1, b=2)).message["id"] == 2
        http.legacy(first, {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})
        held[0].result(10)
        assert gate.told.acquire(timeout=10)


def test_delete_ends_that_session_and_no_other_T093(http: Http) -> None:
    ended, other = http.initialize(), http.initialize()
    stream = http.open(None, "GET", **{**LEGACY, "Mcp-Session-Id": ended})
    with stream:
        reply = http.send(None, {**LEGACY, "Mcp-Session-Id": ended}, "DELETE")
        assert (reply.status, reply.body) == (204, b"")
        assert stream.event() is None
    for method in ("POST", "GET", "DELETE"):
        reply = http.send(LIST if method == "POST" else None, {**LEGACY, "Mcp-Session-Id": ended}, method)
        assert reply.status == 404
    assert http.legacy(other, LIST).status == 200


def test_delete_tells_running_calls_T093(http: Http, gate: Gate) -> None:
    id = http.initialize()
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(http.legacy, id, called("hold"))
        assert gate.entered.acquire(timeout=10)
        assert http.send(None, {**LEGACY, "Mcp-Session-Id": id}, "DELETE").status == 204
        assert gate.told.acquire(timeout=10)
        held.result(10)


def test_at_the_cap_the_session_unused_for_longest_makes_room_T094(host: Any) -> None:
    http = host(plain(limits={"sessions": 5}))
    ids = [http.initialize() for _ in range(5)]
    assert http.legacy(ids[0], LIST).status == 200
    newest = http.initialize()
    assert http.legacy(ids[1], LIST).status == 404
    assert [http.legacy(id, LIST).status for id in (ids[0], *ids[2:], newest)] == [200] * 5


def test_at_the_cap_with_every_session_in_use_a_new_one_is_refused_T094(host: Any) -> None:
    http = host(plain(limits={"sessions": 2}))
    ids = [http.initialize() for _ in range(2)]
    opened = [http.open(None, "GET", **{**LEGACY, "Mcp-Session-Id": id}) for id in ids]
    try:
        reply = http.send(handshake(), LEGACY)
        assert reply.status == 503
        assert reply.header("Retry-After") is not None
        assert [http.legacy(id, LIST).status for id in ids] == [200, 200]
    finally:
        for stream in opened:
            stream.close()


@pytest.mark.parametrize("secret", [None, SECRET], ids=["T094-own-key", "T094-shared-key"])
def test_ten_thousand_initializes_leave_a_bounded_memory(secret: str | None, clock: Any) -> None:
    server = plain(secret=secret, limits={"sessions": 200, "session_idle_s": 100})

    def flood(count: int) -> list[str]:
        ids = []
        for _ in range(count):
            session = server.engine.open_session()
            session.version = "2025-11-25"
            ids.append(server.engine.keep_session(session))
        return ids[-400:]

    flood(300)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        ids = flood(10_001)
        assert len(server.engine.sessions.all()) == 200
        if secret is not None:
            # Ids that any worker can restore do not carry a worker beyond its cap either.
            for id in ids:
                server.engine.open_session(id=id)
            assert len(server.engine.sessions.all()) == 200
            for id in ids:
                server.engine.close_session(server.engine.open_session(id=id))
        del ids
        clock.ahead = 101
        flood(1)
        assert len(server.engine.sessions.all()) == 1
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 1_000_000


def test_a_second_get_stream_takes_over_and_nothing_is_told_twice_T095(host: Any) -> None:
    server = plain(limits={"keepalive_s": 5})
    http = host(server)
    headers = {**LEGACY, "Mcp-Session-Id": http.initialize()}
    with http.open(None, "GET", **headers) as first:
        assert first.status == 200
        server.changed("tools")
        assert first.event()["method"] == "notifications/tools/list_changed"
        with http.open(None, "GET", **headers) as second:
            assert second.status == 200
            assert first.event() is None
            server.changed("prompts")
            assert second.event()["method"] == "notifications/prompts/list_changed"


def test_of_many_get_streams_at_once_one_stays_T095(host: Any) -> None:
    server = plain()
    http = host(server)
    headers = {**LEGACY, "Mcp-Session-Id": http.initialize()}
    before = open_streams().used
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: http.open(None, "GET", **headers), range(8)))
    try:
        assert [response.status for response in opened] == [200] * 8
        wait_until(lambda: open_streams().used == before + 1)
        server.changed("tools")
        server.close()
        with ThreadPoolExecutor(8) as pool:
            heard = list(pool.map(lambda response: response.event(), opened))
        # Told to one of them, and to no other.
        assert [each["method"] for each in heard if each] == ["notifications/tools/list_changed"]
    finally:
        for response in opened:
            response.close()


@pytest.mark.parametrize("version", ["2026-07-28", "1900-01-01", "", "x" * 100_000], ids=lambda v: f"T096-{v[:12]}")
def test_initialize_with_an_unknown_version_is_negotiated(http: Http, version: str) -> None:
    reply = http.send(handshake(version), LEGACY)
    assert reply.status == 200
    assert reply.message["result"]["protocolVersion"] == "2025-11-25"
    assert len(reply.body) < 16_384


@pytest.mark.parametrize(
    "params",
    [
        None,
        {},
        {"protocolVersion": 5, "capabilities": {}, "clientInfo": {}},
        {"protocolVersion": None},
        {"protocolVersion": "2025-11-25", "capabilities": [], "clientInfo": {}},
        {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": "me"},
        {"protocolVersion": ["2025-11-25"], "capabilities": {}, "clientInfo": {}},
    ],
    ids=lambda params: f"T096-{params}",
)
def test_initialize_of_the_wrong_shape_is_refused_and_opens_nothing(http: Http, params: Any) -> None:
    message = {"jsonrpc": "2.0", "id": 4, "method": "initialize"}
    reply = http.send(message if params is None else {**message, "params": params}, LEGACY)
    assert reply.code == -32602
    assert reply.message["id"] == 4
    assert reply.header("Mcp-Session-Id") is None


def test_initialize_remembers_nothing_large_T096(host: Any) -> None:
    server = plain()
    http = host(server)
    message = handshake()
    message["params"]["clientInfo"] = {"name": "n" * 100_000, "version": ["v"] * 10_000, "extra": "e" * 100_000}
    assert http.send(message, LEGACY).status == 200
    (session,) = server.engine.sessions.all()
    assert len(repr(session.client_info)) < 1000
    large = handshake(capabilities={"experimental": {"x": "y" * 100_000}})
    reply = http.send(large, LEGACY)
    assert (reply.status, reply.code) == (400, -32600)
    assert len(server.engine.sessions.all()) == 1


def test_eras_interleaved_on_one_connection_do_not_mix_T097(http: Http) -> None:
    id = http.initialize("2025-06-18", {"sampling": {}})
    level = {"jsonrpc": "2.0", "id": 8, "method": "logging/setLevel", "params": {"level": "debug"}}
    assert http.legacy(id, level).message["result"] == {}
    meta = {"io.modelcontextprotocol/logLevel": "error"}
    new = modern("tools/call", 1, {"elicitation": {}}, meta, name="whoami", arguments={})
    silent = modern("tools/call", 1, name="whoami", arguments={})
    old = called("whoami")
    expected = {
        "new": {"version": "2026-07-28", "capabilities": {"elicitation": {}}, "level": "error", "who": None},
        "silent": {"version": "2026-07-28", "capabilities": {}, "level": None, "who": None},
        "old": {"version": "2025-06-18", "capabilities": {"sampling": {}}, "level": "debug", "who": None},
    }
    messages = {"new": (new, http_headers(new)), "silent": (silent, http_headers(silent))}
    messages["old"] = (old, {**LEGACY, "Mcp-Session-Id": id})
    with http.connect() as connection:
        for name in ("new", "old", "silent", "old", "new", "silent"):
            reply = http.send_on(connection, *messages[name])
            assert reply.last["result"]["structuredContent"] == expected[name]


def test_an_unknown_version_header_in_a_session_is_refused(http: Http) -> None:
    """Not a row of the catalogue; TRN-159."""
    id = http.initialize()
    for version in ("2099-01-01", "x", ""):
        reply = http.legacy(id, LIST, MCP_Protocol_Version=version)
        assert (reply.status, reply.code, reply.message["id"]) == (400, -32600, 1)
    assert http.legacy(id, LIST, MCP_Protocol_Version="2025-11-25").status == 200


@pytest.mark.parametrize("id", ["", "x", "99-1", "0", "-1", "1-", "0-x", "9" * 400 + "-1", "0-1-2", "\u0661-1", "0--1"])
def test_a_last_event_id_that_names_nothing_is_refused(http: Http, id: str) -> None:
    """Not a row of the catalogue; the resumption cursor is as hostile as any other input."""
    session = http.initialize()
    headers = {**LEGACY, "Mcp-Session-Id": session, "Last-Event-ID": id.encode()}
    reply = http.send(None, headers, "GET")
    assert reply.status == 400


def test_last_event_id_of_another_session_gives_nothing_of_it(http: Http) -> None:
    """Not a row of the catalogue; TRN-133."""
    mine, theirs = http.initialize(), http.initialize()
    message = called("tell", text="for them")
    message["params"]["_meta"] = {"progressToken": "t"}
    assert http.legacy(theirs, message).events[-1]["result"]["content"][0]["text"] == "for them"
    reply = http.send(None, {**LEGACY, "Mcp-Session-Id": mine, "Last-Event-ID": "1-0"}, "GET")
    assert reply.status == 400
    assert b"for them" not in reply.body
    again = http.send(None, {**LEGACY, "Mcp-Session-Id": theirs, "Last-Event-ID": "1-0"}, "GET")
    assert [event.get("method", "result") for event in again.events] == ["notifications/progress", "result"]


def test_a_last_event_id_ahead_of_its_stream_loses_nothing_that_comes(host: Any) -> None:
    """Not a row of the catalogue; another worker may have numbered the events."""
    server = plain(limits={"keepalive_s": 0.2})
    http = host(server)
    headers = {**LEGACY, "Mcp-Session-Id": http.initialize(), "Last-Event-ID": "0-99999"}
    with http.open(None, "GET", **headers) as stream:
        server.changed("tools")
        assert stream.event()["method"] == "notifications/tools/list_changed"


def test_a_message_for_an_sse_session_that_is_not_there_is_not_found_T089(host: Any) -> None:
    http = host(plain(auth=[lambda request: request.header("X-User"), "public"], limits={"keepalive_s": 0.2}))
    fields = {"Content-Type": "application/json"}
    for path in ("/messages", "/messages?session_id=", "/messages?session_id=x", "/messages?session_id=%00&x=%ff"):
        assert http.send(LIST, fields, path=path).status == 404
    with http.open(None, "GET", "/sse", **{"Accept": "text/event-stream", "X-User": "ann"}) as stream:
        assert stream.readline() == b"event: endpoint\n"
        path = stream.readline()[6:].strip().decode()
        # The id alone does not let another principal in. T091
        theirs = http.send(LIST, {**fields, "X-User": "bob"}, path=path)
        nobodys = http.send(LIST, {**fields, "X-User": "bob"}, path="/messages?session_id=x")
        assert (theirs.status, theirs.body) == (404, nobodys.body)
        mine = {**fields, "X-User": "ann"}
        assert http.send(b"{", mine, path=path).code == -32700
        assert http.send(LIST, mine, path=path).status == 202
        assert stream.event()["error"]["code"] == -32600
        assert http.send(handshake("2024-11-05"), mine, path=path).status == 202
        assert stream.event()["result"]["protocolVersion"] == "2024-11-05"
    # The session does not outlive its stream.
    wait_until(lambda: http.send(LIST, mine, path=path).status == 404)


@pytest.mark.parametrize("version", ["2024-11-05", "2025-06-18", "2025-11-25"])
def test_a_batch_in_a_session_of_another_revision_is_refused_T004(http: Http, version: str) -> None:
    id = http.initialize(version)
    reply = http.legacy(id, [called("add", a=1, b=2)])
    assert (reply.status, reply.code) == (400, -32600)


def test_a_batch_of_2025_03_26_answers_each_member_under_its_own_id_T004(http: Http) -> None:
    id = http.initialize("2025-03-26")
    batch = [
        called("add", id=1, a=1, b=2),
        called("add", id="1", a=3, b=4),
        {"jsonrpc": "2.0", "method": "notifications/nope"},
        {"jsonrpc": "2.0", "id": 5, "method": "nope"},
        {"id": 6, "method": "tools/list"},
        7,
        [called("add", id=8, a=1, b=1)],
        handshake(id=9),
    ]
    reply = http.legacy(id, batch)
    assert reply.status == 200
    found = {(type(answer.get("id")), answer.get("id")): answer for answer in reply.message}
    assert found[int, 1]["result"]["content"][0]["text"] == "3"
    assert found[str, "1"]["result"]["content"][0]["text"] == "7"
    assert found[int, 5]["error"]["code"] == -32601
    assert found[int, 6]["error"]["code"] == -32600
    assert found[int, 9]["error"]["code"] == -32600
    assert sum(answer.get("id") is None and answer["error"]["code"] == -32600 for answer in reply.message) == 2
    assert len(reply.message) == 7


@pytest.mark.parametrize("count", [0, 101, 5000])
def test_a_batch_of_2025_03_26_that_is_empty_or_long_is_refused_once_T004(http: Http, gate: Gate, count: int) -> None:
    id = http.initialize("2025-03-26")
    gate.ran.clear()
    reply = http.legacy(id, [called("echo", text="x")] * count)
    assert (reply.status, reply.code) == (400, -32600)
    assert gate.ran == []


def test_a_batch_of_notifications_alone_is_accepted_without_a_body_T004(http: Http) -> None:
    id = http.initialize("2025-03-26")
    reply = http.legacy(id, [{"jsonrpc": "2.0", "method": "notifications/initialized"}] * 3)
    assert (reply.status, reply.body) == (202, b"")


def test_a_call_before_initialize_is_refused_with_a_hint(http: Http) -> None:
    """Not a row of the catalogue; TRN-146."""
    reply = http.send(LIST, LEGACY)
    assert (reply.status, reply.code, reply.message["id"]) == (400, -32600, 1)
    assert "initialize" in reply.message["error"]["message"]


def test_a_response_nobody_waits_for_is_taken_and_forgotten_T005(http: Http) -> None:
    id = http.initialize()
    for answer in ({"result": {}}, {"error": {"code": 1, "message": "x"}}, {"error": "odd"}, {"result": [1]}):
        reply = http.legacy(id, {"jsonrpc": "2.0", "id": "s1", **answer})
        assert (reply.status, reply.body) == (202, b"")


def test_the_answer_to_one_sessions_question_is_not_taken_from_another_T005(http: Http, gate: Gate) -> None:
    mine, theirs = http.initialize(capabilities={"elicitation": {}}), http.initialize()
    stream = http.open(called("book", city="Oslo"), **{**LEGACY, "Mcp-Session-Id": mine})
    with stream:
        question = stream.event()
        assert question["method"] == "elicitation/create"
        answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"nights": 9}}}
        http.legacy(theirs, answer)
        http.legacy(mine, {**answer, "result": {"action": "accept", "content": {"nights": 2}}})
        assert stream.event()["result"]["content"][0]["text"] == "2 nights in Oslo"
