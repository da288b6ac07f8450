"""`logs`: what trials printed or wrote for their collector; followed while they run, archived or not."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from evertune import archive
from evertune.cli import options
from evertune.cli.choosing import Attempt, Trial, chosen_attempt, chosen_trials
from evertune.cli.output.printer import PipeClosedError
from evertune.cli.output.text import clean
from evertune.cli.session import Session, session
from evertune.cli.views.sentences import addressed, trial_sentence
from evertune.domain.records import ExperimentRecord, TrialRecord
from evertune.domain.states import TrialState
from evertune.domain.trial import REUSED
from evertune.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from evertune.store import Store

COLLECTOR_LOG = "collector/log"
POLL_S = 0.2
MOST_TRIALS = 64  # printed at once


def logs_(
    name: options.Name,
    namespace: options.Namespace = None,
    trial: Trial = None,
    attempt: Attempt = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the trials end.")] = False,
    tail: Annotated[int | None, typer.Option("--tail", min=0, help="Only so many lines.", show_default=False)] = None,
    replica: Annotated[
        str | None,
        typer.Option("--replica", metavar="NAME", help="Another replica of a distributed job.", show_default=False),
    ] = None,
    collector: Annotated[bool, typer.Option("--collector", help="What the user's own collector printed.")] = False,
    file: Annotated[bool, typer.Option("--file", help="The file in which its collector looks for metrics.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="No trial numbers before the lines of several.")] = False,
) -> None:
    """What a trial printed. Without --trial: those that run, else the one that ended last."""
    now = session()
    record = now.find(namespace, name)
    with now.store() as store:
        trials = _latest(store, record) if trial is None else chosen_trials(store, record, trial)
        if sum((file, collector, replica is not None)) > 1:
            raise UsageError("--file, --collector and --replica are different texts", hint="leave all but one out")
        sources = [_source(now, record, entry, attempt, _named(collector)) for entry in trials[:MOST_TRIALS]]
        if replica is not None:
            sources = [_of_replica(source, replica) for source in sources]
        if file:
            sources = [_of_file(now, store, record, source) for source in sources]
        prefixed = len(sources) > 1 and not plain
        digits = max(len(str(source.trial.number)) for source in sources)
        for source in sources:
            _print(source, tail, f"{source.trial.number:>{digits}} | " if prefixed else "", partial=not follow)
        if follow:
            _follow(store, record, sources, digits if prefixed else None)
    _say(now, record, sources, len(trials))


def _named(collector: bool) -> str:
    return COLLECTOR_LOG if collector else "log"


def _of_file(now: Session, store: Store, record: ExperimentRecord, source: Source) -> Source:
    """The file of the experiment's `fileSystemPath`, where this attempt has it. UsageError when there is none."""
    from activities.launch import LaunchPlans
    from activities.runners.local import LocalRunner
    from evertune import spec

    wanted = spec.collector_spec(spec.load_stored(record.manifest))
    if wanted.path is None or wanted.path_kind == "Directory":
        raise UsageError(f"{record.name} collects with {wanted.kind}, which reads no file", hint="leave out --file")
    plan = LaunchPlans(store).of(record.uid, source.trial.number, source.attempt)
    runner = LocalRunner(now.settings.trials_dir)
    try:
        place = runner.sources(plan.launch, wanted.path)
    finally:
        runner.close()
    return replace(source, name=os.path.relpath(place.path or wanted.path, place.notes))


def _of_replica(source: Source, wanted: str) -> Source:
    """The log of that replica; the attempt's own log is the primary's. NotFoundError names those there are."""
    found = _replicas(source)
    if wanted not in found:
        said = f"its replicas are {', '.join(found)}" if found else "it is one process"
        raise NotFoundError(f"trial {source.trial.number} has no replica {clean(wanted)}", hint=said)
    return source if wanted == found[0] else replace(source, name=f"replicas/{wanted}/log")


def _replicas(source: Source) -> list[str]:
    """Of a distributed job, the primary first; empty for what is one process."""
    try:
        plan = json.loads((source.attempts / str(source.attempt) / "plan").read_bytes())
        primary, names = plan["primary"], [entry["name"] for entry in plan["replicas"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [primary, *(name for name in names if name != primary)]


@dataclass
class Source:
    """One attempt's log and how far it was read."""

    trial: TrialRecord
    attempt: int
    attempts: Path  # the directory of the trial's attempts
    name: str  # of the log in an attempt's
    offset: int = 0
    rest: bytes = b""  # of a line that is not finished

    @property
    def path(self) -> Path:
        return self.attempts / str(self.attempt) / self.name

    def read(self) -> Iterator[bytes]:
        """What is new since the last call, also when the log was archived meanwhile."""
        for piece in archive.read(self.path, self.offset):
            self.offset = piece.end
            yield piece.data


def _latest(store: Store, record: ExperimentRecord) -> list[TrialRecord]:
    if running := store.trials(record.uid, states=[TrialState.RUNNING]):
        return running
    if (ended := store.last_ended(record.uid)) is None:
        raise NotFoundError(
            f"no trial of {record.name} has run yet",
            hint=f"`evertune explain {addressed(record)}` says what it waits for",
        )
    return [ended]


def _source(now: Session, record: ExperimentRecord, trial: TrialRecord, attempt: int | None, log: str) -> Source:
    number = chosen_attempt(record, trial, attempt)
    if record.home_id is not None and record.home_id != now.settings.home_id:
        raise UsageError(
            f"{record.name} runs in another home or on another machine; its logs are there",
            hint="set EVERTUNE_HOME to that home",
        )
    return Source(trial, number, now.settings.trials_dir / record.uid / str(trial.number), log)


def _print(source: Source, tail: int | None, prefix: str, *, partial: bool) -> None:
    """The whole log, or its last lines. `partial`: also a last line without its newline."""
    if tail is not None:
        source.offset = archive.tail_start(source.path, tail)
    for data in source.read():
        _write(source, data, prefix)
    if partial and source.rest:
        _write(source, b"\n", prefix)


def _write(source: Source, data: bytes, prefix: str) -> None:
    """Whole lines only when they get a prefix: lines of two trials must not mix."""
    if prefix:
        *whole, source.rest = (source.rest + data).split(b"\n")
        data = b"".join(prefix.encode() + line + b"\n" for line in whole)
    try:
        out: BinaryIO = sys.stdout.buffer
        out.write(data)
        out.flush()
    except BrokenPipeError as error:
        raise PipeClosedError from error


def _follow(store: Store, record: ExperimentRecord, sources: list[Source], digits: int | None) -> None:
    """Until every trial has ended and its log was read to the end; a new attempt begins its own log."""
    open_sources = list(sources)
    while open_sources:
        waits = True
        for source in list(open_sources):
            prefix = "" if digits is None else f"{source.trial.number:>{digits}} | "
            # The state before the last read: what was written until the end is in the file by then.
            trial = store.trial(record.uid, source.trial.number)
            for data in source.read():
                _write(source, data, prefix)
            newer = trial.attempts - 1 > source.attempt
            if source.rest and (newer or trial.state.terminal):
                _write(source, b"\n", prefix)
            if newer:  # each in its turn: several may have come and gone since the last look
                source.attempt += 1
                source.offset = 0
            elif trial.state.terminal:
                open_sources.remove(source)
            waits = waits and not newer
        if open_sources and waits:
            time.sleep(POLL_S)


def _kubectl(record: ExperimentRecord, source: Source) -> str:
    """With a collector beside the trial, its log comes here when it has ended."""
    which = {"experiment": record.uid, "trial": source.trial.number, "attempt": source.attempt}
    selector = ",".join(f"evertune.io/{name}={value}" for name, value in which.items())
    return f"kubectl logs -f --all-containers -n {record.namespace} -l {selector}"


def _say(now: Session, record: ExperimentRecord, sources: list[Source], total: int) -> None:
    if len(sources) == 1:
        source = sources[0]
        words = f"trial {source.trial.number}, attempt {source.attempt}"
        if source.trial.attempts > 1:
            words += f" of {source.trial.attempts} (from 0); the others: --attempt N"
        if len(replicas := _replicas(source)) > 1:
            words += f"; --replica {', '.join(replicas[1:])} shows another process than {replicas[0]}"
        if source.trial.reason == REUSED:
            words += f"; nothing ran: it has {trial_sentence(source.trial)}"
        elif not archive.exists(source.path):
            gone = "is gone" if source.name == "log" else "was never written, or is gone"
            where = os.path.normpath(source.path)
            words += "; it had no collector of its own" if source.name == COLLECTOR_LOG else f"; {where} {gone}"
            if record.backend == "kubernetes" and not source.trial.state.terminal:
                now.say("", [(f"Its pod prints it: {_kubectl(record, source)}", "")])
                return
        now.say("", [(words, "dim")])
    elif total > len(sources):
        now.say("", [(f"{len(sources)} of {total} trials: name one with --trial", "dim")])
    now.say([(f"Next: evertune explain {addressed(record)} {sources[0].trial.number}", "dim")])
