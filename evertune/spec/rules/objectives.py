"""Rules about further objectives and about conditions on metrics."""

from __future__ import annotations

from collections.abc import Collection

from evertune.spec.findings import Findings, quote, suggestion
from evertune.spec.model import ConstraintSpec, ExperimentSpec, FurtherObjectiveSpec, ObjectiveSpec

DIRECTIONS = ("minimize", "maximize")
MAX_OBJECTIVES = 10
MAX_CONSTRAINTS = 100


def check_objectives(spec: ExperimentSpec, findings: Findings) -> None:
    """Those beside `objective`."""
    first = spec.objective or ObjectiveSpec()
    additional = set(first.additional_metric_names or ())
    seen: set[str] = set()
    if len(spec.objectives or ()) >= MAX_OBJECTIVES:
        message = f"more than {MAX_OBJECTIVES} objectives cannot be compared in reasonable time"
        findings.error("spec.objectives", "Invalid", message, "make conditions of some of them: constraints")
        return
    for index, further in enumerate(spec.objectives or ()):
        path = f"spec.objectives[{index}]"
        _check_objective(further, path, findings)
        name = further.name
        if name and name == first.objective_metric_name:
            message = f"{quote(name)} is the first objective already"
            findings.error(f"{path}.metric", "Duplicate", message, "remove it here")
        elif name in seen:
            findings.error(f"{path}.metric", "Duplicate", f"{quote(name)} is an objective already", "keep one")
        elif name in additional:
            message = f"{quote(name)} is among additionalMetricNames, too"
            findings.error(f"{path}.metric", "Duplicate", message, "remove it there: objectives are recorded anyway")
        seen.add(name)
    if spec.objectives and first.goal is not None:
        message = f"the goal ends the experiment by {first.objective_metric_name} alone, whatever else a trial reached"
        findings.warn("spec.objective.goal", message, "leave it out, or write constraints for the others")


def _check_objective(further: FurtherObjectiveSpec, path: str, findings: Findings) -> None:
    if further.type not in DIRECTIONS:
        message = f"{quote(further.type)} is not a direction" if further.type else "the direction is missing"
        findings.error(f"{path}.type", "Invalid", message, suggestion(further.type or "", DIRECTIONS, "known"))
    if not further.name:
        hint = "write {type: minimize, metric: latency_ms}"
        findings.error(f"{path}.metric", "Required", "the metric's name is missing", hint, at=path)
    elif further.metric and further.objective_metric_name:
        message = (
            f"metric {quote(further.metric)} and objectiveMetricName {quote(further.objective_metric_name)} differ"
        )
        findings.error(f"{path}.metric", "Invalid", message, "keep metric")
    if further.goal is not None:
        side = "ge" if further.type == "maximize" else "le"
        message = "only the first objective has a goal"
        hint = f"write constraints: [{{metric: {further.name}, {side}: {further.goal:g}}}]"
        findings.error(f"{path}.goal", "Invalid", message, hint)


def check_constraints(spec: ExperimentSpec, findings: Findings) -> None:
    """Conditions on metrics."""
    given = spec.constraints or []
    if len(given) > MAX_CONSTRAINTS:
        findings.error("spec.constraints", "Invalid", f"more than {MAX_CONSTRAINTS} constraints")
        return
    parameters = {parameter.name for parameter in spec.parameters or () if parameter.name}
    objective = spec.objective or ObjectiveSpec()
    metrics = {objective.objective_metric_name, *(objective.additional_metric_names or ())}
    metrics |= {further.name for further in spec.objectives or ()}
    seen: dict[tuple[str, str], float] = {}
    for index, constraint in enumerate(given):
        path = f"spec.constraints[{index}]"
        _check_sides(constraint, path, findings)
        _check_metric(constraint, path, parameters, metrics, findings)
        for side, bound in (("le", constraint.le), ("ge", constraint.ge)):
            if bound is None or not constraint.metric:
                continue
            if (constraint.metric, side) in seen:
                message = f"{constraint.metric} has a bound {side} already: {seen[constraint.metric, side]:g}"
                findings.error(f"{path}.{side}", "Duplicate", message, "keep the one that is meant")
            seen.setdefault((constraint.metric, side), bound)
            low, high = seen.get((constraint.metric, "ge")), seen.get((constraint.metric, "le"))
            if low is not None and high is not None and low > high:
                message = f"no value of {constraint.metric} is at least {low:g} and at most {high:g}"
                findings.error(path, "Invalid", message, "change one of the bounds")


def _check_sides(constraint: ConstraintSpec, path: str, findings: Findings) -> None:
    name = constraint.metric or "latency_ms"
    if constraint.le is None and constraint.ge is None:
        if not findings.has_errors_below(path):
            hint = f"write {{metric: {name}, le: 20}} for at most, ge: for at least"
            findings.error(path, "Required", "the bound is missing: le or ge", hint)
    elif constraint.le is not None and constraint.ge is not None:
        hint = f"two of them: {{metric: {name}, ge: {constraint.ge:g}}} and {{metric: {name}, le: {constraint.le:g}}}"
        findings.error(path, "Invalid", "a constraint has le or ge, not both", hint)


def _check_metric(
    constraint: ConstraintSpec,
    path: str,
    parameters: Collection[str],
    metrics: Collection[str | None],
    findings: Findings,
) -> None:
    name = constraint.metric
    if not name:
        hint = "write {metric: latency_ms, le: 20}"
        findings.error(f"{path}.metric", "Required", "the metric's name is missing", hint, at=path)
    elif name not in metrics and name in parameters:
        message = f"{quote(name)} is a parameter: trials are expected to report a metric of this name"
        findings.warn(f"{path}.metric", message, "of parameters: parameterConstraints")
    elif name not in metrics:
        folded = {_folded(known): known for known in metrics if known}
        if known := folded.get(_folded(name)):
            message = f"{quote(name)} is another metric than {quote(known)}"
            findings.warn(f"{path}.metric", message, f"did you mean {quote(known)}?", type_="NotFound")


def _folded(name: str) -> str:
    return "".join(char for char in name.lower() if char.isalnum())
