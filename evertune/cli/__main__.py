"""`python -m evertune.cli`: the same as the command `evertune`."""

from __future__ import annotations

from evertune.cli import main

if __name__ == "__main__":
    main()
