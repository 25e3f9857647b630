"""The benchmark's server built with the official Python SDK, served by uvicorn as it comes."""

from __future__ import annotations

import options
from mcp.server import MCPServer
from mcp.server.mcpserver import Context

arguments = options.parse()
server = MCPServer("benchmark", version="1.0")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
async def steps(count: int, ctx: Context) -> str:
    """Report progress `count` times; this SDK reports only from a coroutine."""
    for step in range(count):
        await ctx.report_progress(step + 1, count)
    return "done"


@server.tool()
def big():
    """Return one mebibyte of text."""
    return options.BIG


server.tool()(options.compute)
server.tool()(options.wait)

for extra in options.extra_tools(arguments.tools):
    server.add_tool(extra)

if arguments.door == "stdio":
    server.run()
else:
    server.run(
        "streamable-http",
        port=arguments.port,
        json_response=arguments.mode != "sse",
        stateless_http=arguments.mode != "session",
    )
