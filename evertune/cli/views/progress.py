"""`run` and `watch` where there is no terminal: one line per finished trial, nothing redrawn, nothing cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from evertune.cli.follow.snapshot import Ended
from evertune.cli.output.marks import Marks
from evertune.cli.output.numbers import Decimals, interval, objective_text, parameter_text, plural
from evertune.cli.output.text import Line, clean, width_of
from evertune.cli.views.sentences import addressed, further_words, missed_words, trial_sentence
from evertune.cli.views.trials import waiting_lines
from evertune.domain.records import ExperimentRecord
from evertune.domain.states import ExperimentState, TrialState

WIDEST_PADDING = 72
STAYS_S = 2.0  # what a trial waits for is worth a line: every pod waits a moment for its containers


@dataclass
class ProgressLines:
    """Formats the lines of one experiment. Decimals are those of the first value; widths only grow."""

    marks: Marks
    _decimals: Decimals | None = None
    _widest: int = 0
    _finished: int = 0
    _held: str = ""
    _waits: dict[str, datetime] = field(default_factory=dict)  # sentences, since when
    _said: set[str] = field(default_factory=set)

    def submitted(self, record: ExperimentRecord, url: str | None) -> Line:
        limit = record.budget.max_trials
        parts = [record.algorithm]
        parts += [plural(limit, "trial")] if limit is not None else []
        parts += [f"{record.budget.parallel} parallel", *([url] if url else [])]
        return [(f"{record.name} submitted: {', '.join(parts)}", "")]

    def held(self, record: ExperimentRecord, *troubles: str) -> list[Line]:
        """What holds it up and what moves it, once, and once that it goes on: a log must not fall silent unexplained.

        `troubles`: of the database, of the stack; the first that is there counts.
        """
        why = next(filter(None, troubles), "")
        moves = "evertune up" if why else ""
        if not why and record.state is ExperimentState.PAUSED:
            why, moves = "it is paused", f"evertune resume {addressed(record)}"
        if why == self._held or record.state.terminal:
            return []
        self._held = why
        words = f"{why}; next: {moves}" if why else "it goes on"
        return [[(f"{record.name}: {words}", "warning" if why else "")]]

    def waiting(self, phases: Mapping[int, str], at: datetime) -> list[Line]:
        """What trials wait for, when it lasts: each sentence once, with the trials of which it is true by then."""
        here = set(phases.values())
        self._waits = {sentence: self._waits.get(sentence, at) for sentence in here}
        self._said &= here
        lasting = {one for one, since in self._waits.items() if (at - since).total_seconds() >= STAYS_S} - self._said
        self._said |= lasting
        return waiting_lines({number: phase for number, phase in phases.items() if phase in lasting})

    def ended(self, event: Ended, record: ExperimentRecord) -> Line:
        trial, limit = event.trial, record.budget.max_trials
        self._finished += not event.revised
        total = "" if limit is None else f"/{limit}"
        digits = len(str(limit)) if limit is not None else 4
        if self._decimals is None and trial.objective_value:
            self._decimals = Decimals([trial.objective_value])
        decimals = self._decimals or Decimals([])
        head = f"[{self._finished:>{digits}}{total}] "
        middle = f" trial {trial.number:>{digits}}  {self._words(event, record, decimals)}"
        if event.revised:  # it was counted when it ended
            shape, style = self.marks.shape(trial.state)
            words = f" trial {trial.number} revised: {self._words(event, record, decimals)}"
            return [(" " * len(head), ""), (shape, style), (words, "")]
        self._widest = min(max(self._widest, width_of(middle)), WIDEST_PADDING)
        took = ""
        if trial.started is not None and trial.ended is not None:
            took = f"  {interval((trial.ended - trial.started).total_seconds()):>5}"
        shape, style = self.marks.shape(trial.state)
        gap = " " * max(self._widest - width_of(middle), 0)
        return [(head, "dim"), (shape, style), (middle + gap + took, "")]

    def _words(self, event: Ended, record: ExperimentRecord, decimals: Decimals) -> str:
        trial = event.trial
        if trial.objective is None:
            return trial_sentence(trial)
        value = objective_text(trial.objective_value, clean(trial.objective), decimals, self.marks.dash)
        words = "  ".join(filter(None, (f"{record.objective.metric} {value}", further_words(record.objective, trial))))
        if not trial.feasible:
            return f"{words}  infeasible: {missed_words(record.objective, trial)}"
        if event.best is not None:
            best = objective_text(event.best.objective_value, event.best.objective, decimals, self.marks.dash)
            words += f"  best {clean(best)} {'*' if event.new_best else ' '}"
        if trial.state is TrialState.SUCCEEDED:
            typed = record.space.typed(trial.parameters)
            return f"{words}  " + " ".join(f"{name}={clean(parameter_text(value))}" for name, value in typed.items())
        return f"{words}  {trial_sentence(trial)}"
