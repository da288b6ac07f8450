"""hyperband, asha, bohb and pbt: which trials they plan, in what order, and that nothing but the history decides it."""

from __future__ import annotations

import itertools
import math
import random
import statistics
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from algorithms import registry
from algorithms.asha import Asha
from algorithms.bohb import Bohb
from algorithms.halving import Ladder
from algorithms.hyperband import Hyperband
from algorithms.pbt import Pbt
from algorithms.planning import Planner, perturbed
from algorithms.space import Codec
from evertune.domain import labels
from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import Distribution, Parameter, ParameterType, SearchProblem, SearchSpace, Value, When
from evertune.domain.states import TrialState
from evertune.domain.trial import HistoryTrial
from evertune.errors import AlgorithmError
from evertune.testing.play import Play, chance

LR = Parameter(name="lr", type=ParameterType.DOUBLE, low=1e-4, high=1.0, distribution=Distribution.LOG_UNIFORM)
WIDTH = Parameter(name="width", type=ParameterType.INT, low=1, high=64)
OPTIMIZER = Parameter(name="opt", type=ParameterType.CATEGORICAL, values=("sgd", "adam", "rmsprop"))
EPOCHS = Parameter(name="epochs", type=ParameterType.INT, low=1, high=1)  # as in Katib's example: its range is not used
SPACE = SearchSpace((LR, WIDTH, EPOCHS, OPTIMIZER))
POPULATION = SearchSpace((LR, WIDTH, OPTIMIZER))
PBT = {"suggestion_trial_dir": "/ckpt", "n_population": "10", "truncation_threshold": "0.2"}

Score = Callable[[HistoryTrial], float]


def problem(space: SearchSpace = SPACE, **changes: Any) -> SearchProblem:
    settings = {"r_l": "81", "resource_name": "epochs", **changes.pop("settings", {})}
    if space is POPULATION:
        settings = {**PBT, **{key: value for key, value in settings.items() if key not in ("r_l", "resource_name")}}
    return SearchProblem(
        space=space, direction=ObjectiveType.MINIMIZE, seed=changes.pop("seed", 3), settings=settings, **changes
    )


def loss(trial: HistoryTrial) -> float:
    return abs(float(trial.parameters["lr"]) - 0.1) + 1 / (1 + int(trial.labels.get(labels.RESOURCE, "1")))


def play(
    kind: type[Planner],
    given: SearchProblem,
    *,
    parallel: int = 4,
    luck: int = 1,
    failing: float = 0.0,
    most: int = 10_000,
    score: Score = loss,
) -> Play:
    """Run it to its end, a new object for each ask; trials end in an order that `luck` draws."""
    random_order = chance(luck)

    def fails(trial: HistoryTrial) -> bool:
        return chance(zlib.crc32(repr((luck, sorted(trial.labels.items()))).encode())).random() < failing

    game = Play(lambda *question: kind(given).ask(*question))
    while True:
        room = min(parallel - len(game.running()), most - len(game.trials))
        answer = game.suggest(room) if room > 0 else None
        if not game.running():
            assert answer is None or answer.exhausted or not answer.wait, "it waits, and nothing runs"
            return game
        trial = game.trials[random_order.choice(game.running())]
        if failing and fails(trial):
            game.tell(trial.number, TrialState.FAILED, None)
        else:
            game.tell(trial.number, TrialState.SUCCEEDED, score(trial))


def rungs(game: Play) -> dict[tuple[int, int], list[HistoryTrial]]:
    found = defaultdict(list)
    for trial in game.trials:
        found[int(trial.labels.get(labels.BRACKET, "0")), int(trial.labels[labels.RUNG])].append(trial)
    return found


def plan(game: Play) -> set[tuple[Any, ...]]:
    """What was run, whatever the numbers: parameters and place of every trial."""
    return {
        (tuple(trial.parameters.items()), *(trial.labels.get(key) for key in (labels.BRACKET, labels.RUNG)))
        for trial in game.trials
    }


# ----------------------------------------------------------------------------------------------------- hyperband


def test_the_brackets_are_those_of_the_paper() -> None:
    game = play(Hyperband, problem())
    sizes = {place: (len(trials), trials[0].parameters["epochs"]) for place, trials in rungs(game).items()}
    table = [[81, 27, 9, 3, 1], [34, 11, 3, 1], [15, 5, 1], [8, 2], [5]]
    assert sizes == {
        (bracket, rung): (size, 81 // 3 ** (len(row) - 1 - rung))
        for bracket, row in enumerate(table)
        for rung, size in enumerate(row)
    }
    assert game.answers[-1].exhausted
    assert game.answers[-1].reason == "all 5 brackets are done"


@pytest.mark.parametrize(
    ("r_l", "eta", "brackets"),
    [("243", "3", 6), ("1000", "10", 4), ("242", "3", 5), ("2", "2", 2), ("100", "2.5", 6), ("0.5", "3", 1)],
)
def test_the_number_of_brackets_is_exact(r_l: str, eta: str, brackets: int) -> None:
    assert Ladder.of(problem(settings={"r_l": r_l, "eta": eta})).top + 1 == brackets


def test_a_promoted_trial_keeps_its_configuration_and_names_its_parent() -> None:
    game = play(Hyperband, problem(settings={"r_l": "9"}))
    for trial in game.trials:
        assert trial.labels[labels.FULL_RESOURCE] == "9"
        assert trial.labels[labels.RESOURCE] == str(trial.parameters["epochs"])
        parent = labels.parent(trial.labels)
        if trial.labels[labels.RUNG] == "0":
            assert parent is None
            assert trial.labels[labels.CONFIG] == str(trial.number)
            continue
        assert parent is not None
        before = game.trials[parent]
        assert {**before.parameters, "epochs": trial.parameters["epochs"]} == trial.parameters
        assert before.labels[labels.CONFIG] == trial.labels[labels.CONFIG]


def test_the_best_of_a_rung_go_on_and_failed_ones_never() -> None:
    game = play(Hyperband, problem(settings={"r_l": "27"}), failing=0.3)
    places = rungs(game)
    for (bracket, rung), trials in places.items():
        if rung == 0:
            continue
        below = places[bracket, rung - 1]
        good = sorted(
            (trial for trial in below if trial.value is not None), key=lambda trial: (trial.value, trial.number)
        )
        configs = [trial.labels[labels.CONFIG] for trial in sorted(trials, key=lambda trial: trial.number)]
        assert configs == [trial.labels[labels.CONFIG] for trial in good[: len(configs)]]


@pytest.mark.parametrize("opened", ["1", "3"])
@pytest.mark.parametrize("failing", [0.0, 0.1])
def test_any_number_of_workers_and_any_order_of_ends_run_the_same_trials(opened: str, failing: float) -> None:
    given = problem(settings={"r_l": "27", "max_open_brackets": opened, "cycles": "2"})
    # Which trial fails is drawn from its place, not from its number, to be the same for all of them.

    def score(trial: HistoryTrial) -> float:
        fails = random.Random(f"{trial.parameters['lr']}{trial.labels[labels.RUNG]}").random() < failing
        return float("nan") if fails else loss(trial)

    plans = [
        plan(play(Hyperband, given, parallel=parallel, luck=luck, score=score))
        for parallel, luck in [(2, 1), (8, 2), (8, 3), (30, 4)]
    ]
    assert plans[0] == plans[1] == plans[2] == plans[3]
    assert len(plans[0]) > 100


def test_a_short_answer_says_what_it_waits_for() -> None:
    game = Play(lambda *question: Hyperband(problem(settings={"r_l": "9"})).ask(*question))
    answer = game.suggest(20)
    assert (len(answer.assignments), answer.wait) == (9, True)
    answer = game.suggest(11)
    assert (answer.assignments, answer.wait) == ((), True)
    assert answer.reason == "rung 0 of bracket 0 waits for 9 trials to end"


def test_more_open_brackets_keep_workers_busy_at_the_end_of_a_rung() -> None:
    def idle(opened: str) -> int:
        game = play(Hyperband, problem(settings={"r_l": "27", "max_open_brackets": opened}))
        return sum(answer.wait for answer in game.answers)

    assert idle("5") < idle("2") < idle("1")


def test_a_rung_where_everything_failed_ends_its_bracket() -> None:
    game = play(Hyperband, problem(settings={"r_l": "9"}), score=lambda trial: float("inf"))
    assert set(rungs(game)) == {(0, 0), (1, 0), (2, 0)}
    assert game.answers[-1].exhausted


def test_a_second_trial_for_the_same_place_counts_instead_of_the_first() -> None:
    given = problem(settings={"r_l": "3"})
    game = Play(lambda *question: Hyperband(given).ask(*question))
    game.suggest(3)
    for number in range(3):
        game.tell(number, TrialState.FAILED, None)
    first = game.trials[1]
    game.trials.append(replace(first, number=3, state=TrialState.SUCCEEDED, value=0.5))
    (promoted,) = game.suggest(1).assignments
    assert promoted.labels[labels.PARENT] == "3"
    assert promoted.labels[labels.CONFIG] == "1"


# ----------------------------------------------------------------------------------------------------------- asha


def test_asha_never_lets_a_worker_wait() -> None:
    game = play(Asha, problem(settings={"r_l": "27"}), most=300, parallel=7)
    assert not any(answer.wait for answer in game.answers)
    assert {trial.parameters["epochs"] for trial in game.trials} == {1, 3, 9, 27}


def test_asha_promotes_only_from_the_best_third_of_what_has_ended() -> None:
    game = play(Asha, problem(settings={"r_l": "27"}), most=300, failing=0.1)
    for rung in range(3):
        below, above = rungs(game)[0, rung], rungs(game)[0, rung + 1]
        ended = sum(trial.state.terminal for trial in below)
        assert 0 < len(above) < 0.6 * ended  # the paper's bound is a third, and a few that were of it once
        assert all(game.trials[labels.parent(trial.labels) or 0].value is not None for trial in above)


def test_asha_with_a_limit_of_configurations_ends_when_the_last_one_has_gone_as_far_as_it_goes() -> None:
    game = play(Asha, problem(settings={"r_l": "9", "max_configs": "9"}))
    assert sorted(len(trials) for trials in rungs(game).values()) == [1, 3, 9]
    assert game.answers[-1].reason == "all 9 configurations have gone as far as they go"


# ----------------------------------------------------------------------------------------------------------- bohb


def test_bohb_draws_as_hyperband_until_a_resource_has_enough_results_and_learns_from_then_on() -> None:
    def distance(trial: HistoryTrial) -> float:
        return abs(math.log10(float(trial.parameters["lr"])) + 1) + abs(int(trial.parameters["width"]) - 20) / 64

    given = problem(settings={"r_l": "27", "random_fraction": "0", "cycles": "3"}, seed=0)
    learned, drawn = (play(kind, given, score=distance) for kind in (Bohb, Hyperband))
    enough = 3 + 2
    assert [trial.parameters for trial in learned.trials[:enough]] == [t.parameters for t in drawn.trials[:enough]]
    began = [
        [distance(trial) for trial in game.trials if trial.labels[labels.RUNG] == "0"] for game in (learned, drawn)
    ]
    last = [statistics.median(each[-40:]) for each in began]
    assert last[0] < last[1]


def test_bohb_with_random_fraction_one_is_hyperband() -> None:
    given = problem(settings={"r_l": "9", "random_fraction": "1"})
    assert plan(play(Bohb, given)) == plan(play(Hyperband, given))


# ------------------------------------------------------------------------------------------------------------ pbt


def generations(game: Play) -> dict[int, dict[int, HistoryTrial]]:
    found: dict[int, dict[int, HistoryTrial]] = defaultdict(dict)
    for trial in game.trials:
        found[int(trial.labels[labels.GENERATION])][int(trial.labels[labels.MEMBER])] = trial
    return found


def test_losers_take_parameters_and_checkpoint_of_winners_and_the_others_go_on() -> None:
    game = play(Pbt, problem(POPULATION, settings={"generations": "8"}), failing=0.1)
    assert game.answers[-1].reason == "all 8 generations are done"
    found = generations(game)
    assert [len(found[generation]) for generation in range(8)] == [10] * 8
    for before, after in itertools.pairwise(found[generation] for generation in range(8)):
        good = sorted((t for t in before.values() if t.value is not None), key=lambda t: (t.value, t.number))
        best = {trial.number for trial in good[:2]}
        exploiting = 0
        for member, trial in after.items():
            parent = labels.parent(trial.labels)
            if trial.labels[labels.ACTION] == "continue":
                assert (parent, trial.parameters) == (before[member].number, before[member].parameters)
                assert before[member].value is not None
            else:
                exploiting += 1
                assert parent in best
                assert trial.parameters != before[member].parameters
        assert exploiting >= 2


@pytest.mark.parametrize("resample", [None, "0.25"])
def test_the_trajectory_is_the_same_for_two_and_for_eight_workers(resample: str | None) -> None:
    settings = {"generations": "6"} | ({} if resample is None else {"resample_probability": resample})
    games = [
        play(Pbt, problem(POPULATION, settings=settings), parallel=parallel, luck=luck)
        for parallel, luck in [(2, 1), (8, 2), (20, 3)]
    ]
    one, *others = [[(trial.parameters, trial.labels) for trial in game.trials] for game in games]
    assert all(other == one for other in others)


def test_a_generation_that_failed_altogether_is_followed_by_new_ones() -> None:
    given = problem(POPULATION, settings={"generations": "2"})
    game = play(Pbt, given, score=lambda trial: float("nan"))
    second = generations(game)[1].values()
    assert all(labels.PARENT not in trial.labels for trial in second)
    assert not {repr(trial.parameters) for trial in second} & {
        repr(t.parameters) for t in generations(game)[0].values()
    }


@pytest.mark.parametrize("threshold", ["0", "1"])
def test_no_threshold_replaces_more_than_the_half_that_loses(threshold: str) -> None:
    game = play(Pbt, problem(POPULATION, settings={"generations": "3", "truncation_threshold": threshold}))
    replaced = sum(t.labels[labels.ACTION] == "exploit-explore" for t in game.trials)
    assert replaced == (0 if threshold == "0" else 10)


DISCRETE = Parameter(name="d", type=ParameterType.DISCRETE, values=("16", "4", "8"))
STEPPED = Parameter(name="s", type=ParameterType.DOUBLE, low=0.1, high=0.9, step=0.1)


@pytest.mark.parametrize(
    ("parameter", "value", "neighbours"),
    [
        (OPTIMIZER, "adam", {"sgd", "rmsprop"}),
        (OPTIMIZER, "sgd", {"adam"}),
        (DISCRETE, "8", {"4", "16"}),
        (DISCRETE, "16", {"8"}),
        (WIDTH, 10, {8, 12}),
        (WIDTH, 2, {1, 3}),
        (WIDTH, 64, {51, 64}),
        (STEPPED, 0.1, {0.1, 0.2}),
        (LR, 0.5, {0.4, 0.6}),
        (LR, 1.0, {0.8, 1.0}),
        (replace(LR, low=-1.0, distribution=Distribution.UNIFORM), -0.5, {-0.4, -0.6}),
        (replace(WIDTH, low=0, high=10), 0, {0, 2}),
    ],
)
def test_a_perturbed_value_is_a_neighbour_within_the_range(
    parameter: Parameter, value: Value, neighbours: set[Value]
) -> None:
    (dimension,) = Codec.of(SearchSpace((parameter,))).dimensions
    found = {perturbed(dimension, value, chance(luck), (0.8, 1.2)) for luck in range(30)}
    assert {round(each, 9) if isinstance(each, float) else each for each in found} == neighbours


# ------------------------------------------------------------------------------------- what all of them can do

ALL = [(Hyperband, SPACE), (Asha, SPACE), (Bohb, SPACE), (Pbt, POPULATION)]


@pytest.mark.parametrize(("kind", "space"), ALL)
def test_initial_trials_are_the_first_configurations_with_what_is_missing_drawn(
    kind: type[Planner], space: SearchSpace
) -> None:
    initial: tuple[Mapping[str, Value], ...] = ({"lr": 0.25, "width": 3, "opt": "adam"}, {"lr": 0.125})
    given = problem(space, initial=initial)
    first, second, third = (trial.parameters for trial in play(kind, given, most=3, parallel=2).trials)
    assert {name: first[name] for name in initial[0]} == initial[0]
    assert second["lr"] == 0.125
    assert set(second) == set(first) == set(space.names())
    assert third["lr"] not in (0.25, 0.125)


@pytest.mark.parametrize(("kind", "space"), ALL)
def test_every_trial_satisfies_the_parameter_constraints(kind: type[Planner], space: SearchSpace) -> None:
    given = problem(space, parameter_constraints=("lr * width <= 0.5", "width > 4 or opt == 'sgd'"))
    game = play(kind, given, most=25)
    assert len(game.trials) == 25
    for parameters in game.parameters:
        assert float(parameters["lr"]) * int(parameters["width"]) <= 0.5
        assert int(parameters["width"]) > 4 or parameters["opt"] == "sgd"


@pytest.mark.parametrize(("kind", "space"), ALL)
def test_a_space_without_any_allowed_point_is_one_sentence(kind: type[Planner], space: SearchSpace) -> None:
    with pytest.raises(AlgorithmError, match="none of 1000 configurations satisfies the parameterConstraints"):
        play(kind, problem(space, parameter_constraints=("lr > 2",)), most=3)


@pytest.mark.parametrize(("kind", "space"), [(kind, space) for kind, space in ALL if kind is not Bohb])
def test_conditional_parameters_are_there_exactly_where_their_condition_holds(
    kind: type[Planner], space: SearchSpace
) -> None:
    momentum = Parameter(name="momentum", type=ParameterType.DOUBLE, low=0.1, high=0.9, when=(When("opt", ("sgd",)),))
    wider = SearchSpace((momentum, *space))
    given = replace(problem(space), space=wider)
    game = play(kind, given, most=120)
    assert {parameters["opt"] for parameters in game.parameters} == {"sgd", "adam", "rmsprop"}
    assert all(("momentum" in parameters) == (parameters["opt"] == "sgd") for parameters in game.parameters)


@pytest.mark.parametrize(("kind", "space"), ALL)
def test_a_trial_that_misses_an_outcome_constraint_ranks_behind_all_that_do_not(
    kind: type[Planner], space: SearchSpace
) -> None:
    given = problem(space, constraints=1, settings={"r_l": "3"})
    game = Play(lambda *question: kind(given).ask(*question))
    game.suggest(10)
    for number in game.running():
        game.tell(number, TrialState.SUCCEEDED, float(number))
        misses = 1.0 if number < 2 else -1.0
        game.trials[number] = replace(game.trials[number], violations=(misses,))
    parents = [labels.parent(assignment.labels) for assignment in game.suggest(10).assignments]
    chosen = [number for number in parents if number is not None]
    if kind is Pbt:
        assert all(parents.count(number) == 0 for number in (0, 1)), "the two that miss it are the ones replaced"
    else:
        assert chosen[0] == 2


@pytest.mark.parametrize(("kind", "space"), ALL)
def test_a_stopped_trial_counts_with_its_value_and_a_killed_one_is_not_gone_on_with(
    kind: type[Planner], space: SearchSpace
) -> None:
    given = problem(space, settings={"r_l": "3"})
    game = Play(lambda *question: kind(given).ask(*question))
    game.suggest(10)
    states = itertools.cycle([TrialState.KILLED, TrialState.EARLY_STOPPED, TrialState.SUCCEEDED])
    for number, state in zip(game.running(), states, strict=False):
        game.tell(number, state, float(number))
    parents = [labels.parent(assignment.labels) for assignment in game.suggest(10).assignments]
    assert 1 in parents
    assert 0 not in parents


@pytest.mark.parametrize(("kind", "space"), ALL)
def test_trials_of_others_and_trials_without_labels_are_left_out(kind: type[Planner], space: SearchSpace) -> None:
    game = play(kind, problem(space, settings={"r_l": "9"}), most=7)
    stranger = replace(game.trials[0], number=-1)
    bare = replace(game.trials[0], labels={}, number=7)
    asked = [
        kind(problem(space, settings={"r_l": "9"})).ask(history, 2, 8, None)
        for history in (game.trials, [stranger, *game.trials, bare])
    ]
    assert asked[0] == asked[1]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "space"), [(kind, space) for kind, space in ALL if kind is not Bohb])
def test_an_ask_at_five_thousand_trials_costs_little_more_than_reading_them(
    kind: type[Planner], space: SearchSpace
) -> None:
    settings = {"r_l": "729", "cycles": "9"} if kind is Hyperband else {"r_l": "81"}
    given = problem(space, settings=settings)
    session = kind(given).session()
    game = Play(lambda history, k, first, state: session.ask(k, first, state))

    def end(number: int) -> None:
        game.tell(number, TrialState.SUCCEEDED, loss(game.trials[number]))
        session.update([game.trials[number]])

    while len(game.trials) < 4900:
        before = len(game.trials)
        game.suggest(100)
        for number in range(before, len(game.trials)):
            end(number)
    spent = []
    while len(game.trials) < 5000:
        begin = time.process_time()
        game.suggest(1)
        end(len(game.trials) - 1)
        spent.append(time.process_time() - begin)
    assert sorted(spent)[50] < 0.005
    begin = time.process_time()
    rebuilt = kind(given).ask(tuple(game.trials), 1, 5000, None)
    assert time.process_time() - begin < 0.15
    assert rebuilt == session.ask(1, 5000, None)


def test_planners_need_no_process_of_their_own_but_for_the_one_with_a_library() -> None:
    assert [registry.in_process(name) for name in ("hyperband", "asha", "pbt", "bohb")] == [True, True, True, False]
