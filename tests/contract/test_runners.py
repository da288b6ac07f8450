"""Every runner keeps the contract of `evertune.testing.runners`: the local one, and the fake that other tests use."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path

from activities.runners.local import LocalRunner
from evertune.domain.metrics import CollectorSpec
from evertune.domain.trial import AttemptRef
from evertune.protocols import Launch, TrialRunner
from evertune.testing.fake_runner import FakeRunner
from evertune.testing.runners import RunnerContract
from evertune.testing.scripts import Script
from evertune.testing.sidecars import SidecarRunner


def job(ref: AttemptRef, command: list[str]) -> Launch:
    container = {"name": "main", "command": command}
    return Launch(
        ref=ref,
        manifest={
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": ref.trial_name, "namespace": "default"},
            "spec": {"template": {"spec": {"containers": [container]}}},
        },
        primary_container="main",
        working_dir="/",
        environment={"PATH": os.environ["PATH"]},
    )


class TestLocalRunner(RunnerContract):
    def make_runner(self, directory: Path) -> TrialRunner:
        return LocalRunner(directory / "trials")

    def reborn(self, runner: TrialRunner, directory: Path) -> TrialRunner:
        assert isinstance(runner, LocalRunner)
        runner.close()
        return LocalRunner(directory / "trials")

    def launch(self, ref: AttemptRef, script: Script, directory: Path) -> Launch:
        if script.refused is not None:
            return job(ref, ["no-such-command-anywhere"])
        steps = [f"echo {ref.key} >>{shlex.quote(str(directory / 'executions'))}"]
        if script.ignores_sigterm:
            steps.append("trap '' TERM")
        for line in script.lines:
            steps += [f"sleep {script.pause_s}"] * bool(script.pause_s) + [f"echo {shlex.quote(line)}"]
        if script.duration_s:
            steps.append(f"sleep {script.duration_s}")
        # `$$` in a manifest's command is one `$`.
        steps.append(f"kill -{script.signal} $$$$" if script.signal else f"exit {script.exit_code}")
        return job(ref, ["sh", "-c", "\n".join(steps)])

    def executions(self, runner: TrialRunner, ref: AttemptRef, directory: Path) -> int:
        counted = directory / "executions"
        return counted.read_text().splitlines().count(ref.key) if counted.exists() else 0

    async def dispose(self, runner: TrialRunner) -> None:
        assert isinstance(runner, LocalRunner)
        runner.close()


class TestLocalRunnerOfReplicas(TestLocalRunner):
    """The same as a TFJob of two: its first worker does what the script says, the second would run for ever."""

    def launch(self, ref: AttemptRef, script: Script, directory: Path) -> Launch:
        of = super().launch(ref, script, directory)
        container = {**of.manifest["spec"]["template"]["spec"]["containers"][0], "name": "tensorflow"}
        command = container["command"]
        if command[:2] == ["sh", "-c"]:
            command = ["sh", "-c", f"case $TF_CONFIG in *'\"index\":1'*) exec sleep 3600;; esac\n{command[2]}"]
        template = {"spec": {"containers": [{**container, "command": command}]}}
        manifest = {
            "apiVersion": "kubeflow.org/v1",
            "kind": "TFJob",
            "metadata": of.manifest["metadata"],
            "spec": {"tfReplicaSpecs": {"Worker": {"replicas": 2, "template": template}}},
        }
        return replace(of, manifest=manifest, primary_container="tensorflow")


class TestFakeRunner(RunnerContract):
    def make_runner(self, directory: Path) -> TrialRunner:
        self.scripts: dict[str, Script] = {}
        return FakeRunner(directory, lambda launch: self.scripts[launch.ref.key])

    def reborn(self, runner: TrialRunner, directory: Path) -> TrialRunner:
        assert isinstance(runner, FakeRunner)
        return runner.reborn()

    def launch(self, ref: AttemptRef, script: Script, directory: Path) -> Launch:
        self.scripts[ref.key] = script
        return job(ref, ["in", "memory"])

    def executions(self, runner: TrialRunner, ref: AttemptRef, directory: Path) -> int:
        assert isinstance(runner, FakeRunner)
        return runner.executions.get(ref.key, 0)


class TestSidecarRunner(TestFakeRunner):
    """As the fake, with collectors that end at once: these launches know of no gateway."""

    def make_runner(self, directory: Path) -> TrialRunner:
        self.scripts: dict[str, Script] = {}
        spec = CollectorSpec(kind="StdOut", metrics=("accuracy",))
        return SidecarRunner(directory, lambda launch: self.scripts[launch.ref.key], spec)

    def output(self, runner: TrialRunner, ref: AttemptRef) -> Path:
        assert isinstance(runner, SidecarRunner)
        return runner.output(ref)

    async def dispose(self, runner: TrialRunner) -> None:
        assert isinstance(runner, SidecarRunner)
        await runner.close()
