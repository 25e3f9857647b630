"""Tools under other names, with other texts and with fewer arguments."""

from __future__ import annotations

import copy
import difflib
import logging
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Optional

from ..engines.errors import InvalidArguments
from ..protocol import headers
from ..server.catalog import Definition, Entry
from ..server.makers import check_name

if TYPE_CHECKING:
    from ..server.context import Context

log = logging.getLogger("minimcp")

Message = dict[str, Any]

_MEMBERS = frozenset({"name", "title", "description", "fixed", "hidden"})
_MOST_KEPT = 20_000


class ChangedTools:
    """The changes that a view makes to tools.

    :param changes: by the name of a tool, `name`, `title`, `description`, `fixed` and `hidden`.
    :param where: names the view in messages.
    :ivar originals: the names of the tools by those that they get.
    :raises ValueError: for changes that make no sense.
    """

    def __init__(self, changes: Mapping[str, Message], where: str) -> None:
        self._changes = changes
        self._where = where
        self.originals: dict[str, str] = {}
        for name, change in changes.items():
            new = _check(change, f"{where}: tools.{name}") or name
            other = self.originals.setdefault(new, name)
            if other != name:
                raise ValueError(f"{where}: tools.{name}: {other} has the name {new!r} as well")
        # The entries that were made of others, which are kept with them by their ids, so that no id is used again.
        self._made: dict[int, tuple[Entry, Entry]] = {}
        self._complaints: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._changes

    def entry(self, entry: Entry) -> Entry | None:
        """Return an entry as it is shown, which stands for the one given, or None where that is not possible."""
        known = self._made.get(id(entry))
        if known is None:
            definition = self.definition(entry.definition)
            if definition is None:
                return None
            made = copy.copy(entry)
            made.definition, made.stands_for = definition, entry
            made.headers = headers.annotated(definition.get("inputSchema"))
            if hasattr(made, "fixed"):
                made.fixed = self._fixed(entry.definition)
            if len(self._made) >= _MOST_KEPT:
                self._made.clear()
            known = self._made[id(entry)] = entry, made
        return known[1]

    def called(self, ctx: Context, entry: Entry) -> Entry | None:
        """Return an entry as it is shown for a call, whose fixed arguments are put into the params of the request."""
        shown, arguments = self.entry(entry), ctx.params.get("arguments")
        if shown is None or not (arguments is None or isinstance(arguments, dict)):
            return shown
        fixed = self._fixed(entry.definition)
        refused = sorted(arguments.keys() & self._taken(entry.definition["name"])) if arguments else []
        if refused:
            return _refusing(shown, refused)
        if fixed:
            ctx.params = {**ctx.params, "arguments": {**(arguments or {}), **fixed}}
        return shown

    def definition(self, definition: Definition) -> Definition | None:
        """Return a definition as it is shown, or None, with a complaint, where that is not possible."""
        name = definition["name"]
        change, taken = self._changes[name], self._taken(name)
        found = {**definition, "name": change.get("name") or name}
        found.update({member: change[member] for member in ("title", "description") if change.get(member) is not None})
        if change.get("title") is not None and "title" in (definition.get("annotations") or {}):
            found["annotations"] = {**definition["annotations"], "title": change["title"]}
        if not taken:
            return found
        schema, properties, required = _parts(definition)
        # A name that is mistaken would leave open what is meant to be closed.
        for argument in sorted(taken - properties.keys()):
            near = difflib.get_close_matches(argument, properties, 1)
            hint = f"did you mean {near[0]!r}" if near else f"it has {', '.join(map(repr, properties)) or 'none'}"
            self.complain(f"the tool {name!r} has no argument {argument!r}; {hint}. The tool is not shown")
            return None
        for argument in sorted(taken.intersection(required) - self._fixed(definition).keys()):
            self.complain(
                f"the tool {name!r} needs the argument {argument!r}, which is hidden and has no default: give it among "
                "fixed. The tool is not shown"
            )
            return None
        schema = {**schema, "properties": {key: part for key, part in properties.items() if key not in taken}}
        if "required" in schema:
            schema["required"] = [each for each in required if each not in taken]
        return {**found, "inputSchema": schema}

    def complain(self, text: str) -> None:
        """Log an error, once."""
        if text not in self._complaints:
            self._complaints.add(text)
            log.error("%s: %s", self._where, text)

    def _taken(self, name: str) -> set[str]:
        """Return the arguments that are not shown."""
        change = self._changes[name]
        return {*(change.get("fixed") or ()), *(change.get("hidden") or ())}

    def _fixed(self, definition: Definition) -> Message:
        """Return the arguments that are put in: those that are fixed, and the defaults of hidden ones."""
        change = self._changes[definition["name"]]
        _, properties, required = _parts(definition)
        defaults = {
            each: properties[each]["default"]
            for each in change.get("hidden") or ()
            if each in required and isinstance(properties.get(each), dict) and "default" in properties[each]
        }
        return {**defaults, **(change.get("fixed") or {})}


def _parts(definition: Definition) -> tuple[Message, Message, Collection[str]]:
    """Return the schema of a tool's arguments, its properties, and the names of those that are required."""
    schema = definition.get("inputSchema")
    schema = schema if isinstance(schema, dict) else {}
    properties, required = schema.get("properties"), schema.get("required")
    return schema, properties if isinstance(properties, dict) else {}, required if isinstance(required, list) else []


def _refusing(entry: Entry, names: list[str]) -> Entry:
    """Return an entry that refuses the arguments that it was called with."""

    def run(ctx: Context, arguments: Message) -> Any:
        raise InvalidArguments(", ".join(f'"{name[:60]}" is not a known argument' for name in names))

    made = copy.copy(entry)
    vars(made).update(run=run)
    return made


def _check(change: Any, where: str) -> Optional[str]:
    """Check the changes of one tool and return the name that it gets, None for its own.

    :raises ValueError: naming the member that is wrong.
    """
    unknown = set(change) - _MEMBERS if isinstance(change, Mapping) else {change}
    if unknown:
        raise ValueError(f"{where} has {sorted(map(str, unknown))}; a tool may have {sorted(_MEMBERS)}")
    name: Optional[str] = change.get("name")
    if name is not None:
        try:
            check_name(name)
        except (TypeError, ValueError) as problem:
            raise ValueError(f"{where}: {problem}") from None
    for member in ("title", "description"):
        if not isinstance(change.get(member, ""), (str, type(None))):
            raise ValueError(f"{where}: {member} is a text")
    if not isinstance(change.get("fixed") or {}, Mapping):
        raise ValueError(f"{where}: fixed is an object of arguments")
    hidden = change.get("hidden") or ()
    if not isinstance(hidden, (list, tuple)) or not all(isinstance(each, str) for each in hidden):
        raise ValueError(f"{where}: hidden is a list of names of arguments")
    return name
