"""The command `completion`: a script for a shell, which asks this command again what may follow the words so far."""

from __future__ import annotations

import argparse
import os
from typing import Any, Optional

from ..client import targets
from .parser import parsers

_BASH = """\
_minimcp() {
    local IFS=$'\\n'
    COMPREPLY=($("${COMP_WORDS[0]}" completion bash -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o bashdefault -o default -F _minimcp minimcp
"""
_ZSH = """\
#compdef minimcp
_minimcp() {
    local -a found
    found=("${(@f)$("${words[1]}" completion zsh -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "${found[1]}" ]]; then
        compadd -a found
    else
        _files
    fi
}
if [[ "${funcstack[1]}" == _minimcp ]]; then
    _minimcp "$@"
else
    compdef _minimcp minimcp
fi
"""
_FISH = """\
function __minimcp_complete
    set -l before (commandline -opc)
    set -l current (commandline -ct)
    $before[1] completion fish -- $before[2..-1] "$current" 2>/dev/null
end
complete -c minimcp -a '(__minimcp_complete)'
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def completion(options: Any) -> int:
    """Print the script, or with words what may stand in place of the last one, a line each; nothing means a file.

    :param options: `shell`, and `words`, those typed so far after the name of the program.
    """
    if options.words:
        for each in candidates(options.words):
            print(each)
    else:
        print(_SCRIPTS[options.shell], end="")
    return 0


def candidates(words: list[str]) -> list[str]:
    """Return what may stand in place of the last of the words, which has only begun; no server is started for it."""
    parser, commands = parsers()
    *before, current = words
    if not before or before == ["help"]:
        return _matching(current, [*commands, "help", *(parser._option_string_actions if not before else ())])
    if before[0] not in commands or "--" in before:
        return []
    known = commands[before[0]]
    wanted = _wanted(known, before[1:])
    if wanted is not None and wanted.option_strings:
        return _matching(current, _values(wanted, before))
    if current.startswith("-"):
        return _matching(current, [name for name in known._option_string_actions if name.startswith("--")])
    return _matching(current, _values(wanted, before)) if wanted is not None else []


def _wanted(parser: argparse.ArgumentParser, before: list[str]) -> Optional[argparse.Action]:
    """Return what the next word is for: the value of the option before it, or the next argument without a name."""
    positional = [action for action in parser._actions if not action.option_strings]
    waiting: Optional[argparse.Action] = None
    place = 0
    for word in before:
        option = parser._option_string_actions.get(word)
        if waiting is not None:
            waiting = None
        elif option is not None:
            # --trace and --login take their value after an equals sign.
            takes = option.nargs is None and word not in ("--trace", "--login")
            waiting = option if takes else None
        elif not word.startswith("-"):
            place += 1
    return waiting or (positional[min(place, len(positional) - 1)] if positional else None)


def _values(action: argparse.Action, words: list[str]) -> list[str]:
    if action.choices:
        return [str(each) for each in action.choices]
    if action.dest == "server":
        return _servers(words)
    return []


def _servers(words: list[str]) -> list[str]:
    """Return the names of the servers in the configuration among the words."""
    for word in words:
        if word.lower().endswith(".json") and os.path.isfile(word):
            try:
                return list(targets.entries(word))
            except (OSError, ValueError):
                return []
    return []


def _matching(current: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(current)]
