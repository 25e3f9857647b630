"""Several servers at once: one list of all their tools, and every call sent to the server that has the tool.

    python multi_server.py servers.json                                           # list the tools
    python multi_server.py servers.json clock__weekday '{"day": "2026-07-28"}'    # call one

The file has the form that hosts such as Claude and editors use:

    {"mcpServers": {"clock": {"command": "python", "args": ["hello.py"]}, "shop": {"url": "http://127.0.0.1:5000/mcp"}}}
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from typing import Any

from minimcp import Client, ClientError, clients


class Servers:
    """All servers of a file behind one face; tools are named `SERVER__TOOL`."""

    def __init__(self, file: str) -> None:
        self.clients = clients(file)
        self.failed: dict[str, ClientError] = {}
        self._routes: dict[str, tuple[Client, str]] = {}

    def __enter__(self) -> Servers:
        with ExitStack() as stack:
            for name, client in self.clients.items():
                try:
                    stack.enter_context(client)
                except ClientError as error:
                    self.failed[name] = error  # one that is broken must not take the others with it
            # Without an accident up to here, closing them is left to __exit__.
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *problem: Any) -> None:
        self._stack.close()

    def tools(self) -> list[dict[str, Any]]:
        """The tools of all servers, with the names they go by here."""
        merged = []
        for name, client in self.clients.items():
            for tool in client.list_tools() if name not in self.failed else []:
                full = f"{name}__{tool['name']}"
                # Remembered, not taken apart again: a name may have "__" in it as well.
                self._routes[full] = client, tool["name"]
                merged.append({**tool, "name": full})
        return merged

    def call(self, full: str, arguments: dict[str, Any]) -> Any:
        """Call a tool of the merged list, as `tools` returned it."""
        client, name = self._routes[full]
        return client.call_tool(name, arguments)


def main() -> None:
    """Run the command that the docstring of this file shows."""
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    with Servers(sys.argv[1]) as servers:
        for name, error in servers.failed.items():
            print(f"{name} is left out: {error}", file=sys.stderr)
        tools = servers.tools()
        if len(sys.argv) == 2:
            for tool in tools:
                print(f"{tool['name']:30} {tool.get('description', '')}")
        elif sys.argv[2] not in [tool["name"] for tool in tools]:
            raise SystemExit(f"No server has the tool {sys.argv[2]!r}")
        else:
            result = servers.call(sys.argv[2], json.loads("".join(sys.argv[3:]) or "{}"))
            if result.is_error:
                sys.exit(f"{sys.argv[2]} failed: {result.text}")
            print(result.text)


if __name__ == "__main__":
    main()
