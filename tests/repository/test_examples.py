"""Every experiment below examples/ is valid, runs on this machine, and starts a program that is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from algorithms.registry import Registry
from evertune import spec
from tests.repository.checkout import ROOT, name_of, tracked_files

NO_EXPERIMENT = {"examples/katib/images.yaml"}
PLUGIN = "examples/plugin/experiment.yaml"  # valid where the plugin is installed: see test_plugin
# Katib's own counts: its files are there to be run through quickly.
DESERVED = {
    "examples/katib/corrected/simple-pbt.yaml": [
        "maxTrialCount is 2, and the first generation of pbt has 40 trials: nothing is ever copied or perturbed"
    ]
}
PROGRAM = re.compile(r"examples/[\w./-]+\.py\b")
FILES = [
    path
    for path in tracked_files()
    if path.suffix in (".yaml", ".yml")
    and name_of(path).startswith("examples/")
    and name_of(path) not in {*NO_EXPERIMENT, PLUGIN}
]


def test_those_of_the_demo_are_among_them() -> None:
    named = set(re.findall(r"examples/[\w./-]+\.yaml\b", (ROOT / "Makefile").read_text()))
    assert "examples/digits.yaml" in named
    assert named <= {name_of(path) for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_an_example_is_valid_without_a_warning_that_it_does_not_deserve_and_runs_here(path: Path) -> None:
    text = path.read_text()
    documents = spec.parse_documents(text, path.name)
    templates = spec.templates_of(documents)
    verdicts = spec.check_all(documents, Registry(), backend="local")
    assert [problem for verdict in verdicts for problem in verdict.problems] == []
    assert [warning.message for verdict in verdicts for warning in verdict.warnings] == DESERVED.get(name_of(path), [])
    (experiment,) = [verdict.experiment for verdict in verdicts if verdict.experiment is not None]
    assert spec.unsupported_here(experiment, "local", templates=templates) == []
    assert [name for name in PROGRAM.findall(text) if not (ROOT / name).is_file()] == []


def test_the_plugins_own_example_lacks_nothing_but_the_plugin() -> None:
    (document,) = spec.parse_documents((ROOT / PLUGIN).read_text(), PLUGIN)
    found = [(problem.path, problem.message) for problem in spec.check(document, Registry()).problems]
    assert found == [
        ("algorithm.name", '"one-plus-one" is not an algorithm'),
        ("earlyStopping.algorithmName", '"worsening" is not an early stopping rule'),
    ]
