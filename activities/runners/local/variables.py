"""The variables that a trial's process gets: the container's own, and what evertune tells it about itself.

Called by `command`. The names are the same wherever a trial runs, so that `evertune.report`, or any program, finds its
parameters, its report file and its checkpoint without knowing the backend:

    EVERTUNE_TRIAL  EVERTUNE_TRIAL_NUMBER  EVERTUNE_ATTEMPT  EVERTUNE_EXPERIMENT  KATIB_TRIAL_NAME
    EVERTUNE_PARAMETERS      the trial's parameters as a JSON object, numbers as numbers
    EVERTUNE_REPORT_FILE     where metrics may be appended, a JSON object a line; the worker reads it
    EVERTUNE_STOP_FILE       exists once somebody wants the trial to end, and holds the reason
    EVERTUNE_EXIT_FILE       exists once the trial's program has ended; for what runs beside it
    EVERTUNE_CHECKPOINT_DIR  is kept from one attempt of the trial to the next; each replicate has its own
    EVERTUNE_PARENT_CHECKPOINT_DIR  that of the trial that this one goes on from, for reading; of a promoted trial
    EVERTUNE_RESUME_FROM     the first of these two that holds something; else it is not set
    EVERTUNE_REPLICATE  EVERTUNE_SEED  which run of the trial this is, from 0, and a seed of its own; with `replicates`
    EVERTUNE_INGEST_URL  EVERTUNE_TOKEN  the gateway and this attempt's key to it, when there is one

A variable of the same name in the container wins, except for those that say whose process it is: by EVERTUNE_TRIAL the
runner recognizes what it may kill.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from activities.checkpoints import DIRECTORY
from evertune.errors import LaunchError
from evertune.protocols import Checkpoints, JsonDict, Launch

# Linux takes no variable longer than 128 KiB; parameters beyond stand in the command only, as they do on Kubernetes.
LONGEST_PARAMETERS = 100_000  # bytes

_KEYED = re.compile(r"metadata\.(labels|annotations)\['([^']*)'\]")
_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\)|.)", re.DOTALL)


def checkpoint_dir(directory: Path, checkpoints: Checkpoints) -> Path:
    """Of the trial, or of one of its replicates, beside the directories of its attempts."""
    return directory.parent / (DIRECTORY if checkpoints.own is None else Path(checkpoints.own).name)


def make_checkpoint_dir(directory: Path, checkpoints: Checkpoints) -> None:
    """Of the trial whose attempt is in `directory`, once for all its attempts.

    One that begins as a copy of its parent's is complete as soon as it is there, whoever dies meanwhile.
    """
    own = checkpoint_dir(directory, checkpoints)
    if own.exists():
        return
    parent = None if checkpoints.parent is None else Path(checkpoints.parent)
    if not checkpoints.inherit or parent is None or not parent.is_dir():
        own.mkdir(mode=0o700, exist_ok=True)
        return
    with tempfile.TemporaryDirectory(prefix=f"{DIRECTORY}-", dir=own.parent) as draft:
        copy = Path(draft) / DIRECTORY
        shutil.copytree(parent, copy, symlinks=True)
        with suppress(OSError):  # somebody else was faster: theirs is the same, and may have been written to
            copy.rename(own)


def holds_something(directory: str | Path) -> bool:
    path = Path(directory)
    return path.is_dir() and any(path.iterdir())


def reporting(launch: Launch, directory: Path | None, reports: Path | None = None) -> dict[str, str]:
    """What evertune tells a process so that it can report and resume. `directory` is the attempt's, None: not known.

    `reports` stands in for the attempt's own file of that name, which only one process of an attempt writes to.
    """
    own = {"EVERTUNE_ATTEMPT": str(launch.ref.attempt)}
    if launch.replicate is not None:
        own |= {"EVERTUNE_REPLICATE": str(launch.replicate.index), "EVERTUNE_SEED": str(launch.replicate.seed)}
    parameters = json.dumps(dict(launch.parameters), ensure_ascii=False)
    if len(parameters.encode("utf-8", "surrogatepass")) <= LONGEST_PARAMETERS:
        own["EVERTUNE_PARAMETERS"] = parameters
    if directory is not None:
        checkpoint = checkpoint_dir(directory, launch.checkpoints)
        own["EVERTUNE_REPORT_FILE"] = str(reports or directory / "reports")
        own["EVERTUNE_STOP_FILE"] = str(directory / "stop")
        own["EVERTUNE_EXIT_FILE"] = str(directory / "exit")
        own["EVERTUNE_CHECKPOINT_DIR"] = str(checkpoint)
        if holds_something(checkpoint):
            own["EVERTUNE_RESUME_FROM"] = str(checkpoint)
        if (parent := launch.checkpoints.parent) is not None:
            own["EVERTUNE_PARENT_CHECKPOINT_DIR"] = parent
            if "EVERTUNE_RESUME_FROM" not in own and holds_something(parent):
                own["EVERTUNE_RESUME_FROM"] = parent
    if launch.ingest_url is not None and launch.token is not None:
        own["EVERTUNE_INGEST_URL"] = launch.ingest_url
        own["EVERTUNE_TOKEN"] = launch.token
    return own


def identity(launch: Launch, manifest: JsonDict) -> dict[str, str]:
    """Whose process it is: these always stand."""
    labels = (manifest.get("metadata") or {}).get("labels") or {}
    own = {
        "KATIB_TRIAL_NAME": launch.ref.trial_name,
        "EVERTUNE_TRIAL": launch.ref.trial_name,
        "EVERTUNE_TRIAL_NUMBER": str(launch.ref.number),
        "EVERTUNE_EXPERIMENT": labels.get("katib.kubeflow.org/experiment") or launch.ref.trial_name.rpartition("-")[0],
    }
    return {name: str(value) for name, value in own.items()}


def read_variables(container: JsonDict, manifest: JsonDict, given: Mapping[str, str]) -> dict[str, str]:
    """The container's `env` over what is `given`, which it may refer to. LaunchError for what cannot be read here."""
    result = dict(given)
    for source in container.get("envFrom") or ():
        kind = next((key for key in source if key.endswith("Ref")), "envFrom")
        if not (source.get(kind) or {}).get("optional"):
            raise LaunchError(
                f"container {container['name']}: envFrom.{kind} cannot be read on this machine",
                "list the variables under `env:` with a `value:` each",
            )
    for variable in container.get("env") or ():
        name = variable.get("name")
        if not name or not isinstance(name, str) or "=" in name:
            raise LaunchError(f"container {container['name']}: {name!r} is not a name for a variable in `env`")
        if "valueFrom" not in variable:
            result[name] = expand(str(variable.get("value") or ""), result)
        elif (text := _value_from(name, variable["valueFrom"] or {}, manifest)) is not None:
            result[name] = text
    return result


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Kubernetes' rule: `$(NAME)` is the variable, `$$` is `$`, everything else - unknown names too - stays."""

    def replace(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return match[0] if match[1] is None else variables.get(match[1], match[0])

    return _REFERENCE.sub(replace, text)


def _value_from(name: str, source: JsonDict, manifest: JsonDict) -> str | None:
    """None for an optional reference: Kubernetes leaves the variable out."""
    kind = next(iter(source), "nothing")
    detail = source.get(kind) or {}
    if kind == "fieldRef":
        path = str(detail.get("fieldPath", ""))
        text = _field(path, manifest.get("metadata") or {})
        if text is None:
            raise LaunchError(
                f"env {name}: the field {path} is not known on this machine", "give it a literal `value:`"
            )
        return text
    if detail.get("optional"):
        return None
    raise LaunchError(f"env {name}: valueFrom.{kind} cannot be read on this machine", "give it a literal `value:`")


def _field(path: str, metadata: JsonDict) -> str | None:
    """What the field of a pod would be if this machine were its node; None for one that has no meaning here."""
    if keyed := _KEYED.fullmatch(path):
        return str((metadata.get(keyed[1]) or {}).get(keyed[2], ""))
    known: dict[str, Callable[[], str]] = {
        "metadata.name": lambda: str(metadata.get("name", "")),
        "metadata.namespace": lambda: str(metadata.get("namespace", "default")),
        "spec.nodeName": socket.gethostname,
        "status.podIP": lambda: "127.0.0.1",
        "status.hostIP": lambda: "127.0.0.1",
    }
    return known[path]() if path in known else None
