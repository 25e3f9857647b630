"""OAuth with a user, from the first 401 to a refreshed token, as `auth=` of plain requests."""

from __future__ import annotations

import base64
import hashlib
import threading

import pytest
import requests

from minimcp.client.oauth import OAuth
from minimcp.protocol.errors import AuthorizationError
from tests.authority import Authority, Browser, Resource


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
