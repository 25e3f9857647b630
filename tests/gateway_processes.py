"""A gateway as a process of its own, for tests that go through it, kill it, or count what it leaves behind."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.helpers import Process

ROOT = Path(__file__).resolve().parent.parent
# Runs the command line with every message that is emitted held against the official schema of its revision.
WATCHED = """
import sys
from tests import official

class Found(list):
    def append(self, text):
        with open({file!r}, "a", encoding="utf-8") as file:
            file.write(text + "\\n")

official.violations = Found()
official.watch_emissions()
from minimcp.cli.main import main
from minimcp.gateway import gateway
gateway._GREETING_S = 60.0  # or `listTimeout`: servers that start on a busy machine take their time
sys.exit(main(sys.argv[1:]))
"""


def watched(violations: Path) -> list[str]:
    """The command `minimcp`, which writes what breaks the official schema to a file."""
    violations.touch()
    return [sys.executable, "-c", WATCHED.format(file=str(violations))]


def python(*arguments: str, **more: Any) -> dict[str, Any]:
    """The `mcpServers` entry of a program of this checkout."""
    env = {"PYTHONPATH": str(ROOT), **more.pop("env", {})}
    return {"command": sys.executable, "args": list(arguments), "env": env, **more}


def write_config(file: Path, servers: dict[str, Any], **options: Any) -> None:
    """Write a configuration in one step: a gateway that looks at the file sees the old one or the new one."""
    # On a busy machine its servers may start slowly, and are waited for.
    config = {"mcpServers": servers, "gateway": {"port": 0, "log": False, "listTimeout": 60, **options}}
    made = file.with_suffix(".new")
    made.write_text(json.dumps(config), encoding="utf-8")
    os.replace(made, file)


class GatewayProcess(Process):
    """`python -m minimcp gateway FILE` on a free port, listening when constructed.

    :param servers: its `mcpServers`.
    :param folder: where its configuration is written.
    :param options: its other options, over those of a quiet gateway.
    :ivar url: its endpoint.
    :ivar file: its configuration.
    :ivar violations: what it emitted that breaks the official schema.
    """

    def __init__(self, servers: dict[str, Any], folder: Path, **options: Any) -> None:
        self.file = folder / "gateway.json"
        self._violations = folder / "violations"
        write_config(self.file, servers, **options)
        super().__init__([*watched(self._violations), "gateway", str(self.file)], cwd=str(ROOT), PYTHONPATH=str(ROOT))
        try:
            self.url = self.wait_for(r"(http://[\w.:\[\]]+/mcp)")[1]
        except BaseException:
            self.__exit__()
            raise

    @property
    def violations(self) -> str:
        return self._violations.read_text(encoding="utf-8")
