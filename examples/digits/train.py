"""Trains a small network on scikit-learn's handwritten digits and prints its accuracy after each epoch.

An ordinary script: it takes its hyperparameters as flags, prints `accuracy=…`, and knows nothing of who calls it.
The defaults are scikit-learn's own.
"""

import argparse

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate of Adam")
    parser.add_argument("--alpha", type=float, default=1e-4, help="L2 penalty")
    parser.add_argument("--hidden", type=int, default=100, help="units per hidden layer")
    parser.add_argument("--layers", type=int, default=1, help="hidden layers")
    parser.add_argument("--batch", type=int, default=200, help="examples per step")
    parser.add_argument("--activation", choices=["relu", "tanh", "logistic"], default="relu")
    parser.add_argument("--epochs", type=int, default=20)
    args = parser.parse_args()

    images, labels = load_digits(return_X_y=True)
    train_images, held_out_images, train_labels, held_out_labels = train_test_split(
        images / 16, labels, test_size=0.25, random_state=0, stratify=labels
    )
    network = MLPClassifier(
        hidden_layer_sizes=(args.hidden,) * args.layers,
        activation=args.activation,
        learning_rate_init=args.lr,
        alpha=args.alpha,
        batch_size=args.batch,
        random_state=0,
    )
    for epoch in range(1, args.epochs + 1):
        network.partial_fit(train_images, train_labels, classes=range(10))
        print(f"epoch={epoch} accuracy={network.score(held_out_images, held_out_labels):.4f}", flush=True)


if __name__ == "__main__":
    main()
