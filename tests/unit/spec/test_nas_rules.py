"""Rules about networks: what the algorithm gives to a trial must be what the template asks for.

Katib admits any reference beside a nasConfig, and then makes no trial for ever.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from algorithms.registry import Registry
from tests.unit.spec.samples import EXAMPLES, found, judge

REFERENCES = "spec.trialTemplate.trialParameters"
GRAPH = "spec.nasConfig.graphConfig"


def example(name: str, **changes: Any) -> dict[str, Any]:
    data: dict[str, Any] = copy.deepcopy(yaml.safe_load((EXAMPLES / "nas" / f"{name}.yaml").read_text()))
    data["spec"].update(changes)
    return data


def problems(data: dict[str, Any]) -> list[tuple[str, str]]:
    return found(data, catalog=Registry())


@pytest.mark.parametrize(("name", "reference"), [("enas-cpu", "architectures"), ("darts-cpu", "search_space")])
def test_a_reference_that_the_algorithm_never_fills_is_refused_with_what_it_gives(name: str, reference: str) -> None:
    data = example(name)
    index = 0 if name == "enas-cpu" else 1
    right = data["spec"]["trialTemplate"]["trialParameters"][index]["reference"]
    data["spec"]["trialTemplate"]["trialParameters"][index]["reference"] = reference
    (problem,) = judge(data, catalog=Registry()).problems
    assert (problem.type, problem.path) == ("Invalid", f"{REFERENCES}[{index}].reference")
    assert (problem.hint or "").startswith(f'did you mean "{right}"?; it gives: ')


def test_what_the_algorithm_gives_and_nobody_refers_to_is_asked_for() -> None:
    data = example("enas-cpu")
    del data["spec"]["trialTemplate"]["trialParameters"][1]
    command = data["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]["command"]
    command[:] = [word for word in command if "neuralNetworkConfig" not in word]
    (problem,) = judge(data, catalog=Registry()).problems
    assert (problem.type, problem.path) == ("Required", REFERENCES)
    assert problem.message == 'no trialParameter refers to "nn_config", which enas gives to each trial'


def test_what_is_known_about_a_trial_may_be_referred_to_beside_a_network() -> None:
    data = example("enas-cpu")
    template = data["spec"]["trialTemplate"]
    template["trialParameters"].append({"name": "trial", "reference": "${trialSpec.Name}"})
    command = template["trialSpec"]["spec"]["template"]["spec"]["containers"][0]["command"]
    command.append("--name=${trialParameters.trial}")
    assert problems(data) == []


@pytest.mark.parametrize("algorithm", ["random", "tpe", "nas-evolution", "auto"])
def test_whoever_draws_a_network_gives_it_in_enas_words(algorithm: str) -> None:
    assert problems(example("enas-cpu", algorithm={"algorithmName": algorithm})) == []
    refused = problems(example("darts-gpu", algorithm={"algorithmName": algorithm}))
    assert [path for _, path in refused if path.startswith(REFERENCES)] == [
        f"{REFERENCES}[{i}].reference" for i in range(3)
    ]


def test_an_algorithm_that_knows_nothing_of_networks_needs_all_of_one_to_draw_it() -> None:
    empty = example("enas-cpu", algorithm={"algorithmName": "tpe"}, nasConfig={"operations": []})
    assert problems(empty) == [
        *(("Required", f"{GRAPH}.{key}") for key in ("inputSizes", "numLayers", "outputSizes")),
        ("Required", "spec.nasConfig.operations"),
    ]


@pytest.mark.parametrize("text", ['"', "it's", "\\", "a\nb"])
def test_what_a_trial_could_not_read_back_is_refused_where_it_stands(text: str) -> None:
    data = example(
        "darts-cpu", algorithm={"algorithmName": "darts", "algorithmSettings": [{"name": "more", "value": text}]}
    )
    operation = data["spec"]["nasConfig"]["operations"][0]
    operation["operationType"] = text
    operation["parameters"][0]["feasibleSpace"]["list"] = ["3", text]
    where = "spec.nasConfig.operations[0]"
    assert problems(data) == [
        ("Invalid", "spec.algorithm.algorithmSettings[0].value"),
        ("Invalid", f"{where}.operationType"),
        ("Invalid", f"{where}.parameters[0].feasibleSpace.list[1]"),
    ]


def test_letters_of_any_language_reach_a_trial() -> None:
    data = example("darts-cpu")
    data["spec"]["nasConfig"]["operations"][0]["operationType"] = "größe 🦊"
    assert problems(data) == []
