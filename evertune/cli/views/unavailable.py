"""Trials that ended without their objective: what was seen instead, and the command that makes use of it.

The trial's message says it in a sentence (`activities.ending`); here it is taken apart, so that several trials can be
told at once. What cannot be read is left out, never guessed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from evertune.cli.output.text import clean
from evertune.cli.views.sentences import addressed, numbers_words
from evertune.domain.records import ExperimentRecord, TrialRecord
from evertune.domain.states import TrialState

_WANTED = re.compile(r"(?:ended without|reported) (?P<name>.*?)(?: without a value)?")
_SEEN = re.compile(r"; seen: (?P<names>.*?)(?=; did you mean |; this filter would |; last lines:|\Z)")
_NOTHING = "no metric at all"  # older versions have more behind it
_NEAR = re.compile(r"; did you mean (?P<name>.*?)\?(?=; |\Z)")
_FILTER = re.compile(r"; this filter would have found it: (?P<text>.*?)(?=; |\Z)")


@dataclass(frozen=True)
class Missed:
    """`seen`: names that were reported, perhaps with words about what was left out. `near`: the one that was meant."""

    said: str  # `ended without accuracy`, `reported accuracy without a value`
    seen: str = ""
    near: str = ""
    filter: str = ""

    @classmethod
    def of(cls, trial: TrialRecord) -> Missed:
        message = trial.message.partition("\n")[0]
        said = message.partition("; ")[0].removeprefix("the trial ").removesuffix("; last lines:")
        found = [pattern.search(message) for pattern in (_SEEN, _NEAR, _FILTER)]
        # Names come from what programs print: one that cannot be shown as it is, cannot be part of a command.
        seen, near, text = (match.group(1) if match and match.group(1).isprintable() else "" for match in found)
        return cls(said or "ended without its objective", "" if seen.startswith(_NOTHING) else seen, near, text)

    def wanted(self, record: ExperimentRecord) -> str:
        """Which of the objectives it is; the first one where that cannot be read."""
        match = _WANTED.fullmatch(self.said)
        named = match.group("name") if match else ""
        return named if named in record.objective.objectives else record.objective.metric


def unavailable_groups(trials: Sequence[TrialRecord]) -> list[tuple[Missed, list[int]]]:
    """Trials that missed their objective alike, the most frequent first."""
    groups: dict[Missed, list[int]] = {}
    for trial in trials:
        if trial.state is TrialState.METRICS_UNAVAILABLE:
            groups.setdefault(Missed.of(trial), []).append(trial.number)
    return sorted(groups.items(), key=lambda group: -len(group[1]))


def missed_sentence(missed: Missed, numbers: Sequence[int]) -> str:
    """`trial 58 ended without val_accuracy; val_acc was seen`."""
    instead = (
        f"{missed.near} was seen" if missed.near else f"seen: {missed.seen}" if missed.seen else "no metric was seen"
    )
    if missed.filter:
        instead = "its filter does not fit what was printed"
    return clean(f"{numbers_words(numbers)} {missed.said}; {instead}")


def mending_command(record: ExperimentRecord, missed: Missed, numbers: Sequence[int]) -> tuple[str, str]:
    """What reads the metric after all, and what it does; else what helps to find out how."""
    name = addressed(record)
    if missed.filter:
        return f"evertune metrics reparse {name} --filter {shlex.quote(missed.filter)}", "read the logs by this filter"
    wanted = missed.wanted(record)
    first = wanted == record.objective.metric  # only that can be taken from another name
    if missed.near and first:
        purpose = clean(f"take {missed.near} for {record.objective.metric}")
        return f"evertune metrics reparse {name} --metric {shlex.quote(missed.near)}", purpose
    kind, form = _collector(record)
    others = [seen for seen in missed.seen.split(", ") if seen and not seen.endswith("…")]
    others = [seen for seen in others if seen not in record.objective.metrics]
    if first and others and (kind not in ("StdOut", "File", "Custom") or form == "JSON"):  # no filter has a say
        purpose = f"take {others[0]} for {record.objective.metric}" + (", or another one" if others[1:] else "")
        return f"evertune metrics reparse {name} --metric {shlex.quote(others[0])}", clean(purpose)
    wanted = shlex.quote(wanted)
    log = f"evertune logs {name} --trial {numbers[-1]}"
    if kind in ("StdOut", "File", "Custom"):
        where, what = ("", "log") if kind == "StdOut" else (" --file", "file")
        lines = " --format json" if form == "JSON" else ""
        return f"{log}{where} | evertune metrics test - --metric {wanted}{lines}", f"what its {what} says, line by line"
    return log, "what it printed"


def _collector(record: ExperimentRecord) -> tuple[str, str]:
    """Kind and format, as the manifest says; what it leaves out is the default."""
    collector = record.manifest.get("spec", {}).get("metricsCollectorSpec") or {}
    kind = (collector.get("collector") or {}).get("kind") or "StdOut"
    path = (collector.get("source") or {}).get("fileSystemPath") or {}
    return ("StdOut" if kind == "Custom" and not path else kind), path.get("format") or ""
