"""Classes with named members as JSON objects: dataclass, TypedDict, NamedTuple and pydantic models."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

from . import docstrings
from .scalars import Misfit
from .shapes import Load, Schema, Shape, Shapes, at, name_of, resolve

Member = tuple[str, Any, bool, Any]  # name, hint, whether it must be given, default
_NOTHING: Any = object()


def maker(cls: Any) -> Callable[[Shapes, Any, str], Shape] | None:
    """Return the function that makes the shape of a class, or None when the class has no named members."""
    if hasattr(cls, "model_json_schema") and hasattr(cls, "model_validate"):
        return _pydantic
    if hasattr(cls, "__dataclass_fields__"):
        return _dataclass
    if issubclass(cls, dict) and hasattr(cls, "__total__"):
        return _typed_dict
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return _named_tuple
    return None


def _dataclass(shapes: Shapes, cls: Any, name: str) -> Shape:
    import dataclasses

    hints = resolve(cls)
    members: list[Member] = []
    for field in dataclasses.fields(cls):
        if shapes.inputs and not field.init:
            continue
        default = _NOTHING if field.default is dataclasses.MISSING else field.default
        optional = default is not _NOTHING or field.default_factory is not dataclasses.MISSING
        members.append((field.name, hints[field.name], not (optional and shapes.inputs), default))
    schema, load = _object(shapes, cls, members)
    return schema, _constructor(cls, load)


def _named_tuple(shapes: Shapes, cls: Any, name: str) -> Shape:
    hints = resolve(cls)
    defaults = cls._field_defaults
    members = [
        (
            field,
            hints.get(field, Any),
            field not in defaults or not shapes.inputs,
            defaults.get(field, _NOTHING),
        )
        for field in cls._fields
    ]
    schema, load = _object(shapes, cls, members)
    return schema, _constructor(cls, load)


def _typed_dict(shapes: Shapes, cls: Any, name: str) -> Shape:
    required = getattr(cls, "__required_keys__", ())
    members: list[Member] = []
    for key, hint in resolve(cls).items():
        # The class itself cannot tell when its annotations are strings.
        marks = set()
        inner = hint
        while hasattr(inner, "__metadata__") or name_of(typing.get_origin(inner)) in _MARKS:
            marks.add(name_of(typing.get_origin(inner)))
            inner = inner.__origin__ if hasattr(inner, "__metadata__") else typing.get_args(inner)[0]
        needed = "Required" in marks or (key in required and "NotRequired" not in marks)
        members.append((key, hint, needed, _NOTHING))
    return _object(shapes, cls, members)


_MARKS = ("Required", "NotRequired", "ReadOnly")


def _object(shapes: Shapes, cls: Any, members: list[Member]) -> Shape:
    texts = docstrings.parse(cls.__doc__)[1]
    properties: dict[str, Schema] = {}
    loads: dict[str, Load] = {}
    for name, hint, _, default in members:
        try:
            found, load = shapes.of(hint)
        except TypeError as error:
            raise TypeError(f"{cls.__name__}.{name}: {error}") from None
        properties[name] = member = dict(found)
        if name in texts:
            member.setdefault("description", texts[name])
        if shapes.inputs and default is not _NOTHING:
            add_default(member, default)
        if load is not None:
            loads[name] = load
    schema: Schema = {"type": "object", "properties": properties}
    needed = [name for name, _, must, _ in members if must]
    if needed:
        schema["required"] = needed
    if shapes.inputs:
        schema["additionalProperties"] = False
    if not loads:
        return schema, None
    return schema, lambda value: {name: at(name, loads.get(name), item) for name, item in value.items()}


def add_default(schema: Schema, default: Any) -> None:
    """Put a default into a schema when JSON can say it."""
    from .jsonable import to_json

    try:
        schema.setdefault("default", to_json(default))
    except (TypeError, ValueError):
        pass


def _constructor(cls: Any, load: Load) -> Callable[[Any], Any]:
    def construct(value: Any) -> Any:
        members = value if load is None else load(value)
        try:
            return cls(**members)
        except (ValueError, TypeError) as error:
            raise refusal(error) from None

    return construct


def refusal(error: Exception) -> Misfit:
    """The misfit for an exception of a class that refused its members."""
    details = getattr(error, "errors", None)
    if callable(details):
        problems = [f"{'.'.join(map(str, detail['loc'])) or 'the value'}: {detail['msg']}" for detail in details()[:3]]
        return Misfit(f"is refused ({'; '.join(problems)[:300]})")
    if isinstance(error, ValueError) and str(error):
        return Misfit(f"is refused ({str(error)[:200]})")
    return Misfit("is refused by its type")


def _pydantic(shapes: Shapes, cls: Any, name: str) -> Shape:
    mode = "validation" if shapes.inputs else "serialization"
    schema = cls.model_json_schema(ref_template="#/$defs/{model}", mode=mode)
    definitions = schema.pop("$defs", {})
    if any(shapes.defs.get(key, found) != found for key, found in definitions.items() if key != name):
        # Another class has one of these names: give all of them names of their own.
        schema = cls.model_json_schema(ref_template=f"#/$defs/{name}.{{model}}", mode=mode)
        definitions = {f"{name}.{key}": found for key, found in schema.pop("$defs", {}).items()}
    shapes.defs.update(definitions)
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]

    def load(value: Any) -> Any:
        try:
            return cls.model_validate(value)
        except ValueError as error:
            raise refusal(error) from None

    return schema, load
