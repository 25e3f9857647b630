"""The catalog of a server: entries, the interface by which handlers find them, and the rule of who may see them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional, Protocol

from ..engines.schema import hints, text, validator
from ..protocol import headers
from .needs import denied
from .uris import Template

if TYPE_CHECKING:
    from .context import Context

Definition = dict[str, Any]
Page = tuple[list[Definition], Optional[str]]
Allow = Callable[["Context"], bool]
Policy = Callable[["Context", "Entry"], bool]
Completer = Callable[[str, dict[str, Any]], Any]


class Entry:
    """One tool, resource, template or prompt: its definition on the wire, and the function that runs.

    :ivar definition: the object that the list method sends.
    :ivar context: the name of the parameter that receives the Context, or None.
    :ivar allow: `f(ctx)` decides who may see and use it; None for everybody.
    :ivar order: its place among all registrations; cursors point at it.
    :ivar schema: the JSON Schema of the arguments.
    :ivar output: checks the data that a tool returns, or None.
    :ivar dump: makes JSON data of what it returns.
    :ivar template: the URI template of a resource template.
    :ivar headers: the arguments that `Mcp-Param-*` headers mirror.
    :ivar hints: `ttlMs` and `cacheScope` of what is read here, where they differ from the server's.
    :ivar origin: the name of the server that it comes from, "" for this one.
    :ivar listing: `f(ctx)` returns the definitions of the resources that a template stands for; None lists none.
    :ivar completer: `f(ctx, reference, argument)` returns its Completer in place of those registered, or None.
    :ivar stands_for: the entry that the policy decides about in its place, where it shows another one under a new name.
    :ivar open: whether the policy has no say, as it does not show anything by itself.
    """

    origin: str = ""
    stands_for: Entry | None = None
    open: bool = False
    completer: Callable[[Context, Definition, str], Completer | None] | None = None
    listing: Callable[[Context], list[Definition]] | None = None

    def __init__(
        self, function: Callable[..., Any], definition: Definition, signature: hints.Signature, allow: Allow | None
    ) -> None:
        self.function = function
        self.definition = definition
        self.bind = signature.bind
        self.context: str | None = signature.context
        self.allow = allow
        self.order = 0
        self.validate = validator.Validator(signature.checked).check
        self.output: validator.Validator | None = None
        self.wraps: bool | None = None  # whether legacy clients get its data in an object; None until one has called
        self.dump: Callable[[Any], Any] = hints.to_json
        self.template: Template | None = None
        self.headers: list[headers.Annotation] = []
        self.hints: Definition = {}
        self.schema = signature.schema

    def run(self, ctx: Context, arguments: dict[str, Any]) -> Any:
        """Validate and convert the arguments, then call the function.

        :raises InvalidArguments: when an argument does not fit.
        """
        self.validate(arguments)
        if self.headers:
            headers.check_integers(arguments, self.headers)
        values = self.bind(arguments)
        if self.context is None:
            return self.function(**values)
        return self.function(**{**values, self.context: ctx})

    def run_text(self, ctx: Context, arguments: dict[str, str]) -> Any:
        """Run with arguments that arrived as text; those of other types are read as JSON.

        :raises InvalidArguments: when an argument does not fit.
        """
        return self.run(ctx, text.from_texts(self.schema, arguments))


def visible(ctx: Context, entry: Entry | None) -> bool:
    """Say whether this caller may see and use an entry; one they may not see does not exist for them.

    The entry's `allow` and the server's `policy` must both agree. A result that depends on their answer is marked as
    this caller's own. Spec: FEAT-226
    """
    if entry is None:
        return False
    policy: Policy | None = ctx._engine.policy
    if entry.allow is None and (policy is None or entry.open):
        return True
    ctx.private = True
    asked = None if entry.open else policy
    if (entry.allow is None or entry.allow(ctx)) and (asked is None or asked(ctx, entry.stands_for or entry)):
        return True
    if entry is ctx._entry:
        denied(ctx, entry)
    return False


class Catalog(Protocol):
    """The interface between the handlers and what a server offers; `Server(catalog=...)` takes another one.

    Handlers hold the entries of `find` and `resource` against `visible`; `page` and `completion` call it
    themselves. A catalog whose answer depends on the caller sets `ctx.private`, or shared caches may show it to others.

    After a change `page` tells who sees another list than before. One that takes its time may have
    `seen(ctx, kind) -> bytes | None` as well: a fingerprint of the whole list, or None where it is not at hand.
    """

    def find(self, ctx: Context) -> Entry | None:
        """Return the entry that the request `ctx.method` with `ctx.params`, not yet checked, is for, or None.

        It may put other params into `ctx.params`, those of the entry: from there on they are those of the request.
        """

    def page(self, ctx: Context, kind: str, cursor: Any, size: int | None) -> Page:
        """Return one page of definitions that this caller may see, and the next cursor, None on the last page.

        :param kind: "tools", "resources", "resourceTemplates" or "prompts".
        :raises InvalidParams: for a cursor that this catalog did not give out. Spec: FEAT-119
        """
        ...

    def resource(self, ctx: Context, uri: str) -> Entry | None:
        """Return the resource with this URI, or the template that matches it, or None."""

    def completion(self, ctx: Context, reference: dict[str, Any], argument: str) -> Completer | None:
        """Return the function `f(value, arguments)` that completes an argument, or None.

        :param reference: `{"type": "ref/prompt", "name": ...}` or `{"type": "ref/resource", "uri": ...}`.
        :raises InvalidParams: for a reference to nothing that this caller may see.
        """

    def offers(self, ctx: Context) -> frozenset[str]:
        """Return what is offered of "tools", "resources", "subscribe", "prompts", "completions" and "logging".

        "subscribe" stands for subscriptions to resources.
        """
        ...
