"""Which attempt is the trial's last: one pure function, for the activity that records and the workflow that retries."""

from __future__ import annotations

from evertune.domain.states import FailureClass

FREE_SIGNAL_RETRIES = 2  # a kill that is neither ours nor an OOM: forgiven twice, then it is the program's fault
MAX_INFRASTRUCTURE_RETRIES = 100  # not a budget but a fuse: a host that loses everything must not spin for ever


PARKING_REASONS = (
    "Paused",
    "StackDown",
)  # stops that end an attempt but not its trial: a new attempt follows, uncharged


def retry_again(*, reason: str, failure: FailureClass | None, signal_retries: int, infrastructure_retries: int) -> bool:
    """True when the trial gets another attempt that is not charged to `maxFailedTrialCount`.

    The counts are those of earlier attempts of the same trial that were retried for that class.
    """
    if failure is FailureClass.STOPPED:
        return reason in PARKING_REASONS
    if failure is FailureClass.INFRASTRUCTURE:
        return infrastructure_retries < MAX_INFRASTRUCTURE_RETRIES
    if failure is FailureClass.SIGNAL:
        return signal_retries < FREE_SIGNAL_RETRIES
    return False
