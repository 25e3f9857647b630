"""What processes that share sessions do for each other where a test needs to see inside: two servers in one process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from minimcp.server import sharing
from minimcp.transports import shared_streams
from tests.embedded import embedded, wait_until
from tests.processes import NOTE, SECRET, Client, Redis, message_of
from tests.shared_server import build

PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis() as redis:
        yield redis


class Pair:
    """Two servers that share their sessions.

    :ivar urls: their endpoints.
    """

    def __init__(self, redis: Redis, prefix: str) -> None:
        self.servers = [build(redis.url, SECRET, bus={"prefix": prefix}) for _ in range(2)]
        self._running = [embedded(server.wsgi) for server in self.servers]
        self.urls = [each.__enter__().url + "/mcp" for each in self._running]

    def session(self, client: Client, at: int) -> Any:
        """The session of a client in a process, if that has it."""
        id = client.headers["Mcp-Session-Id"]
        return next((each for each in self.servers[at].engine.sessions.all() if each.id == id), None)

    def close(self) -> None:
        for server, running in zip(self.servers, self._running):
            server.close()
            running.__exit__(None, None, None)
            server.engine.bus.close()


@pytest.fixture
def pair(redis: Redis, request: Any, monkeypatch: Any) -> Iterator[Pair]:
    # The other one may need its time where the machine is busy.
    for module, name in ((sharing, "_AGREE_S"), (sharing, "_ASK_S"), (shared_streams, "_REPLY_S")):
        monkeypatch.setattr(module, name, 10.0)
    found = Pair(redis, request.node.name)
    yield found
    found.close()


def said(number: int) -> dict[str, Any]:
    """A message that belongs to no call, as a gateway passes them on."""
    return {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": number}}


def test_a_message_of_no_call_goes_to_the_stream_in_whatever_process_it_is(pair: Pair) -> None:
    client = Client(pair.urls).begin(0)
    client.send(PING, at=1)
    with client.listen(at=1) as (_, event):
        event()
        for number in range(4):
            pair.session(client, number % 2).send(said(number))
            assert message_of(event()) == said(number)
        assert not pair.session(client, 1).away and pair.session(client, 0).away


def test_a_message_of_no_call_waits_for_the_stream_and_is_told_once(pair: Pair) -> None:
    client = Client(pair.urls).begin(0)
    client.send(PING, at=1)
    for number in range(3):
        pair.session(client, number % 2).send(said(number))
    for at in (1, 0, 1):
        with client.listen(at=at) as (_, event):
            event()
            if at == 1 and number == 2:
                assert [message_of(event()) for _ in range(3)] == [said(each) for each in range(3)]
            number += 1
            pair.session(client, 0).send(said(number))
            assert message_of(event()) == said(number)


def test_a_message_of_no_call_is_kept_where_the_process_with_the_stream_has_forgotten_it(pair: Pair) -> None:
    client = Client(pair.urls).begin(0)
    client.send(PING, at=1)
    pair.servers[0].engine.sessions.drop(pair.session(client, 0))
    pair.session(client, 1).send(said(1))
    with client.listen(at=0) as (_, event):
        event()
        found = [message_of(event()) for _ in range(4)]
    # Nobody knows what the other one had still to tell.
    assert found.count(said(1)) == 1
    assert sorted(each["method"].rpartition("/")[0] for each in found if each != said(1)) == [
        "notifications/prompts",
        "notifications/resources",
        "notifications/tools",
    ]


def test_a_late_initialized_takes_no_stream_away_and_tells_nothing_twice(pair: Pair) -> None:
    client = Client(pair.urls)
    with client.listen(at=0) as (_, event):
        event()
        assert client.send(NOTE, at=1)[0] == 202
        pair.servers[1].changed("tools")
        assert message_of(event())["method"] == "notifications/tools/list_changed"
    with client.listen(at=1) as (_, event):
        event()
        pair.servers[0].changed("prompts")
        assert message_of(event())["method"] == "notifications/prompts/list_changed"


def test_a_session_that_is_not_in_redis_may_still_come_after_that_was_gone(pair: Pair, monkeypatch: Any) -> None:
    client = Client(pair.urls)
    session = pair.session(client, 0)
    bus = pair.servers[1].engine.bus
    bus._link().run(lambda redis: redis.delete(bus._key(session.key)))
    assert client.send(PING, at=1)[0] == 404
    monkeypatch.setattr(sharing, "_BACK_S", 60.0)
    bus._missed()
    status, headers, _ = client.send(PING, at=1)
    assert (status, headers["Retry-After"]) == (503, "1")
    # The one that has it writes it again.
    pair.servers[0].engine.bus._missed()
    wait_until(lambda: client.send(PING, at=1)[0] == 200)
    other = Client(pair.urls)
    monkeypatch.setattr(sharing, "_BACK_S", 0.0)
    bus._link().run(lambda redis: redis.delete(bus._key(pair.session(other, 0).key)))
    assert other.send(PING, at=1)[0] == 404


def test_a_session_in_use_stays_in_redis(pair: Pair) -> None:
    client = Client(pair.urls)
    session, bus = pair.session(client, 0), pair.servers[0].engine.bus
    bus._link().run(lambda redis: redis.expire(bus._key(session.key), 100))
    client.send(PING)
    assert bus._link().run(lambda redis: redis.ttl(bus._key(session.key))) <= 100
    session.kept -= 1000
    client.send(PING)
    assert bus._link().run(lambda redis: redis.ttl(bus._key(session.key))) > 4000
    bus._link().run(lambda redis: redis.delete(bus._key(session.key)))
    session.kept -= 1000
    client.send(PING)
    assert client.send(PING, at=1)[0] == 200


def test_a_question_is_not_answered_by_the_id_that_another_process_gave_its_own(pair: Pair) -> None:
    client = Client(pair.urls, elicitation={}).begin(0)
    with client.call("ask", at=0, id=1) as (_, one), client.call("ask", at=1, id=2) as (_, other):
        one(), other()
        ids = [message_of(one())["id"], message_of(other())["id"]]
        assert ids[0] != ids[1]
        for at, (id, name) in enumerate(zip(ids, ("Ann", "Bea"))):
            result = {"action": "accept", "content": {"name": name}}
            assert client.send({"jsonrpc": "2.0", "id": id, "result": result}, at=1 - at)[0] == 202
        assert message_of(one())["result"]["content"][0]["text"].startswith("Ann")
        assert message_of(other())["result"]["content"][0]["text"].startswith("Bea")


def test_sessions_are_not_shared_without_a_common_secret_or_over_another_bus() -> None:
    from minimcp import Server
    from minimcp.server.bus import LocalBus
    from minimcp.server.redis_bus import RedisBus

    class Loud(LocalBus):
        pass

    assert Server("s", bus=RedisBus("redis://127.0.0.1:1")).engine.sharing is None
    assert Server("s", secret="0123456789abcdef").engine.sharing is None
    assert Server("s", secret="0123456789abcdef", bus=Loud()).engine.sharing is None
    assert Server("s", secret="0123456789abcdef", bus=RedisBus("redis://127.0.0.1:1")).engine.sharing is not None


def test_nothing_of_it_stays_when_a_server_is_closed(redis: Redis) -> None:
    pair = Pair(redis, "closing")
    client = Client(pair.urls).begin(1)
    client.send(PING, at=0)
    pair.close()
    assert not [each for each in threading.enumerate() if each.name.startswith("minimcp-redis")]
    assert all(server.engine.bus._listeners == () or len(server.engine.bus._listeners) == 1 for server in pair.servers)


def test_a_subscription_is_kept_that_is_made_while_another_process_restores_the_session(
    pair: Pair, monkeypatch: Any
) -> None:
    client, bus, reads = Client(pair.urls).begin(0), pair.servers[1].engine.bus, []
    read = bus.read

    def read_and_subscribe(keys: Any) -> Any:
        found = read(keys)
        reads.append(keys)
        if len(reads) == 2:
            # The process knows the session, and has read what there was before this.
            assert client.request("resources/subscribe", at=0, uri="a://1")["result"] == {}
        return found

    monkeypatch.setattr(bus, "read", read_and_subscribe)
    with client.listen(at=1) as (_, event):
        event()
        assert len(reads) >= 2 and pair.session(client, 1).uris == {"a://1"}
        client.request("tools/call", at=0, name="change", arguments={"topic": "a://1"})
        assert message_of(event())["params"] == {"uri": "a://1"}


def test_a_subscription_is_kept_that_is_made_while_its_process_catches_up(pair: Pair, monkeypatch: Any) -> None:
    client, engine = Client(pair.urls).begin(0), pair.servers[0].engine
    bus, read = engine.bus, engine.bus.read

    def read_and_subscribe(keys: Any) -> Any:
        monkeypatch.setattr(bus, "read", read)
        found = read(keys)
        assert client.request("resources/subscribe", at=0, uri="a://1")["result"] == {}
        return found

    monkeypatch.setattr(bus, "read", read_and_subscribe)
    engine.sharing._catch_up()
    assert pair.session(client, 0).uris == {"a://1"}
