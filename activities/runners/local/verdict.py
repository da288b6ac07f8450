"""How a distributed job ends, from the ends of its replicas. Pure; called by `group`.

The ends are looked at in the order in which they happened, and the first that decides does so: whoever looks, and
however late, finds the same. At the same instant a failure comes first, as the operator and Katib have it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from activities.runners.local.outcome import ExitRecord, Why


class Outcome(StrEnum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LOST = "lost"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Replicas by name, in their order."""

    members: Sequence[str]
    primary: str
    needed: frozenset[str]
    fatal: frozenset[str]
    any_suffices: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """A replica's end. `at` is when it was written, in nanoseconds."""

    record: ExitRecord
    at: int

    @property
    def good(self) -> bool:
        return self.record.why is Why.END and self.record.status == 0


@dataclass(frozen=True, slots=True)
class Verdict:
    outcome: Outcome
    by: str  # the replica that decided


def decide(rules: Rules, ends: Mapping[str, Ended], stop_at: int | None = None) -> Verdict | None:
    """None while nothing has decided. What happens after `stop_at`, when somebody wanted it all to end, does not."""
    done: set[str] = set()
    failed: list[str] = []
    for name, end in sorted(ends.items(), key=lambda item: (item[1].at, item[1].good)):
        if stop_at is not None and end.at >= stop_at:
            break
        if end.record.why is Why.STOP:
            continue
        if end.record.why is Why.LOST:
            return Verdict(Outcome.LOST, name)
        if end.good:
            done.add(name)
            if name in rules.needed and (rules.any_suffices or rules.needed <= done):
                return Verdict(Outcome.SUCCEEDED, name)
        elif name in rules.fatal or end.record.why is Why.DEADLINE:
            return Verdict(Outcome.FAILED, name)
        else:
            failed.append(name)
    if len(ends) < len(rules.members):
        return None
    if stop_at is not None:
        return Verdict(Outcome.STOPPED, _stopped(rules, ends))
    # All have ended, and those that had to succeed have not: the first failure that was forgiven was one too many.
    return Verdict(Outcome.FAILED, failed[0]) if failed else Verdict(Outcome.LOST, rules.primary)


def _stopped(rules: Rules, ends: Mapping[str, Ended]) -> str:
    stopped = [name for name in rules.members if ends[name].record.why is Why.STOP]
    return rules.primary if rules.primary in stopped or not stopped else stopped[0]
