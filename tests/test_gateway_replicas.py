"""The health of replicas and the choice among them, on a clock that stands still until a test moves it."""

from __future__ import annotations

import heapq
import random
import threading
from collections import Counter
from typing import Any

import pytest

from minimcp.client.errors import CallCancelled, RemoteError
from minimcp.engines.errors import ConnectionLost
from minimcp.gateway import replicas
from minimcp.gateway.replicas import Health, UpstreamUnavailable, choose
from tests.helpers import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


def healths(clock: Clock, *names: str, chance: float = 0.5) -> list[Health]:
    """Some replicas; a chance of 0.5 means back-offs without jitter."""
    return [Health(name, clock, lambda: chance) for name in names]


def fail(health: Health, times: int = 5) -> None:
    for _ in range(times):
        health.begin().end(False, "refused")


def succeed(health: Health, times: int = 1) -> None:
    for _ in range(times):
        health.begin().end(True)


# The choice


def test_the_one_with_the_least_in_flight_is_chosen_and_of_equals_the_one_that_waits_longest(clock):
    a, b, c = group = healths(clock, "a", "b", "c")
    turns = [choose(group) for _ in range(3)]
    assert [turn.replica.name for turn in turns] == ["a", "b", "c"]
    assert (a.in_flight, b.in_flight, c.in_flight) == (1, 1, 1)
    turns[1].end(True)
    assert choose(group).replica is b
    turns[2].end(True)
    turns[0].end(True)
    assert [choose(group).replica.name for _ in range(2)] == ["a", "c"]


def test_one_that_comes_back_is_not_given_all_the_calls_that_it_has_missed(clock):
    a, b = group = healths(clock, "a", "b")
    a.disabled = True
    for _ in range(100):
        choose(group).end(True)
    a.disabled = False
    for _ in range(10):
        choose(group).end(True)
    assert (a.calls, b.calls) == (5, 105)


def test_a_replica_that_is_ten_times_slower_gets_a_tenth_of_the_calls(clock):
    group = healths(clock, "fast", "other", "slow")
    lasts = {"fast": 1.0, "other": 1.0, "slow": 10.0}
    running: list[Any] = []
    for number in range(1000):
        if len(running) == 12:
            clock.now, _, turn = heapq.heappop(running)
            turn.end(True)
        turn = choose(group)
        heapq.heappush(running, (clock.now + lasts[turn.replica.name], number, turn))
    calls = {health.name: health.calls for health in group}
    assert calls["slow"] < 1000 / 15
    assert abs(calls["fast"] - calls["other"]) < 30


@pytest.mark.parametrize("mark", ["different", "disabled", "draining"])
def test_one_that_is_marked_is_never_chosen_but_may_go_on_with_what_only_it_can_do(clock, mark):
    a, b = group = healths(clock, "a", "b")
    setattr(a, mark, "has another tool")
    assert {choose(group).replica.name for _ in range(5)} == {"b"}
    with pytest.raises(UpstreamUnavailable, match="The server 's' has no replica that may be used; try again in 5 s"):
        choose([a], server="s")
    with a.begin():
        assert a.in_flight == 1
    assert a.in_flight == 0


def test_those_that_a_call_has_failed_on_are_left_out(clock):
    a, b = group = healths(clock, "a", "b")
    assert [choose(group, [a]).replica.name for _ in range(3)] == ["b", "b", "b"]
    with pytest.raises(UpstreamUnavailable, match="has no other replica"):
        choose(group, [a, b])
    fail(b)
    clock.now += 2
    # It was ejected a while ago, so that the call may be the one that finds out whether it is back.
    assert choose(group, [a]).trial
    with pytest.raises(UpstreamUnavailable, match="does not answer"):
        choose(group, [a])


def test_a_call_that_failed_elsewhere_is_no_trial_where_there_is_one_that_works(clock):
    a, b, c = group = healths(clock, "a", "b", "c")
    fail(b)
    clock.now += 6
    assert choose(group, [a]).replica is c
    turn = choose(group)
    assert (turn.replica, turn.trial) == (b, True)


# The breaker


def test_it_opens_after_five_failures_in_a_row(clock):
    (a,) = healths(clock, "a")
    fail(a, 4)
    succeed(a)
    fail(a, 4)
    assert (a.state, a.ejected_for_s, a.error) == ("closed", 0.0, "refused")
    fail(a, 1)
    assert (a.state, a.ejected_for_s) == ("open", 5.0)
    assert a.snapshot() == {
        "state": "open",
        "inFlight": 0,
        "calls": 10,
        "failures": 9,
        "ejectedForS": 5.0,
        "error": "refused",
        "different": None,
    }


def test_calls_that_a_broken_connection_ends_together_are_one_failure(clock):
    (a,) = healths(clock, "a")
    lost = ConnectionLost("the process ended")
    turns = [a.begin() for _ in range(30)]
    clock.now += 1
    for turn in turns:
        turn.end(False, lost)
        clock.now += 0.001
    assert (a.state, a.failures) == ("closed", 30)
    for _ in range(4):
        clock.now += 0.001
        a.begin().end(False, lost)
    assert a.state == "open"


def mixed(health: Health, failures: int, successes: int) -> None:
    """Calls of which no five in a row fail; the last of them fails."""
    succeed(health, successes - -(-failures // 4))
    while failures:
        succeed(health)
        some = min(4, failures)
        fail(health, some)
        failures -= some


def test_it_opens_when_half_of_at_least_twenty_calls_of_a_minute_fail(clock):
    a, b, c = healths(clock, "a", "b", "c")
    mixed(a, 8, 11)
    assert (a.calls, a.state) == (19, "closed")
    mixed(b, 8, 13)
    assert (b.calls, b.failures, b.state) == (21, 8, "closed")
    mixed(c, 12, 12)
    assert c.state == "open"


def test_calls_of_more_than_a_minute_ago_do_not_count(clock):
    (a,) = healths(clock, "a")
    mixed(a, 10, 9)
    clock.now += 61
    succeed(a, 5)
    fail(a, 4)
    assert a.state == "closed"


def test_once_it_has_closed_the_failures_before_do_not_count(clock):
    (a,) = healths(clock, "a")
    mixed(a, 12, 12)
    assert a.state == "open"
    clock.now += 5
    choose([a]).end(True)
    fail(a, 4)
    assert a.state == "closed"


def test_the_back_off_doubles_up_to_five_minutes(clock):
    (a,) = group = healths(clock, "a")
    fail(a)
    found = [a.ejected_for_s]
    for _ in range(8):
        clock.now += a.ejected_for_s
        assert a.state == "half-open"
        with pytest.raises(ConnectionLost), choose(group) as turn:
            assert turn.trial
            raise ConnectionLost("still refused")
        assert a.state == "open"
        found.append(a.ejected_for_s)
    assert found == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0]


@pytest.mark.parametrize(("chance", "first", "last"), [(0.0, 4.0, 240.0), (1.0, 6.0, 360.0)])
def test_the_back_off_has_a_jitter_of_a_fifth(clock, chance, first, last):
    (a,) = healths(clock, "a", chance=chance)
    fail(a)
    assert a.ejected_for_s == pytest.approx(first)
    for _ in range(8):
        clock.now += a.ejected_for_s + 0.001
        choose([a]).end(False)
    assert a.ejected_for_s == pytest.approx(last)


def test_each_minute_of_health_takes_a_doubling_back(clock):
    (a,) = group = healths(clock, "a")
    fail(a)
    for wait_s, expected in ((59.9, 10.0), (59.9, 20.0), (61.0, 20.0), (121.0, 10.0), (1000.0, 5.0)):
        clock.now += a.ejected_for_s
        choose(group).end(True)
        assert a.state == "closed"
        clock.now += wait_s
        fail(a)
        assert a.ejected_for_s == pytest.approx(expected)


def test_calls_that_began_before_it_opened_say_nothing_new(clock):
    (a,) = group = healths(clock, "a")
    before = [choose(group) for _ in range(30)]
    for turn in before[:5]:
        turn.end(False)
    for turn in before[5:20]:
        turn.end(False)
    assert (a.state, a.ejected_for_s) == ("open", 5.0)
    before[20].end(True)
    assert a.state == "open"
    clock.now += 5
    choose(group).end(True)
    for turn in before[21:]:
        turn.end(False)
    assert (a.state, a.in_flight, a.failures) == ("closed", 0, 29)
    # Those of before it opened are not held against it once it is back.
    fail(a, 4)
    assert a.state == "closed"


def test_a_call_ends_once(clock):
    (a,) = group = healths(clock, "a")
    turn = choose(group)
    turn.end(False)
    turn.end(False)
    with turn:
        pass
    assert (a.in_flight, a.calls, a.failures) == (0, 1, 1)


@pytest.mark.parametrize(
    ("error", "state"),
    [(ConnectionLost("x"), "open"), (RemoteError(-32603, "x"), "closed"), (CallCancelled("x"), "half-open")],
)
def test_as_a_context_manager_a_call_judges_by_the_exception(clock, error, state):
    (a,) = group = healths(clock, "a")
    fail(a)
    clock.now += 5
    with pytest.raises(type(error)), choose(group) as turn:
        assert (turn.trial, a.state) == (True, "half-open")
        raise error
    assert a.state == state


# The trial


def test_of_two_threads_that_want_the_trial_one_gets_it(clock):
    inside = threading.Barrier(2)
    armed = False

    def slow_clock() -> float:
        if armed:
            try:
                # Both would come here before either has begun its call, if it were possible.
                inside.wait(0.3)
            except threading.BrokenBarrierError:
                pass
        return clock()

    a, b = group = [Health(name, slow_clock, lambda: 0.5) for name in ("a", "b")]
    fail(a)
    clock.now += 5
    turns: list[Any] = []
    threads = [threading.Thread(target=lambda: turns.append(choose(group))) for _ in range(2)]
    armed = True
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted((turn.replica.name, turn.trial) for turn in turns) == [("a", True), ("b", False)]


def test_of_many_threads_that_want_the_trial_one_gets_it(clock):
    for _ in range(20):
        a, b = group = healths(clock, "a", "b")
        fail(a)
        clock.now += 5
        barrier, turns = threading.Barrier(8), []

        def call(group=group, barrier=barrier, turns=turns):
            barrier.wait(10)
            turns.append(choose(group))

        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert sorted((turn.replica.name, turn.trial) for turn in turns) == [("a", True), *[("b", False)] * 7]
        assert (a.in_flight, b.in_flight) == (1, 7)


def test_there_is_no_second_trial_until_the_first_has_ended(clock):
    a, b = group = healths(clock, "a", "b")
    fail(a)
    clock.now += 5
    trial = choose(group)
    assert (trial.replica, trial.trial, a.state) == (a, True, "half-open")
    others = [choose(group) for _ in range(10)]
    assert {turn.replica.name for turn in others} == {"b"}
    trial.end(None)
    assert a.state == "half-open"
    assert choose(group).trial


def test_a_trial_that_hangs_is_not_waited_for_longer_than_a_minute(clock):
    a, b = group = healths(clock, "a", "b")
    fail(a)
    clock.now += 5
    first = choose(group)
    clock.now += 59.9
    assert choose(group).replica is b
    clock.now += 0.2
    second = choose(group)
    assert (second.replica, second.trial) == (a, True)
    first.end(False)
    assert a.state == "half-open"
    second.end(True)
    assert a.state == "closed"


def test_a_trial_that_shows_signs_of_life_has_shown_enough(clock):
    a, b = group = healths(clock, "a", "b")
    fail(a)
    clock.now += 5
    trial = choose(group)
    trial.alive()
    assert (a.state, a.in_flight) == ("closed", 1)
    fail(a)
    trial.alive()
    assert a.state == "open"
    trial.end(True)
    assert (a.state, a.in_flight) == ("open", 0)


# When all are ejected


def test_all_are_tried_when_all_are_ejected(clock):
    a, b = group = healths(clock, "a", "b")
    fail(a)
    fail(b)
    turns = [choose(group) for _ in range(6)]
    assert Counter(turn.replica.name for turn in turns) == {"a": 3, "b": 3}
    for turn in turns[:3]:
        turn.end(False)
    assert (a.ejected_for_s, b.ejected_for_s) == (5.0, 5.0), "what comes out of turn makes the back-off no longer"
    turns[3].end(True)
    assert sorted((a.state, b.state)) == ["closed", "open"]


def test_or_all_but_one_trial_are_refused_at_once(clock):
    a, b = group = healths(clock, "a", "b")
    fail(a)
    fail(b)
    with pytest.raises(UpstreamUnavailable) as caught:
        choose(group, fail_fast=True, server="sum")
    assert str(caught.value) == "The server 'sum' does not answer; try again in 1 s"
    assert (caught.value.server, caught.value.retry_after_s) == ("sum", 1.0)
    clock.now += 1
    first, second = (choose(group, fail_fast=True) for _ in range(2))
    assert (first.trial, second.trial, {first.replica, second.replica}) == (True, True, {a, b})
    for _ in range(100):
        with pytest.raises(UpstreamUnavailable):
            choose(group, fail_fast=True)
    first.end(False)
    second.end(False)
    with pytest.raises(UpstreamUnavailable):
        choose(group, fail_fast=True)
    clock.now += 1
    choose(group, fail_fast=True).end(True)
    choose(group, fail_fast=True).end(True)
    assert sorted((a.state, b.state)) == ["closed", "open"]


# Probes


def test_probes_alone_open_it_after_three_failures_and_close_it_again(clock):
    (a,) = healths(clock, "a")
    a.probed(False, "no answer")
    a.probed(False, "no answer")
    assert a.state == "closed"
    a.probed(False, "no answer")
    assert (a.state, a.error, a.calls) == ("open", "no answer", 0)
    clock.now += 5
    assert a.state == "half-open"
    a.probed(False, "no answer")
    assert (a.state, a.ejected_for_s) == ("open", 10.0)
    a.probed(True)
    assert (a.state, a.error) == ("closed", None)


def test_probes_that_fail_do_not_count_while_calls_succeed(clock):
    (a,) = healths(clock, "a")
    for _ in range(10):
        a.probed(False, "Method not found")
        a.probed(False, "Method not found")
        assert a.state == "closed"
        succeed(a)


def test_a_probe_closes_nothing_that_calls_have_opened(clock):
    (a,) = healths(clock, "a")
    fail(a, 3)
    a.probed(True)
    fail(a, 2)
    assert a.state == "open"
    a.probed(True)
    assert (a.state, a.ejected_for_s) == ("open", 5.0), "it was healthy to probes all the while"


def test_nor_what_probes_have_opened_once_a_call_has_failed_as_well(clock):
    (a,) = healths(clock, "a")
    for _ in range(3):
        a.probed(False)
    choose([a]).end(False)
    a.probed(True)
    assert a.state == "half-open"


def test_a_probe_that_succeeds_after_one_that_failed_brings_the_trial_forward(clock):
    (a,) = group = healths(clock, "a")
    for _ in range(5):
        fail(a)
        clock.now += a.ejected_for_s
    choose(group).end(False)
    assert a.ejected_for_s > 9
    a.probed(False)
    a.probed(True)
    assert a.state == "half-open"
    choose(group).end(True)
    assert a.state == "closed"


# A minute, and five hours


def test_one_that_flaps_for_a_minute_gets_few_calls_and_the_others_all_the_rest(clock):
    flapping, other, third = group = [Health(name, clock, random.Random(1).random) for name in ("f", "b", "c")]
    let_through: list[float] = []
    opened = 0
    while clock.now < 1060:
        was = flapping.state
        turn = choose(group)
        down = int(clock.now) // 2 % 2 == 0
        if turn.replica is flapping and down:
            let_through.append(clock.now)
        turn.end(not (turn.replica is flapping and down), "refused")
        opened += (was, flapping.state) in (("closed", "open"), ("half-open", "open"))
        clock.now += 0.01
    assert len(let_through) <= 5 * 4
    assert opened <= 5
    assert (other.failures, third.failures, other.state, third.state) == (0, 0, "closed", "closed")
    assert other.calls + third.calls > 5000


def test_one_that_only_probes_find_healthy_gets_a_call_every_few_minutes(clock):
    sick, well = group = [Health(name, clock, random.Random(1).random) for name in ("sick", "well")]
    for second in range(5 * 3600):
        clock.now += 1
        if second % 15 == 0:
            sick.probed(True)
        turn = choose(group)
        turn.end(turn.replica is well, "no session")
    assert sick.failures <= 5 + 6 + 5 * 3600 / 240
    assert (well.failures, well.state) == (0, "closed")


def test_what_is_down_for_good_is_asked_once_in_a_while_and_all_else_fails_at_once(clock):
    group = [Health(name, clock, random.Random(1).random) for name in ("a", "b", "c")]
    sent = refused = 0
    for _ in range(60 * 100):
        clock.now += 0.01
        try:
            choose(group, fail_fast=True).end(False, "refused")
            sent += 1
        except UpstreamUnavailable as problem:
            refused += 1
            assert 0 < problem.retry_after_s <= 10
    assert sent <= 3 * (5 + 60)
    assert refused >= 60 * 100 * 0.95


# Whatever happens


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_the_numbers_agree_and_the_states_follow_each_other(seed):
    dice, clock = random.Random(seed), Clock()
    group = [Health(name, clock, dice.random) for name in "abc"[: dice.randint(1, 3)]]
    turns: list[Any] = []
    ways = {
        ("closed", "open"),
        ("open", "half-open"),
        ("half-open", "open"),
        ("half-open", "closed"),
        # By a call that was sent although it was ejected, since all were.
        ("open", "closed"),
    }
    bad = dice.random()
    for _ in range(1500):
        before = [health.state for health in group]
        act = dice.random()
        if act < 0.45:
            working = [each for each in group if each.state == "closed" and each.usable]
            exclude = [dice.choice(group)] if dice.random() < 0.2 else []
            try:
                turn = choose(group, exclude, dice.random() < 0.5)
            except UpstreamUnavailable as problem:
                assert not [each for each in working if each not in exclude]
                assert problem.retry_after_s > 0
            else:
                turns.append(turn)
                assert turn.replica not in exclude and turn.replica.usable
                assert turn.trial or turn.replica.state == "closed" or not set(working) - set(exclude)
        elif act < 0.8 and turns:
            turn = turns.pop(dice.randrange(len(turns)))
            turn.end(dice.choice([None, True, True, True]) if dice.random() > bad else False, "broken")
        elif act < 0.85:
            dice.choice(group).probed(dice.random() > bad)
        elif act < 0.87 and turns:
            dice.choice(turns).alive()
        elif act < 0.89:
            health = dice.choice(group)
            health.draining = not health.draining
        else:
            clock.now += dice.choice([0.01, 0.5, 3, 20, 100])
        for health, was in zip(group, before):
            mine = [turn for turn in turns if turn.replica is health]
            trials = [turn for turn in mine if health._trial is turn]
            assert health.in_flight == len(mine)
            assert 0 <= health.failures <= health.calls
            assert len(trials) <= 1 and (health._trial is None or trials)
            assert health.state == was or (was, health.state) in ways, (was, health.state)
            assert (health.ejected_for_s > 0) <= (health.state != "closed")
            assert health.ejected_for_s <= 360
    for turn in turns:
        turn.end(True)
    assert [health.in_flight for health in group] == [0] * len(group)


def test_what_happens_to_the_replicas_is_logged_with_no_lock_held(clock, monkeypatch):
    (a,) = group = healths(clock, "sum 1")
    lines: list[Any] = []
    monkeypatch.setattr(replicas.log, "log", lambda level, text: lines.append((level, a.snapshot()["state"], text)))
    for _ in range(5):
        choose(group).end(False, "refused 100%s\r\nforged line")
    clock.now += 5
    choose(group).end(True)
    assert lines == [
        (30, "open", "sum 1 gets no calls for 5.0 s: refused 100%s  forged line"),
        (20, "closed", "sum 1 gets calls again"),
    ]
