"""What a collector left out, counted: one sentence a kind, however often it happened. Called by every collector.

Bounded: a kind keeps its count, where the first one is and what stands there.
"""

from __future__ import annotations

SAID = 200  # characters of the first case

_SENTENCES = {
    "time": (
        "a time is more than a day in the future or before 2000 and counts as missing",
        "times are more than a day in the future or before 2000 and count as missing",
    ),
    "json": ("line is not a JSON object and was left out", "lines are not JSON objects and were left out"),
    "report": ("reported line is not readable and was left out", "reported lines are not readable and were left out"),
    "long": ("value is longer than 64 KiB and was cut", "values are longer than 64 KiB and were cut"),
    "names": (
        "value of a metric beyond the first 256 names was left out",
        "values of metrics beyond the first 256 names were left out",
    ),
    "name": (
        "value was left out: its metric's name is empty or longer than 512 characters",
        "values were left out: their metrics' names are empty or longer than 512 characters",
    ),
    "slow": (
        "line took more than a second to search and was not searched to its end",
        "lines took more than a second to search and were not searched to their end",
    ),
}


class Warnings:
    def __init__(self, unit: str = "line") -> None:
        self._unit = unit
        self._counts: dict[str, int] = {}
        self._firsts: dict[str, str] = {}
        self._texts: dict[str, None] = {}

    def add(self, kind: str, line: int, said: str = "") -> None:
        """One more of `kind`; `line` counts from 1 (or is the byte of a record)."""
        count = self._counts.get(kind, 0)
        self._counts[kind] = count + 1
        if not count:
            self._firsts[kind] = f"{self._unit} {line:,}" + (f": {shown(said[:SAID])}" if said else "")

    def say(self, sentence: str) -> None:
        """A sentence of its own, told once. At most 50 of them."""
        if len(self._texts) < 50:
            self._texts[sentence] = None

    def sentences(self) -> tuple[str, ...]:
        said = []
        for kind, count in self._counts.items():
            one, many = _SENTENCES[kind]
            first = self._firsts[kind]
            said.append(f"1 {one} ({first})" if count == 1 else f"{count:,} {many} (first in {first})")
        return (*said, *self._texts)


def shown(text: str) -> str:
    """A line of anybody's output as people may see it, and databases keep it: no control characters but tabs."""
    return text if text.isprintable() else "".join(c if c.isprintable() or c == "\t" else "?" for c in text)
