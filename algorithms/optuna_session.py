"""A study in memory that one experiment's trials live in: what the algorithms of `optuna_search` work through.

What a fresh process needs to continue bit for bit is the state of the sampler's random generators, the study's system
attributes, with conditions the order of the groups of parameters and, of a Gaussian process, the kernels of its last
fit (`Answer.state`); and each trial's system attributes (its `meta`). Running trials are told as RUNNING, stopped ones
as PRUNED with the value that they had reached.

Optuna counts its trials from 0: those of a warm start stand before ours, so our numbers are shifted by theirs.
Pinned here and nowhere else: `study._storage` and what it is made of, the samplers' generators, groups and kernels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from algorithms.base import loss_of
from algorithms.native import bounded, packed, quiet, unpack
from algorithms.space import Codec, Dimension, Kind, Raw
from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import SearchProblem, SearchSpace, Value
from evertune.domain.states import TrialState
from evertune.domain.trial import Assignment, HistoryTrial
from evertune.errors import AlgorithmError
from evertune.protocols import Answer, JsonDict

_GENERATORS = ("_rng", "_random_sampler._rng", "_independent_sampler._rng")  # attribute paths, as a sampler has them
_KERNELS = ("_gprs_cache_list", "_constraints_gprs_cache_list")  # of a GPSampler: where its next fit begins
_PARENTS = ":parent:"  # in the name of a study's attribute: the parents of a generation of NSGA-II
_GENERATIONS_KEPT = 2  # of parents, the one that is searched and the one before
_STUDY = "evertune"  # some samplers hash the study's name


class OptunaSession:
    """A study that holds every trial of the experiment. `walk`: conditional parameters are asked for one by one."""

    def __init__(self, problem: SearchProblem, sampler: Any, *, walk: bool = False) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._optuna = optuna
        self._problem = problem
        self._codec = Codec.of(problem.space)
        self._free = {dimension.name: dimension for dimension in self._codec.free}
        self._distributions = optuna_space(self._codec)
        self._walk = _parents_first(problem.space) if walk else ()
        self._sampler = sampler
        kinds = optuna.study.StudyDirection
        directions = [
            kinds.MAXIMIZE if each is ObjectiveType.MAXIMIZE else kinds.MINIMIZE for each in problem.all_directions
        ]
        with quiet():
            self._study: Any = optuna.create_study(study_name=_STUDY, directions=directions, sampler=sampler)
        self._places: dict[int, int] = {}  # our number -> Optuna's
        self._running: set[int] = set()
        self._next = 0
        self._refused = (-1, 0)  # the last number that was, and how often

    def update(self, trials: Iterable[HistoryTrial]) -> None:
        with quiet():
            for trial in trials:
                if trial.number in self._running:
                    self._tell(trial)
                elif trial.number not in self._places:
                    self._add(trial)

    def ask(self, k: int, first_number: int, state: JsonDict | None) -> Answer:
        if not self._problem.independent:
            self._restore(state)
        with quiet():
            assignments = tuple(self._ask(number) for number in range(first_number, first_number + k))
            return Answer(assignments=assignments, state=None if self._problem.independent else self._state())

    def refuse(self, number: int) -> None:
        """The study forgets it, as a study that is built again never knew it."""
        place = self._places.pop(number)
        storage = self._study._storage
        storage._studies[self._study._study_id].trials.pop()
        del storage._trial_id_to_study_id_and_number[place]
        storage._max_trial_id -= 1
        self._study._thread_local.cached_all_trials = None
        self._running.discard(number)
        self._next = number
        self._refused = (number, self._refused[1] + 1 if self._refused[0] == number else 1)

    # ------------------------------------------------------------------------------------------------ asking

    def _ask(self, number: int) -> Assignment:
        if number != self._next:
            raise AlgorithmError(f"the history has a gap: trial {self._next} is missing")
        if self._problem.independent:
            self._start_anew(number)
        trial = self._study.ask(fixed_distributions=None if self._walk else self._distributions)
        for parameter in self._walk:
            self._suggest(trial, parameter)
        self._places[number] = trial.number
        self._running.add(number)
        self._next += 1
        raw = {name: self._raw(name, value) for name, value in trial.params.items()}
        attributes = self._study._storage.get_trial(trial._trial_id).system_attrs
        meta: dict[str, Any] = {"system": dict(attributes)} if attributes else {}
        if kept := self._codec.keep(raw):
            meta["raw"] = kept
        values = self._codec.decode(raw)
        return Assignment(self._problem.space.active(values) if self._walk else values, meta=meta)

    def _suggest(self, trial: Any, name: str) -> None:
        """Ask for the parameter if its conditions hold. All that they name have been asked for."""
        if name not in self._free:
            return
        known: dict[str, Value] = {
            each.name: each.decode(self._raw(each.name, trial.params[each.name]) if each.name in self._free else 0)
            for each in self._codec.dimensions
            if each.name in trial.params or each.kind is Kind.CONSTANT
        }
        dimension = self._free[name]
        if name not in self._problem.space.active({**known, name: dimension.decode(dimension.low)}):
            return
        if dimension.kind is Kind.CHOICE:
            trial.suggest_categorical(name, dimension.parameter.values)
        elif dimension.kind is Kind.INDEX:
            trial.suggest_int(name, 0, dimension.count - 1)
        else:
            trial.suggest_float(name, dimension.low, dimension.high, log=dimension.kind is Kind.LOG)

    def _raw(self, name: str, value: Any) -> Raw:
        choices = getattr(self._distributions[name], "choices", None)
        raw: Raw = choices.index(value) if choices is not None else value
        return raw

    # ------------------------------------------------------------------------------------------------ telling

    def _params(self, trial: HistoryTrial) -> dict[str, Any]:
        raw = self._codec.encode(trial.parameters, trial.meta.get("raw"))
        return {
            name: self._free[name].parameter.values[int(value)] if self._free[name].kind is Kind.CHOICE else value
            for name, value in raw.items()
        }

    def _outcome(self, trial: HistoryTrial) -> tuple[Any, list[float] | None]:
        states = self._optuna.trial.TrialState
        if not trial.state.terminal:
            return states.RUNNING, None
        if loss_of(trial, self._problem.direction) is None:
            return states.FAIL, None
        values = trial.values or (trial.value,)
        finite = [bounded(value) for value in values if value is not None and math.isfinite(value)]
        # A Gaussian process of a constraint learns nothing else beside one violation that is beyond all others.
        unknown = hasattr(self._sampler, _KERNELS[0]) and not all(map(math.isfinite, trial.violations))
        if len(finite) < len(self._problem.all_directions) or unknown:
            return states.FAIL, None
        if trial.state is TrialState.EARLY_STOPPED and len(finite) == 1:
            return states.PRUNED, finite
        return states.COMPLETE, finite  # Optuna prunes no trial of several objectives

    def _violations(self, trial: HistoryTrial, values: Sequence[float] | None) -> dict[str, float]:
        if values is None or not self._problem.constraints:
            return {}
        missed = trial.violations or (math.inf,) * self._problem.constraints
        return {str(index): bounded(violation) for index, violation in enumerate(missed)}

    def _add(self, trial: HistoryTrial) -> None:
        system, params = dict(trial.meta.get("system", {})), self._fitting(trial)
        if trial.number < 0:
            system = {self._sampler._get_generation_key(): 0} if hasattr(self._sampler, "select_parent") else {}
        elif trial.number != self._next:
            raise AlgorithmError(f"the history has a gap: trial {self._next} is missing")
        if params is None:
            return
        state, values = self._outcome(trial)
        pruned = state is self._optuna.trial.TrialState.PRUNED and values is not None
        frozen = self._optuna.trial.create_trial(
            state=state,
            values=values,
            params=params,
            distributions={name: self._distributions[name] for name in params},
            system_attrs=system,
            intermediate_values={trial.steps: values[0]} if pruned and values else None,
            constraints=self._violations(trial, values),
        )
        self._places[trial.number] = len(self._study._storage._studies[self._study._study_id].trials)
        self._study.add_trial(frozen)
        self._next = max(self._next, trial.number + 1)
        if not state.is_finished():
            self._running.add(trial.number)

    def _fitting(self, trial: HistoryTrial) -> dict[str, Any] | None:
        """Its parameters. None for one of a warm start that is not of this space: then it tells nothing."""
        if trial.number >= 0:
            return self._params(trial)
        wanted = self._problem.space.active(trial.parameters) if self._walk else self._free
        foreign = any(
            not each.covers(trial.parameters.get(each.name)) for each in self._codec.free if each.name in wanted
        )
        return None if foreign or not wanted else self._params(trial)

    def _tell(self, trial: HistoryTrial) -> None:
        state, values = self._outcome(trial)
        if not state.is_finished():
            return
        self._running.discard(trial.number)
        place, storage = self._places[trial.number], self._study._storage
        for key, violation in self._violations(trial, values).items():
            storage.set_trial_system_attr(place, f"constraints:{key}", violation)
        if state is self._optuna.trial.TrialState.PRUNED and values is not None:
            storage.set_trial_intermediate_value(place, trial.steps, values[0])
            values = None  # the value it had reached is the trial's
        self._study.tell(place, values, state=state)

    # ------------------------------------------------------------------------------------------------ state

    def _generators(self) -> dict[str, Any]:
        found = {}
        for path in _GENERATORS:
            target: Any = self._sampler
            for attribute in path.split("."):
                target = getattr(target, attribute, None)
            if target is not None:
                found[path] = target.rng
        return found

    def _start_anew(self, number: int) -> None:
        """The generators' only past is the seed and the number, and what was refused of it."""
        tries = self._refused[1] if self._refused[0] == number else 0
        for index, generator in enumerate(self._generators().values()):
            generator.seed([self._problem.seed, number, tries, index])
        self._study._storage._studies[self._study._study_id].system_attrs = {}
        for name in _KERNELS:
            if hasattr(self._sampler, name):
                setattr(self._sampler, name, None)
        self._regroup([])

    def _groups(self) -> list[dict[str, Any]] | None:
        """Which parameters were seen together. Their order is that in which trials ended: it is not in the history."""
        found = getattr(self._sampler, "_group_decomposed_search_space", None)
        return None if found is None else found._search_space.search_spaces

    def _regroup(self, groups: Iterable[Iterable[str]]) -> None:
        if self._groups() is not None:
            again = [{name: self._distributions[name] for name in group} for group in groups]
            self._sampler._group_decomposed_search_space._search_space._search_spaces = again

    def _state(self) -> JsonDict:
        attributes = self._study._storage.get_study_system_attrs(self._study._study_id)
        state: JsonDict = {
            "generators": {path: packed(generator) for path, generator in self._generators().items()},
            "study": _recent(attributes),
        }
        kernels = {name: _numbers(cache) for name in _KERNELS if (cache := getattr(self._sampler, name, None))}
        if groups := self._groups():
            state["groups"] = [sorted(group) for group in groups]
        return {**state, "kernels": kernels} if kernels else state

    def _restore(self, state: JsonDict | None) -> None:
        if state is None:
            return
        for key, value in state["study"].items():
            self._study._storage.set_study_system_attr(self._study._study_id, key, value)
        for path, generator in self._generators().items():
            unpack(generator, state["generators"][path])
        self._regroup(state.get("groups", []))
        for name, numbers in state.get("kernels", {}).items():
            setattr(self._sampler, name, _kernels(numbers))


def _parents_first(space: SearchSpace) -> tuple[str, ...]:
    """The names in an order in which every condition speaks of what came before."""
    found: list[str] = []
    waiting = list(space)
    while waiting:
        ready = [each for each in waiting if all(condition.parameter in found for condition in each.when)]
        if not ready:
            raise AlgorithmError(f"the conditions of {waiting[0].name} depend on each other")
        found += [each.name for each in ready]
        waiting = [each for each in waiting if each not in ready]
    return tuple(found)


def _recent(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """A study's attributes without the parents of generations that nobody asks for again."""
    generations = {
        key: int(key.rpartition(":")[2]) for key in attributes if _PARENTS in key and key.rpartition(":")[2].isdigit()
    }
    last = max(generations.values(), default=0)
    return {key: value for key, value in attributes.items() if generations.get(key, last) > last - _GENERATIONS_KEPT}


def _numbers(kernels: Iterable[Any]) -> list[list[Any]]:
    return [
        [kernel.inverse_squared_lengthscales.tolist(), kernel.kernel_scale.item(), kernel.noise_var.item()]
        for kernel in kernels
    ]


def _kernels(numbers: Iterable[Sequence[Any]]) -> list[SimpleNamespace]:
    import torch

    return [
        SimpleNamespace(
            inverse_squared_lengthscales=torch.tensor(scales, dtype=torch.float64),
            kernel_scale=torch.tensor(scale, dtype=torch.float64),
            noise_var=torch.tensor(noise, dtype=torch.float64),
        )
        for scales, scale, noise in numbers
    ]


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
