"""Rules about who searches and who stops early: names and settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from evertune.domain.metrics import Objective, ObjectiveType
from evertune.domain.space import Parameter, ParameterType, SearchProblem, SearchSpace
from evertune.spec.build import DEFAULTED
from evertune.spec.convert import search_problem, seed_of, stopper_settings_of, to_objective
from evertune.spec.findings import Findings, quote, suggestion
from evertune.spec.model import AlgorithmSetting, Experiment, ExperimentSpec
from evertune.spec.rules.space import sound_space
from evertune.spec.template import metadata_key

if TYPE_CHECKING:
    from evertune.spec.catalog import Catalog


def check_algorithm(experiment: Experiment, findings: Findings, catalog: Catalog | None) -> None:
    spec = experiment.spec or ExperimentSpec()
    algorithm = spec.algorithm
    if algorithm is None:
        hint = "write algorithm: {algorithmName: tpe}"
        findings.error("spec.algorithm", "Required", "algorithm is missing", hint)
        return
    name, path = algorithm.algorithm_name, "spec.algorithm.algorithmName"
    settings = algorithm.algorithm_settings or []
    _check_setting_names(settings, "spec.algorithm.algorithmSettings", findings)
    if not name:
        findings.error(path, "Required", "the algorithm's name is missing", "random and tpe are good starts")
        return
    if catalog is None or findings.broken(path):
        return
    names = catalog.names()
    if name not in names:
        findings.error(path, "Invalid", f"{quote(name)} is not an algorithm", suggestion(name, names, "known"))
        return
    if findings.full:
        return
    complete, problem = _problem(experiment, findings)
    if problem is None:
        return
    problems = catalog.check(name, problem)
    # Without the whole space an algorithm can still judge its own settings.
    findings.adopt(p for p in problems if complete or p.path.startswith("spec.algorithm"))
    if any(problem_.path == path for problem_ in problems):
        return  # it cannot even be imported
    _warn_of_unknown_settings(name, settings, {p.path for p in problems}, findings, catalog)
    if problem.nas is not None and not problem.space:
        _check_references(spec, name, catalog.handed_out(name, problem), findings)
    chosen = experiment.annotations.get(DEFAULTED) != name
    if complete and chosen and not problems and _sound_counts(findings):
        findings.adopt_warnings(catalog.warnings(name, problem))


def _warn_of_unknown_settings(
    name: str, settings: list[AlgorithmSetting], refused: set[str], findings: Findings, catalog: Catalog
) -> None:
    """Some of Katib's services let any setting pass. A slip of the pen is told all the same."""
    known = catalog.settings(name)
    for index, setting in enumerate(settings):
        path = f"spec.algorithm.algorithmSettings[{index}].name"
        if known and setting.name and setting.name not in known and path not in refused:
            message = f"{quote(setting.name)} is not a setting that {name} knows"
            findings.warn(path, message, suggestion(setting.name, known, "known"))


def _check_references(spec: ExperimentSpec, name: str, given: Sequence[str] | None, findings: Findings) -> None:
    """With nasConfig it is the algorithm that names the values; each of them must go into the template, as always."""
    template, path = spec.trial_template, "spec.trialTemplate.trialParameters"
    if given is None or template is None or template.trial_parameters is None or findings.broken(path):
        return
    references = [item.reference or "" for item in template.trial_parameters]
    broken = sum(not reference or findings.broken(f"{path}[{i}]") for i, reference in enumerate(references))
    for index, reference in enumerate(references):
        if reference and reference not in given and metadata_key(reference) is None:
            broken += 1
            hint = suggestion(reference, given, "it gives")
            message = f"{name} gives a trial no {quote(reference)}"
            findings.error(f"{path}[{index}].reference", "Invalid", message, hint)
    unused = [value for value in given if value not in references]
    for value in unused if len(unused) > broken else ():
        message = f"no trialParameter refers to {quote(value)}, which {name} gives to each trial"
        findings.error(path, "Required", message, f"add {{name: {value}, reference: {value}}}")


def _sound_counts(findings: Findings) -> bool:
    return not any(findings.has_errors_below(f"spec.{count}") for count in ("maxTrialCount", "parallelTrialCount"))


def _problem(experiment: Experiment, findings: Findings) -> tuple[bool, SearchProblem | None]:
    """The problem as far as it is sound, and whether that is all of it."""
    spec = experiment.spec or ExperimentSpec()
    space, complete = sound_space(spec, findings)
    if not complete:  # settings may name a parameter, whatever else is wrong with it
        known = {parameter.name: parameter for parameter in space}
        names = [parameter.name for parameter in spec.parameters or () if parameter.name]
        stand_ins = {name: Parameter(name=name, type=ParameterType.CATEGORICAL, values=("",)) for name in names}
        space = SearchSpace(tuple({**stand_ins, **known}.values()))
    directions = [spec.objective and spec.objective.type, *(further.type for further in spec.objectives or ())]
    if any(direction not in ("minimize", "maximize") for direction in directions):
        return False, None
    sound = experiment.model_copy(update={"spec": _sound(spec, findings, complete=complete)})
    problem = search_problem(sound, seed_of(experiment) or 0, space=space)
    return complete, problem


def _sound(spec: ExperimentSpec, findings: Findings, *, complete: bool) -> ExperimentSpec:
    """Without what is wrong and would be asked about twice. What remains still tells which features are used."""
    most, parallel = spec.max_trial_count, spec.parallel_trial_count
    update: dict[str, object] = {
        "parallel_trial_count": max(1, parallel or 1),
        "max_trial_count": most if most is None or most > 0 else None,
    }
    for field, key in _CHOICES.items():
        if findings.has_errors_below(f"spec.{key}"):
            update[field] = None
    if not complete:
        update |= {"parameter_constraints": None, "initial_trials": None}
    return spec.model_copy(update=update)


_CHOICES = {
    "constraints": "constraints",
    "parameter_constraints": "parameterConstraints",
    "initial_trials": "initialTrials",
    "warm_start": "warmStart",
    "on_duplicate": "onDuplicate",
    "on_failure": "onFailure",
}


def _check_setting_names(settings: list[AlgorithmSetting], path: str, findings: Findings) -> None:
    seen: set[str] = set()
    for index, setting in enumerate(settings):
        if not setting.name:
            findings.error(f"{path}[{index}].name", "Required", "the setting's name is missing")
        elif setting.name in seen:
            findings.error(f"{path}[{index}].name", "Duplicate", f"{quote(setting.name)} is set twice", "keep one")
        if setting.value is None:
            findings.error(f"{path}[{index}].value", "Required", f"{quote(setting.name)} has no value")
        seen.add(setting.name or "")


def check_early_stopping(experiment: Experiment, findings: Findings, catalog: Catalog | None) -> None:
    stopping = (experiment.spec or ExperimentSpec()).early_stopping
    if stopping is None:
        return
    name, path = stopping.algorithm_name, "spec.earlyStopping"
    _check_setting_names(stopping.algorithm_settings or [], f"{path}.algorithmSettings", findings)
    if not name:
        hint = f"known: {' '.join(catalog.stoppers())}" if catalog else "medianstop is Katib's"
        findings.error(f"{path}.algorithmName", "Required", "the rule's name is missing", hint)
    elif catalog is not None and not findings.broken(f"{path}.algorithmName"):
        settings, objective = stopper_settings_of(experiment), _objective(experiment)
        problems = catalog.check_stopper(name, settings, objective)
        findings.adopt(problems)
        _, problem = _problem(experiment, findings)
        if problem is not None and not problems and _sound_counts(findings):
            findings.adopt_warnings(catalog.stopper_warnings(name, settings, objective, problem))


def _objective(experiment: Experiment) -> Objective:
    """As far as it is sound: a rule's settings are judged also where the objective is wrong."""
    spec = (experiment.spec or ExperimentSpec()).objective
    if spec is not None and spec.type in ("minimize", "maximize"):
        return to_objective(experiment)
    return Objective(ObjectiveType.MINIMIZE, "")
