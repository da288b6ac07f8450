"""The two streams of a command: data on standard output, talk on standard error. The one place that knows terminals.

rich turns styles into escape codes; it is imported only for output that is coloured.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from evertune.cli.output.marks import Marks
from evertune.cli.output.text import STYLES, Segment, plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


class PipeClosedError(Exception):
    """Nobody reads our output any more (`evertune trials x | head`): end quietly."""


@dataclass(frozen=True)
class Stream:
    """One output stream and what it can show. `width` is None where nothing limits a line."""

    name: str  # stdout | stderr: looked up at each write, since tests and redirections replace them
    marks: Marks
    coloured: bool = False
    terminal: bool = False

    @property
    def file(self) -> TextIO:
        return sys.stdout if self.name == "stdout" else sys.stderr

    @property
    def width(self) -> int | None:
        return self.size.columns if self.terminal else None

    @property
    def size(self) -> os.terminal_size:
        """COLUMNS and LINES, else what the terminal says; 80 by 24 where there is none."""
        try:
            found = os.get_terminal_size(self.file.fileno())
        except (OSError, ValueError):
            found = os.terminal_size((80, 24))
        columns, lines = (os.environ.get(name, "") for name in ("COLUMNS", "LINES"))
        return os.terminal_size(
            (
                int(columns) if columns.isdigit() and int(columns) else found.columns or 80,
                int(lines) if lines.isdigit() and int(lines) else found.lines or 24,
            )
        )

    def line(self, line: Sequence[Segment] | str = "") -> None:
        self.lines([line])

    def lines(self, lines: Iterable[Sequence[Segment] | str]) -> None:
        console = self.console() if self.coloured else None
        self.write("".join(f"{_rendered(line, console)}\n" for line in lines))

    def write(self, text: str) -> None:
        try:
            self.file.write(text)
            self.file.flush()
        except BrokenPipeError as error:
            raise PipeClosedError from error

    def console(self) -> Console:
        from rich.console import Console

        return Console(
            file=self.file,
            force_terminal=self.terminal,
            color_system="standard" if self.coloured else None,
            no_color=not self.coloured,
            highlight=False,
            markup=False,
            emoji=False,
        )


def _rendered(line: Sequence[Segment] | str, console: Console | None) -> str:
    if isinstance(line, str):
        return line
    if console is None:
        return plain(line).rstrip()
    with console.capture() as capture:
        console.print(rich_text(line), soft_wrap=True, end="")
    return capture.get().rstrip()


def rich_text(line: Sequence[Segment], end: str = "") -> Text:
    from rich.text import Text

    text = Text(no_wrap=True, overflow="crop", end=end)
    for part, style in line:
        text.append(part, STYLES.get(style, "") or None)
    return text


def open_streams(environ: Mapping[str, str] = os.environ, *, no_color: bool = False) -> tuple[Stream, Stream]:
    """(stdout, stderr) as this process finds them."""
    streams = []
    for name, file in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        reconfigure = getattr(file, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")  # a name in another alphabet must not end a command
        terminal = file.isatty() and environ.get("TERM") != "dumb"
        written = (getattr(file, "encoding", None) or "ascii").lower().replace("-", "")
        ascii_only = written != "utf8" or environ.get("EVERTUNE_ASCII", "") not in ("", "0")
        coloured = terminal and not no_color and not environ.get("NO_COLOR")
        streams.append(Stream(name, Marks(ascii_only), coloured, terminal))
    return streams[0], streams[1]
