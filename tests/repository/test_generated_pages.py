"""The pages that follow from the code are up to date, and leave nothing out."""

from __future__ import annotations

import re

from docs import generate
from evertune import errors
from evertune.cli.verbs import VERBS
from evertune.settings import Settings
from tests.repository.checkout import ROOT


def test_the_generated_pages_are_what_the_code_says_now() -> None:
    outdated = [path.name for path, text in generate.pages().items() if path.read_text() != text]
    assert outdated == [], "run `make docs`"


def test_every_setting_has_its_row() -> None:
    page = generate.settings_page()
    variables = Settings.load(
        {"HOME": "/home/somebody", "TEMPORAL_ADDRESS": "127.0.0.1:7233", "EVERTUNE_UI_URL": "http://127.0.0.1"},
        temporal_port=7233,
        ui_port=8233,
    ).environment()

    assert [name for name in variables if f"`{name}`" not in page] == []


def test_every_verb_has_its_heading() -> None:
    page = (ROOT / "docs" / "cli.md").read_text()

    assert [name for name in VERBS if f"\n### evertune {name}\n" not in page] == []


def test_the_exit_codes_on_the_page_are_those_of_the_errors() -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    codes = {error.exit_code for error in vars(errors).values() if hasattr(error, "exit_code")}

    assert codes - {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)} == set()
