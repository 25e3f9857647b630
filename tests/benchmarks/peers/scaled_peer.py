"""The server of the benchmark of several processes, as a WSGI application; MCP_REDIS is the address of the bus."""

from __future__ import annotations

import os

from minimcp import Context, Server
from minimcp.server.redis_bus import RedisBus

redis = os.environ.get("MCP_REDIS")
server = Server("scaled", "1.0", bus=RedisBus(redis) if redis else None, limits={"session_idle_s": 600})


@server.tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool
def ask(ctx: Context) -> str:
    """Ask for a number, and return it."""
    return str(ctx.elicit("Which number?", {"n": int})["n"])


app = server.wsgi
