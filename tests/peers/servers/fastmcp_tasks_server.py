"""A FastMCP server with tasks, for our client. Usage: python fastmcp_tasks_server.py PORT"""

from __future__ import annotations

import asyncio
import sys

from fastmcp import FastMCP
from fastmcp_tasks import TasksExtension

mcp = FastMCP("tasks")
mcp.add_extension(TasksExtension())


@mcp.tool(task=True)
async def add(a: int, b: int) -> int:
    await asyncio.sleep(0.1)
    return a + b


@mcp.tool(task=True)
async def fail() -> int:
    raise ValueError("no paper")


@mcp.tool(task=True)
async def forever() -> int:
    await asyncio.sleep(600)
    return 1


mcp.run(transport="http", port=int(sys.argv[1]), show_banner=False)
