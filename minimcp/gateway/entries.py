"""The entries of a gateway: what its servers list, under the names that its clients see."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..protocol import headers
from ..protocol.spelling import fits
from ..server import names
from ..server.catalog import Completer, Definition, Entry
from ..server.uris import Template
from . import shapes

if TYPE_CHECKING:
    from ..protocol.content import Raw
    from ..server.context import Context
    from .config import Filter, UpstreamSettings
    from .upstream import Upstream

log = logging.getLogger("minimcp")

Message = dict[str, Any]

# The lists of a server: the kind, the member that names an item, and the method that uses it.
KINDS = {
    "tools": ("name", "tools/call"),
    "resources": ("uri", "resources/read"),
    "resourceTemplates": ("uriTemplate", "resources/read"),
    "prompts": ("name", "prompts/get"),
}


class RelayedEntry(Entry):
    """An entry of one of the servers; what runs is a request to it.

    :ivar upstream: the server.
    :ivar kind: "tools", "resources", "resourceTemplates" or "prompts".
    :ivar original: the definition as the server sent it.
    :ivar fixed: arguments that are put in before the call goes out.
    """

    def __init__(self, upstream: Upstream, kind: str, definition: Definition, original: Definition) -> None:
        self.upstream = upstream
        self.kind = kind
        self.original = original
        self.fixed: Message = {}
        self.origin = upstream.settings.name
        self.function = upstream.call
        self.definition = definition
        # A relayed call may emit and ask, whatever it is for.
        self.context = "ctx"
        self.allow = None
        self.order = 0
        self.output = None
        self.wraps = None
        self.template = _template(definition) if kind == "resourceTemplates" else None
        self.hints = {}
        self.schema = definition.get("inputSchema", {})
        self.headers = headers.annotated(self.schema) if kind == "tools" else []

    def run(self, ctx: Context, arguments: Message) -> Raw:
        """Relay the request with these arguments and return the result as it came."""
        member, method = KINDS[self.kind]
        if self.kind in ("tools", "prompts"):
            more: Message = {"name": self.original["name"]}
            if self.fixed or "arguments" in ctx.params:
                more["arguments"] = {**arguments, **self.fixed}
        else:
            # What is read is the URI that was asked for, which may be one that a template stands for.
            more = {"uri": self.original_uri(ctx.params["uri"])}
        return self.upstream.call(ctx, method, {**ctx.params, **more}, self)

    def original_uri(self, uri: str) -> str:
        """Return the server's own spelling of a URI."""
        return names.original_uri(self.upstream.settings.uri_prefix, uri) or uri

    def completer(self, ctx: Context, reference: Message, argument: str) -> Completer | None:
        """Return a function that asks the server for completions, if it has some."""
        if self.upstream.capabilities.get("completions") is None and self.upstream.capabilities:
            return None
        member = KINDS[self.kind][0]
        ref = {**reference, "uri" if member == "uriTemplate" else member: self.original[member]}
        return lambda value, chosen: self.upstream.call(ctx, "completion/complete", {**ctx.params, "ref": ref}, self)

    def run_text(self, ctx: Context, arguments: dict[str, str]) -> Raw:
        """Relay the request; arguments of prompts stay the strings that they are."""
        return self.run(ctx, arguments)


def _template(definition: Definition) -> Template | None:
    """Return the template by which URIs are matched, None for one of another form than ours."""
    try:
        return Template(definition["uriTemplate"])
    except ValueError:
        return None


def passes(chosen: Filter, name: str) -> bool:
    """Say whether a filter lets a name through."""
    return fits(chosen.allow, name) and not fits(chosen.deny, name)


def make_entries(upstream: Upstream, kind: str, listed: Iterable[Message]) -> dict[str, RelayedEntry]:
    """Make the entries of what a server lists, by their public names or URIs; the filters leave some out.

    An item that is none, that clients would refuse the whole list for, or whose headers break the rules, is left out
    with a warning.
    """
    settings = upstream.settings
    chosen: Filter = getattr(settings, "resources" if kind == "resourceTemplates" else kind)
    member = KINDS[kind][0]
    found: dict[str, RelayedEntry] = {}
    for item in listed:
        name = item.get(member) if isinstance(item, dict) else None
        if not isinstance(name, str) or not name:
            log.warning("%s lists a member of %s without %s, which is left out", settings.name, kind, member)
            continue
        if not passes(chosen, name):
            continue
        listable = shapes.repaired(kind, item)
        fault = shapes.fault_of(kind, listable)
        if fault:
            log.warning("%s: %.100s is left out: %s", settings.name, name, fault)
            continue
        definition = public_definition(settings, kind, listable)
        public = definition[member]
        try:
            entry = RelayedEntry(upstream, kind, definition, item)
        except (ValueError, RecursionError) as problem:
            log.warning("%s: %.100s is left out: %s", settings.name, name, problem)
            continue
        if found.setdefault(public, entry) is not entry:
            log.warning("%s lists %.100r twice among its %s; the first one counts", settings.name, name, kind)
    return found


def public_definition(settings: UpstreamSettings, kind: str, item: Message) -> Definition:
    """Return a definition as the gateway lists it: with its public name or URI, all else as it came."""
    return names.rewrite_definition(
        kind,
        item,
        lambda name: names.public_name(settings.prefix, name),
        lambda uri: names.public_uri(settings.uri_prefix, uri),
    )
