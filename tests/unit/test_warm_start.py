"""Starting from the trials of other experiments: judged at admission, once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from activities.admit import AdmitActivities
from evertune.domain.trial import Assignment
from evertune.store import Store, open_store
from evertune.testing.store.making import finish, suggest
from tests.unit.spec.samples import base
from tests.unit.test_admission import admission, problems_of, request

ENAS = ("architecture", "nn_config")
TPE = {"algorithmName": "tpe"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path}/evertune.db") as store:
        yield store


async def admit(store: Store, run: str, **changes: Any) -> AdmitActivities:
    activities = admission(store)
    await activities.admit(request(base(**{"spec__algorithm": TPE, **changes}), run))
    return activities


async def refused(store: Store, **changes: Any) -> ApplicationError:
    with pytest.raises(ApplicationError) as caught:
        await admit(store, "refused", metadata__name="second", **changes)
    return caught.value


async def test_one_starts_from_another_that_is_there_and_alike(store: Store) -> None:
    await admit(store, "first")
    source = store.experiment("default", "fake")
    suggest(store, source.uid, 0, [Assignment({"layers": 2}), Assignment({"layers": 3})])
    finish(store, source.uid, 1, 0.5)
    await admit(store, "second", metadata__name="second", spec__warmStart="fake")
    record = store.experiment("default", "second")
    assert record.context["warm_start"] == [{"uid": source.uid, "name": "fake", "cut": 1, "trials": 2}]
    assert record.context["libraries"]["hyperopt"]
    assert store.experiment("default", "second").manifest["spec"]["warmStart"] == {
        "from": ["fake"],
        "mode": "identical",
    }


async def test_an_algorithm_that_learns_from_nobody_cannot_start_from_others(store: Store) -> None:
    await admit(store, "first")
    error = await refused(store, spec__warmStart="fake", spec__algorithm={"algorithmName": "random"})
    assert problems_of(error) == [("Forbidden", "spec.warmStart")]
    assert "algorithms that can: " in str(error.details)


async def test_an_experiment_that_is_not_there_is_told_with_the_one_that_was_meant(store: Store) -> None:
    await admit(store, "first")
    error = await refused(store, spec__warmStart=["fakes", "team/fake"])
    assert problems_of(error) == [("NotFound", "spec.warmStart.from[0]"), ("NotFound", "spec.warmStart.from[1]")]
    assert 'did you mean "fake"?' in str(error.details)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"spec__objective__type": "minimize"}, "another objective: maximize accuracy"),
        ({"spec__parameters__0__feasibleSpace__max": "6"}, "another search space: layers differ"),
    ],
)
async def test_identical_means_the_same_objective_and_space(
    store: Store, changes: dict[str, Any], sentence: str
) -> None:
    await admit(store, "first")
    error = await refused(store, spec__warmStart="fake", **changes)
    assert sentence in str(error.details)
    assert "mode: transfer" in str(error.details)
    transfer = {"from": "fake", "mode": "transfer"}
    await admit(store, "third", metadata__name="third", spec__warmStart=transfer, **changes)


def architectures(layers: int, **changes: Any) -> dict[str, Any]:
    """The base as a search of architectures."""
    size = {"name": "size", "parameterType": "categorical", "feasibleSpace": {"list": ["3"]}}
    graph = {"numLayers": layers, "inputSizes": [8, 8, 1], "outputSizes": [10]}
    uses = {f"spec__trialTemplate__trialParameters__{i}__reference": key for i, key in enumerate(ENAS)}
    nas = {"graphConfig": graph, "operations": [{"operationType": "convolution", "parameters": [size]}]}
    return {
        "spec__parameters": None, "spec__nasConfig": nas, "spec__algorithm": TPE, **uses, **changes,
    }  # fmt: skip


async def test_identical_means_the_same_architectures(store: Store) -> None:
    await admit(store, "first", **architectures(2))
    await admit(store, "same", **architectures(2, metadata__name="same", spec__warmStart="fake"))
    error = await refused(store, **architectures(3, spec__warmStart="fake"))
    assert "searches other architectures" in str(error.details)


async def test_what_was_admitted_stays_admitted_when_the_other_is_gone(store: Store) -> None:
    await admit(store, "first")
    await admit(store, "second", metadata__name="second", spec__warmStart="fake")
    admitted = store.experiment("default", "second")
    store.delete_experiment(store.experiment("default", "fake").uid)
    await admit(store, "second", metadata__name="second", spec__warmStart="fake")
    assert store.experiment("default", "second") == admitted
