"""The resources of a template that exist: `@server.resource("note://{id}", list=f)` lists them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Union

from ..engines.schema import hints
from ..protocol import wire
from ..protocol.spelling import normal
from .context import Context
from .uris import Template

if TYPE_CHECKING:
    from .catalog import Definition

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
