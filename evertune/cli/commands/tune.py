"""`tune`: an experiment from a command line, without writing YAML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from evertune.cli import options
from evertune.cli.commands.run import start, stay, submitted
from evertune.cli.loading import start_context
from evertune.cli.output.forms import Form
from evertune.cli.quick import (
    TRIALS,
    AlgorithmName,
    Constraints,
    Failures,
    Goal,
    Initial,
    Maximize,
    Minimize,
    Objectives,
    Parallel,
    Param,
    Replicates,
    Seed,
    Setting,
    Trials,
    WarmStart,
    Where,
    checked,
    further_of,
    objective_of,
    parameters_of,
    settings_of,
)
from evertune.cli.session import Session, session
from evertune.errors import UsageError

Command = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="-- COMMAND...", help="What one trial runs; {lr} stands for the value of lr.", show_default=False
    ),
]


def tune_(
    command: Command = None,
    param: Param = None,
    maximize: Maximize = None,
    minimize: Minimize = None,
    goal: Goal = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="Another metric to record; repeat it.", show_default=False)
    ] = None,
    trials: Trials = TRIALS,
    parallel: Parallel = None,
    max_failed: Failures = None,
    algorithm: AlgorithmName = "",
    setting: Setting = None,
    seed: Seed = None,
    objective: Objectives = None,
    constraint: Constraints = None,
    where: Where = None,
    initial: Initial = None,
    warm_start: WarmStart = None,
    replicates: Replicates = None,
    name: Annotated[str | None, typer.Option("--name", help="Its name; else the script's.", show_default=False)] = None,
    namespace: options.Namespace = None,
    detach: options.Detach = False,
    timeout: options.Timeout = None,
    output: options.Output = Form.TABLE,
) -> int:
    """Tune a command that prints its metric as name=value. No file is needed.

    \b
    evertune tune --param 'lr=loguniform(1e-5,1e-1)' --maximize accuracy -- python train.py --lr {lr}
    """
    now = session()
    direction, wanted = objective_of(maximize, minimize)
    if not command:
        raise UsageError("the command is missing", hint="put it at the end, behind --: -- python train.py --lr {lr}")
    from evertune.spec import quick_experiment

    manifest = quick_experiment(
        name=name or _free_name(now, namespace, _name_of(command)),
        command=command,
        parameters=parameters_of(param or []),
        direction=direction,
        metric=wanted,
        goal=goal,
        additional=metric or [],
        trials=trials,
        parallel=parallel,
        failures=max_failed,
        algorithm=algorithm,
        settings=settings_of(setting or []),
        seed=seed,
        namespace=now.namespace(namespace),
        further=further_of(objective, constraint, where, initial, warm_start, replicates),
    )
    checked(now, manifest)
    context = start_context(now, backend="local", images=None, image_roots=[])
    record = start(now, manifest, context)
    if detach:
        return submitted(now, [record], output)
    return stay(now, record, title=f"evertune tune {record.name}", timeout_s=timeout, output=output, announce=True)


def _name_of(command: Sequence[str]) -> str:
    """`python src/train.py --lr {lr}` becomes `train`."""
    script = next((word for word in command if re.search(r"\.(py|sh|R|jl)$", word)), command[0])
    name = re.sub(r"[^a-z0-9]+", "-", Path(script).stem.lower()).strip("-")[:30]
    return name if name and name[0].isalpha() else f"tune-{name}".rstrip("-")


def _free_name(now: Session, namespace: str | None, base: str) -> str:
    """`train`, else `train-2`, …: whoever gives no name means a new experiment."""
    taken: set[str] = set()
    if now.has_database:
        with now.store() as store:
            taken = {record.name for record in store.list_experiments(now.namespace(namespace))}
    if base not in taken:
        return base
    return next(name for number in range(2, len(taken) + 3) if (name := f"{base}-{number}") not in taken)
