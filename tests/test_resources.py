"""Resources and templates: lists, reading, errors, media types, caching."""

from __future__ import annotations

import json
from typing import Optional

import pytest

from minimcp import McpError, Server
from tests.helpers import Legacy, problem, result


@pytest.fixture
def server():
    server = Server("s", "1")

    @server.resource("config://app", title="App", mime_type="text/plain", size=3, meta={"com.example/x": 1})
    def app() -> str:
        """The configuration."""
        return "a=b"

    @server.resource("db://{table}/{row}")
    def row(table: str, row: int) -> Optional[dict]:
        """A row."""
        return {"table": table, "row": row} if row < 10 else None

    return server


def read(server, uri):
    return result(server, "resources/read", uri=uri)["contents"]


def test_without_resources_there_is_no_capability_and_no_method():
    server = Server("s")
    assert "resources" not in result(server, "server/discover")["capabilities"]
    for method in ("resources/list", "resources/templates/list", "resources/read"):
        assert problem(server, method, uri="x://y")["code"] == -32601
    assert Legacy(server).problem("resources/subscribe", uri="x://y")["code"] == -32601


def test_resources_declare_subscriptions_and_list_changes(server):
    declared = {"listChanged": True, "subscribe": True}
    assert result(server, "server/discover")["capabilities"]["resources"] == declared
    assert Legacy(server).hello["capabilities"]["resources"] == declared


def test_fixed_uris_and_templates_are_two_lists(server):
    assert result(server, "resources/list")["resources"] == [
        {
            "uri": "config://app",
            "name": "app",
            "title": "App",
            "description": "The configuration.",
            "mimeType": "text/plain",
            "size": 3,
            "_meta": {"com.example/x": 1},
        }
    ]
    assert result(server, "resources/templates/list")["resourceTemplates"] == [
        {"uriTemplate": "db://{table}/{row}", "name": "row", "description": "A row."}
    ]
    assert Legacy(server, "2024-11-05").result("resources/list")["resources"][0].keys() == {
        "uri",
        "name",
        "description",
        "mimeType",
        "size",
    }


def test_contents_have_the_uri_that_was_read_and_text_or_blob(server):
    assert read(server, "config://app") == [{"uri": "config://app", "mimeType": "text/plain", "text": "a=b"}]
    assert read(server, "db://books/3") == [
        {"uri": "db://books/3", "mimeType": "application/json", "text": '{"table":"books","row":3}'}
    ]
    server.resource("bin://pics/x.png")(lambda: b"\x00\xff")
    assert read(server, "bin://pics/x.png") == [{"uri": "bin://pics/x.png", "mimeType": "image/png", "blob": "AP8="}]
    server.resource("bin://doc")(lambda: (b"%PDF", "application/pdf"))
    assert read(server, "bin://doc") == [{"uri": "bin://doc", "mimeType": "application/pdf", "blob": "JVBERg=="}]


def test_several_contents_may_come_of_one_uri(server):
    parts = [{"uri": "dir://a/1", "text": "one"}, {"uri": "dir://a/2", "blob": "AA=="}]
    server.resource("dir://a", mime_type="inode/directory")(lambda: parts)
    assert read(server, "dir://a") == parts
    server.resource("dir://empty")(lambda: {"contents": []})
    assert read(server, "dir://empty") == []


@pytest.mark.parametrize(
    "value",
    [
        [{"uri": "spotify:1", "title": "Song"}],
        [{"uri": "a://1", "text": "one"}, {"uri": "a://2"}],
        {"contents": ["ch1"]},
        {"contents": [{"uri": "a://1", "text": 5}]},
        {"contents": [{"uri": "a://1", "text": "x"}], "book": "b"},
        {"uri": 5, "text": "x"},
        {"uri": "a://1", "blob": [1]},
        {"contents": None},
        {"type": ["string"]},
        [],
    ],
)
def test_data_that_resemble_contents_are_data(server, value):
    server.resource("app://data")(lambda: value)
    (item,) = read(server, "app://data")
    assert item["uri"] == "app://data" and item["mimeType"] == "application/json"
    assert json.loads(item["text"]) == value
    assert Legacy(server).result("resources/read", uri="app://data") == {"contents": [item]}


def test_a_whole_read_result_goes_through(server):
    whole = {"contents": [{"uri": "a://1", "text": "x"}], "_meta": {"com.example/x": 1}}
    server.resource("app://whole")(lambda: whole)
    assert Legacy(server).result("resources/read", uri="app://whole") == whole


def test_a_template_has_no_size(server):
    with pytest.raises(ValueError, match="is a template: only a resource with a URI of its own has a size"):
        server.resource("t://{x}", size=5)(lambda x: x)


@pytest.mark.parametrize(
    "registered, asked",
    [
        ("file:///my docs/{name}", "file:///my%20docs/a"),
        ("file:///my%20docs/{name}", "file:///my%20docs/a"),
        ("file:///docs/café/{name}", "file:///docs/caf%C3%A9/a"),
        ("file:///docs/café/{name}", "file:///docs/caf%c3%a9/a"),
        ("file:///docs/caf%c3%a9/{name}", "file:///docs/café/a"),
        ("x://~me/{name}", "x://%7Eme/a"),
    ],
)
def test_equivalent_spellings_name_one_template(server, registered, asked):
    def read_one(name: str) -> str:
        return name

    server.resource(registered)(read_one)
    server.completion(registered, "name")(lambda value, arguments: ["b"])
    assert read(server, asked)[0]["text"] == "a"
    listed = result(server, "resources/templates/list")["resourceTemplates"][-1]["uriTemplate"]
    assert " " not in listed
    completed = result(
        server,
        "completion/complete",
        ref={"type": "ref/resource", "uri": listed},
        argument={"name": "name", "value": ""},
    )
    assert completed["completion"]["values"] == ["b"]
    assert server.remove_resource(registered) is True


def test_equivalent_spellings_name_one_resource(server):
    server.resource("docs://café")(lambda: "x")
    for uri in ("docs://café", "docs://caf%C3%A9", "docs://c%61f%c3%a9"):
        assert read(server, uri) == [{"uri": uri, "mimeType": "text/plain", "text": "x"}]


def test_paths_that_lead_out_are_refused_unless_the_author_allows_them(server):
    server.resource("file://{+path}")(lambda path: path)
    server.resource("any://{+path}", traversal=True)(lambda path: path)
    for path in ("../../etc/passwd", "%2e%2e/etc/passwd", "/etc/passwd", "a%5C..%5Cb"):
        assert problem(server, "resources/read", uri=f"file://{path}")["message"] == "Resource not found"
        assert Legacy(server).problem("resources/read", uri=f"file://{path}")["code"] == -32002
    assert read(server, "any://../%2fetc/passwd")[0]["text"] == "..//etc/passwd"
    assert read(server, "file://etc/passwd")[0]["text"] == "etc/passwd"


@pytest.mark.parametrize("uri", ["config://other", "db://books/77", "no uri", "", "db://books/x/y"])
def test_what_is_not_there_is_an_error_with_the_uri(server, uri):
    error = problem(server, "resources/read", uri=uri)
    assert error == {"code": -32602, "message": "Resource not found", "data": {"uri": uri}}
    error = Legacy(server).problem("resources/read", uri=uri)
    assert error == {"code": -32002, "message": "Resource not found", "data": {"uri": uri}}


def test_a_variable_that_does_not_fit_its_type_is_an_error(server):
    assert problem(server, "resources/read", uri="db://books/seven")["code"] == -32602


@pytest.mark.parametrize("uri", [None, 5, ["config://app"]])
def test_a_uri_is_a_string(server, uri):
    assert problem(server, "resources/read", uri=uri)["code"] == -32602


def test_a_crash_is_an_internal_error_without_its_cause(server, caplog):
    server.resource("bad://x")(lambda: 1 / 0)
    error = problem(server, "resources/read", uri="bad://x")
    assert error["code"] == -32603 and "division" not in error["message"]
    assert "ZeroDivisionError" in caplog.text


def test_a_reader_may_answer_with_its_own_error(server):
    def gone() -> str:
        raise McpError("Gone for good", code=4100)

    server.resource("old://x")(gone)
    assert problem(server, "resources/read", uri="old://x") == {"code": 4100, "message": "Gone for good"}


def test_hidden_resources_look_as_if_they_were_not_there(server):
    server.resource("secret://x", allow=lambda ctx: False)(lambda: "x")
    assert [each["uri"] for each in result(server, "resources/list")["resources"]] == ["config://app"]
    assert problem(server, "resources/read", uri="secret://x") == {
        "code": -32602,
        "message": "Resource not found",
        "data": {"uri": "secret://x"},
    }
    session = Legacy(server)
    assert session.problem("resources/subscribe", uri="secret://x")["code"] == -32002


def test_a_fixed_uri_wins_over_a_template(server):
    server.resource("db://books/1")(lambda: "fixed")
    assert read(server, "db://books/1")[0]["text"] == "fixed"


@pytest.mark.parametrize(
    "uri",
    [
        "no-scheme",
        "1x://y",
        "db://{a}{b}",
        "db://{table}",
        "db://{table}/{row}/{extra}",
        "db://{bad name}",
        "x://{a",
        "",
    ],
)
def test_malformed_uris_and_templates_are_refused_at_registration(server, uri):
    def row(table: str, row: str) -> str:
        return table

    with pytest.raises(ValueError):
        server.resource(uri)(row)


def test_caching_hints_are_the_servers_or_the_resources_own():
    server = Server("s", ttl_ms=1000, cache_scope="public", page_size=1)
    server.resource("a://1", ttl_ms=5)(lambda: "x")
    server.resource("a://2", cache_scope="private")(lambda: "x")
    hints = [
        (found["ttlMs"], found["cacheScope"])
        for found in (
            result(server, "server/discover"),
            result(server, "resources/list"),
            result(server, "resources/list", cursor=result(server, "resources/list")["nextCursor"]),
            result(server, "resources/templates/list"),
            result(server, "resources/read", uri="a://1"),
            result(server, "resources/read", uri="a://2"),
        )
    ]
    assert hints == [(1000, "public")] * 4 + [(5, "public"), (1000, "private")]
    legacy = Legacy(server).result("resources/read", uri="a://1")
    assert legacy.keys() == {"contents"}


def test_what_depends_on_the_caller_is_private_whatever_the_defaults_say():
    server = Server("s", ttl_ms=1000, cache_scope="public", page_size=1)
    server.resource("a://1")(lambda: "x")
    server.resource("a://2", allow=lambda ctx: True, cache_scope="public")(lambda: "x")
    server.tool(lambda: "x", "open")
    server.tool(lambda: "x", "secret", allow=lambda ctx: False)
    server.prompt(lambda: "x", "open")
    second = result(server, "resources/list")["nextCursor"]
    found = {
        "discover": result(server, "server/discover"),
        # The rule belongs to an entry of another page, before or after this one.
        "first page": result(server, "resources/list"),
        "second page": result(server, "resources/list", cursor=second),
        "tools": result(server, "tools/list"),
        "prompts": result(server, "prompts/list"),
        "read": result(server, "resources/read", uri="a://1"),
        "read under a rule": result(server, "resources/read", uri="a://2"),
    }
    assert {name for name, each in found.items() if each["cacheScope"] == "public"} == {"discover", "prompts", "read"}
    assert {each["ttlMs"] for each in found.values()} == {1000}
    server.remove_tool("secret")
    assert result(server, "tools/list")["cacheScope"] == "public"


@pytest.mark.parametrize("hints", [{"ttl_ms": -1}, {"ttl_ms": 1.5}, {"ttl_ms": True}, {"cache_scope": "shared"}])
def test_caching_hints_that_make_no_sense_are_refused(hints):
    with pytest.raises(ValueError):
        Server("s", **hints)
    with pytest.raises(ValueError):
        Server("s").resource("a://1", **hints)(lambda: "x")


def test_list_pages_follow_one_another():
    server = Server("s", page_size=2)
    for n in range(5):
        server.resource(f"a://{n}")(lambda: "x")
    seen, cursor = [], {}
    while True:
        page = result(server, "resources/list", **cursor)
        seen += [each["uri"] for each in page["resources"]]
        if "nextCursor" not in page:
            break
        cursor = {"cursor": page["nextCursor"]}
    assert seen == [f"a://{n}" for n in range(5)]
    for bad in ("", "x", 5, "WyJ0b29scyIsIDFd", "A" * 200):
        assert problem(server, "resources/list", cursor=bad)["code"] == -32602
    # A page whose last item went away meanwhile still has a successor.
    first = result(server, "resources/list")
    server.remove_resource("a://1")
    assert result(server, "resources/list", cursor=first["nextCursor"])["resources"][0]["uri"] == "a://2"


def test_a_description_that_is_given_takes_the_place_of_the_docstring():
    server = Server("s")

    def one() -> str:
        """In the code."""
        return "x"

    def page(name: str) -> str:
        """In the code."""
        return name

    server.resource("a://1", description="Given.")(one)
    server.resource("a://{name}", description="Given.")(page)
    server.tool(one, "one", description="Given.")
    server.prompt(one, "one", description="Given.")
    for method, key in (("resources", "resources"), ("resources/templates", "resourceTemplates")):
        assert [each["description"] for each in result(server, f"{method}/list")[key]] == ["Given."]
    for kind in ("tools", "prompts"):
        assert [each["description"] for each in result(server, f"{kind}/list")[kind]] == ["Given."]


def test_what_has_no_description_has_no_empty_one():
    server = Server("s")
    server.tool(lambda: "x", "tool")
    server.prompt(lambda: "x", "prompt")
    server.resource("a://1", name="resource")(lambda: "x")
    assert "description" not in result(server, "tools/list")["tools"][0]
    assert "description" not in result(server, "prompts/list")["prompts"][0]
    assert "description" not in result(server, "resources/list")["resources"][0]


def test_contents_of_an_unknown_kind_are_plain_text_or_bytes():
    server = Server("s")
    server.resource("a://text")(lambda: "é")
    server.resource("a://bytes")(lambda: b"\xff")
    assert result(server, "resources/read", uri="a://text")["contents"] == [
        {"uri": "a://text", "mimeType": "text/plain", "text": "é"}
    ]
    assert result(server, "resources/read", uri="a://bytes")["contents"] == [
        {"uri": "a://bytes", "mimeType": "application/octet-stream", "blob": "/w=="}
    ]
