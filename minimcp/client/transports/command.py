"""The command of a server: its program, its environment, and the command as it is shown.

Spec: TRN-009
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess

from ...engines.errors import ConnectionLost

_INHERITED = {"HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER", "LANG", "LANGUAGE", "TZ", "TMPDIR"}
_INHERITED_WINDOWS = {
    *("APPDATA", "COMSPEC", "HOMEDRIVE", "HOMEPATH", "LOCALAPPDATA", "PATH", "PATHEXT", "PROCESSOR_ARCHITECTURE"),
    *("PROGRAMDATA", "PROGRAMFILES", "PROGRAMFILES(X86)", "PROGRAMW6432", "SYSTEMDRIVE", "SYSTEMROOT", "TEMP", "TMP"),
    *("TZ", "USERNAME", "USERPROFILE", "WINDIR"),
}
_INHERITED_PREFIXES = ("LC_", "XDG_")
_SECRET = re.compile(r"key|token|secret|passw|auth|credential", re.IGNORECASE)
_VALUE = re.compile(rf"((?:{_SECRET.pattern})[^=:\s]*[=:]|bearer\s).*", re.IGNORECASE | re.DOTALL)
_USER = re.compile(r"://[^/@\s]+@")
# What follows one of these has a name and a value, and the value may be a secret whatever the name.
_PAIR = re.compile(r"(?:-e|-H|--env|--header)\Z")
_PAIR_VALUE = re.compile(r"((?:--env=|--header=)?[^=:]*[=:]).*", re.DOTALL)


def split_words(text: str, windows: bool = os.name == "nt") -> list[str]:
    """Split a command into words, as the shells of the system do.

    :param windows: whether a backslash separates folders, and only double quotes keep spaces.
    :raises ValueError: for a quotation that has no end.
    """
    if not windows:
        return shlex.split(text)
    if text.count('"') % 2:
        raise ValueError("No closing quotation")
    return [word.replace('"', "") for word in re.findall(r'(?:[^\s"]|"[^"]*")+', text)]


def join_words(words: list[str], windows: bool = os.name == "nt") -> str:
    """Return the words of a command as one types them."""
    return subprocess.list2cmdline(words) if windows else shlex.join(words)


def environment(extra: dict[str, str] | None) -> dict[str, str]:
    """Return the variables a server gets: harmless ones of this process and those in `extra`, no inherited secrets."""
    windows = os.name == "nt"
    names = _INHERITED_WINDOWS if windows else _INHERITED
    kept = {
        name: value
        for name, value in os.environ.items()
        # A value that starts like this is a function exported by bash, which a shell in the child would run.
        if (name.upper() in names if windows else name in names or name.startswith(_INHERITED_PREFIXES))
        and not value.startswith("()")
    }
    return {**kept, **(extra or {})}


def find(command: list[str], env: dict[str, str], cwd: str | None) -> list[str]:
    """Return the command with the full path of its program; it runs without a shell.

    :raises ConnectionLost: when there is no such program, or it may not be run.
    """
    program = command[0]
    if os.path.dirname(program):
        program = os.path.abspath(os.path.join(cwd or os.curdir, program))
    found = shutil.which(program, path=env.get("PATH"))
    if found is None:
        why = "is not executable" if os.path.isfile(program) else "was not found"
        where = "" if os.path.dirname(program) else " on the PATH"
        raise ConnectionLost(f"The server did not start: the command {command[0]!r} {why}{where}", "always")
    if found.lower().endswith((".cmd", ".bat")) and any(re.search(r'["%&|<>^!\r\n]', word) for word in command[1:]):
        # Windows gives such a file to cmd.exe, which would run the text after one of these characters.
        raise ConnectionLost(f'{command[0]!r} is a batch file: its arguments may not contain any of "%&|<>^!', "always")
    return [found, *command[1:]]


def shown(command: list[str]) -> str:
    """Return a command for messages, without the values of arguments that look like secrets."""
    words, hide, pair = [], False, False
    for word in command:
        hidden = "..." if hide else _USER.sub("://...@", _VALUE.sub(r"\1...", word))
        hide = word.startswith("-") and hidden == word and bool(_SECRET.search(word))
        if hidden == word and (pair or word.startswith(("--env=", "--header="))):
            hidden = _PAIR_VALUE.sub(r"\1...", word)
        pair = bool(_PAIR.match(word))
        words.append(hidden)
    text = " ".join(join_words(words).split())
    return text if len(text) <= 200 else text[:197] + "..."
