"""Rules about successCondition and failureCondition: readable, and right about objects of a kind that is known.

Each condition is tried on how objects look that have no status yet, run, succeeded and failed. Katib tries none: there
a slip of the pen makes trials that never end, or that succeed by failing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from evertune.spec.conditions import SUPPORTED, Condition, ConditionError
from evertune.spec.findings import Findings, quote
from evertune.spec.kinds import KINDS, Kind, kind_of
from evertune.spec.model import JsonDict, TrialTemplate

PATH = "spec.trialTemplate"
SUCCESS = f"{PATH}.successCondition"
FAILURE = f"{PATH}.failureCondition"


def check_conditions(template: TrialTemplate, manifest: JsonDict | None, findings: Findings) -> None:
    """`manifest`: the trial's object before its values are filled in; None when it cannot be read."""
    success = _parsed(template.success_condition, SUCCESS, findings)
    failure = _parsed(template.failure_condition, FAILURE, findings)
    kind = kind_of(manifest) if manifest is not None else None
    if manifest is not None and kind is not None:
        trial = _Tried(kind, manifest, findings)
        if success is not None:
            trial.success(success, failure)
        if failure is not None:
            trial.failure(failure)
    else:
        for condition, path in ((success, SUCCESS), (failure, FAILURE)):
            if condition is not None:
                _warn_of_scalars(condition, path, findings)


def _parsed(text: str | None, path: str, findings: Findings) -> Condition | None:
    if not text:
        return None
    try:
        return Condition.parse(text)
    except ConditionError as error:
        findings.error(path, "Invalid", f"{quote(text)} cannot be read: {error}", SUPPORTED)
        return None


class _Tried:
    def __init__(self, kind: Kind, manifest: JsonDict, findings: Findings) -> None:
        self._kind = kind
        self._manifest = manifest
        self._findings = findings

    def success(self, condition: Condition, failure: Condition | None) -> None:
        samples, name = self._kind.samples, self._kind.kind
        hint = f"for a {name}: {self._kind.success_condition}"
        if self._holding(condition, ({},)):
            self._error(SUCCESS, condition, f"holds for a {name} that has not even begun", hint)
        elif early := self._holding(condition, samples.running):
            self._error(SUCCESS, condition, f"holds for a {name} that has not ended: {_status(early)}", hint)
        elif wrong := self._holding(condition, samples.failed, unless=failure):
            self._error(SUCCESS, condition, f"holds for a {name} that failed: {_status(wrong)}", hint)
        elif not self._holding(condition, samples.succeeded):
            self._warn_of_none(SUCCESS, condition, samples.succeeded, "succeeded", hint)

    def failure(self, condition: Condition) -> None:
        samples, name = self._kind.samples, self._kind.kind
        hint = f"for a {name}: {self._kind.failure_condition}"
        if self._holding(condition, ({},)):
            self._error(FAILURE, condition, f"holds for a {name} that has not even begun", hint)
        elif wrong := self._holding(condition, samples.succeeded):
            message = f"holds for a {name} that succeeded, and is asked first: {_status(wrong)}"
            self._error(FAILURE, condition, message, hint)
        elif not self._holding(condition, samples.failed):
            self._warn_of_none(FAILURE, condition, samples.failed, "failed", hint)
        else:
            for sample in samples.failed:
                if not self._holding(condition, (sample,)):
                    message = f"does not hold for every {name} that failed: {_status(sample)}"
                    self._findings.warn(FAILURE, f"{quote(condition.text)} {message}", hint)
                    return

    def _holding(
        self, condition: Condition, samples: Iterable[JsonDict], unless: Condition | None = None
    ) -> JsonDict | None:
        """The first sample for which a condition holds, and `unless`, which is asked before it, does not."""
        for sample in samples:
            shown = self._shown(sample)
            if condition.holds(shown) is not None and (unless is None or unless.holds(shown) is None):
                return sample or {"status": {}}
        return None

    def _shown(self, status: JsonDict) -> JsonDict:
        return {**self._manifest, "status": status} if status else self._manifest

    def _error(self, path: str, condition: Condition, message: str, hint: str) -> None:
        self._findings.error(path, "Invalid", f"{quote(condition.text)} {message}", hint)

    def _warn_of_none(
        self, path: str, condition: Condition, samples: Iterable[JsonDict], ended: str, hint: str
    ) -> None:
        for sample in samples:
            value = condition.value(self._shown(sample))
            if value is not None and not isinstance(value, dict | list):
                self._findings.warn(path, _scalar(condition, value), hint)
                return
        message = f"{quote(condition.text)} holds for no {self._kind.kind} that {ended}, as far as they are known"
        self._findings.warn(path, message, hint)


def _warn_of_scalars(condition: Condition, path: str, findings: Findings) -> None:
    """For kinds that nobody knows: an expression that gives no object for any kind that is known, but a text or so."""
    scalar: Any = None
    for kind in KINDS.values():
        for status in (*kind.samples.succeeded, *kind.samples.failed, *kind.samples.running):
            value = condition.value({"status": status})
            if isinstance(value, dict | list):
                return
            scalar = value if scalar is None else scalar
    if scalar is not None:
        findings.warn(path, _scalar(condition, scalar), 'ask for the object that holds it: a.#(status=="True")#')


def _scalar(condition: Condition, value: Any) -> str:
    return (
        f"{quote(condition.text)} gives {quote(value)}, which never counts: a condition holds when it gives an object,"
        " or a list that is not empty"
    )


def _status(sample: JsonDict) -> str:
    shown = [
        f"{entry['type']} is {entry['status']}" for entry in sample.get("conditions", ()) if entry["status"] != "False"
    ]
    rest = [f"{key} is {json.dumps(value)}" for key, value in sample.items() if key == "phase"]
    return ", ".join((*rest, *shown)) or json.dumps(sample)
