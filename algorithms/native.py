"""What the adapters of numeric libraries share: silence, generators as JSON, values that no library chokes on.

Used by the library algorithms' sessions. Imports no library by itself.
"""

from __future__ import annotations

import base64
import contextlib
import warnings
import zlib
from collections.abc import Iterator
from typing import Any

LARGEST = 1e100  # of values and violations: products and squares of a few of them are still numbers


def bounded(value: float) -> float:
    return min(max(value, -LARGEST), LARGEST)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What a library warns of is about arguments of ours, and never of use to the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def packed(generator: Any) -> list[Any]:
    """A Mersenne Twister's state as JSON: 624 words compressed, position, and the cached normal draw."""
    _, keys, position, has_gauss, gauss = generator.get_state()
    words = base64.b64encode(zlib.compress(keys.astype("<u4").tobytes())).decode("ascii")
    return [words, int(position), int(has_gauss), float(gauss)]


def unpack(generator: Any, state: list[Any]) -> None:
    import numpy as np

    words, position, has_gauss, gauss = state
    keys = np.frombuffer(zlib.decompress(base64.b64decode(words)), "<u4")
    generator.set_state(("MT19937", keys, position, has_gauss, gauss))
