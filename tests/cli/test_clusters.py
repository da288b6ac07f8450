"""`doctor` and `run` for a cluster: what is checked, when it counts, and what is said."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from evertune.settings import Settings
from evertune.stack.processes import identity_of
from evertune.stack.state import Service, StackState
from evertune.testing.kubernetes import FakeCluster
from evertune.testing.kubernetes.objects import JsonDict
from evertune.testing.scripts import Script
from tests.cli.cluster import serving
from tests.cli.conftest import Shell
from tests.cli.test_process import evertune
from tests.repository.checkout import ROOT

EXAMPLES = sorted((ROOT / "examples" / "kubernetes").glob("*.yaml"))
MARKS = "✔◇✘"
JOB = ROOT / "examples" / "kubernetes" / "job.yaml"


@pytest.fixture
def kubeconfig(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In force, but not there yet; nothing else of this machine says anything of clusters."""
    for name in ("EVERTUNE_KUBECONFIG", "EVERTUNE_KUBE_CONTEXT", "EVERTUNE_INGEST_URL", "EVERTUNE_SERVER_HOST"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "kubeconfig"
    monkeypatch.setenv("KUBECONFIG", str(path))
    return path


@pytest.fixture
def kube(kubeconfig: Path) -> Iterator[FakeCluster]:
    with serving(kubeconfig) as kube:
        yield kube


def marks(out: str) -> dict[str, str]:
    """The mark of each finding, by what it is about; the worst of several."""
    found: dict[str, str] = {}
    for line in out.splitlines():
        if line[:1] and line[0] in MARKS:
            what = line[2:].split("  ")[0]
            found[what] = max(found.get(what, line[0]), line[0], key=MARKS.index)
    return found


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_doctor_finds_that_an_example_can_run(
    shell: Shell, kube: FakeCluster, example: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERTUNE_INGEST_URL", "http://gateway.example:8090")
    code, out, err = shell("doctor", "-f", str(example))

    assert code == 0, out
    found = marks(out)
    expected = ("Cluster", "API server", "Kind", "Namespace", "Rights", "Collector", "Trial", "Gateway")
    assert {what: found.get(what) for what in expected} == dict.fromkeys(expected, "✔")
    assert not {"Trials", "GPU"} & found.keys(), "trials in a cluster need nothing of this machine"
    assert f"evertune run {example}" in err
    assert kube.store.all("jobs") == []


def test_a_cluster_that_nobody_asked_for_is_a_warning_and_one_that_was_is_a_problem(
    shell: Shell, kubeconfig: Path
) -> None:
    code, out, _ = shell("doctor")
    assert (code, marks(out)["Cluster"], marks(out)["Trials"]) == (0, "◇", "✔")
    assert f"there is no kubeconfig at {kubeconfig}" in out

    for words in (["--backend", "kubernetes"], ["--context", "lab"], ["--probe"], ["-f", str(JOB)]):
        code, out, err = shell("doctor", *words)
        assert (code, marks(out)["Cluster"]) == (1, "✘")
        assert f"mend these, then evertune doctor {' '.join(words)}" in err


def test_without_any_kubeconfig_doctor_is_silent_about_clusters(
    shell: Shell, kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    code, out, _ = shell("doctor")
    assert (code, marks(out).get("Cluster")) == (0, None)


def test_missing_rights_are_printed_as_yaml_to_copy(shell: Shell, kube: FakeCluster) -> None:
    kube.forbidden |= {("create", "jobs"), ("get", "pods/log")}
    code, out, _ = shell("doctor", "-f", str(JOB), "-n", "default")

    assert (code, marks(out)["Rights"]) == (1, "✘")
    rules = yaml.safe_load("\n".join(line.strip() for line in out.splitlines() if line.strip().startswith("- {")))
    assert rules == [
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    ]


def test_a_template_in_a_config_map_of_the_cluster_is_looked_at_as_well(
    shell: Shell, kube: FakeCluster, tmp_path: Path
) -> None:
    experiment = yaml.safe_load(JOB.read_text())
    template = experiment["spec"]["trialTemplate"]
    job = template.pop("trialSpec")
    template["configMap"] = {"configMapName": "kept", "configMapNamespace": "default", "templatePath": "job.yaml"}
    template |= {
        "successCondition": 'status.conditions.#(type=="Complete")#|#(status=="True")#',
        "failureCondition": 'status.conditions.#(type=="Failed")#|#(status=="True")#',
    }
    file = tmp_path / "kept.yaml"
    file.write_text(yaml.safe_dump(experiment))
    code, out, _ = shell("doctor", "-f", str(file))
    assert (code, marks(out)["Trial"], 'configmaps "kept" not found' in out) == (1, "✘", True)

    kept = {"metadata": {"name": "kept"}, "data": {"job.yaml": yaml.safe_dump(job)}}
    kube.store.create("configmaps", kept, "default")
    code, out, _ = shell("doctor", "-f", str(file))
    assert (code, marks(out)["Trial"]) == (0, "✔")

    kube.forbidden.add(("get", "configmaps"))
    code, out, _ = shell("doctor", "-f", str(file))
    assert (code, marks(out)["Trial"], marks(out)["Rights"]) == (1, "✘", "◇")


def test_a_file_with_problems_is_told_as_everywhere(shell: Shell, kubeconfig: Path, tmp_path: Path) -> None:
    code, _, err = shell("doctor", "-f", str(tmp_path / "nothing.yaml"))
    assert (code, "there is no file" in err) == (2, True)
    broken = tmp_path / "broken.yaml"
    broken.write_text(JOB.read_text().replace("objectiveMetricName: loss", "objective: loss"))
    code, _, err = shell("doctor", "-f", str(broken))
    assert (code, "broken.yaml" in err) == (2, True)


# ------------------------------------------------------------------------------------------------------------ run


def test_run_says_what_is_in_its_way_and_starts_nothing(shell: Shell, kube: FakeCluster, settings: Settings) -> None:
    kube.forbidden.add(("create", "jobs"))
    code, out, err = shell("run", str(JOB))

    assert (code, out) == (1, "")
    assert marks(err)["Rights"] == "✘"
    assert '- {apiGroups: ["batch"], resources: [jobs], verbs: [create]}' in err
    assert f"evertune doctor -f {JOB} --backend kubernetes" in err
    assert not settings.state_file.exists()


def test_run_refuses_a_context_that_the_kubeconfig_lacks_or_the_file_contradicts(
    shell: Shell, kube: FakeCluster, tmp_path: Path
) -> None:
    code, _, err = shell("run", str(JOB), "--context", "lab")
    assert (code, "has no context lab" in err, "it has: fake" in err) == (1, True, True)

    elsewhere = tmp_path / "elsewhere.yaml"
    elsewhere.write_text(JOB.read_text().replace("  annotations:", "  annotations:\n    evertune.io/cluster: other", 1))
    code, _, err = shell("run", str(elsewhere), "--context", "lab")
    assert (code, 'says evertune.io/cluster: "other", but --context says "lab"' in " ".join(err.split())) == (2, True)

    local = tmp_path / "local.yaml"
    local.write_text(JOB.read_text().replace("backend: kubernetes", "backend: local"))
    for verb in ("run", "submit"):
        code, _, err = shell(verb, str(local), "--context", "lab")
        assert (code, "the trials run locally" in err) == (2, True)


def test_a_worker_that_was_started_with_another_kubeconfig_is_told_with_the_way_out(
    shell: Shell, kube: FakeCluster, settings: Settings
) -> None:
    state = StackState(
        version="0", database="", database_shown="", embedded=True, temporal_namespace="default",
        worker=Service(identity=identity_of(os.getpid())),
        told={**settings.told_of_clusters(), "EVERTUNE_KUBECONFIG": "/elsewhere"},
    )  # fmt: skip
    state.save(settings.state_file)
    code, _, err = shell("run", str(JOB))

    assert (code, marks(err)["Worker"]) == (1, "✘")
    assert "EVERTUNE_KUBECONFIG /elsewhere, not " in err
    assert "evertune down" in err

    state.told = settings.told_of_clusters()
    state.save(settings.state_file)
    _, out, _ = shell("doctor", "-f", str(JOB))
    assert "it was started with" not in out


@pytest.mark.slow
def test_an_experiment_runs_in_a_cluster_with_the_stack_of_a_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def script(pod: JsonDict) -> Script:
        given = {entry["name"]: entry.get("value") for entry in pod["spec"]["containers"][0]["env"]}
        return Script(lines=(f"loss={float(given['LR']) ** 2}",))

    home, kubeconfig = tmp_path / "home", tmp_path / "kubeconfig"
    with serving(kubeconfig, script) as kube:
        environment: dict[str, Any] = {"KUBECONFIG": kubeconfig.name}  # relative: the worker works elsewhere
        try:
            done = evertune(home, "run", str(JOB), timeout_s=300, **environment)
            assert done.returncode == 0, done.stderr
            assert "metrics are read from the pods' logs" in done.stderr
            trials = evertune(home, "trials", "job", "-o", "json", **environment)
        finally:
            evertune(home, "down")
        found = yaml.safe_load(trials.stdout)
        assert len(found) == 9
        assert {trial["state"] for trial in found} == {"Succeeded"}
        assert kube.count("POST", "/jobs") >= 9
        assert kube.store.all("jobs") == []
