"""Every case of Katib's own file-metricscollector test, and of its documented parsing rules.

Where Katib gives up on the whole file (`unavailable`, a bad line), no point of the objective, or all other lines.
"""

# ruff: noqa: E501 - the lines are Katib's
from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from evertune.domain.metrics import CollectorSpec
from evertune.errors import LaunchError
from tests.unit.collectors.reading import collector, read

BRACES = r"{metricName: ([\w|-]+), metricValue: ((-?\d+)(\.\d+)?)}"
AT = datetime(2024, 3, 4, 17, 55, 8, tzinfo=UTC).timestamp()

TEXT: dict[str, tuple[str, tuple[str, ...], list[tuple[str, str, float | None]]]] = {
    "several metrics in a line, a line without time": (
        """2024-03-04T17:55:08Z INFO     {metricName: accuracy, metricValue: 0.8078};{metricName: loss, metricValue: 0.5183}
2024-03-04T17:55:08Z INFO     {metricName: accuracy, metricValue: 0.6752}
2024-03-04T17:55:08Z INFO     {metricName: loss, metricValue: 0.3634}
2024-03-04T17:55:08Z INFO     {metricName: accuracy, metricValue: 100}
2024-03-04T17:55:08Z INFO     {metricName: accuracy, metricValue: 888.333}
2024-03-04T17:55:08Z INFO     {metricName: accuracy, metricValue: -0.4759}
{metricName: loss, metricValue: 0.8671}""",
        (BRACES,),
        [
            ("accuracy", "0.8078", AT),
            ("loss", "0.5183", AT),
            ("accuracy", "0.6752", AT),
            ("loss", "0.3634", AT),
            ("accuracy", "100", AT),
            ("accuracy", "888.333", AT),
            ("accuracy", "-0.4759", AT),
            ("loss", "0.8671", None),
        ],
    ),
    "values that the filter refuses": (
        """2024-03-04T17:55:08Z INFO     {metricName: accuracy, metricValue: .333}
2024-03-04T17:55:08Z INFO     {metricName: accuracy, metricValue: -.333}
2024-03-04T17:55:08Z INFO     {metricName: accuracy, metricValue: - 345.333}
2024-03-04T17:55:08Z INFO     {metricName: accuracy, metricValue: 888.}""",
        (BRACES,),
        [],
    ),
    "a line that is cut short; Katib calls all unavailable": (
        """2024-03-04T17:55:08Z INFO     {metricName: accuracy, metricValue: 0.6752
2024-03-04T17:55:08Z INFO     {metricName: loss, metricValue: 0.3634}""",
        (BRACES,),
        [("loss", "0.3634", AT)],
    ),
    "a bad time is no time": (
        """2024-03-04T17:55:08Z INFO     {metricName: accuracy, metricValue: 0.6752}
invalid INFO     {metricName: loss, metricValue: 0.3634}""",
        (BRACES,),
        [("accuracy", "0.6752", AT), ("loss", "0.3634", None)],
    ),
    "no objective, and the default filter does not know braces": (
        """2024-03-04T17:55:08Z INFO     {metricName: loss, metricValue: 0.3634}
2024-03-04T17:55:08Z INFO     {metricName: loss, metricValue: 0.8671}""",
        (),
        [],
    ),
    "Katib's zero time is no time": ("0001-01-01T00:00:00Z accuracy=0.5", (), [("accuracy", "0.5", None)]),
    "a time alone on its line": ("2024-03-04T17:55:08Z", (), []),
    "nanoseconds and an offset": (
        "2024-03-04T18:55:08.500000000+01:00 accuracy=0.5",
        (),
        [("accuracy", "0.5", AT + 0.5)],
    ),
    "regex by regex, match by match": (
        "accuracy=1 loss=2\naccuracy=3",
        (r"(loss)=(\d)", r"(accuracy)=(\d)"),
        [("loss", "2", None), ("accuracy", "1", None), ("accuracy", "3", None)],
    ),
    "groups are trimmed and values need not be numbers": (
        "( accuracy )[ a word ]",
        (r"\((.*?)\)\[(.*?)\]",),
        [("accuracy", "a word", None)],
    ),
    "a filter with a semicolon is one filter": ("accuracy;5", (r"(\w+);(\d)",), [("accuracy", "5", None)]),
    "a name must be equal, not only contained": ("my_accuracy=1 accuracy2=2", (), []),
    "a line of another metric": ("other=1", (), []),
    "the end of a line is matched at its very end": ("loss=1\nloss=2 ", (r"(loss)=(\d)$",), [("loss", "1", None)]),
    "classes are ASCII": ("accuracy=٣", (r"(\w+)=(\d+)",), []),
}

JSON: dict[str, tuple[str, list[tuple[str, str, float | None, int | None]]]] = {
    "strings, floats and missing times": (
        """{"checkpoint_path": "", "global_step": "0", "loss": "0.22082142531871796", "timestamp": 1638422847.28721, "trial": "0"}
{"acc": "0.9349666833877563", "checkpoint_path": "", "global_step": "0", "timestamp": 1638422847.287801, "trial": "0"}
{"checkpoint_path": "", "global_step": "1", "loss": "0.1414974331855774", "timestamp": "2021-12-02T14:27:50.000035161Z", "trial": "0"}
{"acc": "0.9586416482925415", "checkpoint_path": "", "global_step": "1", "timestamp": "2021-12-02T14:27:50.000037459Z", "trial": "0"}
{"checkpoint_path": "", "global_step": "2", "loss": "0.10683439671993256", "trial": "0"}""",
        [
            ("loss", "0.22082142531871796", 1638422847.28721, 0),
            ("acc", "0.9349666833877563", 1638422847.287801, 0),
            ("loss", "0.1414974331855774", 1638455270.000035, 1),
            ("acc", "0.9586416482925415", 1638455270.000037, 1),
            ("loss", "0.10683439671993256", None, 2),
        ],
    ),
    "bad lines cost themselves": (
        """"checkpoint_path": "", "global_step": "0", "loss": "0.22082142531871796", "timestamp": 1638422847.28721, "trial": "0"
{"acc": "0.9349666833877563", "checkpoint_path": "", "global_step": "0", "timestamp": 1638422847.287801, "trial": "0""",
        [],
    ),
    "a bad time is no time, a whole one is one": (
        """{"checkpoint_path": "", "global_step": "0", "loss": "0.22082142531871796", "timestamp": "invalid", "trial": "0"}
{"acc": "0.9349666833877563", "checkpoint_path": "", "global_step": "0", "timestamp": 1638422847, "trial": "0"}""",
        [("loss", "0.22082142531871796", None, 0), ("acc", "0.9349666833877563", 1638422847.0, 0)],
    ),
    "no objective": (
        """{"checkpoint_path": "", "global_step": "0", "loss": "0.22082142531871796", "timestamp": 1638422847.28721, "trial": "0"}
{"checkpoint_path": "", "global_step": "1", "loss": "0.1414974331855774", "timestamp": "2021-12-02T14:27:50.000035161+09:00", "trial": "0"}
{"checkpoint_path": "", "global_step": "2", "loss": "0.10683439671993256", "trial": "0"}""",
        [
            ("loss", "0.22082142531871796", 1638422847.28721, 0),
            ("loss", "0.1414974331855774", 1638422870.000035, 1),
            ("loss", "0.10683439671993256", None, 2),
        ],
    ),
    "numbers count, unlike in Katib, as they were written": (
        '{"acc": 0.90, "loss": -7.53e-05}\n{"acc": 1, "loss": NaN}\n{"acc": 12345678901234567890123}',
        [
            ("acc", "0.90", None, None),
            ("loss", "-7.53e-05", None, None),
            ("acc", "1", None, None),
            ("loss", "NaN", None, None),
            ("acc", "12345678901234567890123", None, None),
        ],
    ),
    "true, null, lists and objects do not": ('{"acc": true, "loss": null}\n{"acc": [1], "loss": {"a": 1}}', []),
    "blank lines are skipped": ('\n\n{"acc": "1"}\n   \n', [("acc", "1", None, None)]),
    "a fraction of a second is one, not nanoseconds": (
        '{"acc": 1, "timestamp": 1700000000.25}',
        [("acc", "1", 1700000000.25, None)],
    ),
    "wanted metrics come in their order": (
        '{"loss": "2", "acc": "1"}',
        [("acc", "1", None, None), ("loss", "2", None, None)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TEXT)
def test_text_is_parsed_as_katib_does(case: str, tmp_path: Path) -> None:
    content, filters, expected = TEXT[case]
    points, _ = read(tmp_path, content, "accuracy", "loss", filters=filters)
    assert [(point.metric, point.value, point.timestamp) for point in points] == expected


@pytest.mark.parametrize("case", JSON)
def test_json_is_parsed_as_katib_does_or_better(case: str, tmp_path: Path) -> None:
    content, expected = JSON[case]
    points, _ = read(tmp_path, content, "acc", "loss", format="JSON")
    found = [(point.metric, point.value, point.step) for point in points]
    assert found == [(metric, value, step) for metric, value, _, step in expected]
    assert [point.timestamp for point in points] == [pytest.approx(time, abs=1e-5) for _, _, time, _ in expected]


def test_a_file_that_never_came_has_no_points(tmp_path: Path) -> None:
    spec = CollectorSpec(kind="File", metrics=("acc",), format="JSON")
    reader = collector(tmp_path, spec, path=tmp_path / "nothing")
    assert [*reader.read(), *reader.finish()] == []


def test_an_unknown_format_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="a metrics file of format invalid cannot be read"):
        read(tmp_path, "", "acc", format="invalid")
