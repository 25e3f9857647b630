"""Credentials that end while they are used: streams end with them, and what was withdrawn holds at once."""

from __future__ import annotations

import http.client
import json
import pickle
import threading
import time
from collections.abc import Iterator
from typing import Any, Optional

import pytest
from werkzeug.test import Client

from minimcp import Context, Principal, Server, Unauthorized
from minimcp.auth import AuthRequest, Introspection, Jwt, Keys
from minimcp.auth.protected import ProtectedServer
from tests.embedded import embedded, wait_until
from tests.helpers import BOTH, exchange, http_headers, modern

HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
META = {"progressToken": "p"}
SHORT, LONG = "short-key-0123456789", "lasting-key-0123456789"


class Held:
    """What the handler of `held` waits for and reports, and when the short key ends.

    :ivar lasts_s: how long the short key lasts from its next use on, None for long.
    """

    def __init__(self) -> None:
        self.began, self.go, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.cancelled = False
        self.lasts_s: Optional[float] = 2.0
        self._lock = threading.Lock()  # guards _ends
        self._ends: Optional[float] = None

    def ends(self) -> float:
        """Use the short key, and return when it ends."""
        with self._lock:
            if self.lasts_s is None:
                return time.time() + 3600
            if self._ends is None:
                self._ends = time.time() + self.lasts_s
            return self._ends


@pytest.fixture
def held() -> Iterator[Held]:
    held = Held()
    yield held
    held.go.set()
    assert held.ended.is_set() or not held.cancelled


@pytest.fixture
def url(held: Held) -> Iterator[str]:
    """A server whose caller has a key that ends two seconds after its first use, and one that does not."""

    def key(request: AuthRequest) -> Any:
        if request.token == SHORT:
            return Principal("ann", expires=held.ends())
        return Principal("ann", expires=time.time() + 3600) if request.token == LONG else None

    server = Server("s", auth=key)

    @server.tool(name="held")
    def hold(ctx: Context) -> str:
        ctx.progress(1)
        while not (held.go.is_set() or ctx.cancelled.wait(0.01)):
            pass
        held.cancelled = ctx.cancelled.is_set()
        held.ended.set()
        return "held"

    @server.tool
    def quiet(ctx: Context) -> str:
        held.began.set()
        held.go.wait(60)
        held.ended.set()
        return "quiet"

    server.resource("a://1")(lambda: "x")
    with embedded(server.wsgi) as listening:
        yield listening.url + "/mcp"
    server.close()


def read(response: Any) -> list[Any]:
    """The data of each event of a stream up to its end."""
    return [line[6:].strip() for line in response if line.startswith(b"data: ")]


def bearer(key: str, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}", "Accept": BOTH, "Content-Type": "application/json", **more}


def test_a_listen_stream_ends_with_its_credential(url: str) -> None:
    message = modern("subscriptions/listen", notifications={"resourceSubscriptions": ["a://1"]})
    with exchange(url, message, http_headers(message, Authorization=f"Bearer {SHORT}"), timeout_s=20) as response:
        assert response.status == 200
        events = [json.loads(each) for each in read(response)]
    assert [each.get("method") for each in events[:2]] == [
        "notifications/subscriptions/acknowledged",
        "notifications/cancelled",
    ]
    assert "result" in events[2] and len(events) == 3
    with exchange(url, message, http_headers(message, Authorization=f"Bearer {SHORT}")) as response:
        assert response.status == 401


def session(url: str, held: Held) -> str:
    """Begin a session with the short key, which ends two seconds after its next use."""
    held.lasts_s = None
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO}
    with exchange(url, message, bearer(SHORT)) as response:
        assert response.status == 200
        held.lasts_s = 2.0
        return str(response.headers["Mcp-Session-Id"])


def test_a_get_stream_ends_with_its_credential_and_is_opened_again_with_another(url: str, held: Held) -> None:
    id = session(url, held)
    head = {"Mcp-Session-Id": id, "MCP-Protocol-Version": "2025-11-25"}
    began = time.monotonic()
    with exchange(url, None, bearer(SHORT, **head), "GET", timeout_s=20) as response:
        assert response.status == 200 and read(response) == [b""]
    assert time.monotonic() - began < 15
    with exchange(url, None, bearer(SHORT, **head), "GET") as response:
        assert response.status == 401
    with exchange(url, None, bearer(LONG, **head), "GET") as response:
        assert response.status == 200


def test_http_sse_ends_with_its_credential_and_its_session_too(url: str) -> None:
    base = url[: -len("/mcp")]
    with exchange(f"{base}/sse", None, bearer(SHORT), "GET", timeout_s=20) as response:
        events = read(response)
    assert len(events) == 1 and events[0].startswith(b"/messages?session_id=")
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    connection = http.client.HTTPConnection(base.partition("//")[2], timeout=20)
    connection.request("POST", events[0].decode(), json.dumps(ping), bearer(LONG))
    answer = connection.getresponse()
    assert answer.status == 404 and b"Session not found" in answer.read()
    connection.close()


def test_the_stream_of_a_running_call_ends_with_an_error_and_the_call_is_cancelled(url: str, held: Held) -> None:
    held.lasts_s = 4.0  # in which the handler begins, also on a busy machine
    message = modern("tools/call", meta=META, name="held", arguments={})
    with exchange(url, message, http_headers(message, Authorization=f"Bearer {SHORT}"), timeout_s=20) as response:
        events = [json.loads(each) for each in read(response)]
    assert events[0]["method"] == "notifications/progress" and len(events) == 2
    error = {"code": -32600, "message": "The credential of this call has expired"}
    assert events[1] == {"jsonrpc": "2.0", "id": 1, "error": error}
    assert held.ended.wait(20) and held.cancelled


def test_a_reply_that_comes_in_time_is_sent(url: str, held: Held) -> None:
    held.go.set()
    held.lasts_s = 60.0
    message = modern("tools/call", meta=META, name="held", arguments={})
    with exchange(url, message, http_headers(message, Authorization=f"Bearer {SHORT}"), timeout_s=20) as response:
        events = [json.loads(each) for each in read(response)]
    assert events[-1]["result"]["content"][0]["text"] == "held" and not held.cancelled


def test_a_legacy_call_goes_on_and_its_stream_is_read_with_another_credential(url: str, held: Held) -> None:
    id = session(url, held)
    held.lasts_s = 4.0  # in which the handler begins, also on a busy machine
    head = {"Mcp-Session-Id": id, "MCP-Protocol-Version": "2025-11-25"}
    call = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "held", "_meta": META}}
    with exchange(url, call, bearer(SHORT, **head), timeout_s=20) as response:
        lines = list(response)
    assert any(b"notifications/progress" in line for line in lines) and not any(b'"result"' in line for line in lines)
    assert not held.ended.is_set()
    last = [line[4:].strip().decode() for line in lines if line.startswith(b"id: ")][-1]
    with exchange(url, None, bearer(SHORT, **head, **{"Last-Event-ID": last}), "GET") as response:
        assert response.status == 401
    held.go.set()
    with exchange(url, None, bearer(LONG, **head, **{"Last-Event-ID": last}), "GET", timeout_s=20) as response:
        replies = [json.loads(each) for each in read(response) if each]
    assert replies == [{"jsonrpc": "2.0", "id": 7, "result": replies[0]["result"]}] and not held.cancelled


def test_a_call_without_a_stream_is_answered_since_it_was_allowed_when_it_came(url: str, held: Held) -> None:
    message = modern("tools/call", name="quiet", arguments={})
    found: list[Any] = []

    def call() -> None:
        headers = http_headers(message, Authorization=f"Bearer {SHORT}")
        with exchange(url, message, headers | {"Accept": "application/json"}, timeout_s=60) as response:
            found.append(json.loads(response.read()))

    thread = threading.Thread(target=call)
    thread.start()
    assert held.began.wait(20)
    wait_until(lambda: expired(url))
    held.go.set()
    thread.join(60)
    assert found[0]["result"]["content"][0]["text"] == "quiet"


def expired(url: str) -> bool:
    message = modern("tools/list")
    with exchange(url, message, http_headers(message, Authorization=f"Bearer {SHORT}")) as response:
        return response.status == 401


# What verifiers say


def test_a_key_says_when_it_ends() -> None:
    soon = time.time() + 60
    keys = Keys({"ann": {"key": SHORT, "expires": soon}, "bob": {"key": LONG}})
    found = [keys.verify(AuthRequest({"HTTP_AUTHORIZATION": f"Bearer {key}"}, "", "")) for key in (SHORT, LONG)]
    assert [each and each.expires for each in found] == [soon, None]


def test_a_token_says_when_it_ends_with_the_leeway_that_requests_have() -> None:
    pytest.importorskip("jwt")
    pytest.importorskip("cryptography")
    from tests.tokens import AUDIENCE, Issuer

    with Issuer() as issuer:
        checker = Jwt(issuer.url, AUDIENCE, private_addresses=True, leeway_s=7)
        exp = int(time.time()) + 60
        request = AuthRequest({"HTTP_AUTHORIZATION": f"Bearer {issuer.token(exp=exp)}"}, "", "")
        for _ in range(2):
            found = checker.verify(request)
            assert found is not None and found.expires == exp + 7
        for answer, expires in (({"exp": exp}, exp + 7), ({}, None)):
            known = {"active": True, "sub": "ann", "aud": AUDIENCE, **answer}
            issuer.site.pages["/introspect"] = lambda seen, known=known: (200, known, {})
            asking = Introspection(issuer.url, "me", "secret", AUDIENCE, private_addresses=True, leeway_s=7)
            opaque = asking.verify(AuthRequest({"HTTP_AUTHORIZATION": "Bearer opaque"}, "", ""))
            assert opaque is not None and opaque.expires == expires


def test_the_time_is_kept_and_makes_no_other_principal() -> None:
    found = Principal("ann", expires=5)
    assert (found.expires, found.lasts_s()) == (5, 0.0) and Principal("ann").lasts_s() == float("inf")
    assert found == Principal("ann") and hash(found) == hash(Principal("ann", expires=7.5))
    assert pickle.loads(pickle.dumps(found)).expires == 5
    with pytest.raises(AttributeError, match="expires"):
        found.expires = 6  # type: ignore[misc]
    for wrong in ("tomorrow", True, [1]):
        with pytest.raises(ValueError, match="expires= is a number of seconds"):
            Principal("ann", expires=wrong)  # type: ignore[arg-type]


def test_scopes_that_others_imply_leave_the_time_alone() -> None:
    ends = time.time() + 60
    guard = ProtectedServer(lambda request: Principal("ann", scopes=["all"], expires=ends), None, (), {"all": ["read"]})
    found = guard.principal({"REQUEST_METHOD": "GET"})
    assert found is not None and found.scopes == ("all", "read") and found.expires == ends


@pytest.mark.parametrize("expires", [0, -5.5, 1e9, float("nan"), float("-inf")])
def test_a_principal_that_has_expired_is_nobody(expires: float) -> None:
    guard = ProtectedServer(lambda request: Principal("ann", expires=expires))
    with pytest.raises(Unauthorized, match="has expired") as caught:
        guard.principal({"REQUEST_METHOD": "GET"})
    assert caught.value.http == (
        401,
        [("WWW-Authenticate", 'Bearer error="invalid_token", error_description="The credential has expired"')],
    )


# What changes between two requests


@pytest.mark.parametrize("denied", ["hide", "challenge"])
def test_scopes_withdrawn_between_list_and_call_hold_at_once(denied: Any) -> None:
    granted = ["read", "write"]
    server = Server("s", auth=lambda request: Principal("ann", scopes=granted), on_denied=denied)
    ran: list[str] = []
    server.tool(lambda: ran.append("x") or "x", "edit", scopes=["write"])
    server.resource("doc://1", scopes=["write"])(lambda: "x")
    client = Client(server.wsgi)

    def post(method: str, **params: Any) -> Any:
        message = modern(method, **params)
        return client.post("/mcp", data=json.dumps(message), headers=http_headers(message))

    assert [tool["name"] for tool in post("tools/list").json["result"]["tools"]] == ["edit"]
    granted.remove("write")
    for method, params in (
        ("tools/call", {"name": "edit", "arguments": {}}),
        ("resources/read", {"uri": "doc://1"}),
    ):
        answer = post(method, **params)
        assert "error" in answer.json and answer.status_code == (403 if denied == "challenge" else 400)
        assert ("insufficient_scope" in answer.headers.get("WWW-Authenticate", "")) == (denied == "challenge")
    assert ran == []
    assert post("tools/list").json["result"]["tools"] == [] or denied == "challenge"
    # The same in a session, which holds no scopes of its own.
    granted.append("write")
    head = {"Content-Type": "application/json", "Accept": BOTH}
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO}
    head["Mcp-Session-Id"] = client.post("/mcp", data=json.dumps(hello), headers=head).headers["Mcp-Session-Id"]
    call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "edit", "arguments": {}}}
    assert "result" in client.post("/mcp", data=json.dumps(call), headers=head).json
    granted.remove("write")
    assert "error" in client.post("/mcp", data=json.dumps(call), headers=head).json
    assert ran == ["x"]


def test_a_session_of_another_principal_is_unknown_at_every_door_and_byte_for_byte() -> None:
    server = Server("s", auth=lambda request: request.token or None)
    client = Client(server.wsgi)

    def send(method: str, user: str, id: str, message: Any = None, **more: str) -> Any:
        head = bearer(user, **{"Mcp-Session-Id": id}, **more)
        return client.open("/mcp", method=method, data=json.dumps(message) if message else None, headers=head)

    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO}
    id = client.post("/mcp", data=json.dumps(hello), headers=bearer("ann")).headers["Mcp-Session-Id"]
    ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
    reply = {"jsonrpc": "2.0", "id": 1, "result": {}}
    for method, message in (
        ("POST", ping),
        ("POST", reply),
        ("POST", {"jsonrpc": "2.0", "method": "notifications/initialized"}),
        ("POST", [ping]),
        ("GET", None),
        ("DELETE", None),
    ):
        others = send(method, "bob", id, message)
        never = send(method, "ann", "x" * len(id), message)
        assert others.status_code == 404, (method, message)
        assert (others.data, list(others.headers)) == (never.data, list(never.headers))
    assert send("POST", "ann", id, ping).status_code == 200
