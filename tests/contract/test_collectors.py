"""Every collector keeps the contract of `evertune.testing.collectors`."""

from __future__ import annotations

from pathlib import Path

import collectors
from evertune.domain.metrics import PUSHED, CollectorSpec, Scrape, place
from evertune.protocols import Collector, Sources
from evertune.testing.collectors import CollectorContract, RotatedFileContract
from tests.unit.collectors.events import event, event_file, scalar, version

METRICS = ("loss", "accuracy")


def sources(folder: Path, *, path: Path | None = None, reports: Path | None = None) -> Sources:
    notes = folder / "notes"
    notes.mkdir(exist_ok=True)
    return Sources(log=folder / "log", notes=notes, path=path, reports=reports)


class TestStdOut(RotatedFileContract):
    sample = (
        "starting é ✔\n"
        "2024-05-01T10:00:00Z INFO loss=0.5 accuracy=0.1\n"
        "\x1b[32mloss\x1b[0m=\x1b[1m0.4\x1b[0m\r\n"
        "50%|███  | loss=0.35\r100%|██████| loss=0.3\r\n"
        "\n"
    ).encode() + b"\xff\xfe loss=0.25 \xe2\x82 loss=0.2\naccuracy = nan\nseen=1\nloss=0.1"

    def source(self, folder: Path) -> Path:
        return folder / "log"

    def make_collector(self, folder: Path) -> Collector:
        return collectors.create(CollectorSpec(kind="StdOut", metrics=METRICS), sources(folder))

    def test_the_sample_holds_what_a_reader_would_find(self, tmp_path: Path) -> None:
        points = self.all_points(tmp_path)
        assert [point.value for point in points if point.metric == "loss"] == [
            "0.5", "0.4", "0.35", "0.3", "0.25", "0.2", "0.1",
        ]  # fmt: skip
        assert [point.value for point in points if point.metric == "accuracy"] == ["0.1", ""]


class TestFileText(TestStdOut):
    def source(self, folder: Path) -> Path:
        return folder / "metrics.txt"

    def make_collector(self, folder: Path) -> Collector:
        spec = CollectorSpec(kind="File", metrics=METRICS, format="TEXT")
        return collectors.create(spec, sources(folder, path=self.source(folder)))


class TestFileJson(RotatedFileContract):
    sample = (
        b'{"loss": "0.5", "accuracy": 0.1, "timestamp": "2024-05-01T10:00:00Z"}\n'
        b'{"loss": 4e-1, "global_step": "1", "timestamp": 1700000000.25}\r\n'
        b"not json at all\n\n"
        b'{"loss": NaN, "accuracy": true, "epoch": 3}\n'
        b'{"note": "\xff", "accuracy": "text"}\n{"loss": "0.1"}'
    )

    def numbered(self, number: int) -> bytes:
        return b'{"loss": %d, "padding": "0123456789 0123456789"}\n' % number

    def source(self, folder: Path) -> Path:
        return folder / "metrics.json"

    def make_collector(self, folder: Path) -> Collector:
        spec = CollectorSpec(kind="File", metrics=METRICS, format="JSON")
        return collectors.create(spec, sources(folder, path=self.source(folder)))


class TestCustomWithAFile(TestFileText):
    def make_collector(self, folder: Path) -> Collector:
        spec = CollectorSpec(kind="Custom", metrics=METRICS, path_kind="File")
        return collectors.create(spec, sources(folder, path=self.source(folder)))


class TestPush(RotatedFileContract):
    sample = (
        b'{"metrics": {"loss": 0.5, "accuracy": 0.1}, "step": 1, "time": 1732620000.123}\n'
        b'{"metrics": {"loss": "nan", "note": "a text"}, "step": null, "time": 1732620001}\n'
        b'{"metrics": {"loss": 0.25}}\n{"metrics": []}\n'
        b'{"metrics": {"loss": 0.125}, "step": -3}'
    )

    def numbered(self, number: int) -> bytes:
        return b'{"metrics": {"loss": %d}, "time": 1732620000.125}\n' % number

    def source(self, folder: Path) -> Path:
        return folder / "reports.jsonl"

    def make_collector(self, folder: Path) -> Collector:
        spec = CollectorSpec(kind="Push", metrics=METRICS)
        return collectors.create(spec, sources(folder, reports=self.source(folder)))

    def test_pushed_points_have_places_of_their_own(self, tmp_path: Path) -> None:
        points = self.all_points(tmp_path)
        assert min(point.seq for point in points) == place(PUSHED, 0)
        assert [(point.metric, point.step) for point in points if point.step is not None] == [
            ("loss", 1), ("accuracy", 1), ("loss", -3),
        ]  # fmt: skip


class TestStdOutBesideReports(TestPush):
    """Every kind reads what was pushed."""

    def make_collector(self, folder: Path) -> Collector:
        spec = CollectorSpec(kind="StdOut", metrics=METRICS)
        return collectors.create(spec, sources(folder, reports=self.source(folder)))


class TestPrometheusSpool(RotatedFileContract):
    """The endpoint is away; what was scraped before is read like any other file."""

    sample = (
        b'{"metrics": {"loss": "0.5", "accuracy": "0.1"}, "time": 1732620000.123}\n'
        b'{"metrics": {"loss": "nan"}, "time": 1732620001.5}\n'
        b'{"metrics": {"loss": "0.25"}, "time": 1732620002.5}\n'
        b'{"metrics": {"accuracy": "0.5"}, "time": 1732620003.5}'
    )

    def numbered(self, number: int) -> bytes:
        return b'{"metrics": {"loss": "%d"}, "time": 1732620000.125}\n' % number

    def source(self, folder: Path) -> Path:
        (folder / "notes").mkdir(exist_ok=True)
        return folder / "notes" / "scraped"

    def make_collector(self, folder: Path) -> Collector:
        scrape = Scrape(port=1, path="/metrics")  # nobody listens there
        return collectors.create(
            CollectorSpec(kind="PrometheusMetric", metrics=METRICS, scrape=scrape), sources(folder)
        )


class TestTensorFlowEvent(CollectorContract):
    sample = version() + b"".join(
        event(scalar("loss", 1 / (step + 1)), scalar("accuracy", step), step=step) for step in range(4)
    )
    pieces = (1, 7, 64)
    cut_every = 3

    def source(self, folder: Path) -> Path:
        return event_file(folder / "events" / "run")

    def make_collector(self, folder: Path) -> Collector:
        spec = CollectorSpec(kind="TensorFlowEvent", metrics=METRICS)
        return collectors.create(spec, sources(folder, path=folder / "events"))
