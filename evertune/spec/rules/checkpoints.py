"""Rules about checkpoints in a cluster: a place that can be read, and one at all where trials are to go on from it."""

from __future__ import annotations

from evertune.spec.checkpoints import ANNOTATION, parse_root, resumes
from evertune.spec.convert import algorithm_of, backend_of
from evertune.spec.findings import Findings, quote
from evertune.spec.model import Experiment

_PATH = f"metadata.annotations[{ANNOTATION}]"
_FORMS = "write pvc://CLAIM/PATH, s3://BUCKET/PATH or another URI, or the /PATH of a volume that the template mounts"


def check_checkpoints(experiment: Experiment, findings: Findings, *, backend: str | None) -> None:
    text = experiment.annotations.get(ANNOTATION)
    if text is not None:
        try:
            parse_root(text)
        except ValueError:
            findings.error(_PATH, "Invalid", f"{quote(text)} is no place for checkpoints", _FORMS)
    elif (backend_of(experiment) or backend) == "kubernetes" and resumes(experiment):
        message = (
            f"trials of {algorithm_of(experiment)} go on from each other's checkpoints, and a pod's are gone with it"
        )
        findings.warn(_PATH, f"{message}: each will begin anew", _FORMS, type_="Required")
