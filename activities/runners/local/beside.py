"""The user's own collector, kind Custom: a process beside the trial's. Called by `runner`, which supervises both.

It is started with the trial, shares its report file, its stop file and its copies of shared paths, and reads what it
likes; the container's command and image follow the rules of `command`. It should end by itself once EVERTUNE_EXIT_FILE
exists, which says that the trial has ended. After `PATIENCE_S` it is sent SIGTERM, then SIGKILL; when the trial was
stopped, at once. How it ends never decides how the trial ends: a failure is a warning.

Where it cannot run on this machine (its image has no directory here, say), that is a warning as well, and the worker
reads the file of `fileSystemPath` by its own rules instead.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from activities.runners.local.attempt import Attempt
from activities.runners.local.command import Command, prepare_collector
from activities.runners.local.paths import rewrite_container
from evertune.domain.states import AttemptState
from evertune.domain.trial import AttemptEnd
from evertune.errors import LaunchError
from evertune.protocols import Launch

PATIENCE_S = 30.0  # Kubernetes' own time for a sidecar after the main container
GRACE_S = 5.0
OVERTIME = "CollectorOvertime"


def command(launch: Launch, attempt: Attempt, inherited: Mapping[str, str]) -> Command | LaunchError | None:
    """What to run; None without such a collector, the error when it cannot run here."""
    if launch.custom_collector is None:
        return None
    try:
        container = rewrite_container(launch.custom_collector, launch.shared_paths, attempt.files)
        return prepare_collector(launch, container, inherited, attempt.directory)
    except LaunchError as error:
        return error


def not_run(error: LaunchError) -> str:
    hint = f" ({error.hint})" if error.hint else ""
    return f"the custom collector is not run: {error.message}{hint}"


def patience(attempt: Attempt, end: AttemptEnd, patience_s: float) -> float:
    """Seconds that the collector still has, counted from the trial's end; none when that was stopped or lost."""
    if end.state in (AttemptState.KILLED, AttemptState.LOST) or end.ended is None:
        return 0.0
    return max(0.0, patience_s - max(0.0, time.time() - end.ended.timestamp()))


def warnings(of: AttemptEnd, trial: AttemptEnd, patience_s: float) -> list[str]:
    """What to say about the collector's end: nothing when it did its work, or had to go with its trial."""
    if of.state is AttemptState.SUCCEEDED or trial.state in (AttemptState.KILLED, AttemptState.LOST):
        return []
    if of.state is AttemptState.KILLED and of.reason != OVERTIME:
        return [f"the custom collector was stopped: {of.reason}"]
    if of.state is AttemptState.KILLED:
        return [
            f"the custom collector still ran {patience_s:g} s after the trial had ended and was stopped; "
            "it should end once $EVERTUNE_EXIT_FILE exists"
        ]
    if of.state is AttemptState.LOST:
        return [f"the custom collector was lost: {of.message}"]
    return [f"the custom collector failed: {of.reason}"]
