"""The contract for launches: what is claimed, stopped and ended of an attempt in a cluster, and what it waits for."""

from __future__ import annotations

import pytest

from evertune.domain.states import AttemptState, FailureClass
from evertune.domain.trial import AttemptEnd, AttemptRef
from evertune.errors import NotFoundError
from evertune.protocols import LedgerEntry
from evertune.store import Store
from evertune.testing.store.making import LATER, NOW, TEXT, at_once, finish, lose, with_trials

PLACE = {"cluster": None, "namespace": "team-a", "apiVersion": "batch/v1", "kind": "Job", "name": "digits-0123abcd"}
END = AttemptEnd(AttemptState.FAILED, "OOMKilled", TEXT, FailureClass.OUT_OF_MEMORY, 137, 9, NOW, LATER, ("one", TEXT))


def launch(uid: str, number: int = 0, attempt: int = 0) -> AttemptRef:
    return AttemptRef(uid, number, attempt, f"digits-{number:08d}")


class LaunchContract:
    def test_of_what_was_never_claimed_nothing_is_known(self, store: Store) -> None:
        uid = with_trials(store, 1)
        assert store.launch(launch(uid)) == LedgerEntry()
        assert store.launch(launch("0" * 32)) == LedgerEntry()

    def test_only_the_first_claim_is_made_now(self, store: Store) -> None:
        uid = with_trials(store, 1)
        assert store.claim_launch(launch(uid), PLACE) == LedgerEntry(place=PLACE, claimed_now=True)
        known = LedgerEntry(place=PLACE)
        assert store.claim_launch(launch(uid), {**PLACE, "name": "another"}) == known
        assert store.launch(launch(uid)) == known
        assert store.claim_launch(launch(uid, attempt=1), PLACE).claimed_now

    def test_of_many_that_claim_at_once_one_is_the_first(self, store: Store) -> None:
        uid = with_trials(store, 1)
        entries = at_once([lambda: store.claim_launch(launch(uid), PLACE) for _ in range(8)])
        assert sum(entry.claimed_now for entry in entries if isinstance(entry, LedgerEntry)) == 1, entries
        assert all(isinstance(entry, LedgerEntry) and entry.place == PLACE for entry in entries), entries

    def test_the_first_reason_to_stop_stays_and_after_it_nothing_is_claimed(self, store: Store) -> None:
        uid = with_trials(store, 1)
        assert store.stop_launch(launch(uid), TEXT) == LedgerEntry(stop=TEXT)
        assert store.stop_launch(launch(uid), "second") == LedgerEntry(stop=TEXT)
        assert store.claim_launch(launch(uid), PLACE) == LedgerEntry(stop=TEXT)
        assert store.launch(launch(uid)).place is None

    def test_an_end_comes_back_as_it_was_written_and_the_first_stays(self, store: Store) -> None:
        uid = with_trials(store, 1)
        store.claim_launch(launch(uid), PLACE)
        assert store.end_launch(launch(uid), END) == LedgerEntry(place=PLACE, end=END)
        lost = AttemptEnd(AttemptState.LOST, "Lost", failure=FailureClass.INFRASTRUCTURE)
        assert store.end_launch(launch(uid), lost).end == END
        assert store.stop_launch(launch(uid), "too late") == LedgerEntry(place=PLACE, end=END)
        assert store.launch(launch(uid)) == LedgerEntry(place=PLACE, end=END)

    def test_what_ended_before_it_was_claimed_is_never_claimed(self, store: Store) -> None:
        uid = with_trials(store, 1)
        lost = AttemptEnd(AttemptState.LOST, "Lost", failure=FailureClass.INFRASTRUCTURE)
        store.end_launch(launch(uid), lost)
        assert store.claim_launch(launch(uid), PLACE) == LedgerEntry(end=lost)

    def test_a_place_stands_for_its_experiment_and_outlives_it_until_it_is_forgotten(self, store: Store) -> None:
        uid = with_trials(store, 2)
        store.stop_launch(launch(uid, 1), "never claimed")
        assert uid not in dict(store.places())
        for number in (0, 1):
            store.claim_launch(launch(uid, number, 1), PLACE)
        assert [place for owner, place in store.places() if owner == uid] == [PLACE]
        assert uid not in [owner for owner, _, _ in store.leftovers()]
        store.delete_experiment(uid)
        assert uid not in dict(store.places())
        store.delete_experiment(uid)
        assert [place for owner, place, _ in store.leftovers() if owner == uid] == [PLACE]
        store.forget_leftovers([uid])
        assert uid not in [owner for owner, _, _ in store.leftovers()]
        assert store.launch(launch(uid, 0, 1)) == LedgerEntry()
        with pytest.raises(NotFoundError):
            store.claim_launch(launch(uid), PLACE)

    def test_a_phase_is_shown_while_the_attempt_runs(self, store: Store) -> None:
        uid = with_trials(store, 3)
        for number in (0, 1):
            store.open_attempt(uid, number, 0, home_id=None, at=NOW)
        assert store.attempts(uid, 0)[0].phase == ""
        store.set_phase(uid, 0, 0, f"Pending: {TEXT}")
        store.set_phase(uid, 2, 0, "there is no such attempt")
        assert store.attempts(uid, 0)[0].phase == f"Pending: {TEXT}"
        assert store.phases(uid) == {0: f"Pending: {TEXT}"}
        assert [trial.reason for trial in store.trials(uid)] == [f"Pending: {TEXT}", "", ""]
        store.set_phase(uid, 0, 0, "")
        assert store.phases(uid) == {}
        assert store.trial(uid, 0).reason == ""

    def test_a_phase_ends_with_the_attempt(self, store: Store) -> None:
        uid = with_trials(store, 2)
        for number in (0, 1):
            store.open_attempt(uid, number, 0, home_id=None, at=NOW)
            store.set_phase(uid, number, 0, "Pending")
        finish(store, uid, 0, 0.5)
        lose(store, uid, 1, 0)
        for number in (0, 1):
            store.set_phase(uid, number, 0, "Pending: too late")
            assert store.attempts(uid, number)[0].phase == ""
        assert store.phases(uid) == {}
        assert [trial.reason for trial in store.trials(uid)] == ["Completed", "HostLost"]
