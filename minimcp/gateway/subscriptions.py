"""Subscriptions to resources of the servers: passed on to them while a client of the gateway has one."""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Optional

from ..engines.errors import ClientError
from ..protocol.errors import InvalidParams
from ..server import legacy, listening
from ..server.catalog import visible
from ..server.methods import read_text
from .entries import RelayedEntry

if TYPE_CHECKING:
    from ..server.context import Context
    from ..server.engine import Engine
    from .gateway import Gateway

log = logging.getLogger("minimcp")

Message = dict[str, Any]


def install(engine: Engine, gateway: Gateway) -> None:
    """Put the handlers of subscriptions around those of an engine."""
    modern, old = engine.methods["modern"], engine.methods["legacy"]
    modern["subscriptions/listen"] = modern["subscriptions/listen"]._replace(handler=_listen)
    old["resources/subscribe"] = old["resources/subscribe"]._replace(handler=_subscribe, interactive=True)
    old["resources/unsubscribe"] = old["resources/unsubscribe"]._replace(handler=_unsubscribe, interactive=True)


def _source(ctx: Context, uri: Any) -> Optional[tuple[RelayedEntry, str]]:
    """Return the entry of a relayed resource that this caller may see, and its original URI."""
    entry = ctx._engine.catalog.resource(ctx, uri) if isinstance(uri, str) else None
    if not isinstance(entry, RelayedEntry) or not visible(ctx, entry):
        return None
    return entry, entry.original_uri(uri)


def _listen(ctx: Context, params: Message) -> Generator[Optional[Message], None, Message]:
    """Serve `subscriptions/listen`, and let the servers tell of the resources in it."""
    wanted = params.get("notifications")
    uris = wanted.get("resourceSubscriptions") if isinstance(wanted, dict) else None
    watched = []
    try:
        for uri in uris if isinstance(uris, list) and len(uris) <= ctx._engine.limits["subscriptions"] else ():
            found = _source(ctx, uri)
            if found is None:
                continue
            entry, original = found
            try:
                entry.upstream.watch(original)
                watched.append((entry.upstream, original))
            except ClientError as problem:
                log.warning("%s does not tell of changes of a resource: %.300s", entry.origin, problem)
        return (yield from listening.listen(ctx, params))
    finally:
        for upstream, original in watched:
            upstream.unwatch(original)


def _subscribe(ctx: Context, params: Message) -> Message:
    """Answer `resources/subscribe`."""
    session, uri = ctx.session, read_text(params, "uri")
    found = _source(ctx, uri)
    known = uri in session.uris
    result = legacy.subscribe(ctx, params)
    if found is None or known or uri not in session.uris:
        return result
    entry, original = found
    try:
        entry.upstream.watch(original)
    except ClientError as problem:
        session.unsubscribe(uri)
        raise InvalidParams(f"The server {entry.origin!r} does not tell of changes of this resource") from problem
    session.on_close.append(lambda: _release(session, uri, entry, original))
    return result


def _unsubscribe(ctx: Context, params: Message) -> Message:
    """Answer `resources/unsubscribe`."""
    session, uri = ctx.session, read_text(params, "uri")
    found = _source(ctx, uri)
    known = uri in session.uris
    result = legacy.unsubscribe(ctx, params)
    if found is not None and known:
        found[0].upstream.unwatch(found[1])
    return result


def _release(session: Any, uri: str, entry: RelayedEntry, original: str) -> None:
    """End the subscription of a session that ends, unless the client has ended it."""
    if uri in session.uris:
        entry.upstream.unwatch(original)
