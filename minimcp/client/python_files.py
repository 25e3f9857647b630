"""Python files as targets, `FILE.py` or `FILE.py:NAME`: `minimcp run` serves them."""

from __future__ import annotations

import difflib
import os
import re
import sys
from typing import Any

Message = dict[str, Any]

_NAME = re.compile(r"(?<=\.py):(\w+)\Z", re.IGNORECASE)
# Of a file with the name of this package, which hides the package from Python.
HIDING = "{} has the name of this package, so that `import minimcp` finds that file: give it another name"


def split(target: str) -> tuple[str, str]:
    """Return the path of a file and the name of the Server in it, "" without one.

    The colon after a drive of Windows, as in `C:\\server.py`, is part of the path.
    """
    found = _NAME.search(target)
    return (target, "") if found is None or os.path.exists(target) else (target[: found.start()], found[1])


def no_file(path: str) -> str:
    """Return the text for a file that is not there, with the one that was probably meant."""
    if os.path.isdir(path):
        return f"{path!r} is a folder; write a file in it"
    said = f"There is no file {path!r}"
    folder, name = os.path.split(path)
    stem, suffix = os.path.splitext(name)
    for better in (f"{path}.py", os.path.join(folder, *name.split(".")) + ".py"):
        if os.path.isfile(better):
            return f"{said}; did you mean {better}?"
    try:
        known = {os.path.splitext(each)[0]: each for each in os.listdir(folder or os.curdir) if each.endswith(suffix)}
    except OSError:
        known = {}
    near = difflib.get_close_matches(stem, known, 1) if suffix else []
    return f"{said}; did you mean {os.path.join(folder, known[near[0]])}?" if near else said


def check_hidden(path: str, folder: str) -> None:
    """Refuse to start a server where Python would take a file for this package.

    :param path: the file of the server, and `folder` the one that it is started in.
    :raises ValueError: naming that file.
    """
    for found in (path, os.path.join(folder, "minimcp.py")):
        if os.path.basename(found) == "minimcp.py" and os.path.isfile(found):
            raise ValueError(HIDING.format(os.path.abspath(found)))


def entry(file: str) -> Message:
    """Return the `mcpServers` entry of the server in a file, `FILE.py` or `FILE.py:NAME`."""
    # The process uses the same minimcp as this one.
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    folders = dict.fromkeys([home, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])
    arguments = ["-m", "minimcp", "run", file]
    return {"command": sys.executable, "args": arguments, "env": {"PYTHONPATH": os.pathsep.join(folders)}}
