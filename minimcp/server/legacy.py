"""The legacy era, 2024-11-05 to 2025-11-25: a handshake, a session, and questions sent as requests.

Spec: 11:basic/lifecycle
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from ..protocol import content, revisions, spec, wire
from ..protocol.errors import InvalidParams, InvalidRequest, McpError, ResourceNotFound
from . import features, methods
from .asking import Block
from .catalog import Entry
from .dispatcher import Era
from .mount import instructions
from .seen import ListContext, SeenLists

if TYPE_CHECKING:
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
    given = {name: value for name, value in params.items() if value is not None}
    version, capabilities = given.get("protocolVersion"), given.get("capabilities", {})
    client_info = given.get("clientInfo", {})
    if not isinstance(version, str) or not isinstance(capabilities, dict) or not isinstance(client_info, dict):
        raise InvalidParams("initialize needs protocolVersion (a string), capabilities and clientInfo (objects)")
    ctx.version = version if version in spec.LEGACY_VERSIONS else spec.LATEST_LEGACY
    session = ctx.session
    if session is not None:
        session.version, session.capabilities = ctx.version, capabilities
        # Only what is worth remembering, whatever the client sent along.
        session.client_info = {name: str(client_info.get(name) or "")[:200] for name in ("name", "version")}
    result: Message = {
        "protocolVersion": ctx.version,
        "capabilities": revisions.known(ctx.version, features.capabilities(ctx), revisions.CAPABILITIES_SINCE),
        "serverInfo": revisions.known(ctx.version, ctx._engine.identity, revisions.IMPLEMENTATION_FIELDS_SINCE),
    }
    text = instructions(ctx._engine)
    if text:
        result["instructions"] = text
    return result


def ping(ctx: Context, params: Message) -> Message:
    """Answer `ping`."""
    return {}


def set_level(ctx: Context, params: Message) -> Message:
    """Answer `logging/setLevel`. Spec: FEAT-104, FEAT-107"""
    level = params.get("level")
    if level not in spec.LOG_LEVELS:
        raise InvalidParams(f"level must be one of {', '.join(spec.LOG_LEVELS)}")
    ctx.session.set_level(level)
    return {}


def subscribe(ctx: Context, params: Message) -> Message:
    """Answer `resources/subscribe`. Spec: FEAT-072"""
    uri = methods.read_text(params, "uri")
    if not features.readable(ctx, uri):
        raise ResourceNotFound("Resource not found", {"uri": uri[:200]})
    ctx.session.subscribe(uri, ctx._engine.subscribed, ctx._engine.limits)
    return {}


def unsubscribe(ctx: Context, params: Message) -> Message:
    """Answer `resources/unsubscribe`; a URI that was not subscribed to is no error."""
    ctx.session.unsubscribe(methods.read_text(params, "uri"))
    return {}


@lru_cache(maxsize=16)
def _change(topic: str, uri: str | None) -> tuple[Message, bytes]:
    """Return a change as a message and encoded, the same objects for all the sessions that are told of it."""
    if uri is None:
        message = wire.notification(spec.CHANGES[topic][0])
    else:
        message = wire.notification("notifications/resources/updated", {"uri": uri})
    return message, wire.encode(message)


def watch(session: Session, engine: Engine) -> None:
    """Pass changes on to a session from now on: those of lists that its caller sees, and updates of its subscriptions.

    A session is watched once; a change that cannot be delivered is dropped, and so is one while another process passes
    them on.
    """
    if session.watched:
        return
    session.watched = True
    seen = SeenLists(ListContext(engine, ERA, session, "tools"), spec.CHANGES)

    def on_change(topic: str, data: Any) -> None:
        if session.send is None or session.version is None:
            return
        if topic not in spec.CHANGES:
            # None stands for all of them.
            for uri in list(session.uris) if data is None else [data] if isinstance(data, str) else ():
                if uri in session.uris and not session.away:
                    tell(topic, uri)
        elif seen.changed(ListContext(engine, ERA, session, topic), topic) and not session.away:
            tell(topic, None)

    def tell(topic: str, about: str | None) -> None:
        send, note = session.send, session.note
        message, encoded = _change(topic, about)
        if session.record is not None:
            session.record("sent", message)
        if note is not None:
            note((topic, about), encoded)
        elif send is not None:
            send(message)

    def tell_all() -> None:
        for topic in spec.CHANGES.keys() & engine.catalog.offers(ListContext(engine, ERA, session, "tools")):
            tell(topic, None)
        on_change("resource", None)

    session.tell_all = tell_all
    session.on_close.append(engine.bus.subscribe((*spec.CHANGES, "resource"), on_change))


def write_envelope(ctx: Context, result: Message) -> Message:
    """Leave out of a result the fields and blocks that this revision does not have. Spec: FEAT-046"""
    write = _WRITERS.get(ctx.method)
    return result if write is None or isinstance(result, content.Raw) else write(ctx, result)


def _items(ctx: Context, result: Message, since: dict[str, str] = revisions.FIELDS_SINCE) -> Message:
    return {
        name: [_item(revisions.part(ctx.version, item, since)) for item in value] if isinstance(value, list) else value
        for name, value in result.items()
    }


def _item(item: Message) -> Message:
    schema = item.get("outputSchema")
    sayable = None if schema is None else _of_objects(schema)
    if sayable is schema:
        return item
    rest = {name: value for name, value in item.items() if name != "outputSchema"}
    return rest if sayable is None else {**rest, "outputSchema": sayable}


def _of_objects(schema: Message) -> Message | None:
    """Return an output schema of objects, which is all that these revisions know, or None where there is none.

    One of other values becomes that of `{"result": value}`, in the form that other implementations have. Spec: FEAT-019
    """
    if schema.get("type") == "object":
        return schema
    references = _REFERENCE.findall(json.dumps(schema))
    if not all(reference.startswith(("#/$defs/", "#/definitions/")) for reference in references):
        return None  # it would lead somewhere else
    root: Message = {keyword: schema[keyword] for keyword in _ROOT if keyword in schema}
    value = {keyword: part for keyword, part in schema.items() if keyword not in root}
    wrapped = {"type": "object", "properties": {"result": value}, "required": ["result"], revisions.WRAPPED: True}
    return {**root, **wrapped}


def _wraps(entry: Entry) -> bool:
    """Say whether these revisions get a tool's data in an object."""
    if entry.wraps is None:
        schema = entry.definition.get("outputSchema")
        entry.wraps = schema is not None and schema.get("type") != "object" and _of_objects(schema) is not None
    return entry.wraps


_ROOT = ("$schema", "$id", "$defs", "definitions")
_REFERENCE = re.compile(r'"\$(?:ref|dynamicRef|recursiveRef)": "([^"]*)"')


def _tool_result(ctx: Context, result: Message) -> Message:
    """Write a tool's result; structured content that the revision cannot say is kept in its `_meta`."""
    result = {**result, "content": [revisions.block(ctx.version, block) for block in result.get("content", ())]}
    # Types of results are for 2026-07-28 alone.
    result.pop("resultType", None)
    if "structuredContent" not in result:
        return result
    structured = result.pop("structuredContent")
    if ctx.version >= revisions.STRUCTURED_SINCE:
        if ctx._entry is not None and _wraps(ctx._entry):
            return {**result, "structuredContent": {"result": structured}}
        if isinstance(structured, dict):
            return {**result, "structuredContent": structured}
    return {**result, "_meta": {**result.get("_meta", {}), revisions.STRUCTURED_META: structured}}


def _messages(ctx: Context, result: Message) -> Message:
    version = ctx.version
    messages = [{**message, "content": revisions.block(version, message["content"])} for message in result["messages"]]
    return {**result, "messages": messages}


def _contents(ctx: Context, result: Message) -> Message:
    return {**result, "contents": [revisions.block(ctx.version, each) for each in result["contents"]]}


_WRITERS: dict[str, Callable[..., Message]] = {
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
    # Of several processes one does, until the client opens the session's stream at another.
    if session is not None and (session.shared is None or session.shared.begin(session)):
        watch(session, engine)


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
