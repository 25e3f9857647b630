"""What language models are bad at: dates, time zones and counting. Over stdio: `python hello.py`."""

from datetime import date, datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from minimcp import Server, ToolError

server = Server("hello", "1.0", instructions="Ask here before you say anything about dates or lengths.")


@server.tool(annotations={"readOnlyHint": True, "openWorldHint": False})
def now(zone: Annotated[str, "a name such as Europe/Oslo"] = "UTC") -> str:
    """Say what time it is somewhere."""
    try:
        return datetime.now(ZoneInfo(zone)).strftime("%A %Y-%m-%d %H:%M")
    except (ZoneInfoNotFoundError, ValueError):
        raise ToolError(f"There is no time zone {zone!r}; write one like Europe/Oslo.") from None


@server.tool(annotations={"readOnlyHint": True, "openWorldHint": False})
def days_between(start: date, end: date) -> int:
    """Count the days from one date to another."""
    return (end - start).days


@server.tool(annotations={"readOnlyHint": True, "openWorldHint": False})
def weekday(day: date, later: Annotated[int, "how many days after it"] = 0) -> str:
    """Say which day of the week a date is.

    Args:
        day: The date, for instance 2026-07-28.
    """
    return (day + timedelta(days=later)).strftime("%A")


@server.tool(annotations={"readOnlyHint": True, "openWorldHint": False})
def count(text: str) -> dict[str, int]:
    """Count the characters, words and lines of a text."""
    return {"characters": len(text), "words": len(text.split()), "lines": len(text.splitlines())}


if __name__ == "__main__":
    server.run()
