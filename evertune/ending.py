"""How a process of evertune ends: with one sentence for an error, and without the interpreter's own shutdown.

Called by the `__main__` of every process, last of all. It finishes no work: whoever calls has done that.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from evertune.errors import EvertuneError


def told(error: EvertuneError) -> int:
    """Say it on standard error, with its hint; the exit code that belongs to it."""
    sys.stderr.write(f"error: {error}\n" + (f"  {error.hint}\n" if error.hint else ""))
    return error.exit_code


def leave(code: int) -> NoReturn:
    """End now. 0 becomes 1 where output was lost.

    Threads of temporalio may touch an interpreter that is being finalised, abort it, and change the exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or 1
    os._exit(code)
