"""Copies of Katib's files that Katib refuses: each says what was corrected, is valid, and its trials start."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from algorithms import registry
from evertune.spec import (
    algorithm_of,
    check,
    check_all,
    parse_documents,
    render_trial,
    search_problem,
    templates_of,
    unsupported_here,
)
from tests.unit.spec.samples import EXAMPLES

KATIB = Path(__file__).parents[3] / "examples" / "katib"
CORRECTED = sorted((KATIB / "corrected").glob("*.yaml"))


@pytest.mark.parametrize("file", CORRECTED, ids=lambda file: file.stem)
def test_a_corrected_example_says_so_is_valid_and_a_trial_of_it_starts(file: Path) -> None:
    text = file.read_text()
    assert text.startswith("# Katib's examples/v1beta1/")
    assert "\n# Correction: " in text
    documents = parse_documents(text, file.name)
    verdicts = check_all(documents, registry.Registry())
    assert [verdict.problems for verdict in verdicts] == [[]] * len(documents)
    (experiment,) = (verdict.experiment for verdict in verdicts if verdict.experiment is not None)
    templates = templates_of(documents)
    assert unsupported_here(experiment, "local", templates=templates) == []
    name, problem = algorithm_of(experiment), search_problem(experiment, 1)
    (assignment,) = registry.create(name, problem).ask((), 1, 0, None).assignments
    manifest = render_trial(experiment, trial_name="t", parameters=assignment.parameters, templates=templates)
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    images = yaml.safe_load((KATIB / "images.yaml").read_text())
    root = KATIB / images[container["image"].partition(":")[0]]
    assert (root / container["command"][1].lstrip("/")).is_file()


def test_the_correction_of_darts_changes_nothing_that_a_trial_sees() -> None:
    spaces = []
    for file in (EXAMPLES / "nas" / "darts-gpu.yaml", KATIB / "corrected" / "darts-gpu.yaml"):
        experiment = check(parse_documents(file.read_text(), file.name)[0]).experiment
        assert experiment is not None
        (assignment,) = registry.create("darts", search_problem(experiment, 1)).ask((), 1, 0, None).assignments
        spaces.append(assignment.parameters)
    assert spaces[0] == spaces[1]
