"""What every command shares in one invocation: streams, settings, the database and the way to Temporal.

Opened by `evertune.cli.run`, asked by commands through `session()`. Reading commands open the database only; nothing
here starts a server.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from evertune.cli.output.printer import Stream, open_streams
from evertune.cli.output.text import Line
from evertune.errors import NotFoundError, UnavailableError

if TYPE_CHECKING:
    from evertune.client import Client
    from evertune.domain.records import ExperimentRecord
    from evertune.settings import Settings
    from evertune.store import Store

T = TypeVar("T")


class Stop(Exception):
    """End the command with this exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class Session:
    out: Stream
    err: Stream
    verbosity: int = 0  # -v adds, -q takes away
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    @classmethod
    def open(cls, *, no_color: bool = False, verbosity: int = 0) -> Session:
        out, err = open_streams(no_color=no_color)
        return cls(out, err, verbosity)

    @property
    def quiet(self) -> bool:
        return self.verbosity < 0

    @cached_property
    def settings(self) -> Settings:
        from evertune.settings import Settings

        return Settings.load(self.environ)

    def namespace(self, given: str | None) -> str:
        """-n, else EVERTUNE_NAMESPACE, else "default"."""
        return given or self.settings.namespace

    # ---------------------------------------------------------------------------------------------- speaking

    def say(self, *lines: Line | str) -> None:
        """Talk: hints, progress, what to do next. On standard error, and not with -q."""
        if not self.quiet:
            self.err.lines(lines)

    def start_logging(self) -> None:
        """Log lines of the libraries: warnings, with -v more, with -q errors only."""
        import evertune.log as logs

        logs.configure(self.settings, verbosity=self.verbosity - 1 if self.verbosity >= 0 else -2)

    # ---------------------------------------------------------------------------------------------- database

    @property
    def has_database(self) -> bool:
        """False only for an SQLite file that is not there: then there are no experiments either."""
        url = self.settings.database_url
        return not url.startswith("sqlite:///") or Path(url.removeprefix("sqlite:///")).exists()

    def store(self) -> Store:
        """The database, for reading; `with session().store() as store:`. It is not created here."""
        from evertune.store import store_of

        if self.verbosity > 0:
            self.start_logging()
        return store_of(self.settings, create=False)

    def find(self, namespace: str | None, name: str) -> ExperimentRecord:
        """The experiment as it is now; NotFoundError with a suggestion."""
        space = self.namespace(namespace)
        if not self.has_database:
            raise NotFoundError(
                f'no experiment "{name}" in namespace {space}: nothing was run in {self.settings.home} yet',
                hint="evertune run examples/digits.yaml",
            )
        with self.store() as store:
            return store.experiment(space, name)

    # ---------------------------------------------------------------------------------------------- Temporal

    @cached_property
    def temporal_address(self) -> str:
        """Of the configured server, else of this home's stack. UnavailableError when that is not running."""
        if self.settings.temporal_address is not None:
            return self.settings.temporal_address
        from evertune import stack

        status = stack.status(self.settings)
        if status.temporal_address is None or not status.reachable:
            problem = UnavailableError(f"the stack of {self.settings.home} is not running", hint="evertune up")
            problem.add_note("what goes on: running trials do; nothing new starts until Temporal is back")
            raise problem
        return status.temporal_address

    def standing(self, record: ExperimentRecord) -> tuple[bool | None, str]:
        """(whether a worker of this home polls, what to say); nothing for an experiment that is not its to move."""
        if record.state.terminal or (record.home_id is not None and record.home_id != self.settings.home_id):
            return None, ""
        from evertune import stack

        status = stack.status(self.settings)
        ready = [service for service in status.services if service.name == "worker" and service.ready]
        if status.problem:
            return bool(ready), status.problem
        if ready and status.reachable:
            return True, f"Temporal at {status.temporal_address}, worker {ready[0].pid}"
        missing = [] if status.reachable else ["Temporal does not answer"]
        missing += [] if ready else ["no worker of this home is running"]
        return False, ", ".join(missing)

    def with_client(self, action: Callable[[Client], Awaitable[T]]) -> T:
        """Run `action` with a connected client."""
        import asyncio  # 20 ms that reading commands do not pay

        from evertune.client import Client

        self.start_logging()
        address = self.temporal_address

        async def connected() -> T:
            async with Client.connect(self.settings, address=address) as client:
                return await action(client)

        try:
            return asyncio.run(connected())
        except UnavailableError as error:
            if variable := self.address_variable():
                error.add_note(f"address from: {variable}")
            raise

    def address_variable(self) -> str | None:
        names = ("EVERTUNE_TEMPORAL_ADDRESS", "TEMPORAL_ADDRESS")
        return next((name for name in names if self.environ.get(name, "").strip()), None)

    def actor(self) -> str:
        """Who asks, for the audit."""
        import getpass

        try:
            return getpass.getuser()
        except (KeyError, OSError, ImportError):
            return ""


_current: list[Session] = []


def enter(session: Session) -> None:
    _current[:] = [session]


def session() -> Session:
    return _current[0]
