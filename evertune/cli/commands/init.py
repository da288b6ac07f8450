"""`init`: writes an experiment file from options, and on a terminal from a few answers."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from evertune.cli import options
from evertune.cli.loading import write_new
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
    WarmStart,
    Where,
    checked,
    further_of,
    objective_of,
    parameters_of,
    settings_of,
)
from evertune.cli.session import session
from evertune.cli.views.summary import next_lines
from evertune.errors import UsageError


def init_(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Where to write; - is standard output.", show_default=False)
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Its name.", show_default=False)] = None,
    command: Annotated[
        str | None,
        typer.Option("--command", help="What one trial runs, with {lr} where a value goes.", show_default=False),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(
            "--image",
            help="Container image, for a cluster. Without a command its own program gets --NAME=VALUE.",
            show_default=False,
        ),
    ] = None,
    param: Param = None,
    maximize: Maximize = None,
    minimize: Minimize = None,
    goal: Goal = None,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help=f"How many trials; else {TRIALS}.", show_default=False)
    ] = None,
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
    namespace: options.Namespace = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> int:
    """Write an experiment file, commented and already valid. Asks on a terminal for what no option says."""
    from evertune.spec import commented_yaml, quick_experiment

    now = session()
    asking = sys.stdin.isatty() and now.err.terminal
    suggested = file.stem if file and str(file) != "-" else "my-experiment"
    name = name or _answer(asking, "Name", "--name", default=suggested)
    if command is None and image is None:
        command = _answer(asking, "Command, with {lr} where the value of lr goes", "--command or --image")
    params = param or _ask_parameters(asking, command)
    if maximize is None and minimize is None:
        metric = _answer(asking, "Metric, as your program prints it (accuracy=0.97)", "--maximize or --minimize")
        lower = typer.confirm("Is lower better?", default=_sounds_low(metric), err=True)
        maximize, minimize = (None, metric) if lower else (metric, None)
    direction, wanted = objective_of(maximize, minimize)
    if trials is None:
        trials = typer.prompt("How many trials", default=TRIALS, value_proc=_count, err=True) if asking else TRIALS
    manifest = quick_experiment(
        name=name,
        command=command,
        parameters=parameters_of(params),
        direction=direction,
        metric=wanted,
        goal=goal,
        trials=trials,
        parallel=parallel,
        failures=max_failed,
        algorithm=algorithm,
        settings=settings_of(setting or []),
        image=image,
        namespace=namespace,
        seed=seed,
        further=further_of(objective, constraint, where, initial, warm_start, replicates),
    )
    checked(now, manifest)
    text = commented_yaml(manifest)
    path = file or Path(f"{name}.yaml")
    if str(path) == "-":
        now.out.write(text)
        return 0
    write_new(path, text, force=force)
    now.say(
        f"Wrote {path}.",
        *next_lines(
            [
                (f"evertune validate {path}", "after you changed it"),
                (f"evertune render {path} --trial 0", "what the first trial will be"),
                (f"evertune run {path}", "run it"),
            ]
        ),
    )
    return 0


def _answer(asking: bool, question: str, option: str, default: str | None = None) -> str:
    if not asking:
        if default is not None and option == "--name":
            return default
        raise UsageError(f"{option} is missing, and there is no terminal to ask on")
    answer: str = typer.prompt(question, default=default, err=True)
    return answer


def _ask_parameters(asking: bool, command: str | None) -> list[str]:
    """One question for each {word} of the command."""
    names = list(dict.fromkeys(re.findall(r"(?<!\$)\{([A-Za-z_][\w.-]*)\}", command or "")))
    names = [name for name in names if not name.startswith("trial.")]
    if not asking or command is None:
        why = "there is no command that tells the names" if asking else "there is no terminal to ask on"
        raise UsageError(f"--param is missing, and {why}")
    if not names:
        raise UsageError("the command has no {parameter} in it", hint="write {lr} where the value of lr goes")
    session().err.line("Ranges are written as loguniform(1e-5,1e-1), uniform(0,1), int(1,8) or [adam,sgd].")
    from evertune.spec import parse_dimension

    found = []
    for name in names:
        while True:
            text = f"{name}={typer.prompt(f'Range of {name}', err=True)}"
            try:
                parse_dimension(text)
            except UsageError as error:
                session().err.line(f"  {error.message}{f'; {error.hint}' if error.hint else ''}")
                continue
            found.append(text)
            break
    return found


def _count(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        count = 0
    if count < 1:
        raise typer.BadParameter(f"{text} is not a whole number from 1")  # and the question comes again
    return count


def _sounds_low(metric: str) -> bool:
    return bool(re.search(r"loss|error|err\b|mse|mae|rmse|perplexity|latency", metric.lower()))
