"""The pages that follow from the code are up to date, and leave nothing out."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs import generate
from evertune.settings import Settings

PAGES = generate.pages()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_generated_page_is_what_the_code_says_now(path: Path) -> None:
    assert path.read_text() == PAGES[path], "run `make docs`"


def test_every_setting_has_its_row() -> None:
    page = generate.settings_page()
    variables = Settings.load(
        {"HOME": "/home/somebody", "TEMPORAL_ADDRESS": "127.0.0.1:7233", "EVERTUNE_UI_URL": "http://127.0.0.1"},
        temporal_port=7233,
        ui_port=8233,
    ).environment()

    assert [name for name in variables if f"`{name}`" not in page] == []
