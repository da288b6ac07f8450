"""Collects what is wrong with one document: errors and warnings with their places, each mistake once.

Rules speak Katib's field paths; this class adds lines, translates paths of a short form back to what the user wrote,
and keeps quiet about anything below a value whose very type was wrong: one mistake, one message.
"""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Callable, Iterable
from typing import Any

from evertune.errors import Problem, ProblemType
from evertune.spec.document import Document, Position

MAX_PROBLEMS = 100


class Findings:
    def __init__(self, document: Document | None = None) -> None:
        self._document = document
        self._translate: Callable[[str], str] = lambda path: path
        self._broken: set[str] = set()
        self._seen: set[tuple[str, str]] = set()
        self._errors: list[Problem] = []
        self._warnings: list[Problem] = []

    def translate_with(self, translate: Callable[[str], str]) -> None:
        """From here on paths are those of an expanded short form; `translate` gives the user's own."""
        self._translate = translate

    def translate_first(self, translate: Callable[[str], str]) -> None:
        """The same for what is rewritten after the expansion: `translate` comes before what there is already."""
        then = self._translate
        self._translate = lambda path: then(translate(path))

    def error(
        self, path: str, type_: ProblemType, message: str, hint: str | None = None, *, at: str | None = None
    ) -> None:
        """Report a broken rule. `at` is where the offending value stands when that is not `path` itself."""
        if not self.broken(at or path):
            self._add(self._errors, path, type_, message, hint, self._place(at or path))

    def warn(
        self, path: str, message: str, hint: str | None = None, *, at: str | None = None, type_: ProblemType = "Invalid"
    ) -> None:
        if not self.broken(at or path):
            self._add(self._warnings, path, type_, message, hint, self._place(at or path))

    def wrong_key(self, path: str, message: str, hint: str | None, *, warning: bool = False) -> None:
        """Report a key that is not known; the place is that of the key, not of what stands behind it."""
        if not self.broken(path):
            place = self._document.keys.get(self._translate(path)) if self._document else None
            target = self._warnings if warning else self._errors
            self._add(target, path, "Invalid", message, hint, place or self._place(path))

    def written(self, path: str) -> str | None:
        """A number, boolean or null as the user spelled it (`1e-5`, `010`, `yes`); None where that is not known."""
        return self._document.raw.get(self._translate(path)) if self._document else None

    def mistyped(self, path: str, message: str, hint: str | None = None) -> None:
        """Report a value of the wrong JSON type and silence everything at and below it."""
        self.error(path, "Invalid", message, hint)
        self._broken.add(path)

    def silence(self, path: str) -> None:
        """What is wrong at or below `path` has been said already, in other words."""
        self._broken.add(path)

    def broken(self, path: str) -> bool:
        if not self._broken:
            return False
        while path:
            if path in self._broken:
                return True
            path = path[: path.rindex("[")] if path.endswith("]") and "[" in path else path.rpartition(".")[0]
        return False

    @property
    def full(self) -> bool:
        """Enough has been said: loops over the document may stop."""
        return len(self._errors) >= MAX_PROBLEMS

    @property
    def full_of_warnings(self) -> bool:
        return len(self._warnings) >= MAX_PROBLEMS

    def adopt(self, problems: Iterable[Problem]) -> None:
        """Take over problems found elsewhere (an algorithm's own check), with their places."""
        for problem in problems:
            self.error(problem.path, problem.type, problem.message, problem.hint)

    def adopt_warnings(self, warnings: Iterable[Problem]) -> None:
        for warning in warnings:
            self.warn(warning.path, warning.message, warning.hint, type_=warning.type)

    def has_errors_below(self, prefix: str) -> bool:
        own = self._translate(prefix)
        return any(problem.path.startswith((prefix, own)) for problem in self._errors)

    @property
    def errors(self) -> list[Problem]:
        return _in_file_order(self._errors)

    @property
    def warnings(self) -> list[Problem]:
        return _in_file_order(self._warnings)

    def _place(self, path: str) -> Position | None:
        return self._document.locate(self._translate(path)) if self._document else None

    def _add(
        self,
        target: list[Problem],
        path: str,
        type_: ProblemType,
        message: str,
        hint: str | None,
        place: Position | None,
    ) -> None:
        if len(target) >= MAX_PROBLEMS:
            return
        shown = self._translate(path)
        if (shown, message) in self._seen:
            return
        self._seen.add((shown, message))
        line, column = (place.line, place.column) if place else (None, None)
        hint = None if hint is None else one_line(hint)
        target.append(Problem(path=shown, type=type_, message=one_line(message), hint=hint, line=line, column=column))


def _in_file_order(problems: list[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda p: (p.line is None, p.line or 0, p.column or 0))


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The closest known word, compared without case, dashes and underscores."""
    if not word or len(word) > 80:
        return None
    folded = {_fold(candidate): candidate for candidate in itertools.islice(known, 200)}
    close = difflib.get_close_matches(_fold(word), list(folded), n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def _fold(word: str) -> str:
    return word.lower().replace("_", "").replace("-", "")


def suggestion(word: str, known: Iterable[str], label: str) -> str:
    """The hint for a word that is not one of `known`: the closest, then all of them."""
    names = list(known)
    close = did_you_mean(word, names)
    listed = f"{label}: {' '.join(names[:20])}{' …' if len(names) > 20 else ''}"
    return f"did you mean {quote(close)}?; {listed}" if close else listed


def one_line(text: str) -> str:
    """With line breaks and other control characters escaped: names come from files, sentences go to terminals."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def quote(value: Any) -> str:
    """A value as it is shown in a message: JSON, at most 60 characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:58]}…{text[-1]}"
