"""The example `examples/celery_report`, as it is shown, under Celery's prefork and gevent pools.

Workers take seconds to start and longer to stop, so all of them run at once, before the tests look at what happened.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.embedded import embedded
from tests.helpers import Process
from tests.processes import tree
from tests.transports import ROOT

pytest.importorskip("celery", reason="celery is not installed")
if not os.path.isdir("/proc/self/task"):
    pytest.skip("this system does not tell which processes there are", allow_module_level=True)

# The application of a worker whose clients were in use before it forked its pool.
EARLY = """
from celery_report.tasks import app, calendar, report, weather
from minimcp import Client, UsedAfterFork

plain = Client(COMMAND)
for client in (calendar, weather, plain):
    client.open()

@app.task
def use_plain():
    try:
        return plain.call_tool("weekday", day="2026-07-28").text
    except UsedAfterFork as error:
        return f"{type(error).__name__}: {error}"
"""
REPORTS = """\
Bergen
Tuesday   rain  17.5 C
Wednesday rain  17.5 C
Thursday  rain  17.5 C

Oslo
Tuesday   clear 17.5 C
Wednesday clear 17.5 C
Thursday  clear 17.5 C

"""
POOLS = ["prefork"] + (["gevent"] if importlib.util.find_spec("gevent") else [])
SERVER = [sys.executable, "-m", "minimcp", "run", "examples/hello.py"]


class Worker:
    """A running worker with a queue of its own.

    :ivar seen: the processes it had, with their command lines.
    """

    def __init__(self, folder: Path, weather: str, app: str, *options: str) -> None:
        path = os.pathsep.join((str(ROOT), str(ROOT / "examples"), str(folder)))
        self._env = {
            "PYTHONPATH": path,
            "REPORT_QUEUE": str(folder),
            "WEATHER": weather,
            "CALENDAR": shlex.join(SERVER),
        }
        command = [sys.executable, "-m", "celery", "--app", app, "worker", *options]
        self.process = Process(command, cwd=str(ROOT), **self._env)
        self.seen: dict[int, str] = {}

    def ask(self, *command: str) -> str:
        """Run a Python command that sends tasks, and return what it prints."""
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env={**os.environ, **self._env},
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.look()
        assert done.returncode == 0, done.stderr + "\n".join(self.process.lines)
        return done.stdout

    def look(self) -> None:
        self.seen.update({pid: command_of(pid) for pid in tree(self.process.child.pid)})

    def servers(self) -> int:
        return sum("minimcp run" in command for command in self.seen.values())

    def left(self) -> list[str]:
        """The processes that are still there, after a while in which they may end."""
        until = time.monotonic() + 30
        while True:
            left = [command for pid, command in self.seen.items() if command and command_of(pid) == command]
            if not left or time.monotonic() > until:
                return left
            time.sleep(0.02)


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


@pytest.fixture(scope="module")
def ended(tmp_path_factory: Any) -> Iterator[dict[str, Any]]:
    """What was asked of each worker, and the workers, which have ended."""
    folders = {name: tmp_path_factory.mktemp(name) for name in (*POOLS, "early")}
    (folders["early"] / "early.py").write_text(EARLY.replace("COMMAND", repr(SERVER)))
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        import structured
    finally:
        sys.path.remove(str(ROOT / "examples"))
    with embedded(structured.server.wsgi) as listening:
        weather = f"{listening.url}/mcp"
        workers: dict[str, Worker] = {}
        found: dict[str, Any] = {"workers": workers}
        try:
            for name in POOLS:
                workers[name] = Worker(
                    folders[name], weather, "celery_report.tasks", "--pool", name, "--concurrency", "2"
                )
            # Every task in a process of its own, all forked from one that has opened its clients.
            options = ("--pool", "prefork", "--concurrency", "2", "--max-tasks-per-child", "1")
            workers["early"] = Worker(folders["early"], weather, "early", *options)
            for name, worker in workers.items():
                found[name] = worker.ask("-m", "celery_report", "Bergen", "Oslo")
            get = "from celery_report.tasks import app; print(app.send_task('early.use_plain').get(timeout=60))"
            found["plain"] = workers["early"].ask("-c", get)
            for worker in workers.values():
                worker.look()
                worker.process.child.terminate()
            found["codes"] = [worker.process.child.wait(60) for worker in workers.values()]
            found["left"] = [command for worker in workers.values() for command in worker.left()]
        finally:
            for worker in workers.values():
                worker.process.__exit__()
        yield found


@pytest.mark.parametrize("pool", ["prefork", "gevent"])
def test_a_task_calls_two_servers(ended: Any, pool: str) -> None:
    if pool not in ended:
        pytest.skip(f"{pool} is not installed")
    assert ended[pool] == REPORTS
    # One in each process that ran a task; greenlets share one.
    assert 1 <= ended["workers"][pool].servers() <= {"prefork": 2, "gevent": 1}[pool]


def test_clients_that_were_open_before_the_fork_connect_anew_or_say_so(ended: Any) -> None:
    assert ended["early"] == REPORTS
    assert ended["plain"].startswith("UsedAfterFork: ") and "restart=True" in ended["plain"]


def test_no_process_is_left_when_the_worker_has_stopped(ended: Any) -> None:
    assert set(ended["codes"]) == {0}
    assert ended["left"] == []
    for worker in ended["workers"].values():
        assert not [line for line in worker.process.lines if "Traceback" in line or "ERROR" in line]
