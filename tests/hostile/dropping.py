"""A program that drops calls while two threads of the same client make others, and the server that it talks to.

`python -m tests.hostile.dropping serve` is the server over stdio; `... TARGET SECONDS` is the program, where the target
is `stdio` or a URL. It has an interpreter of its own, since the collector runs by what is allocated in all of it.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from minimcp import Client, Context, Server

_BOUND_S = 60
server = Server("dropping")


@server.tool
def add(a: int, b: int) -> dict:
    return {"sum": a + b}


@server.tool
def count(ctx: Context) -> str:
    """Count until the call is cancelled."""
    for number in range(1, 10_000):
        ctx.progress(number)
        if ctx.cancelled.wait(0.05):
            break
    return "counted"


def drop_calls(client: Client, seconds: float) -> int:
    """Return 0 when no thread got stuck, 1 otherwise."""
    end = time.monotonic() + seconds
    counts = {"calls": 0, "dropped": 0}

    def call() -> None:
        while counts["calls"] == 0 or time.monotonic() < end:
            assert client.call_tool("add", a=1, b=2).data == {"sum": 3}
            counts["calls"] += 1

    def drop() -> None:
        while counts["dropped"] == 0 or time.monotonic() < end:
            started = client.start_tool("count")
            next(started)
            if counts["dropped"] % 2:
                # Only the collector finds this one.
                started.itself = started  # type: ignore[attr-defined]
            del started
            counts["dropped"] += 1

    threads = [threading.Thread(target=work, name=work.__name__, daemon=True) for work in (call, call, drop)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end + _BOUND_S - time.monotonic()))
    stuck = [thread.name for thread in threads if thread.is_alive()]
    ended_early = counts["calls"] == 0 or counts["dropped"] == 0
    print(f"stuck: {stuck}, {counts}", flush=True)
    return 1 if stuck or ended_early else 0


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        server.run()
    else:
        served = [sys.executable, "-m", "tests.hostile.dropping", "serve"]
        client = Client(served if sys.argv[1] == "stdio" else sys.argv[1], timeout=30).open()
        # Not by way of the interpreter's end, which would wait for locks that are never released.
        os._exit(drop_calls(client, float(sys.argv[2])))
