"""bayesianoptimization: scikit-optimize's Optimizer with a Gaussian process, forests or boosted trees.

An Optimizer is built anew for each ask: it fits its model when it is told, so that one that is kept would save nothing.
What it needs to continue bit for bit is the state of its generator, the gains of `gp_hedge`, the candidates and the
point of its last fit, and up to which outcome it had been told (`Answer.state`). One fit per ask.

Running trials are told as well, with the best value so far, a constant liar (Ginsbourger, Le Riche & Carraro 2010), and
forgotten afterwards; so is each point of an answer before the next. A trial that ended without a value is told with
the worst value before it: scikit-optimize gives the same point again until it is told something of it.

Snoek, Larochelle & Adams 2012, "Practical Bayesian Optimization of Machine Learning Algorithms"; `gp_hedge`: Hoffman,
Brochu & de Freitas 2011. Departures from Katib: distributions and steps are kept (its doubles are always log-uniform),
running trials are told, values beyond 1e100 are cut off (they would end the search for good), EIps and PIps are refused
(they ask for seconds), and a list of more than 200 values is searched as a scale.
Pinned here and nowhere else: `Optimizer._tell`, `_next_x`, `gains_`, `next_xs_`; the mixin order of the boosted trees.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from algorithms import cautions, limits
from algorithms.base import Session, SessionAlgorithm, loss_of
from algorithms.native import bounded, packed, quiet, unpack
from algorithms.settings import RANDOM_STATE, Rule, choice, settings_problems, whole
from algorithms.space import Codec, Dimension, Kind, Raw
from evertune.domain.setting import text_of
from evertune.domain.space import SearchProblem
from evertune.domain.trial import Assignment, HistoryTrial
from evertune.errors import Problem
from evertune.protocols import Answer, Feature, JsonDict

LONGEST_LIST = 200  # beyond it one column per value costs more than it tells
MOST_OF_GP = 1000  # trials, unless max_model_points says that the model may forget
POINTS_OF_GP = 400
MOST_OF_TREES = 1e38  # a float of 32 bits
_BEST_SHARE = 0.25  # of the model's points are the best ones, the others the most recent
_KEPT = "raw"  # in a trial's meta: raw values that its parameters cannot give back exactly

Point = list[Any]  # what scikit-optimize sees: a number per dimension, of a categorical its value

SETTINGS: Mapping[str, Rule] = {
    "base_estimator": choice("the surrogate model", "GP", "GP", "RF", "ET", "GBRT"),
    "n_initial_points": whole(0, "random trials before the model", "10"),
    "acq_func": choice(
        "what the model's answer is scored by", "gp_hedge", "gp_hedge", "LCB", "EI", "PI", "EIps", "PIps"
    ),
    "acq_optimizer": choice("how the best score is searched", "auto", "auto", "sampling", "lbfgs"),
    "random_state": RANDOM_STATE,
    "max_model_points": whole(20, "trials that the model is fitted to: the best quarter and the latest", "400 with GP"),
}


class BayesianOptimization(SessionAlgorithm):
    name: ClassVar[str] = "bayesianoptimization"
    about: ClassVar[str] = "A Gaussian process or trees, and the point of the most promise: for expensive trials."
    advice: ClassVar[str] = "For 20 to 300 trials; parallelTrialCount up to about 5, as each point costs a fit."
    on_edit: ClassVar[Literal["continue", "restart", "refuse"]] = "restart"
    reads_history: ClassVar[bool] = True
    supports: ClassVar[frozenset[Feature]] = SessionAlgorithm.supports | {Feature.NAS_CONFIG}
    settings: ClassVar[Mapping[str, Rule]] = SETTINGS

    @classmethod
    def check(cls, problem: SearchProblem) -> Sequence[Problem]:
        found = [*settings_problems(cls.name, problem, SETTINGS), *limits.problems_of(problem.space)]
        settings = problem.settings
        places = {name: f"spec.algorithm.algorithmSettings[{index}].value" for index, name in enumerate(settings)}
        if (function := settings.get("acq_func")) in ("EIps", "PIps"):
            message = f"acq_func {function} weighs a trial's seconds, which no search here is told"
            hint = f"acq_func: {str(function)[:2]}"
            found.append(Problem(path=places["acq_func"], type="Invalid", message=message, hint=hint))
        estimator = settings.get("base_estimator", "GP")
        if settings.get("acq_optimizer") == "lbfgs" and estimator in ("RF", "ET", "GBRT"):
            message = f"acq_optimizer lbfgs needs gradients, which base_estimator {estimator} does not have"
            hint = "acq_optimizer: sampling, or base_estimator: GP"
            found.append(Problem(path=places["acq_optimizer"], type="Invalid", message=message, hint=hint))
        if estimator in ("RF", "ET", "GBRT"):
            for index, parameter in enumerate(problem.space):
                if max(abs(parameter.low), abs(parameter.high)) > MOST_OF_TREES:
                    message = f"base_estimator {estimator} takes no numbers beyond {MOST_OF_TREES:g}"
                    where = f"spec.parameters[{index}].feasibleSpace"
                    hint = "search the exponent instead, or base_estimator: GP"
                    found.append(Problem(path=where, type="Invalid", message=message, hint=hint))
        if estimator == "GP" and "max_model_points" not in settings:
            others = f"base_estimator RF or ET, or set max_model_points (it would be {POINTS_OF_GP})"
            found += limits.budget_problems("base_estimator GP", problem, MOST_OF_GP, others)
        return found

    @classmethod
    def warnings(cls, problem: SearchProblem) -> Sequence[Problem]:
        first = int(text_of("n_initial_points", problem.settings, cls.settings))
        found = cautions.never_modelled(cls.name, problem, first, "n_initial_points")
        kept, most = points_of_model(problem), problem.max_trials
        # When the last trial is asked for, this many have ended. Who has set the limit knows of it.
        if "max_model_points" not in problem.settings and kept and most and most - problem.parallel > kept:
            message = f"maxTrialCount is {most:,}, and the model of base_estimator GP is fitted to {kept} at most"
            mends = ("max_model_points says how many: more of them take longer to ask", "or base_estimator RF or ET")
            found.append(cautions.caution(cautions.BUDGET, f"{message}: the best quarter and the latest", *mends))
        return found

    def search(self) -> Session:
        return SkoptSession(self.problem)


class SkoptSession:
    """The trials by number; everything else is made for an ask."""

    def __init__(self, problem: SearchProblem) -> None:
        self._problem = problem
        self._codec = Codec.of(problem.space)
        self._trials: dict[int, tuple[HistoryTrial, Point]] = {}
        self._given: dict[int, Point] = {}  # of the last answer
        self._refused: tuple[int, list[Point]] = (-1, [])  # the last number that was, and its points
        self._most = points_of_model(problem)

    def update(self, trials: Iterable[HistoryTrial]) -> None:
        for trial in trials:
            parameters, own = trial.parameters, trial.number >= 0
            if own or self._codec.covers(parameters):
                raw = self._codec.encode(parameters, trial.meta.get(_KEPT) if own else None)
                self._trials[trial.number] = (trial, self._point(raw))

    def refuse(self, number: int) -> None:
        """The point counts as the worst until another one has been found."""
        earlier = self._refused[1] if self._refused[0] == number else []
        self._refused = (number, [*earlier, self._given[number]])

    def ask(self, k: int, first_number: int, state: JsonDict | None) -> Answer:
        from threadpoolctl import threadpool_limits

        with quiet(), threadpool_limits(1):  # with more threads the last bits differ, and soon the points
            return self._ask(k, first_number, None if self._problem.independent else state)

    def _ask(self, k: int, first_number: int, state: JsonDict | None) -> Answer:
        optimizer = optimizer_of(self._problem)
        refused = self._refused[1] if self._refused[0] == first_number else []
        if self._problem.independent:
            optimizer.rng.seed([self._problem.seed, first_number, len(refused)])
        elif state is not None:
            unpack(optimizer.rng, state["generator"])
        told = self._told()
        ready = len(told.losses) >= optimizer.n_initial_points_
        after = self._fit(optimizer, told, refused, state or {}) if ready else {}
        self._given = {}
        for number in range(first_number, first_number + k):
            if ready and self._given:
                optimizer._tell([self._given[number - 1]], [min(told.losses)])
            point = optimizer.ask() if ready else optimizer.space.rvs(random_state=optimizer.rng)[0]
            self._given[number] = [value if type(value) in (str, int, float) else value.item() for value in point]
        assignments = tuple(self._assignment(point) for point in self._given.values())
        if self._problem.independent:
            return Answer(assignments=assignments)
        # What was told for the sake of this answer is forgotten; what the generator drew is not.
        return Answer(assignments=assignments, state={**after, "generator": packed(optimizer.rng)})

    def _fit(self, optimizer: Any, told: _Told, refused: list[Point], state: JsonDict) -> JsonDict:
        """Fit the model and find its next point, unless nothing was told since; returns what of it is kept."""
        import numpy as np

        optimizer._n_initial_points = 0
        known = "next_x" in state
        if known:
            optimizer.next_xs_ = [np.array(candidate) for candidate in state["next_xs"]]
            if state["gains"]:
                optimizer.gains_ = np.array(state["gains"])
        points, losses = told.for_model(self._most)
        pending = [point for trial, point in self._trials.values() if not trial.state.terminal]
        new = not known or told.order[-1] > tuple(state["told"])
        if new or pending or refused:
            lies = [min(losses)] * len(pending) + [max(losses)] * len(refused)
            optimizer._tell([*points, *pending, *refused], [*losses, *lies])
        else:
            optimizer._tell(points, losses, fit=False)
            optimizer._next_x, optimizer.models = state["next_x"], [None]
        gains = list(map(float, getattr(optimizer, "gains_", ())))  # of gp_hedge
        return {
            "told": list(told.order[-1]),
            "gains": gains if new else state["gains"],  # what was earned before is not earned again
            "next_xs": [np.asarray(candidate, float).tolist() for candidate in optimizer.next_xs_],
            "next_x": [value if type(value) in (str, int, float) else value.item() for value in optimizer._next_x],
        }

    def _told(self) -> _Told:
        """All that ended, in the order in which it was told; a trial without a value has the worst before it."""
        told, worst = _Told(), None
        for order, trial, point in sorted(
            ((-1, trial.number) if trial.number < 0 else (trial.told_seq or 0, trial.number), trial, point)
            for trial, point in self._trials.values()
            if trial.state.terminal
        ):
            loss = loss_of(trial, self._problem.direction)
            value = worst if loss is None else bounded(loss)
            if value is not None:
                worst = value if worst is None else max(worst, value)
                told.add(order, point, value)
        return told

    def _point(self, raw: Mapping[str, Raw]) -> Point:
        return [
            dimension.parameter.values[int(raw[dimension.name])] if one_hot(dimension) else raw[dimension.name]
            for dimension in self._codec.free
        ]

    def _assignment(self, point: Point) -> Assignment:
        raw: dict[str, Raw] = {
            dimension.name: dimension.parameter.values.index(value) if one_hot(dimension) else value
            for dimension, value in zip(self._codec.free, point, strict=True)
        }
        kept = self._codec.keep(raw)
        return Assignment(self._codec.decode(raw), meta={_KEPT: kept} if kept else {})


@dataclass
class _Told:
    order: list[tuple[int, int]] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def add(self, order: tuple[int, int], point: Point, loss: float) -> None:
        self.order.append(order)
        self.points.append(point)
        self.losses.append(loss)

    def for_model(self, most: int | None) -> tuple[list[Point], list[float]]:
        """What the model is fitted to, in the order of telling: everything, or the best and the most recent."""
        count = len(self.losses)
        if most is None or count <= most:
            return self.points, self.losses
        best = set(sorted(range(count), key=lambda index: self.losses[index])[: int(most * _BEST_SHARE)])
        others = [index for index in range(count) if index not in best]
        chosen = sorted(best | set(others[-(most - len(best)) :]))
        return [self.points[index] for index in chosen], [self.losses[index] for index in chosen]


def points_of_model(problem: SearchProblem) -> int | None:
    if "max_model_points" in problem.settings:
        return int(problem.settings["max_model_points"])
    return POINTS_OF_GP if problem.settings.get("base_estimator", "GP") == "GP" else None


def optimizer_of(problem: SearchProblem) -> Any:
    """scikit-optimize's Optimizer over the encoded space, with the settings' arguments."""
    from skopt import Optimizer

    settings = problem.settings
    estimator: Any = settings.get("base_estimator", "GP")
    with quiet():
        return Optimizer(
            skopt_space(Codec.of(problem.space)),
            base_estimator=_boosted_trees(problem.seed) if estimator == "GBRT" else estimator,
            n_initial_points=max(int(settings.get("n_initial_points", "10")), 1),  # a model of nothing is none
            acq_func=settings.get("acq_func", "gp_hedge"),
            acq_optimizer=settings.get("acq_optimizer", "auto"),
            random_state=problem.seed,
            model_queue_size=1,
        )


def _boosted_trees(seed: int) -> Any:
    """scikit-optimize's quantile regressor, which scikit-learn from 1.6 on does not take for one."""
    import numpy as np
    from sklearn.ensemble import GradientBoostingRegressor
    from sklearn.utils import RegressorTags
    from skopt.learning import GradientBoostingQuantileRegressor

    class QuantileRegressor(GradientBoostingQuantileRegressor):  # type: ignore[misc]
        def __sklearn_tags__(self) -> Any:
            tags = super().__sklearn_tags__()
            tags.estimator_type, tags.regressor_tags = "regressor", RegressorTags()
            return tags

        def predict(self, X: Any, return_std: bool = False, return_quantiles: bool = False) -> Any:  # noqa: N803
            by_quantile = np.asarray([regressor.predict(X) for regressor in self.regressors_])
            if return_quantiles:
                return by_quantile.T
            low, median, high = (by_quantile[list(self.quantiles).index(share)] for share in (0.16, 0.5, 0.84))
            return (median, (high - low) / 2.0) if return_std else median

    trees = GradientBoostingRegressor(n_estimators=30, loss="quantile")
    return QuantileRegressor(base_estimator=trees, random_state=seed)


def skopt_space(codec: Codec) -> list[Any]:
    """The encoded space as scikit-optimize's user writes it."""
    return [_dimension(dimension) for dimension in codec.free]


def one_hot(dimension: Dimension) -> bool:
    return dimension.kind is Kind.CHOICE and dimension.count <= LONGEST_LIST


def _dimension(dimension: Dimension) -> Any:
    from skopt.space import Categorical, Integer, Real

    if one_hot(dimension):
        return Categorical(list(dimension.parameter.values), name=dimension.name)
    if dimension.kind in (Kind.INDEX, Kind.CHOICE):
        return Integer(0, dimension.count - 1, name=dimension.name)
    prior = "log-uniform" if dimension.kind is Kind.LOG else "uniform"
    return Real(dimension.low, dimension.high, prior=prior, name=dimension.name)
