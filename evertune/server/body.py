"""The body of a report: JSON to points in one pass, or one sentence about the first thing that is wrong with it.

Called by `ingest` with at most MAX_BODY_BYTES. It refuses what the database could not keep, and never guesses.
"""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, FailFast, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from evertune.domain.metrics import Point

MAX_BODY_BYTES = 1 << 20
MAX_POINTS = 1000
MAX_NAME_CHARS = 512  # every database's longest indexed text
MAX_VALUE_BYTES = 64 << 10
MAX_ORIGIN_CHARS = 64  # a pod's uid has 36
POINTS_PER_SEQ = 1000  # a report's own counter leaves room for as many points as it may have
_SEQ_LIMIT = 1 << 63
_YEAR_10000 = 253402300800.0  # no calendar goes on

_NUMBER_RULE = "a whole number from 0 to 2^63 - 1"


class UnreadableError(Exception):
    """The body cannot be taken; the message is one sentence: where, and the rule."""


_Whole = Annotated[int, Field(ge=0, lt=_SEQ_LIMIT)]
_Step = Annotated[int, Field(ge=-_SEQ_LIMIT, lt=_SEQ_LIMIT)]  # a program may count from where it likes


@with_config(ConfigDict(strict=True))
class _Point(TypedDict):
    metric: Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS)]
    value: Annotated[str, Field(max_length=MAX_VALUE_BYTES)] | int | float
    seq: NotRequired[_Whole | None]
    timestamp: NotRequired[Annotated[float, Field(ge=0, lt=_YEAR_10000)] | None]
    step: NotRequired[_Step | None]


@with_config(ConfigDict(strict=True))
class _Body(TypedDict):
    points: Annotated[list[_Point], Field(max_length=MAX_POINTS), FailFast()]
    final: NotRequired[bool]
    seq: NotRequired[Annotated[int, Field(ge=0, lt=_SEQ_LIMIT // POINTS_PER_SEQ)] | None]
    origin: NotRequired[Annotated[str, Field(max_length=MAX_ORIGIN_CHARS)] | None]


_BODY: TypeAdapter[Any] = TypeAdapter(_Body)


def read(body: bytes) -> tuple[list[Point], bool, str]:
    """Points, whether the report is the last one, and its origin. Raises UnreadableError."""
    try:
        data = _BODY.validate_json(body)
    except ValidationError as error:
        raise UnreadableError(_sentence(error)) from None
    counter = data.get("seq")
    points: list[Point] = []
    for index, given in enumerate(data["points"]):
        seq = given.get("seq")
        if seq is None:
            if counter is None:
                raise UnreadableError(
                    f"points[{index}] has no seq: give each point its own, or the report one, which counts your reports"
                )
            seq = counter * POINTS_PER_SEQ + index
        value = given["value"]
        if type(value) is not str:
            value = repr(value)  # the shortest text that is this number; nan, inf and -inf are words
        elif len(value) > MAX_VALUE_BYTES // 4 and len(value.encode("utf-8", "surrogatepass")) > MAX_VALUE_BYTES:
            raise UnreadableError(f"points[{index}].value is longer than {MAX_VALUE_BYTES >> 10} KiB")
        points.append(Point(given["metric"], value, seq, given.get("timestamp"), given.get("step")))
    return points, data.get("final", False), data.get("origin") or ""


# What pydantic calls a broken rule, in our words; the rest is said in its own.
_RULES = {
    "missing": "is missing",
    "string_too_short": "is empty",
    "too_long": f"has more than {MAX_POINTS:,} entries: send them in several reports",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "string_type": "must be text",
    "finite_number": "must be a finite number",
}


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    kind, place = first["type"], first["loc"]
    if kind in ("json_invalid", "json_type"):
        reason = str(first["msg"]).removeprefix("Invalid JSON: ")
        return f"the body is not JSON: {reason[:200]}"
    names = [part for part in place if isinstance(part, int) or part in _FIELDS]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in names).lstrip(".")
    field = names[-1] if names else ""
    if kind in ("missing", "too_long", "bool_type", "list_type", "dict_type", "string_too_short"):
        rule = _RULES[kind]
    elif kind == "string_too_long" and field != "origin":
        rule = (
            f"is longer than {f'{MAX_NAME_CHARS} characters' if field == 'metric' else f'{MAX_VALUE_BYTES >> 10} KiB'}"
        )
    else:
        rule = _FIELDS.get(field, "cannot be used") if isinstance(field, str) else "must be an object"
    return f"{where or 'the body'} {rule}"


_FIELDS = {
    "points": "must be a list",
    "origin": f"must be text of at most {MAX_ORIGIN_CHARS} characters",
    "final": "must be true or false",
    "seq": f"must be {_NUMBER_RULE}",
    "metric": f"must be text of 1 to {MAX_NAME_CHARS} characters",
    "value": f"must be text of at most {MAX_VALUE_BYTES >> 10} KiB, or a number",
    "timestamp": "must be seconds since 1970 as a number, before the year 10000, or null",
    "step": "must be a whole number from -2^63 to 2^63 - 1, or null",
}
