"""A meeting across time zones, with a page to choose its hour in (MCP Apps). Over stdio: `python planner.py`.

A host without pages gets the same answer as text. The page, `planner.html`, needs no build step and no library.
"""

import difflib
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated, Any, Optional
from zoneinfo import ZoneInfo, available_timezones

from minimcp import Server, ToolError, text

server = Server("planner", "1.0")
PAGE = server.page("ui://planner/page.html", Path(__file__).with_name("planner.html"), ui={"prefersBorder": True})

ZONES = {
    zone.rpartition("/")[2].replace("_", " "): zone
    for zone in sorted(available_timezones(), reverse=True)
    if "/" in zone and not zone.startswith(("Etc/", "SystemV/"))
}
WORK, AWAKE = range(9, 17), range(7, 21)  # the hours at which a meeting suits, and those at which it is possible


@server.tool(ui=PAGE, annotations={"readOnlyHint": True, "openWorldHint": False})
def plan_meeting(
    cities: Annotated[list[str], "names such as Oslo or New York; the day is that of the first one"],
    day: Annotated[Optional[date], "today by default"] = None,
) -> dict[str, Any]:
    """Find the hour of a day at which people in several cities can meet."""
    if not 1 <= len(cities) <= 8:
        raise ToolError("Name one to eight cities.")
    zones = [ZoneInfo(ZONES[known(city)]) for city in cities]
    day = day or datetime.now(zones[0]).date()
    midnight = datetime(day.year, day.month, day.day, tzinfo=zones[0]).astimezone(timezone.utc)
    hours = [midnight + timedelta(hours=hour) for hour in range(24)]
    places = [
        {"city": known(city), "minutes": [minutes(hour.astimezone(zone), day) for hour in hours]}
        for city, zone in zip(cities, zones)
    ]
    comfort = [min(suits(place["minutes"][hour]) for place in places) for hour in range(24)]
    best = [hour for hour in range(24) if comfort[hour] == max(comfort)]
    hour = best[len(best) // 2]
    when = ", ".join(f"{place['city']} {clock(place['minutes'][hour])}" for place in places)
    words = ("No hour is good for everybody; the least bad one is", "Possible for everybody:", "Good for everybody:")
    data = {"day": day.isoformat(), "places": places, "best": best, "comfort": max(comfort)}
    return {"content": [text(f"{words[max(comfort)]} {day:%A %d %B %Y}, {when}.")], "structuredContent": data}


@server.tool(ui={"resourceUri": PAGE, "visibility": ["app"]}, annotations={"readOnlyHint": True})
def find_city(beginning: str) -> dict[str, list[str]]:
    """List cities whose names begin with some letters; for the page alone."""
    wanted = beginning.strip().casefold()
    return {"cities": sorted(city for city in ZONES if wanted and city.casefold().startswith(wanted))[:6]}


def known(city: str) -> str:
    """Return a city as the time zone database spells it."""
    wanted = city.strip().casefold()
    names = {name.casefold(): name for name in ZONES}
    if wanted not in names:
        near = ", ".join(names[each] for each in difflib.get_close_matches(wanted, names, 3))
        raise ToolError(f"No time zone is named after {city!r}." + (f" Near it: {near}." if near else ""))
    return names[wanted]


def minutes(moment: datetime, day: date) -> int:
    """Return the minutes on somebody's clock since midnight of a day, below 0 on the evening before it."""
    return (moment.date() - day).days * 1440 + moment.hour * 60 + moment.minute


def suits(minute: int) -> int:
    """Return 2 for an hour of work, 1 for one at which people are awake, 0 at night."""
    hour = minute // 60 % 24
    return 2 if hour in WORK else 1 if hour in AWAKE else 0


def clock(minute: int) -> str:
    """Write a time of day."""
    return f"{minute // 60 % 24:02}:{minute % 60:02}"


if __name__ == "__main__":
    server.run()
