"""The handlers both eras share: tools, resources, prompts and completion."""

from __future__ import annotations

import logging
from typing import Any

from ..engines.errors import InvalidArguments, MinimcpError
from ..engines.schema.hints import to_json
from ..protocol import content, wire
from ..protocol.errors import InternalError, InvalidParams, McpError, ResourceNotFound, ToolError
from .catalog import Entry, visible
from .context import Context

log = logging.getLogger("minimcp")

Params = dict[str, Any]
Result = dict[str, Any]

MAX_COMPLETIONS = 100


def _list(kind: str, ctx: Context, params: Params) -> Result:
    definitions, cursor = ctx.server.catalog.page(ctx, kind, params.get("cursor"), ctx.server.page_size)
    result: Result = {kind: definitions}
    if cursor is not None:
        result["nextCursor"] = cursor
    return result


def list_tools(ctx: Context, params: Params) -> Result:
    """Answer `tools/list`. Spec: FEAT-002"""
    return _list("tools", ctx, params)


def list_resources(ctx: Context, params: Params) -> Result:
    """Answer `resources/list`. Spec: FEAT-058"""
    return _list("resources", ctx, params)


def list_templates(ctx: Context, params: Params) -> Result:
    """Answer `resources/templates/list`. Spec: FEAT-070"""
    return _list("resourceTemplates", ctx, params)


def list_prompts(ctx: Context, params: Params) -> Result:
    """Answer `prompts/list`. Spec: FEAT-082"""
    return _list("prompts", ctx, params)


def call_tool(ctx: Context, params: Params) -> Result:
    """Answer `tools/call`. Spec: FEAT-026 to FEAT-037

    :raises InvalidParams: for an unknown tool or malformed params; what fails inside the tool is a result.
    """
    name, arguments = _named(params), params.get("arguments", {})
    entry = ctx.entry
    if entry is None or not visible(ctx, entry):
        raise InvalidParams(f"Unknown tool: {_short(name)}")
    if not isinstance(arguments, dict):
        raise InvalidParams("arguments must be an object")
    try:
        try:
            value = entry.run(ctx, arguments)
        except InvalidArguments as error:
            return ctx.era.bad_arguments(ctx, f"Invalid arguments for {name}: {error}")  # type: ignore[no-any-return]
        return tool_result(ctx, entry, value)
    except ToolError as error:
        ctx.error = error
        return failed(str(error))
    except McpError:
        raise
    except Exception as error:
        ctx.error = error
        log.exception("tool %s failed", name)
        return failed(ctx.server.describe(f"The tool {name} failed", error))


def failed(message: str) -> Result:
    """Build the result of a tool that failed, for the model to read."""
    return {"content": [content.text(message)], "isError": True}


def tool_result(ctx: Context, entry: Entry, value: Any) -> Result:
    """Turn what a tool returned into a CallToolResult.

    A full result dict goes through as it is; text, blocks, `(bytes, mime type)` and lists of them become content;
    everything else becomes structured content with its JSON as text. Spec: FEAT-021 to FEAT-027
    """
    if isinstance(value, dict):
        if isinstance(value.get("content"), list) and value.keys() <= _RESULT_MEMBERS:
            return value
        extension = ctx.server.result_types.get(value.get("resultType", ""))
        if extension is not None and ctx.extension(extension) is not None:
            return value
    if entry.output is None:
        blocks = _blocks(value)
        if blocks is not None:
            return {"content": blocks}
    data = to_json(value)
    if entry.output is None:
        if isinstance(data, dict):
            return {"content": [content.text(wire.text(data))], "structuredContent": data}
        return {"content": [content.text(wire.text(data))]}
    try:
        entry.output.check(data)
    except InvalidArguments as error:
        log.error("the result of tool %s does not fit its outputSchema: %s", entry.definition["name"], error)
        return failed("The tool's result does not fit its own output schema")
    text = data if isinstance(data, str) else wire.text(data)
    return {"content": [content.text(text)], "structuredContent": data}


_RESULT_MEMBERS = {"content", "structuredContent", "isError", "_meta"}


def _blocks(value: Any) -> list[Any] | None:
    """Content blocks of a value that is content, or None when it is data."""
    if value is None:
        return []
    if isinstance(value, (list, tuple)) and not _media(value):
        parts = [_blocks(item) for item in value if item is not None]
        if not value or any(part is None for part in parts):
            return None
        return [block for part in parts for block in part or ()]
    if isinstance(value, str):
        return [content.text(value)]
    if content.is_block(value):
        return [value]
    if _media(value):
        data, mime_type = value
        if mime_type.startswith("image/"):
            return [content.image(data, mime_type)]
        if mime_type.startswith("audio/"):
            return [content.audio(data, mime_type)]
        return [content.resource("data:" + mime_type, data, mime_type)]
    return None


def _media(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], bytes) and isinstance(value[1], str)


def read_resource(ctx: Context, params: Params) -> Result:
    """Answer `resources/read`. Spec: FEAT-060 to FEAT-069

    :raises ResourceNotFound: for a URI nothing is registered for, or that this caller may not read.
    """
    uri = params.get("uri")
    if not isinstance(uri, str):
        raise InvalidParams("uri must be a string")
    entry = ctx.entry
    if entry is None or not visible(ctx, entry):
        raise ResourceNotFound("Resource not found", {"uri": _short(uri)})
    arguments = entry.template.match(uri) if entry.template else {}
    value = _run(ctx, entry, arguments or {}, f"The resource {_short(uri)}")
    if value is None:
        raise ResourceNotFound("Resource not found", {"uri": _short(uri)})
    return {"contents": _contents(uri, entry.definition.get("mimeType"), value)}


def _contents(uri: str, mime_type: str | None, value: Any) -> list[Any]:
    if isinstance(value, dict) and isinstance(value.get("contents"), list):
        return list(value["contents"])
    if _media(value):
        value, mime_type = value
    if isinstance(value, (str, bytes)):
        return [content.resource_contents(uri, value, mime_type)]
    if isinstance(value, dict) and "uri" in value and ("text" in value or "blob" in value):
        return [value]
    if isinstance(value, list) and value and all(isinstance(item, dict) and "uri" in item for item in value):
        return value
    return [content.resource_contents(uri, wire.text(to_json(value)), mime_type or "application/json")]


def get_prompt(ctx: Context, params: Params) -> Result:
    """Answer `prompts/get`. Spec: FEAT-084 to FEAT-091

    :raises InvalidParams: for an unknown prompt or arguments that do not fit.
    """
    name, arguments = _named(params), params.get("arguments", {})
    entry = ctx.entry
    if entry is None or not visible(ctx, entry):
        raise InvalidParams(f"Unknown prompt: {_short(name)}")
    if not isinstance(arguments, dict) or not all(isinstance(value, str) for value in arguments.values()):
        raise InvalidParams("arguments must be an object of strings")
    value = _run(ctx, entry, arguments, f"The prompt {name}")
    if isinstance(value, dict) and isinstance(value.get("messages"), list):
        return value
    messages = [_message(item) for item in (value if isinstance(value, list) else [value])]
    result: Result = {"messages": messages}
    if "description" in entry.definition:
        result["description"] = entry.definition["description"]
    return result


def _message(item: Any) -> Result:
    if isinstance(item, dict) and "role" in item and "content" in item:
        return {**item, "content": _as_block(item["content"])}
    return {"role": "user", "content": _as_block(item)}


def _as_block(item: Any) -> Any:
    if content.is_block(item):
        return item
    return content.text(item if isinstance(item, str) else wire.text(to_json(item)))


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
        raise InternalError(ctx.server.describe(f"{what} failed", error)) from None


def complete(ctx: Context, params: Params) -> Result:
    """Answer `completion/complete`: at most 100 values. Spec: FEAT-093 to FEAT-098

    :raises InvalidParams: for a reference to a prompt or template that is not there.
    """
    reference, argument, context = params.get("ref"), params.get("argument"), params.get("context", {})
    chosen = context.get("arguments", {}) if isinstance(context, dict) else None
    if not isinstance(reference, dict) or not isinstance(argument, dict) or not isinstance(chosen, dict):
        raise InvalidParams("ref and argument must be objects, and so must context and its arguments")
    name, value = argument.get("name"), argument.get("value")
    if not isinstance(name, str) or not isinstance(value, str):
        raise InvalidParams("argument must have a name and a value, both strings")
    key = reference.get({"ref/prompt": "name", "ref/resource": "uri"}.get(str(reference.get("type")), ""))
    if not isinstance(key, str):
        raise InvalidParams('ref must be {"type": "ref/prompt", "name": ...} or {"type": "ref/resource", "uri": ...}')
    function = ctx.server.catalog.completion(ctx, reference, name)
    found = [str(item) for item in function(value, chosen)] if function is not None else []
    completion: Result = {"values": found[:MAX_COMPLETIONS]}
    if len(found) > MAX_COMPLETIONS:
        completion.update(total=len(found), hasMore=True)
    return {"completion": completion}


def _named(params: Params) -> str:
    name = params.get("name")
    if not isinstance(name, str):
        raise InvalidParams("name must be a string")
    return name


def _short(text: str) -> str:
    return text if len(text) <= 200 else text[:200] + "..."


METHODS = {
    "tools/list": list_tools,
    "tools/call": call_tool,
    "resources/list": list_resources,
    "resources/templates/list": list_templates,
    "resources/read": read_resource,
    "prompts/list": list_prompts,
    "prompts/get": get_prompt,
    "completion/complete": complete,
}

# The capability behind which a method stands; without it the method does not exist. Spec: BASE-061
CAPABILITY = {
    "tools/list": "tools",
    "tools/call": "tools",
    "resources/list": "resources",
    "resources/templates/list": "resources",
    "resources/read": "resources",
    "resources/subscribe": "resources",
    "resources/unsubscribe": "resources",
    "prompts/list": "prompts",
    "prompts/get": "prompts",
    "completion/complete": "completions",
    "logging/setLevel": "logging",
}
