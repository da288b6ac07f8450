"""What the collector's image holds, as a directory: the collectors with what they import, busybox and the wrapper.

    python deploy/images/collector.py requirements          the pinned packages, by hash, on standard output
    python deploy/images/collector.py assemble DIRECTORY    DIRECTORY/opt/evertune, to be put at / over a Python image

The Containerfile calls both; `assemble` alone serves tools that make images without a container builder. It copies from
the environment that runs it, whose Python must have the minor version of the image's. Standard library only.

The image stays small because nothing comes that is not imported: of evertune what a sidecar needs, and of tensorboardX
the messages and the checksum. Its `__init__` would import numpy, so here it is empty.
"""

from __future__ import annotations

import argparse
import compileall
import py_compile
import re
import shutil
import struct
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
HOME = PurePosixPath("opt/evertune")
PACKAGES = ("google-re2", "prometheus-client", "protobuf", "tensorboardx")
OURS = ("evertune/__init__.py", "evertune/errors.py", "evertune/protocols.py", "evertune/domain", "collectors")
WRAPPER = ROOT / "activities" / "runners" / "kubernetes" / "wrapper.sh"
NEEDED_OF = {"tensorboardx": ("tensorboardX/proto", "tensorboardX/crc32c.py")}


def pins(lock: str) -> str:
    """The entries of `PACKAGES` in a requirements file with hashes."""
    entries = re.findall(r"^([a-z0-9-]+)(==[^\n]*(?:\n    --hash=[^\n]*)*)", lock, re.MULTILINE)
    found = {name: name + rest for name, rest in entries if name in PACKAGES}
    if missing := [name for name in PACKAGES if name not in found]:
        raise SystemExit(f"requirements/runtime.txt has no {', '.join(missing)}")
    return "\n".join(found.values()) + "\n"


def assemble(directory: Path, busybox: Path) -> None:
    """Fill `directory`/opt/evertune. SystemExit with a sentence when something is missing."""
    home = directory / HOME
    if home.exists():
        raise SystemExit(f"{home} is there already: give an empty directory")
    library = home / "lib"
    library.mkdir(parents=True)
    for name in OURS:
        copy(ROOT / name, library / name)
    for name in PACKAGES:
        copy_package(name, library)
    (library / "tensorboardX" / "__init__.py").write_text('"""Empty: the whole one would import numpy."""\n')
    compileall.compile_dir(
        library,
        quiet=1,
        stripdir=str(directory),
        prependdir="/",
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    shutil.copyfile(WRAPPER, home / "wrapper.sh")
    shutil.copyfile(static(busybox), home / "busybox")
    for path in (directory, *directory.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.name == "busybox" else 0o644)


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copyfile(source, target)


def copy_package(name: str, library: Path) -> None:
    """The files of an installed distribution, its licence and metadata included; programs and caches are not."""
    installed = distribution(name)
    for file in installed.files or ():
        path = PurePosixPath(file)
        wanted = NEEDED_OF.get(name)
        needed = wanted is None or ".dist-info" in path.parts[0] or str(path).startswith(wanted)
        if needed and ".." not in path.parts and "__pycache__" not in path.parts:
            copy(Path(str(installed.locate_file(file))), library / path)


def static(busybox: Path) -> Path:
    """`busybox`, when it runs in any image: linked against nothing."""
    if not busybox.is_file():
        raise SystemExit(f"there is no {busybox}: install busybox-static, or give --busybox")
    if wants_interpreter(busybox.read_bytes()):
        raise SystemExit(f"{busybox} is linked dynamically: install busybox-static, or give --busybox")
    subprocess.run([busybox, "sh", "-c", "exec -a true true"], check=True)
    return busybox


def wants_interpreter(program: bytes) -> bool:
    """Whether an ELF program of 64 bits names a dynamic linker (a header of type PT_INTERP)."""
    if program[:5] != b"\x7fELF\x02":
        raise SystemExit("busybox is not a program of 64 bits for Linux")
    order = "<" if program[5] == 1 else ">"
    (start,) = struct.unpack_from(f"{order}Q", program, 32)
    size, count = struct.unpack_from(f"{order}HH", program, 54)
    return any(struct.unpack_from(f"{order}I", program, start + index * size)[0] == 3 for index in range(count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("requirements", help="print the pinned packages of the image")
    making = commands.add_parser("assemble", help="make the image's content")
    making.add_argument("directory", type=Path)
    making.add_argument("--busybox", type=Path, default=Path("/bin/busybox"))
    given = parser.parse_args()
    if given.command == "requirements":
        sys.stdout.write(pins((ROOT / "requirements" / "runtime.txt").read_text()))
    else:
        assemble(given.directory.resolve(), given.busybox)


if __name__ == "__main__":
    main()
