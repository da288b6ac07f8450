"""`python -m evertune.stack PLAN`: becomes the stack's parent of EVERTUNE_HOME, detached; for `ensure_up` only.

The process that was started waits until the parent holds its lock and has written its record, prints one line of
JSON - {"started": true}, {"started": false} when there is a parent already, or a problem - and ends.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from evertune.errors import EvertuneError
from evertune.settings import Settings, home_problem
from evertune.stack.files import cap_log, open_lock, try_lock
from evertune.stack.parent import Parent, Plan
from evertune.stack.processes import identity_of
from evertune.stack.state import log_file, parent_lock


def main(plan_text: str) -> int:
    reader, writer = os.pipe()
    if os.fork() > 0:
        os.close(writer)
        with os.fdopen(reader, "r", encoding="utf-8") as answer:
            sys.stdout.write(
                answer.read() or json.dumps({"problem": "the stack's parent ended at its start", "hint": ""})
            )
        return 0
    os.close(reader)
    os.setsid()
    try:
        _become_parent(plan_text, writer)
    except EvertuneError as error:
        _answer(writer, {"problem": error.message, "hint": error.hint or ""})
        return error.exit_code
    return 0


def _become_parent(plan_text: str, writer: int) -> None:
    settings = Settings.load()
    try:
        log = log_file(settings, "parent")
        cap_log(log)
        _redirect(log)
        lock = open_lock(parent_lock(settings))
        if not try_lock(lock):
            _answer(writer, {"started": False})
            return
        own = identity_of(os.getpid())
        assert own is not None
        os.ftruncate(lock, 0)
        os.write(lock, json.dumps(own.as_dict()).encode())
    except OSError as error:
        raise home_problem(settings.home, error) from error
    Parent(settings, Plan.of(plan_text), lock=lock).run(on_started=lambda: _answer(writer, {"started": True}))


def _redirect(log: Path) -> None:
    """Let go of the terminal: standard input is nothing, standard output and error are the log."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(nothing)
    os.close(output)


def _answer(writer: int, data: dict[str, Any]) -> None:
    try:
        os.write(writer, json.dumps(data).encode())
        os.close(writer)
    except OSError:  # answered before, or nobody waits for it any more
        return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
