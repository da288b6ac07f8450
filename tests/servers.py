"""Real MariaDB and PostgreSQL servers in temporary directories, when their binaries are on this machine.

    if servers.mariadb_binaries(): with servers.mariadb() as url: ...

Each listens on a free port of the loopback interface only, keeps nothing, and is stopped at the end.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.ports import free_port

START_TIMEOUT_S = 180


def mariadb_binaries() -> tuple[str, str] | None:
    """The server and its installer."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
    server = shutil.which("mariadbd", path=path) or shutil.which("mysqld", path=path)
    installer = shutil.which("mariadb-install-db", path=path)
    return (server, installer) if server and installer else None


def postgres_binaries() -> Path | None:
    """The folder of the newest server."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("postgres")
    return Path(on_path).resolve().parent if on_path else None


@contextmanager
def mariadb() -> Iterator[str]:
    """A running server; yields the URL of an empty database."""
    binaries = mariadb_binaries()
    assert binaries is not None
    server, installer = binaries
    me = pwd.getpwuid(os.getuid()).pw_name
    with _directory(me) as directory:
        data, port = directory / "data", free_port()
        common = ["--no-defaults", f"--datadir={data}", f"--user={me}"]
        _run([installer, *common, "--auth-root-authentication-method=normal", "--skip-test-db"])
        command = [
            server,
            *common,
            f"--socket={directory / 'socket'}",
            f"--port={port}",
            "--bind-address=127.0.0.1",
            "--innodb-flush-log-at-trx-commit=0",
            "--skip-log-bin",
            # Defaults that a careful schema must not depend on.
            "--character-set-server=latin1",
            "--collation-server=latin1_swedish_ci",
        ]
        with _running(command, directory / "log", signal.SIGTERM):
            _wait_for(f"mariadb://root@127.0.0.1:{port}/mysql", "CREATE DATABASE evertune", directory / "log")
            yield f"mysql://root@127.0.0.1:{port}/evertune"


@contextmanager
def postgres() -> Iterator[str]:
    """A running server; yields the URL of an empty database. As root it runs as the user postgres or nobody."""
    folder = postgres_binaries()
    assert folder is not None
    user = pwd.getpwuid(os.getuid()).pw_name if os.getuid() else _unprivileged()
    with _directory(user) as directory:
        data, port = directory / "data", free_port()
        _run(
            [
                str(folder / "initdb"),
                "-D",
                str(data),
                "-A",
                "trust",
                "-U",
                "postgres",
                "-E",
                "UTF8",
                "--locale=C",
                "-N",
            ],
            user=user,
        )
        command = [
            str(folder / "postgres"),
            *("-D", str(data), "-k", str(directory), "-p", str(port), "-h", "127.0.0.1", "-F"),
        ]
        with _running(command, directory / "log", signal.SIGINT, user=user):
            _wait_for(f"postgresql://postgres@127.0.0.1:{port}/postgres", "CREATE DATABASE evertune", directory / "log")
            yield f"postgresql://postgres@127.0.0.1:{port}/evertune"


def _unprivileged() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@contextmanager
def _directory(owner: str) -> Iterator[Path]:
    # Directly below the system's: a socket's path has 107 characters at most, and pytest's are closed to other users.
    directory = Path(tempfile.mkdtemp(prefix="evertune-db-"))
    try:
        entry = pwd.getpwnam(owner)
        if entry.pw_uid != os.getuid():
            os.chown(directory, entry.pw_uid, entry.pw_gid)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _as_user(user: str | None) -> dict[str, object]:
    if user is None or pwd.getpwnam(user).pw_uid == os.getuid():
        return {}
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def _run(command: Sequence[str], user: str | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", **_as_user(user))  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"


@contextmanager
def _running(command: Sequence[str], log: Path, stop: signal.Signals, user: str | None = None) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd="/", **_as_user(user))  # type: ignore[call-overload]
    try:
        yield
    finally:
        process.send_signal(stop)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(url: str, statement: str, log: Path) -> None:
    """Run the statement as soon as the server takes it."""
    from sqlalchemy import create_engine
    from sqlalchemy.exc import OperationalError

    from evertune.store.engine import parse_url

    engine = create_engine(parse_url(url), isolation_level="AUTOCOMMIT")
    deadline = time.monotonic() + START_TIMEOUT_S
    try:
        while True:
            try:
                with engine.connect() as connection:
                    connection.exec_driver_sql(statement)
                return
            except OperationalError:
                if time.monotonic() > deadline:
                    raise AssertionError(f"the server did not start:\n{log.read_text(errors='replace')}") from None
                time.sleep(0.1)
    finally:
        engine.dispose()
