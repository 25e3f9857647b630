"""A program as an author types it; `test_user_types` has type checkers read it, and nothing runs it."""

from __future__ import annotations

from typing import Any, Callable, Optional

from typing_extensions import assert_type

from minimcp import Client, Context, Server
from minimcp.client.results import Result
from minimcp.protocol import types
from minimcp.server.bus import Bus, LocalBus
from minimcp.server.catalog import Catalog, Entry
from minimcp.server.registry import Registry


def policy(ctx: Context, entry: Entry) -> bool:
    return ctx.method != "tools/call" or "title" in entry.definition


bus: Bus = LocalBus()
catalog: Catalog = Registry()
server = Server("typed", "1.0", ttl_ms=1000, cache_scope="public", policy=policy, bus=bus, catalog=catalog)


class Parcels:
    identifier = "com.example/parcels"
    settings = {"max": 5}


server.use(Parcels())
assert_type(server.wsgi.engine.limits["depth"], float)


@server.tool
def add(a: int, b: int = 1) -> int:
    return a + b


@server.tool(
    title="Multiply",
    annotations={"readOnlyHint": True, "title": "Multiply"},
    icons=[{"src": "https://x.example/i.png"}],
    meta={"com.example/tier": 2},
    allow=lambda ctx: ctx.version >= "2025-11-25",
)
def multiply(a: float, b: float, ctx: Context) -> float:
    ctx.progress(1, 2, "half")
    return a * b


@server.prompt
def greet(name: str) -> str:
    return f"Hello {name}"


@server.prompt(name="part", title="Part")
def farewell(name: str) -> list[str]:
    return [name]


@server.resource("weather://{city}", mime_type="text/plain", ttl_ms=5, cache_scope="private", size=5)
def weather(city: str) -> bytes:
    return city.encode()


@server.completion("greet", "name")
def names(value: str, arguments: dict[str, str]) -> list[str]:
    return [name for name in ("Ann", "Bob") if name.startswith(value)]


assert_type(add(1, b=2), int)
assert_type(multiply(1, 2.5, Context.__new__(Context)), float)
assert_type(greet("Ann"), str)
assert_type(farewell(name="Ann"), list[str])
assert_type(weather("Oslo"), bytes)
assert_type(names("A", {}), list[str])


def plain(a: int) -> Optional[str]:
    return str(a)


assert_type(server.tool(plain, "named", title="Named", description="As a plain call.")(1), Optional[str])
assert_type(server.prompt(plain, "named")(1), Optional[str])
assert_type(server.resource("plain://{a}", name="named")(plain)(1), Optional[str])
assert_type(server.remove_tool("named"), bool)
unsubscribe: Callable[[], None] = bus.subscribe(["tools", "tasks/1"], lambda topic, data: print(topic.upper(), data))

with Client(server, timeout=5.0, cache=False) as client:
    assert_type(client, Client)
    assert_type(client.call_tool("add", a=1, b=2), Result)
    assert_type(client.call_tool("add", {"a": 1}).text, str)
    assert_type(client.call_tool("add", {"a": 1}).is_error, bool)
    assert_type(client.list_tools(), list[types.Tool])
    assert_type(client.list_resources(), list[types.Resource])
    assert_type(client.list_prompts()[0]["name"], str)
    assert_type(client.read_resource("weather://Oslo"), Result)
    assert_type(client.get_prompt("greet", name="Ann").text, str)
    assert_type(client.capabilities, dict[str, Any])
