"""The ask process: `python -m activities.asking_process`, started and fed by `activities.asking.AskHost`.

Reads frames from standard input - first its orders, then jobs - and writes one reply per job. It holds no truth, only
warm sessions: kill it at any time. It ends by itself when it has been idle, and when its parent is gone.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import struct
import threading
import traceback
from typing import Any

import evertune.log as logs
from activities.asking_desk import AskJob, Desk, packed
from evertune.errors import EvertuneError
from evertune.store import Store, open_store

HEADER = struct.Struct(">I")


def frame(message: dict[str, Any]) -> bytes:
    body = json.dumps(message, separators=(",", ":")).encode()
    return HEADER.pack(len(body)) + body


def serve(requests: int, replies: int) -> None:
    """Answer until idle. `requests` and `replies` are file descriptors."""
    inbox: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(requests, inbox), daemon=True).start()
    orders = inbox.get()
    url, idle_s = orders["store"], orders["idle_s"]
    opened: list[Store] = []

    def store() -> Store:
        if not opened:
            opened.append(open_store(url, create=False))
        return opened[0]

    desk = Desk(store)
    while True:
        try:
            job = inbox.get(timeout=idle_s)
        except queue.Empty:
            return
        _write(replies, frame(_reply(desk, AskJob(**job))))


def _reply(desk: Desk, job: AskJob) -> dict[str, Any]:
    try:
        return {"answer": packed(desk.answer(job))}
    except EvertuneError as error:
        return {"error": {"type": type(error).__name__, "message": error.message, "hint": error.hint}}
    except Exception:
        return {"defect": traceback.format_exc()}


def _listen(requests: int, inbox: queue.Queue[dict[str, Any]]) -> None:
    """In a thread of its own: a parent that dies in the middle of a long ask ends it at once."""
    while True:
        header = _read(requests, HEADER.size)
        inbox.put(json.loads(_read(requests, *HEADER.unpack(header))))


def _read(source: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = os.read(source, size - len(data))
        if not piece:
            os._exit(0)
        data += piece
    return data


def _write(sink: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(sink, view) :]


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    requests, replies = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what a library prints must not get among the replies
    logs.configure()
    try:
        serve(requests, replies)
    except BrokenPipeError:
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)  # the listening thread is still in its read


if __name__ == "__main__":
    main()
