"""Katib's settings and rules, verbatim: which text each algorithm takes and which it refuses, and where."""

from __future__ import annotations

import pytest

from algorithms import registry
from algorithms.settings import SETTINGS
from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import SearchProblem
from evertune.errors import Problem
from evertune.testing.spaces import STEPPED


def check(algorithm: str, **settings: str) -> list[Problem]:
    given = SearchProblem(space=STEPPED, direction=ObjectiveType.MINIMIZE, seed=1, settings=settings)
    return list(registry.check(algorithm, given))


@pytest.mark.parametrize(
    ("algorithm", "setting", "text"),
    [
        ("random", "random_state", "10"),
        ("random", "random_state", "0"),
        ("tpe", "random_state", "2147483647"),
        ("tpe", "gamma", "0.25"),
        ("tpe", "gamma", "1e-3"),
        ("tpe", "prior_weight", "1.0"),
        ("tpe", "prior_weight", "7"),
        ("tpe", "n_EI_candidates", "24"),
        ("tpe", "n_startup_jobs", "0"),
        ("multivariate-tpe", "n_startup_trials", "0"),
        ("multivariate-tpe", "n_startup_trials", "10"),
        ("multivariate-tpe", "n_ei_candidates", "24"),
        ("multivariate-tpe", "random_state", "10"),
        ("grid", "random_state", "10"),
    ],
)
def test_a_good_setting_is_accepted(algorithm: str, setting: str, text: str) -> None:
    assert check(algorithm, **{setting: text}) == []


@pytest.mark.parametrize(
    ("algorithm", "setting", "text", "rule"),
    [
        ("tpe", "gamma", "1.5", "a number between 0 and 1, both excluded"),
        ("tpe", "gamma", "0", "a number between 0 and 1, both excluded"),
        ("tpe", "gamma", "1", "a number between 0 and 1, both excluded"),
        ("tpe", "gamma", "nan", "a number between 0 and 1, both excluded"),
        ("tpe", "n_EI_candidates", "0", "a whole number above 0"),
        ("tpe", "n_EI_candidates", "2.5", "a whole number above 0"),
        ("tpe", "random_state", "-1", "a whole number from 0 to 2147483647"),
        ("tpe", "random_state", "2147483648", "a whole number from 0 to 2147483647"),
        ("tpe", "random_state", "", "a whole number from 0 to 2147483647"),
        ("tpe", "random_state", "٣", "a whole number from 0 to 2147483647"),
        ("tpe", "prior_weight", "aaa", "a number above 0"),
        ("tpe", "prior_weight", "0", "a number above 0"),
        ("tpe", "prior_weight", "inf", "a number above 0"),
        ("random", "random_state", "aaa", "a whole number from 0 to 2147483647"),
        ("random", "random_state", "-1", "a whole number from 0 to 2147483647"),
        ("multivariate-tpe", "n_startup_trials", "-1", "a whole number from 0"),
        ("multivariate-tpe", "n_startup_trials", "aaa", "a whole number from 0"),
        ("multivariate-tpe", "n_ei_candidates", "0", "a whole number above 0"),
        ("multivariate-tpe", "n_ei_candidates", "-3", "a whole number above 0"),
        ("multivariate-tpe", "random_state", "-1", "a whole number from 0 to 2147483647"),
        ("grid", "random_state", "-1", "a whole number from 0 to 2147483647"),
        ("grid", "random_state", "aaa", "a whole number from 0 to 2147483647"),
    ],
)
def test_a_bad_value_is_refused_with_its_rule(algorithm: str, setting: str, text: str, rule: str) -> None:
    (found,) = check(algorithm, **{setting: text})
    assert (found.path, found.type) == ("spec.algorithm.algorithmSettings[0].value", "Invalid")
    assert found.message == f'{setting} must be {rule}; got "{text}"'


OF_TPE = "settings of tpe: random_state, gamma, prior_weight, n_EI_candidates, n_startup_jobs"


@pytest.mark.parametrize(
    ("algorithm", "setting", "hint"),
    [
        ("random", "gamma", "settings of random: random_state"),
        ("tpe", "unknown", OF_TPE),
        ("tpe", "n_ei_candidates", f'did you mean "n_EI_candidates"? {OF_TPE}'),
        ("tpe", "gama", f'did you mean "gamma"? {OF_TPE}'),
        (
            "multivariate-tpe",
            "n_startup_trails",
            'did you mean "n_startup_trials"? '
            "settings of multivariate-tpe: random_state, n_startup_trials, n_ei_candidates",
        ),
        ("multivariate-tpe", "sigma0", None),
        ("multivariate-tpe", "constant_liar", None),
        ("multivariate-tpe", "multivariate", None),
        ("multivariate-tpe", "seed", None),
        ("grid", "n_ei_candidates", "settings of grid: random_state"),
    ],
)
def test_an_unknown_setting_is_refused_with_a_mend(algorithm: str, setting: str, hint: str | None) -> None:
    (found,) = check(algorithm, **{setting: "1"})
    assert (found.path, found.type) == ("spec.algorithm.algorithmSettings[0].name", "Invalid")
    assert found.message == f'"{setting}" is not a setting of {algorithm}'
    assert found.hint is not None
    if hint is not None:
        assert found.hint == hint


def test_all_problems_are_told_at_once_each_at_its_index() -> None:
    found = check("tpe", gamma="1.5", prior_weight="1", nothing="1", n_EI_candidates="0")
    places = [problem.path.removeprefix("spec.algorithm.algorithmSettings") for problem in found]
    assert places == ["[0].value", "[2].name", "[3].value"]


def test_every_built_in_has_rules_and_each_is_explained() -> None:
    assert set(SETTINGS) <= set(registry.BUILT_IN)
    for rules in SETTINGS.values():
        for rule in rules.values():
            assert rule.meaning
            assert rule.default != ""
