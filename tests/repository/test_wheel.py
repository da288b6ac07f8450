"""The artifact, not the checkout: what the wheel holds, and that it works where no checkout is near.

The five application packages have generic names (`workflows`, `worker`, …), and other distributions install packages
of the same names. So they travel as data below `evertune/_app`, and only evertune's own processes put that folder on
their path.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path, PurePosixPath

import pytest

import evertune
from tests.repository.checkout import APPLICATION_PACKAGES, ROOT, name_of, tracked_files


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Output of a command that knows nothing of this checkout; a failure shows what it said."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "EVERTUNE", "VIRTUAL"))
    }
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def contents(wheel: Path) -> list[PurePosixPath]:
    with zipfile.ZipFile(wheel) as archive:
        return [PurePosixPath(name) for name in archive.namelist()]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bin/ of a fresh environment with the wheel in it; what the wheel depends on is borrowed from this one."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home, with_pip=False, symlinks=True)
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        home / "bin" / "python",
        "install",
        "--no-deps",
        "--no-index",
        "--quiet",
        wheel,
        cwd=home,
    )
    site = Path(sysconfig.get_path("purelib", "venv", vars={"base": str(home), "platbase": str(home)}))
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin"


def test_the_wheel_brings_one_top_level_package(contents: list[PurePosixPath]) -> None:
    assert {path.parts[0] for path in contents} == {"evertune", f"evertune-{evertune.__version__}.dist-info"}


def test_every_tracked_file_of_the_packages_is_in_the_wheel(contents: list[PurePosixPath]) -> None:
    expected = set()
    for path in tracked_files():
        name = PurePosixPath(name_of(path))
        if name.parts[0] == "evertune":
            expected.add(name)
        elif name.parts[0] in APPLICATION_PACKAGES:
            expected.add(PurePosixPath("evertune/_app") / name)

    assert {path for path in contents if path.parts[0] == "evertune"} == expected


def test_the_wheel_carries_the_licence(contents: list[PurePosixPath]) -> None:
    assert PurePosixPath(f"evertune-{evertune.__version__}.dist-info/licenses/LICENSE") in contents


def test_the_installed_command_runs_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    told = run(installed / "evertune", "version", cwd=tmp_path, EVERTUNE_HOME=str(tmp_path / "home"))

    assert evertune.__version__ in told


def test_importing_evertune_puts_none_of_the_five_packages_on_the_path(installed: Path, tmp_path: Path) -> None:
    look = (
        "import importlib.util, evertune, sys; print(evertune.__file__);"
        f"print([name for name in {APPLICATION_PACKAGES} if importlib.util.find_spec(name)])"
    )

    where, found = run(installed / "python", "-c", look, cwd=tmp_path).splitlines()

    assert Path(where).is_relative_to(installed.parent)
    assert found == "[]"


def foreign_packages(folder: Path) -> None:
    """What another distribution, or the user's own project, may have lying in the way."""
    for name in APPLICATION_PACKAGES:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("foreign = True\n")


WHOSE = f"for name in {APPLICATION_PACKAGES}: print(__import__(name).__file__)"


@pytest.mark.parametrize("where", ["the working directory", "PYTHONPATH"])
def test_our_own_processes_find_our_packages_and_not_foreign_ones(installed: Path, tmp_path: Path, where: str) -> None:
    foreign_packages(tmp_path)
    environment = {"PYTHONPATH": str(tmp_path)} if where == "PYTHONPATH" else {}

    program = f"import evertune.app\nevertune.app.activate()\n{WHOSE}"
    files = run(installed / "python", "-c", program, cwd=tmp_path, **environment).splitlines()

    assert [Path(file).is_relative_to(installed.parent) for file in files] == [True] * 5


def test_a_users_own_package_of_the_same_name_stays_his(installed: Path, tmp_path: Path) -> None:
    foreign_packages(tmp_path)

    files = run(installed / "python", "-c", f"import evertune\n{WHOSE}", cwd=tmp_path).splitlines()

    assert [Path(file).is_relative_to(tmp_path) for file in files] == [True] * 5


@pytest.mark.slow
def test_the_installed_wheel_runs_an_experiment_with_no_checkout_near(installed: Path, tmp_path: Path) -> None:
    """Stack, worker, migrations, supervisor and registry come out of the wheel; another's packages lie in the way."""
    foreign_packages(tmp_path)
    (tmp_path / "experiment.yaml").write_text(
        "name: from-the-wheel\n"
        "command: echo loss={x}\n"
        "parameters: {x: 'uniform(0, 1)'}\n"
        "objective: minimize loss\n"
        "budget: {trials: 4, parallel: 2}\n"
    )
    # Its path is short: sockets live there.
    with tempfile.TemporaryDirectory(prefix="evertune-wheel-", ignore_cleanup_errors=True) as home:
        try:
            told = run(installed / "evertune", "run", "experiment.yaml", "-o", "json", cwd=tmp_path, EVERTUNE_HOME=home)
        finally:
            run(installed / "evertune", "down", cwd=tmp_path, EVERTUNE_HOME=home)

    result = json.loads(told)
    assert (result["state"], result["trials"]["succeeded"]) == ("Succeeded", 4)
