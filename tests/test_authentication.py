"""Who calls: principals, the function that finds them, and what they bind."""

from __future__ import annotations

import json
import logging
import pickle
from typing import Any

import pytest
from werkzeug.test import Client

from minimcp import Context, McpError, Principal, Server, Unauthorized
from minimcp.auth import AuthRequest
from minimcp.protocol.errors import Forbidden, MissingCapability
from minimcp.transports.origin import Refused
from tests.helpers import BOTH, http_headers, modern

CHALLENGE = 'Bearer resource_metadata="https://a.example/.well-known/oauth-protected-resource/mcp"'
PING: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


def token(request: AuthRequest) -> Principal | str | None:
    """Read `Bearer <user>`; `Bearer broken` breaks the function, and no token is refused."""
    user = request.token
    if request.header("X-Nobody"):
        return None
    if request.scheme != "bearer":
        raise Unauthorized("A token is needed", CHALLENGE)
    if user == "broken":
        raise RuntimeError("secret text")
    if user == "far":
        return Principal("ann", "https://b.example")
    if user == "5":
        return 5  # type: ignore[return-value]
    return Principal(user, scopes=["read"], claims={"email": "x"}) if user == "ann" else user or None


@pytest.fixture
def server() -> Server:
    server = Server("s", auth=[token, "public"], secret="x" * 16)

    @server.tool
    def who(ctx: Context) -> dict:
        found = ctx.principal
        return {"id": found.id, "scopes": found.scopes} if found else {}

    @server.tool
    def ask(ctx: Context) -> dict:
        return ctx.elicit("Sure?", {"sure": bool})

    return server


class NoBody:
    def read(self, size: int = -1) -> bytes:
        raise AssertionError("the body was read")


@pytest.mark.parametrize(
    "method, path, status",
    [
        ("POST", "/mcp", 401),
        ("GET", "/mcp", 401),
        ("DELETE", "/mcp", 401),
        ("GET", "/sse", 401),
        ("POST", "/messages", 401),
        ("PUT", "/mcp", 405),
        ("POST", "/elsewhere", 404),
        ("OPTIONS", "/mcp", 204),
    ],
)
def test_nobody_unknown_gets_a_body_read(server: Server, method: str, path: str, status: int) -> None:
    answers: list[Any] = []
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "999999999",
        "HTTP_ACCEPT": "text/html",
        "HTTP_MCP_SESSION_ID": "x",
        "HTTP_HOST": "localhost",
        "HTTP_ORIGIN": "http://localhost",
        "wsgi.input": NoBody(),
    }
    body = b"".join(server.wsgi(environ, lambda status, headers: answers.extend([status, dict(headers)])))
    assert answers[0].startswith(str(status))
    if status == 401:
        assert answers[0] == "401 Unauthorized" and answers[1]["WWW-Authenticate"] == CHALLENGE
        assert answers[1]["Access-Control-Allow-Origin"] == "http://localhost"
        assert json.loads(body) == {"jsonrpc": "2.0", "error": {"code": -32600, "message": "A token is needed"}}


def test_an_unauthenticated_request_with_broken_json_is_refused_for_its_caller(server: Server) -> None:
    client = Client(server.wsgi)
    headers = {"Content-Type": "application/json", "Accept": BOTH}
    assert client.post("/mcp", data=b"{", headers=headers).status_code == 401
    known = client.post("/mcp", data=b"{", headers={**headers, "Authorization": "Bearer ann"})
    assert known.status_code == 400 and known.json["error"]["code"] == -32700
    # A page that may not call is told nothing about tokens.
    foreign = client.post("/mcp", data=b"{", headers={**headers, "Origin": "https://evil.example"})
    assert foreign.status_code == 403 and "WWW-Authenticate" not in foreign.headers


def call(server: Server, message: Any, user: str) -> Any:
    return Client(server.wsgi).post(
        "/mcp",
        data=json.dumps(message),
        headers=http_headers(message, **({"Authorization": f"Bearer {user}"} if user else {"X-Nobody": "1"})),
    )


def test_a_string_is_a_principal(server: Server) -> None:
    message = modern("tools/call", name="who")
    found = [call(server, message, user).json["result"]["structuredContent"] for user in ("ann", "bob")]
    assert found == [{"id": "ann", "scopes": ["read"]}, {"id": "bob", "scopes": []}]


def test_a_function_that_fails_is_a_503_for_the_client_and_a_traceback_for_the_log(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "minimcp"):
        response = call(server, modern("tools/list"), "broken")
    assert response.status_code == 503 and response.headers["Retry-After"] == "5"
    assert "Traceback" not in response.text and "secret text" not in response.text
    assert response.json == {
        "jsonrpc": "2.0",
        "error": {"code": -32603, "message": "The caller could not be verified; try again later"},
    }
    assert "secret text" in caplog.text
    assert call(server, modern("tools/list"), "5").status_code == 503


def test_a_refusal_of_another_kind_has_its_own_status() -> None:
    def busy(request: AuthRequest) -> Any:
        problem = McpError("Too many tries", code=-1)
        problem.http = (429, [("Retry-After", "7")])
        raise problem

    response = call(Server("s", auth=busy), modern("tools/list"), "ann")
    assert (response.status, response.headers["Retry-After"]) == ("429 Too Many Requests", "7")
    assert response.json["error"]["code"] == -1


@pytest.mark.parametrize("name", ["plain", "talks"])
def test_an_error_of_a_handler_may_carry_its_status_and_a_challenge(server: Server, name: str) -> None:
    challenge = 'Bearer error="insufficient_scope", scope="write"'

    def refuse() -> None:
        problem = McpError("The scope write is needed", code=-32600)
        problem.http = (403, [("WWW-Authenticate", challenge)])
        raise problem

    server.tool(lambda: refuse(), "plain")

    @server.tool
    def talks(ctx: Context) -> None:
        refuse()

    response = call(server, modern("tools/call", name=name), "ann")
    assert response.status_code == 403 and response.headers["WWW-Authenticate"] == challenge
    assert response.json["id"] == 1 and response.json["error"]["code"] == -32600


def test_a_question_belongs_to_the_key_of_its_caller(server: Server) -> None:
    message = modern("tools/call", capabilities={"elicitation": {}}, name="ask")
    state = call(server, message, "ann").json["result"]["requestState"]
    message["params"].update(requestState=state, inputResponses={"q1": {"action": "accept", "content": {"sure": True}}})
    for user in ("bob", "far", ""):
        assert call(server, message, user).json["error"]["code"] == -32602
    assert call(server, message, "ann").json["result"]["structuredContent"] == {"sure": True}


def test_a_session_belongs_to_the_key_of_its_caller_also_where_it_is_restored(server: Server) -> None:
    client = Client(server.wsgi)
    headers = {"Content-Type": "application/json", "Accept": BOTH, "Authorization": "Bearer ann"}
    params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    headers["Mcp-Session-Id"] = client.post("/mcp", data=json.dumps(message), headers=headers).headers["Mcp-Session-Id"]
    elsewhere = Client(Server("s", auth=[token, "public"], secret="x" * 16).wsgi)
    for each in (client, elsewhere):
        for user, status in (("bob", 404), ("far", 404), ("", 404), ("ann", 200)):
            headers = {name: value for name, value in headers.items() if name not in ("Authorization", "X-Nobody")}
            headers.update({"Authorization": f"Bearer {user}"} if user else {"X-Nobody": "1"})
            assert each.post("/mcp", data=json.dumps(PING), headers=headers).status_code == status
    # Whoever holds the id can read it.
    assert "ann" not in json.dumps(server.engine.sealer.unseal("session", headers["Mcp-Session-Id"]))


def test_principals_are_compared_by_issuer_and_id_and_never_change() -> None:
    ann = Principal("ann", "https://a.example", ["read"], ["staff"], {"email": "x"}, via="app")
    assert ann.key == ("https://a.example", "ann")
    assert ann == Principal("ann", "https://a.example") and hash(ann) == hash(Principal("ann", "https://a.example"))
    assert ann not in (Principal("ann"), Principal("bob", "https://a.example"), "ann", None)
    assert (ann.scopes, ann.roles, ann.claims["email"], ann.via) == (("read",), ("staff",), "x", "app")
    copied = pickle.loads(pickle.dumps(ann))
    assert copied == ann and copied.claims == ann.claims
    for nobody in ("", None, 5):
        with pytest.raises(ValueError, match="has an id"):
            Principal(nobody)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        ann.id = "bob"  # type: ignore[misc]
    with pytest.raises(TypeError):
        ann.claims["email"] = "y"  # type: ignore[index]
    assert "x" not in repr(ann).replace("example", "")


def test_errors_are_copied_whole() -> None:
    errors = [
        Unauthorized("who?", CHALLENGE, {"a": 1}),
        Forbidden("no", "Bearer error=insufficient_scope"),
        MissingCapability("needed", {"sampling": {}}),
        McpError("m", [1], -5),
        Refused(503, "later", ("Retry-After", "1")),
    ]
    for error in errors:
        copied = pickle.loads(pickle.dumps(error))
        assert type(copied) is type(error) and str(copied) == str(error)
        assert (vars(copied), copied.code, copied.http) == (vars(error), error.code, error.http)
