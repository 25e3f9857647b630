"""The catalog that decorators fill, as the handlers read it: tools, resources, templates, prompts and completions."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..protocol.errors import InvalidParams
from ..protocol.spelling import normal
from .catalog import Completer, Definition, Entry, Page, visible
from .cursors import WHOLE, read_cursor, write_cursor
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
        lists = self._lists
        listed = lists.get(kind)
        if listed is None:
            listing = self._listing(kind)
            ordered = sorted([*getattr(self, kind).values(), *listing], key=lambda entry: entry.order)
            listed = lists[kind] = ordered, any(entry.allow for entry in ordered), bool(listing)
        entries, ruled, listing_more = listed
        after, number = (0, WHOLE) if cursor is None else read_cursor(kind, cursor)
        if after:
            entries = [entry for entry in entries if entry.order > after or (entry.order == after and number < WHOLE)]
        if ruled or ctx._engine.policy is not None:
            # Also when the rule is about an entry of another page: what it hides there moves the items of this one.
            ctx.private = True
            entries = [entry for entry in entries if visible(ctx, entry)]
        if listing_more:
            return self._with_instances(ctx, entries, (after, number), size)
        if size is None or len(entries) <= size:
            return [entry.definition for entry in entries], None
        page = entries[:size]
        return [entry.definition for entry in page], write_cursor(kind, page[-1].order)

    def _with_instances(self, ctx: Context, entries: list[Entry], after: tuple[int, int], size: int | None) -> Page:
        """Return a page of resources, some of which templates list.

        :param entries: resources, and templates that list theirs, in their order.
        :param after: the place and the number behind which the page begins.
        """
        found: list[tuple[Definition, int, int]] = []
        for entry in entries:
            if entry.listing is None:
                found.append((entry.definition, entry.order, WHOLE))
            else:
                first = after[1] + 1 if entry.order == after[0] else 0
                each = list(enumerate(self._instances(ctx, entry)))[first:]
                found += [(item, entry.order, number) for number, item in each if item is not None]
            if size is not None and len(found) > size:
                _, order, number = found[size - 1]
                return [definition for definition, _, _ in found[:size]], write_cursor("resources", order, number)
        return [definition for definition, _, _ in found], None

    def _instances(self, ctx: Context, entry: Entry) -> Iterator[Definition | None]:
        """Yield what a template lists, None in place of what has an entry of its own or this caller may not read."""
        assert entry.listing is not None
        ruled = entry.allow is not None or (ctx._engine.policy is not None and not entry.open)
        for definition in entry.listing(ctx):
            shown = normal(definition["uri"]) not in self.resources
            if shown and ruled:
                reading = copy.copy(ctx)
                reading.method, reading.params = "resources/read", {"uri": definition["uri"]}
                shown = visible(reading, entry)
            yield definition if shown else None

    def seen(self, ctx: Context, kind: str) -> bytes | None:
        """Return a fingerprint of the list that this caller sees."""
        plain = ctx._engine.policy is None and type(self).page is Registry.page
        shared = self.fingerprint(kind) if plain else None
        return fingerprint(self.page(ctx, kind, None, None)[0]) if shared is None else shared
