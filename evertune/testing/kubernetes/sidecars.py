"""The collectors of the fake's pods, as real processes: what a kubelet does for the container `evertune-collector`.

For tests of what goes from a pod to the gateway. `async with Sidecars(kube, directory, gateway=url):` starts
`python -m collectors` for each pod with that container, with the container's own variables: directories below
`directory` stand for its volumes, `gateway` for the address that pods would find by DNS. What the pod's script prints
is in the file that the wrapper would write. Tokens of its ServiceAccount are asked for, and renewed every `renew_s`. A
pod that is deleted has its collector ended.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Self

from evertune.app import child_environment, module_command
from evertune.testing.kubernetes.logs import Output
from evertune.testing.kubernetes.objects import JsonDict, Refused
from evertune.testing.kubernetes.server import FakeKube

COLLECTOR = "evertune-collector"


class Sidecars:
    def __init__(self, kube: FakeKube, directory: Path, *, gateway: str, renew_s: float = 60.0) -> None:
        self.tokens: dict[str, list[str]] = {}  # that were given to each pod, by its name
        self._kube = kube
        self._directory = directory
        self._gateway = gateway
        self._renew_s = renew_s
        self._watching: asyncio.Task[None] | None = None
        self._pods: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [*self._pods.values(), *([self._watching] if self._watching else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def said(self, pod: str) -> str:
        """What the collector of the pod of that name has printed."""
        return (self._directory / pod / "said").read_text()

    async def _watch(self) -> None:
        with self._kube.store.watching("pods") as queue:
            while True:
                change = await queue.get()
                uid = change.after["metadata"]["uid"]
                if change.type == "ADDED" and _collector(change.after) is not None:
                    self._pods[uid] = asyncio.create_task(self._run(change.after))
                elif change.type == "DELETED" and uid in self._pods:
                    self._pods[uid].cancel()

    async def _run(self, pod: JsonDict) -> None:
        volumes = self._directory / pod["metadata"]["name"]
        container = _collector(pod)
        assert container is not None
        for mount in container["volumeMounts"]:
            _inside(volumes, mount["mountPath"]).mkdir(parents=True, exist_ok=True)
        self._renew(pod, container, volumes)
        beside = [
            asyncio.create_task(self._keep_fresh(pod, container, volumes)),
            asyncio.create_task(self._follow(pod, volumes / "evertune")),
        ]
        with (volumes / "said").open("ab") as said:
            process = await asyncio.create_subprocess_exec(
                *module_command("collectors"), env=self._environment(pod, container, volumes), stderr=said, stdout=said
            )
        try:
            await process.wait()
        finally:
            for task in beside:
                task.cancel()
            if process.returncode is None:
                process.kill()
                await process.wait()

    def _environment(self, pod: JsonDict, container: JsonDict, volumes: Path) -> dict[str, str]:
        """Paths below a mount are moved to where its volume is; `valueFrom` is the pod's uid, the one that we use."""
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        told = {}
        for variable in container["env"]:
            value = str(variable.get("value", pod["metadata"]["uid"]))
            mounted = any(value.startswith(f"{path}/") for path in mounts)
            told[variable["name"]] = str(_inside(volumes, value)) if mounted else value
        told["EVERTUNE_INGEST_URL"] = self._gateway
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("EVERTUNE_")}
        return child_environment({**inherited, **told})

    async def _keep_fresh(self, pod: JsonDict, container: JsonDict, volumes: Path) -> None:
        while True:
            await asyncio.sleep(self._renew_s)
            try:
                self._renew(pod, container, volumes)
            except Refused:  # it is gone
                return

    def _renew(self, pod: JsonDict, container: JsonDict, volumes: Path) -> None:
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        for volume in pod["spec"].get("volumes", ()):
            for source in (volume.get("projected") or {}).get("sources", ()):
                wanted = source.get("serviceAccountToken")
                if wanted is None or volume["name"] not in mounts:
                    continue
                token = self._kube.tokens.bound(pod, audience=wanted["audience"], seconds=wanted["expirationSeconds"])
                file = _inside(volumes, mounts[volume["name"]]) / wanted["path"]
                new = file.with_name(f"{file.name}.new")
                new.write_text(token)
                new.replace(file)
                self.tokens.setdefault(pod["metadata"]["name"], []).append(token)

    async def _follow(self, pod: JsonDict, shared: Path) -> None:
        """The main container's output into the file that is collected, then the word that it has ended."""
        output: Output = self._kube.logs.of(pod, pod["spec"]["containers"][0]["name"])
        at = 0
        with (shared / "log").open("ab", buffering=0) as log:
            while True:
                grew, ended = output.grew, output.ended
                while at < len(output.lines):
                    log.write(output.lines[at][1])
                    at += 1
                if ended:
                    break
                await grew.wait()
        for name in ("terminated", "exit"):  # what a native sidecar and an ordinary one wait for
            (shared / name).write_text("0\n")


def _collector(pod: JsonDict) -> JsonDict | None:
    every = [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]
    return next((container for container in every if container["name"] == COLLECTOR), None)


def _inside(volumes: Path, path: str) -> Path:
    return volumes / path.lstrip("/")
