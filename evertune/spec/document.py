"""YAML and JSON text as plain data that remembers where everything stood.

`check` and the CLI call `parse_documents`; every later message finds its line here. Whatever the bytes, the answer is
a list of documents with problems, never an exception: text is limited to 1 MB, nesting to 64 levels, and aliases may
expand to 50,000 values. Tags other than YAML's own types are refused: no object is ever built from a file.

Built on libyaml's event stream, not on its composer: events are iterative, so depth cannot exhaust the C stack.
Scalars follow what `kubectl` makes of them (`yes` is true, `0644` is octal), with YAML 1.2's floats (`1e-3`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

from evertune.errors import Problem

MAX_BYTES = 1_000_000
MAX_DEPTH = 64
MAX_VALUES = 50_000
MAX_DOCUMENTS = 1_000

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
_PLAIN_KEY = re.compile(r"[A-Za-z_$][A-Za-z0-9_-]*\Z")


class Position(NamedTuple):
    """Where a value (or, for a block, its key) starts, from 1, and how many characters of that line it covers."""

    line: int
    column: int
    width: int = 1


@dataclass(slots=True)
class Document:
    """One YAML or JSON document. `data` is None when it could not be read; `problems` then says why.

    `positions` and `raw` are keyed by field path (`spec.parameters[0].name`). `raw` holds the text of numbers,
    booleans and nulls as the user wrote it; `keys` the places of mapping keys.
    """

    source: str
    index: int = 0
    data: Any = None
    positions: dict[str, Position] = field(default_factory=dict)
    keys: dict[str, Position] = field(default_factory=dict)
    raw: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def locate(self, path: str) -> Position | None:
        """The place of `path`, or of the nearest thing above it that is in the file."""
        while path:
            if path in self.positions:
                return self.positions[path]
            path = path[: path.rindex("[")] if path.endswith("]") and "[" in path else path.rpartition(".")[0]
        return self.positions.get("")


def child_path(path: str, key: str | int) -> str:
    """Kubernetes' spelling of field paths: `a.b`, `a[0]`, `a[key.with/dots]`."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    if _PLAIN_KEY.match(key):
        return f"{path}.{key}" if path else key
    return f"{path}[{key}]"


def parse_documents(text: str | bytes, source: str) -> list[Document]:
    """All documents of a file. An empty file gives one document that says so."""
    decoded = _decode(text, source)
    if isinstance(decoded, Document):
        return [decoded]
    documents = _parse_yaml(decoded, source)
    if documents[-1].problems and decoded.lstrip()[:1] in ("{", "["):
        # JSON that YAML 1.1 does not take: tabs, surrogate pairs. Readable, but without positions.
        plain = _parse_json(decoded, source)
        documents = [plain] if plain is not None else documents
    return documents


def _failure(
    source: str, message: str, *, index: int = 0, hint: str | None = None, at: Position | None = None
) -> Document:
    line, column = (at.line, at.column) if at else (None, None)
    problem = Problem(path="", type="Parse", message=message, hint=hint, line=line, column=column)
    return Document(source=source, index=index, problems=[problem])


def _decode(text: str | bytes, source: str) -> str | Document:
    if len(text) > MAX_BYTES:
        return _failure(
            source, f"the file is larger than {MAX_BYTES // 1_000_000} MB", hint="an Experiment is a few kilobytes"
        )
    try:
        raw = text if isinstance(text, bytes) else text.encode("utf-8")
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        place = Position(before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1)
        return _failure(source, f"not UTF-8 text: byte 0x{error.object[error.start]:02x}", at=place)
    except UnicodeEncodeError as error:
        return _failure(source, f"not text: lone surrogate at character {error.start + 1}")


# ------------------------------------------------------------------------------------------------ JSON


class _DuplicateKeyError(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKeyError(key)
            seen.add(key)
    return result


def _finite_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _parse_json(text: str, source: str) -> Document | None:
    try:
        data = json.loads(text, object_pairs_hook=_unique, parse_constant=_finite_number, parse_float=_finite_number)
    except _DuplicateKeyError as error:
        return _failure(source, f'duplicate key "{error}"', hint="keep one of the two")
    except (ValueError, RecursionError):
        return None
    if (message := too_big(data)) is not None:
        return _failure(source, message)
    return Document(source=source, data=data, lines=text.splitlines())


def too_big(data: Any) -> str | None:
    """Why `data` is not a document we take, or None: depth and size are bounded before anything recurses into it."""
    level: list[Any] = [data]
    total = 0
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below.extend(value.values())
            elif isinstance(value, list | tuple):
                below.extend(value)
        total += len(below)
        if total > MAX_VALUES:
            return f"the document holds more than {MAX_VALUES:,} values"
        if not below:
            return None
        level = below
    return f"nested deeper than {MAX_DEPTH} levels"


# ------------------------------------------------------------------------------------------------ YAML


class _RefusedError(Exception):
    def __init__(self, message: str, at: Position | None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.at, self.hint = message, at, hint


def _parse_yaml(text: str, source: str) -> list[Document]:
    documents: list[Document] = []
    lines = text.splitlines()
    try:
        for document in _Builder(text, source).documents():
            document.lines = lines
            documents.append(document)
            if len(documents) > MAX_DOCUMENTS:
                raise _RefusedError(f"more than {MAX_DOCUMENTS:,} documents in one file", None)
    except _RefusedError as error:
        documents.append(_failure(source, error.message, index=len(documents), hint=error.hint, at=error.at))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = Position(mark.line + 1, mark.column + 1) if mark else None
        what = " ".join(str(part) for part in (error.context, error.problem) if part) or "unreadable"
        documents.append(
            _failure(source, f"not YAML: {what}", index=len(documents), hint=_syntax_hint(lines, at), at=at)
        )
    except yaml.reader.ReaderError as error:
        at = _position_of(text, error)
        documents.append(_failure(source, f"not YAML: {error.reason}", index=len(documents), at=at))
    except (yaml.YAMLError, ValueError) as error:
        documents.append(_failure(source, f"not YAML: {str(error).splitlines()[0]}", index=len(documents)))
    if not documents:
        documents.append(_failure(source, "the file is empty", hint="evertune init writes a complete one"))
    for document in documents:
        document.lines = lines
    return documents


def _position_of(text: str, error: yaml.reader.ReaderError) -> Position | None:
    offset = error.position
    if not isinstance(offset, int) or not 0 <= offset <= len(text.encode()):
        return None
    before = text.encode()[:offset].decode("utf-8", "replace")
    return Position(before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)


def _syntax_hint(lines: list[str], at: Position | None) -> str | None:
    if at is None or not 0 < at.line <= len(lines):
        return None
    if "\t" in lines[at.line - 1][: at.column + 1]:
        return "indent with spaces, not tabs"
    if ": " in lines[at.line - 1].partition(": ")[2]:
        return "quote a text that contains a colon and a blank"
    return None


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


class _Builder:
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
                if value is None or type(value) is not str:
                    document.raw[path] = event.value
                if event.anchor:
                    anchors[event.anchor] = (value, 1)
                self._add(document, frame, value, 1, at)
            elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                at = self._at(event)
                frame = frames[-1] if frames else None
                self._only_values(frame, at)
                if len(frames) >= MAX_DEPTH:
                    raise _RefusedError(f"nested deeper than {MAX_DEPTH} levels", at)
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
                    raise _RefusedError(f"alias *{event.anchor} has no anchor before it", at)
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
            raise _RefusedError("a key must be plain text", at)

    def _key(self, document: Document, frame: _Frame, event: Any, at: Position) -> None:
        key = event.value
        plain = not event.style and event.tag is None
        if plain and key == "<<":
            frame.merging = True
        elif key in frame.value:
            first = document.keys.get(child_path(frame.path, key))
            where = f", first on line {first.line}" if first else ""
            raise _RefusedError(f'duplicate key "{key}"{where}', at, "keep one of the two")
        else:
            document.keys[child_path(frame.path, key)] = at
        frame.key = key

    def _add(self, document: Document, frame: _Frame | None, value: Any, size: int, at: Position) -> None:
        if frame is None:
            document.data = value
            return
        frame.size += size
        if frame.size > MAX_VALUES:
            raise _RefusedError(f"the document (aliases expanded) holds more than {MAX_VALUES:,} values", at)
        if type(frame.value) is list:
            frame.value.append(value)
            return
        if frame.merging:
            merged = value if isinstance(value, list) else [value]
            if not all(isinstance(item, dict) for item in merged):
                raise _RefusedError("<< must merge a mapping or a list of mappings", at)
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
                raise _RefusedError(f'"{text[:40]}" is not a {tag.removeprefix(_TAG)}', at)
            return value
        return text if event.style or tag == "!" else resolve(text, at)


_TAG_TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (float, int), "bool": (bool,), "null": (type(None),)}


def _check_tag(tag: str | None, allowed: tuple[str, ...], at: Position) -> None:
    if tag is not None and tag != "!" and tag.removeprefix(_TAG) not in allowed:
        raise _RefusedError(
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
        raise _RefusedError(f"{text} is not a finite number", at, "quote it if it is text")
    return text


def _number(text: str, at: Position | None) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _RefusedError(f"{text[:40]} is too large for a number", at, "quote it if it is text")
    return number
