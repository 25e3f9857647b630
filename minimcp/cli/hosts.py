"""The hosts that a server can be written into: where their configuration is, and how an entry looks there."""

from __future__ import annotations

import os
import sys
from typing import Any, NamedTuple, Optional

Message = dict[str, Any]


class Host(NamedTuple):
    """A program that uses servers.

    :ivar title: its name for people.
    :ivar file: the path of the user's configuration, in which a first part in capitals is a folder of the system.
    :ivar project: the path of the configuration of a project, in its folder; "" for none.
    :ivar key: the member that holds the servers.
    :ivar typed: whether an entry of a process says that it is one.
    :ivar urls: whether an entry may be a URL.
    :ivar then: what has to be done so that it takes notice.
    """

    title: str
    file: str
    project: str = ""
    key: str = "mcpServers"
    typed: bool = True
    urls: bool = True
    then: str = ""

    def path(self, folder: Optional[str] = None) -> str:
        """Return the path of the configuration.

        :param folder: that of a project, None for the user's own.
        """
        if folder is not None:
            return os.path.join(os.path.abspath(folder), *self.project.split("/"))
        first, *rest = self.file.split("/")
        return os.path.join(_folder(first), *rest)

    def entry(self, found: Message) -> Message:
        """Return an entry as this host has it."""
        if "url" in found:
            return {"type": "http", **found}
        return {"type": "stdio", **found} if self.typed else found


HOSTS = {
    "claude-desktop": Host(
        "Claude Desktop",
        "APPLICATIONS/Claude/claude_desktop_config.json",
        typed=False,
        urls=False,
        then="Quit Claude Desktop and start it again to use it.",
    ),
    "claude-code": Host(
        "Claude Code", "HOME/.claude.json", ".mcp.json", then="Claude Code uses it from the next session on."
    ),
    "cursor": Host(
        "Cursor", "HOME/.cursor/mcp.json", ".cursor/mcp.json", then="Switch it on in the settings of Cursor, under MCP."
    ),
    "vscode": Host(
        "Visual Studio Code",
        "APPLICATIONS/Code/User/mcp.json",
        ".vscode/mcp.json",
        "servers",
        then='Start it with "MCP: List Servers" in the command palette.',
    ),
    "json": Host("the file", "", typed=False),
}


def _folder(name: str) -> str:
    """Return a folder of the system: HOME, or APPLICATIONS, in which programs keep the settings of a user."""
    home = os.path.expanduser("~")
    if name == "HOME":
        return home
    if sys.platform == "darwin":
        return os.path.join(home, "Library", "Application Support")
    if sys.platform == "win32":
        return os.environ.get("APPDATA") or os.path.join(home, "AppData", "Roaming")
    return os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
