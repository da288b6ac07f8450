"""What keeps an experiment from starting from the trials of others. Asked by `admit`, which refuses it then.

Judged once, at admission: what becomes of the others afterwards changes nothing, and is for whoever asks to see.
"""

from __future__ import annotations

from collections.abc import Iterator

import evertune.spec as spec
from evertune.domain.metrics import Objective
from evertune.domain.records import ExperimentRecord
from evertune.domain.space import SearchSpace
from evertune.errors import NotFoundError, Problem
from evertune.spec.findings import quote, suggestion
from evertune.store import Store

PATH = "spec.warmStart.from"


def warm_start_problems(store: Store, experiment: spec.Experiment) -> Iterator[Problem]:
    """Experiments that are not there, or that are too unlike this one for the mode that is asked for."""
    wanted = spec.warm_start_of(experiment)
    if wanted is None:
        return
    space, objective = spec.to_space(experiment), spec.to_objective(experiment)
    for index, (namespace, name) in enumerate(wanted.experiments):
        path = f"{PATH}[{index}]"
        try:
            record = store.experiment(namespace, name)
        except NotFoundError:
            known = [other.name for other in store.list_experiments(namespace)]
            message = f"there is no experiment {quote(name)} in namespace {namespace}"
            hint = suggestion(name, known, "there are") if known else "evertune list --all-namespaces shows all"
            yield Problem(path=path, type="NotFound", message=message, hint=hint)
            continue
        found = _unlike(record, space, objective, identical=wanted.mode == "identical")
        theirs = (record.manifest.get("spec") or {}).get("nasConfig")
        if found is None and wanted.mode == "identical" and theirs != spec.nas_of(experiment):
            found = "searches other architectures"
        if found is not None:
            hint = "write mode: transfer, which takes what fits" if wanted.mode == "identical" else "name another one"
            yield Problem(path=path, type="Invalid", message=f"{name} {found}", hint=hint)


def _unlike(record: ExperimentRecord, space: SearchSpace, objective: Objective, *, identical: bool) -> str | None:
    """How it differs from this one, as the end of a sentence; None where it is like enough."""
    if not identical:
        common = set(space.names()) & set(record.space.names())
        return None if common or not len(space) else "has no parameter in common with this experiment"
    if (record.objective.metric, record.objective.directions) != (objective.metric, objective.directions):
        return f"has another objective: {record.objective.type} {record.objective.metric}"
    theirs = {parameter.name: parameter for parameter in record.space}
    ours = {parameter.name: parameter for parameter in space}
    if theirs == ours:
        return None
    different = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    return f"has another search space: {', '.join(different[:5])}{', …' if len(different) > 5 else ''} differ"
