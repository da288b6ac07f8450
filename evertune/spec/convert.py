"""A checked Experiment as the plain values that algorithms, workflows and collectors speak.

Call these only with what `check` or `load_experiment` returned: they rely on all rules having held.
"""

from __future__ import annotations

import math
import re
from typing import Literal, cast

from evertune.domain.metrics import CollectorSpec, Constraint, Further, Objective, ObjectiveType, Scrape, Strategy
from evertune.domain.records import Budget, Replicates, WarmStart
from evertune.domain.space import Distribution, Parameter, ParameterType, SearchProblem, SearchSpace, Value, When
from evertune.spec.model import Experiment, ExperimentSpec, HttpGet, JsonDict, ObjectiveSpec, ParameterSpec
from evertune.spec.quantity import parse_factor
from evertune.spec.values import ValueProblem, as_number, value_of

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+\Z")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def _spec(experiment: Experiment) -> ExperimentSpec:
    return experiment.spec or ExperimentSpec()


def to_space(experiment: Experiment) -> SearchSpace:
    return SearchSpace(tuple(to_parameter(parameter) for parameter in _spec(experiment).parameters or ()))


def to_parameter(parameter: ParameterSpec) -> Parameter:
    """One checked search parameter; raises ValueError where a rule did not hold."""
    kind = ParameterType(parameter.parameter_type or "")
    space = parameter.feasible_space
    name = parameter.name or ""
    if space is None:
        raise ValueError(f"{name} has no feasibleSpace")
    when = tuple(When(parent, tuple(map(str, values))) for parent, values in (parameter.when or {}).items())
    if kind in (ParameterType.DISCRETE, ParameterType.CATEGORICAL):
        return Parameter(name=name, type=kind, values=tuple(space.items or ()), when=when)
    low, high = number(space.min), number(space.max)
    step = number(space.step) if space.step else None
    if kind is ParameterType.INT and step is not None:
        step = float(max(1, round(step)))
    distribution = Distribution.UNIFORM
    if space.distribution and space.distribution != "unknown":
        distribution = Distribution(space.distribution)
    return Parameter(name=name, type=kind, low=low, high=high, step=step, distribution=distribution, when=when)


def number(text: str | None) -> float:
    """A finite number written as text; raises ValueError otherwise. Underscores and words are not numbers here."""
    value = as_number(text)
    if value is None:
        raise ValueError(text)
    return value


def to_objective(experiment: Experiment) -> Objective:
    spec = _spec(experiment).objective or ObjectiveSpec()
    known = {strategy.value for strategy in Strategy}
    directions = [direction.value for direction in ObjectiveType]
    return Objective(
        type=ObjectiveType(spec.type or ""),
        metric=spec.objective_metric_name or "",
        goal=spec.goal,
        additional=tuple(spec.additional_metric_names or ()),
        strategies={
            strategy.name: Strategy(strategy.value)
            for strategy in spec.metric_strategies or ()
            if strategy.name and strategy.value in known
        },
        further=tuple(
            Further(further.name, ObjectiveType(further.type))
            for further in _spec(experiment).objectives or ()
            if further.type in directions  # stopping rules are judged beside wrong ones
        ),
        constraints=tuple(
            Constraint(constraint.metric or "", constraint.le, constraint.ge)
            for constraint in _spec(experiment).constraints or ()
        ),
    )


def to_budget(experiment: Experiment) -> Budget:
    spec = _spec(experiment)
    return Budget(
        parallel=spec.parallel_trial_count or 3,
        max_trials=spec.max_trial_count,
        max_failed=spec.max_failed_trial_count,
    )


def algorithm_of(experiment: Experiment) -> str:
    algorithm = _spec(experiment).algorithm
    return (algorithm and algorithm.algorithm_name) or ""


def settings_of(experiment: Experiment) -> dict[str, str]:
    algorithm = _spec(experiment).algorithm
    settings = (algorithm and algorithm.algorithm_settings) or ()
    return {setting.name: setting.value or "" for setting in settings if setting.name}


def stopper_of(experiment: Experiment) -> str:
    """The name of the early stopping rule, "" without one."""
    stopping = _spec(experiment).early_stopping
    return (stopping and stopping.algorithm_name) or ""


def stopper_settings_of(experiment: Experiment) -> dict[str, str]:
    stopping = _spec(experiment).early_stopping
    settings = (stopping and stopping.algorithm_settings) or ()
    return {setting.name: setting.value or "" for setting in settings if setting.name}


def seed_of(experiment: Experiment) -> int | None:
    """The user's seed (`spec.seed`, else Katib's setting `random_state`), or None: draw one and store it."""
    seed = _spec(experiment).seed
    if seed is not None:
        return seed
    settings = settings_of(experiment)
    text = settings.get("random_state", settings.get("seed", ""))
    return int(text) if text.isascii() and text.isdigit() and int(text) < 2**31 else None


def search_problem(
    experiment: Experiment, seed: int, space: SearchSpace | None = None, objective: Objective | None = None
) -> SearchProblem:
    """What an algorithm is told. `space`: of an experiment with which something may still be wrong.

    `space` and `objective` of a stored experiment are those that are stored with it.
    """
    budget = to_budget(experiment)
    objective = to_objective(experiment) if objective is None else objective
    space = to_space(experiment) if space is None else space
    spec, warm = _spec(experiment), warm_start_of(experiment)
    return SearchProblem(
        space=space,
        direction=objective.type,
        seed=seed,
        settings=settings_of(experiment),
        max_trials=budget.max_trials,
        parallel=budget.parallel,
        nas=nas_of(experiment),
        directions=objective.directions if objective.further else (),
        constraints=len(objective.constraints),
        parameter_constraints=tuple(spec.parameter_constraints or ()),
        initial=initial_of(spec, space),
        on_duplicate=cast(Literal["run", "reuse", "resample"], spec.on_duplicate or "run"),
        on_failure=cast(Literal["ignore", "worst"], spec.on_failure or "ignore"),
        warm_start=warm.mode if warm else "",
        early_stopping=spec.early_stopping is not None,
    )


def initial_of(spec: ExperimentSpec, space: SearchSpace) -> tuple[dict[str, Value], ...]:
    """The assignments to begin with, typed, in the order of the space; without what is no value of its parameter."""
    return tuple(_initial(trial, space) for trial in spec.initial_trials or ())


def _initial(trial: JsonDict, space: SearchSpace) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for parameter in space:
        if parameter.name in trial:
            try:
                values[parameter.name] = value_of(parameter, trial[parameter.name])
            except ValueProblem:  # a rule has said so; of what an older version admitted the rest still counts
                continue
    return values


def replicates_of(experiment: Experiment) -> Replicates:
    """How often each trial runs, and how its values become one; once, when nothing is said."""
    given = _spec(experiment).replicates
    if given is None:
        return Replicates()
    return Replicates(count=given.count or 1, aggregate=cast(Literal["mean", "median"], given.aggregate or "mean"))


def warm_start_of(experiment: Experiment) -> WarmStart | None:
    """Whose trials the algorithm knows from the start; None without any."""
    given = _spec(experiment).warm_start
    if given is None or not given.sources:
        return None
    named = [name.rpartition("/") for name in given.sources]
    return WarmStart(
        experiments=tuple((namespace or experiment.namespace, name) for namespace, _, name in named),
        mode=cast(Literal["identical", "transfer"], given.mode or "identical"),
    )


def nas_of(experiment: Experiment) -> JsonDict | None:
    """The nasConfig as plain data, with Katib's field names."""
    nas = _spec(experiment).nas_config
    return None if nas is None else nas.model_dump(by_alias=True, exclude_none=True)


def collector_spec(experiment: Experiment) -> CollectorSpec:
    collecting = _spec(experiment).metrics_collector_spec
    source = collecting.source if collecting else None
    place = source.file_system_path if source else None
    filters = source.filter.metrics_format if source and source.filter else None
    kind = (collecting and collecting.collector and collecting.collector.kind) or "StdOut"
    return CollectorSpec(
        kind=kind,
        metrics=to_objective(experiment).metrics,
        filters=tuple(filters or ()),
        path=place.path if place else None,
        path_kind=place.kind if place else None,
        format=place.format if place else None,
        scrape=_scrape(source.http_get) if kind == "PrometheusMetric" and source and source.http_get else None,
    )


def _scrape(get: HttpGet) -> Scrape:
    headers = tuple((header.name or "", header.value or "") for header in get.http_headers or ())
    return Scrape(
        port=int(get.port or 0),
        path=get.path or "/metrics",
        host=get.host,
        scheme=(get.scheme or "HTTP").upper(),
        headers=headers,
    )


def custom_collector(experiment: Experiment) -> JsonDict | None:
    """The user's own collector container, for kind Custom."""
    collecting = _spec(experiment).metrics_collector_spec
    collector = collecting.collector if collecting else None
    return collector.custom_collector if collector and collector.kind == "Custom" else None


def parse_duration(value: str | float) -> float:
    """Seconds in `90`, `"45s"`, `"2h30m"` or `"1.5d"`; raises ValueError."""
    if isinstance(value, int | float):
        seconds = float(value)
    elif _DURATION.match(value.replace(" ", "")):
        parts = _DURATION_PART.findall(value.replace(" ", ""))
        seconds = math.fsum(float(amount) * _UNITS[unit] for amount, unit in parts)
    else:
        raise ValueError(value)
    if not 0 < seconds < 1e9:
        raise ValueError(value)
    return seconds


def deadline_of(experiment: Experiment) -> float | None:
    """Seconds that the whole experiment may take."""
    value = _spec(experiment).deadline
    return None if value is None else parse_duration(value)


def trial_deadline_of(experiment: Experiment) -> float | None:
    """Seconds that one attempt of a trial may take."""
    value = _spec(experiment).trial_deadline
    return None if value is None else parse_duration(value)


def on_completion_of(experiment: Experiment) -> str:
    """`cancel` or `drain`: what happens to running trials once there is a verdict."""
    return _spec(experiment).on_completion or "cancel"


def working_dir_of(experiment: Experiment) -> str | None:
    """The directory local trials run in; None is the submitter's. A relative one is below the submitter's."""
    return _spec(experiment).working_dir


def backend_of(experiment: Experiment) -> str | None:
    """What the annotation `evertune.io/backend` asks for."""
    return experiment.annotations.get("evertune.io/backend")


def cluster_of(experiment: Experiment) -> str | None:
    """The context of the cluster that the annotation `evertune.io/cluster` names; None is the worker's own."""
    return experiment.annotations.get("evertune.io/cluster")


def memory_growth_of(experiment: Experiment) -> tuple[float, str | None] | None:
    """The factor and the maximum (a quantity) of `failurePolicy.onOOM`; None without one."""
    policy = _spec(experiment).failure_policy
    growth = policy.on_oom if policy else None
    if growth is None:
        return None
    return parse_factor(growth.memory), None if growth.max is None else str(growth.max)
