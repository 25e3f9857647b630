"""The tasks benchmark's server built with FastMCP: `python fastmcp_tasks_peer.py PORT STORE THREADS`.

STORE is "memory://" or the address of Redis. The functions of its tasks have to be coroutines.
"""

from __future__ import annotations

import asyncio
import sys
import time

from fastmcp import FastMCP
from fastmcp_tasks import TasksExtension

server = FastMCP("tasks", version="1.0")
server.add_extension(TasksExtension(url=sys.argv[2], concurrency=int(sys.argv[3])))


@server.tool(task=True)
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool(task=True)
async def late(wait_s: float) -> float:
    """Wait, and return the time at which that was over."""
    await asyncio.sleep(wait_s)
    return time.time()


server.run(
    "http",
    show_banner=False,
    port=int(sys.argv[1]),
    json_response=True,
    stateless_http=True,
    uvicorn_config={"log_level": "warning", "access_log": False},
)
