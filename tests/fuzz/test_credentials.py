"""Any credential: nobody gets in with one that was not issued, and nothing but 401, 403 or 503 comes of it."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("hypothesis")
pytest.importorskip("jwt")
pytest.importorskip("cryptography")
import jwt
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder

from minimcp import Principal, Server, Unauthorized
from minimcp.auth import AuthRequest, ClientCertificate, Introspection, Jwt, Keys
from minimcp.auth.proof import thumbprint_of
from minimcp.engines.http_server.certificates import distinguished_name
from tests.helpers import BOTH, http_headers, modern
from tests.tokens import AUDIENCE, Issuer, forged, new_key, public_jwk

EXAMPLES = int(os.environ.get("MINIMCP_FUZZ_EXAMPLES", "60"))
bounded = settings(
    max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
KEY = "key-of-ann-0123456789"
LIST = modern("tools/call", name="plain", arguments={})
HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
INITIALIZE = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO}
OUTSIDE = (401, 403, 503)


class Door:
    """A server with every kind of verifier, and an issuer whose tokens it takes; `ran` has the calls that got in."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.answer: Any = {"active": False}
        issuer.site.pages["/introspect"] = lambda seen: (200, self.answer, {})
        self.ran: list[str] = []
        self.holder = new_key()
        self.jwk = public_jwk(self.holder)
        self.bound = issuer.token(cnf={"jkt": thumbprint_of(self.jwk)})
        keys = Keys({"ann": {"key": KEY, "roles": ["admin"]}})
        tokens = Jwt(issuer.url, AUDIENCE, dpop=True, private_addresses=True, roles="realm_access.roles")
        self.asking = Introspection(
            issuer.url, "me", "secret", AUDIENCE, dpop=True, private_addresses=True, roles="roles", keep_s=0.0
        )
        self.server = Server("s", auth=[ClientCertificate(), keys, tokens], public_url=AUDIENCE)
        self.opaque = Server("s", auth=[self.asking], public_url=AUDIENCE)
        for server in (self.server, self.opaque):
            server.tool(lambda: self.ran.append("x") or "x", "plain")

    def send(self, server: Server | None = None, message: Any = LIST, **environ: str) -> int:
        """Send a call with these members of the environ, and return the status of a response that is well formed."""
        headers = http_headers(message) if "_meta" in message["params"] else {"Accept": BOTH}
        headers["Content-Type"] = "application/json"
        builder = EnvironBuilder("/mcp", "https://tools.example", method="POST", data=json.dumps(message))
        builder.headers.extend(headers)
        found = {**builder.get_environ(), **environ}
        started: list[Any] = []
        body = (server or self.server).wsgi(found, lambda *given: started.append(given))
        raw = b"".join(body)
        builder.close()
        status = int(started[0][0].split()[0])
        for name, value in started[0][1]:
            assert all(" " <= each <= "~" for each in name + value), (name, value)
        if status != 200:
            assert "error" in json.loads(raw)
            assert any(name == "WWW-Authenticate" for name, _ in started[0][1]) == (status in (401, 403))
        return status

    def refused(self, server: Server | None = None, statuses: tuple[int, ...] = (401,), **environ: str) -> None:
        for message in (LIST, INITIALIZE):
            status = self.send(server, message, **environ)
            assert status in statuses and self.ran == [], (status, environ)

    def proof(self, claims: Any = None, header: Any = None, key: Any = None) -> str:
        known = {
            "jti": str(time.perf_counter_ns()),
            "htm": "POST",
            "htu": AUDIENCE,
            "iat": int(time.time()),
            "ath": plain(hashlib.sha256(self.bound.encode()).digest()),
            **(claims or {}),
        }
        head = {"typ": "dpop+jwt", "jwk": self.jwk, **(header or {})}
        return jwt.encode(known, key or self.holder, "ES256", head)


def plain(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    logging.getLogger("minimcp").setLevel(logging.CRITICAL)
    with Issuer() as issuer:
        yield Door(issuer)
    logging.getLogger("minimcp").setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def nobody(door: Door) -> None:
    door.ran.clear()
    door.answer = {"active": False}


octets = st.text(st.characters(max_codepoint=255), max_size=40)
schemes = st.sampled_from(["Bearer", "bearer", "BEARER", "DPoP", "Basic", "Digest", "Negotiate", "Bearer,", "", "X"])
glue = st.sampled_from([" ", "  ", "\t", "", " = ", ",", " Bearer ", "\x00", "\xa0"])
words = st.one_of(
    octets,
    st.sampled_from(
        [KEY[:-1], KEY + "x", KEY.upper(), f" {KEY}", f"{KEY},{KEY}", "..", "a.b.c", ".", "null", "e30.e30."]
    ),
    st.text("AZaz09-._~+/=", max_size=60),
)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just(10**400), st.just("\ud800")
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def test_what_was_issued_gets_in(door: Door) -> None:
    for found in (
        {"HTTP_AUTHORIZATION": f"Bearer {KEY}"},
        {"HTTP_X_API_KEY": KEY},
        {"HTTP_AUTHORIZATION": f"Bearer {door.issuer.token()}"},
        {"HTTP_AUTHORIZATION": f"DPoP {door.bound}", "HTTP_DPOP": door.proof()},
    ):
        assert door.send(**found) == 200
        assert door.send(message=INITIALIZE, **{**found, "HTTP_DPOP": door.proof()}) == 200
    assert len(door.ran) == 4


@bounded
@given(st.lists(st.tuples(schemes, glue, words), max_size=3), st.none() | octets, st.none() | octets)
def test_any_header_is_refused(door: Door, parts: Any, key: Any, proof: Any) -> None:
    value = "".join(f"{scheme}{between}{word}" for scheme, between, word in parts)
    assume(f"Bearer {KEY}".lower() != " ".join(value.split()).lower())
    environ = {"HTTP_AUTHORIZATION": value}
    environ.update({"HTTP_X_API_KEY": key} if key is not None else {})
    environ.update({"HTTP_DPOP": proof} if proof is not None else {})
    door.refused(**environ)


@bounded
@given(st.integers(0, 2), st.data())
def test_a_token_that_was_changed_is_refused(door: Door, which: int, data: Any) -> None:
    parts = [base64.urlsafe_b64decode(part + "==") for part in door.issuer.token().split(".")]
    raw = bytearray(parts[which])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
        assume(raw)
    assume(bytes(raw) != parts[which])
    parts[which] = bytes(raw)
    token = ".".join(map(plain, parts))
    door.refused(HTTP_AUTHORIZATION=f"Bearer {token}")


heads = st.fixed_dictionaries(
    {"alg": st.sampled_from(["none", "None", "HS256", "ES256", "RS256", "ES512", "EdDSA", ""]) | values},
    optional={
        "kid": st.sampled_from(["first", "../../dev/null", "' OR 1=1 --", "x" * 2000]) | values,
        "typ": st.sampled_from(["at+jwt", "JWT", "dpop+jwt"]) | values,
        "jwk": values,
        "jku": st.just("http://127.0.0.1:1/keys"),
        "x5u": st.just("file:///etc/passwd"),
        "cty": values,
        "crit": values,
        "b64": st.just(False),
    },
)


@bounded
@given(heads, st.sampled_from(["", "x", "y" * 86]), st.booleans())
def test_a_token_that_the_issuer_did_not_sign_is_refused(door: Door, head: Any, signature: str, own: bool) -> None:
    claims = door.issuer.claims()
    door.refused(HTTP_AUTHORIZATION=f"Bearer {forged(head, claims, signature.encode())}")
    # Signed by a stranger, whose key is inside if it wants; and by the issuer's public key, as if it were a secret.
    head = {**head, "alg": "ES256", **({"jwk": public_jwk(door.holder)} if own else {})}
    head = {name: value for name, value in head.items() if name not in ("b64", "crit")}
    try:
        token = jwt.encode(claims, door.holder, "ES256", head)
    except (TypeError, ValueError, jwt.PyJWTError):
        return
    door.refused(HTTP_AUTHORIZATION=f"Bearer {token}")


claimed = st.dictionaries(
    st.sampled_from(
        ["exp", "nbf", "iat", "aud", "sub", "scope", "scp", "realm_access", "cnf", "client_id", "azp", "iss"]
    ),
    values | st.sampled_from([AUDIENCE, [AUDIENCE], {"roles": ["admin"]}, {"roles": 5}, {"jkt": "x"}, 4e9]),
    max_size=4,
)


def is_time(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@bounded
@given(claimed)
def test_claims_of_any_form_get_in_only_where_they_say_what_is_needed(door: Door, given: Any) -> None:
    claims = {**door.issuer.claims(), **given}
    try:
        token = sign(door, claims)
    except (ValueError, UnicodeError):
        return
    status = door.send(HTTP_AUTHORIZATION=f"Bearer {token}")
    assert status in (200, *OUTSIDE)
    if status == 200:
        audience = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        assert is_time(claims["exp"]) and claims["exp"] > time.time() - 60
        assert AUDIENCE in audience and claims["iss"] == door.issuer.url and claims.get("cnf") is None
        assert isinstance(claims["sub"], str) or claims.get("client_id") or claims.get("azp")
        assert door.send(message=INITIALIZE, HTTP_AUTHORIZATION=f"Bearer {token}") == 200
    door.ran.clear()


def sign(door: Door, claims: Any) -> str:
    """Sign claims as they are, without the checks of a library that issues tokens."""
    key, algorithm = door.issuer.keys["first"]
    payload = json.dumps(claims).encode()
    return str(jwt.api_jws.PyJWS().encode(payload, key, algorithm, {"kid": "first", "typ": "at+jwt"}))


@bounded
@given(
    st.dictionaries(
        st.sampled_from(["active", "exp", "nbf", "aud", "iss", "sub", "token_type", "cnf", "scope"]), values
    )
)
def test_an_answer_of_any_form_gets_in_only_where_it_says_what_is_needed(door: Door, answer: Any) -> None:
    door.answer = json.loads(json.dumps({"sub": "ann", "aud": AUDIENCE, "active": True, **answer}))
    door.asking._answers.clear()
    status = door.send(door.opaque, HTTP_AUTHORIZATION="Bearer opaque")
    assert status in (200, *OUTSIDE)
    if status == 200:
        assert door.answer["active"] is True and door.answer.get("cnf") is None
        assert AUDIENCE in door.answer["aud"] and isinstance(door.answer["sub"], str) and door.answer["sub"]
    door.ran.clear()


@bounded
@given(st.one_of(st.binary(max_size=50), values.map(lambda value: json.dumps(value).encode())))
def test_an_answer_that_is_none_lets_nobody_in(door: Door, raw: bytes) -> None:
    assume(b"active" not in raw)
    door.answer = raw
    door.asking._answers.clear()
    door.refused(door.opaque, OUTSIDE, HTTP_AUTHORIZATION="Bearer opaque")


wrong_proof = st.one_of(
    st.tuples(st.sampled_from(["htm", "htu", "ath", "iat"]), values | st.just("GET")).map(
        lambda pair: (dict([pair]), {})
    ),
    st.tuples(st.just("jti"), scalars.filter(lambda value: not isinstance(value, str))).map(lambda p: (dict([p]), {})),
    st.tuples(st.sampled_from(["typ", "crit", "jwk"]), values).map(lambda pair: ({}, dict([pair]))),
)


@bounded
@given(wrong_proof)
def test_a_proof_with_a_wrong_member_is_refused(door: Door, wrong: Any) -> None:
    try:
        proof = door.proof(*wrong)
    except (TypeError, ValueError, jwt.PyJWTError, UnicodeError):
        return
    door.refused(HTTP_AUTHORIZATION=f"DPoP {door.bound}", HTTP_DPOP=proof)


@bounded
@given(st.data())
def test_a_bound_token_is_refused_without_its_own_proof(door: Door, data: Any) -> None:
    good = door.proof()
    place = data.draw(st.integers(0, len(good) - 1))
    other = new_key()
    proofs = data.draw(
        st.sampled_from(
            [
                good[:place],
                good[place + 1 :],
                f"{good},{door.proof()}",
                f"{good}, {good}",
                f" {good} {good}",
                door.bound,
                door.proof(key=other),
                door.proof(key=other, header={"jwk": public_jwk(other)}),
                forged({"alg": "none", "typ": "dpop+jwt", "jwk": door.jwk}, {}),
                "",
            ]
        )
        | octets
    )
    door.refused(HTTP_AUTHORIZATION=f"DPoP {door.bound}", HTTP_DPOP=proofs)
    door.refused(HTTP_AUTHORIZATION=f"Bearer {door.bound}", HTTP_DPOP=door.proof())
    door.refused(HTTP_AUTHORIZATION=f"DPoP {door.issuer.token()}", HTTP_DPOP=door.proof())


names = st.sampled_from(["commonName", "organizationName", "organizationalUnitName", "userId", "1.2.3.4"])
parts = st.lists(
    st.lists(
        st.tuples(names, st.text(max_size=6) | st.sampled_from(["a,O=b", "a+CN=b", "\\", " x "])),
        min_size=1,
        max_size=2,
    ),
    max_size=3,
)


@bounded
@given(parts, parts, st.lists(st.tuples(st.sampled_from(["DNS", "URI", "email"]), st.text(max_size=6)), max_size=2))
def test_two_certificates_are_one_principal_only_where_they_name_one(one: Any, other: Any, alternatives: Any) -> None:
    assert (distinguished_name(one) == distinguished_name(other)) == (one == other)
    found = {"notAfter": "Jan  1 00:00:00 2090 GMT", "subject": one, "issuer": other, "subjectAltName": alternatives}
    try:
        principal = ClientCertificate().verify(AuthRequest({"minimcp.client_certificate": found}, "", ""))
    except Unauthorized:
        assert not one and not alternatives
    else:
        assert isinstance(principal, Principal) and principal.issuer == distinguished_name(other)
