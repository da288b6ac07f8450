"""What is allowed and can hardly be meant: the warnings that several algorithms and early stopping rules share.

Called by their `warnings`, once `check` has found nothing wrong. Says nothing that is not certain from the experiment
alone, and refuses nothing.
"""

from __future__ import annotations

from evertune.domain.space import SearchProblem
from evertune.errors import Problem

BUDGET, PARALLEL = "spec.maxTrialCount", "spec.parallelTrialCount"


def caution(path: str, message: str, *mends: str) -> Problem:
    return Problem(path=path, type="Invalid", message=message, hint="; ".join(mends))


def never_learns(problem: SearchProblem, first: int, why: str, *mends: str) -> list[Problem]:
    """For algorithms that draw their first trials by chance: when those are all that there will be.

    Trials of other experiments count as theirs, so that a warm start may be all that it needs; and one single trial is
    no search that anybody expects something of.
    """
    most = problem.max_trials
    if most is None or not 1 < most <= first or problem.warm_start:
        return []
    return [caution(BUDGET, f"maxTrialCount is {most:,}, and {why}", f"maxTrialCount above {first:,}", *mends)]


def never_modelled(name: str, problem: SearchProblem, first: int, setting: str) -> list[Problem]:
    """`first`: trials before the model, which is what `setting` sets."""
    why = f"{name} draws its first {first:,} trials by chance: its model is never used"
    return never_learns(problem, first, why, f"or {setting} below {problem.max_trials}")


def idle(problem: SearchProblem, most: int, why: str, *mends: str) -> list[Problem]:
    """For algorithms that never have more than `most` trials to run at a time."""
    if problem.parallel <= most:
        return []
    message = f"parallelTrialCount is {problem.parallel}, and {why}: never more than {most:,} trials run at a time"
    return [caution(PARALLEL, message, f"parallelTrialCount: {most:,}", *mends)]


def nobody_to_compare(name: str, problem: SearchProblem, needed: int, setting: str) -> list[Problem]:
    """For rules that judge a trial by others that have succeeded."""
    most = problem.max_trials
    if most is None or needed < most:
        return []
    message = f"maxTrialCount is {most:,}, and {name} needs {needed:,} other trials that have succeeded: it stops none"
    mends = [f"maxTrialCount above {needed:,}"] + [f"or {setting} below {most}"] * (most > 1)
    return [caution(BUDGET, message, *mends)]
