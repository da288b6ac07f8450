"""Shared absolute paths become private by whole-path prefixes only, and the manifest given is not changed."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest

from activities.runners.local.paths import is_named_alone, rewrite, rewrite_text
from tests.unit.runners.world import launch

PRIVATE = Path("/home/trials/0/files")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/katib/mnist.log", "{}/katib/mnist.log"),
        ("--log-path=/katib/mnist.log", "--log-path={}/katib/mnist.log"),
        ("/katib", "{}/katib"),
        ("/katib/", "{}/katib/"),
        ("cat /katib/a /katib/b", "cat {}/katib/a {}/katib/b"),
        ("/katib:/katib", "{}/katib:{}/katib"),
        ('{{"dir": "/katib"}}', '{{"dir": "{}/katib"}}'),
        (">/katib/x;", ">{}/katib/x;"),
        ("see /katib.", "see {}/katib."),
        ("/katib2/x", "/katib2/x"),
        ("/katib-old/x", "/katib-old/x"),
        ("/katib.d/x", "/katib.d/x"),
        ("/data/katib/x", "/data/katib/x"),
        ("./katib/x", "./katib/x"),
        ("~/katib", "~/katib"),
        ("s3://katib/x", "s3://katib/x"),
        ("/var/log/katib/x", "{}/var/log/katib/x"),
    ],
)
def test_whole_path_prefixes_are_rewritten(text: str, expected: str) -> None:
    assert rewrite_text(text.format(), ("/katib", "/var/log/katib/"), PRIVATE) == expected.format(PRIVATE, PRIVATE)


def test_a_path_inside_another_shared_one_is_rewritten_once() -> None:
    assert rewrite_text("/a/b/c /a/x", ("/a", "/a/b"), Path("/a/private")) == "/a/private/a/b/c /a/private/a/x"


def test_command_args_variables_and_working_directory_are_rewritten_in_a_copy() -> None:
    of = launch("train", args=["/katib/a"], env=[{"name": "LOG", "value": "/katib/b"}], workingDir="/katib")
    before = deepcopy(of.manifest)
    container = rewrite(of.manifest, ("/katib",), PRIVATE)["spec"]["template"]["spec"]["containers"][0]
    assert container["args"] == [f"{PRIVATE}/katib/a"]
    assert container["env"] == [{"name": "LOG", "value": f"{PRIVATE}/katib/b"}]
    assert container["workingDir"] == f"{PRIVATE}/katib"
    assert of.manifest == before


def test_without_shared_paths_nothing_changes() -> None:
    of = launch("cat", "/katib/x")
    assert rewrite(of.manifest, (), PRIVATE) == of.manifest


@pytest.mark.parametrize(
    ("texts", "alone"),
    [
        (["--log-path=/logs"], True),
        (["--log-path=/logs/"], True),
        (["--log-path=/logs", "/logs/test/x"], True),
        (["--log-path=/logs", "/logs/train.py"], False),
        (["--log-path=/logs", "/logs/test2"], False),
        (["/logs/train.py"], False),
        (["/logs2"], False),
        ([], False),
    ],
)
def test_a_directory_above_a_shared_path_is_private_when_nothing_else_in_it_is_named(
    texts: list[str], alone: bool
) -> None:
    assert is_named_alone("/logs", "/logs/test", texts) is alone
