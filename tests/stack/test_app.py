"""The five generic names: ours in our processes, the user's in his."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from activities.runners.local.runner import LocalRunner
from evertune.app import APP_PACKAGES, app_root, child_environment, module_command
from evertune.domain.trial import AttemptRef
from evertune.protocols import Launch
from evertune.settings import Settings

ROOT = Path(__file__).parents[2]

REPORT = (
    "import json; from importlib.util import find_spec; from evertune.app import activate; activate();"
    f"print(json.dumps({{name: find_spec(name).origin for name in {APP_PACKAGES}}}))"
)


def python(code: str, *paths: Path, cwd: Path = Path("/"), isolated: bool = False) -> subprocess.CompletedProcess[str]:
    """Run code with these paths first, as PYTHONPATH; `isolated` leaves site-packages and the installation out."""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(map(str, paths))}
    flags = ["-P", *(["-S"] if isolated else [])]
    return subprocess.run(
        [sys.executable, *flags, "-c", code], env=environ, cwd=cwd, capture_output=True, text=True, timeout=100
    )


@pytest.fixture
def rivals(tmp_path: Path) -> Path:
    """A site directory with foreign packages of all five names, one of them from a distribution."""
    site = tmp_path / "rivals"
    for name in APP_PACKAGES:
        (site / name).mkdir(parents=True)
        (site / name / "__init__.py").write_text(f"print('the foreign {name} was imported')\n")
    info = site / "llama_index_workflows-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llama-index-workflows\nVersion: 2.0\n")
    (info / "RECORD").write_text("workflows/__init__.py,,\n")
    (info / "top_level.txt").write_text("workflows\n")
    return site


@pytest.fixture(scope="session")
def unpacked_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this tree and unpacked as an installer would."""
    place = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)],
        cwd=ROOT, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    (wheel,) = place.glob("*.whl")
    site = place / "site"
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(site)], check=True, timeout=60)
    return site


def test_from_a_checkout_the_five_names_are_the_repositorys() -> None:
    assert app_root() == ROOT
    origins = json.loads(python(REPORT, ROOT, cwd=Path("/")).stdout)
    assert origins == {name: str(ROOT / name / "__init__.py") for name in APP_PACKAGES}


def test_foreign_packages_first_on_the_path_are_not_picked_up(rivals: Path) -> None:
    done = python(REPORT, rivals, ROOT, cwd=rivals)
    assert json.loads(done.stdout) == {name: str(ROOT / name / "__init__.py") for name in APP_PACKAGES}, done.stderr


def test_foreign_packages_in_site_packages_are_not_picked_up(rivals: Path) -> None:
    code = f"import site, sys; site.addsitedir({str(rivals)!r}); sys.path.insert(0, {str(rivals)!r});" + REPORT
    assert json.loads(python(code, ROOT).stdout)["workflows"] == str(ROOT / "workflows" / "__init__.py")


def test_a_rival_that_was_imported_before_is_named_with_its_distribution(rivals: Path) -> None:
    code = (
        "import workflows, activities\n"
        "from evertune.app import activate\n"
        "from evertune.errors import EnvironmentProblem\n"
        "try: activate()\n"
        "except EnvironmentProblem as problem: print(problem.message)"
    )
    message = python(code, rivals, ROOT).stdout.splitlines()[-1]
    assert f"workflows is {rivals / 'workflows'} (installed by llama-index-workflows)" in message
    assert f"activities is {rivals / 'activities'}" in message
    assert "algorithms is" not in message


def test_activate_twice_leaves_one_entry() -> None:
    code = (
        "import sys; from evertune.app import activate; activate(); root = activate(); print(sys.path.count(str(root)))"
    )
    assert python(code, ROOT).stdout == "1\n"


def test_the_wheel_puts_none_of_the_five_names_beside_evertune(unpacked_wheel: Path) -> None:
    beside = {entry.name for entry in unpacked_wheel.iterdir() if not entry.name.endswith(".dist-info")}
    assert beside == {"evertune"}


def test_from_the_wheel_the_five_names_are_below_evertune(unpacked_wheel: Path, rivals: Path) -> None:
    done = python(REPORT, rivals, unpacked_wheel, cwd=rivals, isolated=True)
    app = unpacked_wheel / "evertune" / "_app"
    assert json.loads(done.stdout) == {name: str(app / name / "__init__.py") for name in APP_PACKAGES}, done.stderr


def test_the_wheel_carries_every_file_of_the_five(unpacked_wheel: Path) -> None:
    def files(root: Path, name: str) -> set[Path]:
        found = (path for path in (root / name).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {path.relative_to(root) for path in found}

    for name in APP_PACKAGES:
        assert files(unpacked_wheel / "evertune" / "_app", name) == files(ROOT, name)


def test_an_incomplete_installation_says_so(tmp_path: Path) -> None:
    (tmp_path / "evertune").mkdir()
    for name in ("__init__.py", "app.py", "ending.py", "errors.py"):
        (tmp_path / "evertune" / name).write_text((ROOT / "evertune" / name).read_text())
    done = python("import runpy; runpy.run_module('evertune.app')['main'](['worker'])", tmp_path, isolated=True)
    assert "EnvironmentProblem: this installation of evertune is incomplete" in done.stderr


def test_our_children_find_our_packages_before_anything_in_their_directory_or_path(rivals: Path) -> None:
    environ = child_environment({"PATH": os.environ["PATH"], "PYTHONPATH": str(rivals)})
    code = "import sys, workflows, evertune; print(workflows.__file__, evertune.__file__)"
    done = subprocess.run([sys.executable, "-c", code], env=environ, cwd=rivals, capture_output=True, text=True)
    assert done.stdout.split() == [str(ROOT / "workflows/__init__.py"), str(ROOT / "evertune/__init__.py")]
    assert str(rivals) in environ["PYTHONPATH"], "plugins that the user put there are still found"


async def test_a_trial_imports_the_users_own_packages_of_these_names(tmp_path: Path) -> None:
    """A worker runs with our path in its environment; nothing of that reaches the trial."""
    user = tmp_path / "user"
    (user / "workflows").mkdir(parents=True)
    (user / "workflows" / "__init__.py").write_text("mine = True\n")
    script = "import os, workflows; print(workflows.mine, *sorted(os.environ))"
    (user / "train.py").write_text(script)
    container = {"name": "main", "image": "none", "command": [sys.executable, "train.py"]}
    pod = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    launch = Launch(
        ref=AttemptRef("a" * 32, 0, 0, "trial"),
        manifest={"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "t"}, "spec": {"template": pod}},
        primary_container="main",
        working_dir=str(user),
    )
    settings = Settings.load({"EVERTUNE_HOME": str(tmp_path / "home")})
    runner = LocalRunner(tmp_path / "trials", environment={**child_environment(), **settings.environment()})
    try:
        await runner.create(launch)
        await runner.wait(launch.ref)
        mine, *variables = runner.log_path(launch.ref).read_text().split()
        assert mine == "True"
        assert not {"PYTHONPATH", "PYTHONSAFEPATH", *settings.environment()} & set(variables)
    finally:
        runner.close()


def test_the_worker_is_run_as_main_with_its_arguments(unpacked_wheel: Path, tmp_path: Path) -> None:
    main = unpacked_wheel / "evertune" / "_app" / "worker" / "__main__.py"
    real = main.read_text()
    try:
        main.write_text("import sys; print(__name__, sys.argv[1:])\n")
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(unpacked_wheel)}
        command = [module_command("evertune.app")[0], "-S", "-P", "-m", "evertune.app", "worker", "--once"]
        done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True)
    finally:
        main.write_text(real)
    assert done.stdout == "__main__ ['--once']\n", done.stderr


def test_the_sidecar_is_run_from_an_installed_wheel_too(tmp_path: Path) -> None:
    done = subprocess.run(
        [*module_command("evertune.app"), "collectors", "--notes", str(tmp_path / "notes")],
        env=child_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, "a sidecar never fails its pod"
    assert "needs --notes and --log" in done.stderr


def test_anything_else_than_these_is_refused_in_a_sentence() -> None:
    done = subprocess.run(
        module_command("evertune.app", "server"), env=child_environment(), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "error: python -m evertune.app runs worker or collectors, with arguments of their own\n"
