"""`subscriptions/listen`: a stream of the changes that a 2026-07-28 client asks for.

Spec: 26:basic/patterns/subscriptions
"""

from __future__ import annotations

import time
from collections.abc import Collection, Generator
from typing import TYPE_CHECKING, Any

from ..engines.bounds import exceeded
from ..protocol import spec, wire
from ..protocol.errors import InternalError, InvalidParams
from .bus import Subscription
from .features import readable
from .seen import SeenLists
from .uris import check_uri

if TYPE_CHECKING:
    from .context import Context

Message = dict[str, Any]


def listen(ctx: Context, params: Message) -> Generator[Message | None, None, Message]:
    """Serve `subscriptions/listen`: acknowledge, pass changes on, and answer when the server closes.

    Spec: BASE-155 to BASE-172
    """
    limits = ctx._engine.limits
    size = len(wire.dumps(params))
    if size > limits["subscription_bytes"] or exceeded(
        params, int(limits["depth"]), int(limits["subscriptions"]) + 200
    ):
        raise InvalidParams("The request is too large for a stream, which keeps it open")
    kinds, uris = _filter(ctx, params.get("notifications"))
    tasks = ctx._engine.tasks
    more, topics = tasks.accept(ctx, params["notifications"]) if tasks is not None else ({}, ())
    if not ctx._engine.subscribed.take(size, limits["all_subscription_bytes"]):
        raise InternalError("There are too many subscriptions here; try again later")
    if ctx._deadline is not None and ctx._deadline <= time.monotonic():
        # There is no room for another stream: the client is told so by an empty acknowledgment.
        kinds, uris, more, topics = [], None, {}, ()
    try:
        return (yield from _serve(ctx, kinds, uris, more, topics))
    finally:
        ctx._engine.subscribed.give(size)


def _serve(
    ctx: Context, kinds: list[str], uris: list[str] | None, more: Message, topics: Collection[str]
) -> Generator[Message | None, None, Message]:
    tag = {spec.META_SUBSCRIPTION: ctx.request_id}
    honoured: Message = {**{spec.CHANGES[kind][1]: True for kind in kinds}, **more}
    if uris is not None:
        honoured["resourceSubscriptions"] = uris
    seen = SeenLists(ctx, kinds)
    # Subscribed before the acknowledgment goes out, so that no change falls between the two.
    with Subscription(ctx._engine.bus, {*kinds, *topics}, uris or ()) as subscription:
        ctx.on_cancel(subscription.close)
        ctx._engine.add_stream(subscription)
        try:
            yield wire.notification(
                "notifications/subscriptions/acknowledged", {"_meta": tag, "notifications": honoured}
            )
            for topic in topics:
                # How things are now, since they may have changed before anybody listened.
                yield _change(ctx, topic, None, tag)
            ended = not kinds and not uris and not topics
            idle_s = ctx._engine.limits["keepalive_s"]
            while not ended:
                left_s = idle_s if ctx._deadline is None else min(idle_s, ctx._deadline - time.monotonic())
                changes = subscription.take(left_s) if left_s > 0 else None
                ctx.check()
                if changes is None:
                    break
                if not changes:
                    yield None
                for topic, data in changes:
                    if topic not in spec.CHANGES or seen.changed(ctx, topic):
                        yield _change(ctx, topic, data, tag)
            ctx.check()
            # One page of the specification asks for this notification, another for the result: send both.
            yield wire.notification("notifications/cancelled", {"_meta": tag, "requestId": ctx.request_id})
        finally:
            ctx._engine.remove_stream(subscription)
    return {"_meta": tag}


def _change(ctx: Context, topic: str, data: Any, tag: Message) -> Message | None:
    if topic == "resource":
        return wire.notification("notifications/resources/updated", {"_meta": tag, "uri": data})
    if topic not in spec.CHANGES:
        return ctx._engine.tasks.notification(ctx, topic, tag) if ctx._engine.tasks is not None else None
    return wire.notification(spec.CHANGES[topic][0], {"_meta": tag})


def _filter(ctx: Context, wanted: Any) -> tuple[list[str], list[str] | None]:
    """Return the kinds and URIs to honour: asked for, offered here, visible to this caller. Spec: BASE-156, BASE-171"""
    if not isinstance(wanted, dict):
        raise InvalidParams("notifications must be an object")
    offers = ctx._engine.catalog.offers(ctx)
    kinds = []
    for kind, (_, field) in spec.CHANGES.items():
        asked = wanted.get(field)
        if asked is not None and not isinstance(asked, bool):
            raise InvalidParams(f"notifications.{field} must be true or false")
        if asked and kind in offers:
            kinds.append(kind)
    uris = wanted.get("resourceSubscriptions")
    if uris is None:
        return kinds, None
    limit = ctx._engine.limits["subscriptions"]
    if not isinstance(uris, list) or len(uris) > limit or not all(check_uri(uri) for uri in uris):
        raise InvalidParams(f"notifications.resourceSubscriptions must be an array of at most {limit} URIs")
    if "subscribe" not in offers:
        return kinds, None
    # A resource that is hidden from this caller is left out just like one that is not there.
    return kinds, [uri for uri in uris if readable(ctx, uri)]
