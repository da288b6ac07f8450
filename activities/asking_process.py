"""The ask process: one JSON line in (an AskJob), one JSON line out, until stdin ends or a minute of silence.

Started by `activities.asking.AskHost` only. BLAS runs on one thread: models are small, and their results then do not
depend on the number of cores.
"""

from __future__ import annotations

import json
import os
import select
import sys
from typing import Any, TextIO

from threadpoolctl import threadpool_limits

from activities.asking import AskJob
from activities.asks import Asks
from evertune.errors import EvertuneError, UnavailableError
from evertune.protocols import Answer
from evertune.store import open_store


def serve(database_url: str, idle_s: float, requests: TextIO, replies: TextIO) -> None:
    with open_store(database_url) as store:
        asks = Asks(store)
        while select.select([requests], [], [], idle_s)[0]:
            line = requests.readline()
            if not line:
                return  # the worker is gone
            replies.write(json.dumps(_reply(asks, AskJob(**json.loads(line)))) + "\n")
            replies.flush()


def _reply(asks: Asks, job: AskJob) -> dict[str, Any]:
    try:
        with threadpool_limits(limits=1):
            return _as_json(asks.answer(job))
    except UnavailableError as error:
        return {"unavailable": str(error)}
    except EvertuneError as error:
        return {"error": str(error)}


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
    database_url, idle_s = sys.argv[1], float(sys.argv[2])
    # Libraries that print must not be read as answers: stdout goes to stderr, replies to the real one.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(database_url, idle_s, sys.stdin, replies)


if __name__ == "__main__":
    main()
