"""From plain data to the typed Experiment: JSON types are checked here, exactly as Katib's decoder does.

A value of the wrong type (`min: 0.01` unquoted, `maxTrialCount: "12"`) is reported once, then mended or dropped, so
that all other rules still run over the rest of the document. Unknown keys are dropped as Katib drops them, with a
warning that names the key that was probably meant.
"""

from __future__ import annotations

import copy
import types
from functools import cache
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from evertune.spec.document import child_path
from evertune.spec.findings import Findings, did_you_mean, quote
from evertune.spec.model import Experiment

_NO_HOMES = (
    "spec.objectives",
)  # its keys are those of the objective and of constraints, and one is there to be refused
_ROUNDS = 3  # a repair can uncover one more layer of wrong types; after that everything wrong is gone


def decode(data: dict[str, Any], findings: Findings) -> Experiment:
    """The Experiment in `data`, with every wrong type reported. What cannot be decoded is left out."""
    warn_unknown(data, Experiment, "", findings)
    for _ in range(_ROUNDS):
        try:
            return Experiment.model_validate(data)
        except ValidationError as error:
            data = copy.deepcopy(data)
            for detail in error.errors(include_url=False, include_context=False):
                _repair(data, detail, findings)
    return Experiment()


def _repair(data: dict[str, Any], detail: ErrorDetails, findings: Findings) -> None:
    parent: Any = None
    key: str | int = ""
    path = ""
    value: Any = data
    for part in detail["loc"]:
        # Pydantic appends the members of a union to the location; they are not part of the document.
        inside = (isinstance(value, dict) and part in value) or (isinstance(value, list) and isinstance(part, int))
        if not inside:
            break
        parent, key = value, part
        value, path = value[part], child_path(path, part)
    if findings.broken(path):
        return
    message, hint, mended = _explain(detail["type"], value, findings.written(path))
    findings.mistyped(path, message, hint)
    if parent is not None:
        parent[key] = mended


def _explain(kind: str, value: Any, written: str | None) -> tuple[str, str | None, Any]:
    """Sentence, mend, and a stand-in of the right type (None is right everywhere but in a list).

    `written` is the user's own spelling: `010` is read as the number 8, but what he means to quote is "010".
    """
    got = describe(value)
    if kind == "string_type":
        if isinstance(value, bool | int | float):
            text = quote(value)
            if written is None or written == text:
                return f"must be text, not {got}", f'quote it: "{text}"', text
            return f"must be text: without quotes {written} is {got}", f'quote it: "{written}"', written
        return f"must be text, not {got}", None, ""
    if kind in ("int_type", "int_from_float"):
        bare = isinstance(value, str) and value.strip().lstrip("+-").isdigit()
        return f"must be a whole number, not {got}", f"remove the quotes: {value}" if bare else None, None
    if kind in ("less_than_equal", "greater_than_equal"):
        return f"{quote(value)} is out of range", None, None
    if kind == "finite_number":
        return f"must be a finite number, not {got}", None, None
    if kind == "float_type" and isinstance(value, int) and not isinstance(value, bool):
        return f"{quote(value)} is out of range", None, None
    if kind == "float_type":
        return f"must be a number, not {got}", _unquoted_number(value), None
    if kind == "bool_type":
        return f"must be true or false, not {got}", None, None
    if kind == "list_type":
        return f"must be a list, not {got}", 'start each entry with "- "', None
    if kind in ("dict_type", "model_type", "model_attributes_type"):
        return f"must be a mapping of keys to values, not {got}", None, {}
    return f"cannot be {got}", None, None


def _unquoted_number(value: Any) -> str | None:
    try:
        float(value)
    except (TypeError, ValueError):
        return None
    return f"remove the quotes: {value}" if isinstance(value, str) else None


def describe(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {quote(value)}"
    if isinstance(value, str):
        return f"the text {quote(value)}"
    return "a list" if isinstance(value, list) else "a mapping"


# -------------------------------------------------------------------------------------------- unknown keys


@cache
def shape(model: type[BaseModel]) -> dict[str, type[BaseModel] | None]:
    """The keys of a model and, where a key holds a model or a list of them, that model."""
    return {(field.alias or name): _inner(field.annotation) for name, field in model.model_fields.items()}


def _inner(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType, list):
        return next((model for part in get_args(annotation) if (model := _inner(part))), None)
    return None


@cache
def _homes() -> dict[str, list[str]]:
    """Every key of the Experiment with the paths it belongs to: for keys that stand at the wrong place."""
    homes: dict[str, list[str]] = {}

    def visit(model: type[BaseModel], path: str) -> None:
        for key, inner in shape(model).items():
            homes.setdefault(key, []).append(path)
            if inner is not None:
                visit(inner, child_path(path, key))

    visit(Experiment, "")
    return homes


def warn_unknown(data: Any, model: type[BaseModel], path: str, findings: Findings) -> None:
    if findings.full_of_warnings:
        return
    if isinstance(data, list):
        for index, item in enumerate(data):
            warn_unknown(item, model, child_path(path, index), findings)
    elif isinstance(data, dict):
        known = shape(model)
        for key, value in data.items():
            if key not in known:
                hint = _home(key, path, known)
                findings.wrong_key(child_path(path, key), f"unknown field {quote(key)} is ignored", hint, warning=True)
            elif (inner := known[key]) is not None:
                warn_unknown(value, inner, child_path(path, key), findings)


def _home(key: str, path: str, known: dict[str, type[BaseModel] | None]) -> str | None:
    if close := did_you_mean(key, known):
        return f"did you mean {quote(close)}?"
    homes = [home for home in _homes().get(key, []) if home not in _NO_HOMES]
    return f"{quote(key)} belongs under {homes[0]}" if len(homes) == 1 and homes[0] and homes[0] != path else None
