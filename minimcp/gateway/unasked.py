"""Messages of servers and legacy clients that belong to no call: log messages, notices, changed roots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..engines.errors import ClientError
from ..protocol import spec, wire
from ..server import legacy
from ..server.engine import Engine
from ..server.session import Session
from .relaying import CHANGE_NOTIFICATIONS, pass_log

if TYPE_CHECKING:
    from .gateway import Gateway
    from .leases import Lease
    from .upstream import Upstream

Message = dict[str, Any]

_ROOTS_CHANGED = "notifications/roots/list_changed"


def take_notice(upstream: Upstream, session: Session | None, message: Message) -> None:
    """Take a notification: a change of a list or a resource, or one to pass on to a legacy client."""
    session = session or upstream.gateway.session
    method, params = message["method"], message.get("params")
    if method == "notifications/resources/updated":
        uri = params.get("uri") if isinstance(params, dict) else None
        if isinstance(uri, str):
            upstream.gateway.updated(upstream.public_uri(uri))
    elif method in CHANGE_NOTIFICATIONS:
        upstream.refresh_soon()
    elif session is not None and session.send is not None and method != "notifications/cancelled":
        session.send(wire.notification(method, params if isinstance(params, dict) else None))


def take_log(upstream: Upstream, session: Session | None, lease: Lease | None, params: Message) -> None:
    """Pass on a log message that came outside the call it belongs to: to the newest one, or to the session."""
    session = session or upstream.gateway.session
    calls = lease.calls[-1:] if lease is not None else []
    for ctx in calls:
        pass_log(ctx, params)
    rank = spec.LOG_RANKS.get(str(params.get("level")))
    if calls or rank is None or session is None or session.send is None:
        return
    if rank >= spec.LOG_RANKS[session.log_level]:
        session.send(wire.notification("notifications/message", params))


def install(engine: Engine, gateway: Gateway) -> None:
    """Let servers know when the roots of a legacy client have changed, and the gateway when it is ready."""

    def changed(engine: Engine, session: Session | None, params: Message) -> None:
        for upstream in list(gateway.upstreams.values()):
            for replica in upstream.replicas:
                lease = replica.of(session)
                if lease is not None and lease.client.state == "open" and not lease.is_modern:
                    try:
                        lease.client.notify(_ROOTS_CHANGED)
                    except ClientError:
                        pass  # It is gone, and asks again when it is back.

    def initialized(engine: Engine, session: Session | None, params: Message) -> None:
        legacy.initialized(engine, session, params)
        gateway.initialized.set()

    engine.notifications["legacy"][_ROOTS_CHANGED] = changed
    engine.notifications["legacy"]["notifications/initialized"] = initialized
