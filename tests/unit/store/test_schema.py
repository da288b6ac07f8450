"""Creating, migrating and refusing databases."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from evertune.errors import EnvironmentProblem, SchemaTooNewError
from evertune.store import open_store
from evertune.store.engine import Database, parse_url
from evertune.store.models import Base
from evertune.store.schema import HEAD, MIGRATIONS, VERSION_TABLE

OPEN = "import sys; from evertune.store import open_store; s = open_store(sys.argv[1]); print(s.database_id); s.close()"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'evertune.db'}"


def set_version(url: str, version: str) -> None:
    database = Database(parse_url(url))
    database.write(lambda tx: tx.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = :v"), {"v": version}))
    database.close()


def test_the_migrations_make_exactly_the_tables_of_the_models(url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    open_store(url).close()
    database = Database(parse_url(url))
    options = {"compare_type": True, "version_table": VERSION_TABLE}
    differences = database.read(
        lambda tx: compare_metadata(MigrationContext.configure(tx, opts=options), Base.metadata)
    )
    database.close()
    assert differences == []


def test_the_head_that_the_fast_path_compares_with_is_the_newest_migration() -> None:
    from alembic.script import ScriptDirectory

    assert ScriptDirectory(str(MIGRATIONS)).get_heads() == [HEAD]
    assert {path.name[:4] for path in (MIGRATIONS / "versions").glob("*.py")} >= {HEAD}


def test_the_id_of_a_database_stays_and_no_two_are_equal(tmp_path: Path) -> None:
    ids = []
    for name in ("a.db", "a.db", "b.db"):
        with open_store(f"sqlite:///{tmp_path / name}") as store:
            ids.append(store.database_id)
    assert ids[0] == ids[1] != ids[2]


def test_a_newer_schema_is_refused_with_the_mend(url: str) -> None:
    open_store(url).close()
    set_version(url, "9999")
    for create in (True, False):
        with pytest.raises(SchemaTooNewError) as refusal:
            open_store(url, create=create)
        assert "9999" in refusal.value.message
        assert HEAD in refusal.value.message
        assert "newer" in (refusal.value.hint or "")
        assert refusal.value.exit_code == 2


def test_a_reader_does_not_migrate(url: str, tmp_path: Path) -> None:
    (tmp_path / "evertune.db").touch()
    with pytest.raises(EnvironmentProblem, match="holds no evertune database yet"):
        open_store(url, create=False)
    open_store(url).close()
    set_version(url, "0000")
    with pytest.raises(EnvironmentProblem, match="has schema 0000"):
        open_store(url, create=False)


def test_processes_that_start_at_once_migrate_once(url: str) -> None:
    command = [sys.executable, "-W", "error", "-c", OPEN, url]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    outputs = [process.communicate(timeout=100) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    assert len({out for out, _ in outputs}) == 1
    with open_store(url) as store:
        assert f"{store.database_id}\n" == outputs[0][0]


def test_opening_a_current_database_does_not_import_alembic(url: str) -> None:
    open_store(url).close()
    check = f"{OPEN}; assert 'alembic' not in sys.modules"
    subprocess.run([sys.executable, "-c", check, url], check=True, stdout=subprocess.DEVNULL)


def test_importing_evertune_imports_no_database() -> None:
    modules = "evertune, evertune.errors, evertune.contracts, evertune.protocols"
    check = f"import sys, {modules}; assert not {{'sqlalchemy', 'alembic', 'evertune.store'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_the_store_imports_no_driver_that_it_does_not_speak(url: str) -> None:
    check = f"{OPEN}; assert not {{'pymysql', 'psycopg', 'sqlalchemy.dialects.mysql'}} & set(sys.modules)"
    open_store(url).close()
    subprocess.run([sys.executable, "-c", check, url], check=True, stdout=subprocess.DEVNULL)
