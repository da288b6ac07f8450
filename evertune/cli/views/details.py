"""`evertune get NAME` and `evertune best NAME`: one experiment, and its best trial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from evertune.cli.output.marks import Marks
from evertune.cli.output.numbers import (
    Decimals,
    age,
    interval,
    objective_text,
    parameter_text,
    plural,
    utc,
)
from evertune.cli.output.table import Column, table
from evertune.cli.output.text import Line, clean, labelled, wrapped, wrapped_line
from evertune.cli.views.sentences import (
    addressed,
    comparable,
    experiment_sentence,
    further_words,
    goal_words,
    group_failures,
    infeasible_words,
    may_fail_words,
    missed_words,
    numbers_words,
    objectives_words,
    over_defaults,
    paused_words,
    rules_words,
    spread_words,
    stopping_words,
)
from evertune.cli.views.trials import waiting_lines
from evertune.cli.views.unavailable import mending_command, missed_sentence, unavailable_groups
from evertune.domain.records import CHOSEN, AuditRecord, ExperimentRecord, TrialRecord
from evertune.domain.states import ExperimentState, TrialState
from evertune.errors import Problem

PARAMETER_COLUMNS = 3


def details(
    record: ExperimentRecord,
    *,
    now: datetime,
    marks: Marks,
    audit: Sequence[AuditRecord] = (),
    you: str = "",
    failed: Sequence[TrialRecord] = (),
    waiting: Mapping[int, str] | None = None,
    trouble: str = "",
    width: int | None = None,
    wide: bool = False,
) -> list[Line]:
    """`trouble`: what is missing of the stack that should move it. `waiting`: for what, by a running trial's number."""
    rows: list[tuple[str, Line | str]] = [
        ("Name", [(record.name, "bold"), (f"   ({record.namespace})", "dim")]),
        ("State", _state(record, now, marks)),
    ]
    if why := _why(record, audit, now, you):
        rows.append(("Why", why))
    if trouble:
        rows.append(("But", f"nothing moves: {trouble}; next: evertune up"))
    rows.append(("Best", _best(record, now, marks)))
    if missed := record.best and missed_words(record.objective, record.best):
        rows.append(("Missed", missed))
    rows += _objectives(record)
    rows.append(("Trials", _trials(record, marks)))
    rows += [("Waiting", line) for line in waiting_lines(waiting or {})]
    rows.append(("Search", _search(record)))
    if rules := rules_words(record):
        rows.append(("Rules", "; ".join(rules)))
    if rule := stopping_words(record):
        rows.append(("Early stop", rule))
    rows += [("Warning", [(clean(f"{warning.path}: {_sentence(warning)}"), "warning")]) for warning in record.warnings]
    rows += _places(record)
    if wide:
        times = (("Created", record.created), ("Started", record.started), ("Ended", record.ended))
        rows += [(label, utc(at) or marks.dash) for label, at in times]
        rows.append(("Uid", record.uid))
    indent = max(len(label) for label, _ in rows) + 2
    lines = [part for line in labelled(rows) for part in wrapped_line(line, width, indent=indent)]
    if record.best is not None:
        lines += [[], [("Best parameters", "bold")], *_parameters(record, record.best, width, marks)]
    if failed:
        lines += [[], [("Attention", "bold")]]
        lines += _attention(record, failed, marks, width)
    return lines


def _sentence(warning: Problem) -> str:
    return f"{warning.message}; {warning.hint}" if warning.hint else warning.message


def _attention(
    record: ExperimentRecord, failed: Sequence[TrialRecord], marks: Marks, width: int | None
) -> Iterator[Line]:
    """What trials died of, and what they missed; below each the command that helps."""
    died = [trial for trial in failed if trial.state is not TrialState.METRICS_UNAVAILABLE]
    told = [
        (
            TrialState.FAILED,
            f"{numbers_words(numbers)}: {sentence}",
            numbers,
            f"evertune logs {addressed(record)} --trial {numbers[-1]}",
        )
        for sentence, numbers in group_failures(died)
    ]
    told += [
        (
            TrialState.METRICS_UNAVAILABLE,
            missed_sentence(missed, numbers),
            numbers,
            mending_command(record, missed, numbers)[0],
        )
        for missed, numbers in unavailable_groups(failed)
    ]
    for state, sentence, _, command in sorted(told, key=lambda entry: -len(entry[2]))[:5]:
        text, *more = wrapped(sentence, None if width is None else width - 4)
        yield [("  ", ""), marks.shape(state), (f" {text}", "")]
        yield from ([(f"    {line}", "")] for line in more)
        yield [(f"    {command}", "dim")]


def _state(record: ExperimentRecord, now: datetime, marks: Marks) -> Line:
    state = marks.state(record.state)
    if record.state.terminal and record.ended:
        ran = interval((record.ended - (record.started or record.created)).total_seconds())
        return [*state, (f" after {ran}, {age((now - record.ended).total_seconds())} ago", "")]
    if record.started is None:
        return [*state, (f" for {age((now - record.created).total_seconds())}", "")]
    return [*state, (f" for {age((now - record.started).total_seconds())}", "")]


def _why(record: ExperimentRecord, audit: Sequence[AuditRecord], now: datetime, you: str) -> str:
    counts, budget = record.counts, record.budget
    match record.state:
        case ExperimentState.RUNNING:
            words = f"{counts.running} of {budget.parallel} slots busy"
            if counts.finished and record.started:
                pace = (now - record.started).total_seconds() / counts.finished
                words += f", a trial ends every {interval(pace)}"
            return words
        case ExperimentState.PAUSED:
            return paused_words(record, audit, now, you)
        case ExperimentState.STOPPING:
            return f"{plural(counts.running, 'trial')} finishing"
        case ExperimentState.CREATED:
            return "a worker has not started it yet"
    return experiment_sentence(record)


def _best(record: ExperimentRecord, now: datetime, marks: Marks) -> Line | str:
    best = record.best
    if best is None:
        return marks.dash
    decimals = Decimals([best.objective_value])
    value = clean(objective_text(best.objective_value, best.objective, decimals, marks.dash))
    when = f", {age((now - best.ended).total_seconds())} ago" if best.ended else ""
    others = [spread_words(best, record.objective.metric), further_words(record.objective, best)]
    words = [f"{''.join(f' {text}' for text in others if text)} at trial {best.number}{when}"]
    if not best.feasible:
        return [
            ("no feasible trial yet; the nearest: ", "warning"),
            (f"{record.objective.metric} {value}{words[0]}", ""),
        ]
    words += [text for text in (goal_words(record.objective, comparable(best), decimals),) if text]
    words += [text for text in (over_defaults(record),) if text]
    return [(f"{record.objective.metric} ", ""), (value, "bold"), ("; ".join(words), "")]


def _objectives(record: ExperimentRecord) -> list[tuple[str, Line | str]]:
    """What is wanted, where that is more than one objective; and of which of them `Best` speaks."""
    objective = record.objective
    if not objective.further:
        return [("Wanted", objectives_words(objective))] if objective.constraints else []
    front = f"evertune best {addressed(record)} shows the Pareto front"
    return [("Wanted", f"{objectives_words(objective)}; best and goal are those of the first, {front}")]


def _trials(record: ExperimentRecord, marks: Marks) -> Line:
    counts, limit = record.counts, record.budget.max_trials
    line: Line = [(f"{counts.finished}{f' of {limit}' if limit is not None else ''}  ", "")]
    for state, count in (
        (TrialState.SUCCEEDED, counts.succeeded),
        (TrialState.EARLY_STOPPED, counts.early_stopped),
        (TrialState.FAILED, counts.failed),
        (TrialState.METRICS_UNAVAILABLE, counts.metrics_unavailable),
        (TrialState.KILLED, counts.killed),
        (TrialState.RUNNING, counts.running),
    ):
        if count:
            line += [("  ", ""), marks.shape(state), (f" {count}", "")]
    may_fail = may_fail_words(counts, record.budget.max_failed)
    return [*line, (f"    {may_fail}", "dim")] if may_fail else line


def _search(record: ExperimentRecord) -> str:
    chosen = record.context.get(CHOSEN)
    parts = [
        f"{record.algorithm} (auto: {chosen['why']})" if chosen else record.algorithm,
        plural(len(record.space), "parameter") if len(record.space) else "architectures",
        f"{record.budget.parallel} parallel",
        f"seed {record.seed}",
    ]
    parts += [f"{name}={value}" for name, value in record.settings.items() if name not in ("random_state", "seed")]
    return clean(", ".join(parts))


def _places(record: ExperimentRecord) -> list[tuple[str, Line | str]]:
    """Where trials run and with what: the environment that was recorded at submission."""
    context = record.context
    rows: list[tuple[str, Line | str]] = []
    if record.backend != "local":
        annotations = (record.manifest.get("metadata") or {}).get("annotations") or {}
        cluster = annotations.get("evertune.io/cluster")
        where = f"{record.backend}, namespace {record.namespace}" + (f", cluster {cluster}" if cluster else "")
        return [("Backend", clean(where)), ("Temporal", record.workflow_id)]
    where = "local processes of this machine"
    if directory := context.get("working_dir"):
        where += f", in {directory}"
    rows.append(("Backend", clean(where)))
    environment: Mapping[str, str] = context.get("environment") or {}
    shown = [f"{name}={environment[name]}" for name in ("VIRTUAL_ENV", "CONDA_PREFIX") if environment.get(name)]
    if path := environment.get("PATH"):
        shown.append(f"PATH={path.split(':')[0]}:…" if ":" in path else f"PATH={path}")
    if shown:
        rows.append(("Environment", clean("  ".join(shown))))
    if roots := context.get("image_roots"):
        rows.append(("Images", clean(", ".join(f"{image} at {root}" for image, root in roots.items()))))
    rows.append(("Temporal", record.workflow_id))
    return rows


def _parameters(record: ExperimentRecord, best: TrialRecord, width: int | None, marks: Marks) -> list[Line]:
    """In as many columns of `name  value` as fit, at most three, read down."""
    entries = list(record.space.typed(best.parameters).items())
    for count in range(min(PARAMETER_COLUMNS, max(1, len(entries) // 2)), 0, -1):
        height = -(-len(entries) // count)
        columns: list[Column] = []
        for start in range(0, len(entries), height):
            names, values = Column(""), Column("   ")
            for name, value in entries[start : start + height]:
                names.add(name)
                values.add(clean(parameter_text(value)))
            for column in (names, values):
                for _ in range(height - len(column.cells)):
                    column.add("")
            columns += [names, values]
        rendered = table(columns, headers=False, indent=2)
        if width is None or count == 1 or all(len("".join(t for t, _ in line)) <= width for line in rendered.lines):
            return rendered.lines
    return []


def best_lines(record: ExperimentRecord, best: TrialRecord, marks: Marks, *, wide: bool = False) -> list[Line]:
    """The best trial with values of five digits; `-o json` and the others have them exactly. `wide`: who and when."""
    value = clean(objective_text(best.objective_value, best.objective, Decimals([best.objective_value]), marks.dash))
    metric = record.objective.metric
    deviation = spread_words(best, metric)
    words = f"{f' {deviation}' if deviation else ''}  trial {best.number}  ({record.objective.strategy(metric)})"
    typed = record.space.typed(best.parameters)
    rows = [(name, clean(parameter_text(entry, digits=5))) for name, entry in typed.items()]
    others = [
        (name, clean(f"{text} {spread_words(best, name)}")) for name, text in best.metrics.items() if name != metric
    ]
    lines: list[Line] = [[(f"{metric} ", ""), (value, "bold"), (words, "dim")]]
    if infeasible := infeasible_words(record) if best == record.best else missed_words(record.objective, best):
        lines = [[(infeasible, "warning")], [], *lines]
    lines += [[], *labelled(rows)] if rows else []
    about = (
        [("name", best.name), ("started", utc(best.started) or marks.dash), ("ended", utc(best.ended) or marks.dash)]
        if wide
        else []
    )
    return [*lines, *(line for block in (others, about) if block for line in ([], *labelled(block)))]
