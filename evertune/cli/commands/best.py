"""`best`: the best trial, ready to paste into a script, a shell or another file."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

import typer

from evertune.cli import options
from evertune.cli.output.documents import best_document, trial_document
from evertune.cli.output.forms import Form, json_text, text_of, yaml_text
from evertune.cli.session import session
from evertune.cli.views.details import best_lines
from evertune.cli.views.sentences import addressed
from evertune.cli.views.summary import next_lines
from evertune.domain.space import Value, value_text
from evertune.errors import NotFoundError


class BestForm(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    CSV = "csv"
    FLAGS = "flags"
    ENV = "env"
    PYTHON = "python"
    NAME = "name"


def best_(
    name: options.Name,
    namespace: options.Namespace = None,
    output: Annotated[
        BestForm,
        typer.Option("-o", "--output", help="table, wide, json, yaml, csv, flags, env, python or name."),
    ] = BestForm.TABLE,
) -> None:
    """The best trial. All forms but the tables print nothing else, and exact values."""
    now = session()
    record = now.find(namespace, name)
    best = record.best
    if best is None:
        raise NotFoundError(
            f"{record.name} has no best trial yet: none has reported {record.objective.metric}",
            hint=f"evertune explain {addressed(record)}",
        )
    typed = record.space.typed(best.parameters)
    match output:
        case BestForm.TABLE | BestForm.WIDE:
            now.out.lines(best_lines(record, best, now.out.marks, wide=output is BestForm.WIDE))
            now.say(
                "",
                *next_lines(
                    [
                        (f"evertune best {addressed(record)} -o flags", "as flags for your script"),
                        (f"evertune logs {addressed(record)} --trial {best.number}", "what it printed"),
                    ]
                ),
            )
        case BestForm.JSON:
            now.out.write(json_text(best_document(record)))
        case BestForm.YAML:
            now.out.write(yaml_text(best_document(record)))
        case BestForm.CSV:
            now.out.write(text_of(Form.CSV, trial_document(best, record.space)))
        case BestForm.FLAGS:
            now.out.line(flags(best.parameters))
        case BestForm.ENV:
            now.out.lines(environment(best.parameters))
        case BestForm.PYTHON:
            now.out.line(repr(typed))
        case BestForm.NAME:
            now.out.line(best.name)


def flags(parameters: Mapping[str, Value]) -> str:
    """`--lr 0.021 --optimizer sgd`; a negative number is joined, so that no parser takes it for an option."""
    words = []
    for name, value in parameters.items():
        text = shlex.quote(value_text(value))
        words.append(f"--{name}={text}" if text.startswith("-") else f"--{name} {text}")
    return " ".join(words)


def environment(parameters: Mapping[str, Value]) -> list[str]:
    """`LR=0.021`, one a line, for `export` or a .env file."""
    return [
        f"{''.join(char if char.isalnum() else '_' for char in name).upper()}={shlex.quote(value_text(value))}"
        for name, value in parameters.items()
    ]
