"""Tasks that real workers of Celery and of RQ run, and what becomes of them when workers or the broker are killed."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time

import pytest

from tests import carried_server
from tests.asked import ALL, accept
from tests.carried_server import HEARTBEAT_S
from tests.helpers import Process, result, whole_lines
from tests.processes import Redis, kill_tree, tree

DECLARED = {"extensions": {"io.modelcontextprotocol/tasks": {}}}
BOUND_S = 60
INTERRUPTED = "The task was interrupted: the process that ran it has stopped"
KINDS = ("celery", "rq")

if not os.path.isdir("/proc/self/task"):
    pytest.skip("this system does not tell which processes there are", allow_module_level=True)


class Carried:
    """A web process, which is this one, a broker, and workers.

    :ivar server: hands its tasks over.
    """

    def __init__(self, kind, folder, store="file"):
        pytest.importorskip(kind, reason=f"{kind} is not installed")
        self.kind, self.folder = kind, folder
        self.redis = Redis()
        self.carried = (carried_server.application if kind == "celery" else carried_server.queue)(self.redis.url)
        # Another database than that of the broker.
        address = self.redis.url[:-1] + "1" if store == "redis" else ""
        self.server = carried_server.build(kind, folder, self.carried, address)
        self._environment = carried_server.environment(kind, folder, self.redis.url, address)

    @contextlib.contextmanager
    def workers(self):
        """Workers that take two tasks at once: a process each, or one that has two below it."""
        count, ready = (1, "celery@.* ready") if self.kind == "celery" else (2, "Listening on")
        command = carried_server.command(self.kind, self.redis.url)
        with contextlib.ExitStack() as stack:
            workers = [stack.enter_context(Process(command, **self._environment)) for _ in range(count)]
            for worker in workers:
                worker.wait_for(ready, BOUND_S)
            yield workers

    def make(self, tool, capabilities=DECLARED, **arguments):
        """Call a tool of which a task is made, and return the id."""
        made = result(self.server, "tools/call", name=tool, arguments=arguments, capabilities=capabilities)
        assert made["resultType"] == "task", made
        return made["taskId"]

    def ask(self, method, id, **params):
        return result(self.server, method, taskId=id, capabilities=DECLARED, **params)

    def until(self, id, condition):
        """Poll a task until something holds of it."""
        until = time.monotonic() + BOUND_S
        while True:
            task = self.ask("tasks/get", id)
            if condition(task):
                return task
            assert time.monotonic() < until and task["status"] in ("working", "input_required"), task
            threading.Event().wait(0.02)

    def running(self, id):
        """Wait until a body has told its process, and return that."""
        task = self.until(id, lambda task: re.match(r"\d+ ", task.get("statusMessage", "")))
        return int(task["statusMessage"].split()[0])

    def ended(self, id):
        """Wait for the end of a task and return it."""
        return self.until(id, lambda task: task["status"] in ("completed", "failed", "cancelled"))

    def release(self, *names):
        """Let bodies end."""
        for name in names:
            (self.folder / name).touch()

    def lines(self):
        return whole_lines(self.folder / "log")

    def held(self):
        """Return how many hints wait at the broker."""
        with self.redis.client() as client:
            return client.llen("celery" if self.kind == "celery" else "rq:queue:tasks")

    def __enter__(self):
        self.redis.start()
        self.server.tasks.start()
        return self

    def __exit__(self, *_):
        self.server.tasks.close()
        self.redis.__exit__()
        if self.kind == "celery":
            self.carried.close()
        else:
            self.carried.connection.close()


@pytest.fixture(scope="module", params=[("celery", "file"), ("rq", "redis")], ids=" ".join)
def carried(request, tmp_path_factory):
    with Carried(request.param[0], tmp_path_factory.mktemp("carried"), request.param[1]) as carried:
        with carried.workers() as carried.present:
            yield carried


def test_the_body_runs_in_a_worker_and_says_how_far_it_is(carried):
    id = carried.make("once", name="plain")
    pid = carried.running(id)
    assert pid in {pid for worker in carried.present for pid in tree(worker.child.pid)}
    assert carried.ask("tasks/get", id)["statusMessage"] == f"{pid} (1 of 2)"
    # Its process, which was forked, makes heartbeats of its own.
    store = carried.server.tasks.store
    owner = store.get(id).owner
    assert int(owner.split(":")[1]) == pid
    _wait_until(lambda: store.owners()[owner] >= 3)
    carried.release("plain")
    task = carried.ended(id)
    assert task["status"] == "completed" and task["result"]["structuredContent"] == pid
    assert carried.lines().count("begin plain") == 1


def test_a_function_at_the_top_of_the_module_runs_there(carried):
    id = carried.make("function", name="function")
    carried.release("function")
    task = carried.ended(id)
    assert task["status"] == "completed" and task["result"]["structuredContent"] != os.getpid()


def test_a_question_of_the_body_is_answered_here(carried):
    id = carried.make("ask", {**ALL, **DECLARED})
    task = carried.until(id, lambda task: task["status"] == "input_required")
    (key,) = task["inputRequests"]
    carried.ask("tasks/update", id, inputResponses={key: accept(name="Ada")})
    text = carried.ended(id)["result"]["content"][0]["text"]
    assert text.startswith("Ada ") and text != f"Ada {os.getpid()}"


def test_a_task_is_cancelled_while_it_runs(carried):
    id = carried.make("once", name="cancelled")
    carried.running(id)
    carried.ask("tasks/cancel", id)
    assert carried.ask("tasks/get", id)["status"] == "cancelled"
    until = time.monotonic() + BOUND_S
    while "end cancelled" not in carried.lines():
        assert time.monotonic() < until
        threading.Event().wait(0.02)


def test_of_many_hints_one_runs_the_task(carried):
    id = carried.make("once", name="doubled")
    carried.running(id)
    for _ in range(5):
        carried.server.tasks._work.carrier.send(id)
    # The other process takes them all before this one.
    last = carried.make("once", name="last")
    carried.release("last")
    carried.ended(last)
    carried.release("doubled")
    assert carried.ended(id)["status"] == "completed"
    assert carried.lines().count("begin doubled") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_workers_and_the_broker_come_and_go_and_no_task_is_lost(kind, tmp_path):
    with Carried(kind, tmp_path) as carried:
        # Nobody takes the hints, which are lost with the broker, and one task is over before its turn.
        lost, over = carried.make("again", name="lost"), carried.make("once", name="over")
        _wait_until(lambda: carried.held() >= 2)
        carried.ask("tasks/cancel", over)
        carried.redis.kill()
        begun = time.monotonic()
        unsent = [carried.make("once", name="unsent") for _ in range(20)]
        assert time.monotonic() - begun < 20
        carried.redis.start()
        with carried.workers() as workers:
            carried.release("unsent")
            pid = carried.running(lost)
            assert {carried.ended(id)["status"] for id in unsent} == {"completed"}
            assert carried.ask("tasks/get", over)["status"] == "cancelled"

            # Killed in the middle of two.
            interrupted = carried.make("once", name="interrupted")
            assert carried.running(interrupted) != pid
            for worker in workers:
                kill_tree(worker.child.pid)
            killed = time.monotonic()
            task = carried.ended(interrupted)
            assert (task["status"], task["statusMessage"]) == ("failed", INTERRUPTED)
            carried.until(lost, lambda task: task.get("statusMessage") == "The task was interrupted, and begins anew")
            assert time.monotonic() - killed < 2 * HEARTBEAT_S + 20

        with carried.workers() as workers:
            assert carried.running(lost) not in (pid, os.getpid())
            # Asked to stop, they let what runs end, and begin nothing new.
            for worker in workers:
                worker.child.terminate()
            for worker in workers:
                worker.wait_for("(?i)warm shut ?down")
            waiting = carried.make("once", name="waiting")
            carried.release("lost", "waiting")
            assert carried.ended(lost)["status"] == "completed"
            assert [worker.child.wait(BOUND_S) for worker in workers] == [0] * len(workers)
            assert carried.ask("tasks/get", waiting)["status"] == "working"
        counts = {name: carried.lines().count(f"begin {name}") for name in ("lost", "over", "unsent", "interrupted")}
        assert counts == {"lost": 2, "over": 0, "unsent": 20, "interrupted": 1}


def _wait_until(condition):
    until = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < until
        threading.Event().wait(0.02)
