"""FastMCP's client against our server of tasks, over stdio; it leaves out the header Mcp-Name over HTTP.

Usage: python fastmcp_tasks_client.py COMMAND ARGUMENT...
"""

from __future__ import annotations

import asyncio
import json
import sys

import fastmcp_tasks  # noqa: F401  # its import lets every client follow tasks
from fastmcp import Client
from fastmcp.client.elicitation import ElicitResult
from fastmcp.client.transports import StdioTransport
from fastmcp_tasks.client import call_tool_task


def saw(step: str, **found: object) -> None:
    print(json.dumps({"step": step, **found}), flush=True)


asked: list[str] = []


async def elicit(message, response_type, params, ctx):
    asked.append(message)
    return ElicitResult(action="accept", content={"agree": True})


async def main() -> None:
    transport = StdioTransport(sys.argv[1], sys.argv[2:])
    async with Client(transport, elicitation_handler=elicit) as client:
        for name, arguments in (
            ("count_primes", {"below": 5000}),
            ("send_letters", {"names": ["Ann", "Bo"]}),
            ("report", {"year": 2020}),
            ("report", {"year": 2027}),
        ):
            result = await client.call_tool(name, arguments)
            saw(name, text=result.content[0].text, asked=asked[:])
            asked.clear()
        task = await call_tool_task(client, "count_primes", {"below": 100_000_000})
        await task.cancel()
        saw("cancelled", status=(await task.status()).status)


asyncio.run(main())
