"""A token endpoint that is configured: client credentials and the exchange of a token there, without discovery."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from minimcp import Client, Server
from minimcp.engines.errors import AuthorizationError, ClientError, ConnectionLost
from minimcp.engines.http_client.request import SignedAnswer
from minimcp.engines.oauth import endpoint as endpoint_module
from minimcp.engines.oauth.endpoint import TokenEndpoint
from minimcp.engines.oauth.grants import ID_TOKEN
from tests.authority import Authority, Resource, Site, basic

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"


@pytest.fixture
def authority() -> Iterator[Authority]:
    with Authority() as site:
        yield site


@pytest.fixture
def resource(authority: Authority) -> Iterator[Resource]:
    with Resource(authority) as site:
        yield site


def at(authority: Authority, **options: Any) -> TokenEndpoint:
    return TokenEndpoint(f"{authority.url}/token", "me", "s3cret-of-mine", **options)


def get(resource: Resource, auth: Any) -> int:
    return requests.get(resource.endpoint, auth=auth, timeout=10).status_code


def test_client_credentials_are_sent_with_the_first_request(authority: Authority, resource: Resource) -> None:
    auth = at(authority).client_credentials(scope="a b", audience="crm", resource="https://CRM.example/mcp")
    assert get(resource, auth) == 200 and get(resource, auth) == 200
    (asked,) = authority.asked("/token")
    assert asked.form == {
        "grant_type": "client_credentials",
        "scope": "a b",
        "audience": "crm",
        "resource": "https://crm.example/mcp",
        "client_id": "me",
    }
    assert basic(asked.headers["Authorization"]) == ("me", "s3cret-of-mine")
    assert len(authority.seen) == 1 and len(resource.seen) == 2, "nothing is discovered"
    assert auth.extensions == {"io.modelcontextprotocol/oauth-client-credentials": {}}


def test_the_secret_goes_into_the_form_where_that_is_asked_for(authority: Authority, resource: Resource) -> None:
    assert get(resource, at(authority, method="client_secret_post").client_credentials()) == 200
    (asked,) = authority.asked("/token")
    assert asked.form["client_secret"] == "s3cret-of-mine" and asked.headers["Authorization"] is None


def test_a_token_is_exchanged_for_one_of_the_server(authority: Authority, resource: Resource) -> None:
    auth = at(authority).exchange("token-of-ann", audience="crm", scope="read")
    assert get(resource, auth) == 200 and get(resource, auth) == 200
    (asked,) = authority.asked("/token")
    assert asked.form == {
        "grant_type": EXCHANGE,
        "requested_token_type": ACCESS_TOKEN,
        "subject_token": "token-of-ann",
        "subject_token_type": ACCESS_TOKEN,
        "audience": "crm",
        "scope": "read",
        "client_id": "me",
    }
    (token,) = authority.exchanged
    assert {seen.headers["Authorization"] for seen in resource.seen} == {f"Bearer {token}"}
    assert auth.extensions == {}


def test_a_client_takes_it_as_auth(authority: Authority) -> None:
    server = Server("s", auth=lambda request: "ann" if request.token in authority.exchanged else None)
    server.tool(lambda: "x", "work")
    with Client(server.wsgi, auth=at(authority).exchange("token-of-ann", audience="crm")) as client:
        assert client.call_tool("work").text == "x"
    assert len(authority.asked("/token")) == 1


def test_a_token_is_got_anew_shortly_before_it_expires(
    authority: Authority, resource: Resource, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth = at(authority).exchange("token-of-ann", audience="crm")
    assert get(resource, auth) == 200
    now = time.time()
    for later, count in ((3560, 1), (3580, 2)):
        monkeypatch.setattr(time, "time", lambda later=later: now + later)
        assert get(resource, auth) == 200 and len(authority.asked("/token")) == count


def test_a_token_that_is_refused_is_replaced_once(
    authority: Authority, resource: Resource, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth = at(authority).exchange("token-of-ann", audience="crm")
    assert get(resource, auth) == 200
    authority.issued.clear()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 60)
    assert get(resource, auth) == 200
    assert len(authority.asked("/token")) == 2
    resource.authorities.clear()
    with pytest.raises(AuthorizationError, match="answers 401 to a token that was just issued for it"):
        get(resource, auth)
    assert len(authority.asked("/token")) == 2


def test_concurrent_requests_get_one_token(authority: Authority) -> None:
    tokens = at(authority).exchange("token-of-ann", audience="crm")
    here, go = threading.Barrier(9), threading.Event()
    issue = authority.token

    def slow(seen: Any) -> Any:
        go.wait(30)
        return issue(seen)

    authority.pages["/token"] = slow

    def sign(_: int) -> Any:
        here.wait(30)
        return tokens.sign("POST", "https://crm.example/mcp", {})

    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(sign, number) for number in range(8)]
        here.wait(30)
        go.set()
        signed = [each.result(30) for each in found]
    (token,) = authority.exchanged
    assert signed == [{"Authorization": f"Bearer {token}"}] * 8 and len(authority.asked("/token")) == 1


def test_those_that_wait_fail_with_the_one_that_asks(authority: Authority) -> None:
    auth = at(authority).exchange("token-of-ann", audience="crm")
    here, go = threading.Event(), threading.Event()

    def fails(seen: Any) -> Any:
        here.set()
        go.wait(30)
        return 503, {}, {}

    authority.pages["/token"] = fails
    tokens = auth._tokens()
    lock, waiting = tokens._lock(), threading.Semaphore(0)

    class Watched:
        def __enter__(self) -> None:
            waiting.release()
            lock.acquire()

        def __exit__(self, *_: Any) -> None:
            lock.release()

    tokens._lock = Watched  # type: ignore[assignment]

    def sign() -> str:
        with pytest.raises(ConnectionLost) as caught:
            auth.sign("POST", "https://crm.example/mcp", {})
        return str(caught.value)

    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(sign)]
        assert here.wait(30)
        found.append(pool.submit(sign))
        assert waiting.acquire(timeout=30) and waiting.acquire(timeout=30)
        go.set()
        assert len({each.result(30) for each in found}) == 1
    assert len(authority.asked("/token")) == 1
    # What may pass is tried again with the next request.
    authority.pages["/token"] = authority.token
    assert auth.sign("POST", "https://crm.example/mcp", {})


def test_a_refusal_stands_for_some_seconds(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing of it passes while this test is busy.
    monkeypatch.setattr(endpoint_module, "_PAUSE_S", 600.0)
    authority.subjects = set()
    auth = at(authority).exchange("token-of-ann", audience="crm")
    for _ in range(3):
        with pytest.raises(AuthorizationError) as caught:
            auth.sign("POST", "https://crm.example/mcp", {})
        assert (caught.value.error, "token-of-ann" in str(caught.value)) == ("invalid_request", False)
    assert len(authority.asked("/token")) == 1
    authority.subjects = None
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + endpoint_module._PAUSE_S)
    assert auth.sign("POST", "https://crm.example/mcp", {})


TYPE = {"issued_token_type": ACCESS_TOKEN, "token_type": "Bearer"}


@pytest.mark.parametrize(
    ("status", "body", "headers", "said"),
    [
        (200, b"<html>hello</html>", {}, "not a JSON object"),
        (200, b"[]", {}, "not a JSON object"),
        (200, b"x" * 10_000_000, {}, "longer than 262144 bytes"),
        (200, {}, {}, "no usable access_token"),
        (200, {**TYPE, "access_token": "a b\r\nX: y"}, {}, "no usable access_token"),
        (200, {**TYPE, "access_token": 7}, {}, "no usable access_token"),
        (200, {**TYPE, "access_token": "x", "token_type": "N_A"}, {}, "not a bearer token"),
        (200, {**TYPE, "access_token": "x", "token_type": "DPoP"}, {}, "not a bearer token"),
        (200, {**TYPE, "access_token": "x", "expires_in": -1}, {}, "makes no sense"),
        (200, {**TYPE, "access_token": "x", "issued_token_type": ID_TOKEN}, {}, "kind"),
        (200, {**TYPE, "access_token": "x", "issued_token_type": ["x"]}, {}, "kind"),
        (302, b"", {"Location": "http://127.0.0.1:1/token"}, "HTTP 302"),
        (307, b"", {"Location": "/elsewhere"}, "HTTP 307"),
        (401, {"error": "bad", "error_description": "s3cret-of-mine token-of-ann"}, {}, "bad: ... ..."),
        (403, b"no", {}, "HTTP 403"),
    ],
)
def test_an_answer_that_is_no_token_is_an_error_without_secrets(
    authority: Authority, status: int, body: Any, headers: dict[str, str], said: str
) -> None:
    authority.pages["/token"] = lambda seen: (status, body, headers)
    with pytest.raises(AuthorizationError, match=said.replace(".", r"\.")) as caught:
        at(authority).exchange("token-of-ann", audience="crm").sign("POST", "https://crm.example/mcp", {})
    assert not any(secret in str(caught.value) for secret in ("token-of-ann", "s3cret-of-mine"))
    assert [seen.path for seen in authority.seen] == ["/token"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_endpoint_that_fails_may_be_asked_again(authority: Authority, status: int) -> None:
    authority.pages["/token"] = lambda seen: (status, {}, {})
    with pytest.raises(ConnectionLost) as caught:
        at(authority).exchange("t", audience="crm").sign("POST", "https://crm.example/mcp", {})
    assert caught.value.retry == "always"


def test_an_endpoint_that_is_not_there_is_a_lost_connection() -> None:
    with Site() as site:
        url = f"{site.url}/token"
    with pytest.raises(ClientError, match="could not be reached"):
        TokenEndpoint(url, "me", "s").exchange("t", audience="x").sign("POST", "https://crm.example/mcp", {})


@pytest.mark.parametrize(
    "url", ["http://id.example/token", "ftp://id.example", "https://u:p@id.example/", "id.example"]
)
def test_an_endpoint_is_https_or_on_this_machine(url: str) -> None:
    with pytest.raises(AuthorizationError):
        TokenEndpoint(url, "me", "s")


def test_a_token_goes_to_one_server_and_never_in_the_clear(authority: Authority) -> None:
    auth = at(authority).exchange("t", audience="crm").for_server("https://crm.example/mcp")
    assert auth.sign("POST", "https://crm.example/other", {})
    assert auth.sign("POST", "https://other.example/mcp", {}) == {}
    assert not auth.answered([SignedAnswer("POST", "https://other.example/mcp", 401, {}, {})])
    with pytest.raises(AuthorizationError, match="is sent over https, or to this machine"):
        at(authority).exchange("t", audience="crm").sign("POST", "http://10.0.0.1/mcp", {})


def test_a_redirect_of_the_server_takes_no_token_along(authority: Authority, resource: Resource) -> None:
    with Site() as other:
        other.pages["/"] = lambda seen: (401, {}, {"WWW-Authenticate": "Bearer"})
        resource.pages[resource.path] = lambda seen: (307, b"", {"Location": f"{other.url}/"})
        assert get(resource, at(authority).exchange("t", audience="crm")) == 401
        assert [seen.headers["Authorization"] for seen in other.seen] == [None]
