"""Whatever a file holds, there is a verdict: 2,000 random mutations of the examples, of bytes and of structure."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evertune.errors import SpecError
from evertune.spec import Verdict, check_all, load_experiment, parse_documents, render_trial, to_space, unsupported_here
from evertune.spec.report import as_dict, plain, report_lines
from tests.unit.spec.samples import EXAMPLES, SomeAlgorithms, base, put

SHORT = b"name: a\ncommand: run {lr} {opt}\nparameters:\n  lr: uniform(0, 1)\n  opt: [a, 1]\nobjective: minimize loss\n"
PHRASES = (
    SHORT + b"objectives: [maximize a, {type: minimize, metric: b}]\nconstraints: [c <= 3]\n"
    b"initialTrials: ['lr=0.5, opt=a', {opt: a}]\nparameterConstraints: [lr < 0.9]\nwarmStart: old\nreplicates: 2\n"
).replace(b"uniform(0, 1)", b"uniform(0, 1) if opt=a")
OWN = base(
    spec__objectives=[{"type": "minimize", "metric": "latency"}],
    spec__constraints=[{"metric": "memory", "le": 3}, {"metric": "latency", "ge": 0.5}],
    spec__parameterConstraints=["layers < 4 or opt == 'adam'", "layers * 2 <= 9"],
    spec__parameters__0__when={"opt": ["sgd", "adam"]},
    spec__initialTrials=[{"layers": 2, "opt": "sgd"}, {"opt": "ftrl"}],
    spec__warmStart={"from": ["a", "b/c"], "mode": "transfer"},
    spec__replicates={"count": 3, "aggregate": "median"},
    spec__onDuplicate="reuse",
    spec__onFailure="worst",
)
TEXTS = [path.read_bytes() for path in sorted(EXAMPLES.rglob("*.yaml"))] + [SHORT, json.dumps(base()).encode()]
TEXTS += [PHRASES, json.dumps(OWN).encode()] * 4
TREES = [document.data for text in TEXTS for document in parse_documents(text, "x")]
PIECES = [
    b"", b"\x00", b"\xff", b"\t", b"\n", b"- ", b": ", b"{", b"}", b"[", b"]", b"&a ", b"*a", b"!!", b"<<: ", b"---\n",
    b"'", b'"', b"|", b">", b"#", b"~", b"1e999", b".nan", b"${trialParameters.x}", b"${trialSpec.Labels[", b"%", b"?",
    b"\xe2\x80\xa8", b"0x", b"!!str ", b"\\u0000", b"@", b"`", b"null", b"yes", b"-", b"9" * 400,
]  # fmt: skip
VALUES: list[Any] = [
    "layers < 2", "(" * 50, "opt == 1 / 0", {"opt": ["sgd"]}, {"layers": 2}, [{"layers": [3]}], ["x", 2],
    None, True, 0, -1, 1.5, 2**70, "", " ", "x", "é\n", "1", "-1", "nan", "0x1", "${trialParameters.lr}", "{lr}", "(",
    [], {}, [None], [1], ["a", "a"], {"": ""}, {"a.b/c": 1}, [[]], {"name": "lr"}, [{"name": "lr", "reference": "lr"}],
]  # fmt: skip
STEADY = settings(
    max_examples=1000, derandomize=True, deadline=None, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example, HealthCheck.data_too_large],
)  # fmt: skip


def _judge(text: bytes) -> list[Verdict]:
    verdicts = check_all(parse_documents(text, "x.yaml"), SomeAlgorithms(), backend="kubernetes")
    assert verdicts
    for verdict in verdicts:
        assert verdict.valid == (not verdict.problems)
        assert all(problem.message and len(problem.message) < 1000 for problem in verdict.problems)
        assert plain(report_lines(verdict))
        json.dumps(as_dict(verdict))
    return verdicts


@STEADY
@given(
    text=st.sampled_from(TEXTS),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), st.sampled_from(PIECES)), min_size=1, max_size=6),
)
def test_a_file_with_mutated_bytes_gets_a_verdict(text: bytes, edits: list[tuple[float, int, bytes]]) -> None:
    for where, length, piece in edits:
        at = int(where * len(text))
        text = text[:at] + piece + text[at + length :]
    _judge(text)


def _places(tree: Any, steps: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [steps] if steps else []
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in pairs:
        found += _places(value, (*steps, key))
    return found


@STEADY
@given(tree=st.sampled_from(TREES), seed=st.integers(0, 2**32), count=st.integers(1, 4))
def test_a_document_with_mutated_structure_gets_a_verdict(tree: Any, seed: int, count: int) -> None:
    chance = random.Random(seed)
    tree = copy.deepcopy(tree)
    for _ in range(count):
        if not (places := _places(tree)):
            break
        steps = list(chance.choice(places))
        parent = tree
        for step in steps[:-1]:
            parent = parent[step]
        change = chance.randrange(4)
        if change == 0:
            del parent[steps[-1]]
        elif change == 1 and isinstance(parent, dict):
            parent[chance.choice(("spce", "spec", "min", "${x}", "a b", "name"))] = parent.pop(steps[-1])
        elif change == 2 and isinstance(parent, list):
            parent.append(copy.deepcopy(chance.choice(parent)))
        else:
            put(tree, steps, copy.deepcopy(chance.choice(VALUES)))
    (verdict,) = _judge(json.dumps(tree).encode())
    try:
        experiment = load_experiment(tree, SomeAlgorithms())
    except SpecError:  # a cluster may have the ConfigMap that is not here
        assert verdict.problems or "configMap" in str(tree)
        return
    assert verdict.valid
    for backend in ("local", "kubernetes"):
        assert all(problem.message for problem in unsupported_here(experiment, backend))
    assert load_experiment(experiment.manifest()).manifest() == experiment.manifest()
    space = to_space(experiment)
    values = {p.name: p.low if p.numeric else p.values[0] for p in space}
    if space.parameters and "configMap" not in str(tree):
        render_trial(experiment, trial_name="t", parameters=space.active(values))
