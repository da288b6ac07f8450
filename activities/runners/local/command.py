"""What a Job's container runs on this machine: argv, environment, working directory, limits. Executes nothing.

Called by `runner` at start; `limitations` also by those who show a spec before it runs. The rules:

* `$(NAME)` and `$$` in command, args and env values as Kubernetes expands them, from the container's own variables.
* argv is executed as written, without a shell. One exception: an argument `--name="value"` with literal quotes around
  the value loses them. Katib joins argv with blanks and lets `sh -c` read it again, so its NAS examples quote that way;
  to a program the quotes have no meaning. Nothing is changed behind an explicit `sh -c` or `bash -c`.
* Images are not pulled. With a directory for the image, an absolute path in argv is looked for below that directory
  (`/opt/mnist/mnist.py` is DIR/opt/mnist/mnist.py) and so is a relative file name (`train.py` is DIR/train.py);
  what is not there stays as written. Without a command, the program DIR/entrypoint is the image's own.
* A command that is not there is refused before anything starts, with the nearest names that are.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from activities.runners.local.shape import OPERATED
from activities.runners.local.variables import expand, identity, read_variables, reporting
from evertune.errors import LaunchError
from evertune.protocols import JsonDict, Launch
from evertune.spec.kinds import pod_templates

GPU = "nvidia.com/gpu"
ENTRYPOINT = "entrypoint"  # in the directory that stands for an image: what runs when there is no command
MASK = "***"  # in the plan, where the token was
_INTERPRETER = re.compile(r"python[\d.]*|pypy[\d.]*|(ba|da|k|z)?sh|perl|ruby|node|Rscript|julia")
SHELLS = {"sh", "bash", "/bin/sh", "/bin/bash", "/usr/bin/sh", "/usr/bin/bash"}

_QUOTED = re.compile(r'(--?[A-Za-z][\w.-]*=)"((?:[^"\\]|\\.)*)"', re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    cwd: str
    deadline_s: float | None = None
    runs: int = 1
    restarts_from: int = 1  # the lowest exit status after which it is run again
    shared_restarts: str = ""  # the file in which the replicas of a job count theirs together, up to `most_restarts`
    most_restarts: int = 0
    gpus: int = 0
    stand_in: bool = False  # a directory stands for the container's image
    hint: str = ""  # shown when it fails: what this machine lacks
    warnings: tuple[str, ...] = ()  # what is left out, a sentence each

    def plan(self, launch: Launch) -> dict[str, Any]:
        """The record of what was started, for whoever looks into the directory. A token is not in it."""

        def masked(text: str) -> str:
            return text.replace(launch.token, MASK) if launch.token else text

        return {
            "trial": launch.ref.trial_name,
            "argv": tuple(masked(text) for text in self.argv),
            "cwd": self.cwd,
            "environment": {name: masked(value) for name, value in self.environment.items()},
            "deadline_s": self.deadline_s,
            "runs": self.runs,
            "hint": self.hint,
            "warnings": self.warnings,
        }


def prepare(
    launch: Launch,
    manifest: JsonDict,
    inherited: Mapping[str, str],
    directory: Path | None = None,
    reports: Path | None = None,
) -> Command:
    """Everything that can be known before the start; LaunchError says what is wrong and how to mend it.

    `manifest` is the launch's, with its shared paths made private; `directory` is the attempt's, for the variables that
    name files there; `reports` is where a replica that does not speak for its trial appends its metrics.
    """
    if manifest.get("kind") != "Job":
        raise LaunchError(
            f"kind {manifest.get('kind')} cannot run as local processes",
            f"those that can are Job, {', '.join(OPERATED)}",
        )
    job = manifest.get("spec") or {}
    _refuse_many(job)
    pod = (job.get("template") or {}).get("spec") or {}
    container = _primary(pod, launch.primary_container)
    own = read_variables(container, manifest, reporting(launch, directory, reports)) | identity(launch, manifest)
    return replace(
        _in_container(launch, container, own, inherited),
        deadline_s=_deadline(launch, job, pod),
        runs=1 + _count(job.get("backoffLimit"), "spec.backoffLimit"),
        gpus=0 if "CUDA_VISIBLE_DEVICES" in own else _gpus(container),
    )


def prepare_collector(launch: Launch, container: JsonDict, inherited: Mapping[str, str], directory: Path) -> Command:
    """What the user's own collector runs: the same rules, no deadline and no second run.

    `container` has its shared paths made private; `directory` is the attempt's, whose report file and trial it shares.
    """
    container = {"name": "customCollector", **container}
    own = read_variables(container, launch.manifest, reporting(launch, directory)) | identity(launch, launch.manifest)
    return _in_container(launch, container, own, inherited)


def _in_container(launch: Launch, container: JsonDict, own: Mapping[str, str], inherited: Mapping[str, str]) -> Command:
    environment = {**inherited, **launch.environment, "PYTHONUNBUFFERED": "1", **own}
    image = container.get("image", "")
    root = image_root(image, launch.image_roots)
    cwd = _working_dir(container, launch.working_dir, root)
    command = _texts(container, "command") or _entrypoint(container, root)
    argv = [expand(text, own) for text in (*command, *_texts(container, "args"))]
    if not (argv[0] in SHELLS and argv[1:2] == ["-c"]):
        argv = [_unquote(text) for text in argv]
    missing = (
        [text for text in argv[1:] if text.startswith("/") and not _is(Path.exists, Path(text))] if not root else []
    )
    if root:
        argv = _from_image(argv, root)
    check_program(argv[0], environment.get("PATH", os.defpath), cwd)
    check_script(argv, cwd, _image_hint(image, missing))
    hint = _image_hint(image, missing)
    return Command(argv=tuple(argv), environment=environment, cwd=cwd, stand_in=root is not None, hint=hint)


def _entrypoint(container: JsonDict, root: Path | None) -> list[str]:
    if root is not None and (root / ENTRYPOINT).is_file():
        return [str(root / ENTRYPOINT)]
    if root is not None:
        hint = f"write it as `command:`, or as a program {root / ENTRYPOINT}"
    else:
        hint = "write the image's entrypoint as `command:`"
    raise LaunchError(
        f"container {container['name']} has no command, and the entrypoint of its image is not known here", hint
    )


def limitations(manifest: JsonDict, primary_container: str) -> list[str]:
    """What the local backend leaves out of this manifest, one sentence each; empty when nothing."""
    said: list[str] = []
    operator = OPERATED.get(str(manifest.get("kind")))
    for _, role, template in pod_templates(manifest):
        pod, at = template.get("spec") or {}, f"{role}: " if role else ""
        names = [c.get("name") for c in pod.get("containers") or ()]
        main = operator.container if operator and primary_container not in names else primary_container
        said += [at + sentence for sentence in _left_out(pod, main)]
    return [*said, *_not_alike(manifest)]


def _left_out(pod: JsonDict, main: str) -> Iterator[str]:
    for container in pod.get("initContainers") or ():
        yield f"init container {container.get('name')} is not run"
    for container in pod.get("containers") or ():
        if container.get("name") != main:
            yield f"container {container.get('name')} is not run, only {main} is"
    kinds = {v.get("name"): next((key for key in v if key != "name"), "volume") for v in pod.get("volumes") or ()}
    for container in pod.get("containers") or ():
        for mount in container.get("volumeMounts") or () if container.get("name") == main else ():
            kind = kinds.get(mount.get("name"), "volume")
            if kind != "emptyDir":
                yield f"{kind} {mount.get('name')} is not mounted, {mount.get('mountPath')} is this machine's"


def _not_alike(manifest: JsonDict) -> Iterator[str]:
    """Where the replicas of a distributed job find less than in a cluster."""
    spec = manifest.get("spec") or {}
    operator = OPERATED.get(str(manifest.get("kind")))
    replicas = (spec.get(operator.field) or {}) if operator else {}
    for role, replica in replicas.items():
        if (replica or {}).get("restartPolicy") == "Always":
            yield f"{role}: restartPolicy Always is OnFailure, a replica that has succeeded is not run again"
    if manifest.get("kind") == "XGBoostJob" and ((replicas.get("Worker") or {}).get("replicas") or 0) > 1:
        yield "all workers are told the same WORKER_PORT, only one of them can listen there"
    if manifest.get("kind") == "PyTorchJob" and spec.get("elasticPolicy"):
        yield "elasticPolicy never changes the number of workers, all of them are started"


def image_root(image: str, roots: Mapping[str, str]) -> Path | None:
    """The directory that stands for the image: by its full name, else by its name without tag or digest."""
    bare = re.sub(r"(@sha256:[0-9a-f]+|:[\w.-]+)$", "", image)
    found = roots.get(image) or roots.get(bare)
    if found is None:
        return None
    if not Path(found).is_dir():
        raise LaunchError(f"the directory {found} for image {image} does not exist", "correct --image-root or --images")
    return Path(found).resolve()


def check_program(program: str, path: str, cwd: str) -> None:
    """Refuse a program that could not be executed, naming the nearest that could."""
    if "/" in program:
        candidate = Path(cwd, program)
        if not candidate.exists():
            near = _near(candidate.name, _names(candidate.parent))
            raise LaunchError(f"command {program} does not exist", near)
        _check_executable(candidate, program)
        return
    folders = [Path(cwd, folder) for folder in path.split(os.pathsep)]
    for folder in folders:
        if (folder / program).is_file() and os.access(folder / program, os.X_OK):
            _check_executable(folder / program, program)
            return
    if Path(cwd, program).is_file():
        raise LaunchError(f"command {program} is not on PATH", f"did you mean ./{program}?")
    near = _near(program, {name for folder in folders for name in _names(folder)}) if program else None
    raise LaunchError(f"command {program!r} is not on PATH", near)


def check_script(argv: list[str], cwd: str, hint: str = "") -> None:
    """Refuse `python no/such.py`: every trial would fail alike, and only the interpreter would say why."""
    if len(argv) < 2 or not _INTERPRETER.fullmatch(Path(argv[0]).name) or argv[1].startswith("-"):
        return
    script = Path(cwd, argv[1])
    if not _is(Path.exists, script):
        near = _near(script.name, _names(script.parent))
        raise LaunchError(f"script {argv[1]} does not exist in {cwd}", near or hint or None)


def _check_executable(file: Path, program: str) -> None:
    if file.is_dir():
        raise LaunchError(f"command {program} is a directory")
    if not os.access(file, os.X_OK):
        interpreter = "python3 " if file.suffix == ".py" else "sh " if file.suffix == ".sh" else ""
        raise LaunchError(f"command {program} is not executable", f"chmod +x it, or write `{interpreter}{program}`")
    with file.open("rb") as opened:
        first = opened.readline(256)
    words = first[2:].split() if first.startswith(b"#!") else []
    if words and not Path(os.fsdecode(words[0])).exists():
        raise LaunchError(f"command {program} wants the interpreter {os.fsdecode(words[0])}, which does not exist")


def _names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(folder)]
    except OSError:
        return []


def _near(name: str, names: Any) -> str | None:
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.7)
    return f"did you mean {' or '.join(close)}?" if close else None


def _refuse_many(job: JsonDict) -> None:
    for name in ("parallelism", "completions"):
        if _count(job.get(name), f"spec.{name}", default=1) > 1:
            raise LaunchError(
                f"spec.{name}: {job[name]} needs several processes, a local trial is one",
                f"write completionMode: Indexed, or leave {name} out",
            )
    if job.get("suspend"):
        raise LaunchError("spec.suspend: true means that the Job never starts", "leave suspend out")


def _count(value: Any, path: str, *, default: int = 0) -> int:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise LaunchError(f"{path}: {value!r} is not a whole number of at least 0")
    return value


def _primary(pod: JsonDict, name: str) -> JsonDict:
    containers: list[JsonDict] = pod.get("containers") or []
    for container in containers:
        if container.get("name") == name:
            return container
    names = ", ".join(str(container.get("name")) for container in containers) or "none"
    raise LaunchError(f"the Job has no container {name} (primaryContainerName); its containers: {names}")


def _texts(container: JsonDict, field: str) -> list[str]:
    words = container.get(field) or []
    wrong = [word for word in words if not isinstance(word, str)]
    if wrong:
        raise LaunchError(f"container {container['name']}: {field} holds {wrong[0]!r}, which is not text", "quote it")
    return list(words)


def _working_dir(container: JsonDict, submitted_from: str, root: Path | None) -> str:
    wanted = container.get("workingDir")
    cwd = Path(submitted_from, wanted) if wanted else Path(submitted_from)
    if wanted and root and (root / wanted.lstrip("/")).is_dir():
        cwd = root / wanted.lstrip("/")
    if not cwd.is_dir():
        which = "workingDir" if wanted else "the working directory"
        raise LaunchError(f"{which} {cwd} does not exist on this machine", _near(cwd.name, _names(cwd.parent)))
    if not os.access(cwd, os.X_OK):
        raise LaunchError(f"the working directory {cwd} may not be entered")
    return str(cwd)


def _unquote(text: str) -> str:
    match = _QUOTED.fullmatch(text)
    return match[1] + re.sub(r'\\(["\\$`])', r"\1", match[2]) if match else text


def _from_image(argv: list[str], root: Path) -> list[str]:
    def resolve(text: str) -> str:
        option, equals, value = text.partition("=") if text.startswith("-") else ("", "", text)
        inside = root / value.lstrip("/")
        absolute = value.startswith("/") and inside != root and _is(Path.exists, inside)
        relative = not text.startswith(("-", "/")) and _is(Path.is_file, inside)
        return f"{option}{equals}{inside}" if absolute or relative else text

    return [resolve(text) for text in argv]


def _is(question: Callable[[Path], bool], path: Path) -> bool:
    """An argument may be no path at all: too long, with a NUL, below a file or in a closed directory."""
    try:
        return question(path)
    except (OSError, ValueError):
        return False


def _image_hint(image: str, missing: list[str]) -> str:
    if not image or not missing:
        return ""
    return f"{missing[0]} is not on this machine: images are not pulled, give --image-root {image}=DIR"


def _deadline(launch: Launch, job: JsonDict, pod: JsonDict) -> float | None:
    limits = [launch.deadline_s]
    for place, owner in (("spec", job), ("spec.template.spec", pod)):
        if owner.get("activeDeadlineSeconds") is not None:
            limits.append(float(_count(owner["activeDeadlineSeconds"], f"{place}.activeDeadlineSeconds")))
    given = [limit for limit in limits if limit is not None]
    return min(given) if given else None


def _gpus(container: JsonDict) -> int:
    resources = container.get("resources") or {}
    wanted = (resources.get("limits") or {}).get(GPU) or (resources.get("requests") or {}).get(GPU) or 0
    try:
        return int(wanted)
    except ValueError:
        raise LaunchError(f"resources.limits[{GPU}]: {wanted!r} is not a whole number") from None
