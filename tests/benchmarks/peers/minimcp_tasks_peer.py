"""The tasks benchmark's server built with this checkout: `python minimcp_tasks_peer.py PORT STORE THREADS`.

STORE is ":memory:", a file, or the address of Redis.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from minimcp import Server
from minimcp.extensions.tasks import Tasks

port, place, threads = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
store: Any = place
if "://" in place:
    from minimcp.extensions.tasks.redis_store import RedisStore

    store = RedisStore(place)
server = Server("tasks", "1.0")
server.use(Tasks(store, workers=threads, most=1_000_000, most_kept=1_000_000))


@server.tool(task=True)
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool(task=True)
def late(wait_s: float) -> float:
    """Wait, and return the time at which that was over."""
    time.sleep(wait_s)
    return time.time()


server.run_http(port=port)
