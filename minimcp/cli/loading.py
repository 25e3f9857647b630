"""Loading of the Server in a Python file; what goes wrong in the file is told by its author's own traceback."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Iterable
from typing import Any

from ..client import python_files

_RELATIVE = re.compile(rb"^\s*from\s+\.", re.MULTILINE)
_MOST_NAMED = 8
_NEWER_UNION = "unsupported operand type(s) for |"


class LoadFailed(Exception):
    """A Python file failed when it was imported; the text is where and how, and its traceback from the file on."""

    def __init__(self, path: str, error: Exception) -> None:
        told = traceback.TracebackException.from_exception(error)
        _keep_own_frames(told)
        last = told.stack[-1] if told.stack else None
        where = (last.filename, last.lineno) if last else (path, None)
        if isinstance(error, SyntaxError) and error.filename:
            where = error.filename, error.lineno
        name, number = where
        name = path if os.path.abspath(name) == os.path.abspath(path) else name
        said = error.msg if isinstance(error, SyntaxError) else str(error)
        if sys.version_info < (3, 10) and isinstance(error, TypeError) and said.startswith(_NEWER_UNION):
            said += "; on old Pythons write Optional[X] and Union[X, Y] instead of X | Y"
        first = f"{name}{f', line {number}' if number else ''}: {type(error).__name__}: {said}"
        super().__init__(f"minimcp: {first}\n{''.join(told.format())}".rstrip("\n"))


def _keep_own_frames(told: Any) -> None:
    """Drop the frames of Python's and of our own library, from the causes too."""
    import sysconfig

    libraries = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    foreign = tuple(path + os.sep for path in (ours, *libraries) if path)
    seen = told
    while seen is not None:
        own = [frame for frame in seen.stack if not frame.filename.startswith(("<frozen ", *foreign))]
        seen.stack = traceback.StackSummary.from_list(own)
        seen = seen.__cause__ or seen.__context__


class WrongTarget(ValueError):
    """The target is no file, or the Server in it is not clear."""


class NoServer(WrongTarget):
    """A Python file has no Server among its names."""


def load(target: str) -> Any:
    """Import a file and return its Server.

    :raises LoadFailed: when the file raises an exception.
    :raises WrongTarget: when there is no file, no Server, or more than one to choose from.
    """
    from ..server.server import Server

    path, name = python_files.split(target)
    if not os.path.isfile(path):
        raise WrongTarget(python_files.no_file(path))
    if os.path.basename(path) == "minimcp.py":
        raise WrongTarget(python_files.HIDING.format(os.path.abspath(path)))
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    try:
        module = _import(path)
    except WrongTarget:
        raise
    except Exception as error:
        raise LoadFailed(path, error) from error
    servers = {key: value for key, value in vars(module).items() if isinstance(value, Server)}
    if name:
        found = getattr(module, name, None)
        if not isinstance(found, Server):
            raise WrongTarget(f"{path} has no Server named {name!r}{_choices(path, servers)}")
        return found
    if not servers:
        raise NoServer(f"{path} needs a module-level minimcp.Server, such as server = Server('name')")
    if len(set(map(id, servers.values()))) != 1:
        raise WrongTarget(f"{path} has several Servers{_choices(path, servers)}")
    return next(iter(servers.values()))


def _choices(path: str, servers: Iterable[str]) -> str:
    """Return the targets that a file has, as they are written."""
    names = sorted(servers)
    return f"; write {' or '.join(f'{path}:{name}' for name in names[:_MOST_NAMED])}" if names else ""


def _import(path: str) -> Any:
    """Run a file as a module, in its package if it imports relative to that, up to a `run` or `run_http` of its own."""
    from ..server.lifespan import StopLoading, loading

    with open(path, "rb") as file:
        relative = _RELATIVE.search(file.read())
    folder, stem = os.path.dirname(os.path.abspath(path)), os.path.splitext(os.path.basename(path))[0]
    names = [stem]
    while relative and os.path.isfile(os.path.join(folder, "__init__.py")):
        folder, package = os.path.split(folder)
        names.insert(0, package)
    # Other modules go on finding the one that they know under a name.
    name = f"served_{stem}" if stem in sys.modules else stem
    if len(names) > 1:
        sys.path.insert(0, folder)
        importlib.import_module(".".join(names[:-1]))
        name = ".".join(names)
        if name in sys.modules:
            return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise WrongTarget(f"{path!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loading.here = True
    try:
        spec.loader.exec_module(module)
    except StopLoading:
        pass
    finally:
        loading.here = False
    return module
