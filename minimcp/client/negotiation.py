"""Negotiation: find out which era and revision a server speaks, by a probe and the meaning of its outcomes.

Spec: BASE-085 to BASE-105, TRN-100 to TRN-105, 26:basic/versioning
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from typing import Any

from ..engines.errors import AuthorizationError, ClientError, ProtocolError, Timeout
from ..engines.fork import PerProcess
from ..protocol import spec, wire
from .connection import UNAUTHORIZED, Connection
from .eras import LEGACY, MODERN, Peer, initialize_params
from .errors import HTTPStatus, RemoteError
from .transports.transport import Exchange
from .transports.waiting import Deadline

log = logging.getLogger("minimcp")

Message = dict[str, Any]

MODES = ("auto", "modern", "legacy", *spec.VERSIONS)
_MODERN_CODES = (spec.HEADER_MISMATCH, spec.MISSING_CAPABILITY, spec.UNSUPPORTED_VERSION)
_MOST_VERDICTS = 256
# The HTTP servers known to be legacy, most recent last, so that the next client need not probe. Spec: BASE-093
_legacy: OrderedDict[str, None] = OrderedDict()
_lock = PerProcess(threading.Lock)  # guards _legacy


class SpeaksLegacy(Exception):
    """The probe's finding that a server is of the legacy era.

    :ivar version: the revision to begin with.
    :ivar probe: the exchange of a probe that was not answered in time, or None.
    """

    def __init__(self, version: str = spec.LATEST_LEGACY, probe: Exchange | None = None) -> None:
        self.version = version
        self.probe = probe


def negotiate(conn: Connection) -> Peer:
    """Open the first transport that works and return the server behind it.

    :raises ClientError: when there is no server, or no revision both sides speak.
    """
    mode, transports = conn.settings.mode, conn.settings.target.transports
    for number, make in enumerate(transports):
        try:
            conn.use(make)
            return _settle(conn, _greet(conn, mode))
        except (HTTPStatus, ProtocolError) as problem:
            status = problem.status if isinstance(problem, HTTPStatus) else 404
            last = number == len(transports) - 1
            # Spec: TRN-104, TRN-105
            if last or mode in ("modern", *spec.MODERN_VERSIONS) or not 400 <= status < 500 or status in (401, 403):
                raise
            log.info("no Streamable HTTP here (%.300r); trying the next transport", problem)
            mode = "legacy" if mode == "auto" else mode
    raise AssertionError("a connection has at least one transport")


def forget(key: str) -> None:
    """Forget that a server was legacy, since it no longer is. Spec: BASE-094"""
    with _lock():
        _legacy.pop(key, None)


def _settle(conn: Connection, peer: Peer) -> Peer:
    conn.transport.settle(peer.version)
    if peer.era is LEGACY:
        conn.peer = peer
        conn.send_notification("notifications/initialized")
        settings = conn.settings
        if settings.answers or settings.on_log or settings.on_notification:
            conn.transport.listen()
        if settings.log_level is not None and peer.offers("logging"):
            try:
                conn.ask("logging/setLevel", {"level": settings.log_level})
            except RemoteError as problem:
                log.warning("the server does not set its log level: %.300r", problem)
    return peer


def _greet(conn: Connection, mode: str) -> Peer:
    key = conn.settings.target.key
    if conn.settings.discovery:
        return _remembered(conn, conn.settings.discovery)
    if mode == "auto":
        with _lock():
            known = key in _legacy
        if known:
            try:
                return initialize(conn, spec.LATEST_LEGACY)
            except (RemoteError, HTTPStatus):
                # It may have been upgraded.
                forget(key)
    if mode == "legacy" or mode in spec.LEGACY_VERSIONS:
        peer = initialize(conn, spec.LATEST_LEGACY if mode == "legacy" else mode)
        if mode != "legacy" and peer.version != mode:
            raise ProtocolError(f"The server speaks {peer.version}, but mode={mode!r} allows nothing else")
        return peer
    try:
        return discover(conn, spec.MODERN_VERSIONS[-1])
    except SpeaksLegacy as verdict:
        if mode != "auto":
            raise ProtocolError(f"The server does not speak {spec.MODERN_VERSIONS[-1]}; use mode='auto'") from None
        return _fall_back(conn, verdict)


def _remembered(conn: Connection, greeting: Message) -> Peer:
    """Return the server as `Client.discovery` described it earlier; a legacy one is sent its `initialize` again."""
    version = greeting.get("protocolVersion")
    if version in spec.LEGACY_VERSIONS:
        return initialize(conn, version)
    return Peer(MODERN, version if version in spec.MODERN_VERSIONS else spec.MODERN_VERSIONS[-1], greeting)


def _fall_back(conn: Connection, verdict: SpeaksLegacy) -> Peer:
    """Begin with `initialize`; a modern server that was only slow to answer the probe is recognised after all."""
    try:
        peer = initialize(conn, verdict.version)
    except ClientError:
        late = _late_answer(verdict.probe)
        if late is None:
            raise
        return Peer(MODERN, _choose(late.get("supportedVersions")), late)
    finally:
        if verdict.probe is not None:
            verdict.probe.close()
    if conn.transport.kind == "http":
        key = conn.settings.target.key
        with _lock():
            _legacy[key] = None
            _legacy.move_to_end(key)
            if len(_legacy) > _MOST_VERDICTS:
                _legacy.popitem(last=False)
    return peer


def _late_answer(probe: Exchange | None) -> Message | None:
    try:
        answer = probe.receive(0) if probe is not None else {}
    except ClientError:
        return None
    result = answer.get("result")
    return result if isinstance(result, dict) and "supportedVersions" in result else None


def discover(conn: Connection, version: str, again: bool = False) -> Peer:
    """Send `server/discover`.

    :param again: whether the server has refused a revision before.
    :raises SpeaksLegacy: when it is not modern.
    :raises ClientError: when it is, but something else is wrong, or it cannot be reached.
    """
    message = wire.request(conn.next_id(), "server/discover")
    MODERN.write_meta(conn, message, version, None, False)
    headers = MODERN.headers(conn, message)
    settings = conn.settings
    probing = conn.transport.kind != "http" and settings.mode == "auto"
    deadline = Deadline(settings.probe_timeout_s if probing else settings.own_timeout_s, None)
    exchange = None
    keep = False
    try:
        exchange = conn.transport.start(message, headers, deadline.left())
        answer = conn.response(exchange, message, deadline)
        status = exchange.status
    except Timeout:
        if not probing:
            raise
        keep = True
        raise SpeaksLegacy(probe=exchange) from None
    except HTTPStatus as problem:
        if problem.status == 401:
            raise AuthorizationError(UNAUTHORIZED) from problem
        if not 400 <= problem.status < 500 or problem.status in (403, 429):
            raise
        raise SpeaksLegacy() from None
    finally:
        if exchange is not None and not keep:
            exchange.close()
    if "error" not in answer:
        result = answer.get("result")
        if not isinstance(result, dict) or not isinstance(result.get("supportedVersions"), list):
            raise SpeaksLegacy()  # Some answer whatever they do not know with an empty result.
        return Peer(MODERN, _choose(result["supportedVersions"]), result)
    return _judge(conn, answer["error"], status, again)


def _judge(conn: Connection, problem: Any, status: int | None, again: bool) -> Peer:
    """Judge an error that answers the probe: only a modern server sends certain codes. Spec: BASE-087 to BASE-092"""
    code = problem.get("code") if isinstance(problem, dict) else None
    if code == spec.METHOD_NOT_FOUND and status == 404:
        return Peer(MODERN, spec.MODERN_VERSIONS[-1], {})  # Spec: TRN-103
    if code not in _MODERN_CODES:
        raise SpeaksLegacy()
    data = problem.get("data")
    if code == spec.UNSUPPORTED_VERSION and isinstance(data, dict):
        version = _choose(data.get("supported"))
        return Peer(MODERN, version, {}) if again else discover(conn, version, again=True)
    raise RemoteError(code, str(problem.get("message", "")), data)


def _choose(supported: Any) -> str:
    """Return the newest modern revision of a server's list that this client speaks. Spec: BASE-076, BASE-077

    :raises SpeaksLegacy: when only legacy ones are mutual.
    :raises ProtocolError: when none is.
    """
    names = [name for name in supported if isinstance(name, str)] if isinstance(supported, list) else []
    mutual = [version for version in spec.VERSIONS if version in names]
    if not mutual:
        raise ProtocolError(f"No common revision: the server speaks {str(names)[:200]}, this client {spec.VERSIONS}")
    if mutual[-1] in spec.MODERN_VERSIONS:
        return mutual[-1]
    raise SpeaksLegacy(mutual[-1])


def initialize(conn: Connection, version: str) -> Peer:
    """Open a legacy session. The caller sends `notifications/initialized`.

    :raises ClientError: when the server refuses, or answers with a revision this client does not speak. Spec: BASE-105
    """
    peer = Peer(LEGACY, version, {})
    greeting = conn.ask("initialize", initialize_params(conn, version), peer=peer)
    found = greeting.get("protocolVersion")
    if found not in spec.LEGACY_VERSIONS:
        raise ProtocolError(f"The server answered initialize with the revision {str(found)[:50]!r}, which is not known")
    return Peer(LEGACY, found, greeting)
