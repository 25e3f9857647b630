"""The Model Context Protocol for synchronous Python: threads that block, no event loop.

Everything a user types is importable from here; each name loads its module on first use, so that
importing the package costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Server": "server.server",
    "Context": "server.context",
    "Answer": "server.asking",
    "MinimcpError": "protocol.errors",
    "McpError": "protocol.errors",
    "ToolError": "protocol.errors",
    "Cancelled": "protocol.errors",
    "text": "protocol.content",
    "image": "protocol.content",
    "audio": "protocol.content",
    "resource": "protocol.content",
    "link": "protocol.content",
    "safe_join": "server.uris",
}

__all__ = [
    "Answer",
    "Cancelled",
    "Context",
    "McpError",
    "MinimcpError",
    "Server",
    "ToolError",
    "__version__",
    "audio",
    "image",
    "link",
    "resource",
    "safe_join",
    "text",
]

if TYPE_CHECKING:
    from .protocol.content import audio, image, link, resource, text
    from .protocol.errors import Cancelled, McpError, MinimcpError, ToolError
    from .server.asking import Answer
    from .server.context import Context
    from .server.server import Server
    from .server.uris import safe_join


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'minimcp' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value
