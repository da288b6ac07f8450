"""`evertune algorithms`: a line for each, or all about one."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from evertune.cli.output.marks import Marks
from evertune.cli.output.table import Column, table
from evertune.cli.output.text import Line

if TYPE_CHECKING:
    from algorithms.catalogue import Entry
    from evertune.domain.setting import Rule

# Feature -> its column; the rest is in the page of one algorithm.
COLUMNS = {
    "objectives": "MULTI",
    "constraints": "CONSTR",
    "when": "WHEN",
    "warmStart": "WARM",
    "nasConfig": "NAS",
    "earlyStopping": "EARLY",
}
WORDS = {
    "objectives": "several objectives",
    "constraints": "constraints on metrics",
    "parameterConstraints": "constraints between parameters",
    "when": "conditional parameters",
    "initialTrials": "initial trials",
    "warmStart": "warm start from other experiments",
    "onDuplicate": "onDuplicate",
    "onFailure": "onFailure: worst",
    "earlyStopping": "early stopping",
    "nasConfig": "architectures (nasConfig)",
}
WIDTH = 100


def every(entries: Sequence[Entry], *, width: int | None, wide: bool, marks: Marks) -> list[Line]:
    names, abouts = Column("NAME"), Column("WHAT IT IS", wraps=True, optional=wide)
    features = {feature: Column(header) for feature, header in COLUMNS.items()} if wide else {}
    for entry in entries:
        names.add(entry.name)
        for feature, column in features.items():
            column.add("yes" if feature in entry.supports else marks.dash)
        abouts.add(entry.about)
    return table([names, *features.values(), abouts], width=width, ellipsis=marks.ellipsis).lines


def rule(entry: Entry, *, width: int | None) -> list[Line]:
    """A rule of early stopping."""
    room = min(width or WIDTH, WIDTH)
    lines: list[Line] = [[(entry.name, "bold"), (", a rule of early stopping", "")]]
    lines += _wrapped(entry.about, room)
    return [
        *lines,
        [],
        [("settings", "dim")],
        *(_settings(entry.settings, width) if entry.settings else [[("  none", "")]]),
    ]


def one(entry: Entry, *, width: int | None) -> list[Line]:
    room = min(width or WIDTH, WIDTH)
    lines: list[Line] = [[(entry.name, "bold")]]
    lines += _wrapped(entry.about, room)
    if entry.advice:
        lines += _wrapped(entry.advice, room)
    lines += [[], *_labelled("searches", ", ".join(entry.types) or "architectures", room)]
    lines += _labelled("supports", ", ".join(WORDS[feature] for feature in entry.supports) or "one objective", room)
    lines += [[], [("settings", "dim")]]
    if not entry.settings:
        lines.append([("  none", "")])
    lines += list(_settings(entry.settings, width))
    return lines


def _settings(settings: Mapping[str, Rule], width: int | None) -> Iterator[Line]:
    names, defaults, rules = Column("  NAME"), Column("DEFAULT", wraps=True), Column("MUST BE", wraps=True)
    meanings = Column("MEANING", wraps=True)
    for name, rule in settings.items():
        names.add(f"  {name}")
        defaults.add("required" if rule.default is None else rule.default)
        rules.add(rule.must_be)
        meanings.add(rule.meaning)
    if settings:
        yield from table([names, defaults, rules, meanings], width=width).lines


def _wrapped(text: str, width: int) -> list[Line]:
    return [[(line, "")] for line in textwrap.wrap(text, width)]


def _labelled(label: str, text: str, width: int) -> list[Line]:
    indent = 10
    wrapped = textwrap.wrap(text, max(20, width - indent)) or [""]
    labels = [label, *[""] * (len(wrapped) - 1)]
    return [[(first.ljust(indent), "dim"), (line, "")] for first, line in zip(labels, wrapped, strict=True)]
