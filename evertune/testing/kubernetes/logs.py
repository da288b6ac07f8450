"""What the containers of the fake's pods printed, and `pods/log` over it.

The kubelet of the fake writes here, and tests may; the server reads.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from evertune.testing.kubernetes.objects import JsonDict, Refused


@dataclass
class Output:
    """The lines of one container of one pod, with the moment of each; `ended` once it can print no more."""

    lines: list[tuple[datetime, bytes]] = field(default_factory=list)
    ended: bool = False
    grew: asyncio.Event = field(default_factory=asyncio.Event)

    def write(self, text: str | bytes) -> None:
        for line in (text.encode() if isinstance(text, str) else text).splitlines(keepends=True):
            self.lines.append((datetime.now(UTC), line))
        self._tell()

    def end(self) -> None:
        self.ended = True
        self._tell()

    def _tell(self) -> None:
        grew, self.grew = self.grew, asyncio.Event()
        grew.set()


class Logs:
    """Outputs by the pod's uid and the container's name."""

    def __init__(self) -> None:
        self._outputs: dict[tuple[str, str], Output] = defaultdict(Output)

    def of(self, pod: JsonDict, container: str) -> Output:
        return self._outputs[pod["metadata"]["uid"], container]

    def open(self, pod: JsonDict, query: Mapping[str, str]) -> tuple[Output, bool]:
        """The output asked for, and whether to follow it. Raises Refused(400) as the server does."""
        name = pod["metadata"]["name"]
        spec = pod["spec"]
        main = [container["name"] for container in spec["containers"]]
        every = [container["name"] for container in spec.get("initContainers", ())] + main
        container = query.get("container")
        if container is None:
            if len(main) > 1:
                listed = " ".join(main)
                raise Refused(400, f"a container name must be specified for pod {name}, choose one of: [{listed}]")
            container = main[0]
        elif container not in every:
            raise Refused(400, f"container {container} is not valid for pod {name}")
        if not spec.get("nodeName"):
            return Output(ended=True), False
        status = pod.get("status", {})
        for state in (*status.get("containerStatuses", ()), *status.get("initContainerStatuses", ())):
            if state["name"] == container and "waiting" not in state.get("state", {}):
                return self.of(pod, container), query.get("follow") in ("true", "1", "True")
            if state["name"] == container and state.get("lastState"):
                return self.of(pod, container), False
        reason = next((state["state"]["waiting"]["reason"] for state in status.get("containerStatuses", ())
                       if state["name"] == container and "waiting" in state.get("state", {})), None)  # fmt: skip
        if reason in ("ErrImagePull", "ImagePullBackOff"):
            sentence = "trying and failing to pull image"
        else:
            sentence = reason or "ContainerCreating"
        raise Refused(400, f'container "{container}" in pod "{name}" is waiting to start: {sentence}')


async def read(output: Output, follow: bool, query: Mapping[str, str]) -> AsyncIterator[bytes]:
    """The bytes of the output, as `limitBytes`, `tailLines`, `sinceTime` and `timestamps` have them."""
    stamped = query.get("timestamps") in ("true", "1", "True")
    left = int(query["limitBytes"]) if "limitBytes" in query else None
    since = datetime.fromisoformat(query["sinceTime"]) if "sinceTime" in query else None
    at = max(0, len(output.lines) - int(query["tailLines"])) if "tailLines" in query else 0
    while True:
        grew, ended = output.grew, output.ended
        while at < len(output.lines):
            moment, line = output.lines[at]
            at += 1
            if since is not None and moment < since:
                continue
            if stamped:
                line = moment.strftime("%Y-%m-%dT%H:%M:%S.%f000Z ").encode() + line
            if left is not None:
                line = line[:left]
                left -= len(line)
            yield line
            if left == 0:
                return
        if ended or not follow:
            return
        await grew.wait()
