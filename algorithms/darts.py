"""darts: differentiable search within one trial, which gets the settings and the space and does the work.

Liu, Simonyan & Yang 2019, "DARTS: Differentiable Architecture Search". As in Katib every trial gets the same three
texts: `algorithm-settings`, `search-space` and `num-layers`, byte for byte in its quoting; the objective is the text
that the trial prints as its genotype, and of several the last one told is the best.
Departures from Katib: any number of requests is answered (its service fails at the second), and skip_connection needs
no parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from algorithms.nas.checks import OPERATIONS, PARAMETERLESS, missing, operation_problems, text_problems
from algorithms.nas.network import quoted
from algorithms.settings import Rule, not_negative, or_none, settings_problems, whole
from evertune.domain.space import SearchProblem, Value
from evertune.domain.trial import Assignment, HistoryTrial
from evertune.errors import Problem
from evertune.protocols import Answer, Feature, JsonDict

SETTINGS: Mapping[str, Rule] = {
    "num_epochs": whole(1, "epochs of the search", "50"),
    "w_lr": not_negative("learning rate of the weights", "0.025"),
    "w_lr_min": not_negative("smallest learning rate of the weights", "0.001"),
    "w_momentum": not_negative("momentum of the weights", "0.9"),
    "w_weight_decay": not_negative("weight decay of the weights", "3e-4"),
    "w_grad_clip": not_negative("clipping of the weights' gradient", "5.0"),
    "alpha_lr": not_negative("learning rate of the architecture", "3e-4"),
    "alpha_weight_decay": not_negative("weight decay of the architecture", "1e-3"),
    "batch_size": or_none(whole(1, "examples of one step", "128")),
    "num_workers": whole(0, "processes that load data", "4"),
    "init_channels": whole(1, "channels of the first cell", "16"),
    "print_step": whole(1, "steps between two lines of output", "50"),
    "num_nodes": whole(1, "nodes of a cell", "4"),
    "stem_multiplier": whole(1, "channels of the stem over those of the first cell", "3"),
}
# As numbers, in Katib's order: a trial reads them back from JSON.
_DEFAULTS: Mapping[str, Any] = {
    name: float(rule.default or 0) if "." in str(rule.default) or "e" in str(rule.default) else int(rule.default or 0)
    for name, rule in SETTINGS.items()
}
ALGORITHM_SETTINGS, SEARCH_SPACE, NUM_LAYERS = "algorithm-settings", "search-space", "num-layers"


class Darts:
    name: ClassVar[str] = "darts"
    about: ClassVar[str] = "Hands settings and operations to a trial that searches its own cells by gradient."
    advice: ClassVar[str] = "One trial is a whole search; more of them only help with different seeds in the trial."
    settings: ClassVar[Mapping[str, Rule]] = SETTINGS
    on_edit: ClassVar[Literal["continue", "restart", "refuse"]] = "continue"
    reads_history: ClassVar[bool] = False
    supports: ClassVar[frozenset[Feature]] = frozenset({Feature.NAS_CONFIG, Feature.EARLY_STOPPING})
    handles: ClassVar[frozenset[Feature]] = frozenset({Feature.NAS_CONFIG})
    hands_out: ClassVar[Sequence[str]] = (ALGORITHM_SETTINGS, SEARCH_SPACE, NUM_LAYERS)

    def __init__(self, problem: SearchProblem) -> None:
        nas = problem.nas or {}
        given = {name: None if text == "None" else text for name, text in problem.settings.items()}
        graph = nas.get("graphConfig") or {}
        self._parameters: dict[str, Value] = {
            ALGORITHM_SETTINGS: quoted({**_DEFAULTS, **given}),
            SEARCH_SPACE: quoted(search_space(nas)),
            NUM_LAYERS: str(graph.get("numLayers") or 0),
        }

    @classmethod
    def check(cls, problem: SearchProblem) -> Sequence[Problem]:
        found = settings_problems(cls.name, problem, SETTINGS, others=True)  # the trial may know more of them
        for index, (key, value) in enumerate(problem.settings.items()):
            places = (("name", key), ("value", value))
            found += text_problems((f"spec.algorithm.algorithmSettings[{index}].{part}", text) for part, text in places)
        if problem.nas is None:
            return [*found, *missing(cls.name)]
        found += operation_problems(cls.name, problem.nas, parameterless=PARAMETERLESS)
        if not found and not search_space(problem.nas):
            message = "no operation has sizes to choose from: darts takes them from the list of its first parameter"
            hint = 'parameterType: categorical, feasibleSpace: {list: ["3", "5"]}'
            found.append(Problem(path=OPERATIONS, type="Required", message=message, hint=hint))
        return found

    def ask(self, history: Sequence[HistoryTrial], k: int, first_number: int, state: JsonDict | None) -> Answer:
        return Answer(assignments=(Assignment(dict(self._parameters)),) * k)


def search_space(nas: Mapping[str, Any]) -> list[str]:
    """`max_pooling_3x3` for each size in the first parameter of an operation; skip_connection as it is."""
    names = []
    for operation in nas.get("operations") or ():
        kind = operation.get("operationType", "")
        parameters: Sequence[Mapping[str, Any]] = operation.get("parameters") or ()
        if kind == PARAMETERLESS or not parameters:
            names.append(kind)
        else:
            sizes = (parameters[0].get("feasibleSpace") or {}).get("list") or ()
            names += [f"{kind}_{size}x{size}" for size in sizes]
    return names
