"""Runs attempts as processes of this machine that survive the worker. Implements `protocols.TrialRunner`.

`create` takes the attempt's lock and hands it to a supervisor (`supervisor.sh`), which claims the directory and runs
the command; from then on the directory alone says what happened, to this worker or to any later one on this host.
Decides nothing about retries, budgets or metrics.

A distributed job is several such processes in directories below the attempt's, which `group` describes; they are
awaited, and ended once one of them has decided, by whichever worker waits.

A collector of the user's own is started in the same way in a directory of its own below the attempt's (`beside` says
what becomes of it). `wait`, `stop` and `find_orphans` mean both.

A Job's `backoffLimit`, only when the manifest sets it above 0, runs a failing command again within the same attempt, at
once and with the same log; the metrics of all runs count. Kubernetes' default of 6 is not applied: evertune retries
what is worth retrying by itself.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from activities.runners.local import beside, paths
from activities.runners.local.attempt import Attempt
from activities.runners.local.command import Command, prepare
from activities.runners.local.gpus import Gpus, visible_devices
from activities.runners.local.group import AFTER_THE_END, Group, commands, replica_files
from activities.runners.local.live import live_attempts, mark_live, unmark_live
from activities.runners.local.ports import reserved
from activities.runners.local.replicas import Replicas, replicas_of
from activities.runners.local.shape import is_distributed
from activities.runners.local.spawn import Tools, keep_descriptors, spawn, unusable
from activities.runners.local.variables import make_checkpoint_dir
from activities.runners.local.watch import ProcessWatch
from evertune.domain.trial import AttemptEnd, AttemptRef
from evertune.errors import ConflictError, LaunchError
from evertune.protocols import Launch, Sources

SUPERVISOR_WAIT_S = 5.0  # after SIGKILL of the trial, before the supervisor itself counts as stuck
REPLICA_GRACE_S = 30.0  # Kubernetes' own time for a pod that is deleted
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.002, 0.25
CREATOR_WAIT_S = 1.0
T = TypeVar("T")

INHERITED = re.compile(r"HOME|LANG|LC_\w+|TMPDIR|CUDA_\w+|NVIDIA_\w+|LD_LIBRARY_PATH|DYLD_LIBRARY_PATH")


class LocalRunner:
    def __init__(
        self,
        root: Path,
        *,
        environment: Mapping[str, str] | None = None,
        tools: Tools | None = None,
        collector_patience_s: float = beside.PATIENCE_S,
        collector_grace_s: float = beside.GRACE_S,
        replica_grace_s: float = REPLICA_GRACE_S,
    ) -> None:
        """`environment` is the worker's own; a trial inherits the few variables of it that `INHERITED` names.

        A collector of the user's own has `collector_patience_s` after its trial's end to end by itself; then it is sent
        SIGTERM, and `collector_grace_s` later SIGKILL. So are the replicas that are left when a distributed job has
        ended, with `replica_grace_s`.
        """
        self._root = root.absolute()
        worker = os.environ if environment is None else environment
        self._inherited = {name: value for name, value in worker.items() if INHERITED.fullmatch(name)}
        self._inherited["PATH"] = worker.get("PATH", os.defpath)  # until a submitter's is recorded
        self._tools = tools or Tools.find()
        self._collector_patience_s, self._collector_grace_s = collector_patience_s, collector_grace_s
        self._replica_grace_s = replica_grace_s
        self._watch = ProcessWatch()
        self._gpus = Gpus(self._root, visible_devices(worker))
        keep_descriptors()

    # --------------------------------------------------------------------------------------- TrialRunner

    async def create(self, launch: Launch) -> None:
        for pid in await asyncio.to_thread(self._start, launch):
            self._watch.add(pid)

    async def wait(self, ref: AttemptRef) -> AttemptEnd:
        attempt = Attempt.of(self._root, ref)
        end = await self._ended(attempt)
        if (collector := attempt.collector) is not None:
            warning = await self._finish(attempt, collector, end)
            end = replace(end, warnings=(*end.warnings, *warning))
        unmark_live(self._root, ref)
        return end

    async def stop(self, ref: AttemptRef, *, reason: str, grace_s: float = 10.0) -> None:
        """Also for an attempt that was never created: it then never will be executed. Returns when it has ended.

        Called again after a crash it goes on: the grace counts from the first request.
        """
        attempt = Attempt.of(self._root, ref)
        if attempt.settled():
            return
        await self._stop(attempt, reason, grace_s)
        # Its collector as well, also when the trial itself had ended before: whoever stops wants nothing left.
        if (collector := attempt.collector) is not None:
            await self._stop(collector, reason, min(grace_s, self._collector_grace_s))
        await self.wait(ref)

    async def _ended(self, attempt: Attempt) -> AttemptEnd:
        pause = FIRST_PAUSE_S
        while True:
            if (group := Group.of(attempt)) is not None:
                return await self._together(group)
            end = attempt.end()
            if end is not None:
                return end
            if not attempt.locked():
                try:
                    await asyncio.to_thread(attempt.seal)
                except OSError as error:
                    raise unusable(attempt.directory, error) from error
                continue
            supervisor = attempt.supervisor()
            if supervisor is not None and supervisor.alive() and await self._watch.ended(supervisor.pid):
                continue
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)

    async def _together(self, group: Group) -> AttemptEnd:
        """Until a replica has decided, then until the others are gone. Any number of workers may do this at once."""
        waits = {name: asyncio.ensure_future(self._ended(member)) for name, member in group.members.items()}
        try:
            while (verdict := group.verdict()) is None:
                running = [wait for wait in waits.values() if not wait.done()]
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for wait in done:
                    wait.result()
            try:
                verdict = await asyncio.to_thread(group.settle, verdict)
                left = [member for name, member in group.members.items() if not waits[name].done()]
                await asyncio.gather(*(self._stop(member, AFTER_THE_END, self._replica_grace_s) for member in left))
                await asyncio.gather(*waits.values())
                await asyncio.to_thread(group.close, verdict)
            except OSError as error:
                raise unusable(group.attempt.directory, error) from error
            return group.end(verdict)
        finally:
            for wait in waits.values():
                wait.cancel()

    async def _stop(self, attempt: Attempt, reason: str, grace_s: float) -> None:
        """SIGTERM, then SIGKILL: one supervisor's process, or those of all replicas, until it has ended."""
        if attempt.over():
            return
        try:
            requested = await asyncio.to_thread(attempt.request_stop, reason)
        except OSError as error:
            raise unusable(attempt.directory, error) from error
        # Asked after the request: who makes the replicas meanwhile finds that, and starts none of them.
        if members := attempt.replicas:
            await asyncio.gather(*(self._stop(member, reason, grace_s) for member in members.values()))
            return
        kill_at = time.monotonic() + max(0.0, grace_s - max(0.0, time.time() - requested))
        end = asyncio.ensure_future(self._ended(attempt))
        try:
            terminated = False
            while not end.done():
                now = time.monotonic()
                if now >= kill_at:
                    attempt.signal(signal.SIGKILL)
                elif not terminated:
                    terminated = attempt.signal(signal.SIGTERM)
                if now >= kill_at + SUPERVISOR_WAIT_S and (supervisor := attempt.supervisor()) is not None:
                    supervisor.signal(signal.SIGKILL)
                await asyncio.wait({end}, timeout=kill_at - now if terminated and now < kill_at else 0.02)
            await end
        finally:
            end.cancel()

    async def _finish(self, attempt: Attempt, collector: Attempt, end: AttemptEnd) -> list[str]:
        """Give the collector its time after the trial's end, then stop it; what to warn of."""
        left = beside.patience(attempt, end, self._collector_patience_s)
        finishing = asyncio.ensure_future(self._ended(collector))
        try:
            await asyncio.wait({finishing}, timeout=left)
            if not finishing.done():
                await self._stop(collector, beside.OVERTIME, self._collector_grace_s)
            return beside.warnings(await finishing, end, self._collector_patience_s)
        finally:
            finishing.cancel()

    async def remove(self, ref: AttemptRef) -> None:
        attempt = Attempt.of(self._root, ref)
        if not attempt.directory.exists():
            return
        if not attempt.settled():
            raise ConflictError(f"attempt {ref.attempt} of trial {ref.trial_name} still runs", "stop it first")
        await asyncio.to_thread(attempt.remove)

    async def fetch(self, ref: AttemptRef) -> None:
        """Nothing to do: all of it was written here."""

    async def release(self, ref: AttemptRef) -> None:
        """Nothing to do: a directory costs nothing while its experiment is kept."""

    def sidecar(self, launch: Launch) -> bool:
        return False

    def phase(self, ref: AttemptRef) -> str:
        return ""

    def log_path(self, ref: AttemptRef) -> Path:
        return Attempt.of(self._root, ref).log

    def sources(self, launch: Launch, path: str | None) -> Sources:
        attempt = Attempt.of(self._root, launch.ref)
        private = None if path is None else Path(paths.rewrite_text(path, launch.shared_paths, attempt.files))
        collector = attempt.collector
        return Sources(
            log=attempt.log,
            notes=attempt.directory,
            path=private,
            reports=attempt.directory / "reports",
            printed=None if collector is None else collector.log,
        )

    # ------------------------------------------------------------------------------- what only local has

    def directory(self, ref: AttemptRef) -> Path:
        """Where the attempt's own copies of shared paths are: the `directory` of `paths.rewrite`."""
        return Attempt.of(self._root, ref).files

    def find_orphans(self, known: set[str]) -> list[AttemptRef]:
        """Attempts that run on this host under this root and whose key is not `known`; end them with `stop`."""
        return [ref for ref in live_attempts(self._root) if ref.key not in known]

    def close(self) -> None:
        """Stop watching. Attempts go on."""
        self._watch.close()

    # ------------------------------------------------------------------------------------------ starting

    def _start(self, launch: Launch) -> list[int]:
        """Start what was not started before; the pids of the supervisors that are ours now. In a thread."""
        attempt = Attempt.of(self._root, launch.ref)
        collector = beside.command(launch, attempt, self._inherited)
        warnings = (beside.not_run(collector),) if isinstance(collector, LaunchError) else ()
        if is_distributed(launch.manifest):
            pids = self._start_replicas(launch, attempt, warnings, collector is not None and not warnings)
        elif attempt.claimed():
            pids = []
        else:
            manifest = paths.rewrite(launch.manifest, launch.shared_paths, attempt.files)
            command = self._gpus.fitted(prepare(launch, manifest, self._inherited, attempt.directory))
            command = replace(command, warnings=(*warnings, *command.warnings))
            if isinstance(collector, Command):
                self._make_collector(attempt)
            pids = [self._claim(launch, attempt, lambda: self._set_up(launch, attempt, command))]
        below = attempt.collector
        if below is not None and isinstance(collector, Command) and attempt.stop_reason() is None:
            # What the system refuses now is told as a warning at the end: the trial runs already.
            with suppress(LaunchError):
                pids.append(self._claim(launch, below, lambda: collector))
        return [pid for pid in pids if pid is not None]

    def _start_replicas(
        self, launch: Launch, attempt: Attempt, warnings: tuple[str, ...], collected: bool
    ) -> list[int | None]:
        """Make the directories of all replicas, once, and start those of them that nobody has started."""
        if attempt.over():
            return []
        job = replicas_of(launch.manifest, launch.primary_container, launch.primary_pod_labels)
        if not attempt.claimed():
            # With ports that nobody was given yet: what is wrong is to be known before anything is there.
            anywhere = {(replica.role, replica.index): 0 for replica in job.members}
            wanted = {
                name: self._gpus.fitted(command).gpus
                for name, command in commands(launch, attempt, job, anywhere, self._inherited).items()
            }
            if collected:
                self._make_collector(attempt)
            self._alone(attempt, lambda _: self._make_group(launch, attempt, job, wanted))
        group = Group.of(attempt)
        if group is None:  # stopped or lost before
            return []
        if all(member.claimed() for member in group.members.values()):
            return []
        try:
            ready = commands(launch, attempt, job, group.ports, self._inherited, group.devices)
            primary = group.plan["primary"]
            lacking = dict.fromkeys(warning for each in ready.values() for warning in self._gpus.fitted(each).warnings)
            ready[primary] = replace(ready[primary], warnings=(*warnings, *lacking))
            pids = []
            for replica in job.members:
                if attempt.stop_reason() is not None:
                    break  # whoever waits sees that the rest was never started
                set_up = partial(_with_paths, launch, replica_files(attempt, replica), ready[replica.name])
                pids.append(self._claim(launch, group.members[replica.name], set_up))
        except LaunchError:
            self._abandon(group)
            raise
        return pids

    def _make_group(self, launch: Launch, attempt: Attempt, job: Replicas, wanted: Mapping[str, int]) -> None:
        mark_live(self._root, launch.ref)
        devices: dict[str, list[str]] = {}
        if total := sum(wanted.values()):
            given = self._gpus.give(launch.ref, total)
            for name, count in wanted.items():
                devices[name], given = given[:count], given[count:]
        make_checkpoint_dir(attempt.directory, launch.checkpoints)
        with reserved(self._root, len(job.members)) as ports:
            places = [(replica.role, replica.index) for replica in job.members]
            Group.make(attempt, launch, job, dict(zip(places, ports, strict=True)), devices)

    def _abandon(self, group: Group) -> None:
        """One replica cannot be started, so none is to run: they wait for one another."""
        for attempt in (group.attempt, *group.members.values()):
            attempt.request_stop("CannotStart")
        for member in group.members.values():
            member.signal(signal.SIGKILL)

    def _make_collector(self, attempt: Attempt) -> None:
        try:
            attempt.make_collector()
        except OSError as error:
            raise unusable(attempt.directory, error) from error

    def _claim(self, launch: Launch, attempt: Attempt, set_up: Callable[[], Command]) -> int | None:
        """Start a supervisor and return its pid; None when the attempt was started before, or is this very moment."""
        return self._alone(attempt, lambda lock: spawn(self._tools, launch, attempt, set_up(), lock))

    def _alone(self, attempt: Attempt, act: Callable[[int], T]) -> T | None:
        """Do it under the lock of an attempt that nobody has begun; None when somebody has."""
        try:
            attempt.make()
            give_up = time.monotonic() + CREATOR_WAIT_S
            while True:
                with attempt.exclusive() as lock:
                    if attempt.claimed():
                        return None
                    if lock is not None:
                        return act(lock)
                # Somebody starts it this very moment, or only asks whether it lives.
                if time.monotonic() > give_up:
                    return None
                time.sleep(FIRST_PAUSE_S)
        except OSError as error:
            raise unusable(attempt.directory, error) from error

    def _set_up(self, launch: Launch, attempt: Attempt, command: Command) -> Command:
        """What the trial's own process needs, under its lock."""
        mark_live(self._root, launch.ref)
        paths.make_directories(launch.shared_paths, attempt.files)
        make_checkpoint_dir(attempt.directory, launch.checkpoints)
        if not command.gpus:
            return command
        devices = ",".join(self._gpus.give(launch.ref, command.gpus))
        return replace(command, environment={**command.environment, "CUDA_VISIBLE_DEVICES": devices})


def _with_paths(launch: Launch, files: Path, command: Command) -> Command:
    """What a replica's process needs, under its lock."""
    paths.make_directories(launch.shared_paths, files)
    return command
