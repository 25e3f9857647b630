"""Views: a catalog that shows a part of another one, some tools under other names or with fewer arguments."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Optional

from ..protocol.errors import InvalidParams
from ..protocol.spelling import fits, normal
from ..server.catalog import Catalog, Completer, Definition, Entry, Page
from ..server.methods import shorten
from ..server.registered import fingerprint
from ..server.registry import Registry
from .changed_tools import ChangedTools
from .search import Search

if TYPE_CHECKING:
    from ..server.context import Context

Message = dict[str, Any]
Patterns = Optional[tuple[str, ...]]

_KINDS = ("tools", "resources", "prompts")
_METHODS = {"tools": "tools/call", "prompts": "prompts/get"}
_KEYS = {"tools": "name", "resources": "uri", "resourceTemplates": "uriTemplate", "prompts": "name"}
_MEMBERS = frozenset({"servers", *_KINDS, "allow", "deny", "search", "instructions"})
_MOST_KEPT = 20_000
_NO_CURSOR = "This cursor was not given out by this server; start again without one"


class View:
    """The catalog of an endpoint: what another catalog has, filtered, and tools under other names.

    Rules, audit and limits see the name that a tool has in the other catalog, with its fixed arguments, so that no view
    leads around a rule. Changes of the other catalog show at once.

    :param base: the other catalog.
    :param spec: `servers`: patterns of origins; `allow` and `deny`: patterns such as "tools:crm_*"; `resources`,
        `prompts` and `tools`: patterns of URIs or names, or for tools a dict, by the name in the other catalog, of
        `name`, `title`, `description`, `fixed` (arguments that are put in) and `hidden` (arguments that keep their
        defaults), neither of which a caller can see or send; `search`: True, or from how many tools on the list has
        three tools that search the others in their place.
    :param name: of the view, for messages.
    :raises ValueError: for a spec that makes no sense.
    """

    def __init__(self, base: Catalog, spec: Mapping[str, Any], name: str = "view") -> None:
        unknown = set(spec) - _MEMBERS
        if unknown:
            raise ValueError(f"{name} has {sorted(unknown)}; a view may have {sorted(_MEMBERS)}")
        self._base = base
        self._servers = _strings(spec, "servers", name)
        self._allow, self._deny = (_targets(spec, member, name) for member in ("allow", "deny"))
        self._kinds = {kind: _names(spec, kind, name) for kind in _KINDS}
        changes = spec.get("tools")
        self._tools = ChangedTools(changes if isinstance(changes, Mapping) else {}, name)
        search = spec.get("search") or False
        if not isinstance(search, int) or search < 0:
            raise ValueError(f"{name}: search is true, false, or from how many tools on, not {search!r}")
        self._search = Search(self.tools, search) if search else None
        taken = self._search.tools.keys() & self._tools.originals.keys() if self._search is not None else ()
        if taken:
            raise ValueError(f"{name}: {sorted(taken)[0]} is the name of a tool that searches the others")
        # What was made of definitions, which are kept with it by their ids, so that no id is used again.
        self._shown: dict[int, tuple[Definition, Optional[Definition]]] = {}

    # The interface of a catalog

    def find(self, ctx: Context) -> Entry | None:
        """Return the entry that a request is for; its params become those of the tool as the other catalog has it."""
        if ctx.method == "tools/call":
            return self._find_tool(ctx) if self._search is None else self._find_or_search(ctx, self._search)
        kind = "prompts" if ctx.method == "prompts/get" else "resources"
        uri = ctx.params.get("uri") if ctx.method == "resources/read" else None
        return self._filtered(kind, self._base.find(ctx), uri)

    def page(self, ctx: Context, kind: str, cursor: Any, size: int | None) -> Page:
        """Return one page of definitions that this caller may see, and the next cursor, None on the last page.

        :raises InvalidParams: for a cursor that the other catalog did not give out.
        """
        if kind == "tools" and self._search is not None and self._search.replaces(ctx):
            if cursor is not None:
                raise InvalidParams(_NO_CURSOR)
            return self._search.definitions, None
        return self._page(self._base.page, ctx, kind, cursor, size)

    def resource(self, ctx: Context, uri: str) -> Entry | None:
        """Return the resource with this URI, or the template that matches it, or None."""
        return self._filtered("resources", self._base.resource(ctx, uri), uri)

    def completion(self, ctx: Context, reference: Message, argument: str) -> Completer | None:
        """Return the function `f(value, arguments)` that completes an argument, or None.

        :raises InvalidParams: for a reference to nothing that this caller may see.
        """
        if reference["type"] == "ref/prompt":
            kind, key = "prompts", reference["name"]
            entry = self._entry(ctx, kind, key)
        else:
            kind, key = "resources", reference["uri"]
            entry = self._entry(ctx, "resourceTemplates", key) or self._base.resource(ctx, key)
        if self._filtered(kind, entry, key) is None:
            raise InvalidParams(f"Unknown reference: {shorten(key)}")
        return self._base.completion(ctx, reference, argument)

    def offers(self, ctx: Context) -> frozenset[str]:
        """Return what is offered, but for the kinds of which nothing can be shown."""
        found = set(self._base.offers(ctx))
        if self._allow is not None:
            kinds = [pattern.partition(":")[0] for pattern in self._allow]
            found -= {kind for kind in _KINDS if not fits(kinds, kind)}
        if "resources" not in found:
            found.discard("subscribe")
        return frozenset(found if found & {"prompts", "resources"} else found - {"completions"})

    def seen(self, ctx: Context, kind: str) -> bytes | None:
        """Return a fingerprint of the list that this caller sees, None where the other catalog has none at hand."""
        base = self._base
        seen: Callable[[Context, str], Optional[bytes]] | None = getattr(base, "seen", None)
        if seen is not None and seen(ctx, kind) is None:
            return None
        # What changes in the other catalog need not be in this one.
        ctx.private = True
        page: Callable[..., Page] = base.page
        if isinstance(base, Registry) and type(base).seen is not Registry.seen:
            page = partial(Registry.page, base)  # without what a page waits for
        found = self._page(page, ctx, kind, None, None)[0]
        if kind == "tools" and self._search is not None and self._search.replaces(ctx, found):
            found = self._search.definitions
        return fingerprint(found)

    # What is shown

    def tools(self, ctx: Context) -> list[Definition]:
        """Return the definitions of all tools that this caller may see here."""
        return self._page(self._base.page, ctx, "tools", None, None)[0]

    def _page(self, page: Callable[..., Page], ctx: Context, kind: str, cursor: Any, size: int | None) -> Page:
        while True:
            definitions, cursor = page(ctx, kind, cursor, size)
            found = [shown for shown in (self._show(ctx, kind, each) for each in definitions) if shown is not None]
            if found or cursor is None:
                return found, cursor

    def _show(self, ctx: Context, kind: str, definition: Definition) -> Definition | None:
        known = self._shown.get(id(definition))
        if known is None:
            if len(self._shown) >= _MOST_KEPT:
                self._shown.clear()
            known = self._shown[id(definition)] = definition, self._make(ctx, kind, definition)
        return known[1]

    def _make(self, ctx: Context, kind: str, definition: Definition) -> Definition | None:
        """Return a definition as it is shown, or None."""
        entry = self._entry(ctx, kind, definition[_KEYS[kind]]) if self._servers is not None else None
        origin = entry.origin if entry is not None else ""
        if not self._passes("resources" if kind == "resourceTemplates" else kind, definition, origin):
            return None
        if kind != "tools":
            return definition
        name = definition["name"]
        if name in self._tools:
            return self._tools.definition(definition)
        if name in self._tools.originals or (self._search is not None and name in self._search.tools):
            self._tools.complain(f"there is another tool under the name {name!r}; this one is not shown")
            return None
        return definition

    def _filtered(self, kind: str, entry: Entry | None, uri: Any = None) -> Entry | None:
        return entry if entry is not None and self._passes(kind, entry.definition, entry.origin, uri) else None

    def _passes(self, kind: str, definition: Definition, origin: str, uri: Any = None) -> bool:
        """Say whether the filters let an entry through.

        :param uri: the URI that was asked for, which a template stands for.
        """
        if self._servers is not None and not fits(self._servers, origin):
            return False
        name = definition["name"]
        if kind == "resources":
            # Every spelling of a URI is the same one to the patterns.
            name = normal(uri if isinstance(uri, str) else definition.get("uri") or definition["uriTemplate"])
        chosen, target = self._kinds[kind], f"{kind}:{name}"
        if (chosen is not None and not fits(chosen, name)) or (
            self._allow is not None and not fits(self._allow, target)
        ):
            return False
        return self._deny is None or not fits(self._deny, target)

    def _entry(self, ctx: Context, kind: str, key: Any) -> Entry | None:
        """Return the entry of a name, URI or template in the base."""
        entries = getattr(self._base, kind, None)
        found = entries.get(normal(key) if kind.startswith("resource") else key) if isinstance(entries, dict) else None
        if isinstance(found, Entry):
            return found
        if kind not in _METHODS:
            return self._base.resource(ctx, key) if kind == "resources" else None
        ctx = copy.copy(ctx)
        ctx.method, ctx.params = _METHODS[kind], {"name": key}
        return self._base.find(ctx)

    # Calls

    def _find_tool(self, ctx: Context) -> Entry | None:
        """Return the entry of a tool by the name under which it is shown."""
        sent, shown = ctx.params, ctx.params.get("name")
        if not isinstance(shown, str):
            return None
        name = self._tools.originals.get(shown)
        if name is None:
            return None if shown in self._tools else self._filtered("tools", self._base.find(ctx))
        ctx.params = {**sent, "name": name}
        entry = self._filtered("tools", self._base.find(ctx))
        found = self._tools.called(ctx, entry) if entry is not None else None
        if found is None:
            ctx.params = sent
        return found

    def _find_or_search(self, ctx: Context, search: Search) -> Entry | None:
        called = search.called(ctx.params)
        if called is None:
            return search.tools.get(str(ctx.params.get("name"))) or self._find_tool(ctx)
        ctx.params = called
        entry = self._find_tool(ctx)
        if entry is not None and entry.headers:
            # Nobody who calls it in this way could know of headers that mirror arguments.
            entry = copy.copy(entry)
            entry.headers = []
        return entry


def _strings(spec: Mapping[str, Any], member: str, name: str) -> Patterns:
    """Return a list of strings as a tuple, or None where it is not given.

    :raises ValueError: when it is none.
    """
    found = spec.get(member)
    if found is None:
        return None
    if not isinstance(found, (list, tuple)) or not all(isinstance(each, str) for each in found):
        raise ValueError(f"{name}: {member} is a list of texts, not {found!r}")
    return tuple(found)


def _names(spec: Mapping[str, Any], kind: str, name: str) -> Patterns:
    """Return the patterns of one kind; those of URIs in the spelling in which they are compared."""
    if kind == "tools" and isinstance(spec.get(kind), Mapping):
        return None
    found = _strings(spec, kind, name)
    return found if found is None or kind != "resources" else tuple(map(normal, found))


def _targets(spec: Mapping[str, Any], member: str, name: str) -> Patterns:
    """Return patterns of kinds and names, those of URIs in the spelling in which they are compared.

    :raises ValueError: for one without a kind.
    """
    found = _strings(spec, member, name)
    if found is None:
        return None
    more = set()
    for pattern in found:
        kind, colon, rest = pattern.partition(":")
        if not colon or not rest or not any(fits([kind], known) for known in _KINDS):
            raise ValueError(f"{name}: {member} has {pattern!r}, which is no pattern such as 'tools:crm_*' or '*:*'")
        if fits([kind], "resources"):
            more.add(f"{kind}:{normal(rest)}")
    return (*found, *sorted(more.difference(found)))
