"""The client of the official Python SDK 1.x."""

from __future__ import annotations

import asyncio

import task
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client


async def main() -> None:
    async def ignore(progress, total, message) -> None:
        pass

    command = StdioServerParameters(command=task.TARGET[0], args=task.TARGET[1:])
    async with streamable_http_client(task.URL) if task.URL else stdio_client(command) as (read, write, *_):
        async with ClientSession(read, write) as session:
            opened = await session.initialize()

            async def call() -> str:
                return (await session.call_tool("add", task.NUMBERS)).content[0].text

            async def huge() -> str:
                return (await session.call_tool("huge", {}, progress_callback=ignore)).content[0].text

            await task.drive(call, huge, opened.protocolVersion)


asyncio.run(main())
