"""The methods of tools, and the four lists; `features` has the other methods that both eras share."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..engines.errors import InvalidArguments
from ..engines.schema.hints import to_json
from ..protocol import content, spec, wire
from ..protocol.errors import InvalidParams, McpError, ToolError
from . import hooks
from .catalog import Entry, visible

if TYPE_CHECKING:
    from .context import Context

log = logging.getLogger("minimcp")

Params = dict[str, Any]
Result = dict[str, Any]


def list_page(kind: str, ctx: Context, params: Params) -> Result:
    """Answer `tools/list`, `resources/list`, `resources/templates/list` or `prompts/list` with one page.

    Spec: FEAT-002, FEAT-058, FEAT-070, FEAT-082
    """
    definitions, cursor = ctx._engine.catalog.page(ctx, kind, params.get("cursor"), ctx._engine.page_size)
    result: Result = {kind: definitions}
    if cursor is not None:
        result["nextCursor"] = cursor
    return result


def call_tool(ctx: Context, params: Params) -> Result:
    """Answer `tools/call`. Spec: FEAT-026 to FEAT-037

    :raises InvalidParams: for an unknown tool or malformed params; what fails inside the tool is a result.
    """
    entry, arguments = ctx._entry, {} if params.get("arguments") is None else params["arguments"]
    if entry is None or not visible(ctx, entry):
        raise InvalidParams(f"Unknown tool: {shorten(read_text(params, 'name'))}")
    if not isinstance(arguments, dict):
        raise InvalidParams("arguments must be an object")
    try:
        return tool_result(ctx, entry, entry.run(ctx, arguments))
    except Exception as error:
        return tool_failure(ctx, entry.definition["name"], error)


def tool_failure(ctx: Context, name: str, error: Exception) -> Result:
    """Return the result of a tool that has raised an error; an McpError is raised again."""
    if isinstance(error, InvalidArguments):
        return ctx._era.bad_arguments(ctx, f"Invalid arguments for {name}: {error}")
    if isinstance(error, McpError):
        raise error
    ctx._error = error
    if isinstance(error, ToolError):
        return failed(str(error))
    log.error("tool %s failed", name, exc_info=error)
    return failed(hooks.describe(ctx, f"The tool {name} failed", error))


def failed(message: str) -> Result:
    """Build the result of a tool that failed, for the model to read."""
    return {"content": [content.text(message)], "isError": True}


def tool_result(ctx: Context, entry: Entry, value: Any) -> Result:
    """Build the CallToolResult of a tool's return value.

    A whole result goes through as it is, and so does an extension's; text, blocks, `(bytes, mime type)` and lists of
    them become content; everything else becomes structured content with its JSON as text. With an output schema all
    but a whole result is data, and the data of both are held against it. Spec: FEAT-021 to FEAT-027
    """
    whole = False
    if isinstance(value, dict):
        kind = value.get("resultType")
        extension = ctx._engine.result_types.get(kind) if isinstance(kind, str) else None
        whole = content.is_result(value, "content", content.is_block)
        if isinstance(value, content.Raw) or (extension is not None and ctx.extension(extension) is not None):
            return value
        if whole and (entry.output is None or value.get("isError")):
            return value
    if entry.output is None:
        blocks = content.blocks(value)
        if blocks is not None:
            return {"content": blocks}
        data = to_json(value)
        result: Result = {"content": [content.text(wire.dump_text(data))]}
        return {**result, "structuredContent": data} if isinstance(data, dict) else result
    try:
        if whole and "structuredContent" not in value:
            raise InvalidArguments("it has no structuredContent")
        data = entry.dump(value["structuredContent"] if whole else value)
        entry.output.check(data)
    except InvalidArguments as error:
        log.error("the result of tool %s does not fit its outputSchema: %s", entry.definition["name"], error)
        return failed(hooks.describe(ctx, f"The result of {entry.definition['name']} does not fit its schema", error))
    blocks = value["content"] if whole else [content.text(data if isinstance(data, str) else wire.dump_text(data))]
    return {**(value if whole else {}), "content": blocks, "structuredContent": data}


def read_text(params: Params, name: str) -> str:
    """Return a member of params that must be a string.

    :raises InvalidParams: when it is none.
    """
    value = params.get(name)
    if not isinstance(value, str):
        raise InvalidParams(f"{name} must be a string")
    return value


def shorten(text: str) -> str:
    """Cut a text from a request to 200 characters, for a message."""
    return text if len(text) <= 200 else text[:200] + "..."


def rows(handlers: dict[str, Callable[[Context, Params], Any]]) -> dict[str, spec.Method]:
    """Put handlers into the rows of their methods."""
    return {method: spec.METHODS[method]._replace(handler=handler) for method, handler in handlers.items()}


METHODS = rows(
    {
        "tools/list": partial(list_page, "tools"),
        "tools/call": call_tool,
        "resources/list": partial(list_page, "resources"),
        "resources/templates/list": partial(list_page, "resourceTemplates"),
        "prompts/list": partial(list_page, "prompts"),
    }
)
