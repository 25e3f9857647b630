"""The catalog of a gateway: the entries of all its servers, and its own, in one registry."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional

from ..engines.errors import ClientError
from ..protocol import spec
from ..protocol.errors import InternalError
from ..server import names
from ..server.catalog import Entry, Page
from ..server.registered import fingerprint
from ..server.registry import Registry
from .entries import KINDS, RelayedEntry, passes

if TYPE_CHECKING:
    from ..server.context import Context
    from .gateway import Gateway
    from .upstream import Entries, Upstream

log = logging.getLogger("minimcp")

Message = dict[str, Any]

_MOST_CALLERS = 1000  # whose lists are kept
_LONGEST_INSTRUCTIONS = 20_000
# The entries of each server come in the order in which it lists them, after those of the servers before it.
_OF_A_SERVER = 1_000_000
_KINDS = ("tools", "resources", "prompts", "completions")
_ALL = frozenset({*_KINDS, "subscribe", "logging"})


class Federation(Registry):
    """A registry that is filled from what the servers list.

    :ivar collisions: the keys that two servers want, each a sentence that names both.
    """

    def __init__(self, announce: Callable[[str], None], gateway: Gateway) -> None:
        super().__init__(announce)
        self._gateway = gateway
        self._rebuilding = threading.Lock()  # held while rebuilding; guards collisions
        self.collisions: list[str] = []
        self._offered = _ALL
        self.own_instructions = gateway.engine.instructions
        self._callers_lock = threading.Lock()  # guards _callers
        # What servers list to one caller, whose credentials decide what that is: by server and caller.
        self._callers: OrderedDict[Any, Registry] = OrderedDict()

    def rebuild(self) -> None:
        """Take over what the servers have listed, and announce what changed."""
        with self._rebuilding:
            taken: dict[str, dict[str, str]] = {kind: {} for kind in KINDS}
            wanted: dict[str, Entries] = {}
            collisions = []
            for name, upstream in self._gateway.upstreams.items():
                own: Entries = {kind: {} for kind in KINDS}
                for kind, entries in upstream.entries.items():
                    for key, entry in entries.items():
                        owner = taken[kind].setdefault(key, name)
                        if owner == name:
                            own[kind][key] = entry
                        else:
                            collisions.append(f"{owner} and {name} both have {key!r}; give one of them another prefix")
                wanted[name] = own
            for problem in collisions:
                if problem not in self.collisions:
                    log.error("%s. That of the first one counts", problem)
            self.collisions = collisions
            # First what goes, so that a name is free for the server that gets it.
            held = [entry for entries in self._all() for entry in entries.values() if isinstance(entry, RelayedEntry)]
            gone = {entry.origin for entry in held} - {*wanted}
            changed: set[str] = set()
            for origin in gone:
                changed |= self.exchange(origin, {kind: {} for kind in KINDS}).changed
            for name, own in wanted.items():
                left = {
                    kind: {key: entry for key, entry in getattr(self, kind).items() if entry.origin == name}
                    for kind in KINDS
                }
                kept = {kind: {key: entry for key, entry in left[kind].items() if key in own[kind]} for kind in KINDS}
                if kept != left:
                    changed |= self.exchange(name, kept).changed
            for place, (name, own) in enumerate(wanted.items(), 1):
                updated = self.exchange(name, own)
                changed |= updated.changed
                for kind, key, owner in updated.collisions:
                    log.error("%s has %r among its %s, which is taken by %s", name, key, kind, owner or "the gateway")
                for entries in own.values():
                    for number, entry in enumerate(entries.values()):
                        entry.order = place * _OF_A_SERVER + number
            with self._lock:
                self._lists, self._fingerprints = {}, {}
            self._describe()
            # Not before everything is in its place, since clients list at once.
            self.announce(*sorted(changed))

    def _all(self) -> list[dict[str, Entry]]:
        return [getattr(self, kind) for kind in KINDS]

    def _describe(self) -> None:
        """Say what is offered: the union of what the servers offer; one that has not answered may offer anything."""
        offered = {"logging"}
        sections = []
        engine = self._gateway.engine
        for name, upstream in self._gateway.upstreams.items():
            if not upstream.tried or upstream.credentials.per_principal:
                offered |= _ALL
                continue
            found = upstream.capabilities
            offered |= {kind for kind in _KINDS if found.get(kind) is not None}
            if (found.get("resources") or {}).get("subscribe"):
                offered.add("subscribe")
            text = upstream.instructions
            sections.append((name, upstream.settings.prefix, text and text[:_LONGEST_INSTRUCTIONS]))
            for identifier, settings in _extensions(found).items():
                if identifier not in engine.extensions:
                    engine.extensions[identifier] = settings
                    for era, known in engine.in_force.items():
                        if identifier != spec.TASKS or era == "modern":
                            known.add(identifier)
        self._offered = frozenset(offered) | self._offers
        single = len(sections) == 1 and not self.own_instructions and not sections[0][1]
        text = sections[0][2] if single else names.with_sections(self.own_instructions, sections)
        self._gateway.describe(text)
        for each in self._gateway.engines if spec.TASKS in engine.extensions else ():
            self._gateway.relayed_tasks.install(each)

    # The interface of a catalog

    def offers(self, ctx: Context) -> frozenset[str]:
        """Return what the servers offer."""
        self._gateway.start(ctx)
        return self._offered

    def find(self, ctx: Context) -> Entry | None:
        """Return the entry that a request is for; servers that have not been listed yet are waited for."""
        found = super().find(ctx)
        if found is None and ctx.method in ("tools/call", "prompts/get", "resources/read"):
            self._gateway.settle(ctx)
            found = super().find(ctx)
            for registry in self._private(ctx) if found is None else ():
                found = found or registry.find(ctx)
        return found

    def resource(self, ctx: Context, uri: str) -> Entry | None:
        """Return the entry for a URI: one that is listed, or one that its server may know all the same."""
        found = super().resource(ctx, uri)
        if found is not None:
            return found
        bare = [each for each in self._gateway.upstreams.values() if not each.settings.uri_prefix]
        for upstream in self._gateway.upstreams.values():
            prefix = upstream.settings.uri_prefix
            original = names.original_uri(prefix, uri) if prefix or len(bare) == 1 else None
            if original is not None and passes(upstream.settings.resources, original):
                definition = {"uri": uri, "name": uri}
                return RelayedEntry(upstream, "resources", definition, {"uri": original, "name": original})
        return None

    def page(self, ctx: Context, kind: str, cursor: Any, size: Optional[int]) -> Page:
        """Return one page of what the servers list; those that have not been listed yet are waited for."""
        self._gateway.settle(ctx)
        private = self._private(ctx) if cursor is None else []
        definitions, after = super().page(ctx, kind, cursor, size)
        for registry in private:
            # Without pages: they come before the rest.
            more, _ = registry.page(ctx, kind, None, None)
            definitions = [*more, *definitions]
        return definitions, after

    def seen(self, ctx: Context, kind: str) -> bytes | None:
        """Return a fingerprint of the list that this caller sees; None where a server would have to be asked."""
        if any(each.credentials.per_principal for each in self._gateway.upstreams.values()):
            return None
        shared = self.fingerprint(kind) if ctx._engine.policy is None else None
        return fingerprint(Registry.page(self, ctx, kind, None, None)[0]) if shared is None else shared

    # Servers whose lists depend on the caller

    def _private(self, ctx: Context) -> list[Registry]:
        upstreams = [each for each in self._gateway.upstreams.values() if each.credentials.per_principal]
        if upstreams:
            ctx.private = True
        found = []
        for upstream in upstreams:
            if ctx.principal is not None:
                found.append(self._listed_to(ctx, upstream))
        return found

    def _listed_to(self, ctx: Context, upstream: Upstream) -> Registry:
        key = (upstream.settings.name, ctx.principal)
        with self._callers_lock:
            registry = self._callers.get(key)
            if registry is not None:
                self._callers.move_to_end(key)
                return registry
        registry = Registry()
        try:
            _, lists = upstream.list_all(upstream.replicas[0], ctx)
        except (ClientError, InternalError) as problem:
            log.warning("%s is not listed to %r: %.500s", upstream.settings.name, ctx.principal, problem)
            return registry
        registry.update(upstream.settings.name, upstream.make_entries(lists))
        with self._callers_lock:
            self._callers[key] = registry
            while len(self._callers) > _MOST_CALLERS:
                self._callers.popitem(last=False)
        return registry

    def forget(self, upstream: Upstream) -> None:
        """Forget what a server has listed to its callers, because it says that it changed."""
        with self._callers_lock:
            for key in [key for key in self._callers if key[0] == upstream.settings.name]:
                del self._callers[key]
        for kind in spec.CHANGES:
            self._announce(kind)


def _extensions(capabilities: Message) -> Message:
    found = capabilities.get("extensions")
    found = found if isinstance(found, dict) else {}
    return {name: each for name, each in found.items() if isinstance(each, dict) and "/" in name}
