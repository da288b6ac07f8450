"""What a nasConfig must say before anybody can search it. Called by `check` of the algorithms that do.

Where Katib's own check is broken, what it was meant to say holds; an operation without parameters is welcome where the
algorithm has a name for it (skip_connection of darts), which Katib refuses.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evertune.domain.space import SearchProblem
from evertune.errors import Problem, ProblemType

GRAPH = "spec.nasConfig.graphConfig"
OPERATIONS = "spec.nasConfig.operations"
PARAMETERLESS = "skip_connection"  # the one operation that has nothing to choose
MAX_CHOICES = 100_000  # of operations, and of layers times layers: what a controller or a space could hold


def graph_problems(name: str, problem: SearchProblem, *, parameterless: str = "") -> list[Problem]:
    """For algorithms that hand out whole networks: layers, shapes and operations (see `operation_problems`)."""
    if problem.nas is None:
        return missing(name)
    graph = problem.nas.get("graphConfig") or {}
    found = [
        _problem(f"{GRAPH}.{key}", "Required", f"{name} needs {key}: the {meaning} of the network")
        for key, meaning in (("inputSizes", "shape of the input"), ("outputSizes", "shape of the output"))
        if not graph.get(key)
    ]
    layers = graph.get("numLayers")
    if not layers:
        found.append(_problem(f"{GRAPH}.numLayers", "Required", f"{name} needs numLayers: the depth of the network"))
    elif not 0 < layers <= 300:
        message = f"numLayers must be from 1 to 300; got {layers}"
        found.append(_problem(f"{GRAPH}.numLayers", "Invalid", message))
    return [*found, *operation_problems(name, problem.nas, parameterless=parameterless)]


def missing(name: str) -> list[Problem]:
    hint = "give graphConfig and operations under nasConfig; or take another algorithm"
    return [_problem("spec.nasConfig", "Required", f"{name} searches architectures: nasConfig is missing", hint)]


def operation_problems(name: str, nas: Mapping[str, Any], *, parameterless: str = "") -> list[Problem]:
    """`parameterless`: the operation type that needs no parameter."""
    operations: Sequence[Mapping[str, Any]] = nas.get("operations") or ()
    if not operations:
        return [_problem(OPERATIONS, "Required", f"{name} needs at least one operation to choose from")]
    found = []
    choices = 0
    for index, operation in enumerate(operations):
        path, kind = f"{OPERATIONS}[{index}].parameters", operation.get("operationType", "")
        parameters: Sequence[Mapping[str, Any]] = operation.get("parameters") or ()
        found += text_problems([(f"{OPERATIONS}[{index}].operationType", kind)])
        if not parameters and not (parameterless and kind == parameterless):
            found.append(_problem(path, "Required", f'the operation "{kind}" needs at least one parameter'))
        combinations = 1
        for number, parameter in enumerate(parameters):
            space = parameter.get("feasibleSpace") or {}
            if parameter.get("parameterType") == "double" and not space.get("step"):
                message = f"{name} needs a step for the double {parameter.get('name', '')}"
                found.append(_problem(f"{path}[{number}].feasibleSpace.step", "Required", message, 'step: "0.1"'))
            found += text_problems(
                [
                    (f"{path}[{number}].name", parameter.get("name") or ""),
                    *(
                        (f"{path}[{number}].feasibleSpace.list[{i}]", item)
                        for i, item in enumerate(space.get("list") or ())
                    ),
                ]
            )
            combinations *= _count(parameter)
        choices += combinations
    if choices > MAX_CHOICES:
        message = f"the operations have {choices:,} combinations of parameters; at most {MAX_CHOICES:,} can be searched"
        found.append(_problem(OPERATIONS, "Invalid", message, "larger steps, or shorter lists"))
    return found


def text_problems(texts: Iterable[tuple[str, str]]) -> list[Problem]:
    """Of (path, text): what a trial could not read back, since it gets JSON with another kind of quotes."""
    message = "{} cannot be handed to a trial: quotes and backslashes are not escaped"
    return [
        _problem(path, "Invalid", message.format(json.dumps(text[:60], ensure_ascii=False)), "avoid \" ' and \\")
        for path, text in texts
        if not text.isprintable() or any(character in text for character in "\"'\\")
    ]


def _count(parameter: Mapping[str, Any]) -> int:
    space = parameter.get("feasibleSpace") or {}
    if parameter.get("parameterType") in ("categorical", "discrete"):
        return max(1, len(space.get("list") or ()))
    try:
        low, high = float(space.get("min") or space["max"]), float(space.get("max") or space["min"])
        return max(1, int((high - low) / float(space.get("step") or 1)) + 1)
    except (KeyError, ValueError, ArithmeticError):
        return 1  # the rules of parameters say what is wrong with it


def _problem(path: str, type_: ProblemType, message: str, hint: str | None = None) -> Problem:
    return Problem(path=path, type=type_, message=message, hint=hint)
