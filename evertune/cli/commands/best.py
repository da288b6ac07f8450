"""`best`: the best trial, ready to paste into a script, a shell or another file; of several objectives, the front."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

import typer

from evertune.cli import options
from evertune.cli.output.documents import best_document, front_document, trial_document
from evertune.cli.output.forms import Form, json_text, text_of, yaml_text
from evertune.cli.session import Session, session
from evertune.cli.views.details import best_lines
from evertune.cli.views.front import front_lines
from evertune.cli.views.sentences import addressed, infeasible_words
from evertune.cli.views.summary import next_lines
from evertune.domain.metrics import Objective, finite
from evertune.domain.pareto import front
from evertune.domain.records import ExperimentRecord
from evertune.domain.space import Value, value_text
from evertune.domain.states import TrialState
from evertune.errors import NotFoundError, UsageError


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
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            metavar="VALUE,...",
            help="The hypervolume's reference point, a value for each objective. Else a tenth beyond the worst values.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """The best trial. All forms but the tables print nothing else, and exact values.

    With several objectives: all trials on the Pareto front, a line or row each.
    """
    now = session()
    record = now.find(namespace, name)
    point = None if reference is None else _reference(reference, record.objective)
    if record.objective.further and record.best is not None and record.best.feasible:
        _front(now, record, output, point)
        return
    best = record.best
    if best is None:
        raise NotFoundError(
            f"{record.name} has no best trial yet: none has reported {record.objective.metric}",
            hint=f"evertune explain {addressed(record)}",
        )
    typed = record.space.typed(best.parameters)
    if not best.feasible and output not in (BestForm.TABLE, BestForm.WIDE):
        now.say([(f"{record.name}: {infeasible_words(record)}", "warning")])
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
            now.out.write(text_of(Form.CSV, trial_document(best, record.space, record.objective)))
        case BestForm.FLAGS:
            now.out.line(flags(best.parameters))
        case BestForm.ENV:
            now.out.lines(environment(best.parameters))
        case BestForm.PYTHON:
            now.out.line(repr(typed))
        case BestForm.NAME:
            now.out.line(best.name)


def _reference(text: str, objective: Objective) -> list[float]:
    names = objective.objectives
    if len(names) == 1:
        raise UsageError("--reference is for several objectives", hint=f"there is one: {names[0]}")
    values = [finite(part.strip()) for part in text.split(",")]
    known = [value for value in values if value is not None]
    if len(known) < len(values) or len(known) != len(names):
        raise UsageError(
            f'--reference is "{text}": it must be {len(names)} numbers', hint=f"in this order: {', '.join(names)}"
        )
    return known


def _front(now: Session, record: ExperimentRecord, output: BestForm, reference: list[float] | None) -> None:
    """Whatever has a value may be on it, as for the best: not only what succeeded."""
    with now.store() as store:
        states = [state for state in TrialState if state.terminal and not state.counts_as_failed]
        trials = {trial.number: trial for trial in store.trials(record.uid, states=states)}
    measured = {number: trial.metrics for number, trial in trials.items() if trial.objective is not None}
    found = front(record.objective, measured, reference)
    if not found.numbers:
        raise NotFoundError(
            f"{record.name} has no Pareto front yet: no trial has a number for each of its objectives",
            hint=f"evertune trials {addressed(record)}",
        )
    best = [trials[number] for number in found.numbers]
    match output:
        case BestForm.TABLE | BestForm.WIDE:
            wide = output is BestForm.WIDE
            now.out.lines(front_lines(record, found, trials, now.out.marks, width=now.out.width, wide=wide))
            now.say(
                "",
                *next_lines(
                    [
                        (f"evertune best {addressed(record)} -o flags", "as flags for your script, a line for each"),
                        (f"evertune best {addressed(record)} -o json", "exactly, with the hypervolume"),
                    ]
                ),
            )
        case BestForm.JSON:
            now.out.write(json_text(front_document(record, found, trials)))
        case BestForm.YAML:
            now.out.write(yaml_text(front_document(record, found, trials)))
        case BestForm.CSV:
            now.out.write(text_of(Form.CSV, [trial_document(one, record.space, record.objective) for one in best]))
        case BestForm.FLAGS:
            now.out.lines([flags(trial.parameters) for trial in best])
        case BestForm.ENV:
            for place, trial in enumerate(best):
                now.out.lines([*([""] if place else []), f"# trial {trial.number}", *environment(trial.parameters)])
        case BestForm.PYTHON:
            now.out.lines([repr(record.space.typed(trial.parameters)) for trial in best])
        case BestForm.NAME:
            now.out.lines([trial.name for trial in best])


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
