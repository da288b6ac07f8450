"""What `evertune replay` says of a difference: of which trial, of what, and when it proves nothing."""

from __future__ import annotations

import pytest

from activities.replay import Divergence, Replay
from evertune.cli.output.marks import Marks
from evertune.cli.output.text import plain
from evertune.cli.views.replay import document, lines
from evertune.domain.space import Parameters
from tests.cli.build import experiment

HEAD = "✘ trial 5 (request 2) differs; all before are the same"


def found(stored: Parameters | None, recomputed: Parameters | None, versions: str = "") -> Replay:
    divergence = Divergence(request_no=2, trial=5, stored=stored, recomputed=recomputed)
    return Replay(requests=2, trials=4, divergence=divergence, versions=versions)


def said(replay: Replay) -> list[str]:
    return [plain(line) for line in lines(replay, experiment(), Marks())]


@pytest.mark.parametrize(
    ("stored", "recomputed", "sentences"),
    [
        (
            {"lr": 0.1, "kind": "a", "layers": 2},
            {"lr": 0.1000001, "kind": "b", "layers": 2},
            ["  lr: recorded 0.1, recomputed 0.1000001", "  kind: recorded a, recomputed b"],
        ),
        ({"layers": 2}, {"layers": 2.0}, ["  layers: recorded 2, recomputed 2.0"]),
        ({"shift": 0.0}, {"shift": -0.0}, ["  shift: recorded 0.0, recomputed -0.0"]),
        ({"lr": 0.1}, {"lr": 0.1, "beta": 0.9}, ["  beta: recorded nothing, recomputed 0.9"]),
        (None, {"lr": 0.1}, ["  it was not recorded"]),
        ({"lr": 0.1}, None, ["  it is not suggested any more"]),
    ],
)
def test_a_difference_is_told_exactly(
    stored: Parameters | None, recomputed: Parameters | None, sentences: list[str]
) -> None:
    assert said(found(stored, recomputed)) == [HEAD, *sentences]
    assert document(found(stored, recomputed), "digits") == {
        "name": "digits",
        "identical": False,
        "requests": 2,
        "trials": 4,
        "divergence": {"request": 2, "trial": 5, "recorded": stored, "recomputed": recomputed},
    }


def test_with_other_libraries_a_difference_proves_nothing() -> None:
    replay = found({"lr": 0.1}, {"lr": 0.2}, "hyperopt 0.2.7 -> 0.3.0")
    assert said(replay) == [
        "✘ trial 5 was made with other versions of its libraries, and cannot be verified with these:",
        "  hyperopt 0.2.7 -> 0.3.0",
    ]
    assert document(replay, "digits")["libraries"] == "hyperopt 0.2.7 -> 0.3.0"


def test_that_nothing_differs_is_told_with_what_was_compared() -> None:
    replay = Replay(requests=1, trials=4)
    (sentence,) = said(replay)
    assert sentence.startswith("✔ identical: 1 request, 4 trials of tpe with seed ")
    assert document(replay, "digits")["identical"] is True
