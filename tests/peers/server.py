"""The server that the official clients are driven against: one of everything, through the public API."""

from __future__ import annotations

import threading
from typing import Annotated

from minimcp import Context, Server, ToolError, image

server = Server("peers", "1.2.3", title="Peer test server", instructions="Ask for the sum.", page_size=4)
reported = threading.Semaphore(0)


@server.tool(annotations={"readOnlyHint": True})
def add(a: int, b: Annotated[int, "the second number"] = 1) -> dict[str, int]:
    """Add two numbers."""
    return {"sum": a + b}


@server.tool
def picture() -> list:
    """Return a text and a picture."""
    return ["one pixel", image(b"\x89PNG", "image/png")]


@server.tool
def fail() -> str:
    """Fail in a way the model should read."""
    raise ToolError("out of stock")


@server.tool
def steps(count: int, ctx: Context) -> str:
    """Report each step, and go on when the client has called `seen`."""
    for done in range(1, count + 1):
        ctx.progress(done, count, f"step {done}")
        if not reported.acquire(timeout=15):
            raise ToolError(f"step {done} was not seen while the call ran")
    return f"{count} steps done"


@server.tool
def seen() -> str:
    """Let `steps` go on."""
    reported.release()
    return "go on"


@server.tool
def book(city: str, ctx: Context) -> str:
    """Ask how many nights, then book."""
    answer = ctx.elicit(f"How many nights in {city}?", {"nights": int})
    return f"booked {answer['nights']} nights in {city}" if answer else f"not booked: {answer.action}"


@server.tool
def name_folder(ctx: Context) -> str:
    """Ask for the client's folders, and its model for a name for the first."""
    folder = ctx.list_roots()[0]
    written = ctx.sample(f"Name the folder {folder['uri']}", 20, system="Be brief.")
    return f"{folder['name']} is now {written.text} ({written['model']})"


@server.tool
def grow(name: str) -> str:
    """Register another tool."""

    def grown() -> str:
        return f"I am {name}"

    server.tool(grown, name)
    return f"{name} is there"


@server.resource("config://app", mime_type="text/plain")
def config() -> str:
    """The configuration."""
    return "debug = no"


@server.resource("weather://{city}/today")
def weather(city: str) -> dict[str, str]:
    """The weather of a city."""
    return {"city": city, "sky": "blue"}


@server.prompt
def report(city: str) -> str:
    """Ask for a report on a city."""
    return f"Write a report on {city}."


@server.completion("report", "city")
def report_cities(value: str, arguments: dict[str, str]) -> list[str]:
    return [city for city in ("Bergen", "Berlin", "Oslo") if city.startswith(value)]


@server.completion("weather://{city}/today", "city")
def weather_cities(value: str, arguments: dict[str, str]) -> list[str]:
    return [city for city in ("Lima", "Oslo") if city.startswith(value)]
