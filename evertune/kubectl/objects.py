"""What an Experiment object of a cluster says, as plain data: its manifest, and what of it may change later.

Pure functions of the object's JSON. They judge nothing: the `admit` activity does, with every problem at once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

JsonDict = dict[str, Any]

GROUP = "evertune.io"
VERSION = "v1alpha1"
KATIB_GROUP = "kubeflow.org"
KATIB_VERSION = "v1beta1"
KIND = "Experiment"
PLURAL = "experiments"

FINALIZER = f"{GROUP}/operator"
NOTES = f"operator.{GROUP}"  # prefix of the annotations in which kopf keeps how far it is

BUDGET = ("parallelTrialCount", "maxTrialCount", "maxFailedTrialCount")  # beside objective.goal, what may change
_NOT_THE_USERS = (f"{NOTES}/", "kubectl.kubernetes.io/", "kopf.zalando.org/")


@dataclass(frozen=True)
class Object:
    """One Experiment object as the API server has it."""

    body: Mapping[str, Any]

    @property
    def metadata(self) -> Mapping[str, Any]:
        return self.body.get("metadata") or {}

    @property
    def name(self) -> str:
        return str(self.metadata.get("name") or "")

    @property
    def namespace(self) -> str:
        return str(self.metadata.get("namespace") or "default")

    @property
    def uid(self) -> str:
        return str(self.metadata.get("uid") or "")

    @property
    def generation(self) -> int:
        return int(self.metadata.get("generation") or 0)

    @property
    def guarded(self) -> bool:
        """Whether its deletion waits for us: before that, nothing may be started for it."""
        return FINALIZER in (self.metadata.get("finalizers") or ())

    @property
    def status(self) -> Mapping[str, Any]:
        return self.body.get("status") or {}

    @property
    def spec(self) -> JsonDict:
        spec = self.body.get("spec")
        return dict(spec) if isinstance(spec, Mapping) else {}

    @cached_property
    def manifest(self) -> JsonDict:
        """The Experiment in Katib's form, without what the API server and its clients wrote into it."""
        metadata: JsonDict = {"name": self.name, "namespace": self.namespace}
        if labels := self.metadata.get("labels"):
            metadata["labels"] = dict(labels)
        annotations = {
            key: value
            for key, value in (self.metadata.get("annotations") or {}).items()
            if not key.startswith(_NOT_THE_USERS)
        }
        if annotations:
            metadata["annotations"] = annotations
        return {
            "apiVersion": f"{KATIB_GROUP}/{KATIB_VERSION}",
            "kind": KIND,
            "metadata": metadata,
            "spec": self.body.get("spec"),
        }

    @cached_property
    def budget(self) -> JsonDict:
        """What may change while the experiment runs, as far as the object says it."""
        spec = self.spec
        found = {name: spec[name] for name in BUDGET if spec.get(name) is not None}
        objective = spec.get("objective")
        if isinstance(objective, Mapping) and objective.get("goal") is not None:
            found["goal"] = objective["goal"]
        return found

    @cached_property
    def fixed(self) -> dict[str, str]:
        """A short digest of each field that may not change. Kept with the experiment, so that a change has a name."""
        spec = {name: value for name, value in self.spec.items() if name not in BUDGET}
        if isinstance(spec.get("objective"), dict):
            spec["objective"] = {name: value for name, value in spec["objective"].items() if name != "goal"}
        return {name: _digest(value) for name, value in spec.items()}

    @cached_property
    def origin(self) -> JsonDict:
        """What is kept with the experiment, to know it again as this object's. Far below 4 KB."""
        return {"object": self.uid, "fixed": self.fixed, "budget": self.budget}


@dataclass(frozen=True)
class Change:
    """What the object says otherwise than it did. `refused` names the fields that cannot follow."""

    budget: JsonDict
    refused: tuple[str, ...] = ()


def change_of(seen: Object, fixed: Mapping[str, str], budget: Mapping[str, Any]) -> Change:
    """Against the digests of the admitted spec, and the budget that was last applied."""
    moved = sorted(name for name in {*fixed, *seen.fixed} if fixed.get(name) != seen.fixed.get(name))
    gone = sorted(name for name in budget if name not in seen.budget)
    new = {name: value for name, value in seen.budget.items() if budget.get(name) != value}
    return Change(budget=new, refused=(*moved, *(f"{name} (removed)" for name in gone)))


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
