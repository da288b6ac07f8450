"""Where an attempt's object is, and what is to be looked for in it: what the ledger keeps, so that any worker goes on.

Made by the runner from a launch, before the object is.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from activities.runners.kubernetes import labels
from activities.runners.kubernetes.classify import Rules
from activities.runners.kubernetes.inject import unwrapped
from evertune.errors import LaunchError
from evertune.protocols import JsonDict, Launch
from evertune.spec.conditions import Condition
from evertune.spec.kinds import TRAINING_KINDS, containers_of, kind_of, pod_templates

# How an object of a kind is told to end its pods and stay: a merge patch.
_SUSPEND: dict[str, JsonDict] = {
    "Job": {"spec": {"suspend": True}},
    "TrainJob": {"spec": {"suspend": True}},
    "Workflow": {"spec": {"shutdown": "Terminate"}},
    "PipelineRun": {"spec": {"status": "Cancelled"}},
    **{kind: {"spec": {"runPolicy": {"suspend": True}}} for kind in TRAINING_KINDS},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    cluster: str | None
    namespace: str
    api_version: str
    kind: str
    name: str
    mode: str  # of the collector, see `render.Rendered`
    rules: Rules
    retain: bool = False
    deadline_s: float | None = None

    @classmethod
    def of(cls, launch: Launch, manifest: JsonDict, mode: str) -> Place:
        """From a launch and its rendered manifest. Raises LaunchError for conditions that nobody understands."""
        for text, what in ((launch.success_condition, "success"), (launch.failure_condition, "failure")):
            try:
                Condition.parse(text)
            except ValueError as error:
                raise LaunchError(f"the {what} condition {text!r} cannot be used: {error}") from None
        return cls(
            cluster=launch.cluster,
            namespace=manifest["metadata"]["namespace"],
            api_version=manifest["apiVersion"],
            kind=manifest["kind"],
            name=labels.object_name(launch.ref),
            mode=mode,
            rules=Rules(
                success=launch.success_condition,
                failure=launch.failure_condition,
                container=launch.primary_container,
                labels=launch.primary_pod_labels,
                memory=_memory_limit(manifest, launch.primary_container),
                restarts=_backoff_limit(manifest),
                collector=unwrapped(launch, mode),
            ),
            retain=launch.retain,
            deadline_s=launch.deadline_s,
        )

    @classmethod
    def read(cls, data: JsonDict) -> Place:
        """What `as_json` wrote, by this version or an older one."""
        known = {entry.name: data[entry.name] for entry in dataclasses.fields(cls) if entry.name in data}
        return cls(**{**known, "api_version": data["apiVersion"], "rules": Rules.of(data["rules"])})

    def as_json(self) -> JsonDict:
        data: dict[str, Any] = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        data["apiVersion"] = data.pop("api_version")
        return {**data, "rules": self.rules.as_json()}

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.name

    @property
    def named_by(self) -> str | None:
        """The label that names the object on its pods, of a kind that does not hand ours on to them."""
        known = kind_of({"apiVersion": self.api_version, "kind": self.kind})
        return None if known is None else known.pods_named_by

    @property
    def suspension(self) -> JsonDict | None:
        return _SUSPEND.get(self.kind)

    @property
    def reads_log(self) -> bool:
        """The worker collects from the log of the pod, without a collector beside it."""
        return self.mode in ("logs", "none")


def _backoff_limit(manifest: JsonDict) -> int | None:
    spec = manifest.get("spec") or {}
    limit = (spec.get("runPolicy") or spec).get("backoffLimit")
    return limit if isinstance(limit, int) else None


def _memory_limit(manifest: JsonDict, container: str) -> str | None:
    for _, _, template in pod_templates(manifest):
        for _, entry in containers_of(template):
            limits = (entry.get("resources") or {}).get("limits") or {}
            if entry.get("name") == container and limits.get("memory") is not None:
                return str(limits["memory"])
    return None
