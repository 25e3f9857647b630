"""The store of tasks: changes that exclude each other, several processes at one file, and files that are of no use."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import types
from pathlib import Path

import pytest

from minimcp import Context, Server
from minimcp.extensions.tasks import RedisStore, SqliteStore, TaskRecord, Tasks, UnusableStore, keeper, sqlite_store
from tests.asked import ALL, accept
from tests.helpers import Clock, problem, result
from tests.processes import Redis

TASKS = "io.modelcontextprotocol/tasks"
DECLARED = {"extensions": {TASKS: {}}}
ROOT = Path(__file__).resolve().parent.parent
BOUND_S = 60


def record(id: str = "a", **changes) -> TaskRecord:
    request = {"params": {"name": "t", "arguments": {"é\ud800": [1, None]}, "_meta": {}}, "principal": None}
    state = {"runs": 0, "questions": {}, "answers": {}, "issued": []}
    made = TaskRecord(id, "queued", 1, "", "null", 100.0, 100.0, 200.5, request, state, None)
    return made._replace(**changes)


def place_of(kind):
    """Give a function that makes stores of records of one place, which belongs to a folder."""

    def make(folder, **options):
        if url is not None:
            return RedisStore(url, prefix=str(folder), **options)
        return SqliteStore() if kind == "memory" else SqliteStore(folder / "tasks.db")

    with contextlib.ExitStack() as stack:
        url = stack.enter_context(Redis()).url if kind == "redis" else None
        yield make


@pytest.fixture(scope="module", params=["memory", "file", "redis"])
def place(request):
    yield from place_of(request.param)


@pytest.fixture(scope="module", params=["file", "redis"])
def lasting_place(request):
    yield from place_of(request.param)


@pytest.fixture
def store(place, tmp_path):
    store = place(tmp_path)
    yield store
    store.close()


@pytest.fixture
def shared(lasting_place, tmp_path):
    """Makes stores of the same records, as several processes have them."""
    stores = []

    def make(**options):
        stores.append(lasting_place(tmp_path, **options))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


def made(server, name="t", capabilities=DECLARED, **arguments):
    found = result(server, "tools/call", name=name, arguments=arguments, capabilities=capabilities)
    assert found["resultType"] == "task", found
    return found["taskId"]


def test_a_record_comes_back_as_it_was(store):
    assert store.get("a") is None
    store.add(record())
    assert store.get("a", whole=True) == record() and store.get("a") == record(request={})
    ended = record(version=2, status="completed", outcome={"result": {"x": "ü" * 10}}, owner="o", expires=None)
    assert store.replace(ended) and store.get("a", whole=True) == ended
    with pytest.raises((sqlite3.IntegrityError, ValueError)):
        store.add(record())
    store.remove("a")
    store.remove("a")
    assert store.get("a") is None and not store.replace(ended._replace(version=3))


def test_of_two_changes_at_once_one_fails(store):
    store.add(record())
    assert store.replace(record(version=2, owner="one"))
    assert not store.replace(record(version=2, owner="two"))
    assert not store.replace(record(version=4)) and store.get("a").owner == "one"
    won, barrier = [], threading.Barrier(8)

    def claim(name):
        barrier.wait()
        if store.replace(record(version=3, owner=name)):
            won.append(name)

    threads = [threading.Thread(target=claim, args=(str(number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND_S)
    assert len(won) == 1 and store.get("a").owner == won[0]


def test_records_are_found_by_what_they_wait_for(store):
    for number, (status, owner) in enumerate(
        [("queued", ""), ("queued", "here"), ("working", "o"), ("input_required", "o"), ("completed", "o")]
    ):
        store.add(record(str(number), status=status, owner=owner, updated=100.0 - number, created=float(number)))
    store.add(record("other", principal='["","ann"]', updated=1.0, expires=None))
    assert store.queued(10) == ["other", "0"] and store.queued(1) == ["other"] and store.queued(0) == []
    assert store.owned("o") == {"2": 1, "3": 1} and store.owned("here") == {"1": 1} and store.owned("x") == {}
    assert store.owners() == {"here": 0, "o": 0}
    for _ in range(2):
        store.beat("o")
    store.beat("gone")
    assert store.owners() == {"here": 0, "o": 2}
    assert sorted(store.expired(200.5, 10)) == ["0", "1", "4"] and store.expired(200.4, 10) == []
    assert len(store.expired(1000.0, 2)) == 2
    assert [each.id for each in store.find(None, ["working", "completed"], 10)] == ["4", "2"]
    assert [each.id for each in store.find('["","ann"]', ["queued"], 10)] == ["other"]
    assert store.find("null", ["failed"], 10) == []
    assert store.count("null", 100) == (4, 5, 6) and store.count("null", 2) == (2, 2, 2)


def test_two_processes_see_the_same(shared):
    ours, theirs = shared(), shared()
    ours.add(record())
    assert theirs.get("a", whole=True) == record() and theirs.replace(record(version=2, owner="theirs"))
    assert not ours.replace(record(version=2, owner="ours")) and ours.get("a").owner == "theirs"
    ours.close()
    assert theirs.get("a").owner == "theirs"
    theirs.close()
    assert shared().get("a").owner == "theirs"


def test_nobody_else_may_read_the_file(tmp_path):
    store = SqliteStore(tmp_path / "tasks.db")
    store.add(record())
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
    store.close()


def test_a_child_of_a_fork_has_connections_of_its_own(shared):
    store = shared()
    store.add(record())
    child = os.fork()
    if child == 0:
        code = 1
        try:
            store.add(record("child"))
            code = 0 if store.get("a") is not None else 2
            store.close()
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert store.get("child") is not None and store.replace(record(version=2))


# Files that are of no use


def refused(path, caplog, *words):
    """A server whose file is of no use says so in its log, answers with an error, and goes on otherwise."""
    server = Server("s")
    server.use(Tasks(path, heartbeat_s=0.1))
    server.tool(lambda: "x", "t", task=True)
    server.tool(lambda: "x", "plain")
    try:
        assert problem(server, "tools/call", name="t", capabilities=DECLARED)["code"] == -32603
        assert problem(server, "tasks/get", taskId="a" * 32, capabilities=DECLARED)["code"] == -32603
        assert result(server, "tools/call", name="plain", capabilities=DECLARED)["resultType"] == "complete"
        assert result(server, "tools/call", name="t")["content"] == [{"type": "text", "text": "x"}]
    finally:
        server.close()
    with pytest.raises(UnusableStore) as caught:
        SqliteStore(path).get("a")
    for word in (str(path), *words):
        assert word in str(caught.value) and word in caplog.text


def test_a_folder_that_is_not_there(tmp_path, caplog):
    refused(tmp_path / "no" / "tasks.db", caplog, "name a file that this process may write")


def test_a_file_that_is_no_database(tmp_path, caplog):
    (tmp_path / "tasks.db").write_text("This is no database, and it is longer than a header. " * 50)
    refused(tmp_path / "tasks.db", caplog, "file is not a database")
    assert (tmp_path / "tasks.db").read_text().startswith("This is no database")


def test_a_database_of_something_else(tmp_path, caplog):
    with sqlite3.connect(tmp_path / "shop.db") as shop:
        shop.execute("CREATE TABLE basket (item TEXT)")
    shop.close()
    refused(tmp_path / "shop.db", caplog, "a database of something else")


def test_a_database_of_a_later_version(tmp_path, caplog):
    SqliteStore(tmp_path / "tasks.db").add(record())
    with sqlite3.connect(tmp_path / "tasks.db") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    refused(tmp_path / "tasks.db", caplog, "a database of something else")


def test_a_file_system_without_locks(tmp_path, caplog, monkeypatch):
    def without_shared_memory(path, busy_s):
        uri = f"file:{path}?vfs=unix-dotfile"
        return sqlite3.connect(uri, uri=True, timeout=busy_s, isolation_level=None, check_same_thread=False)

    monkeypatch.setattr(sqlite_store, "_connect", without_shared_memory)
    refused(tmp_path / "tasks.db", caplog, "without the locks that SQLite needs")


AS_NOBODY = """
import os, sqlite3, sys
from minimcp.extensions.tasks import SqliteStore
from minimcp.extensions.tasks.sqlite_store import UnusableStore
if os.geteuid() == 0:
    os.setgid(65534), os.setuid(65534)
try:
    SqliteStore(sys.argv[1]).get("a")
except UnusableStore as problem:
    print(problem)
"""


def test_a_file_that_may_not_be_written():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tasks.db"
        store = SqliteStore(path)
        store.add(record())
        store.close()
        path.chmod(0o444)
        path.parent.chmod(0o555)
        command = [sys.executable, "-c", AS_NOBODY, str(path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        path.parent.chmod(0o755)
    assert f"{path} cannot keep tasks (attempt to write a readonly database)" in done.stdout, done.stdout + done.stderr


def test_a_file_that_is_damaged_later(tmp_path, caplog):
    path = tmp_path / "tasks.db"
    server = Server("s")
    server.use(Tasks(path, heartbeat_s=0.1))
    server.tool(lambda: "x", "t", task=True)
    server.tool(lambda: "x", "plain")
    id = made(server)
    server.tasks.wait(id, BOUND_S)
    server.tasks.store._opened()._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    database = SqliteStore(path)
    server.tasks.store.close()
    assert problem(server, "tasks/get", taskId=id, capabilities=DECLARED)["code"] == -32603
    assert problem(server, "tools/call", name="t", capabilities=DECLARED)["code"] == -32603
    assert result(server, "tools/call", name="plain")["resultType"] == "complete"
    assert "malformed" in caplog.text
    server.close()
    database.close()


# Faults that pass


def test_a_locked_database_is_waited_for_and_then_an_error(tmp_path):
    path = tmp_path / "tasks.db"
    server = Server("s")
    server.use(Tasks(SqliteStore(path, busy_s=0.05), heartbeat_s=0.2))

    @server.tool(task=True)
    def work() -> str:
        started.set()
        assert go.wait(BOUND_S)
        return "x"

    started, go = threading.Event(), threading.Event()
    id = made(server, "work")
    assert started.wait(BOUND_S)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert problem(server, "tools/call", name="work", capabilities=DECLARED)["code"] == -32603
    # Reading needs no lock; the end of the task is kept once there is one.
    assert result(server, "tasks/get", taskId=id, capabilities=DECLARED)["status"] == "working"
    go.set()
    assert result(server, "tasks/get", taskId=id, capabilities=DECLARED)["status"] == "working"
    other.execute("COMMIT")
    other.close()
    assert server.tasks.wait(id, BOUND_S)["status"] == "completed"
    server.tasks.close(BOUND_S)


def test_a_full_disk_loses_no_task(tmp_path, caplog):
    server = Server("s")
    server.use(Tasks(tmp_path / "tasks.db", heartbeat_s=0.2))

    @server.tool(task=True)
    def work(pad: str = "") -> str:
        started.set()
        assert go.wait(BOUND_S)
        return "x" * 100_000

    started, go = threading.Event(), threading.Event()
    id = made(server, "work")
    assert started.wait(BOUND_S)
    writer = server.tasks.store._opened()._writer
    ((pages,),) = writer.execute("PRAGMA page_count").fetchall()
    writer.execute(f"PRAGMA max_page_count = {pages}").fetchall()
    large = {"pad": "x" * 100_000}
    refusal = problem(server, "tools/call", name="work", arguments=large, capabilities=DECLARED)
    assert refusal["code"] == -32603 and "database or disk is full" in caplog.text
    go.set()
    assert result(server, "tasks/get", taskId=id, capabilities=DECLARED)["status"] == "working"
    writer.execute("PRAGMA max_page_count = 1000000").fetchall()
    done = server.tasks.wait(id, BOUND_S)
    assert done["status"] == "completed" and len(done["result"]["content"][0]["text"]) == 100_000
    server.tasks.close(BOUND_S)


def test_a_large_result_is_kept_whole(shared):
    server = Server("s")
    server.use(Tasks(shared(timeout_s=20)))
    server.tool(lambda: "ü" * (16 * 1024 * 1024), "large", task=True)
    text = server.tasks.wait(made(server, "large"), 60)["result"]["content"][0]["text"]
    assert len(text) == 16 * 1024 * 1024 and text.strip("ü") == ""
    server.tasks.close(BOUND_S)


# Two processes, as two servers with one file


@pytest.fixture
def pair(shared):
    """Two servers at one store: one only hands over, the other one works."""
    started = threading.Event()

    def work(n: int, ctx: Context) -> str:
        started.set()
        if n == 0:
            assert ctx.cancelled.wait(BOUND_S)
            ctx.check()
        return ctx.elicit("?", {"a": str})["a"] + str(n)

    servers = []
    for workers in (0, 4):
        server = Server("s")
        server.use(Tasks(shared(), workers=workers, heartbeat_s=0.2))
        server.tool(work, "work", task=True)
        servers.append(server)
    yield (*servers, started)
    for server in servers:
        server.tasks.close(BOUND_S)


def status(server, id, *wanted):
    end = time.monotonic() + BOUND_S
    while True:
        task = result(server, "tasks/get", taskId=id, capabilities=DECLARED)
        if task["status"] in wanted:
            return task
        assert time.monotonic() < end, task
        threading.Event().wait(0.01)


def test_one_process_hands_over_and_another_one_works(pair):
    web, worker, _ = pair
    id = made(web, "work", {**DECLARED, **ALL}, n=1)
    assert result(web, "tasks/get", taskId=id, capabilities=DECLARED)["status"] == "working"
    worker.tasks.start()
    assert status(web, id, "input_required")["inputRequests"].keys() == {"q1"}
    result(web, "tasks/update", taskId=id, inputResponses={"q1": accept(a="yes")}, capabilities=DECLARED)
    assert web.tasks.wait(id, BOUND_S)["result"]["content"][0]["text"] == "yes1"


def test_of_two_processes_with_the_same_hint_one_runs_the_task(pair):
    web, worker, started = pair
    id = made(web, "work", n=0)
    thread = threading.Thread(target=worker.tasks.run, args=(id,))
    thread.start()
    assert started.wait(BOUND_S)
    started.clear()
    # The other one comes late, and finds that it is claimed.
    web.tasks.run(id)
    assert not started.is_set() and web.tasks.store.get(id).owner == worker.tasks._work.owner
    assert web.tasks.cancel(id)
    thread.join(BOUND_S)
    web.tasks.run(id)
    assert not started.is_set() and not thread.is_alive()


def test_who_lives_is_not_taken_for_dead(pair):
    web, worker, started = pair
    worker.tasks.start()
    web.tasks.start()
    id = made(web, "work", n=0)
    assert started.wait(BOUND_S)
    owner, end = web.tasks.store.get(id).owner, time.monotonic() + BOUND_S
    while web.tasks.store.owners()[owner] < 6:
        assert time.monotonic() < end, "its heart does not beat"
        threading.Event().wait(0.01)
    # However often one looks: what counts is the time without a heartbeat.
    for _ in range(5):
        web.tasks._work.keeper()._end_abandoned()
    assert result(web, "tasks/get", taskId=id, capabilities=DECLARED)["status"] == "working"
    assert web.tasks.cancel(id) and worker.tasks._work.keeper().ended(BOUND_S)


def test_after_a_store_was_gone_nobody_is_taken_for_dead_at_once(shared, monkeypatch):
    server, clock = Server("s"), Clock()
    server.use(Tasks(shared(), heartbeat_s=4))
    watching = server.tasks._work.keeper()
    monkeypatch.setattr(keeper, "time", types.SimpleNamespace(monotonic=clock, time=time.time))
    server.tasks.store.add(record(status="working", owner="elsewhere", expires=None))

    def looks(*times_s):
        for clock.now in times_s:
            watching._look(True)
        return server.tasks.store.get("a").status

    assert looks(1, 2, 3) == "working"
    with monkeypatch.context() as gone:
        gone.setattr(server.tasks.store, "owners", lambda: 1 / 0)
        looks(50)
    # Its next heartbeat may take as long as ever.
    assert looks(100, 101, 104) == "working"
    assert looks(105.5, 106.5) == "failed"
    server.tasks.close()


def test_a_task_is_cancelled_from_another_process(pair):
    web, worker, started = pair
    worker.tasks.start()
    id = made(web, "work", n=0)
    assert started.wait(BOUND_S)
    result(web, "tasks/cancel", taskId=id, capabilities=DECLARED)
    assert result(worker, "tasks/get", taskId=id, capabilities=DECLARED)["status"] == "cancelled"
    # The body hears of it, and ends.
    assert worker.tasks._work.keeper().ended(BOUND_S)


def test_the_first_message_goes_on_with_what_is_kept(shared):
    ran = threading.Event()
    web = Server("s")
    web.use(Tasks(shared(), workers=0))
    web.tool(lambda: ran.set() or "x", "t", task=True)
    id = made(web)
    web.tasks.close()
    again = Server("s")
    again.use(Tasks(shared(), heartbeat_s=0.2))
    again.tool(lambda: ran.set() or "x", "t", task=True)
    assert not ran.is_set()
    result(again, "tools/list")
    assert ran.wait(BOUND_S) and again.tasks.wait(id, BOUND_S)["status"] == "completed"
    again.tasks.close()


def test_a_tool_that_is_there_no_more_ends_in_an_error(shared):
    web = Server("s")
    web.use(Tasks(shared(), workers=0))
    web.tool(lambda: "x", "t", task=True)
    id = made(web)
    web.tasks.close()
    again = Server("s")
    again.use(Tasks(shared(), heartbeat_s=0.2))
    again.tasks.start()
    failed = again.tasks.wait(id, BOUND_S)
    assert failed["error"] == {"code": -32602, "message": "Unknown tool: t"}
    again.tasks.close()


def at_the_top(n: int, ctx: Context) -> str:
    """A function of a module that another process finds."""
    return f"{n} {ctx.method}"


def handing(ctx: Context, how: str) -> str:
    if how == "named":
        return ctx.task(at_the_top, n=3)
    if how == "imported":
        return ctx.task(os.getpid)
    if how == "tuple":
        return ctx.task(at_the_top, (1, 2))
    return ctx.task(lambda: "inside")


@pytest.mark.parametrize(
    "how, outcome", [("named", "3 tools/call"), ("imported", None), ("tuple", None), ("lambda", None)]
)
def test_what_another_process_can_run_and_what_ends_with_its_own(shared, how, outcome):
    web = Server("s", debug=True)
    web.use(Tasks(shared(), workers=1, heartbeat_s=0.2))
    web.tool(handing, "handing")
    web.tasks._work._threads.limit = 0  # its only thread is busy
    id = made(web, "handing", how=how)
    assert web.tasks.store.get(id).owner == ("" if outcome else web.tasks._work.owner)
    web.close()
    # As if the process had stopped: nobody makes its heartbeats any more.
    assert web.tasks._work.keeper().ended(BOUND_S)
    again = Server("s")
    again.use(Tasks(shared(), heartbeat_s=0.2))
    again.tool(handing, "handing")
    again.tasks.start()
    task = again.tasks.wait(id, BOUND_S)
    if outcome:
        assert task["result"]["content"][0]["text"] == outcome
    else:
        assert task["error"]["message"] == "The task was interrupted: the process that ran it has stopped"
    again.tasks.close()
    web.tasks.close()


def test_a_process_that_leaves_tasks_to_others_takes_no_function_that_it_alone_could_run(tmp_path):
    web = Server("s", debug=True)
    web.use(Tasks(tmp_path / "tasks.db", workers=0))
    web.tool(handing, "handing")
    found = result(web, "tools/call", name="handing", arguments={"how": "lambda"}, capabilities=DECLARED)
    assert found["isError"] and "the top of the tool's module" in found["content"][0]["text"]
    assert made(web, "handing", how="named") and len(web.tasks.list()) == 1
    web.tasks.close()


def test_only_functions_of_the_tools_own_module_are_run_by_name(tmp_path):
    web = Server("s")
    web.use(Tasks(tmp_path / "tasks.db", workers=0))
    web.tool(handing, "handing")
    ids = []
    for name in ("os", "subprocess", "print", "made_up", "TaskRecord"):
        id = made(web, "handing", how="named")
        kept = web.tasks.store.get(id, whole=True)
        work = {"name": name, "args": [], "named": {}}
        web.tasks.store._opened().write(
            "UPDATE tasks SET request = ? WHERE id = ?",
            (sqlite_store._row(kept._replace(request={**kept.request, "work": work}))[8], id),
        )
        ids.append(id)
    web.tasks.close()
    again = Server("s")
    again.use(Tasks(tmp_path / "tasks.db", heartbeat_s=0.2))
    again.tool(handing, "handing")
    again.tasks.start()
    for id in ids:
        failed = again.tasks.wait(id, BOUND_S)
        assert failed["status"] == "failed" and failed["error"]["code"] == -32602
    again.tasks.close()


def test_clocks_that_are_set_end_no_task_that_runs(shared, monkeypatch):
    server = Server("s")
    server.use(Tasks(shared(), ttl_s=600, heartbeat_s=0.1))

    @server.tool(task=True)
    def work() -> str:
        started.set()
        assert go.wait(BOUND_S)
        return "x"

    started, go, real = threading.Event(), threading.Event(), time.time
    id = made(server, "work")
    assert started.wait(BOUND_S)
    for step_s in (86_400, -86_400):
        monkeypatch.setattr(time, "time", lambda step_s=step_s: real() + step_s)
        for _ in range(3):
            server.tasks._work.keeper()._own()
            server.tasks._work.keeper()._end_abandoned()
        assert server.tasks.get(id)["status"] == "working"
    monkeypatch.undo()
    go.set()
    done = server.tasks.wait(id, BOUND_S)
    assert done["status"] == "completed" and done["lastUpdatedAt"] >= done["createdAt"]
    server.tasks.close()


def test_a_call_beside_tasks_costs_no_sqlite():
    code = """
import sys
from minimcp import Server
server = Server("s")
server.tool(lambda: "x", "plain")
meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "plain", "_meta": meta}}
assert server.handle(call)["result"]["content"]
assert not [name for name in sys.modules if "sqlite" in name or name.startswith("minimcp.extensions")], "loaded"
server.tool(lambda: "x", "slow", task=True)
assert "minimcp.extensions.tasks" in sys.modules and "sqlite3" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_a_new_file_is_opened_by_many_at_once(tmp_path):
    path, barrier, failed = tmp_path / "tasks.db", threading.Barrier(8), []

    def use(store, id):
        try:
            barrier.wait()
            store.add(record(id))
        except Exception as problem:
            failed.append(problem)

    stores = [SqliteStore(path) for _ in range(4)]
    threads = [threading.Thread(target=use, args=(stores[n % 4], str(n))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND_S)
    assert not failed and stores[0].count("null", 100) == (8, 8, 8)
    # One process has one pair of connections, however many threads began.
    assert all(len(store._inherited) == 1 for store in stores)
    for store in stores:
        store.close()


def test_without_news_tasks_go_on_all_the_same(shared, caplog):
    class Gone:
        """A bus that cannot be reached."""

        def publish(self, topic, data=None):
            raise ConnectionError("the bus has gone")

        def subscribe(self, topics, listener):
            raise ConnectionError("the bus has gone")

    server = Server("s", bus=Gone())
    server.use(Tasks(shared(), heartbeat_s=0.2))

    @server.tool(task=True)
    def ask(ctx: Context) -> str:
        return ctx.elicit("?", {"a": str})["a"]

    id = made(server, "ask", {**DECLARED, **ALL})
    status(server, id, "input_required")
    result(server, "tasks/update", taskId=id, inputResponses={"q1": accept(a="x")}, capabilities=DECLARED)
    assert status(server, id, "completed")["result"]["content"][0]["text"] == "x"
    with pytest.raises(ConnectionError):
        server.tasks.wait(id, 1)
    server.tasks.close()
    assert "the bus has gone" in caplog.text


def test_a_store_may_be_closed_while_others_use_it(store):
    store.add(record())
    stop, failed = threading.Event(), []

    def use():
        while not stop.is_set():
            try:
                store.get("a")
                store.beat("o")
            except sqlite3.ProgrammingError as problem:
                # It was closed between the look-up and the use.
                assert "closed" in str(problem)
            except Exception as problem:
                failed.append(problem)
                return

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        store.close()
    stop.set()
    for thread in threads:
        thread.join(BOUND_S)
    assert not failed
