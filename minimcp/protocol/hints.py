"""A function's signature as the schema of its arguments, and return hints as output schemas."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

from . import docstrings, scalars
from .dump import to_json as to_json
from .errors import InvalidArguments
from .forms import form_schema as form_schema
from .records import add_default
from .scalars import Misfit
from .shapes import Load, Schema, Shapes, describe, resolve

_NULL = type(None)
Bind = Callable[[dict[str, Any]], dict[str, Any]]


class Signature:
    """What a handler's signature says about its arguments.

    `schema` is the schema of the arguments, `context` the name of the parameter that receives the Context or None,
    `bind` turns validated arguments into keyword arguments, `text` is the docstring without its sections, and
    `returns` the return hint or None.
    """

    __slots__ = ("schema", "context", "bind", "text", "returns")

    def __init__(self, schema: Schema, context: str | None, bind: Bind, text: str, returns: Any) -> None:
        self.schema = schema
        self.context = context
        self.bind = bind
        self.text = text
        self.returns = returns


def signature(function: Any, context_type: type | None = None) -> Signature:
    """Read a function's signature.

    :param context_type: the annotation of the parameter that is hidden from the schema.
    :raises TypeError: for `async def`, generators, `*args`, positional-only parameters and hints without JSON form.
    """
    import inspect

    name = getattr(function, "__qualname__", type(function).__qualname__)
    code = _refuse(function, name, inspect)
    hints = resolve(code, context_type)
    text, texts = docstrings.parse(inspect.getdoc(function) if code is not None else None)
    shapes = Shapes()
    context: str | None = None
    properties: dict[str, Schema] = {}
    required: list[str] = []
    loads: dict[str, Load] = {}
    others: Any = False
    other_load: Load = None
    parameters = inspect.signature(function).parameters
    for place, parameter in enumerate(parameters.values()):
        hint = hints.get(parameter.name, Any)
        if context_type is not None and _is_context(hint, context_type):
            if context is not None:
                raise TypeError(f"{name} has two parameters for the Context: {context} and {parameter.name}")
            context = parameter.name
            continue
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            kind = "*args" if parameter.kind == parameter.VAR_POSITIONAL else "positional-only parameters"
            raise TypeError(
                f"{name} takes {kind} ({parameter.name}), but arguments arrive by name: write an ordinary parameter"
                + (f", for example {parameter.name}: list[str]" if kind == "*args" else "")
            )
        if place == 0 and parameter.name in ("self", "cls") and parameter.name not in hints:
            raise TypeError(
                f"{name} is a method without its object: register the bound method of an instance"
            )
        if parameter.default is None and hint is not Any:
            hint = typing.Optional[hint]
        try:
            found, load = shapes.of(hint)
        except TypeError as error:
            raise TypeError(f"{name}: parameter {parameter.name}: {error}") from None
        if parameter.kind == parameter.VAR_KEYWORD:
            others, other_load = found or True, load
            continue
        properties[parameter.name] = schema = dict(found)
        if parameter.name in texts:
            schema.setdefault("description", texts[parameter.name])
        if parameter.default is parameter.empty:
            required.append(parameter.name)
        else:
            add_default(schema, parameter.default)
        if load is not None:
            loads[parameter.name] = load
    whole: Schema = {"type": "object"}
    if properties:
        whole["properties"] = properties
    if required:
        whole["required"] = required
    if others is not True:
        whole["additionalProperties"] = others
    if shapes.defs:
        whole["$defs"] = shapes.defs
    bind = _binder(loads, frozenset(properties), context if others is not False else None, other_load)
    return Signature(whole, context, bind, text, hints.get("return"))


def _refuse(function: Any, name: str, inspect: Any) -> Any:
    """Refuse what cannot be called with keywords and block; return the plain function behind a callable."""
    import functools

    plain = function
    while isinstance(plain, functools.partial):
        plain = plain.func
    plain = inspect.unwrap(plain)
    if not inspect.isroutine(plain) and not isinstance(plain, type):
        plain = getattr(type(plain), "__call__", None)
    if plain is None or isinstance(plain, type):
        raise TypeError(f"{name} is not a function")
    if inspect.iscoroutinefunction(plain) or inspect.isasyncgenfunction(plain):
        raise TypeError(
            f"{name} is async def: write def, and call blocking code; every call has its own thread"
        )
    if inspect.isgeneratorfunction(plain):
        raise TypeError(f"{name} is a generator: return a list instead of yielding its items")
    return plain


def _is_context(hint: Any, context_type: type) -> bool:
    if isinstance(hint, type) and not typing.get_args(hint):
        return issubclass(hint, context_type)
    if hasattr(hint, "__metadata__"):
        return _is_context(hint.__origin__, context_type)
    arguments = [argument for argument in typing.get_args(hint) if argument is not _NULL]
    return len(arguments) == 1 and _NULL in typing.get_args(hint) and _is_context(arguments[0], context_type)


def _binder(loads: dict[str, Load], names: frozenset[str], reserved: str | None, other_load: Load) -> Bind:
    """Make the function that turns validated arguments into keyword arguments.

    :param reserved: a name that must not arrive among the `**kwargs`.
    :param other_load: the loader of the `**kwargs`.
    """
    # A number that has its type already needs no call.
    exact = {scalars.to_int: int, scalars.to_float: float}
    steps = [(name, exact.get(load) if load else None, load) for name, load in loads.items()]

    def bind(arguments: dict[str, Any]) -> dict[str, Any]:
        result = arguments
        for name, kind, load in steps:
            if name in arguments:
                value = arguments[name]
                if type(value) is not kind:
                    if result is arguments:
                        result = dict(arguments)
                    result[name] = _load(name, load, value)
        return result

    def bind_all(arguments: dict[str, Any]) -> dict[str, Any]:
        if reserved in arguments:
            raise InvalidArguments(f'"{reserved}" is not a known argument')
        result = dict(bind(arguments))
        if other_load is not None:
            for name in arguments.keys() - names:
                result[name] = _load(name, other_load, arguments[name])
        return result

    if reserved is not None or other_load is not None:
        return bind_all
    return bind if steps else _unchanged


def _unchanged(arguments: dict[str, Any]) -> dict[str, Any]:
    return arguments


def _load(name: str, load: Any, value: Any) -> Any:
    try:
        return load(value)
    except Misfit as error:
        place = name + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.path)
        raise InvalidArguments(f'"{place[:120]}" {error}') from None
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
        raise InvalidArguments(f'"{name}" cannot be turned into the type that is expected there') from None


def output_schema(hint: Any) -> Schema | None:
    """Return the schema of a return hint, or None when the result is text, bytes, content blocks or unknown.

    A function that returns content blocks is annotated `-> list`, or not at all.

    :raises TypeError: when the hint has no JSON form.
    """
    if not _is_data(hint):
        return None
    shapes = Shapes(inputs=False)
    try:
        schema, _ = shapes.of(hint)
    except TypeError as error:
        raise TypeError(f"return hint: {error}") from None
    return shapes.document(schema) or None


def _is_data(hint: Any) -> bool:
    if hasattr(hint, "__metadata__"):
        return _is_data(hint.__origin__)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if describe(origin) in ("Union", "UnionType") or type(hint).__name__ == "UnionType":
        return all(argument is _NULL or _is_data(argument) for argument in arguments) and set(arguments) != {
            _NULL
        }
    if (origin or hint) in (list, tuple):
        return bool(arguments) and all(
            argument is not Any and argument is not object for argument in arguments
        )
    return hint not in (None, _NULL, Any, object, str, bytes, bytearray)
