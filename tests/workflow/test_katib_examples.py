"""Every experiment file of Katib's, from submission to its best trial, with the stand-in trainers of examples/katib.

What Katib itself refuses runs as the corrected copy. By default with the counts of Katib's own end-to-end tests; marked
slow with those that the files have.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import evertune.spec as spec
from evertune.contracts import StartContext, TemplateText
from evertune.domain.metrics import ObjectiveType
from evertune.domain.records import ExperimentRecord
from evertune.domain.states import ExperimentState, TrialState
from evertune.errors import SpecError
from tests.workflow.harness import House, a_house

ROOT = Path(__file__).parents[2]
KATIB = ROOT / "tests" / "data" / "katib"
STAND_INS = ROOT / "examples" / "katib"

REFUSED = ("hp-tuning/simple-pbt", "trial-template/trial-configmap-source")  # by Katib's own rules, and so by evertune
FILES = [
    *(file for file in sorted(KATIB.rglob("*.yaml")) if str(file.relative_to(KATIB).with_suffix("")) not in REFUSED),
    *sorted((STAND_INS / "corrected").glob("*.yaml")),
]
WAIT_S = 280  # twelve trials, on a machine that has other things to do
AT_ONCE = {"STAND_IN_SECONDS": "0"}  # what stands in for training takes its time, so that it can be stopped early
AS_THEY_ARE = ("hyperband", "darts-cpu", "darts-gpu")  # in Katib's end-to-end tests

pytestmark = pytest.mark.timeout(WAIT_S + 20)
every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def home(temporal_address: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """One for all files: the libraries of the algorithms are loaded once."""
    async with a_house(temporal_address, tmp_path_factory.mktemp("katib")) as opened:
        yield opened


def read(file: Path) -> tuple[dict[str, Any], list[TemplateText]]:
    """The experiment of a file as it stands there, and the templates of the ConfigMap beside it."""
    documents = spec.parse_documents(file.read_text(), file.name)
    (data,) = [document.data for document in documents if (document.data or {}).get("kind") == "Experiment"]
    assert data is not None
    texts = [
        TemplateText(namespace=namespace, name=name, key=key, text=text)
        for (namespace, name, key), text in spec.templates_of(documents).items()
        if isinstance(text, str)
    ]
    return data, texts


def roots() -> dict[str, str]:
    (document,) = spec.parse_documents((STAND_INS / "images.yaml").read_text(), "images.yaml")
    return {image: str(STAND_INS / folder) for image, folder in (document.data or {}).items()}


async def ran(
    house: House,
    document: dict[str, Any],
    texts: list[TemplateText],
    *,
    images: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> ExperimentRecord:
    """With the python3 that is first on the PATH, as for anybody; `environment` beside it."""
    context = StartContext(
        working_dir=str(house.workdir),
        backend="local",
        environment={"PATH": os.environ["PATH"], **(AT_ONCE if environment is None else environment)},
        image_roots={**roots(), **(images or {})},
        templates=texts,
    )
    return await house.ended(await house.client.submit(document, context=context), WAIT_S)


def check(house: House, record: ExperimentRecord) -> None:
    """What Katib's end-to-end tests demand, and that no trial failed."""
    assert record.state is ExperimentState.SUCCEEDED, f"{record.reason}: {record.message}"
    trials = house.store.trials(record.uid)
    assert {trial.state for trial in trials} <= {TrialState.SUCCEEDED, TrialState.EARLY_STOPPED}
    best, objective = record.best, record.objective
    assert best is not None
    assert best.objective == best.metrics[objective.metric]
    if objective.metric == "Best-Genotype":
        assert (best.objective or "").startswith("Genotype(normal=[[(")
    else:
        values = [trial.objective_value for trial in trials if trial.objective_value is not None]
        assert len(values) == len(trials)
        assert best.objective_value == (max if objective.type is ObjectiveType.MAXIMIZE else min)(values)
    for trial in trials:
        if trial.state is TrialState.SUCCEEDED:
            assert set(trial.metrics) >= {objective.metric, *objective.additional}
    if record.reason == "ExperimentMaxTrialsReached":
        assert record.counts.succeeded + record.counts.early_stopped == record.budget.max_trials
    else:
        assert record.reason == "ExperimentGoalReached"
        assert best.objective_value is not None
        assert objective.reached(best.objective_value)


@every_file
@pytest.mark.asyncio(loop_scope="module")
async def test_an_experiment_of_katibs_finds_its_best_trial(home: House, file: Path) -> None:
    document, texts = read(file)
    if file.parent.name == "corrected":
        document["metadata"]["name"] += "-corrected"  # else the name of the original
    if file.stem not in AS_THEY_ARE:
        document["spec"].update(maxTrialCount=2, parallelTrialCount=1, maxFailedTrialCount=0)
    check(home, await ran(home, document, texts))


@every_file
@pytest.mark.slow
@pytest.mark.long
async def test_it_does_with_the_counts_that_it_has(house: House, file: Path) -> None:
    document, texts = read(file)
    stops = "earlyStopping" in document["spec"]
    record = await ran(house, document, texts, environment={} if stops else AT_ONCE)
    check(house, record)
    assert (record.counts.early_stopped > 0) == stops


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.asyncio(loop_scope="module")
async def test_what_katib_refuses_is_refused_and_has_a_corrected_copy_that_runs(home: House, name: str) -> None:
    document, _ = read(KATIB / f"{name}.yaml")
    with pytest.raises(SpecError):
        await home.client.submit(document, context=StartContext(working_dir=str(home.workdir), backend="local"))
    assert STAND_INS / "corrected" / f"{Path(name).name}.yaml" in FILES


# Stands before a stand-in, says which words its process got, and is then that program.
TELLTALE = """
import json, os, runpy, sys
with open(os.path.join({folder!r}, str(os.getpid())), "w") as told:
    json.dump(sys.argv[1:], told)
runpy.run_path({program!r}, run_name="__main__")
"""


async def arguments(house: House, folder: Path, name: str) -> list[list[str]]:
    """What the processes of an example's trials got as their arguments, one list for each trial."""
    document, texts = read(KATIB / "nas" / f"{name}.yaml")
    document["metadata"]["name"] = f"{name}-told"
    told, root = folder / "told", folder / "root"
    told.mkdir()
    root.mkdir()
    (image,) = [image for image in roots() if f'"{image}:' in json.dumps(document)]
    for program in Path(roots()[image]).glob("*.py"):
        (root / program.name).write_text(TELLTALE.format(folder=str(told), program=str(program)))
    check(house, await ran(house, document, texts, images={image: str(root)}))
    return [json.loads(file.read_text()) for file in told.iterdir()]


SETTINGS = (
    "{'num_epochs': '%s', 'w_lr': 0.025, 'w_lr_min': 0.001, 'w_momentum': 0.9, 'w_weight_decay': 0.0003, "
    "'w_grad_clip': 5.0, 'alpha_lr': 0.0003, 'alpha_weight_decay': 0.001, 'batch_size': 128, 'num_workers': 4, "
    "'init_channels': %s, 'print_step': 50, 'num_nodes': %s, 'stem_multiplier': %s}"
)
OPERATIONS = (
    "['separable_convolution_3x3', 'dilated_convolution_3x3', 'dilated_convolution_5x5', 'avg_pooling_3x3', "
    "'max_pooling_3x3', 'skip_connection']"
)


@pytest.mark.parametrize(
    ("name", "settings", "operations", "layers"),
    [
        ("darts-cpu", SETTINGS % ("1", "'1'", "'1'", "'1'"), "['max_pooling_3x3']", 1),
        ("darts-gpu", SETTINGS % ("3", "16", "4", "3"), OPERATIONS, 3),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_darts_trial_gets_katibs_arguments_byte_for_byte(
    home: House, tmp_path: Path, name: str, settings: str, operations: str, layers: int
) -> None:
    assert await arguments(home, tmp_path, name) == [
        [f"--algorithm-settings={settings}", f"--search-space={operations}", f"--num-layers={layers}"]
    ]


@pytest.mark.asyncio(loop_scope="module")
async def test_an_enas_trial_gets_katibs_arguments_byte_for_byte(home: House, tmp_path: Path) -> None:
    separable = itertools.product(("3", "5", "7"), ("32", "48", "64", "96", "128"), ("1", "2"), ("1", "2"))
    operations = [
        *(
            f"'convolution', 'opt_params': {{'filter_size': '{size}', 'num_filter': '{filters}', 'stride': '{stride}'}}"
            for size, filters, stride in itertools.product(("3", "5", "7"), ("32", "48", "64", "96", "128"), ("1", "2"))
        ),
        *(
            f"'separable_convolution', 'opt_params': {{'filter_size': '{size}', 'num_filter': '{filters}', "
            f"'stride': '{stride}', 'depth_multiplier': '{depth}'}}"
            for size, filters, stride, depth in separable
        ),
        *(
            f"'depthwise_convolution', 'opt_params': {{'filter_size': '{size}', 'stride': '{stride}', "
            f"'depth_multiplier': '{depth}'}}"
            for size, stride, depth in itertools.product(("3", "5", "7"), ("1", "2"), ("1", "2"))
        ),
        *(
            f"'reduction', 'opt_params': {{'reduction_type': '{kind}', 'pool_size': {size}}}"
            for kind, size in itertools.product(("max_pooling", "avg_pooling"), (2, 3))
        ),
    ]
    possible = [
        [
            "--num_epochs=1",
            f"--architecture=[[{number}]]",
            "--nn_config={'num_layers': 1, 'input_sizes': [32, 32, 3], 'output_sizes': [10], 'embedding': "
            f"{{'{number}': {{'opt_id': {number}, 'opt_type': {operation}}}}}}}",
        ]
        for number, operation in enumerate(operations)
    ]
    told = await arguments(home, tmp_path, "enas-cpu")
    assert len(told) == 3
    assert [words for words in told if words not in possible] == []
