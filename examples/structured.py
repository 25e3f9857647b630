"""Structured output: what a return hint says becomes the tool's output schema, and the result is held to it."""

from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Annotated, Optional, TypedDict

from minimcp import Server, image

server = Server("structured", "1.0")


class Sky(Enum):
    CLEAR = "clear"
    RAIN = "rain"


@dataclass
class Day:
    day: date
    sky: Sky
    degrees: Annotated[float, "in degrees Celsius"]
    warning: Optional[str] = None


class Totals(TypedDict):
    words: int
    longest: str


@server.tool
def forecast(city: str, days: Annotated[int, {"minimum": 1, "maximum": 7}] = 1) -> list[Day]:
    """Say what the weather will be: dataclasses become JSON objects."""
    start = date(2026, 7, 28).toordinal()
    return [Day(date.fromordinal(start + n), Sky.RAIN if city == "Bergen" else Sky.CLEAR, 17.5) for n in range(days)]


@server.tool
def measure(text: str) -> Totals:
    """Measure a text: a TypedDict is checked like any other hint."""
    words = text.split()
    return {"words": len(words), "longest": max(words, key=len, default="")}


@server.tool(output_schema={"type": "object", "properties": {"odd": {"type": "boolean"}}, "required": ["odd"]})
def parity(number: int) -> dict:
    """Say whether a number is odd, under a schema of its own."""
    return {"odd": bool(number % 2)}


@server.tool
def chart(bars: list[int]) -> list:
    """Draw bars: without an output schema a list of content goes out as it is."""
    rows = "".join(f'<rect y="{10 * n}" width="{bar}" height="8"/>' for n, bar in enumerate(bars))
    picture = f'<svg xmlns="http://www.w3.org/2000/svg">{rows}</svg>'
    return [f"{len(bars)} bars", image(picture.encode(), "image/svg+xml")]


if __name__ == "__main__":
    server.run()
