"""Settings of HTTP requests to one address: the address as it is sent, static headers, cookies and idle connections."""

from __future__ import annotations

import base64
import os
import re
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional, Union
from urllib.parse import unquote, urlsplit, urlunsplit

from ..errors import ProtocolError
from .cookies import Cookies
from .raw_connection import Check, RawConnection, tls_context
from .response import Fields, Response

if TYPE_CHECKING:
    import ssl

# An address that needs nothing done to it.
_PLAIN = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~/?=&+,;:-]*)?\Z")
AGENT = "minimcp"
_UNUSABLE = "The address of the server cannot be used"


class HttpSettings:
    """The settings of one process.

    :ivar idle: connections to use again, with the last response on each; threads append and pop, which is atomic.
    """

    def __init__(
        self, url: str, headers: Optional[Mapping[str, Any]], auth: Any, verify: Union[bool, str], check: Check | None
    ) -> None:
        self.pid = os.getpid()
        self.idle: deque[Response] = deque()
        self.cookies = Cookies()
        self.url, credentials = split_url(url)
        self.fields = fields_of(headers)
        self.fields.setdefault("user-agent", ("User-Agent", AGENT))
        self.fields["accept-encoding"] = ("Accept-Encoding", "identity")
        credentials = auth if isinstance(auth, tuple) else credentials if auth is None else None
        if credentials is not None:
            self.fields["authorization"] = ("Authorization", basic(*credentials))
        parts = urlsplit(self.url)
        self._host = parts.hostname or ""
        self._secure = parts.scheme == "https"
        self._port = parts.port or (443 if self._secure else 80)
        self._verify = verify
        self._check = check
        self._tls: Optional[ssl.SSLContext] = None

    def connection(self) -> RawConnection:
        """Make a connection, which is not connected yet.

        :raises ProtocolError: when the certificates to trust cannot be read.
        """
        if self._secure and self._tls is None:
            # It takes its time, and two threads that both make one do no harm.
            try:
                self._tls = tls_context(self._verify)
            except OSError as problem:
                raise ProtocolError(f"The TLS settings cannot be used: {problem}") from None
        return RawConnection(self._host, self._port, self._tls, self._check)


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


def text_of(value: Any) -> str:
    """Return a header's value, which may be bytes, as text."""
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
