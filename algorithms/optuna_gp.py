"""gp's sampler and its session: Optuna's Gaussian process.

A Matern 2.5 kernel and log expected improvement (Ament et al. 2023), of several objectives the hypervolume's. Running
trials are integrated out; failed and stopped ones tell it nothing. Used by `optuna_search.Gp` only. Needs torch; with
greenlet its climbs to the best score are made side by side, which is faster and gives other last bits: both are of the
extra `gp`. Refuses to run on more than one thread, as the last bits would depend on their number, and to go beyond
1,000 trials, others' included: an ask takes 5 s of CPU and a gigabyte then, and both grow with the square.

A point that was refused is in the model, with a middling value, until another has been found for its trial: the model's
best point would be the same again. Pinned here and nowhere else: `GPSampler._sample_relative_impl`.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from algorithms.native import quiet
from algorithms.optuna_session import OptunaSession
from evertune.domain.setting import RANDOM_STATE, Rule, text_of, whole
from evertune.domain.space import SearchProblem
from evertune.domain.trial import Assignment
from evertune.errors import AlgorithmError
from evertune.protocols import Answer, JsonDict

GP_SETTINGS: Mapping[str, Rule] = {
    "random_state": RANDOM_STATE,
    "n_startup_trials": whole(0, "random trials before the model", "10"),
}
NO_TORCH = 'gp needs torch, which is not installed: pip install "evertune[gp]"'
BROKEN_TORCH = 'gp needs torch, which is installed but cannot be loaded ({}): pip install "evertune[gp]"'
MOST_OF_GP = 1000  # trials
OTHERS = "multivariate-tpe, cmaes"  # for more of them
LONGEST_REASON = 160  # characters: what is missing comes first, then where it was looked for


class GpSession(OptunaSession):
    def __init__(self, problem: SearchProblem) -> None:
        super().__init__(problem, gp_sampler(problem, _refusing))

    def ask(self, k: int, first_number: int, state: JsonDict | None) -> Answer:
        room = MOST_OF_GP - first_number
        if room <= 0:  # of an experiment without maxTrialCount, or with many trials of others
            reason = f"gp ends at {MOST_OF_GP:,} trials, as its model grows too slow; go on with {OTHERS}"
            return Answer(exhausted=True, reason=reason, state=state)
        return super().ask(min(k, room), first_number, state)

    def refuse(self, number: int) -> None:
        point = self._study.get_trials(deepcopy=False)[-1]
        super().refuse(number)
        self._sampler.refused.append(point)

    def _ask(self, number: int) -> Assignment:
        if self._refused[0] != number:
            self._sampler.refused.clear()
        return super()._ask(number)


def gp_sampler(problem: SearchProblem, kind: Any = None) -> Any:
    """Optuna's own, or of another `kind`. Raises AlgorithmError without torch, or with one that cannot be loaded."""
    import optuna

    try:
        import torch
    except Exception as error:  # without the libraries that it came with: OSError, ValueError, whatever it likes
        missing = isinstance(error, ModuleNotFoundError) and error.name == "torch"
        raise AlgorithmError(NO_TORCH if missing else _broken(error)) from error
    torch.set_num_threads(1)  # with more of them the last bits differ, and soon the points
    with quiet():
        return (kind() if kind else optuna.samplers.GPSampler)(
            seed=problem.seed,
            n_startup_trials=int(text_of("n_startup_trials", problem.settings, GP_SETTINGS)),
            deterministic_objective=False,
            warn_independent_sampling=False,
        )


@functools.cache
def _refusing() -> Any:
    """The class of a sampler that counts the points in `refused` as trials that ended neither well nor badly."""
    import optuna

    class Sampler(optuna.samplers.GPSampler):
        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            self.refused: list[Any] = []

        def _sample_relative_impl(self, study: Any, completed: list[Any], running: list[Any], space: Any) -> Any:
            told = [*completed, *_told_of(self.refused, completed)]
            return super()._sample_relative_impl(study, told, running, space)

    return Sampler


def _told_of(refused: Sequence[Any], completed: Sequence[Any]) -> list[Any]:
    """The worst value would make a cliff beside the best points; those in the middle only make them less promising."""
    import numpy as np
    import optuna

    if not refused:
        return []
    values = np.median([trial.values for trial in completed], axis=0).tolist()
    missed = np.median([list(trial.constraints.values()) for trial in completed], axis=0).tolist()
    found = []
    for point in refused:
        trial = copy.copy(point)
        trial.system_attrs = {f"constraints:{index}": violation for index, violation in enumerate(missed)}
        trial.state, trial.values = optuna.trial.TrialState.COMPLETE, values
        found.append(trial)
    return found


def _broken(error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [""])[0]
    shown = reason if len(reason) <= LONGEST_REASON else reason[:LONGEST_REASON].rsplit(" ", 1)[0] + " …"
    return BROKEN_TORCH.format(f"{type(error).__name__}: {shown}")
