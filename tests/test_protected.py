"""A protected server: verifiers in order, challenges to the letter, metadata, and the rule beyond loopback."""

from __future__ import annotations

import json
from typing import Any

import pytest
from werkzeug.test import Client

from minimcp import Context, Principal, Server, Unauthorized
from minimcp.auth import AuthRequest
from tests.helpers import http_headers, modern

LIST = modern("tools/list")


class Tokens:
    """Knows one user's token; `bad` is refused, and what else there is belongs to others."""

    scopes = ("mcp",)
    issuers = ("https://login.example",)

    def __init__(self, user: str = "ann", scopes: tuple[str, ...] = ("mcp",)) -> None:
        self.user = user
        self.granted = scopes

    def verify(self, request: AuthRequest) -> Any:
        if request.token == "bad":
            raise Unauthorized("The token has expired")
        return Principal(self.user, scopes=self.granted) if request.token == self.user else None


def key(request: AuthRequest) -> Any:
    return request.header("X-API-Key")


def post(server: Server, base: str = "http://localhost", environ: Any = None, **headers: str) -> Any:
    return Client(server.wsgi).post(
        "/mcp", base, data=json.dumps(LIST), headers=http_headers(LIST, **headers), environ_base=environ or {}
    )


def test_the_first_verifier_that_knows_the_caller_decides() -> None:
    server, seen = Server("s", auth=[Tokens("ann"), key, Tokens("bob")]), []

    @server.tool
    def who(ctx: Context) -> str:
        seen.append(ctx.principal)
        return "x"

    message = modern("tools/call", name="who")
    for headers in ({"Authorization": "Bearer ann"}, {"X-API-Key": "carl"}, {"Authorization": "bearer bob"}):
        answer = Client(server.wsgi).post("/mcp", data=json.dumps(message), headers=http_headers(message, **headers))
        assert answer.status_code == 200
    assert [principal.id for principal in seen] == ["ann", "carl", "bob"]


@pytest.mark.parametrize(
    "headers, status, params",
    [
        ({}, 401, ""),
        ({"Authorization": "Bearer bad"}, 401, 'error="invalid_token", error_description="The token has expired", '),
        (
            {"Authorization": "Bearer unknown"},
            401,
            'error="invalid_token", error_description="The credential is not valid here", ',
        ),
        ({"Authorization": "Bearer poor"}, 403, 'error="insufficient_scope", '),
    ],
)
def test_challenges_to_the_letter(headers: dict[str, str], status: int, params: str) -> None:
    server = Server("s", auth=[Tokens(), Tokens("poor", scopes=())])
    answer = post(server, **headers)
    assert answer.status_code == status
    metadata = "http://localhost/.well-known/oauth-protected-resource/mcp"
    assert answer.headers["WWW-Authenticate"] == f'Bearer {params}scope="mcp", resource_metadata="{metadata}"'
    assert "result" not in answer.json


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        "ann",
        "Bearer  a b",
        "Bearer ann, Bearer bob",
        "Bearer\tann",
        "Bearer a\x00",
        "x" * 9999,
    ],
)
def test_a_malformed_authorization_is_nobody(value: str) -> None:
    environ = {"HTTP_AUTHORIZATION": value}
    assert AuthRequest(environ, "", "").token == ""
    assert post(Server("s", auth=Tokens()), environ=environ).status_code == 401


@pytest.mark.parametrize("place", ["query", "cookie", "body", "X-Authorization"])
def test_a_token_in_another_place_is_none_T131(place: str) -> None:
    message = modern("tools/list", access_token="ann")
    headers = {"cookie": {"Cookie": "access_token=ann"}, "X-Authorization": {"X-Authorization": "Bearer ann"}}
    path = "/mcp?access_token=ann" if place == "query" else "/mcp"
    answer = Client(Server("s", auth=Tokens()).wsgi).post(
        path, data=json.dumps(message), headers=http_headers(message, **headers.get(place, {}))
    )
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "public, base, path, resource",
    [
        (None, "http://localhost", "/mcp", "http://localhost/mcp"),
        ("https://tools.example/mcp", "http://tools.example", "/mcp", "https://tools.example/mcp"),
        ("https://tools.example/a/mcp", "http://tools.example", "/a/mcp", "https://tools.example/a/mcp"),
        ("https://tools.example", "http://tools.example", "", "https://tools.example"),
        ("https://tools.example/mcp", "http://tools.example", "", None),
        ("https://tools.example/mcp", "http://tools.example", "/other", None),
    ],
)
def test_the_metadata_is_where_rfc_9728_has_it(public: Any, base: str, path: str, resource: Any) -> None:
    server = Server("s", auth=Tokens(), public_url=public)
    answer = Client(server.wsgi).get("/.well-known/oauth-protected-resource" + path, base)
    if resource is None:
        assert answer.status_code == 404
    else:
        assert answer.json == {
            "resource": resource,
            "authorization_servers": ["https://login.example"],
            "bearer_methods_supported": ["header"],
            "scopes_supported": ["mcp"],
        }


def test_an_authors_own_well_known_route_is_served_beside_the_metadata() -> None:
    server = Server("s", auth=Tokens())
    server.route("/.well-known/own", lambda environ: (200, [("Content-Type", "text/plain")], [b"own"]))
    client = Client(server.wsgi)
    assert client.get("/.well-known/own").data == b"own"
    assert client.get("/.well-known/oauth-protected-resource/mcp").status_code == 200
    assert client.get("/.well-known/other").status_code == 404
    assert client.post("/.well-known/oauth-protected-resource/mcp").status_code == 404


def test_forwarded_headers_count_from_a_trusted_proxy_alone() -> None:
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example, tools.example"}
    forwarded["X-Forwarded-Prefix"] = "/a"
    server = Server("s", auth=Tokens(), trusted_proxy="10.0.0.0/8")
    for address, origin in (("10.1.2.3", "https://tools.example"), ("192.0.2.1", "http://tools.local")):
        environ = {"REMOTE_ADDR": address}
        challenge = post(server, "http://tools.local", environ, **forwarded).headers["WWW-Authenticate"]
        prefix = "/a" if address.startswith("10.") else ""
        assert f'resource_metadata="{origin}/.well-known/oauth-protected-resource{prefix}/mcp"' in challenge


@pytest.mark.parametrize("accept", ["text/html,application/xhtml+xml", "text/html"])
def test_a_browser_sees_a_short_page_and_nothing_more(accept: str) -> None:
    server = Server("<b>tools</b>", auth=Tokens())
    server.tool(lambda: "x", "secret_tool")
    answer = Client(server.wsgi).get("/mcp", headers={"Accept": accept})
    assert answer.status_code == 200 and answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "&lt;b&gt;tools&lt;/b&gt;" in answer.text and "secret_tool" not in answer.text
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'"
    assert Client(server.wsgi).get("/mcp", headers={"Accept": "text/event-stream"}).status_code == 405


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "tools.example", ""])
def test_an_open_server_is_not_served_beyond_loopback(host: str) -> None:
    with pytest.raises(ValueError, match="does not ask who is calling.*auth="):
        Server("s").run_http(host, 0)


def test_an_open_server_is_served_beyond_loopback_where_its_author_says_so() -> None:
    listening: list[str] = []

    def ready(found: Any) -> None:
        listening.append(found.url)
        found.stop()

    for auth in ("public", Tokens()):
        Server("s", auth=auth).run_http("0.0.0.0", 0, ready=ready)
    assert len(listening) == 2


@pytest.mark.parametrize(
    "options, problem",
    [
        ({"auth": []}, "empty list"),
        ({"auth": 5}, "takes verifiers"),
        ({"auth": "pubic"}, "takes verifiers"),
        ({"auth": key, "public_url": "tools.example"}, "public_url is the http"),
        ({"auth": key, "trusted_proxy": "nginx"}, "does not appear to be an IPv4 or IPv6 network"),
    ],
)
def test_settings_that_protect_nothing_are_refused(options: Any, problem: str) -> None:
    with pytest.raises((ValueError, TypeError), match=problem):
        Server("s", **options)


def test_offline_access_is_asked_for_by_no_server() -> None:
    class Offline(Tokens):
        scopes = ("mcp", "offline_access")

    server = Server("s", auth=Offline())
    assert 'scope="mcp"' in post(server).headers["WWW-Authenticate"]
    metadata = Client(server.wsgi).get("/.well-known/oauth-protected-resource/mcp").json
    assert metadata["scopes_supported"] == ["mcp"]
