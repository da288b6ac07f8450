"""Reading YAML and JSON: positions, kubectl's values, limits, and a verdict for every kind of junk."""

from __future__ import annotations

import time

import pytest

from evertune.spec import Position, parse_documents


def _data(text: str) -> object:
    (document,) = parse_documents(text, "x")
    assert document.problems == []
    return document.data


def test_positions_count_from_one_and_cover_the_value() -> None:
    (document,) = parse_documents('spec:\n  parameters:\n    - name: "lr"\n', "x")
    assert document.locate("spec.parameters[0].name") == Position(3, 13, 4)
    assert document.locate("spec.parameters") == Position(2, 3, 10)
    assert document.locate("spec.parameters[0].feasibleSpace.min") == document.locate("spec.parameters[0]")


def test_a_key_with_dots_has_a_place_of_its_own() -> None:
    (document,) = parse_documents("metadata:\n  annotations:\n    evertune.io/backend: local\n", "x")
    assert document.locate("metadata.annotations[evertune.io/backend]") == Position(3, 26, 5)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-1.5e+3", -1500.0),
        ("12", 12),
        ("0644", 0o644),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", 1000),
        ("yes", True),
        ("Off", False),
        ("~", None),
        ("null", None),
        ("1.2.3", "1.2.3"),
        ("2024-01-01", "2024-01-01"),
        ("1:30", "1:30"),
        ("+", "+"),
        ("0x", "0x"),
        ("089", 89.0),
        ("!!str 12", "12"),
        ("!!float 12", 12),
        ("'12'", "12"),
        ("12345678901234567890123", 12345678901234567890123.0),
    ],
)
def test_an_unquoted_value_is_what_kubectl_makes_of_it(text: str, value: object) -> None:
    assert _data(f"goal: {text}") == {"goal": value}


def test_keys_are_text_whatever_they_look_like() -> None:
    assert _data("1: a\ntrue: b\n") == {"1": "a", "true": "b"}


def test_several_documents_are_several_verdicts() -> None:
    documents = parse_documents("a: 1\n---\n---\nb: 2\n", "x")
    assert [(document.index, document.data) for document in documents] == [(0, {"a": 1}), (1, {"b": 2})]


def test_documents_before_a_broken_one_are_kept() -> None:
    first, second = parse_documents("a: 1\n---\nb: [\n", "x")
    assert first.data == {"a": 1}
    assert second.index == 1
    assert second.problems[0].type == "Parse"


def test_merge_keys_and_aliases_work() -> None:
    text = "base: &b {x: 1, y: 2}\none:\n  <<: *b\n  y: 3\nmany:\n  <<: [*b, {z: 4}]\n"
    assert _data(text) == {"base": {"x": 1, "y": 2}, "one": {"y": 3, "x": 1}, "many": {"x": 1, "y": 2, "z": 4}}


def test_json_that_yaml_cannot_read_is_read_as_json() -> None:
    assert _data('{"a":\t1,\n\t"b": "\\ud83d\\ude00"}') == {"a": 1, "b": "😀"}


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        (b"", "the file is empty", None),
        (b"# only a comment\n", "the file is empty", None),
        (b"a: 1\n\xff\xfe", "not UTF-8 text: byte 0xff", 2),
        (b"a: \x00", "not YAML: control characters are not allowed", 1),
        (b"a: 1\nb: 2\na: 3\n", 'duplicate key "a", first on line 1', 3),
        (b'{"a": 1,\t"a": "\\ud83d\\ude00"}', 'duplicate key "a"', None),
        (b'{"b": 1,\n "b": 2}', 'duplicate key "b", first on line 1', 2),
        (b"a: !!python/object/apply:os.system [x]", "the tag !!python/object/apply:os.system is not accepted here", 1),
        (b"a: !secret x", "the tag !secret is not accepted here", 1),
        (b"a: !!int x", '"x" does not fit the tag !!int', 1),
        (b"a: .nan", ".nan is not a finite number", 1),
        (b"a: 1e999", "1e999 is too large for a number", 1),
        (b"? [a]\n: b\n", "a key must be plain text", 1),
        (b"a: *b\n", "alias *b has no anchor before it", 1),
        (b"a: &a [*a]\n", "alias *a has no anchor before it", 1),
        (b"<<: 3\n", "<< must merge a mapping or a list of mappings", 1),
        (b"a: [1\nb: 2\n", "not YAML: while parsing a flow sequence did not find expected ',' or ']'", 2),
        (b"x" * 1_000_001, "the file is larger than 1 MB", None),
        ("- " * 100 + "a", "nested deeper than 64 levels", 1),
        ("\ud800", "not text: lone surrogate at character 1", None),
    ],
)
def test_what_cannot_be_read_gets_one_sentence_and_a_place(text: str | bytes, message: str, line: int | None) -> None:
    document = parse_documents(text, "x")[-1]
    (problem,) = document.problems
    assert (problem.type, problem.message, problem.line) == ("Parse", message, line)


@pytest.mark.parametrize("text", ["[" * 500_000, "{" * 500_000, "- " * 400_000, '{"a":' * 150_000, "[{" * 300_000])
def test_deep_nesting_is_refused_at_once(text: str) -> None:
    started = time.process_time()
    (problem,) = parse_documents(text, "x")[-1].problems
    assert "nest" in problem.message or "not YAML" in problem.message
    assert time.process_time() - started < 5


def test_a_billion_laughs_are_refused_with_one_sentence() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    (problem,) = parse_documents("\n".join(lines), "x")[0].problems
    assert problem.message == "the document (aliases expanded) holds more than 50,000 values"
    assert problem.line == 5


def test_a_long_text_repeated_by_aliases_is_refused_too() -> None:
    text = f"a: &a {'x' * 500_000}\nb: [{', '.join(['*a'] * 50)}]\n"
    (problem,) = parse_documents(text, "x")[0].problems
    assert "aliases expanded" in problem.message
