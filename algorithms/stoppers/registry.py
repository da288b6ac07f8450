"""Finds early stopping rules by name: the built-in ones in a table, third parties' through `evertune.stoppers`.

Asked by validation (check) and by `activities.stop` (create). Imports no numeric library.
"""

from __future__ import annotations

import difflib
import functools
import importlib
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points

from evertune.domain.metrics import Objective
from evertune.domain.setting import Rule
from evertune.errors import AlgorithmError, Problem
from evertune.protocols import EarlyStopper

ENTRY_POINT_GROUP = "evertune.stoppers"

BUILT_IN = {
    "medianstop": "algorithms.stoppers.medianstop:MedianStop",
    "percentile": "algorithms.stoppers.percentile:Percentile",
    "asha": "algorithms.stoppers.asha:Asha",
    "threshold": "algorithms.stoppers.threshold:Threshold",
    "patience": "algorithms.stoppers.patience:Patience",
    "no-report": "algorithms.stoppers.no_report:NoReport",
}


@functools.cache
def _third_party() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP) if point.name not in BUILT_IN}


def names() -> tuple[str, ...]:
    return (*BUILT_IN, *sorted(_third_party()))


@functools.cache
def get(name: str) -> type[EarlyStopper]:
    """The class behind a name. Raises AlgorithmError for one that is not registered or cannot be imported."""
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        found: type[EarlyStopper] = getattr(importlib.import_module(module), attribute)
        return found
    if name in _third_party():
        point = _third_party()[name]
        try:
            loaded: type[EarlyStopper] = point.load()
        except Exception as error:  # whatever a plugin does at import
            message = f"the early stopping rule {name} cannot be imported from {point.value}: {error}"
            raise AlgorithmError(message) from error
        return loaded
    raise AlgorithmError(f"{name} is not an early stopping rule; known: {', '.join(names())}")


def settings_of(name: str) -> Mapping[str, Rule]:
    """The settings of a rule, for whoever lists them; empty where a third party's says nothing of them."""
    found: Mapping[str, Rule] = getattr(get(name), "settings", {})
    return found


def create(name: str, settings: Mapping[str, str], objective: Objective) -> EarlyStopper:
    return get(name)(settings, objective)


def check(name: str, settings: Mapping[str, str], objective: Objective) -> Sequence[Problem]:
    """Everything wrong with the name and the settings. Raises nothing."""
    path = "spec.earlyStopping.algorithmName"
    if name not in names():
        known = f"known: {', '.join(names())}"
        close = difflib.get_close_matches(name.lower().replace("_", "-"), names(), 1, 0.6)
        hint = f'did you mean "{close[0]}"? {known}' if close else known
        message = f'"{name}" is not an early stopping rule'
        return [Problem(path=path, type="Invalid", message=message, hint=hint)]
    try:
        return get(name).check(settings, objective)
    except AlgorithmError as error:
        return [Problem(path=path, type="Invalid", message=error.message)]
    except Exception as error:  # whatever a plugin does; the built-in ones are tested not to
        message = f"{name} cannot check this experiment: {type(error).__name__}: {error}"
        return [Problem(path=path, type="Invalid", message=message)]
