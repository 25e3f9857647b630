"""A double of a gateway for tests of what stands around it: an ordinary server with `snapshot()`."""

from __future__ import annotations

from typing import Any

from minimcp import Server

SNAPSHOT: dict[str, Any] = {
    "name": "desk",
    "version": "1.2",
    "uptimeS": 4021.5,
    "ready": True,
    "servers": [
        {
            "name": "sum",
            "state": "up",
            "error": None,
            "stale": False,
            "prefix": "sum",
            "transport": "http",
            "revision": "2026-07-28",
            "tools": 2,
            "resources": 0,
            "templates": 0,
            "prompts": 0,
            "sessions": 0,
            "replicas": [
                {
                    "name": "sum/1",
                    "where": "http://10.0.0.1/mcp",
                    "state": "closed",
                    "inFlight": 3,
                    "calls": 120,
                    "failures": 0,
                    "ejectedForS": 0.0,
                    "error": None,
                    "different": None,
                },
                {
                    "name": "sum/2",
                    "where": "http://10.0.0.2/mcp",
                    "state": "open",
                    "inFlight": 0,
                    "calls": 40,
                    "failures": 7,
                    "ejectedForS": 12.5,
                    "error": "connection refused",
                    "different": None,
                },
            ],
        },
        {
            "name": "files",
            "state": "down",
            "error": "the process ended with 1: secret-path",
            "stale": False,
            "prefix": "fs",
            "transport": "stdio",
            "revision": None,
            "tools": 0,
            "resources": 0,
            "templates": 0,
            "prompts": 0,
            "sessions": 0,
            "replicas": [],
        },
        {
            "name": "notes",
            "state": "down",
            "error": "timed out",
            "stale": True,
            "prefix": "notes",
            "transport": "http",
            "revision": "2025-11-25",
            "tools": 1,
            "resources": 3,
            "templates": 1,
            "prompts": 1,
            "sessions": 2,
            "replicas": [],
        },
        {
            "name": "old",
            "state": "disabled",
            "error": None,
            "stale": False,
            "prefix": "old",
            "transport": "stdio",
            "revision": None,
            "tools": 0,
            "resources": 0,
            "templates": 0,
            "prompts": 0,
            "sessions": 0,
            "replicas": [],
        },
    ],
    "sessions": 4,
    "parked": 1,
    "collisions": ["sum and notes both have 'add'; give one of them another prefix"],
}


class Double(Server):
    """A server that says of itself what a gateway does.

    :ivar state: what `snapshot` returns.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.state = SNAPSHOT

    def snapshot(self) -> dict[str, Any]:
        """The state of the gateway."""
        return self.state
