"""Who is told that a list has changed: those who see a difference, in both eras, in memory and over HTTP."""

from __future__ import annotations

import contextlib
import json
import queue
import threading

import pytest

from minimcp import Principal, Server
from minimcp.auth import Keys, Rules
from minimcp.server.makers import make_tool
from minimcp.server.registry import Registry
from tests.embedded import embedded
from tests.helpers import BOTH, Legacy, events, exchange, http_headers, modern

USERS = {
    "ann": {"key": "key-of-ann-0123456789", "roles": ["staff"]},
    "bob": {"key": "key-of-bob-0123456789", "roles": ["guest"]},
}
WANTED = {"toolsListChanged": True, "promptsListChanged": True, "resourcesListChanged": True}
HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
TOOLS, PROMPTS, RESOURCES = (f"notifications/{kind}/list_changed" for kind in ("tools", "prompts", "resources"))


class Ear:
    """What one client is told, in order."""

    def __init__(self) -> None:
        self.heard: queue.Queue = queue.Queue()

    def hear(self, message) -> None:
        if "method" in message:
            self.heard.put(message["method"])

    def next(self) -> str:
        return self.heard.get(timeout=60)


@contextlib.contextmanager
def in_memory(server, who, era):
    ear, principal = Ear(), Principal(who, roles=USERS[who]["roles"])
    if era == "legacy":
        session = server.engine.open_session(ear.hear, principal=principal)
        server.handle({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": HELLO}, None, session, principal)
        server.handle({"jsonrpc": "2.0", "method": "notifications/initialized"}, None, session, principal)
        try:
            yield ear
        finally:
            session.close()
        return
    listen = modern("subscriptions/listen", notifications=WANTED)
    thread = threading.Thread(target=server.handle, args=(listen, ear.hear), kwargs={"principal": principal})
    thread.start()
    assert ear.next() == "notifications/subscriptions/acknowledged"
    try:
        yield ear
    finally:
        server.close()
        thread.join(10)
        assert not thread.is_alive()


@contextlib.contextmanager
def over_http(url, server, who, era):
    ear, key = Ear(), {"X-API-Key": USERS[who]["key"]}
    head = {**key, "Content-Type": "application/json", "Accept": BOTH}
    if era == "legacy":
        with exchange(url, {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": HELLO}, head) as response:
            head["Mcp-Session-Id"] = response.headers["Mcp-Session-Id"]
            response.read()
        with exchange(url, {"jsonrpc": "2.0", "method": "notifications/initialized"}, head) as response:
            assert response.status == 202
        opening = exchange(url, None, {**head, "Accept": "text/event-stream"}, "GET")
    else:
        listen = modern("subscriptions/listen", notifications=WANTED)
        opening = exchange(url, listen, {**http_headers(listen), **key})
    with opening as response:
        assert response.status == 200

        def read():
            for each in events(response):
                ear.hear(each)

        thread = threading.Thread(target=read)
        thread.start()
        try:
            if era == "modern":
                assert ear.next() == "notifications/subscriptions/acknowledged"
            yield ear
        finally:
            server.close()
            thread.join(10)
            assert not thread.is_alive()


@contextlib.contextmanager
def listening(server, era, way):
    """Ann and Bob, who listen to a server."""
    if way == "memory":
        with in_memory(server, "ann", era) as ann, in_memory(server, "bob", era) as bob:
            yield ann, bob
        return
    with embedded(server.wsgi) as served:
        url = served.url + "/mcp"
        with over_http(url, server, "ann", era) as ann, over_http(url, server, "bob", era) as bob:
            yield ann, bob


class Names(Registry):
    """A catalog of the author's, in which everybody has the tools whose name begins with theirs."""

    def page(self, ctx, kind, cursor, size):
        ctx.private = True
        definitions, after = super().page(ctx, kind, cursor, size)
        who = ctx.principal.id if ctx.principal else ""
        return [each for each in definitions if kind != "tools" or each["name"].startswith((who, "both"))], after


def ruled(rule):
    """A server, and functions that register and remove what is Ann's, Bob's or both's."""
    if rule == "policy":
        policy = Rules(
            {"allow": ["tools:ann*"], "principals": "ann"},
            {"allow": ["tools:bob*"], "principals": "bob"},
            {"allow": ["tools:both*", "prompts:*", "resources:*"]},
        )
        server = Server("s", auth=Keys(USERS), policy=policy)
    elif rule == "catalog":
        catalog = Names()
        server = Server("s", auth=Keys(USERS), catalog=catalog)
        catalog._announce = server.engine._announce
        server.engine.registry = catalog
    else:
        server = Server("s", auth=Keys(USERS))

    def add(name, text=""):
        roles = {"ann": ["staff"], "bob": ["guest"]}.get(name[:3]) if rule == "allow" else None
        server.tool(lambda: "x", name, description=text, **({"roles": roles} if roles else {}))

    add("both")
    server.prompt(lambda: "x", "prompt")
    server.resource("both://{a}")(lambda a: a)
    return server, add


ERAS = pytest.mark.parametrize("era", ["legacy", "modern"])
WAYS = pytest.mark.parametrize("way", ["memory", "http"])


@ERAS
@WAYS
@pytest.mark.parametrize("rule", ["allow", "policy", "catalog"])
def test_who_sees_no_difference_is_not_told(rule, way, era):
    server, add = ruled(rule)
    count = 0

    def fence(*ears):
        """Change a list that all see, so that whatever else was said comes before it."""
        nonlocal count
        count += 1
        server.prompt(lambda: "x", f"fence{count}")
        return [ear.next() for ear in ears] == [PROMPTS] * len(ears)

    with listening(server, era, way) as (ann, bob):
        add("ann_1")
        assert ann.next() == TOOLS and fence(ann, bob)
        add("ann_1", "another text")
        assert ann.next() == TOOLS and fence(ann, bob)
        add("bob_1")
        assert bob.next() == TOOLS and fence(ann, bob)
        server.remove_tool("ann_1")
        assert ann.next() == TOOLS and fence(ann, bob)
        server.remove_tool("bob_1")
        assert bob.next() == TOOLS and fence(ann, bob)
        add("both_2")
        assert [ann.next(), bob.next()] == [TOOLS, TOOLS] and fence(ann, bob)
        # The very same definition again is no change that anybody could see, where rules decide.
        if rule != "allow":
            add("both_2")
            assert fence(ann, bob)


@ERAS
@WAYS
def test_without_rules_everybody_is_told_of_everything(era, way):
    server, add = ruled("none")
    with listening(server, era, way) as (ann, bob):
        for change in (lambda: add("ann_1"), lambda: add("ann_1"), lambda: server.changed("tools")):
            change()
            assert [ann.next(), bob.next()] == [TOOLS, TOOLS]
        server.resource("a://{b}")(lambda b: b)
        assert [ann.next(), bob.next()] == [RESOURCES, RESOURCES]


@ERAS
@WAYS
def test_a_change_of_who_may_see_something_is_told_to_those_it_is_about(era, way):
    staff = {"ann"}
    server = Server("s", auth=Keys(USERS))
    server.tool(lambda: "x", "ruled", allow=lambda ctx: ctx.principal.id in staff)
    server.resource("a://{b}", allow=lambda ctx: ctx.principal.id in staff)(lambda b: b)
    server.prompt(lambda: "x", "prompt")
    with listening(server, era, way) as (ann, bob):
        staff.add("bob")
        server.changed("tools")
        assert bob.next() == TOOLS
        server.changed("resources")
        assert bob.next() == RESOURCES
        # Ann's stream looks at a change on a thread of its own, and shall have done so before there is another.
        server.prompt(lambda: "x", "first fence")
        assert [ann.next(), bob.next()] == [PROMPTS, PROMPTS]
        staff.discard("ann")
        server.changed("resources")
        assert ann.next() == RESOURCES
        server.changed("tools")
        assert ann.next() == TOOLS
        server.prompt(lambda: "x", "fence")
        assert [ann.next(), bob.next()] == [PROMPTS, PROMPTS]


@ERAS
def test_rules_that_fail_keep_nobody_from_being_told(era, caplog):
    caplog.set_level("DEBUG", "minimcp")
    server, broken = Server("s"), []

    def policy(ctx, entry):
        if broken:
            raise ConnectionError("the directory is away")
        return bool(entry.definition["name"].startswith("fence"))

    server.engine.policy = policy
    server.tool(lambda: "x", "first")
    server.prompt(lambda: "x", "fence")
    with listening(server, era, "memory") as (ann, _):
        server.tool(lambda: "x", "hidden")
        server.prompt(lambda: "x", "fence_2")
        assert ann.next() == PROMPTS
        broken.append(1)
        server.tool(lambda: "x", "hidden_too")
        assert ann.next() == TOOLS
        assert ann.heard.empty()
    assert "the directory is away" in caplog.text


def test_a_catalog_without_end_is_announced(caplog):
    class Endless(Registry):
        seen = None

        def page(self, ctx, kind, cursor, size):
            return [], "again"

    caplog.set_level("DEBUG", "minimcp")
    server = Server("s", catalog=Endless())
    client = Legacy(server)
    server.changed("tools")
    assert [message["method"] for message in client.sent] == [TOOLS]
    assert "does not end" in caplog.text


@ERAS
def test_a_slow_catalog_may_tell_by_a_fingerprint(era):
    class Slow(Registry):
        marks = {"ann": b"1", "bob": b"1"}

        def seen(self, ctx, kind):
            ctx.private = True
            return self.marks[ctx.principal.id]

    catalog = Slow()
    server = Server("s", catalog=catalog)
    catalog.add("tools", "one", make_tool(lambda: "x", "one"))
    with listening(server, era, "memory") as (ann, bob):
        for mark in (b"2", None, None):
            catalog.marks = {"ann": mark, "bob": b"1"}
            server.changed("tools")
            assert ann.next() == TOOLS
        catalog.marks = {"ann": None, "bob": b"2"}
        server.changed("tools")
        assert [ann.next(), bob.next()] == [TOOLS, TOOLS]


def test_changes_at_the_same_time_are_told_by_the_last_of_them():
    """One rule is held up while a later change goes through: the list that was seen last is the one to go on from."""
    held, go, names = threading.Event(), threading.Event(), []
    server = Server("s")

    def policy(ctx, entry):
        if names and names[0] == entry.definition["name"] and threading.current_thread() is slow:
            names.clear()
            held.set()
            assert go.wait(10)
        return True

    server.engine.policy = policy
    client = Legacy(server)
    slow = threading.Thread(target=lambda: server.tool(lambda: "x", "one"))
    names.append("one")
    slow.start()
    assert held.wait(10)
    server.tool(lambda: "x", "two")
    go.set()
    slow.join(10)
    server.remove_tool("two")
    assert [message["method"] for message in client.sent] == [TOOLS, TOOLS, TOOLS]
    client.session.close()


def test_a_definition_is_read_once_for_all_who_listen():
    server = Server("s", policy=lambda ctx, entry: True)
    server.tool(lambda: "x", "one")
    registry = server.engine.registry
    before = registry.fingerprint("tools")
    assert before == registry.fingerprint("tools") and len(before) == 32
    registry.update("up", {"tools": {"two": make_tool(lambda: "x", "two")}})
    after = registry.fingerprint("tools")
    assert after != before
    registry.update("up", {"tools": {}})
    assert registry.fingerprint("tools") == before
    server.tool(lambda: "x", "three", allow=lambda ctx: True)
    assert registry.fingerprint("tools") is None and json.dumps(registry.fingerprint("prompts").hex())


def test_a_session_sees_what_its_latest_request_may_see():
    roles = ["guest"]
    server = Server("s", auth=lambda request: Principal("ann", roles=roles))
    server.tool(lambda: "x", "first", roles=["staff"])
    hello = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": HELLO}
    head = {"Content-Type": "application/json", "Accept": BOTH}
    with embedded(server.wsgi) as served:
        url, ear = served.url + "/mcp", Ear()
        with exchange(url, hello, head) as response:
            head["Mcp-Session-Id"] = response.headers["Mcp-Session-Id"]
            response.read()
        with exchange(url, {"jsonrpc": "2.0", "method": "notifications/initialized"}, head):
            pass
        with exchange(url, None, {**head, "Accept": "text/event-stream"}, "GET") as stream:
            thread = threading.Thread(target=lambda: [ear.hear(each) for each in events(stream)])
            thread.start()
            roles[:] = ["staff"]
            with exchange(url, {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, head) as response:
                assert [tool["name"] for tool in json.loads(response.read())["result"]["tools"]] == ["first"]
            server.tool(lambda: "x", "second", roles=["staff"])
            assert ear.next() == TOOLS
            server.close()
            thread.join(10)


@pytest.mark.parametrize("way", ["memory", "http"])
def test_a_rule_about_the_http_request_keeps_nobody_from_being_told(way):
    """A session has no request at hand when a list changes, so what such a rule says then counts for nothing."""
    server = Server("s", auth=Keys(USERS))
    server.tool(lambda: "x", "first", allow=lambda ctx: ctx.request is not None and "HTTP_X_API_KEY" in ctx.request)
    server.prompt(lambda: "x", "prompt")
    with listening(server, "legacy", way) as (ann, bob):
        server.tool(lambda: "x", "second", allow=lambda ctx: ctx.request is not None)
        if way == "http":
            assert [ann.next(), bob.next()] == [TOOLS, TOOLS]
        server.prompt(lambda: "x", "fence")
        assert [ann.next(), bob.next()] == [PROMPTS, PROMPTS]
