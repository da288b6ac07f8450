"""Tokens of the ingest gateway: what is accepted, what is refused and how it is called, and where keys come from."""

from __future__ import annotations

import base64
import json
import string
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evertune.errors import EnvironmentProblem
from evertune.settings import Settings
from evertune.tokens import Claims, Refusal, TokenKeys

OLD, NEW = "old:" + "0a" * 32, "new:" + "0b" * 32
KEYS = TokenKeys.parse(OLD)
CLAIMS = Claims("8f14e45fceea167a5a36dedd4bea2543", 7, 2, "digits-abcdefgh")
TOKEN = KEYS.mint(CLAIMS)


def settings_in(home: Path, **overrides: str) -> Settings:
    return Settings.load({"EVERTUNE_HOME": str(home)}, **overrides)


def encoded(claims: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()


def test_a_token_says_which_attempt_it_is_for() -> None:
    assert KEYS.verify(TOKEN) == CLAIMS


@given(st.text(max_size=60), st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1), st.text(max_size=300))
def test_whatever_the_names_what_was_minted_is_verified(uid: str, number: int, attempt: int, trial: str) -> None:
    claims = Claims(uid, number, attempt, trial)
    token = KEYS.mint(claims)
    assert KEYS.verify(token) == (claims if len(token) <= 4096 else Refusal.MALFORMED)


@given(st.integers(0, len(TOKEN) - 1), st.characters(codec="ascii"))
def test_a_token_with_any_character_changed_is_refused(at: int, character: str) -> None:
    changed = TOKEN[:at] + character + TOKEN[at + 1 :]
    assert changed == TOKEN or isinstance(KEYS.verify(changed), Refusal)


@given(st.integers(0, len(TOKEN) - 1))
def test_a_truncated_token_is_refused(length: int) -> None:
    assert isinstance(KEYS.verify(TOKEN[:length]), Refusal)


@given(st.text(max_size=200))
def test_junk_is_refused(junk: str) -> None:
    assert isinstance(KEYS.verify(junk), Refusal)


def test_a_megabyte_of_junk_is_refused_as_well() -> None:
    assert KEYS.verify("et1.old." + "A" * 2**20 + ".AAAA") is Refusal.MALFORMED


def test_the_claims_of_another_attempt_under_this_ones_signature_are_a_forgery() -> None:
    version, key, _, mac = TOKEN.split(".")
    other = KEYS.mint(Claims(CLAIMS.experiment_uid, 8, 2, "digits-other123")).split(".")[2]
    assert KEYS.verify(f"{version}.{key}.{other}.{mac}") is Refusal.FORGED
    assert TokenKeys.parse("old:" + "0c" * 32).verify(TOKEN) is Refusal.FORGED


def test_the_other_spelling_of_a_signature_is_not_accepted() -> None:
    """The last character of 43 carries two bits that no byte needs; only one of the four spellings is ours."""
    alphabet = string.ascii_letters + string.digits + "-_"
    spellings = [TOKEN[:-1] + character for character in alphabet]
    assert [KEYS.verify(spelling) for spelling in spellings].count(Refusal.FORGED) == len(spellings) - 1


def test_keys_rotate_the_first_one_signs_and_a_dropped_one_is_called_retired() -> None:
    both = TokenKeys.parse(f"{NEW},{OLD}")
    assert both.verify(TOKEN) == CLAIMS
    fresh = both.mint(CLAIMS)
    assert fresh.startswith("et1.new.")
    only_new = TokenKeys.parse(NEW)
    assert only_new.verify(fresh) == CLAIMS
    assert only_new.verify(TOKEN) is Refusal.RETIRED_KEY


@pytest.mark.parametrize(
    "claims",
    [
        *([], {}, 7, None),
        {"u": "x", "n": "1", "a": 0, "t": "t"},
        {"u": "x", "n": True, "a": 0, "t": "t"},
        {"u": "x", "n": -1, "a": 0, "t": "t"},
        {"u": "x", "n": 2**70, "a": 0, "t": "t"},
        {"u": 3, "n": 1, "a": 0, "t": "t"},
    ],
)
def test_claims_that_another_version_may_have_signed_never_pass_as_an_attempt(claims: object) -> None:
    signed = f"et1.old.{encoded(claims)}"
    mac = base64.urlsafe_b64encode(KEYS._mac("old", signed)).rstrip(b"=").decode()
    assert KEYS.verify(f"{signed}.{mac}") is Refusal.MALFORMED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "k",
        "k:",
        "k:xyz",
        "k:0a0a",
        ":" + "0a" * 32,
        "k:" + "0a" * 65,
        f"{OLD},{OLD}",
        f"{OLD},",
        "a b:" + "0a" * 32,
    ],
)
def test_keys_that_cannot_be_used_are_refused_without_repeating_the_secret(text: str) -> None:
    with pytest.raises(ValueError, match="keys are id:hex") as caught:
        TokenKeys.parse(text)
    assert "0a0a" not in str(caught.value)


def test_keys_are_not_shown() -> None:
    assert repr(TokenKeys.parse(f"{NEW},{OLD}")) == "TokenKeys(new, old)"


def test_the_key_of_a_home_is_made_once_and_is_for_its_owner_only(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "home")
    token = TokenKeys.load(settings).mint(CLAIMS)
    assert TokenKeys.load(settings).verify(token) == CLAIMS
    assert settings.ingest_key_file.stat().st_mode & 0o777 == 0o600
    assert TokenKeys.load(settings_in(tmp_path / "other")).verify(token) is Refusal.RETIRED_KEY


def test_the_environments_keys_win_over_the_homes_and_make_no_file(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, ingest_keys=NEW)
    assert TokenKeys.load(settings).mint(CLAIMS).startswith("et1.new.")
    assert not settings.ingest_key_file.exists()


def test_processes_that_ask_for_the_key_at_once_agree(tmp_path: Path) -> None:
    code = (
        "from evertune.settings import Settings; from evertune.tokens import TokenKeys, Claims;"
        "print(TokenKeys.load(Settings.load()).mint(Claims('u', 1, 0, 't')))"
    )
    environ = {"EVERTUNE_HOME": str(tmp_path / "home"), "PYTHONPATH": str(Path(__file__).parents[2])}
    askers = [subprocess.Popen([sys.executable, "-c", code], env=environ, stdout=subprocess.PIPE) for _ in range(6)]
    assert len({asker.communicate()[0] for asker in askers}) == 1
    assert [asker.returncode for asker in askers] == [0] * 6


@pytest.mark.parametrize("text", ["", "nonsense", "k:00", "\0"])
def test_a_damaged_key_file_is_named_and_never_replaced_in_silence(tmp_path: Path, text: str) -> None:
    settings = settings_in(tmp_path)
    settings.ingest_key_file.write_text(text)
    with pytest.raises(EnvironmentProblem, match=r"ingest\.key is damaged"):
        TokenKeys.load(settings)
    assert settings.ingest_key_file.read_text() == text
