"""`python -m evertune.kubectl [--namespace NAME …] [--adopt-katib]`: watch and work until SIGTERM or SIGINT.

Started by `evertune operator`. Needs the extra `operator`.
"""

from __future__ import annotations

import argparse
import signal
from typing import NoReturn

import evertune.log as logs
from evertune.app import activate
from evertune.ending import leave, told
from evertune.errors import EnvironmentProblem, EvertuneError
from evertune.settings import Settings

EXTRA = "pip install 'evertune[operator]'"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m evertune.kubectl", description="Experiments by kubectl.")
    parser.add_argument("--namespace", action="append", default=[], help="watch this namespace only; may be repeated")
    parser.add_argument("--adopt-katib", action="store_true", help="take Katib's Experiments as well")
    parser.add_argument("--delete-deadline", type=float, default=300.0, help="seconds a deletion waits for the end")
    parser.add_argument("--health-port", type=int, help="answer /healthz on this port, for a liveness probe")
    given = parser.parse_args(arguments)
    try:
        signal.signal(signal.SIGTERM, _told_to_end)  # until kopf listens: a cluster that is away may take its time
        settings = Settings.load()
        logs.configure(settings)
        activate()
        try:
            from evertune.kubectl.handlers import Options, run
        except ModuleNotFoundError as error:
            if error.name != "kopf":
                raise
            raise EnvironmentProblem("the operator needs kopf, which is not installed", hint=EXTRA) from error
        run(
            settings,
            Options(
                namespaces=tuple(given.namespace),
                adopt_katib=given.adopt_katib,
                delete_deadline_s=given.delete_deadline,
                health_port=given.health_port,
            ),
        )
    except EvertuneError as error:
        return told(error)
    except KeyboardInterrupt:
        return 130
    except SystemExit:
        return 0
    return 0


def _told_to_end(*_: object) -> NoReturn:
    raise SystemExit


if __name__ == "__main__":
    leave(main())
