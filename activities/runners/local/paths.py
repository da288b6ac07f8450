"""Gives every attempt its own copy of the absolute paths that a container would have had to itself.

A container's `/katib/mnist.log` belongs to one pod; three local processes would all write to the same file. Whole-path
prefixes in command, args and env values are rewritten into the attempt's directory. Pure functions, called by `command`
at start and by `evertune render --local`, which shows the result. Never touches a path that was not named as shared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path, PurePosixPath
from typing import Any

from evertune.protocols import JsonDict

# What may stand before and after a path inside a longer text: `--log=/x`, `"/x"`, `a:/x:/y`, `{"dir": "/x"}`.
_BEFORE = r"(?<![\w./@~+-])"
_AFTER = r"(?![\w@~+-]|\.\w)"


def shared_paths(manifest: JsonDict, primary_container: str, collected: str | None = None) -> tuple[str, ...]:
    """The paths that a pod of this Job would have to itself, as `Launch.shared_paths` wants them.

    These are the mounts of the primary container's emptyDir volumes and, as Katib mounts one there, the directory that
    holds `collected` (the collector's file). A directory ends in `/` and exists, empty, when the attempt starts.
    """
    pod = manifest.get("spec", {}).get("template", {}).get("spec", {})
    empty = {volume.get("name") for volume in pod.get("volumes") or () if "emptyDir" in volume}
    found = [
        mount["mountPath"].rstrip("/") + "/"
        for container in pod.get("containers") or ()
        if container.get("name") == primary_container
        for mount in container.get("volumeMounts") or ()
        if mount.get("name") in empty
    ]
    if collected:
        parent = str(PurePosixPath(collected).parent)
        found.append(collected if parent == "/" else parent + "/")
    return tuple(dict.fromkeys(found))


def private_path(path: str, shared: Sequence[str], directory: Path) -> str:
    """`path` itself as the attempt sees it: for the collector that reads a file the trial writes."""
    return rewrite_text(path, shared, directory)


def rewrite(manifest: JsonDict, shared: Sequence[str], directory: Path) -> JsonDict:
    """A copy of the manifest with every shared path in command, args, env values and workingDir made private."""
    result = deepcopy(manifest)
    for container in _containers(result):
        for field in ("command", "args"):
            if container.get(field):
                container[field] = [rewrite_text(text, shared, directory) for text in container[field]]
        for variable in container.get("env") or ():
            if isinstance(variable.get("value"), str):
                variable["value"] = rewrite_text(variable["value"], shared, directory)
        if container.get("workingDir"):
            container["workingDir"] = rewrite_text(container["workingDir"], shared, directory)
    return result


def rewrite_text(text: str, shared: Sequence[str], directory: Path) -> str:
    """All at once, the longest first: a path that was rewritten is not looked at again."""
    roots = sorted({path.rstrip("/") for path in shared if path.rstrip("/")}, key=len, reverse=True)
    if not roots:
        return text
    pattern = f"{_BEFORE}({'|'.join(map(re.escape, roots))}){_AFTER}"
    return re.sub(pattern, lambda match: f"{directory}{match[1]}", text)


def make_directories(shared: Sequence[str], directory: Path) -> None:
    """What must exist before the command starts: each shared directory, and the parent of each shared file."""
    for path in shared:
        private = Path(f"{directory}{path}")
        (private if path.endswith("/") else private.parent).mkdir(mode=0o700, parents=True, exist_ok=True)


def _containers(manifest: JsonDict) -> Iterator[dict[str, Any]]:
    pod = manifest.get("spec", {}).get("template", {}).get("spec", {})
    yield from pod.get("containers") or ()
