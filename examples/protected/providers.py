"""Verifiers for five identity providers; `README.md` has what each sends and what to set up there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import requests

from minimcp import Principal, Unauthorized
from minimcp.auth import AuthRequest, Jwt

Members = Mapping[str, Iterable[str]]


def keycloak(url: str, realm: str, audience: str | None = None, **more: Any) -> Jwt:
    """Verify tokens of a Keycloak realm; the audience is what the mapper writes, by default the public URL."""
    return Jwt(f"{url}/realms/{realm}", audience, roles="realm_access.roles", **more)


def entra(tenant: str, application: str, **more: Any) -> Jwt:
    """Verify tokens of an Entra tenant for an application registration that asks for version 2.

    :param tenant: the id of the tenant; "common" would be everybody's.
    :param application: the application (client) id of the registration of this server.
    """
    return Jwt(f"https://login.microsoftonline.com/{tenant}/v2.0", application, id="oid", roles="roles", **more)


def entra_v1(tenant: str, application: str, **more: Any) -> Jwt:
    """Verify tokens of an Entra tenant for an application registration that leaves the version at its default."""
    audience = [f"api://{application}", application]
    return Jwt(f"https://sts.windows.net/{tenant}/", audience, id="oid", roles="roles", **more)


def auth0(domain: str, audience: str | None = None, **more: Any) -> Jwt:
    """Verify tokens of an Auth0 tenant for the API with this identifier; its issuer ends with a slash."""
    return Jwt(f"https://{domain}/", audience, roles=["permissions", "https://tools.example/roles"], **more)


def google_programs(members: Members, audience: str | None = None, **more: Any) -> Jwt:
    """Verify ID tokens of Google service accounts.

    Everybody can make a service account and have it sign for any audience, so the members have to be named.

    :param members: the roles by the e-mail address of the account.
    """

    def roles(claims: Mapping[str, Any]) -> Iterable[str]:
        if claims.get("email_verified") is not True or claims.get("email") not in members:
            raise Unauthorized("This account may not call here")
        return members[claims["email"]]

    return Jwt("https://accounts.google.com", audience, roles=roles, **more)


def github_workflows(members: Members, audience: str | None = None, **more: Any) -> Jwt:
    """Verify ID tokens of GitHub Actions workflows.

    Every workflow can have one for any audience, so the members have to be named.

    :param members: the roles by the id of the repository, which stays when a name is taken over.
    """

    def roles(claims: Mapping[str, Any]) -> Iterable[str]:
        if claims.get("repository_id") not in members:
            raise Unauthorized("Workflows of this repository may not call here")
        return members[claims["repository_id"]]

    return Jwt("https://token.actions.githubusercontent.com", audience, roles=roles, **more)


class GitHub:
    """Asks GitHub whether a token was issued for an OAuth app of yours, and to whom: it has no RFC 7662.

    Each call costs a request to GitHub.

    :param client_id: of the OAuth app, with its `client_secret`.
    """

    issuers = ("https://github.com/login/oauth",)

    def __init__(self, client_id: str, client_secret: str, api: str = "https://api.github.com") -> None:
        self._app = (client_id, client_secret)
        self._url = f"{api}/applications/{client_id}/token"

    def verify(self, request: AuthRequest) -> Principal | None:
        """Return the user of a token, None for what is no token of GitHub's.

        :raises Unauthorized: for one that has ended, or that another app was given.
        """
        if request.scheme != "bearer" or not request.token.startswith(("gho_", "ghu_")):
            return None
        answer = requests.post(self._url, json={"access_token": request.token}, auth=self._app, timeout=5)
        if answer.status_code in (404, 422):
            raise Unauthorized("The token was not issued for this server")
        answer.raise_for_status()
        found = answer.json()
        return Principal(str(found["user"]["id"]), self.issuers[0], found["scopes"] or (), via=self._app[0])
