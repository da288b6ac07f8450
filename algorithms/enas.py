"""enas: a controller learns by reinforcement which architectures do well, and draws the next ones.

Pham, Guan, Zoph, Le & Dean 2018, "Efficient Neural Architecture Search via Parameter Sharing", section 2.2; REINFORCE,
Williams 1992. Trial n is drawn by (seed, n) from the controller as it stands; after every `trials_per_update` trials
that ended with a value, in the order in which they were told, it learns from them. A pure function of the history: the
state is the controller itself, rounded, and what it has learned from.

Departures from Katib, whose settings have their names and rules here:
- each architecture is credited with its own trial's value, normalised within its batch, against a moving average as
  baseline. Katib rewards newly drawn architectures with the average of all trials, which is no better than random
  search (measured); `reward: average` does that.
- so the learning rate is 0.005, the decay of the baseline 0.95 and a batch is learned from 20 times, where Katib has
  5e-5, 0.999 and 50; these stand with `reward: average`.
- as in Katib, trials share no weights: each trains its own child network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from algorithms.base import loss_of
from algorithms.cautions import never_learns
from algorithms.nas.checks import graph_problems
from algorithms.nas.network import ARCHITECTURE, NN_CONFIG, Network, rows_of
from algorithms.settings import (
    RANDOM_STATE,
    Rule,
    choice,
    or_none,
    positive,
    settings_problems,
    share,
    whole,
)
from evertune.domain.space import SearchProblem
from evertune.domain.trial import Assignment, HistoryTrial
from evertune.errors import Problem
from evertune.protocols import Answer, Feature, JsonDict

if TYPE_CHECKING:
    from algorithms.nas.controller import Array, Controller

SETTINGS: Mapping[str, Rule] = {
    "random_state": RANDOM_STATE,
    "controller_hidden_size": whole(1, "units of the controller's LSTM", "64"),
    "controller_temperature": or_none(positive("divides the logits", "5.0")),
    "controller_tanh_const": or_none(positive("bounds the logits", "2.25")),
    "controller_entropy_weight": or_none(positive("weight of the entropy in the reward", "1e-5")),
    "controller_baseline_decay": share("decay of the reward's baseline", "0.95; 0.999 with reward average"),
    "controller_learning_rate": share("learning rate of the controller", "0.005; 5e-5 with reward average"),
    "controller_skip_target": share("the wanted probability of a skip connection", "0.4"),
    "controller_skip_weight": or_none(positive("weight of the skip penalty", "0.8")),
    "controller_train_steps": whole(1, "training steps after each batch of trials", "20; 50 with reward average"),
    "controller_log_every_steps": whole(1, "Katib's; nothing is logged here", "10"),
    "trials_per_update": whole(1, "trials that end between two updates of the controller", "10"),
    "reward": choice("whose value an architecture is credited with", "trial", "trial", "average"),
}
_AVERAGE = {  # Katib's rule and its defaults
    "controller_baseline_decay": 0.999,
    "controller_learning_rate": 5e-5,
    "controller_train_steps": 50.0,
}
_TRIAL = {"controller_baseline_decay": 0.95, "controller_learning_rate": 0.005, "controller_train_steps": 20.0}
_DRAW = 0x44524157  # "DRAW": the stream of architectures that Katib's rule trains on


class Enas:
    name: ClassVar[str] = "enas"
    about: ClassVar[str] = "A recurrent controller that learns by reinforcement to draw better architectures."
    advice: ClassVar[str] = "From some 200 trials on; trials_per_update not far below parallelTrialCount."
    settings: ClassVar[Mapping[str, Rule]] = SETTINGS
    on_edit: ClassVar[Literal["continue", "restart", "refuse"]] = "restart"
    reads_history: ClassVar[bool] = True
    supports: ClassVar[frozenset[Feature]] = frozenset({Feature.NAS_CONFIG, Feature.EARLY_STOPPING})
    handles: ClassVar[frozenset[Feature]] = frozenset({Feature.NAS_CONFIG})
    hands_out: ClassVar[Sequence[str]] = (ARCHITECTURE, NN_CONFIG)

    def __init__(self, problem: SearchProblem) -> None:
        self._problem = problem
        self._network = Network.of(problem.nas or {})
        settings = problem.settings
        self._average = settings.get("reward") == "average"
        defaults = _AVERAGE if self._average else _TRIAL
        self._decay = float(settings.get("controller_baseline_decay", defaults["controller_baseline_decay"]))
        self._steps = int(float(settings.get("controller_train_steps", defaults["controller_train_steps"])))
        self._rate = float(settings.get("controller_learning_rate", defaults["controller_learning_rate"]))
        self._entropy = _optional(settings, "controller_entropy_weight", 1e-5) or 0.0
        self._batch = int(settings.get("trials_per_update", 10))

    @classmethod
    def check(cls, problem: SearchProblem) -> Sequence[Problem]:
        return [*settings_problems(cls.name, problem, SETTINGS), *graph_problems(cls.name, problem)]

    @classmethod
    def warnings(cls, problem: SearchProblem) -> Sequence[Problem]:
        batch = int(problem.settings.get("trials_per_update", 10))
        why = f"the controller of enas learns after every {batch:,} trials: it never does before one is drawn"
        return never_learns(problem, batch, why, f"or trials_per_update below {problem.max_trials}")

    def ask(self, history: Sequence[HistoryTrial], k: int, first_number: int, state: JsonDict | None) -> Answer:
        import numpy as np

        controller, state = self._learned(history, state)
        rows = (controller.sample(np.random.default_rng([self._problem.seed, first_number + i])) for i in range(k))
        assignments = tuple(Assignment(self._network.parameters(found)) for found in rows)
        return Answer(assignments=assignments, state=state)

    def _learned(self, history: Sequence[HistoryTrial], state: JsonDict | None) -> tuple[Controller, JsonDict]:
        """The controller after all whole batches of the history, and what the next ask needs to go on from there."""
        controller = self._controller()
        learned: JsonDict = {"told": 0, "updates": 0, "baseline": None, **(state or {})}
        if "controller" in learned:
            controller.load(learned["controller"])
        for batch in self._batches(history, after=learned["told"]):
            before = [trial for trial in history if trial.told_seq is not None and trial.told_seq <= batch[-1][0]]
            baseline = self._update(controller, batch, before, learned)
            learned = {"told": batch[-1][0], "updates": learned["updates"] + 1, "baseline": baseline}
            learned["controller"] = controller.dump()
        return controller, learned

    def _batches(self, history: Sequence[HistoryTrial], *, after: int) -> Iterator[list[tuple[int, str, float]]]:
        """Whole batches of (told_seq, architecture, reward), in the order in which they were told."""
        told = sorted(
            (trial.told_seq, str(trial.parameters[ARCHITECTURE]), reward)
            for trial in history
            if trial.told_seq is not None and trial.told_seq > after and (reward := self._reward(trial)) is not None
        )
        for at in range(0, len(told) - self._batch + 1, self._batch):
            yield told[at : at + self._batch]

    def _reward(self, trial: HistoryTrial) -> float | None:
        loss = loss_of(trial, self._problem.direction)
        return None if loss is None else -loss

    def _update(
        self,
        controller: Controller,
        batch: Sequence[tuple[int, str, float]],
        before: Sequence[HistoryTrial],
        learned: JsonDict,
    ) -> float:
        """Learn from one batch; returns the baseline after it."""
        import numpy as np

        baseline: float | None = learned["baseline"]
        if self._average:
            rewards = [reward for trial in before if (reward := self._reward(trial)) is not None]
            mean = float(np.mean(_bounded(rewards)))
            baseline = 0.0 if baseline is None else baseline
            for step in range(self._steps):
                drawn = controller.draw(np.random.default_rng([self._problem.seed, _DRAW, learned["updates"], step]))
                credit = mean + self._entropy * float(drawn.entropy[0])
                baseline -= (1 - self._decay) * (baseline - credit)
                controller.step(controller.gradient(drawn, np.clip([credit - baseline], -10, 10)))
            return baseline
        architectures = [rows_of(architecture) for _, architecture, _ in batch]
        gains = _bounded([reward for _, _, reward in batch])
        spread = float(gains.std())
        mean = float(gains.mean())
        baseline = mean if baseline is None else self._decay * baseline + (1 - self._decay) * mean
        for _ in range(self._steps):
            drawn = controller.evaluate(architectures)
            # The entropy is of the same order as a normalised reward, so it is added to that.
            advantage = (gains - baseline) / (spread if spread > 0 else 1.0) + self._entropy * drawn.entropy
            controller.step(controller.gradient(drawn, np.clip(advantage, -10, 10) / len(batch)))
        return baseline

    def _controller(self) -> Controller:
        from algorithms.nas.controller import Controller, Shape

        settings = self._problem.settings
        shape = Shape(
            layers=self._network.layers,
            operations=len(self._network.operations),
            hidden=int(settings.get("controller_hidden_size", 64)),
            temperature=_optional(settings, "controller_temperature", 5.0),
            tanh_constant=_optional(settings, "controller_tanh_const", 2.25),
            learning_rate=self._rate,
            skip_target=float(settings.get("controller_skip_target", 0.4)),
            skip_weight=_optional(settings, "controller_skip_weight", 0.8),
        )
        return Controller(shape, self._problem.seed)


def _bounded(rewards: Sequence[float]) -> Array:
    """An absurd value is far out and no more than that: it must not drown the others, nor the baseline for ever."""
    import numpy as np

    values = np.clip(rewards, -1e100, 1e100)
    low, high = np.quantile(values, (0.25, 0.75))
    reach = 100 * (high - low) if high > low else abs(high) + 1
    bounded: Array = np.clip(values, low - reach, high + reach)
    return bounded


def _optional(settings: Mapping[str, Any], name: str, default: float) -> float | None:
    text = settings.get(name)
    if text is None:
        return default
    return None if text == "None" else float(text)
