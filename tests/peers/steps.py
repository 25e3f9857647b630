"""What every Python peer does with a server, written down as one JSON line per step."""

from __future__ import annotations

import asyncio
import json
import sys

# Bounds a step whose answer never comes; the test bounds the whole process.
STEP_S = 20


def target() -> tuple[str, str | None, list[str]]:
    """The command line: the mode, then a URL or else a command that serves stdio."""
    mode, *rest = sys.argv[1:]
    return (mode, rest[0], []) if rest[0].startswith("http") else (mode, None, rest)


def saw(step: str, **found: object) -> None:
    """Print what was seen in a step."""
    print(json.dumps({"step": step, **found}), flush=True)


def plain(model) -> dict:
    """A result of either SDK as the dict that went over the wire."""
    return model.model_dump(by_alias=True, mode="json", exclude_none=True)


class Person:
    """Accepts the first form with three nights, declines the second."""

    def __init__(self, result_class) -> None:
        self.asked: list[dict] = []
        self._result = result_class

    async def __call__(self, context, params):
        asked = plain(params)
        self.asked.append({"message": asked["message"], "properties": asked["requestedSchema"]["properties"]})
        if len(self.asked) == 1:
            return self._result(action="accept", content={"nights": 3})
        return self._result(action="decline")


class Folder:
    """Has one root, and a model that says what it was asked."""

    def __init__(self, types) -> None:
        self._types = types

    async def roots(self, context):
        return self._types.ListRootsResult(roots=[self._types.Root(uri="file:///tmp/a", name="A")])

    async def sample(self, context, params):
        asked = plain(params)
        saw("sampled", system=asked["systemPrompt"], limit=asked["maxTokens"], messages=asked["messages"])
        content = self._types.TextContent(type="text", text="Attic")
        return self._types.CreateMessageResult(role="assistant", content=content, model="a model")


async def pages(fetch, member: str) -> list[dict]:
    """All items of a list, and how many pages they came on."""
    found, cursor, count = [], None, 0
    while count == 0 or cursor is not None:
        page = plain(await fetch(cursor))
        found += page[member]
        cursor, count = page.get("nextCursor"), count + 1
    saw(member, items=found, pages=count)
    return found


async def walk(client, fetchers: dict, references: dict, person: Person, errors: type) -> None:
    """List, call, read, prompt, complete, get progress and answer questions."""
    for member, fetch in fetchers.items():
        await pages(fetch, member)
    saw("add", **plain(await client.call_tool("add", {"a": 2, "b": 3})))
    saw("picture", **plain(await client.call_tool("picture", {})))
    saw("fail", **plain(await client.call_tool("fail", {})))
    try:
        saw("unknown", **plain(await client.call_tool("nothing", {})))
    except errors as error:
        saw("unknown", code=error.error.code, message=error.error.message)
    saw("read", **plain(await client.read_resource("config://app")))
    saw("template", **plain(await client.read_resource("weather://Oslo/today")))
    saw("prompt", **plain(await client.get_prompt("report", {"city": "Oslo"})))
    for name, (reference, value) in references.items():
        completed = await client.complete(reference, {"name": "city", "value": value})
        saw(name, **plain(completed)["completion"])

    reports: list[list] = []
    calls = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        reports.append([done, total, message])
        # In a task of its own: the SDK's receiving loop waits for this function.
        calls.append(asyncio.create_task(client.call_tool("seen", {})))

    result = plain(await client.call_tool("steps", {"count": 3}, progress_callback=progress))
    await asyncio.gather(*calls)
    saw("progress", reports=reports, content=result["content"])

    for city in ("Oslo", "Lima"):
        result = plain(await client.call_tool("book", {"city": city}))
        saw("elicit", content=result["content"], isError=result.get("isError", False))
    saw("asked", questions=person.asked)
    saw("named", **plain(await client.call_tool("name_folder", {})))


async def grow(client, fetch, wait) -> None:
    """Have a tool registered, wait for the word of it, and find and call it."""
    saw("grow", **plain(await client.call_tool("grow", {"name": "newcomer"})))
    saw("changed", via=await asyncio.wait_for(wait(), STEP_S))
    await pages(fetch, "tools")
    saw("newcomer", **plain(await client.call_tool("newcomer", {})))
    saw("end")
