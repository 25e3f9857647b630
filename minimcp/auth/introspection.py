"""Opaque access tokens, of which the authorization server says what they are. Spec: AUTH-012, AUTH-013, RFC 7662"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterable
from typing import Any, Union
from urllib.parse import quote

from ..engines.errors import ClientError
from ..engines.oauth.discovery import find_server
from ..engines.oauth.fetching import Fetcher
from ..protocol.errors import Unauthorized
from ..protocol.principal import Principal
from .claims import SCHEMES, Roles, Verified, audiences_of, check_audience, check_times, principal_of, seconds
from .jwt import check_possession
from .proof import ProofCheck
from .verifier import AuthRequest

_LONGEST = 16 * 1024
_TIMEOUT_S = 5.0


class Introspection:
    """Asks an authorization server about each token, and remembers its answers for a while.

    :param issuer: the authorization server.
    :param client_id: by which this server is registered there, with `client_secret`.
    :param audience: the audience that tokens are issued for, or several; by default `Server(public_url=...)`.
    :param endpoint: where to ask; by default the issuer's metadata says so.
    :param roles: see `Jwt`, also for `id`, `scopes`, `dpop`, `dpop_nonce` and `private_addresses`.
    :param keep_s: how long an answer is remembered, refusals too; never longer than the token lives.
    """

    def __init__(
        self,
        issuer: str,
        client_id: str,
        client_secret: str,
        audience: Union[str, Iterable[str], None] = None,
        *,
        endpoint: str | None = None,
        roles: Roles = None,
        id: str = "sub",
        scopes: Iterable[str] = (),
        keep_s: float = 30.0,
        leeway_s: float = 30.0,
        dpop: Union[bool, str] = False,
        dpop_nonce: bool = False,
        private_addresses: bool = False,
    ) -> None:
        self.issuers = (issuer,)
        self.scopes = tuple(scopes)
        self.needs_public_url = audience is None
        self.schemes = SCHEMES[dpop]
        self._audiences = audiences_of(audience)
        pair = f"{quote(client_id, safe='')}:{quote(client_secret, safe='')}"
        self._headers = {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
        self._endpoint = endpoint
        self._roles = roles
        self._id = id
        self._keep_s = keep_s
        self._leeway_s = leeway_s
        self._proofs = ProofCheck(dpop_nonce) if dpop else None
        self._private = private_addresses
        self._answers = Verified()

    def verify(self, request: AuthRequest) -> Principal | None:
        """Return the caller; None where there is no token that the authorization server knows.

        :raises Unauthorized: for a token that is not valid here.
        :raises ClientError: when the authorization server cannot be asked.
        """
        token = request.token
        if request.scheme not in ("bearer", "dpop") or not token or len(token) > _LONGEST:
            return None
        digest = hashlib.sha256(token.encode("ascii")).digest()
        answer = self._answers.get(digest)
        if answer is None:
            answer = self._ask(token)
            ends, until = seconds(answer.get("exp")), time.time() + self._keep_s
            self._answers.put(digest, until if ends is None else min(until, ends), answer)
        if answer.get("active") is not True:
            return None
        if answer.get("iss", self.issuers[0]) != self.issuers[0]:
            raise Unauthorized("The token was issued by another issuer")
        kind = answer.get("token_type", "Bearer")
        if not isinstance(kind, str) or kind.lower() not in ("bearer", "dpop", "access_token"):
            raise Unauthorized("The token is of another kind than an access token")
        until = check_times(answer, self._leeway_s, required=False)
        check_audience(answer, self._audiences or {request.resource})
        check_possession(request, answer.get("cnf"), digest, self._proofs, "Bearer" in self.schemes)
        return principal_of(answer, self.issuers[0], self._roles, self._id, until)

    def _ask(self, token: str) -> dict[str, Any]:
        with Fetcher(self._private, _TIMEOUT_S) as fetch:
            if self._endpoint is None:
                member = "introspection_endpoint"
                self._endpoint = str(find_server(fetch, self.issuers[0], member)[member])
            form = {"token": token, "token_type_hint": "access_token"}
            reply = fetch.post(self._endpoint, "introspection endpoint", form=form, headers=self._headers)
        if reply.status != 200 or reply.body is None:
            raise ClientError(f"The introspection endpoint of {self.issuers[0]} answered HTTP {reply.status}")
        return reply.body
