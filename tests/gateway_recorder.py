"""A server that writes down what it runs, as a program: `ERA DOOR FILE [PORT]`; see `gateway_upstream` for the eras.

Each line of the file is a word and a text: "ran", "began" or "gave-up".
"""

from __future__ import annotations

import os
import sys
import threading

from minimcp import Context, Server
from tests.gateway_upstream import refuse_other

era, door, path, *port = sys.argv[1:]
server = Server("recorder", "1.0")
file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def note(word: str, text: str) -> None:
    os.write(file, f"{word} {text}\n".encode())


@server.tool
def record(text: str) -> str:
    """Write down that it ran, a moment before the answer leaves."""
    note("ran", text)
    threading.Event().wait(0.01)
    return text


@server.tool
def hold(text: str, ctx: Context) -> str:
    """Wait until the call is given up."""
    note("began", text)
    if ctx.cancelled.wait(60):
        note("gave-up", text)
    return text


if era != "both":
    refuse_other(server, era)
if door == "stdio":
    server.run()
else:
    server.run_http(
        port=int(port[0]) if port else 0,
        ready=lambda listening: print(f"listening on {listening.url}/mcp", flush=True),
    )
