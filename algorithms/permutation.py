"""A seeded permutation of 0…n-1 that is computed, not stored: the i-th element costs the same for any n.

A Feistel network over the next even number of bits, walked until the result falls below n (four steps at most on
average). Used by `grid`; the numbers are the same on every machine and in every version of Python.
"""

from __future__ import annotations

import hashlib

_ROUNDS = 8


class Permutation:
    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._half = max(1, ((size - 1).bit_length() + 1) // 2)  # bits
        self._mask = (1 << self._half) - 1
        self._bytes = (self._half + 7) // 8
        self._key = f"{seed}/{size}".encode()

    def __getitem__(self, index: int) -> int:
        if not 0 <= index < self._size:
            raise IndexError(index)
        while True:
            index = self._mix(index)
            if index < self._size:
                return index

    def _mix(self, index: int) -> int:
        left, right = index >> self._half, index & self._mask
        for turn in range(_ROUNDS):
            text = b"%b/%d/%d" % (self._key, turn, right)
            digest = hashlib.shake_128(text).digest(self._bytes)
            left, right = right, left ^ (int.from_bytes(digest, "big") & self._mask)
        return left << self._half | right
