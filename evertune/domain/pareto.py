"""Pareto fronts: which trials no other one beats in all objectives, and how much of the space they dominate.

Pure functions over finite numbers, every objective to be minimized (`Objective.losses`); called by whoever shows an
experiment with several objectives. A front is computed when it is read: nothing of it is kept, and no event costs more
for it. Refuses hypervolumes of more than four objectives, which take too long exactly.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evertune.domain.metrics import Objective, ObjectiveType

Losses = Sequence[float]

MOST_EXACT = 4  # objectives of a hypervolume
MARGIN = 0.1  # of the range of an objective, between the worst value and the reference point


def non_dominated(points: Sequence[Losses]) -> list[int]:
    """Indices, ascending, of the points that no other one dominates: not worse in any objective, better in one.

    Equal points do not dominate each other: all of them stay. O(n log n) for two objectives, else O(n * front).
    """
    order = sorted(range(len(points)), key=lambda index: tuple(points[index]))
    # In this order no point is dominated by a later one.
    return sorted(_sweep(points, order) if points and len(points[0]) <= 2 else _compare(points, order))


def _sweep(points: Sequence[Losses], order: Sequence[int]) -> list[int]:
    kept: list[int] = []
    for index in order:
        point = points[index]
        last = points[kept[-1]] if kept else None
        if last is None or point[-1] < last[-1] or tuple(point) == tuple(last):
            kept.append(index)
    return kept


def _compare(points: Sequence[Losses], order: Sequence[int]) -> list[int]:
    kept: list[int] = []
    for index in order:
        if not any(dominates(points[other], points[index]) for other in kept):
            kept.append(index)
    return kept


def dominates(one: Losses, other: Losses) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)


def reference_point(points: Sequence[Losses]) -> tuple[float, ...]:
    """A point that all of these dominate: the worst value of each objective, and a tenth of its range beyond.

    A value that all share is moved by a tenth of itself, zero to a tenth.
    """
    reference = []
    for values in zip(*points, strict=True):
        worst, spread = max(values), MARGIN * max(values) - MARGIN * min(values)
        reference.append(min(worst + (spread or MARGIN * (abs(worst) or 1.0)), sys.float_info.max))
    return tuple(reference)


def hypervolume(points: Sequence[Losses], reference: Losses) -> float:
    """The exact volume that the points dominate up to `reference`; what lies beyond it counts nothing.

    ValueError for more than four objectives.
    """
    if len(reference) > MOST_EXACT:
        raise ValueError(f"a hypervolume of {len(reference)} objectives: at most {MOST_EXACT} are exact in time")
    inside = [tuple(point) for point in points if all(a < b for a, b in zip(point, reference, strict=True))]
    return _volume(sorted(set(inside), key=lambda point: point[-1]), tuple(reference)) if inside else 0.0


def _volume(points: Sequence[tuple[float, ...]], reference: tuple[float, ...]) -> float:
    """Of points in the order of their last objective: slices between one and the next, each as large as all below."""
    if len(reference) == 1:
        return reference[0] - points[0][0]
    if len(reference) <= 3:
        return _sliced(points, reference)
    total = area = 0.0
    below: list[tuple[float, ...]] = []  # no one of them dominated, in the order of their last objective
    for index, point in enumerate(points):
        new = point[:-1]
        if not any(all(a <= b for a, b in zip(known, new, strict=True)) for known in below):
            below = [known for known in below if not all(a <= b for a, b in zip(new, known, strict=True))]
            insort(below, new, key=lambda each: each[-1])
            area = _volume(below, reference[:-1])
        end = points[index + 1][-1] if index + 1 < len(points) else reference[-1]
        total += (end - point[-1]) * area
    return total


def _sliced(points: Sequence[tuple[float, ...]], reference: tuple[float, ...]) -> float:
    """Of two or three objectives: the area of a slice grows by what each point adds to a staircase."""
    right, top = reference[0], reference[1] if len(reference) == 3 else 1.0
    xs: list[float] = []  # of the staircase, ascending
    ys: list[float] = []  # descending
    total = area = 0.0
    for index, point in enumerate(points):
        x, y = (point[0], point[1]) if len(reference) == 3 else (point[0], 0.0)
        first = bisect_left(xs, x)
        if not ((first > 0 and ys[first - 1] <= y) or (first < len(xs) and xs[first] == x and ys[first] <= y)):
            last, left, above = first, x, ys[first - 1] if first else top
            while last < len(xs) and ys[last] >= y:
                area += (xs[last] - left) * (above - y)
                left, above = xs[last], ys[last]
                last += 1
            area += ((xs[last] if last < len(xs) else right) - left) * (above - y)
            xs[first:last], ys[first:last] = [x], [y]
        end = points[index + 1][-1] if index + 1 < len(points) else reference[-1]
        total += (end - point[-1]) * area
    return total


@dataclass(frozen=True, slots=True)
class Front:
    """The trials that no feasible one beats, the best in the first objective first.

    `values` are theirs in all objectives, never negated, and so is the `reference` point of the `hypervolume`, which is
    None where there are more than four objectives, or it is no finite number. `others`: the values of the feasible
    trials that are not on it.
    """

    numbers: tuple[int, ...] = ()
    values: tuple[tuple[float, ...], ...] = ()
    others: tuple[tuple[float, ...], ...] = ()
    reference: tuple[float, ...] = ()
    hypervolume: float | None = None


def front(objective: Objective, metrics: Mapping[int, Mapping[str, str]], reference: Losses | None = None) -> Front:
    """Of trials by number, with what they have by metric. Without those that are infeasible or lack an objective.

    `reference`: a point in the objectives' own values; None: see `reference_point`, over all feasible trials.
    """
    losses = {
        number: found
        for number, known in metrics.items()
        if objective.violation(known) <= 0 and (found := objective.losses(known)) is not None
    }
    if not losses:
        return Front()
    numbers, points = list(losses), list(losses.values())
    chosen = set(non_dominated(points))
    ordered = sorted(chosen, key=lambda index: (points[index], numbers[index]))
    beyond = reference_point(points) if reference is None else _turned(objective, reference)
    volume = hypervolume([points[index] for index in ordered], beyond) if len(beyond) <= MOST_EXACT else None
    return Front(
        numbers=tuple(numbers[index] for index in ordered),
        values=tuple(_turned(objective, points[index]) for index in ordered),
        others=tuple(_turned(objective, point) for index, point in enumerate(points) if index not in chosen),
        reference=_turned(objective, beyond),
        hypervolume=volume if volume is not None and math.isfinite(volume) else None,
    )


def _turned(objective: Objective, values: Losses) -> tuple[float, ...]:
    """Losses as values, and values as losses; a zero has no sign."""
    pairs = zip(values, objective.directions, strict=True)
    return tuple(value if direction is ObjectiveType.MINIMIZE else -value or 0.0 for value, direction in pairs)
