"""The command `worker`: tasks that other processes hand over are run, and survive the workers and Redis."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from minimcp import Server
from minimcp.cli.main import main
from minimcp.extensions.tasks import Tasks, UnusableStore, keeper
from minimcp.server.redis_bus import RedisBus
from tests.embedded import wait_until
from tests.helpers import Process, modern, result, stopped
from tests.processes import Redis
from tests.test_tasks_crash import BOUND_S, DECLARED, INTERRUPTED, check, ends, kill, lines

ROOT = Path(__file__).resolve().parent.parent
# A worker that is so busy that it makes none for a quarter longer is taken for dead.
HEARTBEAT_S = 2.0

# The server of the web process, which is the test, and of the workers.
FILE = f"""
import os, threading
from minimcp import Context, Server, Tasks

server = Server("jobs")
server.use(Tasks(os.environ["STORE"], workers=0, heartbeat_s={HEARTBEAT_S}))
log = os.open(os.environ["LOG"] + "/log", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
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


@server.tool(task=True)
def until(file: str, ctx: Context) -> str:
    os.write(log, b"begin until\\n")
    while not os.path.exists(os.environ["LOG"] + "/" + file):
        pause.wait(0.01)
    return "done"
"""


class Place:
    """A folder with the file of a server whose tasks are kept at one place, for a web process and workers."""

    def __init__(self, folder: Path, store: str) -> None:
        self.folder, self.store = folder, store
        self.file = folder / "jobs.py"
        self.file.write_text(FILE)
        self.web = Server("jobs")
        self.web.use(Tasks(store, workers=0, heartbeat_s=HEARTBEAT_S))
        # They are called by the workers alone.
        self.web.tool(lambda n: n, "once", input_schema={"type": "object"}, task=True)
        self.web.tool(lambda n: n, "again", input_schema={"type": "object"}, task=True, idempotent=True)
        self.web.tool(lambda file: file, "until", input_schema={"type": "object"}, task=True)

    def worker(self, *options: str) -> Process:
        command = [sys.executable, "-m", "minimcp", "worker", str(self.file), *options]
        return Process(command, cwd=str(ROOT), STORE=self.store, LOG=str(self.folder))

    def made(self, name: str, **arguments) -> str:
        found = result(self.web, "tools/call", name=name, arguments=arguments, capabilities=DECLARED)
        assert found["resultType"] == "task", found
        return found["taskId"]

    def jobs(self, number: int) -> dict[str, tuple[str, int]]:
        names = ["again" if n % 5 == 0 else "once" for n in range(number)]
        return {self.made(name, n=n): (name, n) for n, name in enumerate(names)}

    def ended(self, made) -> list:
        """All tasks that were made, when they have ended."""
        found, until = [], time.monotonic() + BOUND_S
        for id in made:
            task = None
            while task is None or task["status"] not in ("completed", "failed", "cancelled"):
                assert time.monotonic() < until, task
                try:
                    task = self.web.tasks.get(id)
                except UnusableStore:
                    task = None
                if task is None or task["status"] == "working":
                    threading.Event().wait(0.01)
            found.append(task)
        return found

    def wait_for(self, condition, what="") -> None:
        until = time.monotonic() + BOUND_S
        while not condition():
            assert time.monotonic() < until, (what, lines(self.folder)[-5:])
            threading.Event().wait(0.005)


def running(process: Process) -> Process:
    process.wait_for("worker for jobs: runs the tasks of")
    return process


@pytest.fixture(params=["file", "redis"])
def place(request, tmp_path):
    if request.param == "file":
        place = Place(tmp_path, str(tmp_path / "tasks.db"))
        yield place
    else:
        config = tmp_path / "redis.conf"
        config.write_text("appendonly yes\n")
        with Redis(config, tmp_path) as redis:
            place = Place(tmp_path, redis.url)
            place.redis = redis
            yield place
    place.web.tasks.close()
    place.web.close()


def test_what_a_web_process_hands_over_is_run_and_what_is_queued_stays_so(place):
    early = place.made("once", n=1)
    with place.worker("--workers", "2") as worker:
        said = running(worker).lines[-1]
        assert said == f"worker for jobs: runs the tasks of {place.store}, 2 at once"
        assert [task["result"]["structuredContent"] for task in place.ended([early])] == [1]
        assert place.ended([place.made("again", n=2)])[0]["result"]["structuredContent"] == 2
        busy = [place.made("until", file="go") for _ in range(2)]
        place.wait_for(lambda: lines(place.folder).count("begin until") == 2)
        late = [place.made("once", n=n) for n in (3, 4)]
        worker.child.terminate()
        worker.wait_for("worker for jobs: stops; what runs has 10 s, a second signal ends it")
        (place.folder / "go").touch()
        assert worker.child.wait(BOUND_S) == 0
    assert [task["status"] for task in place.ended(busy)] == ["completed", "completed"]
    assert sorted(place.web.tasks.store.queued(10)) == sorted(late)
    with place.worker() as worker:
        assert running(worker).lines[-1].endswith(", 16 at once")
        assert {task["status"] for task in place.ended(late)} == {"completed"}
        assert worker.terminate() == 0
    assert len(lines(place.folder)) == 4 * 2 + 2


@pytest.mark.parametrize("how", ["grace", "again"])
def test_what_does_not_end_in_time_says_that_it_was_interrupted(place, how):
    with place.worker("--grace", "0.2" if how == "grace" else "600") as worker:
        running(worker)
        id = place.made("until", file="never")
        place.wait_for(lambda: lines(place.folder) == ["begin until"])
        worker.child.send_signal(signal.SIGINT)
        worker.wait_for("stops; what runs has")
        if how == "again":
            worker.child.terminate()
        assert worker.child.wait(BOUND_S) == 0
    # Not by another process that has noticed.
    assert place.web.tasks.store.get(id).status == "failed"
    assert place.web.tasks.get(id)["statusMessage"] == INTERRUPTED


def test_two_workers_that_race_run_each_task_once(place):
    made = place.jobs(500)
    with place.worker("--workers", "4") as one, place.worker("--workers", "4") as other:
        running(one), running(other)
        tasks = place.ended(made)
        assert one.terminate() == 0 and other.terminate() == 0
    assert {task["status"] for task in tasks} == {"completed"}
    assert check(place.folder, tasks, made, 0) == 0 and len(lines(place.folder)) == 1000


def test_a_worker_that_is_told_to_end_while_it_is_stopped_ends_when_it_goes_on(tmp_path):
    place = Place(tmp_path, str(tmp_path / "tasks.db"))
    with place.worker() as worker:
        running(worker)
        with stopped(worker.child.pid):
            worker.child.terminate()
        assert worker.child.wait(20) == 0


@pytest.mark.parametrize("seed", range(2))
def test_workers_that_are_killed_lose_no_task_and_run_none_twice(place, seed):
    chosen = random.Random(seed)
    made = place.jobs(150)
    place.web.tasks.start()
    with place.worker("--workers", "4") as one, place.worker("--workers", "4") as other:
        for each in chosen.sample([running(one), running(other)], 2):
            done = ends(place.folder) + chosen.randrange(5, 60)
            place.wait_for(lambda done=done: ends(place.folder) >= min(done, 140))
            kill(each)
    with place.worker() as last:
        running(last)
        tasks = place.ended(made)
        assert last.terminate() == 0
    assert check(place.folder, tasks, made, 2) <= 8


def test_a_web_process_that_is_killed_loses_nothing_that_its_client_was_told_of(place):
    code = f"""
import os, sys
sys.path.insert(0, {str(place.folder)!r})
from jobs import server
meta = {{"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {DECLARED!r}}}
for n in range(100_000):
    call = {{"name": "once", "arguments": {{"n": n}}, "_meta": meta}}
    made = server.handle({{"jsonrpc": "2.0", "id": n, "method": "tools/call", "params": call}})["result"]
    print("made once", n, made["taskId"], flush=True)
"""
    with place.worker() as worker:
        running(worker)
        with Process([sys.executable, "-c", code], cwd=str(ROOT), STORE=place.store, LOG=str(place.folder)) as web:
            place.wait_for(lambda: ends(place.folder) >= 50)
            kill(web)
        told = [line.split() for line in list(web.lines) if line.startswith("made ")]
        made = {parts[3]: ("once", int(parts[2])) for parts in told if len(parts) == 4}
        assert len(made) >= 49
        assert check(place.folder, place.ended(made), made, 0) == 0
        assert worker.terminate() == 0


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("place", ["redis"], indirect=True)
def test_a_redis_that_is_killed_and_comes_back_loses_no_task_and_has_none_run_twice(place, seed):
    after = random.Random(seed).randrange(5, 100)
    made = place.jobs(150)
    with place.worker("--workers", "4") as one, place.worker("--workers", "4") as other:
        running(one), running(other)
        place.wait_for(lambda: ends(place.folder) >= after)
        place.redis.kill()
        place.redis.start()
        tasks = place.ended(made)
        assert one.terminate() == 0 and other.terminate() == 0
    # A claim whose answer was lost with the connection is given up.
    assert check(place.folder, tasks, made, 1) <= 8


@pytest.mark.parametrize("place", ["redis"], indirect=True)
def test_a_worker_waits_for_redis_and_outlives_one_that_comes_back_empty(place):
    place.redis.kill()
    with place.worker() as worker:
        worker.wait_for(f"minimcp: {place.store} cannot be reached at the moment .*; it is tried again")
        running(worker)
        place.redis.start()
        place.wait_for(lambda: _works(place))
        place.redis.kill()
        (place.folder / "appendonlydir").rename(place.folder / "before")
        place.redis.start()
        place.wait_for(lambda: _works(place))
        assert worker.terminate() == 0
    assert not [line for line in worker.lines if line.startswith("Traceback")]


def _works(place):
    reply = place.web.handle(modern("tools/call", capabilities=DECLARED, name="once", arguments={"n": 1}))
    return "result" in reply and place.ended([reply["result"]["taskId"]])[0]["status"] == "completed"


@pytest.fixture
def never_looks(monkeypatch):
    """Keepers that look for queued tasks when they are told of one, and else hardly ever."""
    monkeypatch.setattr(keeper, "_LOOK_S", 3600.0)
    monkeypatch.setattr(keeper.Keeper, "_pause_s", lambda self: 3600.0)


def test_a_worker_hears_of_a_task_at_once_by_the_bus(never_looks):
    with Redis() as redis, RedisBus(redis.url) as near, RedisBus(redis.url) as far:
        servers = []
        for workers, bus in ((0, near), (4, far)):
            server = Server("s", bus=bus)
            server.use(Tasks(redis.url, workers=workers))
            server.tool(lambda n: n, "echo", input_schema={"type": "object"}, task=True)
            servers.append(server)
        web, worker = servers
        worker.tasks.start()
        for n in range(3):
            found = result(web, "tools/call", name="echo", arguments={"n": n}, capabilities=DECLARED)
            assert web.tasks.wait(found["taskId"], BOUND_S)["status"] == "completed"
        for server in servers:
            server.tasks.close()
            server.close()


def test_a_keeper_that_is_told_to_end_while_it_looks_ends_after_that(never_looks, tmp_path):
    server, entered, go = Server("s"), threading.Event(), threading.Event()
    server.use(Tasks(tmp_path / "tasks.db", workers=0))
    made = server.tasks._work.keeper()
    look = made._look

    def hold(told):
        entered.set()
        assert go.wait(BOUND_S)
        return look(told)

    made._look = hold
    made.start()
    thread = made._thread
    assert entered.wait(BOUND_S)
    closing = threading.Thread(target=server.tasks.close)
    closing.start()
    wait_until(lambda: made.ends, BOUND_S)
    go.set()
    thread.join(BOUND_S)
    closing.join(BOUND_S)
    assert not thread.is_alive()


def test_a_worker_that_has_begun_goes_on_with_all_that_is_queued(never_looks, tmp_path):
    web, worker = Server("s"), Server("s")
    for server, workers in ((web, 0), (worker, 0)):
        server.use(Tasks(tmp_path / "tasks.db", workers=workers))
        server.tool(lambda n: n, "echo", input_schema={"type": "object"}, task=True)
    for n in range(100):
        result(web, "tools/call", name="echo", arguments={"n": n}, capabilities=DECLARED)
    worker.tasks.workers = 2
    worker.tasks.start()
    until = time.monotonic() + BOUND_S
    while web.tasks.store.count("null", 200) != (0, 0, 100):
        assert time.monotonic() < until, web.tasks.store.count("null", 200)
        threading.Event().wait(0.01)
    for server in (web, worker):
        server.tasks.close()
        server.close()


# What it refuses


def refused(capsys, tmp_path, code, *options):
    path = tmp_path / "made.py"
    path.write_text(code)
    before = list(sys.path)
    try:
        number = main(["worker", str(path), *options])
    finally:
        sys.path[:] = before
        sys.modules.pop("made", None)
    captured = capsys.readouterr()
    assert captured.out == ""
    return number, captured.err


@pytest.mark.parametrize(
    ("use", "code", "said"),
    [
        ("", 2, 'it has no tasks; they begin with server.use(Tasks("tasks.db")), or redis://'),
        (
            "server.tool(lambda: 1, 'x', task=True)",
            2,
            "the tasks of it live in the memory of the process that made them; give Tasks a file or redis://",
        ),
        (
            "server.use(Tasks('/no/such/folder/tasks.db'))",
            1,
            "/no/such/folder/tasks.db cannot keep tasks ([Errno 2] No such file or directory: "
            "'/no/such/folder/tasks.db'); name a file that this process may write, on a local disk",
        ),
        (
            "class Pigeon:\n    patience_s = 1\nserver.use(Tasks('tasks.db', carrier=Pigeon()))",
            2,
            "it: These tasks are carried by Pigeon; start its own workers",
        ),
    ],
)
def test_a_server_without_tasks_that_others_can_run_is_refused(capsys, tmp_path, use, code, said):
    program = f"from minimcp import Server, Tasks\nserver = Server('it')\n{use}\n"
    assert refused(capsys, tmp_path, program) == (code, f"minimcp: {said}\n")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--workers", "0"], "--workers: '0' is not a number from 1 on"),
        (["--workers", "many"], "--workers: 'many' is not a number from 1 on"),
        (["--grace", "-1"], "--grace: '-1' is not a number of seconds from 0 to 86400"),
        (["--grace", "nan"], "--grace: 'nan' is not a number of seconds from 0 to 86400"),
        (["--http", "80"], "--http is no option"),
    ],
)
def test_options_that_make_no_sense_are_refused(capsys, options, said):
    with pytest.raises(SystemExit) as left:
        main(["worker", "jobs.py", *options])
    assert left.value.code == 2
    assert capsys.readouterr().err == f"minimcp worker: {said} (minimcp worker --help tells more)\n"


def test_a_file_that_is_not_there_is_said(capsys):
    assert main(["worker", "nothing.py"]) == 2
    assert "There is no file 'nothing.py'" in capsys.readouterr().err
    assert os.path.basename(sys.argv[0]) != "nothing.py"
