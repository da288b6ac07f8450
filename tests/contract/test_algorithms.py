"""The algorithm contract for each built-in one, over every type, distribution and step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from algorithms.asha import Asha
from algorithms.bayesian import BayesianOptimization
from algorithms.bohb import Bohb
from algorithms.cma import CmaEs
from algorithms.darts import Darts
from algorithms.enas import Enas
from algorithms.grid import Grid
from algorithms.hyperband import Hyperband
from algorithms.hyperopt_search import Anneal, Random, Tpe
from algorithms.nas_evolution import NasEvolution
from algorithms.optuna_search import Gp, Motpe, MultivariateTpe, NsgaII
from algorithms.pbt import Pbt
from algorithms.sobol import Sobol
from evertune.domain.space import Parameter, ParameterType, SearchProblem, SearchSpace
from evertune.protocols import Algorithm
from evertune.testing.algorithms import AlgorithmContract
from evertune.testing.spaces import ALL_CONSTANT, CONDITIONAL, CONTINUOUS, EVERYTHING, LISTS, ONE_DOUBLE, STEPPED


class TestRandom(AlgorithmContract):
    settings: ClassVar[Mapping[str, str]] = {"random_state": "3"}

    def create(self, problem: SearchProblem) -> Algorithm:
        return Random(problem)


class TestTpe(AlgorithmContract):
    settings: ClassVar[Mapping[str, str]] = {
        "gamma": "0.3",
        "n_startup_jobs": "6",
        "n_EI_candidates": "12",
        "prior_weight": "0.9",
    }
    trials = 16

    def create(self, problem: SearchProblem) -> Algorithm:
        return Tpe(problem)


class TestMultivariateTpe(AlgorithmContract):
    settings: ClassVar[Mapping[str, str]] = {"n_startup_trials": "6", "n_ei_candidates": "12"}
    trials = 20

    def create(self, problem: SearchProblem) -> Algorithm:
        return MultivariateTpe(problem)


class TestGrid(AlgorithmContract):
    spaces: ClassVar[Mapping[str, SearchSpace]] = {
        "stepped": STEPPED,
        "lists": SearchSpace(LISTS),
        "all-constant": ALL_CONSTANT,
    }

    def create(self, problem: SearchProblem) -> Algorithm:
        return Grid(problem)


OPERATIONS = [
    {
        "operationType": kind,
        "parameters": [{"name": "size", "parameterType": "categorical", "feasibleSpace": {"list": sizes}}],
    }
    for kind, sizes in (("convolution", ["3", "5"]), ("max_pooling", ["2"]))
]
NETWORK = {"graphConfig": {"numLayers": 3, "inputSizes": [8, 8, 1], "outputSizes": [10]}, "operations": OPERATIONS}


class ArchitectureContract(AlgorithmContract):
    """For what hands out texts that describe networks: there is no space that their values could be in."""

    spaces: ClassVar[Mapping[str, SearchSpace]] = {"network": SearchSpace(())}
    names: ClassVar[set[str]] = {"architecture", "nn_config"}

    def problem(self, space: SearchSpace, **changes: Any) -> SearchProblem:
        return super().problem(space, nas=NETWORK, **changes)

    def test_values_are_plain_in_range_and_on_their_grid(self, space: SearchSpace) -> None:
        for trial in self.played(space, trials=self.trials, parallel=5).trials:
            assert set(trial.parameters) == self.names
            assert all(type(value) is str for value in trial.parameters.values())


class TestEnas(ArchitectureContract):
    settings: ClassVar[Mapping[str, str]] = {"trials_per_update": "4", "controller_hidden_size": "8"}

    def create(self, problem: SearchProblem) -> Algorithm:
        return Enas(problem)


class TestEnasWithKatibsReward(TestEnas):
    settings: ClassVar[Mapping[str, str]] = {
        "reward": "average",
        "trials_per_update": "4",
        "controller_hidden_size": "8",
        "controller_train_steps": "2",
        "controller_temperature": "None",
    }


class TestNasEvolution(ArchitectureContract):
    settings: ClassVar[Mapping[str, str]] = {"population_size": "6", "sample_size": "3"}

    def create(self, problem: SearchProblem) -> Algorithm:
        return NasEvolution(problem)


class TestDarts(ArchitectureContract):
    names: ClassVar[set[str]] = {"algorithm-settings", "search-space", "num-layers"}

    def create(self, problem: SearchProblem) -> Algorithm:
        return Darts(problem)

    def test_an_unknown_setting_is_refused_by_its_place(self) -> None:
        problem = self.problem(SearchSpace(()), settings={"for_the_trial": "1"})  # Katib's trial may know it
        assert list(Darts.check(problem)) == []


class TestGridInRandomOrder(TestGrid):
    settings: ClassVar[Mapping[str, str]] = {"random_state": "7"}


def _with_resource(space: SearchSpace, kind: ParameterType) -> SearchSpace:
    return SearchSpace((Parameter(name="epochs", type=kind, low=1, high=9), *space))


class HalvingContract(AlgorithmContract):
    """A search space and a resource; rungs of 1, 3 and 9."""

    settings: ClassVar[Mapping[str, str]] = {"r_l": "9", "resource_name": "epochs"}
    spaces: ClassVar[Mapping[str, SearchSpace]] = {
        "everything": _with_resource(EVERYTHING, ParameterType.INT),
        "one-double": _with_resource(ONE_DOUBLE, ParameterType.DOUBLE),
        "all-constant": _with_resource(ALL_CONSTANT, ParameterType.INT),
    }
    conditional: ClassVar[SearchSpace] = _with_resource(CONDITIONAL, ParameterType.INT)


class _LetsOthersPass:
    """Katib's services of these two ignore settings that they do not know."""

    @pytest.mark.skip(reason="as in Katib")
    def test_an_unknown_setting_is_refused_by_its_place(self) -> None: ...


class TestHyperband(_LetsOthersPass, HalvingContract):
    def create(self, problem: SearchProblem) -> Algorithm:
        return Hyperband(problem)


class TestHyperbandWithOpenBrackets(TestHyperband):
    settings: ClassVar[Mapping[str, str]] = {
        **HalvingContract.settings,
        "max_open_brackets": "2",
        "cycles": "2",
        "eta": "2.5",
        "r_min": "0.5",
        "random_state": "5",
    }
    # With half a unit at the lowest rung, the resource has to be able to hold it.
    spaces: ClassVar[Mapping[str, SearchSpace]] = {
        "one-double": SearchSpace((Parameter(name="epochs", type=ParameterType.DOUBLE, low=0.1, high=9.0), *ONE_DOUBLE))
    }


class TestAsha(HalvingContract):
    def create(self, problem: SearchProblem) -> Algorithm:
        return Asha(problem)


class TestAshaWithAnEnd(TestAsha):
    settings: ClassVar[Mapping[str, str]] = {**HalvingContract.settings, "max_configs": "7"}


class TestBohb(HalvingContract):
    settings: ClassVar[Mapping[str, str]] = {
        **HalvingContract.settings,
        "min_points_in_model": "3",
        "random_fraction": "0.2",
        "n_ei_candidates": "12",
    }

    def create(self, problem: SearchProblem) -> Algorithm:
        return Bohb(problem)


class TestPbt(_LetsOthersPass, AlgorithmContract):
    settings: ClassVar[Mapping[str, str]] = {
        "suggestion_trial_dir": "/checkpoints",
        "n_population": "5",
        "truncation_threshold": "0.4",
    }

    def create(self, problem: SearchProblem) -> Algorithm:
        return Pbt(problem)


class TestPbtThatDraws(TestPbt):
    settings: ClassVar[Mapping[str, str]] = {
        **TestPbt.settings,
        "resample_probability": "0.5",
        "generations": "4",
        "factors": "0.5, 2",
    }


class TestMotpe(AlgorithmContract):
    settings: ClassVar[Mapping[str, str]] = {"n_startup_trials": "6", "n_ei_candidates": "12"}
    trials = 20

    def create(self, problem: SearchProblem) -> Algorithm:
        return Motpe(problem)


class TestNsgaII(AlgorithmContract):
    settings: ClassVar[Mapping[str, str]] = {
        "population_size": "6",
        "mutation_prob": "0.2",
        "crossover_prob": "0.8",
        "swapping_prob": "0.4",
    }

    def create(self, problem: SearchProblem) -> Algorithm:
        return NsgaII(problem)


class TestGp(AlgorithmContract):
    settings: ClassVar[Mapping[str, str]] = {"n_startup_trials": "6"}
    trials = 12

    @pytest.fixture(autouse=True)
    def needs_torch(self) -> None:
        pytest.importorskip("torch", reason="gp needs torch")

    def create(self, problem: SearchProblem) -> Algorithm:
        return Gp(problem)


class TestSobol(AlgorithmContract):
    ignores_others = True

    def create(self, problem: SearchProblem) -> Algorithm:
        return Sobol(problem)


class TestScrambledSobol(TestSobol):
    settings: ClassVar[Mapping[str, str]] = {"random_state": "11"}


class TestBayesianOptimization(AlgorithmContract):
    """Its random start; the models are slow."""

    settings: ClassVar[Mapping[str, str]] = {"n_initial_points": "30", "acq_func": "EI"}

    def create(self, problem: SearchProblem) -> Algorithm:
        return BayesianOptimization(problem)


@pytest.mark.slow
class TestExtraTrees(TestBayesianOptimization):
    settings: ClassVar[Mapping[str, str]] = {
        "base_estimator": "ET",
        "n_initial_points": "4",
        "acq_func": "EI",
        "max_model_points": "20",
    }
    trials = 9


@pytest.mark.slow
@pytest.mark.long
class TestGaussianProcess(TestExtraTrees):
    settings: ClassVar[Mapping[str, str]] = {"n_initial_points": "4", "random_state": "3"}


@pytest.mark.slow
@pytest.mark.long
class TestRandomForest(TestExtraTrees):
    settings: ClassVar[Mapping[str, str]] = {"base_estimator": "RF", "n_initial_points": "4", "acq_func": "LCB"}


@pytest.mark.slow
@pytest.mark.long
class TestBoostedTrees(TestExtraTrees):
    settings: ClassVar[Mapping[str, str]] = {"base_estimator": "GBRT", "n_initial_points": "4", "acq_func": "PI"}


class TestCmaEs(AlgorithmContract):
    spaces: ClassVar[Mapping[str, SearchSpace]] = {
        "everything": EVERYTHING,
        "numbers": SearchSpace((*ONE_DOUBLE.parameters, *CONTINUOUS.parameters)),
        "all-constant": ALL_CONSTANT,
    }
    settings: ClassVar[Mapping[str, str]] = {"restart_strategy": "ipop", "sigma": "0.00001"}
    ignores_others = True
    trials = 40

    def create(self, problem: SearchProblem) -> Algorithm:
        return CmaEs(problem)


class TestAnneal(AlgorithmContract):
    settings: ClassVar[Mapping[str, str]] = {"avg_best_idx": "3", "shrink_coef": "0.2"}

    def create(self, problem: SearchProblem) -> Algorithm:
        return Anneal(problem)
