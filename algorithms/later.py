"""Katib's algorithms that this version judges but does not run: their settings and what they ask of the space.

`registry.check` calls `check`, so that a spec gets Katib's verdict whatever runs it later. Where Katib's own check is
broken, what it was meant to say holds. Nothing here searches, and nothing is imported but the settings' parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from algorithms.settings import (
    RANDOM_STATE,
    Rule,
    choice,
    fraction,
    is_float,
    is_signed,
    not_negative,
    or_none,
    positive,
    settings_problems,
    share,
    step_problems,
    whole,
)
from evertune.domain.space import SearchProblem
from evertune.errors import Problem, ProblemType

SETTINGS = "spec.algorithm.algorithmSettings"
GRAPH = "spec.nasConfig.graphConfig"
OPERATIONS = "spec.nasConfig.operations"
PARAMETERLESS = "skip_connection"  # the one operation of darts that has nothing to choose


_CMAES = {
    "random_state": Rule("a whole number", is_signed, "seed of the search", "0"),
    "sigma": Rule("a number", is_float(lambda value: True), "first step size; used when above 0", "from the ranges"),
    "restart_strategy": choice("what follows when the search has converged", "none", "none", "ipop", "bipop"),
}

_BAYESIAN_OPTIMIZATION = {
    "base_estimator": choice("the surrogate model", "GP", "GP", "RF", "ET", "GBRT"),
    "n_initial_points": whole(0, "random trials before the model", "10"),
    "acq_func": choice(
        "what the model's answer is scored by", "gp_hedge", "gp_hedge", "LCB", "EI", "PI", "EIps", "PIps"
    ),
    "acq_optimizer": choice("how the best score is searched", "auto", "auto", "sampling", "lbfgs"),
    "random_state": RANDOM_STATE,
}

_HYPERBAND = {
    "r_l": positive("the most of the resource that one trial may use", None),
    "resource_name": Rule("the name of a parameter", bool, "the parameter that holds a trial's resource", None),
    # The service rounds towards zero, takes 3 for what is then not positive, and divides by the logarithm.
    "eta": Rule(
        "a number from 2, or below 1 for 3", is_float(lambda value: int(value) != 1), "one of eta trials goes on", "3"
    ),
}

_PBT = {
    "suggestion_trial_dir": Rule("a directory", bool, "where a trial's container finds its checkpoint", None),
    "n_population": whole(5, "trials of one generation", None),
    "truncation_threshold": fraction("the share of a generation that is replaced", None),
    "resample_probability": fraction("how often a parameter is drawn anew", "none: parameters are perturbed"),
}

_ENAS = {
    "controller_hidden_size": whole(1, "units of the controller's LSTM", "64"),
    "controller_temperature": or_none(positive("divides the logits", "5.0")),
    "controller_tanh_const": or_none(positive("bounds the logits", "2.25")),
    "controller_entropy_weight": or_none(positive("weight of the entropy in the reward", "1e-5")),
    "controller_baseline_decay": share("decay of the reward's baseline", "0.999"),
    "controller_learning_rate": share("learning rate of the controller", "5e-5"),
    "controller_skip_target": share("the wanted probability of a skip connection", "0.4"),
    "controller_skip_weight": or_none(positive("weight of the skip penalty", "0.8")),
    "controller_train_steps": whole(1, "training steps after each batch of trials", "50"),
    "controller_log_every_steps": whole(1, "steps between two lines of the log", "10"),
}

_DARTS = {
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

# Settings by algorithm, and whether the algorithm's service lets settings pass that it does not know.
TABLES: Mapping[str, tuple[Mapping[str, Rule], bool]] = {
    "bayesianoptimization": (_BAYESIAN_OPTIMIZATION, False),
    "cmaes": (_CMAES, True),
    "sobol": ({}, True),
    "hyperband": (_HYPERBAND, True),
    "pbt": (_PBT, True),
    "enas": (_ENAS, False),
    "darts": (_DARTS, True),
}


def check(name: str, problem: SearchProblem) -> list[Problem]:
    """Everything wrong with the settings and the space for one of `CHECKS`."""
    rules, others = TABLES[name]
    found = settings_problems(name, problem, rules, others=others)
    return [*found, *CHECKS[name](problem, {one.path for one in found})]


def _nothing_more(problem: SearchProblem, broken: set[str]) -> list[Problem]:
    return []


def _cmaes(problem: SearchProblem, broken: set[str]) -> list[Problem]:
    numeric = sum(parameter.numeric for parameter in problem.space)
    if numeric >= 2:
        return []
    message = f"cmaes needs at least two parameters of type double or int; got {numeric}"
    return [_problem("spec.parameters", "Invalid", message, "take another algorithm, such as tpe")]


def _hyperband(problem: SearchProblem, broken: set[str]) -> list[Problem]:
    found = []
    settings = problem.settings
    places = {key: f"{SETTINGS}[{index}].value" for index, key in enumerate(settings)}
    resource = settings.get("resource_name")
    if resource and resource not in problem.space.names():
        message = f'resource_name must be the name of a parameter; got "{resource}"'
        hint = f"parameters: {', '.join(problem.space.names())}"
        found.append(_problem(places["resource_name"], "Invalid", message, hint))
    if "r_l" not in settings or places["r_l"] in broken or places.get("eta") in broken:
        return found
    first = _first_rung(float(settings["r_l"]), float(settings.get("eta", "3")))
    if problem.parallel < first:
        message = f"hyperband needs parallelTrialCount {first} or more, its first rung; got {problem.parallel}"
        found.append(_problem("spec.parallelTrialCount", "Invalid", message, "or a smaller r_l"))
    return found


def _first_rung(most: float, eta: float) -> int:
    """ceil(eta^s_max), in the floating point arithmetic that Katib's own check uses."""
    base = int(eta) if int(eta) > 0 else 3
    return math.ceil(float(base) ** math.trunc(math.log(most) / math.log(base)))


def _pbt(problem: SearchProblem, broken: set[str]) -> list[Problem]:
    return step_problems("pbt", problem)


def _enas(problem: SearchProblem, broken: set[str]) -> list[Problem]:
    if problem.nas is None:
        return _no_nas("enas")
    graph = problem.nas.get("graphConfig", {})
    found = [
        _problem(f"{GRAPH}.{key}", "Required", f"enas needs {key}: the {meaning} of the network")
        for key, meaning in (("inputSizes", "shape of the input"), ("outputSizes", "shape of the output"))
        if not graph.get(key)
    ]
    layers = graph.get("numLayers")
    if not layers:
        found.append(_problem(f"{GRAPH}.numLayers", "Required", "enas needs numLayers: the depth of the network"))
    elif layers < 0:
        found.append(_problem(f"{GRAPH}.numLayers", "Invalid", f"numLayers must be 1 or more; got {layers}"))
    return [*found, *_operations("enas", problem.nas)]


def _darts(problem: SearchProblem, broken: set[str]) -> list[Problem]:
    return _no_nas("darts") if problem.nas is None else _operations("darts", problem.nas)


def _no_nas(name: str) -> list[Problem]:
    hint = "give graphConfig and operations under nasConfig; or take another algorithm"
    return [_problem("spec.nasConfig", "Required", f"{name} searches architectures: nasConfig is missing", hint)]


def _operations(name: str, nas: Mapping[str, Any]) -> list[Problem]:
    operations: Sequence[Mapping[str, Any]] = nas.get("operations", ())
    if not operations:
        return [_problem(OPERATIONS, "Required", f"{name} needs at least one operation to choose from")]
    found = []
    for index, operation in enumerate(operations):
        path, kind = f"{OPERATIONS}[{index}].parameters", operation.get("operationType", "")
        parameters: Sequence[Mapping[str, Any]] = operation.get("parameters", ())
        if not parameters and not (name == "darts" and kind == PARAMETERLESS):
            message = f'the operation "{kind}" needs at least one parameter'
            found.append(_problem(path, "Required", message))
        for number, parameter in enumerate(parameters):
            if parameter.get("parameterType") == "double" and not parameter.get("feasibleSpace", {}).get("step"):
                message = f"{name} needs a step for the double {parameter.get('name', '')}"
                found.append(_problem(f"{path}[{number}].feasibleSpace.step", "Required", message, 'step: "0.1"'))
    return found


def _problem(path: str, type_: ProblemType, message: str, hint: str | None = None) -> Problem:
    return Problem(path=path, type=type_, message=message, hint=hint)


# What each asks beyond single settings, given the paths of what is wrong with those.
CHECKS: Mapping[str, Callable[[SearchProblem, set[str]], list[Problem]]] = {
    "bayesianoptimization": _nothing_more,
    "cmaes": _cmaes,
    "sobol": _nothing_more,
    "hyperband": _hyperband,
    "pbt": _pbt,
    "enas": _enas,
    "darts": _darts,
}
