"""multivariate-tpe: Optuna's TPESampler with joint densities, asked trial by trial and rebuilt anywhere.

What a fresh process needs to continue bit for bit is the state of the sampler's random generators and the study's
system attributes (`Answer.state`), and each trial's system attributes (its `meta`). Running trials are told as RUNNING;
`constant_liar` puts them among the worse ones.

Multivariate TPE: Falkner, Klein & Hutter 2018 (BOHB), section 3.2; Watanabe 2023, "Tree-Structured Parzen Estimator".
Departure from Katib: running and failed trials are told (its service keeps them "running" for ever).
Pinned here and nowhere else: `study._storage` and the samplers' generators.
"""

from __future__ import annotations

import base64
import warnings
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal

from algorithms.base import SessionAlgorithm, loss_of, setting
from algorithms.settings import problems_of
from algorithms.space import Codec, Dimension, Kind, Raw
from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import SearchProblem
from evertune.domain.trial import Assignment, HistoryTrial
from evertune.errors import AlgorithmError, Problem
from evertune.protocols import Answer, JsonDict

_GENERATORS = ("_rng", "_random_sampler._rng")  # attribute paths of a TPESampler
_STUDY = "evertune"  # some samplers hash the study's name


class MultivariateTpe(SessionAlgorithm):
    name: ClassVar[str] = "multivariate-tpe"
    on_edit: ClassVar[Literal["continue", "restart", "refuse"]] = "restart"
    reads_history: ClassVar[bool] = True

    @classmethod
    def check(cls, problem: SearchProblem) -> Sequence[Problem]:
        return problems_of(cls.name, problem)

    def search(self) -> OptunaSession:
        return OptunaSession(self.problem)


def tpe_sampler(problem: SearchProblem) -> Any:
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental and deprecated options are pinned by our version bounds
        return optuna.samplers.TPESampler(
            seed=problem.seed,
            multivariate=True,
            group=False,
            constant_liar=True,
            n_startup_trials=int(setting(problem.settings, "n_startup_trials", 10)),
            n_ei_candidates=int(setting(problem.settings, "n_ei_candidates", 24)),
        )


class OptunaSession:
    """A study in memory that holds every trial of the experiment under its own number."""

    def __init__(self, problem: SearchProblem) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._optuna = optuna
        self._problem = problem
        self._codec = Codec.of(problem.space)
        self._distributions = optuna_space(self._codec)
        self._sampler = tpe_sampler(problem)
        maximize = problem.direction is ObjectiveType.MAXIMIZE
        self._study = optuna.create_study(
            study_name=_STUDY, direction="maximize" if maximize else "minimize", sampler=self._sampler
        )
        self._count = 0
        self._running: set[int] = set()

    def update(self, trials: Iterable[HistoryTrial]) -> None:
        for trial in trials:
            if trial.number in self._running:
                self._tell(trial)
            elif trial.number == self._count:
                self._add(trial)
            elif trial.number > self._count:
                raise AlgorithmError(f"the history has a gap: trial {self._count} is missing")

    def ask(self, k: int, first_number: int, state: JsonDict | None) -> Answer:
        self._restore(state)
        assignments = []
        for _ in range(k):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                trial = self._study.ask(fixed_distributions=self._distributions)
            self._running.add(trial.number)
            self._count += 1
            raw = {name: self._raw(name, value) for name, value in trial.params.items()}
            attributes = self._study._storage.get_trial(trial._trial_id).system_attrs
            meta: dict[str, Any] = {"system": dict(attributes)} if attributes else {}
            if kept := self._codec.keep(raw):
                meta["raw"] = kept
            assignments.append(Assignment(self._codec.decode(raw), meta=meta))
        return Answer(assignments=tuple(assignments), state=self._state())

    def _raw(self, name: str, value: Any) -> Raw:
        choices = getattr(self._distributions[name], "choices", None)
        raw: Raw = choices.index(value) if choices is not None else value
        return raw

    def _params(self, trial: HistoryTrial) -> dict[str, Any]:
        raw = self._codec.encode(trial.parameters, trial.meta.get("raw"))
        return {
            dimension.name: dimension.parameter.values[int(raw[dimension.name])]
            if dimension.kind is Kind.CHOICE
            else raw[dimension.name]
            for dimension in self._codec.free
        }

    def _outcome(self, trial: HistoryTrial) -> tuple[Any, float | None]:
        states = self._optuna.trial.TrialState
        if not trial.state.terminal:
            return states.RUNNING, None
        if loss_of(trial, self._problem.direction) is None:
            return states.FAIL, None
        return states.COMPLETE, trial.value

    def _add(self, trial: HistoryTrial) -> None:
        state, value = self._outcome(trial)
        frozen = self._optuna.trial.create_trial(
            state=state,
            value=value,
            params=self._params(trial),
            distributions=self._distributions,
            system_attrs=dict(trial.meta.get("system", {})),
        )
        self._study.add_trial(frozen)
        self._count += 1
        if not state.is_finished():
            self._running.add(trial.number)

    def _tell(self, trial: HistoryTrial) -> None:
        state, value = self._outcome(trial)
        if state.is_finished():
            self._running.discard(trial.number)
            self._study.tell(trial.number, value, state=state)

    # ------------------------------------------------------------------------------------------------ state

    def _generators(self) -> dict[str, Any]:
        found = {}
        for path in _GENERATORS:
            target: Any = self._sampler
            for attribute in path.split("."):
                target = getattr(target, attribute)
            found[path] = target.rng
        return found

    def _state(self) -> JsonDict:
        storage = self._study._storage
        return {
            "generators": {path: _packed(generator) for path, generator in self._generators().items()},
            "study": dict(storage.get_study_system_attrs(self._study._study_id)),
        }

    def _restore(self, state: JsonDict | None) -> None:
        if state is None:
            return
        for key, value in state["study"].items():
            self._study._storage.set_study_system_attr(self._study._study_id, key, value)
        for path, generator in self._generators().items():
            _unpack(generator, state["generators"][path])


def _packed(generator: Any) -> list[Any]:
    """A Mersenne Twister's state as JSON: 624 words compressed, position, and the cached normal draw."""
    _, keys, position, has_gauss, gauss = generator.get_state()
    words = base64.b64encode(zlib.compress(keys.astype("<u4").tobytes())).decode("ascii")
    return [words, int(position), int(has_gauss), float(gauss)]


def _unpack(generator: Any, packed: list[Any]) -> None:
    import numpy as np

    words, position, has_gauss, gauss = packed
    keys = np.frombuffer(zlib.decompress(base64.b64decode(words)), "<u4")
    generator.set_state(("MT19937", keys, position, has_gauss, gauss))


def optuna_space(codec: Codec) -> dict[str, Any]:
    """The encoded space as Optuna's user writes it."""
    return {dimension.name: _distribution(dimension) for dimension in codec.free}


def _distribution(dimension: Dimension) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if dimension.kind is Kind.CHOICE:
        return CategoricalDistribution(list(dimension.parameter.values))
    if dimension.kind is Kind.INDEX:
        return IntDistribution(0, dimension.count - 1)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.kind is Kind.LOG)
