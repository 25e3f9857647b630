"""State of one process: made on first use, shared by its threads, made anew by a forked child."""

from __future__ import annotations

import os
import threading

import pytest

from minimcp.engines.fork import PerProcess


def test_the_value_is_made_once_on_first_use():
    made: list[int] = []
    value = PerProcess(lambda: made.append(1) or object())
    assert made == []
    assert value() is value() and made == [1]


def test_threads_that_race_for_the_first_use_get_the_same_value():
    both = threading.Barrier(2)

    def make():
        both.wait(20)
        return object()

    value, found = PerProcess(make), []
    threads = [threading.Thread(target=lambda: found.append(value())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 2 and found[0] is found[1] is value()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_makes_its_own():
    value = PerProcess(threading.Lock)
    inherited = value()
    inherited.acquire()
    child = os.fork()
    if child == 0:
        os._exit(0 if value() is not inherited and value().acquire(timeout=0) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert value() is inherited
