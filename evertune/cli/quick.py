"""Options that describe an experiment on the command line, for `tune` and `init`, and what they say.

What is wrong with one is a UsageError that names the option; what is wrong with the whole is said by `checked`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from evertune.cli.loading import catalog, say_warnings
from evertune.cli.session import Session, Stop
from evertune.errors import UsageError

TRIALS = 24
Param = Annotated[
    list[str] | None,
    typer.Option(
        "-p",
        "--param",
        metavar="NAME=RANGE",
        help="A parameter: lr=loguniform(1e-5,1e-1), layers=int(1,8), optimizer=[adam,sgd], "
        "'momentum=uniform(0,1) if optimizer=sgd'; repeat it.",
        show_default=False,
    ),
]
Maximize = Annotated[str | None, typer.Option("--maximize", metavar="METRIC", show_default=False)]
Minimize = Annotated[str | None, typer.Option("--minimize", metavar="METRIC", show_default=False)]
Goal = Annotated[
    float | None, typer.Option("--goal", help="Succeed as soon as a trial is this good.", show_default=False)
]
Trials = Annotated[int, typer.Option("--trials", min=1, help="How many trials.")]
Parallel = Annotated[
    int | None, typer.Option("--parallel", min=1, help="How many at a time; 3 if not given.", show_default=False)
]
Failures = Annotated[int | None, typer.Option("--max-failed", min=0, help="How many may fail.", show_default=False)]
AlgorithmName = Annotated[
    str,
    typer.Option(
        "--algorithm",
        metavar="NAME",
        help="Who proposes the trials: tpe, and with several objectives or bounds auto, unless you name another.",
        show_default=False,
    ),
]
Setting = Annotated[
    list[str] | None,
    typer.Option("--setting", metavar="NAME=VALUE", help="A setting of the algorithm; repeat it.", show_default=False),
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Makes the proposals repeatable.", show_default=False)]
Objectives = Annotated[
    list[str] | None,
    typer.Option(
        "--objective",
        metavar="PHRASE",
        help="A further objective: 'minimize latency_ms'; repeat it.",
        show_default=False,
    ),
]
Constraints = Annotated[
    list[str] | None,
    typer.Option(
        "--constraint",
        metavar="PHRASE",
        help="A bound that a metric has to keep: 'latency_ms <= 20'; repeat it.",
        show_default=False,
    ),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="EXPRESSION",
        help="What the parameters have to satisfy: 'layers * width <= 4096'; repeat it.",
        show_default=False,
    ),
]
Initial = Annotated[
    list[str] | None,
    typer.Option(
        "--initial", metavar="VALUES", help="A trial to begin with: 'lr=0.1,layers=2'; repeat it.", show_default=False
    ),
]
WarmStart = Annotated[
    list[str] | None,
    typer.Option(
        "--warm-start", metavar="NAME", help="Start from the trials of this experiment; repeat it.", show_default=False
    ),
]
Replicates = Annotated[
    int | None,
    typer.Option("--replicates", min=1, help="Run each trial so often, and take the mean.", show_default=False),
]


def checked(now: Session, manifest: dict[str, Any]) -> None:
    """Its problems go to standard error, with exit code 2. There is no file, hence no lines."""
    from evertune import spec

    verdict = spec.check(spec.Document(source="the command line", data=manifest), catalog(), backend="local")
    if verdict.experiment is None:
        for problem in verdict.problems:
            place = f"{problem.path}: " if problem.path else ""
            now.err.line([("error", "error"), (f": {place}{problem.message}", "bold")])
            if problem.hint:
                now.err.line([(f"  {problem.hint}", "mend")])
        raise Stop(2)
    say_warnings(now, [verdict])


def objective_of(maximize: str | None, minimize: str | None) -> tuple[str, str]:
    if maximize and not minimize:
        return "maximize", maximize
    if minimize and not maximize:
        return "minimize", minimize
    if maximize and minimize:
        raise UsageError("--maximize and --minimize exclude each other", hint="record the other one with --metric")
    raise UsageError("what to optimize is missing", hint="add --maximize METRIC or --minimize METRIC")


def parameters_of(texts: Sequence[str]) -> list[dict[str, Any]]:
    from evertune.spec import parse_dimension

    if not texts:
        raise UsageError("there is nothing to search", hint="add --param 'lr=loguniform(1e-5,1e-1)'")
    return [parse_dimension(text) for text in texts]


def further_of(
    objectives: Sequence[str] | None,
    constraints: Sequence[str] | None,
    where: Sequence[str] | None,
    initial: Sequence[str] | None,
    warm_start: Sequence[str] | None,
    replicates: int | None,
) -> dict[str, Any]:
    """Further keys of spec, without those that nothing was said about. UsageError for a phrase that is none."""
    from evertune import spec

    phrases: dict[str, tuple[str, Sequence[str] | None, Callable[[str], dict[str, Any]]]] = {
        "objectives": ("--objective", objectives, spec.objective_in),
        "constraints": ("--constraint", constraints, spec.constraint_in),
        "initialTrials": ("--initial", initial, spec.assignment_in),
    }
    found: dict[str, Any] = {}
    for key, (option, texts, read) in phrases.items():
        try:
            found[key] = [read(text) for text in texts] if texts else None
        except spec.PhraseError as error:
            raise UsageError(f"{option}: {error.message}", hint=error.hint) from None
    found["parameterConstraints"] = list(where) if where else None
    found["warmStart"] = {"from": list(warm_start)} if warm_start else None
    found["replicates"] = replicates
    return {key: value for key, value in found.items() if value is not None}


def settings_of(texts: Sequence[str]) -> dict[str, str]:
    settings = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f'--setting is "{text}": write NAME=VALUE')
        settings[key] = value
    return settings
