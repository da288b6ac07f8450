"""What the tests about the repository itself share: where it is and which files belong to it."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
APPLICATION_PACKAGES = ("workflows", "activities", "algorithms", "collectors", "worker")


@cache
def tracked_files() -> tuple[Path, ...]:
    """Every file that is, or is about to be, part of a commit; what .gitignore names is not."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return tuple(path for name in listing.split("\0") if name and (path := ROOT / name).is_file())


def python_files() -> tuple[Path, ...]:
    return tuple(path for path in tracked_files() if path.suffix == ".py")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))
