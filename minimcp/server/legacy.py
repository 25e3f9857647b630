"""The legacy era, 2024-11-05 to 2025-11-25: a handshake, a session, and questions sent as requests.

Spec: 11:basic/lifecycle
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..protocol import content, revisions, spec, wire
from ..protocol.errors import InvalidParams, InvalidRequest, McpError, ResourceNotFound
from . import features, methods
from .asking import Block
from .catalog import visible
from .dispatcher import Era

if TYPE_CHECKING:
    from .bus import Bus
    from .context import Context
    from .engine import Engine
    from .session import Session

Message = dict[str, Any]

_BLOCK = Block()


def read_envelope(ctx: Context) -> None:
    """Fill the context from the session.

    :raises InvalidRequest: before `initialize`, except for `initialize` and `ping`. Spec: BASE-096, BASE-117
    """
    session = ctx.session
    version = session.version if session is not None else None
    if version is None and not ctx._row.before_handshake:
        raise InvalidRequest(
            "There is no session: send initialize first, or a 2026-07-28 request, "
            f"whose params._meta has {spec.META_VERSION}"
        )
    ctx.version = version or spec.LATEST_LEGACY
    if session is not None:
        ctx.capabilities, ctx.client_info, ctx._log_level = session.capabilities, session.client_info, session.log_level


def initialize(ctx: Context, params: Message) -> Message:
    """Answer `initialize`: the requested revision if it is a legacy one, else the latest legacy one.

    Spec: BASE-103, BASE-106
    """
    version, capabilities = params.get("protocolVersion"), params.get("capabilities", {})
    client_info = params.get("clientInfo", {})
    if not isinstance(version, str) or not isinstance(capabilities, dict) or not isinstance(client_info, dict):
        raise InvalidParams("initialize needs protocolVersion (a string), capabilities and clientInfo (objects)")
    ctx.version = version if version in spec.LEGACY_VERSIONS else spec.LATEST_LEGACY
    session = ctx.session
    if session is not None:
        session.version, session.capabilities = ctx.version, capabilities
        # Only what is worth remembering, whatever the client sent along.
        session.client_info = {name: str(client_info.get(name, ""))[:200] for name in ("name", "version")}
    result: Message = {
        "protocolVersion": ctx.version,
        "capabilities": revisions.known(ctx.version, features.capabilities(ctx), revisions.CAPABILITIES_SINCE),
        "serverInfo": revisions.known(ctx.version, ctx._engine.identity, revisions.IMPLEMENTATION_FIELDS_SINCE),
    }
    if ctx._engine.instructions:
        result["instructions"] = ctx._engine.instructions
    return result


def ping(ctx: Context, params: Message) -> Message:
    """Answer `ping`."""
    return {}


def set_level(ctx: Context, params: Message) -> Message:
    """Answer `logging/setLevel`. Spec: FEAT-104, FEAT-107"""
    level = params.get("level")
    if level not in spec.LOG_LEVELS:
        raise InvalidParams(f"level must be one of {', '.join(spec.LOG_LEVELS)}")
    ctx.session.log_level = level
    return {}


def subscribe(ctx: Context, params: Message) -> Message:
    """Answer `resources/subscribe`. Spec: FEAT-072"""
    uri = methods.read_text(params, "uri")
    if not visible(ctx, ctx._engine.catalog.resource(ctx, uri)):
        raise ResourceNotFound("Resource not found", {"uri": uri[:200]})
    if len(ctx.session.uris) >= ctx._engine.limits["subscriptions"]:
        raise InvalidParams("This session has too many subscriptions")
    ctx.session.uris.add(uri)
    return {}


def unsubscribe(ctx: Context, params: Message) -> Message:
    """Answer `resources/unsubscribe`; a URI that was not subscribed to is no error."""
    ctx.session.uris.discard(methods.read_text(params, "uri"))
    return {}


def watch(session: Session, bus: Bus) -> None:
    """Pass changes on to a session from now on: every list change, and updates of its subscriptions.

    A session is watched once; a change that cannot be delivered is dropped.
    """
    if session.watched:
        return
    session.watched = True

    def on_change(topic: str, data: Any) -> None:
        send = session.send
        if send is None or session.version is None:
            return
        if topic in spec.CHANGES:
            message = wire.notification(spec.CHANGES[topic][0])
        elif data in session.uris:
            message = wire.notification("notifications/resources/updated", {"uri": data})
        else:
            return
        if session.record is not None:
            session.record("sent", message)
        send(message)

    session.on_close.append(bus.subscribe((*spec.CHANGES, "resource"), on_change))


def write_envelope(ctx: Context, result: Message) -> Message:
    """Leave out of a result the fields and blocks that this revision does not have. Spec: FEAT-046"""
    write = _WRITERS.get(ctx.method)
    return result if write is None or isinstance(result, content.Raw) else write(ctx.version, result)


def _items(version: str, result: Message, since: dict[str, str] = revisions.FIELDS_SINCE) -> Message:
    return {
        name: [_item(revisions.part(version, item, since)) for item in value] if isinstance(value, list) else value
        for name, value in result.items()
    }


def _item(item: Message) -> Message:
    # These revisions know output schemas of objects only. Spec: FEAT-019
    schema = item.get("outputSchema")
    if schema is None or schema.get("type") == "object":
        return item
    return {name: value for name, value in item.items() if name != "outputSchema"}


def _tool_result(version: str, result: Message) -> Message:
    result = {**result, "content": [revisions.block(version, block) for block in result.get("content", ())]}
    structured = result.get("structuredContent")
    if version < revisions.STRUCTURED_SINCE or not isinstance(structured, dict):
        result.pop("structuredContent", None)
    # Types of results are for 2026-07-28 alone.
    result.pop("resultType", None)
    return result


def _messages(version: str, result: Message) -> Message:
    messages = [{**message, "content": revisions.block(version, message["content"])} for message in result["messages"]]
    return {**result, "messages": messages}


def _contents(version: str, result: Message) -> Message:
    return {**result, "contents": [revisions.block(version, each) for each in result["contents"]]}


_WRITERS: dict[str, Callable[[str, Message], Message]] = {
    "tools/list": partial(_items, since=revisions.TOOL_FIELDS_SINCE),
    "resources/list": _items,
    "resources/templates/list": _items,
    "prompts/list": _items,
    "tools/call": _tool_result,
    "resources/read": _contents,
    "prompts/get": _messages,
}


def write_error(ctx: Context, error: McpError) -> McpError:
    """Write an error with a code of this era. Spec: FEAT-064"""
    if isinstance(error, ResourceNotFound):
        return McpError(error.message, error.data, spec.RESOURCE_NOT_FOUND)
    return revisions.error(ctx.version, error)


def bad_arguments(ctx: Context, text: str) -> Message:
    """Report arguments that do not fit: a result for the model in the last revision, an error before."""
    if ctx.version >= revisions.ARGUMENT_RESULTS_SINCE:
        return methods.failed(text)
    raise InvalidParams(text)


def initialized(engine: Engine, session: Session | None, params: Message) -> None:
    """Take `notifications/initialized`: from here on the server may speak first. Spec: BASE-100"""
    if session is not None:
        watch(session, engine.bus)


ERA = Era(
    name="legacy",
    versions=spec.LEGACY_VERSIONS,
    methods={
        **features.METHODS,
        **methods.rows(
            {
                "initialize": initialize,
                "ping": ping,
                "logging/setLevel": set_level,
                "resources/subscribe": subscribe,
                "resources/unsubscribe": unsubscribe,
            }
        ),
    },
    notifications={**features.NOTIFICATIONS, "notifications/initialized": initialized},
    read_envelope=read_envelope,
    write_envelope=write_envelope,
    write_error=write_error,
    bad_arguments=bad_arguments,
    strategy=lambda ctx: _BLOCK,
)
