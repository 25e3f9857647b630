"""Composition: the tools, resources and prompts of one server within another one, in the same process."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Optional

from ..protocol import content
from ..protocol.errors import ResourceNotFound
from ..protocol.spelling import normal
from . import names
from .catalog import Allow, Completer, Entry
from .needs import Needs
from .registered import LISTS, Updated, key_of
from .uris import Template

if TYPE_CHECKING:
    from .context import Context
    from .engine import Engine

log = logging.getLogger("minimcp")

Message = dict[str, Any]
Entries = dict[str, dict[str, Entry]]

_PREFIX = re.compile(r"[A-Za-z0-9_.-]{0,40}")
_KINDS = {"tools": "tool", "resources": "resource", "resourceTemplates": "resource template", "prompts": "prompt"}


def mount(host: Engine, prefix: str, other: Engine, owner: object = None) -> None:
    """Serve what another server has within this one; see `Server.mount`.

    :param owner: is kept as long as the other one is mounted.
    :raises ValueError: for a prefix that cannot be one, a collision, or a server that would be within itself.
    """
    _check(host, prefix, other)
    made = Mount(host, prefix, other, owner)
    taken = made.collisions()
    if taken:
        raise ValueError(f"{made.name!r} cannot be mounted at {prefix!r}: {'; '.join(taken)}. Give another prefix")
    host.mounts.append(made)
    other.mounted_in.append(made)
    host.strategy = _strategy(host.strategy, made)
    for above in _around(host):
        above.lifespans.include(other.lifespans)
        for hook in other.on_mount:
            hook(above)
        above.on_mount.extend(other.on_mount)
    other.registry.watch(made.follow)
    made.follow()


def publish(engine: Engine, topic: str, data: Any = None) -> None:
    """Publish a change to the clients of a server, and of those that it is mounted into."""
    engine.bus.publish(topic, data)
    for made in engine.mounted_in:
        publish(made.host, topic, made.public_uri(data) if topic == "resource" else data)


def instructions(engine: Engine) -> Optional[str]:
    """Return the instructions of a server with those of the servers that are mounted into it."""
    return names.with_sections(engine.instructions, _sections(engine, "")) if engine.mounts else engine.instructions


def _sections(engine: Engine, prefix: str) -> Iterator[tuple[str, str, Optional[str]]]:
    for made in engine.mounts:
        whole = "_".join(filter(None, (prefix, made.prefix)))
        yield made.name, whole, made.other.instructions
        yield from _sections(made.other, whole)


def _check(host: Engine, prefix: str, other: Engine) -> None:
    name = other.identity["name"]
    if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
        raise ValueError(f"The prefix {prefix!r} is not at most 40 of A-Z a-z 0-9 _ - .")
    if host in _within(other):
        raise ValueError(f"{name!r} cannot be mounted here, since it would be within itself")
    if other.catalog is not other.registry:
        raise ValueError(f"{name!r} answers from a catalog of its own, catalog=, whose entries cannot be mounted")
    if other.auth is not None and host.auth is None:
        raise ValueError(f"{name!r} asks who is calling and this server does not: give auth= to this one as well")
    for made in host.mounts:
        if names.slug(made.prefix) == names.slug(prefix) and (prefix or made.name == name):
            what = f"at {made.prefix!r}, like {made.name!r}" if prefix else "twice without a prefix"
            raise ValueError(f"{name!r} cannot be mounted {what}: its URIs could not be told apart")


def _within(engine: Engine) -> Iterator[Engine]:
    """Yield a server and all that are mounted into it."""
    yield engine
    for made in engine.mounts:
        yield from _within(made.other)


def _around(engine: Engine) -> Iterator[Engine]:
    """Yield a server and all that it is mounted into."""
    yield engine
    for made in engine.mounted_in:
        yield from _around(made.host)


class Mount:
    """A server within another one, which is followed from then on.

    :ivar prefix: stands before the names of its tools and prompts, and marks its URIs.
    :ivar name: of the server.
    :ivar origin: the `origin` of its entries there: the prefix, or else the name.
    """

    def __init__(self, host: Engine, prefix: str, other: Engine, owner: object) -> None:
        self.host = host
        self.owner = owner
        self.prefix = prefix
        self.other = other
        self.name: str = other.identity["name"]
        self.origin = prefix or self.name
        self._lock = threading.Lock()  # guards _made and _reported, and is held while the entries are exchanged
        self._made: dict[int, tuple[MountedEntry, Any]] = {}
        self._reported: set[str] = set()

    def public_name(self, name: str) -> str:
        """Return the name of a tool or prompt with the prefix."""
        return names.public_name(self.prefix, name)

    def public_uri(self, uri: str) -> str:
        """Return a URI or template with the marker of the prefix."""
        return names.public_uri(self.prefix, uri)

    def original_uri(self, uri: str) -> str:
        """Return a URI without the marker, or as it is where it has none."""
        return names.original_uri(self.prefix, uri) or uri

    def collisions(self) -> list[str]:
        """Return a sentence for each entry whose key another origin holds, or another entry of the server."""
        found = []
        for kind, entries in self._entries().items():
            held: dict[str, Entry] = getattr(self.host.registry, kind)
            for key in entries:
                owner = held.get(key_of(kind, key))
                if owner is not None and owner.origin != self.origin:
                    found.append(self._collision(kind, key, owner.origin))
            if len(entries) < len(getattr(self.other.registry, kind)):
                found.append(f"two of its {LISTS[kind]} would have the same name")
        return found

    def follow(self) -> None:
        """Take over what the server has now."""
        with self._lock:
            updated: Updated = self.host.registry.exchange(self.origin, self._entries())
            told = {self._collision(each.kind, each.key, each.owner) for each in updated.collisions}
            new, self._reported = told - self._reported, told
        for text in sorted(new):
            log.error("%s is left out of %s: %s", self.name, self.host.identity["name"], text)
        self.host.registry.announce(*sorted(updated.changed))

    def _collision(self, kind: str, key: str, owner: str) -> str:
        holder = repr(owner) if owner else f"{self.host.identity['name']!r} itself"
        return f"the {_KINDS[kind]} {key!r} is there already, from {holder}"

    def _entries(self) -> Entries:
        """Return the entries of the server under their public keys; those that have not changed are the same."""
        registry, policy = self.other.registry, self.other.policy
        completed = {reference for reference, _ in registry.completions}
        found: Entries = {}
        made: dict[int, tuple[MountedEntry, Any]] = {}
        for kind in LISTS:
            entries = found[kind] = {}
            for key, inner in getattr(registry, kind).items():
                completes = inner.completer is not None or normal(key) in completed
                known, facts = self._made.get(id(inner), (None, None))
                if known is None or facts != (policy, completes):
                    known = MountedEntry(self, kind, inner, completes)
                made[id(inner)] = known, (policy, completes)
                entries[self.public_uri(key) if kind.startswith("resource") else self.public_name(key)] = known
        self._made = made
        return found

    # For its entries

    @contextmanager
    def within(self, ctx: Context, entry: Entry) -> Iterator[None]:
        """Show a request with the names that the server knows, for its functions."""
        sent, around = ctx.params, ctx._lifespan
        ctx.params, ctx._lifespan = self._params(ctx, entry), self.other.lifespans.own
        try:
            yield
        finally:
            ctx.params, ctx._lifespan = sent, around

    def _params(self, ctx: Context, entry: Entry) -> Message:
        params = ctx.params
        if ctx.method in ("tools/call", "prompts/get"):
            return {**params, "name": entry.definition["name"]}
        if isinstance(params.get("uri"), str):
            return {**params, "uri": self.original_uri(params["uri"])}
        if ctx.method == "completion/complete" and isinstance(params.get("ref"), dict):
            return {**params, "ref": self._reference(params["ref"], entry)}
        return params

    def _reference(self, reference: Message, entry: Entry) -> Message:
        if isinstance(reference.get("uri"), str):
            return {**reference, "uri": self.original_uri(reference["uri"])}
        return {**reference, "name": entry.definition["name"]}

    def run(self, ctx: Context, entry: Entry, work: Callable[[], Any]) -> Any:
        """Run a function of the server within its own hook."""
        hook = self.other.around_call
        with self.within(ctx, entry), nullcontext() if hook is None else hook(ctx):
            return work()

    def rule(self, entry: Entry) -> Allow | None:
        """Return the rule of an entry: its own, and the policy of the server."""
        own, policy = entry.allow, None if entry.open else self.other.policy
        if own is None and policy is None:
            return None

        def ask(allow: Allow | None, ctx: Context) -> bool:
            with self.within(ctx, entry):
                return (allow is None or allow(ctx)) and (policy is None or policy(ctx, entry.stands_for or entry))

        if not isinstance(own, Needs):
            return lambda ctx: ask(own, ctx)
        if own.allow is None and policy is None:
            return own
        return Needs(own.scopes, own.roles, lambda ctx: ask(own.allow, ctx))

    def completer(self, ctx: Context, reference: Message, argument: str, entry: Entry) -> Completer | None:
        """Return the function of the server that completes an argument of an entry, or None."""
        reference = self._reference(reference, entry)
        if entry.completer is not None:
            with self.within(ctx, entry):
                found = entry.completer(ctx, reference, argument)
        else:
            key = normal(reference.get("uri") or reference["name"])
            found = self.other.registry.completions.get((key, argument))
        if found is None:
            return None
        complete = found
        return lambda value, chosen: self.run(ctx, entry, lambda: complete(value, chosen))

    def rewrite(self, kind: str, entry: Entry, value: Any) -> Any:
        """Return what a function of the server returned, with public URIs in its links and resources.

        Data stays as it is, whatever it looks like.
        """
        if not isinstance(value, (dict, list, tuple)) or content.is_media(value):
            return value
        member, is_item = _RESULTS[kind]
        if isinstance(value, dict) and content.is_result(value, member, is_item):
            return names.rewrite_result(self.public_uri, value, self._listed)
        items = list(value) if isinstance(value, (list, tuple)) else [value]
        if entry.output is not None or (kind == "tools" and content.blocks(value) is None):
            return value
        if member == "contents" and not all(map(content.is_contents, items)):
            return value
        found = [self._item(member, item) for item in items]
        if all(new is old for new, old in zip(found, items)):
            return value
        return found[0] if isinstance(value, dict) else found

    def _item(self, member: str, item: Any) -> Any:
        if not isinstance(item, dict):
            return item
        member = "content" if member == "messages" and not content.is_message(item) else member
        return names.rewrite_result(self.public_uri, {member: [item]}, self._listed)[member][0]

    def _listed(self, uri: str) -> bool:
        return normal(uri) in self.other.registry.resources


# The list of a whole result of each kind, and what its items are.
_RESULTS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "tools": ("content", content.is_block),
    "resources": ("contents", content.is_contents),
    "resourceTemplates": ("contents", content.is_contents),
    "prompts": ("messages", content.is_message),
}


class MountedEntry(Entry):
    """An entry of a mounted server, as the other one lists and runs it.

    :ivar inner: the entry of the server itself.
    """

    def __init__(self, mounted: Mount, kind: str, inner: Entry, completes: bool) -> None:
        vars(self).update(vars(inner))
        self.kind = kind
        self.inner = inner
        self.mount = mounted
        self.definition = names.rewrite_definition(kind, inner.definition, mounted.public_name, mounted.public_uri)
        self.allow = mounted.rule(inner)
        self.stands_for = None
        self.template = inner.template and _MountedTemplate(mounted.prefix, inner.template)
        self.completer = self._complete if completes else None
        self.listing = self._list if inner.listing is not None else None

    def run(self, ctx: Context, arguments: Message) -> Any:
        """Run the entry of the mounted server, within the hook of that."""
        return self._run(ctx, lambda: self.inner.run(ctx, arguments))

    def run_text(self, ctx: Context, arguments: dict[str, str]) -> Any:
        """Run the entry of the mounted server with arguments that arrived as text."""
        return self._run(ctx, lambda: self.inner.run_text(ctx, arguments))

    def _run(self, ctx: Context, work: Callable[[], Any]) -> Any:
        try:
            return self.mount.rewrite(self.kind, self.inner, self.mount.run(ctx, self.inner, work))
        except ResourceNotFound as problem:
            if isinstance(problem.data, dict) and isinstance(problem.data.get("uri"), str):
                problem.data = {**problem.data, "uri": self.mount.public_uri(problem.data["uri"])}
            raise

    def _list(self, ctx: Context) -> list[Message]:
        """Return what the template of the mounted server lists, under its public URIs."""
        listing = self.inner.listing
        assert listing is not None
        found = self.mount.run(ctx, self.inner, lambda: listing(ctx))
        public = self.mount.public_uri
        return [names.rewrite_definition("resources", each, public, public) for each in found]

    def _complete(self, ctx: Context, reference: Message, argument: str) -> Completer | None:
        return self.mount.completer(ctx, reference, argument, self.inner)


class _MountedTemplate(Template):
    """A template of a mounted server, which matches URIs with the marker of its prefix."""

    def __init__(self, prefix: str, template: Template) -> None:
        self.text = names.public_uri(prefix, template.text)
        self.names = template.names
        self._prefix = prefix
        self._template = template

    def match(self, uri: str) -> dict[str, str] | None:
        """Return the variables of a URI that fits, percent-decoded, or None."""
        original = names.original_uri(self._prefix, uri)
        return None if original is None else self._template.match(original)


def _strategy(before: Any, mounted: Mount) -> Any:
    """Return a choice of strategies in which a mounted server chooses for its own entries."""

    def choose(ctx: Context, entry: Entry | None) -> Any:
        choice = mounted.other.strategy
        if isinstance(entry, MountedEntry) and entry.mount is mounted:
            return choice(ctx, entry.inner) if choice is not None else None
        return before(ctx, entry) if before is not None else None

    return choose
