"""Function signatures as schemas of their arguments, and return hints as output schemas."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import InvalidArguments
from . import docstrings, values
from .converters import Converters, describe, resolve
from .values import ConversionError, Load, Schema
from .values import to_json as to_json

_NULL = type(None)
Bind = Callable[[dict[str, Any]], dict[str, Any]]


class Signature(NamedTuple):
    """The signature of a handler: the schema of its arguments and how they are passed."""

    schema: Schema  # of the arguments
    context: str | None  # the name of the parameter that receives the Context
    bind: Bind  # turns validated arguments into keyword arguments; raises InvalidArguments
    text: str  # the docstring without its sections
    returns: Any  # the return hint, or None


class _Read:
    """The parameters of a function, sorted by how they are filled."""

    def __init__(self, function: Any, context_type: type | None) -> None:
        import inspect

        self.name = getattr(function, "__qualname__", type(function).__qualname__)
        self.hints = resolve(_plain(function, self.name), context_type)
        self.text, self.texts = docstrings.parse(inspect.getdoc(function))
        self.returns = self.hints.get("return")
        self.context: str | None = None
        self.named: list[inspect.Parameter] = []
        self.others: str | None = None  # the name of **kwargs
        for place, parameter in enumerate(inspect.signature(function).parameters.values()):
            if _is_context(self.hints.get(parameter.name), context_type):
                if self.context is not None:
                    raise TypeError(f"{self.name} has two parameters for the Context; write one")
                self.context = parameter.name
            elif parameter.kind == parameter.VAR_KEYWORD:
                self.others = parameter.name
            elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
                raise TypeError(
                    f"{self.name}: arguments arrive by name, so {parameter.name} cannot be positional only "
                    f"or *{parameter.name}: write an ordinary parameter, like {parameter.name}: list[str]"
                )
            elif place == 0 and parameter.name in ("self", "cls") and parameter.name not in self.hints:
                raise TypeError(f"{self.name} is a method without its object: register one of an instance")
            else:
                self.named.append(parameter)


def signature(function: Any, context_type: type | None = None) -> Signature:
    """Read a function's signature.

    :param context_type: the annotation of the parameter that is hidden from the schema.
    :raises TypeError: for `async def`, generators, `*args`, positional-only parameters and unsupported hints.
    """
    read = _Read(function, context_type)
    converters = Converters()
    where = f"{read.name}: parameter {{}}"
    members = []
    for parameter in read.named:
        hint = read.hints.get(parameter.name, Any)
        if parameter.default is None and hint is not Any:
            hint = typing.Optional[hint]
        members.append((parameter.name, hint, parameter.default is parameter.empty, parameter.default))
    schema, loads = converters.members(members, read.texts, where)
    if read.others is None:
        bind = binder(loads)
    else:
        del schema["additionalProperties"]
        found, load = converters.member(read.others, read.hints.get(read.others, Any), where)
        if found:
            schema["additionalProperties"] = found
        bind = _openbinder(loads, load, read.context)
    return Signature(converters.document(schema), read.context, bind, read.text, read.returns)


def raw_signature(function: Any, context_type: type | None, schema: Schema) -> Signature:
    """Read the signature of a function whose arguments have a schema of their own and arrive unchanged.

    :raises TypeError: as `signature` does, except that hints other than the Context's do not matter.
    """
    read = _Read(function, context_type)
    names = {parameter.name for parameter in read.named}
    needed = [parameter.name for parameter in read.named if parameter.default is parameter.empty]

    def bind(arguments: dict[str, Any]) -> dict[str, Any]:
        for name in needed:
            if name not in arguments:
                raise InvalidArguments(f'"{name}" missing')
        for name in arguments:
            if name == read.context or (read.others is None and name not in names):
                raise InvalidArguments(f'"{name[:60]}" is not a known argument')
        return arguments

    return Signature(schema, read.context, bind, read.text, read.returns)


def _plain(function: Any, name: str) -> Any:
    """Return the function behind a callable.

    :raises TypeError: when it cannot be called with keywords, or does not block.
    """
    import functools
    import inspect

    plain = function
    while isinstance(plain, functools.partial):
        plain = plain.func
    plain = inspect.unwrap(plain)
    if not inspect.isroutine(plain) and not isinstance(plain, type):
        plain = getattr(type(plain), "__call__", None)  # noqa: B004
    if plain is None or isinstance(plain, type):
        raise TypeError(f"{name} is not a function")
    if inspect.iscoroutinefunction(plain) or inspect.isasyncgenfunction(plain):
        raise TypeError(f"{name} is async def: write def, and call blocking code; every call has its own thread")
    if inspect.isgeneratorfunction(plain):
        raise TypeError(f"{name} is a generator: return a list instead of yielding its items")
    return plain


def _is_context(hint: Any, context_type: type | None) -> bool:
    arguments = [argument for argument in typing.get_args(hint) if argument is not _NULL]
    if hasattr(hint, "__metadata__") or len(arguments) < len(typing.get_args(hint)) == 2:  # Annotated, Optional
        return _is_context(arguments[0], context_type)
    return context_type is not None and isinstance(hint, type) and not arguments and issubclass(hint, context_type)


def binder(loads: dict[str, Load]) -> Bind:
    """Return the function that gives valid arguments the types of their hints."""
    # A number that has its type already needs no call.
    exact: dict[Any, type] = {values.to_int: int, values.to_float: float}
    steps = [(name, exact.get(load), load) for name, load in loads.items() if load is not None]

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

    return bind if steps else lambda arguments: arguments


def _openbinder(loads: dict[str, Load], others: Load, context: str | None) -> Bind:
    """Return a binder for a function with `**kwargs`, which receive arguments without a parameter."""

    def bind(arguments: dict[str, Any]) -> dict[str, Any]:
        if context in arguments:
            raise InvalidArguments(f'"{context}" is not a known argument')
        return {name: _load(name, loads.get(name, others), item) for name, item in arguments.items()}

    return bind


def _load(name: str, load: Load, value: Any) -> Any:
    try:
        return value if load is None else load(value)
    except ConversionError as error:
        place = name + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.path)
        raise InvalidArguments(f'"{place[:120]}" {error}') from None
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
        raise InvalidArguments(f'"{name}" cannot be turned into the type that is expected there') from None


def output_schema(hint: Any, is_content: Callable[[Any], bool]) -> Schema | None:
    """Return the schema of a return hint, or None when the result is text, bytes, content or unknown.

    :param is_content: `f(hint)` says that a hint stands for something that is sent as it is.
    :raises TypeError: when the hint has no JSON form.
    """
    if not _is_data(hint, is_content):
        return None
    converters = Converters(inputs=False)
    try:
        schema, _ = converters.of(hint)
    except TypeError as error:
        raise TypeError(f"return hint: {error}") from None
    return converters.document(schema) or None


def _is_data(hint: Any, is_content: Callable[[Any], bool]) -> bool:
    if is_content(hint):
        return False
    if hasattr(hint, "__metadata__"):
        return _is_data(hint.__origin__, is_content)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if describe(origin) in ("Union", "UnionType") or type(hint).__name__ == "UnionType":
        return all(argument is _NULL or _is_data(argument, is_content) for argument in arguments) and set(
            arguments
        ) != {_NULL}
    if (origin or hint) in (list, tuple):
        return bool(arguments) and all(argument is not Any and argument is not object for argument in arguments)
    if (origin or hint) is dict and arguments in ((), (str, Any)):
        # It says nothing of the members, and a content block is such a dict too.
        return False
    return hint not in (None, _NULL, Any, object, str, bytes, bytearray)
