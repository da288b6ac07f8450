"""What doubles cannot hold is refused by validation, in one sentence, whatever the algorithm."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as some

from algorithms import registry
from algorithms.limits import problems_of
from algorithms.optuna_gp import NO_TORCH
from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import Distribution, Parameter, ParameterType, SearchProblem, SearchSpace

# Settings without a default.
NEEDED = {
    **{key: {"r_l": "3", "resource_name": "good"} for key in ("hyperband", "asha", "bohb")},
    "pbt": {"suggestion_trial_dir": "/checkpoints", "n_population": "5", "truncation_threshold": "0.2"},
}
ARCHITECTURES = {"enas", "nas-evolution", "darts"}  # they search no parameters
RUNNING = [name for name in registry.names() if name not in ARCHITECTURES]
GOOD = Parameter(name="good", type=ParameterType.INT, low=0, high=9)
BAD = Parameter(name="bad", type=ParameterType.DOUBLE, low=0.0, high=1.0)


@pytest.mark.parametrize("algorithm", RUNNING)
@pytest.mark.parametrize(
    ("parameter", "path", "message"),
    [
        (replace(BAD, low=-1.7e308, high=1.7e308, step=1e307), "", "go beyond 1e+300"),
        (replace(BAD, step=1e-30), ".step", "step 1e-30 is too small for the range"),
        (
            replace(BAD, low=1e16, high=1e16 + 2, step=2.0, distribution=Distribution.LOG_UNIFORM),
            "",
            "are too close for the distribution logUniform",
        ),
        (
            replace(BAD, low=5e-324, high=1e-323, step=5e-324, distribution=Distribution.NORMAL),
            "",
            "are too close for the distribution normal",
        ),
    ],
    ids=["too far", "too fine", "too close for a logarithm", "too close for a normal"],
)
def test_a_range_that_cannot_be_searched_is_refused_where_it_stands(
    algorithm: str, parameter: Parameter, path: str, message: str
) -> None:
    problem = SearchProblem(
        space=SearchSpace((GOOD, parameter)),
        direction=ObjectiveType.MINIMIZE,
        seed=1,
        max_trials=5,
        settings=NEEDED.get(algorithm, {}),
    )
    (found,) = (each for each in registry.check(algorithm, problem) if each.message != NO_TORCH)
    assert found.path == f"spec.parameters[1].feasibleSpace{path}"
    assert message in found.message
    assert found.hint


@some.composite
def parameters(draw: some.DrawFn) -> Parameter:
    distribution = draw(some.sampled_from(list(Distribution)))
    whole = draw(some.booleans())
    positive = distribution in (Distribution.LOG_UNIFORM, Distribution.LOG_NORMAL)
    bounds: some.SearchStrategy[float]
    if whole:
        bounds = some.integers(1 if positive else -(2**53), 2**53).map(float)
    else:
        bounds = (
            some.floats(0.0, exclude_min=True, allow_infinity=False)
            if positive
            else some.floats(allow_nan=False, allow_infinity=False)
        )
    low, high = sorted((draw(bounds), draw(bounds)))
    steps = some.integers(1, 2**53).map(float) if whole else some.floats(0.0, exclude_min=True, allow_infinity=False)
    return Parameter(
        name="p",
        type=ParameterType.INT if whole else ParameterType.DOUBLE,
        low=low,
        high=high,
        step=draw(some.none() | steps),
        distribution=distribution,
    )


LOGARITHMIC = Parameter(
    name="p", type=ParameterType.DOUBLE, low=1.0, high=2.0, step=1.0, distribution=Distribution.LOG_UNIFORM
)


@settings(deadline=None)  # the first ask imports the library
@given(parameters(), some.sampled_from(("random", "grid")))
@example(replace(LOGARITHMIC, high=1e300, step=1e300), "random")
@example(replace(LOGARITHMIC, low=5e-324), "random")
@example(replace(BAD, name="p", low=-1e300, high=-1.0, step=1e300), "grid")
def test_whatever_passes_can_be_asked(parameter: Parameter, algorithm: str) -> None:
    problem = SearchProblem(space=SearchSpace((parameter,)), direction=ObjectiveType.MINIMIZE, seed=1)
    if registry.check(algorithm, problem):
        return
    value = registry.create(algorithm, problem).ask([], 1, 0, None).assignments[0].parameters["p"]
    assert not isinstance(value, str)
    assert parameter.low <= value <= parameter.high


def test_ordinary_spaces_have_no_problems() -> None:
    fine, widest = replace(BAD, step=1e-12), replace(GOOD, low=-(2.0**53), high=2.0**53)
    assert problems_of(SearchSpace((GOOD, BAD, fine, widest))) == []
