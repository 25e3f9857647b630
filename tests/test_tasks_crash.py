"""Processes that are killed in the middle of tasks: none is lost, none runs twice, and interrupted ones say so."""

from __future__ import annotations

import collections
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from minimcp import Server
from minimcp.extensions.tasks import SqliteStore, Tasks
from tests.helpers import Process, result, whole_lines

ROOT = Path(__file__).resolve().parent.parent
DECLARED = {"extensions": {"io.modelcontextprotocol/tasks": {}}}
JOBS = 101
HEARTBEAT_S = 0.4
BOUND_S = 60
INTERRUPTED = "The task was interrupted: the process that ran it has stopped"

# Makes tasks, prints what the client was told of each, and runs them until it is killed or all have ended.
PROGRAM = f"""
import json, os, sys, threading
from minimcp import Server
from minimcp.extensions.tasks import Tasks

folder, jobs, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
server = Server("jobs")
server.use(Tasks(folder + "/tasks.db", workers=workers, heartbeat_s={HEARTBEAT_S}))
log = os.open(folder + "/log", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
pause = threading.Event()

def work(kind, n):
    os.write(log, f"begin {{kind}} {{n}}\\n".encode())
    pause.wait(0.005)
    os.write(log, f"end {{kind}} {{n}}\\n".encode())
    return n

@server.tool(task=True)
def once(n: int) -> int:
    return work("once", n)

@server.tool(task=True, idempotent=True)
def again(n: int) -> int:
    return work("again", n)

meta = {{"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {DECLARED!r}}}
for n in range(jobs):
    name = "again" if n % 5 == 0 else "once"
    call = {{"name": name, "arguments": {{"n": n}}, "_meta": meta}}
    made = server.handle({{"jsonrpc": "2.0", "id": n, "method": "tools/call", "params": call}})["result"]
    print("made", name, n, made["taskId"], flush=True)
server.tasks.start()
tasks = [server.tasks.wait(task["taskId"]) for task in server.tasks.list(limit=1000)]
print("over " + json.dumps(tasks), flush=True)
server.tasks.close()
"""


def program(folder, jobs=0, workers=4):
    return Process([sys.executable, "-c", PROGRAM, str(folder), str(jobs), str(workers)], cwd=str(ROOT))


def lines(folder):
    return whole_lines(folder / "log")


def ends(folder):
    return sum(line.startswith("end") for line in lines(folder))


def kill(process):
    os.kill(process.child.pid, signal.SIGKILL)
    process.child.wait(BOUND_S)


def wait_for(condition, process):
    """Wait until something holds that a process does."""
    until = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < until and process.child.poll() is None, process.lines
        threading.Event().wait(0.002)


def rest(folder):
    """Start the program once more, and return all tasks when they have ended."""
    with program(folder) as process:
        return json.loads(process.wait_for(r"^over (.*)", BOUND_S)[1])


def check(folder, tasks, made, kills):
    """Hold the tasks against what the clients were told and what the bodies have done."""
    found = {task["taskId"]: task for task in tasks}
    assert set(made) <= set(found), "a task was lost that a client had been told of"
    counts = collections.Counter(lines(folder))
    failed = 0
    for id, (name, n) in made.items():
        task, begun, ended = found[id], counts[f"begin {name} {n}"], counts[f"end {name} {n}"]
        if name == "again":
            # One that was running at each of three kills is given up.
            assert begun <= kills + 1 and (task["status"] == "completed" or kills >= 3), (task, begun)
        else:
            assert begun <= 1, f"the job {n} ran {begun} times"
        if task["status"] == "completed":
            assert task["result"]["structuredContent"] == n and begun >= ended >= 1
        else:
            failed += 1
            assert task["status"] == "failed" and task["statusMessage"] == INTERRUPTED
            # It was claimed; whether its body had begun is a matter of a moment.
            assert task["error"] == {"code": -32603, "message": INTERRUPTED}
    return failed


def told(process):
    """The tasks that clients were told of: id to the tool and the number."""
    found = (line.split() for line in list(process.lines) if line.startswith("made "))
    return {parts[3]: (parts[1], int(parts[2])) for parts in found if len(parts) == 4}


@pytest.mark.parametrize("seed", range(4))
def test_a_process_that_is_killed_in_the_middle_loses_no_task_and_runs_none_twice(tmp_path, seed):
    after = random.Random(seed).randrange(5, JOBS - 10)
    with program(tmp_path, JOBS) as process:
        # A body may end before the program has told of its task.
        wait_for(lambda: ends(tmp_path) >= after and len(told(process)) >= after, process)
        kill(process)
    made = told(process)
    assert len(made) >= after
    failed = check(tmp_path, rest(tmp_path), made, 1)
    # Those that ran at that moment, and no more.
    assert failed <= 4


def test_it_may_be_killed_again_while_it_recovers(tmp_path):
    with program(tmp_path, JOBS, 0) as process:
        process.wait_for(f"^made once {JOBS - 2}")
        wait_for(lambda: len(told(process)) == JOBS, process)
        kill(process)
    made = told(process)
    for after in (10, 35, 60):
        with program(tmp_path) as process:
            wait_for(lambda after=after: ends(tmp_path) >= after, process)
            kill(process)
    assert len(made) == JOBS and check(tmp_path, rest(tmp_path), made, 3) <= 12


def test_another_process_goes_on_and_says_so_within_two_heartbeats(tmp_path):
    server = Server("jobs")
    server.use(Tasks(tmp_path / "tasks.db", workers=0, heartbeat_s=HEARTBEAT_S))
    with program(tmp_path, JOBS) as process:
        wait_for(lambda: ends(tmp_path) >= 40, process)
        server.tasks.start()
        kill(process)
        killed = time.monotonic()
    store = server.tasks.store
    # Of some that ran it may have been said by now.
    found = store.find(None, ["working", "failed"], JOBS)
    running = [record.id for record in found if not _again(store.get(record.id, True))]
    for id in running:
        assert server.tasks.wait(id, BOUND_S)["statusMessage"] == INTERRUPTED
    took_s = time.monotonic() - killed
    assert took_s < 2 * HEARTBEAT_S + 20, f"it took {took_s:.2f} s"
    server.tasks.close()
    assert check(tmp_path, rest(tmp_path), told(process), 1) == len(running)


def _again(record):
    return record.request["idempotent"]


def test_a_body_that_kills_its_process_is_not_run_for_ever(tmp_path):
    code = PROGRAM.replace("pause.wait(0.005)", "os.kill(os.getpid(), 9)").replace("if n % 5 == 0", "if True")
    for jobs in (1, 0, 0):
        with Process([sys.executable, "-c", code, str(tmp_path), str(jobs), "1"], cwd=str(ROOT)) as process:
            assert process.child.wait(BOUND_S) == -signal.SIGKILL
    (task,) = rest(tmp_path)
    assert task["status"] == "failed" and task["statusMessage"] == INTERRUPTED
    assert lines(tmp_path) == ["begin again 0"] * 3


def test_a_task_is_there_before_its_client_is_told(tmp_path):
    """Spec: EXT-022"""
    with program(tmp_path, 10_000, 0) as process:
        wait_for(lambda: len(told(process)) >= 50, process)
        kill(process)
    server = Server("jobs")
    server.use(Tasks(tmp_path / "tasks.db", workers=0))
    server.tool(lambda: "x", "t", task=True)
    for id in told(process):
        assert result(server, "tasks/get", taskId=id, capabilities=DECLARED)["status"] == "working"
    server.tasks.close()


# Makes one task of each tool that is named, and exits when their bodies have begun.
EXITS = f"""
import signal, sys, threading
from minimcp import Context, Server
from minimcp.extensions.tasks import Tasks

server = Server("jobs")
server.use(Tasks(sys.argv[1] + "/tasks.db"))
begun = threading.Semaphore(0)

def interrupt(*_):
    raise KeyboardInterrupt

@server.tool(task=True)
def short() -> str:
    begun.release()
    threading.Event().wait(0.3)
    return "done"

@server.tool(task=True)
def long() -> str:
    begun.release()
    threading.Event().wait(600)
    return "done"

@server.tool(task=True)
def asks(ctx: Context) -> str:
    begun.release()
    return str(ctx.elicit("Sure?", {{"sure": bool}}))

meta = {{"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {{"elicitation": {{}}, **{DECLARED!r}}}}}
signal.signal(signal.SIGTERM, interrupt)
for name in sys.argv[2:]:
    call = {{"name": name, "arguments": {{}}, "_meta": meta}}
    task = server.handle({{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}})["result"]
    print(name, task["taskId"], flush=True)
    begun.acquire()
print("begun", flush=True)
"""


def exits(folder, *names):
    return Process([sys.executable, "-c", EXITS, str(folder), *names], cwd=str(ROOT))


def kept(folder, process):
    """The tasks that a process has made, by their tools."""
    store = SqliteStore(folder / "tasks.db")
    made = (line.split() for line in process.lines if line.startswith(("short ", "long ", "asks ")))
    found = {name: store.get(id) for name, id in made}
    store.close()
    return found


def test_a_process_that_exits_lets_its_tasks_end(tmp_path):
    with exits(tmp_path, "short", "short") as process:
        assert process.child.wait(BOUND_S) == 0
        process.wait_for("begun")
    tasks = kept(tmp_path, process)
    assert [(task.status, task.outcome["result"]["content"]) for task in tasks.values()] == [
        ("completed", [{"type": "text", "text": "done"}])
    ]
    assert process.lines[-1] == "begun"


@pytest.mark.parametrize("name", ["long", "asks"])
def test_a_task_that_does_not_end_with_its_process_says_so_at_once(tmp_path, name):
    with exits(tmp_path, name, "short") as process:
        process.wait_for("begun")
        # It ends the wait of a process that exits, which lasts three seconds at most, or its last line.
        process.child.terminate()
        process.child.wait(BOUND_S)
    task = kept(tmp_path, process)[name]
    assert (task.status, task.state["message"]) == ("failed", INTERRUPTED)
    assert task.outcome == {"error": {"code": -32603, "message": INTERRUPTED}}


# Raises what a signal raises where a function of the exit begins.
STRIKES = """
def strike(frame, event, _):
    if event == "call" and frame.f_code.co_name == "NAME":
        sys.setprofile(None)
        raise KeyboardInterrupt
sys.setprofile(strike)
"""


@pytest.mark.parametrize("name", ["_wait_for_all", "leave", "stop_sending", "wait_for", "_give_up_all", "give_up"])
def test_a_signal_that_comes_anywhere_in_an_exit_leaves_no_task_as_if_it_ran(tmp_path, name):
    code = EXITS + STRIKES.replace("NAME", name)
    with Process([sys.executable, "-c", code, str(tmp_path), "asks"], cwd=str(ROOT)) as process:
        process.child.wait(BOUND_S)
    assert (process.child.returncode, kept(tmp_path, process)["asks"].state["message"]) == (0, INTERRUPTED)


def test_a_process_that_exits_does_not_wait_for_an_answer(tmp_path):
    with exits(tmp_path, "asks") as process:
        assert process.child.wait(BOUND_S) == 0
    assert kept(tmp_path, process)["asks"].status == "failed"


# Serves, and says when the task that it finds has run.
SERVES = """
import sys
from minimcp import Server
from minimcp.extensions.tasks import Tasks

server = Server("jobs")
server.use(Tasks(sys.argv[1]))

@server.tool(task=True)
def work() -> str:
    print("ran", file=sys.stderr, flush=True)
    return "done"

server.run_http(port=0) if sys.argv[2] == "http" else server.run()
"""


@pytest.mark.parametrize("way", ["stdio", "http"])
def test_a_process_that_serves_goes_on_before_the_first_message(tmp_path, way):
    web = Server("jobs")
    web.use(Tasks(tmp_path / "tasks.db", workers=0))
    web.tool(lambda: "x", "work", task=True)
    result(web, "tools/call", name="work", arguments={}, capabilities=DECLARED)
    web.tasks.close()
    command = [sys.executable, "-c", SERVES, str(tmp_path / "tasks.db"), way]
    child = subprocess.Popen(command, cwd=str(ROOT), stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    late = threading.Timer(BOUND_S, child.kill)
    late.start()
    with child:
        try:
            assert any(line == "ran\n" for line in child.stderr)
        finally:
            late.cancel()
            child.terminate()
            child.communicate(timeout=BOUND_S)
