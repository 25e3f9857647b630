"""T075 to T087: who is let in, by Origin, Host and media type, before anything is read."""

from __future__ import annotations

from typing import Any

import pytest
import werkzeug.test

from minimcp import Server
from minimcp.transports.origin import OriginCheck
from tests.helpers import http_headers, modern
from tests.hostile.support import Gate, Http, attacked

ECHO = modern("tools/call", 1, name="echo", arguments={"text": "ran"})


def refused(http: Http, gate: Gate, headers: Any, statuses: tuple[int, ...] = (403,)) -> Any:
    """Send the echo and make sure that it did not run."""
    gate.ran.clear()
    reply = http.send(ECHO, headers)
    assert reply.status in statuses
    assert gate.ran == []
    assert reply.header("Access-Control-Allow-Origin") is None
    return reply


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "https://evil.example:8000",
        "null",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "http://evil.example#localhost",
        "http://localhost@evil.example",
        "http://evil.example/localhost",
        "file://",
        "chrome-extension://abcdef",
        "localhost",
        "http://",
        "http://[::1]evil.example",
        "http://127.1",
        "http://2130706433",
        "http://localhost:99999999",
    ],
    ids=lambda origin: f"T075-{origin}",
)
def test_a_page_of_another_origin_is_refused(http: Http, gate: Gate, origin: str) -> None:
    reply = refused(http, gate, {**http_headers(ECHO), "Origin": origin})
    assert reply.code == -32600
    assert "id" not in reply.message


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS", "PUT"], ids=lambda method: f"T075-{method}")
def test_a_page_of_another_origin_is_refused_whatever_its_method(http: Http, method: str) -> None:
    reply = http.send(None, {"Origin": "http://evil.example", "Accept": "text/event-stream"}, method)
    assert reply.status == 403


@pytest.mark.parametrize("joined", [True, False], ids=["T077-joined", "T077-lines"])
@pytest.mark.parametrize("own_first", [True, False], ids=["own-first", "own-last"])
def test_two_origins_are_refused(http: Http, gate: Gate, joined: bool, own_first: bool) -> None:
    origins = [f"http://{http.host}:{http.port}", "http://evil.example"]
    origins = origins if own_first else origins[::-1]
    lines = [("Origin", ", ".join(origins))] if joined else [("Origin", origin) for origin in origins]
    refused(http, gate, [*http_headers(ECHO).items(), *lines], (403, 400))


@pytest.mark.parametrize(
    "origin", [None, "http://{own}", "http://localhost:{port}", "http://[::1]:{port}", "http://localhost:6274"]
)
def test_no_origin_and_the_servers_own_are_served_T078(http: Http, origin: str | None) -> None:
    headers = http_headers(ECHO)
    if origin is not None:
        headers["Origin"] = origin.format(own=f"{http.host}:{http.port}", port=http.port)
    reply = http.send(ECHO, headers)
    assert reply.status == 200
    assert reply.header("Access-Control-Allow-Origin") == headers.get("Origin")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "169.254.169.254",
        "169.254.169.254:80",
        "localhost.evil.example",
        "localhost@evil.example",
        "127.0.0.1.evil.example",
        "localhost, evil.example",
        "[::ffff:127.0.0.1]",
        "127.1",
        "localhost:x",
        "local\x80host",
    ],
    ids=lambda host: f"T079-{host}",
)
def test_a_name_that_was_pointed_at_this_machine_is_refused(http: Http, gate: Gate, host: str) -> None:
    host = host.format(port=http.port)
    refused(http, gate, {**http_headers(ECHO), "Host": host}, (403, 400, 421))


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:{port}", "127.0.0.1", "127.0.1.1:{port}", "[::1]:{port}", "LOCALHOST"]
)
def test_names_of_this_machine_are_served_T079(http: Http, host: str) -> None:
    reply = http.send(ECHO, {**http_headers(ECHO), "Host": host.format(port=http.port)})
    assert reply.status == 200


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"], ids=lambda a: f"T079-{a}")
def test_every_loopback_address_is_a_loopback_connection(address: str) -> None:
    guard = OriginCheck(None, ())
    assert guard.refusal({"REMOTE_ADDR": address, "HTTP_HOST": "evil.example"}) is not None
    assert guard.refusal({"REMOTE_ADDR": address, "HTTP_HOST": "localhost:8000"}) is None


def test_a_host_and_an_origin_that_agree_are_still_foreign_T080(http: Http, gate: Gate) -> None:
    headers = {**http_headers(ECHO), "Host": "evil.example", "Origin": "http://evil.example"}
    refused(http, gate, headers, (403, 400, 421))


@pytest.mark.parametrize(
    "name, value",
    [
        ("X-Forwarded-Host", "localhost"),
        ("Forwarded", "host=localhost;proto=https;for=127.0.0.1"),
        ("X-Host", "localhost"),
        ("X-Original-URL", "/mcp"),
    ],
    ids=lambda value: f"T081-{value}",
)
def test_forwarding_headers_do_not_make_a_foreign_host_a_friend(http: Http, gate: Gate, name: str, value: str) -> None:
    refused(http, gate, {**http_headers(ECHO), "Host": "evil.example", name: value}, (403, 400, 421))


@pytest.mark.parametrize(
    "name, value",
    [
        ("X-Forwarded-Host", "evil.example"),
        ("Forwarded", "host=evil.example"),
        ("X-Original-URL", "/admin"),
        ("X-Rewrite-URL", "/admin"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("X-Method-Override", "GET"),
    ],
    ids=lambda value: f"T081-{value}",
)
def test_forwarding_headers_have_no_effect_on_a_friend(http: Http, name: str, value: str) -> None:
    reply = http.send(ECHO, {**http_headers(ECHO), name: value})
    assert reply.status == 200
    assert b"evil.example" not in reply.body


def test_a_method_override_does_not_turn_get_into_post_T081(http: Http) -> None:
    reply = http.send(None, {**http_headers(ECHO), "X-HTTP-Method-Override": "POST"}, "GET")
    assert reply.status == 405


@pytest.mark.parametrize(
    "kind",
    ["application/json; charset=utf-8", "APPLICATION/JSON", "application/json;charset=UTF-8", "Application/Json ; x=y"],
    ids=lambda kind: f"T083-{kind}",
)
def test_json_is_json_in_any_case_and_with_parameters(http: Http, kind: str) -> None:
    reply = http.send(ECHO, {**http_headers(ECHO), "Content-Type": kind})
    assert reply.status == 200


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/json",
        "",
        "application/jsonx",
    ],
    ids=lambda kind: f"T082-{kind}",
)
def test_another_media_type_is_refused(http: Http, gate: Gate, kind: str) -> None:
    refused(http, gate, {**http_headers(ECHO), "Content-Type": kind}, (415, 400))


def test_a_request_without_a_media_type_is_refused_T082(http: Http, gate: Gate) -> None:
    headers = {name: value for name, value in http_headers(ECHO).items() if name != "Content-Type"}
    refused(http, gate, headers, (415, 400))


@pytest.mark.parametrize(
    "accept, status",
    [
        ("text/html", 406),
        ("image/*", 406),
        ("", 406),
        ("application/jsonx", 406),
        ("*/*", 200),
        ("application/json", 200),
        ("application/*;q=0.5", 200),
        ("text/html, */*;q=0.1", 200),
        ("TEXT/EVENT-STREAM, Application/JSON", 200),
    ],
    ids=lambda value: f"T084-{value}",
)
def test_a_client_that_takes_neither_answer_is_told(http: Http, accept: str, status: int) -> None:
    reply = http.send(ECHO, {**http_headers(ECHO), "Accept": accept})
    assert reply.status == status


def test_a_preflight_from_another_origin_gets_no_permission_T085(http: Http) -> None:
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    reply = http.send(None, headers, "OPTIONS")
    assert reply.status == 403
    assert reply.header("Access-Control-Allow-Origin") is None


def test_a_preflight_from_an_allowed_origin_gets_that_origin_and_never_a_star_T085(host: Any, gate: Gate) -> None:
    http = host(attacked(gate, allowed_origins=["https://app.example"]))
    headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    reply = http.send(None, headers, "OPTIONS")
    assert reply.status == 204
    assert reply.header("Access-Control-Allow-Origin") == "https://app.example"
    assert "Mcp-Session-Id" in (reply.header("Access-Control-Allow-Headers") or "")
    assert reply.header("Vary") == "Origin"
    assert reply.header("Access-Control-Allow-Credentials") is None
    foreign = http.send(None, {**headers, "Origin": "https://app.example.evil.example"}, "OPTIONS")
    assert foreign.status == 403


def test_the_server_header_has_no_version_number_T086(http: Http) -> None:
    for reply in (http.call(modern("tools/list")), http.send(b"{", http_headers(ECHO)), http.send(None, {}, "GET")):
        assert not any(character.isdigit() for character in reply.header("Server") or "")
        assert reply.header("X-Powered-By") is None


def test_session_headers_mean_nothing_to_a_modern_request_T087(http: Http) -> None:
    reply = http.call(ECHO, Mcp_Session_Id="made-up", Last_Event_ID="1-1")
    assert reply.status == 200
    assert reply.header("Mcp-Session-Id") is None
    assert b"made-up" not in reply.body


@pytest.mark.parametrize(
    ("address", "host", "origin", "allowed", "status"),
    [
        ("10.0.0.9", "mcp.lan", None, {}, 202),
        ("10.0.0.9", "mcp.lan", "http://mcp.lan", {}, 403),
        ("10.0.0.9", "mcp.lan", "http://mcp.lan", {"allowed_hosts": ["mcp.lan"]}, 202),
        ("10.0.0.9", "evil.example", "http://evil.example", {"allowed_hosts": ["mcp.lan"]}, 403),
        ("10.0.0.9", "mcp.lan", "https://app.example", {"allowed_origins": ["https://app.example"]}, 202),
        ("127.0.0.1", "evil.example", None, {}, 403),
    ],
)
def test_a_page_whose_name_resolves_here_is_refused_off_loopback_too(address, host, origin, allowed, status):
    """T075, T079: what a peer on another machine may name, and from which pages."""
    client = werkzeug.test.Client(Server("guarded", **allowed).wsgi)
    headers = {"Host": host, **({} if origin is None else {"Origin": origin})}
    message = {
        "jsonrpc": "2.0",
        "method": "notifications/x",
        "params": {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}},
    }
    answer = client.post("/mcp", json=message, headers=headers, environ_overrides={"REMOTE_ADDR": address})
    assert answer.status_code == status
