"""Rules in one place: denied by default, patterns, arguments, and the same answer for lists and for calls."""

from __future__ import annotations

import time
from typing import Any

import pytest

from minimcp import Client, Principal, RemoteError, Server
from minimcp.auth import Keys, Rules
from minimcp.server.makers import make_resource, make_tool
from tests.helpers import Legacy, modern

RULES = (
    {"allow": ["tools:report_*", "resources:report://*"], "roles": ["analyst", "admin"]},
    {"allow": "tools:send", "scopes": ["mail"], "arguments": {"to": ["*@example.com", "boss@*"]}},
    {"allow": "*:*", "roles": "admin"},
    {"deny": "tools:drop_*"},
    {"deny": "tools:report_write", "arguments": {"region": "eu-*"}},
    {"allow": "prompts:hello"},
)
USERS = {
    "ana": {"key": "key-of-ana-0123456789", "roles": ["analyst"], "scopes": ["mail"]},
    "adi": {"key": "key-of-adi-0123456789", "roles": ["admin"]},
}


def ruled() -> Server:
    server = Server("s", auth=[Keys(USERS), "public"], policy=Rules(*RULES))
    for name in ("report_read", "drop_all", "other"):
        server.tool(lambda: "x", name)

    @server.tool
    def report_write(region: str) -> str:
        return region

    @server.tool
    def send(to: str) -> str:
        return to

    server.resource("report://{id}")(lambda id: id)
    server.resource("secret://{id}")(lambda id: id)
    server.prompt(lambda: "hi", "hello")
    return server


def connected(user: str | None) -> Client:
    return Client(ruled().wsgi, headers={"X-API-Key": USERS[user]["key"]} if user else {})


@pytest.mark.parametrize(
    "user, tools",
    [
        ("ana", ["report_read", "report_write", "send"]),
        ("adi", ["report_read", "other", "report_write", "send"]),
        (None, []),
    ],
)
def test_lists_and_calls_agree(user: str | None, tools: list[str]) -> None:
    with connected(user) as client:
        assert [tool["name"] for tool in client.list_tools()] == tools
        assert [prompt["name"] for prompt in client.list_prompts()] == ["hello"]
        for name in ("report_read", "drop_all", "other"):
            if name in tools:
                client.call_tool(name)
            else:
                with pytest.raises(RemoteError, match="Unknown tool"):
                    client.call_tool(name)


def test_arguments_decide_about_a_call() -> None:
    with connected("ana") as client:
        assert client.call_tool("send", to="ann@example.com").text == "ann@example.com"
        assert client.call_tool("report_write", region="us-1").text == "us-1"
        for name, arguments in (("send", {"to": "x@evil.example"}), ("report_write", {"region": "eu-1"}), ("send", {})):
            with pytest.raises(RemoteError, match="Unknown tool"):
                client.call_tool(name, arguments)


def test_rules_are_about_what_is_read_and_not_about_its_template() -> None:
    with connected("ana") as client:
        assert client.read_resource("report://1").text == "1"
        with pytest.raises(RemoteError, match="not found"):
            client.read_resource("secret://1")


@pytest.mark.parametrize(
    "principal, target, arguments, allowed, reason",
    [
        (None, "tools:report_read", None, False, "no rule allows tools:report_read to an anonymous caller"),
        (Principal("x", roles=["admin"]), "tools:drop_all", None, False, "tools:drop_all is denied by"),
        (Principal("x", roles=["admin"]), "tools:any", {}, True, "tools:any is allowed by"),
        (Principal("x", roles=["analyst"]), "tools:report_write", {"region": "eu-1"}, False, "is denied by"),
    ],
)
def test_a_decision_says_why(principal: Any, target: str, arguments: Any, allowed: bool, reason: str) -> None:
    kind, _, name = target.partition(":")
    decision = Rules(*RULES).decide(principal, kind, name, arguments)
    assert (decision.allowed, bool(decision)) == (allowed, allowed) and reason in decision.reason


@pytest.mark.parametrize(
    "rule, problem",
    [
        ({}, "needs either 'allow' or 'deny'"),
        ({"allow": "tools:x", "deny": "tools:y"}, "needs either 'allow' or 'deny'"),
        ({"allow": "tools:x", "role": "admin"}, r"has \['role'\]"),
        ({"allow": "report_*"}, "is not a pattern"),
        ({"allow": "tool:x"}, "is not a pattern"),
        ({"allow": "tools:"}, "is not a pattern"),
        ({"allow": []}, "has no pattern"),
        ({"allow": [5]}, "neither a string nor a list"),
        ({"allow": "tools:x", "roles": [5]}, "neither a string nor a list"),
    ],
)
def test_rules_with_mistakes_are_refused(rule: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Rules(rule)


def test_a_list_of_rules_is_told_how_rules_are_given() -> None:
    with pytest.raises(TypeError, match=r"given one by one, Rules\(\{\.\.\.\}, \{\.\.\.\}\), not \[\{'allow'"):
        Rules([{"allow": "*:*"}])  # type: ignore[arg-type]


@pytest.mark.parametrize("member", ["roles", "scopes", "principals"])
def test_an_empty_list_lets_nobody_in_by_mistake(member: str) -> None:
    decision = Rules({"allow": "*:*", member: []}).decide(Principal("x", roles=["r"], scopes=["s"]), "tools", "x")
    assert bool(decision) is (member == "scopes")
    assert not Rules({"allow": "*:*", member: []}).decide(None, "tools", "x")


def test_a_principal_is_named_with_or_without_its_issuer() -> None:
    rules = Rules({"allow": "tools:*", "principals": ["ann", "https://a.example bob"]})
    for principal, allowed in (
        (Principal("ann"), True),
        (Principal("bob"), False),
        (Principal("bob", "https://a.example"), True),
        (Principal("bob", "https://b.example"), False),
    ):
        assert bool(rules.decide(principal, "tools", "x")) is allowed


def test_a_pattern_has_no_other_special_characters_and_is_fast() -> None:
    rules = Rules({"allow": "tools:a.b[c]*"})
    assert rules.decide(None, "tools", "a.b[c]\nd") and not rules.decide(None, "tools", "axb[c]")
    began = time.thread_time()
    assert not Rules({"allow": "tools:" + "*a" * 8 + "*" * 200 + "!"}).decide(None, "tools", "a" * 60)
    assert time.thread_time() - began < 5


def test_a_rule_may_be_about_the_servers_that_entries_come_from() -> None:
    server = Server(
        "s",
        auth=[Keys(USERS), "public"],
        policy=Rules(
            {"allow": "*:*", "servers": ["files", "crm-*"], "roles": "admin"},
            {"allow": "tools:own", "servers": ""},
            {"deny": "tools:*", "servers": "crm-test"},
            {"allow": "tools:any*", "servers": "*"},
        ),
    )
    registry, staff = server.engine.registry, Principal("adi", roles=["admin"])
    for origin in ("files", "crm-eu", "crm-test", "filesystem"):
        tool = make_tool(lambda: "x", f"any_{origin}" if origin == "filesystem" else origin)
        uri = f"{origin}://a"
        resource = make_resource(lambda: "x", uri, name=uri)
        registry.update(origin, {"tools": {tool.definition["name"]: tool}, "resources": {uri: resource}})
    for name in ("own", "other"):
        server.tool(lambda: "x", name)
    with Client(server.wsgi, headers={"X-API-Key": USERS["adi"]["key"]}) as client:
        assert [tool["name"] for tool in client.list_tools()] == ["files", "crm-eu", "any_filesystem", "own"]
        assert [found["uri"] for found in client.list_resources()] == ["files://a", "crm-eu://a", "crm-test://a"]
        assert client.read_resource("files://a").text == "x"
        with pytest.raises(RemoteError, match="not found"):
            client.read_resource("filesystem://a")
    with Client(server.wsgi) as client:
        assert [tool["name"] for tool in client.list_tools()] == ["any_filesystem", "own"]
    assert server.explain(staff, "files") == {"allowed": True, "reasons": []}
    [reason] = server.explain(staff, "crm-test")["reasons"]
    assert "denied by {'deny': 'tools:*', 'servers': 'crm-test'}" in reason
    assert not server.explain(staff, "other")["allowed"]
    assert Rules({"allow": "*:*", "servers": "a"}).decide(None, "tools", "x", origin="a")
    assert not Rules({"allow": "*:*", "servers": []}).decide(None, "tools", "x", origin="a")


@pytest.mark.parametrize(
    "name, origin, said",
    [
        ("tools:report_read", "", ["admin or analyst", "admin"]),
        ("tools:send", "", ["scope mail", "admin"]),
        ("tools:drop_all", "", ["nobody"]),
        ("tools:report_write", "", ["admin or analyst", "admin"]),
        ("prompts:hello", "", ["everybody"]),
        ("tools:mail_send", "mail", ["admin", "staff and ada or ben", "not guest"]),
        ("tools:mail_send", "post", ["admin", "not guest"]),
    ],
)
def test_who_may_see_a_name_is_said_in_words(name: str, origin: str, said: list[str]) -> None:
    rules = Rules(
        *RULES,
        {"allow": "tools:mail_*", "servers": ["mail"], "roles": ["staff"], "principals": ["ben", "ada"]},
        {"deny": "tools:mail_*", "roles": ["guest"]},
    )
    kind, _, rest = name.partition(":")
    assert rules.audience(kind, rest, origin) == said
    assert Rules().audience(kind, rest) == ["nobody"]


def test_a_rule_about_a_uri_holds_for_every_spelling_of_it() -> None:
    rules = Rules({"allow": "resources:file://*"}, {"deny": ["resources:file:///secret*", "resources:file:///ü*"]})
    server = Server("s", policy=rules)
    server.resource("file:///{+path}", name="file")(lambda path: path)
    with Client(server) as client:
        assert client.read_resource("file:///open").text == "open"
        for uri in ("file:///secret/1", "file:///%73ecret/1", "file:///secr%65t", "file:///ü", "file:///%c3%bc"):
            with pytest.raises(RemoteError, match="not found"):
                client.read_resource(uri)
    assert "file:///%73ecret is denied" in rules.decide(None, "resources", "file:///%73ecret").reason
    session = Legacy(server)
    for uri in ("file:///secret/1", "file:///%73ecret/1"):
        assert session.problem("resources/subscribe", uri=uri)["code"] == -32002
    assert session.result("resources/subscribe", uri="file:///open") == {}
    heard: list[Any] = []

    def hear(message: Any) -> None:
        heard.append(message["params"])
        server.close()

    wanted = {"resourceSubscriptions": ["file:///open", "file:///secret/1", "file:///%73ecret/1"]}
    server.handle(modern("subscriptions/listen", notifications=wanted), hear)
    assert heard[0]["notifications"] == {"resourceSubscriptions": ["file:///open"]}
    assert rules.audience("resources", "file:///%73ecret") == ["nobody"]
