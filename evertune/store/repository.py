"""`Store`: all that the rest of evertune asks of the database, one transaction per method.

Called by activities (through `asyncio.to_thread`), the ask process, the client and the CLI. Sync and safe for threads;
several processes may hold one on the same database. Every write is idempotent in the way its docstring says, so that
whoever was killed after the commit may simply call again. It refuses to decide anything: verdicts, retries and states
come from its callers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Literal, Self

from sqlalchemy import Connection

from evertune.domain.metrics import Point
from evertune.domain.records import (
    AttemptRecord,
    AuditRecord,
    Budget,
    Counts,
    ExperimentRecord,
    RequestRecord,
    TrialRecord,
)
from evertune.domain.states import ExperimentState, TrialState
from evertune.domain.stopping import Decision
from evertune.domain.trial import AttemptEnd, AttemptRef, Conclude, HistoryTrial
from evertune.errors import NotFoundError
from evertune.protocols import Answer, EarlyStopper, JsonDict, LedgerEntry
from evertune.store import experiments, following, launches, requests, stopping, trials
from evertune.store.engine import Database
from evertune.store.records import NewExperiment
from evertune.store.reporting import ReportMethods


class Store(ReportMethods):
    """See the module. Made by `opening.open_store`."""

    def __init__(self, database: Database, database_id: str) -> None:
        self._database = database
        self._read = database.read
        self._write = database.write
        self.database_id = database_id

    def ping(self) -> None:
        """Returns when the database answers; raises UnavailableError when it does not."""
        with suppress(NotFoundError):
            self.experiment_by_uid("")

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------ experiments

    def claim_experiment(self, new: NewExperiment) -> ExperimentRecord:
        """Take (namespace, name). The same workflow and first run get the row that is there; others NameTakenError."""
        return self._write(lambda tx: experiments.claim(tx, new))

    def experiment(self, namespace: str, name: str) -> ExperimentRecord:
        return self._read(lambda tx: experiments.by_name(tx, namespace, name))

    def experiment_by_uid(self, uid: str) -> ExperimentRecord:
        return self._read(lambda tx: experiments.by_uid(tx, uid))

    def list_experiments(self, namespace: str | None = None) -> list[ExperimentRecord]:
        """The oldest first, with counts and best; None = all namespaces."""
        return self._read(lambda tx: experiments.listed(tx, namespace))

    def unfinished(self) -> list[ExperimentRecord]:
        return self._read(experiments.unfinished)

    def set_state(
        self,
        uid: str,
        state: ExperimentState,
        *,
        reason: str = "",
        message: str = "",
        budget: Budget | None = None,
        goal: float | None = None,
        key: str,
        actor: str = "",
        action: str = "",
        detail: Mapping[str, Any] | None = None,
        at: datetime,
    ) -> None:
        """Change state, and budget and goal if given; an audit row if `action` is. A known `key` changes nothing."""
        self._write(
            lambda tx: experiments.set_state(
                tx,
                uid,
                state,
                reason=reason,
                message=message,
                budget=budget,
                goal=goal,
                key=key,
                actor=actor,
                action=action,
                detail=detail,
                at=at,
            )
        )

    def reopen(
        self,
        uid: str,
        *,
        reason: str = "",
        message: str = "",
        budget: Budget | None = None,
        goal: float | None = None,
        key: str,
        actor: str = "",
        action: str = "",
        detail: Mapping[str, Any] | None = None,
        at: datetime,
        first_run_id: str | None = None,
    ) -> None:
        """Restart a finished experiment, owned by the run that is given. ConflictError when it has not finished.

        A known `key` changes nothing. Trials, counts, told order and best go on where they were.
        """
        self._write(
            lambda tx: experiments.set_state(
                tx,
                uid,
                ExperimentState.RESTARTING,
                reason=reason,
                message=message,
                budget=budget,
                goal=goal,
                key=key,
                actor=actor,
                action=action,
                detail=detail,
                at=at,
                only_from_terminal=True,
                first_run_id=first_run_id,
            )
        )

    def delete_experiment(self, uid: str) -> None:
        """Remove the experiment and everything that belongs to it; nothing happens when it is not there.

        Where it ran in a cluster stays among the `leftovers`.
        """

        def remove(tx: Connection) -> None:
            launches.leave(tx, uid)
            experiments.remove(tx, uid)

        self._write(remove)

    def note(
        self, uid: str, *, key: str, actor: str, action: str, detail: Mapping[str, Any] | None = None, at: datetime
    ) -> None:
        """An audit row for something that changes no state. A known `key` changes nothing."""
        self._write(
            lambda tx: experiments.note(
                tx, experiments.locked(tx, uid).id, key=key, actor=actor, action=action, detail=detail, at=at
            )
        )

    def audit(self, uid: str) -> list[AuditRecord]:
        return self._read(lambda tx: experiments.audit(tx, uid))

    def counts(self, uid: str) -> Counts:
        return self._read(lambda tx: experiments.counts(tx, uid))

    def best(self, uid: str) -> TrialRecord | None:
        """The best objective so far, of equals the first told. Without any number: the text that was told last."""
        return self._read(lambda tx: experiments.best(tx, uid))

    # ------------------------------------------------------------------------------------------- suggestions

    def open_request(self, uid: str, request_no: int, k: int, revision: int = 1) -> RequestRecord:
        """The request with its history cut. One that was opened before is returned as it was, whatever `k` says now."""
        return self._write(lambda tx: requests.open_request(tx, uid, request_no, k, revision))

    def history(self, uid: str, *, cut: int, first_number: int) -> list[HistoryTrial]:
        """All trials below `first_number`, by number, as they were at the cut: who was not told yet is RUNNING."""
        return self._read(lambda tx: requests.history(tx, uid, cut=cut, first_number=first_number))

    def history_since(
        self, uid: str, *, after: int, from_number: int, cut: int, first_number: int
    ) -> list[HistoryTrial]:
        """What changed for a reader that knows the history at cut `after` with all trials below `from_number`."""
        return self._read(
            lambda tx: requests.history_since(
                tx, uid, after=after, from_number=from_number, cut=cut, first_number=first_number
            )
        )

    def algorithm_state(self, uid: str, before_request: int) -> JsonDict | None:
        """The state that the last committed request before this one (of its revision) left behind; None for the first.

        NotFoundError when that state was dropped: only the last two and every 100th request keep theirs.
        """
        return self._read(lambda tx: requests.algorithm_state(tx, uid, before_request))

    def commit_answer(self, uid: str, request_no: int, answer: Answer, at: datetime) -> list[TrialRecord]:
        """Create the answer's trials and keep its state. A request with an answer keeps it and returns its trials."""
        return self._write(lambda tx: requests.commit_answer(tx, uid, request_no, answer, at))

    def request(self, uid: str, request_no: int) -> RequestRecord:
        return self._read(lambda tx: requests.one(tx, uid, request_no))

    def requests(self, uid: str) -> list[RequestRecord]:
        return self._read(lambda tx: requests.every(tx, uid))

    def trials_of_request(self, uid: str, request_no: int) -> list[TrialRecord]:
        return self._read(lambda tx: requests.trials_of(tx, uid, request_no))

    # ------------------------------------------------------------------------------------------------ trials

    def trial(self, uid: str, number: int) -> TrialRecord:
        return self._read(lambda tx: trials.one(tx, uid, number))

    def trials(
        self,
        uid: str,
        *,
        states: Collection[TrialState] | None = None,
        sort: Literal["number", "best"] = "number",
        limit: int | None = None,
        after: int | None = None,
    ) -> list[TrialRecord]:
        """By number, or best first (only those with an objective). `after`: go on behind the trial of that number."""
        return self._read(lambda tx: trials.listed(tx, uid, states=states, sort=sort, limit=limit, after=after))

    def told_trials(self, uid: str, *, after: int = 0, limit: int = 5000) -> list[TrialRecord]:
        """Trials that ended behind place `after` of the told order, in that order."""
        return self._read(lambda tx: following.told_trials(tx, uid, after=after, limit=limit))

    def last_ended(self, uid: str) -> TrialRecord | None:
        """The trial whose end, or revised verdict, was told last."""
        return self._read(lambda tx: following.last_ended(tx, uid))

    def progress(self, uid: str, metric: str) -> dict[int, tuple[int, str]]:
        """Of each running trial that has reported `metric` in its current attempt: how many values, and the last."""
        return self._read(lambda tx: following.progress(tx, uid, metric))

    def attempts(self, uid: str, number: int) -> list[AttemptRecord]:
        return self._read(lambda tx: trials.attempts(tx, uid, number))

    def open_attempt(self, uid: str, number: int, attempt: int, *, home_id: str | None, at: datetime) -> AttemptRecord:
        """Take the lease of an attempt; one that exists, running or ended, is returned as it is.

        ConflictError when the trial has ended or another attempt of it still runs: never two at once.
        """
        return self._write(lambda tx: trials.open_attempt(tx, uid, number, attempt, home_id=home_id, at=at))

    def end_attempt(
        self,
        uid: str,
        number: int,
        attempt: int,
        conclude: Conclude,
        *,
        points: Sequence[Point] = (),
        collected: bool = True,
    ) -> tuple[TrialRecord, int]:
        """Record how an attempt ended, free its lease and, unless it goes on `again`, end the trial.

        `conclude` judges by all points that were reported, these ones included. Returns the trial and its place in
        the told order (from 1), 0 when it gets another attempt. An attempt that has ended keeps its first end: a
        second call stores only points that were missing and returns what is there. `collected`: False when more may
        come; it is `Taken.late` then if it changes the verdict.
        """
        return self._write(
            lambda tx: trials.end_attempt(tx, uid, number, attempt, conclude, new=points, collected=collected)
        )

    def request_stop(self, uid: str, attempts: Mapping[int, int], reason: str) -> None:
        """Note for whoever reports for these attempts, by number, that they are to end. The first reason stays."""
        self._write(lambda tx: trials.request_stop(tx, uid, attempts, reason))

    def set_phase(self, uid: str, number: int, attempt: int, phase: str) -> None:
        """Note what a running attempt waits for, "" for nothing; it is its trial's reason meanwhile.

        No-op after its end, which clears it.
        """
        self._write(lambda tx: trials.set_phase(tx, uid, number, attempt, phase))

    def phases(self, uid: str) -> dict[int, str]:
        """What running attempts wait for, by trial number; those that wait for nothing are left out."""
        return self._read(lambda tx: trials.phases(tx, uid))

    # ----------------------------------------------------------------------------------------- early stopping

    def weigh(
        self, uid: str, rule: EarlyStopper, metric: str, attempts: Collection[tuple[int, int]], at: datetime
    ) -> tuple[list[Decision], list[tuple[int, int]]]:
        """Ask the rule about what these running attempts, (number, attempt), have reported since they were weighed.

        `metric`: the objective's. Returns the attempts that are to be stopped, those included that were decided before
        and that nobody was asked to stop yet, and the attempts that are to be weighed again since there is more.
        """
        return self._write(lambda tx: stopping.weigh(tx, uid, rule, metric, attempts, at))

    def silent(self, uid: str, rule: EarlyStopper, seconds: float, *, since: datetime, at: datetime) -> list[Decision]:
        """Decide on running attempts that have reported nothing for so long, what was before `since` left aside.

        An attempt that still waits for its place is not silent.
        """
        return self._write(lambda tx: stopping.silent(tx, uid, rule, seconds, since=since, at=at))

    def running_experiments(self) -> list[str]:
        """The uids of experiments of which an attempt runs."""
        return self._read(stopping.running)

    def undelivered_stops(self) -> list[tuple[str, Decision]]:
        """(experiment uid, decision) about attempts that run and that nobody was asked to stop yet."""
        return self._read(stopping.undelivered)

    def stop_decisions(self, uid: str) -> list[Decision]:
        """What early stopping has decided, by trial, whether or not the trial had ended by then."""
        return self._read(lambda tx: stopping.decisions(tx, uid))

    # ----------------------------------------------------------------------------------------------- launches

    def claim_launch(self, ref: AttemptRef, place: JsonDict) -> LedgerEntry:
        """See `protocols.Ledger`. NotFoundError when the experiment is gone."""
        return self._write(lambda tx: launches.claim(tx, ref, place))

    def launch(self, ref: AttemptRef) -> LedgerEntry:
        """What is known of the attempt; an empty entry when nothing is."""
        return self._read(lambda tx: launches.look(tx, ref))

    def stop_launch(self, ref: AttemptRef, reason: str) -> LedgerEntry:
        return self._write(lambda tx: launches.stop(tx, ref, reason))

    def end_launch(self, ref: AttemptRef, end: AttemptEnd) -> LedgerEntry:
        return self._write(lambda tx: launches.end(tx, ref, end))

    def places(self) -> list[tuple[str, JsonDict]]:
        """(experiment uid, place) of the first attempt that each experiment has claimed: the others are beside it."""
        return self._read(launches.places)

    def leftovers(self) -> list[tuple[str, JsonDict, datetime]]:
        """(experiment uid, place, when) of deleted experiments that may have left something in a cluster."""
        return self._read(launches.leftovers)

    def forget_leftovers(self, uids: Sequence[str]) -> None:
        """Nothing of these experiments is left."""
        self._write(lambda tx: launches.forget(tx, uids))

    # ------------------------------------------------------------------------------------------------ revising

    def revise(
        self,
        uid: str,
        number: int,
        attempt: int,
        conclude: Conclude,
        *,
        points: Sequence[Point] = (),
        forget: Sequence[tuple[int, int]] = (),
    ) -> tuple[TrialRecord, TrialRecord]:
        """Judge the last attempt of a finished trial anew: the trial before and after.

        Points with a `seq` in one of the half-open ranges `forget` are dropped, then `points` are added. A verdict that
        changes takes a new place in the told order, and whoever reads the history at an older cut sees the old one.
        Judged twice alike, nothing changes the second time. ConflictError while the trial runs.
        """
        return self._write(lambda tx: trials.revise(tx, uid, number, attempt, conclude, new=points, forget=forget))

    def settled(self, uid: str, *, below: int, without: Collection[int] = ()) -> dict[TrialState, int]:
        """Finished trials by state, of those with a number below `below` that are not in `without`."""
        return self._read(lambda tx: trials.settled(tx, uid, below, without))

    def late(self, uid: str) -> list[int]:
        """Trials that have reported since their end what changes their verdict: an objective that was missing, or
        what was still on its way when they were judged.
        """
        return self._read(lambda tx: following.late(tx, uid))

    def last_revision(self, uid: str) -> int:
        """The place in the told order of the newest revised verdict, 0 without any."""
        return self._read(lambda tx: requests.last_revision(tx, uid))

    def close_trial(self, uid: str, number: int, state: TrialState, reason: str, message: str, at: datetime) -> int:
        """End a trial that no attempt runs, and return its place in the told order. An ended trial keeps its end."""
        return self._write(lambda tx: trials.close_trial(tx, uid, number, state, reason, message, at))

    def running_attempts(self, uid: str | None = None, home_id: str | None = None) -> list[tuple[str, AttemptRecord]]:
        """The leases, as (experiment uid, attempt), the oldest first."""
        return self._read(lambda tx: trials.running_attempts(tx, uid, home_id))
