"""What is remembered of attempts: the rate of each, its metrics' names, and no more attempts than there is room for."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from evertune.domain.metrics import Point
from evertune.server.counters import MAX_PEERS, Counters
from evertune.server.limits import BURST, MAX_NAMES, REPORTS_PER_S, Attempt, Attempts


def test_a_burst_passes_and_then_as_many_as_the_rate_allows() -> None:
    attempt = Attempt()
    passed = sum(attempt.wait_s(0.0) == 0.0 for _ in range(100))
    assert passed == BURST
    wait_s = attempt.wait_s(0.0)
    assert 0 < wait_s <= 1 / REPORTS_PER_S
    assert attempt.wait_s(wait_s) == 0.0
    later = sum(attempt.wait_s(wait_s + 2.0) == 0.0 for _ in range(100))
    assert 2 * REPORTS_PER_S - 1 <= later <= 2 * REPORTS_PER_S


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=50))
def test_a_clock_that_jumps_gives_nobody_more_than_a_burst(jumps: list[float]) -> None:
    attempt = Attempt()
    for now in itertools.accumulate(jumps):
        assert attempt.wait_s(now) >= 0.0
        assert 0.0 <= attempt.tokens <= BURST


def test_the_first_names_of_an_attempt_stay_and_further_ones_are_left_out() -> None:
    attempt = Attempt()
    first = [Point(f"m{number}", "1", number) for number in range(MAX_NAMES - 1)]
    assert attempt.known(first) == first
    more = [Point(name, "1", 1) for name in ("last", "too many", "m0", "last")]
    assert [point.metric for point in attempt.known(more)] == ["last", "m0", "last"]


def test_a_million_names_cost_no_more_memory_than_the_first_ones() -> None:
    attempt = Attempt()
    for start in range(0, 1_000_000, 1000):
        attempt.known([Point(f"m{number}", "1", number) for number in range(start, start + 1000)])
    assert len(attempt.names) == MAX_NAMES


def test_the_attempts_that_were_silent_longest_are_forgotten() -> None:
    attempts = Attempts(limit=3)
    for number in range(3):
        attempts.add(("uid", number, 0), names=["loss"], ended=None, now=0.0)
    assert attempts.get(("uid", 0, 0)) is not None
    attempts.add(("uid", 3, 0), names=[], ended=None, now=0.0)
    assert len(attempts) == 3
    assert attempts.get(("uid", 1, 0)) is None
    assert attempts.get(("uid", 0, 0)) is not None


def test_an_attempt_that_two_requests_find_at_once_keeps_its_allowance() -> None:
    attempts = Attempts()
    first = attempts.add(("uid", 0, 0), names=[], ended=None, now=0.0)
    first.wait_s(0.0)
    second = attempts.add(("uid", 0, 0), names=["loss"], ended=5.0, now=0.0)
    assert second is first
    assert (second.tokens, second.ended, len(second.names)) == (BURST - 1, 5.0, 1)


def test_a_flood_of_refusals_is_counted_in_full_and_remembered_within_bounds() -> None:
    counters = Counters()
    for number in range(5000):
        counters.refuse("forged token")
        counters.warn("forged token", f"10.0.{number // 256}.{number % 256}")
    assert counters.as_dict()["refused"] == {"forged token": 5000}
    assert len(counters._logged) <= MAX_PEERS
