"""From a series of reports to one objective value: Katib's rules, case by case and against a slow reference."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evertune.domain.metrics import (
    FIRST_EVENT_FILE,
    Objective,
    ObjectiveType,
    Point,
    Running,
    Strategy,
    event_source,
    finite,
    objective_text,
    place,
    summarize,
)

MAXIMIZE, MINIMIZE = ObjectiveType.MAXIMIZE, ObjectiveType.MINIMIZE


def points(*values: str | tuple[str, float | None]) -> list[Point]:
    """In the order of the source; a pair has a timestamp."""
    pairs = [value if isinstance(value, tuple) else (value, None) for value in values]
    return [Point("m", text, seq, time) for seq, (text, time) in enumerate(pairs)]


@pytest.mark.parametrize(
    ("reported", "low", "high", "latest"),
    [
        (points("0.5"), "0.5", "0.5", "0.5"),
        (points("0.5", "0.9", "0.7"), "0.5", "0.9", "0.7"),
        (points("1e-2", "0.010"), "1e-2", "1e-2", "0.010"),  # of equal numbers the first text stays
        (points("-0.0", "0.0"), "-0.0", "-0.0", "0.0"),
        (points(("0.1", 3.0), ("0.2", 1.0), ("0.3", 2.0)), "0.1", "0.3", "0.1"),  # out of order: the newest is latest
        (points(("0.1", 1.0), ("0.2", 1.0)), "0.1", "0.2", "0.2"),  # equal times: the last one is latest
        (points(("0.1", 1.0), "0.2"), "0.1", "0.2", "0.1"),  # without a time it comes before those that have one
        (points("nan", "0.3", "inf"), "0.3", "0.3", "inf"),  # not finite: no extreme, but a value that is latest
        (points("", "0.3", ""), "0.3", "0.3", ""),
        (points("Genotype(a)", "Genotype(b)"), None, None, "Genotype(b)"),
        (points("1_000", "１２", "0x10"), None, None, "0x10"),
        (points("1e999", "5"), "5", "5", "5"),
        (points(".5", "+.75", "5."), ".5", "5.", "5."),
    ],
)
def test_extremes_are_numbers_and_the_latest_is_whatever_came_last(
    reported: list[Point], low: str | None, high: str | None, latest: str
) -> None:
    summary = summarize(reported)["m"]
    assert (summary.min, summary.max, summary.latest) == (low, high, latest)


@pytest.mark.parametrize(
    ("kind", "strategies", "expected"),
    [
        (MAXIMIZE, {}, "0.9"),
        (MINIMIZE, {}, "0.1"),
        (MAXIMIZE, {"m": Strategy.LATEST}, "0.5"),
        (MAXIMIZE, {"m": Strategy.MIN}, "0.1"),
        (MINIMIZE, {"m": Strategy.MAX}, "0.9"),
        (MINIMIZE, {"other": Strategy.MAX}, "0.1"),
    ],
)
def test_the_strategy_of_a_metric_follows_the_direction_unless_the_user_says(
    kind: ObjectiveType, strategies: dict[str, Strategy], expected: str
) -> None:
    objective = Objective(kind, "m", strategies=strategies)
    assert objective_text(objective, summarize(points("0.1", "0.9", "0.5"))) == expected


def test_an_objective_without_a_number_is_its_latest_text_and_an_empty_one_is_none() -> None:
    objective = Objective(MAXIMIZE, "m")
    assert objective_text(objective, summarize(points("Genotype(a)", "Genotype(b)"))) == "Genotype(b)"
    assert objective_text(objective, summarize(points(""))) is None
    assert objective_text(objective, {}) is None


def test_the_goal_is_reached_by_the_objective_alone_and_at_equality() -> None:
    assert Objective(MAXIMIZE, "m", 0.9).reached(0.9)
    assert not Objective(MAXIMIZE, "m", 0.9).reached(math.nextafter(0.9, 0))
    assert Objective(MINIMIZE, "m", 0.0).reached(-1.0)
    assert not Objective(MINIMIZE, "m", None).reached(-math.inf)
    assert not Objective(MAXIMIZE, "m").better(0.5, 0.5), "the first of equals stays best"


VALUES = st.sampled_from(
    ["0.1", "0.10", "1e-1", "-3", "7", "nan", "inf", "", "text", "1_0", "1e400"]
) | st.floats().map(repr)
TIMES = st.none() | st.sampled_from([0.0, 1.5, 1.5, 2.0]) | st.floats(-1e9, 1e9)


def slow(reported: list[Point]) -> tuple[str | None, str | None, str | None]:
    """Katib's words, literally: rows by time; numbers update the extremes, every row at or after the newest updates."""
    low = high = latest = newest = None
    for point in sorted(reported, key=lambda p: p.seq):
        number = finite(point.value)
        if number is not None and (low is None or number < low[0]):
            low = (number, point.value)
        if number is not None and (high is None or number > high[0]):
            high = (number, point.value)
    for point in sorted(reported, key=lambda p: (p.timestamp is not None, p.timestamp or 0.0, p.seq)):
        time = -math.inf if point.timestamp is None else point.timestamp
        if newest is None or time >= newest:
            newest, latest = time, point.value
    return low and low[1], high and high[1], latest


@settings(max_examples=400, derandomize=True, deadline=None)
@given(st.lists(st.tuples(VALUES, TIMES), max_size=30), st.randoms(use_true_random=False))
def test_any_order_of_arrival_gives_what_the_slow_reference_gives(
    reported: list[tuple[str, float | None]], chance: object
) -> None:
    series = [Point("m", text, 10 * index, time) for index, (text, time) in enumerate(reported)]
    shuffled = series.copy()
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    running = Running()
    for point in shuffled:
        running.add(point)
    summary = running.summary("m")
    assert (summary.min, summary.max, summary.latest) == slow(series)
    assert running.points == len(series)


def test_places_of_different_sources_never_meet_and_fit_any_database() -> None:
    top = (1 << 42) - 1
    assert place(0, top) < place(1, 0) < place(FIRST_EVENT_FILE, 0)
    sources = {event_source(f"train/{number}/events.out") for number in range(100)}
    assert len(sources) == 100
    assert min(sources) >= FIRST_EVENT_FILE
    assert max(place(source, top) for source in sources) < 2**63
