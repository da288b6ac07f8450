"""The tables. Surrogate integer keys stay inside the store; everybody else speaks uid and trial number.

Read by `experiments`, `requests` and `trials`; a test holds them equal to what the migrations create. Counters of
trials live on the experiment's row and change in the transaction that changes the trial, so that nothing ever counts.
Table names carry our name: `experiments` and the like are taken by others wherever databases are shared.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

from sqlalchemy import BigInteger, ForeignKey, Index, MetaData, Table, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from evertune.store.columns import Json, LongText, Real, UtcTime, Word


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcTime, str: LongText, float: Real}  # noqa: RUF012


def table_of(model: type[Base]) -> Table:
    """The model's table, for Core statements: the ORM's bookkeeping costs more than these queries."""
    return cast(Table, model.__table__)


def _word(length: int) -> Any:
    return mapped_column(Word(length))


def _owner(target: str) -> Any:
    return mapped_column(ForeignKey(target, ondelete="CASCADE"))


class DatabaseRow(Base):
    """One row: who this database is. Admission writes the id into the workflow, so that two are never mixed."""

    __tablename__ = "evertune_database"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    database_id: Mapped[str] = _word(32)
    created: Mapped[datetime]


class ExperimentRow(Base):
    __tablename__ = "evertune_experiments"
    __table_args__ = (UniqueConstraint("namespace", "name"), UniqueConstraint("uid"), Index(None, "state"))

    id: Mapped[int] = mapped_column(primary_key=True)
    uid: Mapped[str] = _word(32)
    namespace: Mapped[str] = _word(63)
    name: Mapped[str] = _word(253)
    state: Mapped[str] = _word(32)
    # counters: `trials` is also the next trial's number, `told_seq` the highest one given out
    trials: Mapped[int] = mapped_column(default=0)
    told_seq: Mapped[int] = mapped_column(default=0)
    pending: Mapped[int] = mapped_column(default=0)
    running: Mapped[int] = mapped_column(default=0)
    succeeded: Mapped[int] = mapped_column(default=0)
    failed: Mapped[int] = mapped_column(default=0)
    early_stopped: Mapped[int] = mapped_column(default=0)
    metrics_unavailable: Mapped[int] = mapped_column(default=0)
    killed: Mapped[int] = mapped_column(default=0)
    best_number: Mapped[int | None]
    best_score: Mapped[float | None]
    best_shortfall: Mapped[float | None]  # of that trial; None is 0
    best_violation: Mapped[float | None]  # of that trial; None is 0
    maximize: Mapped[bool]
    parallel: Mapped[int]
    max_trials: Mapped[int | None]
    max_failed: Mapped[int | None]
    seed: Mapped[int] = mapped_column(BigInteger)
    revision: Mapped[int] = mapped_column(default=1)
    algorithm: Mapped[str] = _word(255)
    backend: Mapped[str] = _word(32)
    home_id: Mapped[str | None] = _word(64)
    workflow_id: Mapped[str] = _word(1000)
    first_run_id: Mapped[str] = _word(64)
    created: Mapped[datetime]
    started: Mapped[datetime | None]
    ended: Mapped[datetime | None]
    reason: Mapped[str]
    message: Mapped[str]
    marked: Mapped[int | None]  # the told_seq up to which ended trials have left their marks
    settings: Mapped[Any] = mapped_column(Json, nullable=False)
    objective: Mapped[Any] = mapped_column(Json, nullable=False)
    space: Mapped[Any] = mapped_column(Json, nullable=False)
    context: Mapped[Any] = mapped_column(Json, nullable=False)
    manifest: Mapped[Any] = mapped_column(Json, nullable=False)


class AuditRow(Base):
    """A change of an experiment that was applied, by its key. Rows without an action are only that: applied."""

    __tablename__ = "evertune_audit"
    __table_args__ = (UniqueConstraint("experiment_id", "key"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    experiment_id: Mapped[int] = _owner("evertune_experiments.id")
    key: Mapped[str] = _word(255)
    at: Mapped[datetime]
    actor: Mapped[str]
    action: Mapped[str]
    detail: Mapped[Any] = mapped_column(Json, nullable=True)


class RequestRow(Base):
    """A suggest request. `state` is the algorithm's after it: the text `null` if it has none, SQL NULL once dropped."""

    __tablename__ = "evertune_requests"
    __table_args__ = (UniqueConstraint("experiment_id", "request_no"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    experiment_id: Mapped[int] = _owner("evertune_experiments.id")
    request_no: Mapped[int]
    k: Mapped[int]
    revision: Mapped[int]
    cut: Mapped[int]
    first_number: Mapped[int]
    answered: Mapped[int] = mapped_column(default=0)
    wait: Mapped[bool] = mapped_column(default=False)
    exhausted: Mapped[bool] = mapped_column(default=False)
    asked: Mapped[datetime]
    committed: Mapped[datetime | None]
    reason: Mapped[str]
    state: Mapped[Any] = mapped_column(Json(none_as_null=False), nullable=True)


class TrialRow(Base):
    """`score` is the objective as a number to minimize: one ascending index finds the best of either direction.

    `violation` comes first there, of outcome constraints: whatever is infeasible is worse than all that is feasible.
    Then `shortfall` (`labels.shortfall`): a trial with less of its resource is worse, whatever its score.
    """

    __tablename__ = "evertune_trials"
    __table_args__ = (
        UniqueConstraint("experiment_id", "number"),
        UniqueConstraint("experiment_id", "name"),
        Index(None, "experiment_id", "told_seq"),
        Index("ix_evertune_trials_best", "experiment_id", "violation", "shortfall", "score", "told_seq"),
        Index(None, "experiment_id", "state", "number"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    experiment_id: Mapped[int] = _owner("evertune_experiments.id")
    number: Mapped[int]
    state: Mapped[str] = _word(32)
    told_seq: Mapped[int | None]
    violation: Mapped[float] = mapped_column(default=0.0, server_default="0")
    shortfall: Mapped[float] = mapped_column(default=0.0, server_default="0")
    score: Mapped[float | None]
    objective_value: Mapped[float | None]
    request_no: Mapped[int]
    attempts: Mapped[int] = mapped_column(default=0)
    parameters: Mapped[Any] = mapped_column(Json, nullable=False)
    labels: Mapped[Any] = mapped_column(Json, nullable=True)
    meta: Mapped[Any] = mapped_column(Json, nullable=True)
    name: Mapped[str] = _word(300)
    created: Mapped[datetime]
    started: Mapped[datetime | None]
    ended: Mapped[datetime | None]
    objective: Mapped[str | None]
    metrics: Mapped[Any] = mapped_column(Json, nullable=True)
    spread: Mapped[Any] = mapped_column(Json, nullable=True)  # standard deviations of replicates
    steps: Mapped[int | None]  # values of the objective when it was stopped early
    reason: Mapped[str]
    message: Mapped[str]


class AttemptRow(Base):
    """One execution of a trial. A row in state Running is a lease: it holds one place of the parallelism."""

    __tablename__ = "evertune_attempts"
    __table_args__ = (UniqueConstraint("trial_id", "attempt"), Index(None, "state", "home_id", "experiment_id"))

    id: Mapped[int] = mapped_column(primary_key=True)
    trial_id: Mapped[int] = _owner("evertune_trials.id")
    experiment_id: Mapped[int]  # the trial's, here for the index of leases; the trial owns the row
    number: Mapped[int]
    attempt: Mapped[int]
    state: Mapped[str] = _word(32)
    failure: Mapped[str | None] = _word(32)
    charged: Mapped[bool] = mapped_column(default=False)
    again: Mapped[bool] = mapped_column(default=False)
    home_id: Mapped[str | None] = _word(64)
    exit_code: Mapped[int | None]
    signal: Mapped[int | None]
    started: Mapped[datetime | None]
    ended: Mapped[datetime | None]
    reason: Mapped[str]
    message: Mapped[str]
    collected: Mapped[bool] = mapped_column(default=False)
    stop: Mapped[str | None]
    phase: Mapped[str | None]


class LaunchRow(Base):
    """What runs, or ran, an attempt in a cluster. The first word in each column stays; see `protocols.Ledger`."""

    __tablename__ = "evertune_launches"
    __table_args__ = (UniqueConstraint("experiment_id", "number", "attempt"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    experiment_id: Mapped[int] = _owner("evertune_experiments.id")
    number: Mapped[int]
    attempt: Mapped[int]
    place: Mapped[Any] = mapped_column(Json, nullable=True)
    stop: Mapped[str | None]
    ending: Mapped[Any] = mapped_column(Json, nullable=True)


class LeftoverRow(Base):
    """Where an experiment that was deleted ran in a cluster: a worker looks there for what it may have left."""

    __tablename__ = "evertune_leftovers"
    __table_args__ = (UniqueConstraint("experiment_uid"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    experiment_uid: Mapped[str] = _word(32)
    place: Mapped[Any] = mapped_column(Json, nullable=True)
    deleted: Mapped[datetime]


class OriginRow(Base):
    """One of the pods that an attempt had one after the other, in the order in which they were first heard of."""

    __tablename__ = "evertune_origins"
    __table_args__ = (UniqueConstraint("attempt_id", "origin"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    attempt_id: Mapped[int] = _owner("evertune_attempts.id")
    origin: Mapped[str] = _word(64)
    ordinal: Mapped[int]


class SeriesRow(Base):
    """One metric of one attempt, summed up in the transaction that adds points: a verdict never reads the points.

    `last_seq` is the highest one, so that a report that only goes on needs no look at what is there.
    """

    __tablename__ = "evertune_series"
    __table_args__ = (UniqueConstraint("trial_id", "attempt", "metric"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    trial_id: Mapped[int] = _owner("evertune_trials.id")
    attempt: Mapped[int]
    metric: Mapped[str] = _word(512)
    points: Mapped[int] = mapped_column(BigInteger)
    last_seq: Mapped[int] = mapped_column(BigInteger)
    low: Mapped[float | None]
    low_seq: Mapped[int | None] = mapped_column(BigInteger)
    low_text: Mapped[str | None]
    high: Mapped[float | None]
    high_seq: Mapped[int | None] = mapped_column(BigInteger)
    high_text: Mapped[str | None]
    latest_timestamp: Mapped[float | None]
    latest_seq: Mapped[int] = mapped_column(BigInteger)
    latest_text: Mapped[str]


class PointRow(Base):
    __tablename__ = "evertune_series_points"
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012

    series_id: Mapped[int] = mapped_column(ForeignKey("evertune_series.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    timestamp: Mapped[float | None]
    value: Mapped[str]
    step: Mapped[int | None] = mapped_column(BigInteger)


class StoppingRow(Base):
    """How far early stopping has read an attempt, and its decision. `series` is by metric; see `store.stopping`."""

    __tablename__ = "evertune_stopping"
    __table_args__ = (UniqueConstraint("experiment_id", "number", "attempt"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    experiment_id: Mapped[int] = _owner("evertune_experiments.id")
    number: Mapped[int]
    attempt: Mapped[int]
    series: Mapped[Any] = mapped_column(Json, nullable=False)
    memory: Mapped[Any] = mapped_column(Json, nullable=True)
    reported: Mapped[datetime | None]
    decided: Mapped[datetime | None]
    step: Mapped[int | None] = mapped_column(BigInteger)
    reason: Mapped[str | None]


class MarkRow(Base):
    """What a trial had at one step, for others to compare with; it counts once its trial does."""

    __tablename__ = "evertune_marks"
    __table_args__ = (
        Index(None, "experiment_id", "step", "counts", "value"),
        {"sqlite_with_rowid": False},
    )

    experiment_id: Mapped[int] = mapped_column(
        ForeignKey("evertune_experiments.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    step: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    counts: Mapped[bool]
    value: Mapped[float]


class RevisionRow(Base):
    """What a trial had told before its verdict was revised: whoever reads the history at an older cut sees this."""

    __tablename__ = "evertune_revisions"
    __table_args__ = (UniqueConstraint("trial_id", "told_seq"), Index(None, "experiment_id", "superseded"))

    id: Mapped[int] = mapped_column(primary_key=True)
    trial_id: Mapped[int] = _owner("evertune_trials.id")
    experiment_id: Mapped[int]  # the trial's, here for the index
    told_seq: Mapped[int]
    superseded: Mapped[int]  # the told_seq of what replaced it
    state: Mapped[str] = _word(32)
    objective_value: Mapped[float | None]
    metrics: Mapped[Any] = mapped_column(Json, nullable=True)
    steps: Mapped[int | None]
