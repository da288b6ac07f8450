"""docs/architecture.md is the map of the house: it names every room that there is, and none that there is not."""

from __future__ import annotations

import re

from tests.repository.checkout import APPLICATION_PACKAGES, ROOT, name_of, python_files

PAGE = (ROOT / "docs" / "architecture.md").read_text()
ROOMS = re.search(r"^## Rooms\n\n```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def drawn() -> set[str]:
    assert ROOMS is not None
    names = set()
    parent = ""
    for indent, name in re.findall(r"^( *)([a-z_]+)/?  ", ROOMS[1], re.MULTILINE):
        if not indent:
            parent = name
        names.add(f"{parent}/{name}" if indent else name)
    return names


def built() -> set[str]:
    """The packages, and what lies directly in `evertune/`."""
    paths = [name_of(path).removesuffix(".py").split("/") for path in python_files()]
    packages = {parts[0] for parts in paths if parts[0] in APPLICATION_PACKAGES or parts[0] == "evertune"}
    rooms = {f"evertune/{parts[1]}" for parts in paths if parts[0] == "evertune" and not parts[1].startswith("__")}
    return packages | rooms | {"activities/runners", "algorithms/stoppers"}


def test_every_package_and_every_room_of_evertune_is_on_the_map() -> None:
    assert built() - drawn() == set()


def test_the_map_shows_no_room_that_does_not_exist() -> None:
    assert drawn() - built() - {"deploy", "tests"} == set()


def test_the_floors_on_the_page_are_those_of_the_linter() -> None:
    layers = re.search(
        r'name = "The house has floors".*?layers = \[(.*?)\]', (ROOT / "pyproject.toml").read_text(), re.DOTALL
    )
    assert layers is not None

    named = [name.removeprefix("evertune.") for name in re.findall(r"[a-z.]+", layers[1].replace("worker | ", ""))]
    floor = PAGE[PAGE.index("worker | evertune.cli") :]
    places = [floor.index(name) for name in named]

    assert places == sorted(places)
