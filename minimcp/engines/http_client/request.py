"""HTTP requests as they are sent: addresses, headers, and the credentials that sign them."""

from __future__ import annotations

import base64
import re
from collections.abc import Container, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Optional, Protocol, Union
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from ..errors import ProtocolError
from .response import Fields, Headers

# An address that needs nothing done to it.
_PLAIN = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~/?=&+,;:-]*)?\Z")
_FORBIDDEN = re.compile(r"[\r\n\0]")
_TARGET = re.compile(r"[!-~]+\Z")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
# Sent with every request, whoever sends it; a DPoP proof is for one request, and its token is in another header.
ALWAYS = ("accept-encoding", "content-length", "dpop")
_UNUSABLE = "The address of the server cannot be used"


class SignedAnswer(NamedTuple):
    """An answer to a request.

    :ivar headers: of the answer, by lower-case name.
    :ivar sent: the headers of the request, by lower-case name.
    """

    method: str
    url: str
    status: int
    headers: Headers
    sent: Headers


class Auth(Protocol):
    """Credentials for the requests to one server; used by several threads at once."""

    def sign(self, method: str, url: str, headers: Headers) -> Headers:
        """Return the headers to add to a request, which is about to be sent with these.

        The time this takes is not the server's: it may ask a person.
        """

    def answered(self, answers: Sequence[SignedAnswer]) -> bool:
        """Take note of an answer, and say whether to sign the request and send it again.

        :param answers: all answers to this request, the newest last.
        """


def is_native(auth: Any) -> bool:
    """Say whether credentials have the two methods, and need no `requests`."""
    return hasattr(auth, "sign") and hasattr(auth, "answered")


class Outgoing(NamedTuple):
    """A request that is ready to be sent.

    :ivar foreign: the same as a `requests.PreparedRequest`, where `requests` sends it.
    """

    method: str
    url: str
    fields: Fields
    body: bytes
    foreign: Any = None


@lru_cache(maxsize=64)
def _target(url: str) -> tuple[str, str]:
    """Return the request target and the host of an address, as they are written."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not _TARGET.match(target):
        target = quote(target, safe="!#$%&'()*+,/:;=?@[]~")
    host = parts.netloc.rpartition("@")[2]
    default = {"http": ":80", "https": ":443"}.get(parts.scheme, "")
    return target, host[: -len(default)] if default and host.endswith(default) else host


def head_of(request: Outgoing) -> bytes:
    """Return the bytes of a request up to its body.

    :raises ProtocolError: for a header with characters that it may not have.
    """
    target, host = _target(request.url)
    lines = [f"{request.method} {target} HTTP/1.1"]
    if "host" not in request.fields:
        lines.append(f"Host: {host}")
    for name, value in request.fields.values():
        if _FORBIDDEN.search(value) or not _NAME.match(name):
            raise ProtocolError(f"The header {name[:100]!r} has characters that a header may not have")
        lines.append(f"{name}: {value}")
    try:
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    except UnicodeEncodeError:
        raise ProtocolError("A header has characters that a header may not have") from None


def split_url(url: str) -> tuple[str, Optional[tuple[str, str]]]:
    """Return an address as it is sent, without user and fragment, and the user and password that it has.

    :raises ProtocolError: when it cannot be used.
    """
    try:
        if not _PLAIN.match(url):
            url = _prepared(url)
        parts = urlsplit(url)
        # Reading it checks it.
        parts.port  # noqa: B018
    except ValueError as problem:
        raise ProtocolError(f"{_UNUSABLE}: {problem}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ProtocolError(f"{_UNUSABLE}: it is not an http or https URL")
    user = (unquote(parts.username or ""), unquote(parts.password or "")) if parts.username else None
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="")), user


def _prepared(url: str) -> str:
    """Spell an address as `requests` does: an international host name, spaces, a missing path."""
    import requests

    request = requests.PreparedRequest()
    request.prepare_url(url, None)
    return request.url or ""


def fields_of(headers: Optional[Mapping[str, Any]]) -> Fields:
    """Return headers by lower-case name, without those that are None."""
    return {name.lower(): (name, text_of(value)) for name, value in (headers or {}).items() if value is not None}


def basic(user: Union[str, bytes], password: Union[str, bytes]) -> str:
    """Return the header of a user and a password. Spec: RFC 7617"""
    pair = b":".join(part if isinstance(part, bytes) else part.encode("latin-1") for part in (user, password))
    return "Basic " + base64.b64encode(pair).decode("ascii")


def fingerprint(fields: Fields, ours: Container[str], caller: str) -> str:
    """Return a fingerprint of the headers that a caller brought, "" for none.

    :param ours: the names of those that the request itself needs.
    :param caller: names what else the caller brought.
    """
    brought = sorted((name, value) for name, (_, value) in fields.items() if name not in ours and name not in ALWAYS)
    if not brought and not caller:
        return ""
    import hashlib

    return hashlib.sha256(repr((caller, brought)).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def text_of(value: Any) -> str:
    """Return a header's value, which may be bytes, as text."""
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
