"""Launches made from Katib's example files, and what they are rendered to. Shared by the tests of this directory.

python -m tests.kubernetes.rendering      writes tests/data/kubernetes/rendered anew; look at the difference
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from activities.launch import collected, primary_container
from activities.runners.kubernetes.render import Features, Injection, Rendered, rendered
from evertune import spec
from evertune.domain.space import Value
from evertune.domain.trial import AttemptRef
from evertune.protocols import JsonDict, Launch

KATIB = Path(__file__).parents[1] / "data" / "katib"
GOLDEN = Path(__file__).parents[1] / "data" / "kubernetes" / "rendered"
EXAMPLES = sorted(KATIB.glob("*/*.yaml"))
TEMPLATES = {  # Katib installs it; trial-configmap-source.yaml is about it
    ("kubeflow", "trial-templates", "defaultTrialTemplate.yaml"): """
apiVersion: batch/v1
kind: Job
spec:
  template:
    spec:
      containers:
        - name: training-container
          image: example.io/mnist:1
          command: [python3, /opt/mnist.py, "--lr=${trialParameters.learningRate}",
                    "--layers=${trialParameters.numberLayers}", "--optimizer=${trialParameters.optimizer}"]
      restartPolicy: Never
"""
}
UID = "0123456789abcdef0123456789abcdef"
TOKEN = "et1.key.claims.mac"
CONFIG = Injection(image="example.io/collector:1")
MODERN = Features(server_version=(1, 34))
OLD = Features(server_version=(1, 28))


def parameters_of(experiment: spec.Experiment) -> dict[str, Value]:
    """The lowest or first value of each parameter; of what an algorithm draws by itself, a text with quotes in it."""
    space = {parameter.name: parameter for parameter in spec.to_space(experiment)}
    template = experiment.spec.trial_template if experiment.spec else None
    values: dict[str, Value] = {}
    for item in (template and template.trial_parameters) or ():
        reference = item.reference or ""
        if reference in space:
            parameter = space[reference]
            values[reference] = parameter.values[0] if parameter.values else parameter.low
        elif not reference.startswith("${"):
            values[reference] = "{'layers': [[1], [2, 0]]}"
    return values


def launch_of(file: Path) -> Launch:
    (document,) = spec.parse_documents(file.read_text(), file.name)
    if file.stem == "simple-pbt":  # breaks a rule of Katib's own
        document.data["spec"]["maxFailedTrialCount"] = 2
    return launch_from(document.data)


def launch_from(document: JsonDict) -> Launch:
    """Of the fourth trial of an experiment."""
    experiment = spec.load_experiment(document, templates=TEMPLATES)
    name, parameters = f"{experiment.name}-00000003", parameters_of(experiment)
    manifest = spec.render_trial(experiment, trial_name=name, parameters=parameters, templates=TEMPLATES)
    template = experiment.spec.trial_template if experiment.spec else None
    return Launch(
        ref=AttemptRef(UID, 3, 1, name),
        manifest=manifest,
        primary_container=primary_container(experiment),
        working_dir="/",
        custom_collector=spec.custom_collector(experiment),
        parameters=parameters,
        ingest_url="http://gateway.evertune:8090",
        token=TOKEN,
        collector=collected(experiment),
        labels=spec.pod_labels(experiment, name),
        primary_pod_labels=(template and template.primary_pod_labels) or {},
    )


def render(launch: Launch, features: Features = MODERN, config: Injection = CONFIG) -> Rendered:
    return rendered(launch, database_id="db", config=config, features=features)


def golden_file(file: Path) -> Path:
    return GOLDEN / f"{file.stem}.yaml"


def as_text(made: Rendered) -> str:
    said: dict[str, Any] = {"mode": made.mode, "reason": made.reason, "warnings": list(made.warnings)}
    return yaml.safe_dump({**said, "manifest": json.loads(json.dumps(made.manifest))}, sort_keys=True, width=110)


def everything(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, leaf) of all that is in an object."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not isinstance(value, dict | list):
        yield path, value
    for key, inner in items:
        yield from everything(inner, f"{path}/{key}")


def main() -> None:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for file in EXAMPLES:
        golden_file(file).write_text(as_text(render(launch_of(file))))


if __name__ == "__main__":
    main()
