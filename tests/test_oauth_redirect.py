"""The door that the browser comes back to, and what comes in with it."""

from __future__ import annotations

import socket
import threading
from urllib.parse import parse_qs

import pytest
import requests

from minimcp.engines.errors import AuthorizationError, Timeout
from minimcp.engines.oauth.redirect import Receiver, RedirectHandler, read_answer
from tests.helpers import free_port

ISSUER = "https://as.example.com"


@pytest.fixture
def receiver():
    made = Receiver()
    made.expect("right")
    yield made
    made.close()


def visit(receiver, target, **headers):
    return requests.get(f"http://127.0.0.1:{receiver.port}{target}", headers=headers, timeout=30)


def test_one_redirect_comes_in_and_no_second(receiver):
    assert receiver.uri == f"http://127.0.0.1:{receiver.port}/callback"
    first = visit(receiver, "/callback?code=c&state=right")
    assert first.status_code == 200 and first.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert first.headers["Cache-Control"] == "no-store" and first.headers["X-Content-Type-Options"] == "nosniff"
    assert visit(receiver, "/callback?code=d&state=right").status_code == 410
    assert receiver.wait(30) == "code=c&state=right"


def test_the_page_is_sent_before_the_program_goes_on_and_may_end(receiver, monkeypatch):
    waiting, end = [], RedirectHandler.end_headers

    def look(handler):
        waiting.append(receiver._found.empty())
        end(handler)

    monkeypatch.setattr(RedirectHandler, "end_headers", look)
    assert visit(receiver, "/callback?code=c&state=right").status_code == 200
    assert receiver.wait(30) == "code=c&state=right" and waiting == [True]


@pytest.mark.parametrize(
    ("target", "headers", "status"),
    [
        ("/", {}, 404),
        ("/callback/x?code=c&state=right", {}, 404),
        ("/callback", {}, 400),
        ("/callback?code=c&state=wrong", {}, 400),
        ("/callback?code=c&state=right&state=right", {}, 400),
        ("/callback?code=c&state=r%C3%AFght", {}, 400),
        ("/callback?state=right&" + "&".join(["a=b"] * 99), {}, 400),
        ("/callback?code=c&state=right&x=" + "y" * 9000, {}, 400),
        ("/callback?code=c&state=right", {"Host": "evil.example.com"}, 403),
        ("/callback?code=c&state=right", {"Host": "127.0.0.1"}, 403),
    ],
)
def test_what_is_not_the_redirect_is_refused_and_does_not_count(receiver, target, headers, status):
    assert visit(receiver, target, **headers).status_code == status
    assert visit(receiver, "/callback?code=c&state=right").status_code == 200


def test_nothing_that_comes_in_is_on_the_page(receiver):
    text = visit(receiver, "/callback?error=<script>alert(1)</script>&state=right").text
    assert "script" not in text and "alert" not in text


def test_only_this_machine_can_connect_and_only_get_is_answered(receiver):
    assert receiver.server_address[0] == "127.0.0.1"
    assert requests.post(receiver.uri, data="state=right", timeout=30).status_code == 501


def test_connections_that_a_browser_opens_and_never_uses_do_not_block(receiver):
    with socket.create_connection(("127.0.0.1", receiver.port)):
        assert visit(receiver, "/callback?code=c&state=right").status_code == 200


def test_no_name_is_looked_up(monkeypatch):
    monkeypatch.setattr(socket, "getfqdn", lambda *_: pytest.fail("a name was looked up"))
    Receiver().close()


def test_nobody_comes():
    receiver = Receiver()
    receiver.expect("right")
    with pytest.raises(Timeout, match="no authorization response"):
        receiver.wait(0.01)
    receiver.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "minimcp-redirect"]
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", receiver.port), timeout=1)


def test_a_port_that_was_used_can_be_used_again_at_once_and_one_in_use_cannot(receiver):
    with pytest.raises(OSError):
        Receiver(receiver.uri)
    visit(receiver, "/callback?code=c&state=right")
    receiver.close()
    again = Receiver(f"http://localhost:{receiver.port}/other/place")
    again.expect("right")
    assert again.uri == f"http://localhost:{receiver.port}/other/place"
    assert visit(again, "/callback?code=c&state=right").status_code == 404
    assert requests.get(f"{again.uri}?code=c&state=right", timeout=30).status_code == 200
    again.close()


def answer(query, promised=False):
    return read_answer(query, "right", ISSUER, promised)


def test_the_code_is_taken_out_of_a_url_or_a_query():
    assert answer("code=c&state=right") == "c"
    assert answer("?code=c&state=right") == "c"
    assert answer("http://127.0.0.1:1/callback?code=c%20d&state=right") == "c d"
    assert answer("  app.example.long-scheme:/back?code=c&state=right#_=_\n") == "c"


@pytest.mark.parametrize("query", ["code=c", "code=c&state=wrong", "code=c&state=", "error=x&error_description=evil"])
def test_an_answer_with_another_state_is_discarded(query):
    with pytest.raises(AuthorizationError, match="another state") as caught:
        answer(query)
    assert "evil" not in str(caught.value)


def test_the_issuer_is_compared_as_it_is_written():
    right = "code=c&state=right&iss=https%3A%2F%2Fas.example.com"
    assert answer(right) == answer(right, promised=True) == "c"
    assert answer("code=c&state=right") == "c"
    with pytest.raises(AuthorizationError, match="lacks the issuer"):
        answer("code=c&state=right", promised=True)
    for other in (
        "https://as.example.com/",
        "https://AS.example.com",
        "https://as.example.com:443",
        "",
        "https://evil",
    ):
        for promised in (False, True):
            with pytest.raises(AuthorizationError, match="another issuer"):
                answer(f"code=c&state=right&iss={other}", promised)


def test_what_an_answer_of_another_issuer_says_is_not_shown():
    with pytest.raises(AuthorizationError) as caught:
        answer("error=evil_code&error_description=evil+text&state=right&iss=https://evil")
    assert "evil" not in str(caught.value) and caught.value.error == ""


def test_a_refusal_is_told_without_control_characters():
    with pytest.raises(AuthorizationError) as caught:
        answer("error=access_denied&error_description=not%0d%0atoday%1b[31m&state=right")
    assert str(caught.value) == "The authorization server refused: access_denied: not today [31m"
    assert caught.value.error == "access_denied"


@pytest.mark.parametrize(
    "query",
    [
        "state=right",
        "code=&state=right",
        "code=a&code=b&state=right",
        "state=right&" + "x" * 9000,
        "state=right&code=c&" + "&".join(["a=b"] * 99),
    ],
)
def test_an_answer_without_one_code_is_refused(query):
    with pytest.raises(AuthorizationError):
        answer(query)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.0.0.2"])
def test_it_listens_where_the_uri_says(host):
    port = free_port()
    try:
        receiver = Receiver(f"http://{host}:{port}/cb")
    except OSError:
        pytest.skip("this machine has no such address")
    receiver.expect("right")
    try:
        answer = requests.get(f"http://{host}:{port}/cb", params={"state": "right", "code": "c"}, timeout=30)
        assert answer.status_code == 200
        assert parse_qs(receiver.wait(20)) == {"state": ["right"], "code": ["c"]}
        assert requests.get(f"http://{host}:{port}/cb", headers={"Host": f"evil:{port}"}, timeout=30).status_code == 403
    finally:
        receiver.close()
