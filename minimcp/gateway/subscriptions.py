"""Subscriptions to resources of the servers: passed on to them while a client of the gateway has one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
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
    from ..server.session import Session

log = logging.getLogger("minimcp")

Message = dict[str, Any]


class Subscriptions:
    """The handlers of subscriptions of a gateway, around those of every server."""

    def __init__(self) -> None:
        # What ends the subscription of a session to a URI; no lock: single operations of a dict, which are atomic.
        self._ends: dict[tuple[Session, str], Callable[[], None]] = {}

    def install(self, engine: Engine) -> None:
        """Put the handlers into an engine."""
        modern, old = engine.methods["modern"], engine.methods["legacy"]
        modern["subscriptions/listen"] = modern["subscriptions/listen"]._replace(handler=self._listen)
        for method, handler in (("subscribe", self._subscribe), ("unsubscribe", self._unsubscribe)):
            row = old[f"resources/{method}"]
            old[f"resources/{method}"] = row._replace(handler=handler, interactive=True)

    def _listen(self, ctx: Context, params: Message) -> Generator[Optional[Message], None, Message]:
        """Serve `subscriptions/listen`, and let the servers tell of the resources in it."""
        wanted = params.get("notifications")
        uris = wanted.get("resourceSubscriptions") if isinstance(wanted, dict) else None
        ends = []
        try:
            for uri in uris if isinstance(uris, list) and len(uris) <= ctx._engine.limits["subscriptions"] else ():
                found = _source(ctx, uri)
                if found is None:
                    continue
                entry, original = found
                try:
                    ends.append(entry.upstream.subscribe(ctx, original))
                except ClientError as problem:
                    log.warning("%s does not tell of changes of a resource: %.300s", entry.origin, problem)
            return (yield from listening.listen(ctx, params))
        finally:
            for end in ends:
                end()

    def _subscribe(self, ctx: Context, params: Message) -> Message:
        """Answer `resources/subscribe`."""
        session, uri = ctx.session, read_text(params, "uri")
        found, known = _source(ctx, uri), uri in session.uris
        result = legacy.subscribe(ctx, params)
        if found is None or known or uri not in session.uris:
            return result
        entry, original = found
        try:
            self._ends[session, uri] = entry.upstream.subscribe(ctx, original)
        except ClientError as problem:
            session.unsubscribe(uri)
            raise InvalidParams(f"The server {entry.origin!r} does not tell of changes of this resource") from problem
        session.on_close.append(lambda: self._end(session, uri))
        if session.closed:
            self._end(session, uri)
        return result

    def _unsubscribe(self, ctx: Context, params: Message) -> Message:
        """Answer `resources/unsubscribe`."""
        result = legacy.unsubscribe(ctx, params)
        self._end(ctx.session, read_text(params, "uri"))
        return result

    def _end(self, session: Session, uri: str) -> None:
        end = self._ends.pop((session, uri), None)
        if end is not None:
            end()


def _source(ctx: Context, uri: Any) -> Optional[tuple[RelayedEntry, str]]:
    """Return the entry of a relayed resource that this caller may see, and its original URI."""
    entry = ctx._engine.catalog.resource(ctx, uri) if isinstance(uri, str) else None
    if not isinstance(entry, RelayedEntry) or not visible(ctx, entry):
        return None
    return entry, entry.original_uri(uri)
