"""The ask process: one JSON line in (an AskJob, or an experiment to get ready for), one JSON line out.

It ends with its stdin, or after a minute of silence.

Started by `activities.asking.AskHost` only. BLAS runs on one thread: models are small, and their results then do not
depend on the number of cores.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
from typing import Any, TextIO

from activities.asks import AskJob, Asks
from evertune.errors import EnvironmentProblem, EvertuneError, UnavailableError
from evertune.protocols import Answer
from evertune.store import open_store

# Read by the libraries when they are loaded, which is not before the first ask.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def serve(database_url: str, idle_s: float, requests: TextIO, replies: TextIO) -> None:
    with contextlib.ExitStack() as stack:
        asks: Asks | None = None
        while select.select([requests], [], [], idle_s)[0]:
            line = requests.readline()
            if not line:
                return  # the worker is gone
            try:
                if asks is None:
                    # Not created: an empty database in the place of a lost one would hide the loss.
                    asks = Asks(stack.enter_context(open_store(database_url, create=False)))
                request = json.loads(line)
                reply = _warmed(asks, request["warm"]) if "warm" in request else _reply(asks, AskJob(**request))
            except EvertuneError as error:  # the algorithm has no part in it: not its failure, and not for ever
                reply = json.dumps({"unavailable": str(error)})
            replies.write(reply + "\n")
            replies.flush()


def _warmed(asks: Asks, uid: str) -> str:
    asks.warm(uid)
    return "{}"


def _reply(asks: Asks, job: AskJob) -> str:
    begun = time.process_time()
    try:
        answer = _as_json(asks.answer(job))
        return json.dumps({**answer, "cpu_s": time.process_time() - begun}, allow_nan=False)
    except (UnavailableError, EnvironmentProblem):
        raise
    except EvertuneError as error:
        return json.dumps({"error": str(error)})
    except (TypeError, ValueError) as error:
        return json.dumps({"error": f"the answer to request {job.request_no} cannot be written as JSON: {error}"})


def _as_json(answer: Answer) -> dict[str, Any]:
    return {
        "assignments": [
            {
                "parameters": dict(assignment.parameters),
                "labels": dict(assignment.labels),
                "meta": dict(assignment.meta),
            }
            for assignment in answer.assignments
        ],
        "state": answer.state,
        "wait": answer.wait,
        "exhausted": answer.exhausted,
        "reason": answer.reason,
    }


def main() -> None:
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    database_url, idle_s = os.environ["EVERTUNE_DATABASE_URL"], float(sys.argv[1])
    # Libraries that print must not be read as answers: stdout goes to stderr, replies to the real one.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(database_url, idle_s, sys.stdin, replies)


if __name__ == "__main__":
    main()
