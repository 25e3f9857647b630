"""The command line: commands, options, and exit codes.

0    success
1    no connection, or the server answered with an error
2    wrong usage
3    the tool failed
130  Ctrl-C
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any, Optional

from .parser import parse

# The module and the function of each command that is not a client's; all others are in `commands`.
_COMMANDS = {
    "run": "run.run",
    "dev": "dev.dev",
    "worker": "worker.worker",
    "install": "install.install",
    "gateway": "gateway_command.gateway",
    "bridge": "bridge.bridge",
    "token": "token.token",
    "completion": "completion.completion",
    "audit": "audit_log.audit",
}


def main(arguments: Optional[list[str]] = None) -> int:
    """Run a command and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    options: Any = parse(words)
    if options is None:
        return 0
    module, function = _COMMANDS.get(options.command, "commands.run_command").split(".")
    try:
        code = int(getattr(import_module(f".{module}", __package__), function)(options))
        if options.command not in _COMMANDS:
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        if options.command in _COMMANDS:
            raise
        # The reader of the output has closed it; at exit it is flushed once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
