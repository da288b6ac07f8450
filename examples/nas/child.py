"""Builds the network that an architecture describes, trains it on handwritten digits, and prints how well it does.

Takes the two texts that Katib's ENAS trial images take: --architecture, a list of rows, and --nn_config, what the
operations in it are. Row i is layer i + 1: the operation's number, then a bit for each node before the previous one
(node 0 is the image) that says whether that feeds the layer too. Seconds on a CPU, without PyTorch or TensorFlow.
"""

import argparse
import json

import autograd.numpy as np
from autograd import grad
from layers import Adam, accuracy_of, convolution, depthwise, digits, loss_of, normalised, pooled, relu, shrunk


def decoded(text):
    return json.loads(text.replace("'", '"'))


class Child:
    """`weights` by name; made when a layer first meets its input."""

    def __init__(self, architecture, operations, classes, luck):
        self.architecture, self.operations, self.classes, self.luck = architecture, operations, classes, luck
        self.weights = {}

    def weight(self, weights, name, *shape):
        if name not in self.weights:
            fan_in = int(np.prod(shape[:-1]))
            self.weights[name] = self.luck.normal(size=shape) * np.sqrt(2 / fan_in)
        return weights.get(name, self.weights[name])

    def logits(self, weights, images):
        nodes = [images]
        for row, (operation, *skips) in enumerate(self.architecture):
            height = nodes[-1].shape[1]
            fed = [shrunk(nodes[node], height) for node, skip in enumerate(skips) if skip and node != row]
            nodes.append(self.layer(weights, f"layer{row + 1}", operation, np.concatenate([*fed, nodes[-1]], axis=3)))
        features = np.mean(nodes[-1], axis=(1, 2))
        return features @ self.weight(weights, "out", features.shape[1], self.classes)

    def layer(self, weights, name, number, images):
        described = self.operations[str(number)]
        kind, given = described["opt_type"], described["opt_params"]
        channels = images.shape[3]
        if kind == "reduction":
            size = int(given["pool_size"])
            seen = pooled(images, size, given["reduction_type"])
            return shrunk(seen, max(1, seen.shape[1] // 2)) if seen.shape[1] > 2 else seen
        size = int(given["filter_size"])
        if kind == "convolution":
            mixed = convolution(images, self.weight(weights, name, size, size, channels, int(given["num_filter"])))
        elif kind == "separable_convolution":
            seen = depthwise(images, self.weight(weights, f"{name}/depth", size, size, channels))
            mixed = seen @ self.weight(weights, f"{name}/point", channels, int(given["num_filter"]))
        elif kind == "depthwise_convolution":
            mixed = depthwise(images, self.weight(weights, name, size, size, channels))
        else:
            raise SystemExit(f"this trainer knows no operation {kind}")
        return relu(normalised(mixed))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", type=decoded, required=True)
    parser.add_argument("--nn_config", type=decoded, required=True)
    parser.add_argument("--num_epochs", type=int, default=3)
    parser.add_argument("--examples", type=int, default=600)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--rate", type=float, default=0.03)
    args = parser.parse_args()

    images, held_out_images, labels, held_out_labels = digits(args.examples)
    luck = np.random.RandomState(0)
    child = Child(args.architecture, args.nn_config["embedding"], args.nn_config["output_sizes"][-1], luck)
    child.logits({}, images[:2])  # makes the weights

    def loss(weights, images, labels):
        return loss_of(child.logits(weights, images), labels)

    optimizer, slope = Adam(args.rate), grad(loss)
    for epoch in range(1, args.num_epochs + 1):
        order = luck.permutation(len(images))
        for at in range(0, len(order), args.batch):
            batch = order[at : at + args.batch]
            optimizer.step(child.weights, slope(child.weights, images[batch], labels[batch]))
        trained, judged = child.logits(child.weights, images), child.logits(child.weights, held_out_images)
        print(f"epoch={epoch}")
        print(f"Training-Accuracy={accuracy_of(trained, labels):.4f}")
        print(f"Training-Loss={loss_of(trained, labels):.4f}")
        print(f"Validation-Accuracy={accuracy_of(judged, held_out_labels):.4f}")
        print(f"Validation-Loss={loss_of(judged, held_out_labels):.4f}", flush=True)


if __name__ == "__main__":
    main()
