"""Finds early stopping rules by name: the built-in ones in a table, third parties' through `evertune.stoppers`.

Asked by validation (check) and by `activities.stop` (create). Imports no numeric library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from algorithms.plugins import Plugins, warnings_of
from evertune.domain.metrics import Objective
from evertune.domain.setting import Rule
from evertune.domain.space import SearchProblem
from evertune.errors import Problem
from evertune.protocols import EarlyStopper

ENTRY_POINT_GROUP = "evertune.stoppers"
_NAME = "spec.earlyStopping.algorithmName"

BUILT_IN = {
    "medianstop": "algorithms.stoppers.medianstop:MedianStop",
    "percentile": "algorithms.stoppers.percentile:Percentile",
    "asha": "algorithms.stoppers.asha:Asha",
    "threshold": "algorithms.stoppers.threshold:Threshold",
    "patience": "algorithms.stoppers.patience:Patience",
    "no-report": "algorithms.stoppers.no_report:NoReport",
}


PLUGINS: Plugins[EarlyStopper] = Plugins(ENTRY_POINT_GROUP, BUILT_IN, noun="early stopping rule", listed="known")


def names() -> tuple[str, ...]:
    return PLUGINS.names()


def get(name: str) -> type[EarlyStopper]:
    """The class behind a name. Raises AlgorithmError for one that is not registered or cannot be imported."""
    return PLUGINS.get(name)


def settings_of(name: str) -> Mapping[str, Rule]:
    """The settings of a rule, for whoever lists them; empty where a third party's says nothing of them."""
    found: Mapping[str, Rule] = getattr(get(name), "settings", {})
    return found


def create(name: str, settings: Mapping[str, str], objective: Objective) -> EarlyStopper:
    return get(name)(settings, objective)


def check(name: str, settings: Mapping[str, str], objective: Objective) -> Sequence[Problem]:
    """Everything wrong with the name and the settings. Raises nothing."""
    meant = name.lower().replace("_", "-")
    return PLUGINS.checked(name, _NAME, meant, lambda: get(name).check(settings, objective))


def warnings(name: str, settings: Mapping[str, str], objective: Objective, problem: SearchProblem) -> Sequence[Problem]:
    """What to mind of settings that `check` has found nothing wrong with. Raises nothing."""
    return warnings_of(get(name), _NAME, settings, objective, problem)
