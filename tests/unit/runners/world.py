"""What the tests of the local runner share: launches, a look at the machine's processes, and tools that block."""

from __future__ import annotations

import asyncio
import os
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from activities.runners.local.shape import OPERATED
from activities.runners.local.spawn import Tools
from evertune.domain.space import Value
from evertune.domain.trial import AttemptRef
from evertune.protocols import Launch

UID = "0123456789abcdef0123456789abcdef"


def ref(number: int = 0, attempt: int = 0) -> AttemptRef:
    return AttemptRef(UID, number, attempt, f"experiment-{number:08d}")


def launch(
    *command: str,
    of: AttemptRef | None = None,
    job: dict[str, Any] | None = None,
    pod: dict[str, Any] | None = None,
    working_dir: str = "/",
    environment: dict[str, str] | None = None,
    image_roots: dict[str, str] | None = None,
    shared_paths: tuple[str, ...] = (),
    deadline_s: float | None = None,
    parameters: dict[str, Value] | None = None,
    token: str | None = None,
    custom_collector: dict[str, Any] | None = None,
    **container: Any,
) -> Launch:
    attempt = of or ref()
    main: dict[str, Any] = {"name": "main", **container}
    if command:
        main["command"] = list(command)
    template = {"spec": {**(pod or {}), "containers": [main, *(pod or {}).get("containers", [])]}}
    return Launch(
        ref=attempt,
        manifest={
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": attempt.trial_name, "namespace": "research"},
            "spec": {**(job or {}), "template": template},
        },
        primary_container="main",
        working_dir=working_dir,
        environment={"PATH": os.environ["PATH"], **(environment or {})},
        image_roots=image_roots or {},
        deadline_s=deadline_s,
        shared_paths=shared_paths,
        parameters=parameters or {},
        ingest_url="http://127.0.0.1:8090" if token else None,
        token=token,
        custom_collector=custom_collector,
    )


def sh(script: str, **options: Any) -> Launch:
    """`$` in the script is the shell's, not Kubernetes'."""
    return launch("/bin/sh", "-c", script.replace("$", "$$"), **options)


def distributed(
    kind: str, roles: dict[str, tuple[int, list[str]]], *, restart: str | None = None, number: int = 0, **rest: Any
) -> Launch:
    """Roles to (replicas, command); `rest` are the launch's, and `spec` the job's."""
    spec = rest.pop("spec", {})
    container = {"name": OPERATED[kind].container, **rest.pop("container", {})}
    of = launch("true", of=ref(number), **rest)
    replicas: dict[str, Any] = {}
    for role, (count, command) in roles.items():
        replicas[role] = {
            "replicas": count,
            "template": {"spec": {"containers": [{**container, "command": command}]}},
            **({"restartPolicy": restart} if restart else {}),
        }
    body = {**of.manifest, "kind": kind, "spec": {OPERATED[kind].field: replicas, **spec}}
    return replace(of, manifest=body, primary_container=OPERATED[kind].container)


def shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script.replace("$", "$$")]


def python(script: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(script).replace("$", "$$")]


async def until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


def running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def mentioning(text: str) -> list[int]:
    """Processes whose command line holds the text."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if text.encode() in line and running(int(entry.name)):
                found.append(int(entry.name))
    return found


def blocking(directory: Path, name: str) -> tuple[Path, Path]:
    """A stand-in for the tool `name` that says `reached` and goes on only when `gate` is there."""
    reached, gate = directory / f"{name}.reached", directory / f"{name}.gate"
    real = getattr(Tools.find(), name)
    real = real[0] if isinstance(real, tuple) else real
    script = directory / name
    script.write_text(f'#!/bin/sh\n: >{reached}\nwhile [ ! -e {gate} ]; do sleep 0.01; done\nexec {real} "$@"\n')
    script.chmod(0o755)
    return reached, gate
