"""Reads the code blocks of our Markdown pages, and the comment above a block that says how to treat it.

```console … ```          each line that begins with `$ ` is run, in order, in the repository's root; the lines
                          below it must occur in what it says, where `…` stands for anything
<!-- run: slow -->        the block below runs with the slow tests
<!-- run: no, REASON -->  the block below is not run
<!-- file: PATH -->       the block below is that file, word for word
```python … ```           is run
```yaml … ```             without a `file` comment is an experiment, and must be a valid one
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.repository.checkout import ROOT, name_of

FENCE = re.compile(
    r"^(?:<!-- (?P<directive>run|file): (?P<value>.+?) -->\n+)?```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str
    directive: str | None = None
    value: str | None = None

    @property
    def slow(self) -> bool:
        return (self.directive, self.value) == ("run", "slow")

    @property
    def runs(self) -> bool:
        return self.directive != "run" or not (self.value or "").startswith("no")

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass
class Command:
    """A line of a console block and what the page says it prints."""

    line: str
    shown: list[str] = field(default_factory=list)

    def missing_from(self, output: str) -> list[str]:
        return [line for line in self.shown if not re.search(re.escape(line.strip()).replace("…", ".*"), output)]


def blocks() -> Iterator[Block]:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("**/*.md"))]:
        yield from blocks_of(name_of(page), page.read_text())


def blocks_of(page: str, text: str) -> Iterator[Block]:
    for found in FENCE.finditer(text):
        line = text.count("\n", 0, found.start("language")) + 1
        yield Block(page, line, found["language"], found["text"], found["directive"], found["value"])


def commands(text: str) -> list[Command]:
    """`$ ` lines with their continuations (a trailing backslash), each with the output shown below it."""
    found: list[Command] = []
    continues = False
    for line in text.splitlines():
        if continues:
            found[-1].line += "\n" + line
        elif line.startswith("$ "):
            found.append(Command(line[2:]))
        elif line.strip():
            found[-1].shown.append(line)
            continue
        continues = bool(found) and found[-1].line.endswith("\\")
    return found


def without_colour(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def environment(home: Path, base: Mapping[str, str]) -> dict[str, str]:
    """Of a reader with an activated set-up and an EVERTUNE_HOME of his own: `python` and `evertune` are this one's."""
    bin_folder = home / "bin"
    bin_folder.mkdir()
    for name, arguments in (("python", ""), ("evertune", "-m evertune.cli ")):
        script = bin_folder / name
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments}"$@"\n')
        script.chmod(0o755)
    others = ("EVERTUNE", "TEMPORAL", "PYTEST", "KUBECONFIG")
    kept = {name: value for name, value in base.items() if not name.startswith(others)}
    return {
        **kept,
        "EVERTUNE_HOME": str(home / "home"),
        "EVERTUNE_CHECKPOINT_DIR": str(home / "checkpoints"),  # of programs that a page runs by hand
        "PATH": f"{bin_folder}:{kept['PATH']}",
        "COLUMNS": "120",
        "NO_COLOR": "1",
    }
