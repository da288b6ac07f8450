"""A runner in memory whose attempts have a real collector beside them, as a pod has: `python -m collectors`.

For tests of what must hold when the collector, the gateway or the way between them dies. It passes the contract of
`runners`. The attempt prints into its "pod", where only the collector reads; the worker gets that with `fetch`, unless
the runner `leaves` nothing. A collector that is killed is started again, as a kubelet does.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from evertune.app import child_environment, module_command
from evertune.domain.metrics import CollectorSpec
from evertune.domain.trial import AttemptRef
from evertune.protocols import Launch
from evertune.testing.fake_runner import FakeRunner
from evertune.testing.scripts import Script

RESTART_S = 0.2


def _everything(_: AttemptRef) -> bool:
    return True


class SidecarRunner(FakeRunner):
    """`spec`: what the collectors look for. `leaves`: whether there is a log to fetch when this attempt has ended."""

    def __init__(
        self,
        root: Path,
        script_of: Callable[[Launch], Script],
        spec: CollectorSpec,
        *,
        leaves: Callable[[AttemptRef], bool] = _everything,
    ) -> None:
        super().__init__(root, script_of)
        self._spec = json.dumps(dataclasses.asdict(spec))
        self._leaves = leaves
        self._beside: dict[str, asyncio.Task[None]] = {}
        self._collectors: dict[str, asyncio.subprocess.Process] = {}
        self.starts: dict[str, int] = {}  # of collectors, by ref.key

    def pod(self, ref: AttemptRef) -> Path:
        return self._root / "pods" / ref.experiment_uid / str(ref.number) / str(ref.attempt)

    def output(self, ref: AttemptRef) -> Path:
        return self.pod(ref) / "log"

    async def create(self, launch: Launch) -> None:
        before = self.executions.get(launch.ref.key, 0)
        await super().create(launch)
        if self.executions.get(launch.ref.key, 0) > before:
            self._beside[launch.ref.key] = asyncio.create_task(self._collect(launch))

    def sidecar(self, launch: Launch) -> bool:
        return True

    async def fetch(self, ref: AttemptRef) -> None:
        log, output = self.log_path(ref), self.output(ref)
        if self._leaves(ref) and output.exists() and not log.exists():
            log.parent.mkdir(parents=True, exist_ok=True)
            draft = log.with_suffix(".new")
            shutil.copyfile(output, draft)
            draft.rename(log)

    async def remove(self, ref: AttemptRef) -> None:
        await super().remove(ref)
        if (collector := self._collectors.get(ref.key)) is not None:
            with suppress(ProcessLookupError):
                collector.terminate()
        if (beside := self._beside.get(ref.key)) is not None:
            await asyncio.wait([beside])
        shutil.rmtree(self.pod(ref), ignore_errors=True)

    def kill_collector(self, ref: AttemptRef) -> bool:
        """SIGKILL; False when none runs at this moment."""
        collector = self._collectors.get(ref.key)
        if collector is None or collector.returncode is not None:
            return False
        collector.kill()
        return True

    async def collected(self, ref: AttemptRef) -> None:
        """The attempt's collector has ended by itself: it has said all, or has given up."""
        await asyncio.shield(self._beside[ref.key])

    async def close(self) -> None:
        """End the collectors, however far they are."""
        for beside in self._beside.values():
            beside.cancel()
        await asyncio.gather(*self._beside.values(), return_exceptions=True)

    async def _collect(self, launch: Launch) -> None:
        """Keep a collector beside the attempt until one ends by itself."""
        pod = self.pod(launch.ref)
        ending = asyncio.create_task(self._note_end(launch.ref))
        told = {
            "EVERTUNE_COLLECTOR": self._spec,
            "EVERTUNE_INGEST_URL": launch.ingest_url or "",
            "EVERTUNE_TOKEN": launch.token or "",
            "EVERTUNE_TRIAL": launch.ref.trial_name,
            "EVERTUNE_LOG_FILE": str(pod / "log"),
            "EVERTUNE_REPORT_FILE": str(pod / "reports"),
            "EVERTUNE_NOTES_DIR": str(pod / "notes"),
            "EVERTUNE_STOP_FILE": str(pod / "stop"),
            "EVERTUNE_EXIT_FILE": str(pod / "exit"),
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("EVERTUNE_")}
        environment = child_environment({**inherited, **told})
        try:
            while await self._one(launch.ref, environment) != 0:  # noqa: ASYNC110 - a pause, not a poll
                await asyncio.sleep(RESTART_S)
        finally:
            ending.cancel()

    async def _one(self, ref: AttemptRef, environment: dict[str, str]) -> int:
        with (self.pod(ref) / "said").open("ab") as said:
            collector = await asyncio.create_subprocess_exec(
                *module_command("collectors"), env=environment, stderr=said, stdout=said
            )
        self._collectors[ref.key] = collector
        self.starts[ref.key] = self.starts.get(ref.key, 0) + 1
        try:
            return await collector.wait()
        finally:
            if collector.returncode is None:
                collector.kill()
                await collector.wait()

    async def _note_end(self, ref: AttemptRef) -> None:
        """What a pod's wrapper does: the exit status is the last that it writes."""
        await self.wait(ref)
        (self.pod(ref) / "exit").write_text("ended\n")
