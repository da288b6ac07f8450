"""Each code block of our pages does what the page says; the rules are in tests.repository.documents."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from evertune.spec import check, parse_documents
from tests.repository import documents
from tests.repository.checkout import ROOT
from tests.repository.documents import Block

BLOCKS = list(documents.blocks())


def of(*languages: str, directive: str | None = None) -> list[object]:
    """The blocks to run, each a test named after its page and line."""
    return [
        pytest.param(block, id=str(block), marks=[pytest.mark.slow] if block.slow else [])
        for block in BLOCKS
        if block.language in languages and block.runs and (directive is None or block.directive == directive)
    ]


@pytest.fixture(scope="module")
def shell_environment() -> Iterator[dict[str, str]]:
    """One home for all blocks, so that a page can go on where it left off. Its path is short: sockets live there."""
    with tempfile.TemporaryDirectory(prefix="evertune-docs-", ignore_cleanup_errors=True) as folder:
        environment = documents.environment(Path(folder), os.environ)
        yield environment
        subprocess.run(["evertune", "down"], env=environment, cwd=ROOT, capture_output=True, timeout=300)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("block", of("console"))
def test_the_commands_of_a_block_succeed_and_say_what_the_page_shows(
    block: Block, shell_environment: dict[str, str]
) -> None:
    for command in documents.commands(block.text):
        done = subprocess.run(
            ["bash", "-c", command.line],
            env=shell_environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600 if block.slow else 300,
        )
        said = documents.without_colour(done.stdout)

        assert done.returncode == 0, f"{command.line}\n{said}"
        assert command.missing_from(said) == [], said


@pytest.mark.timeout(300)
@pytest.mark.parametrize("block", of("python"))
def test_a_python_block_runs(block: Block, shell_environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block.text], env=shell_environment, cwd=ROOT, capture_output=True, text=True, timeout=240
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", of("yaml"))
def test_an_experiment_on_a_page_is_a_valid_one(block: Block) -> None:
    (document,) = parse_documents(block.text, str(block))
    verdict = check(document, None)

    assert (verdict.problems, verdict.warnings) == ([], [])


@pytest.mark.parametrize("block", of("yaml", "python", "console", directive="file"))
def test_a_block_that_shows_a_file_shows_it_as_it_is(block: Block) -> None:
    assert block.text == (ROOT / str(block.value)).read_text()


def test_a_block_that_is_not_run_says_why() -> None:
    unexplained = [str(block) for block in BLOCKS if not block.runs and not str(block.value).startswith("no, ")]

    assert unexplained == []


def test_every_block_says_what_language_it_is_in() -> None:
    pages = {block.page for block in BLOCKS} | {"README.md"}
    fences = sum((ROOT / page).read_text().count("\n```") for page in pages)

    assert fences == 2 * len([block for block in BLOCKS if block.page in pages])


def test_the_readme_is_a_page_and_not_a_book() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 120


def test_a_block_is_read_with_its_directive_and_its_line() -> None:
    page = "# Title\n\n<!-- run: slow -->\n\n```console\n$ echo one \\\n  two\none …\n$ true\n```\n"

    (block,) = documents.blocks_of("page.md", page)

    assert (block.slow, block.runs, block.line) == (True, True, 5)
    first, second = documents.commands(block.text)
    assert (first.line, first.shown, second.line) == ("echo one \\\n  two", ["one …"], "true")
    assert first.missing_from("one two\n") == []
    assert first.missing_from("nothing\n") == ["one …"]
