"""The Model Context Protocol for synchronous Python: threads that block, no event loop.

All public names are importable from here; each loads its module on first use, so that `import minimcp` is fast.
`help(minimcp.Server)` tells more about each.

Servers:

- Server: register functions as tools, resources and prompts, then run it, or mount it in an application
- Context: a parameter with this hint is the way back to the client: progress, log messages, questions
- Answer: what came of `ctx.elicit`; true when the person accepted
- text, image, audio, link, resource: build the blocks that a tool returns
- Raw: a result that goes out as it is
- ToolError: raise it in a tool to tell the model what went wrong
- McpError, Unauthorized, Forbidden: raise them to answer with an error of the protocol
- Principal: who calls, as `ctx.principal`
- Cancelled: ends a handler whose client no longer waits
- FileResources, safe_join: the files of a folder, and a path that cannot leave one
- Sanitizer: caps results and strips hidden characters and secrets
- Tasks: calls that go on for hours, and survive a restart
- Gateway: a server in front of many

Clients:

- Client: a server to call, by its URL, command, file or object
- clients: one `Client` for each server of an mcpServers file
- Steps: the protocol taken step by step, to learn it or to test a server
- OAuth, FileStore: sign in to a server, and where the tokens are kept
- Sandbox: bounds a server that the client starts
- consent: asks before tools are called
- Cache: results that may be used again, shared by several clients

Errors of clients are one family; `.retry` says whether a call may be repeated:

- ClientError: all of them
- ToolFailed: the tool says that it failed, with `check=True`
- RemoteError: the server answered with an error
- Timeout, ConnectionLost, HTTPStatus, ProtocolError: there was no answer, or none of this protocol
- AuthorizationError, NotApproved, CallCancelled, UsedAfterFork: it was not allowed, not wanted, or not possible here
- MinimcpError: the errors of servers too
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# The module of each public name.
_HOMES = {
    "Answer": "server.asking",
    "AuthorizationError": "engines.errors",
    "Cache": "client.cache",
    "CallCancelled": "client.errors",
    "Cancelled": "protocol.errors",
    "Client": "client.client",
    "ClientError": "engines.errors",
    "ConnectionLost": "engines.errors",
    "Context": "server.context",
    "FileResources": "server.files",
    "FileStore": "engines.oauth.tokens",
    "Forbidden": "protocol.errors",
    "Gateway": "gateway.gateway",
    "HTTPStatus": "client.errors",
    "McpError": "protocol.errors",
    "MinimcpError": "engines.errors",
    "NotApproved": "client.errors",
    "OAuth": "engines.oauth.oauth",
    "Principal": "protocol.principal",
    "ProtocolError": "engines.errors",
    "Raw": "protocol.content",
    "RemoteError": "client.errors",
    "Sandbox": "client.sandbox",
    "Sanitizer": "server.sanitize",
    "Server": "server.server",
    "Steps": "client.steps",
    "Tasks": "extensions.tasks.background",
    "Timeout": "engines.errors",
    "ToolError": "protocol.errors",
    "ToolFailed": "client.errors",
    "Unauthorized": "protocol.errors",
    "UsedAfterFork": "client.errors",
    "audio": "protocol.content",
    "clients": "client.client",
    "consent": "client.consent",
    "image": "protocol.content",
    "link": "protocol.content",
    "resource": "protocol.content",
    "safe_join": "server.uris",
    "text": "protocol.content",
}

__all__ = [
    "Answer",
    "AuthorizationError",
    "Cache",
    "CallCancelled",
    "Cancelled",
    "Client",
    "ClientError",
    "ConnectionLost",
    "Context",
    "FileResources",
    "FileStore",
    "Forbidden",
    "Gateway",
    "HTTPStatus",
    "McpError",
    "MinimcpError",
    "NotApproved",
    "OAuth",
    "Principal",
    "ProtocolError",
    "Raw",
    "RemoteError",
    "Sandbox",
    "Sanitizer",
    "Server",
    "Steps",
    "Tasks",
    "Timeout",
    "ToolError",
    "ToolFailed",
    "Unauthorized",
    "UsedAfterFork",
    "__version__",
    "audio",
    "clients",
    "consent",
    "image",
    "link",
    "resource",
    "safe_join",
    "text",
]

if TYPE_CHECKING:
    from .client import consent
    from .client.cache import Cache
    from .client.client import Client, clients
    from .client.errors import CallCancelled, HTTPStatus, NotApproved, RemoteError, ToolFailed, UsedAfterFork
    from .client.sandbox import Sandbox
    from .client.steps import Steps
    from .engines.errors import AuthorizationError, ClientError, ConnectionLost, MinimcpError, ProtocolError, Timeout
    from .engines.oauth.oauth import OAuth
    from .engines.oauth.tokens import FileStore
    from .extensions.tasks import Tasks
    from .gateway.gateway import Gateway
    from .protocol.content import Raw, audio, image, link, resource, text
    from .protocol.errors import Cancelled, Forbidden, McpError, ToolError, Unauthorized
    from .protocol.principal import Principal
    from .server.asking import Answer
    from .server.context import Context
    from .server.files import FileResources
    from .server.sanitize import Sanitizer
    from .server.server import Server
    from .server.uris import safe_join


# Names of other kits, and what to write here.
_ELSEWHERE = {
    "FastMCP": "write `from minimcp import Server`, and server = Server('name')",
    "MCPServer": "write `from minimcp import Server`, and server = Server('name')",
    "ClientSession": "write `from minimcp import Client`, and client = Client(target)",
    "Image": "write `from minimcp import image`, and image(Path('cat.png'))",
    "Audio": "write `from minimcp import audio`, and audio(Path('cat.wav'))",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if name in _ELSEWHERE:
        raise ImportError(f"minimcp has no {name}: {_ELSEWHERE[name]}")
    if home is None:
        raise AttributeError(f"module 'minimcp' has no attribute {name!r}")
    from importlib import import_module

    module = import_module(f".{home}", __name__)
    value = module if home.endswith(f".{name}") else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
