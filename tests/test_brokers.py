"""The hints that go to a broker: who waits for it, how many are sent again, and settings that cannot work."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pytest

from minimcp import Server
from minimcp.extensions.tasks import CeleryCarrier, RqCarrier, Tasks, broker
from minimcp.extensions.tasks.broker import BrokerCarrier
from minimcp.extensions.tasks.rq_carrier import UnknownServer, run_task
from tests import carried_server
from tests.embedded import wait_until
from tests.helpers import result
from tests.processes import Redis

DECLARED = {"extensions": {"io.modelcontextprotocol/tasks": {}}}
BOUND_S = 60
ROOT = Path(__file__).resolve().parent.parent


class Kept(BrokerCarrier):
    """Hints in a list, from which nobody takes any.

    :ivar open: cleared, the broker answers nothing.
    """

    def __init__(self, held=None, patience_s=0.05):
        super().__init__(patience_s)
        self.held = [] if held is None else held
        self.open = threading.Event()
        self.open.set()
        self.fails = False
        self.asked = 0

    def _publish(self, id):
        self._connect()
        self.held.append(id)

    def _held(self):
        self.asked += 1
        self._connect()
        return len(self.held)

    def _connect(self):
        if self.fails or not self.open.wait(BOUND_S):
            self.fails = True
            raise ConnectionError("the broker has gone")


@pytest.fixture
def serving(tmp_path):
    """Makes servers that keep their tasks in one file."""
    made = []

    def serve(carrier, name="s"):
        server = Server(name)
        tasks = Tasks(tmp_path / "tasks.db", carrier=carrier, workers=0, heartbeat_s=0.1)
        made.append((tasks, carrier))
        server.use(tasks)
        server.tool(lambda: "x", "t", task=True)
        return server

    yield serve
    for tasks, carrier in made:
        tasks.close()
        quiet(carrier)


def make(server):
    return result(server, "tools/call", name="t", arguments={}, capabilities=DECLARED)["taskId"]


def arrived(carrier, *ids):
    """Wait until the broker has these hints, and nobody believes any more that one was lost on its way there."""
    wait_until(lambda: set(ids) <= set(carrier.held), BOUND_S)
    asked = carrier.asked
    wait_until(lambda: carrier.asked > asked + 1, BOUND_S)
    quiet(carrier)


def quiet(carrier):
    """Wait until the thread that sends has nothing to do."""
    hints = carrier._hints()
    with hints._changed:
        assert hints._changed.wait_for(lambda: not hints._running, BOUND_S)


def test_nothing_is_sent_again_while_the_broker_holds_a_hint_of_each(serving):
    """Three processes keep tasks that wait for slow workers."""
    carrier = Kept()
    one = serving(carrier)
    template = make(one)
    arrived(carrier, template)
    carrier.held[:] = [template]
    store = one.tasks.store
    record = store.get(template, whole=True)
    for number in range(1500):
        carrier.held.append(f"{number:032x}")
        store.add(record._replace(id=f"{number:032x}"))
    quiet(carrier)
    others = [serving(Kept(carrier.held)) for _ in range(2)]
    for server in others:
        server.tasks.start()
    asked = [server.tasks._work.carrier for server in (one, *others)]
    before = [each.asked for each in asked]
    wait_until(lambda: all(each.asked > count + 20 for each, count in zip(asked, before)), BOUND_S)
    assert len(carrier.held) == 1501
    # All that were held are lost: each process sends what is missing, once.
    carrier.held.clear()
    wait_until(lambda: len(carrier.held) >= 500, BOUND_S)
    before = [each.asked for each in asked]
    wait_until(lambda: all(each.asked > count + 20 for each, count in zip(asked, before)), BOUND_S)
    assert 500 <= len(carrier.held) <= 3 * 500


def test_a_hint_that_is_lost_is_sent_again_and_one_a_minute_in_any_case(serving, monkeypatch):
    carrier = Kept()
    server = serving(carrier)
    ids = [make(server) for _ in range(3)]
    arrived(carrier, *ids)
    carrier.held[:] = ["of something else"] * 2
    wait_until(lambda: len(carrier.held) == 3, BOUND_S)
    assert carrier.held[2] == ids[0]
    # The queue is full of what others have sent: a lost hint still gets there at last.
    carrier.held[:] = ["of something else"] * 1000
    asked = carrier.asked
    wait_until(lambda: carrier.asked > asked + 20, BOUND_S)
    assert set(carrier.held) == {"of something else"}
    monkeypatch.setattr(broker, "_TRICKLE_S", 0.5)
    wait_until(lambda: ids[0] in carrier.held, BOUND_S)


def test_a_broker_that_hangs_holds_up_nobody(serving):
    carrier = Kept()
    server = serving(carrier)
    carrier.open.clear()
    begun = time.monotonic()
    for _ in range(broker._MOST // 2 + 10):
        make(server)
    carrier.send("more" * 8)
    for _ in range(2 * broker._MOST):
        carrier.send("many" * 8)
    assert time.monotonic() - begun < BOUND_S
    assert len(carrier._hints()._ids) == broker._MOST
    # The thread that makes heartbeats goes on, too.
    beats = server.tasks._work.keeper()
    swept = beats._swept_at
    wait_until(lambda: beats._swept_at > swept, BOUND_S)
    carrier.open.set()
    wait_until(lambda: "more" * 8 in carrier.held, BOUND_S)


def test_a_broker_that_is_gone_is_told_of_once_and_hints_go_out_when_it_is_back(serving, caplog):
    carrier = Kept()
    server = serving(carrier)
    carrier.fails = True
    ids = {make(server) for _ in range(20)}
    wait_until(lambda: carrier.asked > 5, BOUND_S)
    assert carrier.held == []
    text = "hints to run tasks do not reach the broker, and are sent again later: ConnectionError: the broker has gone"
    assert [each.getMessage() for each in caplog.records if each.levelname != "INFO"] == [text]
    carrier.fails = False
    wait_until(lambda: set(carrier.held) == ids, BOUND_S)
    quiet(carrier)


def test_an_answer_of_the_broker_counts_once_and_not_when_it_is_old(monkeypatch):
    carrier, rooms = Kept(), []
    for queued in (10, 10, 10, 20, 20, 20):
        rooms.append(carrier.room(queued))
        quiet(carrier)
    assert rooms == [0, 10, 0, 10, 0, 20] and carrier.asked == 3
    assert carrier.room(10) == 0
    quiet(carrier)
    monkeypatch.setattr(broker, "_FRESH_S", -1.0)
    assert carrier.room(10) == 0
    quiet(carrier)


@pytest.mark.parametrize("kind", ["celery", "rq"])
def test_a_process_that_ends_at_once_has_sent_its_hint(kind, tmp_path):
    pytest.importorskip(kind, reason=f"{kind} is not installed")
    code = (
        "from carried_server import server\n"
        "from tests.helpers import result\n"
        "from minimcp.extensions.tasks import broker\n"
        f"broker._FLUSH_S = server.tasks._work.carrier.patience_s = {BOUND_S}\n"
        f"result(server, 'tools/call', name='once', arguments={{'name': 'x'}}, capabilities={DECLARED!r})\n"
    )
    with Redis() as redis:
        environment = carried_server.environment(kind, tmp_path, redis.url)
        subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120, cwd=ROOT)
        with redis.client() as client:
            assert client.llen("celery" if kind == "celery" else "rq:queue:tasks") == 1


def test_celery_in_its_eager_mode_runs_tasks_here(serving):
    pytest.importorskip("celery")
    app = carried_server.application("redis://127.0.0.1:1")
    app.conf.task_always_eager = True
    carrier = CeleryCarrier(app)
    server = serving(carrier)
    assert server.tasks.wait(make(server), BOUND_S)["status"] == "completed"
    quiet(carrier)


def test_hints_take_the_routes_of_the_application_or_the_queue_that_was_named(serving):
    pytest.importorskip("celery")
    app = carried_server.application("memory://")
    app.conf.task_routes = {"minimcp.run_task.*": {"queue": "routed"}}
    for carrier, queue in [(CeleryCarrier(app), "routed"), (CeleryCarrier(app, name="other", queue="named"), "named")]:
        make(serving(carrier))
        quiet(carrier)
        assert carrier._held() == 1
        with app.connection_for_read() as connection:
            assert connection.default_channel.queue_declare(queue, passive=True).message_count == 1
    assert {"minimcp.run_task.s", "other"} <= set(app.tasks)
    app.close()


def test_rq_sets_no_limit_and_keeps_no_result_and_no_id_in_its_lists(tmp_path):
    pytest.importorskip("rq")
    with Redis() as redis:
        queue = carried_server.queue(redis.url)
        server = carried_server.build("rq", tmp_path, queue)
        server.tasks._work.carrier.patience_s = BOUND_S
        made = result(server, "tools/call", name="once", arguments={"name": "x"}, capabilities=DECLARED)
        quiet(server.tasks._work.carrier)
        (job,) = queue.jobs
        assert (job.timeout, job.result_ttl, job.failure_ttl) == (-1, 0, 3600)
        assert job.func_name == "minimcp.extensions.tasks.rq_carrier.run_task"
        assert job.args == ("carried_server:server", made["taskId"]) and made["taskId"] not in job.description
        assert server.tasks._work.carrier._held() == 1
        server.tasks.close()
        queue.connection.close()


@pytest.mark.parametrize("kind", ["celery", "rq"])
def test_memory_that_no_worker_sees_is_refused(kind):
    pytest.importorskip(kind, reason=f"{kind} is not installed")
    carrier = CeleryCarrier(carried_server.application("memory://")) if kind == "celery" else None
    carrier = carrier or RqCarrier(carried_server.queue("redis://127.0.0.1:1"), "m:server")
    with pytest.raises(ValueError, match=r'give Tasks a file, Tasks\("tasks.db", carrier=...\)'):
        Server("s").use(Tasks(carrier=carrier))


def test_two_servers_of_one_application_need_two_names(serving):
    pytest.importorskip("celery")
    app = carried_server.application("memory://")
    serving(CeleryCarrier(app))
    with pytest.raises(ValueError, match="has a job 'minimcp.run_task.s' already, of another server"):
        serving(CeleryCarrier(app))
    serving(CeleryCarrier(app, name="other"))


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: CeleryCarrier("redis://"), TypeError, "CeleryCarrier takes a celery.Celery, not str"),
        (lambda: RqCarrier("tasks", "m:server"), TypeError, "RqCarrier takes an rq.Queue, not str"),
        (lambda: RqCarrier(types.SimpleNamespace(enqueue_call=print), "m.py"), ValueError, "unlike 'm.py'"),
        (lambda: run_task("no.such.module:server", "1"), UnknownServer, "there is no module no.such.module here"),
        (lambda: run_task("tests.helpers:server", "1"), UnknownServer, "tests.helpers has no Server named server"),
        (lambda: run_task("tests.helpers:Process", "1"), UnknownServer, "tests.helpers has no Server named Process"),
    ],
)
def test_what_cannot_work_is_refused_with_a_reason(make, error, text):
    with pytest.raises(error, match=text):
        make()
