"""`pause`, `resume`, `stop`, `cancel`, `edit` and `extend`: updates of its workflow, validated there and audited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from evertune.cli import options
from evertune.cli.session import Session, session
from evertune.cli.views.sentences import addressed, next_commands, trials_done
from evertune.cli.views.summary import next_lines
from evertune.domain.records import ExperimentRecord
from evertune.errors import ConflictError, UsageError

if TYPE_CHECKING:
    from evertune.client import Client

Reason = Annotated[str, typer.Option("--reason", help="Why; it is kept with the experiment.", show_default=False)]
Parallel = Annotated[
    int | None, typer.Option("--parallel", min=1, max=1000, help="Trials at a time.", show_default=False)
]
MaxTrials = Annotated[int | None, typer.Option("--max-trials", min=1, help="Trials in all.", show_default=False)]
MaxFailed = Annotated[int | None, typer.Option("--max-failed", min=0, help="How many may fail.", show_default=False)]
Goal = Annotated[float | None, typer.Option("--goal", help="Good enough.", show_default=False)]
Force = Annotated[bool, typer.Option("--force", help="Also when its resumePolicy is Never.")]


def pause_(
    name: options.Name,
    namespace: options.Namespace = None,
    at_once: Annotated[
        bool, typer.Option("--now", help="Stop running trials too, uncharged; resume runs them again.")
    ] = False,
) -> None:
    """Start nothing new; running trials finish."""
    _change(name, namespace, "pause", now=at_once)


def resume_(name: options.Name, namespace: options.Namespace = None, force: Force = False) -> None:
    """Go on after a pause; a finished experiment goes on with what is left of its budget."""
    record = session().find(namespace, name)
    if record.state.terminal:
        _reopen(record, "resume", force=force)
    else:
        _change(name, namespace, "resume")


def stop_(name: options.Name, namespace: options.Namespace = None, reason: Reason = "") -> None:
    """Let running trials finish, then end it."""
    _change(name, namespace, "stop", reason=reason)


def cancel_(name: options.Name, namespace: options.Namespace = None, reason: Reason = "") -> None:
    """End it now; running trials are stopped and keep their last value."""
    _change(name, namespace, "cancel", reason=reason)


def edit_(
    name: options.Name,
    namespace: options.Namespace = None,
    parallel: Parallel = None,
    max_trials: MaxTrials = None,
    max_failed: MaxFailed = None,
    goal: Goal = None,
) -> None:
    """Change parallelism, budgets or goal of a running experiment."""
    if parallel is None and max_trials is None and max_failed is None and goal is None:
        raise UsageError("nothing to change", hint="give --parallel, --max-trials, --max-failed or --goal")
    now = session()
    record = now.find(namespace, name)
    if record.state.terminal:
        raise ConflictError(
            f"{record.name} has ended: {record.state}", hint=f"evertune extend {addressed(record)} +{_more(record)}"
        )
    _edit(now, record, parallel, max_trials, max_failed, goal)
    _say(now, record.uid)


def extend_(
    name: options.Name,
    trials: Annotated[
        str | None,
        typer.Argument(metavar="+N|N", help="So many more trials, or so many in all.", show_default=False),
    ] = None,
    namespace: options.Namespace = None,
    parallel: Parallel = None,
    max_failed: MaxFailed = None,
    goal: Goal = None,
    force: Force = False,
) -> None:
    """More trials: of a running experiment, or of one that has ended, which then goes on."""
    now = session()
    record = now.find(namespace, name)
    if trials is None and max_failed is None and goal is None:
        raise UsageError("how many more trials?", hint=f"evertune extend {name} +{_more(record)}")
    total = _total(record, trials)
    if record.state.terminal:
        _reopen(record, "extend", max_trials=total, parallel=parallel, max_failed=max_failed, goal=goal, force=force)
        return
    _edit(now, record, parallel, total, max_failed, goal)
    _say(now, record.uid)


# ------------------------------------------------------------------------------------------------------ parts


def send(now: Session, namespace: str, name: str, verb: str, *, at_once: bool = False, reason: str = "") -> None:
    """One of pause, resume, stop and cancel; returns when the workflow has taken it."""

    async def act(client: Client) -> None:
        handle = await client.handle(namespace, name)
        if verb == "pause":
            await handle.pause(now=at_once, actor=now.actor())
        elif verb == "resume":
            await handle.resume(actor=now.actor())
        elif verb == "stop":
            await handle.stop(reason=reason, actor=now.actor())
        else:
            await handle.cancel(reason=reason, actor=now.actor())

    now.with_client(act)


def _change(name: str, namespace: str | None, verb: str, *, now: bool = False, reason: str = "") -> None:
    current = session()
    record = current.find(namespace, name)
    if record.state.terminal:
        raise ConflictError(
            f"{record.name} has ended: {record.state}", hint=f"evertune extend {addressed(record)} +{_more(record)}"
        )
    send(current, record.namespace, record.name, verb, at_once=now, reason=reason)
    _say(current, record.uid)


def _edit(
    now: Session,
    record: ExperimentRecord,
    parallel: int | None,
    max_trials: int | None,
    max_failed: int | None,
    goal: float | None,
) -> None:
    from evertune.contracts import EditRequest

    request = EditRequest(parallel=parallel, max_trials=max_trials, max_failed=max_failed, goal=goal, actor=now.actor())

    async def act(client: Client) -> None:
        await (await client.handle(record.namespace, record.name)).edit(request)

    now.with_client(act)


def _reopen(
    record: ExperimentRecord,
    command: str,
    *,
    max_trials: int | None = None,
    parallel: int | None = None,
    max_failed: int | None = None,
    goal: float | None = None,
    force: bool = False,
) -> None:
    from evertune import stack
    from evertune.contracts import ReopenCommand

    now = session()
    info = stack.ensure_up(now.settings, on_progress=lambda sentence: now.say([(f"{sentence} …", "dim")]))
    now.temporal_address = info.temporal_address
    request = ReopenCommand.model_validate(
        {
            "uid": record.uid,
            "command": command,
            "parallel": parallel,
            "max_trials": max_trials,
            "max_failed": max_failed,
            "goal": goal,
            "actor": now.actor(),
            "force": force,
        }
    )

    async def act(client: Client) -> None:
        await client.reopen(request)

    now.with_client(act)
    _say(now, record.uid)


def _say(now: Session, uid: str) -> None:
    """The experiment as it is after the change, and what to do next."""
    with now.store() as store:
        record = store.experiment_by_uid(uid)
    budget = record.budget
    failed = f", {budget.max_failed} may fail" if budget.max_failed is not None else ""
    words = f"  {trials_done(record)} trials, {budget.parallel} parallel{failed}"
    now.out.line([(record.name, "bold"), ("  ", ""), *now.out.marks.state(record.state), (words, "")])
    now.say("", *next_lines(next_commands(record)))


def _total(record: ExperimentRecord, trials: str | None) -> int | None:
    """`+24` on top of the budget, `48` in all."""
    if trials is None:
        return None
    text = trials.removeprefix("+")
    if not text.isdigit() or not int(text):
        hint = f"evertune extend {addressed(record)} +{_more(record)}"
        raise UsageError(f'"{trials}" is not a number of trials', hint=hint)
    if not trials.startswith("+"):
        return int(text)
    if record.budget.max_trials is None:
        raise UsageError(
            f"{record.name} has no maxTrialCount to add to", hint=f"evertune extend {addressed(record)} {text}"
        )
    return max(record.budget.max_trials, record.counts.finished) + int(text)


def _more(record: ExperimentRecord) -> int:
    return record.budget.max_trials or 24
