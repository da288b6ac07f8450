"""A database file that cannot be used: one sentence that names it, never a traceback of the driver."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from evertune.errors import EnvironmentProblem, UnavailableError
from evertune.settings import Settings
from evertune.store import engine, open_store, store_of
from evertune.store.engine import Database, parse_url

NOBODY = 65534


def refusal(url: str) -> EnvironmentProblem:
    with pytest.raises(EnvironmentProblem) as caught:
        open_store(url)
    assert "\n" not in caught.value.message
    return caught.value


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    problem = refusal(f"sqlite:///{tmp_path}/missing/evertune.db")
    assert problem.message.endswith(f"the directory {tmp_path}/missing does not exist")
    assert not (tmp_path / "missing").exists()


def test_a_directory_is_not_a_database(tmp_path: Path) -> None:
    assert "it is a directory" in refusal(f"sqlite:///{tmp_path}").message


def test_a_file_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "evertune.db"
    path.write_bytes(b"not a database" * 1000)
    assert "is not an SQLite database" in refusal(f"sqlite:///{path}").message
    assert path.read_bytes() == b"not a database" * 1000


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """pytest's own directories are closed to the user that the test below becomes."""
    directory = Path(tempfile.mkdtemp(prefix="evertune-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.mark.parametrize("exists", [False, True])
def test_a_read_only_directory_is_named(public_directory: Path, tmp_path: Path, exists: bool) -> None:
    path = public_directory / "evertune.db"
    if exists:
        open_store(f"sqlite:///{path}").close()
        path.chmod(0o444)
    public_directory.chmod(0o555)
    attempt = f"""
import os
from evertune.errors import EnvironmentProblem
from evertune.store import open_store
open_store("sqlite:///{tmp_path}/evertune.db").close()  # imports all it needs: nobody may not read Python's own files
if os.getuid() == 0:  # who is refused nothing
    os.setgid({NOBODY}), os.setuid({NOBODY})
try:
    with open_store("sqlite:///{path}") as store:
        store.delete_experiment("0" * 32)
except EnvironmentProblem as problem:
    print(problem)
"""
    done = subprocess.run([sys.executable, "-c", attempt], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.startswith(f"the database {path} cannot be ")
    assert done.stdout.count("\n") == 1


def test_a_full_disk_is_one_sentence_and_the_database_stays_usable(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'evertune.db'}"
    open_store(url).close()
    database = Database(parse_url(url))
    database.write(lambda tx: tx.execute(text("CREATE TABLE ballast (x BLOB)")))
    pages = database.write(lambda tx: tx.exec_driver_sql("PRAGMA page_count").scalar_one())
    database.write(lambda tx: tx.exec_driver_sql(f"PRAGMA max_page_count={pages + 2}").scalar())
    with pytest.raises(EnvironmentProblem, match="is full"):
        database.write(lambda tx: tx.execute(text("INSERT INTO ballast VALUES (zeroblob(1000000))")))
    assert database.read(lambda tx: tx.execute(text("SELECT count(*) FROM ballast")).scalar()) == 0
    database.close()


def test_a_file_that_may_not_grow_is_one_sentence(tmp_path: Path) -> None:
    attempt = f"""
import resource
from evertune.errors import EnvironmentProblem
from evertune.store import open_store
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
try:
    open_store("sqlite:///{tmp_path}/evertune.db")
except EnvironmentProblem as problem:
    print(problem)
"""
    done = subprocess.run([sys.executable, "-c", attempt], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.startswith(f"the disk of the database {tmp_path}/evertune.db ")


def test_a_lock_held_by_another_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "evertune.db"
    with open_store(f"sqlite:///{path}") as store:
        holder = f"""
import sqlite3, time
connection = sqlite3.connect({str(path)!r}, isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
time.sleep(1.0)
"""
        with subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            store.delete_experiment("0" * 32)  # waits
            assert process.wait(timeout=60) == 0


def test_a_lock_that_is_never_given_back_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "PATIENCE_S", 0.3)
    monkeypatch.setattr(engine, "_BUSY_TIMEOUT_S", 0.1)
    path = tmp_path / "evertune.db"
    with open_store(f"sqlite:///{path}") as store:
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(UnavailableError, match="was locked by another process"):
            store.delete_experiment("0" * 32)
        assert store.list_experiments() == []  # readers do not wait for writers
        holder.close()
        store.delete_experiment("0" * 32)


@pytest.mark.parametrize(("durability", "synchronous"), [("normal", 1), ("full", 2)])
def test_durability_is_sqlites_synchronous(tmp_path: Path, durability: engine.Durability, synchronous: int) -> None:
    database = Database(parse_url(f"sqlite:///{tmp_path / 'evertune.db'}"), durability)
    for run in (database.write, database.read):
        pragmas = [run(lambda tx, p=p: tx.exec_driver_sql(f"PRAGMA {p}").scalar()) for p in PRAGMAS]  # type: ignore[misc]
        assert pragmas == ["wal", synchronous, 1, 40_000]
    database.close()


@pytest.mark.parametrize(("durability", "synchronous"), [("normal", 1), ("full", 2)])
def test_a_process_opens_its_store_as_durable_as_its_settings_say(
    tmp_path: Path, durability: str, synchronous: int
) -> None:
    settings = Settings.load({"EVERTUNE_HOME": str(tmp_path), "EVERTUNE_DURABILITY": durability, "HOME": str(tmp_path)})
    with store_of(settings) as store:
        assert store._write(lambda tx: tx.exec_driver_sql("PRAGMA synchronous").scalar()) == synchronous


PRAGMAS = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")


def test_closing_twice_is_harmless_and_leaves_one_file(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'evertune.db'}")
    store.list_experiments()
    store.close()
    store.close()
    assert [path.name for path in tmp_path.iterdir()] == ["evertune.db"]
