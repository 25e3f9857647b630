"""The probes of replicas in their time, and the calls that a server may have at once."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from minimcp.client.errors import CallCancelled
from minimcp.gateway.failures import UpstreamUnavailable
from minimcp.gateway.pacing import Prober, Slots
from tests.embedded import wait_until
from tests.helpers import Clock

BOUND_S = 10


class Idle(Prober):
    """A prober whose thread a test plays itself: `started` are the runs that wait for a thread."""

    def __init__(self, chance: float = 0.5) -> None:
        self.clock = Clock()
        self.started: list[Any] = []
        super().__init__(clock=self.clock, chance=lambda: chance, submit=self.started.append)

    def _watch(self) -> None:
        pass

    def run(self) -> float | None:
        """Start what is due and run it."""
        wait_s = self.run_due()
        while self.started:
            self.started.pop(0)()
        return wait_s


def test_a_probe_runs_each_time_that_its_interval_has_passed():
    prober, ran = Idle(), []
    prober.add("a", lambda: ran.append(prober.clock.now), 10)
    assert (prober.run(), ran) == (5.0, [])
    for expected in (1005, 1015, 1025):
        prober.clock.now = expected - 0.1
        prober.run()
        assert len(ran) == (expected - 1005) / 10
        prober.clock.now = expected
        prober.run()
        assert ran[-1] == expected


@pytest.mark.parametrize(("chance", "first", "then"), [(0.0, 0.0, 8.0), (1.0, 10.0, 12.0)])
def test_not_all_probes_run_at_the_same_time(chance, first, then):
    prober = Idle(chance)
    prober.add("a", lambda: None, 10)
    prober.add("b", lambda: None, 1000)
    if first:
        assert prober.run() == first
    prober.clock.now += first
    prober.run()
    assert prober.run() == pytest.approx(then)


def test_each_has_its_own_interval_and_the_first_run_may_be_at_once():
    prober, ran = Idle(), []
    prober.add("a", lambda: ran.append("a"), 10, 0.0)
    prober.add("b", lambda: ran.append("b"), 25, 0.0)
    prober.add("never", lambda: ran.append("never"), 0)
    for _ in range(50):
        prober.run()
        prober.clock.now += 1
    assert (ran.count("a"), ran.count("b"), ran.count("never")) == (5, 2, 0)


def test_a_probe_never_runs_twice_at_once():
    prober = Idle()
    prober.add("a", lambda: None, 10, 0.0)
    prober.add("b", lambda: None, 10, 0.0)
    prober.run_due()
    assert len(prober.started) == 2
    prober.clock.now += 100
    assert prober.run_due() == float("inf")
    assert len(prober.started) == 2
    prober.started.pop(0)()
    assert prober.run_due() == 10
    prober.clock.now += 10
    prober.run_due()
    assert len(prober.started) == 2


def test_a_probe_that_raises_is_logged_and_runs_again(caplog):
    prober, ran = Idle(), []

    def probe() -> None:
        ran.append(1)
        raise ValueError("a mistake")

    prober.add("a", probe, 10, 0.0)
    with caplog.at_level(logging.ERROR, "minimcp"):
        for _ in range(3):
            prober.run()
            prober.clock.now += 10
    assert len(ran) == 3
    assert caplog.text.count("ValueError: a mistake") == 3


def test_a_probe_for_which_there_is_no_thread_runs_another_time(caplog):
    prober, ran = Idle(), []
    prober._submit = lambda job: (_ for _ in ()).throw(RuntimeError("no thread"))
    prober.add("a", lambda: ran.append(1), 10, 0.0)
    assert prober.run() == float("inf")
    assert "a probe could not be run: no thread" in caplog.text
    prober._submit = prober.started.append
    assert (prober.run(), ran) == (10, [])
    prober.clock.now += 10
    prober.run()
    assert ran == [1]


def test_what_was_removed_runs_no_more_and_what_was_replaced_is_the_new_one():
    prober, ran = Idle(), []
    prober.add("a", lambda: ran.append("old"), 10, 0.0)
    prober.add("b", lambda: ran.append("b"), 10, 0.0)
    prober.run_due()
    prober.remove("b")
    prober.add("a", lambda: ran.append("new"), 10, 0.0)
    prober.run()
    prober.clock.now += 10
    prober.run()
    assert ran == ["old", "b", "new", "new"]


def test_a_slow_probe_delays_no_other_and_nothing_is_left_after_close():
    release, slow, fast = threading.Event(), threading.Event(), threading.Semaphore(0)
    prober = Prober()

    def hang() -> None:
        slow.set()
        release.wait(BOUND_S)

    assert not [each for each in threading.enumerate() if each.name == "minimcp-prober"], "it is started when needed"
    prober.add("slow", hang, 0.001, 0.0)
    assert slow.wait(BOUND_S)
    prober.add("fast", fast.release, 0.001, 0.0)
    for _ in range(5):
        assert fast.acquire(timeout=BOUND_S)
    assert [each.daemon for each in threading.enumerate() if each.name == "minimcp-prober"] == [True]
    release.set()
    prober.close()
    assert not [each for each in threading.enumerate() if each.name == "minimcp-prober"]
    prober.add("late", fast.release, 0.001, 0.0)
    assert not [each for each in threading.enumerate() if each.name == "minimcp-prober"]


def test_its_thread_ends_with_the_last_probe_and_begins_with_the_next():
    prober, ran = Prober(), threading.Semaphore(0)
    for _ in range(3):
        prober.add("a", ran.release, 0.001, 0.0)
        assert ran.acquire(timeout=BOUND_S)
        thread = prober._thread
        prober.remove("a")
        assert thread is not None
        thread.join(BOUND_S)
        assert not thread.is_alive()
    prober.close()


# Slots


class Caller(threading.Thread):
    """A call that takes a slot on a thread of its own."""

    def __init__(self, slots: Slots, wait_s: float = BOUND_S, on_wait: Any = None) -> None:
        super().__init__()
        self.outcome: Any = None
        self._slots, self._wait_s, self._on_wait = slots, wait_s, on_wait
        before = slots.waiting
        self.start()
        wait_until(lambda: slots.waiting > before or not self.is_alive())

    def run(self) -> None:
        try:
            self._slots.take(self._wait_s, self._on_wait)
            self.outcome = "taken"
        except Exception as problem:
            self.outcome = problem

    def end(self) -> Any:
        """Its outcome, once it has one."""
        self.join(BOUND_S)
        return self.outcome


def test_as_many_calls_as_the_limit_go_on_and_the_rest_in_the_order_in_which_they_came():
    slots = Slots(2)
    slots.take(0)
    slots.take(0)
    callers = [Caller(slots) for _ in range(5)]
    assert (slots.used, slots.waiting) == (2, 5)
    for number, caller in enumerate(callers):
        slots.release()
        assert caller.end() == "taken"
        assert (slots.used, slots.waiting) == (2, 4 - number)
    slots.release()
    slots.release()
    assert (slots.used, slots.waiting) == (0, 0)


def test_who_comes_new_does_not_overtake_who_waits():
    slots = Slots(1)
    slots.take(0)
    first = Caller(slots)
    slots.release()
    with pytest.raises(UpstreamUnavailable):
        slots.take(0)
    assert first.end() == "taken"
    slots.release()


def test_a_wait_is_bounded_in_time():
    slots = Slots(1, "sum")
    slots.take(0)
    with pytest.raises(UpstreamUnavailable) as caught:
        slots.take(0.01)
    expected = "The server 'sum' has as many calls in progress as it may have (1); try again in 1 s"
    assert (str(caught.value), caught.value.retry_after_s) == (expected, 1.0)
    assert (slots.used, slots.waiting) == (1, 0)
    slots.release()
    slots.take(0)
    slots.release()


def test_four_times_the_limit_wait_and_no_more():
    slots = Slots(2)
    slots.take(0)
    slots.take(0)
    callers = [Caller(slots) for _ in range(8)]
    with pytest.raises(UpstreamUnavailable):
        slots.take(BOUND_S)
    for _ in range(10):
        slots.release()
    assert [caller.end() for caller in callers] == ["taken"] * 8
    assert (slots.used, slots.waiting) == (0, 0)


def test_a_call_that_is_cancelled_waits_no_longer():
    slots, ends = Slots(1), []
    slots.take(0)
    caller, next_one = Caller(slots, on_wait=ends.append), Caller(slots)
    # It counts as waiting before it asks to be told of that.
    wait_until(lambda: ends)
    ends[0]()
    assert isinstance(caller.end(), CallCancelled)
    slots.release()
    assert next_one.end() == "taken"
    slots.release()
    assert (slots.used, slots.waiting) == (0, 0)


def test_a_slot_that_is_given_to_a_call_that_was_just_cancelled_is_passed_on():
    slots = Slots(1)
    slots.take(0)

    def cancel(end: Any) -> None:
        slots.release()
        end()

    caller = Caller(slots, on_wait=cancel)
    assert isinstance(caller.end(), CallCancelled)
    assert (slots.used, slots.waiting) == (0, 0)


def test_what_asks_to_be_told_of_the_wait_may_fail():
    slots = Slots(1)
    slots.take(0)

    def fail(end: Any) -> None:
        raise LookupError("no such call")

    with pytest.raises(LookupError):
        slots.take(BOUND_S, fail)
    assert (slots.used, slots.waiting) == (1, 0)


def test_many_threads_never_have_more_than_the_limit():
    slots, most, errors = Slots(3), [], []
    barrier, lock, running = threading.Barrier(12), threading.Lock(), [0]

    def work() -> None:
        barrier.wait(BOUND_S)
        for _ in range(200):
            try:
                slots.take(BOUND_S)
            except UpstreamUnavailable as problem:
                errors.append(problem)
                continue
            with lock:
                running[0] += 1
                most.append(running[0])
            with lock:
                running[0] -= 1
            slots.release()

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert max(most) <= 3 and not errors
    assert (len(most), slots.used, slots.waiting) == (2400, 0, 0)
