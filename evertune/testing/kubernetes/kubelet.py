"""Scheduler and kubelet of the fake in one: "runs" pods from scripts, and shows misfortunes as a real cluster would.

`script_of(pod)` says what a pod's main container does, the first of its containers. Init containers succeed at once,
native sidecars run as long as the pod, other containers end with the main one or, if it says so, later. No process is
started.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from evertune.testing.kubernetes.controllers import condition
from evertune.testing.kubernetes.logs import Logs
from evertune.testing.kubernetes.misfortunes import Misfortune
from evertune.testing.kubernetes.objects import JsonDict, Refused, timestamp
from evertune.testing.kubernetes.store import Change, Store
from evertune.testing.scripts import Script

ScriptOf = Callable[[JsonDict], Script | Misfortune]
NODE = "node-1"
MOMENT_S = 0.005  # controllers see each phase of a pod before the next


class Kubelet:
    """One node that takes every pod."""

    def __init__(self, store: Store, logs: Logs, script_of: ScriptOf, *, backoff_s: float = 0.1) -> None:
        self.script_of = script_of
        self._store = store
        self._logs = logs
        self._backoff_s = backoff_s
        self._lives: dict[str, tuple[asyncio.Task[None], _Life]] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        tasks = [task for task, _ in self._lives.values()]
        if self._task is not None:
            tasks.append(self._task)
            self._task = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._lives.clear()

    async def _run(self) -> None:
        with self._store.watching("pods") as queue:
            for pod in self._store.all("pods"):
                self._begin(pod)
            while True:
                self._changed(await queue.get())

    def _begin(self, pod: JsonDict) -> None:
        uid = pod["metadata"]["uid"]
        if uid in self._lives or pod["status"].get("phase") in ("Succeeded", "Failed"):
            return
        life = _Life(self._store, self._logs, pod, self.script_of(pod), self._backoff_s)
        task = asyncio.create_task(life.live())
        self._lives[uid] = task, life
        task.add_done_callback(lambda _: self._lives.pop(uid, None))

    def _changed(self, change: Change) -> None:
        meta = change.after["metadata"]
        if change.type == "ADDED":
            self._begin(change.after)
        task, life = self._lives.get(meta["uid"], (None, None))
        if task is None or life is None:
            return
        if change.type == "DELETED":
            task.cancel()
        elif meta.get("deletionTimestamp"):
            life.grace_s = meta.get("deletionGracePeriodSeconds", 30)
            life.stopping.set()


class _Life:
    """One pod from creation to its end."""

    def __init__(self, store: Store, logs: Logs, pod: JsonDict, fate: Script | Misfortune, backoff_s: float) -> None:
        self._store = store
        self._logs = logs
        self._fate = fate
        self._backoff_s = backoff_s
        self._spec: dict[str, Any] = pod["spec"]
        self._main: str = pod["spec"]["containers"][0]["name"]
        self._pod = pod
        self._restarts = 0
        self._last_state: JsonDict = {}
        self._started = ""
        self.stopping = asyncio.Event()
        self.grace_s: float = 30

    async def live(self) -> None:
        try:
            await self._live()
        except Refused:
            return  # somebody deleted it meanwhile
        finally:
            for container in self._spec["containers"]:
                self._logs.of(self._pod, container["name"]).end()

    async def _live(self) -> None:
        fate = self._fate
        if isinstance(fate, Misfortune) and fate.stage == "scheduling":
            self._status(conditions=[condition("PodScheduled", fate.reason, fate.message, "False")])
            self._tell(fate)
            await self.stopping.wait()
            return
        self._store.update("pods", *self._key, lambda pod: {**pod, "spec": {**pod["spec"], "nodeName": NODE}})
        scheduled = condition("PodScheduled", "", "")
        self._status(startTime=timestamp(), hostIP="192.0.2.1", conditions=[scheduled])
        if isinstance(fate, Misfortune) and fate.stage == "admission":
            self._status(phase="Failed", reason=fate.reason, message=fate.message)
            return
        self._containers({"waiting": {"reason": "ContainerCreating"}}, phase="Pending")
        if isinstance(fate, Misfortune) and fate.stage == "waiting":
            await self._wait_in_vain(fate)
            return
        while not await self._run_once():
            self._restarts += 1
            waiting = {"reason": "CrashLoopBackOff", "message": f"back-off restarting failed container {self._main}"}
            self._containers({"waiting": waiting}, phase="Running")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), min(1.0, self._backoff_s * 2 ** (self._restarts - 1)))
            if self.stopping.is_set():
                break
        if self.stopping.is_set():
            self._store.finish("pods", *self._key, self._pod["metadata"]["uid"])

    async def _wait_in_vain(self, fate: Misfortune) -> None:
        for reason in filter(None, (fate.first_reason, fate.reason)):
            text = fate.message if reason == fate.reason else fate.first_message
            message = {} if reason == "ContainerCreating" else {"message": text}
            self._containers({"waiting": {"reason": reason, **message}}, phase="Pending")
        self._tell(fate)
        await self.stopping.wait()
        text = "The container could not be located when the pod was terminated"
        unknown = {"exitCode": 137, "reason": "ContainerStatusUnknown", "message": text}
        self._containers({"terminated": {**unknown, "startedAt": None, "finishedAt": None}}, phase="Failed")
        self._store.finish("pods", *self._key, self._pod["metadata"]["uid"])

    async def _run_once(self) -> bool:
        """Run the main container; whether the pod has ended."""
        fate = self._fate
        output = self._logs.of(self._pod, self._main)
        self._started = timestamp()
        if not (isinstance(fate, Misfortune) and fate.reason == "StartError"):
            self._containers({"running": {"startedAt": self._started}}, phase="Running")
        await asyncio.sleep(MOMENT_S)
        if isinstance(fate, Misfortune):
            return await self._misfortune(fate)
        for line in fate.lines:
            if await self._stopped_within(fate.pause_s):
                break
            output.write(f"{line}\n")
            if await self._stopped_before(fate.until):
                break
        if await self._stopped_within(fate.duration_s):
            return await self._terminate(fate.ignores_sigterm)
        code = 128 + fate.signal if fate.signal else fate.exit_code
        if len(self._spec["containers"]) > 1 and (fate.beside_s or fate.beside_exit_code):
            return await self._go_on_beside(fate, code)
        return self._ended(code, "Completed" if code == 0 else "Error")

    async def _go_on_beside(self, fate: Script, code: int) -> bool:
        """The pod lasts until its last container has ended. None of them is started again."""
        over = self._terminated(code, "Completed" if code == 0 else "Error")
        self._containers(over, phase="Running", beside={"running": {"startedAt": self._started}})
        others = 143 if await self._stopped_within(fate.beside_s) else fate.beside_exit_code
        self._logs.of(self._pod, self._main).end()
        beside = self._terminated(others, "Completed" if others == 0 else "Error")
        self._containers(over, phase="Failed" if code or others else "Succeeded", beside=beside)
        return True

    def _terminated(self, code: int, reason: str) -> JsonDict:
        told = {"exitCode": code, "reason": reason, "startedAt": self._started, "finishedAt": timestamp()}
        return {"terminated": told}

    async def _misfortune(self, fate: Misfortune) -> bool:
        for line in fate.lines:
            self._logs.of(self._pod, self._main).write(f"{line}\n")
        if await self._stopped_within(fate.after_s):
            return await self._terminate(ignores_sigterm=False)
        self._tell(fate)
        pod = self._store.get("pods", *self._key)
        conditions = list(pod["status"].get("conditions", ()))
        if fate.disruption is not None:
            conditions.append(condition("DisruptionTarget", fate.disruption, fate.message))
        if fate.lost:
            conditions = [found for found in conditions if found["type"] != "Ready"]
            conditions.append(condition("Ready", "NodeLost", fate.message, "False"))
        about: JsonDict = {"conditions": conditions}
        if fate.pod_reason is not None:
            about |= {"reason": fate.pod_reason, "message": fate.message}
        if fate.deletes:
            self._status(**about)
            self._store.delete("pods", *self._key)
            if fate.lost:
                await asyncio.Event().wait()  # until somebody deletes it by force
            await self.stopping.wait()
            return await self._terminate(ignores_sigterm=False)
        return self._ended(fate.exit_code or 0, fate.reason, "" if fate.pod_reason else fate.message, about)

    async def _terminate(self, ignores_sigterm: bool) -> bool:
        if ignores_sigterm:
            await asyncio.sleep(self.grace_s)
        self._ended(137 if ignores_sigterm else 143, "Error", final=True)
        return True

    def _ended(
        self, code: int, reason: str, message: str = "", about: JsonDict | None = None, *, final: bool = False
    ) -> bool:
        terminated = {**self._terminated(code, reason)["terminated"], **({"message": message} if message else {})}
        policy = self._spec.get("restartPolicy", "Always")
        disrupted = about is not None and "reason" in about
        if not final and not disrupted and (policy == "Always" or (policy == "OnFailure" and code != 0)):
            self._last_state = {"terminated": terminated}
            return False
        self._logs.of(self._pod, self._main).end()
        phase = "Succeeded" if code == 0 and not disrupted else "Failed"
        self._containers({"terminated": terminated}, phase=phase, about=about)
        return True

    async def _stopped_within(self, seconds: float) -> bool:
        if not seconds:
            return self.stopping.is_set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)
        return self.stopping.is_set()

    async def _stopped_before(self, event: asyncio.Event | None) -> bool:
        if event is None or event.is_set():
            return self.stopping.is_set()
        waits = [asyncio.ensure_future(each.wait()) for each in (self.stopping, event)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return self.stopping.is_set()

    # ------------------------------------------------------------------------------------------ status

    @property
    def _key(self) -> tuple[str, str]:
        meta = self._pod["metadata"]
        return meta["namespace"], meta["name"]

    def _status(self, **status: Any) -> None:
        pod = self._store.get("pods", *self._key)
        if pod["metadata"]["uid"] != self._pod["metadata"]["uid"]:
            raise Refused(404, "another pod has the name")
        self._store.set_status("pods", *self._key, status)

    def _tell(self, fate: Misfortune) -> None:
        if fate.event is not None:
            source = "default-scheduler" if fate.stage == "scheduling" else "kubelet"
            self._store.record(self._store.get("pods", *self._key), fate.event, fate.message, source=source)

    def _containers(
        self, state: JsonDict, *, phase: str, about: JsonDict | None = None, beside: JsonDict | None = None
    ) -> None:
        """Write the statuses of all containers: `state` is the main one's, `beside` that of the others."""
        waiting, terminated = "waiting" in state, "terminated" in state
        running = {"running": {"startedAt": self._started}}
        over = self._terminated(0, "Completed")
        beside = beside or (state if waiting and not self._restarts else over if terminated else running)
        main = [
            self._one(container, state if container["name"] == self._main else beside)
            for container in self._spec["containers"]
        ]
        before = [
            self._one(container, beside if container.get("restartPolicy") == "Always" or beside is state else over)
            for container in self._spec.get("initContainers", ())
        ]
        pod = self._store.get("pods", *self._key)
        held = pod["status"].get("conditions", ())
        disrupted = [found for found in held if found["type"] == "DisruptionTarget"]
        conditions = [found for found in held if found["type"] == "PodScheduled"]
        ready = "True" if "running" in state else "False"
        why = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(phase, "ContainersNotReady")
        conditions += [
            condition(name, "" if ready == "True" else why, "", ready) for name in ("Ready", "ContainersReady")
        ]
        about = about or {}
        disrupted = [found for found in about.get("conditions", ()) if found["type"] == "DisruptionTarget"] or disrupted
        about = {**about, "conditions": [*conditions, *disrupted]}
        statuses = {"containerStatuses": main, **({"initContainerStatuses": before} if before else {})}
        self._status(phase=phase, podIP="192.0.2.2", **statuses, **about)

    def _one(self, container: JsonDict, state: JsonDict) -> JsonDict:
        mine = container["name"] == self._main
        return {
            "name": container["name"], "image": container.get("image", ""), "imageID": "", "state": state,
            "lastState": self._last_state if mine else {}, "restartCount": self._restarts if mine else 0,
            "ready": "running" in state, "started": "running" in state,
        }  # fmt: skip
