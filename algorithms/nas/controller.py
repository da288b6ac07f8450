"""The controller of ENAS: a recurrent network that draws architectures and learns from their rewards, in plain numpy.

An LSTM of one layer walks over the layers of the child network. At each it draws an operation by a softmax, then each
skip connection by attention over the layers before. Learning is REINFORCE on given architectures, with the gradient
written by hand (checked against finite differences in the tests) and Adam.

Pham, Guan, Zoph, Le & Dean 2018, "Efficient Neural Architecture Search via Parameter Sharing", section 2; the shapes
and the treatment of logits are those of Katib's Controller. Used by `algorithms.enas` alone; knows nothing of trials.

Shapes: B architectures, L layers, O operations, H units.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algorithms.nas.network import Rows

Array = NDArray[np.float64]
Weights = dict[str, Array]

_INITIAL = 0.01  # weights begin uniform between minus and plus this, as in Katib
_DECAYS, _EPSILON = (0.9, 0.999), 1e-8  # Adam, Kingma & Ba 2015


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Katib's settings of the controller, None where it says None: that treatment is left out."""

    layers: int
    operations: int
    hidden: int = 64
    temperature: float | None = 5.0
    tanh_constant: float | None = 2.25
    learning_rate: float = 5e-3
    skip_target: float = 0.4
    skip_weight: float | None = 0.8


@dataclass(slots=True)
class Drawn:
    """Architectures, with the log-probability and the entropy of each under the controller, and the tape behind them.

    `penalty` is the divergence of the skip probabilities from their target, averaged over the layers.
    """

    rows: list[list[list[int]]]
    log_probability: Array  # (B,)
    entropy: Array  # (B,)
    penalty: Array  # (B,)
    tape: list[_Layer] = field(default_factory=list)


@dataclass(slots=True)
class _Layer:
    """What one layer's forward pass leaves for its backward pass."""

    before: tuple[Array, ...]  # of the LSTM step that leads to the operation
    hidden: Array  # (B, H) from which the operation was drawn
    tanh: Array  # (B, O)
    probabilities: Array  # (B, O)
    operations: NDArray[np.int64]  # (B,)
    after: tuple[Array, ...]  # of the step that takes the operation in
    anchor: Array  # (B, H) after it
    attention: tuple[Array, Array, Array, NDArray[np.int64], Array, Array] | None = None  # None in the first layer


class Controller:
    """Weights are rounded to single precision after each update: what a state holds is exactly what goes on."""

    def __init__(self, shape: Shape, seed: int) -> None:
        self.shape = shape
        generator = np.random.default_rng([seed, 0x454E4153])  # "ENAS": not the stream that draws trial 0
        units, operations = shape.hidden, shape.operations
        shapes = {
            "lstm": (2 * units, 4 * units),
            "first": (1, units),
            "embedding": (operations, units),
            "softmax": (units, operations),
            "anchors": (units, units),
            "query": (units, units),
            "attention": (units, 1),
        }
        self.weights: Weights = {name: _single(generator.uniform(-_INITIAL, _INITIAL, s)) for name, s in shapes.items()}
        self._mean = {name: np.zeros_like(weight) for name, weight in self.weights.items()}
        self._square = {name: np.zeros_like(weight) for name, weight in self.weights.items()}
        self.steps = 0

    # ---------------------------------------------------------------------------------------------- forward

    def sample(self, generator: np.random.Generator) -> list[list[int]]:
        """The rows of one architecture."""
        return self._run([], [generator]).rows[0]

    def evaluate(self, architectures: Sequence[Rows]) -> Drawn:
        return self._run(architectures, [])

    def draw(self, generator: np.random.Generator) -> Drawn:
        return self._run([], [generator])

    def _run(self, given: Sequence[Rows], generators: Sequence[np.random.Generator]) -> Drawn:
        """`given` architectures, or one drawn by each of the generators."""
        batch, units, weights = len(given) or len(generators), self.shape.hidden, self.weights
        cell = hidden = np.zeros((batch, units))
        entering = np.repeat(weights["first"], batch, 0)
        drawn = Drawn([[] for _ in range(batch)], np.zeros(batch), np.zeros(batch), np.zeros(batch))
        seen: list[Array] = []
        anchors: list[Array] = []
        for layer in range(self.shape.layers):
            cell, hidden, before = self._lstm(entering, cell, hidden)
            logits, tanh = self._squashed(hidden @ weights["softmax"])
            exponents = np.exp(logits - logits.max(1, keepdims=True))
            chances = exponents / exponents.sum(1, keepdims=True)
            if given:
                chosen = np.array([rows[layer][0] for rows in given])
            else:
                cuts = np.array([[generator.random()] for generator in generators])
                chosen = np.minimum((chances.cumsum(1) < cuts).sum(1), self.shape.operations - 1)
            drawn.log_probability += np.log(chances[np.arange(batch), chosen])
            drawn.entropy -= (chances * np.log(chances)).sum(1)
            choosing = hidden
            cell, hidden, after = self._lstm(weights["embedding"][chosen], cell, hidden)
            step = _Layer(before, choosing, tanh, chances, chosen, after, hidden)
            bits: NDArray[np.int64] = np.zeros((batch, layer), np.int64)
            entering = np.repeat(weights["first"], batch, 0)
            if layer:
                stacked = np.stack(anchors, 1)  # (B, layer, H)
                mixed = np.tanh((hidden @ weights["query"])[:, None, :] + stacked)
                scores, bent = self._squashed((mixed @ weights["attention"])[:, :, 0])
                chance = _sigmoid(2 * scores)  # of two opposite logits
                if given:
                    bits = np.array([rows[layer][1:] for rows in given], np.int64)
                else:
                    luck = np.array([generator.random(layer) for generator in generators])
                    bits = (luck < chance).astype(np.int64)
                drawn.log_probability += np.where(bits == 1, np.log(chance), np.log1p(-chance)).sum(1)
                drawn.entropy -= (chance * np.log(chance) + (1 - chance) * np.log1p(-chance)).sum(1)
                linked = _sigmoid(np.stack([-scores, scores], 2))  # (B, layer, 2): no edge, edge
                target = np.array([1 - self.shape.skip_target, self.shape.skip_target])
                if self.shape.skip_target < 1:
                    drawn.penalty += (linked * np.log(linked / target)).sum((1, 2)) / max(self.shape.layers - 1, 1)
                entering = np.einsum("bl,blh->bh", bits, np.stack(seen, 1)) / (1 + bits.sum(1, keepdims=True))
                step.attention = (mixed, bent, chance, bits, linked, hidden)
            for rows, operation, skips in zip(drawn.rows, chosen, bits, strict=True):
                rows.append([int(operation), *map(int, skips)])
            drawn.tape.append(step)
            seen.append(hidden)
            anchors.append(hidden @ weights["anchors"])
        return drawn

    def _squashed(self, logits: Array) -> tuple[Array, Array]:
        scaled = logits / self.shape.temperature if self.shape.temperature else logits
        bent = np.tanh(scaled)
        return (self.shape.tanh_constant * bent if self.shape.tanh_constant else scaled), bent

    def _unsquashed(self, gradient: Array, bent: Array) -> Array:
        if self.shape.tanh_constant:
            gradient = gradient * self.shape.tanh_constant * (1 - bent**2)
        return gradient / self.shape.temperature if self.shape.temperature else gradient

    def _lstm(self, entering: Array, cell: Array, hidden: Array) -> tuple[Array, Array, tuple[Array, ...]]:
        both = np.concatenate([entering, hidden], 1)
        gates = both @ self.weights["lstm"]
        units = self.shape.hidden
        into, keep, out = (_sigmoid(gates[:, index * units : (index + 1) * units]) for index in range(3))
        new = np.tanh(gates[:, 3 * units :])
        after = into * new + keep * cell
        bent = np.tanh(after)
        return after, out * bent, (both, into, keep, out, new, cell, bent)

    # --------------------------------------------------------------------------------------------- learning

    def gradient(self, drawn: Drawn, advantage: Array) -> Weights:
        """Of `sum(-advantage * log_probability) + skip_weight * mean(penalty)`. `advantage` has shape (B,)."""
        weights, units, layers = self.weights, self.shape.hidden, self.shape.layers
        total = {name: np.zeros_like(weight) for name, weight in weights.items()}
        batch = len(drawn.rows)
        to_seen = [np.zeros((batch, units)) for _ in range(layers)]
        cell = hidden = np.zeros((batch, units))
        leaving: Array | None = None  # what the layer after took in
        pull = (self.shape.skip_weight or 0.0) / batch / max(layers - 1, 1)
        target = np.array([1 - self.shape.skip_target, self.shape.skip_target])
        for layer in reversed(range(layers)):
            step = drawn.tape[layer]
            if leaving is not None:
                if step.attention is None:
                    total["first"] += leaving.sum(0, keepdims=True)
                else:
                    bits = step.attention[3]
                    share = bits / (1 + bits.sum(1, keepdims=True))
                    for earlier in range(layer):
                        to_seen[earlier] += share[:, earlier : earlier + 1] * leaving
            hidden = hidden + to_seen[layer]
            if step.attention is not None:
                mixed, bent, chance, bits, linked, asking = step.attention
                slope = -advantage[:, None] * (bits - chance) * 2  # of the score behind two opposite logits
                if pull and self.shape.skip_target < 1:
                    bend = (np.log(linked / target) + 1) * linked * (1 - linked)
                    slope = slope + pull * (bend[:, :, 1] - bend[:, :, 0])
                score = self._unsquashed(slope, bent)[:, :, None]  # (B, layer, 1)
                total["attention"] += np.einsum("blh,blo->ho", mixed, score)
                inner = score * weights["attention"][:, 0] * (1 - mixed**2)
                query = inner.sum(1)
                total["query"] += asking.T @ query
                hidden = hidden + query @ weights["query"].T
                for earlier in range(layer):
                    total["anchors"] += drawn.tape[earlier].anchor.T @ inner[:, earlier]
                    to_seen[earlier] += inner[:, earlier] @ weights["anchors"].T
            entering, cell, hidden = self._back(cell, hidden, step.after, total)
            np.add.at(total["embedding"], step.operations, entering)
            wanted = np.zeros_like(step.probabilities)
            wanted[np.arange(batch), step.operations] = 1
            logits = self._unsquashed(-advantage[:, None] * (wanted - step.probabilities), step.tanh)
            total["softmax"] += step.hidden.T @ logits
            hidden = hidden + logits @ weights["softmax"].T
            leaving, cell, hidden = self._back(cell, hidden, step.before, total)
        if leaving is not None:
            total["first"] += leaving.sum(0, keepdims=True)
        return total

    def _back(self, cell: Array, hidden: Array, tape: tuple[Array, ...], total: Weights) -> tuple[Array, Array, Array]:
        both, into, keep, out, new, earlier, bent = tape
        cell = cell + hidden * out * (1 - bent**2)
        gates = np.concatenate(
            [
                cell * new * into * (1 - into),
                cell * earlier * keep * (1 - keep),
                hidden * bent * out * (1 - out),
                cell * into * (1 - new**2),
            ],
            1,
        )
        total["lstm"] += both.T @ gates
        inputs = gates @ self.weights["lstm"].T
        return inputs[:, : self.shape.hidden], cell * keep, inputs[:, self.shape.hidden :]

    def step(self, gradient: Weights) -> None:
        """One step of Adam against the gradient."""
        self.steps += 1
        first, second = _DECAYS
        for name, slope in gradient.items():
            self._mean[name] = first * self._mean[name] + (1 - first) * slope
            self._square[name] = second * self._square[name] + (1 - second) * slope**2
            mean = self._mean[name] / (1 - first**self.steps)
            spread = np.sqrt(self._square[name] / (1 - second**self.steps)) + _EPSILON
            self.weights[name] = self.weights[name] - self.shape.learning_rate * mean / spread
        for group in (self.weights, self._mean, self._square):
            group.update({name: _single(values) for name, values in group.items()})

    # ------------------------------------------------------------------------------------------------ state

    def dump(self) -> dict[str, Any]:
        """JSON: about 0.7 MB for 64 units, the moments of Adam included."""
        groups = (self.weights, self._mean, self._square)
        flat = np.concatenate([values.ravel() for group in groups for values in group.values()])
        packed = zlib.compress(flat.astype("<f4").tobytes(), 1)
        return {"steps": self.steps, "weights": base64.b64encode(packed).decode("ascii")}

    def load(self, state: dict[str, Any]) -> None:
        flat = np.frombuffer(zlib.decompress(base64.b64decode(state["weights"])), "<f4").astype(np.float64)
        self.steps = state["steps"]
        at = 0
        for group in (self.weights, self._mean, self._square):
            for name, values in group.items():
                group[name] = flat[at : at + values.size].reshape(values.shape)
                at += values.size


def _single(values: Array) -> Array:
    return values.astype(np.float32).astype(np.float64)


def _sigmoid(values: Array) -> Array:
    result: Array = 1 / (1 + np.exp(-values))
    return result
