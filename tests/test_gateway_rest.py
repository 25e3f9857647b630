"""The tools of a gateway over plain HTTP: arguments in, structured content out, the same rules, and OpenAPI."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from typing import Any

import pytest
from werkzeug.test import Client

from minimcp import Context, Server, ToolError
from minimcp.auth import Keys, Rules
from minimcp.engines.errors import InvalidArguments
from minimcp.engines.schema.validator import Validator, check_schema
from minimcp.gateway.openapi import moved
from minimcp.gateway.rest import install_rest
from minimcp.monitoring.calls import Calls
from minimcp.protocol.errors import InternalError, InvalidParams, McpError
from tests.embedded import Wire, embedded

USERS = {
    "ann": {"key": "key-of-ann-0123456789", "roles": ["admin"]},
    "bob": {"key": "key-of-bob-0123456789", "roles": ["staff"]},
}


def facade(**options: Any) -> Server:
    server = Server("desk", "1.2", instructions="Ask before you act.", **options)

    @server.tool(title="Add numbers")
    def add(a: int, b: int = 0) -> dict[str, int]:
        """Add two numbers."""
        return {"sum": a + b}

    @server.tool
    def say(text: str) -> str:
        if text == "fail":
            raise ToolError("cannot say that")
        return text

    @server.tool
    def slow(ctx: Context, text: str = "x") -> str:
        ctx.progress(1)
        return text

    @server.tool
    def book(ctx: Context) -> str:
        return str(ctx.elicit("How many?", {"nights": int}))

    @server.tool
    def upset(code: int, data: dict[str, Any]) -> str:
        raise McpError("upset", data or None, code)

    add_foreign(server, "a/b c")
    install_rest(server)
    return server


def add_foreign(server: Server, name: str) -> None:
    """Add a tool with a name that only a server of others could have."""
    server.tool(lambda: "x", "foreign")
    entry = server.engine.registry.tools["foreign"]
    server.remove_tool("foreign")
    entry.definition = {**entry.definition, "name": name}
    server.engine.registry.add("tools", name, entry)


def call(server: Server, name: str, arguments: Any = None, **headers: str) -> Any:
    found = {each.replace("_", "-"): value for each, value in headers.items()}
    return Client(server.wsgi).post(f"/tools/{name}", json={} if arguments is None else arguments, headers=found)


def test_arguments_go_in_and_structured_content_comes_out() -> None:
    answer = call(facade(), "add", {"a": 1, "b": 2})
    assert (answer.status_code, answer.data) == (200, b'{"sum":3}')
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store" and answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_result_without_structured_content_comes_whole() -> None:
    server = facade()
    for name in ("say", "slow"):
        answer = call(server, name, {"text": "hi"})
        assert answer.status_code == 200
        assert answer.json == {"content": [{"type": "text", "text": "hi"}]}


def test_names_may_have_any_characters() -> None:
    server = facade()
    assert call(server, "a/b%20c").status_code == call(server, "a%2Fb%20c").status_code == 200
    add_foreign(server, "\u00fc")
    assert call(server, "%C3%BC").status_code == 200


def test_no_body_is_no_arguments() -> None:
    assert Client(facade().wsgi).post("/tools/slow").status_code == 200


@pytest.mark.parametrize(
    "name, arguments, status, code, text",
    [
        ("add", {"a": "x"}, 400, None, 'Invalid arguments for add: "a" must be an integer'),
        ("add", {}, 400, None, "Invalid arguments for add"),
        ("add", {"a": 1, "c": 2}, 400, None, "Invalid arguments for add"),
        ("add", [1, 2], 400, -32600, "The body is a JSON object"),
        ("add", "x", 400, -32600, "The body is a JSON object"),
        ("nothing", {}, 404, -32602, "Unknown tool: nothing"),
        ("say", {"text": "fail"}, 422, None, "cannot say that"),
        ("book", {}, 409, -32021, ""),
        ("upset", {"code": -32602, "data": {}}, 400, -32602, "upset"),
        ("upset", {"code": -32603, "data": {}}, 500, -32603, "upset"),
        ("upset", {"code": -32603, "data": {"retryAfterMs": 1500}}, 503, -32603, "upset"),
        ("upset", {"code": 7, "data": {}}, 500, 7, "upset"),
    ],
)
def test_each_failure_has_its_status(name: str, arguments: Any, status: int, code: Any, text: str) -> None:
    answer = call(facade(), name, arguments)
    assert answer.status_code == status
    error = answer.json["error"]
    assert error.get("code") == code and text in error["message"]
    if status == 503:
        assert answer.headers["Retry-After"] == "2"
    if status == 422:
        assert error["result"] == {"content": [{"type": "text", "text": "cannot say that"}], "isError": True}


@pytest.mark.parametrize("data, status", [({"server": "alpha"}, 502), ({"timedOut": True}, 504)])
def test_a_failure_of_a_server_behind_the_gateway_is_its_own(data: Any, status: int) -> None:
    server = facade()
    server.engine.registry.tools["upset"].origin = "alpha"
    answer = call(server, "upset", {"code": -32603, "data": data})
    assert answer.status_code == status and answer.json["error"]["data"] == data


def test_a_question_is_answered_with_what_was_asked() -> None:
    server = facade()

    class Asks:
        def ask(self, ctx: Any, questions: Any, named: bool) -> Any:
            from minimcp.protocol.errors import InputRequired

            raise InputRequired(questions, "state")

        def key(self) -> str:
            return "k"

    server.engine.strategy = lambda ctx, entry: Asks()
    answer = call(server, "book")
    assert answer.status_code == 409
    assert answer.json["error"]["data"]["inputRequests"]["q1"]["method"] == "elicitation/create"
    assert "state" not in answer.text


def test_another_hooks_refusal_keeps_its_status_and_headers() -> None:
    @contextmanager
    def full(outcome: Any) -> Any:
        problem = InternalError("Too many requests", {"retryAfterMs": 3000})
        problem.http = (429, [("Retry-After", "3")])
        raise problem
        yield

    answer = call(facade(around_request=full), "add", {"a": 1})
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "3")
    assert answer.json["error"]["data"] == {"retryAfterMs": 3000}


# The same rules as at the endpoint


def ruled(**options: Any) -> Server:
    rules = Rules({"allow": "*:*", "roles": ["admin"]}, {"allow": "tools:add", "arguments": {"a": "1"}})
    return facade(auth=Keys(USERS), policy=rules, **options)


def test_callers_are_who_they_are_at_the_endpoint() -> None:
    calls = Calls()
    server = ruled(around_request=calls)
    answer = call(server, "add", {"a": 1})
    assert answer.status_code == 401 and answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert answer.json["error"]["message"] == "Authentication is required"
    bob, ann = ({"Authorization": f"Bearer {USERS[name]['key']}"} for name in ("bob", "ann"))
    assert call(server, "add", {"a": 1}, **bob).json == {"sum": 1}
    hidden, unknown = call(server, "say", {"text": "x"}, **bob), call(server, "nay", {"text": "x"}, **bob)
    assert hidden.status_code == unknown.status_code == 404
    # What is hidden looks like what is not there.
    assert hidden.data.replace(b"say", b"nay") == unknown.data
    assert call(server, "add", {"a": 2}, **bob).status_code == 404
    assert call(server, "say", {"text": "x"}, **ann).status_code == 200
    found = [(each.principal, each.method, each.name, each.outcome) for each in reversed(calls.recent())]
    assert found == [
        (("", "bob"), "tools/call", "add", "ok"),
        (("", "bob"), "tools/call", "say", "denied"),
        (("", "bob"), "tools/call", "nay", "error -32602"),
        (("", "bob"), "tools/call", "add", "denied"),
        (("", "ann"), "tools/call", "say", "ok"),
    ]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Host": "evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_pages_of_other_origins_are_refused(headers: dict[str, str]) -> None:
    server = facade()
    ran = []
    server.tool(lambda: ran.append(1) or "x", "mark")
    assert call(server, "mark", **headers).status_code == 403 and not ran
    assert Client(server.wsgi).get("/openapi.json", headers=headers).status_code == 403


def test_bodies_have_the_limits_of_the_endpoint() -> None:
    server = facade(limits={"body_bytes": 100, "depth": 5})
    app = Client(server.wsgi)
    assert call(server, "say", {"text": "x" * 200}).status_code == 413
    assert app.post("/tools/say", data="text=x", content_type="text/plain").status_code == 415
    assert app.post("/tools/say", data="{", content_type="application/json").status_code == 400
    assert call(server, "say", {"text": [[[[[[]]]]]]}).status_code == 400
    answer = app.get("/tools/say")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


def test_a_caller_that_goes_away_cancels_the_call() -> None:
    server = facade()
    began, ended = threading.Event(), threading.Event()

    @server.tool
    def wait(ctx: Context) -> str:
        began.set()
        if ctx.cancelled.wait(20):
            ended.set()
        return "x"

    with embedded(server.wsgi) as listening:
        with Wire(listening) as wire:
            wire.send(b"POST /tools/wait HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
            assert began.wait(20)
        assert ended.wait(20)


def test_a_server_keeps_its_own_path() -> None:
    server = Server("s")
    server.tool(lambda: "x", "plain")
    install_rest(server, "/api")
    app = Client(server.wsgi)
    assert app.post("/api/tools/plain").status_code == 200 and app.post("/tools/plain").status_code == 404
    assert app.get("/api/openapi.json").json["servers"] == [{"url": "/api"}]


# OpenAPI


def described(server: Server, **headers: str) -> Any:
    answer = Client(server.wsgi).get("/openapi.json", headers=headers)
    assert answer.status_code == 200
    return answer.json


def test_the_document_has_one_operation_for_each_tool() -> None:
    found = described(facade(page_size=2))
    assert found["openapi"] == "3.1.0"
    assert found["info"] == {"title": "desk", "version": "1.2", "description": "Ask before you act."}
    assert list(found["paths"]) == [
        *("/tools/add", "/tools/say", "/tools/slow", "/tools/book", "/tools/upset", "/tools/a%2Fb%20c")
    ]
    add = found["paths"]["/tools/add"]["post"]
    assert (add["operationId"], add["summary"], add["description"]) == ("add", "Add numbers", "Add two numbers.")
    asked = add["requestBody"]["content"]["application/json"]["schema"]
    assert asked == {"$ref": "#/components/schemas/add.input"}
    schemas = found["components"]["schemas"]
    assert schemas["add.input"]["required"] == ["a"]
    assert add["responses"]["200"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/add.output"
    }
    assert schemas["add.output"]["additionalProperties"] == {"type": "integer"}
    assert found["paths"]["/tools/slow"]["post"]["responses"]["200"]["content"]["application/json"]["schema"] == {}
    for status, name in (("4XX", "Refused"), ("5XX", "Failed")):
        assert add["responses"][status] == {"$ref": f"#/components/responses/{name}"}
        said = found["components"]["responses"][name]["content"]["application/json"]["schema"]
        assert said == {"$ref": "#/components/schemas/Error"} and "Error" in schemas
    assert "security" not in found and "servers" not in found
    operations = [each["post"]["operationId"] for each in found["paths"].values()]
    assert len(set(operations)) == len(operations) == 6


def test_the_document_has_what_its_reader_may_see() -> None:
    server = ruled()
    assert Client(server.wsgi).get("/openapi.json").status_code == 401
    found = described(server, Authorization=f"Bearer {USERS['bob']['key']}")
    assert list(found["paths"]) == ["/tools/add"] and sorted(found["components"]["schemas"]) == [
        *("Error", "add.input", "add.output")
    ]
    assert found["security"] == [{"bearer": []}]
    assert found["components"]["securitySchemes"] == {"bearer": {"type": "http", "scheme": "bearer"}}
    assert len(described(server, Authorization=f"Bearer {USERS['ann']['key']}")["paths"]) == 6


def test_a_server_without_tools_has_a_document_too() -> None:
    server = Server("s")
    install_rest(server)
    assert described(server)["paths"] == {}


def test_references_of_a_schema_point_to_where_it_stands() -> None:
    place = "#/components/schemas/t.input"
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://x.example/tree",
        "type": "object",
        "properties": {
            "tree": {"$ref": "#/$defs/node"},
            "self": {"$ref": "#"},
            "$ref": {"type": "string", "default": {"$ref": "#/not/a/reference"}},
            "default": {"$ref": "#"},
            "far": {"description": "far", "$ref": "https://evil.example/schema.json"},
            "own": {"$id": "https://x.example/own", "$ref": "#/$defs/x", "$defs": {"x": {}}},
        },
        "$defs": {
            "node": {"anyOf": [{"type": "null"}, {"items": {"$ref": "#/$defs/node"}}], "enum": [{"$ref": "#/a"}]}
        },
    }
    before = json.dumps(schema)
    found = moved(schema, place)
    assert json.dumps(schema) == before
    assert found == {
        "type": "object",
        "properties": {
            "tree": {"$ref": place + "/$defs/node"},
            "self": {"$ref": place},
            "$ref": {"type": "string", "default": {"$ref": "#/not/a/reference"}},
            "default": {"$ref": place},
            "far": {"description": "far"},
            "own": {"$id": "https://x.example/own", "$ref": "#/$defs/x", "$defs": {"x": {}}},
        },
        "$defs": {
            "node": {"anyOf": [{"type": "null"}, {"items": {"$ref": place + "/$defs/node"}}], "enum": [{"$ref": "#/a"}]}
        },
    }
    assert moved(True, place) == moved(None, place) == {}


def test_the_schemas_of_the_document_judge_as_those_of_the_tools() -> None:
    server = Server("s")

    @server.tool
    def plant(tree: dict[str, Any]) -> str:
        return "x"

    tree = {"type": "object", "properties": {"leaves": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}}
    entry = server.engine.registry.tools["plant"]
    entry.definition = {
        **entry.definition,
        "inputSchema": {"type": "object", "properties": {"tree": {"$ref": "#/$defs/tree"}}, "$defs": {"tree": tree}},
    }
    install_rest(server)
    document = described(server)
    whole = {**document["components"]["schemas"]["plant.input"], "components": document["components"]}
    check_schema(whole)
    validator = Validator(whole)
    validator.check({"tree": {"leaves": [{"leaves": []}]}})
    with pytest.raises(InvalidArguments, match="leaves"):
        validator.check({"tree": {"leaves": [{"leaves": 5}]}})


def test_a_failure_of_the_list_is_one_of_the_document() -> None:
    server = facade()

    def page(*_: Any) -> Any:
        raise InvalidParams("no")

    server.engine.registry.page = page  # type: ignore[method-assign]
    answer = Client(server.wsgi).get("/openapi.json")
    assert answer.status_code == 400 and answer.json["error"]["message"] == "no"
