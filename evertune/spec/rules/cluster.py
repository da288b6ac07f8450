"""What a cluster takes and will then hurt a trial: warnings, given where the trials are to run in one.

`spec.support` has what a cluster would refuse.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from evertune.spec.findings import Findings
from evertune.spec.kinds import Kind, kind_of, pod_templates, primary_role, replicas_of, shown
from evertune.spec.model import JsonDict, TrialTemplate

PATH = "spec.trialTemplate"
SHORTEST_TTL_S = 300


def check_cluster(template: TrialTemplate, manifest: JsonDict, root: str, findings: Findings) -> None:
    """`root`: the path at which `manifest`, the trial's object before its values are filled in, stands."""
    known = kind_of(manifest)
    for where, seconds in _times_to_live(manifest):
        if isinstance(seconds, int) and not isinstance(seconds, bool) and 0 <= seconds < SHORTEST_TTL_S:
            message = f"the {manifest['kind']} is gone {seconds} s after its end: whoever looks later cannot know how"
            hint = f"{SHORTEST_TTL_S} or more; or leave it out, evertune deletes the object itself"
            findings.warn(f"{root}.{where}", message, hint)
    if known is not None and known.trains:
        _check_restarts(known, manifest, root, findings)
    if not template.primary_pod_labels and not any(pod_templates(manifest)):
        message = f"every pod of a {shown(manifest)} with a container of that name counts as the one that reports"
        hint = "say which one does: primaryPodLabels"
        findings.warn(f"{PATH}.primaryPodLabels", message, hint, at=f"{PATH}.primaryContainerName", type_="Required")


def _mapping(value: Any, key: str) -> dict[str, Any]:
    inner = value.get(key) if isinstance(value, dict) else None
    return inner if isinstance(inner, dict) else {}


def _times_to_live(manifest: JsonDict) -> Iterator[tuple[str, Any]]:
    spec = _mapping(manifest, "spec")
    yield "spec.ttlSecondsAfterFinished", spec.get("ttlSecondsAfterFinished")
    yield "spec.runPolicy.ttlSecondsAfterFinished", _mapping(spec, "runPolicy").get("ttlSecondsAfterFinished")
    for key, seconds in _mapping(spec, "ttlStrategy").items():
        yield f"spec.ttlStrategy.{key}", seconds


def _check_restarts(known: Kind, manifest: JsonDict, root: str, findings: Findings) -> None:
    leading = primary_role(manifest)
    if leading is not None and replicas_of(manifest)[leading].get("restartPolicy") == "Always":
        # The kubelet starts it again whatever its exit status, and the operator waits for a pod that has succeeded.
        message = f"a {leading} that has ended well is started again, so that the {known.kind} never succeeds"
        path = f"{root}.spec.{known.replicas_field}.{leading}.restartPolicy"
        findings.warn(path, message, "write restartPolicy: OnFailure, or Never")
    policy = _mapping(_mapping(manifest, "spec"), "runPolicy")
    if policy.get("backoffLimit") is not None:
        return
    for role, replica in replicas_of(manifest).items():
        said = replica.get("restartPolicy")
        if (said or known.default_restart) == "OnFailure":
            default = "" if said else f", the default of a {known.kind}"
            message = f"{role} has restartPolicy OnFailure{default}: without a backoffLimit a program that fails is"
            message += " started again for ever"
            findings.warn(f"{root}.spec.runPolicy", message, "set runPolicy.backoffLimit, or restartPolicy: Never")
            return
