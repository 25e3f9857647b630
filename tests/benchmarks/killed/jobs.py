"""The server of the kill matrix: what its web process serves, and what every kind of worker imports.

`python jobs.py web PORT`, or `python jobs.py dispatcher`. The settings are in the environment: KILLED_CARRIER,
KILLED_FOLDER, KILLED_STORE, KILLED_REDIS, KILLED_WORKERS and KILLED_HEARTBEAT_S.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

from minimcp import Server, Tasks
from minimcp.extensions.tasks import CeleryCarrier, RqCarrier
from minimcp.server.redis_bus import RedisBus

PATIENCE_S = 2.0
folder, address, kind = Path(os.environ["KILLED_FOLDER"]), os.environ["KILLED_REDIS"], os.environ["KILLED_CARRIER"]
carrier: Any = None
if kind == "celery":
    from celery import Celery

    app = Celery("jobs", broker=address)
    carrier = CeleryCarrier(app, patience_s=PATIENCE_S)
elif kind == "rq":
    from redis import Redis
    from rq import Queue

    carrier = RqCarrier(Queue("jobs", connection=Redis.from_url(address)), "jobs:server", patience_s=PATIENCE_S)
server = Server("jobs", bus=RedisBus(address), secret="of the kill matrix only, 0123456789")
server.use(
    Tasks(
        os.environ["KILLED_STORE"],
        carrier=carrier,
        workers=int(os.environ["KILLED_WORKERS"]),
        heartbeat_s=float(os.environ["KILLED_HEARTBEAT_S"]),
    )
)
pause = threading.Event()


def work(name: str, number: int) -> int:
    """Say that it begins, take 20 to 60 ms, and say that it ends."""
    file = os.open(folder / "log", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    try:
        os.write(file, f"begin {name} {number}\n".encode())
        pause.wait(0.02 + 0.01 * (number % 5))
        os.write(file, f"end {name} {number}\n".encode())
    finally:
        os.close(file)
    return number


@server.tool(task=True)
def once(number: int) -> int:
    """Work that must not be done twice."""
    return work("once", number)


@server.tool(task=True, idempotent=True)
def again(number: int) -> int:
    """Work that may be done twice."""
    return work("again", number)


if __name__ == "__main__":
    if sys.argv[1] == "web":
        server.run_http(port=int(sys.argv[2]), ready=lambda _: print("ready", flush=True))
    else:
        server.tasks.start()
        print("ready", flush=True)
        threading.Event().wait()
