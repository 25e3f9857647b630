"""The identity providers of `examples/protected/README.md`: a token in the form of each, made and signed here."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
import requests

pytest.importorskip("jwt", reason="PyJWT is not installed")
pytest.importorskip("cryptography", reason="cryptography is not installed")

from werkzeug.test import Client as WsgiClient

from minimcp import Server, Unauthorized
from minimcp.auth import AuthRequest, Jwt
from tests.authority import Site, basic
from tests.helpers import http_headers, modern
from tests.tokens import AUDIENCE, Issuer, new_key, public_jwk
from tests.transports import ROOT

EXAMPLES = str(ROOT / "examples")
APPLICATION, TENANT = "2d4f7c1a-6f0e-4a59-8d0e-5c1d8f0b7e21", "8f9d2b6e-1f7c-4d6a-9a55-0f2f9f1f6a10"
README = (ROOT / "examples/protected/README.md").read_text()
FORMS = {name: json.loads(text) for name, text in re.findall(r"```json (\S+)\n(.*?)```", README, re.DOTALL)}
KEY = new_key("RSA")
WRITE = ("notes:write",)

# Each form with its verifier, the options of that, and who it is: id, scopes, roles, via; or why it is refused.
EXPECTED: dict[str, tuple[str, tuple[Any, ...], Any]] = {
    "keycloak-person": (
        "keycloak",
        ("https://login.example", "team", AUDIENCE),
        ("7c9e6679-7425-40de-944b-e07fc1f90ae7", ("openid", *WRITE), ("operator", "offline_access"), "desk"),
    ),
    "keycloak-program": (
        "keycloak",
        ("https://login.example", "team", AUDIENCE),
        ("f1e1a7de-0a3c-4f7e-9b7a-2f7a3a2d8c11", WRITE, (), "backup"),
    ),
    "keycloak-without-mapper": ("keycloak", ("https://login.example", "team", AUDIENCE), "not issued for this server"),
    "entra-person": (
        "entra",
        (TENANT, APPLICATION),
        ("690222be-ff1a-4d56-abd1-7e4f7d38e474", ("notes", "files"), ("Operator",), FORMS["entra-person"]["azp"]),
    ),
    "entra-program": (
        "entra",
        (TENANT, APPLICATION),
        ("0a5c2e9f-4c3b-4f0d-8b2a-7e6d5c4b3a29", (), ("Backup",), FORMS["entra-person"]["azp"]),
    ),
    "entra-version-1": (
        "entra_v1",
        (TENANT, APPLICATION),
        ("690222be-ff1a-4d56-abd1-7e4f7d38e474", ("notes",), (), FORMS["entra-person"]["azp"]),
    ),
    "auth0-person": (
        "auth0",
        ("team.eu.auth0.com", AUDIENCE),
        ("auth0|65f0c1d2e3b4a5968778695a", ("openid", *WRITE), ("notes:write", "operator"), "kS9vQ2mX7rT4wY1z"),
    ),
    "auth0-rfc9068": (
        "auth0",
        ("team.eu.auth0.com", AUDIENCE),
        ("auth0|65f0c1d2e3b4a5968778695a", WRITE, (), "kS9vQ2mX7rT4wY1z"),
    ),
    "auth0-program": ("auth0", ("team.eu.auth0.com", AUDIENCE), ("Bk7pQ3xZ@clients", WRITE, (), "Bk7pQ3xZ")),
    "google-service-account": (
        "google_programs",
        ({"backup@team.iam.gserviceaccount.com": ["backup"]}, AUDIENCE),
        ("112233445566778899001", (), ("backup",), "112233445566778899001"),
    ),
    "google-stranger": (
        "google_programs",
        ({"backup@team.iam.gserviceaccount.com": []}, AUDIENCE),
        "may not call here",
    ),
    "github-workflow": (
        "github_workflows",
        ({"1296269": ["deploy"]}, AUDIENCE),
        ("repo:team/tools:ref:refs/heads/main", (), ("deploy",), ""),
    ),
    "github-stranger": ("github_workflows", ({"1296269": ["deploy"]}, AUDIENCE), "may not call here"),
}


@pytest.fixture
def providers(monkeypatch: Any) -> Any:
    monkeypatch.syspath_prepend(EXAMPLES)
    from protected import providers

    return providers


def signed(form: str, **changes: Any) -> str:
    import jwt

    claims, now = {**FORMS[form], **changes}, int(time.time())
    kind = "at+jwt" if "rfc9068" in form else "JWT"
    return jwt.encode({"iat": now, "exp": now + 600, **claims}, KEY, "RS256", {"kid": "a", "typ": kind})


def bearer(token: str, resource: str = "") -> AuthRequest:
    return AuthRequest({"HTTP_AUTHORIZATION": f"Bearer {token}"}, "", resource)


def verifier(providers: Any, form: str, **more: Any) -> Any:
    name, arguments, _ = EXPECTED[form]
    return getattr(providers, name)(*arguments, jwks={"keys": [public_jwk(KEY, kid="a")]}, **more)


def test_the_page_shows_the_forms_that_are_verified() -> None:
    assert list(FORMS) == list(EXPECTED)


@pytest.mark.parametrize("form", FORMS)
def test_a_token_in_the_form_of_its_provider(providers: Any, form: str) -> None:
    expected, checker = EXPECTED[form][2], verifier(providers, form)
    if isinstance(expected, str):
        with pytest.raises(Unauthorized, match=expected):
            checker.verify(bearer(signed(form)))
        return
    found = checker.verify(bearer(signed(form)))
    assert (found.id, found.scopes, found.roles, found.via) == expected
    assert found.issuer == FORMS[form]["iss"]
    # The same of another tenant, realm or provider is nobody's, and for another server it is refused.
    assert checker.verify(bearer(signed(form, iss="https://login.example/realms/other"))) is None
    with pytest.raises(Unauthorized, match="not issued for this server"):
        checker.verify(bearer(signed(form, aud="https://other.example/mcp")))


@pytest.mark.parametrize("change", [{"email_verified": False}, {"email_verified": "true"}, {"email": None}])
def test_an_address_that_google_has_not_verified_names_nobody(providers: Any, change: Any) -> None:
    with pytest.raises(Unauthorized, match="may not call here"):
        verifier(providers, "google-service-account").verify(bearer(signed("google-service-account", **change)))


def test_the_scopes_of_entra_are_asked_for_with_a_prefix_and_granted_without(providers: Any) -> None:
    asked = f"api://{APPLICATION}/notes"
    auth = verifier(providers, "entra-person", scopes=[asked])
    server = Server("s", auth=auth, public_url=AUDIENCE, implied_scopes={"notes": [asked]})
    server.tool(lambda: "x", "plain")

    def ask(token: str) -> Any:
        message = modern("tools/call", name="plain")
        headers = http_headers(message, Authorization=f"Bearer {token}")
        return WsgiClient(server.wsgi).post("/mcp", "https://tools.example", json=message, headers=headers)

    assert ask(signed("entra-person")).status_code == 200
    poor = ask(signed("entra-person", scp="files"))
    assert poor.status_code == 403 and f'scope="{asked}"' in poor.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    "issuer, place",
    [
        ("/realms/team", "/realms/team/.well-known/openid-configuration"),
        ("/tenant/v2.0", "/tenant/v2.0/.well-known/openid-configuration"),
        ("/", "/.well-known/openid-configuration"),
        ("", "/.well-known/openid-configuration"),
        ("/login/oauth", "/.well-known/oauth-authorization-server/login/oauth"),
    ],
)
def test_the_keys_are_found_where_each_provider_has_its_metadata(issuer: str, place: str) -> None:
    """That of GitHub Actions names no token endpoint."""
    with Issuer() as local:
        local.site.pages.pop("/.well-known/oauth-authorization-server")
        name = local.url + issuer
        local.site.pages[place] = lambda seen: (200, {"issuer": name, "jwks_uri": f"{local.url}/keys"}, {})
        checker = Jwt(name, AUDIENCE, private_addresses=True)
        assert checker.verify(bearer(local.token(iss=name))).id == "ann"  # type: ignore[union-attr]


def test_github_is_asked_about_each_token(providers: Any) -> None:
    def page(seen: Any) -> Any:
        if basic(seen.headers["Authorization"]) != ("app", "app secret"):
            return 401, {}, {}
        if seen.form != {"access_token": "gho_good"}:
            return (500 if seen.form == {"access_token": "gho_down"} else 404), {}, {}
        return 200, {"user": {"id": 583231, "login": "ann"}, "scopes": ["read:user"]}, {}

    with Site() as site:
        site.pages["/applications/app/token"] = page
        checker = providers.GitHub("app", "app secret", site.url)
        found = checker.verify(bearer("gho_good"))
        assert found.key == ("https://github.com/login/oauth", "583231")
        assert (found.scopes, found.via) == (("read:user",), "app")
        with pytest.raises(Unauthorized, match="not issued for this server"):
            checker.verify(bearer("gho_of-another-app"))
        with pytest.raises(requests.HTTPError):
            checker.verify(bearer("gho_down"))
        asked = len(site.seen)
        for other in ("ghp_personal", "x", "mcp_key"):
            assert checker.verify(bearer(other)) is None
        assert len(site.seen) == asked
