"""The gate: how many run at once, in which order, and what becomes of those that block."""

from __future__ import annotations

import sys
import threading
import time

from minimcp.engines.http_server import gate
from tests.embedded import wait_until


def test_the_gate_lets_in_as_many_as_it_may_and_then_in_order() -> None:
    ours = gate.Gate(1)
    first = gate.Ticket()
    ours.enter(first)
    order: list[int] = []

    def enter(number: int) -> None:
        ticket = gate.Ticket()
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
        thread.join(5)
    assert order == [0, 1, 2, 3, 4]


def test_a_permit_held_for_long_goes_to_the_next_and_is_not_given_back_twice() -> None:
    ours = gate.Gate(1)
    watch = threading.Thread(target=ours.watch)
    watch.start()
    slow, fast, third = gate.Ticket(), gate.Ticket(), gate.Ticket()
    ours.enter(slow)
    ours.enter(fast)
    assert (slow.holds, fast.holds) == (False, True)
    ours.leave(slow)
    assert fast.holds
    ours.leave(fast)
    ours.enter(third)
    assert third.holds
    ours.close()
    watch.join(5)
    assert not watch.is_alive()


def test_threads_that_use_the_gate_over_and_over_never_exceed_the_permits_nor_get_stuck() -> None:
    ours = gate.Gate(2)
    inside, most = [0], [0]
    guard = threading.Lock()

    def work() -> None:
        ticket = gate.Ticket()
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


def test_the_gate_opens_while_permits_are_held_by_threads_that_block() -> None:
    ours = gate.Gate(1)
    watch = threading.Thread(target=ours.watch)
    watch.start()
    tickets = [gate.Ticket() for _ in range(40)]
    began = time.monotonic()
    for ticket in tickets:
        # Nobody gives a permit back, as if all were waiting for a database.
        ours.enter(ticket)
    # One after the other at a permit's lifetime each it would take 0.4 s at the very least.
    assert time.monotonic() - began < 1
    assert sum(ticket.holds for ticket in tickets) <= 1
    assert time.monotonic() < ours._open_until
    ours.close()
    watch.join(5)
