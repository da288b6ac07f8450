"""`evertune list`: one line per experiment."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from evertune.cli.output.marks import Marks
from evertune.cli.output.numbers import Decimals, age, clock, objective_text, utc
from evertune.cli.output.table import Column, table
from evertune.cli.output.text import Line, clean
from evertune.cli.views.sentences import addressed, maximizes, trials_done
from evertune.domain.records import ExperimentRecord
from evertune.domain.states import ExperimentState

_NEEDY = (ExperimentState.FAILED, ExperimentState.PAUSED)  # these wait for a person


def listing(
    records: Sequence[ExperimentRecord],
    *,
    now: datetime,
    marks: Marks,
    width: int | None = None,
    wide: bool = False,
    namespaces: bool = False,
    headers: bool = True,
) -> list[Line]:
    """`width` None: names are not cut. `namespaces` adds that column, for lists over all of them."""
    columns = [Column("NAMESPACE", shrinks=True)] if namespaces else []
    names, states = Column("NAME", shrinks=True), Column("STATE")
    trials, best, ages = Column("TRIALS", right=True), Column("BEST", right=True), Column("AGE", right=True)
    etas = Column("ETA", right=True)
    good, early, bad = (Column(marks.shape(word)[0], right=True) for word in ("Succeeded", "EarlyStopped", "Failed"))
    objectives, algorithms = Column("OBJECTIVE", shrinks=True), Column("ALGORITHM", shrinks=True)
    created = Column("CREATED")
    columns += [names, states, trials]
    columns += [good, early, bad, best, objectives, algorithms, ages, etas, created] if wide else [best, ages, etas]
    for record in records:
        if namespaces:
            columns[0].add(record.namespace)
        names.add(record.name)
        states.add(marks.state(record.state))
        trials.add(trials_done(record))
        best.add(best_text(record, marks))
        ages.add(age((now - record.created).total_seconds()))
        etas.add(_eta(record, now, marks))
        if wide:
            good.add(str(record.counts.succeeded))
            early.add(str(record.counts.early_stopped))
            bad.add(str(record.counts.charged))
            objectives.add(f"{marks.arrow(up=maximizes(record.objective))} {record.objective.metric}")
            algorithms.add(record.algorithm)
            created.add((utc(record.created) or "")[:16].replace("T", " ") + "Z")
    return table(columns, width=width, headers=headers, ellipsis=marks.ellipsis).lines


def best_text(record: ExperimentRecord, marks: Marks) -> str:
    best = record.best
    if best is None:
        return marks.dash
    text = objective_text(best.objective_value, best.objective, Decimals([best.objective_value]), marks.dash)
    return clean(text)[:24] + ("" if best.feasible else " infeasible")


def _eta(record: ExperimentRecord, now: datetime, marks: Marks) -> str:
    """At the mean pace so far: a list reads no trials."""
    limit, done = record.budget.max_trials, record.counts.finished
    if record.state is not ExperimentState.RUNNING or not limit or not done or record.started is None:
        return marks.dash
    pace = (now - record.started).total_seconds() / done
    return clock(pace * (limit - done))


def attention(records: Sequence[ExperimentRecord]) -> Line:
    """`2 need you. Next: evertune explain xgb-churn-nightly`, or what else makes sense."""
    needy = [record for record in records if record.state in _NEEDY]
    if needy:
        words = f"{len(needy)} need{'s' * (len(needy) == 1)} you. Next: evertune explain {addressed(needy[-1])}"
        return [(words, "dim")]
    running = [record for record in records if not record.state.terminal]
    if running:
        return [(f"Next: evertune watch {addressed(running[-1])}", "dim")]
    return [(f"Next: evertune best {addressed(records[-1])}", "dim")] if records else []
