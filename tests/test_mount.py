"""`server.mount`: one server within another, its names and URIs, rules, hooks, questions, notices; what is refused."""

from __future__ import annotations

import contextlib
import gc
import sys
import threading

import pytest

from minimcp import Client, Context, Principal, RemoteError, Server, ToolError
from minimcp.auth import Keys, Rules
from minimcp.protocol import content
from minimcp.protocol.content import Raw
from minimcp.protocol.errors import ResourceNotFound
from minimcp.server.bus import Subscription
from minimcp.server.files import FileResources
from tests.embedded import embedded
from tests.gateways import gateway_of
from tests.helpers import Legacy, exchange, http_headers, modern, problem, result
from tests.transports import ROOT

TOOLS, RESOURCES = "notifications/tools/list_changed", "notifications/resources/list_changed"
UPDATED = "notifications/resources/updated"


def weather():
    server = Server("weather service", instructions="Ask forecast.")

    @server.tool
    def forecast(city: str) -> str:
        """Say what the weather is like."""
        return f"sun in {city}"

    @server.resource("file:///{+path}", name="file")
    def file(path: str) -> str:
        return path

    @server.resource("ui://map/page", name="page")
    def page() -> str:
        return "<!doctype html><title>map</title>"

    @server.resource("file:///index", name="index")
    def index() -> str:
        return "index"

    @server.prompt
    def umbrella(city: str) -> str:
        return f"umbrella in {city}?"

    server.completion("umbrella", "city")(lambda value, arguments: ["Oslo"])
    server.completion("file:///{+path}", "path")(lambda value, arguments: [value + "1"])
    return server


def host(prefix="weather", other=None, **options):
    server = Server("host", **options)
    server.mount(prefix, other or weather())
    return server


def call(server, tool, principal=None, **arguments):
    """The text of a result, or the code of an error."""
    reply = server.handle(modern("tools/call", name=tool, arguments=arguments), principal=principal)
    return reply["result"]["content"][0]["text"] if "result" in reply else reply["error"]["code"]


def names(server, kind="tools", member="name", principal=None):
    method = {"resourceTemplates": "resources/templates"}.get(kind, kind)
    return [each[member] for each in server.handle(modern(f"{method}/list"), principal=principal)["result"][kind]]


# Names and URIs


def test_everything_is_there_under_names_and_uris_of_its_own():
    server = host()
    server.tool(lambda: "own", "forecast")
    assert names(server) == ["weather_forecast", "forecast"]
    assert result(server, "prompts/list")["prompts"][0]["name"] == "weather_umbrella"
    assert names(server, "resources", "uri") == ["ui://weather+map/page", "weather+file:///index"]
    assert names(server, "resourceTemplates", "uriTemplate") == ["weather+file:///{+path}"]
    assert call(server, "weather_forecast", city="Oslo") == "sun in Oslo" and call(server, "forecast") == "own"
    for uri, text in (("weather+file:///index", "index"), ("weather+file:///a/b", "a/b")):
        assert result(server, "resources/read", uri=uri)["contents"] == [
            {"uri": uri, "mimeType": "text/plain", "text": text}
        ]
    [shown] = result(server, "resources/read", uri="ui://weather+map/page")["contents"]
    assert shown["uri"] == "ui://weather+map/page"
    got = result(server, "prompts/get", name="weather_umbrella", arguments={"city": "Oslo"})
    assert got["messages"][0]["content"]["text"] == "umbrella in Oslo?"
    for uri in ("file:///index", "ui://map/page", "weather+ui://map/page", "WEATHER+file:///index", "other+file:///a"):
        assert problem(server, "resources/read", uri=uri)["code"] == -32602


def test_without_a_prefix_names_stay_as_they_are():
    server = host("")
    assert names(server) == ["forecast"] and names(server, "resourceTemplates", "uriTemplate") == ["file:///{+path}"]
    assert call(server, "forecast", city="x") == "sun in x"
    assert result(server, "resources/read", uri="file:///a")["contents"][0]["uri"] == "file:///a"


def test_a_long_name_is_cut_and_a_call_of_it_arrives():
    other = Server("other")
    for end in ("a", "b"):
        other.tool(lambda end=end: end, "n" * 100 + end)
    server = host("p", other)
    listed = names(server)
    assert [len(name) for name in listed] == [64, 64] and len(set(listed)) == 2
    assert [call(server, name) for name in listed] == ["a", "b"]


def test_completions_are_the_servers():
    server = host()
    assert "completions" in result(server, "server/discover")["capabilities"]
    for ref, argument, values in (
        ({"type": "ref/prompt", "name": "weather_umbrella"}, "city", ["Oslo"]),
        ({"type": "ref/resource", "uri": "weather+file:///{+path}"}, "path", ["x1"]),
        ({"type": "ref/resource", "uri": "weather+file:///{+path}"}, "other", []),
    ):
        asked = {"ref": ref, "argument": {"name": argument, "value": "x"}}
        assert result(server, "completion/complete", **asked)["completion"]["values"] == values
    unknown = {"ref": {"type": "ref/prompt", "name": "umbrella"}, "argument": {"name": "city", "value": ""}}
    assert problem(server, "completion/complete", **unknown)["code"] == -32602
    bare = Server("bare")
    bare.prompt(lambda city: city, "p")
    server = host("bare", bare)
    assert "completions" not in result(server, "server/discover")["capabilities"]
    bare.completion("p", "city")(lambda value, arguments: ["late"])
    asked = {"ref": {"type": "ref/prompt", "name": "bare_p"}, "argument": {"name": "city", "value": ""}}
    assert result(server, "completion/complete", **asked)["completion"]["values"] == ["late"]


# Results

LINK = {"type": "resource_link", "uri": "file:///a", "name": "a"}
PUBLIC = {"type": "resource_link", "uri": "w+file:///a", "name": "a"}
AWAY = {"type": "resource_link", "uri": "https://away.example/", "name": "a"}


@pytest.mark.parametrize(
    "returned, expected",
    [
        (LINK, {"content": [PUBLIC]}),
        ([LINK, "file:///a", AWAY], {"content": [PUBLIC, {"type": "text", "text": "file:///a"}, AWAY]}),
        (
            (LINK, (b"x", "image/png")),
            {"content": [PUBLIC, {"type": "image", "data": "eA==", "mimeType": "image/png"}]},
        ),
        (content.resource("ui://h/x", "t"), {"content": [content.resource("ui://w+h/x", "t")]}),
        ({"content": [LINK], "structuredContent": {"uri": "file:///a"}}, {"content": [PUBLIC]}),
        (Raw(content=[LINK], new={"uri": "file:///a"}), {"content": [PUBLIC], "new": {"uri": "file:///a"}}),
        ({"content": [], "_meta": {"ui": {"resourceUri": "ui://h/x"}}}, {"content": []}),
    ],
)
def test_links_in_results_lead_to_the_resources_here(returned, expected):
    other = Server("other")
    other.tool(lambda: returned, "t")
    found = result(host("w", other), "tools/call", name="w_t")
    assert found.items() >= expected.items()
    if "_meta" in returned and isinstance(returned, dict):
        assert found["_meta"]["ui"] == {"resourceUri": "ui://w+h/x"}
    if "structuredContent" in found:
        assert found["structuredContent"] == {"uri": "file:///a"}


@pytest.mark.parametrize("data", [{"uri": "file:///a", "text": "t"}, [LINK, 5], {"role": "user", "content": LINK}, []])
def test_data_of_a_tool_is_left_alone(data):
    other = Server("other")
    other.tool(lambda: data, "t")

    @other.tool
    def typed() -> list[dict]:
        return [LINK]

    server = host("w", other)
    plain = result(other, "tools/call", name="t")
    here = result(server, "tools/call", name="w_t")
    assert (here["content"], here.get("structuredContent")) == (plain["content"], plain.get("structuredContent"))
    assert result(server, "tools/call", name="w_typed")["structuredContent"] in ([LINK], {"result": [LINK]})


def test_a_web_page_that_the_server_lists_is_its_resource():
    other = Server("other")
    other.resource("https://listed.example/", name="site")(lambda: "x")
    other.tool(lambda: [content.link("https://listed.example/", "a"), content.link("https://away.example/", "a")], "t")
    server = host("w", other)
    found = result(server, "tools/call", name="w_t")["content"]
    assert [each["uri"] for each in found] == ["w+https://listed.example/", "https://away.example/"]
    assert result(server, "resources/read", uri=found[0]["uri"])["contents"][0]["text"] == "x"


def test_messages_and_contents_get_the_marker():
    other = Server("other")
    other.prompt(lambda: [{"role": "assistant", "content": (LINK, "x")}, LINK, "y"], "mixed")
    other.prompt(lambda: {"messages": [{"role": "user", "content": LINK}], "description": "d"}, "whole")
    other.resource("a://1", name="one")(
        lambda: [content.resource_contents("a://1/x", "x"), {"uri": "a://1/y", "text": ""}]
    )
    other.resource("a://2", name="two")(lambda: {"uri": "a://2", "of": "data"})
    server = host("w", other)
    assert [each["content"] for each in result(server, "prompts/get", name="w_mixed")["messages"]] == [
        *(PUBLIC, {"type": "text", "text": "x"}, PUBLIC, {"type": "text", "text": "y"}),
    ]
    assert result(server, "prompts/get", name="w_whole")["messages"][0]["content"] == PUBLIC
    contents = result(server, "resources/read", uri="w+a://1")["contents"]
    assert [each["uri"] for each in contents] == ["w+a://1/x", "w+a://1/y"]
    [data] = result(server, "resources/read", uri="w+a://2")["contents"]
    assert data["uri"] == "w+a://2" and data["text"] == '{"uri":"a://2","of":"data"}'


def test_older_clients_get_the_results_of_their_revision():
    other = Server("other")

    @other.tool
    def numbers() -> list[int]:
        return [1, 2]

    other.tool(lambda: [content.link("file:///a", "a")], "links")
    client = Legacy(host("w", other), "2025-06-18")
    assert client.result("tools/call", name="w_numbers")["structuredContent"] == {"result": [1, 2]}
    old = Legacy(host("w", other), "2025-03-26").result("tools/call", name="w_links")
    assert old["content"][0]["type"] == "text" and "w+file:///a" in old["content"][0]["text"]


def test_the_page_of_a_tool_is_found_under_its_uri_here():
    other = Server("other")
    other.resource("ui://clock/page", name="page")(lambda: "<!doctype html><title>clock</title>")
    other.tool(lambda: "x", "clock", ui="ui://clock/page")
    server = host("w", other)
    [tool] = result(server, "tools/list")["tools"]
    assert tool["_meta"]["ui"]["resourceUri"] == "ui://w+clock/page"
    assert "clock" in result(server, "resources/read", uri=tool["_meta"]["ui"]["resourceUri"])["contents"][0]["text"]
    assert "io.modelcontextprotocol/ui" in result(server, "server/discover")["capabilities"]["extensions"]


# What handlers see


def test_handlers_have_the_callers_context_and_their_own_names():
    seen = []
    other = Server("other")

    @other.tool
    def talk(ctx: Context) -> str:
        seen.append(ctx.params["name"])
        ctx.progress(1, 2)
        ctx.log("info", "talking")
        return f"{ctx.principal.id} {ctx.elicit('Name?', {'name': str})['name']}"

    @other.resource("a://{b}", name="r")
    def read(b: str, ctx: Context) -> str:
        seen.append(ctx.params["uri"])
        if b == "missing":
            raise ResourceNotFound("Resource not found", {"uri": ctx.params["uri"]})
        return b

    other.prompt(lambda ctx: str(seen.append(ctx.params["name"])), "plain")
    server = host("o", other, auth=Keys({"ann": {"key": "key-of-ann-0123456789"}}))
    notes, steps = [], []
    for mode in ("modern", "legacy"):
        with Client(
            server.wsgi,
            mode=mode,
            headers={"X-API-Key": "key-of-ann-0123456789"},
            elicit=lambda question: {"name": "Bo"},
            on_log=lambda log: notes.append(log["data"]),
            log_level="info",
        ) as client:
            found = client.call_tool("o_talk", {}, progress=lambda step: steps.append(step["progress"]))
            assert found.text == "ann Bo"
            assert client.read_resource("o+a://x").text == "x"
            with pytest.raises(RemoteError) as caught:
                client.read_resource("o+a://missing")
            assert caught.value.data["uri"] == "o+a://missing"
    assert set(seen) == {"talk", "a://x", "a://missing"} and set(notes) == {"talking"} and set(steps) == {1}


def test_each_servers_hook_is_around_its_own_handlers():
    events = []

    def hook(name):
        @contextlib.contextmanager
        def around(ctx):
            ref = ctx.params.get("ref", {})
            what = ctx.params.get("name") or ctx.params.get("uri") or ref.get("name") or ref.get("uri")
            events.append(f"{name} begins {what}")
            try:
                yield
            except ToolError as error:
                events.append(f"{name} fails: {error}")
                raise
            events.append(f"{name} ends {ctx.params.get('name', '')}".rstrip())

        return around

    other = Server("other", around_call=hook("other"))
    other.tool(lambda: "x", "t")
    other.resource("a://1", name="r")(lambda: "x")
    other.prompt(lambda city: city, "p")
    other.completion("p", "city")(lambda value, arguments: ["Oslo"])
    other.resource("a://{b}", name="t")(lambda b: b)
    other.completion("a://{b}", "city")(lambda value, arguments: ["Oslo"])

    @other.tool
    def fails() -> str:
        raise ToolError("no")

    server = host("o", other, around_call=hook("host"))
    server.tool(lambda: "x", "own")
    call(server, "own")
    assert events == ["host begins own", "host ends own"]
    for method, params, name, public in (
        ("tools/call", {"name": "o_t"}, "t", "o_t"),
        ("resources/read", {"uri": "o+a://1"}, "a://1", "o+a://1"),
        ("prompts/get", {"name": "o_p", "arguments": {"city": "x"}}, "p", "o_p"),
    ):
        del events[:]
        result(server, method, **params)
        ends = ["other ends", "host ends"] if "uri" in params else [f"other ends {name}", f"host ends {public}"]
        assert events == [f"host begins {public}", f"other begins {name}", *ends]
    for name, ref in (
        ("p", {"type": "ref/prompt", "name": "o_p"}),
        ("a://{b}", {"type": "ref/resource", "uri": "o+a://{b}"}),
    ):
        del events[:]
        result(server, "completion/complete", ref=ref, argument={"name": "city", "value": ""})
        assert events[1:2] == [f"other begins {name}"] and events[-1] == "host ends"
    del events[:]
    assert call(server, "o_fails") == "no"
    assert events == ["host begins o_fails", "other begins fails", "other fails: no", "host fails: no"]


# Rules

MINE = {"allow": lambda ctx: ctx.principal == Principal("ann") and not str(ctx.params.get("name")).startswith("o_")}


def test_the_rules_of_both_servers_hold():
    seen = []

    def policy(ctx, entry):
        seen.append((entry.definition["name"], ctx.params.get("name")))
        return entry.definition["name"] != "secret"

    other = Server("other", policy=policy)
    for name, options in (("open", {}), ("secret", {}), ("staff", {"roles": ["staff"]}), ("mine", MINE)):
        other.tool(lambda: "x", name, **options)
        other.resource(f"a://{name}", name=name, **options)(lambda: "x")
    server = host(
        "o", other, policy=Rules({"allow": "*:*", "servers": "o"}, {"deny": "tools:o_open", "principals": "eve"})
    )
    server.tool(lambda: "x", "own")
    ann, bob, eve = Principal("ann", roles=["staff"]), Principal("bob"), Principal("eve")
    assert names(server, principal=ann) == ["o_open", "o_staff", "o_mine"] and names(server, principal=bob) == [
        "o_open"
    ]
    assert names(server, principal=eve) == []
    for name in ("o_staff", "o_mine"):
        assert [call(server, name, who) for who in (ann, bob)] == ["x", -32602]
    assert ("staff", "staff") in seen and not {each for each in seen if each[0].startswith("o_")}
    for who, uri, found in ((ann, "staff", True), (bob, "staff", False), (ann, "secret", False), (eve, "open", True)):
        assert ("result" in server.handle(modern("resources/read", uri=f"o+a://{uri}"), principal=who)) == found
    assert server.explain(bob, "o_staff")["reasons"][0] == "it needs one of the roles staff"
    listed = server.handle(modern("tools/list"), principal=ann)["result"]
    assert listed["cacheScope"] == "private"


def test_rules_of_the_other_are_about_its_own_names():
    other = Server("other", policy=Rules({"allow": ["tools:t", "resources:a://*"]}, {"deny": "resources:a://secret*"}))
    other.tool(lambda: "x", "t")
    other.resource("a://{+b}", name="r")(lambda b: b)
    server = host("o", other)
    assert call(server, "o_t") == "x"
    assert result(server, "resources/read", uri="o+a://open")["contents"][0]["text"] == "open"
    assert problem(server, "resources/read", uri="o+a://secret/1")["code"] == -32602
    client = Legacy(server)
    assert client.result("resources/subscribe", uri="o+a://open") == {}
    assert client.problem("resources/subscribe", uri="o+a://secret/1")["code"] == -32002


def test_scopes_that_are_missing_are_named():
    other = Server("other", policy=lambda ctx, entry: entry.definition["name"] == "t")
    other.tool(lambda: "x", "t", scopes=["mail"], allow=lambda ctx: ctx.params.get("name") in (None, "t"))
    server = host("o", other, auth=Keys({"ann": {"key": "key-of-ann-0123456789"}}), on_denied="challenge")
    message, key = modern("tools/call", name="o_t"), {"X-API-Key": "key-of-ann-0123456789"}
    with (
        embedded(server.wsgi) as served,
        exchange(served.url + "/mcp", message, {**http_headers(message), **key}) as response,
    ):
        assert response.status == 403 and 'scope="mail"' in response.headers["WWW-Authenticate"]


# Changes


def test_what_comes_and_goes_later_shows_and_is_told_once():
    other = weather()
    server = host("weather", other)
    client = Legacy(server)
    other.tool(lambda: "late", "late")
    assert names(server) == ["weather_forecast", "weather_late"] and call(server, "weather_late") == "late"
    other.remove_tool("forecast")
    assert names(server) == ["weather_late"] and call(server, "weather_forecast", city="x") == -32602
    other.remove_resource("file:///{+path}")
    assert [message["method"] for message in client.sent] == [TOOLS, TOOLS, RESOURCES]
    other.tool(lambda: "x", "ruled", allow=lambda ctx: ctx.principal is not None)
    other.prompt(lambda: "x", "p")
    assert [message["method"] for message in client.sent[3:]] == ["notifications/prompts/list_changed"]
    other.remove_tool("ruled")
    other.tool(lambda: "later", "late")
    assert call(server, "weather_late") == "later"
    del client.sent[:]
    theirs = Legacy(other)
    other.tool(lambda: "x", "third")
    other.changed("prompts")
    assert [message["method"] for message in theirs.sent] == [message["method"] for message in client.sent]
    assert client.sent[0]["method"] == TOOLS and len(client.sent) == 2


def test_clients_that_subscribed_hear_of_a_resource():
    other = weather()
    middle = Server("middle")
    middle.mount("w", other)
    server = host("m", middle)
    client = Legacy(server)
    for uri in ("m+w+file:///index", "ui://m+w+map/page"):
        client.result("resources/subscribe", uri=uri)
    heard, told = [], threading.Event()

    def hear(message):
        heard.append((message["method"], message["params"].get("uri")))
        told.set()

    wanted = {"resourceSubscriptions": ["m+w+file:///index", "m+w+nothing://x"]}
    listen = modern("subscriptions/listen", notifications=wanted)
    thread = threading.Thread(target=server.handle, args=(listen, hear))
    thread.start()
    try:
        assert told.wait(10)
        told.clear()
        other.updated("file:///index")
        assert told.wait(10)
        middle.updated("w+file:///index")
        other.updated("ui://map/page")
        other.updated("file:///other")
    finally:
        server.close()
        thread.join(10)
    assert heard[1] == (UPDATED, "m+w+file:///index") and ("notifications/resources/updated", None) not in heard
    assert [message["params"]["uri"] for message in client.sent] == [
        *("m+w+file:///index", "m+w+file:///index", "ui://m+w+map/page")
    ]


def test_a_change_that_overtakes_another_is_not_undone_by_it(monkeypatch):
    other = Server("other")
    server = host("o", other)
    registry = server.engine.registry
    exchange, late = registry.exchange, threading.Thread(target=lambda: other.tool(lambda: "x", "second"))

    def held(origin, wanted):
        if "o_first" in wanted["tools"] and late.ident is None:
            late.start()
            late.join(0.3)
        return exchange(origin, wanted)

    monkeypatch.setattr(registry, "exchange", held)
    other.tool(lambda: "x", "first")
    late.join(10)
    assert sorted(names(server)) == ["o_first", "o_second"]


def test_servers_within_servers():
    inner, middle = weather(), Server("middle", instructions="In the middle.")
    middle.mount("w", inner)
    server = Server("host", instructions="Outside.")
    server.mount("m", middle)
    late = Server("late", instructions="Too late.")
    late.tool(lambda: "late", "t")
    middle.mount("l", late)
    assert names(server) == ["m_w_forecast", "m_l_t"] and call(server, "m_w_forecast", city="x") == "sun in x"
    assert call(server, "m_l_t") == "late"
    uri = "m+w+file:///a"
    assert result(server, "resources/read", uri=uri)["contents"] == [
        {"uri": uri, "mimeType": "text/plain", "text": "a"}
    ]
    asked = {"ref": {"type": "ref/prompt", "name": "m_w_umbrella"}, "argument": {"name": "city", "value": ""}}
    assert result(server, "completion/complete", **asked)["completion"]["values"] == ["Oslo"]
    assert result(server, "server/discover")["instructions"] == (
        "Outside.\n\n[middle] (names begin with m_)\nIn the middle.\n\n"
        "[weather service] (names begin with m_w_)\nAsk forecast.\n\n[late] (names begin with m_l_)\nToo late."
    )
    assert Legacy(middle).hello["instructions"].startswith("In the middle.\n\n[weather service] (names begin with w_)")
    assert "instructions" not in result(host("a", Server("b")), "server/discover")


def test_a_server_may_be_within_several_and_twice_in_one():
    other = weather()
    one, two = host("a", other), host("b", other)
    one.mount("c", other)
    other.tool(lambda: "x", "t")
    assert names(one) == ["a_forecast", "c_forecast", "a_t", "c_t"] and names(two) == ["b_forecast", "b_t"]
    assert call(one, "c_t") == call(two, "b_t") == "x"


@pytest.mark.parametrize("order", ["outer first", "inner first"])
def test_a_server_that_nobody_else_holds_stays(tmp_path, order):
    (tmp_path / "a.txt").write_text("a")
    other = Server("other")
    files = FileResources(tmp_path, "files:///", watch_s=0.0).add_to(other)
    middle, server = Server("middle"), Server("host")
    if order == "outer first":
        server.mount("m", middle)
    middle.mount("o", other)
    if order == "inner first":
        server.mount("m", middle)
    del other, middle
    gc.collect()
    assert names(server, "resources", "uri") == ["m+o+files:///a.txt"]
    (tmp_path / "b.txt").write_text("b")
    assert names(server, "resources", "uri") == ["m+o+files:///a.txt", "m+o+files:///b.txt"]
    assert result(server, "resources/read", uri="m+o+files:///b.txt")["contents"][0]["text"] == "b"
    files.close()


def test_a_tool_that_runs_as_a_task_is_one_here_too():
    other = Server("other")

    @other.tool(task=True)
    def count(to: int) -> list:
        """Count."""
        return [content.link("a://1", f"counted to {to}")]

    server, declared = host("o", other), {"extensions": {"io.modelcontextprotocol/tasks": {}}}
    made = result(server, "tools/call", name="o_count", arguments={"to": 3}, capabilities=declared)
    with Subscription(server.engine.bus, [f"tasks/{made['taskId']}"]) as news:
        for _ in range(20):
            task = result(server, "tasks/get", taskId=made["taskId"], capabilities=declared)
            if task["status"] not in ("queued", "working"):
                break
            news.take(1)
    assert task["result"]["content"] == [{"type": "resource_link", "uri": "o+a://1", "name": "counted to 3"}]
    server.tasks.close()


def test_a_gateway_may_be_within_a_server_and_a_server_within_a_gateway():
    behind, team = Server("up"), Server("team")

    @behind.tool
    def ask(ctx: Context) -> list:
        answer = ctx.elicit("Name?", {"name": str})
        return [content.link("file:///a", answer["name"])]

    behind.resource("file:///{+path}", name="file")(lambda path: path)
    team.tool(lambda: "team", "t")
    with gateway_of(behind) as gateway:
        gateway.settle()
        gateway.mount("team", team)
        server = host("g", gateway)
        gateway.federation.rebuild()
        assert sorted(names(server)) == ["g_team_t", "g_up_ask"] and call(server, "g_team_t") == "team"
        for mode in ("modern", "legacy"):
            with Client(server, mode=mode, elicit=lambda question: {"name": "Bo"}) as client:
                [link] = client.call_tool("g_up_ask")["content"]
                assert (link["uri"], link["name"]) == ("g+up+file:///a", "Bo")
                assert client.read_resource(link["uri"]).text == "a"


# What is refused


def test_a_collision_names_both_owners_and_changes_nothing():
    one, two = Server("one"), Server("two")
    for each in (one, two):
        each.tool(lambda: "x", "t")
        each.resource("a://1", name="r")(lambda: "x")
    server = Server("host")
    server.tool(lambda: "own", "b_t")
    with pytest.raises(
        ValueError, match="'one' cannot be mounted at 'b': the tool 'b_t' is there already, from 'host' itself"
    ):
        server.mount("b", one)
    server.mount("", one)
    both = "'two' cannot be mounted at '': the tool 't' is there already, from 'one'; the resource 'a://1' is there"
    with pytest.raises(ValueError, match=both):
        server.mount("", two)
    assert names(server) == ["b_t", "t"] and names(server, "resources") == ["r"]
    two.tool(lambda: "x", "later")
    assert names(server) == ["b_t", "t"], "it is not followed either"
    for register in (
        lambda: server.tool(lambda: "x", "t"),
        lambda: server.resource("a://1", name="r")(lambda: "x"),
        lambda: server.remove_tool("t"),
        lambda: server.remove_resource("a://1"),
    ):
        with pytest.raises(ValueError, match="comes from the server 'one', which keeps it"):
            register()
    assert server.remove_tool("nothing") is False and server.remove_tool("b_t") is True


def test_a_collision_that_comes_later_is_logged_and_ends_when_its_reason_does(caplog):
    one, two, server = Server("one"), Server("two"), Server("host")
    server.mount("", one)
    server.mount("", two)
    server.tool(lambda: "own", "t")
    one.tool(lambda: "one", "t")
    one.tool(lambda: "one", "other")
    assert call(server, "t") == "own" and call(server, "other") == "one"
    two.tool(lambda: "two", "other")
    assert call(server, "other") == "one"
    assert caplog.text.count("one is left out of host: the tool 't' is there already, from 'host' itself") == 1
    assert caplog.text.count("two is left out of host: the tool 'other' is there already, from 'one'") == 1
    one.remove_tool("other")
    two.changed("tools")
    two.tool(lambda: "two", "third")
    assert call(server, "other") == "two"


@pytest.mark.parametrize(
    "prefix, words", [("a b", "at most 40"), ("ü", "at most 40"), ("x" * 41, "at most 40"), (None, "at most 40")]
)
def test_a_prefix_has_the_characters_of_names(prefix, words):
    with pytest.raises(ValueError, match=words):
        host(prefix)


def test_rings_are_refused():
    a, b, c = Server("a"), Server("b"), Server("c")
    a.mount("b", b)
    b.mount("c", c)
    for outer, inner in ((a, a), (b, a), (c, a), (c, b)):
        with pytest.raises(ValueError, match="since it would be within itself"):
            outer.mount("x", inner)


@pytest.mark.parametrize("first, second", [("one", "one"), ("one", "ONE"), ("a_b", "a.b"), ("", "")])
def test_two_prefixes_whose_uris_are_alike_are_refused(first, second):
    server = Server("host")
    server.mount(first, Server("x"))
    with pytest.raises(ValueError, match="its URIs could not be told apart"):
        server.mount(second, Server("x"))


def test_a_server_with_callers_of_its_own_needs_them_here_and_one_with_a_catalog_cannot_be_mounted():
    keys = Keys({"ann": {"key": "key-of-ann-0123456789"}})
    for options in ({}, {"auth": "public"}):
        with pytest.raises(ValueError, match="asks who is calling and this server does not: give auth="):
            host("o", Server("other", auth=keys), **options)
    assert host("o", Server("other", auth=keys), auth=keys)
    with pytest.raises(ValueError, match="answers from a catalog of its own"):
        host("o", Server("other", catalog=Server("x").engine.registry))


# The example


def test_the_example_puts_two_teams_together():
    command = [sys.executable, str(ROOT / "examples" / "mount.py")]
    with Client(command, env={"PYTHONPATH": str(ROOT)}, elicit=lambda question: True) as client:
        assert [tool["name"] for tool in client.list_tools()] == [
            *("weather_forecast", "billing_find_invoices", "billing_pay")
        ]
        assert client.call_tool("weather_forecast", city="Bergen", tomorrow=True).text == "Bergen tomorrow: rain"
        [found] = client.call_tool("billing_find_invoices", city="Bergen")["content"]
        assert found["uri"] == "billing+invoice:///8"
        assert client.read_resource(found["uri"]).text == "Bergen, 80.50"
        assert client.call_tool("billing_pay", id="8").text == "paid Bergen, 80.50"
        assert [each["uri"] for each in client.list_resources()] == ["billing+invoice:///7"]
        with pytest.raises(RemoteError, match="Unknown tool"):
            client.call_tool("billing_close_month")
        assert client.get_prompt("weather_umbrella", {"city": "Oslo"})["messages"]
        assert "[weather team] (names begin with weather_)\nforecast knows today" in client.instructions
