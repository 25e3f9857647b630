"""Type hints as JSON Schema, each with the function that turns validated JSON into what the hint promises."""

from __future__ import annotations

import collections.abc
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, Optional, Union

from . import scalars
from .scalars import Misfit
from .schema import Validator

Schema = dict[str, Any]
Load = Optional[Callable[[Any], Any]]
Shape = tuple[Schema, Load]

_NULL = type(None)
_UNIONS = (Union, getattr(types, "UnionType", Union))
_LISTS = (list, collections.abc.Sequence, collections.abc.MutableSequence, collections.abc.Iterable,
          collections.abc.Collection)  # fmt: skip
_SETS = (set, collections.abc.Set, collections.abc.MutableSet)
_DICTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_PYTHON_TYPES = {
    "string": (str,),
    "boolean": (bool,),
    "null": (_NULL,),
    "integer": (int, float),
    "number": (float, int),
    "array": (list,),
    "object": (dict,),
}


class Shapes:
    """Makes the shapes of one document, and collects its `$defs` on the way.

    :param inputs: whether the schema is for values that come in (members that nobody reads are refused,
        members with a default may be left out) rather than for what `to_json` makes.
    """

    __slots__ = ("defs", "inputs", "_names", "_loads")

    def __init__(self, inputs: bool = True) -> None:
        self.defs: dict[str, Schema] = {}
        self.inputs = inputs
        self._names: dict[Any, str] = {}
        self._loads: dict[Any, list[Load]] = {}

    def of(self, hint: Any) -> Shape:
        """Return the schema and the loader of a hint; no loader when the JSON value is used as it is.

        :raises TypeError: when the hint has no JSON form.
        """
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if hint is Any or hint is object:
            return {}, None
        if hint is None or hint is _NULL:
            return {"type": "null"}, None
        if hasattr(hint, "__metadata__"):
            schema, load = self.of(hint.__origin__)
            schema = dict(schema)
            for extra in hint.__metadata__:
                _constrain(schema, extra)
            return schema, load
        if hasattr(hint, "__supertype__"):
            return self.of(hint.__supertype__)
        if hasattr(hint, "__value__") and type(hint).__name__ == "TypeAliasType":
            return self.of(hint.__value__)
        if name_of(origin) in ("Required", "NotRequired", "ReadOnly", "Final"):
            return self.of(arguments[0])
        if name_of(origin) == "Literal":
            return _literal(arguments)
        if origin in _UNIONS:
            return self._union(arguments)
        kind = origin or hint
        if kind is tuple:
            return self._tuple(arguments)
        if kind in _LISTS:
            return self._array(arguments, None)
        if kind in _SETS or kind is frozenset:
            return self._array(arguments, frozenset if kind is frozenset else set)
        if kind in _DICTS:
            return self._mapping(hint, arguments)
        if isinstance(hint, type):
            return scalars.shape(hint) or self._class(hint)
        raise unsupported(hint)

    def _array(self, arguments: tuple[Any, ...], make: Any) -> Shape:
        item, load = self.of(arguments[0]) if arguments else ({}, None)
        schema: Schema = {"type": "array", "items": item} if item else {"type": "array"}
        if make is not None:
            schema["uniqueItems"] = True
        if load is None:
            return schema, make
        each = load
        if make is None:
            return schema, lambda value: [at(place, each, item) for place, item in enumerate(value)]
        return schema, lambda value: make([at(place, each, item) for place, item in enumerate(value)])

    def _tuple(self, arguments: tuple[Any, ...]) -> Shape:
        if not arguments or arguments[-1] is Ellipsis:
            schema, load = self._array(arguments[:1], None)
            return schema, tuple if load is None else lambda value: tuple(load(value))
        if arguments == ((),):
            arguments = ()
        shapes = [self.of(argument) for argument in arguments]
        schema = {"type": "array", "minItems": len(shapes), "maxItems": len(shapes)}
        if shapes:
            schema["prefixItems"] = [item for item, _ in shapes]
        loads = [load for _, load in shapes]
        if not any(loads):
            return schema, tuple
        return schema, lambda value: tuple(at(i, load, item) for i, (load, item) in enumerate(zip(loads, value)))

    def _mapping(self, hint: Any, arguments: tuple[Any, ...]) -> Shape:
        if not arguments:
            return {"type": "object"}, None
        keys, values = self.of(arguments[0]), self.of(arguments[1])
        if keys[1] is not None or keys[0] not in ({}, {"type": "string"}):
            raise TypeError(f"{describe(hint)} has keys that JSON cannot have: write dict[str, ...]")
        schema: Schema = {"type": "object"}
        if values[0]:
            schema["additionalProperties"] = values[0]
        load = values[1]
        if load is None:
            return schema, None
        return schema, lambda value: {name: at(name, load, item) for name, item in value.items()}

    def _union(self, arguments: tuple[Any, ...]) -> Shape:
        branches = [self.of(argument) for argument in arguments]
        if any(not schema for schema, _ in branches):
            return {}, None
        schema = {"anyOf": [branch for branch, _ in branches]}
        loads = [load for _, load in branches]
        numbers = {load for load in loads if load in (scalars.to_int, scalars.to_float)}
        if not any(loads) or (len(numbers) == 2 and set(loads) <= numbers | {None}):
            return schema, None
        return schema, _Choice(branches, self.defs)

    def _class(self, cls: Any) -> Shape:
        """The shape of a class with named members: a reference to its definition."""
        if cls not in self._names:
            members = _members_of(cls)
            if members is None:
                raise unsupported(cls)
            name = _free_name(re.sub(r"\W", "_", cls.__name__), self.defs)
            self._names[cls] = name
            cell: list[Load] = [None]
            self._loads[cls] = cell
            self.defs[name] = {}
            self.defs[name], cell[0] = members(self, cls, name)
        made = self._loads[cls]

        def load(value: Any) -> Any:
            return value if made[0] is None else made[0](value)

        return {"$ref": f"#/$defs/{self._names[cls]}"}, load

    def document(self, schema: Schema) -> Schema:
        """A schema as a document of its own: `$defs` added, a reference at the root written out."""
        if set(schema) == {"$ref"}:
            name = schema["$ref"].rpartition("/")[2]
            schema = dict(self.defs[name])
            others = {other: found for other, found in self.defs.items() if other != name}
            if not refers(f"#/$defs/{name}", [schema, others]):
                return {**schema, "$defs": others} if others else schema
        return {**schema, "$defs": self.defs} if self.defs else schema


class _Choice:
    """Loads a value of a union with the first branch that it fits."""

    def __init__(self, branches: list[Shape], defs: dict[str, Schema]) -> None:
        self.branches = branches
        self.defs = defs
        self.validators: list[Validator] | None = None

    def __call__(self, value: Any) -> Any:
        fits = [i for i, (schema, _) in enumerate(self.branches) if type(value) in self.kinds(schema)]
        if len(fits) != 1 and self.validators is None:
            self.validators = [Validator({**schema, "$defs": self.defs}) for schema, _ in self.branches]
        reason = Misfit("fits none of the forms that it may have")
        for i in fits:
            load = self.branches[i][1]
            if len(fits) == 1 or (self.validators and self.validators[i].is_valid(value)):
                try:
                    return value if load is None else load(value)
                except Misfit as error:
                    reason = error
        raise reason

    def kinds(self, schema: Schema) -> tuple[type, ...]:
        """The Python types of the JSON values that may fit a schema."""
        for _ in range(len(self.defs) + 1):
            if "$ref" in schema:
                schema = self.defs[schema["$ref"].rpartition("/")[2]]
        if isinstance(schema.get("type"), str):
            return _PYTHON_TYPES[schema["type"]]
        return tuple({kind for kinds in _PYTHON_TYPES.values() for kind in kinds})


def at(place: int | str, load: Load, value: Any) -> Any:
    """Load one member of a container; a `Misfit` learns where it happened."""
    if load is None:
        return value
    try:
        return load(value)
    except Misfit as error:
        error.path.insert(0, place)
        raise


def describe(hint: Any) -> str:
    """How a hint is called in a message."""
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")


def unsupported(hint: Any) -> TypeError:
    """The error for a hint without a JSON form."""
    return TypeError(
        f"the hint {describe(hint)} has no JSON form: write a basic type, list, dict, Literal, Enum, "
        "TypedDict, dataclass or pydantic model, or give a raw JSON Schema"
    )


def name_of(form: Any) -> str:
    """The name of a special form of typing or typing_extensions, which differ as objects."""
    return getattr(form, "_name", None) or getattr(form, "__name__", "") or ""


def resolve(owner: Any, context: type | None = None) -> dict[str, Any]:
    """Return the hints of a function or class with forward references resolved.

    :raises TypeError: when one cannot be resolved.
    """
    known = getattr(owner, "__globals__", None)
    if known is None:
        known = getattr(sys.modules.get(getattr(owner, "__module__", "")), "__dict__", {})
    local = {context.__name__: context} if context is not None and context.__name__ not in known else None
    try:
        return typing.get_type_hints(owner, localns=local, include_extras=True)
    except NameError as error:
        raise TypeError(
            f"the type hints of {owner.__qualname__} cannot be resolved: {error}; "
            "define or import the name at the top of the module"
        ) from None
    except TypeError as error:
        raise TypeError(
            f"the type hints of {owner.__qualname__} cannot be evaluated: {error}; "
            "on old Pythons write Optional[X] and Union[X, Y] instead of X | Y"
        ) from None


def refers(ref: str, node: Any) -> bool:
    """Say whether some part of a schema refers to `ref`."""
    if isinstance(node, dict):
        return node.get("$ref") == ref or any(refers(ref, child) for child in node.values())
    return isinstance(node, list) and any(refers(ref, child) for child in node)


def _free_name(name: str, taken: Iterable[str]) -> str:
    free, number = name, 2
    while free in taken:
        free, number = f"{name}{number}", number + 1
    return free


def _literal(values: tuple[Any, ...]) -> Shape:
    import enum

    plain = [value.value if isinstance(value, enum.Enum) else value for value in values]
    if any(not isinstance(value, (str, int, _NULL)) for value in plain):
        raise TypeError("a Literal may hold only strings, integers, booleans and None")
    schema: Schema = {**scalars.type_of(plain), "enum": plain}
    if all(isinstance(value, str) for value in values):
        return schema, None
    return schema, scalars.lookup(zip(plain, values))


_BOUNDS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
}


def _constrain(schema: Schema, extra: Any) -> None:
    """Put what one item of `Annotated` says into a schema; foreign objects are read by their attributes."""
    if isinstance(extra, str):
        schema["description"] = extra
    elif isinstance(extra, dict):
        schema.update(extra)
    else:
        for attribute in ("title", "description", "examples"):
            if isinstance(getattr(extra, attribute, None), (str, list)):
                schema[attribute] = getattr(extra, attribute)
        # The bounds of an Optional belong to the branch that is not null.
        branches = [branch for branch in schema.get("anyOf", ()) if branch != {"type": "null"}]
        target = branches[0] if len(branches) == 1 else schema
        for attribute, keyword in _BOUNDS.items():
            if isinstance(getattr(extra, attribute, None), (int, float)):
                target[keyword] = getattr(extra, attribute)
        noun = {"array": "Items", "string": "Length"}.get(target.get("type", ""), "Properties")
        for attribute, keyword in (("min_length", "min"), ("max_length", "max")):
            if isinstance(getattr(extra, attribute, None), int):
                target[keyword + noun] = getattr(extra, attribute)
        if isinstance(getattr(extra, "pattern", None), str):
            target["pattern"] = extra.pattern
        if isinstance(getattr(extra, "json_schema_extra", None), dict):
            schema.update(extra.json_schema_extra)
        for inner in getattr(extra, "metadata", ()):
            _constrain(schema, inner)


def _members_of(cls: Any) -> Callable[[Shapes, Any, str], Shape] | None:
    from . import records  # which imports this module

    return records.maker(cls)
