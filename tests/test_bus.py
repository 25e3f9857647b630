"""The change bus, and what listeners and sessions are told."""

from __future__ import annotations

import threading

import pytest

from minimcp import Server
from minimcp.protocol import spec
from minimcp.server.bus import LocalBus, Subscription
from tests.helpers import Legacy, result


def test_a_subscription_is_told_what_it_asked_for_and_once_for_many():
    bus = LocalBus()
    with Subscription(bus, {"tools"}, {"a://1"}) as subscription:
        for _ in range(3):
            bus.publish("tools")
            bus.publish("prompts")
            bus.publish("resource", "a://1")
            bus.publish("resource", "a://2")
        assert subscription.take(0) == [("tools", None), ("resource", "a://1")]
        assert subscription.take(0) == []
        bus.publish("tools")
    assert subscription.take(0) is None
    bus.publish("tools")
    assert bus._listeners == ()


def test_closing_wakes_a_waiting_reader():
    subscription = Subscription(LocalBus(), {"tools"}, set())
    taken = []
    thread = threading.Thread(target=lambda: taken.append(subscription.take(20)))
    thread.start()
    subscription.close()
    subscription.close()
    thread.join(10)
    assert taken == [None]


def test_registering_replacing_and_removing_are_changes():
    server, heard = Server("s"), []
    server.engine.bus.subscribe((*spec.CHANGES, "resource"), lambda topic, data: heard.append(data or topic))
    result(server, "server/discover")
    server.tool(lambda: "x", "t")
    server.tool(lambda: "y", "t")
    server.prompt(lambda: "x", "p")
    server.resource("a://1")(lambda: "x")
    server.resource("a://{id}")(lambda id: "x")
    assert heard == ["tools", "tools", "prompts", "resources", "resources"]
    del heard[:]
    server.remove_tool("t")
    server.remove_tool("t")
    server.remove_prompt("p")
    server.remove_resource("a://1")
    server.remove_resource("a://{id}")
    server.changed("tools")
    server.updated("a://1")
    assert heard == ["tools", "prompts", "resources", "resources", "tools", "a://1"]


def test_nothing_is_announced_before_a_message_has_arrived():
    server, heard = Server("s"), []
    server.engine.bus.subscribe((*spec.CHANGES, "resource"), lambda topic, data: heard.append(topic))
    for n in range(20):
        server.tool(lambda: "x", f"t{n}")
    server.resource("a://1")(lambda: "x")
    server.remove_resource("a://1")
    assert heard == []
    # A process that only runs jobs may say that something changed.
    server.updated("a://1")
    server.changed("tools")
    assert heard == ["resource", "tools"]
    result(server, "tools/list")
    server.prompt(lambda: "x", "p")
    assert heard == ["resource", "tools", "prompts"]


def test_free_topics_carry_json_and_reach_only_who_asked_for_them():
    bus, heard = LocalBus(), []
    unsubscribe = bus.subscribe({"tasks/1", "tools"}, lambda topic, data: heard.append((topic, data)))
    bus.publish("tasks/1", {"status": "working"})
    bus.publish("tasks/2", {"status": "working"})
    bus.publish("tools")
    unsubscribe()
    bus.publish("tools")
    assert heard == [("tasks/1", {"status": "working"}), ("tools", None)]


def test_a_subscription_keeps_the_newest_message_of_a_topic():
    bus = LocalBus()
    with Subscription(bus, ["tasks/1", "tasks/2"]) as subscription:
        for status in ("working", "completed"):
            bus.publish("tasks/1", {"status": status})
        bus.publish("tasks/2", ["any", "JSON"])
        bus.publish("resource", "a://1")
        assert subscription.take(0) == [("tasks/1", {"status": "completed"}), ("tasks/2", ["any", "JSON"])]
    with Subscription(bus, (), ["a://1"]) as subscription:
        bus.publish("resource", {"uri": "a://1"})
        bus.publish("resource", "a://2")
        assert subscription.take(0) == []


def test_a_kind_that_does_not_exist_is_the_authors_mistake():
    with pytest.raises(ValueError, match="updated"):
        Server("s").changed("resource")


def test_a_bus_of_ones_own_may_take_its_place():
    class Loud(LocalBus):
        published = []

        def publish(self, topic, data=None):
            self.published.append((topic, data))
            super().publish(topic, data)

    server = Server("s", bus=Loud())
    server.resource("a://1")(lambda: "x")
    session = Legacy(server)
    session.result("resources/subscribe", uri="a://1")
    server.updated("a://1")
    assert Loud.published == [("resource", "a://1")]
    assert session.sent[-1]["params"] == {"uri": "a://1"}


def test_a_session_hears_of_changes_after_initialized_and_until_it_ends():
    server = Server("s")
    server.tool(lambda: "x", "t")
    server.resource("a://1")(lambda: "x")
    sent = []
    session = server.engine.open_session(sent.append)
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
    server.handle({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}, session=session)
    server.changed("tools")
    assert sent == []
    for _ in range(2):
        server.handle({"jsonrpc": "2.0", "method": "notifications/initialized"}, session=session)
    server.changed("tools")
    server.changed("prompts")
    server.changed("resources")
    server.updated("a://1")
    assert [message["method"] for message in sent] == [
        "notifications/tools/list_changed",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
    ]
    session.close()
    session.close()
    server.changed("tools")
    assert len(sent) == 3


def test_subscriptions_of_a_session_are_its_own_and_limited():
    server = Server("s", limits={"subscriptions": 2})
    server.resource("a://{id}")(lambda id: "x")
    one, two = Legacy(server), Legacy(server)
    one.result("resources/subscribe", uri="a://1")
    assert one.result("resources/subscribe", uri="a://2") == {}
    assert one.problem("resources/subscribe", uri="a://3")["code"] == -32602
    assert one.problem("resources/subscribe", uri=5)["code"] == -32602
    server.updated("a://1")
    assert [message["params"] for message in one.sent] == [{"uri": "a://1"}] and two.sent == []
    assert one.result("resources/unsubscribe", uri="a://1") == {} == one.result("resources/unsubscribe", uri="a://9")
    server.updated("a://1")
    assert len(one.sent) == 1
