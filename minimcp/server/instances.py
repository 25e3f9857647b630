"""The resources of a template that exist: `@server.resource("note://{id}", list=f)` lists them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Union

from ..engines.schema import hints
from ..protocol import wire
from ..protocol.spelling import normal
from .catalog import Definition, Entry, Page, visible
from .context import Context
from .cursors import WHOLE, read_place, write_cursor
from .uris import Template

if TYPE_CHECKING:
    from .registered import Registered

# What an author's function returns: URIs, or definitions with a `uri`.
Found = Iterable[Union[str, dict[str, Any]]]


class Instances:
    """The definitions of the resources that a template stands for, as a function of its author finds them.

    :param function: takes nothing, or the Context.
    :param definition: that of the template; its `mimeType`, annotations and icons are those of its resources, too.
    :raises TypeError: for something else than such a function.
    """

    def __init__(self, function: Callable[..., Found], template: Template, definition: Definition) -> None:
        if not callable(function):
            raise TypeError(f"list= is a function that returns URIs of {template.text!r}, not {function!r}")
        signature = hints.signature(function, Context)
        if signature.schema.get("required"):
            wanted = ", ".join(signature.schema["required"])
            name = getattr(function, "__name__", type(function).__name__)
            raise TypeError(f"list= is called without arguments, or with ctx: Context; {name}() needs {wanted}")
        self._function = function
        self._context = signature.context
        self._template = template
        self._common: dict[str, Any] = {
            key: definition[key] for key in ("mimeType", "annotations", "icons") if key in definition
        }
        # The newest list, so that what has not changed stays the same object: lists are compared by their ids.
        self._known: dict[str, Definition] = {}

    def __call__(self, ctx: Context) -> list[Definition]:
        """Return the definitions, in the order of the author's.

        :raises TypeError: for an item that is neither a URI nor a definition with one.
        :raises ValueError: for a URI that does not fit the template.
        """
        if self._context is not None:
            ctx.private = True
        found: dict[str, Definition] = {}
        for item in self._function(**{} if self._context is None else {self._context: ctx}):
            made = self._definition(item)
            key = normal(made["uri"])
            known = self._known.get(key)
            found[key] = known if known == made else made
        self._known = found
        return list(found.values())

    def _definition(self, item: Any) -> Definition:
        uri = item.get("uri") if isinstance(item, dict) else item
        if not isinstance(uri, str):
            raise TypeError(f"list= of {self._template.text!r} returns URIs, or dicts with a uri, not {item!r}")
        values = self._template.match(uri)
        if values is None:
            raise ValueError(f"list= of {self._template.text!r} returned {uri!r}, which does not fit the template")
        made: dict[str, Any] = {"uri": uri, "name": ", ".join(values.values()), **self._common}
        if isinstance(item, dict):
            made.update(item)
            wire.dumps(made)
        return made


def page(registry: Registered, ctx: Context, templates: list[Entry], cursor: Any, size: int | None) -> Page:
    """Return a page of resources, with those that templates list at the places of these, and the next cursor.

    :param templates: those that list their resources.
    :raises InvalidParams: for a cursor that was not given out for this list.
    """
    place, number = (0, WHOLE) if cursor is None else read_place("resources", cursor)
    entries = sorted([*registry.resources.values(), *templates], key=lambda entry: entry.order)
    if ctx._engine.policy is not None or any(entry.allow for entry in entries):
        ctx.private = True
    found: list[tuple[Definition, int, int]] = []
    for entry in entries:
        if entry.order < place or (entry.order == place and number == WHOLE) or not visible(ctx, entry):
            continue
        if entry.listing is None:
            found.append((entry.definition, entry.order, WHOLE))
        else:
            first = number + 1 if entry.order == place else 0
            found += [(each, entry.order, at) for at, each in _shown(registry, ctx, entry) if at >= first]
        if size is not None and len(found) > size:
            return [each for each, _, _ in found[:size]], write_cursor("resources", *found[size - 1][1:])
    return [each for each, _, _ in found], None


def _shown(registry: Registered, ctx: Context, entry: Entry) -> Iterator[tuple[int, Definition]]:
    """Yield what a template lists, but for what has an entry of its own and what this caller may not read."""
    assert entry.listing is not None
    ruled = entry.allow is not None or (ctx._engine.policy is not None and not entry.open)
    for at, definition in enumerate(entry.listing(ctx)):
        if normal(definition["uri"]) in registry.resources:
            continue
        if ruled:
            reading = copy.copy(ctx)
            reading.method, reading.params = "resources/read", {"uri": definition["uri"]}
            if not visible(reading, entry):
                continue
        yield at, definition
