"""Stops a trial by a value that is fixed beforehand: `loss` greater than 10 from the fifth report on.

The setting `rules` takes Katib's own format of an early stopping rule instead, `metric;value;comparison;startStep`,
several of them separated by blanks, with the meaning they have in Katib's collector: the objective is compared by its
best value so far, other metrics by their current one; with a startStep above 0 only at that report and never again,
with 0 at every one; a trial is stopped once each of the rules has held, not necessarily at the same moment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from algorithms.stoppers.base import Stopper, shown, stripped
from evertune.domain.metrics import Objective, finite
from evertune.domain.setting import EARLY_STOPPING, Rule, choice, is_float, whole
from evertune.domain.stopping import Peers, Prefix, Ruling
from evertune.errors import Problem
from evertune.protocols import JsonDict

_HOLDS = {
    "less": lambda value, limit: value < limit,
    "greater": lambda value, limit: value > limit,
    "equal": lambda value, limit: value == limit,
}
_WORDS = {"less": "less than", "greater": "greater than", "equal": "equal to"}
_FORMAT = "metric;value;comparison;startStep, as loss;0.5;greater;4"


@dataclass(frozen=True, slots=True)
class KatibRule:
    metric: str
    limit: float
    comparison: str
    start: int

    @classmethod
    def of(cls, text: str) -> KatibRule | None:
        """None when it is not of Katib's format."""
        metric, *rest = text.split(";")
        if not metric or len(rest) != 3:
            return None
        limit, comparison, start = finite(rest[0]), rest[1], rest[2]
        if limit is None or comparison not in _HOLDS or not (start.isascii() and start.isdigit() and len(start) < 10):
            return None
        return cls(metric, limit, comparison, int(start))


class Threshold(Stopper):
    name: ClassVar[str] = "threshold"
    about: ClassVar[str] = "stops what is beyond a value that is known beforehand; needs no other trials"
    settings: ClassVar[Mapping[str, Rule]] = {
        "metric": Rule("the name of a metric", bool, "the metric that is compared", "the objective"),
        "value": Rule("a number", is_float(lambda value: True), "what it is compared with", "none, with rules"),
        "comparison": choice("when to stop: the metric is less, greater or equal", "the worse", *_HOLDS),
        "start_step": whole(0, "the first report of the metric that is compared", "0"),
        "rules": Rule(
            _FORMAT, lambda text: bool(_rules(text)), "rules in Katib's format, instead of the other settings", "none"
        ),
    }

    def __init__(self, settings: Mapping[str, str], objective: Objective) -> None:
        super().__init__(settings, objective)
        given = self._settings
        self._rules = _rules(given.get("rules", ""))
        self._metric = given.get("metric", objective.metric)
        self._start = self.whole("start_step")
        self._limit = finite(given.get("value", ""))
        self._comparison = given.get("comparison", "less" if self.descending else "greater")

    @classmethod
    def check(cls, settings: Mapping[str, str], objective: Objective) -> Sequence[Problem]:
        settings = stripped(settings)
        found = [*super().check(settings, objective)]
        paths = {key: f"{EARLY_STOPPING}[{index}]" for index, key in enumerate(settings)}
        if "rules" in settings:
            found += [
                Problem(path=f"{paths[key]}.name", type="Invalid", message=f"{key} and rules exclude each other",
                        hint="keep one of the two")
                for key in settings if key != "rules" and key in cls.settings
            ]  # fmt: skip
        elif "value" not in settings:
            message = "threshold needs the setting value, or rules in Katib's format"
            found.append(Problem(path=EARLY_STOPPING, type="Required", message=message, hint="value: a number"))
        named = [(rule.metric, "rules") for rule in _rules(settings.get("rules", ""))]
        named += [(settings["metric"], "metric")] if settings.get("metric") else []
        for metric, key in named:
            if objective.metric and metric not in objective.metrics:
                message = f'{key}: "{metric}" is not a metric that this experiment collects'
                hint = f"collected: {', '.join(objective.metrics)}; others go into additionalMetricNames"
                found.append(Problem(path=f"{paths[key]}.value", type="Invalid", message=message, hint=hint))
        return found

    @property
    def metrics(self) -> Sequence[str]:
        names = [rule.metric for rule in self._rules] or [self._metric]
        return tuple(dict.fromkeys(names))

    def judge(self, prefix: Prefix, peers: Peers, memory: JsonDict) -> Ruling:
        if self._rules:
            return self._katib(prefix, memory)
        value, limit = prefix.value, self._limit
        if prefix.step < self._start or value is None or limit is None or not _HOLDS[self._comparison](value, limit):
            return Ruling()
        return Ruling(f"{self._metric} {shown(value)} at step {prefix.step} is {_WORDS[self._comparison]} {limit:.6g}")

    def _katib(self, prefix: Prefix, memory: JsonDict) -> Ruling:
        """`held`: the places of the rules that have held so far, and in which words."""
        held: dict[str, Any] = dict(memory.get("held", {}))
        for index, rule in enumerate(self._rules):
            if rule.metric != prefix.metric or str(index) in held or (rule.start and prefix.step != rule.start):
                continue
            value = prefix.best(self.objective) if rule.metric == self.objective.metric else prefix.value
            if value is not None and _HOLDS[rule.comparison](value, rule.limit):
                held[str(index)] = (
                    f"{rule.metric} {shown(value)} at step {prefix.step} is {_WORDS[rule.comparison]} {rule.limit:.6g}"
                )
        reason = "; ".join(held[key] for key in sorted(held, key=int)) if len(held) == len(self._rules) else ""
        return Ruling(reason, {"held": held})


def _rules(text: str) -> tuple[KatibRule, ...]:
    """Empty when one of them is not of the format."""
    found = [KatibRule.of(each) for each in text.split()]
    rules = tuple(rule for rule in found if rule is not None)
    return rules if len(rules) == len(found) else ()
