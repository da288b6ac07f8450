"""Tokens of the ingest gateway: each names one attempt of one trial, and only a holder of our keys can make one.

Whoever starts an attempt mints (runners), the gateway verifies. A token has no time limit: the gateway asks the
database whether its attempt still goes on. Standard library only. It refuses to say more of a bad token than its kind.

    et1.<key id>.<claims as base64url JSON>.<HMAC-SHA256 of all before the last dot, base64url>
"""

from __future__ import annotations

import base64
import fcntl
import hmac
import json
import os
import re
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from evertune.errors import EnvironmentProblem, UsageError
from evertune.settings import Settings, home_problem
from evertune.variables import INGEST_KEYS_RULE

VERSION = "et1"
MAX_TOKEN_CHARS = 4096  # a trial's name has at most 300; what is longer was not made here
KEY_BYTES = 32
MAX_REMEMBERED = 5000  # good tokens; a signature costs more than the rest of a report's way to the database
_MAX_NUMBER = 2**31 - 1  # every database's integer


class Refusal(StrEnum):
    """Why a token is not accepted. The first two are told apart for logs; neither says which part was wrong."""

    MALFORMED = "malformed token"
    FORGED = "forged token"
    RETIRED_KEY = "retired key"


@dataclass(frozen=True, slots=True)
class Claims:
    """The attempt that a token is for."""

    experiment_uid: str
    number: int
    attempt: int
    trial: str  # the trial's name, as in the address of its reports


class TokenKeys:
    """The keys of a gateway by id, in order: the first one signs, all of them verify, so that keys can be rotated."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """`keys`: secret bytes by key id; ids match `[A-Za-z0-9_-]{1,32}`. Raises ValueError when there is none."""
        if not keys:
            raise ValueError(INGEST_KEYS_RULE)
        self._keys = dict(keys)
        self._signing = next(iter(self._keys))
        self._verified: OrderedDict[str, Claims] = OrderedDict()

    def __repr__(self) -> str:
        return f"TokenKeys({', '.join(self._keys)})"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Keys written as `id:hex[,id:hex]`. Raises ValueError with the rule; the message never holds a secret."""
        keys: dict[str, bytes] = {}
        for part in text.split(","):
            found = re.fullmatch(r"\s*([A-Za-z0-9_-]{1,32}):((?:[0-9A-Fa-f]{2}){16,64})\s*", part)
            if found is None or found[1] in keys:
                raise ValueError(INGEST_KEYS_RULE)
            keys[found[1]] = bytes.fromhex(found[2])
        return cls(keys)

    @classmethod
    def load(cls, settings: Settings) -> Self:
        """The keys of EVERTUNE_INGEST_KEYS, else the one of the home, which is made at the first call and then kept.

        Raises UsageError or EnvironmentProblem in one sentence.
        """
        if settings.ingest_keys is not None:
            try:
                return cls.parse(settings.ingest_keys)
            except ValueError as error:
                raise UsageError(f"EVERTUNE_INGEST_KEYS cannot be used: {error}") from None
        settings.prepare_home()
        try:
            text = _made_once(settings.ingest_key_file)
        except OSError as error:
            raise home_problem(settings.home, error) from error
        try:
            return cls.parse(text)
        except ValueError:
            raise EnvironmentProblem(
                f"{settings.ingest_key_file} is damaged: {INGEST_KEYS_RULE}",
                hint="restore it from a backup, or delete it: running trials then cannot report over the network",
            ) from None

    def mint(self, claims: Claims) -> str:
        """A token for this attempt, signed with the first key."""
        payload = {"u": claims.experiment_uid, "n": claims.number, "a": claims.attempt, "t": claims.trial}
        text = json.dumps(payload, separators=(",", ":")).encode()
        signed = f"{VERSION}.{self._signing}.{_encoded(text)}"
        return f"{signed}.{_encoded(self._mac(self._signing, signed))}"

    def verify(self, token: str) -> Claims | Refusal:
        """The attempt that `token` was made for, or why it is refused: in the same time for every wrong signature.

        A token that was good is remembered. For one event loop or thread.
        """
        claims = self._verified.get(token)
        if claims is None:
            found = self._checked(token)
            if isinstance(found, Refusal):
                return found
            claims = self._verified[token] = found
            if len(self._verified) > MAX_REMEMBERED:
                self._verified.popitem(last=False)
        return claims

    def _checked(self, token: str) -> Claims | Refusal:
        signed, _, mac = token.rpartition(".")
        parts = signed.split(".")
        if len(token) > MAX_TOKEN_CHARS or not token.isascii() or len(parts) != 3 or parts[0] != VERSION:
            return Refusal.MALFORMED
        if parts[1] not in self._keys:
            return Refusal.RETIRED_KEY if re.fullmatch(r"[A-Za-z0-9_-]{1,32}", parts[1]) else Refusal.MALFORMED
        # The text is compared, not the bytes: base64 has more than one spelling for the same bytes.
        if not hmac.compare_digest(_encoded(self._mac(parts[1], signed)), mac):
            return Refusal.FORGED
        return _claims(parts[2])

    def _mac(self, key_id: str, signed: str) -> bytes:
        return hmac.digest(self._keys[key_id], signed.encode(), "sha256")


def _claims(encoded: str) -> Claims | Refusal:
    """The claims of a token whose signature is right; MALFORMED when another version of ours wrote others."""
    try:
        found = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
        uid, number, attempt, trial = found["u"], found["n"], found["a"], found["t"]
    except (ValueError, KeyError, TypeError):
        return Refusal.MALFORMED
    numbers = type(number) is int and type(attempt) is int
    if not isinstance(uid, str) or not isinstance(trial, str) or not numbers:
        return Refusal.MALFORMED
    if not 0 <= number <= _MAX_NUMBER or not 0 <= attempt <= _MAX_NUMBER:
        return Refusal.MALFORMED
    return Claims(uid, number, attempt, trial)


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _made_once(path: Path) -> str:
    """The key file's text. Whoever comes first makes it, readable by its owner only; all others get the same one."""
    if not path.exists():
        with path.with_name(f"{path.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                draft = path.with_name(f"{path.name}.new")
                draft.unlink(missing_ok=True)
                descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "w", encoding="ascii") as file:
                    file.write(f"k{secrets.token_hex(3)}:{secrets.token_hex(KEY_BYTES)}\n")
                    file.flush()
                    os.fsync(file.fileno())
                draft.rename(path)
    return path.read_text(encoding="ascii", errors="replace").strip()
