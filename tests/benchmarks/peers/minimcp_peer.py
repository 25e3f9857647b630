"""The benchmark's server built with this checkout."""

from __future__ import annotations

import options

from minimcp import Context, Server

arguments = options.parse()
server = Server("benchmark", "1.0")


@server.tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool
def steps(count: int, ctx: Context) -> str:
    """Report progress `count` times."""
    for step in range(count):
        ctx.progress(step + 1, count)
    return "done"


@server.tool
def big():  # type: ignore[no-untyped-def]
    """Return one mebibyte of text."""
    return options.BIG


@server.tool
def huge(ctx: Context) -> str:
    """Report progress, so that what follows is a stream, and return two mebibytes of text."""
    ctx.progress(1, 1)
    return 2 * options.BIG


server.tool(options.compute)
server.tool(options.wait)

for extra in options.extra_tools(arguments.tools):
    server.tool(extra)

if arguments.door == "stdio":
    server.run()
else:
    server.run_http(port=arguments.port)
