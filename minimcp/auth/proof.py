"""DPoP proofs of a request: that its sender holds the key to which the token is bound.

Spec: AUTH-138 to AUTH-143, RFC 9449
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from ..engines.fork import PerProcess
from ..engines.oauth.dpop import base64url, jwt_library
from ..protocol.errors import Unauthorized
from .claims import seconds
from .jwks import FAMILIES
from .verifier import AuthRequest

WINDOW_S = 300
_NONCE_S = 300
_LONGEST = 8 * 1024
_LONGEST_ID = 256
# The members of a public key that its thumbprint covers, by RFC 7638, in their order.
_MEMBERS = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n"), "OKP": ("crv", "kty", "x")}


class ProofCheck:
    """Checks proofs, and remembers each until it is too old to be sent again.

    :param nonce: whether a proof needs a nonce that this server has given out lately.
    :param limit: how many proofs are remembered; beyond it the oldest are forgotten.
    """

    def __init__(self, nonce: bool = False, limit: int = 100_000) -> None:
        self._nonce = nonce
        self._limit = limit
        self._secret = PerProcess(lambda: os.urandom(32))
        self._lock = PerProcess(threading.Lock)  # guards _seen
        self._seen: dict[bytes, float] = {}  # by the digest of key and jti: when it was seen
        self._keys: dict[str, tuple[str, str, Any]] = {}  # parsed keys by their JSON, bounded
        self._jwt = jwt_library()
        self._jws = self._jwt.api_jws.PyJWS()

    def check(self, request: AuthRequest, thumbprint: str, token_digest: bytes) -> None:
        """Check the proof of a request.

        :param thumbprint: the `jkt` to which the token is bound.
        :raises Unauthorized: with a challenge by which the client learns what is missing.
        """
        proof = request.header("DPoP") or ""
        if not proof or len(proof) > _LONGEST or proof.count(".") != 2 or "," in proof:
            raise _refusal("The request needs exactly one DPoP proof")
        claims, found = self._open(proof)
        if not hmac.compare_digest(found.encode(), thumbprint.encode("utf-8", "replace")):
            raise _refusal("The proof was made with another key than the token is bound to")
        if claims.get("htm") != request.method:
            raise _refusal("The proof is for another HTTP method")
        if _plain(claims.get("htu")) != _plain(request.url):
            raise _refusal("The proof is for another address")
        if claims.get("ath") != base64url(token_digest):
            raise _refusal("The proof is for another token")
        made = seconds(claims.get("iat"))
        if made is None or not abs(time.time() - made) <= WINDOW_S:
            raise _refusal("The proof is too old, or from the future")
        if self._nonce and claims.get("nonce") not in self._nonces():
            raise _refusal("The proof needs this server's nonce", "use_dpop_nonce", self._nonces()[0])
        self._remember(claims.get("jti"), thumbprint)

    def _open(self, proof: str) -> tuple[dict[str, Any], str]:
        """Verify a proof by the key inside, and return its claims and the key's thumbprint."""
        try:
            header = json.loads(_decode(proof.split(".")[0]))
            jwk, algorithm = header["jwk"], header["alg"]
            if header.get("typ") != "dpop+jwt" or algorithm not in FAMILIES or "crit" in header:
                raise ValueError
            key, found = self._key(jwk, algorithm)
            claims = json.loads(self._jws.decode(proof, key, [algorithm]))
            if not isinstance(claims, dict):
                raise ValueError
            return claims, found
        except (self._jwt.PyJWTError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise _refusal("The proof is not a valid DPoP proof") from None

    def _key(self, jwk: Any, algorithm: str) -> tuple[Any, str]:
        text = json.dumps(jwk, sort_keys=True)
        known = self._keys.get(text)
        if known is not None and known[0] == algorithm:
            return known[2], known[1]
        family = FAMILIES[algorithm]
        if jwk["kty"] != family or "d" in jwk or not all(isinstance(jwk[name], str) for name in _MEMBERS[family]):
            raise ValueError
        parsed = self._jwt.PyJWK(jwk, algorithm=algorithm).key
        found = thumbprint_of(jwk)
        if len(self._keys) >= 1000:
            self._keys = {}
        self._keys[text] = (algorithm, found, parsed)
        return parsed, found

    def _remember(self, jti: Any, thumbprint: str) -> None:
        if not isinstance(jti, str) or not 0 < len(jti) <= _LONGEST_ID:
            raise _refusal("The proof has no jti")
        digest = hashlib.sha256(f"{thumbprint} {jti}".encode("utf-8", "surrogatepass")).digest()
        now = time.time()
        with self._lock():
            if digest in self._seen:
                raise _refusal("The proof was used before")
            while self._seen:
                oldest = next(iter(self._seen))
                if len(self._seen) < self._limit and self._seen[oldest] > now - 2 * WINDOW_S:
                    break
                del self._seen[oldest]
            self._seen[digest] = now

    def _nonces(self) -> list[str]:
        """Return the nonce to give out and the one before, which is still accepted."""
        step = int(time.time() // _NONCE_S)
        return [base64url(hmac.digest(self._secret(), str(each).encode(), "sha256")) for each in (step, step - 1)]


def thumbprint_of(jwk: dict[str, Any]) -> str:
    """Return the SHA-256 thumbprint of a public key. Spec: RFC 7638"""
    members = {name: jwk[name] for name in _MEMBERS[jwk["kty"]]}
    return base64url(hashlib.sha256(json.dumps(members, separators=(",", ":")).encode()).digest())


def _refusal(text: str, error: str = "invalid_dpop_proof", nonce: str = "") -> Unauthorized:
    algorithms = " ".join(("ES256", "RS256", "EdDSA"))
    problem = Unauthorized(text, f'DPoP error="{error}", error_description="{text}", algs="{algorithms}"')
    if nonce and problem.http is not None:
        problem.http[1].append(("DPoP-Nonce", nonce))
    return problem


def _plain(url: Any) -> str:
    """Return a URL without query and fragment, in one spelling of scheme, host and port; "" for what is none."""
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        port = parts.port
    except ValueError:
        return ""
    default = {"http": 80, "https": 443}.get(parts.scheme)
    host = (parts.hostname or "") + ("" if port is None or port == default else f":{port}")
    return f"{parts.scheme}://{host}{parts.path or '/'}"


def _decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
