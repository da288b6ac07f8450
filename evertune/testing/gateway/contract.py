"""The contract of the ingest gateway, as a pytest class that speaks HTTP only.

A gateway's author subclasses `GatewayContract` and says how to start one, how to open and end attempts, and how to
look into what it stored. The protocol itself is on the page about reporting metrics.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from evertune.domain.metrics import Point

GRACE_S = 600.0  # reports of an attempt are taken for so long after its end


@dataclass(frozen=True)
class Attempt:
    """An attempt of a trial, and the token that is bound to it."""

    trial: str
    token: str


@dataclass(frozen=True)
class Answer:
    status: int
    body: dict[str, Any]
    retry_after: str | None


def a_point(metric: str = "loss", value: Any = 0.5, seq: int | None = 1, **more: Any) -> dict[str, Any]:
    return {"metric": metric, "value": value, **({} if seq is None else {"seq": seq}), **more}


MALFORMED: dict[str, Any] = {
    "not JSON": b"{",
    "a list": [],
    "no points": {},
    "points that are no list": {"points": {}},
    "a point that is no object": {"points": [1]},
    "a point without a name": {"points": [{"value": 1, "seq": 1}]},
    "an empty name": {"points": [a_point("")]},
    "a name that is too long": {"points": [a_point("n" * 513)]},
    "no value": {"points": [{"metric": "loss", "seq": 1}]},
    "a value that is a list": {"points": [a_point(value=[1])]},
    "a value that is too long": {"points": [a_point(value="v" * (64 * 1024 + 1))]},
    "no seq anywhere": {"points": [a_point(seq=None)]},
    "a negative seq": {"points": [a_point(seq=-1)]},
    "a seq beyond 63 bits": {"points": [a_point(seq=1 << 63)]},
    "a seq that is text": {"points": [{"metric": "loss", "value": 1, "seq": "first"}]},
    "a step beyond 64 bits": {"points": [a_point(step=2**63)]},
    "a step that is text": {"points": [a_point(step="five")]},
    "a timestamp that is text": {"points": [a_point(timestamp="yesterday")]},
    "too many points": {"points": [a_point(seq=seq) for seq in range(1001)]},
}


class GatewayContract:
    """Subclass it as `Test…` and fill in the seven methods below; each test gets a gateway of its own."""

    def start_gateway(self, folder: Path) -> AbstractContextManager[str]:
        """Serve until the context ends. Gives the base URL. `folder` is empty and of this test."""
        raise NotImplementedError

    def open_attempt(self, trial: str) -> Attempt:
        """Begin the first attempt of a trial with this name."""
        raise NotImplementedError

    def unknown_attempt(self, trial: str) -> Attempt:
        """A token that is signed as it should be, for an attempt that there is not."""
        raise NotImplementedError

    def end_attempt(self, attempt: Attempt) -> None:
        raise NotImplementedError

    def ask_to_stop(self, attempt: Attempt) -> None:
        """Let somebody want this attempt to end."""
        raise NotImplementedError

    def pass_time(self, seconds: float) -> None:
        """Move the gateway's clock, also back."""
        raise NotImplementedError

    def rotate_keys(self, *, retire: bool) -> None:
        """Sign with a new key from now on; `retire`: forget the older one as well."""
        raise NotImplementedError

    def points(self, attempt: Attempt) -> list[Point]:
        """What is stored of this attempt, by `seq`."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------ speaking

    @pytest.fixture(autouse=True)
    def _served(self, tmp_path: Path) -> Iterator[None]:
        with self.start_gateway(tmp_path) as url:
            self._url = url
            yield

    def connect(self) -> HTTPConnection:
        return HTTPConnection(urlsplit(self._url).netloc, timeout=30)

    def post(
        self, attempt: Attempt, report: Any, *, trial: str | None = None, on: HTTPConnection | None = None
    ) -> Answer:
        connection = on or self.connect()
        path = f"/ingest/v1/trials/{quote(trial or attempt.trial, safe='')}/reports"
        headers = {"Content-Type": "application/json"}
        if attempt.token:
            headers["Authorization"] = f"Bearer {attempt.token}"
        body = report if isinstance(report, bytes) else json.dumps(report).encode()
        try:
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, json.loads(response.read()), response.getheader("Retry-After"))
        finally:
            if on is None:
                connection.close()

    def refused(self, answer: Answer, status: int) -> str:
        assert answer.status == status, answer
        sentence = answer.body["error"]
        assert isinstance(sentence, str)
        assert sentence
        assert "Traceback" not in sentence
        return sentence

    # ------------------------------------------------------------------------------------------ the tests

    def test_a_report_is_stored_and_the_answer_says_what_to_do_next(self) -> None:
        attempt = self.open_attempt("trial-a")
        told = [a_point("loss", 0.25, 7, timestamp=1732620000.5, step=3), a_point("genotype", "a=1, b", 7)]
        answer = self.post(attempt, {"points": told, "final": False})
        assert answer.status == 200
        assert answer.body["accepted"] == 2
        assert answer.body["stop"] is False
        assert 0 <= answer.body["next_after_s"] <= 60
        by_name = {point.metric: point for point in self.points(attempt)}
        assert by_name["loss"] == Point("loss", "0.25", 7, 1732620000.5, 3)
        assert (by_name["genotype"].value, by_name["genotype"].step) == ("a=1, b", None)

    def test_a_number_keeps_its_digits_and_text_is_taken_as_it_is(self) -> None:
        attempt = self.open_attempt("trial-a")
        values = [0.1, 3, -2.5, "nan", "-inf", "0.10", "", "ünïcode", 1e-300]
        self.post(attempt, {"points": [a_point(value=value, seq=seq) for seq, value in enumerate(values)]})
        assert [point.value for point in self.points(attempt)] == [
            value if isinstance(value, str) else json.dumps(value) for value in values
        ]

    def test_the_same_report_twice_is_stored_once_and_accepted_twice(self) -> None:
        attempt = self.open_attempt("trial-a")
        report = {"points": [a_point(seq=seq) for seq in range(20)]}
        assert [self.post(attempt, report).body["accepted"] for _ in range(2)] == [20, 20]
        assert [point.seq for point in self.points(attempt)] == list(range(20))

    def test_pods_that_follow_each_other_count_from_the_start_and_are_kept_in_their_order(self) -> None:
        attempt = self.open_attempt("trial-a")
        for origin, value in (("pod-b", "0.1"), ("pod-a", "0.2"), ("pod-b", "0.1"), ("pod-a", "0.2")):
            report = {"points": [a_point(seq=7, value=value)], "origin": origin}
            assert self.post(attempt, report).body["accepted"] == 1
        assert [point.value for point in self.points(attempt)] == ["0.1", "0.2"]
        self.refused(self.post(attempt, {"points": [], "origin": "x" * 65}), 422)
        self.refused(self.post(attempt, {"points": [], "origin": 7}), 422)

    def test_two_metrics_may_have_one_seq(self) -> None:
        attempt = self.open_attempt("trial-a")
        self.post(attempt, {"points": [a_point("loss"), a_point("accuracy")]})
        assert {(point.metric, point.seq) for point in self.points(attempt)} == {("loss", 1), ("accuracy", 1)}

    def test_a_client_that_only_counts_its_reports_gives_their_number(self) -> None:
        attempt = self.open_attempt("trial-a")
        self.post(attempt, {"seq": 4, "points": [a_point(seq=None), a_point(seq=None)]})
        assert [point.seq for point in self.points(attempt)] == [4000, 4001]

    def test_an_empty_report_is_a_question_whether_to_stop(self) -> None:
        attempt = self.open_attempt("trial-a")
        assert self.post(attempt, {"points": []}).body["stop"] is False
        self.ask_to_stop(attempt)
        answer = self.post(attempt, {"points": []})
        assert (answer.status, answer.body["accepted"], answer.body["stop"]) == (200, 0, True)

    def test_many_reports_go_over_one_connection_a_refused_one_among_them(self) -> None:
        attempt = self.open_attempt("trial-a")
        connection = self.connect()
        statuses = [self.post(attempt, {"points": [a_point(seq=seq)]}, on=connection).status for seq in (1, 2, -1, 3)]
        connection.close()
        assert statuses == [200, 200, 422, 200]

    def test_without_a_token_or_with_a_forged_one_nothing_is_stored(self) -> None:
        attempt = self.open_attempt("trial-a")
        head, _, mac = attempt.token.rpartition(".")
        other = ("A" if mac[0] != "A" else "B") + mac[1:]
        for token in ("", "nonsense", f"{head}.", f"{head}.{other}", f"et1.nobody.{attempt.token.split('.')[2]}.{mac}"):
            self.refused(self.post(Attempt("trial-a", token), {"points": [a_point()]}), 401)
        assert self.points(attempt) == []

    def test_a_token_of_another_trial_is_refused(self) -> None:
        first, second = self.open_attempt("trial-a"), self.open_attempt("trial-b")
        self.refused(self.post(first, {"points": [a_point()]}, trial="trial-b"), 403)
        assert self.points(second) == []

    def test_a_token_outlives_the_rotation_of_keys_but_not_its_keys_retirement(self) -> None:
        attempt = self.open_attempt("trial-a")
        self.rotate_keys(retire=False)
        assert self.post(attempt, {"points": [a_point()]}).status == 200
        self.rotate_keys(retire=True)
        self.refused(self.post(attempt, {"points": [a_point()]}), 401)

    def test_an_attempt_that_nobody_knows_is_not_found(self) -> None:
        self.refused(self.post(self.unknown_attempt("trial-z"), {"points": [a_point()]}), 404)

    def test_a_late_report_is_taken_for_ten_minutes_and_then_refused_for_ever(self) -> None:
        attempt = self.open_attempt("trial-a")
        self.end_attempt(attempt)
        self.pass_time(GRACE_S / 2)
        assert self.post(attempt, {"points": [a_point(seq=1)]}).status == 200
        self.pass_time(GRACE_S / 2 + 60)
        answer = self.post(attempt, {"points": [a_point(seq=2)]})
        self.refused(answer, 410)
        assert answer.body["stop"] is True
        assert [point.seq for point in self.points(attempt)] == [1]

    def test_a_body_that_is_too_long_is_refused_unread(self) -> None:
        attempt = self.open_attempt("trial-a")
        connection = self.connect()
        connection.putrequest("POST", f"/ingest/v1/trials/{attempt.trial}/reports")
        connection.putheader("Authorization", f"Bearer {attempt.token}")
        connection.putheader("Content-Length", str(2 << 20))
        connection.endheaders(b"{")
        response = connection.getresponse()
        answer = Answer(response.status, json.loads(response.read()), None)
        connection.close()
        self.refused(answer, 413)

    @pytest.mark.parametrize("report", MALFORMED.values(), ids=MALFORMED.keys())
    def test_a_malformed_report_is_refused_in_one_sentence_and_as_a_whole(self, report: Any) -> None:
        attempt = self.open_attempt("trial-a")
        if isinstance(report, dict) and isinstance(report.get("points"), list):
            report = {"points": [a_point("good", seq=0), *report["points"]][:1001]}
        sentence = self.refused(self.post(attempt, report), 422)
        assert "\n" not in sentence
        assert self.points(attempt) == []

    def test_the_refusal_says_which_point_it_is(self) -> None:
        attempt = self.open_attempt("trial-a")
        assert "points[1]" in self.refused(self.post(attempt, {"points": [a_point(), a_point("")]}), 422)

    def test_after_256_names_further_ones_are_left_out_and_known_ones_go_on(self) -> None:
        attempt = self.open_attempt("trial-a")
        names = [a_point(f"m{number}", seq=1) for number in range(300)]
        assert self.post(attempt, {"points": names}).body["accepted"] == 256
        assert self.post(attempt, {"points": [a_point("m0", seq=2), a_point("m299", seq=2)]}).body["accepted"] == 1
        assert len({point.metric for point in self.points(attempt)}) == 256

    def test_too_many_reports_are_asked_to_come_later_and_nothing_of_them_is_stored(self) -> None:
        attempt = self.open_attempt("trial-a")
        connection = self.connect()
        taken, moment = 0, time.monotonic()
        for seq in range(2000):
            before, moment = moment, time.monotonic()
            if taken >= 60:  # a busy machine may not manage as many a second as are allowed: the clock stands still
                self.pass_time(before - moment)
            answer = self.post(attempt, {"points": [a_point(seq=seq)]}, on=connection)
            if answer.status != 200:
                break
            taken += 1
        connection.close()
        self.refused(answer, 429)
        assert int(answer.retry_after or "0") >= 1
        assert taken >= 60
        assert len(self.points(attempt)) == taken
        self.pass_time(2.0)
        assert self.post(attempt, {"points": [a_point(seq=taken)]}).status == 200
