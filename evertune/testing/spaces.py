"""Search spaces with every kind of parameter there is, and what may be handed out for one.

For tests of algorithms: their contract goes through these spaces and judges assignments by `fits`.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from evertune.domain.space import Distribution, Parameter, ParameterType, SearchSpace, Value, When, value_text


def _numbers(kind: ParameterType, name: str, low: float, high: float, step: float | None) -> list[Parameter]:
    return [
        Parameter(
            name=f"{kind}-{name}-{distribution}", type=kind, low=low, high=high, step=step, distribution=distribution
        )
        for distribution in Distribution
    ]


LISTS = (
    Parameter(name="discrete", type=ParameterType.DISCRETE, values=("0.10", "16", "-3", "1e-3")),
    Parameter(name="categorical 🦊", type=ParameterType.CATEGORICAL, values=("sgd", "Sgd", "naïve", "")),
)
CONSTANTS = (
    Parameter(name="constant-double", type=ParameterType.DOUBLE, low=0.3, high=0.3),
    Parameter(name="constant-int", type=ParameterType.INT, low=-7, high=-7),
    Parameter(name="constant-grid", type=ParameterType.DOUBLE, low=0.3, high=0.35, step=0.1),
    Parameter(name="constant-choice", type=ParameterType.CATEGORICAL, values=("only",)),
)
STEPPED = SearchSpace(
    (
        *_numbers(ParameterType.DOUBLE, "stepped", 0.1, 0.7, 0.1),
        *_numbers(ParameterType.INT, "plain", 1, 16, None),
        *_numbers(ParameterType.INT, "stepped", 1, 17, 3),
        *LISTS,
        *CONSTANTS,
    )
)
CONTINUOUS = SearchSpace(
    (
        *_numbers(ParameterType.DOUBLE, "plain", 1e-5, 0.1, None),
        Parameter(name="negative", type=ParameterType.DOUBLE, low=-3.5, high=-0.5),
    )
)
EVERYTHING = SearchSpace((*CONTINUOUS.parameters, *STEPPED.parameters))
ALL_CONSTANT = SearchSpace(CONSTANTS)
CONDITIONAL = SearchSpace(
    (
        # What a condition names may stand behind it.
        Parameter(name="beta", type=ParameterType.DOUBLE, low=0.5, high=0.99, when=(When("optimizer", ("adam",)),)),
        Parameter(name="optimizer", type=ParameterType.CATEGORICAL, values=("sgd", "adam", "ftrl")),
        Parameter(name="momentum", type=ParameterType.DOUBLE, low=0.0, high=0.9, when=(When("optimizer", ("sgd",)),)),
        Parameter(
            name="nesterov", type=ParameterType.CATEGORICAL, values=("no", "yes"), when=(When("optimizer", ("sgd",)),)
        ),
        Parameter(name="damping", type=ParameterType.INT, low=1, high=5, when=(When("nesterov", ("no",)),)),
        Parameter(name="fixed", type=ParameterType.INT, low=3, high=3, when=(When("optimizer", ("sgd", "ftrl")),)),
        Parameter(name="below", type=ParameterType.DOUBLE, low=0.0, high=1.0, when=(When("fixed", ("3",)),)),
        Parameter(name="lr", type=ParameterType.DOUBLE, low=1e-5, high=0.1, distribution=Distribution.LOG_UNIFORM),
    )
)
ONE_DOUBLE = SearchSpace((Parameter(name="x", type=ParameterType.DOUBLE, low=-1.0, high=1.0),))


def allows(parameter: Parameter, value: Value) -> bool:
    """Whether a value may be handed out: of the parameter's plain Python type, in range and on its grid."""
    if not parameter.numeric:
        return type(value) is str and value in parameter.values
    if type(value) is not (int if parameter.type is ParameterType.INT else float):
        return False
    if not parameter.low <= value <= parameter.high:
        return False
    step = parameter.step or (1 if parameter.type is ParameterType.INT else None)
    if step is None:
        return True
    low, each = Decimal(repr(parameter.low)), Decimal(repr(step))
    return float(low + round((Decimal(repr(value)) - low) / each) * each) == value


def names_of(space: SearchSpace, parameters: Mapping[str, Value]) -> set[str]:
    """The names that an assignment must have: those of the parameters whose conditions hold in it."""
    return {
        parameter.name
        for parameter in space
        if all(
            condition.parameter in parameters and value_text(parameters[condition.parameter]) in condition.values
            for condition in parameter.when
        )
    }


def fits(space: SearchSpace, parameters: Mapping[str, Value]) -> bool:
    """Whether an assignment has what it must have and nothing else, all of it allowed."""
    return set(parameters) == names_of(space, parameters) and all(
        allows(parameter, parameters[parameter.name]) for parameter in space if parameter.name in parameters
    )
