"""evertune's own contracts of algorithms and of early stopping rules, and what this plugin promises beyond them."""

from typing import ClassVar

from one_plus_one.algorithm import OnePlusOne
from one_plus_one.stopper import Worsening

from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import SearchProblem
from evertune.domain.states import TrialState
from evertune.protocols import Algorithm
from evertune.testing.algorithms import AlgorithmContract
from evertune.testing.play import Play
from evertune.testing.spaces import ONE_DOUBLE
from evertune.testing.stoppers import StopperContract


class TestOnePlusOne(AlgorithmContract):
    settings: ClassVar = {"random_state": "7", "initial_step": "0.3"}

    def create(self, problem: SearchProblem) -> Algorithm:
        return OnePlusOne(problem)

    def test_it_comes_ever_nearer_to_the_best_point(self) -> None:
        for direction, sign in ((ObjectiveType.MINIMIZE, 1), (ObjectiveType.MAXIMIZE, -1)):
            play = Play(self.rebuilt(self.problem(ONE_DOUBLE, direction=direction)))
            for number in range(120):
                (assignment,) = play.suggest(1).assignments
                play.tell(number, TrialState.SUCCEEDED, sign * (float(assignment.parameters["x"]) - 0.3) ** 2)
            assert min(abs(float(parameters["x"]) - 0.3) for parameters in play.parameters) < 1e-3


class TestWorsening(StopperContract):
    kind: ClassVar = Worsening
    settings: ClassVar = {"times": "2"}
    wrong: ClassVar = {"times": "0"}

    def test_it_stops_at_the_report_that_is_once_too_often_worse(self) -> None:
        rulings = self.run(self.make(), [0.5, 0.4, 0.6, 0.5, 0.6, None, 0.1])
        assert [bool(ruling.reason) for ruling in rulings] == [False, False, False, False, False, True, False]
