"""Where one trial keeps its checkpoint and which one it goes on from, on this machine or in a cluster.

Asked by `launch` for each attempt. A pure function of experiment, trial number and labels: every attempt of a trial,
or of one of its replicates, has the same directories, whoever starts it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from evertune.domain import labels
from evertune.domain.records import ExperimentRecord
from evertune.protocols import Checkpoints
from evertune.spec import Experiment
from evertune.spec.checkpoints import path_of, root_of

DIRECTORY = "checkpoint"  # of a local trial, beside the directories of its attempts
MOUNT, PARENT_MOUNT = "/evertune-checkpoint", "/evertune-parent-checkpoint"  # of a claim, in the training container


def checkpoints_of(
    record: ExperimentRecord,
    experiment: Experiment,
    number: int,
    given: Mapping[str, str],
    trials_dir: Path | None,
    *,
    replicate: int = 0,
) -> Checkpoints:
    """`given`: the trial's labels. `trials_dir`: where local trials are; None when nothing is started from this.

    Each `replicate` of a trial begins anew, so it has a directory of its own. What goes on from a trial does so from
    that of its first one.
    """
    suffix = f"-{replicate}" if replicate else ""
    parent, path = labels.parent(given), path_of(experiment)
    inherit = path is not None and parent is not None
    if record.backend == "local":
        if trials_dir is None:
            return Checkpoints(own=f"{DIRECTORY}{suffix}" if suffix else None, inherit=inherit, path=path)
        trials = trials_dir / record.uid
        own, before = (None if each is None else str(trials / str(each) / DIRECTORY) for each in (number, parent))
        return Checkpoints(own=f"{own}{suffix}", parent=before, inherit=inherit, path=path)
    root = root_of(experiment)
    if root is None:
        return Checkpoints()
    # Experiments of one name, in other namespaces or deleted since, are kept apart.
    short = hashlib.sha256(record.uid.encode()).hexdigest()[:8]
    own, before = (
        None if each is None else f"{root.path}/{record.name}-{short}/{each}".lstrip("/" if root.claim else "")
        for each in (number, parent)
    )
    own = f"{own}{suffix}"
    if root.claim is None:
        return Checkpoints(own=own, parent=before)
    mounted = None if before is None else PARENT_MOUNT
    return Checkpoints(own=MOUNT, parent=mounted, inherit=inherit, path=path, claim=root.claim, below=(own, before))
