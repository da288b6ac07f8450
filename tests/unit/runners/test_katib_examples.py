"""Katib's own Job examples run as local processes, with the stand-in trainers of examples/katib."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

import collectors
import evertune.spec as spec
from activities.launch import collected, shared_paths
from activities.runners.local import LocalRunner
from activities.runners.local.attempt import Attempt
from activities.runners.local.paths import rewrite_text
from collectors.text import TextRules
from evertune.domain.metrics import summarize
from evertune.domain.space import Value
from evertune.domain.states import AttemptState
from evertune.domain.trial import AttemptRef
from evertune.protocols import Launch
from tests.unit.runners.world import ref, sh

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "tests/data/katib"
STAND_INS = ROOT / "examples/katib"

MNIST: dict[str, Value] = {"lr": 0.02, "momentum": 0.6}
DARTS: dict[str, Value] = {
    "algorithm-settings": "{'num_epochs': '2', 'num_nodes': '1'}",
    "search-space": "['max_pooling_3x3', 'skip_connection']",
    "num-layers": "1",
}
ENAS: dict[str, Value] = {
    "architecture": "[[2], [0, 1]]",
    "nn_config": "{'num_layers': 2, 'input_sizes': [32, 32, 3], 'embedding': {'2': {'opt_id': 2}}}",
}


@pytest.fixture
async def runner(tmp_path: Path) -> AsyncIterator[LocalRunner]:
    runner = LocalRunner(tmp_path / "trials")
    yield runner
    runner.close()


def example(name: str) -> spec.Experiment:
    (document,) = spec.parse_documents((EXAMPLES / name).read_text(), name)
    return spec.load_experiment(document.data)


def launch_of(
    experiment: spec.Experiment, attempt: AttemptRef, parameters: dict[str, Value], shared: tuple[str, ...] = ()
) -> Launch:
    images = yaml.safe_load((STAND_INS / "images.yaml").read_text())
    return Launch(
        ref=attempt,
        manifest=spec.render_trial(experiment, trial_name=attempt.trial_name, parameters=parameters),
        primary_container="training-container",
        working_dir="/",
        environment={
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "STAND_IN_SECONDS": "0",
        },
        image_roots={image: str(STAND_INS / directory) for image, directory in images.items()},
        shared_paths=shared,
        custom_collector=spec.custom_collector(experiment),
    )


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("hp-tuning/random.yaml", MNIST),
        ("hp-tuning/grid.yaml", MNIST),
        ("hp-tuning/hyperband.yaml", {**MNIST, "num-epochs": 3}),
        ("hp-tuning/optuna-distribution.yaml", {**MNIST, "epochs": 2, "batch_size": 64}),
        ("early-stopping/median-stop.yaml", MNIST),
        ("resume-experiment/long-running-resume.yaml", MNIST),
        ("hp-tuning/simple-pbt.yaml", {"lr": 0.01}),
        ("nas/darts-cpu.yaml", DARTS),
        ("nas/enas-cpu.yaml", ENAS),
    ],
)
async def test_the_objective_of_a_katib_example_is_found(
    runner: LocalRunner, name: str, parameters: dict[str, Value]
) -> None:
    # simple-pbt is refused by Katib's own rule on its counts, not on anything that a trial sees.
    (document,) = spec.parse_documents((EXAMPLES / name).read_text(), name)
    assert document.data is not None
    document.data["spec"]["maxFailedTrialCount"] = 1
    document.data["spec"]["maxTrialCount"] = 12
    experiment = spec.load_experiment(document.data)
    launch = launch_of(experiment, ref(), parameters, shared=("/var/log/katib",))
    await runner.create(launch)
    end = await asyncio.wait_for(runner.wait(ref()), 90)
    assert end.state is AttemptState.SUCCEEDED, end
    wanted = spec.collector_spec(experiment)
    collector = collectors.create(wanted, runner.sources(launch, wanted.path))
    summaries = summarize([*collector.read(), *collector.finish()])
    assert summaries[wanted.metrics[0]].latest, collector.findings()


async def test_files_of_parallel_trials_never_meet(runner: LocalRunner) -> None:
    experiment = example("metrics-collector/file-metrics-collector.yaml")
    wanted = spec.collector_spec(experiment)
    assert wanted.path == "/katib/mnist.log"
    rates, there = (0.01, 0.02, 0.03), Path("/katib").exists()
    for number, rate in enumerate(rates):
        await runner.create(launch_of(experiment, ref(number), {"lr": rate, "momentum": 0.5}, shared=("/katib",)))
    accuracies = set()
    for number in range(len(rates)):
        assert (await asyncio.wait_for(runner.wait(ref(number)), 90)).state is AttemptState.SUCCEEDED
        private = Path(rewrite_text(wanted.path, ("/katib",), runner.directory(ref(number))))
        lines = private.read_bytes().splitlines()
        rules = TextRules(wanted.metrics, wanted.filters)
        points = [point for line in lines for point in rules.points(line, 0) if point.metric == "accuracy"]
        assert len(points) == 1, "each trial wrote to a file of its own"
        accuracies.add(points[0].value)
    assert len(accuracies) == len(rates)
    assert Path("/katib").exists() == there


@pytest.mark.parametrize(
    ("name", "parameters", "replicas", "written"),
    [
        ("kubeflow-training-operator/pytorchjob-mnist.yaml", MNIST, ["master-0", "worker-0"], []),
        (
            "kubeflow-training-operator/tfjob-mnist-with-summaries.yaml",
            {"learning_rate": 0.02, "batch_size": 50},
            ["worker-0", "worker-1"],
            ["files/mnist-with-summaries-logs", "replicas/worker-1/files/mnist-with-summaries-logs"],
        ),
    ],
)
async def test_a_distributed_katib_example_runs_all_its_replicas_and_only_the_first_reports(
    runner: LocalRunner, name: str, parameters: dict[str, Value], replicas: list[str], written: list[str]
) -> None:
    experiment = example(name)
    assert experiment.spec is not None
    template = experiment.spec.trial_template
    assert template is not None
    launch = dataclasses.replace(
        launch_of(experiment, ref(), parameters, shared=shared_paths(experiment)),
        primary_container=template.primary_container_name or "",
        primary_pod_labels=template.primary_pod_labels or {},
    )
    await runner.create(launch)
    end = await asyncio.wait_for(runner.wait(ref()), 90)
    assert end.state is AttemptState.SUCCEEDED, end
    attempt = Attempt(runner.log_path(ref()).parent)
    assert list(attempt.replicas) == replicas
    wanted = collected(experiment)
    collector = collectors.create(wanted, runner.sources(launch, wanted.path))
    points = [point for point in [*collector.read(), *collector.finish()] if point.metric == wanted.metrics[0]]
    assert len({point.seq for point in points}) == len(points) > 0
    events = attempt.directory.rglob("*.tfevents.*")  # each replica's are its own
    found = {str(each.parents[1].relative_to(attempt.directory)) for each in events}
    # The job ends with its first worker, maybe before another one has written anything.
    assert set(written[:1]) <= found <= set(written)


CUSTOM = "metrics-collector/custom-metrics-collector.yaml"


async def test_katibs_custom_collector_reports_what_the_trainer_wrote_to_its_file(runner: LocalRunner) -> None:
    experiment = example(CUSTOM)
    launch = launch_of(experiment, ref(), {**MNIST}, shared=shared_paths(experiment))
    await runner.create(launch)
    end = await asyncio.wait_for(runner.wait(ref()), 90)
    assert (end.state, end.warnings) == (AttemptState.SUCCEEDED, ())
    sources = runner.sources(launch, collected(experiment).path)
    assert sources.printed is not None, "its own collector ran: the file is read only if that reported nothing"
    assert sources.reports is not None
    reports = [json.loads(line) for line in sources.reports.read_text().splitlines()]
    assert [list(report["metrics"]) for report in reports] == [["accuracy"]]
    assert 0.5 < reports[0]["metrics"]["accuracy"] < 1
    points = list(collectors.create(collected(experiment), sources).finish())
    assert len([point for point in points if point.metric == "accuracy"]) == 1, "and nothing comes twice"


@pytest.mark.parametrize(("kind", "shared"), [("File", "/katib"), ("Directory", "/katib/mnist.log")])
def test_a_custom_collectors_file_is_in_a_shared_directory_or_is_one(kind: str, shared: str) -> None:
    (document,) = spec.parse_documents((EXAMPLES / CUSTOM).read_text(), CUSTOM)
    assert document.data is not None
    document.data["spec"]["metricsCollectorSpec"]["source"]["fileSystemPath"]["kind"] = kind
    assert shared_paths(spec.load_experiment(document.data)) == (shared,)


async def test_without_a_directory_for_its_image_the_file_is_found_by_our_own_rules(runner: LocalRunner) -> None:
    experiment = example(CUSTOM)
    launch = launch_of(experiment, ref(), {**MNIST}, shared=shared_paths(experiment))
    roots = {image: root for image, root in launch.image_roots.items() if "custom" not in image}
    launch = dataclasses.replace(launch, image_roots=roots)
    await runner.create(launch)
    end = await asyncio.wait_for(runner.wait(ref()), 90)
    assert end.state is AttemptState.SUCCEEDED
    assert ["is not run" in warning for warning in end.warnings] == [True]
    wanted = collected(experiment)
    path = runner.sources(launch, wanted.path).path
    assert path is not None
    rules = TextRules(wanted.metrics, wanted.filters)
    points = [point for line in path.read_bytes().splitlines() for point in rules.points(line, 0)]
    assert [point.metric for point in points] == ["accuracy"]
    assert points[0].number is not None


async def test_the_json_file_of_parallel_trials_holds_what_hypertune_writes(runner: LocalRunner) -> None:
    experiment = example("metrics-collector/file-metrics-collector-with-json-format.yaml")
    for number in range(2):
        launch = launch_of(experiment, ref(number), {**MNIST}, shared=shared_paths(experiment))
        await runner.create(launch)
    for number in range(2):
        assert (await asyncio.wait_for(runner.wait(ref(number)), 90)).state is AttemptState.SUCCEEDED
        path = Path(f"{runner.directory(ref(number))}/katib/mnist.json")
        (record,) = [json.loads(line) for line in path.read_text().splitlines()]
        assert set(record) == {"timestamp", "trial", "loss", "accuracy"}


async def test_the_collector_of_the_readme_is_one(runner: LocalRunner) -> None:
    text = (STAND_INS / "README.md").read_text()
    snippet = textwrap.dedent(text[text.index("    customCollector:") :].partition("\n\n")[0])
    container = yaml.safe_load(snippet)["customCollector"]
    launch = sh(
        "echo acc 0.5 >/katib/my.log; echo acc 0.75 >>/katib/my.log",
        shared_paths=("/katib",),
        custom_collector=container,
    )
    await runner.create(launch)
    end = await asyncio.wait_for(runner.wait(ref()), 90)
    assert (end.state, end.warnings) == (AttemptState.SUCCEEDED, ())
    printed = runner.sources(launch, "/katib/my.log").printed
    assert printed is not None
    reports = [json.loads(line) for line in printed.read_text().splitlines()]
    assert reports == [{"metrics": {"accuracy": 0.5}}, {"metrics": {"accuracy": 0.75}}]


def test_the_tensorflow_stand_in_writes_event_files_with_nothing_but_python(tmp_path: Path) -> None:
    script = STAND_INS / "tf-mnist-with-summaries/opt/tf-mnist-with-summaries/mnist.py"
    subprocess.run([sys.executable, "-I", "-S", str(script), "--epochs=2", f"--log-path={tmp_path}"], check=True)
    for name in ("train", "test"):
        (events,) = (tmp_path / name).iterdir()
        assert b"accuracy" in events.read_bytes()
