"""Where trials in a cluster keep their checkpoints: the annotation `evertune.io/checkpoints`, and who needs one.

    pvc://CLAIM/PATH     a PersistentVolumeClaim (ReadWriteMany, unless all pods share a node); evertune mounts it
    s3://BUCKET/PATH     or any other URI, which the program itself reads and writes
    /PATH                a directory that the template has mounted already

Below it each experiment has a directory, and in that each trial its own, named by its number. Local trials need none
of this: their directories are in the home of evertune.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from evertune.spec.convert import algorithm_of, settings_of
from evertune.spec.model import Experiment

ANNOTATION = "evertune.io/checkpoints"
RESUMING = ("hyperband", "asha", "bohb", "pbt")  # algorithms whose trials go on from another one's checkpoint
PATH_SETTING = "suggestion_trial_dir"

_CLAIM = re.compile(r"pvc://([a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?)(?:/(.*))?\Z")
_URI = re.compile(r"[a-z][a-z0-9+.-]{0,30}://[^\s]+\Z")


@dataclass(frozen=True, slots=True)
class Root:
    """`claim`: of a PersistentVolumeClaim; then `path` is a directory in it, without slashes around it."""

    path: str
    claim: str | None = None


def parse_root(text: str) -> Root:
    """Raises ValueError for what is none of the three forms."""
    text = text.strip()
    if ".." in text.split("/") or "\0" in text or len(text) > 1000:
        raise ValueError(text)
    if text.startswith("pvc:"):
        if (found := _CLAIM.match(text)) is None:
            raise ValueError(text)
        return Root((found[2] or "").strip("/"), found[1])
    if _URI.match(text) or (text.startswith("/") and text.strip("/")):
        return Root(text.rstrip("/"))
    raise ValueError(text)


def root_of(experiment: Experiment) -> Root | None:
    """Raises ValueError where the rule did not hold."""
    text = experiment.annotations.get(ANNOTATION)
    return None if text is None else parse_root(text)


def path_of(experiment: Experiment) -> str | None:
    """Katib's `suggestion_trial_dir` of pbt: where a container finds the checkpoint that it goes on from."""
    path = settings_of(experiment).get(PATH_SETTING) if algorithm_of(experiment) == "pbt" else None
    return path.rstrip("/") if path and path.startswith("/") and path.strip("/") else None


def resumes(experiment: Experiment) -> bool:
    return algorithm_of(experiment) in RESUMING
