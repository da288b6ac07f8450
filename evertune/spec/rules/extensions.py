"""Rules about evertune's own fields that say how an experiment goes: limits, choices, replicates, warm start."""

from __future__ import annotations

from collections.abc import Sequence

from evertune.spec.convert import parse_duration
from evertune.spec.findings import Findings, quote, suggestion
from evertune.spec.model import Experiment, ExperimentSpec
from evertune.spec.rules.experiment import NAME, NAMESPACE
from evertune.spec.rules.failures import check_failure_policy

MAX_REPLICATES = 100
ON_COMPLETION = ("cancel", "drain")
ON_DUPLICATE = ("run", "reuse", "resample")
ON_FAILURE = ("ignore", "worst")
AGGREGATES = ("mean", "median")
MODES = ("identical", "transfer")


def check_extensions(experiment: Experiment, findings: Findings) -> None:
    spec = experiment.spec or ExperimentSpec()
    if spec.seed is not None and not 0 <= spec.seed < 2**31:
        findings.error("spec.seed", "Invalid", f"{spec.seed} is not between 0 and {2**31 - 1}")
    for key, duration in (("deadline", spec.deadline), ("trialDeadline", spec.trial_deadline)):
        try:
            parse_duration(duration if duration is not None else 1)
        except ValueError:
            message = f"{quote(duration)} is not a time span"
            findings.error(f"spec.{key}", "Invalid", message, 'write seconds, or "45s", "30m", "2h30m", "1d"')
    if spec.working_dir is not None and (not spec.working_dir or "\0" in spec.working_dir):
        findings.error("spec.workingDir", "Invalid", "workingDir is not a directory's path")
    _check_word("spec.onCompletion", spec.on_completion, ON_COMPLETION, "way to end", findings)
    _check_word("spec.onDuplicate", spec.on_duplicate, ON_DUPLICATE, "way to deal with a repeated trial", findings)
    _check_word("spec.onFailure", spec.on_failure, ON_FAILURE, "way to deal with a failed trial", findings)
    _check_seed_twice(spec, findings)
    check_failure_policy(spec, findings)
    _check_replicates(spec, findings)
    _check_warm_start(experiment, spec, findings)


def _check_word(path: str, word: str | None, known: Sequence[str], what: str, findings: Findings) -> None:
    if word is not None and word not in known:
        findings.error(path, "Invalid", f"{quote(word)} is not a {what}", suggestion(word, known, "known"))


def _check_seed_twice(spec: ExperimentSpec, findings: Findings) -> None:
    for index, setting in enumerate((spec.algorithm and spec.algorithm.algorithm_settings) or ()):
        if setting.name == "random_state" and spec.seed is not None and setting.value != str(spec.seed):
            path = f"spec.algorithm.algorithmSettings[{index}].value"
            message = f"random_state {quote(setting.value)} and spec.seed {spec.seed} differ"
            findings.error(path, "Invalid", message, "keep one of the two")


def _check_replicates(spec: ExperimentSpec, findings: Findings) -> None:
    given, path = spec.replicates, "spec.replicates"
    if given is None:
        return
    if given.count is None:
        hint = "write replicates: 3, or {count: 3, aggregate: median}"
        findings.error(f"{path}.count", "Required", "how often each trial runs is missing", hint)
    elif not 1 <= given.count <= MAX_REPLICATES:
        message = f"{given.count} is not between 1 and {MAX_REPLICATES}"
        findings.error(f"{path}.count", "Invalid", message)
    _check_word(f"{path}.aggregate", given.aggregate, AGGREGATES, "way to make one value of several", findings)


def _check_warm_start(experiment: Experiment, spec: ExperimentSpec, findings: Findings) -> None:
    given, path = spec.warm_start, "spec.warmStart"
    if given is None:
        return
    _check_word(f"{path}.mode", given.mode, MODES, "mode of a warm start", findings)
    if not given.sources:
        hint = "write warmStart: {from: [NAME]}"
        findings.error(f"{path}.from", "Required", "whose trials to start from is missing", hint)
    seen: set[tuple[str, str]] = set()
    for index, source in enumerate(given.sources or ()):
        if findings.full:
            return
        at = f"{path}.from[{index}]"
        prefix, slash, name = source.rpartition("/")
        namespace = prefix if slash else experiment.namespace
        if not NAME.match(name) or not NAMESPACE.match(namespace):
            hint = "write NAME, or NAMESPACE/NAME"
            findings.error(at, "Invalid", f"{quote(source)} is not the name of an experiment", hint)
        elif (namespace, name) == (experiment.namespace, experiment.name):
            findings.error(at, "Invalid", "an experiment cannot start from its own trials", "name another one")
        elif (namespace, name) in seen:
            findings.error(at, "Duplicate", f"{quote(source)} is named twice", "keep one")
        seen.add((namespace, name))
