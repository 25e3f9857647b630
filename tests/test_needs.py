"""Scopes and roles of entries: one rule for seeing and for doing, and why it decides as it does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from werkzeug.test import Client

from minimcp import Client as McpClient
from minimcp import Context, Principal, RemoteError, Server
from minimcp.auth import Keys
from tests.helpers import http_headers, modern

USERS = {
    "ada": {"key": "key-of-ada-0123456789", "roles": ["admin", "staff"], "scopes": ["read", "write"]},
    "bob": {"key": "key-of-bob-0123456789", "roles": ["staff"], "scopes": ["read"]},
    "eve": {"key": "key-of-eve-0123456789"},
}


def protected(**options: Any) -> Server:
    server = Server("s", auth=Keys(USERS), **options)
    server.tool(lambda: "x", "everybodys")
    server.tool(lambda: "x", "readers", scopes=["read"])
    server.tool(lambda: "x", "writers", scopes=["read", "write"])
    server.tool(lambda: "x", "staffs", roles=["staff", "owner"])
    server.tool(lambda: "x", "admins", roles=["admin"], scopes=["write"], allow=lambda ctx: ctx.principal.id == "ada")
    server.resource("doc://writers", scopes=["write"])(lambda: "text")
    server.resource("doc://{name}", roles=["staff"])(lambda name: name)
    server.prompt(lambda topic: topic, "admins_prompt", roles=["admin"])
    server.completion("admins_prompt", "topic")(lambda value, arguments: ["a"])
    return server


def post(server: Server, user: str, method: str, **params: Any) -> Any:
    message = modern(method, **params)
    headers = http_headers(message, **{"X-API-Key": USERS[user]["key"]})
    return Client(server.wsgi).post("/mcp", data=json.dumps(message), headers=headers)


def connected(server: Server, user: str, mode: str = "auto") -> McpClient:
    return McpClient(server.wsgi, headers={"X-API-Key": USERS[user]["key"]}, mode=mode)


@pytest.mark.parametrize("mode", ["modern", "2025-11-25", "2025-03-26"])
def test_lists_hide_what_may_not_be_called(mode: str) -> None:
    server, seen = protected(), {}
    for user in USERS:
        with connected(server, user, mode) as client:
            seen[user] = [tool["name"] for tool in client.list_tools()]
            for name in ("everybodys", "readers", "writers", "staffs", "admins"):
                if name in seen[user]:
                    client.call_tool(name)
                else:
                    with pytest.raises(RemoteError, match=f"Unknown tool: {name}"):
                        client.call_tool(name)
    assert seen == {
        "ada": ["everybodys", "readers", "writers", "staffs", "admins"],
        "bob": ["everybodys", "readers", "staffs"],
        "eve": ["everybodys"],
    }


def test_resources_templates_prompts_and_completion_follow_the_same_rule() -> None:
    server = protected()
    for user, uri, allowed in (
        ("ada", "doc://writers", True),
        ("bob", "doc://writers", False),
        ("bob", "doc://plan", True),
        ("eve", "doc://plan", False),
    ):
        answer = post(server, user, "resources/read", uri=uri).json
        assert ("result" in answer) is allowed
        if not allowed:
            missing = post(server, user, "resources/read", uri="none://x").json["error"]
            assert (answer["error"]["code"], answer["error"]["message"]) == (missing["code"], missing["message"])
    complete = {"ref": {"type": "ref/prompt", "name": "admins_prompt"}, "argument": {"name": "topic", "value": ""}}
    for user, allowed in (("ada", True), ("bob", False)):
        assert (
            "result" in post(server, user, "prompts/get", name="admins_prompt", arguments={"topic": "x"}).json
        ) is allowed
        assert ("result" in post(server, user, "completion/complete", **complete).json) is allowed


def test_what_a_caller_may_not_watch_is_not_watched() -> None:
    server = protected()
    filters = {"resourceSubscriptions": ["doc://writers", "doc://plan"]}
    for user, uris in (("ada", ["doc://writers", "doc://plan"]), ("bob", ["doc://plan"]), ("eve", [])):
        message = modern("subscriptions/listen", notifications=filters)
        headers = http_headers(message, **{"X-API-Key": USERS[user]["key"]})
        response = Client(server.wsgi).post("/mcp", data=json.dumps(message), headers=headers, multithread=True)
        first = next(part for part in response.iter_encoded() if b"data" in part)
        response.close()
        event = json.loads(first.split(b"data: ")[1])
        assert event["params"]["notifications"].get("resourceSubscriptions", []) == uris


def test_lists_that_depend_on_the_caller_are_private() -> None:
    server = protected(cache_scope="public", ttl_ms=1000)
    assert post(server, "bob", "tools/list").json["result"]["cacheScope"] == "private"


def test_a_missing_scope_may_be_asked_for_with_all_that_are_needed() -> None:
    server = protected(on_denied="challenge")
    answer = post(server, "bob", "tools/call", name="writers")
    assert answer.status_code == 403
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope", scope="read write"'
    assert answer.json["error"]["data"] == {"scopes": ["read", "write"]}
    # A further scope would not help here, so that nothing is told.
    for user, name in (("eve", "staffs"), ("bob", "admins"), ("eve", "admins")):
        answer = post(server, user, "tools/call", name=name)
        assert (answer.status_code, answer.json["error"]["message"]) == (400, f"Unknown tool: {name}")
    assert [tool["name"] for tool in post(server, "eve", "tools/list").json["result"]["tools"]] == ["everybodys"]


def test_a_broad_scope_includes_narrower_ones() -> None:
    users = {"ann": {"key": "key-of-ann-0123456789", "scopes": ["all"]}}
    server = Server(
        "s", auth=Keys(users, scopes=("read",)), implied_scopes={"all": ["write"], "write": ["read", "all"]}
    )
    server.tool(lambda: "x", "writers", scopes=["write"])
    with McpClient(server.wsgi, headers={"X-API-Key": users["ann"]["key"]}) as client:
        assert client.call_tool("writers").text == "x"


def test_a_question_is_asked_again_of_somebody_who_may_still_answer() -> None:
    server = protected()
    granted = {"staff"}

    def asks(ctx: Context) -> dict:
        return ctx.elicit("Sure?", {"sure": bool})

    server.tool(asks, "asks", allow=lambda ctx: "staff" in granted)
    message = modern("tools/call", capabilities={"elicitation": {}}, name="asks")
    headers = http_headers(message, **{"X-API-Key": USERS["bob"]["key"]})
    client = Client(server.wsgi)
    state = client.post("/mcp", data=json.dumps(message), headers=headers).json["result"]["requestState"]
    granted.clear()
    message["params"].update(requestState=state, inputResponses={"q1": {"action": "accept", "content": {"sure": True}}})
    answer = client.post("/mcp", data=json.dumps(message), headers=headers).json
    assert answer["error"]["message"] == "Unknown tool: asks"


@pytest.mark.parametrize("option", ["scopes", "roles"])
def test_one_string_is_no_list(option: str) -> None:
    with pytest.raises(TypeError, match=rf"{option}= is a list: write {option}=\['admin'\]"):
        Server("s").tool(lambda: "x", "x", **{option: "admin"})
    with pytest.raises(ValueError, match="on_denied"):
        Server("s", on_denied="show")  # type: ignore[arg-type]


def test_a_server_explains_its_decision() -> None:
    server = protected()
    ada, bob = Principal("ada", scopes=["read", "write"], roles=["admin"]), Principal("bob", roles=["staff"])
    assert server.explain(ada, "admins") == {"allowed": True, "reasons": []}
    assert server.explain(bob, "admins") == {
        "allowed": False,
        "reasons": ["it needs the scopes write", "it needs one of the roles admin"],
    }
    assert server.explain(bob, "none")["reasons"] == ["there is nothing named 'none' among the tools"]
    assert server.explain(None, "doc://plan", "resources")["reasons"] == ["it needs one of the roles staff"]
    assert server.explain(ada, "admins_prompt", "prompts")["allowed"]
