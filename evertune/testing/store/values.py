"""The contract for values: points, long and odd text, times."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest

from evertune.domain.metrics import Point
from evertune.domain.states import AttemptState, FailureClass, TrialState
from evertune.domain.trial import AttemptEnd, Ending
from evertune.errors import NotFoundError
from evertune.protocols import Answer
from evertune.store import Store
from evertune.testing.store.making import LATER, NOW, at_once, create, finish, lose, series_of, with_trials


class ValueContract:
    def test_points_are_stored_once_by_attempt_metric_and_seq(self, store: Store) -> None:
        uid = with_trials(store, 2)
        store.open_attempt(uid, 0, 0, home_id="home-1", at=NOW)
        first = [Point("loss", "1.0", 0, 1.25), Point("accuracy", "0.10", 0, None), Point("loss", "nan", 2**40, 2.5)]
        assert store.add_points(uid, 0, 0, first) == 3
        assert store.add_points(uid, 0, 0, first) == 0
        more = [Point("loss", "changed", 0), Point("loss", "0.5", 7, 0.1 + 0.2), Point("loss", "twice", 7)]
        assert store.add_points(uid, 0, 0, more) == 1
        assert store.add_points(uid, 0, 0, []) == 0
        assert series_of(store, uid, 0, metric="loss") == [first[0], more[1], first[2]]
        assert series_of(store, uid, 0) == [first[1], first[0], more[1], first[2]]
        assert series_of(store, uid, 0, metric="Loss") == []
        assert series_of(store, uid, 1) == []
        with pytest.raises(NotFoundError):
            store.add_points(uid, 0, 1, first)
        lose(store, uid, 0, 0)
        store.open_attempt(uid, 0, 1, home_id="home-1", at=NOW)
        assert store.add_points(uid, 0, 1, first[:1]) == 1
        assert series_of(store, uid, 0, attempt=1) == first[:1]
        assert len(series_of(store, uid, 0, metric="loss")) == 4

    def test_one_series_written_by_many_at_once_is_stored_once(self, store: Store) -> None:
        uid = with_trials(store, 1)
        store.open_attempt(uid, 0, 0, home_id="home-1", at=NOW)
        series = [Point("loss", str(seq), seq) for seq in range(200)]
        results = at_once([lambda: store.add_points(uid, 0, 0, series) for _ in range(6)])
        assert sorted(result for result in results if isinstance(result, int)) == [0] * 5 + [200], results
        assert series_of(store, uid, 0) == series

    def test_points_that_come_with_or_after_the_end_are_kept(self, store: Store) -> None:
        uid = with_trials(store, 1)
        finish(store, uid, 0, 0.5)
        assert store.add_points(uid, 0, 0, [Point("loss", "1", 1)]) == 1
        ending = Ending(
            end=AttemptEnd(AttemptState.SUCCEEDED, "Completed", ended=LATER), trial_state=TrialState.SUCCEEDED
        )
        store.end_attempt(uid, 0, 0, lambda _: ending, points=[Point("loss", "1", 1), Point("loss", "2", 2)])
        assert [point.seq for point in series_of(store, uid, 0)] == [1, 2]

    def test_long_text_and_odd_characters_survive(self, store: Store) -> None:
        uid = with_trials(store, 1)
        store.open_attempt(uid, 0, 0, home_id="home-1", at=NOW)
        tail = "🦊漢" * 30_000  # 210 kB
        end = AttemptEnd(AttemptState.FAILED, "Exit1", f"{tail}\0\udcff|", FailureClass.PROGRAM, 1, ended=LATER)
        ending = Ending(end=end, charged=True, trial_state=TrialState.FAILED, metrics={"genotype": tail})
        store.end_attempt(uid, 0, 0, lambda _: ending, points=[Point("genotype", "G" * 100_000, 1)])
        trial = store.trial(uid, 0)
        assert trial.message.startswith(tail)
        assert trial.message.endswith("|")
        assert "\0" not in trial.message
        json.dumps(trial.message, ensure_ascii=False).encode()
        assert trial.metrics == {"genotype": tail}
        assert series_of(store, uid, 0)[0].value == "G" * 100_000
        big = {"weights": [1 / number for number in range(3, 20_000)]}
        store.open_request(uid, 1, 1, 1)
        store.commit_answer(uid, 1, Answer(state=big), NOW)
        assert store.algorithm_state(uid, 2) == big

    def test_times_keep_their_moment_and_come_back_in_utc(self, store: Store) -> None:
        east = datetime(2026, 3, 29, 2, 30, 0, 999999, tzinfo=timezone(timedelta(hours=5, minutes=45)))
        record = create(store, created=east)
        assert record.created == east
        assert record.created.utcoffset() == timedelta(0)
        assert record.created.microsecond == 999999
        with pytest.raises(Exception, match="zone"):
            create(store, created=datetime(2026, 1, 1))

    def test_the_database_has_an_id_of_its_own(self, store: Store) -> None:
        assert len(store.database_id) == 32
        assert set(store.database_id) <= set("0123456789abcdef")
