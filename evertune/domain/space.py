"""The search space as algorithms see it: typed numbers instead of Katib's strings.

Built by `evertune.spec` from `spec.parameters`; encoded for each library by `algorithms.space`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from evertune.domain.metrics import ObjectiveType

# What an assignment holds: int for `int`, float for `double`, the list entry itself for `discrete`/`categorical`.
Value = int | float | str
Parameters = Mapping[str, Value]


class ParameterType(StrEnum):
    DOUBLE = "double"
    INT = "int"
    DISCRETE = "discrete"
    CATEGORICAL = "categorical"


class Distribution(StrEnum):
    UNIFORM = "uniform"
    LOG_UNIFORM = "logUniform"
    NORMAL = "normal"
    LOG_NORMAL = "logNormal"


@dataclass(frozen=True, slots=True)
class When:
    """A condition: the parameter exists only where another one has one of these values, as `value_text` writes them."""

    parameter: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One dimension. `low <= high`; `step` is None for a continuous double, and >= 1 or None (= 1) for an int.

    `values` are the list entries of `discrete` and `categorical`, as the user wrote them (text). `when`: all of these
    must hold, and the parameters that they name must be there themselves.
    """

    name: str
    type: ParameterType
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    values: tuple[str, ...] = ()
    distribution: Distribution = Distribution.UNIFORM
    when: tuple[When, ...] = ()

    @property
    def numeric(self) -> bool:
        return self.type in (ParameterType.DOUBLE, ParameterType.INT)


@dataclass(frozen=True, slots=True)
class SearchSpace:
    parameters: tuple[Parameter, ...]

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self.parameters)

    def __len__(self) -> int:
        return len(self.parameters)

    def names(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def conditional(self) -> bool:
        return any(parameter.when for parameter in self.parameters)

    def active(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Of these values those whose conditions hold, in the order of the space. Conditions have no cycles."""
        by_name = {parameter.name: parameter for parameter in self.parameters}
        known: dict[str, bool] = {}

        def holds(name: str) -> bool:
            if name not in known:
                known[name] = name in values and all(
                    holds(condition.parameter) and value_text(values[condition.parameter]) in condition.values
                    for condition in by_name[name].when
                )
            return known[name]

        return {name: values[name] for name in by_name if holds(name)}

    def typed(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """The values as a program or a person expects them (`typed_value`), in the order of the space."""
        known = {
            parameter.name: typed_value(parameter, values[parameter.name])
            for parameter in self.parameters
            if parameter.name in values
        }
        return {**known, **{name: value for name, value in values.items() if name not in known}}


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchProblem:
    """Everything an algorithm may know about an experiment besides its history.

    `seed` is a non-negative 31-bit integer: the user's `random_state`/`seed`, or drawn at admission and stored.
    `settings` are Katib's algorithmSettings, verbatim text. `nas` is the manifest's nasConfig as plain data, for
    algorithms that search architectures; the space is empty then.

    `directions` are those of all objectives, the first of which is `direction`. `constraints` counts the conditions on
    metrics, whose violations the history holds; `parameter_constraints` are expressions over parameters that every
    assignment must satisfy. `initial` are assignments to begin with, perhaps of some of the parameters only.
    `independent`: the libraries are not those that the experiment began with, so that their states mean nothing: each
    ask is seeded by (seed, trial number) alone.
    """

    space: SearchSpace
    direction: ObjectiveType
    seed: int
    settings: Mapping[str, str] = field(default_factory=dict)
    max_trials: int | None = None
    parallel: int = 1
    nas: Mapping[str, Any] | None = None
    directions: tuple[ObjectiveType, ...] = ()
    constraints: int = 0
    parameter_constraints: tuple[str, ...] = ()
    initial: tuple[Mapping[str, Value], ...] = ()
    on_duplicate: Literal["run", "reuse", "resample"] = "run"
    on_failure: Literal["ignore", "worst"] = "ignore"
    warm_start: Literal["", "identical", "transfer"] = ""  # trials of others are in the history, below number 0
    early_stopping: bool = False
    independent: bool = False

    @property
    def all_directions(self) -> tuple[ObjectiveType, ...]:
        return self.directions or (self.direction,)


def value_text(value: Value) -> str:
    """The text that replaces a placeholder. Exact: `float(value_text(x)) == x` for every finite double."""
    return value if isinstance(value, str) else repr(value)


def typed_value(parameter: Parameter, value: Value) -> Value:
    """The value as a person expects it in JSON: a discrete "0.10" becomes 0.1, a categorical stays text."""
    if parameter.type is not ParameterType.DISCRETE or not isinstance(value, str):
        return value
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value
