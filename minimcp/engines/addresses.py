"""Spelling, comparing and checking URLs: https, http on this machine, nothing private for a public server.

Spec: AUTH-006, AUTH-104 to AUTH-106
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Union
from urllib.parse import urlsplit

from .errors import AuthorizationError

_Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
_Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
# No user name, no backslash, no space, nothing that another parser could read in another way.
_URL = re.compile(
    r"(?:https?)://(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9.])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
    r"(?:/[A-Za-z0-9._~:/@!$&'()*+,;=%\[\]-]*)?(?:\?[A-Za-z0-9._~:/?@!$&'()*+,;=%\[\]-]*)?\Z",
    re.IGNORECASE,
)
# Whose last four bytes are an IPv4 address: NAT64, compatible, translated.
_EMBEDDING = [ipaddress.IPv6Network(f"{prefix}/96") for prefix in ("64:ff9b::", "::", "::ffff:0:0:0")]
# Not to be connected to from a public server, whatever this version of Python thinks: site-local, documentation.
_NOT_PUBLIC = [ipaddress.IPv6Network(text) for text in ("fec0::/10", "3fff::/20")]
# Never to be connected to: an IPv4 address in an unknown place (NAT64 for local use), and metadata of clouds.
_NEVER = [
    ipaddress.ip_network(text)
    for text in (
        *("64:ff9b:1::/48", "fd00:ec2::254", "fd20:ce::254"),
        *("100.100.100.200", "168.63.129.16", "192.0.0.192"),
    )
]
MOST_CHARACTERS = 16384


def check_url(url: object, what: str) -> str:
    """Check a URL that a server named, and return it.

    :param what: its name in the message.
    :raises AuthorizationError: when it is neither a plain https URL nor an http URL of this machine.
    """
    if not isinstance(url, str) or not is_web(url):
        raise AuthorizationError(f"The {what} is not an http or https URL that can be used: {show(url)}")
    parts = urlsplit(url)
    if origin(url).endswith(":0"):
        raise AuthorizationError(f"The {what} has no valid port: {show(url)}")
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise AuthorizationError(f"The {what} must be https, or http on this machine: {show(url)}")
    return url


def is_web(url: str) -> bool:
    """Say whether this is an http or https URL that everybody reads in the same way."""
    if len(url) > MOST_CHARACTERS or not _URL.match(url):
        return False
    host = re.match(r"\w+://\[([^\]]*)", url)
    return host is None or isinstance(_literal(host[1]), ipaddress.IPv6Address)


def show(url: object) -> str:
    """Return a URL for a message: printable, short, and without the parts where secrets may be."""
    return ascii(without_secrets(str(url))[:200])


def without_secrets(url: str) -> str:
    """Return a URL without user, password, query and fragment."""
    return re.sub(r"^([^:/?#]*://)[^/?#]*@", r"\1", re.split("[?#]", url, maxsplit=1)[0])


def is_loopback(host: str) -> bool:
    """Say whether a host name or literal means this machine."""
    if host.lower() == "localhost":
        return True
    address = _literal(host)
    return address is not None and _unwrap(address).is_loopback


def is_local(url: str) -> bool:
    """Say whether a URL names this machine, or an address of a private network by number.

    A name does not count even if it resolves to one, since its owner can change that at any time.
    """
    host = urlsplit(url).hostname or ""
    address = _literal(host)
    return is_loopback(host) or (address is not None and may_connect(host, True) and not may_connect(host, False))


def may_connect(address: str, local: bool) -> bool:
    """Say whether a connection to this IP address is allowed.

    :param local: whether private addresses are; link-local ones, where clouds keep their metadata, never are.
    """
    found = _literal(address)
    if found is None:
        return False
    found = _unwrap(found)
    if found.is_link_local or found.is_multicast or found.is_unspecified or _within(found, _NEVER):
        return False
    return local or (found.is_global and not found.is_private and not _within(found, _NOT_PUBLIC))


def _within(address: _Address, networks: Sequence[_Network]) -> bool:
    return any(address in network for network in networks)


def _literal(host: str) -> _Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None


def _unwrap(address: _Address) -> _Address:
    """Return the IPv4 address that an IPv6 one stands for: mapped, 6to4, Teredo, NAT64, compatible, translated."""
    if isinstance(address, ipaddress.IPv6Address) and int(address) > 1:
        if _within(address, _EMBEDDING):
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        return inner or address
    return address


def origin(url: str) -> str:
    """Return scheme, host and port of a URL in one spelling."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if ":" in host:
        host = f"[{host}]"
    try:
        port = parts.port
    except ValueError:
        port = 0
    default = {"http": 80, "https": 443}.get(parts.scheme.lower())
    return f"{parts.scheme.lower()}://{host}" + (f":{port}" if port is not None and port != default else "")


def canonical(url: str) -> str:
    """Return the URI that names a server: lowercase scheme and host, no query, no fragment, no lone slash.

    Spec: AUTH-071 to AUTH-073
    """
    path = urlsplit(url).path
    return origin(url) + ("" if path == "/" else path)


def covers(resource: object, url: str) -> bool:
    """Say whether a `resource` in metadata is the server at a URL, or contains it. Spec: AUTH-023"""
    if not isinstance(resource, str) or not is_web(resource) or "?" in resource or origin(resource) != origin(url):
        return False
    outer, inner = urlsplit(canonical(resource)).path, urlsplit(canonical(url)).path
    if ".." in re.split(r"/|%2[fF]", inner.replace("%2e", ".").replace("%2E", ".")):
        return False
    return inner.rstrip("/") == outer.rstrip("/") or inner.startswith(outer.rstrip("/") + "/")


def same_issuer(one: object, other: object) -> bool:
    """Say whether two issuers are one: the same text, but for a lone slash in place of the path. Spec: AUTH-032"""
    if one == other or not isinstance(one, str) or not isinstance(other, str):
        return one == other
    return one.rstrip("/") == other.rstrip("/") and {urlsplit(one).path, urlsplit(other).path} == {"", "/"}


def with_query(url: str, query: str) -> str:
    """Add form-encoded parameters to a URL that may already have some."""
    parts = urlsplit(url)
    return parts._replace(query="&".join(filter(None, (parts.query, query)))).geturl()
