"""Drives a server with the official Python SDK 2.x; run by an interpreter that has it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import mcp_types as types
import steps
from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters
from mcp.client.subscriptions import ToolsListChanged


async def main() -> None:
    mode, url, command = steps.target()
    person, changed = steps.Person(types.ElicitResult), asyncio.Event()

    async def notice(message) -> None:
        if isinstance(message, Exception):
            steps.saw("trouble", text=repr(message))
        if getattr(message, "method", "") == "notifications/tools/list_changed":
            changed.set()

    folder = steps.Folder(types)
    server = url or StdioServerParameters(command=command[0], args=command[1:])
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            Client(
                server,
                mode=mode,
                read_timeout_seconds=steps.STEP_S,
                sampling_callback=folder.sample,
                elicitation_callback=person,
                list_roots_callback=folder.roots,
                message_handler=notice,
            )
        )
        info = client.server_info
        steps.saw(
            "server",
            info=info and steps.plain(info),
            version=client.protocol_version,
            instructions=client.instructions,
        )

        def pager(method):
            return lambda cursor: method(cursor=cursor)

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
        await steps.walk(client, fetchers, references, person, MCPError)

        if client.protocol_version < "2026-07-28":

            async def wait() -> str:
                await changed.wait()
                return "notification"

            await steps.grow(client, fetchers["tools"], wait)
            return
        async with client.listen(tools_list_changed=True) as subscription:
            steps.saw("honored", **steps.plain(subscription.honored))

            async def wait() -> str:
                event = await subscription.__anext__()
                return "listen stream" if isinstance(event, ToolsListChanged) else repr(event)

            await steps.grow(client, fetchers["tools"], wait)


asyncio.run(main())
