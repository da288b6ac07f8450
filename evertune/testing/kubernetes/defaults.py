"""What an API server fills in when an object is made, and what of it nobody may change afterwards. Asked by `store`."""

from __future__ import annotations

from typing import Any

from evertune.testing.kubernetes.objects import JsonDict, Kind, invalid


def defaulted(kind: Kind, obj: JsonDict) -> JsonDict:
    if kind.plural == "namespaces":
        meta = obj["metadata"]
        labels = {**(meta.get("labels") or {}), "kubernetes.io/metadata.name": meta["name"]}
        meta = {**meta, "labels": labels}
        return {**obj, "metadata": meta, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
    if kind.plural == "pods":
        pod = {"terminationGracePeriodSeconds": 30, "restartPolicy": "Always", **obj["spec"]}
        return {**obj, "spec": pod, "status": {"phase": "Pending", "qosClass": "BestEffort"}}
    if kind.plural != "jobs":
        return obj
    uid, name = obj["metadata"]["uid"], obj["metadata"]["name"]
    template: JsonDict = obj["spec"]["template"]
    labels = {
        **((template.get("metadata") or {}).get("labels") or {}),
        "batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": name,
        "controller-uid": uid, "job-name": name,
    }  # fmt: skip
    spec: JsonDict = {
        "backoffLimit": 6, "completionMode": "NonIndexed", "completions": 1, "parallelism": 1, "suspend": False,
        "podReplacementPolicy": "TerminatingOrFailed", "manualSelector": False, **obj["spec"],
        "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}},
        "template": {
            **template, "metadata": {**(template.get("metadata") or {}), "labels": labels},
            "spec": {"terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst", **template["spec"]},
        },
    }  # fmt: skip
    meta = {**obj["metadata"], "labels": obj["metadata"].get("labels") or labels}
    return {**obj, "metadata": meta, "spec": spec, "status": {}}


def check_fixed(kind: Kind, name: str, before: JsonDict, after: JsonDict) -> None:
    if kind.plural != "jobs":
        return
    old: Any = before["spec"]["template"]
    if after.get("spec", {}).get("template") != old and not before["spec"].get("suspend"):
        raise invalid(kind, name, [("FieldValueInvalid", "spec.template", "Invalid value: field is immutable")])
