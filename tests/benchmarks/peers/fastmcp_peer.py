"""The benchmark's server built with FastMCP, served by uvicorn as it comes."""

from __future__ import annotations

import options
from fastmcp import Context, FastMCP

arguments = options.parse()
server = FastMCP("benchmark", version="1.0")


@server.tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool
async def steps(count: int, ctx: Context) -> str:
    """Report progress `count` times; FastMCP reports only from a coroutine."""
    for step in range(count):
        await ctx.report_progress(step + 1, count)
    return "done"


@server.tool
def big():
    """Return one mebibyte of text."""
    return options.BIG


server.tool(options.compute)
server.tool(options.wait)

for extra in options.extra_tools(arguments.tools):
    server.tool(extra)

if arguments.door == "stdio":
    server.run(show_banner=False)
else:
    server.run(
        "http",
        show_banner=False,
        port=arguments.port,
        json_response=arguments.mode != "sse",
        stateless_http=arguments.mode != "session",
    )
