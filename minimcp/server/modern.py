"""The modern era, 2026-07-28: stateless, one request and one answer, everything in `_meta`.

Spec: 26:basic/index#meta, 26:server/discover
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..protocol import revisions, spec
from ..protocol.errors import InvalidParams, McpError, UnsupportedVersion
from . import features, methods
from .asking import Replay
from .dispatcher import Era
from .listening import listen
from .mount import instructions

if TYPE_CHECKING:
    from .context import Context

Message = dict[str, Any]


def read_envelope(ctx: Context) -> None:
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
    client_info = meta.get(spec.META_CLIENT)
    if client_info is not None and not isinstance(client_info, dict):
        raise InvalidParams(f"{spec.META_CLIENT} must be an object")
    if version not in spec.MODERN_VERSIONS:
        hint = "; that revision starts with initialize" if version in spec.LEGACY_VERSIONS else ""
        data = {"supported": list(spec.MODERN_VERSIONS), "requested": version[:100]}
        raise UnsupportedVersion(f"Unsupported protocol version{hint}", data)
    level = meta.get(spec.META_LOG_LEVEL)
    if level is not None and level not in spec.LOG_LEVELS:
        raise InvalidParams(f"{spec.META_LOG_LEVEL} must be one of {', '.join(spec.LOG_LEVELS)}")
    ctx.version, ctx.capabilities, ctx.client_info, ctx._log_level = version, capabilities, client_info or {}, level


def write_envelope(ctx: Context, result: Message) -> Message:
    """Add to a result its `resultType`, the server's identity, and caching hints where they belong.

    Spec: BASE-046, BASE-049, FEAT-121, FEAT-226
    """
    written = {"resultType": "complete", **result}
    meta = result.get("_meta")
    written["_meta"] = {**ctx._engine.identity_meta, **meta} if meta else ctx._engine.identity_meta
    if ctx._row.cacheable and written["resultType"] == "complete":
        if "ttlMs" not in written:
            hints = {**ctx._engine.caching, **ctx._entry.hints} if ctx._entry else ctx._engine.caching
            written = {**written, **hints, **written}
        if ctx.private:
            written["cacheScope"] = "private"
    return written


def write_error(ctx: Context, error: McpError) -> McpError:
    """Replace a code that must not leave here, such as one of the legacy era. Spec: BASE-055 to BASE-059"""
    return revisions.error(spec.MODERN_VERSIONS[-1], error)


def bad_arguments(ctx: Context, text: str) -> Message:
    """Report arguments that do not fit as a result, for the model to correct. Spec: FEAT-031"""
    return methods.failed(text)


def discover(ctx: Context, params: Message) -> Message:
    """Answer `server/discover`. Spec: BASE-071, BASE-072, BASE-080"""
    result = {"supportedVersions": list(spec.VERSIONS), "capabilities": features.capabilities(ctx)}
    text = instructions(ctx._engine)
    if text:
        result["instructions"] = text
    return result


ERA = Era(
    name="modern",
    versions=spec.MODERN_VERSIONS,
    methods={**features.METHODS, **methods.rows({"server/discover": discover, "subscriptions/listen": listen})},
    notifications=features.NOTIFICATIONS,
    read_envelope=read_envelope,
    write_envelope=write_envelope,
    write_error=write_error,
    bad_arguments=bad_arguments,
    strategy=lambda ctx: Replay(ctx, ctx._engine.sealer),
)
