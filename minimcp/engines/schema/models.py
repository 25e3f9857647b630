"""Hints that come from pydantic: it makes their schemas itself, and reads and writes their values.

It is no dependency: nothing here imports it unless a hint of the author's comes from it.
"""

from __future__ import annotations

import inspect
import json
import operator
import sys
import typing
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Annotated, Any, NamedTuple

from ..errors import InvalidArguments
from .values import ConversionError, Schema

_PACKAGES = {"pydantic", "pydantic_core", "pydantic_extra_types"}
_HOOKS = ("__get_pydantic_core_schema__", "__get_pydantic_json_schema__", "__pydantic_validator__")
# Steps before the type is looked at: whether a value fits the listed schema says nothing then.
_BEFORE = {"function-before", "function-wrap", "function-plain"}
_RENAMING = ("populate_by_name", "validate_by_name", "strip_whitespace")
Make = Callable[[str], Schema]  # f(template of references) -> schema
Members = Callable[[Any], list[Any]]  # f(class) -> the hints and defaults of its members


class Parameter(NamedTuple):
    """A parameter of a function whose arguments pydantic reads."""

    name: str
    hint: Any
    default: Any  # `inspect.Parameter.empty` for none
    theirs: bool  # whether its hint or default comes from pydantic


def annotated(hint: Any, extras: Iterable[Any]) -> Any:
    """Return a hint with what `Annotated` says of it, the hint itself for nothing."""
    parts = (hint, *extras)
    return operator.getitem(Annotated, parts) if len(parts) > 1 else hint


def is_theirs(thing: Any) -> bool:
    """Say whether a class, a default or an item of `Annotated` is pydantic's, or made for it."""
    if _PACKAGES.isdisjoint(sys.modules):
        return False  # Whatever comes from it has loaded it.
    cls = thing if isinstance(thing, type) else type(thing)
    named = any(base.__module__.partition(".")[0] in _PACKAGES for base in cls.__mro__)
    return named or any(hasattr(thing, hook) for hook in _HOOKS) or "__pydantic_config__" in cls.__dict__


def comes_from_pydantic(hint: Any, members: Members) -> bool:
    """Say whether anything in a hint is pydantic's; then the whole hint is."""
    return not _PACKAGES.isdisjoint(sys.modules) and any(map(is_theirs, _parts(hint, members, {})))


def _parts(hint: Any, members: Members, seen: dict[int, Any]) -> Iterator[Any]:
    """Yield a hint and everything in it: arguments, items of `Annotated`, aliased types and members of classes."""
    if id(hint) in seen:
        return
    seen[id(hint)] = hint
    yield hint
    inner = list(typing.get_args(hint))
    origin = typing.get_origin(hint)
    for alias in (hint, origin):
        inner += [getattr(alias, name) for name in ("__supertype__", "__value__") if hasattr(alias, name)]
    cls = origin or hint
    if isinstance(cls, type):
        yield cls
        inner += [] if is_theirs(cls) else members(cls)
    for part in inner:
        yield from _parts(part, members, seen)


@lru_cache
def _generator() -> Any:
    from pydantic.json_schema import GenerateJsonSchema

    class Untitled(GenerateJsonSchema):
        """Makes schemas without the names of members once more as their titles."""

        ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}

        def field_title_should_be_set(self, schema: Any) -> bool:
            return False

    return Untitled


def _refusing(work: Callable[[], Any]) -> Any:
    """Do what pydantic may refuse.

    :raises TypeError: with its reason, for a hint that it cannot use or that has no JSON form.
    """
    try:
        return work()
    except Exception as error:  # it has many, and raises those of validators and custom types too
        raise TypeError(f"pydantic cannot use this hint: {str(error).strip()[:300]}") from None


class Adapter:
    """One hint: its schema, and how JSON becomes its values and its values become JSON.

    :raises TypeError: for a hint that pydantic refuses.
    """

    def __init__(self, hint: Any, inputs: bool, members: Members) -> None:
        _check_extras(hint, members)

        def adapter() -> Any:
            from pydantic import TypeAdapter

            return TypeAdapter(hint)

        self._adapter = _refusing(adapter)
        self._mode = "validation" if inputs else "serialization"
        self.opens = _opens(self._adapter.core_schema)

    def schema(self, template: str) -> Schema:
        """Return the schema, with its definitions."""
        make = self._adapter.json_schema
        return dict(_refusing(lambda: make(ref_template=template, mode=self._mode, schema_generator=_generator())))

    def load(self, value: Any) -> Any:
        """Return the value that JSON data stands for."""
        try:
            return self._adapter.validate_json(json.dumps(value))
        except ValueError as error:
            raise refusal(error) from None

    def dump(self, value: Any) -> Any:
        """Return a value as JSON data, once the hint's own checks have passed it.

        :raises InvalidArguments: when they do not.
        """
        try:
            value = self._adapter.validate_python(value)
        except ValueError as error:
            raise InvalidArguments(f"it {refusal(error)}") from None
        return self._adapter.dump_python(value, mode="json", by_alias=True)


class Arguments:
    """All parameters of a function as one model, so that validators see the arguments before theirs.

    The others take part as the JSON that came.

    :ivar names: the parameter for each name that an argument of pydantic's may come by, aliases included.
    :ivar required: the names that must be there.
    :ivar open: the names whose values pydantic alone can judge.
    :raises TypeError: for a hint or an alias that cannot be used.
    """

    def __init__(self, parameters: list[Parameter], members: Members) -> None:
        for parameter in parameters:
            if parameter.theirs:
                _check_extras(parameter.hint, members)
        self._model, own = _refusing(lambda: _model(parameters))
        self._kept: list[tuple[str, str, bool]] = []  # parameter, member of the model, whether its default counts
        self.names: dict[str, str] = {}
        self.open: set[str] = set()
        for parameter in parameters:
            if not parameter.theirs:
                continue
            member = own[parameter.name]
            info = self._model.model_fields[member]
            alias = info.validation_alias or member
            aliases = getattr(alias, "choices", [alias])
            if not all(isinstance(name, str) for name in aliases) or self.names.keys() & set(aliases):
                raise TypeError(f"parameter {parameter.name}: its alias is no name of its own")
            self.names.update(dict.fromkeys(aliases, parameter.name))
            hint = annotated(info.annotation, info.metadata)
            if len(aliases) > 1 or _refusing(lambda hint=hint: Adapter(hint, True, members).opens):  # type: ignore
                self.open.update(aliases)
            plain = parameter.default is not inspect.Parameter.empty and not _field_infos(parameter)
            self._kept.append((parameter.name, member, not plain))

    def schema(self, template: str) -> Schema:
        """Return the schema of all arguments, with its definitions."""
        make = self._model.model_json_schema
        return dict(_refusing(lambda: make(ref_template=template, schema_generator=_generator())))

    def bind(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the keyword arguments of the function.

        :raises InvalidArguments: when pydantic refuses one.
        """
        from pydantic import ValidationError

        try:
            model = self._model.model_validate_json(json.dumps(arguments))
        except ValidationError as error:
            raise InvalidArguments("; ".join(_problems(error))[:900]) from None
        except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError, AttributeError):
            raise InvalidArguments("The arguments cannot be turned into the types that are expected") from None
        there = model.model_fields_set
        return {name: getattr(model, member) for name, member, always in self._kept if always or member in there}


def _model(parameters: list[Parameter]) -> tuple[Any, dict[str, str]]:
    """Return the model of all parameters, and the name of its member for each."""
    from pydantic import BaseModel, Field

    own: dict[str, str] = {}
    hints: dict[str, Any] = {}
    space: dict[str, Any] = {}
    for name, hint, default, theirs in parameters:
        member = name
        if name.startswith("_") or hasattr(BaseModel, name):
            member = f"argument_{name.lstrip('_')}_{len(own)}"
            extras = getattr(hint, "__metadata__", ())
            plain = hint.__origin__ if extras else hint
            hint = annotated(plain, (Field(validation_alias=name), *extras))
        own[name], hints[member] = member, hint if theirs else Any
        if default is not inspect.Parameter.empty or not theirs:
            space[member] = default if theirs else None
    config = {"protected_namespaces": ()}
    model: Any = type(BaseModel)
    space.update({"__annotations__": hints, "__module__": __name__, "model_config": config})
    return model("Arguments", (BaseModel,), space), own


def _field_infos(parameter: Parameter) -> list[Any]:
    """Return pydantic's descriptions of a parameter: its default and those in its `Annotated`."""
    found = (parameter.default, *getattr(parameter.hint, "__metadata__", ()))
    return [each for each in found if is_theirs(each) and hasattr(each, "validation_alias")]


def permits_none(default: Any, hint: Any) -> bool:
    """Say whether a parameter's default is None, its own or that of pydantic's `Field`."""
    infos = _field_infos(Parameter("", hint, default, True))
    return default is None or any(getattr(info, "default", ...) is None for info in infos)


def _check_extras(hint: Any, members: Members) -> None:
    """Refuse what pydantic would pass over in silence.

    :raises TypeError: naming what to write.
    """
    outermost = getattr(hint, "__metadata__", ())
    for part in _parts(hint, members, {}):
        if isinstance(part, dict) and not any(part is extra for extra in outermost):
            raise TypeError("keywords of JSON Schema inside a hint of pydantic: write Field(json_schema_extra=...)")
        check_extra(part)


def check_extra(extra: Any) -> None:
    """Refuse an item of `Annotated` that looks like a check and is none.

    :raises TypeError: naming what to write.
    """
    if inspect.isroutine(extra) or isinstance(extra, (range, slice)):
        raise TypeError(
            f"{getattr(extra, '__name__', extra)} in Annotated checks nothing: write annotated_types.Predicate, "
            "Interval or Len, or a validator of pydantic"
        )


def _opens(core: Any) -> bool:
    """Say whether a value that does not fit the listed schema may be right all the same."""
    if isinstance(core, dict):
        if core.get("type") in _BEFORE or any(core.get(name) is True for name in _RENAMING):
            return True
        if core.get("type") == "model-field" and isinstance(core.get("validation_alias"), list):
            return True
        return any(map(_opens, core.values()))
    return isinstance(core, (list, tuple)) and any(map(_opens, core))


def _problems(error: Any) -> list[str]:
    """Return what a ValidationError says, in sentences that begin with the place."""
    details = error.errors(include_url=False, include_context=False, include_input=False)[:3]
    places = ["".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in detail["loc"])[1:] for detail in details]
    return [
        (f'"{place[:120]}"' if place else "The value") + f" is refused ({_reason(detail)[:300]})"
        for place, detail in zip(places, details)
    ]


def _reason(detail: Any) -> str:
    return str(detail["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")


def refusal(error: Exception) -> ConversionError:
    """Return the error for an exception of a class or a hint that refused a value."""
    details = getattr(error, "errors", None)
    if callable(details):  # pydantic
        problems = [
            f"{'.'.join(map(str, detail['loc'])) or 'the value'}: {_reason(detail)}" for detail in details()[:3]
        ]
        return ConversionError(f"is refused ({'; '.join(problems)[:300]})")
    return ConversionError(
        f"is refused ({str(error)[:200]})" if isinstance(error, ValueError) else "is refused by its type"
    )
