"""The server behind the gateways under test, as a program: `ERA stdio`, `ERA http` or `ERA sse`.

ERA is "modern", "legacy" or "both": what is of the other era is refused as by a server that knows nothing of it. What
changes is outside of it, as data usually are: several processes that have one file as GATEWAY_NEWS all follow it.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

from minimcp import Context, Server, ToolError, image
from minimcp.protocol import headers
from minimcp.protocol.errors import InvalidRequest, MethodNotFound

server = Server("upstream", "1.2.3", instructions="Ask for the sum.", page_size=3)
reported = threading.Semaphore(0)
gave_up = threading.Semaphore(0)
waits = threading.Semaphore(0)
runs: list[str] = []
NEWS = Path(os.environ.get("GATEWAY_NEWS", os.devnull))
followed = 0  # the lines of NEWS that are taken over here
following = threading.Condition()  # guards followed


@server.tool(annotations={"readOnlyHint": True}, meta={"com.example/kept": [1, None, {"deep": False}]})
def add(a: int, b: int = 1) -> dict[str, int]:
    """Add two numbers."""
    return {"sum": a + b}


@server.tool
def picture() -> list[Any]:
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
        if not reported.acquire(timeout=30):
            raise ToolError(f"step {done} was not seen while the call ran")
    return f"{count} steps done"


@server.tool
def seen() -> str:
    """Let `steps` go on."""
    reported.release()
    return "go on"


@server.tool
def chat(ctx: Context) -> str:
    """Log at three levels."""
    for level in ("debug", "info", "error"):
        ctx.log(level, {"said": level}, logger="chat")
    return "logged"


@server.tool
def wait(ctx: Context) -> str:
    """Wait until the client gives up."""
    waits.release()
    if ctx.cancelled.wait(60):
        gave_up.release()
    return "waited"


@server.tool
def waiting() -> bool:
    """Say whether `wait` has begun within 30 s."""
    return waits.acquire(timeout=30)


@server.tool
def given_up() -> bool:
    """Say whether `wait` was given up within 30 s."""
    return gave_up.acquire(timeout=30)


@server.tool
def book(city: str, ctx: Context) -> str:
    """Ask how many nights, then book."""
    runs.append("book")
    answer = ctx.elicit(f"How many nights in {city}?", {"nights": int})
    return f"booked {answer['nights']} nights in {city}" if answer else f"not booked: {answer.action}"


@server.tool
def travel(ctx: Context) -> str:
    """Ask where to, then with whom."""
    runs.append("travel")
    city = ctx.elicit("Where to?", {"city": str})["city"]
    friend = ctx.elicit(f"With whom to {city}?", {"friend": str})["friend"]
    return f"to {city} with {friend}"


@server.tool
def name_folder(ctx: Context) -> str:
    """Ask for the client's folders, and its model for a name for the first."""
    runs.append("name_folder")
    folder = ctx.list_roots()[0]
    written = ctx.sample(f"Name the folder {folder['uri']}", 20, system="Be brief.")
    return f"{folder['name']} is now {written.text} ({written['model']})"


@server.tool
def ran() -> dict[str, int]:
    """Say how often each tool that asks was run."""
    return {name: runs.count(name) for name in sorted(set(runs))}


@server.tool
def grow(name: str) -> str:
    """Have another tool registered, wherever this server runs."""
    _publish(name)
    return f"{name} is there"


@server.tool
def touch() -> str:
    """Change the resource, wherever this server runs."""
    _publish("config://app")
    return "touched"


def _publish(what: str) -> None:
    if NEWS.is_file():
        with NEWS.open("a", encoding="utf-8") as file:
            file.write(what + "\n")
        # Another process may tell of it first, whose news would lead a client here.
        lines = len(_news())
        with following:
            assert following.wait_for(lambda: followed >= lines, 20)
    else:
        _change(what)


def _change(what: str) -> None:
    if "://" in what:
        server.updated(what)
    else:
        server.tool(lambda: f"I am {what}", what, description="It grew.")


def _follow() -> None:
    """Take over what is new in the file, for as long as the process lives."""
    global followed
    while True:
        lines = _news()
        for line in lines[followed:]:
            _change(line)
        with following:
            followed = len(lines)
            following.notify_all()
        threading.Event().wait(0.02)


def _news() -> list[str]:
    return NEWS.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()


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


def refuse_other(made: Server, era: str) -> None:
    """Have a server know one era alone."""
    call = made.engine.call

    def picky(message: Any, *, get_header: Any = None, session: Any = None, **more: Any) -> Any:
        modern = headers.is_modern(message, get_header, bool(session and session.version))
        asked = isinstance(message, dict) and "method" in message and "id" in message
        if asked and modern != (era == "modern"):
            if modern:
                raise InvalidRequest("Bad Request: No valid session ID provided")
            raise MethodNotFound(f"Method not found: {message['method']}")
        return call(message, get_header=get_header, session=session, **more)

    made.engine.call = picky  # type: ignore[method-assign]


def serve(made: Server, era: str, door: str) -> None:
    """Serve over stdio, or over HTTP on any free port, which is printed."""
    if era != "both":
        refuse_other(made, era)
    if door == "stdio":
        made.run()
    else:
        path = "/sse" if door == "sse" else "/mcp"
        made.run_http(port=0, ready=lambda listening: print(f"listening on {listening.url}{path}", flush=True))


if __name__ == "__main__":
    if NEWS.is_file():
        threading.Thread(target=_follow, daemon=True).start()
    serve(server, *sys.argv[1:])
