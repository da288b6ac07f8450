"""Experiments whose trials all printed something else than their objective, ended and judged as a worker does it."""

from __future__ import annotations

from pathlib import Path

import evertune.spec as spec
from activities.ending import record_end
from activities.launch import LaunchPlans
from activities.runners.local import LocalRunner
from evertune.domain.records import ExperimentRecord
from evertune.domain.states import AttemptState, ExperimentState, FailureClass
from evertune.domain.trial import Assignment, AttemptEnd
from evertune.settings import Settings
from evertune.store import Store
from evertune.testing.store.making import LATER, NOW, create, suggest

SHORT = """\
name: missed
command: echo {x}
parameters: {x: "uniform(0, 1)"}
objective: maximize val_accuracy
budget: {trials: 400, parallel: 2, failures: 3}
algorithm: random
seed: 3
"""


def missed(
    store: Store,
    settings: Settings,
    *logs: str,
    short: str = SHORT,
    state: ExperimentState = ExperimentState.FAILED,
    failed: tuple[int, ...] = (),
) -> ExperimentRecord:
    """A trial for each log, or text of its metrics file. Those in `failed` ended with exit code 1."""
    (document,) = spec.parse_documents(short, "missed.yaml")
    experiment = spec.check(document, None).experiment
    assert experiment is not None
    uid = create(
        store,
        namespace="default",
        name=experiment.name,
        workflow_id=f"experiment/default/{experiment.name}",
        manifest=experiment.manifest(),
        space=spec.to_space(experiment),
        objective=spec.to_objective(experiment),
        budget=spec.to_budget(experiment),
        home_id=settings.home_id,
    ).uid
    store.set_state(uid, ExperimentState.RUNNING, key="start", at=NOW)
    suggest(store, uid, 1, [Assignment({"x": 0.5}) for _ in logs])
    plans, runner = LaunchPlans(store), LocalRunner(settings.trials_dir)
    for number, text in enumerate(logs):
        store.open_attempt(uid, number, 0, home_id=settings.home_id, at=NOW)
        plan = plans.of(uid, number, 0)
        sources = runner.sources(plan.launch, plan.wanted.path)
        sources.log.parent.mkdir(parents=True)
        sources.log.touch()
        file = sources.path or sources.log
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        collector = plan.collector(sources)
        end = AttemptEnd(AttemptState.SUCCEEDED, "Succeeded", exit_code=0, ended=LATER)
        if number in failed:
            end = AttemptEnd(AttemptState.FAILED, "exit 1", "boom", FailureClass.PROGRAM, 1, ended=LATER)
        points = collector.finish()
        record_end(
            store,
            plan.launch.ref,
            plan.objective,
            end,
            points=points,
            findings=collector.findings,
            warnings=collector.warnings,
        )
    runner.close()
    if state is not ExperimentState.RUNNING:
        store.set_state(uid, state, reason="ExperimentFailed", key="end", at=LATER)
    return store.experiment_by_uid(uid)


def log_of(settings: Settings, record: ExperimentRecord, number: int) -> Path:
    return settings.trials_dir / record.uid / str(number) / "0" / "log"
