"""Rules about search parameters and the NAS search space."""

from __future__ import annotations

import json

from evertune.spec.convert import number
from evertune.spec.findings import Findings, quote, suggestion
from evertune.spec.model import Experiment, ExperimentSpec, FeasibleSpace, ParameterSpec
from evertune.spec.template import PLACEHOLDER, metadata_key

TYPES = ("double", "int", "discrete", "categorical")
DISTRIBUTIONS = ("uniform", "logUniform", "normal", "logNormal")


def check_parameters(experiment: Experiment, findings: Findings) -> None:
    spec = experiment.spec or ExperimentSpec()
    if not spec.parameters and spec.nas_config is None:
        message = "there is nothing to search: parameters or nasConfig must be given"
        findings.error("spec", "Required", message, at="spec.parameters")
    if spec.parameters and spec.nas_config is not None:
        findings.error("spec", "Invalid", "parameters and nasConfig exclude each other", at="spec.nasConfig")
    inline = spec.trial_template is None or spec.trial_template.config_map is None
    _check_list(spec.parameters or [], "spec.parameters", findings, inline=inline)
    if spec.nas_config is not None:
        _check_nas(spec, findings)


def _check_list(parameters: list[ParameterSpec], path: str, findings: Findings, *, inline: bool) -> None:
    first: dict[str, int] = {}
    for index, parameter in enumerate(parameters):
        if findings.full:
            return
        here = f"{path}[{index}]"
        if not parameter.name:
            findings.error(f"{here}.name", "Required", "the parameter's name is missing")
        elif parameter.name in first:
            message = f"{quote(parameter.name)} is the name of parameter {first[parameter.name]} already"
            findings.error(f"{here}.name", "Duplicate", message, "rename one of them")
        elif metadata_key(parameter.name) is not None:
            message = f"{quote(parameter.name)} is what is known about a trial, and cannot be the name of a parameter"
            findings.error(f"{here}.name", "Invalid", message, "rename it")
        first.setdefault(parameter.name or "", index)
        check_parameter(parameter, here, findings, inline=inline)


def check_parameter(parameter: ParameterSpec, path: str, findings: Findings, *, inline: bool) -> None:
    kind = parameter.parameter_type
    if kind not in TYPES:
        message = f"{quote(kind)} is not a parameter type" if kind else "the type is missing"
        findings.error(f"{path}.parameterType", "Invalid", message, suggestion(kind or "", TYPES, "known"))
    space = parameter.feasible_space
    where = f"{path}.feasibleSpace"
    if space is None:
        findings.error(where, "Required", "feasibleSpace is missing", _example(kind))
        return
    if space.distribution and space.distribution not in (*DISTRIBUTIONS, "unknown"):
        hint = suggestion(space.distribution, DISTRIBUTIONS, "known")
        message = f"{quote(space.distribution)} is not a distribution"
        findings.error(f"{where}.distribution", "Invalid", message, hint)
    if kind in ("int", "double"):
        _check_range(kind, space, where, findings)
    elif kind in ("discrete", "categorical"):
        _check_items(kind, space, where, findings, inline=inline)


def _example(kind: str | None) -> str:
    return 'write {list: ["a", "b"]}' if kind in ("discrete", "categorical") else 'write {min: "0", max: "1"}'


def _check_range(kind: str, space: FeasibleSpace, where: str, findings: Findings) -> None:
    if space.items:
        message = f"list is for discrete and categorical, not for {kind}"
        findings.error(f"{where}.list", "Invalid", message, "give min and max, or change parameterType")
    if not space.min or not space.max:
        message = "min and max must be given" if not space.min and not space.max else "min and max must both be given"
        findings.error(f"{where}.max", "Required", message)
    bounds = {
        name: _number(kind, name, text, where, findings) for name, text in (("min", space.min), ("max", space.max))
    }
    low, high = bounds["min"], bounds["max"]
    if low is not None and high is not None and low > high:
        hint = f'{space.min} is above {space.max}; mend: {{min: "{space.max}", max: "{space.min}"}}'
        findings.error(where, "Invalid", "min must be below max", hint, at=f"{where}.min")
    if low is not None and low <= 0 and space.distribution in ("logUniform", "logNormal"):
        message = f"min {space.min} must be above 0 for the distribution {space.distribution}"
        findings.error(f"{where}.min", "Invalid", message, "a logarithm needs positive numbers")
    step = _number(kind, "step", space.step, where, findings)
    if step is None:
        return
    if step <= 0:
        findings.error(f"{where}.step", "Invalid", f"step {space.step} must be above 0")
    elif kind == "int" and step != int(step):
        rounded = max(1, round(step))
        findings.warn(f"{where}.step", f"step {space.step} of an int is taken as {rounded}")
    elif low is not None and high is not None and low < high and step > high - low:
        findings.warn(f"{where}.step", f"step {space.step} is wider than the range: only min is ever tried")


def _number(kind: str, name: str, text: str | None, where: str, findings: Findings) -> float | None:
    if not text:
        return None
    try:
        value = number(text)
    except ValueError:
        findings.error(f"{where}.{name}", "Invalid", f"{quote(text)} is not a finite number")
        return None
    if kind == "int" and name != "step" and value != int(value):
        message = f"{quote(text)} is not a whole number, as the type int needs"
        findings.error(f"{where}.{name}", "Invalid", message, "use parameterType: double for fractions")
        return None
    if kind == "int" and abs(value) > 2**53:
        findings.error(f"{where}.{name}", "Invalid", f"{quote(text)} is too large to be searched exactly")
        return None
    return value


def _check_items(kind: str, space: FeasibleSpace, where: str, findings: Findings, *, inline: bool) -> None:
    given = [name for name in ("min", "max", "step") if getattr(space, name)]
    if given:
        message = f"{', '.join(given)} {'is' if len(given) == 1 else 'are'} for int and double, not for {kind}"
        hint = "give a list, or change parameterType"
        findings.error(where, "Invalid", message, hint, at=f"{where}.{given[0]}")
    items = space.items or []
    if not items and not given:
        findings.error(f"{where}.list", "Required", "the list of values is empty", _example(kind))
    seen: set[str] = set()
    for index, item in enumerate(items):
        if findings.full:
            return
        at = f"{where}.list[{index}]"
        if item in seen:
            findings.warn(at, f"{quote(item)} is in the list twice", type_="Duplicate")
        seen.add(item)
        if kind == "discrete" and not _numeric(item):
            findings.error(at, "Invalid", f"{quote(item)} is not a number", "use parameterType: categorical for words")
        if PLACEHOLDER.search(item):
            message = f"{quote(item)} is replaced in the template in its turn: a trial may get another value"
            findings.warn(at, message, "write the value itself")
        if inline and not _fits_json(item):
            message = f"{quote(item)} cannot be put into the template: values are not escaped"
            findings.error(at, "Invalid", message, 'avoid " and \\ and line breaks')
    if space.distribution in ("logUniform", "normal", "logNormal"):
        findings.warn(f"{where}.distribution", f"{space.distribution} has no meaning for {kind} and is ignored")


def _numeric(text: str) -> bool:
    try:
        number(text)
    except ValueError:
        return False
    return True


def _fits_json(text: str) -> bool:
    """Whether the template is still JSON after this text was put between two quotes in it."""
    try:
        return isinstance(json.loads(f'"{text}"'), str)
    except ValueError:
        return False


def _check_nas(spec: ExperimentSpec, findings: Findings) -> None:
    nas = spec.nas_config
    for number_, operation in enumerate((nas and nas.operations) or ()):
        path = f"spec.nasConfig.operations[{number_}]"
        if not operation.operation_type:
            findings.error(f"{path}.operationType", "Required", "the operation's type is missing")
        _check_list(operation.parameters or [], f"{path}.parameters", findings, inline=False)
        for index, parameter in enumerate(operation.parameters or ()):
            if parameter.when is not None:
                message = "the parameters of an operation have no conditions"
                findings.error(f"{path}.parameters[{index}].when", "Forbidden", message, "remove it")
