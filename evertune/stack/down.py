"""`down`: no process of this home's stack is left, whatever state it was found in.

Called by the CLI. Trials are the worker's business: it finds `settings.down_file` when it is told to end. What a dead
worker could not stop is the hook's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from evertune.errors import EnvironmentProblem, UnavailableError
from evertune.settings import Settings, home_problem
from evertune.stack import files
from evertune.stack.shutdown import Stopped, stop_services, without_parent
from evertune.stack.state import StackState, command_lock, parent_lock

LOCK_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DownReport:
    """What `down` did. `trials` is "unknown" when the worker was dead and there was no hook to stop them."""

    stopped: tuple[str, ...] = ()  # of parent, worker, server, temporal: those that were running
    killed: tuple[str, ...] = ()  # of these, those that ended only by SIGKILL
    trials: Literal["stopped", "kept", "unknown"] = "kept"

    @property
    def nothing_was_running(self) -> bool:
        return not self.stopped


def down(
    settings: Settings,
    *,
    keep_trials: bool = False,
    stop_trials: Callable[[], object] | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> DownReport:
    """Stop the stack of this home: parent, worker, server, Temporal. A no-op when nothing runs.

    `stop_trials` is called at the end unless `keep_trials`: it stops local trials that the worker did not, because it
    was dead or an earlier `down` kept them. A `down` that is killed half-way can be repeated.
    """
    say = on_progress or (lambda _: None)
    report, parent, asked, answered = Stopped(), None, False, False
    try:
        if parent_lock(settings).exists():
            with files.lock(command_lock(settings), wait_s=LOCK_S) as held:
                if not held:
                    raise UnavailableError(
                        f"another command has been starting or stopping the stack for {LOCK_S:.0f} s"
                    )
                if not keep_trials:
                    with contextlib.suppress(OSError):  # a full disk: the hook does it
                        settings.down_file.touch()
                        asked = True
                with without_parent(settings) as parent:
                    state = StackState.load(settings.state_file)
                    if state is not None:
                        report = stop_services(settings, state, on_progress=say)
                answered = asked and not settings.down_file.exists()
                for file in (settings.worker_ready_file, settings.state_file, settings.down_file):
                    with contextlib.suppress(OSError):  # a read-only home: they name processes that have ended
                        file.unlink(missing_ok=True)
    except OSError as error:
        raise home_problem(settings.home, error) from error
    if report.left:
        raise EnvironmentProblem(f"{' and '.join(report.left)} cannot be ended, not even by SIGKILL")
    trials: Literal["stopped", "kept", "unknown"] = "kept"
    if not keep_trials:
        trials = "stopped" if answered or stop_trials else "unknown"
        if stop_trials is not None and not answered:
            stop_trials()
    stopped = (*(("parent",) if parent else ()), *report.stopped)
    return DownReport(stopped=stopped, killed=tuple(report.killed), trials=trials)
