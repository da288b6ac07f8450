"""The contract of `protocols.TrialRunner` as a test suite.

A runner's author subclasses `RunnerContract`, says how to make a runner, how to make the same one anew (as a worker
does that was restarted), and how its backend runs a `Script`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar

import pytest

from evertune.domain.states import AttemptState, FailureClass
from evertune.domain.trial import AttemptEnd, AttemptRef
from evertune.errors import ConflictError, LaunchError
from evertune.protocols import Launch, TrialRunner
from evertune.testing.scripts import FOR_EVER, Script, attempt_ref

SOON_S = 60.0  # a busy machine may take its time


class RunnerContract:
    """Subclass it as `Test…`, implement the four methods, and pytest (with asyncio_mode=auto) runs the rest."""

    clock_s: ClassVar[float] = 0.0  # how coarse the times of an end are

    def make_runner(self, directory: Path) -> TrialRunner:
        """A runner of its own; `directory` is empty."""
        raise NotImplementedError

    def reborn(self, runner: TrialRunner, directory: Path) -> TrialRunner:
        """The same runner as a restarted worker makes it. `runner` is not used again."""
        raise NotImplementedError

    def launch(self, ref: AttemptRef, script: Script, directory: Path) -> Launch:
        """A launch that does what the script says, and counts its executions."""
        raise NotImplementedError

    def executions(self, runner: TrialRunner, ref: AttemptRef, directory: Path) -> int:
        raise NotImplementedError

    def output(self, runner: TrialRunner, ref: AttemptRef) -> Path:
        """Where a running attempt prints to, where that is not yet where the worker reads."""
        return runner.log_path(ref)

    async def dispose(self, runner: TrialRunner) -> None:
        """Release what the runner holds; its attempts have ended."""

    @pytest.fixture
    async def runner(self, tmp_path: Path) -> AsyncIterator[TrialRunner]:
        runner = self.make_runner(tmp_path)
        yield runner
        await self.dispose(runner)

    async def test_exit_zero_is_success_and_the_log_holds_what_was_printed(
        self, runner: TrialRunner, tmp_path: Path
    ) -> None:
        ref = attempt_ref()
        end = await self.run(runner, ref, Script(lines=("accuracy=0.5", "accuracy=0.75")), tmp_path)
        assert (end.state, end.failure, end.exit_code) == (AttemptState.SUCCEEDED, None, 0)
        assert await self.printed_by(runner, ref) == "accuracy=0.5\naccuracy=0.75\n"

    async def test_what_it_has_printed_can_be_read_while_it_runs(self, runner: TrialRunner, tmp_path: Path) -> None:
        ref = attempt_ref()
        script = Script(lines=("one", "two"), pause_s=0.05, duration_s=FOR_EVER)
        await runner.create(self.launch(ref, script, tmp_path))
        await self.printed(runner, ref, "one\ntwo\n")
        await runner.stop(ref, reason="over")

    async def test_an_end_says_when_it_started_and_ended(self, runner: TrialRunner, tmp_path: Path) -> None:
        end = await self.run(runner, attempt_ref(), Script(duration_s=0.1 + self.clock_s), tmp_path)
        assert end.started is not None
        assert end.ended is not None
        assert 0.05 < (end.ended - end.started).total_seconds() < SOON_S

    async def test_another_exit_is_the_programs_failure_with_its_last_line(
        self, runner: TrialRunner, tmp_path: Path
    ) -> None:
        end = await self.run(runner, attempt_ref(), Script(lines=("no such data",), exit_code=3), tmp_path)
        assert (end.state, end.failure, end.exit_code) == (AttemptState.FAILED, FailureClass.PROGRAM, 3)
        assert "no such data" in end.reason

    async def test_a_signal_from_elsewhere_has_its_own_class(self, runner: TrialRunner, tmp_path: Path) -> None:
        end = await self.run(runner, attempt_ref(), Script(signal=9), tmp_path)
        assert (end.state, end.failure, end.signal) == (AttemptState.FAILED, FailureClass.SIGNAL, 9)

    async def test_what_cannot_start_is_a_launch_error_and_is_not_executed(
        self, runner: TrialRunner, tmp_path: Path
    ) -> None:
        ref = attempt_ref()
        with pytest.raises(LaunchError):
            await runner.create(self.launch(ref, Script(refused="command nowhere does not exist"), tmp_path))
        assert self.executions(runner, ref, tmp_path) == 0

    async def test_creating_twice_executes_once(self, runner: TrialRunner, tmp_path: Path) -> None:
        ref = attempt_ref()
        launch = self.launch(ref, Script(duration_s=0.05), tmp_path)
        await asyncio.gather(*(runner.create(launch) for _ in range(5)))
        await self.ended(runner, ref)
        await runner.create(launch)
        assert (await self.ended(runner, ref)).state is AttemptState.SUCCEEDED
        assert self.executions(runner, ref, tmp_path) == 1

    async def test_another_attempt_of_the_same_trial_is_executed_anew(
        self, runner: TrialRunner, tmp_path: Path
    ) -> None:
        first, second = attempt_ref(), attempt_ref(attempt=1)
        await self.run(runner, first, Script(lines=("one",)), tmp_path)
        await self.run(runner, second, Script(lines=("two",)), tmp_path)
        assert await self.printed_by(runner, first) == "one\n"
        assert await self.printed_by(runner, second) == "two\n"

    async def test_a_restarted_worker_attaches(self, runner: TrialRunner, tmp_path: Path) -> None:
        ref = attempt_ref()
        launch = self.launch(ref, Script(duration_s=0.3, lines=("value=1",)), tmp_path)
        await runner.create(launch)
        again = self.reborn(runner, tmp_path)
        await again.create(launch)
        assert (await self.ended(again, ref)).state is AttemptState.SUCCEEDED
        assert self.executions(again, ref, tmp_path) == 1
        await self.dispose(again)

    async def test_a_cancelled_wait_leaves_the_attempt_alone(self, runner: TrialRunner, tmp_path: Path) -> None:
        ref = attempt_ref()
        await runner.create(self.launch(ref, Script(duration_s=0.3), tmp_path))
        waiting = asyncio.ensure_future(runner.wait(ref))
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert (await self.ended(runner, ref)).state is AttemptState.SUCCEEDED

    async def test_any_number_may_wait_and_all_see_the_same_end(self, runner: TrialRunner, tmp_path: Path) -> None:
        ref = attempt_ref()
        await runner.create(self.launch(ref, Script(duration_s=0.1, exit_code=4), tmp_path))
        ends = await asyncio.wait_for(asyncio.gather(*(runner.wait(ref) for _ in range(5))), SOON_S)
        assert ends == [ends[0]] * 5
        assert await self.ended(runner, ref) == ends[0]

    async def test_a_stop_kills_and_keeps_its_reason(self, runner: TrialRunner, tmp_path: Path) -> None:
        ref = attempt_ref()
        await runner.create(self.launch(ref, Script(duration_s=FOR_EVER), tmp_path))
        await runner.stop(ref, reason="MaxTrialsReached")
        end = await self.ended(runner, ref)
        assert (end.state, end.failure, end.reason) == (
            AttemptState.KILLED,
            FailureClass.STOPPED,
            "MaxTrialsReached",
        )

    async def test_who_ignores_the_first_signal_is_killed_after_the_grace(
        self, runner: TrialRunner, tmp_path: Path
    ) -> None:
        ref = attempt_ref()
        script = Script(duration_s=FOR_EVER, ignores_sigterm=True, lines=("ready",))
        await runner.create(self.launch(ref, script, tmp_path))
        await self.printed(runner, ref, "ready")
        await runner.stop(ref, reason="paused", grace_s=0.2)
        end = await self.ended(runner, ref)
        assert (end.state, end.signal) == (AttemptState.KILLED, 9)

    async def test_stopping_twice_keeps_the_first_reason(self, runner: TrialRunner, tmp_path: Path) -> None:
        ref = attempt_ref()
        await runner.create(self.launch(ref, Script(duration_s=FOR_EVER), tmp_path))
        await runner.stop(ref, reason="first")
        await runner.stop(ref, reason="second")
        assert (await self.ended(runner, ref)).reason == "first"

    async def test_a_stop_after_the_end_changes_nothing(self, runner: TrialRunner, tmp_path: Path) -> None:
        ref = attempt_ref()
        end = await self.run(runner, ref, Script(), tmp_path)
        await runner.stop(ref, reason="too late")
        assert await self.ended(runner, ref) == end

    async def test_stopped_before_it_was_created_it_is_never_executed(
        self, runner: TrialRunner, tmp_path: Path
    ) -> None:
        ref = attempt_ref()
        await runner.stop(ref, reason="cancelled")
        await runner.create(self.launch(ref, Script(), tmp_path))
        end = await self.ended(runner, ref)
        assert (end.state, end.reason) == (AttemptState.KILLED, "cancelled")
        assert self.executions(runner, ref, tmp_path) == 0

    async def test_what_was_reported_lost_is_never_executed_later(self, runner: TrialRunner, tmp_path: Path) -> None:
        ref = attempt_ref()
        end = await self.ended(runner, ref)  # never created, as far as anybody can see
        assert (end.state, end.failure) == (AttemptState.LOST, FailureClass.INFRASTRUCTURE)
        await runner.create(self.launch(ref, Script(), tmp_path))
        assert await self.ended(runner, ref) == end
        assert self.executions(runner, ref, tmp_path) == 0

    async def test_removing_keeps_the_log_and_the_end(self, runner: TrialRunner, tmp_path: Path) -> None:
        ref = attempt_ref()
        launch = self.launch(ref, Script(lines=("value=1",)), tmp_path)
        await runner.create(launch)
        end = await self.ended(runner, ref)
        await runner.fetch(ref)
        await runner.remove(ref)
        await runner.remove(ref)
        assert runner.log_path(ref).read_text() == "value=1\n"
        await runner.create(launch)
        assert await self.ended(runner, ref) == end
        assert self.executions(runner, ref, tmp_path) == 1

    async def test_what_runs_is_not_removed_and_what_never_was_is_no_error(
        self, runner: TrialRunner, tmp_path: Path
    ) -> None:
        await runner.remove(attempt_ref(number=7))
        ref = attempt_ref()
        await runner.create(self.launch(ref, Script(duration_s=FOR_EVER), tmp_path))
        with pytest.raises(ConflictError):
            await runner.remove(ref)
        await runner.stop(ref, reason="over")

    async def test_released_it_is_given_back_and_its_end_and_log_stay(
        self, runner: TrialRunner, tmp_path: Path
    ) -> None:
        ref = attempt_ref()
        launch = self.launch(ref, Script(lines=("value=1",), exit_code=2), tmp_path)
        await runner.create(launch)
        end = await self.ended(runner, ref)
        await runner.fetch(ref)
        await runner.release(ref)
        await runner.release(ref)
        assert runner.log_path(ref).read_text() == "value=1\n"
        assert await self.ended(runner, ref) == end
        again = self.reborn(runner, tmp_path)
        await again.release(ref)
        await again.create(launch)
        assert await self.ended(again, ref) == end
        assert self.executions(again, ref, tmp_path) == 1
        await self.dispose(again)

    async def test_what_runs_waits_for_nothing(self, runner: TrialRunner, tmp_path: Path) -> None:
        ref = attempt_ref()
        assert runner.phase(ref) == ""
        await runner.create(self.launch(ref, Script(lines=("ready",), duration_s=FOR_EVER), tmp_path))
        await self.printed(runner, ref, "ready")
        assert runner.phase(ref) == ""
        await runner.stop(ref, reason="over")
        assert runner.phase(ref) == ""

    async def run(self, runner: TrialRunner, ref: AttemptRef, script: Script, directory: Path) -> AttemptEnd:
        await runner.create(self.launch(ref, script, directory))
        return await self.ended(runner, ref)

    async def ended(self, runner: TrialRunner, ref: AttemptRef) -> AttemptEnd:
        return await asyncio.wait_for(runner.wait(ref), SOON_S)

    async def printed_by(self, runner: TrialRunner, ref: AttemptRef) -> str:
        """All that an ended attempt has printed; fetching it twice is as good as once."""
        await runner.fetch(ref)
        await runner.fetch(ref)
        return runner.log_path(ref).read_text()

    async def printed(self, runner: TrialRunner, ref: AttemptRef, text: str) -> None:
        output = self.output(runner, ref)
        async with asyncio.timeout(SOON_S):
            while not output.exists() or text not in output.read_text():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
