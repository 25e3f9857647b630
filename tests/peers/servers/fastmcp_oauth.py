"""A server made with FastMCP that is its own authorization server, by the official SDK's handlers: `PORT`."""

from __future__ import annotations

import sys

from fastmcp import FastMCP
from fastmcp.server.auth.providers.in_memory import InMemoryOAuthProvider
from mcp.server.auth.settings import ClientRegistrationOptions

port = int(sys.argv[1])
options = ClientRegistrationOptions(enabled=True, valid_scopes=["read", "write"], default_scopes=["read"])
provider = InMemoryOAuthProvider(
    base_url=f"http://127.0.0.1:{port}", client_registration_options=options, required_scopes=["read"]
)
server = FastMCP("guarded", auth=provider)


@server.tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


server.run(transport="http", host="127.0.0.1", port=port, show_banner=False)
