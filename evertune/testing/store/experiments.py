"""The contract for experiments: claims, states, audit, lists, deletion."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from evertune.domain.metrics import Objective, ObjectiveType, Point, Strategy
from evertune.domain.records import Budget, Counts, ExperimentRecord
from evertune.domain.states import ExperimentState
from evertune.domain.trial import Assignment
from evertune.errors import ConflictError, NameTakenError, NotFoundError
from evertune.store import Store
from evertune.testing.store.making import (
    LATER,
    NOW,
    TEXT,
    at_once,
    create,
    finish,
    new_experiment,
    suggest,
    with_trials,
)


class ExperimentContract:
    def test_an_experiment_comes_back_as_it_was_claimed(self, store: Store) -> None:
        new = new_experiment()
        record = store.claim_experiment(new)
        for name in ("uid", "namespace", "name", "workflow_id", "first_run_id", "algorithm", "settings", "seed"):
            assert getattr(record, name) == getattr(new, name), name
        for name in ("objective", "space", "budget", "backend", "home_id", "manifest", "context", "created"):
            assert getattr(record, name) == getattr(new, name), name
        assert record.state is ExperimentState.CREATED
        assert (record.started, record.ended, record.best, record.counts) == (None, None, None, Counts())
        assert store.experiment(new.namespace, new.name) == record
        assert store.experiment_by_uid(new.uid) == record

    def test_a_claim_repeated_by_the_same_run_returns_the_same_row(self, store: Store) -> None:
        new = new_experiment()
        first = store.claim_experiment(new)
        assert store.claim_experiment(replace(new, uid=uuid4().hex)) == first
        assert len(store.list_experiments(new.namespace)) == 1

    def test_a_second_claim_of_the_same_name_is_refused_and_names_the_holder(self, store: Store) -> None:
        new = new_experiment()
        store.claim_experiment(new)
        other_run = replace(new, uid=uuid4().hex, first_run_id="another")
        other_workflow = replace(new, uid=uuid4().hex, workflow_id="another")
        for other in (other_run, other_workflow):
            with pytest.raises(NameTakenError) as refusal:
                store.claim_experiment(other)
            assert new.workflow_id in refusal.value.message
            assert "Created" in refusal.value.message
            assert refusal.value.hint

    def test_names_differ_by_case_accents_and_trailing_space(self, store: Store) -> None:
        namespace = f"ns-{uuid4().hex[:12]}"
        names = ("resume", "Resume", "résumé", "resume ")
        for name in names:
            create(store, namespace=namespace, name=name)
        assert [record.name for record in store.list_experiments(namespace)] == list(names)
        assert store.experiment(namespace, "Resume").name == "Resume"

    def test_of_many_claims_of_one_name_at_once_exactly_one_wins(self, store: Store) -> None:
        new = new_experiment()
        rivals = [replace(new, uid=uuid4().hex, first_run_id=f"run-{index}") for index in range(8)]
        results = at_once([lambda rival=rival: store.claim_experiment(rival) for rival in rivals])  # type: ignore[misc]
        won = [result for result in results if isinstance(result, ExperimentRecord)]
        assert len(won) == 1
        assert sum(isinstance(result, NameTakenError) for result in results) == 7
        assert [record.uid for record in store.list_experiments(new.namespace)] == [won[0].uid]

    def test_the_same_claim_many_times_at_once_gives_one_row_to_all(self, store: Store) -> None:
        new = new_experiment()
        same = [replace(new, uid=uuid4().hex) for _ in range(8)]
        results = at_once([lambda claim=claim: store.claim_experiment(claim) for claim in same])  # type: ignore[misc]
        assert len({result.uid for result in results if isinstance(result, ExperimentRecord)}) == 1
        assert all(isinstance(result, ExperimentRecord) for result in results), results

    def test_an_unknown_experiment_is_not_found_with_a_hint(self, store: Store) -> None:
        new = new_experiment()
        store.claim_experiment(new)
        with pytest.raises(NotFoundError) as typo:
            store.experiment(new.namespace, "digit")
        assert "did you mean 'digits'?" in (typo.value.hint or "")
        create(store, name=f"only-{new.uid}")
        with pytest.raises(NotFoundError) as elsewhere:
            store.experiment(new.namespace, f"only-{new.uid}")
        assert "-n ns-" in (elsewhere.value.hint or "")
        for call in (store.experiment_by_uid, store.counts, store.best, store.audit, store.requests, store.trials):
            with pytest.raises(NotFoundError):
                call(uuid4().hex)

    def test_the_list_has_counts_and_best_of_each(self, store: Store) -> None:
        namespace = f"ns-{uuid4().hex[:12]}"
        uids = [with_trials(store, 3, namespace=namespace, name=f"e{index}") for index in range(3)]
        finish(store, uids[1], 0, 0.5)
        finish(store, uids[1], 2, 0.75)
        store.open_attempt(uids[2], 1, 0, home_id=None, at=NOW)
        listed = store.list_experiments(namespace)
        assert [record.uid for record in listed] == uids
        assert listed == [store.experiment_by_uid(uid) for uid in uids]
        assert listed[0].counts == Counts(created=3, pending=3)
        assert listed[1].counts == Counts(created=3, pending=1, succeeded=2)
        assert listed[2].counts == Counts(created=3, pending=2, running=1)
        assert listed[1].best == store.trial(uids[1], 2)
        assert listed[0].best is None
        assert {record.uid for record in store.list_experiments()} >= set(uids)

    def test_unfinished_lists_what_has_no_terminal_state(self, store: Store) -> None:
        uids = {state: create(store).uid for state in ExperimentState}
        for state, uid in uids.items():
            store.set_state(uid, state, key="k", at=NOW)
        mine = {record.uid for record in store.unfinished()} & set(uids.values())
        assert mine == {uid for state, uid in uids.items() if not state.terminal}

    def test_states_set_started_once_and_ended_until_reopened(self, store: Store) -> None:
        uid = create(store).uid
        store.set_state(uid, ExperimentState.RUNNING, reason="Started", message=TEXT, key="1", at=NOW)
        store.set_state(uid, ExperimentState.PAUSED, key="2", at=LATER)
        store.set_state(uid, ExperimentState.RUNNING, key="3", at=LATER)
        record = store.experiment_by_uid(uid)
        assert (record.state, record.started, record.ended) == (ExperimentState.RUNNING, NOW, None)
        store.set_state(uid, ExperimentState.SUCCEEDED, reason="GoalReached", message=TEXT, key="4", at=LATER)
        record = store.experiment_by_uid(uid)
        assert (record.reason, record.message, record.ended) == ("GoalReached", TEXT, LATER)
        store.reopen(uid, reason="Extended", key="5", at=LATER, first_run_id="run-2")
        record = store.experiment_by_uid(uid)
        assert (record.state, record.started, record.ended) == (ExperimentState.RESTARTING, NOW, None)
        assert record.first_run_id == "run-2"

    def test_a_state_change_with_a_known_key_changes_nothing(self, store: Store) -> None:
        uid = create(store).uid
        change: dict[str, Any] = {"actor": "ada", "action": "pause", "detail": {"now": True, "note": TEXT}, "at": NOW}
        store.set_state(uid, ExperimentState.PAUSED, reason="Asked", key="u-1", **change)
        store.set_state(uid, ExperimentState.RUNNING, key="u-2", at=LATER)
        before = store.experiment_by_uid(uid)
        store.set_state(uid, ExperimentState.PAUSED, reason="Asked", key="u-1", **change)
        store.set_state(uid, ExperimentState.FAILED, key="u-2", budget=Budget(parallel=9), goal=1.0, at=LATER)
        assert store.experiment_by_uid(uid) == before
        (row,) = store.audit(uid)
        assert (row.at, row.actor, row.action, row.detail) == (NOW, "ada", "pause", {"now": True, "note": TEXT})

    def test_one_key_many_times_at_once_leaves_one_audit_row(self, store: Store) -> None:
        uid = create(store).uid
        results = at_once(
            [lambda: store.set_state(uid, ExperimentState.RUNNING, key="k", action="resume", at=NOW) for _ in range(8)]
        )
        assert results == [None] * 8
        assert len(store.audit(uid)) == 1

    def test_an_edit_changes_budget_and_goal_and_keeps_the_rest(self, store: Store) -> None:
        uid = create(store).uid
        budget = Budget(parallel=7, max_trials=None, max_failed=0)
        store.set_state(uid, ExperimentState.RUNNING, budget=budget, goal=0.1 + 0.2, key="k", at=NOW)
        store.set_state(uid, ExperimentState.RUNNING, key="k2", at=NOW)
        record = store.experiment_by_uid(uid)
        assert record.budget == budget
        assert record.objective == Objective(
            ObjectiveType.MAXIMIZE, "accuracy", 0.1 + 0.2, ("loss",), {"loss": Strategy.LATEST}
        )

    def test_only_a_finished_experiment_is_reopened_and_its_counts_go_on(self, store: Store) -> None:
        uid = with_trials(store, 2)
        finish(store, uid, 0, 0.5)
        with pytest.raises(ConflictError, match="Created"):
            store.reopen(uid, key="r", at=NOW)
        finish(store, uid, 1, 0.25)
        store.set_state(uid, ExperimentState.SUCCEEDED, key="end", at=NOW)
        store.reopen(uid, budget=Budget(parallel=1, max_trials=9), key="r", action="extend", actor="ada", at=LATER)
        store.reopen(uid, budget=Budget(parallel=5), key="r", action="extend", actor="ada", at=LATER)
        assert store.experiment_by_uid(uid).budget == Budget(parallel=1, max_trials=9)
        assert [trial.number for trial in suggest(store, uid, 1, [Assignment({"layers": 5})])] == [2]
        assert finish(store, uid, 2, 0.75)[1] == 3
        assert store.counts(uid) == Counts(created=3, succeeded=3)
        best = store.best(uid)
        assert best is not None
        assert best.number == 2

    def test_deleting_removes_everything_and_frees_the_name(self, store: Store) -> None:
        new = new_experiment()
        store.claim_experiment(new)
        kept = with_trials(store, 1, namespace=new.namespace, name="kept")
        finish(store, kept, 0, 1.0)
        suggest(store, new.uid, 0, [Assignment({"layers": 1}), Assignment({"layers": 2})])
        store.open_attempt(new.uid, 0, 0, home_id="home-1", at=NOW)
        store.add_points(new.uid, 0, 0, [Point("loss", "1", 1)])
        store.set_state(new.uid, ExperimentState.RUNNING, key="k", action="start", at=NOW)
        store.delete_experiment(new.uid)
        store.delete_experiment(new.uid)
        with pytest.raises(NotFoundError):
            store.trial(new.uid, 0)
        assert not [uid for uid, _ in store.running_attempts() if uid == new.uid]
        assert [record.uid for record in store.list_experiments(new.namespace)] == [kept]
        assert store.best(kept) is not None
        again = store.claim_experiment(replace(new, uid=uuid4().hex, first_run_id="another"))
        assert again.counts == Counts()
        assert (store.audit(again.uid), store.trials(again.uid), store.requests(again.uid)) == ([], [], [])
