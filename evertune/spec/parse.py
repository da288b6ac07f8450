"""YAML and JSON text to documents. Whatever the bytes, the answer is a list of documents with problems.

`check`, the CLI and templates call `parse_documents`; it never raises for content. Text is limited to 1 MB, nesting
to 64 levels, and aliases may expand to 50,000 values.
"""

from __future__ import annotations

import json
import math
from typing import Any

import yaml

from evertune.errors import Problem
from evertune.spec.document import MAX_BYTES, MAX_DOCUMENTS, Document, Position, too_big
from evertune.spec.events import Builder, RefusedError


def parse_documents(text: str | bytes, source: str) -> list[Document]:
    """All documents of a file. An empty file gives one document that says so."""
    decoded = _decode(text, source)
    if isinstance(decoded, Document):
        return [decoded]
    documents = _parse_yaml(decoded, source)
    if documents[-1].problems and decoded.lstrip()[:1] in ("{", "["):
        # JSON that YAML 1.1 does not take: tabs, surrogate pairs. Readable, but without positions.
        plain = _parse_json(decoded, source)
        if plain is not None and (not plain.problems or documents[-1].problems[0].message.startswith("not YAML")):
            documents = [plain]
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


def _parse_yaml(text: str, source: str) -> list[Document]:
    documents: list[Document] = []
    lines = text.splitlines()
    try:
        for document in Builder(text, source).documents():
            document.lines = lines
            documents.append(document)
            if len(documents) > MAX_DOCUMENTS:
                raise RefusedError(f"more than {MAX_DOCUMENTS:,} documents in one file", None)
    except RefusedError as error:
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
