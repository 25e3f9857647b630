"""The methods of resources, prompts and completion, and the tables that both eras share."""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING, Any

from ..engines.errors import InvalidArguments, MinimcpError
from ..engines.schema.hints import to_json
from ..protocol import content, wire
from ..protocol.errors import InternalError, InvalidParams, McpError, ResourceNotFound
from . import hooks, methods
from .catalog import Entry, visible
from .methods import Params, Result, read_text, shorten

if TYPE_CHECKING:
    from .context import Context
    from .engine import Engine
    from .session import Session

log = logging.getLogger("minimcp")

MAX_COMPLETIONS = 100


def read_resource(ctx: Context, params: Params) -> Result:
    """Answer `resources/read`; a `content.Raw` result goes through as it is. Spec: FEAT-060 to FEAT-069

    :raises ResourceNotFound: for a URI nothing is registered for, or that this caller may not read.
    """
    uri = read_text(params, "uri")
    entry = ctx._entry
    if entry is None or not visible(ctx, entry):
        raise ResourceNotFound("Resource not found", {"uri": shorten(uri)})
    arguments = entry.template.match(uri) if entry.template else {}
    value = _run(ctx, entry, arguments or {}, f"The resource {shorten(uri)}")
    if value is None:
        raise ResourceNotFound("Resource not found", {"uri": shorten(uri)})
    if content.is_result(value, "contents", content.is_contents):
        return value  # type: ignore[no-any-return]
    return {"contents": _contents(uri, entry.definition.get("mimeType"), value)}


def readable(ctx: Context, uri: str) -> bool:
    """Say whether this caller may read a resource, and so subscribe to it; rules decide about its URI."""
    reading = copy.copy(ctx)
    reading.method, reading.params = "resources/read", {"uri": uri}
    found = visible(reading, ctx._engine.catalog.resource(reading, uri))
    ctx.private = ctx.private or reading.private
    return found


def _contents(uri: str, mime_type: str | None, value: Any) -> list[Any]:
    if content.is_media(value):
        value, mime_type = value
    if isinstance(value, (str, bytes)):
        return [content.resource_contents(uri, value, mime_type)]
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    if items and all(map(content.is_contents, items)):
        return items
    return [content.resource_contents(uri, wire.dump_text(to_json(value)), mime_type or "application/json")]


def get_prompt(ctx: Context, params: Params) -> Result:
    """Answer `prompts/get`. Spec: FEAT-084 to FEAT-091

    :raises InvalidParams: for an unknown prompt or arguments that do not fit.
    """
    name, arguments = read_text(params, "name"), params.get("arguments")
    entry = ctx._entry
    if entry is None or not visible(ctx, entry):
        raise InvalidParams(f"Unknown prompt: {shorten(name)}")
    arguments = {} if arguments is None else arguments
    if not isinstance(arguments, dict) or not all(isinstance(value, str) for value in arguments.values()):
        raise InvalidParams("arguments must be an object of strings")
    value = _run(ctx, entry, arguments, f"The prompt {name}")
    if isinstance(value, content.Raw):
        return value
    result: Result = {"messages": []}
    if "description" in entry.definition:
        result["description"] = entry.definition["description"]
    if content.is_result(value, "messages", content.is_message):
        result, value = {**result, **value}, value["messages"]
    items = value if isinstance(value, (list, tuple)) and not content.is_media(value) else [value]
    result["messages"] = [message for item in items for message in _messages(item)]
    return result


def _messages(item: Any) -> list[Result]:
    """Return the messages of an item: one for each block, since a message has one. Spec: FEAT-085"""
    message = item if content.is_message(item) else {"role": "user", "content": item}
    blocks = content.blocks(message["content"])
    if blocks is None:
        blocks = [content.text(wire.dump_text(to_json(message["content"])))]
    return [{**message, "content": block} for block in blocks]


def _run(ctx: Context, entry: Entry, arguments: Params, what: str) -> Any:
    """Run a resource or prompt; its failures are JSON-RPC errors."""
    try:
        return entry.run_text(ctx, arguments)
    except InvalidArguments as error:
        raise InvalidParams(f"{what}: {error}") from None
    except McpError:
        raise
    except MinimcpError as error:
        raise InternalError(str(error)) from None
    except Exception as error:
        log.exception("%s failed", what)
        raise InternalError(hooks.describe(ctx, f"{what} failed", error)) from None


def complete(ctx: Context, params: Params) -> Result:
    """Answer `completion/complete`: at most 100 values, or a `content.Raw` result as it is. Spec: FEAT-093 to FEAT-098

    :raises InvalidParams: for a reference to a prompt or template that is not there.
    """
    reference, argument, context = params.get("ref"), params.get("argument"), params.get("context")
    chosen = context.get("arguments") if isinstance(context, dict) else context
    chosen = {} if chosen is None else chosen
    if not isinstance(reference, dict) or not isinstance(argument, dict) or not isinstance(chosen, dict):
        raise InvalidParams("ref and argument must be objects, and so must context and its arguments")
    name, value = argument.get("name"), argument.get("value")
    if not isinstance(name, str) or not isinstance(value, str):
        raise InvalidParams("argument must have a name and a value, both strings")
    key = reference.get({"ref/prompt": "name", "ref/resource": "uri"}.get(str(reference.get("type")), ""))
    if not isinstance(key, str):
        raise InvalidParams('ref must be {"type": "ref/prompt", "name": ...} or {"type": "ref/resource", "uri": ...}')
    function = ctx._engine.catalog.completion(ctx, reference, name)
    values = function(value, chosen) if function is not None else ()
    if isinstance(values, content.Raw):
        return values
    found = [str(item) for item in values]
    completion: Result = {"values": found[:MAX_COMPLETIONS]}
    if len(found) > MAX_COMPLETIONS:
        completion.update(total=len(found), hasMore=True)
    return {"completion": completion}


def capabilities(ctx: Context) -> Result:
    """Return the capabilities to advertise: those that are offered to this caller. Spec: BASE-080, BASE-116"""
    offers = ctx._engine.catalog.offers(ctx)
    found: Result = {kind: {"listChanged": True} for kind in ("tools", "prompts", "resources") if kind in offers}
    if "resources" in offers and "subscribe" in offers:
        found["resources"]["subscribe"] = True
    found.update({kind: {} for kind in ("completions", "logging") if kind in offers})
    if ctx._engine.extensions:
        found["extensions"] = ctx._engine.extensions
    return found


def cancelled(engine: Engine, session: Session | None, params: Params) -> None:
    """Take `notifications/cancelled`: cancel that call of the session; an unknown id is ignored.

    Spec: BASE-133, BASE-134
    """
    id = params.get("requestId")
    call = session.calls.get(id) if session is not None and wire.is_id(id) else None
    if call is not None:
        call.cancel(params.get("reason"))
    elif session is not None and session.shared is not None and wire.is_id(id):
        session.shared.cancel(session, id, params.get("reason"))


METHODS = {
    **methods.METHODS,
    **methods.rows(
        {
            "resources/read": read_resource,
            "prompts/get": get_prompt,
            "completion/complete": complete,
        }
    ),
}

NOTIFICATIONS = {"notifications/cancelled": cancelled}
