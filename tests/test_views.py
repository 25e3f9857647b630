"""Views over a catalog: filters, changed tools, search mode; what they hide cannot be reached in any other way."""

from __future__ import annotations

import pytest

from minimcp import Client, Context, Principal, RemoteError, Server
from minimcp.auth import Rules
from minimcp.server.makers import make_prompt, make_resource, make_tool
from minimcp.server.registry import Registry
from minimcp.views.view import View
from tests.embedded import embedded
from tests.gateways import gateway_of, served
from tests.helpers import Legacy, http_headers, modern, post, result
from tests.helpers import problem as failing

TOOLS, PROMPTS = "notifications/tools/list_changed", "notifications/prompts/list_changed"


def crm_search(query: str, region: str = "US", limit: int = 5, debug: bool = False) -> str:
    """Search customers by name."""
    return f"{query} {region} {limit} {debug}"


def base():
    """A catalog of three origins."""
    registry = Registry()
    registry.update(
        "crm",
        {
            "tools": {"crm_search": make_tool(crm_search), "crm_delete": make_tool(lambda: "deleted", "crm_delete")},
            "resources": {"crm://open": make_resource(lambda: "open", "crm://open", name="open")},
            "resourceTemplates": {"crm://files/{+path}": make_resource(lambda path: path, "crm://files/{+path}")},
            "prompts": {"crm_mail": make_prompt(lambda who: f"Write to {who}", "crm_mail")},
        },
    )
    registry.update("hr", {"tools": {"hr_pay": make_tool(lambda: "paid", "hr_pay")}})
    registry.add("tools", "own", make_tool(lambda: "own", "own"))
    registry.add_completion("crm_mail", "who", lambda value, arguments: ["ann"])
    registry.add_completion("crm://files/{+path}", "path", lambda value, arguments: ["a.txt"])
    return registry


def showing(spec, registry=None, **options):
    return Server("view", catalog=View(registry or base(), spec, "the view"), **options)


def names(server, kind="tools", member="name"):
    method = {"resourceTemplates": "resources/templates"}.get(kind, kind)
    return [each[member] for each in result(server, f"{method}/list")[kind]]


def call(server, tool, **arguments):
    """The text of a result, or the code of an error."""
    reply = server.handle(modern("tools/call", name=tool, arguments=arguments))
    return reply["result"]["content"][0]["text"] if "result" in reply else reply["error"]["code"]


@pytest.mark.parametrize(
    "spec, tools, templates, prompts",
    [
        ({}, ["crm_search", "crm_delete", "hr_pay", "own"], 1, 1),
        ({"servers": ["crm"]}, ["crm_search", "crm_delete"], 1, 1),
        ({"servers": ["c*"], "deny": ["tools:*_delete"]}, ["crm_search"], 1, 1),
        ({"servers": ["hr", ""]}, ["hr_pay", "own"], 0, 0),
        ({"servers": []}, [], 0, 0),
        ({"allow": ["tools:crm_*", "*:own"]}, ["crm_search", "crm_delete", "own"], 0, 0),
        ({"allow": ["resources:*", "prompts:x*"]}, [], 1, 0),
        ({"allow": []}, [], 0, 0),
        ({"tools": ["*_pay"], "prompts": [], "resources": ["crm://open"]}, ["hr_pay"], 0, 0),
    ],
)
def test_what_is_not_shown_cannot_be_used(spec, tools, templates, prompts):
    server = showing(spec)
    offered = result(server, "server/discover")["capabilities"]
    assert (names(server) if "tools" in offered else []) == tools
    assert (len(names(server, "resourceTemplates")) if "resources" in offered else 0) == templates
    assert (len(names(server, "prompts")) if "prompts" in offered else 0) == prompts
    for name in ("crm_delete", "hr_pay", "own"):
        assert (call(server, name) in ("deleted", "paid", "own")) == (name in tools)
    read = server.handle(modern("resources/read", uri="crm://files/a/b"))
    assert ("result" in read) == bool(templates)
    got = server.handle(modern("prompts/get", name="crm_mail", arguments={"who": "x"}))
    assert ("result" in got) == bool(prompts)
    for ref, shown in (
        ({"type": "ref/prompt", "name": "crm_mail"}, prompts),
        ({"type": "ref/resource", "uri": "crm://files/{+path}"}, templates),
    ):
        argument = {"name": "who" if "name" in ref else "path", "value": ""}
        reply = server.handle(modern("completion/complete", ref=ref, argument=argument))
        assert ("result" in reply) == bool(shown)
        assert not shown or reply["result"]["completion"]["values"] in (["ann"], ["a.txt"])


def test_a_pattern_is_about_the_uri_that_is_read_in_every_spelling():
    server = showing({"deny": ["resources:crm://files/secret*", "resources:crm://files/ü*"]})
    assert result(server, "resources/read", uri="crm://files/open/1")["contents"][0]["text"] == "open/1"
    for uri in ("secret/1", "%73ecret/1", "secr%65t", "ü/1", "%C3%BC", "%c3%bc/1"):
        assert failing(server, "resources/read", uri=f"crm://files/{uri}")["code"] == -32602, uri
    client = Legacy(server)
    assert client.problem("resources/subscribe", uri="crm://files/%73ecret/1")["code"] == -32002
    assert client.result("resources/subscribe", uri="crm://files/open") == {}


def test_capabilities_are_those_of_what_can_be_shown():
    offered = {name: set(result(showing(spec), "server/discover")["capabilities"]) for name, spec in SPECS.items()}
    for name, code in (("all", -32002), ("prompts", -32601)):
        assert Legacy(showing(SPECS[name])).problem("resources/subscribe", uri="x://y")["code"] == code
    assert offered == {
        "all": {"tools", "resources", "prompts", "completions"},
        "tools": {"tools"},
        "prompts": {"prompts", "completions"},
    }


SPECS = {"all": {}, "tools": {"allow": ["tools:*"]}, "prompts": {"allow": ["prompts:*"]}}
CHANGE = {
    "name": "find",
    "title": "Find a customer",
    "description": "Finds one.",
    "fixed": {"region": "EU"},
    "hidden": ["debug", "limit"],
}


def test_a_tool_has_another_name_another_text_and_fewer_arguments():
    server = showing({"servers": ["crm"], "tools": {"crm_search": CHANGE}})
    assert result(server, "tools/list")["tools"][0] == {
        "name": "find",
        "title": "Find a customer",
        "description": "Finds one.",
        "inputSchema": {
            "type": "object",
            "properties": {"query": {"type": "string"}},
            "required": ["query"],
            "additionalProperties": False,
        },
    }
    assert call(server, "find", query="ann") == "ann EU 5 False"
    assert call(server, "crm_search", query="ann") == -32602, "it is not there under its own name"
    for sent in ({"region": "US"}, {"region": "EU"}, {"debug": True}, {"limit": 1, "region": "x"}):
        said = call(server, "find", query="ann", **sent)
        assert said.startswith("Invalid arguments for find: ") and f'"{min(sent)}" is not a known argument' in said
    assert call(server, "find") == 'Invalid arguments for find: "query" missing'
    assert failing(server, "tools/call", name="find", arguments=[1])["code"] == -32602


def test_pages_without_anything_to_show_are_passed_over():
    server = showing({"servers": ["hr"]}, page_size=1)
    assert names(server) == ["hr_pay"]
    server = showing({"allow": ["tools:crm_*", "tools:own"]}, page_size=1)
    seen, cursor = [], {}
    while not seen or cursor:
        page = result(server, "tools/list", **cursor)
        seen += [tool["name"] for tool in page["tools"]]
        cursor = {"cursor": page["nextCursor"]} if "nextCursor" in page else {}
    assert seen == ["crm_search", "crm_delete", "own"]


def test_names_may_change_places():
    server = showing({"tools": {"hr_pay": {"name": "own"}, "own": {"name": "hr_pay"}}})
    assert names(server) == ["crm_search", "crm_delete", "own", "hr_pay"]
    assert (call(server, "own"), call(server, "hr_pay")) == ("paid", "own")


def test_a_name_that_a_changed_tool_takes_is_not_shown_twice(caplog):
    server = showing({"tools": {"hr_pay": {"name": "own"}}})
    for _ in range(2):
        assert names(server) == ["crm_search", "crm_delete", "own"] and call(server, "own") == "paid"
    assert caplog.text.count("the view: there is another tool under the name 'own'; this one is not shown") == 1


def test_a_view_follows_its_catalog():
    registry = base()
    server = showing({"servers": ["hr", "crm"], "tools": {"crm_new": {"name": "new"}}, "allow": ["tools:*"]}, registry)
    registry.update("hr", {"tools": {"hr_fire": make_tool(lambda: "fired", "hr_fire")}})
    assert names(server) == ["crm_search", "crm_delete", "hr_fire"]
    registry.update("crm", {"tools": {"crm_new": make_tool(lambda: "1", "crm_new", description="first")}})
    assert names(server) == ["hr_fire", "new"] and call(server, "new") == "1"
    registry.update("crm", {"tools": {"crm_new": make_tool(lambda: "2", "crm_new", description="second")}})
    assert result(server, "tools/list")["tools"][1]["description"] == "second" and call(server, "new") == "2"
    registry.update("crm", {"tools": {}})
    assert names(server) == ["hr_fire"] and call(server, "new") == -32602


@pytest.mark.parametrize(
    "change, complaint",
    [
        ({"fixed": {"regoin": "EU"}}, "'crm_search' has no argument 'regoin'; did you mean 'region'"),
        ({"hidden": ["zzz"]}, "'crm_search' has no argument 'zzz'; it has 'query', 'region', 'limit', 'debug'"),
        ({"hidden": ["query"]}, "'crm_search' needs the argument 'query', which is hidden and has no default"),
    ],
)
def test_a_change_that_does_not_fit_its_tool_hides_it(change, complaint, caplog):
    server = showing({"tools": {"crm_search": {"name": "find", **change}}})
    for _ in range(2):
        assert names(server) == ["crm_delete", "hr_pay", "own"]
        assert call(server, "find", query="a") == call(server, "crm_search", query="a") == -32602
    assert caplog.text.count(complaint) == 1


def test_a_hidden_argument_that_is_required_keeps_its_default_and_a_fixed_one_needs_none():
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer", "default": 7}, "b": {"type": "integer"}, "c": {"type": "integer"}},
        "required": ["a", "b", "c"],
    }
    registry = Registry()
    registry.add("tools", "t", make_tool(lambda **values: str(sorted(values.items())), "t", input_schema=schema))
    server = showing({"tools": {"t": {"hidden": ["a", "b"], "fixed": {"b": 2}}}}, registry)
    assert result(server, "tools/list")["tools"][0]["inputSchema"]["required"] == ["c"]
    assert call(server, "t", c=3) == "[('a', 7), ('b', 2), ('c', 3)]"


def test_headers_mirror_what_is_left_of_the_arguments():
    schema = {
        "type": "object",
        "properties": {name: {"type": "string", "x-mcp-header": name} for name in ("region", "query", "name")},
    }
    registry = Registry()
    registry.add("tools", "t", make_tool(lambda **values: str(sorted(values.items())), "t", input_schema=schema))
    server = showing({"tools": {"t": {"name": "u", "fixed": {"region": "EU"}}}, "search": True}, registry)
    message = modern("tools/call", name="u", arguments={"query": "x"})
    indirect = modern("tools/call", name="call_tool", arguments={"name": "u", "arguments": {"query": "x"}})
    with embedded(server.wsgi) as served:
        url = served.url + "/mcp"
        status, reply = post(url, message, Mcp_Param_query="x")
        assert reply["result"]["content"][0]["text"] == "[('query', 'x'), ('region', 'EU')]" and status == 200
        assert post(url, message)[1]["error"]["code"] == -32020
        assert post(url, message, Mcp_Param_query="x", Mcp_Param_region="of something else")[0] == 200
        status, reply = post(url, indirect)
        assert reply["result"]["content"][0]["text"] == "[('query', 'x'), ('region', 'EU')]"
        assert http_headers(indirect)["Mcp-Name"] == "call_tool"


# Rules


def test_rules_decide_about_the_tool_that_is_behind_a_name_and_about_fixed_arguments():
    rules = Rules(
        {"allow": "tools:crm_search", "principals": "ann", "arguments": {"region": "EU"}},
        {"allow": "tools:find", "principals": "eve"},
        {"allow": "tools:crm_search", "principals": "bob", "servers": "crm"},
        {"deny": "tools:crm_search", "principals": "bob", "arguments": {"region": "EU"}},
    )
    server = showing({"tools": {"crm_search": CHANGE}}, policy=rules)

    def said(who):
        reply = server.handle(modern("tools/call", name="find", arguments={"query": "q"}), principal=who)
        return reply["result"]["content"][0]["text"] if "result" in reply else reply["error"]["code"]

    def listed(who):
        return [tool["name"] for tool in server.handle(modern("tools/list"), principal=who)["result"]["tools"]]

    assert [said(who) for who in ("ann", "eve", "bob", None)] == ["q EU 5 False", -32602, -32602, -32602]
    assert [listed(who) for who in ("ann", "eve", "bob", None)] == [["find"], [], ["find"], []]
    assert server.explain("ann", "find", arguments={"query": "q"}) == {"allowed": True, "reasons": []}
    assert "no rule allows tools:crm_search to Principal('eve')" in server.explain("eve", "find")["reasons"]
    assert "tools:crm_search is denied" in server.explain("bob", "find", arguments={})["reasons"][0]
    assert server.explain("bob", "find")["allowed"], "with some arguments"
    assert server.explain("ann", "crm_search")["reasons"] == ["there is nothing named 'crm_search' among the tools"]


def test_the_rule_of_an_entry_holds_under_another_name():
    registry = Registry()
    registry.add("tools", "t", make_tool(lambda: "x", "t", allow=lambda ctx: ctx.principal == Principal("ann")))
    server = showing({"tools": {"t": {"name": "u"}}}, registry)
    assert "result" in server.handle(modern("tools/call", name="u"), principal="ann")
    assert server.handle(modern("tools/call", name="u"), principal="bob")["error"]["code"] == -32602


def test_what_is_noted_of_a_call_is_the_tool_itself():
    noted = []

    class Noted:
        def __init__(self, outcome):
            noted.append((outcome.name, outcome.ctx.params.get("arguments")))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    server = showing({"tools": {"crm_search": CHANGE}, "search": True}, around_request=Noted)
    assert call(server, "find", query="q") == "q EU 5 False"
    assert call(server, "call_tool", name="find", arguments={"query": "r"}) == "r EU 5 False"
    assert noted == [("crm_search", {"query": "q", "region": "EU"}), ("crm_search", {"query": "r", "region": "EU"})]


# What is wrong with a spec


@pytest.mark.parametrize(
    "spec, words",
    [
        ({"server": ["crm"]}, r"the view has \['server'\]; a view may have"),
        ({"servers": "crm"}, "servers is a list of texts"),
        ({"allow": ["crm_*"]}, "'crm_\\*', which is no pattern such as 'tools:crm_"),
        ({"deny": ["tool:x"]}, "deny has 'tool:x', which is no pattern"),
        ({"allow": ["tools:"]}, "which is no pattern"),
        ({"resources": [5]}, "resources is a list of texts"),
        ({"search": "yes"}, "search is true, false, or from how many tools on, not 'yes'"),
        ({"search": -1}, "search is true, false"),
        ({"search": 2.5}, "search is true, false"),
        ({"tools": {"a": {"nmae": "b"}}}, r"tools.a has \['nmae'\]; a tool may have"),
        ({"tools": {"a": "b"}}, r"tools.a has \['b'\]"),
        ({"tools": {"a": {"name": "b c"}}}, "tools.a: The tool name 'b c' is not 1 to 128"),
        ({"tools": {"a": {"name": "c"}, "b": {"name": "c"}}}, "tools.b: a has the name 'c' as well"),
        ({"tools": {"a": {"name": "b"}, "b": {}}}, "tools.b: a has the name 'b' as well"),
        ({"tools": {"a": {"fixed": ["x"]}}}, "tools.a: fixed is an object"),
        ({"tools": {"a": {"hidden": "x"}}}, "tools.a: hidden is a list"),
        ({"tools": {"a": {"title": 5}}}, "tools.a: title is a text"),
        ({"tools": {"a": {"name": "call_tool"}}, "search": True}, "call_tool is the name of a tool that searches"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(spec, words):
    with pytest.raises(ValueError, match=words):
        View(Registry(), spec, "the view")


# Search mode


def many(registry=None, count=0):
    registry = registry or Registry()
    for name, text in (
        ("calendar_createEvent", "Adds an appointment to somebody's calendar."),
        ("calendar_list", "Lists appointments."),
        ("mail_send", "Sends an e-mail with the text that is given."),
        ("weather", "預報城市的天氣"),
        ("files_read", "Reads a file from the disk."),
    ):
        registry.add("tools", name, make_tool(lambda path="": path, name, description=text))
    for n in range(count):
        registry.add("tools", f"filler_{n}", make_tool(lambda: "x", f"filler_{n}", description="Does a thing."))
    return registry


def found(server, query, principal=None, **more):
    message = modern("tools/call", name="search_tools", arguments={"query": query, **more})
    data = server.handle(message, principal=principal)["result"]["structuredContent"]
    return [tool["name"] for tool in data["tools"]]


def test_the_list_has_three_tools_in_place_of_all_others():
    server = showing({"search": True}, many())
    tools = {tool["name"]: tool for tool in result(server, "tools/list")["tools"]}
    assert list(tools) == ["search_tools", "describe_tool", "call_tool"]
    assert tools["search_tools"]["annotations"]["readOnlyHint"] is True
    assert tools["call_tool"]["inputSchema"]["required"] == ["name"]
    assert failing(server, "tools/list", cursor="x")["code"] == -32602
    assert call(server, "mail_send", path="p") == "p", "and these can still be called"


@pytest.mark.parametrize(
    "query, first",
    [
        ("create calendar event", "calendar_createEvent"),
        ("CREATE event", "calendar_createEvent"),
        ("mail", "mail_send"),
        ("appointments list", "calendar_list"),
        ("append a file on disk", "files_read"),
        ("天氣", "weather"),
        ("path", "calendar_createEvent"),
        ("calend", "calendar_createEvent"),
    ],
)
def test_a_search_finds_by_name_text_and_arguments(query, first):
    server = showing({"search": True}, many(count=200))
    assert found(server, query)[0] == first


def test_a_search_says_how_many_there_are_and_shows_no_more_than_asked_for():
    server = showing({"search": True}, many(count=200))
    assert len(found(server, "thing")) == 10 and len(found(server, "thing", limit=500)) == 50
    assert len(found(server, "thing", limit=-5)) == 1 and found(server, "zebra") == []
    data = result(server, "tools/call", name="search_tools", arguments={"query": "", "limit": 1})["structuredContent"]
    assert (len(data["tools"]), data["found"], data["total"]) == (1, 205, 205)
    registry = Registry()
    registry.add("tools", "long", make_tool(lambda: "x", "long", title="Long", description="word " * 500))
    [shown] = result(
        showing({"search": True}, registry), "tools/call", name="search_tools", arguments={"query": "word"}
    )["structuredContent"]["tools"]
    assert len(shown["description"]) == 303 and shown["title"] == "Long"


def test_from_so_many_tools_on_the_list_is_replaced():
    registry = many()
    server = showing({"search": 6}, registry)
    assert len(names(server)) == 5
    registry.add("tools", "sixth", make_tool(lambda: "x", "sixth"))
    assert names(server) == ["search_tools", "describe_tool", "call_tool"]
    registry.remove("tools", "sixth")
    assert len(names(server)) == 5


def test_only_what_the_caller_may_see_is_found_described_and_called():
    rules = Rules(
        {"allow": "tools:calendar_*", "principals": "ann"},
        {"allow": "tools:mail_send", "principals": "ann", "arguments": {"path": "ok*"}},
    )
    server = showing({"search": True}, many(), policy=rules)
    assert found(server, "", "ann") == ["calendar_createEvent", "calendar_list", "mail_send"]
    assert found(server, "", "bob") == [] and found(server, "weather", "ann") == []

    def said(who, tool, **arguments):
        reply = server.handle(modern("tools/call", name=tool, arguments=arguments), principal=who)
        return reply.get("error", {}).get("code") or reply["result"]["content"][0]["text"]

    assert '"name":"mail_send"' in said("ann", "describe_tool", name="mail_send")
    assert said("bob", "describe_tool", name="mail_send") == (
        "There is no tool 'mail_send'; find one with search_tools"
    )
    assert said("ann", "call_tool", name="mail_send", arguments={"path": "ok 1"}) == "ok 1"
    assert said("ann", "call_tool", name="mail_send", arguments={"path": "no"}) == -32602
    assert said("bob", "call_tool", name="mail_send", arguments={"path": "ok 1"}) == -32602


def test_a_search_sees_the_names_and_schemas_of_the_view():
    server = showing({"servers": ["crm"], "tools": {"crm_search": CHANGE}, "search": True})
    assert found(server, "customer") == ["find"]
    described = result(server, "tools/call", name="describe_tool", arguments={"name": "find"})["structuredContent"]
    assert list(described["inputSchema"]["properties"]) == ["query"]
    assert call(server, "call_tool", name="find", arguments={"query": "q"}) == "q EU 5 False"
    assert '"region" is not a known argument' in call(server, "call_tool", name="find", arguments={"region": "x"})
    for name in ("crm_search", "hr_pay", "call_tool", "nothing"):
        assert call(server, "call_tool", name=name, arguments={"query": "q"}) == -32602
    assert call(server, "crm_delete") == "deleted" and call(server, "call_tool", name="crm_delete") == "deleted"


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({}, '"name" missing'),
        ({"name": 5}, '"name" must be a string'),
        ({"name": "own", "arguments": [1]}, '"arguments" must be'),
        ({"name": "own", "argument": {}}, '"argument" is unknown'),
    ],
)
def test_a_call_that_does_not_say_what_is_told_so(arguments, words):
    said = call(showing({"search": True}), "call_tool", **arguments)
    assert said.startswith("Invalid arguments for call_tool: ") and words in said


def asking():
    registry = Registry()

    def book(city: str, ctx: Context) -> str:
        ctx.progress(1, 2, "half")
        ctx.log("info", "booking")
        answer = ctx.elicit(f"Nights in {city}?", {"nights": int})
        if not answer:
            raise ValueError("declined")
        return f"{city} {answer['nights']}"

    registry.add("tools", "book", make_tool(book, "book"))
    return Server("view", catalog=View(registry, {"search": True, "tools": {"book": {"name": "reserve"}}}), debug=True)


@pytest.mark.parametrize("mode", ["modern", "legacy"])
def test_progress_questions_and_errors_are_those_of_a_direct_call(mode):
    said, questions, action = [], [], "accept"

    def elicit(question):
        questions.append(question.message)
        return {"nights": 2} if action == "accept" else None

    with Client(
        asking(), mode=mode, elicit=elicit, log_level="info", on_log=lambda log: said.append(log["data"])
    ) as client:
        steps = []
        called = {"name": "reserve", "arguments": {"city": "Oslo"}}
        answer = client.call_tool("call_tool", called, progress=lambda step: steps.append(step["progress"]))
        assert answer.text == "Oslo 2" and questions == ["Nights in Oslo?"]
        assert set(steps) == {1} and set(said) == {"booking"}
        action = "decline"
        failed = client.call_tool("call_tool", called)
        assert failed["isError"] and "declined" in failed.text
        with pytest.raises(RemoteError, match="Unknown tool: book"):
            client.call_tool("call_tool", {"name": "book", "arguments": {"city": "Oslo"}})


# Changes


def test_only_changes_that_show_in_a_view_are_told():
    registry = base()
    server = Server("view", catalog=View(registry, {"servers": ["crm"], "allow": ["tools:*", "prompts:*"]}))
    registry._announce = server.engine._announce
    client = Legacy(server)
    registry.update("hr", {"tools": {}})
    registry.update("crm", {"prompts": {}, "resources": {}})
    registry.update("crm", {"tools": {}})
    assert [message["method"] for message in client.sent] == [PROMPTS, TOOLS]
    searching = Server("view", catalog=View(registry, {"search": True}))
    registry._announce = searching.engine._announce
    client = Legacy(searching)
    registry.update("crm", {"tools": {"crm_search": make_tool(crm_search)}})
    registry.update("crm", {"prompts": {"p": make_prompt(lambda: "x", "p")}})
    assert [message["method"] for message in client.sent] == [PROMPTS]


# In a gateway

ENDPOINTS = {
    "finance": {
        "servers": ["crm"],
        "allow": ["tools:*"],
        "tools": {"crm_search": CHANGE},
        "search": False,
    },
    "find": {"search": True, "tools": {"crm_search": {"name": "look_up", "fixed": {"region": "EU"}}}},
    "shut": {"servers": []},
    "all": {},
}


def behind():
    server = Server("crm")

    @server.tool
    def search(query: str, ctx: Context, region: str = "US", limit: int = 5, debug: bool = False) -> str:
        """Search customers by name."""
        ctx.progress(1)
        answer = ctx.elicit("Sure?", {"sure": bool})
        return f"{query} {region} {limit} {debug} {bool(answer and answer['sure'])}"

    server.tool(lambda: "deleted", "delete")
    server.prompt(lambda: "x", "mail")
    return server


@pytest.mark.parametrize("mode", ["modern", "legacy"])
def test_endpoints_of_a_gateway_are_views(mode):
    steps = []
    with gateway_of(behind(), gateway={"endpoints": ENDPOINTS}) as gateway:

        def client(name):
            return Client(gateway.endpoints[name], mode=mode, elicit=lambda question: {"sure": True})

        with client("finance") as finance:
            assert [tool["name"] for tool in finance.list_tools()] == ["find", "crm_delete"]
            found = finance.call_tool("find", {"query": "q"}, progress=lambda step: steps.append(step["progress"]))
            assert found.text == "q EU 5 False True" and set(steps) == {1}
            assert '"limit" is not a known argument' in finance.call_tool("find", {"query": "q", "limit": 1}).text
            with pytest.raises(RemoteError, match="Unknown tool: crm_search"):
                finance.call_tool("crm_search", query="q")
        with client("find") as find:
            assert [tool["name"] for tool in find.list_tools()] == ["search_tools", "describe_tool", "call_tool"]
            assert [tool["name"] for tool in find.call_tool("search_tools", query="customers").data["tools"]] == [
                "look_up"
            ]
            called = {"name": "look_up", "arguments": {"query": "q", "debug": True}}
            assert find.call_tool("call_tool", called).text == "q EU 5 True True"
        with client("shut") as shut, client("all") as whole:
            assert shut.list_tools() == [] and shut.list_prompts() == []
            assert [tool["name"] for tool in whole.list_tools()] == ["crm_search", "crm_delete"]


def test_an_endpoint_is_served_below_its_name_and_rules_are_the_gateways():
    rules = [{"allow": "tools:crm_search", "arguments": {"region": "EU"}}]
    with gateway_of(behind(), gateway={"endpoints": ENDPOINTS, "rules": rules}) as gateway, served(gateway) as url:
        with Client(url.replace("/mcp", "/finance/mcp"), elicit=lambda question: {"sure": False}) as finance:
            assert [tool["name"] for tool in finance.list_tools()] == ["find"]
            assert finance.call_tool("find", query="q").text == "q EU 5 False False"
        with Client(url.replace("/mcp", "/all/mcp"), elicit=lambda question: {"sure": False}) as whole:
            with pytest.raises(RemoteError, match="Unknown tool"):
                whole.call_tool("crm_search", query="q")
