"""The public keys of an issuer, fetched when needed, and again when a token names one that is not known.

Spec: RFC 7517, RFC 8414
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Union

from ..engines.errors import ClientError
from ..engines.fork import PerProcess
from ..engines.oauth.discovery import find_server
from ..engines.oauth.dpop import jwt_library
from ..engines.oauth.fetching import Fetcher
from ..protocol.errors import Unauthorized

# The kind of key that each algorithm needs, so that a public key is never taken for a shared secret.
FAMILIES = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    **dict.fromkeys(("ES256", "ES384", "ES512"), "EC"),
    "EdDSA": "OKP",
}
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_MOST_KEYS = 100
_SHORTEST_RSA_BITS = 2048
_TIMEOUT_S = 5.0


class KeySet:
    """The keys of one issuer.

    A warm server goes on with the keys that it knows when the issuer does not answer. The keys are fetched anew after
    an hour, or when a token names an unknown one, but at most once in `refetch_s`, also after a failure.

    :param jwks: the keys, `{"keys": [...]}`, or the URL of that document; None to find it in the issuer's metadata.
    :param on_change: called when the keys are others than before.
    :param private_addresses: whether the issuer may be on a private network.
    """

    def __init__(
        self,
        issuer: str,
        jwks: Union[Mapping[str, Any], str, None],
        on_change: Callable[[], None],
        *,
        private_addresses: bool = False,
        refetch_s: float = 30.0,
        keep_s: float = 3600.0,
    ) -> None:
        self._issuer = issuer
        self._url = jwks if isinstance(jwks, str) else None
        self._fetcher = Fetcher(private_addresses, _TIMEOUT_S)
        self._on_change = on_change
        self._refetch_s = refetch_s
        self._keep_s = keep_s
        self._lock = PerProcess(threading.Lock)  # held while fetching; guards what follows
        self._fixed = isinstance(jwks, Mapping)
        self._keys: list[tuple[str | None, str, Any]] = []  # kid, algorithm, key; replaced as a whole
        self._document: Any = None
        self._fetched = self._tried = float("-inf")
        if isinstance(jwks, Mapping):
            self._take(jwks)

    def find(self, kid: str | None, algorithm: str) -> list[Any]:
        """Return the keys that may have signed a token.

        :raises Unauthorized: when the issuer has none such.
        :raises ClientError: when the issuer cannot be asked and no key is known.
        """
        found = self._matching(kid, algorithm)
        if not self._fixed and (not found or time.monotonic() - self._fetched > self._keep_s):
            self._refresh()
            found = self._matching(kid, algorithm)
        if not found:
            raise Unauthorized("The token is signed with a key that its issuer does not have")
        return found

    def _matching(self, kid: str | None, algorithm: str) -> list[Any]:
        return [key for name, usable, key in self._keys if usable == algorithm and (kid is None or name == kid)]

    def _refresh(self) -> None:
        with self._lock():
            if time.monotonic() - self._tried < self._refetch_s:
                if not self._keys:
                    raise ClientError(f"The keys of {self._issuer} could not be fetched a moment ago")
                return
            self._tried = time.monotonic()
            try:
                with self._fetcher as fetch:
                    if self._url is None:
                        self._url = str(find_server(fetch, self._issuer, "jwks_uri")["jwks_uri"])
                    document = fetch.get(self._url, "key set")
                if document is None:
                    raise ClientError(f"There is no key set at {self._url}")
                self._take(document)
            except ClientError:
                if not self._keys:
                    raise
                return
            self._fetched = time.monotonic()

    def _take(self, document: Mapping[str, Any]) -> None:
        """Take the keys of a document that can verify something, and leave out the rest."""
        if document == self._document:
            return
        keys = document.get("keys")
        if not isinstance(keys, list) or len(keys) > _MOST_KEYS:
            raise ClientError(f"The key set of {self._issuer} is not a list of at most {_MOST_KEYS} keys")
        found = []
        for each in keys:
            if isinstance(each, dict) and each.get("use", "sig") == "sig":
                found += _usable(each)
        if not found:
            raise ClientError(f"The key set of {self._issuer} has no public key that can verify a token")
        self._keys, self._document = found, document
        self._on_change()


def _usable(jwk: dict[str, Any]) -> list[tuple[str | None, str, Any]]:
    """Return a key once for each algorithm that it may be used with."""
    jwt = jwt_library()
    kid = jwk.get("kid") if isinstance(jwk.get("kid"), str) else None
    found = []
    for algorithm, family in FAMILIES.items():
        if jwk.get("kty") != family or jwk.get("alg", algorithm) != algorithm:
            continue
        if family == "EC" and jwk.get("crv") != _CURVES[algorithm]:
            continue
        try:
            key = jwt.PyJWK(jwk, algorithm=algorithm).key
        except Exception:
            continue  # A key that cannot be read, or of a curve that is not known, verifies nothing.
        # A private key in a public document is a mistake that everybody can read; it is not trusted.
        if hasattr(key, "verify") and (family != "RSA" or key.key_size >= _SHORTEST_RSA_BITS):
            found.append((kid, algorithm, key))
    return found
