"""Logging of evertune's own processes: for people on a terminal, one JSON object per line anywhere else.

`configure()` is called once by an entry point (CLI, worker, server), never by a library module; those only do
`structlog.get_logger()`. Lines go to standard error. structlog is imported when it is used, so that `--help` is quick.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evertune.settings import LogFormat, Settings

LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)


class _Stderr:
    """Standard error, whatever it is at the moment of writing. A log on a full disk must not fail the work."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()


def level_for(name: str, verbosity: int) -> int:
    """The level of EVERTUNE_LOG moved by -v (+1) and -q (-1), each one step."""
    base = LEVELS.index(getattr(logging, name.upper()))
    return LEVELS[min(max(base - verbosity, 0), len(LEVELS) - 1)]


def configure(settings: Settings | None = None, *, verbosity: int = 0) -> None:
    """Set up structlog and route the standard library's loggers (temporalio and others) through it, from WARNING on.

    `verbosity` is the number of -v minus the number of -q. Commands that talk to people themselves pass one less than
    that: of the log they show warnings only. Calling it again replaces the previous set-up.
    """
    import structlog

    level = level_for(settings.log_level if settings else "info", verbosity)
    human = _human(settings.log_format if settings else "auto")
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if human else "iso", utc=not human, key="time"),
        structlog.processors.StackInfoRenderer(),
    ]
    rendering: list[structlog.typing.Processor]
    if human:
        colors = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        rendering = [
            structlog.dev.ConsoleRenderer(
                colors=colors, timestamp_key="time", exception_formatter=structlog.dev.plain_traceback
            )
        ]
    else:
        rendering = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    stream: Any = _Stderr()
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,  # configure() may come again, in tests and after options were read
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                *shared,
                structlog.stdlib.add_logger_name,
                structlog.stdlib.PositionalArgumentsFormatter(),
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
    logging.captureWarnings(capture=True)


@contextlib.contextmanager
def about(*, experiment: str | None = None, trial: int | None = None, attempt: int | None = None) -> Iterator[None]:
    """Every line logged inside, in this task or thread, names the experiment, trial and attempt it is about."""
    import structlog

    given = {"experiment": experiment, "trial": trial, "attempt": attempt}
    with structlog.contextvars.bound_contextvars(**{name: value for name, value in given.items() if value is not None}):
        yield


def _human(log_format: LogFormat) -> bool:
    return log_format == "human" or (log_format == "auto" and sys.stderr.isatty())
