"""The change bus, and what listeners and sessions are told."""

from __future__ import annotations

import threading

import pytest

from minimcp import Server
from minimcp.server.bus import Bus, Subscription
from tests.helpers import Legacy


def test_a_subscription_is_told_what_it_asked_for_and_once_for_many():
    bus = Bus()
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
    subscription = Subscription(Bus(), {"tools"}, set())
    taken = []
    thread = threading.Thread(target=lambda: taken.append(subscription.take(20)))
    thread.start()
    subscription.close()
    subscription.close()
    thread.join(10)
    assert taken == [None]


def test_registering_replacing_and_removing_are_changes():
    server, heard = Server("s"), []
    server.bus.subscribe(lambda kind, uri: heard.append(kind if uri is None else uri))
    server.add_tool(lambda: "x", "t")
    server.add_tool(lambda: "y", "t")
    server.add_prompt(lambda: "x", "p")
    server.add_resource(lambda: "x", "a://1")
    server.add_resource(lambda id: "x", "a://{id}")
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


def test_a_kind_that_does_not_exist_is_the_authors_mistake():
    with pytest.raises(ValueError, match="updated"):
        Server("s").changed("resource")


def test_a_bus_of_ones_own_may_take_its_place():
    class Loud(Bus):
        published = []

        def publish(self, kind, uri=None):
            self.published.append((kind, uri))
            super().publish(kind, uri)

    server = Server("s", bus=Loud())
    server.add_resource(lambda: "x", "a://1")
    session = Legacy(server)
    session.result("resources/subscribe", uri="a://1")
    server.updated("a://1")
    assert Loud.published == [("resources", None), ("resource", "a://1")]
    assert session.sent[-1]["params"] == {"uri": "a://1"}


def test_a_session_hears_of_changes_after_initialized_and_until_it_ends():
    server = Server("s")
    server.add_tool(lambda: "x", "t")
    server.add_resource(lambda: "x", "a://1")
    sent = []
    session = server.open_session(sent.append)
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
    server.add_resource(lambda id: "x", "a://{id}")
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
