"""Opaque tokens: the authorization server is asked, its answer is held against this server, and kept for a while."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

pytest.importorskip("jwt")
pytest.importorskip("cryptography")

from werkzeug.test import Client

from minimcp import Server, Unauthorized
from minimcp.auth import AuthRequest, Introspection
from tests.helpers import http_headers, modern
from tests.tokens import AUDIENCE, Issuer, from_now

LIST = modern("tools/list")


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


def asking(issuer: Issuer, reply: Any = None, status: int = 200, **options: Any) -> Introspection:
    """Return a verifier whose issuer gives this reply, by default for an active token."""
    known = {"active": True, "sub": "ann", "aud": AUDIENCE, "scope": "read", "client_id": "app"}
    found = from_now({**known, **reply}) if isinstance(reply, dict) else known if reply is None else reply
    issuer.site.pages["/introspect"] = lambda seen: (status, found, {})
    return Introspection(issuer.url, "me", "my:secret", AUDIENCE, private_addresses=True, **options)


def verify(checker: Introspection, token: str = "opaque", scheme: str = "Bearer") -> Any:
    return checker.verify(AuthRequest({"HTTP_AUTHORIZATION": f"{scheme} {token}"}, "", AUDIENCE))


def test_the_caller_of_a_token(issuer: Issuer) -> None:
    checker = asking(issuer)
    for _ in range(3):
        found = verify(checker)
        assert (found.key, found.scopes, found.via) == ((issuer.url, "ann"), ("read",), "app")
    asked = issuer.site.asked("/introspect")
    assert len(asked) == 1 and asked[0].form == {"token": "opaque", "token_type_hint": "access_token"}
    pair = base64.b64decode(asked[0].headers["Authorization"].split()[1]).decode()
    assert pair == "me:my%3Asecret"


@pytest.mark.parametrize("active", [False, None, "true", 1, {}])
def test_a_token_that_is_not_active_is_nobodys_and_that_is_remembered_too(issuer: Issuer, active: Any) -> None:
    checker = asking(issuer, {"active": active})
    assert verify(checker) is None and verify(checker) is None
    assert len(issuer.site.asked("/introspect")) == 1


@pytest.mark.parametrize(
    "reply, problem",
    [
        ({"aud": "https://other.example"}, "not issued for this server"),
        ({"aud": None}, "not issued for this server"),
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"exp": timedelta(seconds=-60)}, "has expired"),
        ({"nbf": timedelta(seconds=60)}, "not valid yet"),
        ({"token_type": "refresh_token"}, "another kind"),
        ({"sub": "", "client_id": ""}, "names nobody"),
        ({"cnf": {"jkt": "x"}}, "do not go together"),
    ],
)
def test_answers_that_are_refused(issuer: Issuer, reply: Any, problem: str) -> None:
    with pytest.raises(Unauthorized, match=problem):
        verify(asking(issuer, reply))


@pytest.mark.parametrize("reply, status", [({}, 500), ({}, 401), (b"<html>", 200), ([], 200), ({}, 302)])
def test_an_issuer_that_does_not_answer_lets_nobody_in(issuer: Issuer, reply: Any, status: int) -> None:
    server = Server("s", auth=asking(issuer, reply, status), public_url=AUDIENCE)
    headers = http_headers(LIST, Authorization="Bearer opaque")
    answer = Client(server.wsgi).post("/mcp", "http://tools.example", data=json.dumps(LIST), headers=headers)
    assert answer.status_code == 503 and "opaque" not in answer.text


def test_an_answer_is_asked_for_again_after_a_while(issuer: Issuer) -> None:
    checker = asking(issuer, keep_s=-1)
    verify(checker)
    issuer.site.pages["/introspect"] = lambda seen: (200, {"active": False}, {})
    assert verify(checker) is None


def test_what_is_no_bearer_token_is_asked_about_nowhere(issuer: Issuer) -> None:
    checker = asking(issuer)
    assert verify(checker, scheme="Basic") is None and verify(checker, "x" * 20_000) is None
    assert issuer.site.seen == []


def test_the_audience_cannot_be_left_out(issuer: Issuer) -> None:
    with pytest.raises(ValueError, match="audience= is empty"):
        Introspection(issuer.url, "me", "secret", ())
    with pytest.raises(ValueError, match="Name the audience"):
        Server("s", auth=Introspection(issuer.url, "me", "secret"))
