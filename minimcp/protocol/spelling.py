"""The one spelling of all equivalent ones of a URI, and patterns of names. Spec: RFC 3986 section 6.2.2"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote

_OTHER = re.compile(r"%[0-9A-Fa-f]{2}|[^!-~]|[\"<>\\^`|]")
_SPECIAL = re.compile(r"[\[?]")  # to fnmatch, but not here
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def normal(uri: str) -> str:
    """Return the one spelling of all equivalent ones of a URI, a template or a pattern of them."""
    return _OTHER.sub(respell, uri)


def respell(found: re.Match[str]) -> str:
    """Return the one spelling of a character that is percent-encoded, or has to be."""
    part = found.group()
    if len(part) == 1:
        return quote(part, safe="", errors="surrogatepass")
    plain = chr(int(part[1:], 16))
    return plain if plain in _UNRESERVED else part.upper()


def fits(patterns: Iterable[str], name: str) -> bool:
    """Say whether one of some patterns, in which `*` stands for anything, is for a name; case counts."""
    from fnmatch import fnmatchcase

    return any(pattern == "*" or fnmatchcase(name, _SPECIAL.sub(r"[\g<0>]", pattern)) for pattern in patterns)
