"""libyaml's events to plain data with positions.

Built on the event stream, not on PyYAML's composer: events are iterative, so that depth cannot exhaust the C stack.
Scalars follow what `kubectl` makes of them (`yes` is true, `0644` is octal), with YAML 1.2's floats (`1e-3`). Tags
other than YAML's own scalar types are refused: no object is ever built from a file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from evertune.spec.document import MAX_DEPTH, MAX_VALUES, Document, Position, child_path

_Loader: Any = getattr(yaml, "CLoader", yaml.Loader)  # pure Python where libyaml is missing: slower, same events

_INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)\Z")
_BASED = {8: re.compile(r"([-+]?)0o?([0-7_]+)\Z"), 16: re.compile(r"([-+]?)0[xX]([0-9a-fA-F_]+)\Z")}
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_NONFINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z")
_WORDS: dict[str, bool | None] = {
    **{word: None for text in ("null",) for word in (text, text.title(), text.upper(), "~", "")},
    **{word: True for text in ("true", "yes", "on") for word in (text, text.title(), text.upper())},
    **{word: False for text in ("false", "no", "off") for word in (text, text.title(), text.upper())},
}
_TAG = "tag:yaml.org,2002:"


class RefusedError(Exception):
    def __init__(self, message: str, at: Position | None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.at, self.hint = message, at, hint


@dataclass(slots=True)
class _Frame:
    """A mapping or sequence that is being filled. `size` counts values with aliases expanded."""

    value: Any
    path: str
    anchor: str | None
    size: int = 1
    key: str | None = None
    merges: list[dict[str, Any]] = field(default_factory=list)
    merging: bool = False


class Builder:
    """Turns libyaml's events into documents, one at a time."""

    def __init__(self, text: str, source: str) -> None:
        self.events: Iterator[Any] = yaml.parse(text, Loader=_Loader)
        self.source = source
        self.lines = text.split("\n")

    def documents(self) -> Iterator[Document]:
        index = 0
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                document = Document(source=self.source, index=index)
                self._document(document)
                if document.data is not None:
                    yield document
                    index += 1

    def _document(self, document: Document) -> None:
        frames: list[_Frame] = []
        anchors: dict[str, tuple[Any, int]] = {}
        for event in self.events:
            kind = type(event)
            if kind is yaml.ScalarEvent:
                at = self._at(event)
                frame = frames[-1] if frames else None
                if frame is not None and frame.key is None and type(frame.value) is dict:
                    self._key(document, frame, event, at)
                    continue
                path = self._path(frame)
                value = self._scalar(event, at)
                document.positions[path] = at
                size = 1 + len(event.value) // 100  # long texts count more: aliases repeat them
                if value is None or type(value) is not str:
                    document.raw[path] = event.value
                if event.anchor:
                    anchors[event.anchor] = (value, size)
                self._add(document, frame, value, size, at)
            elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                at = self._at(event)
                frame = frames[-1] if frames else None
                self._only_values(frame, at)
                if len(frames) >= MAX_DEPTH:
                    raise RefusedError(f"nested deeper than {MAX_DEPTH} levels", at)
                _check_tag(event.tag, ("map",) if kind is yaml.MappingStartEvent else ("seq",), at)
                path = self._path(frame)
                # A block starts on the line after its key; its key is the better place to point at.
                document.positions[path] = at if event.flow_style else document.keys.get(path, at)
                frames.append(_Frame({} if kind is yaml.MappingStartEvent else [], path, event.anchor))
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                frame = frames.pop()
                for merged in frame.merges:
                    for key, value in merged.items():
                        frame.value.setdefault(key, value)
                if frame.anchor:
                    anchors[frame.anchor] = (frame.value, frame.size)
                self._add(document, frames[-1] if frames else None, frame.value, frame.size, self._at(event))
            elif kind is yaml.AliasEvent:
                at = self._at(event)
                frame = frames[-1] if frames else None
                self._only_values(frame, at)
                if event.anchor not in anchors:
                    raise RefusedError(f"alias *{event.anchor} has no anchor before it", at)
                value, size = anchors[event.anchor]
                document.positions[self._path(frame)] = at
                self._add(document, frame, value, size, at)
            elif kind is yaml.DocumentEndEvent:
                return

    def _at(self, event: Any) -> Position:
        start, end = event.start_mark, event.end_mark
        line = start.line
        if end.line == line:
            width = end.column - start.column
        else:
            width = len(self.lines[line].rstrip()) - start.column if line < len(self.lines) else 1
        return Position(line + 1, start.column + 1, max(width, 1))

    @staticmethod
    def _path(frame: _Frame | None) -> str:
        if frame is None:
            return ""
        if type(frame.value) is list:
            return f"{frame.path}[{len(frame.value)}]"
        return child_path(frame.path, frame.key or "")

    @staticmethod
    def _only_values(frame: _Frame | None, at: Position) -> None:
        if frame is not None and type(frame.value) is dict and frame.key is None:
            raise RefusedError("a key must be plain text", at)

    def _key(self, document: Document, frame: _Frame, event: Any, at: Position) -> None:
        key = event.value
        plain = not event.style and event.tag is None
        if plain and key == "<<":
            frame.merging = True
        elif key in frame.value:
            first = document.keys.get(child_path(frame.path, key))
            where = f", first on line {first.line}" if first else ""
            raise RefusedError(f'duplicate key "{key}"{where}', at, "keep one of the two")
        else:
            document.keys[child_path(frame.path, key)] = at
        frame.key = key

    def _add(self, document: Document, frame: _Frame | None, value: Any, size: int, at: Position) -> None:
        if frame is None:
            document.data = value
            return
        frame.size += size
        if frame.size > MAX_VALUES:
            raise RefusedError(f"the document (aliases expanded) holds more than {MAX_VALUES:,} values", at)
        if type(frame.value) is list:
            frame.value.append(value)
            return
        if frame.merging:
            merged = value if isinstance(value, list) else [value]
            if not all(isinstance(item, dict) for item in merged):
                raise RefusedError("<< must merge a mapping or a list of mappings", at)
            frame.merges.extend(merged)
            frame.merging = False
        else:
            frame.value[frame.key] = value
        frame.key = None

    @staticmethod
    def _scalar(event: Any, at: Position) -> Any:
        text = event.value
        tag = event.tag
        if tag is not None and tag != "!":
            _check_tag(tag, ("str", "int", "float", "bool", "null"), at)
            if tag == _TAG + "str":
                return text
            value = resolve(text, at)
            if type(value) not in _TAG_TYPES[tag.removeprefix(_TAG)]:
                raise RefusedError(f'"{text[:40]}" does not fit the tag !!{tag.removeprefix(_TAG)}', at)
            return value
        return text if event.style or tag == "!" else resolve(text, at)


_TAG_TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (float, int), "bool": (bool,), "null": (type(None),)}


def _check_tag(tag: str | None, allowed: tuple[str, ...], at: Position) -> None:
    if tag is not None and tag != "!" and tag.removeprefix(_TAG) not in allowed:
        raise RefusedError(
            f"the tag {tag.replace(_TAG, '!!')[:60]} is not accepted here",
            at,
            "write plain text, numbers, lists and mappings",
        )


def resolve(text: str, at: Position | None = None) -> Any:
    """The value of an unquoted scalar."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    if _INT.match(text):
        digits = text.replace("_", "")
        return int(digits) if len(digits) < 20 else _number(digits, at)
    for base, pattern in _BASED.items():
        match = pattern.match(text)
        if match and len(text) < 20 and (digits := match[2].replace("_", "")):
            return int(match[1] + digits, base)
    if _FLOAT.match(text):
        return _number(text, at)
    if _NONFINITE.match(text):
        raise RefusedError(f"{text} is not a finite number", at, "quote it if it is text")
    return text


def _number(text: str, at: Position | None) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise RefusedError(f"{text[:40]} is too large for a number", at, "quote it if it is text")
    return number
