"""Signed tokens, which a server gives to its clients and verifies when they come back.

They are used for `requestState` and for legacy session ids. A token is `base64url(JSON) + "." +
base64url(HMAC-SHA256)`. It is signed, not secret: put nothing in it that its holder did not send. The standard
library's cryptography is imported where it is used: most servers on stdio never sign anything.

Spec: BASE-180 to BASE-183, TRN-142, TRN-154
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import time
from collections.abc import Sequence
from typing import Any, Union

from ..engines.errors import MinimcpError

Secret = Union[str, bytes]
ENVIRONMENT = "MINIMCP_SECRET"
MAX_TOKEN = 2 * 1024 * 1024


class BadSeal(MinimcpError):
    """The error for a token that does not verify; its text is for the log and never for the wire."""


class Sealer:
    """Signs tokens with the first key and verifies with all of them, so that keys can be rotated.

    :param secret: one key or several; without any the environment variable MINIMCP_SECRET (keys separated by
        white space), and without that a key of this process.
    :raises ValueError: for a key shorter than 16 bytes.
    """

    def __init__(self, secret: Secret | Sequence[Secret] | None = None) -> None:
        given: Sequence[Secret] = [secret] if isinstance(secret, (str, bytes)) else list(secret or ())
        given = given or os.environ.get(ENVIRONMENT, "").split()
        keys = [key.encode("utf-8") if isinstance(key, str) else key for key in given]
        if any(len(key) < 16 for key in keys):
            raise ValueError("A secret has at least 16 bytes; make one with secrets.token_hex()")
        self.shared = bool(keys)
        self._keys = keys or [os.urandom(32)]

    def seal(self, purpose: str, payload: dict[str, Any], lifetime_s: float) -> str:
        """Sign a payload that expires after `lifetime_s` seconds; `exp` is added to it."""
        payload = {**payload, "exp": int(time.time() + lifetime_s)}
        raw = json.dumps(payload, separators=(",", ":")).encode("ascii")
        text = base64.urlsafe_b64encode(raw).rstrip(b"=")
        return (text + b"." + self._sign(self._keys[0], purpose, text)).decode("ascii")

    def unseal(self, purpose: str, token: Any) -> dict[str, Any]:
        """Verify a token and return its payload.

        :raises BadSeal: when it is malformed, signed by another key, made for another purpose, or expired.
        """
        if not isinstance(token, str) or len(token) > MAX_TOKEN or not token.isascii():
            raise BadSeal("not a token")
        from hmac import compare_digest

        text, _, signature = token.encode("ascii").partition(b".")
        if not any(compare_digest(self._sign(key, purpose, text), signature) for key in self._keys):
            raise BadSeal("the signature is wrong")
        try:
            payload: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4)))
        except (binascii.Error, ValueError):
            raise BadSeal("the payload is not JSON") from None
        if payload["exp"] < time.time():
            raise BadSeal("it has expired")
        return payload

    def sign(self, purpose: str, text: str) -> str:
        """Return the signature of a text that is not a token."""
        return self._sign(self._keys[0], purpose, text.encode("utf-8")).decode("ascii")

    def verify(self, purpose: str, text: str, signature: Any) -> bool:
        """Say whether a signature is one of a text."""
        from hmac import compare_digest

        if not isinstance(signature, str) or not signature.isascii():
            return False
        given, raw = signature.encode("ascii"), text.encode("utf-8")
        return any(compare_digest(self._sign(key, purpose, raw), given) for key in self._keys)

    @staticmethod
    def _sign(key: bytes, purpose: str, text: bytes) -> bytes:
        from hmac import digest

        # Over the text as sent: decoders forgive trailing junk, a signature does not.
        signature = digest(key, purpose.encode("ascii") + b"\0" + text, "sha256")
        return base64.urlsafe_b64encode(signature).rstrip(b"=")


def digest(value: Any) -> str:
    """Return a short fingerprint of a JSON value, the same for equal values."""
    from hashlib import sha256

    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode("ascii")
    return base64.urlsafe_b64encode(sha256(canonical).digest()[:18]).decode("ascii")
