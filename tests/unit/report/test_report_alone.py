"""`evertune/report.py` is one file that old training images can run: copied alone, with the standard library only."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.repository.checkout import ROOT
from tests.unit.report.programs import beside_a_reader, metrics

FILES = [ROOT / "evertune" / "report.py", ROOT / "evertune" / "katib.py"]
OLD_PYTHONS = [path for minor in (8, 9, 10) if (path := shutil.which(f"python3.{minor}"))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_syntax_is_that_of_python_3_8(file: Path) -> None:
    ast.parse(file.read_text(), feature_version=(3, 8))


def test_it_imports_nothing_but_the_standard_library() -> None:
    imported = set()
    for node in ast.walk(ast.parse(FILES[0].read_text())):
        if isinstance(node, ast.Import):
            imported |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert imported <= sys.stdlib_module_names


@pytest.mark.parametrize("python", [sys.executable, *OLD_PYTHONS])
def test_copied_alone_into_an_empty_folder_it_reports(python: str, tmp_path: Path) -> None:
    if subprocess.run([python, "-c", ""], capture_output=True).returncode:
        pytest.skip(f"{python} does not run")
    shutil.copy(FILES[0], tmp_path)
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from report import report; report(loss=0.5, step=1)"
    done = subprocess.run(
        [python, "-S", "-I", "-c", program],
        env=beside_a_reader(tmp_path / "reports"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert metrics(tmp_path / "reports") == [{"loss": 0.5}]


def test_importing_it_loads_no_network_no_logging_and_no_package() -> None:
    heavy = ["logging", "http.client", "urllib.parse", "ssl", "socket", "typing", "pathlib", "tempfile", "ctypes"]
    program = (
        f"import sys; sys.path.insert(0, 'evertune'); import report; print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-S", "-I", "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_importing_it_takes_no_more_than_a_few_times_an_empty_python() -> None:
    def fastest(program: str) -> float:
        times = []
        for _ in range(7):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
            times.append(time.perf_counter() - began)
        return min(times)

    assert fastest("import evertune.report") < 6 * fastest("pass")  # 2 on an idle machine
