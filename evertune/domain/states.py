"""The states of experiments, trials and attempts, and the classes of failure.

Katib's condition types, plus `Paused`, `Stopping` and `Cancelled` for experiments and `Lost` for attempts.
"""

from __future__ import annotations

from enum import StrEnum


class ExperimentState(StrEnum):
    CREATED = "Created"
    RUNNING = "Running"
    PAUSED = "Paused"
    STOPPING = "Stopping"
    RESTARTING = "Restarting"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"

    @property
    def terminal(self) -> bool:
        return self in (ExperimentState.SUCCEEDED, ExperimentState.FAILED, ExperimentState.CANCELLED)


class TrialState(StrEnum):
    CREATED = "Created"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    KILLED = "Killed"
    EARLY_STOPPED = "EarlyStopped"
    METRICS_UNAVAILABLE = "MetricsUnavailable"

    @property
    def terminal(self) -> bool:
        return self not in (TrialState.CREATED, TrialState.RUNNING)

    @property
    def counts_as_failed(self) -> bool:
        """Charged to `maxFailedTrialCount`, as Katib counts (katib `failedTotal`)."""
        return self in (TrialState.FAILED, TrialState.METRICS_UNAVAILABLE)


class AttemptState(StrEnum):
    """An attempt is one execution of a trial's command. A trial has one, or more after uncharged faults."""

    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    KILLED = "Killed"
    EARLY_STOPPED = "EarlyStopped"
    METRICS_UNAVAILABLE = "MetricsUnavailable"
    LOST = "Lost"

    @property
    def terminal(self) -> bool:
        return self is not AttemptState.RUNNING


class FailureClass(StrEnum):
    """Why an attempt did not succeed; decides retry and charge (see `domain.retry`)."""

    PROGRAM = "program"  # the user's code said so: charged, never retried
    DEADLINE = "deadline"  # ran longer than allowed: charged, never retried
    METRICS = "metrics"  # exit 0 without the objective: charged, never retried
    SIGNAL = "signal"  # killed, not by us, no out-of-memory: two free retries, then as PROGRAM
    OUT_OF_MEMORY = "out-of-memory"  # charged; retried with more memory first where a policy says so
    INFRASTRUCTURE = "infrastructure"  # worker, host or supervisor lost: retried, never charged
    CONFIGURATION = "configuration"  # cannot start as written; equal ones in the first trials stop the experiment
    STOPPED = "stopped"  # we stopped it: never charged
