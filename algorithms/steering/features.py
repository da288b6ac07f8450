"""Who does what: what a problem wants, what its algorithm says of itself, and what is left for steering.

Asked by the registry, to refuse what nobody can do, and by `steered`, which does the rest. An algorithm's class says:

    supports        all that works with it; the rest is refused
    handles         of that, what it does itself; what of the rest is STEERABLE is done around it
    knows_others    for a warm start: it tells the others' trials by their numbers, below 0
    enumerates      it gives all points of a space, one after the other, and then no more

Each may be missing: third parties' classes are plain ones.
"""

from __future__ import annotations

from evertune.domain.space import SearchProblem
from evertune.protocols import BLIND, LEARNED, Algorithm, Feature

# What is done around an algorithm that does not handle it. Of LEARNED, early stopping needs nothing to be done.
STEERABLE = LEARNED - {Feature.EARLY_STOPPING} | {Feature.NAS_CONFIG}


def wanted(problem: SearchProblem) -> frozenset[Feature]:
    """What the problem wants of its algorithm beyond parameters and one objective."""
    asked = {
        Feature.OBJECTIVES: len(problem.all_directions) > 1,
        Feature.CONSTRAINTS: problem.constraints > 0,
        Feature.PARAMETER_CONSTRAINTS: bool(problem.parameter_constraints),
        Feature.WHEN: problem.space.conditional,
        Feature.INITIAL_TRIALS: bool(problem.initial),
        Feature.WARM_START: bool(problem.warm_start),
        Feature.ON_DUPLICATE: problem.on_duplicate != "run",
        Feature.ON_FAILURE: problem.on_failure != "ignore",
        Feature.EARLY_STOPPING: problem.early_stopping,
        Feature.NAS_CONFIG: problem.nas is not None,
    }
    return frozenset(feature for feature, is_asked in asked.items() if is_asked)


def handled(kind: type[Algorithm]) -> frozenset[Feature]:
    """What the algorithm wants to do itself."""
    found: frozenset[Feature] = getattr(kind, "handles", frozenset())
    return found


def supported(kind: type[Algorithm]) -> frozenset[Feature]:
    """All that works with the algorithm; without a word of its own, what is done around any."""
    said: frozenset[Feature] | None = getattr(kind, "supports", None)
    if said is not None:
        return said
    return LEARNED if kind.reads_history else BLIND


def knows_others(kind: type[Algorithm]) -> bool:
    return bool(getattr(kind, "knows_others", False))


def enumerates(kind: type[Algorithm]) -> bool:
    return bool(getattr(kind, "enumerates", False))


def steers(kind: type[Algorithm], problem: SearchProblem) -> frozenset[Feature]:
    """What is left to do around the algorithm; mostly nothing."""
    return (wanted(problem) & STEERABLE) - handled(kind)
