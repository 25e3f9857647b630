"""Makers of entries: functions, their type hints and docstrings become tools, resources and prompts."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..engines.schema import hints, validator
from ..protocol import app_pages, content, headers, revisions, wire
from . import instances
from .catalog import Allow, Definition, Entry
from .context import Context
from .pages import PageEntry
from .tasked import TaskEntry
from .uris import Template, check_uri, is_template

if TYPE_CHECKING:
    from ..protocol import types

log = logging.getLogger("minimcp")

Message = dict[str, Any]
Handler = Callable[..., Any]


def make_tool(
    function: Handler,
    name: str | None = None,
    *,
    title: str | None = None,
    description: str | None = None,
    annotations: types.ToolAnnotations | None = None,
    icons: list[types.Icon] | None = None,
    meta: Message | None = None,
    input_schema: Definition | None = None,
    output_schema: Definition | None = None,
    allow: Allow | None = None,
    task: bool | str = False,
    idempotent: bool = False,
    ui: str | app_pages.ToolUi | None = None,
    timeout: float | None = None,
) -> Entry:
    """Make the entry of a tool.

    :raises TypeError: for a function or hint that cannot be a tool.
    :raises ValueError: for a name, schema, `x-mcp-header`, page or time limit that breaks a rule.
    """
    if input_schema is None:
        signature = hints.signature(function, Context)
    else:
        validator.check_input_schema(input_schema)
        signature = hints.raw_signature(function, Context, input_schema)
    name = name or _name(function)
    if name == "<lambda>":
        raise ValueError("A lambda has no name of its own: give name=")
    check_name(name)
    if input_schema is None:
        _check_hints(function, name)
    output = output_schema
    if output is None:
        try:
            output = hints.output_schema(signature.returns, content.is_content_hint)
        except TypeError as problem:
            raise TypeError(f"{name}: {problem}") from None
        if output is not None and output.get("properties", {}).keys() == {"result"}:
            output[revisions.WRAPPED] = False  # it is an object, and stays one
    definition = _define(
        name=name,
        title=title,
        description=description or signature.text,
        annotations=annotations,
        icons=icons,
        _meta=meta if ui is None else app_pages.tool_meta(name, ui, meta),
        inputSchema=signature.schema,
        outputSchema=output,
    )
    if timeout is not None:
        from .time_limits import limited

        function = limited(function, name, signature.context, timeout)
    entry = Entry(function, definition, signature, allow)
    if task or idempotent:
        entry = _task_entry(name, function, definition, signature, allow, task, idempotent)
    entry.headers = headers.annotated(signature.schema)
    headers.check_served(entry.headers)
    if output is not None:
        validator.check_schema(output, "outputSchema")
        entry.output = validator.Validator(output)
        if output_schema is None:
            entry.dump = hints.dumper(signature.returns)
    return entry


def _task_entry(
    name: str,
    function: Handler,
    definition: Definition,
    signature: hints.Signature,
    allow: Allow | None,
    task: bool | str,
    idempotent: bool,
) -> TaskEntry:
    if task not in (True, "optional", "required"):
        hint = "idempotent=True goes with task=" if not task else f"not {task!r}"
        raise ValueError(f'{name}: task= is True, "optional" or "required"; {hint}')
    entry = TaskEntry(function, definition, signature, allow)
    entry.required, entry.idempotent = task == "required", bool(idempotent)
    return entry


def _check_hints(function: Handler, name: str) -> None:
    """Log a warning about parameters without a type hint.

    :raises TypeError: for `ctx` among them, which is meant to be the Context.
    """
    parameters = inspect.signature(function).parameters
    bare = [each for each in parameters if parameters[each].annotation is inspect.Parameter.empty]
    if "ctx" in bare:
        raise TypeError(f"{name}: ctx would be an argument of the tool: write ctx: Context to receive the Context")
    if bare:
        what = f"{', '.join(bare)} {'has no type hint' if len(bare) == 1 else 'have no type hints'}"
        log.warning("%s: %s, so that anything is accepted", name, what)


def make_resource(
    function: Handler,
    uri: str,
    *,
    name: str | None = None,
    title: str | None = None,
    description: str | None = None,
    mime_type: str | None = None,
    size: int | None = None,
    annotations: types.Annotations | None = None,
    icons: list[types.Icon] | None = None,
    meta: Message | None = None,
    ttl_ms: int | None = None,
    cache_scope: str | None = None,
    allow: Allow | None = None,
    traversal: bool = False,
    list: Callable[..., instances.Found] | None = None,
    ui: app_pages.PageUi | None = None,
) -> Entry:
    """Make the entry of a resource or, when the URI has variables, of a template; those with `ui://` are pages.

    :raises ValueError: for a malformed URI or template, one whose variables are not the function's parameters, a
        template with a size, caching hints that make no sense, or a page that breaks a rule.
    """
    is_page = uri[:5].lower() == app_pages.SCHEME
    if is_page:
        mime_type, meta = app_pages.page_options(uri, mime_type, ui, meta)
    elif ui is not None:
        raise ValueError(f"{uri!r} is no page of MCP Apps, which ui= is for; their URIs begin with ui://")
    signature = hints.signature(function, Context)
    names = set(signature.schema.get("properties", {}))
    template = Template(uri, traversal) if is_template(uri) else None
    if template is not None and size is not None:
        raise ValueError(f"{uri!r} is a template: only a resource with a URI of its own has a size")
    if template is None and not check_uri(uri):
        raise ValueError(f"{uri!r} is not a URI; write it with a scheme, for instance config://app")
    wanted = set(template.names) if template else set()
    if not wanted <= names or set(signature.schema.get("required", ())) - wanted:
        differing = ", ".join(sorted(wanted ^ names))
        raise ValueError(f"{uri!r} and the parameters of {_name(function)}() differ: {differing}")
    place = {"uriTemplate": template.text} if template else {"uri": uri}
    definition = _define(
        name=name or _name(function),
        title=title,
        description=description or signature.text,
        mimeType=mime_type,
        size=size,
        annotations=annotations,
        icons=icons,
        _meta=meta,
        **place,
    )
    entry = (PageEntry if is_page else Entry)(function, definition, signature, allow)
    entry.template = template
    if list is not None:
        if template is None:
            raise ValueError(f"{uri!r} has no variables: list= is for a template, such as note://{{id}}")
        entry.listing = instances.Instances(list, template, definition)
    entry.hints = caching_hints(ttl_ms, cache_scope)
    return entry


def make_prompt(
    function: Handler,
    name: str | None = None,
    *,
    title: str | None = None,
    description: str | None = None,
    icons: list[types.Icon] | None = None,
    meta: Message | None = None,
    allow: Allow | None = None,
) -> Entry:
    """Make the entry of a prompt; its arguments are the function's parameters."""
    signature = hints.signature(function, Context)
    required = signature.schema.get("required", ())
    arguments = []
    for key, part in signature.schema.get("properties", {}).items():
        argument = {"name": key, "required": key in required}
        if "description" in part:
            argument["description"] = part["description"]
        arguments.append(argument)
    definition = _define(
        name=name or _name(function),
        title=title,
        description=description or signature.text,
        icons=icons,
        _meta=meta,
        arguments=arguments or None,
    )
    return Entry(function, definition, signature, allow)


def _name(function: Handler) -> str:
    """Return the name of a function.

    :raises TypeError: for a callable without one, with what to write.
    """
    name = getattr(function, "__name__", None)
    if not isinstance(name, str):
        raise TypeError(f"The {type(function).__name__} has no name of its own: give name=")
    return name


def _define(**members: Any) -> Definition:
    """Return the members that have a value; an empty description is none.

    :raises ValueError: when JSON cannot say one, which would break the whole list.
    """
    found = {key: value for key, value in members.items() if value is not None and (key != "description" or value)}
    try:
        wire.dumps(found)
    except ValueError as problem:
        raise ValueError(f"{found['name']!r} cannot be listed: {problem}") from None
    return found


def caching_hints(ttl_ms: int | None, cache_scope: str | None) -> Definition:
    """Return the given caching hints under their names on the wire. Spec: FEAT-123, FEAT-124

    :raises ValueError: for a hint that makes no sense.
    """
    whole = ttl_ms is None or (type(ttl_ms) is int and ttl_ms >= 0)
    if not whole or cache_scope not in (None, "public", "private"):
        raise ValueError('ttl_ms is a whole number of milliseconds, cache_scope is "public" or "private"')
    given = {"ttlMs": ttl_ms, "cacheScope": cache_scope}
    return {key: value for key, value in given.items() if value is not None}


def check_name(name: str) -> None:
    """Refuse a tool name other implementations could not use. Spec: FEAT-006

    :raises ValueError: with what a name may look like.
    """
    allowed = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.")
    if not 1 <= len(name) <= 128 or not set(name) <= allowed:
        raise ValueError(f"The tool name {name[:140]!r} is not 1 to 128 of A-Z a-z 0-9 _ - .")
