"""The client inside a coroutine, on the thread of a running event loop: in a notebook every cell runs there.

It blocks the loop as any function does, and needs none of it; with `asyncio.to_thread` the loop goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from minimcp import Client
from tests.embedded import embedded
from tests.transports import ROOT

COMMAND = [sys.executable, "-m", "minimcp", "run", "examples/ask.py"]


@pytest.fixture(params=["stdio", "http"])
def target(request: Any, monkeypatch: Any) -> Iterator[Any]:
    """The server of `examples/ask.py`, over two transports."""
    monkeypatch.chdir(ROOT)
    if request.param == "stdio":
        yield COMMAND
        return
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import ask

    with embedded(ask.server.wsgi) as listening:
        yield f"http://127.0.0.1:{listening.port}/mcp"


def elicit(question: Any) -> Any:
    return {"guests": 2, "time": "18:00"}


@pytest.mark.parametrize("mode", ["modern", "legacy"])
def test_a_coroutine_calls_the_client_as_any_code_does(target: Any, mode: str) -> None:
    async def main() -> str:
        assert asyncio.get_running_loop().is_running()
        with Client(target, mode=mode, elicit=elicit) as client:
            seen = list(client.start_tool("summarize", text="short"))
            assert seen == []
            return client.call_tool("book_table", restaurant="Noma").text

    assert asyncio.run(main()) == "Booked a table for 2 at 18:00."


def test_the_loop_goes_on_while_threads_wait(target: Any) -> None:
    async def main() -> list[str]:
        with Client(target, elicit=elicit) as client:
            calls = [asyncio.to_thread(client.call_tool, "book_table", restaurant="Noma") for _ in range(8)]
            return [result.text for result in await asyncio.gather(*calls)]

    assert asyncio.run(main()) == ["Booked a table for 2 at 18:00."] * 8
