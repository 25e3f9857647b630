"""DPoP: proof that the sender of a token holds the key it was issued for. Spec: AUTH-132 to AUTH-141, RFC 9449"""

from __future__ import annotations

import base64
import hashlib
import re
import threading
import time
import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ..addresses import origin
from ..errors import AuthorizationError
from ..fork import PerProcess

_NONCE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,1024}\Z")


def jwt_library() -> Any:
    """Return PyJWT, which has its cryptography.

    :raises AuthorizationError: when they are not installed.
    """
    try:
        import cryptography  # noqa: F401
        import jwt
    except ImportError:
        raise AuthorizationError("Signing needs PyJWT and cryptography: pip install minimcp-sync[oauth]") from None
    return jwt


def base64url(raw: bytes) -> str:
    """Encode as base64 in the form of JSON Web Tokens."""
    return base64.urlsafe_b64encode(raw).decode("ascii").rstrip("=")


class Prover:
    """Makes proofs with one ES256 key, which is made on first use and never leaves the process. Spec: AUTH-137"""

    def __init__(self) -> None:
        self._lock = PerProcess(threading.Lock)  # guards the making of _key
        self._key: Any = None
        self._jwk: dict[str, str] = {}
        # By role ("token" or "resource") and origin; one that replaces another is as good.
        self._nonces: dict[tuple[str, str], str] = {}

    def __repr__(self) -> str:
        return "Prover()"

    def proof(self, role: str, method: str, url: str, token: str | None = None) -> str:
        """Make a proof for one request.

        :param role: "token" for a token endpoint, "resource" for the server; their nonces are apart.
        :param token: the access token that goes with it. Spec: AUTH-134
        """
        jwt = jwt_library()
        self._make_key()
        claims = {
            "jti": str(uuid.uuid4()),
            "htm": method,
            "htu": urlsplit(url)._replace(query="", fragment="").geturl(),
            "iat": int(time.time()),
        }
        if token is not None:
            claims["ath"] = base64url(hashlib.sha256(token.encode("ascii")).digest())
        nonce = self._nonces.get((role, origin(url)))
        if nonce is not None:
            claims["nonce"] = nonce
        proof: str = jwt.encode(claims, self._key, algorithm="ES256", headers={"typ": "dpop+jwt", "jwk": self._jwk})
        return proof

    def note(self, role: str, url: str, headers: Mapping[str, str]) -> bool:
        """Remember the nonce a server sent, if any; True when it is a new one. Spec: AUTH-135, AUTH-136

        :param headers: by lower-case name.
        """
        nonce = headers.get("dpop-nonce")
        if nonce is None or not _NONCE.match(nonce) or self._nonces.get((role, origin(url))) == nonce:
            return False
        self._nonces[(role, origin(url))] = nonce
        return True

    def _make_key(self) -> None:
        with self._lock():
            if self._key is None:
                from cryptography.hazmat.primitives.asymmetric import ec

                key = ec.generate_private_key(ec.SECP256R1())
                numbers = key.public_key().public_numbers()
                x, y = (base64url(part.to_bytes(32, "big")) for part in (numbers.x, numbers.y))
                self._jwk = {"kty": "EC", "crv": "P-256", "x": x, "y": y}
                self._key = key
