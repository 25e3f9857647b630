"""One cell of the kill matrix: processes that make and run tasks, one kind of which is killed again and again."""

from __future__ import annotations

import collections
import contextlib
import http.client
import json
import os
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Set, Tuple

from minimcp.extensions.tasks import RedisStore, SqliteStore, TaskStore, UnusableStore
from minimcp.protocol import spec
from tests.helpers import Process, exchange, free_port, http_headers, modern
from tests.processes import ROOT, Redis, kill_tree

JOBS = Path(__file__).parent / "killed"
CARRIERS = {"threads": "threads", "workers": "own workers", "celery": "Celery", "rq": "RQ"}
VICTIMS = {"worker": "worker", "web": "web process", "redis": "Redis", "dispatcher": "dispatcher"}
HEARTBEAT_S = 2.0
INTERRUPTED = "The task was interrupted: the process that ran it has stopped"
DECLARED = {"extensions": {"io.modelcontextprotocol/tasks": {}}}
ENDED = ("completed", "failed", "cancelled")
# So many tasks are unfinished at any time, so that the processes are always in the middle of some.
_UNFINISHED = 12
_AT_ONCE = 4
_BOUND_S = 120.0
# Between two kills; others need some time to come back to a Redis that has gone.
_PAUSES_S = {"worker": (0.2, 1.2), "web": (0.2, 1.2), "redis": (1.0, 6.0), "dispatcher": (0.2, 1.2)}
_MOST_RECORDS = 1_000_000
_STATUSES = (*ENDED, "queued", "working", "input_required")


class Outcome(NamedTuple):
    """What became of the tasks of a cell.

    :ivar told: how many tasks the clients were told of; `made` counts those in the store.
    :ivar rerun: how many bodies that may run again did.
    :ivar lost: how many have not ended, or are unknown to a process, or gone from the store.
    :ivar twice: how many bodies ran twice that must not.
    :ivar wrong: failures for another reason than that they were interrupted.
    :ivar slowest: the longest time from a kill until a task said that it was interrupted, in heartbeats; 0 for none.
    """

    kills: int
    told: int
    made: int
    completed: int
    interrupted: int
    rerun: int
    lost: int
    twice: int
    wrong: int
    slowest: float


class Cell:
    """The processes of a cell, which are started again whenever they end.

    :param carrier: a key of `CARRIERS`, and `victim` one of `VICTIMS`.
    :param store: what keeps the records: "file", or "redis", which then writes what it has to its disk.
    """

    def __init__(self, carrier: str, victim: str, folder: Path, seed: int, store: str = "file") -> None:
        self.carrier, self.victim = carrier, victim
        self._random = random.Random(f"{seed} {carrier} {victim}")
        config = folder / "redis.conf"
        config.write_text(f"appendonly {'yes' if store == 'redis' else 'no'}\n")
        self._redis = Redis(config, folder if store == "redis" else None)
        self._log = folder / "log"
        self._log.touch()
        # Another database than that of the brokers.
        place = f"{self._redis.url[:-1]}1" if store == "redis" else str(folder / "tasks.db")
        self._store: TaskStore = RedisStore(place) if store == "redis" else SqliteStore(place)
        self._port = free_port()
        self._env = {
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(JOBS))),
            "KILLED_CARRIER": carrier,
            "KILLED_FOLDER": str(folder),
            "KILLED_STORE": place,
            "KILLED_REDIS": self._redis.url,
            "KILLED_WORKERS": "0",
            "KILLED_HEARTBEAT_S": str(HEARTBEAT_S),
        }
        self._running: Dict[str, Process] = {}
        self._ending = threading.Event()
        self._told: Set[str] = set()  # of the client's thread, and after its end of others
        self._unknown: Set[str] = set()  # likewise
        self._kills = 0
        self._slowest = 0.0

    def _commands(self) -> Dict[str, Tuple[List[str], str]]:
        """Return the command of each process, and the line by which it says that it is ready."""
        jobs = [sys.executable, str(JOBS / "jobs.py")]
        found = {"web": ([*jobs, "web", str(self._port)], "^ready"), "dispatcher": ([*jobs, "dispatcher"], "^ready")}
        if self.carrier == "workers":
            command = [sys.executable, "-m", "minimcp", "worker", jobs[1], "--workers", str(_AT_ONCE)]
            found["worker"] = command, "worker for jobs: runs"
        elif self.carrier == "celery":
            command = [sys.executable, "-m", "celery", "-A", "jobs", "worker", "--concurrency", str(_AT_ONCE)]
            found["worker"] = [*command, "--loglevel", "INFO"], "celery@.* ready"
        elif self.carrier == "rq":
            for number in range(2):
                command = [sys.executable, "-m", "rq.cli", "worker", "jobs", "--url", self._redis.url]
                found[f"worker {number}"] = command, "Listening on"
        return found

    def _start(self, name: str) -> None:
        command, _ = self._commands()[name]
        env = dict(self._env)
        if self.carrier == "threads" and name == "web":
            env["KILLED_WORKERS"] = str(_AT_ONCE)
        self._running[name] = Process(command, cwd=str(JOBS), **env)

    def _start_again(self) -> None:
        """Start the processes that have ended, as a service manager does."""
        for name, process in list(self._running.items()):
            if process.child.poll() is not None:
                process.__exit__()
                self._start(name)

    def _victims(self) -> List[str]:
        # Threads are workers of the web process itself.
        name = "web" if self.carrier == "threads" and self.victim == "worker" else self.victim
        return [each for each in self._running if each.startswith(name)]

    def run(self, seconds: float) -> Outcome:
        """Kill for some time, at least once, and return what became of all tasks."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._store.close)
            stack.enter_context(self._redis)
            stack.callback(self._end)
            for name in self._commands():
                self._start(name)
            self._wait_until_ready()
            client = threading.Thread(target=self._make)
            client.start()
            try:
                until = time.monotonic() + seconds
                while not self._kills or time.monotonic() < until:
                    threading.Event().wait(self._random.uniform(*_PAUSES_S[self.victim]))
                    self._kill()
                    self._wait_until_ready()
            finally:
                self._ending.set()
                client.join(_BOUND_S)
            self._drain()
            return self._outcome()

    def _wait_until_ready(self) -> None:
        commands = self._commands()
        until = time.monotonic() + _BOUND_S
        for name in list(self._running):
            while True:
                try:
                    self._running[name].wait_for(commands[name][1], _BOUND_S)
                    break
                except AssertionError:
                    # One whose Redis is gone may end while it starts.
                    if time.monotonic() > until or self._running[name].child.poll() is None:
                        raise
                    self._start_again()

    def _kill(self) -> None:
        """Kill what is to be killed, start it again, and see when its tasks say that they were interrupted."""
        self._kills += 1
        if self.victim == "redis":
            self._redis.kill()
            threading.Event().wait(self._random.uniform(0.0, 1.0))
            self._redis.start()
            self._start_again()
            return
        pids: Set[int] = set()
        for name in self._victims():
            process = self._running[name]
            pids.update(kill_tree(process.child.pid))
            process.child.wait(_BOUND_S)
        killed = time.monotonic()
        owners = [owner for owner in self._store.owners() if int(owner.split(":")[1]) in pids]
        left = {id: owner for owner in owners for id in self._store.owned(owner)}
        self._start_again()
        while left:
            for id, owner in list(left.items()):
                record = self._store.get(id)
                if record is None or record.owner != owner or record.status in ENDED:
                    self._slowest = max(self._slowest, (time.monotonic() - killed) / HEARTBEAT_S)
                    del left[id]
            self._start_again()
            if time.monotonic() > killed + _BOUND_S:
                self._slowest = float("inf")
                return
            threading.Event().wait(0.02)

    def _unfinished(self, most: int) -> int:
        """Count the unfinished tasks, up to `most`; as many are they while the store is gone."""
        try:
            return self._store.count("", most)[1]
        except UnusableStore:
            return most

    def _make(self) -> None:
        """Make tasks over HTTP, as many as there should be, and poll them, until the end; the thread of the client."""
        number, newest = 0, ""
        while not self._ending.is_set():
            if newest and self._unfinished(_UNFINISHED) >= _UNFINISHED:
                reply = self._send("tasks/get", newest, taskId=newest)
                if reply is not None and reply.get("error", {}).get("code") == spec.INVALID_PARAMS:
                    self._unknown.add(newest)
                self._ending.wait(0.05)
                continue
            number += 1
            name = "again" if number % 3 == 0 else "once"
            reply = self._send("tools/call", name, name=name, arguments={"number": number})
            if reply is None or "error" in reply:
                self._ending.wait(0.05)
                continue
            newest = reply["result"]["taskId"]
            self._told.add(newest)

    def _send(self, method: str, about: str, **params: Any) -> Any:
        """Return the reply to a request, or None where nobody answers."""
        message = modern(method, 1, DECLARED, **params)
        headers = http_headers(message, Mcp_Name=about)
        try:
            with exchange(f"http://127.0.0.1:{self._port}/mcp", message, headers) as response:
                return json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError):
            return None

    def _drain(self) -> None:
        """Wait until nothing is unfinished, or that takes too long; clients go on to poll."""
        until = time.monotonic() + _BOUND_S
        while self._unfinished(1) and time.monotonic() < until:
            self._start_again()
            for id in list(self._told)[:1]:
                self._send("tasks/get", id, taskId=id)
            threading.Event().wait(0.1)

    def _outcome(self) -> Outcome:
        records = {record.id: record for record in self._store.find(None, _STATUSES, _MOST_RECORDS)}
        begun = collections.Counter(line for line in self._log.read_text().splitlines() if line.startswith("begin"))
        failed = [record for record in records.values() if record.status == "failed"]
        lost = self._unknown | (self._told - records.keys())
        lost.update(id for id, record in records.items() if record.status not in ENDED)
        interrupted = sum(record.state.get("message") == INTERRUPTED for record in failed)
        return Outcome(
            kills=self._kills,
            told=len(self._told),
            made=len(records),
            completed=sum(record.status == "completed" for record in records.values()),
            interrupted=interrupted,
            rerun=sum(count > 1 for line, count in begun.items() if line.startswith("begin again")),
            lost=len(lost),
            twice=sum(count > 1 for line, count in begun.items() if line.startswith("begin once")),
            wrong=len(failed) - interrupted,
            slowest=self._slowest,
        )

    def _end(self) -> None:
        for process in self._running.values():
            kill_tree(process.child.pid)
            process.__exit__()
