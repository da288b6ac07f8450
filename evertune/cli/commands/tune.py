"""`tune` and `init`: an experiment from a command line or a few answers, without writing YAML."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from evertune.cli import options
from evertune.cli.commands.run import start, stay, submitted
from evertune.cli.loading import catalog, say_warnings, start_context, write_new
from evertune.cli.output.forms import Form
from evertune.cli.session import Session, Stop, session
from evertune.cli.views.summary import next_lines
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
    direction, wanted = _objective(maximize, minimize)
    if not command:
        raise UsageError("the command is missing", hint="put it at the end, behind --: -- python train.py --lr {lr}")
    from evertune.spec import quick_experiment

    manifest = quick_experiment(
        name=name or _free_name(now, namespace, _name_of(command)),
        command=command,
        parameters=_parameters(param or []),
        direction=direction,
        metric=wanted,
        goal=goal,
        additional=metric or [],
        trials=trials,
        parallel=parallel,
        failures=max_failed,
        algorithm=algorithm,
        settings=_settings(setting or []),
        seed=seed,
        namespace=now.namespace(namespace),
        further=_further(objective, constraint, where, initial, warm_start, replicates),
    )
    checked(now, manifest)
    context = start_context(now, backend="local", images=None, image_roots=[])
    record = start(now, manifest, context)
    if detach:
        return submitted(now, [record], output)
    return stay(now, record, title=f"evertune tune {record.name}", timeout_s=timeout, output=output, announce=True)


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
    direction, wanted = _objective(maximize, minimize)
    if trials is None:
        trials = typer.prompt("How many trials", default=TRIALS, value_proc=_count, err=True) if asking else TRIALS
    manifest = quick_experiment(
        name=name,
        command=command,
        parameters=_parameters(params),
        direction=direction,
        metric=wanted,
        goal=goal,
        trials=trials,
        parallel=parallel,
        failures=max_failed,
        algorithm=algorithm,
        settings=_settings(setting or []),
        image=image,
        namespace=namespace,
        seed=seed,
        further=_further(objective, constraint, where, initial, warm_start, replicates),
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


# ------------------------------------------------------------------------------------------------------ parts


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


def _objective(maximize: str | None, minimize: str | None) -> tuple[str, str]:
    if maximize and not minimize:
        return "maximize", maximize
    if minimize and not maximize:
        return "minimize", minimize
    if maximize and minimize:
        raise UsageError("--maximize and --minimize exclude each other", hint="record the other one with --metric")
    raise UsageError("what to optimize is missing", hint="add --maximize METRIC or --minimize METRIC")


def _parameters(texts: Sequence[str]) -> list[dict[str, Any]]:
    from evertune.spec import parse_dimension

    if not texts:
        raise UsageError("there is nothing to search", hint="add --param 'lr=loguniform(1e-5,1e-1)'")
    return [parse_dimension(text) for text in texts]


def _further(
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


def _settings(texts: Sequence[str]) -> dict[str, str]:
    settings = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f'--setting is "{text}": write NAME=VALUE')
        settings[key] = value
    return settings


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
