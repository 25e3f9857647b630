"""A function's signature as the schema of its arguments, and return hints as output schemas."""

from __future__ import annotations

import json
import typing
from collections.abc import Callable
from typing import Any

from . import docstrings, scalars
from .converters import Converters, add_default, describe, resolve
from .errors import InvalidArguments
from .forms import form_schema as form_schema
from .jsonable import to_json as to_json
from .scalars import Converter, Load, Misfit, Schema

_NULL = type(None)
Bind = Callable[[dict[str, Any]], dict[str, Any]]


class Signature:
    """What a handler's signature says about its arguments.

    :ivar schema: the JSON Schema of the arguments.
    :ivar context: the name of the parameter that receives the Context, or None.
    :ivar bind: turns validated arguments into keyword arguments; raises InvalidArguments.
    :ivar text: the docstring without its sections.
    :ivar returns: the return hint, or None.
    """

    __slots__ = ("schema", "context", "bind", "text", "returns")

    def __init__(self, schema: Schema, context: str | None, bind: Bind, text: str, returns: Any) -> None:
        self.schema = schema
        self.context = context
        self.bind = bind
        self.text = text
        self.returns = returns


class _Read:
    """The parameters of a function, told apart."""

    def __init__(self, function: Any, context_type: type | None) -> None:
        import inspect

        self.name = getattr(function, "__qualname__", type(function).__qualname__)
        self.hints = resolve(_refuse(function, self.name, inspect), context_type)
        self.text, self.texts = docstrings.parse(inspect.getdoc(function))
        self.returns = self.hints.get("return")
        self.context: str | None = None
        self.named: list[inspect.Parameter] = []
        self.others: str | None = None  # the name of **kwargs
        for place, parameter in enumerate(inspect.signature(function).parameters.values()):
            if context_type is not None and _is_context(self.hints.get(parameter.name), context_type):
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
    properties: dict[str, Schema] = {}
    required: list[str] = []
    loads: dict[str, Load] = {}
    for parameter in read.named:
        hint = read.hints.get(parameter.name, Any)
        if parameter.default is None and hint is not Any:
            hint = typing.Optional[hint]
        found, load = _shape(converters, hint, read.name, parameter.name)
        properties[parameter.name] = schema = dict(found)
        if parameter.name in read.texts:
            schema.setdefault("description", read.texts[parameter.name])
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
    bind = _binder(loads)
    if read.others is None:
        whole["additionalProperties"] = False
    else:
        found, load = _shape(converters, read.hints.get(read.others, Any), read.name, read.others)
        if found:
            whole["additionalProperties"] = found
        bind = _open_binder(bind, frozenset(properties), read.context, load)
    if converters.defs:
        whole["$defs"] = converters.defs
    return Signature(whole, read.context, bind, read.text, read.returns)


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


def _shape(converters: Converters, hint: Any, owner: str, name: str) -> Converter:
    try:
        return converters.of(hint)
    except TypeError as error:
        raise TypeError(f"{owner}: parameter {name}: {error}") from None


def _refuse(function: Any, name: str, inspect: Any) -> Any:
    """Refuse what cannot be called with keywords and block; return the plain function behind a callable."""
    import functools

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


def _is_context(hint: Any, context_type: type) -> bool:
    if isinstance(hint, type) and not typing.get_args(hint):
        return issubclass(hint, context_type)
    if hasattr(hint, "__metadata__"):
        return _is_context(hint.__origin__, context_type)
    arguments = [argument for argument in typing.get_args(hint) if argument is not _NULL]
    return len(arguments) == 1 and _NULL in typing.get_args(hint) and _is_context(arguments[0], context_type)


def _binder(loads: dict[str, Load]) -> Bind:
    # A number that has its type already needs no call.
    exact: dict[Any, type] = {scalars.to_int: int, scalars.to_float: float}
    steps = [(name, exact.get(load), load) for name, load in loads.items()]

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

    return bind if steps else _unchanged


def _open_binder(bind: Bind, names: frozenset[str], context: str | None, load: Load) -> Bind:
    """Extend a binder to what arrives for `**kwargs`."""

    def bind_all(arguments: dict[str, Any]) -> dict[str, Any]:
        if context in arguments:
            raise InvalidArguments(f'"{context}" is not a known argument')
        result = bind(arguments)
        if load is None:
            return result
        others = {n: _load(n, load, value) for n, value in arguments.items() if n not in names}
        return {**result, **others}

    return bind_all


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

    A function that returns content blocks is annotated `-> list`, `-> ImageContent`, or not at all.

    :raises TypeError: when the hint has no JSON form.
    """
    if not _is_data(hint):
        return None
    converters = Converters(inputs=False)
    try:
        schema, _ = converters.of(hint)
    except TypeError as error:
        raise TypeError(f"return hint: {error}") from None
    return converters.document(schema) or None


def _is_content(hint: Any) -> bool:
    """Say whether a hint is a content shape of `types`, bytes with their media type, or a list or union of these."""
    if getattr(hint, "__module__", "") == _SHAPES:
        return str(hint.__name__).endswith(_CONTENT)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and arguments == (bytes, str):
        return True
    return any(_is_content(argument) for argument in arguments)


# By name, so that `types` need not be loaded.
_SHAPES = f"{__package__}.types"
_CONTENT = ("Content", "EmbeddedResource", "ResourceLink", "CallToolResult")


def _is_data(hint: Any) -> bool:
    if _is_content(hint):
        return False
    if hasattr(hint, "__metadata__"):
        return _is_data(hint.__origin__)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if describe(origin) in ("Union", "UnionType") or type(hint).__name__ == "UnionType":
        return all(argument is _NULL or _is_data(argument) for argument in arguments) and set(arguments) != {_NULL}
    if (origin or hint) in (list, tuple):
        return bool(arguments) and all(argument is not Any and argument is not object for argument in arguments)
    return hint not in (None, _NULL, Any, object, str, bytes, bytearray)


def from_strings(schema: Schema, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return arguments that came as strings (of a prompt or a URI) as the JSON values that a schema asks for.

    A string that cannot be read as what is asked for stays a string, for the validation to refuse.
    """
    properties = schema.get("properties", {})
    result = {}
    for name, value in arguments.items():
        wanted = _types(properties.get(name, {}), schema.get("$defs", {}))
        if isinstance(value, str) and wanted and "string" not in wanted:
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                pass
        result[name] = value
    return result


def _types(schema: Schema, defs: dict[str, Schema]) -> set[str]:
    if "$ref" in schema:
        return _types(defs.get(schema["$ref"].rpartition("/")[2], {}), {})
    if "anyOf" in schema:
        found = [_types(branch, defs) for branch in schema["anyOf"]]
        return set().union(*found) if all(found) else set()
    names = schema.get("type", ())
    if not names and "enum" in schema:
        return {"string"} if any(isinstance(value, str) for value in schema["enum"]) else {"enum"}
    return {names} if isinstance(names, str) else set(names)
