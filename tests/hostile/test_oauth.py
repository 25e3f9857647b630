"""T138, T140 to T149, T237: servers, pages and networks that want a client's secrets, or its time."""

from __future__ import annotations

import gzip
import logging
import socket
import threading
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from minimcp import AuthorizationError, ConnectionLost, OAuth
from minimcp.engines.oauth.discovery import find_server, find_target, read_challenge
from minimcp.engines.oauth.fetching import Fetcher
from tests.authority import Authority, Browser, Resource, Site

PRM = "/.well-known/oauth-protected-resource/mcp"


@pytest.fixture
def authority() -> Iterator[Authority]:
    with Authority() as site:
        yield site


@pytest.fixture
def resource(authority: Authority) -> Iterator[Resource]:
    with Resource(authority) as site:
        yield site


@pytest.fixture
def browser() -> Browser:
    return Browser()


@pytest.fixture
def no_names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that were looked up besides 127.0.0.1; none exists."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def look_up(host: Any, *args: Any, **named: Any) -> Any:
        if host in ("127.0.0.1", "localhost"):
            return real(host, *args, **named)
        asked.append(host)
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


def get(resource: Resource, auth: OAuth) -> requests.Response:
    return requests.get(resource.endpoint, auth=auth, timeout=10)


# T140


@pytest.mark.parametrize("name", ["issuer", "authorization_endpoint", "token_endpoint", "registration_endpoint"])
def test_t140_plain_http_off_this_machine_is_refused_before_any_request(
    authority: Authority, resource: Resource, browser: Browser, no_names: list[str], name: str
) -> None:
    if name == "issuer":
        resource.prm["authorization_servers"] = ["http://as.example.com"]
    else:
        authority.metadata[name] = "http://as.example.com/x"
    with pytest.raises(AuthorizationError, match="https"):
        get(resource, OAuth(login=browser))
    assert not browser.opened and no_names == []
    assert {seen.path for seen in authority.seen} <= {"/.well-known/oauth-authorization-server"}


def test_t140_a_stored_token_does_not_go_over_plain_http() -> None:
    store = {
        "issuer code: http://mcp.example.com/mcp": {"issuer": "https://as.example.com"},
        "token code: https://as.example.com http://mcp.example.com/mcp": {"access_token": "t", "token_type": "bearer"},
    }
    request = requests.Request("GET", "http://mcp.example.com/mcp", auth=OAuth(store=store)).prepare()
    assert "Authorization" not in request.headers


# T141


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "JavaScript://127.0.0.1/%0aalert(1)",
        "file:///etc/passwd",
        "data:text/html,x",
        "vbscript:x",
        "ms-settings:x",
        "-flag",
        "--new-window",
        "https://x\\@127.0.0.1/",
        "https://x/ --flag",
        "https://x/\n",
        "https://x/`calc`",
        'https://x/"&calc&"',
        "https://user@x/",
    ],
)
def test_t141_only_web_addresses_are_opened(
    authority: Authority, resource: Resource, browser: Browser, url: str
) -> None:
    authority.metadata["authorization_endpoint"] = url
    for auth in (OAuth(login=browser), OAuth(open_browser=browser.open)):
        with pytest.raises(AuthorizationError):
            get(resource, auth)
    assert not browser.opened and not authority.asked("/register")


def test_t141_an_address_is_opened_as_one_argument(authority: Authority, resource: Resource) -> None:
    authority.metadata["authorization_endpoint"] = f"{authority.url}/$(calc);x"
    opened = []
    with pytest.raises(AuthorizationError, match="browser"):
        get(resource, OAuth(open_browser=lambda url: bool(opened.append(url))))
    assert len(opened) == 1 and opened[0].startswith(f"{authority.url}/$(calc);x?response_type=code&")


# T142


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "10.0.0.1",
        "127.0.0.1",
        "[::ffff:127.0.0.1]",
        "[2002:7f00:1::]",
        "[64:ff9b::7f00:1]",
        "[fe80::1]",
        "2130706433",
        "0x7f.1",
        "127.1",
        "0",
        "localhost",
    ],
)
def test_t142_a_public_server_cannot_name_a_private_address(host: str) -> None:
    with Fetcher(local=False, timeout_s=5) as fetch:
        challenge = read_challenge(f'Bearer resource_metadata="https://{host}/x"')
        with pytest.raises((AuthorizationError, ConnectionLost)) as caught:
            find_target(fetch, "https://mcp.example.com/mcp", challenge)
        assert "private" in str(caught.value) or "unknown host" in str(caught.value)
        with pytest.raises((AuthorizationError, ConnectionLost)):
            find_server(fetch, f"https://{host}")


def answer(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Let the name localhost resolve to these addresses, one after another."""
    left, real = list(addresses), socket.getaddrinfo

    def look_up(host: Any, port: Any, *args: Any, **named: Any) -> Any:
        if host != "localhost":
            return real(host, port, *args, **named)
        found = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (found, port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def test_t142_what_a_name_resolves_to_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    with Site() as site, Fetcher(local=False, timeout_s=5) as fetch:
        site.pages["/x"] = lambda seen: (200, {"secret": 1}, {})
        answer(monkeypatch, "127.0.0.1")
        with pytest.raises(AuthorizationError, match="private"):
            fetch.get(site.url.replace("127.0.0.1", "localhost") + "/x", "document")
        assert not site.seen


def test_t142_a_name_that_resolves_to_something_else_the_second_time_is_hung_up_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Site() as site, Fetcher(local=False, timeout_s=5) as fetch:
        site.pages["/x"] = lambda seen: (200, {"secret": 1}, {})
        answer(monkeypatch, "93.184.216.34", "127.0.0.1")
        with pytest.raises(AuthorizationError, match="private"):
            fetch.get(site.url.replace("127.0.0.1", "localhost") + "/x", "document")
        assert not site.seen


def test_t142_a_local_server_may_name_local_addresses_but_not_those_of_a_cloud() -> None:
    with Site() as site, Fetcher(local=True, timeout_s=5) as fetch:
        site.pages["/x"] = lambda seen: (200, {"a": 1}, {})
        assert fetch.get(f"{site.url}/x", "document") == {"a": 1}
        with pytest.raises(AuthorizationError, match="private"):
            fetch.get("https://169.254.169.254/latest", "document")


def test_t142_redirects_are_followed_on_the_same_origin_and_only_a_few() -> None:
    with Site() as site, Site() as other, Fetcher(local=True, timeout_s=5) as fetch:
        other.pages["/x"] = site.pages["/y"] = lambda seen: (200, {"a": 1}, {})
        site.pages["/x"] = lambda seen: (302, b"", {"Location": "/y"})
        assert fetch.get(f"{site.url}/x", "document") == {"a": 1}
        for there in (f"{other.url}/x", "http://169.254.169.254/", "file:///etc/passwd", "//127.0.0.1:1/", ""):
            site.pages["/x"] = lambda seen, there=there: (302, b"", {"Location": there})
            assert fetch.get(f"{site.url}/x", "document") is None
        assert not other.seen
        site.pages["/x"] = lambda seen: (302, b"", {"Location": "http://["})
        with pytest.raises(ConnectionLost):
            fetch.get(f"{site.url}/x", "document")
        site.seen.clear()
        site.pages["/x"] = lambda seen: (302, b"", {"Location": "/x"})
        assert fetch.get(f"{site.url}/x", "document") is None
        assert len(site.seen) == 4


# T143


def test_t143_without_s256_nothing_is_registered_and_nobody_asked(
    authority: Authority, resource: Resource, browser: Browser
) -> None:
    for methods in (["plain"], [], None, "S256", [7], True, {"S256": 1}):
        authority.metadata["code_challenge_methods_supported"] = methods
        with pytest.raises(AuthorizationError, match="S256"):
            get(resource, OAuth(login=browser))
    del authority.metadata["code_challenge_methods_supported"]
    with pytest.raises(AuthorizationError, match="S256"):
        get(resource, OAuth(login=browser))
    assert not browser.opened and not authority.asked("/register")


@pytest.mark.parametrize(
    "change",
    [
        lambda url: url.replace("state=", "astate="),
        lambda url: url.replace("state=", "state=x"),
        lambda url: url + "&state=x",
        lambda url: url + "&iss=https%3A%2F%2Fevil.example.com",
        lambda url: url + "&iss=",
        lambda url: url,
        lambda url: url + "&iss=https%3A%2F%2Fevil&error=evil&error_description=evil",
        lambda url: "error=evil&error_description=evil",
    ],
)
def test_t143_a_code_that_may_be_somebody_elses_is_sent_nowhere(
    authority: Authority, resource: Resource, browser: Browser, change: Any
) -> None:
    authority.metadata["authorization_response_iss_parameter_supported"] = True
    with pytest.raises(AuthorizationError) as caught:
        get(resource, OAuth(login=lambda url: change(browser(url))))
    assert "evil" not in str(caught.value)
    assert not authority.asked("/token")


def test_t143_the_issuer_that_was_promised_opens_the_door(
    authority: Authority, resource: Resource, browser: Browser
) -> None:
    authority.metadata["authorization_response_iss_parameter_supported"] = True
    authority.iss = authority.issuer
    assert get(resource, OAuth(login=browser)).ok


# T144 is in tests/test_oauth.py, where a server moves to another authorization server.


def test_t144_no_server_gets_the_secret_of_a_program_that_is_bound_to_another(
    authority: Authority, resource: Resource
) -> None:
    with Authority() as evil, Resource(evil) as other:
        for site in (authority, evil):
            site.metadata["token_endpoint_auth_methods_supported"] = ["client_secret_basic", "none"]
        for auth in (OAuth.client_credentials("me", "secret"), OAuth.workload("secret-jwt")):
            assert get(resource, auth).ok
            with pytest.raises(AuthorizationError, match="belong to"):
                get(other, auth)
        assert not evil.seen


# T145


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_t145_secrets_do_not_follow_a_redirect(authority: Authority, resource: Resource, status: int) -> None:
    with Site() as evil:
        authority.pages["/token"] = lambda seen: (status, b"", {"Location": f"{evil.url}/token"})
        authority.pages["/register"] = authority.pages["/token"]
        authority.metadata["token_endpoint_auth_methods_supported"] = ["client_secret_post"]
        with pytest.raises(AuthorizationError, match=f"HTTP {status}"):
            get(resource, OAuth.client_credentials("me", "secret"))
        with pytest.raises(AuthorizationError, match=f"HTTP {status}"):
            get(resource, OAuth(login=Browser()))
        assert not evil.seen


def test_t145_netrc_and_the_environment_have_no_part(
    authority: Authority, resource: Resource, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password netrc-secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    with requests.Session() as session:
        session.trust_env = False
        assert session.get(resource.endpoint, auth=OAuth(login=lambda url: agree(url)), timeout=10).ok
    assert all("Basic" not in (seen.headers.get("Authorization") or "") for seen in authority.seen + resource.seen)


def agree(url: str) -> str:
    with requests.Session() as session:
        session.trust_env = False
        return session.get(url, allow_redirects=False, timeout=10).headers["Location"]


# T146


@pytest.mark.parametrize(
    "reply",
    [
        b'{"access_token": "' + b"s3cret" * 1_000_000 + b'", "token_type": "Bearer"}',
        b"<html>s3cret</html>",
        b"",
        b"[]",
        b'"s3cret"',
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"access_token": "s3cret\\r\\nX-Evil: 1", "token_type": "Bearer"}',
        b'{"access_token": "s3cret", "token_type": "mac"}',
        b'{"access_token": "s3cret", "token_type": "Bearer", "expires_in": -1}',
        b'{"access_token": "s3cret", "token_type": "Bearer", "expires_in": 1e99}',
        b'{"access_token": "s3cret", "token_type": "Bearer", "expires_in": 1e999}',
        b'{"access_token": "s3cret", "token_type": "Bearer", "expires_in": "x"}',
        b'{"access_token": "s3cret", "token_type": "Bearer", "refresh_token": "a\\nb"}',
        b'{"token_type": "Bearer", "refresh_token": "s3cret"}',
    ],
)
def test_t146_a_token_reply_that_cannot_be_used_leaves_nothing_behind(
    authority: Authority, resource: Resource, browser: Browser, reply: bytes
) -> None:
    authority.pages["/token"] = lambda seen: (200, reply, {})
    store: dict[str, Any] = {}
    with pytest.raises(AuthorizationError) as caught:
        get(resource, OAuth(login=browser, store=store))
    assert "s3cret" not in str(caught.value) and "s3cret" not in repr(store)
    assert not [key for key in store if key.startswith("token")]
    assert len(resource.asked("/mcp")) == 1


# T149


def test_t149_a_server_that_answers_401_for_ever_ends_the_request(
    authority: Authority, resource: Resource, browser: Browser
) -> None:
    resource.pages["/mcp"] = lambda seen: resource.challenge(401, "invalid_token")
    auth = OAuth(login=browser)
    for count in (1, 2):
        with pytest.raises(AuthorizationError, match="just issued"):
            get(resource, auth)
        assert len(browser.opened) == count
    assert len(resource.asked("/mcp")) <= 6


def test_t149_one_that_answers_403_for_ever_too(authority: Authority, resource: Resource, browser: Browser) -> None:
    resource.pages["/mcp"] = lambda seen: resource.challenge(403, "insufficient_scope", f"s{len(resource.seen)}")
    with pytest.raises(AuthorizationError):
        get(resource, OAuth(login=browser))
    assert len(browser.opened) == 3 and len(resource.asked("/mcp")) == 4


def test_t149_twenty_threads_do_not_open_twenty_browsers(
    authority: Authority, resource: Resource, browser: Browser
) -> None:
    gate = threading.Barrier(20)

    def page(seen: Any) -> Any:
        if "Authorization" not in seen.headers:
            gate.wait(10)
        return resource.challenge(401, "invalid_token")

    resource.pages["/mcp"] = page
    auth, errors = OAuth(login=browser), []

    def work() -> None:
        with pytest.raises(AuthorizationError) as caught:
            get(resource, auth)
        errors.append(caught.value)

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(errors) == 20 and len(browser.opened) == 1


# T138


@pytest.mark.parametrize("method", ["client_secret_post", "client_secret_basic"])
def test_t138_no_secret_is_in_an_error_a_log_or_a_repr(
    authority: Authority, resource: Resource, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = ["client-s3cret", "jwt-s3cret", "idp-s3cret", "id-s3cret", "bWU6Y2xpZW50LXMzY3JldA=="]

    def echo(seen: Any) -> Any:
        basic = (seen.headers.get("Authorization") or " ").partition(" ")[2]
        said = " ".join([*map(str, seen.form.values()), basic])
        return 400, {"error": seen.form.get("client_secret", "x"), "error_description": said}, {}

    authority.pages["/token"] = authority.pages["/register"] = echo
    authority.metadata["token_endpoint_auth_methods_supported"] = [method]
    flows = [
        OAuth.client_credentials("me", "client-s3cret"),
        OAuth.workload("jwt-s3cret"),
        OAuth(client_id="me", client_secret="client-s3cret", login=Browser()),
        OAuth.enterprise(
            "me",
            "client-s3cret",
            id_token="id-s3cret",
            idp_token_endpoint=f"{authority.url}/token",
            idp_client_id="x",
            idp_client_secret="idp-s3cret",
        ),
    ]
    for auth in flows:
        with pytest.raises(AuthorizationError) as caught:
            get(resource, auth)
        said = "".join(traceback.format_exception(type(caught.value), caught.value, caught.value.__traceback__))
        for text in (said, repr(caught.value), repr(caught.value.__dict__), repr(auth), str(vars(auth)), caplog.text):
            assert not [secret for secret in secrets if secret in text]
            assert not [code for code in authority.codes if code in text]


def test_t138_tokens_are_in_no_error_and_no_log(
    authority: Authority, resource: Resource, browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    auth = OAuth(login=browser)
    assert get(resource, auth).ok
    resource.pages["/mcp"] = lambda seen: resource.challenge(401, "invalid_token")
    with pytest.raises(AuthorizationError) as caught:
        get(resource, auth)
    said = "".join(traceback.format_exception(type(caught.value), caught.value, caught.value.__traceback__))
    for token in [*authority.issued, *authority.refreshes]:
        assert token not in caplog.text + said + repr(auth) + str(vars(auth))


# T237


class Raw:
    """A server that answers every connection with bytes from a generator, whatever was asked."""

    def __init__(self, parts: Any) -> None:
        self._parts = parts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/x"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Raw:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        with connection:
            try:
                connection.recv(65536)
                for part in self._parts(self._over):
                    connection.sendall(part)
            except OSError:
                pass


def trickle(over: threading.Event) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n\r\n"
    while not over.wait(0.05):
        yield b" "


def flood(over: threading.Event) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n\r\n"
    while not over.is_set():
        yield b" " * 65536


def chunks(over: threading.Event) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    while not over.is_set():
        yield b"10000\r\n" + b" " * 65536 + b"\r\n"


def headers(over: threading.Event) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    while not over.is_set():
        yield b"X: y\r\n" * 1000


def line(over: threading.Event) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 "
    while not over.is_set():
        yield b"x" * 65536


def silence(over: threading.Event) -> Iterator[bytes]:
    over.wait(10)
    yield b""


@pytest.mark.parametrize("parts", [trickle, flood, chunks, headers, line, silence])
def test_t237_an_answer_without_end_is_cut(parts: Any) -> None:
    ends = pytest.raises((AuthorizationError, ConnectionLost))
    with Raw(parts) as raw, Fetcher(local=True, timeout_s=0.5) as fetch, ends:
        fetch.get(raw.url, "document")


def test_t237_a_bomb_is_not_inflated() -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    with Site() as site, Fetcher(local=True, timeout_s=5) as fetch:
        site.pages["/x"] = lambda seen: (200, bomb, {"Content-Encoding": "gzip"})
        assert fetch.get(f"{site.url}/x", "document") is None
        assert site.seen[0].headers["Accept-Encoding"] == "identity"


def test_t237_a_challenge_with_an_endless_body_does_not_hold_up_a_streamed_request(
    authority: Authority, browser: Browser
) -> None:
    def parts(over: threading.Event) -> Iterator[bytes]:
        yield b'HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm="x"\r\n\r\n'
        while not over.is_set():
            yield b" " * 65536

    with Raw(parts) as raw, requests.get(raw.url, auth=OAuth(login=browser), stream=True, timeout=30) as response:
        assert response.status_code == 401
