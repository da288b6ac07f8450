"""`metrics reparse`: read the kept logs of finished trials again, by other rules, and revise verdicts.

Without --apply it only shows what would change. A running experiment is asked to do it, because its workflow owns the
counts; for a finished one the row is the authority, and it is revised here, trial by trial, after an audit row says so.
Either way nothing is started or stopped. Whoever was killed half-way gives the same command again.
"""

from __future__ import annotations

import dataclasses
import shlex
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from evertune.cli import options
from evertune.cli.choosing import chosen_trials
from evertune.cli.filters import check_filters
from evertune.cli.output.forms import json_text
from evertune.cli.output.numbers import plural
from evertune.cli.output.text import clean
from evertune.cli.session import Session, session
from evertune.cli.views.revisions import Row, going_on, revisions_table
from evertune.cli.views.sentences import addressed, trial_sentence
from evertune.cli.views.summary import next_lines
from evertune.domain.records import ExperimentRecord, TrialRecord
from evertune.domain.states import TrialState
from evertune.errors import ConflictError, UsageError

if TYPE_CHECKING:
    from activities.revising import Reviser
    from evertune.client import Client
    from evertune.contracts import Rereading
    from evertune.store import Store

LONGEST_NAME = 500  # characters that a rereading carries
AUDITED = 100  # numbers of changed trials in an audit row


class ReparseForm(StrEnum):
    TABLE = "table"
    JSON = "json"


def metrics_reparse_(
    name: options.Name,
    namespace: options.Namespace = None,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "-f",
            "--filter",
            metavar="REGEX",
            help="In place of the experiment's filters: RE2, two groups, name and value; may be repeated.",
            show_default=False,
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option("--metric", metavar="NAME", help="Take this metric for the objective.", show_default=False),
    ] = None,
    trial: Annotated[
        list[str] | None,
        typer.Option(
            "-t",
            "--trial",
            metavar="TRIAL",
            help="Only this trial: number, name, best or failed; may be repeated.",
            show_default=False,
        ),
    ] = None,
    allow_loss: Annotated[
        bool, typer.Option("--allow-loss", help="Also revise trials that would lose their value by it.")
    ] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Change the verdicts; without it, only show them.")] = False,
    output: Annotated[ReparseForm, typer.Option("-o", "--output", help="table or json.")] = ReparseForm.TABLE,
) -> None:
    """Read the logs of finished trials again, by other rules, and revise what is known of them. Runs nothing."""
    now = session()
    check_filters(now, filters or [])
    record = now.find(namespace, name)
    if metric is not None and not 0 < len(metric.strip()) <= LONGEST_NAME:
        what = f"longer than {LONGEST_NAME} characters" if metric.strip() else "empty"
        raise UsageError(f"--metric is {what}", hint=f"evertune metrics {addressed(record)} -o name")
    from evertune.app import activate

    activate()
    from evertune.contracts import Rereading

    with now.store() as store:
        if filters:
            _check_kind(record)
        chosen = None if trial is None else [entry for word in trial for entry in chosen_trials(store, record, word)]
        numbers = None if chosen is None else sorted({entry.number for entry in chosen})
        rereading = Rereading(filters=filters or None, metric=metric, trials=numbers)
        with _reviser(now, store) as reviser:
            work = Work(now, store, reviser, record, rereading, allow_loss)
            rows = work.preview(chosen)
            changing = [row.number for row in rows if row.changes]
            if apply and changing:
                work.apply(changing)
                rows = work.as_they_are(rows)
        record = store.experiment_by_uid(record.uid)
    if output is ReparseForm.JSON:
        now.out.write(json_text([row.document(applied=apply) for row in rows]))
    else:
        shown = [row for row in rows if row.changes or row.skipped]
        if shown:
            now.out.lines(revisions_table(shown, record.objective.metric, now.out.marks))
    _say(now, record, rows, work, applied=apply)


@contextmanager
def _reviser(now: Session, store: Store) -> Iterator[Reviser]:
    """As the worker composes it: the rules of a running experiment are those of a finished one."""
    from activities.launch import LaunchPlans
    from activities.revising import Reviser
    from activities.runners.local import LocalRunner

    now.start_logging()
    runner = LocalRunner(now.settings.trials_dir)
    try:
        yield Reviser(store, LaunchPlans(store), runner, now.settings.home_id)
    finally:
        runner.close()


def _check_kind(record: ExperimentRecord) -> None:
    """Filters are for text."""
    from evertune import spec

    wanted = spec.collector_spec(spec.load_stored(record.manifest))
    if wanted.kind not in ("StdOut", "File", "Custom") or wanted.format == "JSON":
        kind = f"{wanted.kind}, format JSON" if wanted.format == "JSON" else wanted.kind
        raise UsageError(
            f"{record.name} collects with {kind}, where a filter has no meaning",
            hint="leave out --filter; --metric NAME takes another metric for the objective",
        )


@dataclasses.dataclass
class Work:
    """One reading of one experiment."""

    now: Session
    store: Store
    reviser: Reviser
    record: ExperimentRecord
    rereading: Rereading
    allow_loss: bool = False
    unchanged: int = 0
    losses: int = 0  # trials that keep a value which these rules do not find
    still_nothing: TrialRecord | None = None  # one that has no objective by these rules either, with what was seen

    def preview(self, chosen: Sequence[TrialRecord] | None) -> list[Row]:
        """What these rules make of every trial that has a verdict, by number. Writes nothing."""
        uid = self.record.uid
        rows = [] if chosen is None else [row for entry in chosen if (row := _left_alone(entry)) is not None]
        for trial in self.reviser.finished(uid, numbers=self.rereading.trials):
            judgement = self.reviser.preview(uid, trial, self.rereading)
            row = Row(trial.number, trial.state, trial.objective, skipped=judgement.skipped)
            if judgement.after is not None:
                after = judgement.after
                if trial.objective is not None and after.objective is None and not self.allow_loss:
                    self.losses += 1
                    rows.append(dataclasses.replace(row, skipped="it would lose its value: --allow-loss"))
                    continue
                row = dataclasses.replace(
                    row, after=after.trial_state, value=after.objective, changes=judgement.changes
                )
                self.unchanged += not judgement.changes
                if after.trial_state is TrialState.METRICS_UNAVAILABLE and self.still_nothing is None:
                    self.still_nothing = dataclasses.replace(
                        trial, state=after.trial_state, reason=after.end.reason, message=after.end.message
                    )
            rows.append(row)
        return sorted({row.number: row for row in rows}.values(), key=lambda row: row.number)

    def apply(self, changing: Sequence[int]) -> None:
        """Whoever owns the counts revises them: the workflow while it runs, else the row."""
        if self.losses:  # else: all that have ended by then
            self.rereading = self.rereading.model_copy(update={"trials": list(changing)})
        for _ in range(3):  # it may end, or be reopened, while we look
            record = self.store.experiment_by_uid(self.record.uid)
            if record.state.terminal:
                self._revise_row(changing)
                if self.store.experiment_by_uid(record.uid).state.terminal:
                    return
            else:
                try:
                    self._ask_workflow()
                except ConflictError:
                    if not self.store.experiment_by_uid(record.uid).state.terminal:
                        raise
                    continue
                return
        raise ConflictError(f"{self.record.name} ends and begins while it is revised", hint="try again")

    def as_they_are(self, rows: Sequence[Row]) -> list[Row]:
        """The rows with what the database says now of those that were to change."""
        told = []
        for row in rows:
            if row.changes:
                trial = self.store.trial(self.record.uid, row.number)
                row = dataclasses.replace(row, after=trial.state, value=trial.objective)
            told.append(row)
        return told

    def _revise_row(self, changing: Sequence[int]) -> None:
        """The audit row comes first: if we die between two trials, it says who changed the first one, and why."""
        uid = self.record.uid
        detail = self.rereading.model_dump(exclude_none=True)
        detail |= {"trials": list(changing)[:AUDITED], "changed": len(changing)}
        self.store.note(
            uid,
            key=f"reparse-{uuid.uuid4().hex}",
            actor=self.now.actor(),
            action="reparse",
            detail=detail,
            at=datetime.now(UTC),
        )
        done = 0
        try:
            for trial in self.reviser.finished(uid, numbers=list(changing)):
                self.reviser.apply(uid, trial, self.rereading)
                done += 1
        except KeyboardInterrupt:
            self.now.say(f"{done} of {plural(len(changing), 'trial')} revised; the same command does the rest.")
            raise

    def _ask_workflow(self) -> None:
        async def act(client: Client) -> None:
            handle = await client.handle(self.record.namespace, self.record.name)
            await handle.reparse(self.rereading, actor=self.now.actor())

        self.now.with_client(act)


def _left_alone(trial: TrialRecord) -> Row | None:
    """Why a trial that somebody named has no verdict to revise; None when it has one."""
    if not trial.state.terminal:
        why = "it runs" if trial.state is TrialState.RUNNING else "it has not been started"
        why += "; a running trial is read with the experiment's own rules" if trial.state is TrialState.RUNNING else ""
    elif trial.state is TrialState.FAILED:
        why = "it failed, and what a failed trial printed has no say"
    elif not trial.attempts:
        why = "it never ran"
    else:
        return None
    return Row(trial.number, trial.state, trial.objective, skipped=why)


def _say(now: Session, record: ExperimentRecord, rows: Sequence[Row], work: Work, *, applied: bool) -> None:
    changing = sum(row.changes for row in rows)
    name = addressed(record)
    alone = f"; {work.unchanged} stay as they are" if work.unchanged else ""
    if not changing:
        _say_nothing(now, record, rows, work)
        return
    if not applied:
        command = _command(name, work.rereading, allow_loss=work.allow_loss)
        words = f"{plural(changing, 'trial')} would change{alone}. Nothing is changed yet."
        now.say("", words, *next_lines([(command, "change them")]))
        return
    best = record.best
    known = "no best trial" if best is None else f"best {record.objective.metric} {clean(best.objective or '')}"
    at = "" if best is None else f" at trial {best.number}"
    now.say("", f"{plural(changing, 'trial')} revised{alone}; {record.name} is {record.state}, {known}{at}.")
    following = [(f"evertune best {name}", "the best trial")] if best is not None else []
    if record.state.terminal:
        following.append(going_on(record, name))
    else:
        following.append((f"evertune watch {name}", "it goes on with the new verdicts"))
    now.say(*next_lines(following))
    if work.rereading.filters or work.rereading.metric:
        which = "New trials" if record.state.terminal else "Trials that end from now on"
        now.say("", f"{which} are read by the experiment's own rules: once they end, give this command again.")


def _say_nothing(now: Session, record: ExperimentRecord, rows: Sequence[Row], work: Work) -> None:
    """Nothing changes: because all is as it should be, or because these rules find nothing either."""
    name = addressed(record)
    judged = sum(not row.skipped for row in rows)
    lead = [] if not rows else [""]
    if not judged:
        now.say(*lead, f"{record.name} has no finished trial whose log can be read again.")
    else:
        now.say(*lead, f"Nothing changes: {plural(judged, 'trial')} read, the same verdicts.")
    if (trial := work.still_nothing) is not None:
        now.say(f"trial {trial.number}: {trial_sentence(trial)}")
        tried = f"evertune logs {name} --trial {trial.number} | evertune metrics test - -f REGEX"
        now.say(*next_lines([(tried, "try filters on its log")]))


def _command(name: str, rereading: Rereading, *, allow_loss: bool) -> str:
    """The same, with --apply."""
    if not all(text.isprintable() for text in (*(rereading.filters or ()), rereading.metric or "")):
        return "the same command with --apply"
    words = [f"--filter {shlex.quote(text)}" for text in rereading.filters or ()]
    if rereading.metric is not None:
        words.append(f"--metric {shlex.quote(rereading.metric)}")
    words += [f"--trial {number}" for number in rereading.trials or ()]
    words += ["--allow-loss"] if allow_loss else []
    return " ".join([f"evertune metrics reparse {name}", *words, "--apply"])
