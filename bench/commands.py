"""What a person waits for: an import, a help page, a verdict on many files, the first trial on a machine at rest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figures import Figure

ROOT = Path(__file__).parents[1]
FILES = 200


def fastest(*arguments: str, runs: int = 7) -> float:
    def once() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)
        return time.perf_counter() - start

    return min(once() for _ in range(runs))


def files_per_s(folder: Path) -> float:
    """`evertune validate` on copies of an example, the start of the command included."""
    copies = [shutil.copy(ROOT / "examples" / "digits.yaml", folder / f"{number}.yaml") for number in range(FILES)]
    return FILES / fastest("-m", "evertune.cli", "validate", *map(str, copies), runs=3)


def first_trial_s(folder: Path) -> float:
    """`evertune run` of the digits example with no stack up, until the line of its first trial."""
    environment = {
        **os.environ,
        "EVERTUNE_HOME": str(folder / "home"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = [sys.executable, "-m", "evertune.cli"]
    start = time.perf_counter()
    with subprocess.Popen(
        [*command, "run", "examples/digits.yaml"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stderr is not None
        said = []
        for line in run.stderr:
            said.append(line)
            if line.lstrip().startswith("["):
                break
        else:
            raise RuntimeError("evertune run ended before its first trial:\n" + "".join(said))
        took = time.perf_counter() - start
        run.terminate()
    subprocess.run([*command, "down"], cwd=ROOT, env=environment, check=True, capture_output=True)
    return took


def measure() -> Iterator[Figure]:
    empty = fastest("-c", "pass")
    for name, arguments, bound_ms in (
        ("import evertune", ("-c", "import evertune"), 60),
        ("evertune --help", ("-m", "evertune.cli", "--help"), 250),
    ):
        took = fastest(*arguments)
        note = f"{took / empty:.1f} x an empty Python"
        yield Figure(name=name, value=took * 1000, unit="ms", at_most=bound_ms, note=note)
    with tempfile.TemporaryDirectory(prefix="evertune-bench-") as folder:
        yield Figure(
            name="evertune validate, many files", value=files_per_s(Path(folder)), unit="files/s", at_least=200
        )
        yield Figure(
            name="evertune run, until the first finished trial",
            value=first_trial_s(Path(folder)),
            unit="s",
            at_most=60,
            note="no stack up before",
        )
