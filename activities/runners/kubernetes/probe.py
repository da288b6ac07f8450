"""A small Job that asks the gateway for its health, from where trials would. Called by `evertune doctor --probe`.

It runs the collector's image, so it tells as well whether that can be pulled. It is deleted whatever happens; should
this process be killed, the Job's own deadline and time to live see to it.
"""

from __future__ import annotations

import asyncio
import secrets

from activities.runners.kubernetes import causes, creating, labels
from activities.runners.kubernetes.api import Api, ApiError
from activities.runners.kubernetes.discovery import JOB, POD
from activities.runners.kubernetes.findings import Finding
from activities.runners.kubernetes.inject import RESTRICTED, SMALL, Injection
from activities.runners.kubernetes.render import ISTIO
from evertune.protocols import JsonDict

PROBE = f"{labels.PREFIX}/probe"
CONTAINER = "probe"
PATIENCE_S = 120.0  # an image may have to be pulled first
LOOK_EVERY_S = 0.3
HICCUP_S = 5.0  # of the API server
PROGRAM = """
import sys, time, urllib.error, urllib.request
url = sys.argv[1] + "/healthz"
for attempt in range(5):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            sys.exit(f"HTTP status {answer.status}" if answer.status != 200 else 0)
    except urllib.error.HTTPError as error:
        why = f"it answers with HTTP status {error.code}: {error.read(200).decode(errors='replace')}"
    except Exception as error:
        why = str(getattr(error, "reason", None) or error or type(error).__name__)
    time.sleep(1)
sys.exit(why)
"""


async def probe(
    api: Api,
    namespace: str,
    *,
    url: str,
    injection: Injection,
    pull_secrets: list[str] | None = None,
    patience_s: float = PATIENCE_S,
) -> Finding:
    """Whether a pod of that namespace reaches the gateway at `url`. Leaves nothing behind."""
    name = f"evertune-probe-{secrets.token_hex(4)}"
    job = _job(name, namespace, url, injection, pull_secrets or [], patience_s)
    try:
        await _make(api, namespace, job)
        return await _answer(api, namespace, name, url, patience_s)
    except ApiError as error:
        told = creating.refused(error, JOB, namespace, name)
        return Finding(what="Gateway", found=f"no pod could try it: {told.message}", level="fail", mend=told.hint or "")
    finally:
        await asyncio.shield(_delete(api, namespace, name))


async def _make(api: Api, namespace: str, job: JsonDict) -> None:
    try:
        await api.call("POST", JOB.path(namespace), query=creating.STRICT, body=job, patience_s=HICCUP_S)
    except ApiError as error:
        if error.reason != "AlreadyExists":  # the name is ours alone: a first try was heard, its answer was not
            raise


async def _answer(api: Api, namespace: str, name: str, url: str, patience_s: float) -> Finding:
    loop = asyncio.get_running_loop()
    end, waits = loop.time() + patience_s, "no pod was made"
    while True:
        last = loop.time() >= end  # however late it was, the pod is looked at once more
        found = await api.call(
            "GET", POD.path(namespace), query={"labelSelector": f"{PROBE}={name}"}, patience_s=HICCUP_S
        )
        for pod in found.get("items") or ():
            phase = (pod.get("status") or {}).get("phase")
            if phase == "Succeeded":
                return Finding(what="Gateway", found=f"{url}, reached from a pod in {namespace}")
            if phase == "Failed":
                return await _failed(api, namespace, pod, url)
            held = causes.waiting(pod, CONTAINER)
            if held is not None and held.reason in (*causes.NEVER_PULLED, *causes.PULLING):
                mend = "push the collector's image to where nodes pull from, and name it: EVERTUNE_COLLECTOR_IMAGE"
                return Finding(what="Collector", found=f"{held.reason}: {held.message}", level="fail", mend=mend)
            told = f"{held.reason}: {held.message}" if held is not None else causes.unscheduled(pod)
            waits = told or f"it is {phase or 'Pending'}"
        if last:
            break
        await asyncio.sleep(min(LOOK_EVERY_S, max(0.0, end - loop.time())))
    text = f"the pod that was to try it has not ended within {patience_s:.0f} s: {waits}"
    return Finding(what="Gateway", found=text, level="fail", mend="see that pods start in this namespace")


async def _failed(api: Api, namespace: str, pod: JsonDict, url: str) -> Finding:
    said = b""
    try:
        path = POD.path(namespace, pod["metadata"]["name"], "log")
        said = await api.text(
            path, query={"container": CONTAINER, "tailLines": "3"}, limit_bytes=2000, patience_s=HICCUP_S
        )
    except ApiError:
        pass  # the exit code has to do
    cause = causes.cause_of(pod, CONTAINER)
    why = " ".join(said.decode(errors="replace").split()) or (cause.reason if cause is not None else "it failed")
    return Finding(
        what="Gateway",
        found=f"pods of {namespace} do not reach {url}: {why}",
        level="fail",
        mend="evertune up starts the server of this home; else correct EVERTUNE_INGEST_URL, EVERTUNE_SERVER_HOST, "
        "firewalls and network policies",
    )


async def _delete(api: Api, namespace: str, name: str) -> None:
    body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background", "gracePeriodSeconds": 0}
    try:
        await api.call("DELETE", JOB.path(namespace, name), body=body, patience_s=10.0)
    except ApiError:
        return  # never made, or gone: else its time to live ends it


def _job(
    name: str, namespace: str, url: str, injection: Injection, pull_secrets: list[str], patience_s: float
) -> JsonDict:
    container = {
        "name": CONTAINER,
        "image": injection.image,
        "command": ["python3", "-c", PROGRAM, url],
        "resources": SMALL,
        "securityContext": injection.security_context or RESTRICTED,
    }
    if injection.image_pull_policy:
        container["imagePullPolicy"] = injection.image_pull_policy
    spec: JsonDict = {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [container]}
    spec["terminationGracePeriodSeconds"] = 0
    if pull_secrets:
        spec["imagePullSecrets"] = [{"name": secret} for secret in pull_secrets]
    return {
        "apiVersion": JOB.api_version,
        "kind": JOB.kind,
        "metadata": {"name": name, "namespace": namespace, "labels": {PROBE: name}},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": int(patience_s) + 30,
            "ttlSecondsAfterFinished": 60,
            "template": {"metadata": {"labels": {PROBE: name}, "annotations": {ISTIO: "false"}}, "spec": spec},
        },
    }
