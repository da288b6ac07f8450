"""Success and failure conditions: Katib's expressions on objects of every kind, and what else the subset has."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from evertune.spec.conditions import LONGEST, SUPPORTED, Condition, ConditionError, Found
from evertune.spec.kinds import KINDS, condition
from tests.unit.spec.samples import EXAMPLES

COMPLETE = condition("Complete")
FAILED = condition("Failed")


def _job(*conditions: tuple[str, str], **status: Any) -> dict[str, Any]:
    listed = [
        {"type": kind, "status": value, "reason": f"{kind}Reason", "message": f"{kind} it is"}
        for kind, value in conditions
    ]
    return {"kind": "Job", "status": {"conditions": listed, **status}}


RUNNING = {"kind": "Job", "status": {"active": 1}}
DONE = _job(("SuccessCriteriaMet", "True"), ("Complete", "True"), succeeded=1)
BROKEN = _job(("FailureTarget", "True"), ("Failed", "True"), failed=7)
TRAINED = _job(("Created", "True"), ("Running", "False"), ("Succeeded", "True"))
AGAIN = _job(("Created", "True"), ("Running", "True"), ("Failed", "False"))
ARGO = {"kind": "Workflow", "status": {"phase": "Succeeded", "message": "all done", "reason": "Fine"}}
ARGO_BAD = {"kind": "Workflow", "status": {"phase": "Error", "message": "no such template"}}
TEKTON_BAD = _job(("Succeeded", "False"))
PEOPLE = {
    "name": {"first": "Tom", "last.one": "Anderson"},
    "children": ["Sara", "Alex", "Jack"],
    "0": "zero",
    "empty": [],
    "nothing": None,
    "friends": [
        {"first": "Dale", "age": 44, "nets": ["ig", "fb"], "on": True},
        {"first": "Roger", "age": 68, "nets": ["fb"], "on": False},
        {"first": "Jane", "age": 47, "nets": ["ig"], "pets": [{"n": 1}, {"n": 2}]},
    ],
}


@pytest.mark.parametrize(
    ("text", "obj", "found"),
    [
        (COMPLETE, {}, None),
        (COMPLETE, RUNNING, None),
        (COMPLETE, DONE, Found("CompleteReason", "Complete it is")),
        (COMPLETE, BROKEN, None),
        (FAILED, BROKEN, Found("FailedReason", "Failed it is")),
        (FAILED, DONE, None),
        (FAILED, AGAIN, None),
        (condition("Succeeded"), TRAINED, Found("SucceededReason", "Succeeded it is")),
        (condition("Succeeded"), TEKTON_BAD, None),
        (condition("Succeeded", "False"), TEKTON_BAD, Found("SucceededReason", "Succeeded it is")),
        ('status.[@this].#(phase=="Succeeded")#', ARGO, Found("Fine", "all done")),
        ('status.[@this].#(phase=="Failed")#', ARGO_BAD, None),
        (KINDS["Workflow"].failure_condition, ARGO_BAD, Found("", "no such template")),
        (KINDS["Workflow"].failure_condition, ARGO, None),
        (KINDS["Workflow"].failure_condition, {"kind": "Workflow"}, None),
        ("status.[@this].#(succeeded==1)", DONE, Found()),  # of Katib's own tests
        ("status.[@this].#(succeeded==1)", BROKEN, None),
        ("status.succeeded", DONE, None),  # a number never counts
        ('status.conditions.#(type=="Complete").status', DONE, None),  # nor does a text
        ("status.conditions.#", DONE, None),
        ("status.conditions", DONE, Found("SuccessCriteriaMetReason", "SuccessCriteriaMet it is")),
        ("status.conditions.1", DONE, Found("CompleteReason", "Complete it is")),
        ("status.conditions.#.type", DONE, Found()),  # a list of texts is a list that is not empty
        ("status", {"status": {}}, Found()),  # an object counts, empty or not; a list only if it is not
        ("status.conditions", {"status": {"conditions": []}}, None),
    ],
)
def test_a_condition_holds_when_it_gives_an_object_or_a_filled_list(
    text: str, obj: dict[str, Any], found: Found | None
) -> None:
    assert Condition.parse(text).holds(obj) == found


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("name.first", "Tom"),
        ("name.last", None),
        ("name.last\\.one", "Anderson"),
        ("children.1", "Alex"),
        ("children.3", None),
        ("children.first", None),
        ("children.#", 3),
        ("children|#", 3),
        ("name.#", None),
        ("0", "zero"),
        ("@this.name.first", "Tom"),
        ("name|@this|first", "Tom"),
        ("name.[@this].#.first", ["Tom"]),
        ("friends.#.first", ["Dale", "Roger", "Jane"]),
        ("friends.#.first.#", []),  # asked of each text, and texts have no length
        ("friends.#.first|#", 3),
        ("friends.#.pets.#.n", [[1, 2]]),
        ("friends.#|first", None),  # the pipe asks the count
        ('friends.#(first=="Roger").age', 68),
        ('friends.#(first="Roger").age', 68),
        ("friends.#(first==Roger).age", 68),
        ('friends.#( first == "Roger" ).age', 68),
        ('friends.#(first!="Roger")#.age', [44, 47]),
        ("friends.#(age>45)#.first", ["Roger", "Jane"]),
        ("friends.#(age>=47)#|#", 2),
        ("friends.#(age<47)#.first", ["Dale"]),
        ("friends.#(age<=47)#|1.first", "Jane"),
        ('friends.#(age=="44").first', "Dale"),  # the text of a value counts, not its type
        ("friends.#(age>45)#|#(first%J*)#.first", ["Jane"]),
        ('friends.#(first%"?o*").first', "Roger"),
        ('friends.#(first!%"*a*").first', "Roger"),
        ('friends.#(first%"D\\*").first', None),
        ("friends.#(on==true).first", "Dale"),
        ("friends.#(on==false).first", "Roger"),
        ("friends.#(on!=true)#.first", ["Roger"]),  # what is not there does not differ either
        ("friends.#(on>false).first", "Dale"),
        ("friends.#(on<=true).first", "Roger"),
        ("friends.#(pets).first", "Jane"),  # is there at all
        ("friends.#(nets.#>1).first", "Dale"),
        ('friends.#(nets.#(=="ig"))#.first', ["Dale", "Jane"]),
        ("children.#(%*a*)#", ["Sara", "Jack"]),
        ('children.#(!="Sara")#', ["Alex", "Jack"]),
        ("friends.#(pets==1).first", None),  # neither an object nor a list equals anything
        ("@this|[@this].#(nothing==null)", None),  # nor does null, in the GJSON that Katib uses
        ("empty.#(a==1)#", []),
        ("missing.#(a==1)#", None),
        ('friends.#(first=="R\\u006fger").age', 68),
        (" name.first\n", "Tom"),  # as a YAML block leaves it
    ],
)
def test_the_supported_part_of_gjson_gives_what_gjson_gives(text: str, value: Any) -> None:
    assert Condition.parse(text).value(PEOPLE) == value


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("", 1, "empty"),
        ("  ", 1, "empty"),
        ("status.", 8, "a key is missing"),
        ("status..a", 8, "a key is missing"),
        ("a||b", 3, "a key is missing"),
        ('status.conditions.#(type=="Complete"', 20, "not closed"),
        ('status.conditions.#(type=="Complete)#', 27, "quote is not closed"),
        ('status.conditions.#(type=="Complete")|', 39, "a key is missing"),
        ('status.conditions.#(type=="Complete"))', 38, '")" closes nothing'),
        ('status.conditions.#(type=="Complete")#x', 39, "only . or |"),
        ('status.conditions.(type=="Complete")', 19, '"(" in a key is not supported'),
        ("a.#(b=='c')", 8, "double quotes"),
        ("a.#(b==)", 8, "a value is missing"),
        ("a.#(b==c", 4, "not closed"),
        ("a.#(b c)", 7, "an operator or ) is wanted"),
        ("a.#(b=~c)", 7, "double quotes"),
        ("a.#()", 5, "a key is missing"),
        ("a.*.b", 3, "* or ?"),
        ("a.@reverse", 3, "@this"),
        ("a.[b,c]", 3, "[@this]"),
        ("{a,b}", 1, '"{" in a key'),
        ("a b", 2, "a space"),
        ("a\\", 2, "backslash"),
        ("a.#[b==1]", 4, "only . or |"),
        ("a.#(" * 11 + "b", 44, "nested"),
        ("a" * 1001, 1001, "longer than"),
        (".".join("a" * 60), 101, "steps"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_position(text: str, position: int, words: str) -> None:
    with pytest.raises(ConditionError) as caught:
        Condition.parse(text)
    assert words in str(caught.value)
    assert str(caught.value).endswith(f"at character {position}")
    assert caught.value.position == position


def test_the_supported_part_is_described_by_examples_that_parse() -> None:
    listed = SUPPORTED.removeprefix("supported: ").partition("; operators ")
    for part in listed[0].split(","):
        example = part.strip().split(" ")[0]
        Condition.parse(f"a{example}[@this]" if example == "|" else example)
    for operator in listed[2].split():
        Condition.parse(f"a.#(b{operator}c)")


def test_a_condition_is_parsed_once() -> None:
    assert Condition.parse(COMPLETE) is Condition.parse(COMPLETE)


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_condition_of_katibs_examples_parses(path: Any) -> None:
    template = yaml.safe_load(path.read_text())["spec"]["trialTemplate"]
    for field in ("successCondition", "failureCondition"):
        if field in template:
            Condition.parse(template[field])


PIECES = [
    "status", "conditions", "a", "0", "1", ".", ".", "|", "#", "#(", ")", ")#", "(", "[@this]", "@this", "@", "==", "=",
    "!=", "<", ">", "<=", ">=", "%", "!%", '"', '"True"', "True", "*", "?", "\\", " ", "[", "]", "{", "~", "null",
    "true", "-1", "1e400", "ä", "\ud800", "\0",
]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["True", "a", "1"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["status", "conditions", "a", "0", "type"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=400, derandomize=True, deadline=None, database=None)
@given(
    text=st.lists(st.sampled_from(PIECES), max_size=14).map("".join) | st.text(max_size=LONGEST + 5),
    obj=st.dictionaries(st.sampled_from(["status", "conditions", "a", "0"]), JSON, max_size=4),
)
def test_any_text_is_a_condition_or_a_syntax_error(text: str, obj: dict[str, Any]) -> None:
    try:
        parsed = Condition.parse(text)
    except ConditionError:
        return
    value = parsed.value(obj)
    assert (parsed.holds(obj) is not None) == (isinstance(value, dict) or bool(isinstance(value, list) and value))


STEPS = st.sampled_from(
    ["a", "0", "status", "#", "@this", "[@this]", "#(a==1)", "#(a!=1)#", '#(%"*")#', '#(type=="True")#', "#(a)"]
)


@settings(max_examples=200, derandomize=True, deadline=None, database=None)
@given(
    steps=st.lists(st.tuples(STEPS, st.sampled_from(".|")), min_size=1, max_size=8),
    obj=st.dictionaries(st.sampled_from(["status", "a", "0"]), JSON, max_size=4),
)
def test_a_well_formed_expression_has_a_value_for_any_object(steps: list[tuple[str, str]], obj: dict[str, Any]) -> None:
    text = "".join(step + separator for step, separator in steps)[:-1]
    Condition.parse(text).value(obj)


def test_a_pattern_of_many_stars_is_matched_in_time() -> None:
    pattern = "*a" * 400 + "b"
    assert Condition.parse(f'm.#(%"{pattern}")#').value({"m": ["a" * 5000]}) == []
