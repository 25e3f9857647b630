"""DPoP at the server: a token bound to a key is worth nothing without fresh proof of that key."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("jwt")
pytest.importorskip("cryptography")

from werkzeug.test import Client

from minimcp import Server
from minimcp.auth import Jwt
from minimcp.auth.proof import thumbprint_of
from minimcp.engines.oauth.dpop import Prover
from tests.helpers import http_headers, modern
from tests.tokens import AUDIENCE, Issuer, new_key, public_jwk

LIST = modern("tools/list")


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


def protected(issuer: Issuer, dpop: Any = True, **options: Any) -> Server:
    auth = Jwt(issuer.url, AUDIENCE, dpop=dpop, private_addresses=True, **options)
    server = Server("s", auth=auth, public_url=AUDIENCE)
    server.tool(lambda: "x", "plain")
    return server


def send(server: Server, authorization: str, *proofs: str, method: str = "POST", path: str = "/mcp") -> Any:
    credentials = {"Authorization": authorization} if authorization else {}
    headers = [*http_headers(LIST, **credentials).items(), *(("DPoP", proof) for proof in proofs)]
    return Client(server.wsgi).open(path, "http://tools.example", method=method, data=json.dumps(LIST), headers=headers)


class Holder:
    """A client that holds a key, and a token that is bound to it."""

    def __init__(self, issuer: Issuer, kind: str = "EC") -> None:
        self.key, self.algorithm = new_key(kind), {"EC": "ES256", "RSA": "RS256", "OKP": "EdDSA"}[kind]
        self.jwk = public_jwk(self.key)
        self.token = issuer.token(cnf={"jkt": thumbprint_of(self.jwk)})

    def proof(self, header: Any = None, **claims: Any) -> str:
        import hashlib

        import jwt

        from minimcp.engines.oauth.dpop import base64url

        known = {
            "jti": str(time.perf_counter_ns()),
            "htm": "POST",
            "htu": AUDIENCE,
            "iat": int(time.time()),
            "ath": base64url(hashlib.sha256(self.token.encode()).digest()),
            **claims,
        }
        known = {name: value for name, value in known.items() if value is not None}
        return jwt.encode(known, self.key, self.algorithm, {"typ": "dpop+jwt", "jwk": self.jwk, **(header or {})})


@pytest.mark.parametrize("kind", ["EC", "RSA", "OKP"])
def test_a_bound_token_with_its_proof_is_let_in(issuer: Issuer, kind: str) -> None:
    server, holder = protected(issuer), Holder(issuer, kind)
    for _ in range(3):
        assert send(server, f"DPoP {holder.token}", holder.proof()).status_code == 200


def test_the_clients_own_prover_is_understood(issuer: Issuer) -> None:
    prover = Prover()
    prover.proof("resource", "POST", AUDIENCE)
    token = issuer.token(cnf={"jkt": thumbprint_of(prover._jwk)})
    assert (
        send(protected(issuer), f"DPoP {token}", prover.proof("resource", "POST", AUDIENCE, token)).status_code == 200
    )


@pytest.mark.parametrize(
    "claims, header",
    [
        ({"htm": "GET"}, {}),
        ({"htm": None}, {}),
        ({"htu": "https://tools.example/other"}, {}),
        ({"htu": "http://tools.example/mcp"}, {}),
        ({"htu": "https://tools.example:8443/mcp"}, {}),
        ({"htu": "https://tools.example:port/mcp"}, {}),
        ({"htu": 5}, {}),
        ({"htu": None}, {}),
        ({"ath": "x"}, {}),
        ({"ath": None}, {}),
        ({"iat": time.time() - 400}, {}),
        ({"iat": time.time() + 9000}, {}),
        ({"iat": "now"}, {}),
        ({"iat": None}, {}),
        ({"iat": float("nan")}, {}),
        ({"iat": 10**400}, {}),
        ({"jti": None}, {}),
        ({"jti": ""}, {}),
        ({"jti": 5}, {}),
        ({"jti": "j" * 1000}, {}),
        ({}, {"typ": "jwt"}),
        ({}, {"typ": None}),
        ({}, {"jwk": None}),
        ({}, {"jwk": {"kty": "EC"}}),
        ({}, {"jwk": "x"}),
        ({}, {"crit": ["htm"]}),
    ],
)
def test_proofs_that_are_refused(issuer: Issuer, claims: Any, header: Any) -> None:
    server, holder = protected(issuer), Holder(issuer)
    answer = send(server, f"DPoP {holder.token}", holder.proof(header, **claims))
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith('DPoP error="invalid_dpop_proof", error_description="')


@pytest.mark.parametrize("htu", [AUDIENCE + "?a=b", AUDIENCE + "#x", "HTTPS://TOOLS.example:443/mcp"])
def test_an_address_may_be_spelt_differently(issuer: Issuer, htu: str) -> None:
    holder = Holder(issuer)
    assert send(protected(issuer), f"DPoP {holder.token}", holder.proof(htu=htu)).status_code == 200


def test_a_proof_works_once(issuer: Issuer) -> None:
    server, holder = protected(issuer), Holder(issuer)
    proof = holder.proof()
    assert [send(server, f"DPoP {holder.token}", proof).status_code for _ in range(3)] == [200, 401, 401]


def test_a_token_and_its_scheme_go_together(issuer: Issuer) -> None:
    server, holder, stranger = protected(issuer), Holder(issuer), Holder(issuer)
    plain = issuer.token()
    assert send(server, f"Bearer {plain}").status_code == 200
    refused = [
        (f"Bearer {holder.token}", holder.proof()),
        (f"Bearer {holder.token}",),
        (f"DPoP {holder.token}",),
        (f"DPoP {plain}", holder.proof()),
        (f"DPoP {holder.token}", holder.proof(), holder.proof()),
        (f"DPoP {holder.token}", stranger.proof()),
        (f"DPoP {stranger.token}", holder.proof()),
        (f"DPoP {holder.token}", holder.proof()[:-8] + "AAAAAAAA"),
        (f"DPoP {holder.token}", "a.b.c"),
        (f"DPoP {holder.token}", "x" * 10_000),
    ]
    for authorization, *proofs in refused:
        assert send(server, authorization, *proofs).status_code == 401
    assert send(protected(issuer, "required"), f"Bearer {plain}").status_code == 401
    assert send(protected(issuer, False), f"DPoP {holder.token}", holder.proof()).status_code == 401


def test_a_symmetric_proof_or_a_private_key_is_refused(issuer: Issuer) -> None:
    import jwt

    server, holder = protected(issuer), Holder(issuer)
    jwk = {"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}
    secret = b"secretsecretsecretsecretsecretsecret"
    symmetric = jwt.encode({"htm": "POST"}, secret, "HS256", {"typ": "dpop+jwt", "jwk": jwk})
    private = holder.proof({"jwk": {**holder.jwk, "d": "AAAA"}})
    for proof in (symmetric, private):
        assert send(server, f"DPoP {holder.token}", proof).status_code == 401


def test_a_server_may_ask_for_its_nonce(issuer: Issuer) -> None:
    server, holder = protected(issuer, dpop_nonce=True), Holder(issuer)
    first = send(server, f"DPoP {holder.token}", holder.proof())
    assert first.status_code == 401 and 'error="use_dpop_nonce"' in first.headers["WWW-Authenticate"]
    nonce = first.headers["DPoP-Nonce"]
    assert send(server, f"DPoP {holder.token}", holder.proof(nonce=nonce)).status_code == 200
    assert send(server, f"DPoP {holder.token}", holder.proof(nonce="made up")).status_code == 401


def test_both_schemes_are_offered(issuer: Issuer) -> None:
    server = protected(issuer)
    challenge = send(server, "").headers["WWW-Authenticate"]
    metadata = 'resource_metadata="https://tools.example/.well-known/oauth-protected-resource/mcp"'
    assert challenge == f"Bearer {metadata}, DPoP {metadata}"
    document = Client(server.wsgi).get("/.well-known/oauth-protected-resource/mcp", "http://tools.example").json
    assert document["dpop_signing_alg_values_supported"] == ["ES256", "RS256", "EdDSA"]


def test_the_proofs_that_are_remembered_are_bounded(issuer: Issuer) -> None:
    from minimcp.auth.proof import ProofCheck

    check = ProofCheck(limit=50)
    for number in range(500):
        check._remember(str(number), "key")
    assert len(check._seen) == 50
