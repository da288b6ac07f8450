"""The repository speaks of itself alone: no path of a machine, no package registry, no module grown past reading."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from tests.repository.checkout import ROOT, name_of, python_files, tracked_files

HARD_CAP_LINES = 600
ALONE = {"evertune/report.py": 720}  # copied alone into training images, so it cannot become two files

# Written in pieces, so that this file does not find itself.
FOREIGN = re.compile(
    "|".join(
        [
            r"(?<![\w.-])/(?:work|root)/",
            r"(?<![\w.-])/opt/" + r"(?:ev|wheels)\b",
            *(
                re.escape(host).replace("@", r"\.")
                for host in (
                    "pypi@org",
                    "pythonhosted@org",
                    "deb@debian@org",
                    "registry@npmjs@org",
                    "crates@io",
                    "proxy@golang@org",
                )
            ),
        ]
    )
)


def text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def test_no_file_names_a_machine_or_a_package_registry() -> None:
    found = [
        f"{name_of(path)}:{number}: {line.strip()[:80]}"
        for path in tracked_files()
        for number, line in enumerate((text_of(path) or "").splitlines(), start=1)
        if FOREIGN.search(line)
    ]

    assert not found


@pytest.mark.parametrize("line", ["/wor" + "k/main/x.py", "see https://pyp" + "i.org/p", "/opt/" + "ev/bin/python"])
def test_the_search_for_foreign_names_finds_them(line: str) -> None:
    assert FOREIGN.search(line)


@pytest.mark.parametrize("line", ["/workspace/train.py", "framework/root", "emptyDir at /tmp/root/"])
def test_the_search_for_foreign_names_leaves_ordinary_paths_alone(line: str) -> None:
    assert not FOREIGN.search(line)


def test_no_module_is_longer_than_the_hard_cap() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in python_files()}

    assert {name: lines for name, lines in lengths.items() if lines > ALONE.get(name, HARD_CAP_LINES)} == {}


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        name_of(path)
        for path in python_files()
        if path.name != "__init__.py" and ast.get_docstring(ast.parse(path.read_text())) is None
    ]

    assert silent == []


def test_nothing_is_left_to_be_done_later() -> None:
    marks = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX)\b")
    found = [
        f"{name_of(path)}:{number}"
        for path in tracked_files()
        if path.suffix in {".py", ".sh", ".yaml", ".md", ".toml"} and not path.is_relative_to(ROOT / "tests" / "data")
        for number, line in enumerate((text_of(path) or "").splitlines(), start=1)
        if marks.search(line)
    ]

    assert found == []


def test_every_target_of_the_makefile_is_listed_by_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    declared = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert declared is not None

    listed = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, check=True, capture_output=True, text=True)

    assert [line.split()[1] for line in listed.stdout.splitlines()] == declared[1].split()


def test_set_up_without_a_python_that_is_new_enough_says_so_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "lock.txt").write_text("")
    (tmp_path / "pyproject.toml").write_text("")

    told = subprocess.run(
        ["make", "-f", str(ROOT / "Makefile"), "PYTHON=", "setup"], cwd=tmp_path, capture_output=True, text=True
    )

    assert told.returncode != 0
    assert "evertune needs Python 3.11 or newer" in told.stderr
    assert not (tmp_path / ".venv").exists()
