"""An issuer of access tokens for tests: its keys, its metadata as a small site, and the tokens that it signs."""

from __future__ import annotations

import base64
import json
import time
from datetime import timedelta
from typing import Any

from tests.authority import Site

AUDIENCE = "https://tools.example/mcp"


def from_now(claims: dict[str, Any]) -> dict[str, Any]:
    """Turn each time difference into the time at which that is over, in seconds since 1970."""
    now = time.time()
    return {
        name: now + value.total_seconds() if isinstance(value, timedelta) else value for name, value in claims.items()
    }


def new_key(kind: str = "EC") -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if kind == "RSA":
        return rsa.generate_private_key(65537, 2048)
    return ed25519.Ed25519PrivateKey.generate() if kind == "OKP" else ec.generate_private_key(ec.SECP256R1())


def public_jwk(key: Any, **more: Any) -> dict[str, Any]:
    import jwt

    algorithms = jwt.algorithms
    kind = {"RSAPrivateKey": algorithms.RSAAlgorithm, "Ed25519PrivateKey": algorithms.OKPAlgorithm}
    name = next((each for each in kind if each in type(key).__name__), None)
    maker = kind[name] if name else algorithms.ECAlgorithm
    return {**json.loads(maker.to_jwk(key.public_key())), **more}


class Issuer:
    """An issuer whose site answers on 127.0.0.1; `keys` maps each kid to a private key and its algorithm."""

    def __init__(self, site: Site | None = None) -> None:
        self.keys: dict[str, tuple[Any, str]] = {"first": (new_key(), "ES256")}
        self.site = site or Site()
        self.url = self.site.url
        self.site.pages["/.well-known/oauth-authorization-server"] = self.metadata
        self.site.pages["/keys"] = self.jwks

    def __enter__(self) -> Issuer:
        self.site.__enter__()
        return self

    def __exit__(self, *problem: Any) -> None:
        self.site.__exit__(*problem)

    def metadata(self, seen: Any) -> Any:
        found = {"issuer": self.url, "jwks_uri": f"{self.url}/keys", "token_endpoint": f"{self.url}/token"}
        found["introspection_endpoint"] = f"{self.url}/introspect"
        return 200, found, {}

    def jwks(self, seen: Any) -> Any:
        return 200, self.document(), {}

    def document(self) -> dict[str, Any]:
        return {"keys": [public_jwk(key, kid=kid, alg=alg, use="sig") for kid, (key, alg) in self.keys.items()]}

    def claims(self, **claims: Any) -> dict[str, Any]:
        now = int(time.time())
        known = {"iss": self.url, "sub": "ann", "aud": AUDIENCE, "iat": now, "exp": now + 600, **claims}
        return from_now({name: value for name, value in known.items() if value is not None})

    def token(self, kid: str = "first", header: dict[str, Any] | None = None, **claims: Any) -> str:
        import jwt

        key, algorithm = self.keys[kid]
        return jwt.encode(self.claims(**claims), key, algorithm, {"kid": kid, "typ": "at+jwt", **(header or {})})


def forged(header: dict[str, Any], claims: Any, signature: bytes = b"x") -> str:
    """Return a token with any header and claims, which nobody signed."""
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
