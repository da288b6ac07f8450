"""Points of a space by chance: where an algorithm has none to give that may be run, and for what others left open.

Called by `algorithms.steering`. Every draw comes from a generator that is given, so that nothing depends on the order
of calls. Uniform in the encoding of `algorithms.space`, which is each parameter's declared distribution.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence

from algorithms.space import Codec, Dimension, Kind, Raw, from_quantile
from evertune.domain.space import SearchSpace, Value


def chance(*parts: object) -> random.Random:
    """A generator that depends on these parts alone, in every process and version."""
    return random.Random("/".join(map(str, parts)))  # noqa: S311 - which point is tried is no secret


def drawn(codec: Codec, luck: random.Random) -> dict[str, Value]:
    return codec.decode({dimension.name: _raw(dimension, luck) for dimension in codec.free})


def _raw(dimension: Dimension, luck: random.Random) -> Raw:
    if dimension.kind in (Kind.INDEX, Kind.CHOICE):
        return luck.randrange(dimension.count)  # not a quantile: experiments that run have drawn in this way
    return from_quantile(dimension, luck.random())


def count(space: SearchSpace) -> int | None:
    """How many points the space has, conditions aside; None with a continuous parameter."""
    counts = [dimension.points for dimension in Codec.of(space).dimensions]
    return None if None in counts else math.prod(each for each in counts if each is not None)


def points(codec: Codec) -> Iterator[dict[str, Value]]:
    """All points of a finite space, the last parameter fastest."""
    counts = [dimension.points or 0 for dimension in codec.dimensions]
    for index in range(math.prod(counts)):
        yield point(codec, counts, index)


def point(codec: Codec, counts: Sequence[int], index: int) -> dict[str, Value]:
    """The point at `index`, from 0, of a finite space whose parameters have so many values."""
    places = []
    for values in reversed(counts):
        index, place = divmod(index, values)
        places.append(place)
    pairs = zip(codec.dimensions, reversed(places), strict=True)
    return {dimension.name: dimension.point(place) for dimension, place in pairs}
