"""Every timeout and retry of the experiment workflow, each with its reason. Read by `workflows.experiment` only."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from temporalio.common import RetryPolicy

# Errors that trying again cannot mend; `activities.errors` gives ApplicationErrors these types.
PERMANENT = (
    "SpecError",
    "NameTakenError",
    "UsageError",
    "ConflictError",
    "AlgorithmError",
    "NotFoundError",
    "PayloadsTooLarge",
)

# A database or worker that is away for a night must cost nothing but time: attempts are unlimited, and the back-off
# is short because the usual cause is a restart that takes seconds.
_PATIENT = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=1.5,
    maximum_interval=timedelta(seconds=10),
    non_retryable_error_types=list(PERMANENT),
)


@dataclass(frozen=True)
class Policy:
    start_to_close: timedelta
    heartbeat: timedelta | None = None
    retry: RetryPolicy = field(default_factory=lambda: _PATIENT)


# One database transaction each. Longer means that the worker died: the next attempt must not wait for it.
SHORT = Policy(start_to_close=timedelta(seconds=30))

# A Gaussian process over 400 trials takes minutes; the heartbeat tells a dead worker from a thinking one. It is as
# short as that of local trials: a new worker's first ask is slow, so a kill soon after another one often meets it.
SUGGEST = Policy(start_to_close=timedelta(minutes=30), heartbeat=timedelta(seconds=5))

# Stopping waits for the grace period between SIGTERM and SIGKILL of the slowest trial.
STOP = Policy(start_to_close=timedelta(minutes=10), heartbeat=timedelta(seconds=10))

# Trials run for days; their own deadline is in the manifest. schedule_to_close would start again at each
# continue-as-new, so it cannot be that deadline and stays unset.
TRIAL_START_TO_CLOSE = timedelta(days=365)

# A configuration that nothing can start fails at once for every trial: this many equal failures before any success
# are proof enough, and leave the rest of the budget unspent.
EQUAL_CONFIGURATION_FAILURES = 3

# Before the limits of one Temporal run: 10,000 signals and 2,000 updates are refused by the server.
MAX_SIGNALS_PER_RUN = 5_000
MAX_UPDATES_PER_RUN = 1_000


def trial(heartbeat_s: float) -> Policy:
    return Policy(start_to_close=TRIAL_START_TO_CLOSE, heartbeat=timedelta(seconds=heartbeat_s))


def backoff(retries: int) -> timedelta:
    """Before another attempt after an infrastructure fault: none for the first, then doubling up to a minute."""
    return timedelta(seconds=0 if retries <= 1 else min(2.0 ** (retries - 1), 60.0))
