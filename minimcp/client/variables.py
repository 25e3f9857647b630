"""Variables in the texts of a configuration, which come from the environment and from files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any, Optional

# With one more dollar sign before it, it stands for itself.
_VARIABLE = re.compile(r"\$?\$\{(\w+)(?::([^}]*))?\}")
_MOST_BYTES = 64 * 1024

# Told of a reference as it is written, and of its value.
Note = Callable[[str, str], object]


def expand(value: Any, place: str = "", note: Optional[Note] = None) -> Any:
    """Return a JSON value with the variables in its texts replaced.

    `${NAME}`, `${NAME:-default}` and `${env:NAME}` are of the environment, as hosts have it. `${file:PATH}` is what a
    file contains, without the space around it. `$${NAME}` is the text `${NAME}`.

    :param place: names the value in messages, which never show what a variable holds.
    :raises ValueError: for a variable that is not known, or a file that cannot be read.
    """
    if isinstance(value, str):
        return _VARIABLE.sub(lambda found: _value(found, place, note), value)
    if isinstance(value, list):
        return [expand(item, f"{place}[{number}]", note) for number, item in enumerate(value)]
    if isinstance(value, dict):
        return {key: expand(item, f"{place}.{key}" if place else str(key), note) for key, item in value.items()}
    return value


def verbatim(value: Any) -> Any:
    """Return the JSON value that `expand` makes this one of: its texts stand for themselves."""
    return _each(value, lambda text: _VARIABLE.sub(r"$\g<0>", text))


def anchored(value: Any, folder: str) -> Any:
    """Return a JSON value in which the files of `${file:PATH}` have absolute paths, from a folder on."""
    return _each(value, lambda text: _VARIABLE.sub(lambda found: _anchor(found, folder), text))


def _each(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_each(item, change) for item in value]
    if isinstance(value, dict):
        return {key: _each(item, change) for key, item in value.items()}
    return value


def _anchor(found: re.Match[str], folder: str) -> str:
    if found[1] != "file" or not found[2] or found[0].startswith("$$"):
        return found[0]
    return f"${{file:{os.path.join(folder, os.path.expanduser(found[2]))}}}"


def _value(found: re.Match[str], place: str, note: Optional[Note]) -> str:
    if found[0].startswith("$$"):
        return found[0][1:]
    name, rest = found[1], found[2]
    default: Optional[str] = None
    if rest is not None and rest.startswith("-"):
        default = rest[1:]
    elif rest is not None and name == "file":
        value = _contents(rest, place)
        if note is not None:
            note(found[0], value)
        return value
    elif rest is not None and name == "env":
        name, mark, text = rest.partition(":-")
        default = text if mark else None
    elif rest is not None:
        raise ValueError(f"{place} has {found[0]}, which is not known; ${{NAME}}, ${{env:NAME}} and ${{file:PATH}} are")
    known = os.environ.get(name, default)
    if known is None:
        raise ValueError(f"{place} needs the environment variable {name}, which is not set")
    if note is not None:
        note(found[0], known)
    return known


def _contents(path: str, place: str) -> str:
    try:
        # Whatever else there is may never end, or wait for a writer.
        if os.path.exists(path) and not os.path.isfile(path):
            raise ValueError("it is no file")
        with open(os.path.expanduser(path), "rb") as file:
            raw = file.read(_MOST_BYTES + 1)
        if len(raw) > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES} bytes")
        return raw.decode().strip()
    except UnicodeDecodeError:
        raise ValueError(f"{place} needs the file {path!r}, which is not UTF-8") from None
    except (OSError, ValueError) as problem:
        said = problem.strerror if isinstance(problem, OSError) else str(problem)
        raise ValueError(f"{place} needs the file {path!r}, which cannot be read: {said}") from None
