"""Architectures: Katib's texts byte for byte, the flat space, the controller's gradient, and better networks."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from algorithms import registry
from algorithms.darts import search_space
from algorithms.nas.controller import Controller, Shape
from algorithms.nas.network import Network, rows_of
from algorithms.nas.space import flat_space, from_assignment, to_assignment
from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import SearchProblem, SearchSpace
from evertune.domain.states import TrialState
from evertune.spec import check, parse_documents, search_problem
from evertune.testing.play import Play, chance
from tests.unit.spec.samples import EXAMPLES


def operation(type_: str, /, **lists: list[str]) -> dict[str, Any]:
    parameters = [
        {"name": name, "parameterType": "categorical", "feasibleSpace": {"list": values}}
        for name, values in lists.items()
    ]
    return {"operationType": type_, "parameters": parameters}


def nas(layers: int, *operations: dict[str, Any]) -> dict[str, Any]:
    graph = {"numLayers": layers, "inputSizes": [8, 8, 1], "outputSizes": [10]}
    return {"graphConfig": graph, "operations": list(operations)}


SMALL = nas(3, operation("conv", size=["3", "5"]), operation("pool", kind=["max"]))
DEEP = nas(8, *(operation(f"op{index}", width=["1"]) for index in range(5)))


def problem(config: dict[str, Any], seed: int = 3, **settings: str) -> SearchProblem:
    return SearchProblem(
        space=SearchSpace(()), direction=ObjectiveType.MAXIMIZE, seed=seed, nas=config, settings=settings
    )


def katibs(name: str) -> SearchProblem:
    (document,) = parse_documents((EXAMPLES / f"nas/{name}.yaml").read_bytes(), name)
    experiment = check(document).experiment
    assert experiment is not None
    return search_problem(experiment, 1)


# ------------------------------------------------------------------------------------------------------- texts


def test_operations_are_numbered_through_the_products_of_their_parameters_in_order() -> None:
    network = Network.of(katibs("enas-cpu").nas or {})

    assert len(network.operations) == 3 * 5 * 2 + 3 * 5 * 2 * 2 + 3 * 2 * 2 + 2 * 2
    assert [found.id for found in network.operations] == list(range(len(network.operations)))
    first, last = network.operations[0], network.operations[-1]
    assert first.described() == {
        "opt_id": 0,
        "opt_type": "convolution",
        "opt_params": {"filter_size": "3", "num_filter": "32", "stride": "1"},
    }
    assert last.parameters == {"reduction_type": "avg_pooling", "pool_size": 3}


def test_a_network_is_written_as_katibs_trial_images_read_it() -> None:
    given = Network.of(SMALL).parameters([[2], [0, 1], [2, 0, 1]])

    assert given == {
        "architecture": "[[2], [0, 1], [2, 0, 1]]",
        "nn_config": "{'num_layers': 3, 'input_sizes': [8, 8, 1], 'output_sizes': [10], 'embedding': "
        "{'2': {'opt_id': 2, 'opt_type': 'pool', 'opt_params': {'kind': 'max'}}, "
        "'0': {'opt_id': 0, 'opt_type': 'conv', 'opt_params': {'size': '3'}}}}",
    }


def test_stepped_numbers_are_values_like_any_other() -> None:
    double = {"name": "rate", "parameterType": "double", "feasibleSpace": {"min": "0.1", "max": "0.3", "step": "0.1"}}
    integer = {"name": "size", "parameterType": "int", "feasibleSpace": {"min": "2", "max": "7", "step": "2"}}
    config = nas(1, {"operationType": "drop", "parameters": [double, integer]})

    found = [tuple(each.parameters.values()) for each in Network.of(config).operations]
    assert found == list(itertools.product((0.1, 0.2, 0.3), (2, 4, 6)))


def test_darts_hands_out_katibs_three_texts() -> None:
    operations = "separable_convolution_3x3 dilated_convolution_3x3 dilated_convolution_5x5 avg_pooling_3x3"
    operations += " max_pooling_3x3 skip_connection"
    for name, layers, names in (("darts-cpu", "1", ["max_pooling_3x3"]), ("darts-gpu", "3", operations.split())):
        asked = katibs(name)
        (given,) = registry.create("darts", asked).ask((), 1, 0, None).assignments

        assert list(given.parameters) == ["algorithm-settings", "search-space", "num-layers"]
        assert given.parameters["search-space"] == str(names)
        assert search_space(asked.nas or {}) == names
        assert given.parameters["num-layers"] == layers


def test_darts_settings_are_text_where_the_user_gave_them_and_numbers_where_not() -> None:
    asked = problem(nas(1, operation("conv", size=["3"])), num_epochs="3", batch_size="None", mine="x")
    (given,) = registry.create("darts", asked).ask((), 1, 5, None).assignments

    assert given.parameters["algorithm-settings"] == (
        "{'num_epochs': '3', 'w_lr': 0.025, 'w_lr_min': 0.001, 'w_momentum': 0.9, 'w_weight_decay': 0.0003, "
        "'w_grad_clip': 5.0, 'alpha_lr': 0.0003, 'alpha_weight_decay': 0.001, 'batch_size': null, 'num_workers': 4, "
        "'init_channels': 16, 'print_step': 50, 'num_nodes': 4, 'stem_multiplier': 3, 'mine': 'x'}"
    )


# -------------------------------------------------------------------------------------------------- flat space


def test_a_point_of_the_flat_space_is_a_network_and_back() -> None:
    space = flat_space(SMALL)
    assert space.names() == ("op_1", "op_2", "skip_2_0", "op_3", "skip_3_0", "skip_3_1")
    values = {"op_1": "2", "op_2": "0", "skip_2_0": "1", "op_3": "1", "skip_3_0": "0", "skip_3_1": "1"}

    given = to_assignment(SMALL, values)

    assert given["architecture"] == "[[2], [0, 1], [1, 0, 1]]"
    assert from_assignment(given) == values


# -------------------------------------------------------------------------------------------------- controller


@pytest.mark.parametrize("without", [{}, {"temperature": None}, {"tanh_constant": None}, {"skip_weight": None}])
def test_the_controllers_gradient_is_that_of_finite_differences(without: dict[str, Any]) -> None:
    controller = Controller(Shape(layers=4, operations=5, hidden=6, **without), seed=1)
    generator = np.random.default_rng(0)
    for name, weight in controller.weights.items():
        controller.weights[name] = generator.uniform(-0.5, 0.5, weight.shape)
    architectures = [controller.sample(generator) for _ in range(3)]
    advantage = np.array([0.7, -0.3, 1.1])

    def loss() -> float:
        drawn = controller.evaluate(architectures)
        pull = (controller.shape.skip_weight or 0.0) * drawn.penalty.mean()
        return float(pull - (advantage * drawn.log_probability).sum())

    gradient = controller.gradient(controller.evaluate(architectures), advantage)
    for name, weight in controller.weights.items():
        for _ in range(10):
            place = tuple(int(generator.integers(size)) for size in weight.shape)
            here = weight[place]
            weight[place] = here + 1e-5
            above = loss()
            weight[place] = here - 1e-5
            below = loss()
            weight[place] = here
            assert gradient[name][place] == pytest.approx((above - below) / 2e-5, rel=1e-4, abs=1e-6), (name, place)


def test_log_probabilities_are_those_of_what_is_drawn() -> None:
    controller = Controller(Shape(layers=2, operations=2, hidden=4), seed=5)
    generator = np.random.default_rng(1)
    controller.weights["softmax"] = generator.uniform(-4, 4, (4, 2))
    controller.weights["lstm"] = generator.uniform(-2, 2, (8, 16))
    every = [[[first], [second, skip]] for first in (0, 1) for second in (0, 1) for skip in (0, 1)]

    chances = np.exp(controller.evaluate(every).log_probability)

    assert chances.sum() == pytest.approx(1)
    drawn = [controller.sample(generator) for _ in range(4000)]
    shares = np.array([drawn.count(rows) for rows in every]) / 4000
    assert np.abs(shares - chances).max() < 0.04


def test_a_controller_goes_on_from_its_dump_bit_for_bit() -> None:
    shape = Shape(layers=3, operations=4, hidden=8)
    one, other = Controller(shape, seed=1), Controller(shape, seed=2)
    architectures = [one.sample(np.random.default_rng(index)) for index in range(4)]
    for _ in range(3):
        one.step(one.gradient(one.evaluate(architectures), np.array([1.0, -1.0, 0.5, 0.2])))
        other.load(one.dump())
        for name, weight in one.weights.items():
            assert np.array_equal(weight, other.weights[name])
        assert one.dump() == other.dump()


# --------------------------------------------------------------------------------------------------- searching


def landscape(seed: int) -> Any:
    """A value for each network of `DEEP`: of its operations, of neighbours, of its skip connections."""
    generator = np.random.default_rng([seed, 9])
    single, pairs = generator.normal(size=(8, 5)), generator.normal(size=(8, 5, 5))
    skips = generator.normal(size=(8, 8)) / 2

    def value(rows: list[list[int]]) -> float:
        total = sum(single[layer, row[0]] for layer, row in enumerate(rows))
        total += sum(pairs[layer, rows[layer - 1][0], rows[layer][0]] for layer in range(1, 8))
        edges = [(layer, bit) for layer, row in enumerate(rows) for bit in np.flatnonzero(row[1:])]
        return float(total + sum(skips[edge] for edge in edges))

    return value


def search(name: str, seed: int, trials: int = 120, **settings: str) -> list[float]:
    """The values of the trials, ten at a time."""
    asked, value = problem(DEEP, seed, **settings), landscape(seed)
    play = Play(lambda *question: registry.create(name, asked).ask(*question))
    values = []
    while len(play.trials) < trials:
        play.suggest(10)
        for number in play.running():
            values.append(value(rows_of(str(play.trials[number].parameters["architecture"]))))
            play.tell(number, TrialState.SUCCEEDED, values[-1])
    return values


@pytest.mark.parametrize("name", ["enas", "nas-evolution"])
def test_later_networks_are_better_than_the_first(name: str) -> None:
    gains = []
    for seed in range(3):
        values = search(name, seed, controller_hidden_size="16") if name == "enas" else search(name, seed)
        gains.append((np.mean(values[-30:]) - np.mean(values[:20])) / np.std(values[:20]))
    assert np.mean(gains) > 0.4


def test_a_child_differs_from_its_parent_in_one_choice() -> None:
    asked = problem(SMALL, population_size="2", sample_size="2")
    play = Play(lambda *question: registry.create("nas-evolution", asked).ask(*question))
    play.suggest(2)
    play.tell(0, TrialState.SUCCEEDED, 1.0)
    play.tell(1, TrialState.SUCCEEDED, 2.0)
    play.suggest(30)

    def choices(number: int) -> list[int]:
        return [choice for row in rows_of(str(play.trials[number].parameters["architecture"])) for choice in row]

    for number in range(2, 32):
        assert sum(a != b for a, b in zip(choices(number), choices(1), strict=True)) == 1
        assert play.trials[number].labels == {"action": "mutate"}


def test_the_population_forgets_its_oldest() -> None:
    asked = problem(SMALL, population_size="2", sample_size="2")
    play = Play(lambda *question: registry.create("nas-evolution", asked).ask(*question))
    play.suggest(3)
    for number, value in enumerate((9.0, 1.0, 2.0)):
        play.tell(number, TrialState.SUCCEEDED, value)
    play.suggest(1)

    def flat(number: int) -> dict[str, Any]:
        return from_assignment(play.trials[number].parameters)

    assert sum(value != flat(2)[name] for name, value in flat(3).items()) == 1


@pytest.mark.parametrize("name", ["enas", "nas-evolution"])
def test_the_order_in_which_trials_end_decides_and_nothing_else(name: str) -> None:
    settings: dict[str, Any] = {"population_size": "4"}
    if name == "enas":
        settings = {"trials_per_update": "4", "controller_hidden_size": "8"}
    asked = problem(SMALL, **settings)
    runs = [
        Play(lambda *question: registry.create(name, asked).ask(*question)).run(30, 4, chance(5), failing=0.3)
        for _ in range(2)
    ]
    assert runs[0].trials == runs[1].trials


def test_katibs_rule_learns_from_the_average_of_all_trials() -> None:
    values = search("enas", 1, 40, reward="average", controller_hidden_size="8", controller_train_steps="2")
    assert len(values) == 40
