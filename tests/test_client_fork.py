"""A client that was in use when its process forked: the child reaches an HTTP server, whatever the parent was doing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from minimcp import Server
from tests.embedded import embedded
from tests.transports import ROOT

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

# The parent forks while one of its threads looks into the cache and another notes what a server speaks.
HELD = """
import os, signal, sys
from minimcp import Cache, Client
from minimcp.client import negotiation

cache = Cache()
client = Client(sys.argv[1], mode=sys.argv[2], cache=cache).open()
client.list_tools()
with cache._lock(), negotiation._lock():
    child = os.fork()
    if not child:
        signal.alarm(60)
        again = Client(sys.argv[1], mode=sys.argv[2], cache=cache)
        for each in (client, again):
            assert [tool["name"] for tool in each.list_tools()] == ["add"]
            assert each.call_tool("add", a=1, b=2).text == "3"
        os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert client.call_tool("add", a=1, b=2).text == "3"
client.close()
"""


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_locks_that_were_held_do_not_stop_the_child(mode: str) -> None:
    server = Server("sums", "1.0", ttl_ms=60_000)

    @server.tool
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    with embedded(server.wsgi) as listening:
        command = [sys.executable, "-c", HELD, f"{listening.url}/mcp", mode]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
