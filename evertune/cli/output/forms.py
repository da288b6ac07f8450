"""`-o json|yaml|csv|name`: the same documents in the form that the next program reads. Nothing else goes to stdout."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from evertune.cli.output.documents import rows_of


class Form(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    CSV = "csv"
    NAME = "name"

    @property
    def for_people(self) -> bool:
        return self in (Form.TABLE, Form.WIDE)


def text_of(form: Form, document: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> str:
    """One document, or a list of them, as text that ends with a newline (or is empty)."""
    if form is Form.JSON:
        return json_text(document)
    if form is Form.YAML:
        return yaml_text(document)
    documents = [document] if isinstance(document, Mapping) else document
    if form is Form.CSV:
        return _csv(documents)
    return "".join(f"{entry['name']}\n" for entry in documents)


def json_text(data: Any) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def yaml_text(data: Any) -> str:
    import yaml

    dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(data, Dumper=dumper, sort_keys=False, allow_unicode=True, width=1000)
    return text


def _csv(documents: Sequence[Mapping[str, Any]]) -> str:
    import csv
    import io

    columns, rows = rows_of(documents)
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({column: _cell(value) for column, value in row.items()} for row in rows)
    return out.getvalue()


def _cell(value: Any) -> Any:
    """A list is one cell, as the JSON that programs read."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | tuple) else value
