"""The experiments that have a directory in this home, for what tidies there. Reads only.

Directories of experiments that the database does not know are left out: they are nobody's to touch.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evertune.domain.records import ExperimentRecord
from evertune.errors import NotFoundError
from evertune.store import Store


def experiments(store: Store, trials_dir: Path) -> Iterator[tuple[ExperimentRecord, Path]]:
    for directory in trials_dir.iterdir() if trials_dir.is_dir() else ():
        if directory.name == "live" or not directory.is_dir():
            continue
        try:
            yield store.experiment_by_uid(directory.name), directory
        except NotFoundError:
            continue
