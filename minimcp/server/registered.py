"""The dicts that registration fills: adding, removing, and exchanging all that one server has.

A dict is never changed in place. Registration makes a new one under `_lock` and puts it in the old one's place,
so a reader takes a snapshot by reading the attribute and needs no lock.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..protocol import wire
from ..protocol.spelling import normal
from . import instances
from .catalog import Completer, Definition, Entry, Page

if TYPE_CHECKING:
    from .context import Context

# The list a kind of entry is shown in, and the topic its changes are published under.
LISTS = {"tools": "tools", "resources": "resources", "resourceTemplates": "resources", "prompts": "prompts"}


class Collision(NamedTuple):
    """An entry that was left out, since its key is taken.

    :ivar kind: "tools", "resources", "resourceTemplates" or "prompts".
    :ivar key: the name, the URI or the template.
    :ivar owner: the origin that holds it, "" for the server itself.
    """

    kind: str
    key: str
    owner: str


class Updated(NamedTuple):
    """The outcome of `Registry.update`.

    :ivar changed: the lists that changed, of "tools", "resources" and "prompts".
    :ivar collisions: what was left out.
    """

    changed: set[str]
    collisions: list[Collision]


class Registered:
    """The entries of a server by kind and key, in the order of registration.

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
        # The templates that list their resources.
        self._listing: list[Entry] = []
        self._fingerprints: dict[str, bytes | None] = {}
        self._watchers: tuple[Callable[[], None], ...] = ()

    def add(self, kind: str, key: str, entry: Entry) -> None:
        """Register or replace an entry; a replacement keeps its place in the list. Equivalent URIs are one key."""
        key = key_of(kind, key)
        with self._lock:
            entries = dict(getattr(self, kind))
            old = entries.get(key)
            self._registered += 1
            entry.order = old.order if old else self._registered
            entries[key] = entry
            self._replace(kind, entries)
            self._offers |= _offers(kind, [entry])
        self.announce(LISTS[kind])

    def remove(self, kind: str, key: str) -> bool:
        """Remove an entry and say whether it was there."""
        key = key_of(kind, key)
        with self._lock:
            entries = dict(getattr(self, kind))
            found = entries.pop(key, None) is not None
            self._replace(kind, entries)
        if found:
            self.announce(LISTS[kind])
        return found

    def update(self, origin: str, wanted: Mapping[str, Mapping[str, Entry]]) -> Updated:
        """Replace all entries of an origin by these in one step, and announce each list that changed once.

        A key that another origin holds is not taken from it. An entry whose key stays keeps its place, and one that is
        equal on the wire is no change.

        :param origin: the name of the server that they come from, which becomes their `origin`.
        :param wanted: by kind, then by name, URI or template; a kind that is not there stays as it is.
        """
        updated = self.exchange(origin, wanted)
        self.announce(*sorted(updated.changed))
        return updated

    def exchange(self, origin: str, wanted: Mapping[str, Mapping[str, Entry]]) -> Updated:
        """Do what `update` does, but leave it to the caller to announce what changed."""
        updated = Updated(set(), [])
        with self._lock:
            for kind, entries in wanted.items():
                self._replace(kind, self._exchange(kind, origin, entries, updated))
                self._offers |= _offers(kind, entries.values())
        return updated

    def _exchange(self, kind: str, origin: str, wanted: Mapping[str, Entry], updated: Updated) -> dict[str, Entry]:
        """Return the entries of a kind with those of one origin replaced, and note what is not as it was."""
        entries: dict[str, Entry] = getattr(self, kind)
        new: dict[str, Entry] = {}
        for key, entry in wanted.items():
            key = key_of(kind, key)
            owner = entries[key].origin if key in entries else origin
            if owner != origin or key in new:
                updated.collisions.append(Collision(kind, key, owner))
            else:
                entry.origin = origin
                new[key] = entry
        found: dict[str, Entry] = {}
        changed = False
        for key, old in entries.items():
            replacement = new.pop(key, None) if old.origin == origin else old
            if replacement is None:
                changed = True
                continue
            replacement.order = old.order
            found[key] = replacement
            changed = changed or replacement.definition != old.definition or replacement.allow != old.allow
        for entry in new.values():
            self._registered += 1
            entry.order = self._registered
        if changed or new:
            updated.changed.add(LISTS[kind])
        return {**found, **new}

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call a function after every change from now on, before it is announced."""
        with self._lock:
            self._watchers = (*self._watchers, watcher)

    def add_completion(self, reference: str, argument: str, function: Completer) -> None:
        """Register the function that completes one argument of a prompt (its name) or of a template (its text)."""
        with self._lock:
            self.completions = {**self.completions, (normal(reference), argument): function}
            self._offers |= {"completions"}
        self.announce()

    def fingerprint(self, kind: str) -> bytes | None:
        """Return the fingerprint of a list that every caller sees in full, None where a rule or function has a say."""
        known = self._fingerprints
        if kind not in known:
            if kind == "resources" and self._listing:
                return None  # A function of the author's knows what there is now.
            entries = sorted(getattr(self, kind).values(), key=lambda entry: entry.order)
            ruled = any(entry.allow for entry in entries)
            known[kind] = None if ruled else fingerprint(entry.definition for entry in entries)
        return known[kind]

    def _page_with_instances(self, ctx: Context, cursor: Any, size: int | None) -> Page:
        """Return a page of resources, with those that templates list."""
        return instances.page(self, ctx, self._listing, cursor, size)

    def _replace(self, kind: str, entries: dict[str, Entry]) -> None:
        setattr(self, kind, entries)
        self._listing = [entry for entry in self.resourceTemplates.values() if entry.listing is not None]
        self._lists = {}
        self._fingerprints = {}

    def announce(self, *topics: str) -> None:
        """Tell those who watch, and then the clients, that lists have changed."""
        for watcher in self._watchers:
            watcher()
        for topic in topics:
            self._announce(topic)


def key_of(kind: str, key: str) -> str:
    """Return the key that a name, URI or template is kept under: equivalent URIs are one."""
    return normal(key) if kind.startswith("resource") else key


# The digests of definitions by their ids; the definitions are kept with them, so that no id is used again.
_digests: dict[int, tuple[Definition, bytes]] = {}
_MOST_DIGESTS = 20_000


def fingerprint(definitions: Iterable[Definition]) -> bytes:
    """Return a hash of definitions in their order."""
    whole = hashlib.sha256()
    for definition in definitions:
        known = _digests.get(id(definition))
        if known is None:
            if len(_digests) >= _MOST_DIGESTS:
                _digests.clear()
            known = _digests[id(definition)] = definition, hashlib.sha256(wire.dumps(definition)).digest()
        whole.update(known[1])
    return whole.digest()


def _offers(kind: str, entries: Iterable[Entry]) -> set[str]:
    """Return the capabilities that some entries are advertised by. Spec: BASE-080"""
    found = set()
    for entry in entries:
        found |= {LISTS[kind], "logging"} if entry.context else {LISTS[kind]}
        if kind.startswith("resource"):
            found.add("subscribe")
        if entry.completer is not None:
            found.add("completions")
    return found
