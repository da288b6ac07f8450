"""Spreads trials that ask for `nvidia.com/gpu` over the devices of this machine. Called by `runner` at a start.

Each trial gets as many distinct devices as it asks for, those that the fewest running trials hold. Nothing waits for a
free device: with more trials in parallel than devices they share, as they would under a person's own
CUDA_VISIBLE_DEVICES; lower `parallelTrialCount` to keep a device to each. Which devices an attempt holds stands in its
directory (`gpus`), so there is nothing to give back, and nothing to lose in a crash.

Where there is no device at all, a stand-in for an image runs without, with a warning: it is not the program that asked.
Anything else that asks for more than there is is refused.
"""

from __future__ import annotations

import fcntl
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from activities.runners.local.attempt import Attempt
from activities.runners.local.command import Command
from activities.runners.local.live import live_attempts
from evertune.domain.trial import AttemptRef
from evertune.errors import LaunchError


def visible_devices(environment: Mapping[str, str], devices: Path = Path("/dev")) -> tuple[str, ...]:
    """What the worker's CUDA_VISIBLE_DEVICES names, else all NVIDIA devices that this machine has."""
    given = environment.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return tuple(word.strip() for word in given.split(",") if word.strip() not in ("", "-1"))
    found = (re.fullmatch(r"nvidia(\d+)", entry.name) for entry in devices.iterdir())
    return tuple(sorted((match[1] for match in found if match), key=int))


class Gpus:
    def __init__(self, root: Path, devices: Sequence[str]) -> None:
        self._root = root
        self._devices = devices

    def fitted(self, command: Command) -> Command:
        """The command as this machine can run it."""
        if self._devices or not (command.gpus and command.stand_in):
            return command
        warning = (
            f"the trial asks for {command.gpus} nvidia.com/gpu, this machine has none: what stands in runs without"
        )
        return replace(command, gpus=0, warnings=(*command.warnings, warning))

    def give(self, ref: AttemptRef, count: int) -> list[str]:
        """The devices for this attempt, recorded. LaunchError when the machine has not that many."""
        if count > len(self._devices):
            have = f"has {len(self._devices)}" if self._devices else "has none"
            raise LaunchError(
                f"the trial asks for {count} nvidia.com/gpu, this machine {have}",
                "lower the limit, or correct the worker's CUDA_VISIBLE_DEVICES",
            )
        with (self._root / "gpus.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # held for milliseconds: two starts must not choose the same device
            held = Counter(device for live in live_attempts(self._root) for device in self._held(live))
            chosen = sorted(self._devices, key=lambda device: held[device])[:count]
            self._file(ref).write_text(",".join(chosen))
        return chosen

    def _held(self, ref: AttemptRef) -> list[str]:
        try:
            return self._file(ref).read_text().split(",")
        except FileNotFoundError:
            return []

    def _file(self, ref: AttemptRef) -> Path:
        return Attempt.of(self._root, ref).directory / "gpus"
