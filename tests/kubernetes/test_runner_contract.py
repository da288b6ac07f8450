"""The Kubernetes runner keeps the contract of every runner, on a cluster in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from activities.runners.kubernetes.runner import KubernetesRunner
from evertune.domain.trial import AttemptRef
from evertune.protocols import Launch, TrialRunner
from evertune.testing.kubernetes import misfortunes
from evertune.testing.runners import RunnerContract
from evertune.testing.scripts import Script
from tests.kubernetes.world import World, a_world, job


class TestKubernetesRunner(RunnerContract):
    clock_s = 1.0  # Kubernetes' times are whole seconds

    @pytest.fixture(autouse=True)
    async def world(self, tmp_path: Path) -> AsyncIterator[World]:
        async with a_world(tmp_path) as world:
            self.at = world
            yield world

    def make_runner(self, directory: Path) -> TrialRunner:
        return self.at.runner()

    def reborn(self, runner: TrialRunner, directory: Path) -> TrialRunner:
        return self.at.runner()

    def launch(self, ref: AttemptRef, script: Script, directory: Path) -> Launch:
        if script.refused is not None:
            self.at.cluster.store.admission.append(misfortunes.denied("jobs", script.refused))
        self.at.fates[ref.key] = script
        return job(ref)

    def executions(self, runner: TrialRunner, ref: AttemptRef, directory: Path) -> int:
        return self.at.made.get(ref.key, 0)

    async def dispose(self, runner: TrialRunner) -> None:
        assert isinstance(runner, KubernetesRunner)
        await runner.close()
