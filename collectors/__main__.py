"""`python -m collectors`: the sidecar process. Reads what a trial reports, and sends it to the ingest gateway.

Started beside a trial in its pod; everything comes from EVERTUNE_* variables or the flags of the same name. It ends
when the trial does - an exit file appears, the life pipe is closed, a process is gone, or SIGTERM - after it has read
what is left and said `final`. It never crashes and always exits 0: as an ordinary container it would fail the pod, and
as a native one it would be restarted. What goes wrong is a line on standard error.

Where several pods are made from one template, only one of them reports: the one whose EVERTUNE_ROLE is
EVERTUNE_PRIMARY_ROLE (`master` when that is not given). In the others this process waits for the end and does nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import collectors
from collectors.ending import Life
from collectors.sending import Sender
from collectors.sidecar import LOOK_EVERY_S, RETRY_S, Acknowledged, Sidecar
from evertune.domain.metrics import CollectorSpec, Scrape
from evertune.errors import EvertuneError
from evertune.protocols import Sources

GRACE_S = 25.0  # of Kubernetes' 30 s after SIGTERM
LINGER_S = 1800.0  # for a gateway that is away when the trial has ended


def spec_of(text: str) -> CollectorSpec:
    """The spec from JSON: the fields of `CollectorSpec`. ValueError with a sentence when it is none."""
    try:
        fields: dict[str, Any] = json.loads(text)
        scrape = fields.pop("scrape", None)
        for key in ("metrics", "filters"):
            fields[key] = tuple(fields.get(key) or ())
        if scrape is not None:
            scrape["headers"] = tuple((name, value) for name, value in scrape.get("headers") or ())
        return CollectorSpec(**fields, scrape=None if scrape is None else Scrape(**scrape))
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"EVERTUNE_COLLECTOR is not a collector as JSON: {error}") from None


def say(text: str) -> None:
    print(f"evertune collector: {text}", file=sys.stderr, flush=True)  # noqa: T201


def parser() -> argparse.ArgumentParser:
    def env(name: str, default: str = "") -> str:
        return os.environ.get(name) or default

    def path(name: str) -> dict[str, Any]:
        value = env(name)
        return {"type": Path, "default": Path(value) if value else None, "metavar": "PATH"}

    made = argparse.ArgumentParser(prog="python -m collectors", description="Send a trial's metrics to the gateway.")
    made.add_argument("--spec", default=env("EVERTUNE_COLLECTOR", "{}"), metavar="JSON", help="what to collect")
    made.add_argument("--url", default=env("EVERTUNE_INGEST_URL", ""), help="the gateway")
    made.add_argument("--token", default=env("EVERTUNE_TOKEN", ""), help="of this attempt (better as a variable)")
    made.add_argument("--token-file", **path("EVERTUNE_TOKEN_FILE"), help="of the pod, kept fresh by its kubelet")
    made.add_argument("--trial", default=env("EVERTUNE_TRIAL", ""), metavar="NAME")
    made.add_argument("--origin", default=env("EVERTUNE_ORIGIN", ""), metavar="UID", help="of this pod")
    made.add_argument("--log", **path("EVERTUNE_LOG_FILE"), help="standard output and error of the trial")
    made.add_argument("--path", **path("EVERTUNE_METRICS_PATH"), help="the file or directory of metrics")
    made.add_argument("--reports", **path("EVERTUNE_REPORT_FILE"), help="what evertune.report writes")
    made.add_argument("--printed", **path("EVERTUNE_PRINTED_FILE"), help="what the user's own collector prints")
    made.add_argument("--notes", **path("EVERTUNE_NOTES_DIR"), help="a directory of the collector's own")
    made.add_argument("--stop-file", **path("EVERTUNE_STOP_FILE"), help="written when the trial should end")
    made.add_argument("--exit-file", **path("EVERTUNE_EXIT_FILE"), help="its appearance is the trial's end")
    made.add_argument("--life", **path("EVERTUNE_LIFE_PIPE"), help="a FIFO that the trial holds open")
    made.add_argument("--beside-exit-file", **path("EVERTUNE_BESIDE_EXIT_FILE"), help="of the user's own collector")
    restarts = env("EVERTUNE_RESTARTS") == "1"
    made.add_argument("--restarts", action="store_true", default=restarts, help="a failed trial is started again")
    made.add_argument("--until-pid", type=int, default=None, help="the trial's process")
    made.add_argument("--host", default=env("EVERTUNE_SCRAPE_HOST", "127.0.0.1"), help="of the trial, to be scraped")
    made.add_argument("--grace-s", type=float, default=env("EVERTUNE_GRACE_S", str(GRACE_S)))
    made.add_argument("--linger-s", type=float, default=env("EVERTUNE_LINGER_S", str(LINGER_S)))
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """0, always: a sidecar must not fail its pod."""
    terminated = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: terminated.set())
    try:
        options = parser().parse_args(arguments)
        if not reports_here(os.environ):
            say(f"this pod's role is {os.environ['EVERTUNE_ROLE'] or 'none'}: another pod reports")
            idle(life_of(options), terminated)
            return 0
        if options.notes is None or options.log is None:
            raise ValueError("needs --notes and --log, a directory and a file")
        sidecar, sender = compose(options, terminated)
    except SystemExit as error:  # argparse has said what is wrong
        if error.code:
            say("cannot start like this; nothing is collected")
        return 0
    except (ValueError, OSError, EvertuneError) as error:
        hint = error.hint if isinstance(error, EvertuneError) else None
        say(f"{error}{f' ({hint})' if hint else ''}; nothing is collected")
        return 0
    while True:
        try:
            sidecar.run(sender)
        except Exception as error:  # whatever it is, it must not fail the pod
            say(f"a defect of evertune, tried again: {type(error).__name__}: {error}")
            if terminated.wait(RETRY_S):
                return 0
            sidecar, sender = compose(options, terminated)
        else:
            return 0


def reports_here(environ: Mapping[str, str]) -> bool:
    """Whether this pod reports, of those that are made from one template."""
    return environ.get("EVERTUNE_ROLE") in (None, environ.get("EVERTUNE_PRIMARY_ROLE") or "master")


def idle(life: Life, terminated: threading.Event) -> None:
    while not terminated.wait(LOOK_EVERY_S) and not life.over():
        pass


def life_of(options: argparse.Namespace) -> Life:
    return Life(
        exit_file=options.exit_file,
        pipe=options.life,
        pid=options.until_pid,
        restarts=options.restarts,
        beside=options.beside_exit_file,
    )


def compose(options: argparse.Namespace, terminated: threading.Event) -> tuple[Sidecar, Sender]:
    """ValueError, OSError or LaunchError, with a sentence, when it cannot run like this."""
    options.notes.mkdir(parents=True, exist_ok=True)
    sources = Sources(
        log=options.log,
        notes=options.notes,
        path=options.path,
        reports=options.reports,
        printed=options.printed,
        host=options.host,
    )
    spec = spec_of(options.spec)
    sidecar = Sidecar(
        lambda: collectors.create(spec, sources),
        life=life_of(options),
        acknowledged=Acknowledged(options.notes / "acknowledged"),
        terminated=terminated,
        say=say,
        stop_file=options.stop_file,
        grace_s=options.grace_s,
        linger_s=options.linger_s,
    )
    token = options.token_file or options.token
    sender = Sender(options.url, token, options.trial, origin=options.origin, wait=sidecar.wait, say=say)
    return sidecar, sender


if __name__ == "__main__":
    sys.exit(main())
