"""Shapes, bars and sparklines, in Unicode or in ASCII. Shape and word stand beside every colour.

ASCII is used where the locale is not UTF-8 or EVERTUNE_ASCII=1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evertune.cli.output.text import Line, Segment
from evertune.domain.records import Counts
from evertune.domain.states import AttemptState, ExperimentState, TrialState

State = ExperimentState | TrialState | AttemptState | str

# word -> (Unicode, ASCII, style)
_SHAPES: dict[str, tuple[str, str, str]] = {
    "Created": ("○", "o", "dim"),
    "Pending": ("◌", ".", "dim"),
    "Running": ("◐", ">", "running"),
    "Paused": ("‖", "=", "waiting"),
    "Stopping": ("▫", "v", "waiting"),
    "Restarting": ("↻", "~", "running"),
    "Succeeded": ("✔", "+", "succeeded"),
    "Failed": ("✘", "x", "failed"),
    "Cancelled": ("⊘", "/", "dim"),
    "EarlyStopped": ("⇥", "|", "early"),
    "MetricsUnavailable": ("◇", "?", "waiting"),
    "Killed": ("■", "#", "dim"),
    "Lost": ("≠", "!", "waiting"),
}
_BLOCKS, _ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.-^"


@dataclass(frozen=True)
class Marks:
    ascii: bool = False

    def shape(self, state: State) -> Segment:
        unicode, ascii_, style = _SHAPES.get(str(state), ("·", ".", ""))
        return (ascii_ if self.ascii else unicode), style

    def state(self, state: State) -> Line:
        """Shape and word: `✔ Succeeded`."""
        shape, style = self.shape(state)
        return [(f"{shape} {state}", style)]

    def counted(self, counts: Counts, *, running: bool = True) -> list[Line]:
        """Shape and number of each state that trials are in: `✔ 12`."""
        states = (
            (TrialState.SUCCEEDED, counts.succeeded),
            (TrialState.EARLY_STOPPED, counts.early_stopped),
            (TrialState.FAILED, counts.failed),
            (TrialState.METRICS_UNAVAILABLE, counts.metrics_unavailable),
            (TrialState.KILLED, counts.killed),
            (TrialState.RUNNING, counts.running if running else 0),
        )
        return [[self.shape(state), (f" {count}", "")] for state, count in states if count]

    @property
    def ellipsis(self) -> str:
        return "..." if self.ascii else "…"

    @property
    def dash(self) -> str:
        """Stands where there is no value."""
        return "-" if self.ascii else "–"

    @property
    def times(self) -> str:
        return "x" if self.ascii else "×"

    def arrow(self, *, up: bool) -> str:
        if self.ascii:
            return "^" if up else "v"
        return "↑" if up else "↓"

    def spark(self, values: Sequence[float], width: int) -> str:
        """The shape of a series in at most `width` characters; each stands for the last value of its stretch."""
        if not values or width < 1:
            return ""
        count = min(width, len(values))
        picked = [values[(index + 1) * len(values) // count - 1] for index in range(count)]
        low, high = min(picked), max(picked)
        levels = _ASCII_BLOCKS if self.ascii else _BLOCKS
        if high - low <= 0:
            return levels[0] * count
        top = len(levels) - 1
        return "".join(levels[round((value / 2 - low / 2) / (high / 2 - low / 2) * top)] for value in picked)

    def bar(self, part: float, width: int) -> Line:
        """`part` of 1.0 done."""
        filled = min(width, max(0, int(part * width)))
        full, head, rest = ("#", "#", "-") if self.ascii else ("━", "╺", "━")
        if filled >= width:
            return [(full * width, "running")]
        done = full * filled + (head if filled else "")
        return [(done, "running"), (rest * (width - len(done)), "dim")]
