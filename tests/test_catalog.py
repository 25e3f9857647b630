"""The catalog as an interface, and the one rule of who may see an entry."""

from __future__ import annotations

import pytest

from minimcp import Context, Principal, Server
from minimcp.server.catalog import Catalog, Entry
from minimcp.server.makers import make_prompt, make_resource, make_tool
from minimcp.server.registry import Registry
from tests.helpers import Legacy, modern, post, serving


class PerPrincipal:
    """A catalog that answers each principal from a registry of their own, and strangers from an empty one."""

    def __init__(self) -> None:
        self.registries: dict[str, Registry] = {}
        self._empty = Registry()

    def of(self, principal: str) -> Registry:
        return self.registries.setdefault(principal, Registry())

    def _mine(self, ctx: Context) -> Registry:
        ctx.private = True
        return self.registries.get(ctx.principal.id if ctx.principal else "", self._empty)

    def find(self, ctx):
        return self._mine(ctx).find(ctx)

    def page(self, ctx, kind, cursor, size):
        return self._mine(ctx).page(ctx, kind, cursor, size)

    def resource(self, ctx, uri):
        return self._mine(ctx).resource(ctx, uri)

    def completion(self, ctx, reference, argument):
        return self._mine(ctx).completion(ctx, reference, argument)

    def offers(self, ctx):
        return self._mine(ctx).offers(ctx)


def ask(server, principal, method, **params):
    reply = server.handle(modern(method, **params), principal=principal)
    return reply["result"] if "result" in reply else reply["error"]["code"]


@pytest.fixture
def shelves():
    mine: Catalog = (catalog := PerPrincipal())
    ann, bob = catalog.of("ann"), catalog.of("bob")
    ann.add("tools", "read", make_tool(lambda book: f"ann reads {book}", "read"))
    bob.add("tools", "read", make_tool(lambda book: f"bob reads {book}", "read", description="Bob's."))
    bob.add("tools", "burn", make_tool(lambda: "burnt", "burn"))
    bob.add("resources", "shelf://1", make_resource(lambda: "bob's", "shelf://1", name="shelf"))
    bob.add("prompts", "praise", make_prompt(lambda book: f"Praise {book}", "praise"))
    bob.add_completion("praise", "book", lambda value, arguments: ["Dune"])
    return Server("shelves", catalog=mine, ttl_ms=1000, cache_scope="public")


def test_each_principal_has_a_catalog_of_their_own(shelves):
    listed = {who: ask(shelves, who, "tools/list") for who in ("ann", "bob")}
    assert {who: [tool["name"] for tool in found["tools"]] for who, found in listed.items()} == {
        "ann": ["read"],
        "bob": ["read", "burn"],
    }
    assert {found["cacheScope"] for found in listed.values()} == {"private"}
    for who in ("ann", "bob"):
        found = ask(shelves, who, "tools/call", name="read", arguments={"book": "Dune"})
        assert found["content"][0]["text"] == f"{who} reads Dune"
    assert ask(shelves, "ann", "tools/call", name="burn") == -32602
    assert ask(shelves, "bob", "tools/call", name="burn")["content"][0]["text"] == "burnt"
    assert ask(shelves, "bob", "resources/read", uri="shelf://1")["contents"][0]["text"] == "bob's"
    reference = {"ref": {"type": "ref/prompt", "name": "praise"}, "argument": {"name": "book", "value": ""}}
    assert ask(shelves, "bob", "completion/complete", **reference)["completion"]["values"] == ["Dune"]


def test_capabilities_too_are_the_callers_own(shelves):
    found = {who: ask(shelves, who, "server/discover") for who in ("ann", "bob", None)}
    assert {who: set(each["capabilities"]) for who, each in found.items()} == {
        "ann": {"tools"},
        "bob": {"tools", "resources", "prompts", "completions"},
        None: set(),
    }
    assert {each["cacheScope"] for each in found.values()} == {"private"}
    for method, params in (("resources/read", {"uri": "shelf://1"}), ("prompts/list", {}), ("completion/complete", {})):
        assert ask(shelves, "ann", method, **params) == -32601
    assert ask(shelves, None, "tools/list") == -32601


def guarded(policy, **options):
    """A server of one open entry of each kind and one that asks `allow` too."""
    server = Server("s", policy=policy, ttl_ms=1000, cache_scope="public", **options)
    for name, more in (("open", {}), ("ruled", {"allow": lambda ctx: ctx.principal != Principal("eve")})):
        server.tool(lambda: "x", name, **more)
        server.prompt(lambda city: city, name, **more)
        server.resource(f"a://{name}", name=name, **more)(lambda: "x")
        server.resource(f"t://{name}/{{id}}", name=name, **more)(lambda id: id)
        server.completion(name, "city")(lambda value, arguments: ["Oslo"])
    return server


LISTS = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}
USES = [
    ("tools/call", lambda name: {"name": name}),
    ("prompts/get", lambda name: {"name": name, "arguments": {"city": "x"}}),
    ("resources/read", lambda name: {"uri": f"a://{name}"}),
    ("resources/read", lambda name: {"uri": f"t://{name}/1"}),
    (
        "completion/complete",
        lambda name: {"ref": {"type": "ref/prompt", "name": name}, "argument": {"name": "city", "value": ""}},
    ),
]


@pytest.mark.parametrize(
    "who, shown",
    [("ann", ["open", "ruled"]), ("bob", ["ruled"]), ("eve", ["open"]), (None, [])],
)
def test_a_policy_and_the_rule_of_an_entry_must_both_agree(who, shown):
    def policy(ctx: Context, entry: Entry) -> bool:
        if who == "bob":
            return entry.definition["name"] == "ruled"
        return ctx.principal is not None

    server = guarded(policy)
    for method, kind in LISTS.items():
        found = ask(server, who, method)
        assert [each["name"] for each in found[kind]] == shown and found["cacheScope"] == "private", method
    for method, params in USES:
        usable = [name for name in ("open", "ruled") if not isinstance(ask(server, who, method, **params(name)), int)]
        assert usable == shown, method
    assert ask(server, who, "server/discover")["cacheScope"] == "public"


@pytest.mark.parametrize("who, kept", [("ann", ["a://open", "a://ruled"]), ("eve", ["a://open"])])
def test_listen_and_subscribe_go_by_the_same_rule(who, kept):
    server, heard = guarded(lambda ctx, entry: True), []
    wanted = {"resourceSubscriptions": ["a://open", "a://ruled", "a://nowhere"]}

    def hear(message):
        heard.append(message["params"])
        server.close()

    assert "result" in server.handle(modern("subscriptions/listen", notifications=wanted), hear, principal=who)
    assert heard[0]["notifications"] == {"resourceSubscriptions": kept}
    session = Legacy(server).session

    def subscribed(uri):
        request = {"jsonrpc": "2.0", "id": 1, "method": "resources/subscribe", "params": {"uri": uri}}
        return "result" in server.handle(request, session=session, principal=who)

    assert [uri for uri in wanted["resourceSubscriptions"] if subscribed(uri)] == kept
    session.close()


def test_a_policy_hides_from_every_page_and_moves_nothing():
    server = guarded(lambda ctx, entry: not entry.definition["name"].startswith("no"), page_size=2)
    for n in range(4):
        server.tool(lambda: "x", f"no{n}")
        server.tool(lambda: "x", f"yes{n}")
    seen, cursor = [], {}
    while True:
        page = ask(server, "ann", "tools/list", **cursor)
        seen += [each["name"] for each in page["tools"]]
        if "nextCursor" not in page:
            break
        cursor = {"cursor": page["nextCursor"]}
    assert seen == ["open", "ruled", "yes0", "yes1", "yes2", "yes3"]


class Broken(Registry):
    """A catalog whose upstream is away."""

    def find(self, ctx):
        raise ConnectionError("secret.example is away")

    def offers(self, ctx):
        if ctx.method == "prompts/list":
            raise ConnectionError("secret.example is away")
        return frozenset({"tools"})


def test_a_catalog_or_a_strategy_that_fails_is_an_internal_error(caplog):
    server = Server("s", catalog=Broken())
    for method in ("tools/call", "prompts/list", "tools/list"):
        assert ask(server, None, method, name="t") == -32603
    with serving(server.wsgi) as url:
        status, reply = post(url + "/mcp", modern("tools/call", name="t"))
    assert (status, reply["error"]["code"]) == (200, -32603) and "secret" not in str(reply)

    def choose(ctx, entry):
        raise ConnectionError("secret.example is away")

    other = Server("s", strategy=choose)

    @other.tool
    def talks(ctx: Context) -> str:
        return "x"

    assert ask(other, None, "tools/call", name="talks") == -32603
    assert caplog.text.count("\nConnectionError: secret.example is away") == 5


class Still(Registry):
    """A catalog whose resources never change."""

    def offers(self, ctx):
        return super().offers(ctx) - {"subscribe"}


@pytest.mark.parametrize("catalog, offered", [(Registry(), True), (Still(), False)])
def test_subscriptions_are_offered_where_the_catalog_offers_them(catalog, offered):
    catalog.add("resources", "a://1", make_resource(lambda: "x", "a://1", name="one"))
    server, heard = Server("s", catalog=catalog), []
    expected = {"listChanged": True, "subscribe": True} if offered else {"listChanged": True}
    assert ask(server, None, "server/discover")["capabilities"]["resources"] == expected
    client = Legacy(server)
    assert client.hello["capabilities"]["resources"] == expected
    for method in ("resources/subscribe", "resources/unsubscribe"):
        reply = client.reply(method, uri="a://1")
        assert ("result" in reply) == offered
        assert offered or reply["error"]["code"] == -32601

    def hear(message):
        heard.append(message["params"])
        server.close()

    wanted = {"resourcesListChanged": True, "resourceSubscriptions": ["a://1"]}
    server.handle(modern("subscriptions/listen", notifications=wanted), hear)
    kept = wanted if offered else {"resourcesListChanged": True}
    assert heard[0]["notifications"] == kept


class Indirect(Registry):
    """A catalog whose tool `call` stands for another one, which it names."""

    def find(self, ctx):
        if ctx.method == "tools/call" and ctx.params.get("name") == "call":
            chosen = ctx.params["arguments"]
            ctx.params = {**ctx.params, "name": chosen["name"], "arguments": chosen["arguments"]}
        return super().find(ctx)


def test_a_catalog_may_replace_the_params_by_those_of_the_entry_that_it_finds():
    catalog, seen = Indirect(), []
    catalog.add("tools", "double", make_tool(lambda n: 2 * n, "double"))

    def policy(ctx, entry):
        seen.append((ctx.params["name"], ctx.params["arguments"]))
        return True

    server = Server("s", catalog=catalog, policy=policy)
    message = modern("tools/call", name="call", arguments={"name": "double", "arguments": {"n": 4}})
    with serving(server.wsgi) as url:
        # The headers go with what was sent.
        assert post(url + "/mcp", message)[1]["result"]["content"][0]["text"] == "8"
        status, reply = post(url + "/mcp", message, Mcp_Name="double")
    assert (status, reply["error"]["code"]) == (400, -32020)
    assert seen == [("double", {"n": 4})]
