"""The CustomResourceDefinitions: structural, in step with the models, and open to every Experiment of Katib's.

`structural` and `refusals` are what an API server checks, as far as our schemas go.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from evertune.kubectl.crd import definitions
from evertune.kubectl.status import invalid, merge_conditions, of_record
from evertune.spec import Experiment
from evertune.spec.parse import parse_documents
from tests.operator.test_objects import a_record
from tests.repository.checkout import ROOT

EXAMPLES = sorted((ROOT / "tests" / "data" / "katib").rglob("*.yaml"))
DEFINITIONS = {name: yaml.safe_load(text) for name, text in definitions().items()}
OURS = DEFINITIONS["experiments.evertune.io.yaml"]
OPEN, EITHER = "x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string"
PYTHON = {"string": str, "integer": int, "number": int | float, "boolean": bool, "object": dict, "array": list}
FORBIDDEN = ("$ref", "anyOf", "oneOf", "allOf", "not", "additionalItems", "patternProperties", "definitions", "const")


def schema(definition: dict[str, Any]) -> dict[str, Any]:
    (version,) = definition["spec"]["versions"]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return found


def structural(part: dict[str, Any], path: str = "") -> Iterator[str]:
    """What Kubernetes forbids in a structural schema."""
    if part.get("type") not in PYTHON and not part.get(OPEN) and not part.get(EITHER):
        yield f"{path} has no type"
    yield from (f"{path} has {word}" for word in FORBIDDEN if word in part)
    if "properties" in part and "additionalProperties" in part:
        yield f"{path} has both kinds of properties"
    for name, inner in part.get("properties", {}).items():
        yield from structural(inner, f"{path}.{name}")
    for word in ("items", "additionalProperties"):
        if word in part:
            yield from structural(part[word], f"{path}.{word}")
    if part.get("type") == "array" and "items" not in part:
        yield f"{path} says nothing of its items"


def refusals(value: Any, part: dict[str, Any], path: str = "") -> Iterator[str]:
    """What of a value an API server refuses, or drops."""
    if part.get(EITHER):
        if isinstance(value, bool) or not isinstance(value, int | str):
            yield f"{path} is neither a whole number nor text"
        return
    wanted = PYTHON.get(part.get("type", ""), object)
    if not isinstance(value, wanted) or (isinstance(value, bool) and part.get("type") not in ("boolean", None)):
        yield f"{path} is no {part['type']}"
    elif isinstance(value, list) and "items" in part:
        for index, item in enumerate(value):
            yield from refusals(item, part["items"], f"{path}[{index}]")
    elif isinstance(value, dict) and part.get("type") == "object":
        for name, inner in value.items():
            known = part.get("properties", {}).get(name, part.get("additionalProperties"))
            if known is not None:
                yield from refusals(inner, known, f"{path}.{name}")
            elif not part.get(OPEN) and path != ".metadata":
                yield f"{path}.{name} is dropped"


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_schema_is_structural(name: str) -> None:
    assert list(structural(schema(DEFINITIONS[name]))) == []


@pytest.mark.parametrize(
    "part",
    [{}, {"$ref": "#/x", "type": "object"}, {"type": "array"}, {"type": "object", "properties": {"x": {"anyOf": []}}}],
)
def test_the_search_for_what_is_not_structural_finds_it(part: dict[str, Any]) -> None:
    assert list(structural(part)) != []


@pytest.mark.parametrize("name", DEFINITIONS)
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_of_katibs_fits(path: Path, name: str) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        if document.get("kind") == "Experiment":
            assert list(refusals(document, schema(DEFINITIONS[name]))) == []


def test_our_own_examples_fit_in_their_full_form() -> None:
    files = [path for path in sorted((ROOT / "examples").rglob("*.yaml")) if "kind: Experiment" in path.read_text()]
    assert files
    for path in files:
        for document in parse_documents(path.read_text(), str(path)):
            if document.data["kind"] == "Experiment":
                assert list(refusals(document.data, schema(OURS))) == []


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"maxTrialCount": "12"}, ".spec.maxTrialCount is no integer"),
        ({"parameters": {}}, ".spec.parameters is no array"),
        ({"algoritm": {}}, ".spec.algoritm is dropped"),
        ({"metricsCollectorSpec": {"source": {"httpGet": {"port": 1.5}}}}, ".port is neither"),
    ],
)
def test_a_wrong_type_or_key_is_told_by_kubectl_already(spec: dict[str, Any], told: str) -> None:
    (found,) = refusals({"spec": spec}, schema(OURS))

    assert told in found


def test_what_only_our_rules_can_judge_passes() -> None:
    spec = {
        "deadline": 1.5,
        "trialDeadline": "2h30m",
        "trialTemplate": {"trialSpec": {"anything": [{"at": "all"}]}},
        "metricsCollectorSpec": {"source": {"httpGet": {"port": "metrics"}}},
        "parameters": [{"name": "x", "when": {"y": [1, "a"]}}],
    }

    assert list(refusals({"spec": spec}, schema(OURS))) == []


def test_every_field_of_the_model_is_in_the_schema() -> None:
    spec = schema(OURS)["properties"]["spec"]["properties"]
    fields = Experiment.model_fields["spec"].annotation
    names = {field.alias for model in (fields.__args__[0],) for field in model.model_fields.values()}  # type: ignore[union-attr]

    assert set(spec) == names


def test_the_whole_status_fits() -> None:
    conditions = merge_conditions([], [invalid([])], 1)
    status = {key: value for key, value in of_record(a_record()).items() if value is not None}
    whole = {**status, "conditions": conditions, "appliedBudget": {"maxTrialCount": 3}, "observedGeneration": 2}

    assert list(refusals(whole, schema(OURS)["properties"]["status"])) == []


@pytest.mark.parametrize("name", DEFINITIONS)
def test_kubectl_get_shows_state_trials_best_and_age(name: str) -> None:
    (version,) = DEFINITIONS[name]["spec"]["versions"]

    shown = [column["name"] for column in version["additionalPrinterColumns"] if not column.get("priority")]
    assert shown == ["State", "Trials", "Best", "Age"]
    assert version["subresources"] == {"status": {}}
