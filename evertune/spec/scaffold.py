"""An Experiment as commented YAML, for `evertune init`: what was decided, why it is there, and what else there is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from evertune.spec.events import resolve
from evertune.spec.model import JsonDict

_SAFE = re.compile(r"[A-Za-z_./][A-Za-z0-9_./ =-]*\Z")

_ABOVE = {  # comment lines above a key of spec
    "objective": ["What a trial reports and which way is better. Print it as name=value, one line per report."],
    "goal": ["The experiment succeeds as soon as a trial is this good."],
    "algorithm": ["Who proposes the next trial: random, grid, tpe, multivariate-tpe.", "Seeds make a run repeatable."],
    "parallelTrialCount": ["How much runs at a time, in all, and how many trials may fail before the experiment does."],
    "parameters": [
        "What is searched. Numbers are text here (quoted), as in Katib.",
        "double and int: min, max, step, distribution (uniform, logUniform, normal, logNormal);",
        "categorical and discrete: list.",
    ],
    "trialTemplate": ["What one trial runs. ${trialParameters.NAME} is replaced by the value of the trial."],
    "trialParameters": ["name: the placeholder; reference: the parameter above, or ${trialSpec.Name}."],
    "trialSpec": ["A Kubernetes Job; without a cluster its command runs as a local process."],
}
_OBJECTIVE_OPTIONS = {"goal": "    # goal: 0.99", "additionalMetricNames": "    # additionalMetricNames: [loss]"}
_OPTIONS = {  # key of spec -> lines that offer it where it is not set
    "objectives": [
        "# Objectives beside the one above:",
        "# objectives: [{type: minimize, metric: latency_ms}]",
    ],
    "constraints": [
        "# Bounds that metrics have to keep, and what the parameters of a trial have to satisfy:",
        "# constraints: [{metric: memory_mb, le: 512}]",
        '# parameterConstraints: ["layers * width <= 4096"]',
    ],
    "initialTrials": ["# Trials to begin with:", "# initialTrials: [{lr: 0.001}]"],
    "replicates": ["# Run each trial several times, and take the mean:", "# replicates: 3"],
    "seed": ["# Draw the same proposals again:", "# seed: 1"],
    "deadline": ["# Ends the experiment, or one trial, after this time:", "# deadline: 2h", "# trialDeadline: 10m"],
    "onCompletion": [
        "# Trials that still run when the verdict falls: cancel (default) or drain.",
        "# onCompletion: drain",
    ],
    "workingDir": ["# Where local trials run; the directory of `evertune run` if absent:", "# workingDir: ."],
    "metricsCollectorSpec": [
        "# Another way to find the metrics in the output (RE2, two groups: name and value):",
        "# metricsCollectorSpec:",
        "#   source:",
        "#     filter:",
        r"#       metricsFormat: ['([\w-]+): ([-+.\deE]+)']",
    ],
}


def commented_yaml(manifest: JsonDict) -> str:
    """The YAML text of a manifest (from `quick_experiment`), explained. Parsing it gives the manifest back."""
    lines = [
        "# evertune validate FILE     all problems at once, with their lines",
        "# evertune run FILE          runs it, here or where it was left",
        f"apiVersion: {manifest['apiVersion']}",
        f"kind: {manifest['kind']}",
        "metadata:",
        *_mapping(manifest["metadata"], 1),
        "spec:",
    ]
    spec = manifest["spec"]
    for key, value in spec.items():
        if key in _ABOVE:
            lines += ["", *(f"  # {comment}" for comment in _ABOVE[key])]
        lines += _entry(key, value, 1)
        if key == "objective":
            lines += [text for option, text in _OBJECTIVE_OPTIONS.items() if option not in value]
    for key, options in _OPTIONS.items():
        if key not in spec:
            lines += ["", *(f"  {option}" for option in options)]
    return "\n".join(lines) + "\n"


def _mapping(table: JsonDict, depth: int) -> Iterator[str]:
    for key, value in table.items():
        if depth > 1:
            yield from (f"{'  ' * depth}# {comment}" for comment in _ABOVE.get(key, ()))
        yield from _entry(key, value, depth)


def _entry(key: str, value: Any, depth: int) -> Iterator[str]:
    pad = "  " * depth
    if isinstance(value, dict) and value:
        yield f"{pad}{_scalar(key)}:"
        yield from _mapping(value, depth + 1)
    elif isinstance(value, list) and value:
        if all(not isinstance(item, dict | list) for item in value) and key == "list":
            yield f"{pad}{_scalar(key)}: [{', '.join(_scalar(item, flow=True) for item in value)}]"
            return
        yield f"{pad}{_scalar(key)}:"
        for item in value:
            if isinstance(item, dict) and item:
                inner = list(_mapping(item, depth + 2))
                first = next(index for index, line in enumerate(inner) if not line.lstrip().startswith("#"))
                inner[first] = f"{pad}  - {inner[first].lstrip()}"
                yield from inner
            else:
                yield f"{pad}  - {_scalar(item)}"
    else:
        yield f"{pad}{_scalar(key)}: {_scalar(value)}"


def _scalar(value: Any, *, flow: bool = False) -> str:
    if (
        isinstance(value, str)
        and not flow
        and _SAFE.match(value)
        and value == value.strip()
        and isinstance(resolve(value), str)
    ):
        return value
    return json.dumps(value, ensure_ascii=False)
