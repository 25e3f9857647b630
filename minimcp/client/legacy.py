"""The legacy era of the client (2024-11-05 to 2025-11-25): `initialize` settles everything for the connection.

Spec: 11:basic/lifecycle
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..protocol import revisions
from .peer import Era

if TYPE_CHECKING:
    from .connection import Connection

Message = dict[str, Any]


class Legacy(Era):
    """Adds nothing to a request but the wish for progress."""

    name = "legacy"
    empty_cursor_ends = True
    absent = {
        "server/discover": "initialize has said what the server is",
        "subscriptions/listen": "notices come by themselves",
    }

    def dress(self, conn: Connection, message: Message, version: str, meta: Message | None, progress: bool) -> None:
        """Add `_meta` where there is something to say."""
        fields: Message = dict(meta) if meta else {}
        if progress:
            fields["progressToken"] = message["id"]
        if fields:
            message["params"] = {**message.get("params", {}), "_meta": fields}


ERA = Legacy()


def initialize_params(conn: Connection, version: str) -> Message:
    """The params of `initialize`. Spec: BASE-096"""
    info = conn.info or {"name": "minimcp", "version": "0"}
    known = {
        name: value
        for name, value in info.items()
        if version >= revisions.IMPLEMENTATION_FIELDS_SINCE.get(name, version)
    }
    return {"protocolVersion": version, "capabilities": conn.capabilities(legacy=True), "clientInfo": known}
