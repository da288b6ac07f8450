"""multivariate-tpe, motpe, nsgaii and gp: Optuna's samplers, asked trial by trial and rebuilt anywhere.

The study that they work in is `optuna_session`'s; here is which sampler, with which arguments.

- Multivariate TPE: Falkner, Klein & Hutter 2018 (BOHB), section 3.2; Watanabe 2023, "Tree-Structured Parzen Estimator".
  `constant_liar` puts running trials among the worse ones. Conditional parameters are searched as such (`group`).
- MOTPE: Ozaki et al. 2022, "Multiobjective Tree-Structured Parzen Estimator": the same densities, of which the better
  trials are chosen by hypervolume.
- NSGA-II: Deb et al. 2002, "A fast and elitist multiobjective genetic algorithm".
- GP: see `optuna_gp`.

Departures from Katib: running, failed and stopped trials are told (its service keeps them "running" for ever).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from algorithms import cautions, limits
from algorithms.base import Session, SessionAlgorithm
from algorithms.native import quiet
from algorithms.optuna_gp import GP_SETTINGS, MOST_OF_GP, NO_TORCH, OTHERS, GpSession
from algorithms.optuna_session import OptunaSession
from evertune.domain.setting import RANDOM_STATE, Rule, fraction, is_int, settings_problems, text_of, whole
from evertune.domain.space import SearchProblem
from evertune.errors import Problem
from evertune.protocols import Feature

TPE_SETTINGS: Mapping[str, Rule] = {  # motpe's as well
    "random_state": RANDOM_STATE,
    "n_startup_trials": whole(0, "random trials before the model", "10"),
    "n_ei_candidates": Rule("a whole number above 0", is_int(1), "candidates drawn per suggestion", "24"),
}
NSGAII_SETTINGS: Mapping[str, Rule] = {
    "random_state": RANDOM_STATE,
    "population_size": whole(2, "trials of one generation", "50"),
    "mutation_prob": fraction("chance of each parameter to be drawn anew", "1 / parameters"),
    "crossover_prob": fraction("chance of a trial to have two parents", "0.9"),
    "swapping_prob": fraction("chance of each parameter to come from the second parent", "0.5"),
}


class _Optuna(SessionAlgorithm):
    name: ClassVar[str]
    on_edit: ClassVar[Literal["continue", "restart", "refuse"]] = "restart"
    reads_history: ClassVar[bool] = True
    supports: ClassVar[frozenset[Feature]] = SessionAlgorithm.supports | {
        Feature.OBJECTIVES,
        Feature.CONSTRAINTS,
        Feature.NAS_CONFIG,
    }
    settings: ClassVar[Mapping[str, Rule]]

    @classmethod
    def check(cls, problem: SearchProblem) -> Sequence[Problem]:
        return [*settings_problems(cls.name, problem.settings, cls.settings), *limits.problems_of(problem.space)]


class MultivariateTpe(_Optuna):
    name: ClassVar[str] = "multivariate-tpe"
    about: ClassVar[str] = "TPE with joint densities: the best default for mixed spaces, also conditional ones."
    advice: ClassVar[str] = "From some 30 trials on; parallelTrialCount up to about 10 costs little."
    supports: ClassVar[frozenset[Feature]] = _Optuna.supports | {Feature.WHEN}
    handles: ClassVar[frozenset[Feature]] = frozenset({Feature.WHEN})
    settings: ClassVar[Mapping[str, Rule]] = TPE_SETTINGS

    @classmethod
    def warnings(cls, problem: SearchProblem) -> Sequence[Problem]:
        return _never_modelled(cls.name, problem, cls.settings)

    def search(self) -> Session:
        return OptunaSession(self.problem, tpe_sampler(self.problem), walk=self.problem.space.conditional)


class Motpe(MultivariateTpe):
    name: ClassVar[str] = "motpe"
    about: ClassVar[str] = "TPE for several objectives: finds a wide Pareto front with few trials."
    advice: ClassVar[str] = "From some 50 trials on; parallelTrialCount up to about 10 costs little."


class NsgaII(_Optuna):
    name: ClassVar[str] = "nsgaii"
    about: ClassVar[str] = "A genetic algorithm for several objectives: cheap to ask, for many and short trials."
    advice: ClassVar[str] = "From ten generations on (500 trials); parallelTrialCount up to population_size."
    settings: ClassVar[Mapping[str, Rule]] = NSGAII_SETTINGS
    knows_others: ClassVar[bool] = True  # they are its first generation

    @classmethod
    def warnings(cls, problem: SearchProblem) -> Sequence[Problem]:
        size = int(text_of("population_size", problem.settings, cls.settings))
        why = f"the first generation of nsgaii has {size:,} trials, drawn by chance: none is ever bred"
        return cautions.never_learns(problem, size, why, f"or population_size below {problem.max_trials}")

    def search(self) -> Session:
        return OptunaSession(self.problem, nsgaii_sampler(self.problem))


class Gp(_Optuna):
    name: ClassVar[str] = "gp"
    about: ClassVar[str] = "Optuna's Gaussian process: the fewest trials for expensive ones. Needs evertune[gp]."
    advice: ClassVar[str] = (
        "For 30 to 300 trials, and at most 1,000; an ask takes a second at 100, two at 500, five at 1,000. Failed and"
        " stopped trials tell it nothing. PyTorch's build for CPUs is enough."
    )
    settings: ClassVar[Mapping[str, Rule]] = GP_SETTINGS

    @classmethod
    def check(cls, problem: SearchProblem) -> Sequence[Problem]:
        found = [*super().check(problem)]
        if importlib.util.find_spec("torch") is None:
            hint = "or another algorithm, such as bayesianoptimization"
            path = "spec.algorithm.algorithmName"
            found.append(Problem(path=path, type="Invalid", message=NO_TORCH, hint=hint))
        return [*found, *limits.budget_problems(cls.name, problem, MOST_OF_GP, OTHERS)]

    @classmethod
    def warnings(cls, problem: SearchProblem) -> Sequence[Problem]:
        return _never_modelled(cls.name, problem, cls.settings)

    def search(self) -> Session:
        return GpSession(self.problem)


def _never_modelled(name: str, problem: SearchProblem, rules: Mapping[str, Rule]) -> list[Problem]:
    first = int(text_of("n_startup_trials", problem.settings, rules))
    return cautions.never_modelled(name, problem, first, "n_startup_trials")


def tpe_sampler(problem: SearchProblem) -> Any:
    import optuna

    with quiet():  # experimental and deprecated options are pinned by our version bounds
        return optuna.samplers.TPESampler(
            seed=problem.seed,
            multivariate=True,
            group=problem.space.conditional,
            constant_liar=True,
            n_startup_trials=int(text_of("n_startup_trials", problem.settings, TPE_SETTINGS)),
            n_ei_candidates=int(text_of("n_ei_candidates", problem.settings, TPE_SETTINGS)),
        )


def nsgaii_sampler(problem: SearchProblem) -> Any:
    import optuna

    settings = problem.settings
    with quiet():
        return optuna.samplers.NSGAIISampler(
            seed=problem.seed,
            population_size=int(text_of("population_size", settings, NSGAII_SETTINGS)),
            mutation_prob=float(settings["mutation_prob"]) if "mutation_prob" in settings else None,
            crossover_prob=float(text_of("crossover_prob", settings, NSGAII_SETTINGS)),
            swapping_prob=float(text_of("swapping_prob", settings, NSGAII_SETTINGS)),
        )
