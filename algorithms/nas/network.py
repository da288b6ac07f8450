"""A network as rows of choices, and as the two texts that Katib's trial images read.

Row i (from 0) of an architecture has i + 1 numbers: the operation of layer i + 1, then i skip bits. Layer i + 1 is
always fed by layer i (layer 0 is the network's input); its skip bit k adds an edge from layer k. `architecture` is
these rows as JSON, `nn_config` describes the operations that they use; both go through a shell, hence Katib's quotes.

Refuses nothing: `checks` has said what is wrong with a nasConfig before.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from evertune.domain.space import Value

ARCHITECTURE, NN_CONFIG = "architecture", "nn_config"
Rows = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One way to fill a layer: a type, and one value for each of its parameters."""

    id: int
    type: str
    parameters: Mapping[str, Value]

    def described(self) -> dict[str, Any]:
        return {"opt_id": self.id, "opt_type": self.type, "opt_params": dict(self.parameters)}


@dataclass(frozen=True, slots=True)
class Network:
    """What there is to choose from: so many layers, each of them one of the operations."""

    layers: int
    operations: tuple[Operation, ...]
    input_sizes: tuple[int, ...] = ()
    output_sizes: tuple[int, ...] = ()

    @classmethod
    def of(cls, nas: Mapping[str, Any]) -> Network:
        """From a checked nasConfig: operations are numbered through the products of their parameters' values."""
        graph = nas.get("graphConfig") or {}
        numbered: list[Operation] = []
        for operation in nas.get("operations") or ():
            parameters: Sequence[Mapping[str, Any]] = operation.get("parameters") or ()
            names = [parameter["name"] for parameter in parameters]
            for values in itertools.product(*map(_values, parameters)):
                given = dict(zip(names, values, strict=True))
                numbered.append(Operation(len(numbered), operation["operationType"], given))
        return cls(
            layers=int(graph.get("numLayers") or 1),
            operations=tuple(numbered),
            input_sizes=tuple(graph.get("inputSizes") or ()),
            output_sizes=tuple(graph.get("outputSizes") or ()),
        )

    def parameters(self, rows: Rows) -> dict[str, Value]:
        """What a trial gets, byte for byte as Katib writes it."""
        used = dict.fromkeys(row[0] for row in rows)
        config = {
            "num_layers": self.layers,
            "input_sizes": list(self.input_sizes),
            "output_sizes": list(self.output_sizes),
            "embedding": {str(number): self.operations[number].described() for number in used},
        }
        return {ARCHITECTURE: quoted([list(row) for row in rows]), NN_CONFIG: quoted(config)}

    def edges(self) -> Iterator[tuple[int, int]]:
        """The skip connections that may be chosen, as (row, bit): both from 0."""
        return ((row, bit) for row in range(self.layers) for bit in range(row))


def rows_of(architecture: str) -> list[list[int]]:
    """The rows in a trial's `architecture`."""
    rows: list[list[int]] = json.loads(architecture)
    return rows


def quoted(data: Any) -> str:
    """JSON with the quotes that Katib's trial images expect."""
    return json.dumps(data).replace('"', "'")


def _values(parameter: Mapping[str, Any]) -> list[Value]:
    space: Mapping[str, Any] = parameter.get("feasibleSpace") or {}
    if parameter.get("parameterType") in ("categorical", "discrete"):
        return list(space.get("list") or ())
    # Katib needs one of the two: the other one is then the same.
    low = Decimal(space.get("min") or space["max"])
    high = Decimal(space.get("max") or space["min"])
    step = Decimal(space.get("step") or 1)
    count = max(0, int((high - low) / step)) + 1
    kind = int if parameter.get("parameterType") == "int" else float
    return [kind(low + index * step) for index in range(count)]
