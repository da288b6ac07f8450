"""bohb: Hyperband whose new configurations come from a model of the trials at the largest resource.

Falkner, Klein & Hutter 2018, "BOHB: Robust and Efficient Hyperparameter Optimization at Scale", ICML, algorithm 2. With
probability random_fraction a new configuration is drawn from the prior; otherwise from a tree-structured Parzen
estimator with joint densities, fitted to the results of the largest resource that has d + 2 of them or more, d being
the number of parameters searched; while there is none, from the prior. Results of different resources are never mixed.

Departures: the estimator is Optuna's multivariate TPE (Watanabe 2023) with running trials among the worse ones, not
HpBandSter's kernel densities. Each configuration is seeded by its place in the plan alone, so that it is the same
whatever process draws it. Conditional parameters are searched as a flat space. The rungs are those of `hyperband`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from algorithms.base import loss_of, setting
from algorithms.cautions import never_learns
from algorithms.halving import problems_of
from algorithms.hyperband import SETTINGS as HYPERBAND_SETTINGS
from algorithms.hyperband import Hyperband, HyperbandSession
from algorithms.optuna_session import optuna_space
from algorithms.planning import MAX_TRIES, Planner
from algorithms.settings import Rule, fraction, whole
from algorithms.space import Codec, Kind, Raw
from evertune.domain import labels
from evertune.domain.space import SearchProblem, Value
from evertune.domain.trial import HistoryTrial
from evertune.errors import Problem
from evertune.protocols import Feature

SETTINGS: Mapping[str, Rule] = {
    **HYPERBAND_SETTINGS,
    "random_fraction": fraction("how often a configuration is drawn from the prior", "0.3333333333333333"),
    "min_points_in_model": whole(1, "results that a resource needs before it is modelled", "parameters searched + 2"),
    "n_ei_candidates": whole(1, "candidates drawn per suggestion", "24"),
}
_MODEL_TRIES = 50  # then the prior is asked for what the parameter constraints allow


class Bohb(Hyperband):
    """Hyperband with a model; see the module for the rule, the papers and the departures."""

    name: ClassVar[str] = "bohb"
    supports: ClassVar[frozenset[Feature]] = Planner.supports - {Feature.WHEN}
    handles: ClassVar[frozenset[Feature]] = Planner.handles - {Feature.WHEN}
    about: ClassVar[str] = (
        "Hyperband that learns: new configurations come from a model of the best trials so far, for the budgets where "
        "random ones are wasted."
    )
    advice: ClassVar[str] = "As hyperband; the model begins to matter after the first bracket, at a few dozen trials."
    settings: ClassVar[Mapping[str, Rule]] = SETTINGS

    @classmethod
    def check(cls, problem: SearchProblem) -> Sequence[Problem]:
        return problems_of(cls.name, problem, cls.settings)

    @classmethod
    def warnings(cls, problem: SearchProblem) -> Sequence[Problem]:
        enough = BohbSession(problem).enough
        why = f"bohb has no model before {enough} trials with the same resource have ended: it is never used"
        mend = f"or min_points_in_model below {problem.max_trials}"
        return [*super().warnings(problem), *never_learns(problem, enough, why, mend)]

    def session(self) -> BohbSession:
        return BohbSession(self.problem)


class BohbSession(HyperbandSession):
    def __init__(self, problem: SearchProblem) -> None:
        super().__init__(problem)
        searched = len(self.climbing.draws.codec.free)
        self._random = setting(problem.settings, "random_fraction", 1 / 3)
        self.enough = max(2, int(setting(problem.settings, "min_points_in_model", searched + 2)))
        self._models: dict[str, _Model] = {}
        self._problem = problem

    def fresh(self, bracket: int, place: int, ordinal: int) -> dict[str, Value]:
        draws = self.climbing.draws
        luck = draws.luck(bracket, place, MAX_TRIES)  # no try of `Draws.fresh` has this place
        model = self._model() if ordinal >= len(self._problem.initial) and luck.random() >= self._random else None
        if model is None:
            return super().fresh(bracket, place, ordinal)
        for _ in range(_MODEL_TRIES):
            values = model.sample(luck.getrandbits(31))
            if draws.allows(values):
                return values
        return super().fresh(bracket, place, ordinal)

    def _model(self) -> _Model | None:
        """Of the largest resource with enough results, up to date; None while there is none."""
        if not self.climbing.draws.codec.free:
            return None
        for resource, group in self._by_resource():
            results = sum(loss_of(trial, self._problem.direction) is not None for trial in group)
            if results >= self.enough:
                model = self._models.get(resource)
                if model is None:
                    model = self._models[resource] = _Model(self._problem, self.climbing.draws.codec)
                model.update(sorted(group, key=lambda trial: trial.number))
                return model
        return None

    def _by_resource(self) -> Iterator[tuple[str, list[HistoryTrial]]]:
        """The trials of each resource, the largest first."""
        groups: dict[str, list[HistoryTrial]] = {}
        for rung in self.climbing.rungs.values():
            for trial in rung.trials.values():
                groups.setdefault(trial.labels.get(labels.RESOURCE, "0"), []).append(trial)
        yield from sorted(groups.items(), key=lambda item: -float(item[0]))


class _Model:
    """Optuna's estimator over the trials of one resource, in the order of their numbers."""

    def __init__(self, problem: SearchProblem, codec: Codec) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._optuna = optuna
        self._problem = problem
        self._codec = codec
        self._distributions = optuna_space(codec)
        self._study = optuna.create_study(study_name="evertune", direction="minimize")
        self._added = 0  # to the study
        self._places: dict[int, int] = {}  # of our trials in it
        self._running: set[int] = set()  # those of our trials that it has as running

    def update(self, trials: Sequence[HistoryTrial]) -> None:
        states = self._optuna.trial.TrialState
        for trial in trials:
            loss = loss_of(trial, self._problem.direction)
            state = states.RUNNING if not trial.state.terminal else states.FAIL if loss is None else states.COMPLETE
            place = self._places.get(trial.number)
            if place is None:
                self._places[trial.number] = self._added
                self._added += 1
                if not state.is_finished():
                    self._running.add(trial.number)
                self._study.add_trial(
                    self._optuna.trial.create_trial(
                        state=state,
                        value=loss if state is states.COMPLETE else None,
                        params=self._params(trial.parameters),
                        distributions=self._distributions,
                    )
                )
            elif state.is_finished() and trial.number in self._running:
                self._running.discard(trial.number)
                self._study.tell(place, loss, state=state)

    def sample(self, seed: int) -> dict[str, Value]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental options are pinned by our version bounds
            sampler = self._optuna.samplers.TPESampler(
                seed=seed,
                multivariate=True,
                constant_liar=True,
                n_startup_trials=0,
                n_ei_candidates=int(setting(self._problem.settings, "n_ei_candidates", 24)),
            )
            self._study.sampler = sampler
            trial = self._study.ask(fixed_distributions=self._distributions)
            # What becomes of it comes back by `update`; a failed trial is as good as none to the sampler.
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        self._added += 1
        return self._codec.decode({name: self._raw(name, value) for name, value in trial.params.items()})

    def _raw(self, name: str, value: Any) -> Raw:
        choices = getattr(self._distributions[name], "choices", None)
        raw: Raw = choices.index(value) if choices is not None else value
        return raw

    def _params(self, parameters: Mapping[str, Value]) -> dict[str, Any]:
        raw = self._codec.encode(parameters)
        return {
            dimension.name: dimension.parameter.values[int(raw[dimension.name])]
            if dimension.kind is Kind.CHOICE
            else raw[dimension.name]
            for dimension in self._codec.free
        }
