"""The catalog that decorators fill, as the handlers read it: tools, resources, templates, prompts and completions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..protocol.errors import InvalidParams
from ..protocol.spelling import normal
from .catalog import Completer, Entry, Page, visible
from .cursors import read_cursor, write_cursor
from .methods import shorten
from .registered import Registered, fingerprint
from .uris import check_uri

if TYPE_CHECKING:
    from .context import Context


class Registry(Registered):
    """The catalog of plain dicts, which the decorators fill by the functions of `Registered`."""

    def offers(self, ctx: Context) -> frozenset[str]:
        """Return what was ever registered. Spec: BASE-080"""
        return self._offers

    def find(self, ctx: Context) -> Entry | None:
        """Return the entry a request is for, or None."""
        method = ctx.method
        name = ctx.params.get("uri" if method == "resources/read" else "name")
        if not isinstance(name, str):
            return None
        if method == "tools/call":
            return self.tools.get(name)
        if method == "prompts/get":
            return self.prompts.get(name)
        return self.resource(ctx, name) if method == "resources/read" else None

    def resource(self, ctx: Context, uri: str) -> Entry | None:
        """Return the resource with this URI, or the first template that matches it, or None."""
        found = self.resources.get(normal(uri))
        if found is None and check_uri(uri):
            for entry in self.resourceTemplates.values():
                if entry.template is not None and entry.template.match(uri) is not None:
                    return entry
        return found

    def completion(self, ctx: Context, reference: dict[str, Any], argument: str) -> Completer | None:
        """Return the function that completes an argument of a prompt or template, or None.

        :raises InvalidParams: for a reference to nothing that this caller may see.
        """
        if reference["type"] == "ref/prompt":
            key = reference["name"]
            entry = self.prompts.get(key)
        else:
            key = normal(reference["uri"])
            entry = self.resourceTemplates.get(key) or self.resource(ctx, key)
        if entry is None or not visible(ctx, entry):
            raise InvalidParams(f"Unknown reference: {shorten(key)}")
        if entry.completer is not None:
            return entry.completer(ctx, reference, argument)
        return self.completions.get((normal(key), argument))

    def page(self, ctx: Context, kind: str, cursor: Any, size: int | None) -> Page:
        """Return one page of definitions that this caller may see, in order of registration, and the next cursor.

        :raises InvalidParams: for a cursor that this registry did not give out. Spec: FEAT-119
        """
        if kind == "resources" and self._listing:
            return self._page_with_instances(ctx, cursor, size)
        lists = self._lists
        listed = lists.get(kind)
        if listed is None:
            ordered = sorted(getattr(self, kind).values(), key=lambda entry: entry.order)
            listed = lists[kind] = ordered, any(entry.allow for entry in ordered)
        entries, ruled = listed
        if cursor is not None:
            after = read_cursor(kind, cursor)
            entries = [entry for entry in entries if entry.order > after]
        if ruled or ctx._engine.policy is not None:
            # Also when the rule is about an entry of another page: what it hides there moves the items of this one.
            ctx.private = True
            entries = [entry for entry in entries if visible(ctx, entry)]
        if size is None or len(entries) <= size:
            return [entry.definition for entry in entries], None
        page = entries[:size]
        return [entry.definition for entry in page], write_cursor(kind, page[-1].order)

    def seen(self, ctx: Context, kind: str) -> bytes | None:
        """Return a fingerprint of the list that this caller sees."""
        plain = ctx._engine.policy is None and type(self).page is Registry.page
        shared = self.fingerprint(kind) if plain else None
        return fingerprint(self.page(ctx, kind, None, None)[0]) if shared is None else shared
