"""Finds the five application packages, and runs the worker without anybody importing it.

`workflows`, `activities`, `algorithms`, `collectors` and `worker` have generic names, so they never reach a user's
site-packages: a wheel carries them as data in `evertune/_app`, a checkout has them at its root. Evertune's own
processes (CLI, worker, stack, sidecar) call `activate()`; a user's process never does, so his own `workflows` stays
his. `python -m evertune.app worker …` is the one way to start a worker.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path

from evertune.ending import told
from evertune.errors import EnvironmentProblem, EvertuneError, UsageError

APP_PACKAGES = ("workflows", "activities", "algorithms", "collectors", "worker")

_PACKAGE_DIR = Path(__file__).resolve().parent


def app_root() -> Path:
    """The directory that holds the five packages: `evertune/_app` of a wheel, or the root of a checkout."""
    for root in (_PACKAGE_DIR / "_app", _PACKAGE_DIR.parent):
        if all((root / name / "__init__.py").is_file() for name in APP_PACKAGES):
            return root
    raise EnvironmentProblem(
        f"this installation of evertune is incomplete: {_PACKAGE_DIR / '_app'} lacks the application packages",
        hint="install evertune again from a wheel, or run it from a checkout",
    )


def activate() -> Path:
    """Put the five packages first on `sys.path` and prove that they are the ones that get imported.

    Call it before the first import of any of them. Idempotent. Raises EnvironmentProblem that names every rival.
    """
    root = app_root()
    sys.path[:] = [str(root), *(entry for entry in sys.path if entry != str(root))]
    importlib.invalidate_caches()
    rivals = [(name, origin) for name in APP_PACKAGES if (origin := _origin(name)) != root / name]
    if rivals:
        found = "; ".join(f"{name} is {origin or 'a module without a file'}{_owner(name)}" for name, origin in rivals)
        raise EnvironmentProblem(
            f"other packages take the names of evertune's own: {found}",
            hint="install evertune in an environment of its own, or activate() before anything imports them",
        )
    return root


def child_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment for evertune's own child processes; trials must never get it.

    They find evertune and the five packages without an installation, and never import from their working directory.
    """
    entries = [str(app_root()), str(_PACKAGE_DIR.parent), *environ.get("PYTHONPATH", "").split(os.pathsep)]
    path = os.pathsep.join(dict.fromkeys(filter(None, entries)))
    return {**environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def module_command(module: str, *arguments: str) -> list[str]:
    """A command line that runs `module` with this interpreter; start it with `child_environment()`."""
    return [sys.executable, "-P", "-m", module, *arguments]


def _origin(name: str) -> Path | None:
    """The directory that `import name` would use or has used."""
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # already imported, by something that gave it no spec
        return None
    places = list(spec.submodule_search_locations or ()) if spec else []
    if places:
        return Path(places[0])
    return Path(spec.origin) if spec and spec.origin else None


def _owner(name: str) -> str:
    from importlib.metadata import packages_distributions  # reads every installed package: only on the way to an error

    owners = packages_distributions().get(name, [])
    return f" (installed by {', '.join(sorted(set(owners)))})" if owners else ""


RUNS = ("worker", "collectors")  # what a container or a pod starts


def main(arguments: list[str]) -> None:
    """`python -m evertune.app worker|collectors [ARGS]`: run that package's `__main__` as if called itself."""
    if arguments[:1] not in [[name] for name in RUNS]:
        raise UsageError(f"python -m evertune.app runs {' or '.join(RUNS)}, with arguments of their own")
    activate()
    sys.argv = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except EvertuneError as error:
        sys.exit(told(error))
