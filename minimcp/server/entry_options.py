"""Options of registration as type checkers and editors read them; nothing here is loaded when a program runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, TypedDict

from ..protocol import app_pages, types
from .catalog import Allow
from .instances import Found


class PromptOptions(TypedDict, total=False):
    """Options of `server.prompt`.

    `description` is the docstring by default. `allow`, an `f(ctx)`, decides who sees and may use the entry; for others
    it does not exist. The principal also needs all of `scopes` and one of `roles`. `meta` is the definition's `_meta`;
    `tags`, words by which hosts may sort it, are kept there as "minimcp/tags".
    """

    title: str | None
    description: str | None
    icons: list[types.Icon] | None
    meta: dict[str, Any] | None
    allow: Allow | None
    scopes: Sequence[str] | None
    roles: Sequence[str] | None
    tags: Collection[str] | None


class ToolOptions(PromptOptions, total=False):
    """Options of `server.tool`: those of a prompt, hints and schemas.

    `annotations` are hints such as `{"readOnlyHint": True}`. `input_schema` is a JSON Schema that is used verbatim
    instead of the one made from the type hints; `output_schema` takes the place of the return hint's. Spec: FEAT-013
    With `task` a call becomes a task where the client declares the tasks extension: True and "optional" answer other
    clients with the result, "required" refuses them. `idempotent` lets a task run again whose process has died.
    `ui` is the URI of the page that hosts with MCP Apps show its result in, or a dict with `resourceUri` and
    `visibility`: `["app"]` is a tool for the page alone. A call that takes more than `timeout` seconds fails; its
    function, which runs on a thread of its own, is cancelled.
    """

    annotations: types.ToolAnnotations | None
    input_schema: dict[str, Any] | None
    output_schema: dict[str, Any] | None
    task: bool | Literal["optional", "required"]
    idempotent: bool
    ui: str | app_pages.ToolUi | None
    timeout: float | None


class ResourceOptions(PromptOptions, total=False):
    """Options of `server.resource`: those of a prompt, and what a client may know before it reads.

    `name` is the function's by default, `size` is in bytes, `ttl_ms` says for how many milliseconds clients may cache
    what is read here, and `cache_scope` for whom. `traversal` lets the variables of a template hold `..` and absolute
    paths, which are refused otherwise: give such a path to `minimcp.safe_join` before it touches a file system.
    `list`, a function without parameters or with `ctx: Context`, returns the URIs of a template's resources, or dicts
    with a `uri` and what else is to be listed; `server.changed("resources")` tells that they are others now.
    `ui` says what a page, a resource whose URI begins with `ui://`, may load (`csp`) and wants of the browser.
    """

    name: str | None
    mime_type: str | None
    size: int | None
    annotations: types.Annotations | None
    ttl_ms: int | None
    cache_scope: Literal["private", "public"] | None
    traversal: bool
    list: Callable[..., Found] | None
    ui: app_pages.PageUi | None
