"""A network's choices as an ordinary search space, so that any sampler of categories can search architectures.

One category for each layer's operation (`op_1`, …) and one for each possible skip connection (`skip_3_1`: into layer 3
from layer 1). Called by the steering; refuses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from algorithms.nas.network import ARCHITECTURE, Network, Rows, rows_of
from evertune.domain.space import Parameter, ParameterType, SearchSpace, Value


def flat_space(nas: Mapping[str, Any]) -> SearchSpace:
    network = Network.of(nas)
    operations = tuple(str(operation.id) for operation in network.operations)
    parameters = []
    for row in range(network.layers):
        parameters.append(Parameter(name=_operation(row), type=ParameterType.CATEGORICAL, values=operations))
        parameters += [
            Parameter(name=_skip(row, bit), type=ParameterType.CATEGORICAL, values=("0", "1")) for bit in range(row)
        ]
    return SearchSpace(tuple(parameters))


def to_assignment(nas: Mapping[str, Any], values: Mapping[str, Value]) -> dict[str, Value]:
    """What a trial gets (`architecture`, `nn_config`) for a point of the flat space."""
    network = Network.of(nas)
    rows = [
        [int(values[_operation(row)]), *(int(values[_skip(row, bit)]) for bit in range(row))]
        for row in range(network.layers)
    ]
    return network.parameters(rows)


def from_assignment(parameters: Mapping[str, Value]) -> dict[str, Value]:
    """The point of the flat space that a trial's parameters stand for."""
    return _flat(rows_of(str(parameters[ARCHITECTURE])))


def _flat(rows: Rows) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for number, row in enumerate(rows):
        values[_operation(number)] = str(row[0])
        values |= {_skip(number, bit): str(skip) for bit, skip in enumerate(row[1:])}
    return values


def _operation(row: int) -> str:
    return f"op_{row + 1}"


def _skip(row: int, bit: int) -> str:
    return f"skip_{row + 1}_{bit}"
