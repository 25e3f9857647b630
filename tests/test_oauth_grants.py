"""The grants that need no user, and how a client says who it is at a token endpoint."""

from __future__ import annotations

import pytest
import requests

from minimcp import OAuth
from minimcp.engines.errors import AuthorizationError, ConnectionLost
from minimcp.engines.oauth.grants import ClientIdentity, authenticate, refusal
from tests.authority import Authority, Resource, basic

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


@pytest.fixture
def authority():
    with Authority() as site:
        site.metadata["token_endpoint_auth_methods_supported"] = ["client_secret_basic", "private_key_jwt"]
        del site.metadata["registration_endpoint"]
        yield site


@pytest.fixture
def resource(authority):
    with Resource(authority) as site:
        yield site


def get(resource, auth):
    return requests.get(resource.endpoint, auth=auth, timeout=10)


def key_pair(kind="ec"):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    make = {
        "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
        "ed": ed25519.Ed25519PrivateKey.generate,
    }
    key = make[kind]()
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain).decode()
    return pem, key.public_key()


def test_a_program_gets_in_with_its_secret(authority, resource):
    auth = OAuth.client_credentials("my id", "s: %/é", scope="a")
    assert get(resource, auth).status_code == 200
    (token,) = authority.asked("/token")
    assert token.form == {
        "grant_type": "client_credentials",
        "scope": "a",
        "resource": resource.endpoint,
        "client_id": "my id",
    }
    assert basic(token.headers["Authorization"]) == ("my id", "s: %/é")
    assert not authority.asked("/register") and not authority.asked("/authorize")
    assert auth.extensions == {"io.modelcontextprotocol/oauth-client-credentials": {}}


def test_a_program_gets_in_with_its_key(authority, resource):
    import jwt

    pem, public = key_pair()
    auth = OAuth.client_credentials("me", private_key=pem, key_id="k1")
    assert get(resource, auth).status_code == 200
    (token,) = authority.asked("/token")
    assert token.form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    claims = jwt.decode(token.form["client_assertion"], public, ["ES256"], audience=authority.issuer)
    assert claims["iss"] == claims["sub"] == "me" and claims["jti"] and 0 < claims["exp"] - claims["iat"] <= 300
    assert jwt.get_unverified_header(token.form["client_assertion"])["kid"] == "k1"
    authority.issued.clear()
    assert get(resource, auth).status_code == 200
    first, second = (seen.form["client_assertion"] for seen in authority.asked("/token"))
    assert first != second


def test_the_audience_and_the_algorithm_can_be_named():
    import jwt

    pem, _ = key_pair("rsa")
    server = {"issuer": "https://a", "token_endpoint_auth_methods_supported": ["private_key_jwt"]}
    made = authenticate(server, ClientIdentity("me", private_key=pem, algorithm="PS256", audience="https://a/token"))
    assertion = made[1]["client_assertion"]
    assert jwt.get_unverified_header(assertion)["alg"] == "PS256"
    assert jwt.decode(assertion, options={"verify_signature": False})["aud"] == "https://a/token"


@pytest.mark.parametrize(("kind", "algorithm"), [("ec", "ES256"), ("rsa", "RS256"), ("ed", "EdDSA")])
def test_the_algorithm_is_one_that_fits_the_key_and_the_server(kind, algorithm):
    import jwt

    pem, _ = key_pair(kind)
    server = {"issuer": "https://a", "token_endpoint_auth_methods_supported": ["private_key_jwt"]}
    for supported in ({}, {"token_endpoint_auth_signing_alg_values_supported": ["none", "HS256", "ES384", algorithm]}):
        _, form = authenticate({**server, **supported}, ClientIdentity("me", private_key=pem))
        assert jwt.get_unverified_header(form["client_assertion"])["alg"] == algorithm
    server["token_endpoint_auth_signing_alg_values_supported"] = ["none", "HS256"]
    with pytest.raises(AuthorizationError, match="cannot sign"):
        authenticate(server, ClientIdentity("me", private_key=pem))


def test_a_broken_key_is_not_shown():
    server = {"issuer": "https://a", "token_endpoint_auth_methods_supported": ["private_key_jwt"]}
    with pytest.raises(AuthorizationError) as caught:
        authenticate(server, ClientIdentity("me", private_key="-----BEGIN PRIVATE KEY-----\nsecret"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("supported", "has_secret", "method"),
    [
        (None, True, "basic"),
        (None, False, "none"),
        (["client_secret_post"], True, "post"),
        (["client_secret_post", "client_secret_basic"], True, "basic"),
        (["none"], True, "none"),
        (["none", "client_secret_post"], False, "none"),
    ],
)
def test_the_method_is_one_that_the_server_lists(supported, has_secret, method):
    server = {"issuer": "https://a"}
    if supported is not None:
        server["token_endpoint_auth_methods_supported"] = supported
    headers, form = authenticate(server, ClientIdentity("me", "secret" if has_secret else None))
    assert ("Authorization" in headers) is (method == "basic")
    assert (
        form
        == {
            "basic": {"client_id": "me"},
            "none": {"client_id": "me"},
            "post": {"client_id": "me", "client_secret": "secret"},
        }[method]
    )


def test_without_a_common_method_nothing_is_sent():
    with pytest.raises(AuthorizationError, match="client_secret_jwt"):
        authenticate({}, ClientIdentity("me", "s", "client_secret_jwt"))
    with pytest.raises(AuthorizationError, match="tls_client_auth"):
        authenticate({"token_endpoint_auth_methods_supported": ["tls_client_auth"]}, ClientIdentity("me", "s"))


@pytest.mark.parametrize("methods", [["client_secret_post", "client_secret_basic"], ["private_key_jwt"], []])
def test_a_public_client_names_itself_whichever_methods_a_server_lists(methods):
    server = {"token_endpoint_auth_methods_supported": methods}
    assert authenticate(server, ClientIdentity("me")) == ({}, {"client_id": "me"})


def test_an_enterprise_vouches_for_the_user(authority, resource):
    with Authority() as idp:
        jag = {"access_token": "the-jag", "issued_token_type": "urn:ietf:params:oauth:token-type:id-jag"}
        idp.pages["/token"] = lambda seen: (200, {**jag, "token_type": "N_A"}, {})
        auth = OAuth.enterprise(
            "me",
            "my secret",
            id_token=lambda: "the-id-token",
            idp_token_endpoint=f"{idp.url}/token",
            idp_client_id="me-at-idp",
            idp_client_secret="idp secret",
            scope="a",
        )
        assert get(resource, auth).status_code == 200
        (exchange,) = idp.seen
        assert exchange.form == {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "requested_token_type": "urn:ietf:params:oauth:token-type:id-jag",
            "audience": authority.issuer,
            "resource": resource.endpoint,
            "subject_token": "the-id-token",
            "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
            "scope": "a",
            "client_id": "me-at-idp",
        }
        assert basic(exchange.headers["Authorization"]) == ("me-at-idp", "idp secret")
        (token,) = authority.asked("/token")
        assert token.form == {
            "grant_type": JWT_BEARER,
            "assertion": "the-jag",
            "resource": resource.endpoint,
            "client_id": "me",
        }
        assert basic(token.headers["Authorization"]) == ("me", "my secret")
        assert auth.extensions == {"io.modelcontextprotocol/enterprise-managed-authorization": {}}


@pytest.mark.parametrize(
    "change",
    [
        {"issued_token_type": "urn:ietf:params:oauth:token-type:access_token"},
        {"token_type": "Bearer"},
        {"access_token": 7},
    ],
)
def test_an_identity_provider_has_to_send_an_id_jag(authority, resource, change):
    with Authority() as idp:
        jag = {"access_token": "x", "issued_token_type": "urn:ietf:params:oauth:token-type:id-jag", "token_type": "N_A"}
        idp.pages["/token"] = lambda seen: (200, {**jag, **change}, {})
        auth = OAuth.enterprise("me", "s", id_token="i", idp_token_endpoint=f"{idp.url}/token", idp_client_id="x")
        with pytest.raises(AuthorizationError, match="ID-JAG"):
            get(resource, auth)
    assert not authority.asked("/token")


def test_a_workload_sends_its_jwt_and_nothing_of_a_client(authority, resource):
    jwts = iter(["one", "two"])
    auth = OAuth.workload(lambda: next(jwts))
    assert get(resource, auth).status_code == 200
    authority.issued.clear()
    assert get(resource, auth).status_code == 200
    assert [seen.form for seen in authority.asked("/token")] == [
        {"grant_type": JWT_BEARER, "assertion": jwt, "resource": resource.endpoint} for jwt in ("one", "two")
    ]
    assert all("Authorization" not in seen.headers for seen in authority.asked("/token"))
    assert auth.extensions == {"io.modelcontextprotocol/auth/wif": {}}


@pytest.mark.parametrize("error", ["invalid_grant", "invalid_scope", "unauthorized_client"])
def test_a_refused_jwt_is_told_and_not_sent_again(authority, resource, error):
    authority.pages["/token"] = lambda seen: (400, {"error": error, "error_description": "expired, secret-jwt"}, {})
    auth = OAuth.workload("secret-jwt")
    for _ in range(3):
        with pytest.raises(AuthorizationError) as caught:
            get(resource, auth)
        assert caught.value.error == error and "secret-jwt" not in str(caught.value)
        assert "expired" in str(caught.value)
    assert len(authority.asked("/token")) == 1


def test_a_workload_asks_for_the_scopes_that_are_named(authority, resource):
    resource.needs, resource.names_scope = ("a",), True
    assert get(resource, OAuth.workload("jwt", scope="b")).status_code == 200
    assert authority.asked("/token")[0].form["scope"] == "b a"


def test_only_a_client_with_a_user_has_a_metadata_document():
    with pytest.raises(ValueError, match="user"):
        OAuth.workload("jwt").client_metadata()


def test_a_workload_does_not_step_up(authority, resource):
    auth = OAuth.workload("jwt")
    assert get(resource, auth).status_code == 200
    resource.needs = ("more",)
    with pytest.raises(AuthorizationError, match="'more'"):
        get(resource, auth)
    assert len(authority.asked("/token")) == 1


def test_a_program_asks_for_more_scopes_when_it_needs_them(authority, resource):
    auth = OAuth.client_credentials("me", "secret", scope="a")
    resource.needs = ("a", "b")
    assert get(resource, auth).status_code == 200
    assert [seen.form["scope"] for seen in authority.asked("/token")] == ["a", "a b"]


def test_a_refresh_token_of_a_grant_without_a_user_is_not_kept(authority, resource):
    authority.reply["refresh_token"] = "unwanted"
    store = {}
    assert get(resource, OAuth.client_credentials("me", "secret", store=store)).status_code == 200
    assert "unwanted" not in repr(store)


def test_a_token_endpoint_that_fails_may_be_asked_again(authority, resource):
    authority.pages["/token"] = lambda seen: (503, {"error": "temporarily_unavailable"}, {})
    with pytest.raises(ConnectionLost) as caught:
        get(resource, OAuth.client_credentials("me", "secret"))
    assert caught.value.retry == "always"


def test_a_refusal_has_a_code_and_a_short_text():
    error = refusal("place", 400, {"error": "a\nb", "error_description": "x" * 999}, [])
    assert error.error == "" and str(error) == f"The place refused: HTTP 400: {'x' * 200}"
    assert str(refusal("place", 400, None, [])) == "The place refused: HTTP 400"
    assert str(refusal("place", 400, {"error": 7, "error_description": []}, [])) == "The place refused: HTTP 400"


def test_what_is_missing_is_said_at_once():
    with pytest.raises(ValueError, match="private_key"):
        OAuth.client_credentials("me")
    with pytest.raises(ValueError, match="client_id"):
        OAuth(client_secret="s")
