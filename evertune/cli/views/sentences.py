"""What records say in words: why a trial ended as it did, what an experiment waits for, how far it is from its goal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from evertune.cli.output.numbers import Decimals, age, parameter_text
from evertune.cli.output.text import clean
from evertune.domain.labels import shortfall
from evertune.domain.metrics import Objective, ObjectiveType, finite
from evertune.domain.records import AuditRecord, Counts, ExperimentRecord, TrialRecord
from evertune.domain.states import ExperimentState, TrialState
from evertune.domain.trial import LAST_LINES, REUSED, WARNING

BASELINE = "evertune.io/baseline"  # annotation: the objective with the script's own defaults, measured by its author

_KILLED = {
    "ExperimentGoalReached": "the goal was reached",
    "ExperimentMaxTrialsReached": "enough trials have finished",
    "ExperimentCompleted": "the experiment had ended",
    "ExperimentClosed": "the experiment was closed",
    "ExperimentCancelled": "the experiment was cancelled",
    "ExperimentStopped": "the experiment was stopped",
    "ExperimentFailed": "the experiment failed",
    "ExperimentDeadlineExceeded": "the experiment's deadline passed",
    "WorkflowClosed": "its workflow was closed",
}


def trial_sentence(trial: TrialRecord) -> str:
    """Why a trial that has no objective to show ended as it did; one line."""
    reason, message = clean(trial.reason), _without_lines(trial.message)
    if reason == REUSED:
        return message or reason
    if trial.state is TrialState.METRICS_UNAVAILABLE:
        return message or reason
    if trial.state is TrialState.EARLY_STOPPED:
        return reason.removeprefix("EarlyStopped").removeprefix(":").strip() or "stopped early"
    if trial.state is TrialState.KILLED:
        word, _, rest = reason.partition(": ")
        return f"stopped: {_KILLED.get(word, rest or reason or 'by evertune')}"
    return message if message and reason.isalnum() else reason or message  # `CannotStart` alone says little


def last_lines(trial: TrialRecord) -> list[str]:
    """What the source of its metrics said last, when it ended without its objective; at most 20 lines."""
    _, found, lines = trial.message.partition(LAST_LINES)
    return [line for line in lines.split("\n") if not line.startswith(WARNING)] if found else []


def trial_warnings(trial: TrialRecord) -> list[str]:
    """What went wrong beside the trial, and what its collector left out, a sentence each."""
    return [line.removeprefix(WARNING) for line in trial.message.split("\n") if line.startswith(WARNING)]


def _without_lines(message: str) -> str:
    first = message.partition("; last lines:")[0].partition("\n")[0]
    return "" if first.startswith(WARNING) else clean(first)


def experiment_sentence(record: ExperimentRecord) -> str:
    """Why an experiment is in its state."""
    return _without_lines(record.message) or _REASONS.get(record.reason, clean(record.reason))


_REASONS = {
    "ExperimentGoalReached": "the goal was reached",
    "ExperimentMaxTrialsReached": "all trials have finished",
    "ExperimentSuggestionEndReached": "the algorithm has nothing more to suggest",
    "ExperimentStopped": "stopped by a person",
    "ExperimentCancelled": "cancelled by a person",
}


def maximizes(objective: Objective) -> bool:
    return objective.type is ObjectiveType.MAXIMIZE


def comparable(best: TrialRecord | None) -> float | None:
    """The value that the goal is compared with: none of an infeasible trial, nor of one with less than its resource."""
    if best is None or shortfall(best.labels) or not best.feasible:
        return None
    return best.objective_value


def best_word(best: TrialRecord) -> str:
    """`best`; or, while no trial is feasible, what the one that misses constraints by the least is."""
    return "best" if best.feasible else "nearest"


def missed_words(objective: Objective, trial: TrialRecord) -> str:
    """Which constraints do not hold, and by what values; "" for a feasible trial."""
    return "" if trial.feasible else clean("; ".join(objective.missed(trial.metrics)))


def infeasible_words(record: ExperimentRecord) -> str:
    """Why there is no best trial yet although some have a value."""
    best = record.best
    if best is None or best.feasible:
        return ""
    return f"no feasible trial yet: of the nearest one, trial {best.number}, {missed_words(record.objective, best)}"


def objectives_words(objective: Objective) -> str:
    """`maximize accuracy, minimize latency_ms; memory <= 100`."""
    wanted = ", ".join(
        f"{direction} {metric}" for metric, direction in zip(objective.objectives, objective.directions, strict=True)
    )
    limits = ", ".join(str(constraint) for constraint in objective.constraints)
    return clean(f"{wanted}; {limits}" if limits else wanted)


def spread_words(trial: TrialRecord, metric: str) -> str:
    """`± 0.0123`, of a metric that is a mean or median of replicates, once the trial has a value."""
    deviation = None if trial.objective is None else trial.spread.get(metric)
    return "" if deviation is None else f"± {parameter_text(deviation)}"


def further_words(objective: Objective, trial: TrialRecord) -> str:
    """The other objectives' values: `latency_ms 12.4`."""
    values = zip(objective.objectives[1:], objective.values(trial.metrics)[1:], strict=True)
    return "  ".join(f"{metric} {parameter_text(value, 4)}" for metric, value in values if value is not None)


def rules_words(record: ExperimentRecord) -> list[str]:
    """What the experiment asks of its search beyond the algorithm, a phrase each."""
    asked: Mapping[str, Any] = record.manifest.get("spec") or {}
    phrases = []
    if initial := asked.get("initialTrials"):
        phrases.append(f"{len(initial)} initial trial{'s' * (len(initial) != 1)}")
    if warm := asked.get("warmStart"):
        phrases.append(f"warm start from {', '.join(warm.get('from') or ())} ({warm.get('mode') or 'identical'})")
    phrases += asked.get("parameterConstraints") or ()
    if (duplicates := asked.get("onDuplicate") or "run") != "run":
        words = {"reuse": "a duplicate has the first one's outcome", "resample": "no duplicates"}
        phrases.append(words.get(duplicates, duplicates))
    if asked.get("onFailure") == "worst":
        phrases.append("a failure counts as the worst value so far")
    if (runs := asked.get("replicates")) and int(runs.get("count") or 1) > 1:
        phrases.append(f"each trial is the {runs.get('aggregate') or 'mean'} of {runs['count']} runs")
    return [clean(phrase) for phrase in phrases]


def goal_words(objective: Objective, best: float | None, decimals: Decimals) -> str:
    """`goal 0.985`, and once it is near, what is missing: `0.0006 to goal 0.82`."""
    goal = objective.goal
    if goal is None:
        return ""
    if best is not None and objective.reached(best):
        return f"goal {goal:g} reached"
    if best is not None and abs(goal - best) < 0.005 * max(abs(goal), abs(best)):
        return f"{decimals.text(abs(goal - best))} to goal {goal:g}"
    return f"goal {goal:g}"


def may_fail_words(counts: Counts, max_failed: int | None) -> str:
    return f"{counts.charged} of {max_failed} may fail" if max_failed is not None else ""


def search_words(record: ExperimentRecord) -> str:
    """`tpe, 4 parallel, this machine`."""
    where = "this machine" if record.backend == "local" else record.backend
    namespace = f", {record.namespace}" if record.namespace != "default" else ""
    return f"{record.algorithm}, {record.budget.parallel} parallel, {where}{namespace}"


def stopping_words(record: ExperimentRecord) -> str:
    """`medianstop, start_step=2`; empty where every trial runs to its end."""
    rule = (record.manifest.get("spec") or {}).get("earlyStopping") or {}
    settings = [f"{each.get('name')}={each.get('value')}" for each in rule.get("algorithmSettings") or ()]
    return clean(", ".join([str(rule["algorithmName"]), *settings])) if rule.get("algorithmName") else ""


def trials_done(record: ExperimentRecord) -> str:
    limit = record.budget.max_trials
    return f"{record.counts.finished}/{limit}" if limit is not None else str(record.counts.finished)


def baseline_of(manifest: Mapping[str, Any]) -> float | None:
    annotations = (manifest.get("metadata") or {}).get("annotations") or {}
    return finite(annotations.get(BASELINE))


def over_defaults(record: ExperimentRecord) -> str:
    """`+0.0278 over the defaults' 0.9611`, when the author says what the defaults reach."""
    baseline = baseline_of(record.manifest)
    if baseline is None or record.best is None or record.best.objective_value is None:
        return ""
    value = record.best.objective_value
    decimals = Decimals([value, baseline])
    change, known = value - baseline, decimals.text(baseline)
    if record.objective.better(value, baseline):
        words = "over" if change > 0 else "below"
        return f"{'+' if change > 0 else '-'}{decimals.text(abs(change))} {words} the defaults' {known}"
    if value == baseline:
        return f"the same as the defaults' {known}"
    return f"{decimals.text(abs(change))} {'above' if change > 0 else 'below'} the defaults' {known}: no improvement"


def paused_words(record: ExperimentRecord, audit: Sequence[AuditRecord], now: datetime, you: str = "") -> str:
    """`by mira 2m ago, 4 trials finishing`; `by you` when the reader did it."""
    last = next((entry for entry in reversed(audit) if entry.action == "pause"), None)
    words = ""
    if last is not None:
        who = "you" if you and last.actor == you else clean(last.actor) or "a person"
        words = f"by {who} {age((now - last.at).total_seconds())} ago"
    running = record.counts.running
    if running:
        finishing = f"{running} trial{'s' * (running != 1)} finishing"
        words = f"{words}, {finishing}" if words else finishing
    return words


def addressed(record: ExperimentRecord) -> str:
    """The experiment as an argument of the next command: `digits`, or `digits -n team`."""
    return record.name + (f" -n {record.namespace}" if record.namespace != "default" else "")


def going_on(record: ExperimentRecord) -> list[tuple[str, str]]:
    """The command that gives an ended experiment more trials; none where its algorithm has nothing more to suggest."""
    if record.reason == "ExperimentSuggestionEndReached":
        return []
    return [(f"evertune extend {addressed(record)} +24", "go on from here")]


def next_commands(record: ExperimentRecord) -> list[tuple[str, str]]:
    """What a person may want to do now: (command, what for)."""
    name = addressed(record)
    match record.state:
        case ExperimentState.FAILED:
            failed = f"evertune logs {name} --trial failed"
            return [(failed, "the log of the last failed trial"), (f"evertune explain {name}", "what went wrong")]
        case ExperimentState.SUCCEEDED | ExperimentState.CANCELLED:
            best = [(f"evertune best {name} -o flags", "as flags for your script")] if record.best else []
            if record.best is None and record.counts.metrics_unavailable:
                best = [(f"evertune explain {name}", f"why no trial has a value of {clean(record.objective.metric)}")]
            return [
                *best,
                (f"evertune trials {name} --sort best", "all trials, the best first"),
                *going_on(record),
            ]
        case ExperimentState.PAUSED:
            return [(f"evertune resume {name}", "go on"), (f"evertune stop {name}", "end it here")]
        case _:
            return [(f"evertune watch {name}", "see it live"), (f"evertune explain {name}", "what it waits for")]


def group_failures(trials: Sequence[TrialRecord]) -> list[tuple[str, list[int]]]:
    """Failed trials by what they died of, the most frequent first."""
    groups: dict[str, list[int]] = {}
    for trial in trials:
        if trial.state.counts_as_failed:
            groups.setdefault(trial_sentence(trial), []).append(trial.number)
    return sorted(groups.items(), key=lambda group: -len(group[1]))


def numbers_words(numbers: Sequence[int], most: int = 5) -> str:
    """`trials 1, 2, 3` or `trials 1, 2, 3, 4, 5 and 12 more`."""
    shown = ", ".join(str(number) for number in numbers[:most])
    more = f" and {len(numbers) - most} more" if len(numbers) > most else ""
    return f"trial{'s' * (len(numbers) != 1)} {shown}{more}"
