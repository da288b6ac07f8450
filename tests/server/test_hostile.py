"""Whoever sends nonsense, lies or floods gets one sentence; the gateway's memory stays as it was and others go on."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import time
from collections import Counter

import pytest

from evertune.server import protocol
from evertune.testing.gateway import Attempt
from evertune.tokens import Claims, TokenKeys
from tests.server.conftest import ServerProcess, World, health, in_thread, points, post

MIB = 1 << 20


def exchange(world: World, sent: bytes, *more: bytes, wait_s: float = 60.0) -> bytes:
    """All that the gateway answers to these bytes until it closes the connection or stops reading."""
    with socket.create_connection(("127.0.0.1", world.settings.server_port or 0), timeout=wait_s) as connection:
        try:
            connection.sendall(sent)
            for part in more:
                connection.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            connection.settimeout(30)  # it has answered, and hung up
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65536):
                answer += part
        return answer


def head(attempt: Attempt, *headers: str, target: str | None = None) -> bytes:
    path = target or f"/ingest/v1/trials/{attempt.trial}/reports"
    lines = [f"POST {path} HTTP/1.1", "Host: gateway", f"Authorization: Bearer {attempt.token}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def sentence(answer: bytes, status: int) -> str:
    top, _, body = answer.partition(b"\r\n\r\n")
    assert top.startswith(b"HTTP/1.1 %d" % status), answer[:200]
    text = json.loads(body)["error"]
    assert isinstance(text, str)
    assert "\n" not in text
    return text


def test_lies_about_bodies_cost_no_memory_and_others_go_on(world: World, server: ServerProcess) -> None:
    (attempt,) = world.open_attempts(1)
    server.start()
    assert post(world.settings, attempt, {"points": points(5)})[0] == 200
    before = server.rss_mib()

    announced = exchange(world, head(attempt, f"Content-Length: {1 << 30}"), *[b"x" * MIB] * 8)
    assert "at most 1 MiB" in sentence(announced, 413)
    chunk = b"100000\r\n" + b"x" * MIB + b"\r\n"
    assert "at most 1 MiB" in sentence(exchange(world, head(attempt, "Transfer-Encoding: chunked"), *[chunk] * 32), 413)
    bomb = gzip.compress(b"0" * 50 * MIB)
    packed = exchange(world, head(attempt, "Content-Encoding: gzip", f"Content-Length: {len(bomb)}"), bomb)
    assert "plain JSON" in sentence(packed, 415)
    for nonsense in (b"[" * MIB, b'{"a":' * 200_000, json.dumps({"points": [{}] * 300_000}).encode()[:MIB]):
        sent = head(attempt, f"Content-Length: {len(nonsense)}", "Connection: close")
        assert sentence(exchange(world, sent, nonsense), 422)
    assert "malformed" in sentence(exchange(world, head(Attempt(attempt.trial, "x" * 100_000))), 401)
    endless = exchange(world, b"POST /ingest/v1/trials/x/reports HTTP/1.1\r\n", *[b"X-Header: " + b"y" * MIB] * 16)
    assert b"400" in endless.partition(b"\r\n")[0]
    assert b"400" in exchange(world, b"\x16\x03\x01 this is not HTTP\r\n\r\n").partition(b"\r\n")[0]

    assert post(world.settings, attempt, {"points": points(5, first=5)})[1]["accepted"] == 5
    assert server.rss_mib() - before < 24, "MiB; each of these was several times as large"
    status, counted = health(world.settings)
    assert status == 200
    assert counted["refused"]["too large"] == 2
    assert server.stop() == 0


def test_many_thousand_names_are_256_series_for_the_next_gateway_as_well(world: World) -> None:
    (attempt,) = world.open_attempts(1)
    with in_thread(world.settings) as gateway:
        for report in range(8):
            named = [{"metric": f"m{report * 1000 + index}", "value": 1, "seq": index} for index in range(1000)]
            status, answer, _ = post(world.settings, attempt, {"points": named})
            assert (status, answer["accepted"]) == (200, 256 if report == 0 else 0)
        assert gateway.counters.names_dropped == 8000 - 256
    assert len(world.store.series(world.uid, world.number(attempt))) == 256
    with in_thread(world.settings):  # another process of the gateway knows the names from the database
        assert post(world.settings, attempt, {"points": points(metric="one more")})[1]["accepted"] == 0
        assert post(world.settings, attempt, {"points": points(metric="m0", first=9)})[1]["accepted"] == 1


def test_tokens_that_are_not_for_this_attempt_store_nothing_and_are_counted_by_kind(world: World) -> None:
    first, second = world.open_attempts(2)
    strangers = TokenKeys({next(iter(world.keys._keys)): b"guess" * 8})
    claims = world.keys.verify(first.token)
    assert isinstance(claims, Claims)
    retired = TokenKeys({"old": b"o" * 32})
    cases: list[tuple[int, str, str]] = [
        (401, "", "no token"),
        (401, first.token[:-5], "forged token"),
        (401, strangers.mint(claims), "forged token"),
        (401, retired.mint(claims), "retired key"),
        (401, "et0.k.e30.AAAA", "malformed token"),
        (403, second.token, "wrong trial"),
        (404, world.keys.mint(Claims(claims.experiment_uid, claims.number, 9, first.trial)), "unknown attempt"),
        (404, world.keys.mint(Claims("0" * 32, claims.number, 0, first.trial)), "unknown attempt"),
    ]
    with in_thread(world.settings):
        for status, token, _ in cases:
            found, answered, headers = post(world.settings, Attempt(first.trial, token), {"points": points()})
            assert (found, headers.get("www-authenticate")) == (status, "Bearer" if status == 401 else None)
            assert answered["error"]
        refused = health(world.settings)[1]["refused"]
    assert refused == dict(Counter(reason for _, _, reason in cases))
    assert world.store.points(world.uid, 0) == []


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/ingest/v1/trials/t/reports", 405),
        ("POST", "/ingest/v1/trials/a/b/reports", 404),
        ("POST", "/ingest/v1/trials//reports", 404),
        ("POST", "/ingest/v1/trials/reports", 404),
        ("POST", "/nowhere", 404),
        ("GET", "/", 404),
    ],
)
def test_other_addresses_and_methods_are_answered_alike(world: World, method: str, target: str, status: int) -> None:
    with in_thread(world.settings):
        request = f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        assert sentence(exchange(world, request.encode()), status)


def test_a_sender_that_stops_in_the_middle_is_hung_up_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "REQUEST_S", 0.3)
    (attempt,) = world.open_attempts(1)
    with in_thread(world.settings):
        for begun in (b"", b"POST /ingest", head(attempt, "Content-Length: 100") + b'{"points"'):
            assert exchange(world, begun, wait_s=15) == b""
        # But one that is only silent between its reports is not, once its first has come in time.
        monkeypatch.setattr(protocol, "REQUEST_S", 60.0)
        with socket.create_connection(("127.0.0.1", world.settings.server_port or 0), timeout=60) as connection:
            for seq, silent_s in enumerate((0.0, 0.1, 0.5, 0.0)):
                body = json.dumps({"points": points(first=seq)}).encode()
                connection.sendall(head(attempt, f"Content-Length: {len(body)}") + body)
                assert connection.recv(65536).startswith(b"HTTP/1.1 200")
                monkeypatch.setattr(protocol, "REQUEST_S", 0.3)
                time.sleep(silent_s)


def test_reports_in_pieces_and_in_one_breath_are_all_answered(world: World) -> None:
    (attempt,) = world.open_attempts(1)
    bodies = [json.dumps({"points": points(first=seq)}).encode() for seq in range(3)]
    requests = [head(attempt, f"Content-Length: {len(body)}") + body for body in bodies]
    address = ("127.0.0.1", world.settings.server_port or 0)
    with in_thread(world.settings), socket.create_connection(address, timeout=60) as connection:
        for start in range(0, len(requests[0]), 7):
            connection.sendall(requests[0][start : start + 7])
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(requests[1] + requests[2])  # pipelined
        answers = b""
        while answers.count(b"HTTP/1.1 200") < 2:
            part = connection.recv(65536)
            assert part
            answers += part
    assert len(world.store.points(world.uid, world.number(attempt))) == 3
