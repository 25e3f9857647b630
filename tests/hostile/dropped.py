"""A server with a quick tool and one that goes on until it is cancelled, and the program that drops calls of it.

`python -m tests.hostile.dropped` serves over stdio; with a target and a number of seconds it is the program. That runs
in an interpreter of its own, since when the collector runs depends on all that is in the process.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from minimcp import Client, Context, Server

server = Server("dropped")


@server.tool
def add(a: int, b: int) -> dict:
    return {"sum": a + b}


@server.tool
def slow(ctx: Context) -> str:
    for number in range(1, 1000):
        ctx.progress(number)
        if ctx.cancelled.wait(0.05):
            break
    return "ended"


def drop_calls(client: Client, seconds: float) -> None:
    """Call from two threads while a third starts calls, reads their first progress and drops them."""
    until = time.monotonic() + seconds
    counts = {"first": 0, "second": 0, "dropped": 0}

    def call(name: str) -> None:
        while time.monotonic() < until:
            client.call_tool("add", a=1, b=2)
            counts[name] += 1

    def drop() -> None:
        while time.monotonic() < until:
            started = client.start_tool("slow")
            next(started)
            del started
            counts["dropped"] += 1

    threads = [threading.Thread(target=call, args=(name,), daemon=True) for name in ("first", "second")]
    threads.append(threading.Thread(target=drop, daemon=True))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()) + 10)
    stuck = [thread.name for thread in threads if thread.is_alive()]
    print(f"stuck: {stuck} after {counts}" if stuck else f"ended: {counts}", flush=True)
    os._exit(1 if stuck else 0)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        server.run()
    else:
        target = [sys.executable, "-m", "tests.hostile.dropped"] if sys.argv[1] == "stdio" else sys.argv[1]
        drop_calls(Client(target, timeout=10).open(), float(sys.argv[2]))
