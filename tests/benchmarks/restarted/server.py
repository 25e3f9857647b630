"""The server of `examples/deploy` with tools that write down each of their executions, and with tasks.

gunicorn serves it in the example's place, with the example's own settings. Two more in the environment:

    MCP_RAN    the file that gets a line for each execution: the id that the caller gave it, and the process
    MCP_TASKS  the file of the tasks
"""

from __future__ import annotations

import importlib.util
import os
import time
from pathlib import Path

from minimcp import Context
from minimcp.extensions.tasks import Tasks

found = importlib.util.spec_from_file_location("board", Path(__file__).parents[3] / "examples/deploy/server.py")
assert found is not None and found.loader is not None
board = importlib.util.module_from_spec(found)
found.loader.exec_module(board)
bus, server, stop, app = board.bus, board.server, board.stop, board.app
server.use(Tasks(os.environ["MCP_TASKS"], heartbeat_s=2.0))
server.resource("load://{name}")(lambda name: name)
ran = os.open(os.environ["MCP_RAN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def log(id: str) -> str:
    """Write down that a tool runs for this id."""
    os.write(ran, f"{id} {os.getpid()}\n".encode())
    return id


@server.tool
def note(id: str) -> str:
    """Do something at once."""
    return log(id)


@server.tool
def steps(id: str, ctx: Context) -> str:
    """Do something that takes a while, and say how far it is."""
    log(id)
    for number in range(3):
        ctx.progress(number + 1, 3)
        time.sleep(0.02)
    return id


@server.tool
def ask(id: str, ctx: Context) -> str:
    """Do something once the caller is sure."""
    return log(id) if ctx.elicit("Sure?", {"sure": bool}).get("sure") else "not sure"


@server.tool(task=True)
def job(id: str) -> str:
    """Do something in a task."""
    log(id)
    time.sleep(0.05)
    return id


@server.tool(task=True)
def long_job(id: str, ctx: Context) -> str:
    """Do something in a task once the caller is sure, which takes a second, and say how far it is."""
    sure = ctx.elicit("Sure?", {"sure": bool}).get("sure")
    log(id)
    for number in range(4):
        ctx.progress(number + 1, 4)
        time.sleep(0.25)
    return id if sure else "not sure"


@server.tool
def change(id: str, uri: str) -> str:
    """Change a resource, and tell everybody who watches it."""
    log(id)
    server.updated(uri)
    return id
