"""The changelog and the package agree on what was released."""

from __future__ import annotations

import re

import evertune
from tests.repository.checkout import ROOT

RELEASE = re.compile(r"^## \[(?P<version>\d+\.\d+\.\d+)\] - (?P<date>\d{4}-\d{2}-\d{2}|unreleased)$", re.MULTILINE)
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_newest_entry_is_the_packages_version() -> None:
    releases = RELEASE.findall((ROOT / "CHANGELOG.md").read_text())

    assert releases[0][0] == evertune.__version__


def test_entries_are_sorted_under_the_kinds_of_keep_a_changelog() -> None:
    headings = re.findall(r"^### (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert headings
    assert set(headings) <= KINDS
