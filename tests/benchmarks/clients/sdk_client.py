"""The client of the official Python SDK 2.x."""

from __future__ import annotations

import asyncio

import task
from mcp import Client
from mcp.client.stdio import StdioServerParameters


async def main() -> None:
    async def ignore(progress, total, message) -> None:
        pass

    server = task.URL or StdioServerParameters(command=task.TARGET[0], args=task.TARGET[1:])
    async with Client(server) as client:

        async def call() -> str:
            return (await client.call_tool("add", task.NUMBERS)).content[0].text

        async def huge() -> str:
            return (await client.call_tool("huge", {}, progress_callback=ignore)).content[0].text

        await task.drive(call, huge, client.protocol_version)


asyncio.run(main())
