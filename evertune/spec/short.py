"""The short form: an experiment in ten lines, expanded to the full one.

    name: digits
    command: python train.py --C {C} --kernel {kernel}
    parameters:
      C: loguniform(0.01, 1000)
      kernel: [rbf, poly]
    objective: maximize accuracy
    goal: 0.985
    budget: {trials: 24, parallel: 4, failures: 3}

A document is short when it has no `spec` and its apiVersion, if any, is `evertune.io/v1`. Optional: `algorithm` (tpe,
or auto where objectives or constraints need it; or a mapping of name and settings), `metrics` (additional names),
`image`, `env`, `namespace`, `labels`, `annotations`,
`trials`/`parallel`/`failures` outside `budget`, and every key of the full `spec` that the short form does not make
itself (`seed`, `deadline`, `metricsCollectorSpec`, …), with phrases where those have
mappings: `objectives: [minimize size]`, `constraints: [latency_ms <= 20]`, `momentum: uniform(0, 1) if optimizer=sgd`
(see `phrases`). Problems of the expanded form are told in the user's own lines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from evertune.spec.build import Plan, split_command, unused_parameters
from evertune.spec.dimension import DimensionError, dimension
from evertune.spec.document import Document, child_path
from evertune.spec.findings import Findings, did_you_mean, quote, suggestion
from evertune.spec.model import ExperimentSpec, JsonDict
from evertune.spec.phrases import PhraseError, assignment_in, constraint_in, objective_in
from evertune.spec.structure import describe, shape

_OWN = (
    "apiVersion", "kind", "name", "namespace", "labels", "annotations", "command", "image", "env", "parameters",
    "objective", "goal", "metrics", "budget", "trials", "parallel", "failures", "algorithm",
)  # fmt: skip
_MADE = (
    "parameters",
    "objective",
    "algorithm",
    "trialTemplate",
    "parallelTrialCount",
    "maxTrialCount",
    "maxFailedTrialCount",
)
_BUDGET = {"trials": "maxTrialCount", "parallel": "parallelTrialCount", "failures": "maxFailedTrialCount"}
_TELLING = ("command", "parameters", "objective", "budget")


def is_short(data: Mapping[str, Any]) -> bool:
    if "spec" in data or data.get("apiVersion", "evertune.io/v1") != "evertune.io/v1":
        return False
    return "apiVersion" in data or any(key in data for key in _TELLING)


@dataclass
class Expansion:
    """The full document, and for each of its paths the place in the short one that it came from."""

    data: JsonDict = field(default_factory=dict)
    origins: dict[str, tuple[str, bool]] = field(default_factory=dict)  # full -> (short, keeps what follows)

    def came_from(self, full: str, short: str, *, verbatim: bool = False) -> None:
        self.origins[full] = (short, verbatim)

    def translate(self, path: str) -> str:
        rest = ""
        while path:
            if path in self.origins:
                short, verbatim = self.origins[path]
                return short + rest if verbatim else short
            cut = path.rindex("[") if path.endswith("]") and "[" in path else max(path.rfind("."), 0)
            path, rest = path[:cut], path[cut:] + rest
        return rest


def expand(document: Document, findings: Findings) -> Expansion | None:
    """The full form, or None when the short one is too broken to be judged further; reports into `findings`."""
    return _Reader(document, findings).read()


class _Reader:
    def __init__(self, document: Document, findings: Findings) -> None:
        self.data: JsonDict = document.data
        self.raw = document.raw
        self.findings = findings
        self.expansion = Expansion()

    def read(self) -> Expansion | None:
        own = self.expansion
        data = self.data
        passed = [key for key in shape(ExperimentSpec) if key not in _MADE]
        for key in data:
            if key not in _OWN and key not in passed:
                hint = _BUDGET_HINTS.get(key) or suggestion(key, _OWN, "known")
                self.findings.wrong_key(child_path("", key), f"{quote(key)} is not a key of the short form", hint)
        if data.get("kind", "Experiment") != "Experiment":
            self.findings.error("kind", "Invalid", f"{quote(data['kind'])} is not an Experiment")
            return None
        for key in passed:
            own.came_from(f"spec.{key}", key, verbatim=True)
        for key in ("name", "namespace", "labels", "annotations"):
            own.came_from(f"metadata.{key}", key, verbatim=True)
        own.came_from("spec.trialTemplate", "command")
        own.came_from("spec", "")
        command = self._command()
        environment = self._texts("env")
        parameters = self._parameters()
        objective = self._objective()
        algorithm, settings = self._algorithm()
        counts = self._budget()
        if command is None or objective is None or parameters is None:
            return None
        names = [parameter["name"] for parameter in parameters]
        indices = {name: index for index, name in enumerate(names)}
        for name, meant in unused_parameters(names, [*command, *environment.values()]).items():
            message = f"the command does not use {{{name}}}: its values would never reach a trial"
            hint = (
                f"the command has {{{meant}}}; write {{{name}}}" if meant else f"write {{{name}}} where the value goes"
            )
            self.findings.error(child_path("parameters", name), "Invalid", message, hint)
            self.findings.silence(f"spec.parameters[{indices[name]}].name")
        metadata: JsonDict = {key: data[key] for key in ("namespace", "labels", "annotations") if key in data}
        own.data = Plan(
            name=data.get("name", ""),
            command=command,
            parameters=parameters,
            objective=objective,
            algorithm=algorithm,
            settings=settings,
            **counts,
            image=self._text("image"),
            environment=environment,
            metadata=metadata,
            extra={key: self._spelled_out(key) for key in passed if key in data},
        ).manifest()
        return own

    def _spelled_out(self, key: str) -> Any:
        """A value that is passed on, its phrases as mappings."""
        value, read = self.data[key], _PHRASES.get(key)
        if read is None or not isinstance(value, list):
            return value
        found: list[Any] = []
        promoted = key == "objectives" and self.data.get("objective") is None
        for index, item in enumerate(value):
            try:
                found.append(read(item) if isinstance(item, str) else item)
            except PhraseError as error:
                self.findings.error(f"{key}[{index}]", "Invalid", error.message, error.hint)
                first = promoted and index == 0  # it becomes spec.objective, and the others move up
                self.findings.silence("spec.objective" if first else f"spec.{key}[{index - promoted}]")
                found.append({})
        if promoted and found and isinstance(found[0], dict):
            for short, full in (("goal", "goal"), ("metrics", "additionalMetricNames")):
                if self.data.get(short) is not None:
                    found[0] = {full: self.data[short], **found[0]}
                    self.expansion.came_from(f"spec.objectives[0].{full}", short, verbatim=True)
        return found

    # Each reader reports a wrong type once and gives something harmless instead.

    def _text(self, key: str, path: str | None = None, value: Any = None) -> str | None:
        path = path or key
        value = self.data.get(key) if value is None else value
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, bool | int | float):
            return self.raw.get(path, quote(value))
        self.findings.error(path, "Invalid", f"must be text, not {describe(value)}")
        return None

    def _texts(self, key: str) -> dict[str, str]:
        table = self.data.get(key) or {}
        if not isinstance(table, dict):
            self.findings.error(key, "Invalid", f"must be a mapping of names to values, not {describe(table)}")
            return {}
        return {name: self._text(name, child_path(key, name), value) or "" for name, value in table.items()}

    def _command(self) -> list[str] | None:
        command = self.data.get("command")
        if isinstance(command, str) and command.strip():
            try:
                return split_command(command)
            except ValueError:
                self.findings.error("command", "Invalid", "a quote is not closed in the command")
                return None
        if isinstance(command, list) and command:
            return [self._text("", f"command[{index}]", word) or "" for index, word in enumerate(command)]
        message = f"must be text or a list of words, not {describe(command)}" if command else "the command is missing"
        hint = "for example: python train.py --lr {lr}"
        self.findings.error("command", "Invalid" if command else "Required", message, hint)
        return None

    def _parameters(self) -> list[JsonDict] | None:
        table = self.data.get("parameters")
        if not isinstance(table, dict) or not table:
            message = f"must map names to ranges, not {describe(table)}" if table else "there is nothing to search"
            hint = "for example: lr: loguniform(1e-5, 1e-1)"
            self.findings.error("parameters", "Invalid" if table else "Required", message, hint)
            return None
        found: list[JsonDict] = []
        for name, value in table.items():
            path = child_path("parameters", name)
            try:
                parameter = dimension(name, value, lambda below, path=path: self.raw.get(path + below))  # type: ignore[misc]
            except DimensionError as error:
                at = child_path(path, error.key) if error.key else path
                self.findings.error(at, "Invalid", error.message, error.hint)
                continue
            full = f"spec.parameters[{len(found)}]"
            self.expansion.came_from(full, path)
            if isinstance(value, dict):
                self.expansion.came_from(f"{full}.feasibleSpace", path, verbatim=True)
                self.expansion.came_from(f"{full}.parameterType", child_path(path, "type"))
                self.expansion.came_from(f"{full}.when", child_path(path, "when"), verbatim=True)
            elif isinstance(value, list):
                self.expansion.came_from(f"{full}.feasibleSpace.list", path, verbatim=True)
            found.append(parameter)
        return found if len(found) == len(table) else None

    def _objective(self) -> JsonDict | None:
        value = self.data.get("objective")
        self.expansion.came_from("spec.objective", "objective")
        objective: JsonDict = {}
        if value is None and self.data.get("objectives") and isinstance(self.data["objectives"], list):
            return {}  # the first of them, once that is decoded
        if isinstance(value, str):
            direction, _, metric = value.strip().partition(" ")
            objective = {"type": direction, "objectiveMetricName": metric.strip()}
        elif isinstance(value, dict):
            for direction in ("maximize", "minimize"):
                if direction in value:
                    objective = {"type": direction, "objectiveMetricName": value[direction]}
            for key in value:
                if key not in ("maximize", "minimize", "goal"):
                    hint = suggestion(key, ("maximize", "minimize", "goal"), "known")
                    path = child_path("objective", key)
                    self.findings.wrong_key(path, f"{quote(key)} is not a key of the objective", hint)
        if objective.get("type") not in ("maximize", "minimize") or not objective.get("objectiveMetricName"):
            hint = "for example: maximize accuracy"
            if isinstance(value, str) and (close := did_you_mean(value.split(" ")[0], ("maximize", "minimize"))):
                hint = f"did you mean {close}?; {hint}" if close != objective.get("type") else hint
            message = (
                f"must say what to maximize or minimize, not {describe(value)}" if value else "objective is missing"
            )
            self.findings.error("objective", "Invalid" if value else "Required", message, hint)
            return None
        goal_at = "objective.goal" if isinstance(value, dict) and "goal" in value else "goal"
        goal = value["goal"] if isinstance(value, dict) and "goal" in value else self.data.get("goal")
        if goal is not None:
            objective["goal"] = goal
        self.expansion.came_from("spec.objective.goal", goal_at)
        if (metrics := self.data.get("metrics")) is not None:
            objective["additionalMetricNames"] = metrics
            self.expansion.came_from("spec.objective.additionalMetricNames", "metrics", verbatim=True)
        return objective

    def _algorithm(self) -> tuple[str, dict[str, str]]:
        self.expansion.came_from("spec.algorithm", "algorithm")
        value = self.data.get("algorithm", "")
        if not isinstance(value, dict):
            return self._text("algorithm", "algorithm", value) or "", {}
        self.expansion.came_from("spec.algorithm.algorithmName", "algorithm.name")
        settings = {
            key: self._text(key, child_path("algorithm", key), item) or ""
            for key, item in value.items()
            if key != "name"
        }
        for index, key in enumerate(settings):
            self.expansion.came_from(f"spec.algorithm.algorithmSettings[{index}]", child_path("algorithm", key))
        return self._text("name", "algorithm.name", value.get("name", "")) or "", settings

    def _budget(self) -> dict[str, Any]:
        budget = self.data.get("budget")
        table: Mapping[str, Any] = budget if isinstance(budget, dict) else {}
        if budget is not None and not isinstance(budget, dict):
            hint = "write budget: {trials: 24, parallel: 4}"
            self.findings.error("budget", "Invalid", f"must be a mapping, not {describe(budget)}", hint)
        for key in table:
            if key not in _BUDGET:
                hint = suggestion(key, tuple(_BUDGET), "known")
                self.findings.wrong_key(child_path("budget", key), f"{quote(key)} is not part of a budget", hint)
        counts: dict[str, Any] = {}
        for key, full in _BUDGET.items():
            inside = key in table
            if inside and key in self.data:
                self.findings.error(key, "Duplicate", f"{key} stands in budget too", "keep one of the two")
            counts[key] = table[key] if inside else self.data.get(key)
            if counts[key] is not None and not isinstance(counts[key], int | float | str | bool):
                self.findings.error(f"budget.{key}" if inside else key, "Invalid",
                                    f"must be a whole number, not {describe(counts[key])}")  # fmt: skip
                counts[key] = None
            missing = "budget" if "budget" in self.data else ""
            self.expansion.came_from(
                f"spec.{full}", f"budget.{key}" if inside else key if key in self.data else missing
            )
        return counts


_PHRASES: Mapping[str, Callable[[str], JsonDict]] = {
    "objectives": objective_in,
    "constraints": constraint_in,
    "initialTrials": assignment_in,
}
_BUDGET_HINTS: dict[str, str] = {full: f"in the short form: budget: {{{key}: …}}" for key, full in _BUDGET.items()}
