"""Records of tasks in Redis: what is kept and for how long, and a Redis that is gone, empty, full, or a replica."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest

from minimcp import Client, Context, Server
from minimcp.extensions.tasks import RedisStore, Tasks, UnusableStore
from tests.embedded import wait_until
from tests.helpers import modern, problem, result, stopped
from tests.processes import Redis
from tests.test_tasks_store import BOUND_S, DECLARED, made, record, status

DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def redis():
    with Redis() as redis:
        yield redis


@pytest.fixture
def store(redis):
    store = RedisStore(redis.url, prefix=os.urandom(4).hex(), timeout_s=5)
    yield store
    store.close()


@pytest.fixture
def inside(redis):
    with redis.client() as inside:
        yield inside


def keys(inside, store):
    return {key.decode(): inside.pttl(key) for key in inside.scan_iter(f"{store._base}*")}


def after_some_life(store):
    """Records in all states, some of them changed and removed."""
    now = time.time()
    for number, (state, owner) in enumerate(
        [("queued", ""), ("queued", "o"), ("working", "o"), ("input_required", "p"), ("completed", "p"), ("failed", "")]
    ):
        store.add(record(str(number), expires=now + 100))
        store.replace(record(str(number), version=2, status=state, owner=owner, expires=now + 1000))
    store.beat("o")
    store.remove("4")
    return now


def test_every_key_has_the_prefix_and_expires_a_day_after_the_last_record(redis, inside, store):
    before = set(inside.scan_iter())
    after_some_life(store)
    found = keys(inside, store)
    assert {key for key in inside.scan_iter() if key not in before} == {key.encode() for key in found}
    assert len(found) > 12
    for key, left_ms in found.items():
        assert 0 < left_ms <= DAY_MS + 1_000_000, key
        # Those of records that were changed to live longer are kept longer, and so are their indexes.
        assert left_ms > DAY_MS + (0 if key.endswith(("beats:o", "queued")) else 900_000) - 100_000, key


def test_when_all_is_removed_nothing_is_left(inside, store):
    after_some_life(store)
    for number in range(6):
        store.remove(str(number))
    assert set(keys(inside, store)) == {f"{store._base}beats:o"}


def test_what_never_expires_is_kept_and_so_are_its_indexes(inside, store):
    store.add(record("short", expires=time.time() + 1))
    store.add(record("long", expires=None))
    store.add(record("later", expires=time.time() + 1))
    lasting = {key.partition(":")[2] for key, left_ms in keys(inside, store).items() if left_ms == -1}
    assert "task:long" in lasting and "queued" in lasting and "status:queued" in lasting and len(lasting) == 4
    assert store.replace(record("long", version=2, expires=time.time() + 1))
    assert 0 < inside.pttl(f"{store._base}task:long") <= DAY_MS + 1000


def test_what_redis_has_forgotten_is_taken_out_of_all_indexes(inside, store):
    now = after_some_life(store)
    for number in range(6):
        inside.delete(f"{store._base}task:{number}")
    assert store.owners() == {"o": 1, "p": 0} and store.count("null", 100) == (4, 4, 5)
    assert store.expired(now + 1000, 100) == [] and store.owners() == {"o": 1, "p": 0}
    assert store.expired(now + 3 * 86_400, 100) == []
    assert store.owners() == {} and store.count("null", 100) == (0, 0, 0) and store.queued(10) == []
    assert store.find(None, ["queued", "working", "failed"], 10) == []
    assert set(keys(inside, store)) == {f"{store._base}beats:o"}


def test_a_record_is_looked_at_without_its_request(inside, store):
    store.add(record(request={"params": {"pad": "x" * 1_000_000}}))
    sent = inside.info("stats")["total_net_output_bytes"]
    for _ in range(10):
        assert store.get("a").request == {}
        assert store.find(None, ["queued"], 10)[0].request == {}
    assert inside.info("stats")["total_net_output_bytes"] - sent < 100_000
    assert len(store.get("a", whole=True).request["params"]["pad"]) == 1_000_000


def test_each_operation_is_one_round_trip(inside, store):
    def use(id):
        store.add(record(id))
        store.replace(record(id, version=2))
        store.get(id, whole=True), store.queued(5), store.owned("o"), store.owners(), store.beat("o")
        store.count("null", 1), store.find("null", ["queued"], 1), store.expired(0.0, 1), store.remove(id)

    use("first")  # Redis gets the scripts
    before = inside.info("stats")["total_reads_processed"]
    use("next")
    assert inside.info("stats")["total_reads_processed"] - before == 11 + 1


def test_a_change_that_is_sent_again_since_its_answer_was_lost_is_made_once(store, monkeypatch):
    from redis.connection import Connection
    from redis.exceptions import ConnectionError as Disconnected

    read, lose = Connection.read_response, []

    def losing(self, *args, **kwargs):
        answer = read(self, *args, **kwargs)
        if lose:
            lose.pop()
            raise Disconnected("the answer was lost")
        return answer

    store.add(record("first"))
    store.replace(record("first", version=2))
    monkeypatch.setattr(Connection, "read_response", losing)
    lose.append(1)
    store.add(record())
    lose.append(1)
    assert store.replace(record(version=2, status="working", owner="me")) and not lose
    assert store.get("a").owner == "me" and not store.replace(record(version=2, owner="other"))
    with pytest.raises(ValueError, match="There is a task a already"):
        store.add(record())


# A Redis that is gone, and comes back


@pytest.fixture
def served(tmp_path):
    """A server whose Redis can be killed and started again with what it had."""
    config = tmp_path / "redis.conf"
    config.write_text("appendonly yes\nappendfsync always\n")
    with Redis(config, tmp_path) as redis:
        server = Server("s")
        server.use(Tasks(redis.url, heartbeat_s=1))
        server.tool(lambda: "x", "t", task=True)
        server.tool(lambda: "x", "plain")
        yield redis, server
        server.tasks.close(BOUND_S)
        server.close()


def again(check):
    """Try until Redis is back."""
    until = time.monotonic() + BOUND_S
    while True:
        try:
            return check()
        except (AssertionError, UnusableStore):
            assert time.monotonic() < until
            threading.Event().wait(0.02)


def test_redis_is_gone_and_comes_back_with_what_it_had(served, caplog):
    redis, server = served
    started, go = threading.Event(), threading.Event()

    @server.tool(task=True)
    def work(ctx: Context) -> str:
        started.set()
        assert go.wait(BOUND_S)
        return "cancelled" if ctx.cancelled.is_set() else "done"

    done = made(server)
    assert server.tasks.wait(done, BOUND_S)["status"] == "completed"
    id = made(server, "work")
    assert started.wait(BOUND_S)
    redis.kill()
    call = server.engine.call(modern("tasks/get", taskId=id, capabilities=DECLARED))
    error = call.run()["error"]
    assert error["code"] == -32603 and error["data"] == {"retryAfterMs": 1000}
    assert error["message"].startswith("The tasks cannot be reached at the moment; the logger")
    assert call.http == (503, [("Retry-After", "1")])
    for method, params in (("tasks/cancel", {}), ("tasks/update", {"inputResponses": {}})):
        assert problem(server, method, taskId=id, capabilities=DECLARED, **params)["code"] == -32603
    notices = {"notifications": {"taskIds": [id]}}
    assert problem(server, "subscriptions/listen", capabilities=DECLARED, **notices)["data"] == {"retryAfterMs": 1000}
    refused = problem(server, "tools/call", name="t", capabilities=DECLARED)
    assert refused["code"] == -32603 and refused["message"].startswith("The task could not be kept")
    assert result(server, "tools/call", name="plain", capabilities=DECLARED)["resultType"] == "complete"
    assert result(server, "tools/call", name="t")["content"] == [{"type": "text", "text": "x"}]
    with pytest.raises(UnusableStore, match="cannot be reached at the moment"):
        server.tasks.get(id)
    # The thread that looks after the tasks has noticed, too.
    wait_until(lambda: "cannot be looked after at the moment" in caplog.text, BOUND_S)
    go.set()
    redis.start()
    assert again(lambda: server.tasks.get(done))["status"] == "completed"
    assert server.tasks.wait(id, BOUND_S)["result"]["content"][0]["text"] == "done"
    assert server.tasks.wait(again(lambda: made(server)), BOUND_S)["status"] == "completed"
    assert redis.url in caplog.text and caplog.text.count("cannot be looked after at the moment") == 1


def test_a_client_that_waits_outlives_the_loss_of_redis(served):
    redis, server = served
    started, go, answers = threading.Event(), threading.Event(), []

    @server.tool(task=True)
    def work() -> str:
        started.set()
        assert go.wait(BOUND_S)
        return "done"

    with Client(server, tasks=True) as client:
        running = client.start_tool("work")
        assert started.wait(BOUND_S)
        # The body may begin before the client is told of its task.
        wait_until(lambda: running.task_id is not None, BOUND_S)
        redis.kill()
        answers.append(problem(server, "tasks/get", taskId=running.task_id, capabilities=DECLARED))
        go.set()
        redis.start()
        assert running.result().text == "done"
    assert answers[0]["data"] == {"retryAfterMs": 1000}


def test_a_redis_that_comes_back_empty_ends_the_bodies_and_nothing_else():
    with Redis() as redis:
        server = Server("s")
        server.use(Tasks(redis.url, heartbeat_s=1))
        begun, seen = [threading.Semaphore(0), threading.Semaphore(0)]

        @server.tool(task=True)
        def work(ask: bool, ctx: Context) -> str:
            begun.release()
            try:
                if ask:
                    ctx.elicit("?", {"a": str})
                assert ctx.cancelled.wait(BOUND_S)
            finally:
                seen.release()
            return "x"

        elicitation = {"elicitation": {"form": {}}}
        ids = [made(server, "work", {**DECLARED, **elicitation}, ask=ask) for ask in (False, True)]
        assert begun.acquire(timeout=BOUND_S) and begun.acquire(timeout=BOUND_S)
        status(server, ids[1], "input_required")
        redis.kill()
        redis.start()
        assert seen.acquire(timeout=BOUND_S) and seen.acquire(timeout=BOUND_S)
        assert server.tasks._work.keeper().ended(BOUND_S)
        for id in ids:
            unknown = again(lambda id=id: problem(server, "tasks/get", taskId=id, capabilities=DECLARED))
            assert unknown["code"] == -32602
        server.tool(lambda: "x", "t", task=True)
        assert server.tasks.wait(again(lambda: made(server)), BOUND_S)["status"] == "completed"
        server.tasks.close(BOUND_S)
        server.close()


def test_a_redis_that_answers_nothing_holds_up_few(served, monkeypatch):
    redis, server = served
    store = RedisStore(redis.url, timeout_s=1.5)
    store.get("a")
    reached, tried, refused = store._reached(), [], []
    attempt = reached._try
    monkeypatch.setattr(reached, "_try", lambda work: tried.append(1) or attempt(work))
    with stopped(redis.process.child.pid):

        def ask():
            with pytest.raises(UnusableStore):
                store.get("a")
            refused.append(1)

        ask()
        threads = [threading.Thread(target=ask) for _ in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(BOUND_S)
        # One at a time tries, and waits until that fails; the others do without.
        assert len(refused) == 65 and len(tried) <= 9
    assert again(lambda: store.get("a") is None)
    store.close()


# A Redis that refuses


def test_a_redis_that_is_full_says_so_and_tasks_can_be_removed(inside, store):
    store.add(record())
    used = inside.info("memory")["used_memory"]
    inside.config_set("maxmemory", used // 2)
    try:
        with pytest.raises(UnusableStore, match="cannot keep tasks .*maxmemory.*give it more memory"):
            store.add(record("b"))
        with pytest.raises(UnusableStore, match="give it more memory"):
            store.replace(record(version=2))
        assert store.get("a").version == 1 and store.get("b") is None and store.count("null", 10) == (1, 1, 1)
        store.remove("a")
        assert store.count("null", 10) == (0, 0, 0)
    finally:
        inside.config_set("maxmemory", 0)
    store.add(record("b"))


def test_a_replica_says_what_to_name_instead(store):
    with Redis() as replica, replica.client() as inside:
        other = RedisStore(replica.url)
        other.add(record())
        inside.replicaof("127.0.0.1", 1)
        with pytest.raises(UnusableStore, match="name the primary, not a replica"):
            other.replace(record(version=2))
        assert other.get("a").version == 1
        inside.replicaof("NO", "ONE")
        assert other.replace(record(version=2))
        other.close()


def test_keys_of_something_else_are_left_alone(inside, store):
    inside.set(f"{store._base}queued", "text")
    with pytest.raises(UnusableStore, match="cannot keep tasks .*WRONGTYPE"):
        store.queued(5)
    assert inside.get(f"{store._base}queued") == b"text"


# Addresses


def test_a_password_is_in_no_message(caplog):
    server = Server("s", debug=True)
    server.use(Tasks("redis://user:hunter2@127.0.0.1:1/3"))
    assert isinstance(server.tasks.store, RedisStore)
    error = problem(server, "tasks/get", taskId="a" * 32, capabilities=DECLARED)
    server.close()
    assert "redis://127.0.0.1:1/3 cannot be reached" in error["message"] + caplog.text
    assert "hunter2" not in error["message"] + caplog.text


def test_a_url_that_is_none_of_redis_is_refused_without_showing_it():
    for url in ("http://user:hunter2@localhost", "localhost:6379", 5):
        with pytest.raises(ValueError, match="The URL of a RedisStore begins with redis://") as caught:
            RedisStore(url)
        assert "hunter2" not in str(caught.value)


def test_a_missing_package_is_said_with_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ImportError, match=r"RedisStore needs the package redis: pip install 'minimcp-sync\[redis\]'"):
        Tasks("redis://localhost")
