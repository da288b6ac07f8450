"""Column types that keep a value exactly as it was on SQLite, MySQL, MariaDB and PostgreSQL alike.

Used by `models` and by the migrations. Refuses naive datetimes: a time without a zone is a defect of the caller.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Dialect, Double, String, Text, TypeDecorator
from sqlalchemy.types import TypeEngine


def _mysql(dialect: Dialect) -> bool:
    return dialect.name in ("mysql", "mariadb")


def _unbounded(dialect: Dialect) -> TypeEngine[Any]:
    """Text without a limit. MySQL's TEXT ends at 64 kB; its types are imported only where they are spoken."""
    if not _mysql(dialect):
        return dialect.type_descriptor(Text())
    from sqlalchemy.dialects.mysql import LONGTEXT

    return dialect.type_descriptor(LONGTEXT())


def clean(text: str) -> str:
    """Text that every server stores: no NUL (PostgreSQL refuses it) and no lone surrogate (nobody can encode it)."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")


class LongText(TypeDecorator[str]):
    """Free text of any length: messages, reported values, log tails."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return _unbounded(dialect)

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else clean(value)


class Word(TypeDecorator[str]):
    """Short text that is looked up by an index; compared byte by byte (the migrations choose the collation)."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else clean(value)


class Json(TypeDecorator[Any]):
    """JSON as text, not as the server's JSON type: those reformat numbers, and a parameter must come back bit for bit.

    None is SQL NULL, so that empty labels cost nothing to read; `Json(none_as_null=False)` stores the text `null`.
    """

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return _unbounded(dialect)

    def __init__(self, none_as_null: bool = True) -> None:
        super().__init__()
        self.none_as_null = none_as_null

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        if value is None and self.none_as_null:
            return None
        return json.dumps(value, separators=(",", ":"))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


class UtcTime(TypeDecorator[datetime]):
    """A moment with microseconds. In the database it is UTC, in Python it is aware."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if not _mysql(dialect):
            return dialect.type_descriptor(DateTime(timezone=True))
        from sqlalchemy.dialects.mysql import DATETIME

        return dialect.type_descriptor(DATETIME(fsp=6))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"the store takes times with a zone, not {value!r}")
        utc = value.astimezone(UTC)
        return utc if dialect.name == "postgresql" else utc.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Real(TypeDecorator[float]):
    """A double. Negative zero becomes zero: SQLite cannot store it, and all servers must give the same history."""

    impl = Double()
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> float | None:
        return None if value is None else float(value) + 0.0
