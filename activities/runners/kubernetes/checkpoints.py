"""Gives the training container of a pod its trial's checkpoint directory, and that of the trial it goes on from.

Called by `render` before anything else is added. A claim is mounted twice, each time one directory of it: the trial's
own, which the kubelet makes, and the parent's for reading. Where the own one begins as a copy of it, an init container
makes that before the program starts; one that was killed half-way begins again, and one that is done never does.
"""

from __future__ import annotations

from activities.checkpoints import MOUNT, PARENT_MOUNT
from evertune.errors import LaunchError
from evertune.protocols import Checkpoints, JsonDict

VOLUME = "evertune-checkpoints"
INIT = "evertune-inherit"
# The mark is named after the trial, for it is copied as well when another one goes on from this one.
COPY = f"""
set -e
done={MOUNT}/.evertune-inherited-"$1"
[ -e "$done" ] && exit 0
"$0" find {MOUNT} -mindepth 1 -maxdepth 1 ! -name lost+found -exec "$0" rm -rf {{}} +
"$0" cp -R {PARENT_MOUNT}/. {MOUNT}/
: >"$done"
""".strip()


def give_checkpoints(
    template: JsonDict, container: JsonDict, given: Checkpoints, trial: int, busybox: str, image: JsonDict
) -> None:
    """Change `template` in place. `image`: what an init container has that may run `busybox`, but for its command.

    Variables that the user has set stay. LaunchError when the volume's name is taken.
    """
    if given.own is None:
        return
    told = {"EVERTUNE_CHECKPOINT_DIR": given.own, "EVERTUNE_PARENT_CHECKPOINT_DIR": given.parent}
    known = {variable.get("name") for variable in container.get("env") or ()}
    added = [{"name": name, "value": value} for name, value in told.items() if value is not None and name not in known]
    container["env"] = [*(container.get("env") or []), *added]
    if given.claim is None:
        return
    spec = template["spec"]
    if any(volume.get("name") == VOLUME for volume in spec.get("volumes") or ()):
        raise LaunchError(f"the pod has a volume {VOLUME}", "that name is evertune's: call yours something else")
    volume = {"name": VOLUME, "persistentVolumeClaim": {"claimName": given.claim}}
    spec["volumes"] = [*(spec.get("volumes") or []), volume]
    own, parent = given.below
    mounts: list[JsonDict] = [{"name": VOLUME, "mountPath": MOUNT, "subPath": own}]
    if parent is not None:
        mounts.append({"name": VOLUME, "mountPath": PARENT_MOUNT, "subPath": parent, "readOnly": True})
    if given.inherit:
        command = [busybox, "sh", "-c", COPY, busybox, str(trial)]
        first = {"name": INIT, **image, "command": command, "volumeMounts": [dict(mount) for mount in mounts]}
        spec["initContainers"] = [first, *(spec.get("initContainers") or [])]
    if given.path is not None:
        mounts.append({"name": VOLUME, "mountPath": given.path, "subPath": own})
    container["volumeMounts"] = [*(container.get("volumeMounts") or []), *mounts]
