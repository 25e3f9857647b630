"""The modern era, 2026-07-28: stateless, one request and one answer, everything in `_meta`.

Spec: 26:basic/index#meta, 26:server/discover, 26:basic/patterns/subscriptions
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

from ..protocol import spec, wire
from ..protocol.errors import InvalidParams, McpError, UnsupportedVersion
from . import methods
from .asking import Replay
from .bus import Subscription
from .catalog import visible
from .context import Context
from .dispatcher import Era, cancelled
from .uris import check_uri

Message = dict[str, Any]


def open(ctx: Context) -> None:
    """Fill the context from this message's `_meta`, and from nothing else. Spec: BASE-041, BASE-045, BASE-064

    :raises InvalidParams: when a required field is missing or malformed.
    :raises UnsupportedVersion: for a revision that is not of this era.
    """
    meta = ctx.params.get("_meta")
    if not isinstance(meta, dict):
        raise InvalidParams("params._meta is missing; every request carries it")
    version, capabilities = meta.get(spec.META_VERSION), meta.get(spec.META_CAPABILITIES)
    if not isinstance(version, str):
        raise InvalidParams(f"params._meta has no {spec.META_VERSION}")
    if not isinstance(capabilities, dict):
        raise InvalidParams(f"params._meta has no {spec.META_CAPABILITIES}; send {{}} for none")
    client_info = meta.get(spec.META_CLIENT, {})
    if not isinstance(client_info, dict):
        raise InvalidParams(f"{spec.META_CLIENT} must be an object")
    if version not in spec.MODERN_VERSIONS:
        hint = "; that revision starts with initialize" if version in spec.LEGACY_VERSIONS else ""
        data = {"supported": list(spec.MODERN_VERSIONS), "requested": version[:100]}
        raise UnsupportedVersion(f"Unsupported protocol version{hint}", data)
    level = meta.get(spec.META_LOG_LEVEL)
    if level is not None and level not in spec.LOG_LEVELS:
        raise InvalidParams(f"{spec.META_LOG_LEVEL} must be one of {', '.join(spec.LOG_LEVELS)}")
    ctx.version, ctx.capabilities, ctx.client_info, ctx.log_level = version, capabilities, client_info, level
    if ctx.method in spec.MAY_ASK and (
        "requestState" in ctx.params or "inputResponses" in ctx.params or (ctx.entry and ctx.entry.context)
    ):
        ctx.asker = Replay(ctx, ctx.server.sealer)


def close(ctx: Context, result: Message) -> Message:
    """Dress a result: `resultType`, the server's identity, and caching hints where they belong.

    Spec: BASE-046, BASE-049, FEAT-121, FEAT-226
    """
    dressed = {"resultType": "complete", **result}
    meta = result.get("_meta")
    dressed["_meta"] = {**ctx.server.identity_meta, **meta} if meta else ctx.server.identity_meta
    if ctx.method in spec.CACHEABLE and dressed["resultType"] == "complete":
        if "ttlMs" not in dressed:
            dressed.update(ctx.server.caching(ctx.entry.hints if ctx.entry else {}))
        if ctx.private:
            dressed["cacheScope"] = "private"
    return dressed


def problem(ctx: Context, error: McpError) -> McpError:
    """Errors go out as they are, but for two codes of the legacy era, which must not leave here. Spec: BASE-059"""
    if error.code in (spec.RESOURCE_NOT_FOUND, spec.URL_ELICITATION_REQUIRED):
        return InvalidParams(error.message, error.data)
    return error


def bad_arguments(ctx: Context, text: str) -> Message:
    """Arguments that do not fit are for the model to correct. Spec: FEAT-031"""
    return methods.failed(text)


def discover(ctx: Context, params: Message) -> Message:
    """Answer `server/discover`. Spec: BASE-071, BASE-072, BASE-080"""
    result = {"supportedVersions": list(spec.VERSIONS), "capabilities": ctx.server.capabilities(ctx)}
    if ctx.server.instructions:
        result["instructions"] = ctx.server.instructions
    return result


def listen(ctx: Context, params: Message) -> Generator[Message | None, None, Message]:
    """Serve `subscriptions/listen`: acknowledge, pass changes on, and answer when the server closes.

    Spec: BASE-155 to BASE-172
    """
    kinds, uris = _filter(ctx, params.get("notifications"))
    if ctx.deadline is not None and ctx.deadline <= time.monotonic():
        # The door has no room for another stream: the client is told so by an empty acknowledgment.
        kinds, uris = [], None
    tag = {spec.META_SUBSCRIPTION: ctx.request_id}
    honoured: Message = {spec.CHANGES[kind][1]: True for kind in kinds}
    if uris is not None:
        honoured["resourceSubscriptions"] = uris
    # Subscribed before the acknowledgment goes out, so that no change falls between the two.
    with Subscription(ctx.server.bus, kinds, uris or ()) as subscription:
        ctx.on_cancel(subscription.close)
        ctx.server.add_listener(subscription)
        try:
            yield wire.notification(
                "notifications/subscriptions/acknowledged", {"_meta": tag, "notifications": honoured}
            )
            ended = not kinds and not uris
            idle_s = ctx.server.limits["keepalive_s"]
            while not ended:
                left_s = idle_s if ctx.deadline is None else min(idle_s, ctx.deadline - time.monotonic())
                changes = subscription.take(left_s) if left_s > 0 else None
                ctx.check()
                if changes is None:
                    break
                if not changes:
                    yield None
                for topic, data in changes:
                    yield _change(topic, data, tag)
            ctx.check()
            # One page of the specification asks for this notification, another for the result: send both.
            yield wire.notification("notifications/cancelled", {"_meta": tag, "requestId": ctx.request_id})
        finally:
            ctx.server.remove_listener(subscription)
    return {"_meta": tag}


def _change(topic: str, data: Any, tag: Message) -> Message:
    if topic == "resource":
        return wire.notification("notifications/resources/updated", {"_meta": tag, "uri": data})
    return wire.notification(spec.CHANGES[topic][0], {"_meta": tag})


def _filter(ctx: Context, wanted: Any) -> tuple[list[str], list[str] | None]:
    """The kinds and URIs to honour: asked for, offered here, and visible to this caller. Spec: BASE-156, BASE-171"""
    if not isinstance(wanted, dict):
        raise InvalidParams("notifications must be an object")
    offers = ctx.server.catalog.offers(ctx)
    kinds = []
    for kind, (_, field) in spec.CHANGES.items():
        asked = wanted.get(field, False)
        if not isinstance(asked, bool):
            raise InvalidParams(f"notifications.{field} must be true or false")
        if asked and kind in offers:
            kinds.append(kind)
    uris = wanted.get("resourceSubscriptions")
    if uris is None:
        return kinds, None
    limit = ctx.server.limits["subscriptions"]
    if not isinstance(uris, list) or len(uris) > limit or not all(check_uri(uri) for uri in uris):
        raise InvalidParams(f"notifications.resourceSubscriptions must be an array of at most {limit} URIs")
    if "resources" not in offers:
        return kinds, None
    # A resource that is hidden from this caller is left out just like one that is not there.
    catalog = ctx.server.catalog
    return kinds, [uri for uri in uris if visible(ctx, catalog.resource(ctx, uri))]


ERA = Era(
    name="modern",
    versions=spec.MODERN_VERSIONS,
    methods={**methods.METHODS, "server/discover": discover, "subscriptions/listen": listen},
    notifications={"notifications/cancelled": cancelled},
    open=open,
    close=close,
    problem=problem,
    bad_arguments=bad_arguments,
    extensible=True,
)
