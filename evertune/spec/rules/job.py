"""The typed shape of a batch/v1 Job: unknown fields and wrong types, which an API server would refuse at each trial.

`job_schema.json` is written from the Kubernetes client's models (see tests/unit/spec/job_schema.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from evertune.spec.document import child_path
from evertune.spec.findings import did_you_mean, quote
from evertune.spec.structure import describe

_WANTED = {"str": "text", "int": "a whole number", "bool": "true or false"}


class Misfit(NamedTuple):
    path: str
    message: str
    hint: str | None


@cache
def _schema() -> dict[str, dict[str, str]]:
    text = files("evertune.spec.rules").joinpath("job_schema.json").read_text("utf-8")
    schema: dict[str, dict[str, str]] = json.loads(text)
    return schema


Written = Callable[[str], str | None]


def job_misfits(job: dict[str, Any], path: str, written: Written = lambda path: None) -> Iterator[Misfit]:
    """What a typed Job would lose or refuse, with the path of each place below `path`.

    `written` gives the user's own spelling of the number or boolean at a path, where it is known.
    """
    return _misfits(job, "V1Job", path, written)


def _misfits(value: Any, kind: str, path: str, written: Written) -> Iterator[Misfit]:
    if value is None or kind == "object":
        return
    if kind.startswith("List["):
        if not isinstance(value, list):
            yield Misfit(path, f"must be a list, not {describe(value)}", 'start each entry with "- "')
            return
        for index, item in enumerate(value):
            yield from _misfits(item, kind[5:-1], f"{path}[{index}]", written)
    elif kind.startswith("Dict["):
        if not isinstance(value, dict):
            yield Misfit(path, f"must be a mapping, not {describe(value)}", None)
            return
        for key, item in value.items():
            yield from _misfits(item, kind[5:-1].partition(", ")[2], child_path(path, key), written)
    elif kind in _WANTED or kind == "quantity":
        yield from _scalar(value, kind, path, written)
    elif not isinstance(value, dict):
        yield Misfit(path, f"must be a mapping, not {describe(value)}", None)
    else:
        fields = _schema()[kind]
        for key, item in value.items():
            here = child_path(path, key)
            if key in fields:
                yield from _misfits(item, fields[key], here, written)
            else:
                close = did_you_mean(key, fields)
                yield Misfit(
                    here, f"{quote(key)} is not a field of it", f"did you mean {quote(close)}?" if close else None
                )


def _scalar(value: Any, kind: str, path: str, written: Written) -> Iterator[Misfit]:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = {
        "str": isinstance(value, str),
        "bool": isinstance(value, bool),
        "int": number and math.isfinite(value) and value == int(value),
        "quantity": isinstance(value, str) or number,
    }[kind]
    if not fits:
        hint = None
        if kind == "str" and isinstance(value, bool | int | float):
            hint = f'quote it: "{written(path) or quote(value)}"'
        elif kind == "int" and isinstance(value, str) and "evertune-placeholder" in value:
            hint = "a placeholder counts as text, as in Katib: a parameter cannot stand here"
        yield Misfit(path, f"must be {_WANTED.get(kind, 'a quantity')}, not {describe(value)}", hint)
