"""Access tokens that are JSON Web Tokens: whose, for whom, until when, signed by whom and how."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

pytest.importorskip("jwt")
pytest.importorskip("cryptography")

from werkzeug.test import Client

from minimcp import Context, Server, Unauthorized
from minimcp.auth import AuthRequest, Jwt
from minimcp.auth.claims import Verified
from tests.helpers import http_headers, modern
from tests.tokens import AUDIENCE, Issuer, forged, new_key, public_jwk

WHO = modern("tools/call", name="who")


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


def verifier(issuer: Issuer, audience: Any = AUDIENCE, **options: Any) -> Jwt:
    return Jwt(issuer.url, audience, private_addresses=True, **options)


def verify(checker: Jwt, token: str, scheme: str = "Bearer", resource: str = "") -> Any:
    return checker.verify(AuthRequest({"HTTP_AUTHORIZATION": f"{scheme} {token}"}, "", resource))


def answer(server: Server, token: str) -> Any:
    headers = http_headers(WHO, Authorization=f"Bearer {token}", Host="tools.example")
    return Client(server.wsgi).post("/mcp", "http://tools.example", data=json.dumps(WHO), headers=headers)


def test_the_caller_of_a_token(issuer: Issuer) -> None:
    server = Server("s", auth=verifier(issuer, None, roles="realm_access.roles"), public_url=AUDIENCE)

    @server.tool
    def who(ctx: Context) -> dict:
        found = ctx.principal
        return {"key": list(found.key), "scopes": list(found.scopes), "roles": list(found.roles), "via": found.via}

    token = issuer.token(scope="read write", realm_access={"roles": ["admin"]}, azp="app")
    for _ in range(2):
        found = answer(server, token).json["result"]["structuredContent"]
        assert found == {"key": [issuer.url, "ann"], "scopes": ["read", "write"], "roles": ["admin"], "via": "app"}
    # The keys were asked for once, and the second time the token was known.
    assert [seen.path for seen in issuer.site.seen] == ["/.well-known/oauth-authorization-server", "/keys"]


@pytest.mark.parametrize(
    "claims, problem",
    [
        ({"aud": "https://other.example/mcp"}, "not issued for this server"),
        ({"aud": AUDIENCE + "/"}, "not issued for this server"),
        ({"aud": ["https://other.example"]}, "not issued for this server"),
        ({"aud": None}, "not issued for this server"),
        ({"aud": {"0": AUDIENCE}}, "not issued for this server"),
        ({"exp": timedelta(seconds=-60)}, "has expired"),
        ({"exp": None}, "has no exp"),
        ({"exp": "never"}, "exp is not a number"),
        ({"exp": True}, "exp is not a number"),
        ({"exp": float("nan")}, "has expired"),
        ({"exp": -(10**400)}, "has expired"),
        ({"nbf": 10**400}, "not valid yet"),
        ({"nbf": timedelta(seconds=120)}, "not valid yet"),
        ({"iat": timedelta(seconds=120)}, "not valid yet"),
        ({"nbf": "soon"}, "nbf is not a number"),
        ({"sub": None}, "sub names nobody"),
        ({"sub": ""}, "sub names nobody"),
        ({"sub": 5}, "sub names nobody"),
        ({"cnf": {"jkt": "x"}}, "scheme do not go together"),
        ({"cnf": {"x5t#S256": "x"}}, "bound in a way"),
    ],
)
def test_claims_that_are_refused(issuer: Issuer, claims: dict[str, Any], problem: str) -> None:
    with pytest.raises(Unauthorized, match=problem):
        verify(verifier(issuer), issuer.token(**claims))


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": timedelta(seconds=-20)},
        {"nbf": timedelta(seconds=20)},
        {"aud": ["https://a.example", AUDIENCE]},
        {"exp": float("inf")},
        {"exp": 10**400},
    ],
)
def test_claims_that_are_accepted(issuer: Issuer, claims: dict[str, Any]) -> None:
    assert verify(verifier(issuer), issuer.token(**claims)).id == "ann"


@pytest.mark.parametrize(
    "header, problem",
    [
        ({"typ": "dpop+jwt"}, "another kind"),
        ({"typ": "logout+jwt"}, "another kind"),
        ({"typ": 5}, "another kind"),
        ({"cty": "JWT"}, "another kind"),
        ({"crit": ["exp"], "exp": 1}, "another kind"),
        ({"kid": "../../first"}, "a key that its issuer does not have"),
        ({"kid": "' OR 1=1"}, "a key that its issuer does not have"),
        ({"kid": "k" * 2000}, "kid is not a name"),
        ({"kid": ""}, "kid is not a name"),
        ({"jku": "https://evil.example/keys", "kid": "unknown"}, "a key that its issuer does not have"),
    ],
)
def test_headers_that_are_refused(issuer: Issuer, header: dict[str, Any], problem: str) -> None:
    checker = verifier(issuer)
    verify(checker, issuer.token())
    with pytest.raises(Unauthorized, match=problem):
        verify(checker, issuer.token(header=header) if "kid" not in header else _with_kid(issuer, header))


def _with_kid(issuer: Issuer, header: dict[str, Any]) -> str:
    import jwt

    key, algorithm = issuer.keys["first"]
    return jwt.encode(issuer.claims(), key, algorithm, {"typ": "at+jwt", **header})


def test_a_signature_of_another_key_or_none_is_refused(issuer: Issuer) -> None:
    import jwt

    checker, claims = verifier(issuer), issuer.claims()
    other = jwt.encode(claims, new_key(), "ES256", {"kid": "first"})
    own_key = jwt.encode(claims, new_key(), "ES256", {"kid": "first", "jwk": public_jwk(new_key())})
    good = issuer.token()
    changed = good[:-8] + ("AAAAAAAA" if good[-8:] != "AAAAAAAA" else "BBBBBBBB")
    bodies = good.split(".")
    swapped = ".".join([bodies[0], forged({}, issuer.claims(sub="root")).split(".")[1], bodies[2]])
    for token in (other, own_key, changed, swapped):
        with pytest.raises(Unauthorized, match="signature is not valid"):
            verify(checker, token)
    for algorithm in ("none", "None", "NONE", "HS256", "HS512", "", None, 5, ["ES256"]):
        with pytest.raises(Unauthorized, match="algorithm that is not accepted"):
            verify(checker, forged({"alg": algorithm, "kid": "first"}, claims))


def test_a_public_key_is_never_taken_for_a_secret(issuer: Issuer) -> None:
    from cryptography.hazmat.primitives import serialization

    issuer.keys["first"] = (new_key("RSA"), "RS256")
    public = issuer.keys["first"][0].public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    unsigned = forged({"alg": "HS256", "kid": "first"}, issuer.claims()).rpartition(".")[0]
    signature = base64.urlsafe_b64encode(hmac.new(pem, unsigned.encode(), hashlib.sha256).digest()).decode().rstrip("=")
    assert verify(verifier(issuer), issuer.token()).id == "ann"
    with pytest.raises(Unauthorized, match="algorithm that is not accepted"):
        verify(verifier(issuer), f"{unsigned}.{signature}")
    for wrong in ("HS256", "none", "RS1", "ES256K"):
        with pytest.raises(ValueError, match="are not accepted"):
            verifier(issuer, algorithms=[wrong])


@pytest.mark.parametrize("kind, algorithm", [("RSA", "RS256"), ("RSA", "PS256"), ("EC", "ES256"), ("OKP", "EdDSA")])
def test_keys_of_every_kind(issuer: Issuer, kind: str, algorithm: str) -> None:
    issuer.keys["first"] = (new_key(kind), algorithm)
    assert verify(verifier(issuer), issuer.token()).id == "ann"
    with pytest.raises(Unauthorized, match="algorithm that is not accepted"):
        verify(verifier(issuer, algorithms=["ES512"]), issuer.token())


@pytest.mark.parametrize(
    "token",
    ["opaque", "a.b", "a.b.c", "a.b.c.d.e", "..", "e30.e30.e30", "\xe9.b.c", "x" * 20_000 + ".e30.e30", "W10.W10.x"],
)
def test_what_is_no_token_of_the_issuer_is_left_to_others(issuer: Issuer, token: str) -> None:
    assert verify(verifier(issuer), token) is None
    assert verify(verifier(issuer), forged({"alg": "ES256"}, issuer.claims(iss=issuer.url + "/"))) is None
    assert verify(verifier(issuer), issuer.token(), scheme="Basic") is None
    assert issuer.site.seen == []


@pytest.mark.parametrize(
    "claims, roles, found",
    [
        ({"roles": ["a", "b"]}, "roles", ("a", "b")),
        ({"roles": "a b"}, "roles", ("a", "b")),
        ({"realm_access": {"roles": ["a"]}, "resource_access": {"app": {"roles": ["b", "a"]}}}, None, ("a", "b")),
        ({"cognito:groups": ["staff"]}, "cognito:groups", ("staff",)),
        ({"https://a.example/roles": ["x"]}, "https://a.example/roles", ("x",)),
        ({"permissions": ["read:all"]}, "permissions", ("read:all",)),
        ({}, "realm_access.roles", ()),
        ({"realm_access": None}, "realm_access.roles", ()),
        ({"realm_access": ["roles"]}, "realm_access.roles", ()),
        ({"roles": {"admin": True}}, "roles", ()),
        ({"roles": [5, None, "", "a"]}, "roles", ("a",)),
        ({"groups": ["x"]}, lambda claims: [f"group-{name}" for name in claims["groups"]], ("group-x",)),
    ],
)
def test_roles_are_where_the_provider_puts_them(issuer: Issuer, claims: Any, roles: Any, found: Any) -> None:
    where = roles or ("realm_access.roles", "resource_access.app.roles")
    assert verify(verifier(issuer, roles=where), issuer.token(**claims)).roles == found


@pytest.mark.parametrize(
    "claims, found",
    [
        ({"scope": "a b"}, ("a", "b")),
        ({"scope": ["a", "b"]}, ("a", "b")),
        ({"scp": "a b"}, ("a", "b")),
        ({"scp": ["a"]}, ("a",)),
        ({"scope": 5}, ()),
    ],
)
def test_scopes_are_a_string_or_a_list(issuer: Issuer, claims: Any, found: Any) -> None:
    assert verify(verifier(issuer), issuer.token(**claims)).scopes == found


def test_a_program_without_a_user_is_its_client(issuer: Issuer) -> None:
    assert verify(verifier(issuer), issuer.token(sub=None, client_id="robot")).id == "robot"
    assert verify(verifier(issuer, id="email"), issuer.token(email="a@b.example")).id == "a@b.example"
    with pytest.raises(Unauthorized, match="email names nobody"):
        verify(verifier(issuer, id="email"), issuer.token(client_id="robot"))


def test_a_rotated_key_is_fetched_once_and_unknown_ones_do_not_flood_the_issuer(issuer: Issuer) -> None:
    checker = verifier(issuer)
    old = issuer.token()
    assert verify(checker, old).id == "ann"
    keys = checker._keys[issuer.url]
    keys._refetch_s = 0
    issuer.keys = {"second": (new_key(), "ES256")}
    assert verify(checker, issuer.token("second")).id == "ann"
    # What the old key had signed is not remembered any longer.
    keys._refetch_s = 3600
    with pytest.raises(Unauthorized, match="does not have"):
        verify(checker, old)
    asked = len(issuer.site.seen)
    issuer.keys["third"] = (new_key(), "ES256")
    for _ in range(20):
        with pytest.raises(Unauthorized, match="does not have"):
            verify(checker, issuer.token("third", jti=str(_)))
    assert len(issuer.site.seen) == asked


@pytest.mark.parametrize(
    "page",
    [
        lambda seen: (500, {}, {}),
        lambda seen: (200, b"<html>", {}),
        lambda seen: (200, {"keys": "none"}, {}),
        lambda seen: (200, {"keys": []}, {}),
        lambda seen: (200, {"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "first"}]}, {}),
        lambda seen: (200, {"keys": [{"kty": "EC"}] * 200}, {}),
        lambda seen: (200, b"[" * 300_000, {}),
        lambda seen: (302, {}, {"Location": "http://169.254.169.254/latest"}),
        lambda seen: (302, {}, {"Location": "/keys"}),
    ],
)
def test_an_issuer_that_does_not_answer_lets_nobody_in_and_breaks_nothing(issuer: Issuer, page: Any) -> None:
    issuer.site.pages["/keys"] = page
    server = Server("s", auth=verifier(issuer), public_url=AUDIENCE)
    server.tool(lambda: "x", "who")
    refused = answer(server, issuer.token())
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    assert "Traceback" not in refused.text and issuer.url not in refused.text
    # Asked again at once, it is not asked again.
    asked = len(issuer.site.seen)
    assert answer(server, issuer.token()).status_code == 503 and len(issuer.site.seen) == asked


def test_a_warm_server_goes_on_with_the_keys_it_knows(issuer: Issuer) -> None:
    checker = verifier(issuer)
    verify(checker, issuer.token())
    issuer.site.pages["/keys"] = lambda seen: (500, {}, {})
    keys = checker._keys[issuer.url]
    keys._refetch_s = keys._keep_s = 0
    assert verify(checker, issuer.token(jti="2")).id == "ann"
    assert len(issuer.site.asked("/keys")) == 2


def test_keys_may_be_given(issuer: Issuer) -> None:
    assert verify(verifier(issuer, jwks=issuer.document()), issuer.token()).id == "ann"
    assert issuer.site.seen == []
    assert verify(verifier(issuer, jwks=issuer.url + "/keys"), issuer.token()).id == "ann"
    assert [seen.path for seen in issuer.site.seen] == ["/keys"]


def test_many_threads_fetch_the_keys_once(issuer: Issuer) -> None:
    checker, found = verifier(issuer), []
    tokens = [issuer.token(jti=str(number)) for number in range(16)]
    threads = [threading.Thread(target=lambda token=token: found.append(verify(checker, token).id)) for token in tokens]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == ["ann"] * 16 and len(issuer.site.asked("/keys")) == 1


def test_an_issuer_on_a_private_network_needs_a_word(issuer: Issuer) -> None:
    site = issuer.url.replace("127.0.0.1", "10.0.0.1")
    checker = Jwt(site, AUDIENCE)
    with pytest.raises(Exception, match="private|https"):
        verify(checker, forged({"alg": "ES256", "kid": "x"}, issuer.claims(iss=site)))


def test_the_audience_cannot_be_left_out(issuer: Issuer) -> None:
    for wrong in ("", (), []):
        if wrong == "":
            continue
        with pytest.raises(ValueError, match="audience= is empty"):
            Jwt(issuer.url, wrong)
    with pytest.raises(ValueError, match="Name the audience"):
        Server("s", auth=Jwt(issuer.url))
    # A Host that the sender chose is no audience.
    with pytest.raises(Unauthorized, match="not issued for this server"):
        verify(verifier(issuer, None), issuer.token(aud="http://localhost/mcp"))


def test_settings_that_are_refused(issuer: Issuer) -> None:
    with pytest.raises(ValueError, match="one issuer"):
        Jwt([issuer.url, "https://b.example"], AUDIENCE, jwks={"keys": []})
    with pytest.raises(ValueError, match="leeway_s"):
        Jwt(issuer.url, AUDIENCE, leeway_s=3600)


def test_the_tokens_that_are_remembered_are_bounded() -> None:
    known = Verified(limit=100)
    for number in range(1000):
        known.put(b"%d" % number, time.time() + 60, number)
    assert len(known) == 100 and known.get(b"999") == 999 and known.get(b"1") is None
    known.put(b"old", time.time() - 1, 1)
    assert known.get(b"old") is None
