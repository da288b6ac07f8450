"""The contract for reports: many at once, summed up as they come, read back whole or in outline; revised verdicts."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping

import pytest

from evertune.domain.metrics import (
    Further,
    MetricSummary,
    Objective,
    ObjectiveType,
    Point,
    Report,
    of_origin,
    place,
    summarize,
)
from evertune.domain.records import Taken
from evertune.domain.states import AttemptState, FailureClass, TrialState
from evertune.domain.trial import AttemptEnd, Ending
from evertune.errors import ConflictError
from evertune.store import Store
from evertune.testing.store.making import LATER, NOW, at_once, finish, lose, series_of, suggest, with_trials


def judged(summaries: Mapping[str, MetricSummary]) -> Ending:
    """As `activities.ending` judges: an attempt without the objective `accuracy` is MetricsUnavailable."""
    found = summaries.get("accuracy")
    if found is None or found.max is None:
        end = AttemptEnd(AttemptState.METRICS_UNAVAILABLE, "MetricsUnavailable", "", FailureClass.METRICS, ended=LATER)
        return Ending(end=end, charged=True, trial_state=TrialState.METRICS_UNAVAILABLE)
    return Ending(
        end=AttemptEnd(AttemptState.SUCCEEDED, "Succeeded", ended=LATER),
        trial_state=TrialState.SUCCEEDED,
        objective=found.max,
        objective_value=float(found.max),
        metrics={"accuracy": found.max},
    )


def running(store: Store, how_many: int) -> str:
    uid = with_trials(store, how_many)
    for number in range(how_many):
        store.open_attempt(uid, number, 0, home_id="home-1", at=NOW)
    return uid


class ReportContract:
    def test_each_pod_of_an_attempt_has_places_of_its_own_after_those_before(self, store: Store) -> None:
        uid = running(store, 1)
        first = Report(uid, 0, 0, [Point("accuracy", "0.5", 3), Point("accuracy", "0.6", 9)], origin="b")
        second = Report(uid, 0, 0, [Point("accuracy", "0.1", 3)], origin="a")
        for _ in range(2):
            assert [taken.new for taken in store.add_reports([first, second])] in ([3, 3], [0, 0])
        assert [store.origin(uid, 0, 0, origin) for origin in ("a", "b", "c", "b")] == [1, 0, 2, 0]
        assert [point.value for point in series_of(store, uid, 0)] == ["0.5", "0.6", "0.1"]
        assert series_of(store, uid, 0)[-1].seq == of_origin(3, 1)

    def test_the_last_word_of_one_pod_is_not_that_of_the_next(self, store: Store) -> None:
        uid = running(store, 1)

        def collected() -> bool:
            return store.attempts(uid, 0)[0].collected

        store.add_reports([Report(uid, 0, 0, final=True, origin="a")])
        assert collected()
        assert store.origin(uid, 0, 0, "a") == 0
        assert collected()
        store.add_reports([Report(uid, 0, 0, [Point("accuracy", "0.1", 3)], origin="b")])
        assert not collected()
        store.add_reports([Report(uid, 0, 0, final=True, origin="b")])
        assert collected()
        assert [store.likely_origin(uid, 0, 0, origin) for origin in ("b", "c", "d", "c")] == [1, 2, 2, 2]
        assert collected(), "whoever only looks says nothing"
        assert store.origin(uid, 0, 0, "c") == 2, "a pod that the worker has found, and nobody else"
        assert not collected()

    def test_many_reports_are_one_call_and_each_is_answered(self, store: Store) -> None:
        one, two = running(store, 2), running(store, 1)
        reports = [
            Report(one, 0, 0, [Point("accuracy", "0.5", 1), Point("loss", "1", 1)]),
            Report(two, 0, 0, [Point("accuracy", "0.25", 7, 12.5, 3)], final=True),
            Report(one, 1, 0, []),
            Report(one, 0, 0, [Point("accuracy", "0.5", 1), Point("accuracy", "0.75", 2)]),
            Report(one, 9, 0, [Point("accuracy", "1", 1)]),
            Report(one, 0, 1, [Point("accuracy", "1", 1)]),
            Report("0" * 32, 0, 0, [Point("accuracy", "1", 1)]),
        ]
        taken = store.add_reports(reports)
        assert [answer.state for answer in taken] == [AttemptState.RUNNING] * 4 + [None] * 3
        assert taken[0].objective == taken[3].objective == (2, 2, "0.75")
        assert taken[1].objective == (1, 7, "0.25")
        assert taken[2].objective is None
        assert series_of(store, two, 0) == [Point("accuracy", "0.25", 7, 12.5, 3)]
        assert [point.seq for point in series_of(store, one, 0, metric="accuracy")] == [1, 2]
        assert [store.attempts(uid, 0)[0].collected for uid in (one, two)] == [False, True]
        assert [answer.new for answer in store.add_reports(reports)] == [0] * 7
        assert store.add_reports([]) == []

    def test_batches_that_cross_each_other_lose_and_double_nothing(self, store: Store) -> None:
        uid = running(store, 6)

        def send(first: int) -> int:
            order = [(first + step) % 6 for step in range(6)]
            new = 0
            for seqs in ((0, 40), (20, 60)):
                reports = [Report(uid, n, 0, [Point("loss", str(s), s) for s in range(*seqs)]) for n in order]
                new += sum(taken.new for taken in store.add_reports(reports))
            return new

        results = at_once([lambda first=first: send(first) for first in range(5)])  # type: ignore[misc]
        assert sum(result for result in results if isinstance(result, int)) == 6 * 60, results
        for number in range(6):
            assert [point.seq for point in series_of(store, uid, number)] == list(range(60))
            assert [series.points for series in store.series(uid, number)] == [60]

    def test_a_series_is_summed_up_as_if_it_were_read_whole(self, store: Store) -> None:
        uid = running(store, 3)
        chance = random.Random(20)  # noqa: S311
        for number in range(3):
            texts = ["0.5", "0.50", "nan", "", "inf", "-1e-3", "7", "7.0", "text", "1e400", "Genotype(a=1)"]
            points = [
                Point(
                    "accuracy",
                    chance.choice(texts),
                    seq,
                    chance.choice([None, 1.5, 2.5, 2.5]),
                    chance.choice([None, seq]),
                )
                for seq in range(40)
            ]
            left = points.copy()
            chance.shuffle(left)
            while left:
                cut = chance.randint(1, 9)
                batch, left = left[:cut], left[cut - 2 if cut > 2 else cut :]  # some come twice
                store.add_points(uid, number, 0, batch)
            assert store.summaries(uid, number, 0) == summarize(points)
            assert series_of(store, uid, number) == points

    def test_a_long_series_is_read_in_outline_or_from_its_end(self, store: Store) -> None:
        uid = running(store, 1)
        values = [str(abs(index - 700) / 1000) for index in range(3000)]
        store.add_points(uid, 0, 0, [Point("loss", value, 17 * index) for index, value in enumerate(values)])
        store.add_points(uid, 0, 0, [Point("accuracy", "1", 60_000)])
        curve = store.curve(uid, 0, "loss", 0, at_most=50)
        assert 40 <= len(curve) <= 53
        assert [point.seq for point in curve] == sorted({point.seq for point in curve})
        assert {0, 17 * 700, 17 * 2999} <= {point.seq for point in curve}
        gaps = [later.seq - sooner.seq for sooner, later in itertools.pairwise(curve)]
        assert max(gaps) <= 3 * 17 * 3000 / 50
        assert len(store.curve(uid, 0, "loss", 0, at_most=5000)) == 3000
        assert store.curve(uid, 0, "absent", 0, at_most=50) == []
        read: list[Point] = []
        while page := store.page(uid, 0, "loss", 0, after=read[-1].seq if read else -1, limit=700):
            read += page
        assert read == series_of(store, uid, 0, metric="loss")
        assert store.page(uid, 0, "absent", 0) == []
        newest = series_of(store, uid, 0, newest=3)
        assert [(point.metric, point.seq) for point in newest] == [
            ("loss", 17 * 2998),
            ("loss", 17 * 2999),
            ("accuracy", 60_000),
        ]
        assert [(series.metric, series.points, series.min, series.max) for series in store.series(uid, 0)] == [
            ("accuracy", 1, 1.0, 1.0),
            ("loss", 3000, 0.0, 2.299),
        ]

    def test_a_verdict_sees_every_point_that_is_stored_by_then(self, store: Store) -> None:
        uid = running(store, 2)
        store.add_points(uid, 0, 0, [Point("accuracy", "0.5", 1)])
        trial, _ = store.end_attempt(uid, 0, 0, judged, points=[Point("accuracy", "0.75", 2)])
        assert (trial.state, trial.objective) == (TrialState.SUCCEEDED, "0.75")
        trial, _ = store.end_attempt(uid, 1, 0, judged)
        assert trial.state is TrialState.METRICS_UNAVAILABLE

    def test_a_late_report_is_stored_and_says_that_it_changes_the_verdict(self, store: Store) -> None:
        uid = running(store, 2)
        store.end_attempt(uid, 0, 0, judged)
        late = [Report(uid, 0, 0, [Point("loss", "1", 1)]), Report(uid, 1, 0, [Point("accuracy", "1", 1)])]
        assert [taken.late for taken in store.add_reports(late)] == [False, False]
        report = Report(uid, 0, 0, [Point("accuracy", "0.5", 2)], final=True)
        for new in (1, 0):  # whoever sends it again, because nobody acted on it, is told again
            (taken,) = store.add_reports([report])
            assert (taken.state, taken.late, taken.new) == (AttemptState.METRICS_UNAVAILABLE, True, new)
            assert taken.ended == LATER
        store.revise(uid, 0, 0, judged)
        assert [taken.late for taken in store.add_reports([report])] == [False]

    def test_of_several_objectives_the_last_one_that_was_missing_changes_the_verdict(self, store: Store) -> None:
        further = Further("latency_ms", ObjectiveType.MINIMIZE)
        uid = with_trials(store, 1, objective=Objective(ObjectiveType.MAXIMIZE, "accuracy", further=(further,)))
        store.open_attempt(uid, 0, 0, home_id="home-1", at=NOW)
        store.end_attempt(uid, 0, 0, judged)
        told = []
        for seq, metric in enumerate(("accuracy", "accuracy", "latency_ms")):
            (taken,) = store.add_reports([Report(uid, 0, 0, [Point(metric, "0.5", seq)])])
            told.append((taken.late, store.late(uid)))
        assert told == [(False, []), (False, []), (True, [0])]

    def test_a_verdict_without_the_collectors_last_word_is_open_to_it(self, store: Store) -> None:
        uid = running(store, 3)
        for number in range(3):
            store.add_points(uid, number, 0, [Point("accuracy", "0.5", 1)])
            store.end_attempt(uid, number, 0, judged, collected=number == 2)
        worse, better = Point("accuracy", "0.25", 2), Point("accuracy", "0.75", 2)
        same, other, closed = store.add_reports(
            [
                Report(uid, 0, 0, [worse], final=True),
                Report(uid, 1, 0, [better], final=True),
                Report(uid, 2, 0, [better], final=True),
            ]
        )
        assert [taken.late for taken in (same, other, closed)] == [False, True, False]
        assert store.late(uid) == [1]
        assert [store.attempts(uid, number)[0].collected for number in range(3)] == [True, False, True]
        store.revise(uid, 1, 0, judged)
        assert store.late(uid) == []
        assert store.trial(uid, 1).objective == "0.75"
        (taken,) = store.add_reports([Report(uid, 1, 0, [better], final=True)])
        assert (taken.late, store.attempts(uid, 1)[0].collected) == (False, True)

    def test_a_report_races_with_the_end_and_is_judged_or_late_never_lost(self, store: Store) -> None:
        uid = running(store, 12)
        for number in range(12):
            report = Report(uid, number, 0, [Point("accuracy", "0.5", 1)])
            results = at_once(
                [
                    lambda n=number: store.end_attempt(uid, n, 0, judged),  # type: ignore[misc]
                    lambda r=report: store.add_reports([r])[0],  # type: ignore[misc]
                ]
            )
            ended, taken = results
            assert isinstance(taken, Taken), taken
            assert isinstance(ended, tuple), ended
            assert taken.late == (ended[0].state is TrialState.METRICS_UNAVAILABLE)

    def test_a_revised_verdict_is_told_anew_and_older_cuts_see_the_old_one(self, store: Store) -> None:
        uid = running(store, 3)
        store.end_attempt(uid, 1, 0, judged)
        store.add_points(uid, 0, 0, [Point("accuracy", "0.25", 1)])
        store.end_attempt(uid, 0, 0, judged)
        before = store.history(uid, cut=2, first_number=3)
        assert store.last_revision(uid) == 0
        store.add_points(uid, 1, 0, [Point("accuracy", "0.75", 1)])
        old, new = store.revise(uid, 1, 0, judged)
        assert (old.state, old.told_seq) == (TrialState.METRICS_UNAVAILABLE, 1)
        assert (new.state, new.objective, new.told_seq) == (TrialState.SUCCEEDED, "0.75", 3)
        assert store.last_revision(uid) == 3
        assert store.history(uid, cut=2, first_number=3) == before
        assert [trial.value for trial in store.history(uid, cut=3, first_number=3)] == [0.25, 0.75, None]
        since = store.history_since(uid, after=2, from_number=3, cut=3, first_number=3)
        assert [(trial.number, trial.value, trial.told_seq) for trial in since] == [(1, 0.75, 3)]
        counts = store.counts(uid)
        assert (counts.succeeded, counts.metrics_unavailable, counts.running) == (2, 0, 1)
        best = store.best(uid)
        assert best is not None
        assert best.number == 1
        (attempt,) = store.attempts(uid, 1)
        assert (attempt.state, attempt.charged) == (AttemptState.SUCCEEDED, False)
        assert store.revise(uid, 1, 0, judged) == (new, new)
        assert store.last_ended(uid) == new
        assert store.last_revision(uid) == 3
        with pytest.raises(ConflictError, match="still runs"):
            store.revise(uid, 2, 0, judged)

    def test_reading_anew_replaces_what_was_read_and_keeps_what_was_pushed(self, store: Store) -> None:
        uid = running(store, 2)
        store.add_points(uid, 0, 0, [Point("accuracy", "0.9", 1), Point("loss", "1", 5)])
        store.add_points(uid, 0, 0, [Point("accuracy", "0.1", place(1, 3))])
        store.end_attempt(uid, 0, 0, judged)
        finish(store, uid, 1, 0.5)
        best = store.best(uid)
        assert best is not None
        assert best.number == 0
        fresh = [Point("accuracy", "0.3", 2)]
        for _ in range(2):  # a second time is the same
            _, after = store.revise(uid, 0, 0, judged, points=fresh, forget=[(0, place(1, 0))])
            assert after.objective == "0.3"
            assert series_of(store, uid, 0) == [fresh[0], Point("accuracy", "0.1", place(1, 3))]
            assert [series.metric for series in store.series(uid, 0)] == ["accuracy"]
        best = store.best(uid)
        assert best is not None
        assert best.number == 1

    def test_the_last_good_verdict_may_go_and_then_nothing_is_best(self, store: Store) -> None:
        uid = with_trials(store, 1, objective=Objective(ObjectiveType.MAXIMIZE, "accuracy"))
        store.open_attempt(uid, 0, 0, home_id="home-1", at=NOW)
        store.add_points(uid, 0, 0, [Point("accuracy", "0.9", 1)])
        store.end_attempt(uid, 0, 0, judged)
        store.revise(uid, 0, 0, judged, forget=[(0, place(1, 0))])
        assert store.best(uid) is None
        assert store.counts(uid).charged == 1

    def test_only_the_last_attempt_has_a_verdict(self, store: Store) -> None:
        uid = running(store, 1)
        lose(store, uid, 0, 0)
        store.open_attempt(uid, 0, 1, home_id="home-1", at=NOW)
        store.end_attempt(uid, 0, 1, judged)
        with pytest.raises(ConflictError):
            store.revise(uid, 0, 0, judged)
        (taken,) = store.add_reports([Report(uid, 0, 0, [Point("accuracy", "1", 1)])])
        assert (taken.state, taken.late) == (AttemptState.LOST, False)

    def test_finished_trials_are_counted_without_those_that_nobody_has_heard_of(self, store: Store) -> None:
        uid = running(store, 4)
        finish(store, uid, 0, 0.5)
        finish(store, uid, 1, 0.5)
        finish(store, uid, 3, None, TrialState.FAILED)
        assert store.settled(uid, below=4) == {TrialState.SUCCEEDED: 2, TrialState.FAILED: 1}
        assert store.settled(uid, below=3, without=[1, 2]) == {TrialState.SUCCEEDED: 1}

    def test_a_wish_to_stop_is_told_to_whoever_reports(self, store: Store) -> None:
        uid = running(store, 2)
        store.request_stop(uid, {0: 0, 1: 5}, "EarlyStopped: below the median")
        store.request_stop(uid, {0: 0}, "ExperimentCancelled")
        taken = store.add_reports([Report(uid, 0, 0), Report(uid, 1, 0)])
        assert [answer.stop for answer in taken] == ["EarlyStopped: below the median", ""]
        assert [store.attempts(uid, number)[0].stop for number in (0, 1)] == ["EarlyStopped: below the median", ""]

    def test_a_note_is_an_audit_row_and_changes_nothing_else(self, store: Store) -> None:
        uid = running(store, 1)
        before = store.experiment_by_uid(uid)
        for _ in range(2):
            store.note(uid, key="k", actor="ada", action="reparse", detail={"trials": [1]}, at=NOW)
        assert [(row.actor, row.action, row.detail) for row in store.audit(uid)] == [
            ("ada", "reparse", {"trials": [1]})
        ]
        assert store.experiment_by_uid(uid) == before

    def test_a_deleted_experiment_takes_its_series_along(self, store: Store) -> None:
        uid = running(store, 1)
        store.add_points(uid, 0, 0, [Point("accuracy", "1", 1)])
        store.delete_experiment(uid)
        (taken,) = store.add_reports([Report(uid, 0, 0, [Point("accuracy", "1", 1)])])
        assert taken.state is None
        suggest(store, running(store, 1), 1, [])
