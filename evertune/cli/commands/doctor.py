"""`doctor`: is everything that evertune needs there, on this machine and in its cluster? Exit 1 if not.

It changes nothing. With --probe it starts a pod in the cluster, and deletes it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evertune.cli import options
from evertune.cli.output.numbers import plural
from evertune.cli.session import Session, session
from evertune.cli.views.checks import BROKEN, GOOD, WARNING, Check, lines, shown
from evertune.errors import EvertuneError, UnavailableError, UsageError
from evertune.settings import Settings

if TYPE_CHECKING:
    from evertune.cli.clusters import Wish
    from evertune.stack import ServiceStatus, StackStatus

LOW_SPACE = 1 << 30
STARTING_S = 15.0  # for the server, which `up` does not wait for


def doctor_(
    file: Annotated[
        Path | None,
        typer.Option("-f", "--file", metavar="FILE", help="Check for this experiment.", show_default=False),
    ] = None,
    namespace: options.Namespace = None,
    backend: options.Backend = None,
    context: options.Context = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Start a small pod that tries to reach the gateway, and delete it.")
    ] = False,
) -> int:
    """Check this installation: interpreter, home, Temporal, database, worker, trials, and the cluster if there is one.

    A cluster is asked when a kubeconfig is there; what is wrong with it counts as a problem when it is wanted: by
    --backend, --context, --probe, EVERTUNE_BACKEND or the experiment. Exit code 0 when nothing is broken, else 1.
    """
    now = session()
    wish = _wish(now, file, namespace, backend, context)
    checks = list(_checks(now, local=wish is None or wish.backend != "kubernetes"))
    if wish is not None:
        checks += _guarded("Cluster", lambda: _cluster(now, wish, asked=context is not None or probe, probe=probe))
    now.out.lines(lines(now, checks))
    problems = sum(check.state == BROKEN for check in checks)
    warnings = sum(check.state == WARNING for check in checks)
    counts = f"{plural(problems, 'problem')}, {plural(warnings, 'warning')}."
    now.say("", counts if problems or warnings else "Everything is in order.")
    options_given = {"-f": file, "-n": namespace, "--backend": backend, "--context": context}
    words = [word for option, value in options_given.items() if value for word in (option, str(value))]
    again = shlex.join(["evertune", "doctor", *words, *(["--probe"] if probe else [])])
    run = ["evertune", "run", str(file or "examples/digits.yaml"), *(words[2:] if file else [])]
    now.say("Next: " + (f"mend these, then {again}" if problems else shlex.join(run)))
    return 1 if problems else 0


def _wish(
    now: Session, file: Path | None, namespace: str | None, backend: str | None, context: str | None
) -> Wish | None:
    """None when the settings are unusable. A bad file or option ends the command, as everywhere."""
    if backend not in (None, "local", "kubernetes"):
        raise UsageError(f'--backend is "{backend}": it must be local or kubernetes')
    try:
        _ = now.settings
    except EvertuneError:
        return None
    from evertune.cli import clusters

    return clusters.wish_of(now, file, namespace=namespace, backend=backend, context=context)


def _cluster(now: Session, wish: Wish, *, asked: bool, probe: bool) -> list[Check]:
    from evertune.cli import clusters

    wanted = wish.backend == "kubernetes" or asked
    if not (wanted or clusters.known(now)):
        return []
    return [shown(finding, wanted=wanted) for finding in clusters.findings(now, wish, probe=probe)]


def _checks(now: Session, *, local: bool) -> Iterator[Check]:
    """`local`: trials are processes here, so that this machine must have what they need."""
    yield _python()
    try:
        settings = now.settings
    except EvertuneError as error:
        yield Check("Settings", error.message, BROKEN, error.hint)
        return
    yield from _guarded("Settings", lambda: [_settings(now)])
    yield from _guarded("Home", lambda: [_home(settings)])
    yield from _guarded("Temporal", lambda: _temporal(settings))
    yield from _guarded("Database", lambda: [_database(now)])
    yield from _guarded("Algorithms", lambda: [_algorithms()])
    if local:
        yield from _guarded("Trials", lambda: [_trials()])
        yield _gpu()


def _guarded(what: str, check: Callable[[], list[Check]]) -> list[Check]:
    """One broken part must not hide the others."""
    try:
        return check()
    except EvertuneError as error:
        return [Check(what, error.message, BROKEN, error.hint)]
    except Exception as error:
        return [Check(what, f"the check itself failed: {type(error).__name__}: {error}", BROKEN)]


def _python() -> Check:
    from evertune import __version__

    version = ".".join(str(part) for part in sys.version_info[:3])
    return Check("Python", f"{version}, evertune {__version__}")


def _settings(now: Session) -> Check:
    """Which variables are in force: a forgotten one explains much."""
    names = sorted(
        name
        for name in now.environ
        if (name == "KUBECONFIG" or name.startswith(("EVERTUNE_", "TEMPORAL_"))) and now.environ[name].strip()
    )
    return Check("Settings", ", ".join(names) if names else "defaults")


def _home(settings: Settings) -> Check:
    home = settings.home
    existing = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    words = f"{_short(home)}, {_size(free)} free"
    if existing != home:
        usable = os.access(existing, os.W_OK)
        state = GOOD if usable else BROKEN
        return Check("Home", f"{words}; made at first use", state, None if usable else f"{existing} is not writable")
    settings.prepare_home()
    if free < LOW_SPACE:
        return Check("Home", words, WARNING, "little space is left: free some, or move EVERTUNE_HOME")
    return Check("Home", words)


def _temporal(settings: Settings) -> list[Check]:
    from evertune import stack
    from evertune.stack import temporal

    status = _started(settings)
    address = status.temporal_address
    kind = "embedded" if status.embedded else "configured"
    if status.problem:
        return [Check("Temporal", status.problem, BROKEN, "evertune up")]
    if address is None:
        return [
            Check("Temporal", f"not running; the embedded server is {_short(Path(temporal.binary()))}"),
            Check("Worker", "not running; run and up start both"),
        ]
    began = time.perf_counter()
    if not stack.status(settings).reachable:
        mend = "evertune up" if status.embedded else "correct TEMPORAL_ADDRESS, or start that server"
        return [Check("Temporal", f"{address}, {kind}: nothing accepts connections there", BROKEN, mend)]
    if not status.embedded:
        _require_temporal(address, settings)
    took = (time.perf_counter() - began) * 1000
    checks = [Check("Temporal", f"{address}, {kind}, namespace {settings.temporal_namespace}, {took:.0f} ms")]
    worker = next((service for service in status.services if service.name == "worker"), None)
    if worker is None or worker.pid is None:
        why = f"; it ended with {worker.last_exit}" if worker and worker.last_exit else ""
        checks.append(Check("Worker", f"not running{why}", BROKEN, "evertune up"))
    elif not worker.ready:
        checks.append(Check("Worker", f"process {worker.pid} does not poll yet", WARNING, f"its log: {worker.log}"))
    else:
        checks.append(Check("Worker", f"process {worker.pid} polls"))
    server = next((service for service in status.services if service.name == "server"), None)
    if server is not None:
        checks.append(_server(server, status.server_url or ""))
    return checks


def _started(settings: Settings) -> StackStatus:
    """Of `up` a moment ago the server may still be starting: that is no finding yet."""
    from evertune import stack

    deadline = time.monotonic() + STARTING_S
    while True:
        status = stack.status(settings)
        if not _server_starts(status) or time.monotonic() > deadline:
            return status
        time.sleep(0.1)


def _server_starts(status: StackStatus) -> bool:
    """It does not listen yet, or its parent has not come to starting it, which has the worker poll first."""
    services = {one.name: one for one in status.services}
    server = services.get("server")
    if server is None or server.ready or status.problem:
        return False
    return server.pid is not None or (services["parent"].pid is not None and not server.last_exit)


def _server(server: ServiceStatus, url: str) -> Check:
    if server.pid is None:
        why = f"; it ended with {server.last_exit}" if server.last_exit else ""
        return Check("Server", f"not running{why}", WARNING, f"reports over the network wait; its log: {server.log}")
    if not server.ready:
        return Check("Server", f"process {server.pid} does not listen yet", WARNING, f"its log: {server.log}")
    return Check("Server", f"{url}, process {server.pid}")


def _require_temporal(address: str, settings: Settings) -> None:
    """A port that is open may be anybody's, and a Temporal may lack our namespace. Raises UnavailableError."""
    import asyncio

    from evertune.connection import connect_temporal, require_namespace

    async def ask() -> None:
        await require_namespace(await connect_temporal(address, settings.temporal_namespace, tls=settings.temporal_tls))

    try:
        asyncio.run(ask())
    except UnavailableError as error:
        known = error.hint if error.hint != "evertune doctor" else None
        hint = known or "correct TEMPORAL_ADDRESS, or start that server"
        raise UnavailableError(error.message, hint=hint) from error


def _database(now: Session) -> Check:
    url = now.settings.shown_database_url
    if not now.has_database:
        return Check("Database", f"{url}; made at first use")
    with now.store() as store:
        records = store.list_experiments(None)
    trials = sum(record.counts.created for record in records)
    return Check(
        "Database", f"{url}, schema up to date, {plural(len(records), 'experiment')}, {plural(trials, 'trial')}"
    )


def _algorithms() -> Check:
    from evertune.app import activate

    activate()
    from algorithms.registry import get, names

    broken = []
    for name in names():
        try:
            get(name)
        except EvertuneError as error:
            broken.append(error.message)
    if broken:
        return Check("Algorithms", "; ".join(broken), BROKEN, "install evertune's dependencies again")
    return Check("Algorithms", ", ".join(names()))


def _trials() -> Check:
    """The few programs that local trials need."""
    from evertune.app import activate

    activate()
    from activities.runners.local.spawn import Tools

    Tools.find()
    return Check("Trials", f"local processes, {plural(os.cpu_count() or 1, 'processor')}")


def _gpu() -> Check:
    devices = sorted(Path("/dev").glob("nvidia[0-9]*"))
    if devices:
        return Check("GPU", plural(len(devices), "device"))
    return Check("GPU", "none found; trials that ask for nvidia.com/gpu run without one", WARNING)


def _short(path: Path) -> str:
    home = Path(os.environ.get("HOME", "/nonexistent"))
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) and path != home else str(path)


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
