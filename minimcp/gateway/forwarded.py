"""The headers of a caller that a server gets: those that its configuration names, and never a credential."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import Any

from .checks import Place

log = logging.getLogger("minimcp")

_LONGEST = 8192
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^`|~-]{1,200}\Z")
_VALUE = re.compile(r"[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?\Z")
# The caller's credentials, what a proxy says of the caller, and what belongs to one connection or to its message.
_NEVER = re.compile(
    r"(?:authorization|x-api-key|api-key|dpop|set-cookie2?|cookie2?|proxy-.*|mcp-.*|x-forwarded-.*|forwarded|x-real-ip|via|"
    r"host|connection|keep-alive|te|trailer|transfer-encoding|upgrade|expect|content-.*|accept.*|origin|last-event-id|"
    r"sec-.*)\Z",
    re.IGNORECASE,
)


class Forwarded:
    """Chooses the headers of a request that one server gets.

    :param name: of the server; `headers` are the names of headers.
    :param place: names the option in messages.
    :raises ValueError: for a header that may not be forwarded.
    """

    def __init__(self, name: str, headers: Iterable[str], place: Place) -> None:
        self._name = name
        self._headers = [(each, "HTTP_" + each.upper().replace("-", "_")) for each in checked(headers, place)]

    def headers(self, environ: dict[str, Any] | None) -> dict[str, str]:
        """Return the headers of the request with this WSGI environ; one that cannot be sent is left out."""
        if environ is None:
            return {}
        found = {}
        for name, key in self._headers:
            value = environ.get(key)
            if value is None:
                continue
            if isinstance(value, str) and len(value) <= _LONGEST and _VALUE.match(value):
                found[name] = value
            else:
                log.warning("The header %s of a caller is left out for %s: it is empty or malformed", name, self._name)
        return found


def checked(headers: Iterable[str], place: Place) -> list[str]:
    """Return names of headers, all of which may be forwarded.

    :raises ValueError: naming one that may not.
    """
    found = list(headers)
    for name in found:
        if not isinstance(name, str) or not _NAME.match(name):
            raise place.wrong(f"has {str(name)[:100]!r}, which is no name of a header, or has an underscore")
        if _NEVER.match(name):
            raise place.wrong(f"cannot have {name}: it is of the caller's own connection, or its credential")
    return found
