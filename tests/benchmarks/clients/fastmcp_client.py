"""The client of FastMCP."""

from __future__ import annotations

import asyncio

import task
from fastmcp import Client
from fastmcp.client.transports import StdioTransport


async def main() -> None:
    async def ignore(progress, total, message) -> None:
        pass

    async with Client(task.URL or StdioTransport(task.TARGET[0], task.TARGET[1:])) as client:

        async def call() -> str:
            return (await client.call_tool("add", task.NUMBERS)).content[0].text

        async def huge() -> str:
            return (await client.call_tool("huge", {}, progress_handler=ignore)).content[0].text

        await task.drive(call, huge, client.protocol_version)


asyncio.run(main())
