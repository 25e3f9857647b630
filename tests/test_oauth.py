"""OAuth with a user, from the first 401 to a refreshed token, as `auth=` of plain requests."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import requests

from minimcp import AuthorizationError, ConnectionLost, FileStore, OAuth, Timeout
from minimcp.engines.oauth import access, tokens
from tests.authority import Authority, Browser, Resource
from tests.embedded import wait_until
from tests.helpers import Clock, free_port
from tests.transports import ROOT


@pytest.fixture
def authority():
    with Authority() as site:
        yield site


@pytest.fixture
def resource(authority):
    with Resource(authority) as site:
        yield site


@pytest.fixture
def browser():
    return Browser()


@pytest.fixture
def loaded():
    """The modules that a fresh interpreter has loaded after some code."""

    def run(code):
        code += "; import sys; print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30)
        return done.stdout.split()

    return run


def get(resource, auth, **options):
    return requests.get(resource.endpoint, auth=auth, timeout=10, **options)


def test_a_user_signs_in_with_pkce_and_the_request_is_sent_again(authority, resource, browser):
    auth = OAuth("Tests", open_browser=browser.open)
    response = requests.post(resource.endpoint, json={"a": 1}, auth=auth, timeout=10)
    assert response.status_code == 200 and [part.status_code for part in response.history] == [401]
    assert [seen.form for seen in resource.asked("/mcp")] == [{"a": 1}, {"a": 1}]
    (registered,) = authority.asked("/register")
    (token,) = authority.asked("/token")
    asked = browser.query()
    assert registered.form["client_name"] == "Tests" and registered.form["application_type"] == "native"
    assert registered.form["grant_types"] == ["authorization_code", "refresh_token"]
    assert registered.form["redirect_uris"] == [asked["redirect_uri"]]
    assert asked["redirect_uri"].startswith("http://127.0.0.1:")
    assert asked["code_challenge_method"] == "S256" and asked["response_type"] == "code"
    challenge = base64.urlsafe_b64encode(hashlib.sha256(token.form["code_verifier"].encode()).digest()).decode()
    assert challenge.rstrip("=") == asked["code_challenge"]
    assert asked["resource"] == token.form["resource"] == resource.endpoint
    assert token.form["redirect_uri"] == asked["redirect_uri"] and token.form["client_id"] == "client-1"
    assert get(resource, auth).status_code == 200
    assert len(browser.opened) == 1 and len(resource.asked("/mcp")) == 3


def test_an_expired_token_is_refreshed_and_the_new_refresh_token_is_kept(authority, resource, browser):
    store = {}
    auth = OAuth(login=browser, store=store)
    assert get(resource, auth).status_code == 200
    for _ in range(2):
        authority.issued.clear()
        assert get(resource, auth).status_code == 200
    assert len(browser.opened) == 1
    assert [seen.form["grant_type"] for seen in authority.asked("/token")] == [
        "authorization_code",
        "refresh_token",
        "refresh_token",
    ]
    assert list(authority.refreshes) == [
        value["refresh_token"] for key, value in store.items() if key.startswith("token")
    ]


def test_twenty_threads_that_meet_a_401_at_once_make_one_refresh(authority, resource, browser):
    auth = OAuth(login=browser)
    assert get(resource, auth).status_code == 200
    authority.issued.clear()
    start, found = threading.Barrier(20), []

    def run():
        start.wait(10)
        found.append(get(resource, auth).status_code)

    threads = [threading.Thread(target=run) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [200] * 20
    assert len([seen for seen in authority.asked("/token") if seen.form["grant_type"] == "refresh_token"]) == 1


def test_a_resource_that_is_another_ends_it(authority, resource, browser):
    resource.prm["resource"] = "https://evil.example.com/mcp"
    with pytest.raises(AuthorizationError, match="another resource"):
        get(resource, OAuth(login=browser))
    assert not authority.seen and not browser.opened


def test_neither_a_token_store_nor_oauth_loads_requests(loaded):
    assert "requests" not in loaded("import minimcp.engines.oauth.tokens, minimcp; minimcp.FileStore")
    assert "requests" not in loaded("import minimcp; minimcp.OAuth()")


def test_the_body_of_a_streamed_answer_is_left_unread(authority, resource, browser):
    resource.success = lambda: (200, b"data: {}\n\n", {"Content-Type": "text/event-stream"})
    with get(resource, OAuth(login=browser), stream=True) as response:
        assert response.status_code == 200 and not response._content_consumed
        assert response.content == b"data: {}\n\n"


def test_a_file_that_is_sent_is_sent_from_its_beginning_again(authority, resource, browser, tmp_path):
    (tmp_path / "body").write_bytes(b"a=1")
    with (tmp_path / "body").open("rb") as body:
        assert requests.post(resource.endpoint, data=body, auth=OAuth(login=browser), timeout=10).ok
    assert [seen.form for seen in resource.asked("/mcp")] == [{"a": "1"}, {"a": "1"}]


def test_a_body_that_cannot_be_sent_again_is_not_sent_empty(authority, resource, browser):
    auth = OAuth(login=browser)
    with pytest.raises(AuthorizationError, match="once more"):
        requests.post(resource.endpoint, data=iter([b"a=1"]), auth=auth, timeout=10)
    assert requests.post(resource.endpoint, data=iter([b"a=1"]), auth=auth, timeout=10).ok


def test_a_session_and_every_method_carry_the_token_in_the_header_only(authority, resource, browser):
    with requests.Session() as session:
        session.auth = OAuth(login=browser)
        for method in ("POST", "GET", "DELETE"):
            assert session.request(method, resource.endpoint, timeout=10).ok
    (token,) = authority.issued
    assert all(seen.headers["Authorization"] == f"Bearer {token}" for seen in resource.asked("/mcp")[1:])
    assert not any(token in str(seen.form) for seen in resource.seen + authority.seen)


def test_an_answer_that_asks_for_something_else_is_left_alone(resource, browser):
    for status, headers in [
        (401, {"WWW-Authenticate": 'Basic realm="x"'}),
        (403, {}),
        (403, {"WWW-Authenticate": 'Bearer error="invalid_token"'}),
        (500, {"WWW-Authenticate": "Bearer"}),
    ]:
        resource.pages["/mcp"] = lambda seen, status=status, headers=headers: (status, {"a": 1}, headers)
        response = get(resource, OAuth(login=browser))
        assert response.status_code == status and response.json() == {"a": 1}
    assert not browser.opened and len(resource.seen) == 4


def test_a_token_is_not_sent_to_another_origin(authority, resource, browser):
    auth = OAuth(login=browser, resource=resource.url + "/mcp")
    assert get(resource, auth).ok
    with Resource(authority) as other:
        assert get(other, auth).status_code == 401
        resource.pages["/away"] = lambda seen: (302, b"", {"Location": other.endpoint})
        assert requests.get(resource.url + "/away", auth=auth, timeout=10).status_code == 401
        assert not any("Authorization" in seen.headers for seen in other.seen)
    assert len(browser.opened) == 1


def test_several_urls_under_one_resource_share_a_token(authority, resource, browser):
    resource.pages["/mcp/more"] = resource.answer
    auth = OAuth(login=browser, resource=resource.endpoint)
    assert get(resource, auth).ok and requests.get(resource.endpoint + "/more", auth=auth, timeout=10).ok
    assert len(browser.opened) == 1
    auth = OAuth(login=browser).for_server(resource.endpoint)
    assert get(resource, auth).ok and requests.get(resource.endpoint + "/more", auth=auth, timeout=10).ok
    assert len(browser.opened) == 2


def test_a_user_who_never_comes_back_is_waited_for_so_long(authority, resource):
    with pytest.raises(Timeout, match="browser") as caught:
        get(resource, OAuth(open_browser=lambda url: True, login_timeout=0.05))
    assert caught.value.retry == "always" and not authority.asked("/token")


def test_a_step_up_that_names_no_scope_asks_for_all_that_the_server_lists(authority, resource, browser):
    resource.prm["scopes_supported"] = ["a", "b"]
    auth = OAuth(login=browser, scope="a")
    assert get(resource, auth).ok and browser.query()["scope"] == "a"
    resource.needs = ("b",)
    ask = resource.challenge
    resource.challenge = lambda status, error="", scope="": ask(status, error)
    assert get(resource, auth).ok and browser.query()["scope"] == "a b"


def test_a_login_that_needs_what_it_is_for_does_not_hang(resource, browser):
    auth = OAuth(login=lambda url: get(resource, auth).url)
    with pytest.raises(AuthorizationError, match="may not need that token itself"):
        get(resource, auth)


def test_a_login_that_returns_nothing_is_told(resource):
    with pytest.raises(AuthorizationError, match="login="):
        get(resource, OAuth(login=lambda url: None))


# Scopes


def test_scopes_are_those_of_the_challenge_then_those_of_the_metadata_then_none(authority, resource, browser):
    assert get(resource, OAuth(login=browser)).ok
    assert "scope" not in browser.query()
    resource.prm["scopes_supported"] = ["a", "b"]
    assert get(resource, OAuth(login=browser)).ok
    assert browser.query()["scope"] == "a b"
    resource.needs, resource.names_scope = ("z",), True
    assert get(resource, OAuth(login=browser)).ok
    assert browser.query()["scope"] == "z"
    assert get(resource, OAuth(login=browser, scope="own a")).ok
    assert browser.query()["scope"] == "own a z"


def test_a_step_up_asks_for_the_union_and_goes_on(authority, resource, browser):
    auth = OAuth(login=browser, scope="a")
    assert get(resource, auth).ok
    resource.needs = ("b",)
    assert get(resource, auth).ok
    resource.needs = ("c", "a")
    assert get(resource, auth).ok and get(resource, auth).ok
    assert [browser.query(index)["scope"] for index in range(len(browser.opened))] == ["a", "a b", "a b c"]
    assert len(authority.asked("/register")) == 1


def test_a_step_up_that_leads_nowhere_ends_after_three_attempts_and_is_not_begun_again(authority, resource, browser):
    resource.answer_all = resource.pages["/mcp"]
    resource.pages["/mcp"] = lambda seen: (
        resource.challenge(403, "insufficient_scope", "x")
        if "Authorization" in seen.headers
        else resource.challenge(401)
    )
    auth = OAuth(login=browser)
    for _ in range(3):
        with pytest.raises(AuthorizationError, match="scope 'x'") as caught:
            get(resource, auth)
        assert caught.value.error == "insufficient_scope" and caught.value.retry == "never"
        assert len(browser.opened) == 3


def test_offline_access_is_asked_for_where_it_is_listed_beside_other_scopes(authority, resource, browser):
    authority.metadata["scopes_supported"] = ["a", "offline_access"]
    assert get(resource, OAuth(login=browser)).ok
    assert "scope" not in browser.query() and "prompt" not in browser.query()
    resource.prm["scopes_supported"] = ["a"]
    assert get(resource, OAuth(login=browser)).ok
    assert browser.query()["scope"] == "a offline_access" and browser.query()["prompt"] == "consent"
    assert get(resource, OAuth(login=browser, offline_access=False)).ok
    assert browser.query()["scope"] == "a"
    authority.metadata["scopes_supported"] = ["a"]
    assert get(resource, OAuth(login=browser)).ok
    assert browser.query()["scope"] == "a"


def test_a_client_registers_for_all_scopes_the_server_knows(authority, resource, browser):
    resource.prm["scopes_supported"] = ["a", "b"]
    resource.needs, resource.names_scope = ("a",), True
    assert get(resource, OAuth(login=browser)).ok
    assert authority.asked("/register")[0].form["scope"] == "a b" and browser.query()["scope"] == "a"


@pytest.mark.parametrize("error, tries", [("invalid_client_metadata", 2), ("invalid_redirect_uri", 1), ("", 1)])
def test_a_server_that_does_not_know_the_scopes_registers_without_them(authority, resource, browser, error, tries):
    resource.needs, resource.names_scope = ("a",), True
    register = authority.pages["/register"]

    def page(seen):
        return (400, {"error": error}, {}) if "scope" in seen.form or not error else register(seen)

    authority.pages["/register"] = page
    if tries == 2:
        assert get(resource, OAuth(login=browser)).ok and browser.query()["scope"] == "a"
    else:
        with pytest.raises(AuthorizationError, match="registration endpoint refused"):
            get(resource, OAuth(login=browser))
    assert len(authority.asked("/register")) == tries


# Registration


def test_a_registration_is_kept_by_issuer_and_used_again(authority, resource, browser):
    store = {}
    assert get(resource, OAuth(login=browser, store=store)).ok
    authority.issued.clear()
    authority.refreshes.clear()
    assert get(resource, OAuth(login=browser, store=store)).ok
    assert len(authority.asked("/register")) == 1 and len(browser.opened) == 2
    assert store[f"client {authority.issuer}"]["client_id"] == "client-1"


def test_the_port_that_is_registered_is_used_again(authority, resource, browser):
    store = {}
    for _ in range(2):
        assert get(resource, OAuth(open_browser=browser.open, store=store)).ok
        authority.issued.clear()
        authority.refreshes.clear()
    assert browser.query(0)["redirect_uri"] == browser.query(1)["redirect_uri"]
    assert len(authority.asked("/register")) == 1


def test_a_port_that_is_taken_meanwhile_leads_to_another_registration(authority, resource, browser):
    import socket

    store = {}
    assert get(resource, OAuth(open_browser=browser.open, store=store)).ok
    authority.issued.clear()
    authority.refreshes.clear()
    port = int(browser.query()["redirect_uri"].rpartition(":")[2].partition("/")[0])
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert get(resource, OAuth(open_browser=browser.open, store=store)).ok
        with pytest.raises(AuthorizationError, match=f"127.0.0.1:{port}/callback is taken"):
            get(resource, OAuth(open_browser=browser.open, redirect_port=port))
    assert len(authority.asked("/register")) == 2


def test_a_whole_redirect_uri_on_this_machine_can_be_given(authority, resource, browser):
    uri = f"http://localhost:{free_port()}/oauth/back"
    assert get(resource, OAuth(client_id="me", open_browser=browser.open, redirect_uri=uri)).ok
    assert browser.query()["redirect_uri"] == authority.asked("/token")[0].form["redirect_uri"] == uri


def test_scopes_that_a_client_did_not_register_for_lead_to_another_registration(authority, resource, browser):
    store = {}
    auth = OAuth(login=browser, store=store)
    agree = authority.pages["/authorize"]

    def authorize(seen):
        if set(seen.form["scope"].split()) - set(authority.clients[seen.form["client_id"]]["scope"].split()):
            back = f"{seen.form['redirect_uri']}?error=invalid_scope&state={seen.form['state']}"
            return 302, b"", {"Location": back}
        return agree(seen)

    authority.pages["/authorize"] = authorize
    resource.needs, resource.names_scope = ("a",), True
    assert get(resource, auth).ok
    resource.needs = ("a", "b")
    assert get(resource, auth).ok
    assert [seen.form["scope"] for seen in authority.asked("/register")] == ["a", "a b"]
    with Resource(authority) as other:
        other.needs, other.names_scope = ("z",), True
        assert get(other, auth).ok
    authority.issued.clear()
    assert get(resource, auth).ok
    assert len(browser.opened) == 5
    # The refresh token belongs to the client that got it, not to the latest.
    refreshed = authority.asked("/token")[-1].form
    assert refreshed["grant_type"] == "refresh_token" and refreshed["client_id"] == browser.query(2)["client_id"]
    assert store[f"client {authority.issuer}"]["client_id"] == browser.query(4)["client_id"] != refreshed["client_id"]


def test_a_metadata_document_stands_for_a_registration_where_it_is_read(authority, resource, browser):
    url = "https://client.example.com/metadata.json"
    auth = OAuth("Tests", client_metadata_url=url, login=browser)
    assert auth.client_metadata() == {
        "client_id": url,
        "client_name": "Tests",
        "redirect_uris": ["http://127.0.0.1/callback"],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "application_type": "native",
    }
    authority.metadata["client_id_metadata_document_supported"] = True
    assert get(resource, auth).ok
    assert browser.query()["client_id"] == url and not authority.asked("/register")
    authority.metadata["client_id_metadata_document_supported"] = False
    assert get(resource, OAuth(client_metadata_url=url, login=browser)).ok
    assert len(authority.asked("/register")) == 1 and browser.query()["client_id"].startswith("client-")
    for wrong in ("http://client.example.com/x", "https://client.example.com", "https://client.example.com/"):
        with pytest.raises(ValueError, match="https URL with a path"):
            OAuth(client_metadata_url=wrong)


def test_a_metadata_document_with_a_key_makes_a_confidential_client(authority, resource, browser):
    import jwt
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    authority.metadata["client_id_metadata_document_supported"] = True
    authority.metadata["token_endpoint_auth_methods_supported"] = ["none", "private_key_jwt"]
    url = "https://client.example.com/metadata.json"
    auth = OAuth(client_metadata_url=url, private_key=key, login=browser)
    assert auth.client_metadata()["token_endpoint_auth_method"] == "private_key_jwt"
    assert get(resource, auth).ok
    (token,) = authority.asked("/token")
    claims = jwt.decode(token.form["client_assertion"], key.public_key(), ["ES256"], audience=authority.issuer)
    assert claims["iss"] == claims["sub"] == token.form["client_id"] == url


def test_a_client_that_is_registered_already_does_not_register(authority, resource, browser):
    authority.metadata["token_endpoint_auth_methods_supported"] = ["client_secret_post"]
    auth = OAuth(client_id="me", client_secret="my secret", login=browser, redirect_uri="https://me.example.com/back")
    assert get(resource, auth).ok
    (token,) = authority.asked("/token")
    assert token.form["client_id"] == "me" and token.form["client_secret"] == "my secret"
    assert browser.query()["redirect_uri"] == token.form["redirect_uri"] == "https://me.example.com/back"
    assert not authority.asked("/register")
    assert "my secret" not in repr(auth) + repr(vars(auth)) + repr(auth._grant.credentials)


def test_where_nobody_can_register_the_user_is_told_what_to_do(authority, resource, browser):
    del authority.metadata["registration_endpoint"]
    with pytest.raises(AuthorizationError, match="client_id="):
        get(resource, OAuth(login=browser))
    assert not browser.opened


@pytest.mark.parametrize("reply", [{}, {"client_id": ""}, {"client_id": 7}, {"client_id": "a", "client_secret": 7}, []])
def test_a_registration_that_makes_no_sense_is_refused(authority, resource, browser, reply):
    authority.pages["/register"] = lambda seen: (201, reply, {})
    with pytest.raises(AuthorizationError, match="client_id"):
        get(resource, OAuth(login=browser))
    assert not browser.opened


def test_a_server_without_a_place_to_sign_in_is_no_place_to_sign_in(authority, resource, browser):
    del authority.metadata["authorization_endpoint"]
    with pytest.raises(AuthorizationError, match="no authorization endpoint"):
        get(resource, OAuth(login=browser))


def test_a_redirect_uri_that_is_refused_is_reported_with_what_can_be_done(authority, resource, browser):
    authority.pages["/register"] = lambda seen: (400, {"error": "invalid_redirect_uri"}, {})
    with pytest.raises(AuthorizationError, match="redirect_port=") as caught:
        get(resource, OAuth(login=browser))
    assert caught.value.error == "invalid_redirect_uri" and "127.0.0.1" in str(caught.value)


def test_a_registration_that_the_server_has_forgotten_is_made_again(authority, resource, browser):
    store = {f"client {authority.issuer}": {"client_id": "gone", "redirect_uri": "http://127.0.0.1/callback"}}
    issue = authority.pages["/token"]
    authority.pages["/token"] = lambda seen: (
        (401, {"error": "invalid_client"}, {}) if seen.form["client_id"] == "gone" else issue(seen)
    )
    assert get(resource, OAuth(login=browser, store=store)).ok
    assert [browser.query(index)["client_id"] for index in (0, 1)] == ["gone", "client-2"]
    authority.pages["/token"] = lambda seen: (401, {"error": "invalid_client"}, {})
    with pytest.raises(AuthorizationError) as caught:
        get(resource, OAuth(login=browser))
    assert caught.value.error == "invalid_client" and len(browser.opened) == 4


def test_a_secret_that_has_expired_leads_to_another_registration(authority, resource, browser):
    kept = {
        "client_id": "old",
        "client_secret": "s",
        "redirect_uri": "http://127.0.0.1/callback",
        "secret_expires_at": 1,
    }
    assert get(resource, OAuth(login=browser, store={f"client {authority.issuer}": kept})).ok
    assert len(authority.asked("/register")) == 1


def test_a_web_client_says_that_it_is_one(authority, resource, browser):
    assert get(resource, OAuth(login=browser, redirect_uri="https://me.example.com/back")).ok
    assert authority.asked("/register")[0].form["application_type"] == "web"
    for uri in ("https://me.example.com/back", "http://localhost/back", "https://localhost:1/back"):
        with pytest.raises(ValueError, match="login="):
            OAuth(redirect_uri=uri)
    with pytest.raises(AuthorizationError, match="redirect URI"):
        OAuth(redirect_uri="http://me.example.com/back", login=browser)


# Tokens over time


def test_a_token_in_a_store_outlives_the_program(authority, resource, browser, tmp_path):
    store = FileStore(tmp_path / "tokens.json")
    assert get(resource, OAuth(login=browser, store=store)).ok
    response = get(resource, OAuth(login=browser, store=FileStore(tmp_path / "tokens.json")))
    assert response.ok and not response.history
    authority.issued.clear()
    assert get(resource, OAuth(login=browser, store=FileStore(tmp_path / "tokens.json"))).ok
    assert len(browser.opened) == 1


def test_a_token_is_refreshed_before_it_expires(authority, resource, browser, monkeypatch):
    clock = Clock(time.time())
    monkeypatch.setattr(tokens, "time", SimpleNamespace(time=clock))
    auth = OAuth(login=browser)
    assert get(resource, auth).ok
    clock.now += 3599
    assert [part.status_code for part in get(resource, auth).history] == []
    assert [seen.form["grant_type"] for seen in authority.asked("/token")] == ["authorization_code", "refresh_token"]


def test_a_refresh_token_that_is_not_replaced_is_kept_and_none_is_no_error(authority, resource, browser):
    authority.reply["refresh_token"] = None
    auth = OAuth(login=browser)
    assert get(resource, auth).ok
    authority.issued.clear()
    assert get(resource, auth).ok and len(browser.opened) == 2
    authority.reply["refresh_token"] = "for ever".replace(" ", "-")
    authority.issued.clear()
    assert get(resource, auth).ok and len(browser.opened) == 3
    del authority.reply["refresh_token"]
    for _ in range(2):
        authority.refreshes["for-ever"] = ""
        authority.issued.clear()
        keep, authority.pages["/token"] = authority.pages["/token"], lambda seen: (200, authority.issue(""), {})
        assert get(resource, auth).ok and len(browser.opened) == 3
        authority.pages["/token"] = keep
    assert authority.asked("/token")[-1].form["refresh_token"] == "for-ever"


def test_a_refresh_that_fails_for_now_loses_nothing(authority, resource, browser):
    auth = OAuth(login=browser)
    assert get(resource, auth).ok
    authority.issued.clear()
    issue = authority.pages["/token"]
    authority.pages["/token"] = lambda seen: (503, {}, {})
    with pytest.raises(ConnectionLost):
        get(resource, auth)
    authority.pages["/token"] = issue
    assert get(resource, auth).ok and len(browser.opened) == 1
    authority.issued.clear()
    refuse = {"refresh_token": (500, {}, {})}
    authority.pages["/token"] = lambda seen: refuse.get(seen.form["grant_type"]) or issue(seen)
    for _ in range(2):
        with pytest.raises(ConnectionLost):
            get(resource, auth)
    assert get(resource, auth).ok and len(browser.opened) == 2


def test_a_refresh_is_asked_for_by_the_client_that_is_configured(authority, resource, browser):
    authority.metadata["token_endpoint_auth_methods_supported"] = ["client_secret_post", "none"]
    authority.metadata["client_id_metadata_document_supported"] = True
    url = "https://client.example.com/metadata.json"
    for options, client_id in (({"client_id": "me", "client_secret": "s"}, "me"), ({"client_metadata_url": url}, url)):
        auth = OAuth(login=browser, **options)
        assert get(resource, auth).ok
        authority.issued.clear()
        assert get(resource, auth).ok
        form = authority.asked("/token")[-1].form
        assert form["grant_type"] == "refresh_token" and form["client_id"] == client_id
        assert form.get("client_secret") == options.get("client_secret")
        assert form["resource"] == resource.endpoint


def test_a_token_that_somebody_deleted_is_not_refreshed(authority, resource, browser):
    store = {}
    auth = OAuth(login=browser, store=store)
    authority.reply["expires_in"] = 0.01
    assert get(resource, auth).ok
    for key in [key for key in store if key.startswith("token")]:
        del store[key]
    authority.issued.clear()
    authority.refreshes.clear()
    assert get(resource, auth).ok and len(browser.opened) == 2


def test_a_refresh_that_is_refused_leads_to_the_user(authority, resource, browser):
    auth = OAuth(login=browser)
    assert get(resource, auth).ok
    authority.issued.clear()
    authority.refreshes.clear()
    assert get(resource, auth).ok and len(browser.opened) == 2


def test_a_rotated_refresh_token_is_stored_before_the_new_token_is_used(authority, resource, browser):
    store, seen_then = {}, []
    auth = OAuth(login=browser, store=store)
    assert get(resource, auth).ok
    authority.issued.clear()
    success = resource.success

    def look():
        seen_then.extend(value["refresh_token"] for key, value in store.items() if key.startswith("token"))
        return success()

    resource.success = look
    assert get(resource, auth).ok
    assert seen_then == list(authority.refreshes)


def test_another_process_that_was_faster_is_believed(authority, resource, browser):
    store = {}
    first, second = OAuth(login=browser, store=store), OAuth(login=browser, store=store)
    assert get(resource, first).ok and get(resource, second).ok
    authority.issued.clear()
    assert get(resource, first).ok
    assert get(resource, second).ok
    assert len(browser.opened) == 1
    assert [seen.form["grant_type"] for seen in authority.asked("/token")] == ["authorization_code", "refresh_token"]


# Threads


def run_all(work, count):
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)


def test_threads_that_wait_while_a_user_says_no_fail_together(authority, resource, monkeypatch):
    asked, errors, refused = [], [], set()
    alone = access.ServerTokens._alone

    def watched(self):
        if sys._getframe(1).f_code.co_name == "renew":
            refused.add(threading.get_ident())
        return alone(self)

    monkeypatch.setattr(access.ServerTokens, "_alone", watched)

    def login(url):
        asked.append(url)
        # Until all have been refused, and are about to wait.
        wait_until(lambda: len(asked) > 1 or len(refused) >= 10)
        return "error=access_denied&state=" + url.partition("state=")[2].partition("&")[0]

    auth = OAuth(login=login)

    def work():
        try:
            get(resource, auth)
        except AuthorizationError as error:
            errors.append(error)

    run_all(work, 10)
    assert len(errors) == 10 and {error.error for error in errors} == {"access_denied"}
    assert len(asked) == 1
    with pytest.raises(AuthorizationError):
        get(resource, auth)
    assert len(asked) == 2


def test_a_login_at_one_server_does_not_hold_up_another(authority, resource, browser):
    entered, release = threading.Event(), threading.Event()

    def login(url):
        if entered.is_set():
            return browser(url)
        entered.set()
        assert release.wait(60)
        return browser(url)

    auth = OAuth(login=login)
    thread = threading.Thread(target=get, args=(resource, auth))
    thread.start()
    assert entered.wait(10)
    with Resource(authority) as other:
        assert get(other, auth).ok
    release.set()
    thread.join(10)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_during_a_login_can_sign_in_itself(authority, resource, browser):
    entered, release = threading.Event(), threading.Event()
    parent = os.getpid()

    def login(url):
        if os.getpid() == parent:
            entered.set()
            release.wait(10)
        return browser(url)

    auth = OAuth(login=login)
    thread = threading.Thread(target=get, args=(resource, auth))
    thread.start()
    assert entered.wait(10)
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if get(resource, auth).status_code == 200 else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    release.set()
    thread.join(10)


# Several authorization servers


def test_one_of_several_authorization_servers_is_chosen(authority, browser):
    with Authority("/tenant") as second, Resource(authority, second) as resource:
        assert get(resource, OAuth(login=browser)).ok
        assert browser.opened[-1].startswith(authority.url)
        seen = []
        assert get(resource, OAuth(login=browser, choose=lambda issuers: seen.append(issuers) or issuers[1])).ok
        assert browser.opened[-1].startswith(second.url) and seen == [[authority.issuer, second.issuer]]
        assert get(resource, OAuth(login=browser, issuer=second.issuer)).ok
        assert browser.opened[-1].startswith(second.url)
        store = {f"client {second.issuer}": {"client_id": "known", "redirect_uri": "http://127.0.0.1/callback"}}
        assert get(resource, OAuth(login=browser, store=store)).ok
        assert browser.query()["client_id"] == "known"
        with pytest.raises(AuthorizationError, match="choose="):
            get(resource, OAuth(login=browser, choose=lambda issuers: "https://other.example.com"))


def test_a_client_registers_again_when_the_server_moves_to_another_authorization_server(authority, resource, browser):
    store = {}
    auth = OAuth(login=browser, store=store)
    assert get(resource, auth).ok
    (old,) = authority.issued
    with Authority() as second:
        resource.authorities = [second]
        resource.prm["authorization_servers"] = [second.issuer]
        assert get(resource, auth).ok
        assert len(second.asked("/register")) == 1
        sent = str([(seen.form, dict(seen.headers)) for seen in second.seen])
        assert old not in sent and not any(token in sent for token in authority.refreshes)
        resource.authorities = [authority]
        resource.prm["authorization_servers"] = [authority.issuer]
        assert get(resource, auth).ok
        assert len(authority.asked("/register")) == 1 and len(browser.opened) == 2


def test_credentials_that_belong_to_another_authorization_server_are_not_sent(authority, resource, browser):
    with pytest.raises(AuthorizationError, match="belong to 'https://as.example.com'"):
        get(resource, OAuth(client_id="me", client_secret="s", issuer="https://as.example.com", login=browser))
    assert not authority.seen and not browser.opened
    store = {}
    auth = OAuth(client_id="me", client_secret="s", login=browser, store=store)
    authority.metadata["token_endpoint_auth_methods_supported"] = ["client_secret_basic"]
    assert get(resource, auth).ok
    with Authority() as second:
        resource.authorities, resource.prm["authorization_servers"] = [second], [second.issuer]
        for known in (auth, OAuth(client_id="me", client_secret="s", login=browser, store=store)):
            with pytest.raises(AuthorizationError, match="belong to"):
                get(resource, known)
        assert not second.seen


# Servers of 2025-03-26


def test_a_server_without_any_metadata_has_the_default_places(authority, browser):
    with Authority() as server:
        resource = Resource.__new__(Resource)
        server.pages["/mcp"] = lambda seen: (
            (200, {}, {}) if seen.headers.get("Authorization", "")[7:] in server.issued else (401, {}, {})
        )
        resource.endpoint = f"{server.url}/mcp"
        del server.pages["/.well-known/oauth-authorization-server"]
        assert get(resource, OAuth(login=browser)).ok
        assert browser.opened[0].startswith(f"{server.url}/authorize?")
        paths = [seen.path for seen in server.seen if seen.path.startswith("/.well-known")]
        assert paths == [
            "/.well-known/oauth-protected-resource/mcp",
            "/.well-known/oauth-protected-resource",
            "/.well-known/oauth-authorization-server",
        ]
        (asked,) = server.asked("/.well-known/oauth-authorization-server")
        assert asked.headers["MCP-Protocol-Version"] == "2025-03-26"
        server.pages["/register"] = lambda seen: (404, {}, {})
        with pytest.raises(AuthorizationError, match="token of another kind"):
            get(resource, OAuth(login=browser))


# Servers of the field


@pytest.mark.parametrize("status", [200, 201])
def test_a_token_may_come_as_something_that_was_created(authority, resource, browser, status):
    issue = authority.pages["/token"]
    authority.pages["/token"] = lambda seen: (status, *issue(seen)[1:])
    auth = OAuth(login=browser)
    assert get(resource, auth).ok
    token = next(iter(auth._servers.values()))._tokens
    token.token = {**token.token, "expires_at": 1.0}
    assert get(resource, auth).ok
    grants = [seen.form["grant_type"] for seen in authority.asked("/token")]
    assert grants == ["authorization_code", "refresh_token"]


def test_an_error_with_a_good_status_is_told(authority, resource, browser):
    said = {"error": "bad_verification_code", "error_description": "The code is wrong"}
    authority.pages["/token"] = lambda seen: (200, said, {})
    with pytest.raises(AuthorizationError, match="bad_verification_code: The code is wrong") as caught:
        get(resource, OAuth(login=browser))
    assert caught.value.error == "bad_verification_code"


def test_an_issuer_with_a_lone_slash_is_the_same(authority, resource, browser):
    # The resource names it without, its own metadata with the slash.
    authority.metadata["issuer"] = f"{authority.issuer}/"
    assert get(resource, OAuth(login=browser)).ok
    assert get(resource, OAuth(login=browser, issuer=f"{authority.issuer}/")).ok
    assert get(resource, OAuth(login=browser, issuer=authority.issuer)).ok


@pytest.mark.parametrize(
    "hint", ["/somewhere/else", "https://10.0.0.1/x", "http://internal.example:8080/x", "javascript:x"]
)
def test_a_hint_that_leads_nowhere_is_none(resource, browser, hint):
    challenge = resource.challenge
    resource.challenge = lambda *arguments: (401, b"", {"WWW-Authenticate": f'Bearer resource_metadata="{hint}"'})
    assert challenge(401)
    assert get(resource, OAuth(login=browser)).ok


def test_a_failure_at_the_first_place_leads_to_the_next(authority, resource, browser):
    authority.pages["/.well-known/oauth-authorization-server"] = lambda seen: (500, b"", {})
    authority.pages["/.well-known/openid-configuration"] = lambda seen: (200, authority.metadata, {})
    document = resource.pages.pop("/.well-known/oauth-protected-resource/mcp")
    resource.pages["/.well-known/oauth-protected-resource/mcp"] = lambda seen: (500, b"", {})
    resource.pages["/.well-known/oauth-protected-resource"] = document
    resource.challenge = lambda *arguments: (401, b"", {"WWW-Authenticate": "Bearer"})
    assert get(resource, OAuth(login=browser)).ok


def test_a_failure_everywhere_is_the_reason(resource, browser):
    for path in ("", "/mcp"):
        resource.pages[f"/.well-known/oauth-protected-resource{path}"] = lambda seen: (500, b"", {})
    with pytest.raises(ConnectionLost, match="HTTP 500 for the protected resource metadata"):
        get(resource, OAuth(login=browser))
    assert browser.opened == []
