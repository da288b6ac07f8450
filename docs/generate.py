"""Writes the pages of docs/ that follow from the code: `python -m docs.generate`. A test refuses pages that do not.

The command line's page is what the commands say of themselves, the settings' page what `evertune.settings` says, the
CustomResourceDefinitions below deploy/ what the models of the Experiment say.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from docs import algorithms_page
from evertune.cli.verbs import FLAGS, GROUPS, Verb
from evertune.kubectl.crd import definitions

DOCS = Path(__file__).parent
ROOT = DOCS.parent
NOTE = "<!-- Written by docs/generate.py; change the code, then run `make docs`. -->"


def pages() -> dict[Path, str]:
    crds = {ROOT / "deploy" / "kubernetes" / "crds" / name: text for name, text in definitions().items()}
    return {
        DOCS / "settings.md": settings_page(),
        DOCS / "cli.md": cli_page(),
        **algorithms_page.pages(NOTE),
        **crds,
    }


def cli_page() -> str:
    groups = "\n\n".join(
        "\n\n".join([f"## {title}", *(section_of(verb) for first in verbs for verb in (first, *first.under))])
        for title, verbs in GROUPS
    )
    return f"""{NOTE}

# The command line

Data goes to standard output, talk to standard error, so every command can stand in a pipe. Most take `-o` with `table`,
`wide`, `json`, `yaml`, `csv` or `name`. These stand anywhere:

| flag | meaning |
|---|---|
{flags()}

| exit code | meaning |
|---|---|
| 0 | success |
| 1 | the experiment failed or was cancelled, or something that evertune itself needs is unusable |
| 2 | a wrong command line, a document with problems, a name that is taken |
| 3 | no such experiment or trial |
| 4 | a time limit passed, or a server cannot be reached; nothing is lost |
| 130 | interrupted |

{groups}
"""


def flags() -> str:
    return "\n".join(f"| `{names}` | {text} |" for names, text in FLAGS)


def section_of(verb: Verb) -> str:
    """What `evertune VERB --help` says on a terminal of 100 columns, whoever asks."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("EVERTUNE", "TEMPORAL"))}
    done = subprocess.run(
        [sys.executable, "-m", "evertune.cli", *verb.name.split(), "--help"],
        cwd=ROOT,
        env={**plain, "COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"},
        check=True,
        capture_output=True,
        text=True,
    )
    text = "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())
    return f"### evertune {verb.name}\n\n```text\n{text}\n```"


def settings_page() -> str:
    rows = "\n".join(f"| {names} | {text} |" for names, text in settings())
    return f"""{NOTE}

# Settings

All settings are variables of the environment. A value that cannot be used is refused in one sentence, and `evertune
doctor` shows what is in force. Whatever evertune keeps on a machine lies below `EVERTUNE_HOME`, so several homes live
side by side, each with its own Temporal server, worker, database and ports.

| variable | what it says |
|---|---|
{rows}
"""


def settings() -> Iterator[tuple[str, str]]:
    """Names and meaning of each setting, from the comments of the class that holds them."""
    source = (ROOT / "evertune" / "settings.py").read_text()
    lines = source.splitlines()
    (model,) = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == "Settings")
    for node in model.body:
        if not isinstance(node, ast.AnnAssign):
            continue
        comment: list[str] = []
        above = node.lineno - 2
        while lines[above].strip().startswith("#"):
            comment.insert(0, lines[above].strip().lstrip("# "))
            above -= 1
        if not comment:  # the second field of a pair shares the comment of the first
            continue
        names, _, text = " ".join(comment).partition(": ")
        text = (text[0].upper() + text[1:]).replace("None: ", "Unset: ").replace("|", "\\|")
        if "efault" not in text and isinstance(node.value, ast.Constant) and node.value.value is not None:
            text += f" Default `{node.value.value!s}`."
        yield re.sub(r"\b(EVERTUNE|TEMPORAL)_[A-Z_]+", r"`\g<0>`", names), text


def main() -> None:
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
