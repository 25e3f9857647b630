"""Converters of type hints: a JSON Schema, and the function that turns validated JSON into the hinted type."""

from __future__ import annotations

import collections.abc
import re
import sys
import types
import typing
from collections.abc import Callable
from typing import Any, Union

from . import constraints, docstrings, models, values
from .validator import Validator
from .values import ConversionError, Converter, Load, Schema, to_json

_NULL = type(None)
_UNIONS = (Union, getattr(types, "UnionType", Union))
_LISTS = (list, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_SETS = (set, frozenset, collections.abc.Set, collections.abc.MutableSet)
_DICTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_NOTHING: Any = object()

Member = tuple[str, Any, bool, Any]  # of a class: name, hint, whether it must be given, default


class Converters:
    """Makes the converters of one schema document and collects its `$defs`.

    :param inputs: whether the schema is for values that come in (unknown members are refused,
        members with a default may be left out) rather than for what `to_json` makes.
    """

    __slots__ = ("defs", "inputs", "_classes")

    def __init__(self, inputs: bool = True) -> None:
        self.defs: dict[str, Schema] = {}
        self.inputs = inputs
        self._classes: dict[Any, tuple[str, list[Load]]] = {}

    def of(self, hint: Any) -> Converter:
        """Return the schema and the loader of a hint; no loader when the JSON value is used as it is.

        :raises TypeError: when the hint has no JSON form.
        """
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        kind = origin or hint
        if hint is Any or hint is object:
            return {}, None
        if models.comes_from_pydantic(hint, inside):
            adapter = models.Adapter(hint, self.inputs, inside)
            return self.take_in(adapter.schema), adapter.load
        if hint is None or hint is _NULL:
            return {"type": "null"}, None
        if hasattr(hint, "__metadata__"):
            return self._annotated(hint.__origin__, hint.__metadata__)
        if hasattr(hint, "__supertype__"):  # a NewType
            return self.of(hint.__supertype__)
        if type(hint).__name__ == "TypeAliasType":
            return self.of(hint.__value__)
        if name_of(origin) in ("Required", "NotRequired", "ReadOnly", "Final"):
            return self.of(arguments[0])
        if name_of(origin) == "Literal":
            return _literal(arguments)
        if origin in _UNIONS:
            return self._union([self.of(argument) for argument in arguments])
        if kind is tuple:
            return self._tuple(arguments)
        if kind in _LISTS:
            return self._array(arguments)
        if kind in _SETS:
            schema, load = self._array(arguments)
            return {**schema, "uniqueItems": True}, _then(load, frozenset if kind is frozenset else set)
        if kind in _DICTS:
            return self._mapping(hint, arguments)
        if type(origin).__name__ == "TypeAliasType":
            return self.of(bound(origin.__value__, dict(zip(origin.__type_params__, arguments))))
        if isinstance(kind, type):
            return (values.converter(hint) if kind is hint else None) or self._class(hint)
        raise unsupported(hint)

    def _annotated(self, hint: Any, extras: tuple[Any, ...]) -> Converter:
        """Return the converter of what `Annotated` says of a hint; the bounds of a union belong to its branches."""
        checks = constraints.flatten(extras)
        if checks and typing.get_origin(hint) in _UNIONS:
            pairs = [(each, self.of(each)) for each in typing.get_args(hint)]
            branches = [pair if each is _NULL else constraints.apply(each, pair, checks) for each, pair in pairs]
            schema, load = self._union(branches)
        else:
            schema, load = constraints.apply(hint, self.of(hint), checks)
        return constraints.describe(schema, extras), load

    def _array(self, arguments: tuple[Any, ...]) -> Converter:
        item, load = self.of(arguments[0]) if arguments else ({}, None)
        schema: Schema = {"type": "array", "items": item} if item else {"type": "array"}
        if load is None:
            return schema, None
        return schema, lambda value: [at(place, load, item) for place, item in enumerate(value)]

    def _tuple(self, arguments: tuple[Any, ...]) -> Converter:
        if not arguments or arguments[-1] is Ellipsis:
            schema, load = self._array(arguments[:1])
            return schema, _then(load, tuple)
        items = [self.of(argument) for argument in arguments if argument != ()]
        schema = {"type": "array", "minItems": len(items), "maxItems": len(items)}
        if items:
            schema["prefixItems"] = [item for item, _ in items]
        loads = [load for _, load in items]
        return schema, lambda value: tuple(at(i, load, item) for i, (load, item) in enumerate(zip(loads, value)))

    def _mapping(self, hint: Any, arguments: tuple[Any, ...]) -> Converter:
        if not arguments:
            return {"type": "object"}, None
        keys, (item, load) = self.of(arguments[0]), self.of(arguments[1])
        if keys not in (({}, None), ({"type": "string"}, None)):
            raise TypeError(f"{describe(hint)} has keys that JSON cannot have: write dict[str, ...]")
        schema: Schema = {"type": "object", "additionalProperties": item} if item else {"type": "object"}
        if load is None:
            return schema, None
        return schema, lambda value: {name: at(name, load, item) for name, item in value.items()}

    def _union(self, branches: list[Converter]) -> Converter:
        if any(not schema for schema, _ in branches):
            return {}, None
        schema: Schema = {"anyOf": [branch for branch, _ in branches]}
        loads = [load for branch, load in branches if branch != {"type": "null"}]
        if not any(loads) or _NUMBERS <= set(loads) <= {*_NUMBERS, None}:
            return schema, None
        chosen = (loads[0] if len(loads) == 1 else None) or self._choice(branches)
        return schema, lambda value: None if value is None else chosen(value)

    def _choice(self, branches: list[Converter]) -> Callable[[Any], Any]:
        """Return a loader that takes the first branch that a value fits."""
        judges: list[Any] = []

        def load(value: Any) -> Any:
            if not judges:  # not before the definitions are complete
                judges[:] = [Validator({**schema, "$defs": self.defs}).is_valid for schema, _ in branches]
            reason = ConversionError("fits none of the forms that it may have")
            for (schema, load), fits in zip(branches, judges):
                if values.is_of(value, schema.get("type", "")) and fits(value):
                    try:
                        return value if load is None else load(value)
                    except ConversionError as error:
                        reason = error
            raise reason

        return load

    def _class(self, hint: Any) -> Converter:
        """Return the converter of a class with named members, or of a generic one: a reference to its definition."""
        if hint not in self._classes:
            base = re.sub(
                r"\W+", "_", "_".join(map(describe, (typing.get_origin(hint) or hint, *typing.get_args(hint))))
            )
            names = [base, *(f"{base}{number}" for number in range(2, len(self.defs) + 3))]
            name = next(name for name in names if name not in self.defs)
            cell: list[Load] = [None]
            self._classes[hint] = name, cell
            self.defs[name] = {}
            self.defs[name], cell[0] = self._object(hint)
        name, made = self._classes[hint]
        return {"$ref": f"#/$defs/{name}"}, lambda value: value if made[0] is None else made[0](value)

    def members(self, members: list[Member], texts: dict[str, str], where: str) -> tuple[Schema, dict[str, Load]]:
        """Return the schema of an object and the loaders of its members.

        :param texts: descriptions of members.
        :param where: the name of a member in an error, with `{}` for its own name.
        """
        properties: dict[str, Schema] = {}
        loads: dict[str, Load] = {}
        for name, hint, _, default in members:
            if models.is_theirs(default) and hasattr(default, "validation_alias"):
                raise TypeError(f"{where.format(name)}: write pydantic's Field into Annotated here")
            found, loads[name] = self.member(name, hint, where)
            properties[name] = member = dict(found)
            if name in texts:
                member.setdefault("description", texts[name])
            if self.inputs:
                try:
                    member.setdefault("default", to_json(default))
                except (TypeError, ValueError):
                    pass  # there is none, or it has no JSON form
        parts = {"properties": properties, "required": [name for name, _, must, _ in members if must]}
        schema: Schema = {"type": "object", **{keyword: part for keyword, part in parts.items() if part}}
        return ({**schema, "additionalProperties": False} if self.inputs else schema), loads

    def member(self, name: str, hint: Any, where: str) -> Converter:
        """Return the converter of one member.

        :raises TypeError: when its hint has no JSON form; the message names the member.
        """
        try:
            return self.of(hint)
        except TypeError as error:
            raise TypeError(f"{where.format(name)}: {error}") from None

    def _object(self, hint: Any) -> Converter:
        cls = typing.get_origin(hint) or hint
        texts = docstrings.parse(cls.__doc__)[1]
        schema, loads = self.members(members_of(hint, self.inputs), texts, f"{cls.__name__}.{{}}")

        def load(value: Any) -> Any:
            members = {name: at(name, loads.get(name), item) for name, item in value.items()}
            try:
                return cls(**members)
            except (ValueError, TypeError) as error:
                raise models.refusal(error) from None

        return schema, load

    def take_in(self, make: models.Make) -> Schema:
        """Return a schema that brings its own definitions, and keep these."""
        schema = make("#/$defs/{model}")
        definitions = schema.pop("$defs", {})
        if any(self.defs.get(name, part) != part for name, part in definitions.items()):
            # Another class has one of these names, so all of them get a prefix.
            prefix = f"p{len(self.defs)}."
            schema = make(f"#/$defs/{prefix}{{model}}")
            definitions = {prefix + name: part for name, part in schema.pop("$defs", {}).items()}
        self.defs.update(definitions)
        return schema

    def document(self, schema: Schema) -> Schema:
        """Return a schema as a complete document, with `$defs` and without a reference at its root."""
        defs = self.defs
        if set(schema) == {"$ref"}:
            ref = schema["$ref"]
            schema = dict(defs[ref.rpartition("/")[2]])
            others = {name: part for name, part in defs.items() if f"#/$defs/{name}" != ref}
            defs = defs if repr(ref) in repr([schema, others]) else others
        return {**schema, "$defs": defs} if defs else schema


_NUMBERS = {values.to_int, values.to_float}


def at(place: int | str, load: Load, value: Any) -> Any:
    """Load one member of a container; a `ConversionError` gets its place."""
    if load is None:
        return value
    try:
        return load(value)
    except ConversionError as error:
        error.path.insert(0, place)
        raise


def _then(load: Load, make: Callable[[Any], Any]) -> Load:
    return make if load is None else lambda value: make(load(value))


def describe(hint: Any) -> str:
    """Return the name of a hint for messages."""
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")


def unsupported(hint: Any) -> TypeError:
    """Return the error for a hint without a JSON form."""
    return TypeError(
        f"the hint {describe(hint)} has no JSON form: write a basic type, list, dict, Literal, Enum, "
        "TypedDict, dataclass or pydantic model, or give a raw JSON Schema"
    )


def name_of(form: Any) -> str:
    """Return the name of a special form of typing or typing_extensions, which differ as objects."""
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
        reason = f"cannot be resolved: {error}; define or import the name at the top of the module"
    except TypeError as error:
        reason = f"cannot be evaluated: {error}; on old Pythons write Optional[X] and Union[X, Y] instead of X | Y"
    raise TypeError(f"the type hints of {owner.__qualname__} {reason}")


def inside(cls: Any) -> list[Any]:
    """Return the hints of a class's members, and pydantic's descriptions where their defaults are such."""
    try:
        members = members_of(cls, True)
    except TypeError:
        return []
    return [
        part for _, hint, _, default in members for part in (hint, default) if part is hint or models.is_theirs(part)
    ]


def bound(hint: Any, variables: dict[Any, Any]) -> Any:
    """Return a hint with its type variables replaced."""
    if isinstance(hint, typing.TypeVar):
        return variables.get(hint, hint)
    free = getattr(hint, "__parameters__", ())
    if isinstance(hint, type) or not any(variable in variables for variable in free):
        return hint
    return hint[tuple(variables.get(variable, variable) for variable in free)]


def hints_of(hint: Any) -> dict[str, Any]:
    """Return the hints of a class's members, with the arguments of a generic one in place of its type variables."""
    cls, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    free = getattr(cls, "__parameters__", ())
    variables = dict(zip(free, arguments or [_bound_of(variable) for variable in free]))
    found: dict[str, Any] = {}
    for base in reversed(cls.__dict__.get("__orig_bases__", cls.__bases__)):
        known = typing.get_origin(base) or base
        if isinstance(known, type) and "__annotations__" in dir(known):
            found.update(hints_of(bound(base, variables)))
    own = cls.__dict__.get("__annotations__") or (cls.__annotations__ if sys.version_info >= (3, 10) else {})
    inherits = issubclass(cls, dict)  # the annotations of a TypedDict are those of its bases too
    for name, each in resolve(cls).items():
        if name not in found or (name in own and not inherits):
            found[name] = bound(each, variables)
    return found


def _bound_of(variable: Any) -> Any:
    return variable.__bound__ or (Union[variable.__constraints__] if variable.__constraints__ else Any)


def members_of(hint: Any, inputs: bool) -> list[Member]:
    """Return the members of a dataclass, NamedTuple or TypedDict, generic or not.

    :raises TypeError: for every other class.
    """
    cls = typing.get_origin(hint) or hint
    if hasattr(cls, "__dataclass_fields__"):
        import dataclasses

        hints, missing = hints_of(hint), dataclasses.MISSING
        return [
            (
                field.name,
                hints[field.name],
                not inputs or (field.default is missing and field.default_factory is missing),
                field.default,
            )
            for field in dataclasses.fields(cls)
            if field.init or not inputs
        ]
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        hints, defaults = hints_of(hint), cls._field_defaults
        return [
            (name, hints.get(name, Any), not inputs or name not in defaults, defaults.get(name, _NOTHING))
            for name in cls._fields
        ]
    if issubclass(cls, dict) and hasattr(cls, "__total__"):
        return [(key, hint, _is_required(cls, key, hint), _NOTHING) for key, hint in hints_of(hint).items()]
    raise unsupported(hint)


def _is_required(cls: Any, key: str, hint: Any) -> bool:
    # The class itself cannot tell when its annotations are strings.
    while name_of(typing.get_origin(hint)) == "ReadOnly" or hasattr(hint, "__metadata__"):
        hint = hint.__origin__ if hasattr(hint, "__metadata__") else typing.get_args(hint)[0]
    mark = name_of(typing.get_origin(hint))
    return mark == "Required" or (mark != "NotRequired" and key in cls.__required_keys__)


def _literal(meanings: tuple[Any, ...]) -> Converter:
    plain = [getattr(meaning, "value", meaning) for meaning in meanings]
    if any(not isinstance(value, (str, int, _NULL)) for value in plain):
        raise TypeError("a Literal may hold only strings, integers, booleans and None")
    schema: Schema = {**values.type_of(plain), "enum": plain}
    return schema, None if all(type(m) is str for m in meanings) else values.lookup(zip(plain, meanings))
