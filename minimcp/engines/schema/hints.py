"""Function signatures as schemas of their arguments, and return hints as output schemas."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import InvalidArguments
from . import constraints, docstrings, models, validator, values
from .converters import Converters, describe, inside, resolve
from .values import ConversionError, Load, Schema
from .values import to_json as to_json

_NULL = type(None)
Bind = Callable[[dict[str, Any]], dict[str, Any]]


class Signature(NamedTuple):
    """The signature of a handler: the schema of its arguments and how they are passed."""

    schema: Schema  # of the arguments, as it is listed
    checked: Schema  # the same without what pydantic alone can judge
    context: str | None  # the name of the parameter that receives the Context
    bind: Bind  # turns validated arguments into keyword arguments; raises InvalidArguments
    text: str  # the docstring without its sections
    returns: Any  # the return hint, or None


class _Read:
    """The parameters of a function, sorted by how they are filled."""

    def __init__(self, function: Any, context_type: type | None) -> None:
        self.name = getattr(function, "__qualname__", type(function).__qualname__)
        function = _bare(function)
        plain = _plain(function, self.name)
        self.hints = resolve(plain, context_type)
        known = inspect.signature(plain).parameters
        self.text, self.texts = docstrings.parse(_doc(function), known)
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
                owner, _, method = self.name.rpartition(".")
                better = f", such as server.tool({owner}().{method})" if owner.isidentifier() else ""
                raise TypeError(f"{self.name} is a method without its object: register that of an instance{better}")
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
    parameters = [_parameter(read, parameter) for parameter in read.named]
    empty = inspect.Parameter.empty
    members = [(p.name, p.hint, p.default is empty, p.default) for p in parameters if not p.theirs]
    schema, loads = converters.members(members, read.texts, where)
    bind, loose, others = binder(loads), set[str](), None
    if len(members) < len(parameters):
        schema, bind, loose = _with_pydantic(read, parameters, converters, schema, bind)
    if read.others is not None:
        del schema["additionalProperties"]
        found, others = converters.member(read.others, read.hints.get(read.others, Any), where)
        if found:
            schema["additionalProperties"] = found
        bind = _openbinder(set(schema.get("properties", ())) | loose, bind, others, read.context)
    checked = schema
    if loose:
        properties = {**schema["properties"], **{name: {} for name in loose}}
        required = [name for name in schema.get("required", ()) if name not in loose]
        checked = converters.document({**schema, "properties": properties, "required": required})
    schema = converters.document(schema)
    return Signature(schema, checked if loose else schema, read.context, bind, read.text, read.returns)


def _parameter(read: _Read, parameter: inspect.Parameter) -> models.Parameter:
    hint, default = read.hints.get(parameter.name, Any), parameter.default
    theirs = models.is_theirs(default) or models.comes_from_pydantic(hint, inside)
    if hint is not Any and models.permits_none(default, hint):
        hint = nullable(hint)
    return models.Parameter(parameter.name, hint, default, theirs)


def nullable(hint: Any) -> Any:
    """Return a hint that permits None; what describes the whole of it stays outside."""
    branches = [each for each in typing.get_args(hint) if each is not _NULL]
    if len(branches) == 1 and hasattr(branches[0], "__metadata__") and not hasattr(hint, "__metadata__"):
        hint = branches[0] if _NULL in typing.get_args(hint) else hint  # Python 3.10 and older wrap it by themselves
    extras = getattr(hint, "__metadata__", ())
    plain = hint.__origin__ if extras else hint
    if plain is Any or plain is object or _NULL in typing.get_args(plain) or None in typing.get_args(plain):
        return hint
    outer = tuple(extra for extra in extras if _is_description(extra))
    inner = tuple(extra for extra in extras if not _is_description(extra))
    return models.annotated(typing.Optional[models.annotated(plain, inner)], outer)


def _is_description(extra: Any) -> bool:
    if isinstance(extra, dict):
        return all(key[:2] == "x-" or key in ("title", "description", "examples") for key in extra)
    return isinstance(extra, str) or hasattr(extra, "documentation") or hasattr(extra, "validation_alias")


def _with_pydantic(
    read: _Read, parameters: list[models.Parameter], converters: Converters, schema: Schema, bind: Bind
) -> tuple[Schema, Bind, set[str]]:
    """Add the parameters that pydantic reads to those that it does not.

    :return: the schema, the function that binds all arguments, and the names whose values only pydantic can judge.
    """
    try:
        theirs = models.Arguments(parameters, inside)
        made = converters.take_in(theirs.schema)
    except TypeError as error:
        raise TypeError(f"{read.name}: {error}") from None
    properties, ours = {}, schema.get("properties", {})
    listed = {theirs.names[name]: name for name in made["properties"] if name in theirs.names}
    for parameter in parameters:
        if not parameter.theirs:
            properties[parameter.name] = ours[parameter.name]
            continue
        name = listed[parameter.name]
        if name in ours or name == read.context:
            raise TypeError(f"{read.name}: the alias {name!r} is the name of another parameter")
        extras = [extra for extra in getattr(parameter.hint, "__metadata__", ()) if isinstance(extra, (str, dict))]
        properties[name] = constraints.describe(made["properties"][name], tuple(extras))
        if parameter.name in read.texts:
            properties[name].setdefault("description", read.texts[parameter.name])
    must = {*schema.get("required", ()), *(name for name in made.get("required", ()) if name in theirs.names)}
    required = {"required": [name for name in properties if name in must]} if must else {}
    loose = theirs.open | {name for name in listed.values() if not _can_check(properties[name], converters.defs)}

    def bind_all(arguments: dict[str, Any]) -> dict[str, Any]:
        rest = {name: value for name, value in arguments.items() if name not in theirs.names}
        return {**bind(rest), **theirs.bind(arguments)}

    return {"type": "object", "properties": properties, **required, "additionalProperties": False}, bind_all, loose


def _can_check(schema: Schema, defs: dict[str, Schema]) -> bool:
    """Say whether a schema of pydantic's has only patterns and keywords that can be held against a value here."""
    try:
        validator.check_schema({**schema, "$defs": defs})
    except ValueError:
        return False
    return True


def raw_signature(function: Any, context_type: type | None, schema: Schema) -> Signature:
    """Read the signature of a function whose arguments have a schema of their own and arrive unchanged.

    :raises TypeError: as `signature` does, except that hints other than the Context's do not matter.
    """
    read = _Read(function, context_type)
    for parameter in read.named:
        extras = getattr(read.hints.get(parameter.name), "__metadata__", ())
        if any(map(models.is_theirs, (parameter.default, *extras))) or constraints.flatten(extras):
            raise TypeError(
                f"{read.name}: parameter {parameter.name}: with a schema of its own a tool gets its arguments as they "
                "came, and nothing checks or fills what the hint or default says: write that into the schema"
            )
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

    return Signature(schema, schema, read.context, bind, read.text, read.returns)


def _bare(function: Any) -> Any:
    """Return what a callable wraps, as far as that has the parameters of the callable."""
    if inspect.ismethod(function):
        return function

    def stop(each: Any) -> bool:
        return hasattr(each, "__signature__") or isinstance(each, functools.partial)

    function = inspect.unwrap(function, stop=stop)
    if not isinstance(function, functools.partial) or hasattr(function, "__signature__"):
        return function
    made = functools.partial(_bare(function.func), *function.args, **function.keywords)
    if "__doc__" in function.__dict__:
        made.__doc__ = function.__doc__
    return made


def _doc(function: Any) -> str | None:
    """Return the docstring of a callable; a partial without its own has that of its function."""
    while isinstance(function, functools.partial) and "__doc__" not in function.__dict__:
        function = function.func
    return inspect.getdoc(function)


def _plain(function: Any, name: str) -> Any:
    """Return the function behind a callable.

    :raises TypeError: when it cannot be called with keywords, or does not block.
    """
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


def _openbinder(known: set[str], bind: Bind, others: Load, context: str | None) -> Bind:
    """Return a binder for a function with `**kwargs`, which receive arguments without a parameter."""

    def bind_all(arguments: dict[str, Any]) -> dict[str, Any]:
        if context in arguments:
            raise InvalidArguments(f'"{context}" is not a known argument')
        rest = {name: _load(name, others, item) for name, item in arguments.items() if name not in known}
        return {**rest, **bind({name: item for name, item in arguments.items() if name in known})}

    return bind_all


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


def dumper(hint: Any) -> Callable[[Any], Any]:
    """Return the function that makes JSON data of what a function with this return hint returns.

    It raises InvalidArguments for a value that the hint's own checks refuse.
    """
    if models.comes_from_pydantic(hint, inside):
        return models.Adapter(hint, False, inside).dump
    return to_json


def _is_data(hint: Any, is_content: Callable[[Any], bool]) -> bool:
    if is_content(hint):
        return False
    if hasattr(hint, "__metadata__"):
        # A text that has to fit something is data, or nothing would check it.
        checks = [extra for extra in hint.__metadata__ if not isinstance(extra, str)]
        return _is_data(hint.__origin__, is_content) or (hint.__origin__ is str and bool(checks))
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
