"""A server whose tasks others run, for tests: what its web process is made of, and the module that its workers import.

A worker finds its settings in the variables that `environment` returns.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from minimcp import Context, Server, Tasks
from minimcp.extensions.tasks import CeleryCarrier, RqCarrier

HEARTBEAT_S = 2.0
PATIENCE_S = 1.0
_HERE = Path(__file__).resolve().parent


def environment(carrier: str, folder: Path, broker: str, store: str = "") -> dict[str, str]:
    """The variables of a worker's process."""
    settings = {"BY": carrier, "IN": str(folder), "OVER": broker, "STORE": store}
    path = os.pathsep.join((str(_HERE.parent), str(_HERE)))
    return {"PYTHONPATH": path, **{f"CARRIED_{name}": value for name, value in settings.items()}}


def command(carrier: str, broker: str) -> list[str]:
    """The command of a worker."""
    if carrier == "celery":
        options = ["--concurrency", "2", "--loglevel", "INFO"]
        return [sys.executable, "-m", "celery", "-A", "carried_server", "worker", *options]
    return [sys.executable, "-m", "rq.cli", "worker", "tasks", "--url", broker]


def application(broker: str) -> Any:
    """The Celery application, all of whose settings are the defaults."""
    from celery import Celery

    return Celery("tests", broker=broker)


def queue(broker: str) -> Any:
    """The queue in RQ."""
    from redis import Redis
    from rq import Queue

    return Queue("tasks", connection=Redis.from_url(broker))


def log(folder: Path, line: str) -> None:
    """Append a line to the log of what bodies do, which all processes write."""
    file = os.open(folder / "log", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)


def hold(folder: str, name: str, ctx: Context) -> int:
    """Wait until there is a file of this name, and return the process that has waited."""
    log(Path(folder), f"begin {name}")
    ctx.progress(1, 2, os.getpid())
    until = time.monotonic() + 300
    try:
        while not (Path(folder) / name).exists():
            ctx.check()
            assert time.monotonic() < until
            ctx.cancelled.wait(0.02)
    finally:
        log(Path(folder), f"end {name}")
    return os.getpid()


def build(carrier: str, folder: Path, carried: Any, store: str = "") -> Server:
    """The server of each process.

    :param carried: the Celery application or the RQ queue.
    :param store: the address of a Redis; by default a file in the folder keeps the tasks.
    """
    server = Server("carried", "1")
    if carrier == "celery":
        carrying: Any = CeleryCarrier(carried, patience_s=PATIENCE_S)
    else:
        carrying = RqCarrier(carried, "carried_server:server", patience_s=PATIENCE_S)
    server.use(Tasks(store or folder / "tasks.db", carrier=carrying, workers=0, heartbeat_s=HEARTBEAT_S))

    @server.tool(task=True)
    def once(name: str, ctx: Context) -> int:
        return hold(str(folder), name, ctx)

    @server.tool(task=True, idempotent=True)
    def again(name: str, ctx: Context) -> int:
        return hold(str(folder), name, ctx)

    @server.tool
    def function(name: str, ctx: Context) -> int:
        return ctx.task(hold, str(folder), name)  # type: ignore[return-value]

    @server.tool(task=True)
    def ask(ctx: Context) -> str:
        return f"{ctx.elicit('Name?', {'name': str})['name']} {os.getpid()}"

    return server


if "CARRIED_BY" in os.environ:
    _by, _in, _over, _store = (os.environ[f"CARRIED_{name}"] for name in ("BY", "IN", "OVER", "STORE"))
    app = application(_over) if _by == "celery" else queue(_over)
    server = build(_by, Path(_in), app, _store)
