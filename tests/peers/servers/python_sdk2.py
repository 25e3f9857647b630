"""A server made with the official Python SDK 2.x, which speaks both eras: `stdio` or `http PORT`."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import anyio
from mcp.server import MCPServer
from mcp.server.elicitation import AcceptedElicitation, ElicitationResult
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.resolve import Elicit, ListRoots, Resolve, Sample
from mcp_types import (
    Completion,
    CreateMessageResult,
    ListRootsResult,
    PromptReference,
    SamplingMessage,
    TextContent,
)
from memory_store import MemoryStore
from pydantic import BaseModel

server = MCPServer("peer", version="1.2.3", instructions="Ask for the sum.")
given_up = anyio.Event()


class Nights(BaseModel):
    nights: int


def ask_nights(city: str):
    return Elicit(f"How many nights in {city}?", Nights)


def ask_roots():
    return ListRoots()


def ask_name(folders: Annotated[ListRootsResult, Resolve(ask_roots)]):
    text = f"Name the folder {folders.roots[0].uri}"
    message = SamplingMessage(role="user", content=TextContent(type="text", text=text))
    return Sample([message], max_tokens=20, system_prompt="Be brief.")


@server.tool()
def add(a: int, b: int = 1) -> dict[str, int]:
    """Add two numbers."""
    return {"sum": a + b}


@server.tool()
def fail() -> str:
    """Fail in a way the model should read."""
    raise ToolError("out of stock")


@server.tool()
async def steps(count: int, ctx: Context) -> str:
    """Report and log each step."""
    for step in range(1, count + 1):
        await ctx.report_progress(step, count, f"step {step}")
        await ctx.warning(f"did {step}")
    return f"{count} steps done"


@server.tool()
def book(city: str, answer: Annotated[ElicitationResult[Nights], Resolve(ask_nights)]) -> str:
    """Ask how many nights, then book."""
    if isinstance(answer, AcceptedElicitation):
        return f"booked {answer.data.nights} nights"
    return f"not booked: {answer.action}"


@server.tool()
def name_folder(
    folders: Annotated[ListRootsResult, Resolve(ask_roots)],
    written: Annotated[CreateMessageResult, Resolve(ask_name)],
) -> str:
    """Ask for the client's folders, and its model for a name for the first."""
    return f"{folders.roots[0].name} is now {written.content.text} ({written.model})"


@server.tool()
async def wait(ctx: Context) -> str:
    """Say that it waits, and do so until the client gives up."""
    try:
        await ctx.report_progress(1)
        await anyio.sleep(600)
    except anyio.get_cancelled_exc_class():
        given_up.set()
        raise
    return "nobody gave up"


@server.tool()
async def waited() -> bool:
    """Say whether the client gave up within 60 s."""
    with anyio.move_on_after(60):
        await given_up.wait()
    return given_up.is_set()


@server.tool()
async def grow(name: str, ctx: Context) -> str:
    """Register another tool and tell the client."""
    server.add_tool(lambda: f"I am {name}", name, description="It grew.")
    if ctx.protocol_version == "2026-07-28":
        await ctx.notify_tools_changed()
    else:
        await ctx.session.send_tool_list_changed()
    return f"{name} is there"


@server.tool()
def big(size: int) -> str:
    """Return much text."""
    return "x" * size


@server.tool()
async def polled(ctx: Context) -> bool:
    """Hang up in the middle of the call, where that can be done, and go on."""
    hang_up = getattr(ctx.request_context, "close_sse_stream", None)
    await ctx.report_progress(1, 2, "before")
    if hang_up is not None:
        await hang_up()
        await anyio.sleep(0.1)
    await ctx.report_progress(2, 2, "after")
    return hang_up is not None


@server.resource("config://app", mime_type="text/plain")
def config() -> str:
    return "debug = no"


@server.resource("weather://{city}/today", mime_type="application/json")
def weather(city: str) -> str:
    return json.dumps({"city": city})


@server.prompt()
def report(city: str) -> str:
    """Ask for a report on a city."""
    return f"Write a report on {city}."


@server.completion()
async def complete(ref, argument, context):
    cities = ["Bergen", "Berlin", "Oslo"] if isinstance(ref, PromptReference) else ["Lima", "Oslo"]
    return Completion(values=[city for city in cities if city.startswith(argument.value)])


if sys.argv[1] == "stdio":
    server.run()
else:
    server.run("streamable-http", port=int(sys.argv[2]), event_store=MemoryStore(), retry_interval=20)
