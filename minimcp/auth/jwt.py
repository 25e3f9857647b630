"""Access tokens that are JSON Web Tokens, verified with the keys of their issuers. Spec: AUTH-012 to AUTH-014, RFC 9068

PyJWT is the optional extra `minimcp-sync[oauth]`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any, Union

from ..engines.oauth.dpop import jwt_library
from ..protocol.errors import Unauthorized
from ..protocol.principal import Principal
from .claims import SCHEMES, Roles, Verified, audiences_of, check_audience, check_times, principal_of
from .jwks import FAMILIES, KeySet
from .proof import ProofCheck
from .verifier import AuthRequest

_LONGEST = 16 * 1024
_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_LONGEST_LEEWAY_S = 300
_LONGEST_KID = 1000
_KEPT_S = 300.0


class Jwt:
    """Verifies access tokens of one or several issuers.

    :param issuer: the issuer, or several; its metadata says where the keys are.
    :param audience: the audience that tokens are issued for, or several; by default `Server(public_url=...)`.
    :param jwks: the keys of the only issuer, or the URL of that document; by default its metadata says where they are.
    :param algorithms: the signature algorithms that are accepted; public keys alone.
    :param roles: the claim with the roles, such as "realm_access.roles", several of them, or a function of the claims.
    :param id: the claim with the identifier of the user.
    :param scopes: the scopes that every request needs.
    :param leeway_s: how far the clocks of issuer and server may differ, in seconds.
    :param dpop: True also accepts tokens that are bound to a key of their sender, "required" accepts only these.
    :param dpop_nonce: whether proofs need a nonce of this server.
    :param private_addresses: whether an issuer may be on a private network.
    :raises ValueError: for an algorithm that is not one of public keys.
    """

    def __init__(
        self,
        issuer: Union[str, Iterable[str]],
        audience: Union[str, Iterable[str], None] = None,
        *,
        jwks: Union[Mapping[str, Any], str, None] = None,
        algorithms: Iterable[str] = ("RS256", "PS256", "ES256", "EdDSA"),
        roles: Roles = None,
        id: str = "sub",
        scopes: Iterable[str] = (),
        leeway_s: float = 30.0,
        dpop: Union[bool, str] = False,
        dpop_nonce: bool = False,
        private_addresses: bool = False,
    ) -> None:
        self.issuers = (issuer,) if isinstance(issuer, str) else tuple(issuer)
        self.algorithms = tuple(algorithms)
        unknown = [name for name in self.algorithms if name not in FAMILIES]
        if unknown or not self.algorithms:
            raise ValueError(f"The algorithms {unknown} are not accepted; choose from {sorted(FAMILIES)}")
        if jwks is not None and len(self.issuers) != 1:
            raise ValueError("jwks= goes with one issuer; make a Jwt for each")
        if not 0 <= leeway_s <= _LONGEST_LEEWAY_S:
            raise ValueError(f"leeway_s is between 0 and {_LONGEST_LEEWAY_S} seconds")
        self.scopes = tuple(scopes)
        self.needs_public_url = audience is None
        self.schemes = SCHEMES[dpop]
        self._audiences = audiences_of(audience)
        self._roles = roles
        self._id = id
        self._leeway_s = leeway_s
        self._proofs = ProofCheck(dpop_nonce) if dpop else None
        self._verified = Verified()
        self._keys = {
            name: KeySet(name, jwks, self._verified.clear, private_addresses=private_addresses) for name in self.issuers
        }
        self._jwt = jwt_library()
        self._jws = self._jwt.api_jws.PyJWS()

    def verify(self, request: AuthRequest) -> Principal | None:
        """Return the caller; None where there is no token of one of the issuers.

        :raises Unauthorized: for a token that is not valid here, or whose proof of possession is not.
        """
        token = request.token
        if request.scheme not in ("bearer", "dpop") or len(token) > _LONGEST or token.count(".") != 2:
            return None
        digest = hashlib.sha256(token.encode("ascii")).digest()
        found = self._verified.get(digest)
        if found is None:
            found = self._decode(token, request.resource, digest)
            if found is None:
                return None
        principal: Principal = found[0]
        check_possession(request, found[1], digest, self._proofs, "Bearer" in self.schemes)
        return principal

    def _decode(self, token: str, resource: str, digest: bytes) -> tuple[Principal, Any] | None:
        """Verify a token and keep the outcome; None for one of another issuer."""
        header, claimed = _peek(token, 0), _peek(token, 1)
        issuer = claimed.get("iss")
        keys = self._keys.get(issuer) if isinstance(issuer, str) else None
        if keys is None:
            return None
        algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
        if not isinstance(algorithm, str) or algorithm not in self.algorithms:
            raise Unauthorized("The token is signed with an algorithm that is not accepted")
        if not isinstance(kind, str) or kind.lower() not in _TYPES or "crit" in header or "cty" in header:
            raise Unauthorized("The token is of another kind than an access token")
        if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= _LONGEST_KID):
            raise Unauthorized("The token's kid is not a name")
        claims = self._signed(token, algorithm, keys.find(kid, algorithm))
        until = check_times(claims, self._leeway_s)
        check_audience(claims, self._audiences or {resource})
        principal = principal_of(claims, str(issuer), self._roles, self._id, until)
        confirmation = claims.get("cnf")
        # Looked at again from time to time, so that a key which its issuer withdrew ends.
        self._verified.put(digest, min(until, time.time() + _KEPT_S), (principal, confirmation))
        return principal, confirmation

    def _signed(self, token: str, algorithm: str, keys: list[Any]) -> dict[str, Any]:
        """Return the claims, once one of the keys has verified the signature."""
        for key in keys:
            try:
                payload = self._jws.decode(token, key, [algorithm])
                claims = json.loads(payload)
            except (self._jwt.PyJWTError, ValueError, RecursionError):
                continue
            if isinstance(claims, dict):
                return claims
        raise Unauthorized("The token's signature is not valid")


def check_possession(
    request: AuthRequest, confirmation: Any, digest: bytes, proofs: ProofCheck | None, bearer: bool
) -> None:
    """Check that a token which is bound to a key is sent with that key's proof, and no other as if it were.

    :param confirmation: the token's `cnf` claim. Spec: AUTH-140, RFC 9449 section 7
    :param bearer: whether tokens that are bound to no key are accepted.
    :raises Unauthorized: otherwise.
    """
    bound = confirmation.get("jkt") if isinstance(confirmation, dict) else None
    if confirmation is not None and not isinstance(bound, str):
        raise Unauthorized("The token is bound in a way that is not known here")
    if bound is None and bearer and request.scheme == "bearer":
        return
    if bound is None or proofs is None or request.scheme != "dpop":
        raise Unauthorized("The token and its authentication scheme do not go together")
    proofs.check(request, bound, digest)


def _peek(token: str, part: int) -> dict[str, Any]:
    """Read the header (0) or the claims (1) of a token that is not verified."""
    raw = token.split(".")[part]
    try:
        found = json.loads(base64.urlsafe_b64decode(raw + "=" * (-len(raw) % 4)))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
