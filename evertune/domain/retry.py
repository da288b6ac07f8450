"""Which attempt is the trial's last: one pure function, for the activity that records and the workflow that retries."""

from __future__ import annotations

from dataclasses import dataclass

from evertune.domain.states import FailureClass

FREE_SIGNAL_RETRIES = 2  # a kill that is neither ours nor an OOM: forgiven twice, then it is the program's fault
MAX_MEMORY_RETRIES = 8
MAX_INFRASTRUCTURE_RETRIES = 100  # not a budget but a fuse: a host that loses everything must not spin for ever


PARKING_REASONS = (
    "Paused",
    "StackDown",
)  # stops that end an attempt but not its trial: a new attempt follows, uncharged


@dataclass(frozen=True, slots=True)
class MemoryPolicy:
    """After an attempt that ran out of memory the next one has `factor` times as much, but never above `maximum`.

    `memory`: what the first attempt has, in bytes; None when that is not known, and so cannot be raised.
    """

    factor: float
    memory: float | None
    maximum: float | None = None

    def grows(self, retries: int) -> bool:
        """Whether an attempt after `retries` attempts with more memory would have more than the last one."""
        if self.memory is None or self.factor <= 1 or retries >= MAX_MEMORY_RETRIES:
            return False
        return self.maximum is None or self.memory * self.factor**retries < self.maximum


def retry_again(
    *,
    reason: str,
    failure: FailureClass | None,
    signal_retries: int,
    infrastructure_retries: int,
    memory_retries: int = 0,
    on_oom: MemoryPolicy | None = None,
) -> bool:
    """True when the trial gets another attempt that is not charged to `maxFailedTrialCount`.

    The counts are those of earlier attempts of the same trial that were retried for that class.
    """
    if failure is FailureClass.STOPPED:
        return reason in PARKING_REASONS
    if failure is FailureClass.INFRASTRUCTURE:
        return infrastructure_retries < MAX_INFRASTRUCTURE_RETRIES
    if failure is FailureClass.SIGNAL:
        return signal_retries < FREE_SIGNAL_RETRIES
    if failure is FailureClass.OUT_OF_MEMORY:
        return on_oom is not None and on_oom.grows(memory_retries)
    return False
