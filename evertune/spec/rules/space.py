"""Rules about the search space as a whole: conditional parameters, constraints over parameters, initial trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from evertune.domain.expressions import Expression, parse
from evertune.domain.space import Parameter, ParameterType, SearchSpace, value_text
from evertune.domain.syntax import ExpressionError
from evertune.spec.convert import to_parameter
from evertune.spec.document import child_path
from evertune.spec.feasible import Found, broken, ever_there, look
from evertune.spec.findings import Findings, quote, suggestion
from evertune.spec.meaning import faults
from evertune.spec.model import ExperimentSpec, JsonDict
from evertune.spec.values import ValueProblem, value_of

MAX_INITIAL = 10_000
MAX_CONSTRAINTS = 100
MAX_CHAIN = 50  # of conditions on conditional parameters
MOST_BLAMED = 20  # of constraints that together allow nothing, so many are looked at one by one

CONSTRAINTS = "spec.parameterConstraints"
INITIAL = "spec.initialTrials"


def check_space(spec: ExperimentSpec, findings: Findings) -> None:
    check_conditions(spec, findings)
    if findings.full:  # not all that is wrong with the parameters has been said
        return
    for path, given in ((CONSTRAINTS, spec.parameter_constraints), (INITIAL, spec.initial_trials)):
        if given and not spec.parameters and spec.nas_config is not None:
            key = path.removeprefix("spec.")
            findings.error(path, "Forbidden", f"{key} is about parameters, and nasConfig has none", "remove it")
            return
    space, complete = sound_space(spec, findings)
    expressions = _check_constraints(spec, space, findings, complete=complete)
    _check_initial(spec, space, expressions, findings, complete=complete)


def sound_space(spec: ExperimentSpec, findings: Findings) -> tuple[SearchSpace, bool]:
    """The parameters with which, and with whose parents, nothing is wrong; and whether these are all."""
    sound = {
        parameter.name: parameter
        for index, parameter in enumerate(spec.parameters or ())
        if parameter.name and not findings.has_errors_below(f"spec.parameters[{index}]")
    }
    if any(parameter.when for parameter in sound.values()):
        rest, _ = _peeled({name: set(parameter.when or ()) for name, parameter in sound.items()}, MAX_CHAIN)
        sound = {name: parameter for name, parameter in sound.items() if name not in rest}
    return SearchSpace(tuple(map(to_parameter, sound.values()))), len(sound) == len(spec.parameters or ())


# ------------------------------------------------------------------------------------------------- conditional


def check_conditions(spec: ExperimentSpec, findings: Findings) -> None:
    """Of `when`: known parents that have a list of values, values of that list, no cycle, and sometimes fulfilled."""
    if not any(parameter.when is not None for parameter in spec.parameters or ()):
        return
    known: dict[str, Parameter | None] = {}  # None: something else is wrong with it
    for index, parameter in enumerate(spec.parameters or ()):
        if parameter.name and not findings.has_errors_below(f"spec.parameters[{index}]"):
            known.setdefault(parameter.name, to_parameter(parameter.model_copy(update={"when": None})))
        elif parameter.name:
            known[parameter.name] = None
    for index, parameter in enumerate(spec.parameters or ()):
        path = f"spec.parameters[{index}].when"
        if findings.full:
            return
        if parameter.when is not None and not parameter.when:
            hint = "write when: {optimizer: [sgd]}, or leave it out"
            findings.error(path, "Required", "the condition names no parameter", hint)
        for parent, values in (parameter.when or {}).items():
            _check_condition(parameter.name or "", parent, values, child_path(path, parent), known, findings)
    if not any(findings.has_errors_below(f"spec.parameters[{index}]") for index in range(len(spec.parameters or ()))):
        _check_reach(spec, findings)


def _check_condition(
    name: str, parent: str, values: list[object], path: str, known: Mapping[str, Parameter | None], findings: Findings
) -> None:
    if parent not in known:
        hint = suggestion(parent, known, "parameters")
        findings.error(path, "Invalid", f"no parameter is called {quote(parent)}", hint)
        return
    if parent == name:
        findings.error(path, "Invalid", f"{quote(name)} cannot depend on itself", "name another parameter")
        return
    found = known[parent]
    if found is None:
        return
    if found.type is ParameterType.DOUBLE:
        message = f"{quote(parent)} is a double: a condition asks for one of several values"
        findings.error(path, "Invalid", message, "give it a list: parameterType: discrete")
        return
    if not values:
        findings.error(path, "Required", f"which values of {quote(parent)} are meant is missing")
    for number, value in enumerate(values):
        try:
            value_of(found, value)
        except ValueProblem as problem:
            findings.error(f"{path}[{number}]", "Invalid", problem.message, problem.hint)


def _check_reach(spec: ExperimentSpec, findings: Findings) -> None:
    """No circle, no long chain, and no parameter that is never there."""
    parents = {parameter.name or "": set(parameter.when or ()) for parameter in spec.parameters or ()}
    places = {name: index for index, name in enumerate(parents)}
    rest, rounds = _peeled(parents)
    circles = 0
    while rest and not findings.full:
        circle = _circle(rest, parents)
        shown = " needs ".join([*circle, circle[0]] if len(circle) < 7 else [*circle[:5], "…", circle[0]])
        at = f"spec.parameters[{places[circle[0]]}].when"
        findings.error(at, "Invalid", f"the conditions go round in a circle: {shown}", "remove one of them")
        parents.update({name: set() for name in circle})
        circles += 1
        rest, _ = _peeled(parents)
    if circles:
        return
    if rounds > MAX_CHAIN:
        findings.error(
            "spec.parameters", "Invalid", f"conditions depend on one another over more than {MAX_CHAIN} levels"
        )
        return
    space = SearchSpace(tuple(to_parameter(parameter) for parameter in spec.parameters or ()))
    for index, parameter in enumerate(space):
        simple = len(parameter.when) < 2 and not any(parents[one.parameter] for one in parameter.when)
        if not simple and not ever_there(space, parameter.name):
            message = f"{quote(parameter.name)} is never there: its conditions exclude one another"
            findings.error(f"spec.parameters[{index}].when", "Invalid", message, "change or remove one of them")


def _peeled(parents: Mapping[str, set[str]], most: int | None = None) -> tuple[list[str], int]:
    """Those that are left when all whose parents are settled are settled in turn, and in how many rounds that was."""
    children: dict[str, list[str]] = {}
    for name, above in parents.items():
        for parent in above:
            children.setdefault(parent, []).append(name)
    unsettled = {name: len(above) for name, above in parents.items()}
    ready = [name for name, count in unsettled.items() if not count]
    rounds = 0
    while ready and rounds != most:
        rounds += 1
        following = []
        for name in ready:
            del unsettled[name]
            for child in children.get(name, ()):
                unsettled[child] -= 1
                if not unsettled[child]:
                    following.append(child)
        ready = following
    return list(unsettled), rounds


def _circle(rest: list[str], parents: Mapping[str, set[str]]) -> list[str]:
    """One circle among these, each of which has a parent among these. It begins where the file does."""
    order = {name: index for index, name in enumerate(rest)}
    trail: dict[str, None] = {}
    here = rest[0]
    while here not in trail:
        trail[here] = None
        here = min(parents[here] & order.keys(), key=order.__getitem__)
    names = list(trail)
    circle = names[names.index(here) :]
    first = circle.index(min(circle, key=order.__getitem__))
    return [*circle[first:], *circle[:first]]


# ------------------------------------------------------------------------------------------------- constraints


def _check_constraints(
    spec: ExperimentSpec, space: SearchSpace, findings: Findings, *, complete: bool
) -> list[Expression]:
    """Those that are sound; their names and types are judged only where all parameters are."""
    given = spec.parameter_constraints or []
    if len(given) > MAX_CONSTRAINTS:
        findings.error(CONSTRAINTS, "Invalid", f"more than {MAX_CONSTRAINTS} constraints")
        return []
    sound: list[tuple[int, Expression]] = []
    for index, text in enumerate(given):
        path = f"{CONSTRAINTS}[{index}]"
        try:
            expression = parse(text)
        except ExpressionError as error:
            findings.error(path, "Invalid", f"{quote(text)}: {error}", error.hint)
            continue
        wrong = faults(expression, space) if complete else []
        for fault in wrong:
            message = f"{quote(text)}: {fault.message}, at character {fault.position + 1}"
            findings.error(path, "Invalid", message, fault.hint)
        if not wrong and complete:
            sound.append((index, expression))
    if sound and len(sound) == len(given):
        _check_feasible(space, sound, findings)
    return [expression for _, expression in sound]


def _check_feasible(space: SearchSpace, sound: list[tuple[int, Expression]], findings: Findings) -> None:
    conditional = {parameter.name for parameter in space if parameter.when}
    present = SearchSpace(tuple(replace(parameter, when=()) for parameter in space))
    for index, expression in sound[:MOST_BLAMED]:
        named = conditional.intersection(expression.names)
        if named and look(present, [expression]) is Found.EMPTY:
            names = ", ".join(name for name in expression.names if name in named)
            message = f"{quote(expression.text)}: no trial has {names}: where that is there, no value satisfies this"
            findings.warn(f"{CONSTRAINTS}[{index}]", message, "change the constraint or the range")
    verdict = look(space, [expression for _, expression in sound])
    if verdict is Found.POINT:
        return
    blamed = False
    for index, expression in sound[:MOST_BLAMED] if verdict is Found.EMPTY else ():
        if len(sound) == 1 or look(space, [expression]) is Found.EMPTY:
            blamed = True
            message = f"{quote(expression.text)}: no values of {', '.join(expression.names)} satisfy this"
            findings.error(f"{CONSTRAINTS}[{index}]", "Invalid", message, "the search space would be empty")
    if verdict is Found.EMPTY and not blamed:
        message = "no values of the parameters satisfy all of these at once"
        findings.error(CONSTRAINTS, "Invalid", message, "the search space would be empty")
    elif verdict is Found.NOTHING:
        message = "none of some thousand points satisfies these: trials may be hard or impossible to find"
        findings.warn(CONSTRAINTS, message, "narrow the ranges to where they hold, or give initialTrials")


# ----------------------------------------------------------------------------------------------- initial trials


def _check_initial(
    spec: ExperimentSpec, space: SearchSpace, expressions: list[Expression], findings: Findings, *, complete: bool
) -> None:
    given = spec.initial_trials or []
    if len(given) > MAX_INITIAL:
        findings.error(INITIAL, "Invalid", f"more than {MAX_INITIAL:,} initial trials")
        return
    if spec.max_trial_count is not None and len(given) > spec.max_trial_count > 0:
        message = f"{len(given)} initial trials, of which maxTrialCount {spec.max_trial_count} lets the first run"
        findings.warn(INITIAL, message)
    known = dict.fromkeys(parameter.name for parameter in spec.parameters or () if parameter.name)
    parameters = {parameter.name: parameter for parameter in space}
    seen: dict[tuple[tuple[str, str], ...], int] = {}
    for index, trial in enumerate(given):
        if findings.full:
            return
        path = f"{INITIAL}[{index}]"
        values = _check_values(trial, path, known, parameters, findings)
        if values is None:
            continue
        if complete:
            _check_presence(space, values, path, findings)
        for expression in broken(space, expressions, values):
            findings.error(path, "Invalid", f"it does not satisfy {quote(expression.text)}", "change its values")
        key = tuple(sorted((name, value_text(value)) for name, value in values.items()))
        if key in seen and len(values) == len(known):
            findings.warn(path, f"it is the same as initial trial {seen[key]}", type_="Duplicate")
        seen.setdefault(key, index)


def _check_values(
    trial: JsonDict, path: str, known: Mapping[str, None], parameters: Mapping[str, Parameter], findings: Findings
) -> JsonDict | None:
    """The typed values, or None when something is wrong with one of them."""
    values: JsonDict = {}
    for name, value in trial.items():
        at = child_path(path, name)
        if name not in known:
            hint = suggestion(name, known, "parameters")
            findings.error(at, "Invalid", f"no parameter is called {quote(name)}", hint)
        elif name in parameters:
            try:
                values[name] = value_of(parameters[name], value)
            except ValueProblem as problem:
                findings.error(at, "Invalid", problem.message, problem.hint)
    return values if len(values) == len(trial) else None


def _check_presence(space: SearchSpace, values: JsonDict, path: str, findings: Findings) -> None:
    """A conditional parameter needs its condition fulfilled by the same trial, not by what is filled in."""
    there = space.active(values)
    for parameter in space:
        if parameter.name not in values or parameter.name in there:
            continue
        missing = [condition for condition in parameter.when if condition.parameter not in values]
        wanted = " and ".join(f"{one.parameter} is {' or '.join(one.values)}" for one in parameter.when)
        hint = f"give {missing[0].parameter} as well" if missing else f"remove {parameter.name} here"
        message = f"{parameter.name} is only there where {wanted}"
        findings.error(child_path(path, parameter.name), "Invalid", message, hint)
