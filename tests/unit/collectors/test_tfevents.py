"""Event files as TensorFlow 1 and 2, PyTorch and tensorboardX write them, whole, torn, damaged and hostile."""

from __future__ import annotations

import gzip
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tensorboardX import SummaryWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.proto.tensor_pb2 import TensorProto
from tensorboardX.proto.tensor_shape_pb2 import TensorShapeProto

from collectors import tfevents
from evertune.domain.metrics import CollectorSpec, Point, event_source, place
from evertune.errors import LaunchError
from evertune.protocols import Collector
from tests.repository.checkout import ROOT
from tests.unit.collectors.events import WHEN, event, event_file, masked, record, scalar, scalar_event, version
from tests.unit.collectors.reading import collector


def reader(folder: Path, *metrics: str) -> Collector:
    spec = CollectorSpec(kind="TensorFlowEvent", metrics=metrics, path="/logs", path_kind="Directory")
    return collector(folder.parent / "home", spec, path=folder)


def everything(folder: Path, *metrics: str) -> list[Point]:
    made = reader(folder, *metrics)
    return [*made.read(), *made.finish()]


def found(folder: Path, *metrics: str) -> list[tuple[str, str]]:
    return [(point.metric, point.value) for point in everything(folder, *metrics)]


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    return tmp_path / "logs"


def tensor(dtype: int, *, shape: tuple[int, ...] = (), **fields: Any) -> Any:
    dims = [TensorShapeProto.Dim(size=size) for size in shape]
    return TensorProto(dtype=dtype, tensor_shape=TensorShapeProto(dim=dims), **fields)


def test_what_tensorboardx_writes_is_read(logs: Path) -> None:
    with SummaryWriter(str(logs / "run")) as writer:
        for step in range(5):
            writer.add_scalar("loss", 1 / (step + 3), step, walltime=WHEN + step)
            writer.add_scalar("train/accuracy", 0.1 * step, step, walltime=WHEN + step)
        writer.add_text("genotype", "normal=[('a', 1)]", 4, walltime=WHEN)
    points = everything(logs, "loss", "train/accuracy")
    assert [(point.metric, point.value, point.step, point.timestamp) for point in points if point.metric == "loss"] == [
        ("loss", text, step, WHEN + step)
        for step, text in enumerate(["0.33333334", "0.25", "0.2", "0.16666667", "0.14285715"])
    ]
    accuracy = [point.value for point in points if point.metric == "train/accuracy"]
    assert accuracy == ["0.0", "0.1", "0.2", "0.3", "0.4"]
    assert found(logs, "genotype") == [("genotype", "normal=[('a', 1)]")]


def test_what_tensorflow_2_and_1_write_is_read(tmp_path: Path) -> None:
    metrics = ("accuracy", "genotype", "v1/loss", "v1/accuracy", "train/loss")
    spec = CollectorSpec(kind="TensorFlowEvent", metrics=metrics)
    made = collector(tmp_path, spec, path=ROOT / "tests" / "data" / "events")
    points = made.finish()
    values = {metric: [point.value for point in points if point.metric == metric] for metric in metrics}
    assert values == {
        "accuracy": ["0.0", "0.1", "0.2", "0.3", "0.4"],
        "genotype": ["g0", "g1", "g2", "g3", "g4"],
        "v1/loss": ["1.0", "0.5", "0.33333334", "0.25", "0.2"],
        "v1/accuracy": [],
        "train/loss": [],
    }
    assert [point.step for point in points if point.metric == "v1/loss"] == [0, 1, 2, 3, 4]
    assert made.findings().warnings == ()


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (tensor(1, float_val=[0.1]), "0.1"),
        (tensor(1, tensor_content=struct.pack("<f", 1e-7)), "1e-07"),
        (tensor(1, tensor_content=struct.pack("<f", 16777216.0)), "16777216.0"),
        (tensor(1, tensor_content=struct.pack("<f", 1e20)), "1e+20"),
        (tensor(1, tensor_content=struct.pack("<f", float("nan"))), "nan"),
        (tensor(1, float_val=[float("-inf")]), "-inf"),
        (tensor(2, double_val=[0.1]), "0.1"),
        (tensor(2, tensor_content=struct.pack("<d", 1 / 3)), "0.3333333333333333"),
        (tensor(3, int_val=[-5]), "-5"),
        (tensor(9, tensor_content=struct.pack("<q", 1 << 40)), str(1 << 40)),
        (tensor(10, bool_val=[True]), "True"),
        (tensor(19, half_val=[0x2E66]), "0.1"),
        (tensor(14, half_val=[0x3FC0]), "1.5"),
        (tensor(14, tensor_content=b"\xc0\x3f"), "1.5"),
        (tensor(7, string_val=["Genotype(a=1)é".encode()]), "Genotype(a=1)é"),
        (tensor(7, shape=(1,), string_val=[b"text"]), "text"),
        (tensor(1, shape=(2,), float_val=[0.5, 0.25]), "[0.5, 0.25]"),
        (tensor(1, shape=(3,), float_val=[0.5]), "[0.5, 0.5, 0.5]"),
        (tensor(7, string_val=[b"\x89PNG\xff"]), None),
        (tensor(1, shape=(1000,), tensor_content=b"\0" * 4000), None),
        (tensor(1, tensor_content=b"\0"), None),
        (tensor(8, tensor_content=b"\0" * 8), None),
        (tensor(1), None),
        (tensor(1, shape=(-1,), float_val=[1]), None),
        (tensor(1, float_val=[1, 2, 3]), None),
    ],
)
def test_tensors_of_tensorflow_2_have_the_text_of_their_type(made: Any, text: str | None, logs: Path) -> None:
    event_file(logs).write_bytes(version() + event(Summary.Value(tag="loss", tensor=made)) + scalar_event("loss", 9))
    assert found(logs, "loss") == [("loss", text)] * (text is not None) + [("loss", "9.0")]


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("accuracy", ["train 1.0", "train 2.0", "test 3.0", "top 4.0"]),
        ("train/accuracy", ["train 1.0", "train 2.0"]),
        ("test/accuracy", ["test 3.0"]),
        ("run/test/accuracy", ["test 3.0"]),
        ("rain/accuracy", ["train 1.0", "train 2.0"]),
        ("validation/accuracy", []),
        ("acc", ["train 1.0", "train 2.0", "test 3.0", "top 4.0"]),
        ("accuracy_1", ["train 2.0"]),
        ("curacy", []),
        ("group/f1", ["top 5.0"]),
    ],
)
def test_tags_and_directories_are_matched_as_katib_does(metric: str, expected: list[str], logs: Path) -> None:
    event_file(logs / "run" / "train").write_bytes(scalar_event("accuracy", 1) + scalar_event("accuracy_1", 2))
    event_file(logs / "run" / "test").write_bytes(scalar_event("accuracy", 3))
    event_file(logs).write_bytes(scalar_event("accuracy", 4) + scalar_event("group/f1", 5))
    places = {
        event_source(f"{folder}events.out.tfevents.1.host"): name
        for folder, name in (("run/train/", "train"), ("run/test/", "test"), ("", "top"))
    }
    points = everything(logs, metric)
    assert {point.metric for point in points} <= {metric}
    assert sorted(f"{places[point.seq >> 42]} {point.value}" for point in points) == sorted(expected)


def test_two_tags_of_one_event_have_places_of_their_own(logs: Path) -> None:
    event_file(logs).write_bytes(version() + event(scalar("loss", 1), scalar("loss_2", 2), step=3))
    points = everything(logs, "loss")
    first = place(event_source("events.out.tfevents.1.host"), len(version()))
    assert [(point.seq, point.value, point.step) for point in points] == [(first, "1.0", 3), (first + 1, "2.0", 3)]


def test_files_and_directories_that_appear_later_are_read(logs: Path) -> None:
    made = reader(logs, "loss")
    assert made.read() == []
    event_file(logs / "a" / "b").write_bytes(scalar_event("loss", 1))
    assert made.has_more()
    assert [point.value for point in made.read()] == ["1.0"]
    other = event_file(logs / "a", "other")
    other.write_bytes(scalar_event("loss", 2)[:-3])
    assert made.has_more()
    assert made.read() == []
    other.write_bytes(scalar_event("loss", 2) + scalar_event("loss", 3))
    assert made.has_more()
    assert [point.value for point in made.read()] == ["2.0", "3.0"]


def test_what_is_no_event_file_is_left_alone(logs: Path) -> None:
    (logs / "checkpoint.bin").write_bytes(b"\0" * 1000)
    (logs / "events.out.tfevents.2.gz").write_bytes(gzip.compress(b"\0" * 50_000_000))
    (logs / "notes.txt").write_text("loss=3\n" * 100)
    (logs / "short").write_bytes(b"x")
    (logs / "link").symlink_to("/dev/zero")
    event_file(logs).write_bytes(scalar_event("loss", 1))
    made = reader(logs, "loss")
    assert [point.value for point in made.finish()] == ["1.0"]
    assert made.findings().warnings == ()


def test_a_damaged_record_ends_its_file_with_a_warning(logs: Path) -> None:
    good = scalar_event("loss", 1)
    bad = bytearray(scalar_event("loss", 2))
    bad[20] ^= 1
    event_file(logs, "data").write_bytes(good + bytes(bad) + good)
    event_file(logs, "length").write_bytes(good + b"\xff" * 12 + good)
    no_event = record(b"\xff\xff not a message")
    event_file(logs, "message").write_bytes(good + no_event + good)
    made = reader(logs, "loss")
    assert [point.value for point in made.finish()] == ["1.0"] * 4
    assert made.findings().warnings == (
        f"data is damaged at byte {len(good)}; it is not read any further",
        f"length is damaged at byte {len(good)}; it is not read any further",
        f"a record of message at byte {len(good)} is no event and was skipped",
    )


def test_a_record_that_is_too_long_is_skipped_without_being_read(logs: Path) -> None:
    length = struct.pack("<Q", tfevents.RECORD_LIMIT + 1)
    file = event_file(logs)
    file.write_bytes(scalar_event("loss", 1) + length + masked(length))
    with file.open("r+b") as content:
        content.truncate(file.stat().st_size + tfevents.RECORD_LIMIT + 5)
        content.seek(0, 2)
        content.write(scalar_event("loss", 2))
    made = reader(logs, "loss")
    assert [point.value for point in made.finish()] == ["1.0", "2.0"]
    assert made.findings().warnings == (f"a record of {tfevents.RECORD_LIMIT + 1:,} bytes in {file.name} was skipped",)


def test_a_length_that_is_never_reached_waits_for_nothing(logs: Path) -> None:
    length = struct.pack("<Q", 1 << 62)
    event_file(logs).write_bytes(scalar_event("loss", 1) + length + masked(length) + b"x" * 100)
    assert found(logs, "loss") == [("loss", "1.0")]


def test_a_wall_time_that_lies_is_missing(logs: Path) -> None:
    event_file(logs).write_bytes(
        event(scalar("loss", 1), when=0) + event(scalar("loss", 2), when=WHEN + 50 * 365 * 86400)
    )
    made = reader(logs, "loss")
    assert [point.timestamp for point in made.finish()] == [None, None]
    assert made.findings().warnings[0].startswith("2 times are more than a day in the future or before 2000")


def test_a_read_is_bounded_and_the_rest_follows(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfevents, "READ_POINTS", 10)
    event_file(logs).write_bytes(b"".join(scalar_event("loss", number) for number in range(25)))
    made = reader(logs, "loss")
    assert [len(made.read()), made.has_more(), len(made.read()), len(made.finish())] == [10, True, 10, 5]


def test_findings_name_the_tags(logs: Path) -> None:
    event_file(logs).write_bytes(scalar_event("Loss/train", 1))
    made = reader(logs, "loss")
    assert made.finish() == []
    assert made.findings().names_seen == ("Loss/train",)


def test_without_any_tag_it_is_said_what_was_there_instead(logs: Path) -> None:
    def said() -> tuple[str, ...]:
        made = reader(logs, "loss")
        assert made.finish() == []
        return made.findings().warnings

    logs.mkdir(exist_ok=True)
    assert said() == (f"no file was written below {logs}",)
    (logs / "notes.txt").write_text("loss=1")
    assert said() == (f"the one file below {logs} does not hold values of events",)
    (logs / "more.txt").write_text("loss=2")
    assert said() == (f"none of the 2 files below {logs} holds values of events",)


def test_without_a_path_it_cannot_start(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="the collector TensorFlowEvent needs a path"):
        collector(tmp_path, CollectorSpec(kind="TensorFlowEvent", metrics=("loss",)))


def test_the_messages_are_imported_with_the_first_event_file_only() -> None:
    code = (
        "import sys, collectors; from collectors.tfevents import EventCollector;"
        "print([name for name in ('tensorboardX', 'numpy', 'google', 'prometheus_client') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "[]"


def test_events_round_trip() -> None:
    """The helper of these tests writes what the messages say."""
    data = event(scalar("loss", 0.5), step=7)[12:-4]
    assert Event.FromString(data).step == 7
