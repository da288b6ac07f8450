"""Every collector keeps the contract of `evertune.testing.collectors`."""

from __future__ import annotations

from pathlib import Path

import collectors
from evertune.protocols import Collector, CollectorSpec, Sources
from evertune.testing.collectors import CollectorContract


class TestStdOut(CollectorContract):
    sample = (
        "starting é ✔\n"
        "2024-05-01T10:00:00Z INFO loss=0.5 accuracy=0.1\n"
        "\x1b[32mloss\x1b[0m=\x1b[1m0.4\x1b[0m\r\n"
        "50%|███  | loss=0.35\r100%|██████| loss=0.3\r\n"
        "\n"
    ).encode() + b"\xff\xfe loss=0.25 \xe2\x82 loss=0.2\naccuracy = nan\nseen=1\nloss=0.1"

    def make_collector(self, source: Path) -> Collector:
        return collectors.create(
            CollectorSpec(kind="StdOut", metrics=("loss", "accuracy")), Sources(log=source, notes=source.parent)
        )

    def test_the_sample_holds_what_a_reader_would_find(self, tmp_path: Path) -> None:
        points = self.all_points(tmp_path / "source")
        assert [point.value for point in points if point.metric == "loss"] == [
            "0.5", "0.4", "0.35", "0.3", "0.25", "0.2", "0.1",
        ]  # fmt: skip
        assert [point.value for point in points if point.metric == "accuracy"] == ["0.1", ""]
