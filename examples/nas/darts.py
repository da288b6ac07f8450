"""Searches a cell by gradient (DARTS, first order) on handwritten digits, and prints the best genotype that it finds.

Takes the three texts that Katib's DARTS trial images take. Each edge of a cell mixes all operations of the search space
by a softmax over its row of alphas; in turn the weights learn from one half of the images, the alphas from the other.
Liu, Simonyan & Yang 2019, "DARTS: Differentiable Architecture Search", sections 2.1 to 2.4, with xi = 0.

Searched for long, alphas drift to skip connections, which are easiest to train through: keep num_epochs small.
"""

import argparse
import json

import autograd.numpy as np
from autograd import grad
from layers import (
    Adam,
    accuracy_of,
    convolution,
    depthwise,
    digits,
    loss_of,
    normalised,
    pooled,
    relu,
    shrunk,
    softmax,
)


def decoded(text):
    return json.loads(text.replace("'", '"'))


class Supernet:
    """`layers` cells of `nodes` nodes. A third and two thirds down they shrink the image, with alphas of their own."""

    def __init__(self, operations, layers, nodes, channels, luck):
        self.operations, self.layers, self.nodes, self.channels = operations, layers, nodes, channels
        self.weights = {
            "stem": luck.normal(size=(3, 3, 1, channels)) * 0.3,
            "out": luck.normal(size=(channels, 10)) * 0.3,
        }
        for layer in range(layers):
            for edge in range(self.edges):
                for operation in operations:
                    if "convolution" in operation:
                        name, size = f"{layer}/{edge}/{operation}", int(operation.rsplit("_", 1)[1].split("x")[0])
                        self.weights[f"{name}/depth"] = luck.normal(size=(size, size, channels)) * (2 / size**2) ** 0.5
                        self.weights[f"{name}/point"] = luck.normal(size=(channels, channels)) * (2 / channels) ** 0.5
        shape = (self.edges, len(operations))
        self.alphas = {"normal": luck.normal(size=shape) * 1e-3, "reduce": luck.normal(size=shape) * 1e-3}

    @property
    def edges(self):
        return sum(2 + node for node in range(self.nodes))

    def shrinks(self, layer):
        return layer in {self.layers // 3, 2 * self.layers // 3} if self.layers > 2 else False

    def logits(self, weights, alphas, images):
        before = last = relu(normalised(convolution(images, weights["stem"])))
        for layer in range(self.layers):
            before, last = last, self.cell(weights, alphas, layer, shrunk(before, last.shape[1]), last)
        return np.mean(last, axis=(1, 2)) @ weights["out"]

    def cell(self, weights, alphas, layer, *inputs):
        shares = softmax(alphas["reduce" if self.shrinks(layer) else "normal"])
        nodes, edge = list(inputs), 0
        for _ in range(self.nodes):
            total = 0
            for node in nodes:
                for index, operation in enumerate(self.operations):
                    total = total + shares[edge, index] * self.apply(
                        weights, f"{layer}/{edge}/{operation}", operation, node
                    )
                edge += 1
            nodes.append(total)
        found = sum(nodes[2:]) / self.nodes
        return shrunk(found, max(1, found.shape[1] // 2)) if self.shrinks(layer) else found

    def apply(self, weights, name, operation, images):
        if operation == "skip_connection":
            return images
        kind, size = operation.rsplit("_", 1)
        width = int(size.split("x")[0])
        if kind in ("avg_pooling", "max_pooling"):
            return normalised(pooled(images, width, kind))
        dilation = 2 if kind == "dilated_convolution" else 1
        seen = depthwise(relu(images), weights[f"{name}/depth"], dilation)
        return normalised(seen @ weights[f"{name}/point"])

    def genotype(self):
        """Of each node its two strongest edges, each with its strongest operation: Katib's text, without blanks."""
        parts = []
        for kind in ("normal", "reduce"):
            shares, rows, edge = softmax(self.alphas[kind]), [], 0
            for node in range(self.nodes):
                inputs = range(2 + node)
                strongest = sorted(inputs, key=lambda each: -np.max(shares[edge + each]))[:2]
                chosen = [(self.operations[int(np.argmax(shares[edge + each]))], each) for each in sorted(strongest)]
                rows.append(chosen)
                edge += 2 + node
            parts.append(f"{kind}={rows},{kind}_concat=range(2,{2 + self.nodes})")
        return f"Genotype({','.join(parts)})".replace(" ", "")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--algorithm-settings", type=decoded, required=True)
    parser.add_argument("--search-space", type=decoded, required=True)
    parser.add_argument("--num-layers", type=int, required=True)
    parser.add_argument("--examples", type=int, default=600)
    args = parser.parse_args()
    settings = args.algorithm_settings

    images, held_out_images, labels, held_out_labels = digits(args.examples)
    half = len(images) // 2
    luck = np.random.RandomState(0)
    net = Supernet(
        args.search_space, max(1, args.num_layers), int(settings["num_nodes"]), int(settings["init_channels"]), luck
    )

    def loss(weights, alphas, images, labels):
        return loss_of(net.logits(weights, alphas, images), labels)

    for_weights, for_alphas = grad(loss, 0), grad(loss, 1)
    learning, choosing = Adam(float(settings["w_lr"])), Adam(float(settings["alpha_lr"]))
    size = min(half, int(settings["batch_size"] or half))
    best, genotype = -1.0, net.genotype()
    for epoch in range(1, int(settings["num_epochs"]) + 1):
        one, other = luck.permutation(half), half + luck.permutation(half)
        for at in range(0, half, size):
            seen, unseen = one[at : at + size], other[at : at + size]
            choosing.step(net.alphas, for_alphas(net.weights, net.alphas, images[unseen], labels[unseen]))
            learning.step(net.weights, for_weights(net.weights, net.alphas, images[seen], labels[seen]))
        accuracy = accuracy_of(net.logits(net.weights, net.alphas, held_out_images), held_out_labels)
        print(f"epoch={epoch} Supernet-Accuracy={accuracy:.4f}", flush=True)
        if accuracy > best:
            best, genotype = accuracy, net.genotype()
    print(f"Best-Genotype={genotype}")


if __name__ == "__main__":
    main()
