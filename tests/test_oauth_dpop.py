"""Tokens bound to a key: proofs, and the nonces of both servers."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import time

import pytest
import requests

from minimcp import OAuth
from minimcp.engines.errors import AuthorizationError
from minimcp.engines.oauth.dpop import Prover
from tests.authority import Authority, Browser, Resource
from tests.transports import ROOT

jwt = pytest.importorskip("jwt")


def read(proof):
    """The header and claims of a proof whose signature fits its key."""
    header = jwt.get_unverified_header(proof)
    key = jwt.PyJWK({**header["jwk"], "alg": "ES256"}).key
    return header, jwt.decode(proof, key, ["ES256"])


def digest(token):
    return base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).decode().rstrip("=")


@pytest.fixture
def authority():
    with Authority() as site:
        site.reply["token_type"] = "DPoP"
        site.metadata["dpop_signing_alg_values_supported"] = ["ES256"]
        yield site


@pytest.fixture
def resource(authority):
    with Resource(authority) as site:
        yield site


def test_a_proof_has_what_rfc_9449_asks_for():
    prover = Prover()
    header, claims = read(prover.proof("resource", "POST", "https://a.example/mcp?x=1#y", "token"))
    assert header["typ"] == "dpop+jwt" and header["alg"] == "ES256"
    assert set(header["jwk"]) == {"kty", "crv", "x", "y"}
    assert claims["htm"] == "POST" and claims["htu"] == "https://a.example/mcp"
    assert claims["ath"] == digest("token") and abs(claims["iat"] - time.time()) < 60
    again = read(prover.proof("token", "POST", "https://a.example/token"))
    assert again[1]["jti"] != claims["jti"] and "ath" not in again[1] and again[0]["jwk"] == header["jwk"]
    assert read(Prover().proof("token", "POST", "https://a.example/token"))[0]["jwk"] != header["jwk"]


def test_every_request_has_a_fresh_proof_and_the_scheme_is_dpop(authority, resource):
    auth = OAuth(login=Browser(), dpop=True)
    for _ in range(2):
        assert requests.get(f"{resource.endpoint}?q=1", auth=auth, timeout=10).status_code == 200
    (token,) = authority.asked("/token")
    assert read(token.headers["DPoP"])[1]["htu"] == f"{authority.url}/token"
    sent = [seen for seen in resource.asked("/mcp") if "Authorization" in seen.headers]
    assert len(sent) == 2
    proofs = [read(seen.headers["DPoP"])[1] for seen in sent]
    assert proofs[0]["jti"] != proofs[1]["jti"]
    for seen, claims in zip(sent, proofs):
        scheme, _, value = seen.headers["Authorization"].partition(" ")
        assert scheme == "DPoP" and claims["ath"] == digest(value)
        assert claims["htu"] == resource.endpoint and claims["htm"] == "GET"
    assert auth.extensions == {"io.modelcontextprotocol/auth/dpop": {}}


def test_nonces_of_both_servers_are_taken_up(authority, resource):
    issue, answer = authority.pages["/token"], resource.pages["/mcp"]

    def token(seen):
        if read(seen.headers["DPoP"])[1].get("nonce") != "as-nonce":
            return 400, {"error": "use_dpop_nonce"}, {"DPoP-Nonce": "as-nonce"}
        return issue(seen)

    def page(seen):
        if "DPoP" in seen.headers and read(seen.headers["DPoP"])[1].get("nonce") != "rs-nonce":
            return 401, {}, {"WWW-Authenticate": 'DPoP error="use_dpop_nonce"', "DPoP-Nonce": "rs-nonce"}
        status, body, headers = answer(seen)
        return status, body, {**headers, "DPoP-Nonce": "rs-nonce"}

    authority.pages["/token"], resource.pages["/mcp"] = token, page
    browser = Browser()
    auth = OAuth(login=browser, dpop=True)
    for _ in range(2):
        assert requests.get(resource.endpoint, auth=auth, timeout=10).status_code == 200
    assert len(browser.opened) == 1 and len(authority.asked("/token")) == 2


def test_a_server_that_always_wants_another_nonce_gets_no_more_than_a_few(authority, resource):
    count = iter(range(1000))

    def page(seen):
        if "DPoP" not in seen.headers:
            return resource.challenge(401)
        return 401, {}, {"WWW-Authenticate": 'DPoP error="use_dpop_nonce"', "DPoP-Nonce": f"n{next(count)}"}

    resource.pages["/mcp"] = page
    with pytest.raises(AuthorizationError):
        requests.get(resource.endpoint, auth=OAuth(login=Browser(), dpop=True), timeout=10)
    assert len(resource.asked("/mcp")) == 4


def test_a_token_that_is_not_bound_is_refused(authority, resource):
    authority.reply["token_type"] = "Bearer"
    with pytest.raises(AuthorizationError, match="DPoP"):
        requests.get(resource.endpoint, auth=OAuth(login=Browser(), dpop=True), timeout=10)


def test_a_bound_token_is_not_stored_since_its_key_is_not(authority, resource):
    store = {}
    auth = OAuth.client_credentials("me", "secret", dpop=True, store=store)
    assert requests.get(resource.endpoint, auth=auth, timeout=10).status_code == 200
    assert not [key for key in store if key.startswith("token")]
    assert not any(token in json.dumps(store) for token in authority.issued)


@pytest.mark.parametrize("nonce", ["a\tb", 'a"b', "x" * 2000, ""])
def test_a_nonce_that_is_none_is_left_alone(nonce):
    prover = Prover()
    assert not prover.note("token", "https://a.example", {"DPoP-Nonce": nonce})
    assert "nonce" not in read(prover.proof("token", "POST", "https://a.example/token"))[1]


def test_what_is_missing_for_signing_is_named():
    code = """
import sys
sys.modules["jwt"] = None
from minimcp.engines.oauth.dpop import Prover
try:
    Prover().proof("token", "POST", "https://a.example")
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.stdout.startswith("AuthorizationError") and "pip install minimcp-sync[oauth]" in done.stdout
