"""The gate: how many requests run at once, in which order, and which requests are let past it."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import pytest

from minimcp.engines.http_server import gate
from tests.embedded import Wire, embedded, wait_until


def test_the_gate_lets_in_as_many_as_it_may_and_then_in_order() -> None:
    ours = gate.Gate(1)
    first = gate.Ticket(ours)
    ours.enter(first)
    order: list[int] = []

    def enter(number: int) -> None:
        ticket = gate.Ticket(ours)
        ours.enter(ticket)
        order.append(number)
        ours.leave(ticket)

    threads = []
    for number in range(5):
        threads.append(threading.Thread(target=enter, args=(number,)))
        threads[-1].start()
        wait_until(lambda: len(ours._waiting) == len(threads))
    assert order == []
    ours.leave(first)
    for thread in threads:
        thread.join(20)
    assert order == [0, 1, 2, 3, 4]


class Meddling:
    """The lock of a gate; when the watch has released it and is about to go to sleep, something else happens first.

    :ivar then: what happens, one after the other.
    """

    def __init__(self, ours: gate.Gate, watch: threading.Thread) -> None:
        self._gate, self._lock = ours, ours._lock
        self._watch = watch
        self.then: list[Any] = []

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: Any) -> None:
        self._lock.release()
        if self.then and threading.current_thread() is self._watch and not self._gate._crowded:
            self.then.pop(0)()


def test_a_request_may_queue_up_at_any_moment_while_the_watch_goes_to_sleep() -> None:
    ours = gate.Gate(1)
    problems: list[BaseException] = []
    passed: list[int] = []
    first = gate.Ticket(ours)
    ours.enter(first)
    watch = threading.Thread(target=ours.watch)

    def enter() -> None:
        try:
            ticket = gate.Ticket(ours)
            ours.enter(ticket)
            passed.append(1)
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=enter, daemon=True) for _ in range(2)]

    def queue_up(thread: threading.Thread) -> Any:
        def begin() -> None:
            thread.start()
            wait_until(lambda: ours._waiting or problems)

        return begin

    meddling = Meddling(ours, watch)
    meddling.then += [queue_up(thread) for thread in threads]
    ours._lock = meddling  # type: ignore[assignment]
    watch.start()
    wait_until(lambda: len(passed) + len(problems) == 2)
    ours.close()
    watch.join(20)
    assert problems == [] and not watch.is_alive()


def test_a_permit_held_for_long_goes_to_the_next_and_is_not_given_back_twice() -> None:
    ours = gate.Gate(1)
    watch = threading.Thread(target=ours.watch)
    watch.start()
    slow, fast, third = gate.Ticket(ours), gate.Ticket(ours), gate.Ticket(ours)
    ours.enter(slow)
    ours.enter(fast)
    assert (slow.holds, fast.holds) == (False, True)
    ours.leave(slow)
    assert fast.holds
    ours.leave(fast)
    ours.enter(third)
    assert third.holds
    ours.close()
    watch.join(20)
    assert not watch.is_alive()


def test_threads_that_use_the_gate_over_and_over_never_exceed_the_permits_nor_get_stuck() -> None:
    ours = gate.Gate(2)
    inside, most = [0], [0]
    guard = threading.Lock()

    def work() -> None:
        ticket = gate.Ticket(ours)
        for _ in range(500):
            ours.enter(ticket)
            with guard:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            with guard:
                inside[0] -= 1
            ours.leave(ticket)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(8)]
    before, interval = sys.getswitchinterval(), 1e-6
    sys.setswitchinterval(interval)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    finally:
        sys.setswitchinterval(before)
    assert not any(thread.is_alive() for thread in threads)
    assert most[0] <= 2
    assert len(ours._holders) == len(ours._waiting) == 0


def test_requests_of_a_kind_that_mostly_waits_are_not_limited() -> None:
    ours = gate.Gate(1)
    ours.measures = True
    for _ in range(3):
        ours.learn("database", 0.0001, 0.005)
    # Nobody takes permits away here, so they meet only if each gives its permit back before it runs.
    together = threading.Barrier(40)
    passed: list[int] = []

    def run(named: bool) -> None:
        ticket = gate.Ticket(ours)
        ours.enter(ticket)
        ticket.begin("/path" if named else "database")
        if named:
            ticket.name("database")
        passed.append(together.wait(60))
        ours.leave(ticket)

    threads = [threading.Thread(target=run, args=(number % 2 == 0,), daemon=True) for number in range(40)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 60
    for thread in threads:
        thread.join(max(0, end - time.monotonic()))
    assert sorted(passed) == list(range(40))
    assert (ours._free, len(ours._holders)) == (1, 0)


@pytest.mark.parametrize(
    ("cpu_s", "waited_s", "waits"),
    [
        (0.0001, 0.005, True),
        (0.0005, 0.0, False),
        (0.0001, 0.0005, False),  # too short to matter
        (0.002, 0.005, False),
        (0.003, 0.1, True),
        (0.02, 0.5, False),  # interrupted: it may have waited for the interpreter lock alone
    ],
)
def test_a_kind_of_work_waits_when_most_of_its_time_is_not_spent_computing(
    cpu_s: float, waited_s: float, waits: bool
) -> None:
    ours = gate.Gate(1)
    ours.learn("kind", cpu_s, waited_s)
    assert (ours.waiters == {"kind"}) is waits


def test_work_that_changes_its_habit_is_found_out_and_one_odd_run_is_not_enough() -> None:
    ours = gate.Gate(1)
    for _ in range(20):
        ours.learn("kind", 0.0005, 0.0)
    ours.learn("kind", 0.0005, 0.005)
    assert ours.waiters == set()
    for _ in range(40):
        ours.learn("kind", 0.0001, 0.005)
    assert ours.waiters == {"kind"}
    # Waiting for a minute once does not make work a waiter for the next thousands of runs.
    ours.learn("kind", 0.0001, 60.0)
    for _ in range(60):
        ours.learn("kind", 0.0005, 0.0)
    assert ours.waiters == set()


def test_the_kinds_of_work_remembered_are_bounded() -> None:
    ours = gate.Gate(1)
    for number in range(5000):
        ours.learn(number, 0.0001, 0.005)
        assert len(ours.waiters) <= len(ours._kinds) <= 1024


class Clock:
    """Stands in for `time`: the two clocks are set by hand."""

    wall = cpu = 100.0

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def monotonic(self) -> float:
        return self.wall

    def thread_time(self) -> float:
        return self.cpu


@pytest.mark.parametrize("apart", [False, True])
def test_processor_time_of_other_threads_counts_as_the_requests_own(
    monkeypatch: pytest.MonkeyPatch, apart: bool
) -> None:
    clock: Any = Clock()
    monkeypatch.setattr(gate, "time", clock)
    ours = gate.Gate(1)
    ours.measures = True
    ticket = gate.Ticket(ours)
    ticket.begin("/path")
    ticket.name("tool")
    clock.wall += 0.005
    clock.cpu += 0.0001
    if apart:
        ticket.add_cpu(0.0045)
    ticket.end()
    ticket.end()
    assert list(ours._kinds) == ["tool"]
    assert (ours.waiters == {"tool"}) is not apart


@pytest.mark.skipif(not hasattr(time, "pthread_getcpuclockid"), reason="threads cannot read each other's clocks here")
@pytest.mark.parametrize("busy", [False, True])
def test_a_kind_is_known_to_wait_before_its_first_run_has_ended(busy: bool) -> None:
    ours = gate.Gate(1)
    ours.measures = True
    watch = threading.Thread(target=ours.watch)
    ended = threading.Event()
    begun = threading.Event()

    def run() -> None:
        ticket = gate.Ticket(ours)
        ours.enter(ticket)
        ticket.begin("held")
        computed = time.thread_time()
        # So long that it is no waiter, even if the system gives its processor to others from here on.
        while busy and time.thread_time() - computed < 2 * gate._MOST_CPU_S:
            pass
        begun.set()
        while busy and not ended.is_set():
            pass
        ended.wait(60)

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(60)
    watch.start()
    later = gate.Ticket(ours)
    ours.enter(later)  # takes the permit from the other, whose run is judged
    wait_until(lambda: "held" in ours._kinds)
    assert (ours.waiters == {"held"}) is not busy
    ended.set()
    thread.join(10)
    ours.close()
    watch.join(20)


def test_nothing_is_measured_while_no_request_has_to_queue_up() -> None:
    ours = gate.Gate(2)
    ticket = gate.Ticket(ours)
    for _ in range(20):
        ours.enter(ticket)
        ticket.begin("/path")
        ticket.end()
        ours.leave(ticket)
    assert ours._kinds == {}


def test_the_embedded_server_learns_from_its_requests_which_paths_wait() -> None:
    # The application names the kind of some, and the path is the kind of the others.
    meeting = threading.Barrier(8)

    def app(environ: Any, start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/named":
            environ["minimcp.work"].name("lookup")
        met = b"no"
        try:
            meeting.wait(50)
            met = b"yes"
        except threading.BrokenBarrierError:
            pass
        start_response("200 OK", [])
        return [met]

    with embedded(app, running=1) as server:
        by_paths: set[str] = set()  # the threads that learned about a path
        learn = server.gate.learn

        def learned(kind: Any, *times: float) -> None:
            if kind == "/named":
                by_paths.add(threading.current_thread().name)
            learn(kind, *times)

        server.gate.learn = learned  # type: ignore[method-assign]
        for path in ("/named", "/plain"):
            answers: list[bytes] = []

            def ask(path: str = path, answers: list[bytes] = answers) -> None:
                with Wire(server) as wire:
                    answers.extend(wire.get(path).answer()[1] for _ in range(3))

            threads = [threading.Thread(target=ask, daemon=True) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            assert answers == [b"yes"] * 24
        assert {"lookup", "/plain"} <= server.gate.waiters
        # But for the watch, which may look at a request before the application has named it.
        assert by_paths <= {"minimcp-gate"}


def test_a_crowd_that_comes_before_the_watch_has_slept_is_let_in_all_the_same() -> None:
    """The watch may be held up between finding nobody and waiting for the next crowd."""
    ours = gate.Gate(1)
    about, go, served = threading.Event(), threading.Event(), threading.Semaphore(0)

    class Slow:
        def __init__(self, lock: Any) -> None:
            self.lock, self.release, self.locked = lock, lock.release, lock.locked

        def acquire(self) -> None:
            about.set()
            assert go.wait(20)
            self.lock.acquire()

    def crowd() -> threading.Thread:
        """Ask for the permit while another one holds it."""

        def ask() -> None:
            ticket = gate.Ticket(ours)
            ours.enter(ticket)
            ours.leave(ticket)
            served.release()

        ours.enter(holder)
        thread = threading.Thread(target=ask)
        thread.start()
        wait_until(lambda: ours._waiting)
        return thread

    ours._call = Slow(ours._call)  # type: ignore[assignment]
    holder = gate.Ticket(ours)
    threads = [crowd(), threading.Thread(target=ours.watch)]
    threads[1].start()
    try:
        assert served.acquire(timeout=20) and about.wait(20)
        threads.append(crowd())
        go.set()
        assert served.acquire(timeout=20)
    finally:
        go.set()
        ours.close()
        for thread in threads:
            thread.join(20)
