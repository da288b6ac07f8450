"""How long a sender goes on with a credential that the gateway does not take."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from collectors import sending
from collectors.sending import Refused, Sender
from tests.unit.collectors.endpoint import Gateway


def pause(seconds: float) -> bool:
    time.sleep(min(seconds, 0.05))
    return False


def test_a_token_of_a_file_may_be_stale_for_a_while_and_a_key_that_is_refused_stays_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "UNKNOWN_FOR_S", 0.2)
    token = tmp_path / "token"
    token.write_text("old")
    said: list[str] = []
    for credential in (token, "key"):
        gateway = Gateway(refusals=[(401, {})] * 12)
        with gateway.open() as port:
            sender = Sender(f"http://127.0.0.1:{port}", credential, "exp-1", wait=pause, say=said.append)
            if credential == "key":
                with pytest.raises(Refused, match="status 401") as caught:
                    sender.send((), final=True)
                assert caught.value.lasting
            else:
                sender.send((), final=True)
                assert gateway.final
            sender.close()


def test_a_token_of_a_file_that_stays_refused_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "STALE_FOR_S", 0.2)
    token = tmp_path / "token"
    token.write_text("old")
    with Gateway(refusals=[(401, {})] * 100).open() as port:
        sender = Sender(f"http://127.0.0.1:{port}", token, "exp-1", wait=pause, say=lambda _: None)
        with pytest.raises(Refused, match="status 401"):
            sender.send((), final=True)
        sender.close()
