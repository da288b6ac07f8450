"""Following an experiment: what a poll reads of a real database, and the live screen on a real terminal."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from evertune.cli.follow.keys import Keys
from evertune.cli.follow.loop import key_words
from evertune.cli.follow.snapshot import Follower
from evertune.cli.output.marks import Marks
from evertune.cli.output.numbers import Decimals
from evertune.cli.output.text import plain
from evertune.cli.views.live import event_words
from evertune.cli.views.progress import ProgressLines
from evertune.domain.metrics import Point
from evertune.domain.records import ExperimentRecord
from evertune.domain.states import AttemptState, ExperimentState, TrialState
from evertune.domain.trial import Assignment, AttemptEnd, Ending
from evertune.store import Store
from evertune.testing.store.making import LATER, NOW, create, finish, suggest
from tests.cli.build import experiment, snapshot
from tests.cli.test_process import EVERTUNE, environment

# ---------------------------------------------------------------------------------------------------- snapshots


def make(store: Store, trials: int) -> str:
    uid = create(store).uid
    store.set_state(uid, ExperimentState.RUNNING, key="start", at=NOW)
    suggest(store, uid, 1, [Assignment({"layers": number}) for number in range(trials)])
    return uid


def test_each_poll_gives_the_trials_that_ended_since_the_last(store: Store) -> None:
    uid = make(store, 4)
    follower = Follower(store, uid)
    assert follower.poll().record.counts.created == 4
    assert follower.fresh == []
    finish(store, uid, 2, 0.5)
    finish(store, uid, 0, 0.4)
    follower.poll()
    assert [event.trial.number for event in follower.fresh] == [2, 0]
    assert [event.new_best for event in follower.fresh] == [True, False]
    finish(store, uid, 1, 0.9)
    last = follower.poll()
    assert [(event.trial.number, event.new_best, event.before) for event in follower.fresh] == [(1, True, 0.5)]
    assert list(last.curve) == [0.5, 0.5, 0.9]
    follower.poll()
    assert follower.fresh == []


def revise(store: Store, uid: str, number: int, value: float | None) -> None:
    """As `metrics reparse` does, or a report that came late."""
    state = TrialState.METRICS_UNAVAILABLE if value is None else TrialState.SUCCEEDED
    ending = Ending(
        end=AttemptEnd(AttemptState(state.value), str(state), ended=LATER),
        charged=state.counts_as_failed,
        trial_state=state,
        objective=None if value is None else str(value),
        objective_value=value,
    )
    before, after = store.revise(uid, number, 0, lambda _: ending)
    assert before != after


def test_a_revised_trial_is_told_once_more_and_counted_once(store: Store) -> None:
    uid = make(store, 4)
    follower = Follower(store, uid)
    for number, value in enumerate((0.4, 0.9, None)):
        state = TrialState.METRICS_UNAVAILABLE if value is None else TrialState.SUCCEEDED
        finish(store, uid, number, value, state)
    lines = ProgressLines(Marks())
    record = follower.poll().record
    assert len([lines.ended(event, record) for event in follower.fresh]) == 3
    eta = follower.poll(LATER).eta_s

    revise(store, uid, 2, 0.95)
    last = follower.poll(LATER)

    assert [(event.trial.number, event.revised, event.new_best) for event in follower.fresh] == [(2, True, True)]
    line = plain(lines.ended(follower.fresh[0], record))
    assert line.strip().startswith("✔ trial 2 revised: accuracy 0.9500  best 0.9500 *")
    assert "revised: 0.9500  new best, was 0.9000" in plain(
        event_words(last.events[-1], Decimals([0.95]), last.record.objective)
    )
    assert last.eta_s == eta
    finish(store, uid, 3, 0.1)
    follower.poll()
    assert plain(lines.ended(follower.fresh[0], record)).startswith("[ 4/24] ")


def test_the_best_that_gets_worse_is_the_best_no_longer(store: Store) -> None:
    uid = make(store, 3)
    for number, value in enumerate((0.4, 0.9, 0.6)):
        finish(store, uid, number, value)
    follower = Follower(store, uid)
    follower.poll()
    revise(store, uid, 1, 0.5)
    last = follower.poll()
    (event,) = follower.fresh
    assert event.best is not None
    assert (event.revised, event.new_best, event.best.number, event.best.objective_value) == (True, False, 2, 0.6)
    assert last.curve[-1] == 0.6
    assert [event.revised for event in Follower(store, uid).poll().events] == [False, False, False]


def test_somebody_who_comes_late_sees_the_whole_curve_and_the_last_events(store: Store) -> None:
    uid = make(store, 30)
    for number in range(30):
        finish(store, uid, number, float(number))
    last = Follower(store, uid).poll()
    assert list(last.curve) == [float(number) for number in range(30)]
    assert [event.trial.number for event in last.events][-2:] == [28, 29]
    assert len(last.events) < 30


def test_running_trials_show_how_often_they_reported_and_what_last(store: Store) -> None:
    uid = make(store, 3)
    for number in (0, 2):
        store.open_attempt(uid, number, 0, home_id="home-1", at=NOW)
    store.add_points(uid, 2, 0, [Point("accuracy", "0.5", 1), Point("accuracy", "0.75", 9), Point("loss", "1", 10)])
    running = Follower(store, uid).poll().running
    assert [(entry.trial.number, entry.step, entry.value) for entry in running] == [(0, 0, None), (2, 2, "0.75")]


def test_the_estimate_needs_an_end_and_a_budget_and_grows_while_nothing_ends(store: Store) -> None:
    uid = make(store, 8)
    follower = Follower(store, uid)
    assert follower.poll(LATER).eta_s is None
    for number in range(4):
        finish(store, uid, number, 0.5)  # all four at LATER, 300 s after the start
    soon = follower.poll(LATER).eta_s
    assert soon is not None
    assert soon == pytest.approx(20 * 75, rel=0.01)  # 24 trials in all
    late = follower.poll(LATER + timedelta(hours=5)).eta_s
    assert late is not None
    assert late > 2 * soon


def test_nothing_running_is_shown_of_an_experiment_that_has_ended(store: Store) -> None:
    uid = make(store, 1)
    finish(store, uid, 0, 0.5)
    store.set_state(uid, ExperimentState.SUCCEEDED, key="end", at=LATER)
    last = Follower(store, uid).poll()
    assert (list(last.running), last.eta_s) == ([], None)


@pytest.mark.parametrize("state", list(ExperimentState))
def test_only_keys_that_work_are_offered(state: ExperimentState) -> None:
    words = key_words(snapshot(experiment(state)))
    assert words[-1] == "Ctrl-C detach"
    assert ("r resume" in words) == (state is ExperimentState.PAUSED)
    assert ("s stop" in words) == (not state.terminal and state is not ExperimentState.STOPPING)


def test_without_a_terminal_there_are_no_keys_and_waiting_still_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/null").open() as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        with Keys() as keys:
            assert not keys.usable
            began = time.monotonic()
            assert keys.wait(0.05) == ""
            assert time.monotonic() - began >= 0.045


# ---------------------------------------------------------------------------------------------- on a terminal


class Terminal:
    """A process on a terminal of its own, and everything it wrote there."""

    def __init__(self, master: int, slave: int, process: subprocess.Popen[bytes]) -> None:
        self.master, self.slave, self.process, self.written = master, slave, process, ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()  # a read may end in the middle of a character

    def until(self, pattern: str, timeout_s: float = 60) -> str:
        """Read until `pattern` appears in what was written since the last call."""
        start, end = len(self.written), time.monotonic() + timeout_s
        while not re.search(pattern, self.written[start:]):
            assert time.monotonic() < end, f"{pattern!r} not in {self.written[start:][-1500:]!r}"
            self._read(0.1)
        return self.written[start:]

    def _read(self, seconds: float) -> None:
        if select.select([self.master], [], [], seconds)[0]:
            self.written += self._decoder.decode(os.read(self.master, 65536))

    def press(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def cooked(self) -> bool:
        """Echo and line mode are on, as a shell wants them."""
        flags = termios.tcgetattr(self.slave)[3]
        return bool(flags & termios.ECHO) and bool(flags & termios.ICANON)


# A session of its own whose controlling terminal is this one, as a login gives it.
LEADER = "import os, sys, fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"

# The same with a shell's job control: SIGUSR1 has it continue, in the foreground, who was stopped.
SHELL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
child = os.fork()
if child == 0:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.argv[1], sys.argv[1:])
while True:
    _, status = os.waitpid(child, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        os._exit(os.waitstatus_to_exitcode(status))
    os.tcsetpgrp(0, os.getpgrp())
    os.write(1, b"STOPPED")
    signal.sigwait([signal.SIGUSR1])
    os.tcsetpgrp(0, child)
    os.kill(-child, signal.SIGCONT)
"""


@contextmanager
def on_terminal(
    home: Path, *words: str, columns: int = 80, lines: int = 24, launcher: str = LEADER, **changes: str
) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", launcher, *EVERTUNE, *words],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment(home, TERM="xterm-256color", **changes),
        start_new_session=True,
    )
    try:
        yield Terminal(master, slave, process)
    finally:
        process.kill()
        process.wait(60)
        os.close(master)
        os.close(slave)


CURSOR_HIDDEN, CURSOR_SHOWN = "\x1b[?25l", "\x1b[?25h"


def test_the_live_screen_takes_keys_and_gives_the_terminal_back_at_ctrl_c(
    home: Path, running: ExperimentRecord
) -> None:
    with on_terminal(home, "watch", running.name) as terminal:
        screen = terminal.until("Ctrl-C detach")
        assert CURSOR_HIDDEN in screen
        assert "\x1b[34m◐ Running" in screen
        assert "best accuracy" in screen
        assert not terminal.cooked()
        terminal.press(b"p")
        terminal.until("the stack of /")  # is not running: the verb was tried, and the screen says what came of it
        terminal.press(b"s")
        terminal.until("press s again")
        terminal.press(b"\x1b[A")  # an arrow is no key
        terminal.press(b"\x03")
        assert f"Detached. {running.name} goes on" in terminal.until("finish what runs")
        assert terminal.process.wait(60) == 130
        assert terminal.written.rindex(CURSOR_SHOWN) > terminal.written.rindex(CURSOR_HIDDEN)
        assert terminal.cooked()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_screen_and_gives_the_terminal_back(
    home: Path, running: ExperimentRecord, number: signal.Signals, code: int
) -> None:
    with on_terminal(home, "watch", running.name) as terminal:
        terminal.until("Ctrl-C detach")
        terminal.process.send_signal(number)
        assert terminal.process.wait(60) == code
        assert terminal.cooked()


@pytest.mark.slow
def test_ctrl_z_gives_the_terminal_back_until_it_is_continued(home: Path, running: ExperimentRecord) -> None:
    with on_terminal(home, "watch", running.name, launcher=SHELL) as terminal:
        terminal.until("Ctrl-C detach")
        terminal.press(b"\x1a")
        screen = terminal.until("STOPPED")
        assert terminal.cooked()
        assert screen.rindex(CURSOR_SHOWN) > screen.rfind(CURSOR_HIDDEN)
        terminal.process.send_signal(signal.SIGUSR1)
        terminal.until("Ctrl-C detach")
        assert not terminal.cooked()
        terminal.press(b"\x03")
        assert terminal.process.wait(60) == 130
        assert terminal.cooked()


def test_without_colour_the_screen_has_none(home: Path, running: ExperimentRecord) -> None:
    with on_terminal(home, "watch", running.name, NO_COLOR="1") as terminal:
        assert not re.search(r"\x1b\[[0-9;]*m", terminal.until("Ctrl-C detach").replace("\x1b[0m", ""))


@pytest.mark.slow
def test_a_screen_follows_the_size_of_its_terminal(home: Path, running: ExperimentRecord) -> None:
    with on_terminal(home, "watch", running.name, columns=40, lines=12) as terminal:
        frame = terminal.until("Ctrl-C detach")
        assert all(len(line) <= 40 for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", frame).splitlines())
        fcntl.ioctl(terminal.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
        assert "evertune watch slow" in terminal.until(r"━{60}")


def test_init_asks_for_what_no_option_says_and_asks_again_after_a_wrong_range(home: Path, tmp_path: Path) -> None:
    with on_terminal(home, "init", str(tmp_path / "asked.yaml")) as terminal:
        for question, answer in (
            (r"Name \[asked\]", "mnist"),
            ("Command", "python train.py --lr {lr}"),
            ("Range of lr", "loguniform(1e-5"),
            ("lacks a closing bracket", "loguniform(1e-5, 1e-1)"),
            ("Metric", "val_loss"),
            (r"lower better\? \[Y/n\]", ""),
            (r"How many trials \[24\]", "none"),
            ("none is not a whole number", "9"),
        ):
            terminal.until(question)
            terminal.press(answer.encode() + b"\n")
        terminal.until("Wrote")
        assert terminal.process.wait(60) == 0
    text = (tmp_path / "asked.yaml").read_text()
    assert "name: mnist" in text
    assert "maxTrialCount: 9" in text
    assert "type: minimize" in text
