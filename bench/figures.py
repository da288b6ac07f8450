"""What a benchmark hands back, and how it is printed: a figure, what it stands beside, and the bound it promises."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured number. `at_most` and `at_least` are the promise; None: told for information."""

    name: str
    value: float
    unit: str
    note: str = ""
    at_most: float | None = None
    at_least: float | None = None

    @property
    def kept(self) -> bool | None:
        """Whether the promise holds; None when there is none."""
        if self.at_most is None and self.at_least is None:
            return None
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )

    @property
    def promise(self) -> str:
        if self.at_most is not None:
            return f"at most {self.at_most:g}"
        return f"at least {self.at_least:g}" if self.at_least is not None else ""

    def as_dict(self) -> dict[str, object]:
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "promise": self.promise,
            "kept": self.kept,
            "note": self.note,
        }

    def line(self) -> str:
        mark = {True: "✔", False: "✘", None: " "}[self.kept]
        return f"{mark} {self.name:<46} {self.value:>9.3g} {self.unit:<9} {self.promise:<14} {self.note}".rstrip()


def broken(figures: Iterable[Figure]) -> list[Figure]:
    return [figure for figure in figures if figure.kept is False]
