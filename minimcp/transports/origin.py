"""Host, Origin and CORS checks, made before the body is read.

Spec: TRN-030, TRN-034, TRN-108, TRN-109, 26:basic/transports/streamable-http#security-endpoint
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Optional

from ..protocol.errors import InvalidRequest
from ..protocol.served import Environ, Headers, Response

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?\Z")
_ORIGIN = re.compile(r"https?://([^/?#@\s]+)\Z")
# A name in this form is an address, which no page can have resolve to another one.
_LOOPBACK = re.compile(r"localhost|127(?:\.[0-9]{1,3}){3}|\[::1\]", re.IGNORECASE)
_ASKED = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z, \t]{1,4096}")

_CORS_HEADERS = (
    "Content-Type, Accept, Authorization, Last-Event-ID, Mcp-Session-Id, MCP-Protocol-Version, Mcp-Method, Mcp-Name"
)


class Refused(InvalidRequest):
    """A request that is refused for its HTTP part.

    :param status: the HTTP status of the refusal.
    :param extra: further headers of the refusal.
    """

    def __init__(self, status: int, message: str, *extra: tuple[str, str]) -> None:
        super().__init__(message)
        self.http = (status, list(extra))

    def __reduce__(self) -> Any:
        status, extra = self.http or (400, [])
        return type(self), (status, self.message, *extra)


class OriginCheck:
    """Decides by Host and Origin whether a request is served.

    A web page can have its own name resolve to this server's address, and then looks like the server's own. So without
    a list of hosts a request over a loopback connection must name a loopback host; a request from elsewhere may name
    any, but must not come from a page.

    :param hosts: host names, with or without port, or None for the rule above.
    :param origins: further origins whose pages may call, such as "https://app.example".
    """

    def __init__(self, hosts: Collection[str] | None, origins: Collection[str]) -> None:
        self._hosts = None if hosts is None else frozenset(each.lower() for each in hosts)
        self._origins = origins
        # Header values are few and repeat. No lock: threads that race write the same; bounded.
        self._known: dict[tuple[str, str, str], Optional[str]] = {}

    def refusal(self, environ: Environ) -> str | None:
        """Return the reason to refuse a request, or None."""
        host, origin = environ.get("HTTP_HOST", ""), environ.get("HTTP_ORIGIN", "")
        address = environ.get("REMOTE_ADDR", "")
        if environ.get("minimcp.host_checked"):
            # A framework's view found the name among those that its application serves.
            peer = "checked"
        elif address in ("", "::1") or address.startswith(("127.", "::ffff:127.")):
            peer = "local"
        else:
            peer = "remote"
        key = (host, origin, peer)
        if key in self._known:
            return self._known[key]
        verdict = self._judge(host, origin, peer)
        if len(self._known) < 256 and len(host) + len(origin) < 512:
            self._known[key] = verdict
        return verdict

    def _judge(self, host: str, origin: str, peer: str) -> str | None:
        found = _HOST.match(host)
        if host and found is None:
            return "The Host header is malformed"
        name = found.group(1).lower() if found else ""
        if self._hosts is not None:
            if host.lower() not in self._hosts and name not in self._hosts:
                return "This host is not served here; the server's allowed_hosts decides"
        elif peer == "local" and host and not _LOOPBACK.fullmatch(name):
            return "A loopback connection must name localhost; to serve other names set allowed_hosts"
        elif peer == "remote" and origin and origin not in self._origins:
            return "Pages may call this server once allowed_hosts or allowed_origins is set"
        if origin and not self.allows_origin(origin, host):
            return "Pages of this origin may not call this server; allowed_origins decides"
        return None

    def allows_origin(self, origin: str, host: str) -> bool:
        """Say whether an origin is the server's own, an allowed one, or local like the server itself."""
        if origin in self._origins:
            return True
        found = _ORIGIN.match(origin)
        if found is None:
            return False
        theirs, ours = _HOST.match(found.group(1)), _HOST.match(host)
        if theirs is None or ours is None:
            return False
        if found.group(1).lower() == host.lower():
            return True
        return bool(_LOOPBACK.fullmatch(theirs.group(1)) and _LOOPBACK.fullmatch(ours.group(1)))

    def cors(self, environ: Environ) -> Headers:
        """Return the CORS headers for a page of an allowed origin, and none for everyone else."""
        origin = environ.get("HTTP_ORIGIN")
        if not origin or not self.allows_origin(origin, environ.get("HTTP_HOST", "")):
            return []
        return [
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Expose-Headers", "Mcp-Session-Id"),
            ("Vary", "Origin"),
        ]


def embedded_in_page(environ: Environ) -> bool:
    """Say whether a browser asks on behalf of a page of another origin without naming it, as for an image."""
    site = environ.get("HTTP_SEC_FETCH_SITE")
    return site is not None and site.lower() in ("cross-site", "same-site") and not environ.get("HTTP_ORIGIN")


def options(methods: Collection[str], environ: Environ) -> Response:
    """Answer OPTIONS: a page of an allowed origin may use the methods there are, and whatever headers it asks for."""
    taken = ", ".join(methods)
    fields: Headers = [("Allow", taken)]
    if environ.get("HTTP_ORIGIN"):
        # A tool may mirror its arguments in headers of any name, and an author may have keys in others.
        asked = environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "")
        further = f", {asked}" if _ASKED.fullmatch(asked) else ""
        fields.append(("Access-Control-Allow-Methods", taken))
        fields.append(("Access-Control-Allow-Headers", _CORS_HEADERS + further))
    return 204, fields, []
