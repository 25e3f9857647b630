"""A server made with FastMCP, which speaks both eras: `stdio` or `http PORT`."""

from __future__ import annotations

import json
import sys

import anyio
import mcp_types as types
from fastmcp import Context, FastMCP
from fastmcp.exceptions import ToolError

server = FastMCP("peer", version="1.2.3", instructions="Ask for the sum.")
given_up = anyio.Event()
NIGHTS = {"type": "object", "properties": {"nights": {"type": "integer"}}, "required": ["nights"]}


def sampling(uri: str) -> types.CreateMessageRequestParams:
    text = types.TextContent(type="text", text=f"Name the folder {uri}")
    message = types.SamplingMessage(role="user", content=text)
    return types.CreateMessageRequestParams(messages=[message], max_tokens=20, system_prompt="Be brief.")


def modern(ctx: Context) -> bool:
    return ctx.request_context.protocol_version == "2026-07-28"


@server.tool
def add(a: int, b: int = 1) -> dict[str, int]:
    """Add two numbers."""
    return {"sum": a + b}


@server.tool
def fail() -> str:
    """Fail in a way the model should read."""
    raise ToolError("out of stock")


@server.tool
async def steps(count: int, ctx: Context) -> str:
    """Report and log each step."""
    for step in range(1, count + 1):
        await ctx.report_progress(step, count, f"step {step}")
        await ctx.warning(f"did {step}")
    return f"{count} steps done"


@server.tool
async def book(city: str, ctx: Context):
    """Ask how many nights, then book."""
    question = f"How many nights in {city}?"
    if not modern(ctx):
        answer = await ctx.session.elicit(question, NIGHTS, ctx.request_id)
    elif ctx.input_responses is None:
        params = types.ElicitRequestFormParams(message=question, requested_schema=NIGHTS)
        return types.InputRequiredResult(input_requests={"nights": types.ElicitRequest(params=params)})
    else:
        answer = ctx.input_responses["nights"]
    return f"booked {answer.content['nights']} nights" if answer.action == "accept" else f"not booked: {answer.action}"


@server.tool
async def name_folder(ctx: Context):
    """Ask for the client's folders, and its model for a name for the first."""
    if not modern(ctx):
        folder = (await ctx.session.list_roots()).roots[0]
        params = sampling(folder.uri)
        written = await ctx.session.create_message(params.messages, max_tokens=20, system_prompt="Be brief.")
        name = folder.name
    elif ctx.input_responses is None:
        return types.InputRequiredResult(input_requests={"folders": types.ListRootsRequest()})
    elif "folders" in ctx.input_responses:
        folder = ctx.input_responses["folders"].roots[0]
        request = types.CreateMessageRequest(params=sampling(folder.uri))
        return types.InputRequiredResult(input_requests={"name": request}, request_state=folder.name)
    else:
        written, name = ctx.input_responses["name"], ctx.request_state
    return f"{name} is now {written.content.text} ({written.model})"


@server.tool
async def wait(ctx: Context) -> str:
    """Say that it waits, and do so until the client gives up."""
    try:
        await ctx.report_progress(1)
        await anyio.sleep(600)
    except anyio.get_cancelled_exc_class():
        given_up.set()
        raise
    return "nobody gave up"


@server.tool
async def waited() -> bool:
    """Say whether the client gave up within 60 s."""
    with anyio.move_on_after(60):
        await given_up.wait()
    return given_up.is_set()


@server.tool
async def grow(name: str, ctx: Context) -> str:
    """Register another tool and tell the client."""
    server.tool(lambda: f"I am {name}", name=name, description="It grew.")
    if not modern(ctx):
        await ctx.send_notification(types.ToolListChangedNotification())
    return f"{name} is there"


@server.tool
def big(size: int) -> str:
    """Return much text."""
    return "x" * size


@server.tool
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


@server.prompt
def report(city: str) -> str:
    """Ask for a report on a city."""
    return f"Write a report on {city}."


@server.completion
async def complete(ref, argument, context):
    cities = ["Bergen", "Berlin", "Oslo"] if isinstance(ref, types.PromptReference) else ["Lima", "Oslo"]
    return [city for city in cities if city.startswith(argument.value)]


if sys.argv[1] == "stdio":
    server.run(show_banner=False)
else:
    server.run("http", show_banner=False, port=int(sys.argv[2]))
