"""Client certificates as credentials, where the embedded server itself verified them. Spec: AUTH-005"""

from __future__ import annotations

import ssl
import time
from typing import Any

from ..engines.http_server.certificates import distinguished_name
from ..protocol.errors import Unauthorized
from ..protocol.principal import Principal
from .claims import Roles, roles_of
from .verifier import AuthRequest


class ClientCertificate:
    """Takes the certificate of a client's TLS connection as its credential: `server.run_http(tls=..., ca=...)`.

    The principal's id is the subject, such as "CN=ann,O=Example", or the first alternative name of a certificate
    without one; its issuer is that of the certificate. A certificate of which a proxy or another server tells is none.
    The claims are `{"subject", "issuer", "serial", "names"}`, with `names` such as `{"DNS": [...], "email": [...]}`.

    :param roles: where the roles are in the claims, such as "names.DNS", or a function of them.
    """

    schemes: tuple[str, ...] = ()

    def __init__(self, *, roles: Roles = None) -> None:
        self._roles = roles

    def verify(self, request: AuthRequest) -> Principal | None:
        """Return the principal; None for a connection without a certificate that was verified here.

        :raises Unauthorized: for one that has expired since, or names nobody.
        """
        found = request.environ.get("minimcp.client_certificate")
        if found is None:
            return None
        ends = float(ssl.cert_time_to_seconds(found["notAfter"]))
        if time.time() >= ends:
            # The connection was opened before; it is for the client to open another.
            raise Unauthorized("The client certificate has expired")
        names: dict[str, list[Any]] = {}
        for kind, value in found.get("subjectAltName", ()):
            names.setdefault(kind, []).append(value)
        subject = distinguished_name(found.get("subject", ()))
        first = next((f"{kind}:{values[0]}" for kind, values in names.items()), "")
        if not (subject or first):
            raise Unauthorized("The client certificate names nobody")
        issuer = distinguished_name(found.get("issuer", ()))
        claims = {"subject": subject, "issuer": issuer, "serial": found.get("serialNumber", ""), "names": names}
        roles = roles_of(claims, self._roles)
        return Principal(subject or first, issuer, (), roles, claims, "certificate", expires=ends)
