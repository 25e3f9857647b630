"""The identity that the surrounding application, or the proxy in front, has established already.

A session cookie is sent by a browser whichever page asks it to, so it is no credential in a request of a foreign page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Optional

from ..protocol.errors import Unauthorized
from ..protocol.principal import Principal
from .verifier import AuthRequest

RolesOf = Optional[Callable[[Any], Iterable[str]]]


class FlaskLogin:
    """Verifies the user whom Flask-Login has logged in, behind `Server.flask_view`.

    :param roles: a function from the user to the roles; by default nobody has any.
    :param granted: the scopes that users of the application have here.
    :param issuer: the issuer of the principals, whose id is the user's `get_id()`.
    """

    def __init__(self, *, roles: RolesOf = None, granted: Iterable[str] = (), issuer: str = "flask") -> None:
        self._roles = roles
        self._granted = tuple(granted)
        self._issuer = issuer

    def verify(self, request: AuthRequest) -> Principal | None:
        """Return the user who has logged in and is active.

        :raises RuntimeError: outside of the Flask application.
        """
        from flask import has_request_context
        from flask_login import current_user

        if not has_request_context():
            raise RuntimeError("FlaskLogin needs the application's own context: mount server.flask_view()")
        if request.foreign_page and request.header("Cookie") or not _logged_in(current_user):
            return None
        roles = () if self._roles is None else tuple(self._roles(current_user))
        return Principal(str(current_user.get_id()), self._issuer, self._granted, roles, via="session")


class DjangoUser:
    """Verifies the user whom Django has logged in, behind `Server.django_view`; groups are roles.

    :param roles: a function from the user to the roles; by default the names of the groups.
    :param granted: the scopes that users of the application have here.
    :param issuer: the issuer of the principals, whose id is the name of the user.
    :param issuers: the authorization servers whose tokens a middleware of the application takes, for clients to know.
    """

    def __init__(
        self,
        *,
        roles: RolesOf = None,
        granted: Iterable[str] = (),
        issuer: str = "django",
        issuers: Iterable[str] = (),
    ) -> None:
        self.issuers = tuple(issuers)
        self._roles = roles or _groups
        self._granted = tuple(granted)
        self._issuer = issuer

    def verify(self, request: AuthRequest) -> Principal | None:
        """Return the user who has logged in and is active.

        :raises RuntimeError: outside of the Django application, or without its AuthenticationMiddleware.
        """
        user = getattr(request.environ.get("django.request"), "user", None)
        if user is None:
            raise RuntimeError("DjangoUser needs server.django_view() and a middleware that sets request.user")
        if request.foreign_page and request.header("Cookie") or not _logged_in(user):
            return None
        return Principal(user.get_username(), self._issuer, self._granted, tuple(self._roles(user)), via="session")


class RemoteUser:
    """Verifies the user whom a trusted proxy names in a header; the proxy has to overwrite what its callers send there.

    :param header: the header with the name, such as "X-Remote-User".
    :param roles: the header with the roles, separated by commas; the proxy has to overwrite this one too.
    :param granted: the scopes that these users have here.
    :param issuer: the issuer of the principals.
    """

    needs_trusted_proxy = True

    def __init__(
        self, header: str, *, roles: str | None = None, granted: Iterable[str] = (), issuer: str = "proxy"
    ) -> None:
        self._header = header
        self._roles = roles
        self._granted = tuple(granted)
        self._issuer = issuer

    def verify(self, request: AuthRequest) -> Principal | None:
        """Return the user that the header names; from anybody but a trusted proxy the header means nothing.

        :raises Unauthorized: when the header was sent twice: one of them is not the proxy's.
        """
        name = request.header(self._header) if request.trusted else None
        if not name:
            return None
        if "," in name:
            raise Unauthorized(f"The header {self._header} was sent more than once")
        listed = request.header(self._roles) or "" if self._roles else ""
        roles = [role.strip() for role in listed.split(",") if role.strip()]
        return Principal(name, self._issuer, self._granted, roles, via="proxy")


class ProxyCertificate:
    """Verifies the client certificate that a trusted proxy has checked.

    For nginx: `proxy_set_header X-Client-Subject $ssl_client_s_dn` and `proxy_set_header X-Client-Verify
    $ssl_client_verify`.

    :param header: the header with the subject of the certificate, which becomes the id.
    :param verified: the header that says "SUCCESS" when the proxy has found the certificate valid.
    :param roles: a function from the subject to the roles; by default nobody has any.
    :param granted: the scopes that holders of a certificate have here.
    :param issuer: the issuer of the principals.
    """

    needs_trusted_proxy = True

    def __init__(
        self,
        header: str = "X-Client-Subject",
        verified: str = "X-Client-Verify",
        *,
        roles: Optional[Callable[[str], Iterable[str]]] = None,
        granted: Iterable[str] = (),
        issuer: str = "certificate",
    ) -> None:
        self._header = header
        self._verified = verified
        self._roles = roles
        self._granted = tuple(granted)
        self._issuer = issuer

    def verify(self, request: AuthRequest) -> Principal | None:
        """Return the holder of the certificate; from anybody but a trusted proxy the headers mean nothing.

        :raises Unauthorized: for a certificate that the proxy did not find valid.
        """
        subject = request.header(self._header) if request.trusted else None
        if not subject:
            return None
        if request.header(self._verified) != "SUCCESS":
            raise Unauthorized("The client certificate is not valid")
        roles = () if self._roles is None else tuple(self._roles(subject))
        return Principal(subject, self._issuer, self._granted, roles, via="certificate")


def _logged_in(user: Any) -> bool:
    return bool(user.is_authenticated and user.is_active)


def _groups(user: Any) -> Iterable[str]:
    names: Iterable[str] = user.groups.order_by("name").values_list("name", flat=True)
    return names
