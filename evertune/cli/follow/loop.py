"""`follow`: watch an experiment to its end, on a live screen or line by line. Ends nothing by itself."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from evertune.cli.follow.control import Control, Health
from evertune.cli.follow.keys import Keys, Terminated, in_foreground
from evertune.cli.follow.snapshot import Follower, Snapshot
from evertune.cli.output.printer import Stream, rich_text
from evertune.cli.views.live import detached_lines, live_lines
from evertune.cli.views.progress import ProgressLines
from evertune.cli.views.sentences import addressed
from evertune.cli.views.trials import phases_of
from evertune.domain.states import ExperimentState
from evertune.errors import UnavailableError

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live

    from evertune.cli.session import Session

FRAME_S = 0.25
CONFIRM_S = 5.0


class Detached(Exception):
    """The person went away; the experiment goes on."""

    def __init__(self, snapshot: Snapshot | None, code: int = 130) -> None:
        super().__init__(code)
        self.snapshot, self.code = snapshot, code


def follow(session: Session, follower: Follower, *, timeout_s: float | None = None, announce: bool = False) -> Snapshot:
    """Return the last snapshot, of an experiment that has ended.

    Raises Detached at Ctrl-C and UnavailableError after `timeout_s`. `announce` says first that it was submitted.
    """
    if not announce and follower.store.experiment_by_uid(follower.uid).state.terminal:
        return follower.poll()  # all of it is history: the summary says what matters
    give_up = None if timeout_s is None else time.monotonic() + timeout_s
    live = session.err.terminal and not session.quiet and in_foreground(sys.stderr.fileno())
    frames = _live_frames if live else _plain_frames
    try:
        for snapshot in frames(session, follower, announce):
            if snapshot.record.state.terminal:
                return snapshot
            if give_up is not None and time.monotonic() >= give_up:
                raise UnavailableError(
                    f"{snapshot.record.name} is still {snapshot.record.state} after {timeout_s:g} s; it goes on",
                    hint=f"evertune watch {addressed(snapshot.record)}",
                )
    except KeyboardInterrupt:
        raise Detached(follower.last) from None
    except Terminated as ended:
        raise Detached(follower.last, 128 + ended.number) from None
    raise AssertionError("frames never end by themselves")


def say_detached(session: Session, detached: Detached) -> int:
    if detached.snapshot is not None:
        session.say(*detached_lines(detached.snapshot))
    return detached.code


def _polled(follower: Follower, last: Snapshot | None) -> Snapshot:
    """A database that is away for a moment is trouble to show, not an end."""
    try:
        return follower.poll()
    except UnavailableError as error:
        if last is None:
            raise
        return dataclasses.replace(last, trouble=error.message)


# ------------------------------------------------------------------------------------------------------- lines


def _plain_frames(session: Session, follower: Follower, announce: bool) -> Iterator[Snapshot]:
    lines = ProgressLines(session.err.marks)
    snapshot: Snapshot | None = None
    health = Health(session)
    health.start()
    try:
        while True:
            snapshot = _polled(follower, snapshot)
            if announce:
                session.say(lines.submitted(snapshot.record, snapshot.url))
                announce = False
            session.say(*(lines.ended(event, snapshot.record) for event in follower.fresh))
            follower.fresh = []
            phases = phases_of([entry.trial for entry in snapshot.running])
            session.say(*lines.waiting(phases, snapshot.at))
            session.say(*lines.held(snapshot.record, snapshot.trouble, health.kind))
            yield snapshot
            time.sleep(FRAME_S)
    finally:
        health.close()


# ------------------------------------------------------------------------------------------------------ screen


def _live_frames(session: Session, follower: Follower, _announce: bool) -> Iterator[Snapshot]:
    health = Health(session)
    health.start()
    first = follower.poll()
    control = Control(session, first.record.namespace, first.record.name)
    asked_to_stop = 0.0
    try:
        with _screen(session.err) as screen, Keys(on_suspend=screen.stop, on_resume=screen.start) as keys:
            snapshot = first
            while True:
                shown = dataclasses.replace(snapshot, trouble=snapshot.trouble or control.message or health.trouble)
                screen.update(_frame(session.err, shown, key_words(snapshot) if keys.usable else []), refresh=True)
                yield snapshot
                for key in keys.wait(FRAME_S).lower():
                    if (verb := _verb_of(key, snapshot)) == "stop" and time.monotonic() - asked_to_stop > CONFIRM_S:
                        asked_to_stop = time.monotonic()
                        control.tell("press s again to stop: running trials finish")
                    elif verb:
                        control.send(verb)
                snapshot = _polled(follower, snapshot)
    finally:
        health.close()


def key_words(snapshot: Snapshot) -> list[str]:
    """Only keys that work now."""
    match snapshot.record.state:
        case ExperimentState.RUNNING | ExperimentState.RESTARTING | ExperimentState.CREATED:
            return ["p pause", "s stop", "Ctrl-C detach"]
        case ExperimentState.PAUSED:
            return ["r resume", "s stop", "Ctrl-C detach"]
    return ["Ctrl-C detach"]


def _verb_of(key: str, snapshot: Snapshot) -> str | None:
    verb = {"p": "pause", "r": "resume", "s": "stop"}.get(key)
    return verb if verb and any(words == f"{key} {verb}" for words in key_words(snapshot)) else None


def _frame(stream: Stream, snapshot: Snapshot, keys: list[str]) -> Group:
    from rich.console import Group

    size = stream.size
    lines = live_lines(snapshot, width=size.columns, height=size.lines, marks=stream.marks, keys=keys)
    return Group(*(rich_text(line, end="\n") for line in lines))


@contextlib.contextmanager
def _screen(stream: Stream) -> Iterator[Live]:
    """Drawn in place, and gone when it ends: the summary takes its place and stays."""
    from rich.live import Live

    live = Live(console=stream.console(), auto_refresh=False, transient=True, vertical_overflow="crop")
    live.start()
    try:
        yield live
    finally:
        live.stop()
