"""The catalog that decorators fill: plain dicts of tools, resources, templates, prompts and completions.

A dict is never changed in place. Registration makes a new one under `_lock` and puts it in the old one's place,
so a reader takes a snapshot by reading the attribute and needs no lock.
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..protocol.errors import InvalidParams
from .catalog import Completer, Entry, Page, visible
from .methods import shorten
from .uris import check_uri, normal

if TYPE_CHECKING:
    from .context import Context

# The list a kind of entry is shown in, and the topic its changes are published under.
LISTS = {"tools": "tools", "resources": "resources", "resourceTemplates": "resources", "prompts": "prompts"}


class Registry:
    """The catalog of plain dicts, which the decorators fill.

    :param announce: called with "tools", "resources" or "prompts" after that list has changed.
    """

    def __init__(self, announce: Callable[[str], None] = lambda topic: None) -> None:
        self._announce = announce
        self._lock = threading.Lock()  # guards every replacement below and _registered
        self._registered = 0
        self.tools: dict[str, Entry] = {}
        self.resources: dict[str, Entry] = {}
        self.resourceTemplates: dict[str, Entry] = {}
        self.prompts: dict[str, Entry] = {}
        self.completions: dict[tuple[str, str], Completer] = {}
        # What was ever registered stays advertised, so that removing the last tool does not change the capabilities.
        self._offers: frozenset[str] = frozenset()
        # For each kind its entries in order, and whether one of them has a rule.
        self._lists: dict[str, tuple[list[Entry], bool]] = {}

    def add(self, kind: str, key: str, entry: Entry) -> None:
        """Register or replace an entry; a replacement keeps its place in the list. Equivalent URIs are one key."""
        key = normal(key) if kind.startswith("resource") else key
        with self._lock:
            entries = dict(getattr(self, kind))
            old = entries.get(key)
            self._registered += 1
            entry.order = old.order if old else self._registered
            entries[key] = entry
            self._replace(kind, entries)
            self._offers |= {LISTS[kind], "logging"} if entry.context else {LISTS[kind]}
        self._announce(LISTS[kind])

    def remove(self, kind: str, key: str) -> bool:
        """Remove an entry and say whether it was there."""
        key = normal(key) if kind.startswith("resource") else key
        with self._lock:
            entries = dict(getattr(self, kind))
            found = entries.pop(key, None) is not None
            self._replace(kind, entries)
        if found:
            self._announce(LISTS[kind])
        return found

    def _replace(self, kind: str, entries: dict[str, Entry]) -> None:
        setattr(self, kind, entries)
        self._lists = {}

    def add_completion(self, reference: str, argument: str, function: Completer) -> None:
        """Register the function that completes one argument of a prompt (its name) or of a template (its text)."""
        with self._lock:
            self.completions = {**self.completions, (normal(reference), argument): function}
            self._offers |= {"completions"}

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
        if not visible(ctx, entry):
            raise InvalidParams(f"Unknown reference: {shorten(key)}")
        return self.completions.get((normal(key), argument))

    def page(self, ctx: Context, kind: str, cursor: Any, size: int | None) -> Page:
        """Return one page of definitions that this caller may see, in order of registration, and the next cursor.

        :raises InvalidParams: for a cursor that this registry did not give out. Spec: FEAT-119
        """
        lists = self._lists
        listed = lists.get(kind)
        if listed is None:
            ordered = sorted(getattr(self, kind).values(), key=lambda entry: entry.order)
            listed = lists[kind] = ordered, any(entry.allow for entry in ordered)
        entries, ruled = listed
        if cursor is not None:
            after = _read_cursor(kind, cursor)
            entries = [entry for entry in entries if entry.order > after]
        if ruled or ctx._engine.policy is not None:
            # Also when the rule is about an entry of another page: what it hides there moves the items of this one.
            ctx.private = True
            entries = [entry for entry in entries if visible(ctx, entry)]
        if size is None or len(entries) <= size:
            return [entry.definition for entry in entries], None
        page = entries[:size]
        return [entry.definition for entry in page], _write_cursor(kind, page[-1].order)


def _write_cursor(kind: str, order: int) -> str:
    return base64.urlsafe_b64encode(json.dumps([kind, order]).encode("ascii")).decode("ascii")


def _read_cursor(kind: str, cursor: Any) -> int:
    try:
        if isinstance(cursor, str) and len(cursor) < 100:
            found, order = json.loads(base64.b64decode(cursor, altchars=b"-_", validate=True))
            if found == kind and type(order) is int:
                return order
    except (binascii.Error, ValueError, TypeError):
        pass
    raise InvalidParams("This cursor was not given out by this server; start again without one")
