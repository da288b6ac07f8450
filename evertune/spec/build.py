"""From the few things that only the user knows to a full Katib Experiment: one Job with one container `trial`.

Shared by the short form, `tune` and `init`. `{lr}` in a command or an environment value becomes the placeholder of the
parameter `lr`; `{trial.name}` and `{trial.namespace}` become those of the trial; other braces stay as they are.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evertune.errors import UsageError
from evertune.spec.findings import did_you_mean, quote
from evertune.spec.model import JsonDict
from evertune.spec.template import PLACEHOLDER, placeholder

CONTAINER = "trial"
DEFAULT_ALGORITHM = "tpe"
DEFAULT_OF_SEVERAL = "auto"  # which takes one that can do several objectives, or constraints on metrics
DEFAULT_PARALLEL = 3
# Annotation: the algorithm that we took. Nobody is warned of what they did not choose.
DEFAULTED = "evertune.io/default-algorithm"

_BRACES = re.compile(r"(?<!\$)\{([^{}]+)\}")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_METADATA = {
    "trial.name": ("trialName", "${trialSpec.Name}"),
    "trial.namespace": ("trialNamespace", "${trialSpec.Namespace}"),
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a short form or a command line says. `parameters` are Katib parameter specs."""

    name: str
    command: Sequence[str]
    parameters: Sequence[JsonDict]
    objective: JsonDict  # Katib's objective; empty: the first of `objectives` in `extra`
    entry_point: bool = False  # the image has its own program: `command` is what follows it
    algorithm: str = ""  # what fits, if nobody names one
    settings: Mapping[str, str] = field(default_factory=dict)
    trials: int | None = None
    parallel: int | None = None
    failures: int | None = None
    image: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    metadata: JsonDict = field(default_factory=dict)
    extra: JsonDict = field(default_factory=dict)  # further keys of spec: seed, deadline, workingDir, …

    def manifest(self) -> JsonDict:
        names = {parameter["name"] for parameter in self.parameters}
        used: dict[str, None] = {}
        command = [_with_placeholders(word, names, used) for word in self.command]
        env = [
            {"name": key, "value": _with_placeholders(value, names, used)} for key, value in self.environment.items()
        ]
        container: JsonDict = {"name": CONTAINER, "args" if self.entry_point else "command": command}
        if self.image:
            container["image"] = self.image
        if env:
            container["env"] = env
        template: JsonDict = {
            "primaryContainerName": CONTAINER,
            "trialParameters": [_trial_parameter(name) for name in used],
            "trialSpec": {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "spec": {"template": {"spec": {"containers": [container], "restartPolicy": "Never"}}},
            },
        }
        several = bool(self.extra.get("objectives") or self.extra.get("constraints"))
        fitting = DEFAULT_OF_SEVERAL if several else DEFAULT_ALGORITHM
        algorithm: JsonDict = {"algorithmName": self.algorithm or fitting}
        if self.settings:
            algorithm["algorithmSettings"] = [{"name": key, "value": value} for key, value in self.settings.items()]
        spec: JsonDict = {"objective": dict(self.objective)} if self.objective else {}
        spec["algorithm"] = algorithm
        parallel = self.parallel
        if parallel is None:
            enough = isinstance(self.trials, int) and 0 < self.trials < DEFAULT_PARALLEL
            parallel = self.trials if enough else DEFAULT_PARALLEL
        counts = (
            ("parallelTrialCount", parallel),
            ("maxTrialCount", self.trials),
            ("maxFailedTrialCount", self.failures),
        )
        spec.update({key: value for key, value in counts if value is not None})
        spec.update({"parameters": [dict(parameter) for parameter in self.parameters], "trialTemplate": template})
        spec.update(self.extra)
        metadata = {"name": self.name, **self.metadata}
        annotations = metadata.get("annotations", {})
        if not self.algorithm and isinstance(annotations, dict):
            metadata["annotations"] = {**annotations, DEFAULTED: fitting}
        return {
            "apiVersion": "kubeflow.org/v1beta1",
            "kind": "Experiment",
            "metadata": metadata,
            "spec": spec,
        }


def _trial_parameter(name: str) -> JsonDict:
    if name in _METADATA:
        return {"name": _METADATA[name][0], "reference": _METADATA[name][1]}
    return {"name": name, "reference": name}


def _with_placeholders(text: str, names: Container[str], used: dict[str, None]) -> str:
    def replace(match: re.Match[str]) -> str:
        name = match[1].strip()
        if name in names:
            used[name] = None
            return placeholder(name)
        if name in _METADATA:
            used[name] = None
            return placeholder(_METADATA[name][0])
        return match[0]

    for name in PLACEHOLDER.findall(text):  # Katib's own spelling is welcome too
        if name in names:
            used[name] = None
    return _BRACES.sub(replace, text)


def unused_parameters(names: Sequence[str], texts: Iterable[str]) -> dict[str, str | None]:
    """Parameters that no text mentions, each with the misspelled `{word}` that was probably meant for it."""
    known = set(names)
    used: dict[str, None] = {}
    left: list[str] = []
    for text in texts:
        left.extend(_BRACES.findall(_with_placeholders(text, known, used)))
    return {name: did_you_mean(name, left) for name in names if name not in used}


def split_command(text: str) -> list[str]:
    """The words of a command line. One that needs a shell (pipes, variables, several lines) gets `sh -c`.

    Raises ValueError when a quote is not closed.
    """
    line = text.strip()
    words = shlex.split(line)
    if words and (_needs_shell(line) or _ASSIGNMENT.match(words[0])):
        return ["sh", "-c", line]
    return words


def _needs_shell(line: str) -> bool:
    inside = ""
    before = " "
    escaped = False
    for char in line:
        if escaped:
            escaped = False
        elif char == "\\" and inside != "'":
            escaped = True
        elif inside:
            if char == inside:
                inside = ""
            elif inside == '"' and char in "$`":
                return True
        elif char in "'\"":
            inside = char
        elif char in "|&;<>()$`*?\n" or (char in "#~" and before.isspace()):
            return True
        before = char
    return False


def quick_experiment(
    *,
    name: str,
    command: Sequence[str] | str | None,
    parameters: Sequence[JsonDict],
    direction: str,
    metric: str,
    goal: float | None = None,
    additional: Sequence[str] = (),
    trials: int | None = None,
    parallel: int | None = None,
    failures: int | None = None,
    algorithm: str = "",
    settings: Mapping[str, str] | None = None,
    image: str | None = None,
    namespace: str | None = None,
    seed: int | None = None,
    working_dir: str | None = None,
    deadline: str | None = None,
    trial_deadline: str | None = None,
    further: Mapping[str, Any] | None = None,
) -> JsonDict:
    """A full Experiment from the flags of `tune` or the answers of `init`, not yet checked; raises UsageError.

    `parameters` come from `parse_dimension`, `command` holds `{name}` where a value goes. Without a command the program
    of the `image` gets every parameter as `--name=value`. `further`: more keys of spec, as the full form has them.
    """
    names = [str(parameter["name"]) for parameter in parameters]
    entry_point = command is None and image is not None
    words = [f"--{name}={{{name}}}" for name in names] if entry_point else _words(command or "")
    for parameter, meant in unused_parameters(names, words).items():
        mend = f"you wrote {{{meant}}}: {{{parameter}}}" if meant else f"write {{{parameter}}} where its value goes"
        raise UsageError(f"the command does not use the parameter {quote(parameter)}", mend)
    objective: JsonDict = {"type": direction, "objectiveMetricName": metric}
    if goal is not None:
        objective["goal"] = goal
    if additional:
        objective["additionalMetricNames"] = list(additional)
    extra = {"seed": seed, "workingDir": working_dir, "deadline": deadline, "trialDeadline": trial_deadline}
    return Plan(
        name=name,
        command=words,
        parameters=parameters,
        objective=objective,
        entry_point=entry_point,
        algorithm=algorithm,
        settings=settings or {},
        trials=trials,
        parallel=parallel,
        failures=failures,
        image=image,
        metadata={"namespace": namespace} if namespace else {},
        extra={key: value for key, value in {**extra, **(further or {})}.items() if value is not None},
    ).manifest()


def _words(command: Sequence[str] | str) -> list[str]:
    try:
        words = split_command(command) if isinstance(command, str) else list(command)
    except ValueError:
        raise UsageError(f"a quote is not closed in {quote(command)}") from None
    if not words:
        raise UsageError("the command is empty", "for example: python train.py --lr {lr}")
    return words
