"""Drives a server with the official Python SDK 1.x; run by an interpreter that has it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta

import steps
from mcp import ClientSession, McpError, StdioServerParameters, types
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client


async def main() -> None:
    mode, url, command = steps.target()
    person, changed = steps.Person(types.ElicitResult), asyncio.Event()

    async def notice(message) -> None:
        if isinstance(message, Exception):
            steps.saw("trouble", text=repr(message))
        if getattr(getattr(message, "root", None), "method", "") == "notifications/tools/list_changed":
            changed.set()

    async with AsyncExitStack() as stack:
        if url is None:
            transport = stdio_client(StdioServerParameters(command=command[0], args=command[1:]))
        else:
            transport = sse_client(url) if mode == "sse" else streamable_http_client(url)
        read, write, *_ = await stack.enter_async_context(transport)
        folder = steps.Folder(types)
        session = ClientSession(
            read,
            write,
            timedelta(seconds=steps.STEP_S),
            sampling_callback=folder.sample,
            elicitation_callback=person,
            list_roots_callback=folder.roots,
            message_handler=notice,
        )
        client = await stack.enter_async_context(session)
        opened = steps.plain(await client.initialize())
        steps.saw(
            "server",
            info=opened["serverInfo"],
            version=opened["protocolVersion"],
            instructions=opened.get("instructions"),
        )

        def pager(method):
            return lambda cursor: method(params=types.PaginatedRequestParams(cursor=cursor))

        fetchers = {
            "tools": pager(client.list_tools),
            "resources": pager(client.list_resources),
            "resourceTemplates": pager(client.list_resource_templates),
            "prompts": pager(client.list_prompts),
        }
        references = {
            "complete prompt": (types.PromptReference(type="ref/prompt", name="report"), "Ber"),
            "complete template": (
                types.ResourceTemplateReference(type="ref/resource", uri="weather://{city}/today"),
                "L",
            ),
        }
        await steps.walk(client, fetchers, references, person, McpError)

        async def wait() -> str:
            await changed.wait()
            return "notification"

        await steps.grow(client, fetchers["tools"], wait)


asyncio.run(main())
