"""Negotiation: find out which era and revision a server speaks, by a probe and a table of what its outcomes mean.

The probe is `server/discover`. `TABLE` has a row for everything that may come of it, on any transport.
Spec: BASE-085 to BASE-105, TRN-100 to TRN-105, 26:basic/versioning
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple, Optional
from urllib.parse import urlsplit, urlunsplit

from ..engines.errors import ClientError, ConnectionLost, ProtocolError, Timeout
from ..engines.fork import PerProcess
from ..protocol import spec, wire
from .connection import Connection
from .eras import LEGACY, MODERN, ClientEra, Peer, initialize_params, result_of
from .errors import HTTPStatus, RemoteError, unauthorized
from .transports.transport import Transport
from .transports.waiting import Deadline

log = logging.getLogger("minimcp")

Message = dict[str, Any]
Make = Callable[[], Transport]

MODES = ("auto", "modern", "legacy", *spec.VERSIONS)
NEWEST = spec.MODERN_VERSIONS[-1]
_MODERN_CODES = (spec.HEADER_MISMATCH, spec.MISSING_CAPABILITY, spec.UNSUPPORTED_VERSION)
# They say that a server has no time, and nothing of its era.
_OVERLOADED = (408, 425, 429, 502, 503, 504)
# The answers to a POST that lead on to the older HTTP+SSE. Spec: TRN-104
_LEADING_ON = (400, 404, 405)
_MOST_VERDICTS = 256
# The servers known to be legacy, most recent last, so that the next client need not probe. Spec: BASE-093, BASE-094
_legacy: OrderedDict[str, None] = OrderedDict()
_lock = PerProcess(threading.Lock)  # guards _legacy


class Row(NamedTuple):
    """The meaning of one outcome of the probe.

    :ivar then: "connect": it is modern; "again": probe again with a revision that it speaks; "initialize": it is
        legacy; "restart": likewise, over a new connection or to a new process; "tell": nothing more is tried.
    :ivar remember: whether the next client begins with `initialize`, if that works now.
    :ivar told: whether this is the reason to tell if `initialize` fails too; otherwise that failure is.
    :ivar doubt: whether it may be modern after all, which a refusal of `initialize` would show.
    """

    then: str
    remember: bool = False
    told: bool = False
    doubt: bool = False


TABLE = {
    "modern": Row("connect"),  # a result with a modern revision that both speak
    "no method": Row("connect"),  # HTTP 404 with -32601: modern, without this method. Spec: TRN-103
    "another version": Row("again"),  # -32022 that offers a modern revision that both speak
    "modern error": Row("tell"),  # -32020, -32021, -32022 without an offer. Spec: BASE-088
    "no common version": Row("tell"),
    "older version": Row("initialize", remember=True),  # an offer of legacy revisions only
    "other result": Row("initialize", remember=True),  # some answer whatever they do not know with {}
    "other error": Row("initialize", remember=True),  # whatever its code. Spec: BASE-089, BASE-090
    "refusal": Row("initialize", remember=True),  # most of HTTP 4xx without such an error. Spec: TRN-102
    "failure": Row("initialize", remember=True, told=True, doubt=True),  # HTTP 403, 500 and other statuses
    "overload": Row("initialize", told=True, doubt=True),  # HTTP 429, 503 and others that pass
    "nonsense": Row("initialize", remember=True, told=True, doubt=True),  # HTTP 202, HTML, no JSON, a wrong id
    "silence": Row("initialize", remember=True, doubt=True),  # nothing within `probe_timeout`
    "hang-up": Row("restart", told=True, doubt=True),  # an HTTP connection or stream that ends without an answer
    "end": Row("restart", remember=True, told=True, doubt=True),  # the end of a process, or of its output
    "nowhere": Row("tell"),  # nothing was sent, or not with the right credentials (HTTP 401), or it is no server
}


class Finding(NamedTuple):
    """An outcome of the probe.

    :ivar kind: its row in `TABLE`.
    :ivar version: the revision to go on with.
    :ivar greeting: the result of `server/discover`.
    :ivar problem: the reason, where it is a failure.
    """

    kind: str
    version: str = spec.LATEST_LEGACY
    greeting: Message = {}
    problem: Optional[ClientError] = None


def negotiate(conn: Connection) -> Peer:
    """Open the first transport that works and return the server behind it.

    :raises ClientError: when there is no server, or no revision both sides speak; the first of several reasons.
    """
    mode = conn.settings.mode
    reasons: list[ClientError] = []
    for make in conn.settings.target.transports:
        try:
            conn.use(make)
            return _settle(conn, _greet(conn, make, mode, reasons))
        except ClientError as problem:
            reasons.append(problem)
            if conn.closed or mode in ("modern", *spec.MODERN_VERSIONS) or not _leads_on(problem):
                break
            log.info("no Streamable HTTP here: %.300r", problem)
    first, *others = reasons
    url = conn.settings.target.shown
    parts = urlsplit(url) if url.startswith("http") else None
    unusual = parts and not parts.path.rstrip("/").endswith(("/mcp", "/sse"))
    if parts and unusual and isinstance(first, (HTTPStatus, RemoteError)) and first.status in (404, 405):
        better = urlunsplit((*parts[:2], "/mcp", "", ""))
        told = f"There is no MCP endpoint at {url} (HTTP {first.status}); most servers have it at {better}"
        first.args = (told,)
        raise first
    if parts and parts.scheme == "http" and str(first).startswith("The connection to the server broke"):
        first.args = (f"{first}; if it speaks https, write https:{url[5:]}",)
    doubt = conn.transport.doubt() if isinstance(first, Timeout) else ""
    if doubt:
        first.args = (f"{first}; {doubt}",)
    # A process that ends twice may say the same with another date.
    more = [str(other) for other in others if type(other) is not type(first) or not isinstance(first, ConnectionLost)]
    first.args = ("; then: ".join(dict.fromkeys([str(first), *more])),)
    raise first


def _leads_on(problem: ClientError) -> bool:
    """Say whether a server that answered like this may speak HTTP+SSE. Spec: TRN-104"""
    if isinstance(problem, RemoteError):
        return problem.status in _LEADING_ON and problem.code not in _MODERN_CODES
    return isinstance(problem, HTTPStatus) and problem.status in _LEADING_ON


def forget(key: str) -> None:
    """Forget that a server was legacy, since it no longer is. Spec: BASE-094"""
    with _lock():
        _legacy.pop(key, None)


def _remember(key: str) -> None:
    with _lock():
        _legacy[key] = None
        _legacy.move_to_end(key)
        if len(_legacy) > _MOST_VERDICTS:
            _legacy.popitem(last=False)


def _settle(conn: Connection, peer: Peer) -> Peer:
    conn.transport.settle(peer.version)
    if peer.era is LEGACY:
        conn.peer = peer
        try:
            conn.send_notification("notifications/initialized")
        except HTTPStatus as problem:
            if problem.status in (401, 403):
                raise
            log.warning("the server does not take notifications/initialized: %s", problem)
        settings = conn.settings
        if settings.answers or settings.on_log or settings.on_notification:
            conn.transport.listen()
        if settings.log_level is not None and peer.offers("logging"):
            try:
                conn.ask("logging/setLevel", {"level": settings.log_level})
            except RemoteError as problem:
                log.warning("the server does not set its log level: %.300r", problem)
    return peer


def _greet(conn: Connection, make: Make, mode: str, reasons: list[ClientError]) -> Peer:
    """Return the server behind a transport that is open, as the probe finds it, or as it was known or saved earlier.

    :param make: makes the transport anew, for a server that ends.
    :param reasons: takes a failure that came before the one that is raised.
    """
    saved = (conn.settings.discovery or {}).get("protocolVersion")
    if conn.settings.discovery and saved not in spec.LEGACY_VERSIONS:
        return Peer(MODERN, saved if saved in spec.MODERN_VERSIONS else NEWEST, conn.settings.discovery)
    if mode == "auto" and conn.transport.kind == "sse":
        mode = "legacy"  # No modern server speaks HTTP+SSE.
    if mode == "legacy" or mode in spec.LEGACY_VERSIONS:
        peer = initialize(conn, saved or (spec.LATEST_LEGACY if mode == "legacy" else mode))
        if mode != "legacy" and peer.version != mode:
            raise ProtocolError(f"The server speaks {peer.version}, but mode={mode!r} allows nothing else")
        return peer
    key = conn.settings.target.key
    with _lock():
        known = key in _legacy
    if mode == "auto" and (known or saved):
        try:
            return initialize(conn, saved or spec.LATEST_LEGACY)
        except ClientError as problem:
            kind = _failure(conn, problem)
            if kind in ("nowhere", "silence"):
                raise
            # It may have been upgraded.
            forget(key)
            if TABLE[kind].then == "restart":
                conn.use(make)
    return _find(conn, make, mode == "auto", reasons)


def _find(conn: Connection, make: Make, fall_back: bool, reasons: list[ClientError]) -> Peer:
    """Probe a server, and do what the table says about the outcome."""
    found = _probe(conn, NEWEST)
    if TABLE[found.kind].then == "again":
        # It is modern, whatever it says now.
        version, found = found.version, _probe(conn, found.version)
        if found.problem is not None:
            raise found.problem
        if found.kind not in ("modern", "older version"):
            found = Finding("modern", version)
    row = TABLE[found.kind]
    if row.then == "connect":
        return Peer(MODERN, found.version, found.greeting)
    if found.problem is not None and (row.then == "tell" or conn.closed or (row.doubt and not fall_back)):
        raise found.problem
    if not fall_back:
        raise ProtocolError(f"The server does not speak {NEWEST}; use mode='auto'")
    log.info("the server is taken for a legacy one (%s): %s", found.kind, found.problem)
    if row.told and found.problem is not None:
        reasons.append(found.problem)
    try:
        if row.then == "restart":
            conn.use(make)
        try:
            peer = initialize(conn, found.version)
        except ConnectionLost as problem:
            # It may have answered the probe and ended of it all the same.
            if row.then == "restart" or conn.closed or _failure(conn, problem) == "nowhere":
                raise
            conn.use(make)
            peer = initialize(conn, found.version)
    except (RemoteError, Timeout) as problem:
        if row.doubt and (found.kind == "silence" or isinstance(problem, RemoteError)):
            found = _probe(conn, NEWEST)
            if TABLE[found.kind].then == "connect":
                return Peer(MODERN, found.version, found.greeting)
        raise
    if row.remember and conn.transport.kind in ("http", "stdio"):
        _remember(conn.settings.target.key)
    return peer


def _probe(conn: Connection, version: str) -> Finding:
    """Send `server/discover` and return what came of it."""
    settings = conn.settings
    patience_s = min(settings.probe_timeout_s, settings.own_timeout_s)
    try:
        timeout_s = patience_s if settings.mode == "auto" else settings.own_timeout_s
        answer, status = _ask(conn, MODERN, version, "server/discover", None, timeout_s)
    except ClientError as problem:
        return Finding(_failure(conn, problem), problem=problem)
    if "error" not in answer:
        result = answer.get("result")
        if not isinstance(result, dict) or not isinstance(result.get("supportedVersions"), list):
            return Finding("other result")
        return _offer("modern", result["supportedVersions"], result)
    error = answer["error"] if isinstance(answer["error"], dict) else {}
    code, data = error.get("code"), error.get("data")
    if code == spec.METHOD_NOT_FOUND and status == 404:
        return Finding("no method", NEWEST)
    if code == spec.UNSUPPORTED_VERSION and isinstance(data, dict):
        return _offer("another version", data.get("supported"), {})
    if code in _MODERN_CODES:
        return Finding("modern error", problem=RemoteError(code, str(error.get("message", "")), data))
    return Finding("other error")


def _offer(kind: str, supported: Any, greeting: Message) -> Finding:
    """Return the outcome with the newest revision of a server's list that this client speaks. Spec: BASE-076, BASE-077

    :param kind: that of an offer of a modern one.
    """
    names = [name for name in supported if isinstance(name, str)] if isinstance(supported, list) else []
    mutual = [version for version in spec.VERSIONS if version in names]
    if not mutual:
        told = f"No common revision: the server speaks {str(names)[:200]}, this client {spec.VERSIONS}"
        return Finding("no common version", problem=ProtocolError(told))
    return Finding(kind if mutual[-1] in spec.MODERN_VERSIONS else "older version", mutual[-1], greeting)


def _failure(conn: Connection, problem: ClientError) -> str:
    """Return the row of the table for a request that was not answered, or refused."""
    if isinstance(problem, Timeout):
        return "silence"
    if isinstance(problem, HTTPStatus):
        if problem.status in _OVERLOADED:
            return "overload"
        return "refusal" if 400 <= problem.status < 500 and problem.status != 403 else "failure"
    if isinstance(problem, RemoteError):
        return "other error"
    if isinstance(problem, ConnectionLost):
        if conn.transport.kind == "stdio":
            return "nowhere" if problem.retry == "never" else "end"
        return "hang-up" if problem.retry == "idempotent" else "nowhere"
    return "nonsense" if isinstance(problem, ProtocolError) else "nowhere"


def initialize(conn: Connection, version: str) -> Peer:
    """Open a legacy session. The caller sends `notifications/initialized`.

    :raises ClientError: when the server refuses, or answers with a revision this client does not speak. Spec: BASE-105
    """
    params = initialize_params(conn, version)
    answer, status = _ask(conn, LEGACY, version, "initialize", params, conn.settings.own_timeout_s)
    try:
        greeting = result_of(answer)
    except RemoteError as problem:
        problem.status = status
        raise
    found = greeting.get("protocolVersion")
    if found not in spec.LEGACY_VERSIONS:
        raise ProtocolError(f"The server answered initialize with the revision {str(found)[:50]!r}, which is not known")
    return Peer(LEGACY, found, greeting)


def _ask(
    conn: Connection, era: ClientEra, version: str, method: str, params: Message | None, timeout_s: float
) -> tuple[Message, int | None]:
    """Send a request of negotiation, never cancelled, and return its answer and the HTTP status. Spec: BASE-111

    :raises AuthorizationError: for HTTP 401.
    """
    message = wire.request(conn.next_id(), method, params)
    era.write_meta(conn, message, version, None, False)
    deadline = Deadline(timeout_s, None)
    try:
        exchange = conn.transport.start(message, era.headers(conn, message), deadline.left())
        try:
            answer = conn.response(exchange, message, deadline)
        finally:
            exchange.close()
    except HTTPStatus as problem:
        if problem.status == 401:
            raise unauthorized(problem) from problem
        raise
    return answer, exchange.status
