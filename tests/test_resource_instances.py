"""Resources of a template in the list of resources: `list=`."""

from __future__ import annotations

import pytest

from minimcp import Client, Context, Principal, Server
from minimcp.auth import Rules
from tests.helpers import modern, problem, result


def notes(server, listed, **options):
    server.resource("note://{id}", mime_type="text/plain", list=listed, **options)(lambda id: f"note {id}")


def nothing() -> list:
    return []


def listed(server, **params):
    return [item["uri"] for item in result(server, "resources/list", **params)["resources"]]


def test_what_a_template_has_is_listed_at_its_place():
    server = Server("s")
    server.resource("a://b", name="b")(lambda: "")
    notes(server, lambda: ["note://1", {"uri": "note://2", "name": "Two", "size": 3}], name="note")
    server.resource("c://d", name="d")(lambda: "")
    assert result(server, "resources/list")["resources"] == [
        {"uri": "a://b", "name": "b"},
        {"uri": "note://1", "name": "1", "mimeType": "text/plain"},
        {"uri": "note://2", "name": "Two", "mimeType": "text/plain", "size": 3},
        {"uri": "c://d", "name": "d"},
    ]
    with Client(server) as client:
        assert [client.read_resource(item["uri"]).text for item in client.list_resources()[1:3]] == ["note 1", "note 2"]
        assert [item["uriTemplate"] for item in client.list_resource_templates()] == ["note://{id}"]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 50])
def test_pages_go_through_what_templates_list(size):
    server = Server("s", page_size=size)
    server.resource("a://b")(lambda: "")
    notes(server, lambda: [f"note://{number}" for number in range(4)])
    server.resource("x://{y}", list=nothing)(lambda y: y)
    server.resource("note://2")(lambda: "its own")
    server.resource("z://z")(lambda: "")
    with Client(server) as client:
        assert [item["uri"] for item in client.list_resources()] == [
            "a://b",
            "note://0",
            "note://1",
            "note://3",
            "note://2",
            "z://z",
        ]


def test_a_cursor_that_was_not_given_out_is_refused():
    server = Server("s")
    notes(server, nothing)
    for cursor in ("x", "WyJyZXNvdXJjZXMiLCAxLCAiYSJd", "WyJyZXNvdXJjZXMiLCAxLCAyLCAzXQ==", "WyJ0b29scyIsIDEsIDJd"):
        assert problem(server, "resources/list", cursor=cursor)["code"] == -32602


def test_the_function_may_ask_who_is_calling_and_its_list_is_then_private():
    server = Server("s", cache_scope="public")

    def of_the_caller(ctx: Context) -> list:
        return [f"note://{ctx.principal.id}"] if ctx.principal else []

    notes(server, of_the_caller)
    reply = server.handle(modern("resources/list"), principal=Principal("ada"))["result"]
    assert [item["uri"] for item in reply["resources"]] == ["note://ada"] and reply["cacheScope"] == "private"
    assert listed(server) == []


def test_rules_about_a_uri_hold_in_the_list_too():
    rules = Rules({"allow": "*:*"}, {"deny": "resources:note://secret*"})
    server = Server("s", policy=rules)
    notes(server, lambda: ["note://1", "note://secret1"])
    assert listed(server) == ["note://1"]
    server = Server("s")
    notes(server, lambda: ["note://1"], allow=lambda ctx: ctx.principal is not None)
    assert listed(server) == []


def test_a_mounted_server_lists_what_its_template_has():
    inner, outer = Server("inner"), Server("outer")
    notes(inner, lambda: ["note://1"])
    outer.mount("team", inner)
    with Client(outer) as client:
        (item,) = client.list_resources()
        assert item["uri"] == "team+note://1" and client.read_resource(item["uri"]).text == "note 1"


def test_clients_are_told_that_there_are_others_now():
    server, there = Server("s"), ["note://1"]
    notes(server, lambda: there)
    with Client(server) as client, client.listen(resources=True) as changes:
        assert [item["uri"] for item in client.list_resources()] == ["note://1"]
        there.append("note://2")
        server.changed("resources")
        assert next(changes)["method"] == "notifications/resources/list_changed"
        assert len(client.list_resources()) == 2


@pytest.mark.parametrize(
    ("returned", "text"),
    [
        (
            lambda: ["other://1"],
            "Internal error: ValueError: list= of 'note://{id}' returned 'other://1', which does not fit the template",
        ),
        (
            lambda: [1],
            "Internal error: TypeError: list= of 'note://{id}' returns URIs, or dicts with a uri, not 1",
        ),
        (
            lambda: [{"name": "x"}],
            "Internal error: TypeError: list= of 'note://{id}' returns URIs, or dicts with a uri, not {'name': 'x'}",
        ),
    ],
)
def test_what_is_no_resource_of_the_template_is_told_as_such(returned, text):
    server = Server("s", debug=True)
    notes(server, returned)
    assert problem(server, "resources/list")["message"] == text


def note(id: str) -> str:
    return id


def wants(id: str) -> list:
    return [id]


@pytest.mark.parametrize(
    ("uri", "listed", "text"),
    [
        ("a://b", nothing, "'a://b' has no variables: list= is for a template, such as note://{id}"),
        ("note://{id}", ["note://1"], "list= is a function that returns URIs of 'note://{id}', not ['note://1']"),
        ("note://{id}", wants, "list= is called without arguments, or with ctx: Context; wants() needs id"),
    ],
)
def test_a_list_that_cannot_be_asked_for_is_refused(uri, listed, text):
    with pytest.raises((TypeError, ValueError)) as caught:
        Server("s").resource(uri, list=listed)(note if "{" in uri else lambda: "")
    assert str(caught.value) == text
