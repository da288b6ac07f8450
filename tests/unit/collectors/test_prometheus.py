"""Scraping a trial that runs, is not there yet, is slow, answers junk, or is gone. The servers are real."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import collectors
from collectors import prometheus
from evertune.domain.metrics import CollectorSpec, Point, Scrape
from evertune.errors import LaunchError
from evertune.protocols import Collector
from tests.ports import free_port
from tests.unit.collectors.endpoint import Handler, showing
from tests.unit.collectors.reading import collector


class Page:
    """What the trial shows; tests change it while it is served."""

    text = ""
    status = 200
    drip_s = 0.0
    asked = 0

    def __call__(self, request: Handler) -> None:
        self.asked += 1
        if self.drip_s:
            for _ in range(1000):
                try:
                    request.wfile.write(b"H")
                except OSError:
                    return
                time.sleep(self.drip_s)
        request.answer(self.text.encode(), self.status)


@pytest.fixture
def page() -> Page:
    return Page()


@pytest.fixture
def port(page: Page, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(prometheus, "EVERY_S", 0.0)
    monkeypatch.setattr(prometheus, "TIMEOUT_S", 60.0)  # the page is served by this very process, beside others
    monkeypatch.setattr(prometheus, "LAST_TRY_S", 60.0)
    with showing(page) as port:
        yield port


def scraper(folder: Path, port: int, *metrics: str) -> Collector:
    spec = CollectorSpec(kind="PrometheusMetric", metrics=metrics, scrape=Scrape(port=port, path="/metrics"))
    return collector(folder, spec)


def found(made: Collector) -> list[tuple[str, str]]:
    return [(point.metric, point.value) for point in made.read()]


def test_wanted_samples_become_points_when_they_change(tmp_path: Path, page: Page, port: int) -> None:
    made = scraper(tmp_path, port, "loss", "acc")
    page.text = '# HELP loss The loss\n# TYPE loss gauge\nloss 0.5\nacc{fold="1"} 3\nother 7\nloss_total 9\n'
    begun = time.time()
    points = list(made.read())
    assert [(point.metric, point.value) for point in points] == [("loss", "0.5"), ("acc", "3.0")]
    assert all(point.timestamp is not None and begun <= point.timestamp <= time.time() for point in points)
    assert found(made) == []
    page.text = "loss 0.25\nacc 3\n"
    assert found(made) == [("loss", "0.25")]
    page.text = "loss NaN\nacc +Inf\n"
    assert found(made) == [("loss", "nan"), ("acc", "inf")]
    assert found(made) == []
    assert page.asked == 5


def test_a_sample_with_a_time_of_its_own_is_new_when_that_changes(tmp_path: Path, page: Page, port: int) -> None:
    made = scraper(tmp_path, port, "loss")
    values: list[Point] = []
    for stamp in (1714557600000, 1714557600000, 1714557601500):
        page.text = f"loss 0.5 {stamp}\n"
        values += made.read()
    assert [point.timestamp for point in values] == [1714557600.0, 1714557601.5]


@pytest.mark.parametrize(
    ("metric", "text", "expected"),
    [
        ("loss", 'loss{phase="val"} 1\nloss 2\n', ["2.0"]),
        ("loss", 'loss{phase="val"} 1\n', ["1.0"]),
        ("loss", 'loss{phase="val"} 1\nloss{phase="train"} 2\n', []),
        ('loss{phase="val"}', 'loss{phase="val"} 1\nloss{phase="train"} 2\n', ["1.0"]),
        ('loss{b="2", a="1"}', 'loss{a="1",b="2"} 1\nloss{a="1"} 2\n', ["1.0"]),
        ('loss{phase="test"}', 'loss{phase="val"} 1\n', []),
        ("loss_total", "# TYPE loss counter\nloss_total 4\n", ["4.0"]),
        ("loss_bucket", 'loss_bucket{le="1"} 4\nloss_bucket{le="+Inf"} 4\n', []),
    ],
)
def test_labels_must_not_leave_a_choice(
    metric: str, text: str, expected: list[str], tmp_path: Path, page: Page, port: int
) -> None:
    page.text = text
    made = scraper(tmp_path, port, metric)
    assert found(made) == [(metric, value) for value in expected]


def test_several_label_sets_are_named_in_a_warning_that_says_what_to_write(
    tmp_path: Path, page: Page, port: int
) -> None:
    page.text = 'loss{phase="val"} 1\nloss{phase="train"} 2\n'
    made = scraper(tmp_path, port, "loss")
    made.read()
    findings = made.findings()
    assert findings.warnings == ('loss has 2 label sets and none was taken; name one as the metric: loss{phase="val"}',)
    assert findings.names_seen == ("loss",)


def test_a_restart_gives_the_same_points_and_stores_none_again(tmp_path: Path, page: Page, port: int) -> None:
    made = scraper(tmp_path, port, "loss")
    points: list[Point] = []
    for value in ("3", "2", "1"):
        page.text = f"loss {value}\n"
        points += made.read()
    again = scraper(tmp_path, port, "loss")
    assert [*again.read(), *again.read()] == points
    page.text = "loss 0.5\n"
    assert found(again) == [("loss", "0.5")]


def test_a_spool_that_was_torn_goes_on_behind_the_tear(tmp_path: Path, page: Page, port: int) -> None:
    page.text = "loss 3\n"
    scraper(tmp_path, port, "loss").read()
    spool = tmp_path / "notes" / collectors.SCRAPED
    spool.write_bytes(spool.read_bytes() + b'{"metrics": {"lo')
    page.text = "loss 2\n"
    made = scraper(tmp_path, port, "loss")
    assert found(made) == [("loss", "3.0"), ("loss", "2.0")]


def test_junk_costs_the_scrape_or_its_lines_only(tmp_path: Path, page: Page, port: int) -> None:
    made = scraper(tmp_path, port, "loss")
    for text, expected in (
        ("<html>not metrics</html>", []),
        ('loss{a="1\nloss 4\nloss x\n', [("loss", "4.0")]),
        ("\0\xff\n" * 100 + "loss 5\n", [("loss", "5.0")]),
        ("", []),
    ):
        page.text = text
        assert found(made) == expected
    page.status = 500
    assert found(made) == []
    assert "answers with lines that are not in Prometheus' text format" in made.findings().warnings[0]


def test_an_answer_that_is_too_long_is_not_kept(
    tmp_path: Path, page: Page, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus, "SIZE_LIMIT", 1000)
    page.text = "loss 1\n" + "x 1\n" * 1000
    made = scraper(tmp_path, port, "loss")
    assert found(made) == []
    assert "its answer is longer than" in made.findings().warnings[0]


def test_a_large_answer_costs_a_glance_at_each_line(tmp_path: Path, page: Page, port: int) -> None:
    page.text = "".join(f'http_requests{{path="/{number}"}} {number}\n' for number in range(100_000)) + "loss 1\n"
    begun = time.process_time()
    assert found(scraper(tmp_path, port, "loss")) == [("loss", "1.0")]
    print(f"{len(page.text) >> 20} MB in {time.process_time() - begun:.2f} s")


def test_an_endpoint_that_drips_is_given_up(
    tmp_path: Path, page: Page, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus, "TIMEOUT_S", 0.3)
    page.drip_s = 0.05
    made = scraper(tmp_path, port, "loss")
    begun = time.monotonic()
    assert found(made) == []
    assert time.monotonic() - begun < 10


def test_a_compressed_answer_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = gzip.compress(b"loss 1\n" * 1_000_000)
    with showing(lambda request: request.answer(bomb, Content_Encoding="gzip")) as port:
        made = scraper(tmp_path, port, "loss")
        assert found(made) == []
        assert "compressed" in made.findings().warnings[0]


def test_an_endpoint_that_is_not_there_yet_is_asked_again_when_it_is_due(
    tmp_path: Path, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus, "EVERY_S", 3600.0)
    port = free_port()
    made = scraper(tmp_path, port, "loss")
    assert made.has_more()
    assert found(made) == []
    assert not made.has_more(), "not due before its time has passed"
    assert f"http://127.0.0.1:{port}/metrics never answered: " in made.findings().warnings[0]


def test_at_the_end_it_is_asked_once_more(tmp_path: Path, page: Page, port: int) -> None:
    made = scraper(tmp_path, port, "loss")
    page.text = "loss 2\n"
    assert found(made) == [("loss", "2.0")]
    page.text = "loss 1\n"
    assert [point.value for point in made.finish()] == ["1.0"]


@pytest.mark.parametrize("metric", ["loss rate", "1loss", "", "loss{", 'loss{a="}', "train/loss"])
def test_a_name_that_no_sample_can_have_is_refused(metric: str, tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"(cannot be the name of a sample|labels of .* are not readable)"):
        scraper(tmp_path, 1, metric)
