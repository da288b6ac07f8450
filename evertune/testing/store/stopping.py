"""The contract for early stopping: each value is judged once, each decision taken once, whoever dies in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import ClassVar, Literal

from evertune.domain.metrics import PUSHED, Objective, ObjectiveType, Point, Report, place
from evertune.domain.states import AttemptState, TrialState
from evertune.domain.stopping import Decision, Peers, Prefix, Ruling
from evertune.domain.trial import AttemptEnd, Ending
from evertune.errors import Problem
from evertune.protocols import JsonDict
from evertune.store import Store
from evertune.testing.store.making import LATER, NOW, at_once, finish, lose, with_trials

METRIC = "accuracy"


class Below:
    """Stops what is below the mean of the others at the same step; the memory counts how often it was asked."""

    name: ClassVar[str] = "below"
    about: ClassVar[str] = "for tests"
    peers: ClassVar[Literal["none", "succeeded", "all"]] = "succeeded"
    metrics: Sequence[str] = (METRIC,)
    silent_s: float | None = None

    def __init__(self, settings: Mapping[str, str], objective: Objective) -> None:
        self.seen: list[tuple[int, float | None, int]] = []  # step, value, how many others

    @classmethod
    def check(cls, settings: Mapping[str, str], objective: Objective) -> Sequence[Problem]:
        return ()

    def mark(self, prefix: Prefix, *, last: bool) -> tuple[int, float] | None:
        if last and prefix.value is not None:
            return 100, prefix.value
        return None if prefix.value is None else (prefix.step, prefix.value)

    def judge(self, prefix: Prefix, peers: Peers, memory: JsonDict) -> Ruling:
        self.seen.append((prefix.step, prefix.value, peers.count))
        asked = {"asked": memory.get("asked", 0) + 1}
        if prefix.value is None or not peers.count or prefix.value >= peers.mean():
            return Ruling("", asked)
        return Ruling(f"{prefix.value:g} is below {peers.mean():g}, asked {asked['asked']} times", asked)


class Among(Below):
    """As `Below`, with running trials and the one that is judged itself."""

    peers: ClassVar[Literal["none", "succeeded", "all"]] = "all"


def rule(kind: type[Below] = Below) -> Below:
    return kind({}, Objective(ObjectiveType.MAXIMIZE, METRIC))


def running(store: Store, how_many: int) -> str:
    uid = with_trials(store, how_many)
    for number in range(how_many):
        store.open_attempt(uid, number, 0, home_id="home-1", at=NOW)
    return uid


def report(store: Store, uid: str, number: int, *values: float | str, first: int = 0, attempt: int = 0) -> None:
    points = [Point(METRIC, str(value), first + index) for index, value in enumerate(values)]
    (taken,) = store.add_reports([Report(uid, number, attempt, points)])
    assert taken.new == len(values)


class StoppingContract:
    def test_each_value_is_judged_once_in_order_and_with_what_it_may_remember(self, store: Store) -> None:
        uid, below = running(store, 1), rule()
        report(store, uid, 0, 0.5, "nan", 0.7)
        for _ in range(2):
            assert store.weigh(uid, below, METRIC, [(0, 0)], NOW) == ([], [])
        report(store, uid, 0, 0.8, first=3)
        assert store.weigh(uid, below, METRIC, [(0, 0)], NOW) == ([], [])
        assert below.seen == [(1, 0.5, 0), (2, None, 0), (3, 0.7, 0), (4, 0.8, 0)]

    def test_only_trials_that_succeeded_count_and_with_all_that_they_reported(self, store: Store) -> None:
        uid, below = running(store, 4), rule()
        report(store, uid, 0, 0.6, 0.8)
        assert store.weigh(uid, below, METRIC, [(0, 0)], NOW)[0] == []
        report(store, uid, 0, 0.9, first=2)  # at its very end: nobody looks at it any more
        finish(store, uid, 0, 0.9)
        report(store, uid, 1, 9.0, 9.0)  # nobody ever looked at this one
        finish(store, uid, 1, None, TrialState.FAILED)
        report(store, uid, 2, 0.4, 0.4, 0.4)
        finish(store, uid, 2, 0.4)
        below.seen.clear()
        report(store, uid, 3, 0.5, 0.7, 0.6, 0.1)
        decided = Decision(number=3, attempt=0, step=3, reason="below: 0.6 is below 0.65, asked 3 times")
        assert store.weigh(uid, below, METRIC, [(3, 0)], NOW) == ([decided], [])
        assert below.seen == [(1, 0.5, 2), (2, 0.7, 2), (3, 0.6, 2)]
        assert store.stop_decisions(uid) == [decided]

    def test_a_decision_is_taken_once_and_told_until_somebody_asks_the_attempt_to_stop(self, store: Store) -> None:
        uid, below = running(store, 2), rule()
        report(store, uid, 0, 0.9)
        finish(store, uid, 0, 0.9)
        report(store, uid, 1, 0.1)
        first, _ = store.weigh(uid, below, METRIC, [(1, 0)], NOW)
        report(store, uid, 1, 0.99, first=1)
        assert len(first) == 1
        assert store.weigh(uid, below, METRIC, [(1, 0)], LATER) == (first, [])
        assert (uid, first[0]) in store.undelivered_stops()
        noted = [entry for entry in store.audit(uid) if entry.action == "early-stop"]
        assert [(entry.at, entry.actor, entry.detail["trial"]) for entry in noted] == [(NOW, "below", 1)]
        store.request_stop(uid, {1: 0}, "EarlyStopped: " + first[0].reason)
        assert store.weigh(uid, below, METRIC, [(1, 0)], LATER) == ([], [])
        assert [told for told in store.undelivered_stops() if told[0] == uid] == []
        assert store.stop_decisions(uid) == first

    def test_two_that_weigh_at_once_judge_every_value_once_and_decide_once(self, store: Store) -> None:
        uid, below = running(store, 4), rule()
        report(store, uid, 0, *[0.9] * 50)
        finish(store, uid, 0, 0.9)
        for number in (1, 2, 3):
            report(store, uid, number, *[0.95] * 49, 0.1)
        keys = [(number, 0) for number in (1, 2, 3)]
        found = at_once([lambda: store.weigh(uid, below, METRIC, keys, NOW)] * 4)
        assert all(not isinstance(each, BaseException) for each in found), found
        assert len(store.stop_decisions(uid)) == 3
        assert len([entry for entry in store.audit(uid) if entry.action == "early-stop"]) == 3
        assert {each.step for each in store.stop_decisions(uid)} == {50}
        assert all("asked 50 times" in each.reason for each in store.stop_decisions(uid))

    def test_running_trials_count_where_the_rule_says_so_and_the_last_attempt_of_each_alone(self, store: Store) -> None:
        uid, among = running(store, 2), rule(Among)
        report(store, uid, 0, 0.2)
        assert store.weigh(uid, among, METRIC, [(0, 0)], NOW) == ([], [])
        lose(store, uid, 0, 0)
        store.open_attempt(uid, 0, 1, home_id="home-1", at=NOW)
        report(store, uid, 0, 0.6, attempt=1)
        assert store.weigh(uid, among, METRIC, [(0, 1)], NOW) == ([], [])
        report(store, uid, 1, 0.5)
        ((decision,), _) = store.weigh(uid, among, METRIC, [(1, 0)], NOW)
        assert decision.reason == "below: 0.5 is below 0.55, asked 1 times", "0.6 and itself"
        assert among.seen == [(1, 0.2, 1), (1, 0.6, 1), (1, 0.5, 2)]

    def test_every_source_of_an_attempt_is_read_on_where_it_was_left(self, store: Store) -> None:
        uid, below = running(store, 1), rule()
        for source, offset, value in ((PUSHED, 0, 0.1), (0, 5, 0.2), (PUSHED, 9, 0.3), (7, 0, 0.4), (0, 6, 0.5)):
            report(store, uid, 0, value, first=place(source, offset))
            store.weigh(uid, below, METRIC, [(0, 0)], NOW)
        assert [value for _, value, _ in below.seen] == [0.1, 0.2, 0.3, 0.4, 0.5]
        report(store, uid, 0, 0.6, first=place(PUSHED, 4))  # behind what was read: late, and seen by nobody
        report(store, uid, 0, 0.7, first=place(7, 1))
        store.weigh(uid, below, METRIC, [(0, 0)], NOW)
        assert [step for step, _, _ in below.seen] == [1, 2, 3, 4, 5, 6]

    def test_a_long_series_is_read_in_several_transactions(self, store: Store) -> None:
        uid, below = running(store, 1), rule()
        report(store, uid, 0, *[0.5] * 20_001)
        assert store.weigh(uid, below, METRIC, [(0, 0)], NOW) == ([], [(0, 0)])
        assert store.weigh(uid, below, METRIC, [(0, 0)], NOW) == ([], [])
        assert [step for step, _, _ in below.seen] == list(range(1, 20_002))

    def test_nothing_is_decided_about_an_attempt_that_has_ended_or_is_not_there(self, store: Store) -> None:
        uid, below = running(store, 3), rule()
        report(store, uid, 0, 0.9)
        finish(store, uid, 0, 0.9)
        report(store, uid, 1, 0.1)
        finish(store, uid, 1, 0.1)
        store.request_stop(uid, {2: 0}, "somebody else wanted it")
        report(store, uid, 2, 0.1)
        assert store.weigh(uid, below, METRIC, [(1, 0), (2, 0), (0, 7), (99, 0)], NOW) == ([], [])
        assert store.weigh("0" * 32, below, METRIC, [(0, 0)], NOW) == ([], [])
        assert below.seen == []

    def test_what_goes_silent_is_decided_by_time_and_what_waits_for_its_place_is_not_silent(self, store: Store) -> None:
        uid, below = running(store, 4), rule()
        report(store, uid, 1, 0.5)
        store.weigh(uid, below, METRIC, [(1, 0)], NOW + timedelta(seconds=50))
        store.set_phase(uid, 2, 0, "Pending: no room")
        finish(store, uid, 3, 0.5)

        def silent(after_s: float, since_s: float = -1.0) -> list[int]:
            at, since = NOW + timedelta(seconds=after_s), NOW + timedelta(seconds=since_s)
            return [each.number for each in store.silent(uid, below, 60, since=since, at=at)]

        assert silent(59) == []
        assert silent(90, since_s=40) == [], "what nobody watched is held against no trial"
        assert silent(90) == [0]
        assert silent(90) == [], "once"
        assert silent(111) == [1]
        store.set_phase(uid, 2, 0, "")
        assert silent(170) == [], "its clock began when it had its place"
        assert silent(171) == [2]
        assert [each.reason for each in store.stop_decisions(uid)] == [
            "below: it has reported nothing for 90 s",
            "below: it has reported nothing for 61 s",
            "below: it has reported nothing for 60 s",
        ]

    def test_what_runs_is_known_by_experiment(self, store: Store) -> None:
        uid, ended = running(store, 2), running(store, 1)
        finish(store, ended, 0, 0.5)
        assert store.attempts(ended, 0)[0].state is AttemptState.SUCCEEDED
        found = store.running_experiments()
        assert uid in found
        assert ended not in found

    def test_a_trial_that_is_judged_anew_marks_what_it_has_now(self, store: Store) -> None:
        uid, below = running(store, 3), rule()
        report(store, uid, 0, 0.2)
        finish(store, uid, 0, 0.2)
        report(store, uid, 1, 0.9)
        assert store.weigh(uid, below, METRIC, [(1, 0)], NOW) == ([], [])
        report(store, uid, 0, 0.8, first=1)
        store.revise(uid, 0, 0, lambda _: Ending(
            end=AttemptEnd(AttemptState.SUCCEEDED, "Completed", ended=LATER), trial_state=TrialState.SUCCEEDED,
            objective="0.8", objective_value=0.8,
        ))  # fmt: skip
        report(store, uid, 2, 0.9, 0.7)
        ((decision,), _) = store.weigh(uid, below, METRIC, [(2, 0)], NOW)
        assert decision.reason == "below: 0.7 is below 0.8, asked 2 times"

    def test_deleting_an_experiment_takes_all_of_it(self, store: Store) -> None:
        uid, among = running(store, 1), rule(Among)
        report(store, uid, 0, 0.5)
        store.weigh(uid, among, METRIC, [(0, 0)], NOW)
        store.delete_experiment(uid)
        assert store.weigh(uid, among, METRIC, [(0, 0)], NOW) == ([], [])
