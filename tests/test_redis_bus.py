"""The bus over Redis: who is told what and when, also while Redis is gone, and what it does with what is none of it."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time

import pytest

from minimcp import Server
from minimcp.server.bus import BusDown, LocalBus, Subscription
from minimcp.server.redis_bus import RedisBus
from tests.embedded import wait_until
from tests.processes import Redis


class Heard:
    """What a listener was told, in order."""

    def __init__(self):
        self.messages = []
        self._changed = threading.Condition()

    def __call__(self, topic, data):
        with self._changed:
            self.messages.append((topic, data))
            self._changed.notify_all()

    def wait_for(self, message, timeout_s=30):
        with self._changed:
            assert self._changed.wait_for(lambda: message in self.messages, timeout_s), self.messages


@pytest.fixture(scope="module")
def redis():
    with Redis() as redis:
        yield redis


@pytest.fixture
def bus(redis):
    """Makes buses as different processes have them, of a prefix of the test's own."""
    made, prefix = [], os.urandom(4).hex()

    def make(**options):
        # A busy machine may keep Redis or a thread from running for longer than the usual second.
        options = {"prefix": prefix, "timeout_s": 20, **options}
        made.append(RedisBus(options.pop("url", redis.url), **options))
        return made[-1]

    make.prefix = prefix
    yield make
    for each in made:
        each.close()


def test_a_message_reaches_every_process_once_and_only_who_asked_for_it(bus):
    one, other, heard, own = bus(), bus(), Heard(), Heard()
    one.subscribe(["tools", "tasks/1"], own)
    other.subscribe({"tools", "resource"}, heard)
    one.publish("tools")
    assert own.messages == [("tools", None)]
    one.publish("resource", "a://1")
    one.publish("tasks/1", {"status": "working"})
    one.publish("tools", [1, "two", None])
    heard.wait_for(("tools", [1, "two", None]))
    other.publish("tasks/1", "completed")
    own.wait_for(("tasks/1", "completed"))
    assert heard.messages == [("tools", None), ("resource", "a://1"), ("tools", [1, "two", None])]
    assert own.messages == [
        ("tools", None),
        ("tasks/1", {"status": "working"}),
        ("tools", [1, "two", None]),
        ("tasks/1", "completed"),
    ]


def test_the_bytes_on_the_channel_are_json(bus, redis):
    one = bus()
    with redis.client() as inside, inside.pubsub() as channel:
        channel.subscribe(f"{bus.prefix}:resource")
        assert channel.get_message(timeout=20)["type"] == "subscribe"
        one.publish("resource", "a://1")
        found = channel.get_message(timeout=20)
    assert found["data"] == b'{"from":"%s","data":"a://1"}' % one.node.encode()
    assert len(one.node) == 12


def test_who_was_removed_is_told_nothing_and_other_prefixes_are_other_buses(bus):
    one, other, stranger = bus(), bus(), bus(prefix="other-" + bus.prefix)
    heard, gone, strange = Heard(), Heard(), Heard()
    unsubscribe = other.subscribe(["tools"], gone)
    other.subscribe(["tools"], heard)
    stranger.subscribe(["tools"], strange)
    unsubscribe()
    unsubscribe()
    one.publish("tools")
    heard.wait_for(("tools", None))
    assert gone.messages == strange.messages == []
    assert other._topics == {"tools"}


def test_a_topic_is_listened_to_when_subscribe_returns(bus):
    one, other = bus(), bus()
    for number in range(50):
        heard = Heard()
        unsubscribe = other.subscribe([f"tasks/{number}"], heard)
        one.publish(f"tasks/{number}", number)
        heard.wait_for((f"tasks/{number}", number))
        unsubscribe()
    assert other._topics == frozenset()


def test_the_first_subscribe_returns_when_the_process_is_connected_whatever_redis_confirms_first(bus):
    made, other, heard = bus(), bus(), Heard()
    link, later, returned = made._link(), [], threading.Event()
    take = link._take

    def hold(message):
        if message["type"] == "subscribe" and message["channel"] != f"{bus.prefix}:tools".encode():
            later.append(message)
            message = None
        if message is not None:
            take(message)
        if f"{bus.prefix}:tools" in link._confirmed:
            # `subscribe` would return in this time, if it did not wait for the others.
            returned.wait(0.3)
            while later:
                take(later.pop(0))

    link._take = hold
    made.subscribe(["tools"], heard)
    up = made.up
    returned.set()
    other.publish("tools", 1)
    heard.wait_for(("tools", 1))
    # Nothing was missed meanwhile.
    assert up and heard.messages == [("tools", 1)]


def test_a_second_listener_waits_until_redis_has_confirmed_the_topic_of_the_first(bus):
    made, seen, came = bus(), [], threading.Event()
    made.subscribe(["other"], Heard())
    link = made._link()
    take, listen = link._take, link.listen

    def subscribe():
        made.subscribe(["tools"], Heard())
        seen.append(f"{bus.prefix}:tools" in link._confirmed)
        came.set()

    second = threading.Thread(target=subscribe)

    def hold(message):
        if message["channel"] == f"{bus.prefix}:tools".encode():
            link._take = take
            second.start()
            assert came.wait(10)
        take(message)

    def note(*args):
        if threading.current_thread() is second:
            came.set()
        listen(*args)

    link._take, link.listen = hold, note
    made.subscribe(["tools"], Heard())
    second.join(10)
    assert seen == [True]


def test_a_topic_that_is_about_to_be_left_is_not_taken_for_one_that_is_listened_to(bus):
    made, one, heard = bus(), bus(), Heard()
    leave = made.subscribe(["tools"], Heard())
    link = made._link()
    ask = link._ask

    def hold(*args):
        link._ask = ask
        found = ask(*args)
        # The answer of Redis to the end of the old subscription has not been read yet.
        assert f"{bus.prefix}:tools" not in link._confirmed
        return found

    link._ask = hold
    leave()
    made.subscribe(["other"], Heard())
    assert link._ask is ask
    made.subscribe(["tools"], heard)
    one.publish("tools", 5)
    heard.wait_for(("tools", 5))


def test_a_server_takes_changes_of_other_processes(bus):
    servers = [Server("s", bus=bus()) for _ in range(2)]
    with Subscription(servers[1].engine.bus, {"tools"}, {"a://1"}) as subscription:
        servers[0].changed("tools")
        servers[0].updated("a://2")
        servers[0].updated("a://1")
        found = []
        while len(found) < 2:
            found += subscription.take(10)
        assert found == [("tools", None), ("resource", "a://1")]


def test_listeners_that_raise_stop_nothing(bus, caplog):
    one, other, heard = bus(), bus(), Heard()
    other.subscribe(["tools"], lambda topic, data: 1 / 0)
    other.subscribe(["tools"], heard)
    one.publish("tools")
    one.publish("tools", 2)
    heard.wait_for(("tools", 2))
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("data", [float("nan"), {1, 2}, object(), b"bytes"])
def test_what_is_not_json_is_the_authors_mistake_and_nobody_is_told(bus, data):
    one, heard = bus(), Heard()
    one.subscribe(["x"], heard)
    with pytest.raises(ValueError):
        one.publish("x", data)
    assert heard.messages == []


def test_a_message_has_a_largest_size(bus):
    one, other, heard = bus(most_bytes=1000), bus(), Heard()
    other.subscribe(["x"], heard)
    with pytest.raises(ValueError, match="at most 1000 bytes"):
        one.publish("x", "a" * 1000)
    with pytest.raises(ValueError, match="at most 1000 bytes"):
        one.send("x", "a" * 1000)
    one.publish("x", "a" * 900)
    heard.wait_for(("x", "a" * 900))


def test_send_reaches_others_alone_or_one_of_them_and_may_wait_until_they_have_it(bus):
    one, two, three = buses = [bus() for _ in range(3)]
    heard = [Heard() for _ in buses]
    for each, listener in zip(buses, heard):
        each.subscribe(["x"], listener)
    for number in range(20):
        assert one.send("x", number, wait_s=10) == 2
        assert heard[1].messages[-1] == heard[2].messages[-1] == ("x", number)
    assert one.send("x", "you", node=three.node, wait_s=10) == 1
    assert heard[2].messages[-1] == ("x", "you") and ("x", "you") not in heard[1].messages
    assert one.send("x", "nobody", node="0123456789ab", wait_s=10) == 0 == one.send("x", "I", node=one.node)
    assert two.send("y", "nobody listens", wait_s=10) == 0
    assert heard[0].messages == []


def test_without_redis_everything_of_this_process_goes_on_and_the_rest_says_so_at_once():
    with RedisBus("redis://127.0.0.1:1") as bus:
        heard = Heard()
        bus.subscribe(["tools"], heard)
        began = time.monotonic()
        for number in range(100):
            bus.publish("tools", number)
            with pytest.raises(BusDown):
                bus.send("tools", number)
            with pytest.raises(BusDown):
                bus.read(["x"])
        assert time.monotonic() - began < 10 and not bus.up
        assert heard.messages == [("tools", number) for number in range(100)]


def test_what_redis_missed_is_sent_when_it_is_back_and_everybody_looks_again(caplog):
    caplog.set_level(logging.INFO, "minimcp")
    with Redis() as redis, RedisBus(redis.url, timeout_s=20) as one, RedisBus(redis.url, timeout_s=20) as other:
        heard, own = Heard(), Heard()
        other.subscribe(["tools", "resource"], heard)
        one.subscribe(["resource"], own)
        redis.kill()
        wait_until(lambda: not one.up and not other.up)
        one.publish("resource", "a://1")
        one.publish("resource", "a://2")
        assert own.messages == [("resource", "a://1"), ("resource", "a://2")]
        redis.start()
        wait_until(lambda: one.up and other.up)
        for topic in ("tools", "resource"):
            heard.wait_for((topic, None))
        own.wait_for(("resource", None))
        one.publish("tools", "again")
        heard.wait_for(("tools", "again"))
        assert heard.messages.count(("tools", None)) == 1
    assert "Redis cannot be reached" in caplog.text and "Redis is reached again" in caplog.text


def test_a_publisher_that_lost_redis_alone_sends_what_it_kept(bus):
    one, other, heard = bus(), bus(), Heard()
    other.subscribe(["resource"], heard)
    one.subscribe(["x"], heard)
    link, published = one._link(), threading.Event()
    ask = link._ask

    def connected(*args):
        assert published.wait(20)
        return ask(*args)

    link._ask = connected
    link._failed(ConnectionError("made up"))
    for uri in ("a://1", "a://2", "a://1"):
        one.publish("resource", uri)
    published.set()
    heard.wait_for(("resource", "a://2"))
    assert [data for topic, data in heard.messages if topic == "resource"] == ["a://1", "a://2"]


def test_too_much_that_was_kept_becomes_one_message_about_everything(bus):
    one, other, heard = bus(), bus(), Heard()
    other.subscribe(["resource", "tools"], heard)
    one.subscribe(["x"], lambda *_: None)
    link = one._link()
    real, link._sending = link._sending, lambda: (_ for _ in ()).throw(ConnectionError("made up"))
    link._failed(ConnectionError("made up"))
    for number in range(5000):
        one.publish("resource", f"a://{number}")
    assert len(link._unsent._messages) <= 1001
    link._sending = real
    for topic in ("resource", "tools"):
        heard.wait_for((topic, None))
    assert len(heard.messages) < 2 + 1001


def test_a_redis_that_says_nothing_is_noticed(monkeypatch, redis):
    from minimcp.server import redis_link

    monkeypatch.setattr(redis_link, "_TICK_S", 0.05)
    monkeypatch.setattr(redis_link, "_PAUSE_S", 0.01)
    with Redis() as still, RedisBus(still.url, timeout_s=0.3) as bus:
        bus.subscribe(["x"], Heard())
        wait_until(lambda: bus.up)
        os.kill(still.process.child.pid, 19)
        try:
            wait_until(lambda: not bus.up)
            # At once, and not after its time of 0.3 s; a busy machine may be late now and then.
            assert any(_refusal_s(bus) < 0.1 for _ in range(20))
        finally:
            os.kill(still.process.child.pid, 18)
        # With 0.3 s for everything, it may be noticed again on a busy machine.
        wait_until(lambda: _read(bus) == [{}])


def _read(bus):
    try:
        return bus.read(["x"])
    except BusDown:
        return None


def _refusal_s(bus):
    began = time.monotonic()
    with pytest.raises(BusDown):
        bus.read(["x"])
    return time.monotonic() - began


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense",
        b"\xff\xfe",
        b"[]",
        b"5",
        b"null",
        b"{}",
        b'{"from":5,"data":1,"number":1}',
        b'{"got":true}',
        b'{"got":99}',
        b'{"got":"1"}',
        b'{"topic":["x"],"data":1}',
        b"[" * 200_000,
        b'{"from":"x","number":1,"data":' + b"[" * 100_000,
    ],
)
def test_a_forged_message_of_any_form_stops_nothing(bus, redis, raw):
    one, other, heard = bus(), bus(), Heard()
    other.subscribe(["tools"], heard)
    with redis.client() as inside:
        for channel in ("tools", "@" + other.node, "*"):
            assert inside.publish(f"{bus.prefix}:{channel}", raw) == 1
    one.publish("tools", "real")
    heard.wait_for(("tools", "real"))
    assert all(data in (None, 1) for topic, data in heard.messages[:-1]) and other.up


def test_a_message_that_is_too_large_is_left_and_said_once(bus, redis, caplog):
    one, other, heard = bus(), bus(most_bytes=10_000), Heard()
    other.subscribe(["tools"], heard)
    for _ in range(3):
        one.publish("tools", "a" * 20_000)
    one.publish("tools", "small")
    heard.wait_for(("tools", "small"))
    assert heard.messages == [("tools", "small")]
    assert caplog.text.count("none of a bus: ValueError: it is too large") == 1


def test_records_are_kept_changed_and_expire(bus, redis):
    one, other = bus(), bus()
    one.put("a", {"at": "1", "level": "info", "gone": None}, 100)
    assert other.read(["a", "b"]) == [{"at": "1", "level": "info"}, {}]
    assert other.change("a", {"level": None, "u:a://1": ""}, 100) is True
    assert one.change("b", {"level": "error"}, 100) is False
    assert one.read(["a", "b"]) == [{"at": "1", "u:a://1": ""}, {}]
    assert [each.swap("a", "holder", each.node, 100) for each in (one, other)] == ["", one.node]
    assert one.swap("a", "holder", one.node, 100, over=False) == other.node
    assert one.read(["a"])[0]["holder"] == other.node
    one.put("a", {"at": "2", "ended": "1"}, 100)
    assert other.read(["a"]) == [{"at": "2", "ended": "1"}]
    one.swap("c", "holder", "x", 100)
    with redis.client() as inside:
        keys = [key for key in inside.scan_iter() if key.startswith(bus.prefix.encode())]
        assert len(keys) == 4
        assert all(0 < inside.ttl(key) <= (172_800 if key.endswith(b":sessions") else 100) for key in keys)


def test_there_are_so_many_records_and_those_never_used_go_first(bus, redis):
    one = bus(most_records=5)
    one.put("used", {"at": "1"}, 100)
    one.put("touched", {"at": "1"}, 100, used=False)
    one.change("touched", {}, 100)
    for number in range(20):
        one.put(f"new{number}", {"at": "1"}, 100, used=False)
    with redis.client() as inside:
        left = {key.decode() for key in inside.scan_iter(f"{bus.prefix}:session:*")}
        assert inside.zcard(f"{bus.prefix}:sessions") == 5
    assert len(left) == 5 and {f"{bus.prefix}:session:{name}" for name in ("used", "touched")} <= left


def test_a_child_of_a_fork_has_a_bus_of_its_own(bus):
    one, other, heard = bus(), bus(), Heard()
    one.subscribe(["tools"], heard)
    other.subscribe(["tools"], heard)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        told = []
        try:
            one.subscribe(["more"], lambda topic, data: told.append(data))
            one.publish("tools", "from the child")
            os.write(write, json.dumps([one.node, one.up, threading.active_count()]).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    node, up, threads = json.loads(os.read(read, 1000))
    os.close(read), os.close(write)
    assert node not in (one.node, other.node) and up and threads == 2
    wait_until(lambda: heard.messages.count(("tools", "from the child")) == 2)
    one.publish("tools", "from the parent")
    wait_until(lambda: heard.messages.count(("tools", "from the parent")) == 2)


def test_a_closed_bus_goes_on_within_its_process(bus):
    one, heard = bus(), Heard()
    one.subscribe(["tools"], heard)
    one.close()
    one.close()
    one.publish("tools", 1)
    one.subscribe(["more"], heard)()
    assert heard.messages == [("tools", 1)] and not one.up
    with pytest.raises(BusDown):
        one.send("tools", 1)
    assert not [each for each in threading.enumerate() if each.name == "minimcp-redis"]


def test_nothing_is_connected_before_it_is_needed():
    bus = RedisBus("redis://127.0.0.1:1")
    Server("s", secret="0123456789abcdef", bus=bus)
    assert not [each for each in threading.enumerate() if each.name == "minimcp-redis"]


def test_a_url_that_is_none_of_redis_is_refused_without_showing_it():
    for url in ("http://user:hunter2@localhost", "localhost:6379", 5):
        with pytest.raises(ValueError, match="begins with redis://") as caught:
            RedisBus(url)
        assert "hunter2" not in str(caught.value)


def test_a_missing_package_is_said_with_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ImportError, match=r"pip install 'minimcp-sync\[redis\]'"):
        RedisBus("redis://localhost")


def test_a_password_is_in_no_log(caplog):
    caplog.set_level(logging.DEBUG, "minimcp")
    with RedisBus("redis://user:hunter2@127.0.0.1:1") as bus:
        bus.publish("tools")
        bus.subscribe(["tools"], Heard())
        with pytest.raises(BusDown) as caught:
            bus.read(["x"])
    assert "cannot be reached" in caplog.text and "hunter2" not in caplog.text + str(caught.value)


def test_a_message_about_any_resource_is_one_for_each_that_is_waited_for():
    bus = LocalBus()
    with Subscription(bus, {"tools"}, {"a://1", "a://2"}) as subscription:
        bus.publish("resource")
        bus.publish("resource", "a://2")
        assert sorted(subscription.take(0)) == [("resource", "a://1"), ("resource", "a://2")]
