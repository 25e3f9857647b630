"""Arguments as they are typed, `KEY=VALUE` and `KEY:=JSON`, converted by the schema of a tool."""

from __future__ import annotations

from typing import Any

from ..engines.schema import text
from ..engines.schema.values import ConversionError

Message = dict[str, Any]


def arguments(words: list[str], schema: Message) -> Message:
    """Convert words such as `a=1`, `tags=x`, `tags=y` and `where:={"x": 1}` to the arguments of a tool.

    :param schema: the tool's inputSchema.
    :raises ValueError: saying which word is wrong.
    """
    properties = schema.get("properties")
    found: Message = {}
    typed: dict[str, list[str]] = {}
    for word in words:
        try:
            name, raw, value = split(word)
        except ValueError as problem:
            takes = ", ".join(properties) if isinstance(properties, dict) else ""
            raise ValueError(
                f"{problem}; the tool takes {takes}" if takes and word[:1] != "{" and "=" not in word else str(problem)
            ) from None
        if name in found or (raw and name in typed):
            raise ValueError(f"{name} is given twice")
        if raw:
            found[name] = parse(value, name)
        else:
            typed.setdefault(name, []).append(value)
    for name, values in typed.items():
        known = properties.get(name) if isinstance(properties, dict) else None
        if len(values) > 1 and "array" not in text.allowed(known, schema):
            raise ValueError(f"{name} is given twice")
        convert = text.convert if len(values) == 1 else text.convert_item
        try:
            converted = [convert(value, known, schema) for value in values]
        except ConversionError as problem:
            raise ValueError(f"{name} {problem}") from None
        found[name] = converted[0] if len(values) == 1 else converted
    return found


def split(word: str) -> tuple[str, bool, str]:
    """Split a word into its name, whether the value is JSON, and the value.

    :raises ValueError: when it is not of this form.
    """
    name, equals, value = word.partition("=")
    raw = name.endswith(":")
    name = name[:-1] if raw else name
    if word.startswith("{"):
        raise ValueError("a JSON object of arguments follows an option: --arguments '{...}'")
    if not equals or not name:
        raise ValueError(f"an argument is KEY=VALUE or KEY:=JSON, not {word!r}")
    return name, raw, value


def parse(typed: str, name: str) -> Any:
    """Parse JSON that was typed.

    :raises ValueError: naming the argument.
    """
    try:
        return text.parse(typed)
    except ValueError as error:
        raise ValueError(f"{name} is not JSON: {error}") from None
