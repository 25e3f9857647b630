"""The server of the transcripts: `build()` for one in memory or over HTTP, `server` for a child process."""

from __future__ import annotations

from typing import Annotated, Literal, Optional

from minimcp import Context, Server, ToolError, audio, image, link, resource, text
from minimcp.server import asking

SECRET = "0123456789abcdef-of-the-transcripts"


def build() -> Server:
    """A server with something of everything, two list items to a page."""
    server = Server(
        "library",
        "1.0",
        title="City library",
        instructions="Look a book up before you lend it.",
        icons=[{"src": "https://library.example/icon.png"}],
        secret=SECRET,
        debug=False,
        page_size=3,
        limits={"keepalive_s": 0.1},
    )
    add_tools(server)
    add_asking_tools(server)

    @server.resource("library://rules", mime_type="text/plain", ttl_ms=60_000, cache_scope="public")
    def rules() -> str:
        """The rules of the house."""
        return "Be quiet."

    @server.resource("library://books/{isbn}", mime_type="application/json")
    def book(isbn: str) -> Optional[dict[str, str]]:
        """A book by its number."""
        return {"isbn": isbn, "title": "Gösta Berlings saga"} if isbn == "9789100" else None

    @server.prompt(title="Review")
    def review(title: str, tone: str = "kind") -> list:
        """Ask for a review of a book."""
        return [text(f"Write a {tone} review of {title}."), link("library://rules", "rules")]

    @server.completion("review", "tone")
    def tones(value: str, arguments: dict[str, str]) -> list[str]:
        return [tone for tone in ("kind", "keen", "harsh") if tone.startswith(value)]

    @server.completion("library://books/{isbn}", "isbn")
    def isbns(value: str, arguments: dict[str, str]) -> list[str]:
        return ["9789100"]

    return server


def add_tools(server: Server) -> None:
    """The tools that need no answer from the client."""

    @server.tool(title="Look up", annotations={"readOnlyHint": True})
    def lookup(title: str, shelf: Annotated[int, "the shelf's number", {"minimum": 1}] = 1) -> dict[str, int]:
        """Say how many copies stand on a shelf."""
        return {"copies": len(title) * shelf}

    @server.tool
    def show(kind: Literal["picture", "sound", "link", "embedded", "nothing"]) -> Optional[list]:
        """Show something of a kind."""
        shown = {
            "picture": [image(b"\x89PNG", "image/png")],
            "sound": [audio(b"RIFF", "audio/wav")],
            "link": [link("library://rules", "rules")],
            "embedded": [resource("library://rules", "Be quiet.", "text/plain")],
            "nothing": None,
        }
        return shown[kind]

    @server.tool
    def fail(how: Literal["told", "crash"]) -> str:
        """Fail."""
        if how == "told":
            raise ToolError("This book is lent out.")
        raise RuntimeError("the database at /var/lib/books is gone")

    @server.tool
    def count(steps: int, ctx: Context) -> str:
        """Count shelves, with progress and log messages."""
        ctx.log("debug", {"steps": steps}, "counter")
        for step in range(1, steps + 1):
            ctx.progress(step, steps, f"shelf {step}")
        ctx.log("warning", "done counting")
        return f"{steps} shelves"

    @server.tool
    def wait(ctx: Context) -> str:
        """Wait until the client has had enough."""
        ctx.progress(1)
        if not ctx.cancelled.wait(20):
            raise ToolError("nobody cancelled")
        ctx.progress(2)
        return "never said"

    @server.tool
    def grow(name: str) -> str:
        """Register a tool of this name, and touch the rules."""
        server.tool(lambda: "grown", name, description="Grown at run time.")
        server.updated("library://rules")
        return "grown"

    @server.tool
    def shut() -> str:
        """End every listen stream."""
        server.close()
        return "shut"


def add_asking_tools(server: Server) -> None:
    """The tools that ask: the same bodies in every revision."""

    @server.tool
    def lend(title: str, ctx: Context) -> str:
        """Lend a book, after asking for how long and whether it is sure."""
        weeks = ctx.elicit(f"For how many weeks do you want {title}?", {"weeks": int})
        if not weeks:
            return f"not lent: {weeks.action}"
        sure = ctx.elicit(f"{weeks['weeks']} weeks, are you sure?", {"sure": bool})
        return f"{title} lent for {weeks['weeks']} weeks" if sure and sure["sure"] else "not lent"

    @server.tool
    def advise(topic: str, ctx: Context) -> str:
        """Ask the client's model and its roots in one round."""
        answers = ctx.ask(model=asking.sampling(f"A book on {topic}?", 50), roots=asking.roots())
        return f"{answers['model'].text} in {answers['roots'][0]['uri']}"


server = build()
