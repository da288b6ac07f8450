"""nas-evolution: regularised evolution of architectures, from networks and their values alone.

Real, Aggarwal, Huang & Le 2019, "Regularized Evolution for Image Classifier Architecture Search", algorithm 1 (aging
evolution): the population is the last P trials that ended with a value, in the order in which they were told. Each new
trial is a child of the best of S members drawn from it, with one choice - an operation or a skip connection - changed.
The first P trials are drawn uniformly. Stateless: trial n is drawn by (seed, n) from the history at its cut.
Departures from the paper: trials run in parallel, so that a child is born of those who are there; a child is never
equal to its parent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from algorithms.base import loss_of, setting
from algorithms.cautions import never_learns
from algorithms.nas.checks import graph_problems
from algorithms.nas.network import ARCHITECTURE, NN_CONFIG, Network, rows_of
from algorithms.settings import RANDOM_STATE, Rule, settings_problems, whole
from evertune.domain.labels import ACTION
from evertune.domain.space import SearchProblem
from evertune.domain.trial import Assignment, HistoryTrial
from evertune.errors import Problem
from evertune.protocols import Answer, Feature, JsonDict

if TYPE_CHECKING:
    import numpy as np

SETTINGS: Mapping[str, Rule] = {
    "random_state": RANDOM_STATE,
    "population_size": whole(2, "trials that may have children: the last that ended", "20"),
    "sample_size": whole(1, "members of which the best becomes the parent", "5"),
}


class NasEvolution:
    name: ClassVar[str] = "nas-evolution"
    about: ClassVar[str] = "Regularised evolution of architectures: mutates the best of a young population."
    advice: ClassVar[str] = "From some 100 trials on, at any parallelism; the strongest search of nasConfig here."
    settings: ClassVar[Mapping[str, Rule]] = SETTINGS
    on_edit: ClassVar[Literal["continue", "restart", "refuse"]] = "restart"
    reads_history: ClassVar[bool] = True
    supports: ClassVar[frozenset[Feature]] = frozenset({Feature.NAS_CONFIG, Feature.EARLY_STOPPING})
    handles: ClassVar[frozenset[Feature]] = frozenset({Feature.NAS_CONFIG})
    hands_out: ClassVar[Sequence[str]] = (ARCHITECTURE, NN_CONFIG)

    def __init__(self, problem: SearchProblem) -> None:
        self._problem = problem
        self._network = Network.of(problem.nas or {})
        self._population = int(setting(problem.settings, "population_size", 20))
        self._sample = int(setting(problem.settings, "sample_size", 5))

    @classmethod
    def check(cls, problem: SearchProblem) -> Sequence[Problem]:
        return [*settings_problems(cls.name, problem, SETTINGS), *graph_problems(cls.name, problem)]

    @classmethod
    def warnings(cls, problem: SearchProblem) -> Sequence[Problem]:
        first = int(setting(problem.settings, "population_size", 20))
        why = f"the first {first:,} networks are drawn by chance: none is ever a child of another"
        return never_learns(problem, first, why, f"or population_size below {problem.max_trials}")

    def ask(self, history: Sequence[HistoryTrial], k: int, first_number: int, state: JsonDict | None) -> Answer:
        import numpy as np

        losses = [(trial.told_seq or 0, trial, loss_of(trial, self._problem.direction)) for trial in history]
        told = sorted((seq, trial.number, loss) for seq, trial, loss in losses if loss is not None)
        rows = {trial.number: str(trial.parameters[ARCHITECTURE]) for trial in history}
        young = [(loss, number) for _, number, loss in deque(told, self._population)]
        assignments = []
        for number in range(first_number, first_number + k):
            generator = np.random.default_rng([self._problem.seed, number])
            if number < self._population or not young:
                child, action = self._random(generator), "init"
            else:
                members = generator.choice(len(young), min(self._sample, len(young)), replace=False)
                parent = min(young[int(member)] for member in members)[1]
                child, action = self._mutated(rows_of(rows[parent]), generator), "mutate"
            assignments.append(Assignment(self._network.parameters(child), labels={ACTION: action}))
        return Answer(assignments=tuple(assignments))

    def _random(self, generator: np.random.Generator) -> list[list[int]]:
        operations = len(self._network.operations)
        return [
            [int(generator.integers(operations)), *map(int, generator.integers(0, 2, row))]
            for row in range(self._network.layers)
        ]

    def _mutated(self, rows: list[list[int]], generator: np.random.Generator) -> list[list[int]]:
        operations = len(self._network.operations)
        skips = list(self._network.edges())
        layers = self._network.layers if operations > 1 else 0  # with one operation only the edges can change
        if not layers and not skips:
            return rows
        # The paper's two kinds of mutation are equally likely, whatever the number of choices of each.
        if layers and (not skips or generator.random() < 0.5):
            row = int(generator.integers(layers))
            rows[row][0] = (rows[row][0] + 1 + int(generator.integers(operations - 1))) % operations
        else:
            row, bit = skips[int(generator.integers(len(skips)))]
            rows[row][1 + bit] ^= 1
        return rows
