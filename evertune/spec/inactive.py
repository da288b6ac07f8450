"""What becomes of the placeholders of conditional parameters that a trial does not have: "absent when inactive".

Called by `template.render_trial` on a trial's object in which `MARK` stands for each of their values:

- an item of `command` or `args` that holds one is left out, and with an item that is nothing else the flag before it:
  `[--momentum, ${trialParameters.momentum}]` disappears, as `--momentum=${trialParameters.momentum}` does;
- in an item with blanks, such as a script after `sh -c`, the same is done word by word;
- an entry of `env` whose value holds one is left out;
- everywhere else the value is an empty text.
"""

from __future__ import annotations

import re
from typing import Any

MARK = "evertune-inactive-parameter"  # survives JSON and YAML as it is

_WORDS = re.compile(r"(\s+)")
_FLAG = re.compile(r"--?[A-Za-z][\w.-]*\Z")
_ALONE = re.compile(rf"""(["']?){MARK}\1\Z""")


def without_inactive(value: Any, key: str = "") -> Any:
    """The object without what depends on a parameter that is not there. `key`: where it stands in its mapping."""
    if isinstance(value, str):
        return value.replace(MARK, "")
    if isinstance(value, dict):
        return {name.replace(MARK, ""): without_inactive(item, name) for name, item in value.items()}
    if not isinstance(value, list):
        return value
    if key in ("command", "args") and all(isinstance(item, str) for item in value):
        return _words(value)
    if key == "env":
        value = [item for item in value if not _sets_nothing(item)]
    return [without_inactive(item) for item in value]


def _sets_nothing(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("value"), str) and MARK in entry["value"]


def _words(items: list[str]) -> list[str]:
    kept: list[str] = []
    for item in items:
        if MARK not in item:
            kept.append(item)
        elif _WORDS.search(item.strip()):
            kept.append(_script(item))
        elif _ALONE.match(item) and kept and _FLAG.match(kept[-1]):
            kept.pop()
    return kept


def _script(text: str) -> str:
    """Word by word; a word with a quote that another one closes loses only the value."""
    kept: list[str] = []  # words at even places, the blanks between them at odd ones
    for piece in _WORDS.split(text):
        word = piece.strip()
        if MARK not in word:
            kept.append(piece)
        elif any(word.count(quote) % 2 for quote in "\"'`") or word.count("(") != word.count(")"):
            kept.append(piece.replace(MARK, ""))
        else:
            if _ALONE.match(word) and len(kept) > 1 and _FLAG.match(kept[-2]):
                del kept[-2:]
            if kept:
                kept.pop()  # the blanks before it
            elif not kept:
                kept.append("")
    return "".join(kept).strip()
