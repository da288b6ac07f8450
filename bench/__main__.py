"""`python -m bench [NAME…] [--json FILE]`: measure, print a line per figure; exit 1 when a promise is broken.

Meant for an idle machine with two cores. Each benchmark has a home of its own; references (Optuna) run beside it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from pathlib import Path

from bench.figures import Figure, broken

# Names of modules beside this one; `measure()` yields figures.
BENCHMARKS = ("commands", "ask", "throughput", "durability", "idle", "series", "collecting", "gateway", "kubernetes")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure evertune and print ratios.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")

    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}")
    figures: list[Figure] = []
    for name in arguments.names or BENCHMARKS:
        for figure in importlib.import_module(f"bench.{name}").measure():
            figures.append(figure)
            print(figure.line(), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps([figure.as_dict() for figure in figures], indent=2) + "\n")
    missed = broken(figures)
    if missed:
        print(f"{len(missed)} of {len(figures)} promises are broken on this machine")
    return 1 if missed else 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # temporalio's threads may touch a finalising interpreter and abort
