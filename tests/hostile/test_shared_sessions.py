"""Sessions that two processes share: forged, large and foreign messages on the bus, forged records, and floods."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from minimcp.server.redis_bus import RedisBus
from minimcp.server.seal import Sealer
from tests.embedded import wait_until
from tests.hostile.conftest import hosting
from tests.hostile.support import LEGACY, SECRET, Gate, Http, attacked
from tests.hostile.test_sessions import LIST, called
from tests.processes import Redis
from tests.shared_server import be_patient

PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


class Pair:
    """Two servers that share their sessions, as two processes do.

    :ivar inside: a client of their Redis, which an attacker may have.
    """

    def __init__(self, redis: Redis, gate: Gate, **options: Any) -> None:
        self.prefix = os.urandom(4).hex()
        self.inside = redis.client()
        self.url, settings = redis.url, {"prefix": self.prefix, "timeout_s": 10.0, **options.pop("bus", {})}
        self.buses = [RedisBus(redis.url, **settings) for _ in range(2)]
        self.servers = [attacked(gate, bus=bus, **options) for bus in self.buses]
        self._hosts = [hosting(server) for server in self.servers]
        self.one, self.other = (each.__enter__() for each in self._hosts)

    def close(self) -> None:
        for host in self._hosts:
            host.__exit__(None, None, None)
        for bus in self.buses:
            bus.close()
        self.inside.close()

    def publish(self, message: Any, node: int | None = None) -> None:
        """Send a message as an attacker does, to all processes or to one."""
        found = {"from": "0123456789ab", "topic": "sessions", "data": message, "number": 1}
        channel = "sessions" if node is None else f"@{self.buses[node].node}"
        assert self.inside.publish(f"{self.prefix}:{channel}", json.dumps(found)) >= 1

    def settle(self) -> None:
        """Wait until both have taken all that came before."""
        with RedisBus(self.url, prefix=self.prefix) as third:
            assert third.send("sessions", {}, wait_s=10) == 2


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis() as redis:
        yield redis


@pytest.fixture
def pair(redis: Redis, gate: Gate, monkeypatch: Any) -> Iterator[Any]:
    """Makes a pair of servers with options of its own; both must be alive at the end."""
    made: list[Pair] = []
    be_patient(monkeypatch.setattr)

    def make(**options: Any) -> Pair:
        made.append(Pair(redis, gate, **options))
        return made[-1]

    yield make
    for each in made:
        each.one.alive(), each.other.alive()
        each.close()


def key_of(id: str) -> str:
    """The name of a session among processes, which whoever reads Redis finds there."""
    return hashlib.sha256(id.encode()).digest()[:16].hex()


def forgeries(key: str, others: str) -> Iterator[Any]:
    """Messages about a session that are signed by nobody, by another secret, or for another session."""
    ops = (
        {"op": "answer", "response": {"jsonrpc": "2.0", "id": "s1", "result": {}}},
        {"op": "cancel", "id": 7, "reason": "x"},
        {"op": "end"},
        {"op": "set", "fields": {"level": "emergency", "u:config://app": ""}},
        {"op": "release", "last": None, "number": "1"},
        {"op": "events", "stream": 1, "after": 0, "reader": 0, "wait_s": 0, "number": "1"},
        {"op": "say", "message": {"jsonrpc": "2.0", "method": "x"}, "number": "1"},
        {"op": "nonsense"},
    )
    stranger, friend = Sealer("another secret of 20 bytes"), Sealer(SECRET)
    for op in ops:
        text = json.dumps({"from": "0123456789ab", **op})
        for signature in ("", "x", None, 5, [], "\u00e9", stranger.sign("sessions", key + text)):
            yield {"key": key, "text": text, "signature": signature}
        # Signed by a process, but as something else, or about another session.
        yield {"key": key, "text": text, "signature": friend.sign("session", key + text)}
        yield {"key": key, "text": text, "signature": friend.sign("sessions", others + text)}
        yield {"key": key, "text": text + " ", "signature": friend.sign("sessions", key + text)}
    for odd in (None, 5, "x", [], {}, {"key": [], "text": "x"}, {"key": key, "text": 5, "signature": "x"}):
        if odd is not None:
            yield odd


def test_what_nobody_signed_reaches_no_session(pair: Any, gate: Gate, caplog: Any) -> None:
    both = pair()
    mine, theirs = both.one.initialize(capabilities={"elicitation": {}}), both.one.initialize()
    both.other.legacy(mine, LIST)
    with both.one.open(called("book", id=7, city="Oslo"), **{**LEGACY, "Mcp-Session-Id": mine}) as stream:
        question = stream.event()
        count = 0
        for forged in forgeries(key_of(mine), key_of(theirs)):
            if isinstance(forged, dict) and isinstance(forged.get("text"), str):
                forged["text"] = forged["text"].replace('"s1"', json.dumps(question["id"]))
            both.publish(forged)
            both.publish(forged, 0)
            count += 1
        both.settle()
        assert count > 70 and "no process of this server has signed" in caplog.text
        assert all(server.engine.sessions.find(key_of(mine)).log_level == "info" for server in both.servers)
        assert all(server.engine.sessions.find(key_of(mine)).uris == set() for server in both.servers)
        for http in (both.one, both.other):
            assert http.legacy(mine, PING).status == 200
        answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"nights": 2}}}
        assert both.other.legacy(mine, answer).status == 202
        assert stream.event()["result"]["content"][0]["text"] == "2 nights in Oslo"


def test_an_answer_in_another_session_is_not_taken_in_whatever_process_it_comes_T005(pair: Any) -> None:
    both = pair(auth=[lambda request: request.header("X-User"), "public"])
    mine = both.one.initialize(capabilities={"elicitation": {}}, **{"X-User": "ann"})
    same, theirs = both.one.initialize(**{"X-User": "ann"}), both.other.initialize(**{"X-User": "bob"})
    for http in (both.one, both.other):
        http.legacy(same, LIST, X_User="ann"), http.legacy(theirs, LIST, X_User="bob")
    with both.one.open(called("book", city="Oslo"), **{**LEGACY, "Mcp-Session-Id": mine, "X-User": "ann"}) as stream:
        question = stream.event()
        answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"nights": 9}}}
        for http in (both.one, both.other):
            assert http.legacy(theirs, answer, X_User="bob").status == 202
            assert http.legacy(same, answer, X_User="ann").status == 202
            assert http.legacy(mine, answer, X_User="bob").status == 404
            assert http.legacy(mine, answer).status == 404
        both.settle()
        answer["result"]["content"]["nights"] = 2
        assert both.other.legacy(mine, answer, X_User="ann").status == 202
        assert stream.event()["result"]["content"][0]["text"] == "2 nights in Oslo"


def test_a_cancellation_in_another_session_does_not_reach_a_call_in_whatever_process_T092(
    pair: Any, gate: Gate
) -> None:
    both = pair()
    mine, theirs = both.one.initialize(), both.one.initialize()
    for http in (both.one, both.other):
        http.legacy(mine, LIST), http.legacy(theirs, LIST)
    cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
    done: list[Any] = []
    held = threading.Thread(target=lambda: done.append(both.one.legacy(mine, called("hold", id=1))))
    held.start()
    assert gate.entered.acquire(timeout=10)
    for http in (both.one, both.other):
        assert http.legacy(theirs, cancel).status == 202
    both.settle()
    assert not gate.told.acquire(timeout=0.05) and not done
    assert both.other.legacy(mine, cancel).status == 202
    assert gate.told.acquire(timeout=10)
    held.join(10)


@pytest.mark.parametrize(
    "id", ["s1.", "s1.*", "s1.@x", "s1.x:y", "s1.\u0660", "s1." + "a" * 5000, "s.aa", "s1.0123456789ab"]
)
def test_a_response_to_a_question_of_no_process_is_taken_and_forgotten(pair: Any, id: str) -> None:
    both = pair()
    session = both.one.initialize()
    with both.inside.pubsub() as spy:
        spy.psubscribe(f"{both.prefix}:*")
        assert spy.get_message(timeout=20)["type"] == "psubscribe"
        reply = both.one.legacy(session, {"jsonrpc": "2.0", "id": id, "result": {}})
        assert reply.status in (202, 400) and (reply.status == 202 or len(id) > 4096)
        channels = {message["channel"] for message in iter(lambda: spy.get_message(timeout=0.05), None)}
    named = id.encode() if id == "s1.0123456789ab" else b""
    assert channels <= {f"{both.prefix}:@{named[3:].decode()}".encode()}


def test_an_answer_that_is_too_large_for_the_bus_is_refused_and_may_be_given_again(pair: Any) -> None:
    both = pair(bus={"most_bytes": 100_000})
    session = both.one.initialize(capabilities={"elicitation": {}})
    with both.one.open(called("book", city="Oslo"), **{**LEGACY, "Mcp-Session-Id": session}) as stream:
        question = stream.event()
        answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"nights": 2}}}
        large = {**answer, "result": {**answer["result"], "_meta": {"x": "a" * 200_000}}}
        refused = both.other.legacy(session, large)
        assert (refused.status, refused.code) == (413, -32603)
        assert both.other.legacy(session, answer).status == 202
        assert stream.event()["result"]["content"][0]["text"] == "2 nights in Oslo"


def test_a_large_answer_of_any_characters_reaches_the_call(pair: Any) -> None:
    both = pair()
    session = both.one.initialize(capabilities={"elicitation": {}})
    for text in ("é" * 1_900_000, '"' * 1_900_000, "\ud83d"):
        with both.one.open(called("book", city="Oslo"), **{**LEGACY, "Mcp-Session-Id": session}) as stream:
            question = stream.event()
            result = {"action": "accept", "content": {"nights": 2}, "_meta": {"x": text}}
            body = json.dumps({"jsonrpc": "2.0", "id": question["id"], "result": result}, ensure_ascii=len(text) < 9)
            reply = both.other.send(body.encode(), {**LEGACY, "Mcp-Session-Id": session})
            assert reply.status == 202, reply.body
            assert stream.event()["result"]["content"][0]["text"] == "2 nights in Oslo"


def forge(both: Pair, session: str, fields: dict[Any, Any]) -> None:
    both.inside.hset(f"{both.prefix}:session:{key_of(session)}", mapping=fields)


def test_a_forged_record_makes_nothing_worse_than_a_wrong_one(pair: Any) -> None:
    both = pair(limits={"subscriptions": 10, "subscription_bytes": 1000})
    for number, fields in enumerate(
        (
            {"level": "nonsense"},
            {"level": b"\xff"},
            {"name": "x" * 1_000_000, "version": b"\xff\xfe"},
            {b"u:\xff\xfe": "x"},
            {"u:": ""},
            {"holder": "*"},
            {"holder": "x" * 100_000},
            {"at": ""},
            {"": "", "x": "y"},
        )
    ):
        session = both.one.initialize()
        forge(both, session, fields)
        assert both.other.legacy(session, PING).status == 200, (number, fields)
        found = both.servers[1].engine.sessions.find(key_of(session))
        assert found.log_level == "info" and all(len(each) <= 200 for each in found.client_info.values())
        with both.other.open(None, "GET", **{**LEGACY, "Mcp-Session-Id": session}) as stream:
            both.servers[0].changed("tools")
            assert "list_changed" in stream.event()["method"]
    # One with more than a session may have is not served in part.
    session = both.one.initialize()
    forge(both, session, {f"u:config://{n}": "" for n in range(11)})
    assert both.other.legacy(session, PING).status == 503
    assert both.one.legacy(session, PING).status == 200


def test_a_record_that_is_gone_ends_the_session_where_it_is_not_known(pair: Any) -> None:
    both = pair()
    session = both.one.initialize()
    both.inside.delete(f"{both.prefix}:session:{key_of(session)}")
    reply = both.other.legacy(session, PING)
    assert (reply.status, reply.code) == (404, -32600)
    assert both.one.legacy(session, PING).status == 200


def test_subscriptions_are_limited_whatever_process_they_are_made_in(pair: Any) -> None:
    both = pair(limits={"subscriptions": 4})
    session = both.one.initialize()

    def subscribe(http: Http, number: int) -> Any:
        params = {"uri": f"note://{number}"}
        return http.legacy(session, {"jsonrpc": "2.0", "id": 1, "method": "resources/subscribe", "params": params})

    for number in range(4):
        assert "result" in subscribe((both.one, both.other)[number % 2], number).message
    for http in (both.one, both.other):
        assert subscribe(http, 9).code == -32602
    assert "result" in subscribe(both.one, 0).message
    fields = both.inside.hgetall(f"{both.prefix}:session:{key_of(session)}")
    assert sorted(field for field in fields if field.startswith(b"u:")) == [b"u:note://%d" % n for n in range(4)]


def test_a_flood_of_sessions_leaves_a_bounded_redis_and_spares_those_in_use(pair: Any) -> None:
    both = pair(bus={"most_records": 20})
    used = both.one.initialize()
    for _ in range(60):
        Http.send(both.one, {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": HELLO}, LEGACY)
    assert len(list(both.inside.scan_iter(f"{both.prefix}:session:*"))) == 20
    assert both.other.legacy(used, PING).status == 200


HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}


def test_a_deleted_session_stays_so_though_a_process_did_not_hear_of_it(pair: Any, caplog: Any) -> None:
    caplog.set_level(logging.ERROR)
    both = pair()
    session = both.one.initialize()
    both.other.legacy(session, LIST)
    # It is told of the end, but does not listen.
    sharing = both.servers[1].engine.sharing
    taker, sharing.takers["end"] = sharing.takers["end"], lambda *_: None
    assert both.one.send(None, {**LEGACY, "Mcp-Session-Id": session}, "DELETE").status == 204
    assert both.other.legacy(session, PING).status == 200
    sharing.takers["end"] = taker
    both.inside.publish(f"{both.prefix}:*", json.dumps({"from": "x", "data": None}))
    wait_until(lambda: both.other.legacy(session, PING).status == 404)
