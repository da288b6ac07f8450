"""Metric values as JSON or CSV, row by row: as many as there are, and never all of them in memory.

`value` is a number in JSON where it is a finite one, else the text as it was reported; in CSV it is always that text.
`timestamp` is UTC seconds since the epoch, as in a report to the gateway, because ISO text would round it; null or
empty where the source has no time.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from typing import Any

from evertune.cli.output.numbers import number_or_text
from evertune.cli.output.printer import Stream

AT_A_TIME = 1000
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


class Rows:
    """A document on `out`. Nothing is written before the first rows are, so that an error can still come instead."""

    def __init__(self, out: Stream, columns: Sequence[str], *, as_json: bool) -> None:
        self.any = False
        self._out, self._columns, self._json = out, columns, as_json
        self._rows: list[str] = []
        self._begun = False
        self._csv = csv.writer(self, lineterminator="\n")

    def add(self, row: Sequence[Any]) -> None:
        self.any = True
        if self._json:
            self._rows.append(self._object(row))
        else:
            self._csv.writerow(row)
        if len(self._rows) >= AT_A_TIME:
            self.flush()

    def write(self, text: str) -> None:
        """What the csv writer calls."""
        self._rows.append(text)

    def flush(self) -> None:
        if not self._rows:
            return
        if self._json:
            text = (",\n" if self._begun else "[\n") + ",\n".join(self._rows)
        else:
            text = ("" if self._begun else self._header()) + "".join(self._rows)
        self._out.write(text)
        self._begun = True
        self._rows.clear()

    def end(self) -> None:
        self.flush()
        if self._json:
            self._out.write("\n]\n" if self._begun else "[]\n")
        elif not self._begun:
            self._out.write(self._header())

    def _header(self) -> str:
        return ",".join(self._columns) + "\n"

    def _object(self, row: Sequence[Any]) -> str:
        document = dict(zip(self._columns, row, strict=True))
        document["value"] = number_or_text(document["value"])
        time = document["timestamp"]
        document["timestamp"] = time if time is not None and math.isfinite(time) else None
        return "  " + _ENCODER.encode(document)
