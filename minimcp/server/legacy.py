"""The legacy era, 2024-11-05 to 2025-11-25: a handshake, a session, and questions sent as requests.

Spec: file 1, sections 1.10 and 1.11; 11:basic/lifecycle
"""

from __future__ import annotations

from typing import Any

from ..protocol import content, spec, wire
from ..protocol.errors import InvalidParams, InvalidRequest, McpError, ResourceNotFound
from . import methods
from .asking import Block
from .context import Context
from .dispatcher import Era, cancelled
from .session import Session

Message = dict[str, Any]

_BLOCK = Block()
_WITHOUT_HANDSHAKE = ("initialize", "ping")


def open(ctx: Context) -> None:
    """Fill the context from the session.

    :raises InvalidRequest: before `initialize`, except for `initialize` and `ping`. Spec: BASE-096, BASE-117
    """
    session = ctx.session
    version = session.version if session is not None else None
    if version is None and ctx.method not in _WITHOUT_HANDSHAKE:
        raise InvalidRequest(
            "There is no session: send initialize first, or a 2026-07-28 request, "
            f"whose params._meta has {spec.META_VERSION}"
        )
    ctx.version = version or spec.LATEST_LEGACY
    ctx.asker = _BLOCK
    if session is not None:
        ctx.capabilities, ctx.client_info, ctx.log_level = session.capabilities, session.client_info, session.log_level


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
        "capabilities": _known(ctx, ctx.server.capabilities(), spec.CAPABILITIES_SINCE),
        "serverInfo": _known(ctx, ctx.server.identity, spec.IMPLEMENTATION_FIELDS_SINCE),
    }
    if ctx.server.instructions:
        result["instructions"] = ctx.server.instructions
    return result


def _known(ctx: Context, fields: Message, since: dict[str, str]) -> Message:
    """The fields that the revision in force knows."""
    return {name: value for name, value in fields.items() if ctx.version >= since.get(name, ctx.version)}


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
    uri = _uri(params)
    if not methods.visible(ctx, ctx.server.registry.resource(uri)):
        raise ResourceNotFound("Resource not found", {"uri": uri[:200]})
    if len(ctx.session.uris) >= ctx.server.limits["subscriptions"]:
        raise InvalidParams("This session has too many subscriptions")
    ctx.session.uris.add(uri)
    return {}


def unsubscribe(ctx: Context, params: Message) -> Message:
    """Answer `resources/unsubscribe`; a URI that was not subscribed to is no error."""
    ctx.session.uris.discard(_uri(params))
    return {}


def _uri(params: Message) -> str:
    uri = params.get("uri")
    if not isinstance(uri, str):
        raise InvalidParams("uri must be a string")
    return uri


def watch(session: Session, bus: Any) -> None:
    """Pass changes on to a session from now on: every list change, and updates of what it subscribed to.

    A session is watched once; what cannot be delivered is dropped.
    """
    if "watched" in session.door:
        return
    session.door["watched"] = True

    def on_change(kind: str, uri: str | None) -> None:
        send = session.send
        if send is None or session.version is None:
            return
        if uri is None:
            message = wire.notification(spec.CHANGES[kind][0])
        elif uri in session.uris:
            message = wire.notification("notifications/resources/updated", {"uri": uri})
        else:
            return
        if session.record is not None:
            session.record("sent", message)
        send(message)

    session.on_close.append(bus.subscribe(on_change))


def close(ctx: Context, result: Message) -> Message:
    """Leave out of a result what this revision cannot say. Spec: file 1, section 1.0.4; FEAT-046"""
    dress = _DRESS.get(ctx.method)
    return dress(ctx.version, result) if dress is not None else result


def _items(version: str, result: Message) -> Message:
    dropped = {name for name, since in spec.ITEM_FIELDS_SINCE.items() if version < since}
    return {
        name: [_item(item, dropped) for item in value] if isinstance(value, list) else value
        for name, value in result.items()
    }


def _item(item: Message, dropped: set[str]) -> Message:
    # These revisions know output schemas of objects only. Spec: FEAT-019
    schema = item.get("outputSchema")
    unsayable = schema is not None and schema.get("type") != "object"
    if not unsayable and dropped.isdisjoint(item):
        return item
    return {k: v for k, v in item.items() if k not in dropped and not (unsayable and k == "outputSchema")}


def _tool_result(version: str, result: Message) -> Message:
    result = {**result, "content": [_block(version, block) for block in result.get("content", ())]}
    structured = result.get("structuredContent")
    if version < spec.STRUCTURED_SINCE or not isinstance(structured, dict):
        result.pop("structuredContent", None)
    return result


def _messages(version: str, result: Message) -> Message:
    messages = [{**message, "content": _block(version, message["content"])} for message in result["messages"]]
    return {**result, "messages": messages}


def _block(version: str, block: Any) -> Any:
    """A block this revision knows; one it does not know is told in words, so that nothing is lost."""
    kind = block.get("type") if isinstance(block, dict) else None
    if version >= spec.BLOCKS_SINCE.get(str(kind), version):
        return block
    if kind == "resource_link":
        return content.text(f"{block.get('name', '')}: {block.get('uri', '')}")
    return content.text(f"({kind} content of type {block.get('mimeType')}, which this protocol revision cannot carry)")


_DRESS = {
    "tools/list": _items,
    "resources/list": _items,
    "resources/templates/list": _items,
    "prompts/list": _items,
    "tools/call": _tool_result,
    "prompts/get": _messages,
}


def problem(ctx: Context, error: McpError) -> McpError:
    """Write an error as this era says it. Spec: FEAT-064"""
    if isinstance(error, ResourceNotFound):
        return McpError(error.message, error.data, spec.RESOURCE_NOT_FOUND)
    return error


def bad_arguments(ctx: Context, text: str) -> Message:
    """Arguments that do not fit: a result for the model in the last revision, an error before."""
    if ctx.version >= spec.ARGUMENT_RESULTS_SINCE:
        return methods.failed(text)
    raise InvalidParams(text)


def initialized(session: Session | None, params: Message) -> None:
    """Take `notifications/initialized`: from here on the server may speak first. Spec: BASE-100"""
    if session is not None and "bus" in session.door:
        watch(session, session.door["bus"])


ERA = Era(
    name="legacy",
    versions=spec.LEGACY_VERSIONS,
    methods={
        **methods.METHODS,
        "initialize": initialize,
        "ping": ping,
        "logging/setLevel": set_level,
        "resources/subscribe": subscribe,
        "resources/unsubscribe": unsubscribe,
    },
    notifications={"notifications/cancelled": cancelled, "notifications/initialized": initialized},
    open=open,
    close=close,
    problem=problem,
    bad_arguments=bad_arguments,
)
