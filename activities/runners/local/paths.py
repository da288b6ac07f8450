"""Gives every attempt its own copy of the absolute paths that a container would have had to itself.

A container's `/katib/mnist.log` belongs to one pod; three local processes would all write to the same file. Whole-path
prefixes in command, args and env values are rewritten into the attempt's directory. Pure functions, called by `command`
at start and by `evertune render --local`, which shows the result; `activities.launch` says which paths. A shared path
is a directory, as a pod's mounts are; never touches one that was not named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from evertune.protocols import JsonDict
from evertune.spec.kinds import containers_of, pod_templates

# What may stand before and after a path inside a longer text: `--log=/x`, `"/x"`, `a:/x:/y`, `{"dir": "/x"}`.
_BEFORE = r"(?<![\w./@~+-])"
_AFTER = r"(?![\w@~+-]|\.\w)"


def rewrite(manifest: JsonDict, shared: Sequence[str], directory: Path) -> JsonDict:
    """A copy of the manifest with every shared path in command, args, env values and workingDir made private."""
    result = deepcopy(manifest)
    for container in _containers(result):
        _rewrite(container, shared, directory)
    return result


def moved(manifest: JsonDict, places: Mapping[str, str]) -> JsonDict:
    """A copy of the manifest where each of these paths, in whatever container it is named, is another one."""
    result = deepcopy(manifest)
    for _, _, template in pod_templates(result):
        for _, container in containers_of(template):
            for path, place in places.items():
                _rewrite(container, [path], place, whole=True)
    return result


def rewrite_container(container: JsonDict, shared: Sequence[str], directory: Path) -> JsonDict:
    """The same for a container that stands beside the manifest: the user's own collector."""
    result = deepcopy(container)
    _rewrite(result, shared, directory)
    return result


def _rewrite(container: dict[str, Any], shared: Sequence[str], directory: Path | str, *, whole: bool = False) -> None:
    for field in ("command", "args"):
        if container.get(field):
            container[field] = [
                rewrite_text(text, shared, directory, whole=whole) if isinstance(text, str) else text
                for text in container[field]
            ]
    for variable in container.get("env") or ():
        if isinstance(variable.get("value"), str):
            variable["value"] = rewrite_text(variable["value"], shared, directory, whole=whole)
    if container.get("workingDir"):
        container["workingDir"] = rewrite_text(container["workingDir"], shared, directory, whole=whole)


def rewrite_text(text: str, shared: Sequence[str], directory: Path | str, *, whole: bool = False) -> str:
    """All at once, the longest first: a path that was rewritten is not looked at again.

    Each moves into `directory`, or with `whole` becomes that very directory.
    """
    roots = sorted({path.rstrip("/") for path in shared if path.rstrip("/")}, key=len, reverse=True)
    if not roots:
        return text
    pattern = f"{_BEFORE}({'|'.join(map(re.escape, roots))}){_AFTER}"
    return re.sub(pattern, lambda match: str(directory) if whole else f"{directory}{match[1]}", text)


def is_named_alone(path: str, below: str, texts: Sequence[str]) -> bool:
    """Whether some text names `path` itself, and none names anything in it but `below` and what is in that."""
    named = re.compile(f"{_BEFORE}{re.escape(path)}{_AFTER}(?!/[^/])")
    other = re.compile(f"{_BEFORE}{re.escape(path)}/(?!/|{re.escape(below[len(path) + 1 :])}{_AFTER})[^\\s]")
    return any(named.search(text) for text in texts) and not any(other.search(text) for text in texts)


def make_directories(shared: Sequence[str], directory: Path) -> None:
    """Every shared path is a directory, and the attempt's own one exists, empty, when its command starts."""
    for path in shared:
        Path(f"{directory}{path}").mkdir(mode=0o700, parents=True, exist_ok=True)


def _containers(manifest: JsonDict) -> Iterator[dict[str, Any]]:
    pod = manifest.get("spec", {}).get("template", {}).get("spec", {})
    yield from pod.get("containers") or ()
