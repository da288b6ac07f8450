"""The value of a summary as text: TensorFlow 1's `simple_value` and TensorFlow 2's tensors. Called by `tfevents`.

Numbers are written as numpy writes a scalar of their type, which is what Katib stores: the shortest text that gives the
same number in that type. Tensors of a few numbers are written as a list; images, audio and large tensors have no text.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

SHOWN = 64  # numbers of a tensor that are text; more is not a metric
_TEXT = 7  # DT_STRING
_BFLOAT16, _HALF, _BOOL = 14, 19, 10
_FORMATS = {1: "f", 2: "d", 3: "i", 4: "B", 5: "h", 6: "b", 9: "q", 10: "?", 17: "H", 19: "e", 22: "I", 23: "Q"}
_FIELDS = {
    1: "float_val", 2: "double_val", 3: "int_val", 4: "int_val", 5: "int_val", 6: "int_val", 9: "int64_val",
    10: "bool_val", 14: "half_val", 17: "int_val", 19: "half_val", 22: "uint32_val", 23: "uint64_val",
}  # fmt: skip


def text_of(value: Any) -> str | None:
    """The text of a `Summary.Value`; None when it has none (images, histograms, damaged tensors)."""
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return shortest(value.simple_value, "f")
    if kind != "tensor":
        return None
    try:
        return _tensor(value.tensor)
    except (struct.error, ValueError, AttributeError):
        return None


def shortest(number: float, form: str) -> str:
    """The shortest decimal that is this number in the type of `form` (of `struct`): `e`, `f` or `d`."""
    if form == "d" or number != number or number in (float("inf"), float("-inf")):
        return repr(float(number))
    exact = struct.pack(form, number)
    for digits in range(1, 10):
        if _same(text := f"{number:.{digits}g}", form, exact):
            return repr(float(text))
    return repr(float(number))


def _same(text: str, form: str, exact: bytes) -> bool:
    try:
        return struct.pack(form, float(text)) == exact
    except OverflowError:  # rounded up beyond the largest number of the type
        return False


def _tensor(tensor: Any) -> str | None:
    count = 1
    for dimension in tensor.tensor_shape.dim:
        count *= dimension.size
    if not 0 < count <= SHOWN:
        return None
    texts = _texts(tensor) if tensor.dtype == _TEXT else _numbers(tensor, count)
    if texts is None or not 0 < len(texts) <= count:
        return None
    texts += texts[-1:] * (count - len(texts))  # TensorFlow leaves equal numbers at the end out
    return texts[0] if count == 1 else f"[{', '.join(texts)}]"


def _texts(tensor: Any) -> list[str] | None:
    if any(len(value) > 1 << 20 for value in tensor.string_val):
        return None  # an image
    try:
        return [value.decode() for value in tensor.string_val]
    except UnicodeDecodeError:
        return None


def _numbers(tensor: Any, count: int) -> list[str] | None:
    said = _writer(tensor.dtype)
    if said is None:
        return None
    if tensor.tensor_content:
        if tensor.dtype == _BFLOAT16:
            bits = struct.unpack(f"<{count}H", tensor.tensor_content)
            return [said(_from_bits(value)) for value in bits]
        return [said(value) for value in struct.unpack(f"<{count}{_FORMATS[tensor.dtype]}", tensor.tensor_content)]
    values = list(getattr(tensor, _FIELDS[tensor.dtype]))
    if tensor.dtype == _HALF:
        values = [struct.unpack("<e", struct.pack("<H", value))[0] for value in values]
    elif tensor.dtype == _BFLOAT16:
        values = [_from_bits(value) for value in values]
    return [said(value) for value in values]


def _writer(dtype: int) -> Callable[[Any], str] | None:
    if dtype == _BFLOAT16:
        return lambda number: shortest(number, "f")
    form = _FORMATS.get(dtype)
    if form in ("e", "f", "d"):
        return lambda number: shortest(number, form)
    return str if form else None


def _from_bits(bits: int) -> float:
    """A bfloat16: the upper half of a float32."""
    number: float = struct.unpack("<f", struct.pack("<I", bits << 16))[0]
    return number
