"""From a database URL to transactions: `Database.read(work)` and `Database.write(work)`.

Called by `repository.Store` only. One call is one transaction, run again when the server asks for it (deadlock,
serialization, busy, a connection that broke) until PATIENCE_S is over; `work` must therefore be idempotent. Every
failure of the database itself leaves here as one sentence: UnavailableError when waiting can help, EnvironmentProblem
when a person must act. It refuses in-memory databases: several processes share a store.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from evertune.errors import EnvironmentProblem, EvertuneError, UnavailableError, UsageError

T = TypeVar("T")
Durability = Literal["normal", "full"]

PATIENCE_S = 45.0  # how long a transaction is tried again before its caller hears of it
_BUSY_TIMEOUT_S = 40.0
_CONNECT_TIMEOUT_S = 10
_LOCK_TIMEOUT_S = 20
_IO_TIMEOUT_S = 120

_DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "mysql": "mysql+pymysql",
    "mysql+pymysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
    "mariadb+pymysql": "mariadb+pymysql",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
_SQLITE_AGAIN = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")
_MYSQL_AGAIN = {1205, 1213}  # lock wait timeout, deadlock
_MYSQL_AWAY = {1040, 1053, 1152, 1158, 1159, 1160, 1161, 1203, 2002, 2003, 2005, 2006, 2013, 2055}
_POSTGRES_AGAIN = {"40001", "40P01", "55P03"}  # serialization, deadlock, lock timeout


def parse_url(text: str) -> URL:
    """The URL with its driver. UsageError for anything that is not a database evertune knows."""
    try:
        url = make_url(text)
    except ArgumentError:
        raise UsageError(
            "the database URL cannot be read",
            "write sqlite:////absolute/path.db, mysql://user:password@host/database or postgresql://…",
        ) from None
    driver = _DRIVERS.get(url.drivername)
    if driver is None:
        raise UsageError(
            f"evertune has no driver for {url.drivername!r} databases", "use sqlite, mysql, mariadb or postgresql"
        )
    if driver == "sqlite" and (not url.database or url.database == ":memory:" or url.database.startswith("file:")):
        raise UsageError(
            "evertune's database must be a file that several processes can open", "write sqlite:////absolute/path.db"
        )
    if driver != "sqlite" and not url.database:
        raise UsageError(f"{_shown(url)} names no database", "append /evertune, or whatever the database is called")
    return url.set(drivername=driver)


class Database:
    """Connections to one database, safe for threads."""

    def __init__(self, url: URL, durability: Durability = "normal") -> None:
        self.url = url
        self.name = url.database or "" if url.drivername == "sqlite" else _shown(url)
        try:
            if url.drivername == "sqlite":
                # A pool of one is the one-writer-per-process rule: threads queue here, in order, not on the file.
                self._writer = _sqlite_engine(url, durability, writes=True)
                self._reader = _sqlite_engine(url, durability, writes=False)
            else:
                self._writer = self._reader = _server_engine(url)
        except (ImportError, NoSuchModuleError) as error:
            extra = "postgresql" if url.drivername.startswith("postgresql") else "mysql"
            raise UsageError(
                f"the driver for {url.drivername} is not installed ({error})", f"pip install 'evertune[{extra}]'"
            ) from None

    def read(self, work: Callable[[Connection], T]) -> T:
        return self._run(self._reader, work)

    def write(self, work: Callable[[Connection], T]) -> T:
        return self._run(self._writer, work)

    def exists(self) -> bool:
        """False only for an SQLite file that is not there; opening it would create it."""
        return self.url.drivername != "sqlite" or Path(self.name).exists()

    def close(self) -> None:
        self._reader.dispose()
        self._writer.dispose()

    def _run(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        deadline = time.monotonic() + PATIENCE_S
        broken = collided = 0
        while True:
            try:
                with engine.begin() as connection:
                    return work(connection)
            except PoolTimeoutError:
                raise UnavailableError(
                    f"the database {self.name} is too busy: no connection became free in {PATIENCE_S:.0f} s"
                ) from None
            except RuntimeError as error:
                if "cryptography" not in str(error):
                    raise
                raise EnvironmentProblem(  # pymysql, for MySQL 8's own way to log in
                    f"the database {self.name} wants a password exchange that needs the package cryptography",
                    "pip install cryptography, or connect with TLS (?ssl_ca=…)",
                ) from None
            except DBAPIError as error:
                broken += error.connection_invalidated
                collided += isinstance(error, IntegrityError)
                # A connection from the pool may have died long ago; a fresh one that dies as well is an outage.
                # Who collides with a row that was inserted meanwhile reads that row the second time.
                again = _asks_for_another_try(error) or broken == 1 or (collided == 1 and not broken)
                if not again or time.monotonic() > deadline:
                    explained = _explain(error, self.name)
                    if explained is None:
                        raise
                    raise explained from error
            time.sleep(random.uniform(0.002, 0.02))  # noqa: S311


def _sqlite_engine(url: URL, durability: Durability, *, writes: bool) -> Engine:
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=1 if writes else 4,
        max_overflow=0 if writes else 60,
        pool_timeout=PATIENCE_S,
        # Transactions are begun by us (below); sqlite3's own implicit ones cannot be IMMEDIATE.
        connect_args={"timeout": _BUSY_TIMEOUT_S, "check_same_thread": False, "isolation_level": None},
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute(f"PRAGMA synchronous={durability.upper()}")
        cursor.execute("PRAGMA journal_mode=WAL" if writes else "PRAGMA query_only=ON")
        cursor.close()

    # A write locks at BEGIN, where SQLite waits its busy timeout; a read transaction that turned into a write could
    # not wait (SQLITE_BUSY_SNAPSHOT).
    begin_statement = "BEGIN IMMEDIATE" if writes else "BEGIN"

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin_statement)

    return engine


def _server_engine(url: URL) -> Engine:
    connect_args: dict[str, Any]
    if url.drivername.startswith("postgresql"):
        connect_args = {
            "connect_timeout": _CONNECT_TIMEOUT_S,
            "tcp_user_timeout": _IO_TIMEOUT_S * 1000,
            "options": f"-c lock_timeout={_LOCK_TIMEOUT_S}s -c client_encoding=UTF8",
        }
    else:
        connect_args = {
            "charset": "utf8mb4",
            "connect_timeout": _CONNECT_TIMEOUT_S,
            "read_timeout": _IO_TIMEOUT_S,
            "write_timeout": _IO_TIMEOUT_S,
            # Strict: a value that does not fit is an error, never cut.
            "init_command": "SET SESSION sql_mode='STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION',"
            f" innodb_lock_wait_timeout={_LOCK_TIMEOUT_S}",
        }
    return create_engine(
        url,
        # Rows that decide are locked first; then each statement must see what was committed before it.
        isolation_level="READ COMMITTED",
        connect_args=connect_args,
        pool_size=4,
        max_overflow=28,
        pool_timeout=PATIENCE_S,
        pool_recycle=3600,
    )


def _asks_for_another_try(error: DBAPIError) -> bool:
    origin = error.orig
    if (name := getattr(origin, "sqlite_errorname", None)) is not None:
        return bool(name.startswith(_SQLITE_AGAIN))
    if (code := _mysql_code(origin)) is not None:
        return code in _MYSQL_AGAIN
    return getattr(origin, "sqlstate", None) in _POSTGRES_AGAIN


def _explain(error: DBAPIError, name: str) -> EvertuneError | None:
    """The one sentence for a failure of the database, None for a defect of ours."""
    origin = error.orig
    if (sqlite_code := getattr(origin, "sqlite_errorname", None)) is not None:
        return _explain_sqlite(sqlite_code, name)
    if error.connection_invalidated or _asks_for_another_try(error):
        return UnavailableError(f"the database {name} does not answer: {_first_line(origin)}", "it is tried again")
    code = _mysql_code(origin)
    if code in _MYSQL_AWAY:
        return UnavailableError(f"the database {name} cannot be reached: {_first_line(origin)}", "is the server up?")
    if code in (1044, 1045, 1049, 1142, 1698):
        return EnvironmentProblem(f"the database {name} refuses us: {_first_line(origin)}", "check the database URL")
    if code in (1021, 1114, 1290):
        return EnvironmentProblem(f"the database {name} cannot be written: {_first_line(origin)}")
    if type(origin).__module__.startswith("psycopg"):
        return _explain_postgres(error, name)
    return None


def _explain_sqlite(code: str, name: str) -> EvertuneError | None:
    folder = Path(name).parent
    if code.startswith(_SQLITE_AGAIN):
        return UnavailableError(f"the database {name} was locked by another process for {PATIENCE_S:.0f} s")
    if code.startswith("SQLITE_CANTOPEN"):
        why = "it is a directory" if Path(name).is_dir() else "evertune may not open or create the file"
        if not folder.is_dir():
            why = f"the directory {folder} does not exist"
        return EnvironmentProblem(f"the database {name} cannot be opened: {why}")
    if code.startswith(("SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH")):
        return EnvironmentProblem(f"the database {name} cannot be written", f"make {folder} writable, or set another")
    if code.startswith("SQLITE_FULL"):
        return EnvironmentProblem(f"the disk of the database {name} is full", "free some space; nothing is lost")
    if code.startswith("SQLITE_IOERR"):
        return EnvironmentProblem(f"the disk of the database {name} reports an error ({code})")
    if code.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return EnvironmentProblem(f"{name} is not an SQLite database, or it is damaged ({code})")
    return None


def _explain_postgres(error: DBAPIError, name: str) -> EvertuneError | None:
    origin = error.orig
    sqlstate = getattr(origin, "sqlstate", None) or ""
    text = _first_line(origin)
    if sqlstate[:2] in ("28", "3D") or sqlstate in ("42501", "25006"):
        return EnvironmentProblem(f"the database {name} refuses us: {text}", "check the database URL")
    if sqlstate[:2] in ("08", "53", "57"):
        return UnavailableError(f"the database {name} cannot be reached: {text}", "is the server up?")
    if not sqlstate and error.statement is None:  # failed to connect; psycopg gives no code for that
        if "authentication failed" in text or "does not exist" in text or "no password supplied" in text:
            return EnvironmentProblem(f"the database {name} refuses us: {text}", "check the database URL")
        return UnavailableError(f"the database {name} cannot be reached: {text}", "is the server up?")
    return None


def _mysql_code(origin: BaseException | None) -> int | None:
    if origin is None or not type(origin).__module__.startswith("pymysql"):
        return None
    return origin.args[0] if origin.args and isinstance(origin.args[0], int) else None


def _first_line(error: BaseException | None) -> str:
    if error is None:
        return "no reason given"
    text = str(error.args[-1]) if error.args else str(error)
    return " ".join(text.split())[:300]


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=True).replace("+pymysql", "").replace("+psycopg", "")
