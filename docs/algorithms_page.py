"""docs/algorithms.md and its pictures, from what the algorithms say of themselves and from measured quality.

Used by `docs.generate`. The figures are those in docs/quality.json, which `python -m bench.quality` writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from algorithms import catalogue, registry
from algorithms.stoppers import registry as stoppers
from evertune.domain.setting import Rule
from evertune.protocols import Feature

DOCS = Path(__file__).parent
QUALITY = DOCS / "quality.json"
IMAGES = DOCS / "images"

FEATURES: Mapping[Feature, str] = {
    Feature.OBJECTIVES: "`objectives`",
    Feature.CONSTRAINTS: "`constraints`",
    Feature.PARAMETER_CONSTRAINTS: "`parameter-` `Constraints`",
    Feature.WHEN: "`when`",
    Feature.INITIAL_TRIALS: "`initial-` `Trials`",
    Feature.WARM_START: "`warmStart`",
    Feature.ON_DUPLICATE: "`onDuplicate`",
    Feature.ON_FAILURE: "`onFailure`",
    Feature.EARLY_STOPPING: "`early-` `Stopping`",
    Feature.NAS_CONFIG: "`nasConfig`",
}
TITLES = {
    "branin": "Branin (least value 0.3979)",
    "hartmann6": "Hartmann6 (least value -3.3224)",
    "mixed": "Mixed: two doubles, two ints, two categories (least value 0)",
    "svm-digits": "SVM on handwritten digits, its error",
    "zdt1": "ZDT1 in five dimensions, two objectives: hypervolume below (1.1, 11), more is better",
}
COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#9d755d", "#888888")


def pages(note: str) -> dict[Path, str]:
    rows = json.loads(QUALITY.read_text())
    pictures = {
        IMAGES / f"quality-{problem}.svg": picture(problem, [row for row in rows if row["problem"] == problem])
        for problem in TITLES
    }
    return {DOCS / "algorithms.md": page(note, rows), **pictures}


def page(note: str, rows: Sequence[Mapping[str, Any]]) -> str:
    entries = [catalogue.entry(name) for name in registry.BUILT_IN]
    header = " | ".join(FEATURES.values())
    matrix = "\n".join(
        f"| [{entry.name}](#{entry.name}) | "
        + " | ".join("yes" if feature in entry.supports else "" for feature in FEATURES)
        + " |"
        for entry in entries
    )
    sections = "\n\n".join(section(entry) for entry in entries)
    rules = "\n\n".join(stopper(name) for name in stoppers.BUILT_IN)
    quality = "\n\n".join(table(problem, rows) for problem in TITLES)
    return f"""{note}

# Algorithms

`evertune algorithms` prints this list, and `evertune algorithms NAME` one of them with its settings. What an experiment
asks for and its algorithm cannot do is refused at submit, by name, with those that can.

Which to take: `auto` decides by space, budget, parallelism and objectives, and `evertune get` says why. By hand:

- a few expensive trials, a few at a time: `bayesianoptimization`, or `gp` where PyTorch may be installed;
- anything else up to some hundred trials: `multivariate-tpe`, or Katib's `tpe`;
- many trials over numbers alone: `cmaes`;
- several objectives: `motpe`; with very many short trials `nsgaii`;
- training that can go on from a checkpoint: `asha`, `hyperband`, `bohb`; weights handed on: `pbt`;
- architectures (`nasConfig`): `nas-evolution`, `enas`, `darts`, or any sampler marked below;
- a baseline to beat: `random`, `sobol`; a small space, all of it: `grid`.

| | {header} |
|---|{"---|" * len(FEATURES)}
{matrix}

Every sequence is the library's own, bit for bit: with one trial at a time an experiment gives exactly the parameters of
the native loop with that seed, and a parallel one can be recomputed from its record (`evertune replay NAME --verify`).
The versions of the libraries are kept with the experiment; under others the search goes on with independent seeds, and
says so.
Neither the number of cores nor that of threads changes a bit of it. On a processor of another type the last bits of the
models of `bayesianoptimization` and `gp` may differ, and soon their points.

{sections}

# Early stopping

[How it works](early-stopping.md). The rules and their settings:

{rules}

# How good they are

Best value found, mean and 95 % interval over the seeds, after the evaluations named; with 8 at once trials end in any
order, the same for all. *Native* is the library's own live object, driven as its user would. Measured by
`python -m bench.quality --out docs/quality.json`; less is better but for ZDT1.

{quality}
"""


def section(entry: catalogue.Entry) -> str:
    words = [f"## {entry.name}", entry.about, entry.advice]
    searches = ", ".join(entry.types) or "architectures"
    supports = ", ".join(f"`{feature}`" for feature in entry.supports) or "one objective"
    words.append(f"Searches: {searches}. Supports: {supports}.")
    return "\n\n".join([*words, *settings(entry.settings)])


def stopper(name: str) -> str:
    kind = stoppers.get(name)
    return "\n\n".join([f"## {name}", kind.about, *settings(stoppers.settings_of(name))])


def settings(rules: Mapping[str, Rule]) -> Iterator[str]:
    if not rules:
        yield "It has no settings."
        return
    rows = "\n".join(
        f"| `{name}` | {'**required**' if rule.default is None else rule.default} | {rule.must_be} | {rule.meaning} |"
        for name, rule in rules.items()
    )
    yield f"| setting | default | must be | meaning |\n|---|---|---|---|\n{rows}"


def table(problem: str, rows: Sequence[Mapping[str, Any]]) -> str:
    found: dict[tuple[str, int, int], dict[tuple[str, int], Mapping[str, Any]]] = {}
    for row in rows:
        if row["problem"] == problem:
            key = (row["subject"], row["budget"], row["seeds"])
            found.setdefault(key, {})[row["driver"], row["parallel"]] = row
    columns = [("ours", 1), ("native", 1), ("ours", 8), ("native", 8)]
    lines = []
    for (subject, budget, seeds), cells in sorted(found.items(), key=lambda pair: _order(pair[0][0])):
        shown = (_cell(cells.get(column)) for column in columns)
        lines.append(f"| {subject} | {budget} | {seeds} | {' | '.join(shown)} |")
    return "\n".join(
        [
            f"## {TITLES[problem]}",
            "",
            f"![{TITLES[problem]}](images/quality-{problem}.svg)",
            "",
            "| | evaluations | seeds | 1 at once | native | 8 at once | native |",
            "|---|---|---|---|---|---|---|",
            *lines,
        ]
    )


def _order(subject: str) -> int:
    return list(registry.BUILT_IN).index(subject.partition(" ")[0])


def _cell(row: Mapping[str, Any] | None) -> str:
    return "" if row is None else f"{row['mean']:.4g} ± {row['half']:.2g}"


# ---------------------------------------------------------------------------------------------------- pictures

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 360, 60, 200, 20, 40


def picture(problem: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The mean of the best so far by evaluations, ours, one trial at a time."""
    curves = {row["subject"]: row["curve"] for row in rows if (row["driver"], row["parallel"]) == ("ours", 1)}
    subjects = sorted(curves, key=_order)
    most = max((len(curve) for curve in curves.values()), default=1)
    # The first few evaluations are luck, and would flatten all that follows.
    values = [value for curve in curves.values() for value in curve[4:]]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    high = high if high > low else low + 1

    def x(index: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * index / max(most - 1, 1)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (min(max(value, low), high) - low) / (high - low))

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"'
        ' font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}" fill="none" stroke="#444"/>',
    ]
    for share in range(5):
        value = low + (high - low) * share / 4
        parts.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:.0f}" text-anchor="end" fill="#444">{value:.3g}</text>')
        index = round((most - 1) * share / 4)
        parts.append(
            f'<text x="{x(index):.0f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle" fill="#444">{index + 1}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{HEIGHT - 6}" text-anchor="middle" fill="#444">evaluations</text>')
    for number, subject in enumerate(subjects):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(f"{x(index):.1f},{y(value):.1f}" for index, value in enumerate(curves[subject]))
        dashes = ' stroke-dasharray="5 3"' if subject in ("random", "sobol") else ""
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8"{dashes}/>')
        height = TOP + 14 + 18 * number
        parts.append(f'<text x="{WIDTH - RIGHT + 12}" y="{height}" fill="{colour}">{subject}</text>')
    return "\n".join([*parts, "</svg>", ""])
