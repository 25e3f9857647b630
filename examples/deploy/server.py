"""A notice board that several processes serve: nginx in front, gunicorn with four workers, Redis between these.

Work that takes long is done by Celery, from the same file.

README.md has the commands. Settings come from the environment:

    MINIMCP_SECRET  one secret for all processes, `python -c "import secrets; print(secrets.token_hex())"`
    MCP_REDIS       the address of Redis; without one each process is by itself
    MCP_URL         the address that callers use
    MCP_KEYS        the file of API keys, see `python -m minimcp token`; without one everybody may call
    MCP_BOARD       the file of the board
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from contextlib import closing

from celery import Celery

from minimcp import Context, Server
from minimcp.auth import Keys
from minimcp.extensions.tasks import CeleryCarrier, RedisStore, Tasks
from minimcp.server.redis_bus import RedisBus

BOARD = os.environ.get("MCP_BOARD", "board.db")
REDIS = os.environ.get("MCP_REDIS", "redis://127.0.0.1:6379/0")
KEYS = os.environ.get("MCP_KEYS")
# Below the time that gunicorn.conf.py gives a worker to stop.
PATIENCE_S = 20.0

bus = RedisBus(REDIS) if REDIS else None
server = Server(
    "board",
    "1.0",
    auth=Keys(KEYS) if KEYS else "public",
    public_url=os.environ.get("MCP_URL", "https://board.example/mcp"),
    trusted_proxy="127.0.0.1",
    bus=bus,
    # Of the threads of a worker, those that may carry streams; the others are left for calls.
    limits={"foreign_streams": 40},
)
stopping = threading.Event()
jobs = Celery("board", broker=REDIS)
# The name of the queue in Redis, which may have others.
jobs.conf.task_default_queue = "board"
if REDIS:
    # These processes hand tasks over; `celery -A server:jobs worker` runs them.
    server.use(Tasks(RedisStore(REDIS, prefix="board"), carrier=CeleryCarrier(jobs), workers=0))


def board() -> closing[sqlite3.Connection]:
    """Open the board, which all processes write to."""
    database = sqlite3.connect(BOARD, timeout=10)
    database.execute("CREATE TABLE IF NOT EXISTS notes (text TEXT)")
    return closing(database)


@server.resource("board://notes", mime_type="text/plain")
def notes() -> str:
    """Everything on the board."""
    with board() as database:
        return "\n".join(text for (text,) in database.execute("SELECT text FROM notes"))


@server.tool
def add(text: str) -> str:
    """Put a note on the board, and tell everybody who watches it, in whatever process."""
    with board() as database, database:
        database.execute("INSERT INTO notes VALUES (?)", (text,))
    server.updated("board://notes")
    return f"Noted by process {os.getpid()}"


@server.tool(annotations={"destructiveHint": True})
def clear(ctx: Context) -> str:
    """Clear the board, after asking; the answer may come to any process."""
    if not ctx.elicit("Clear the whole board?", {"sure": bool}).get("sure"):
        return "Left as it was"
    with board() as database, database:
        database.execute("DELETE FROM notes")
    server.updated("board://notes")
    return "Cleared"


@server.tool
def count(ctx: Context, to: int, pause_s: float = 0.1) -> str:
    """Count slowly, as work that takes its time does."""
    for number in range(1, to + 1):
        ctx.progress(number, to)
        ctx.cancelled.wait(pause_s)
    return f"Counted to {to}"


@server.tool(task=True, idempotent=True)
def digest(ctx: Context, pause_s: float = 0.1) -> dict[str, int]:
    """Count the words of the board, note by note. Nothing changes, so that it may run again after a crash."""
    with board() as database:
        texts = [text for (text,) in database.execute("SELECT text FROM notes")]
    words = 0
    for number, text in enumerate(texts, 1):
        words += len(text.split())
        ctx.progress(number, len(texts), "counting")
        ctx.cancelled.wait(pause_s)
    return {"notes": len(texts), "words": words}


def health(environ):
    """Answer as long as the process does."""
    return 200, [("Content-Type", "text/plain")], [b"ok\n"]


def readiness(environ):
    """Say whether new clients are welcome here. Without Redis most requests go on, so that it does not decide."""
    ready = not stopping.is_set()
    body = json.dumps({"ready": ready, "redis": bus is not None and bus.up}).encode()
    return 200 if ready else 503, [("Content-Type", "application/json")], [body]


server.route("/healthz", health)
server.route("/readyz", readiness)


def stop() -> None:
    """End the streams, so that clients go to other processes, and let running calls end; gunicorn.conf.py calls it."""
    stopping.set()
    server.close(PATIENCE_S)


app = server.wsgi
