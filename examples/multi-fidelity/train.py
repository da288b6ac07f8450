"""Trains a small network on scikit-learn's handwritten digits, and goes on from wherever an earlier trial has stopped.

Three lines make it so: `resume_from()` says where a checkpoint is, if there is one - this trial's own after a crash, or
that of the trial it was promoted from - `checkpoint_dir()` where to write the next, and a rename makes each complete or
absent. It prints what it begins with, so that a promoted trial's first line is its parent's last.
"""

import argparse

import numpy as np
from sklearn.datasets import load_digits

from evertune.report import checkpoint_dir, resume_from

BATCH = 64


def loss_and_accuracy(weights: dict, images: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    chances = forward(weights, images)[1]
    loss = -np.log(chances[np.arange(len(labels)), labels] + 1e-12).mean()
    return float(loss), float((chances.argmax(axis=1) == labels).mean())


def forward(weights: dict, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    hidden = np.maximum(images @ weights["w1"] + weights["b1"], 0)
    scores = hidden @ weights["w2"] + weights["b2"]
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return hidden, scores / scores.sum(axis=1, keepdims=True)


def gradients(weights: dict, images: np.ndarray, labels: np.ndarray) -> dict:
    hidden, chances = forward(weights, images)
    chances[np.arange(len(labels)), labels] -= 1
    chances /= len(labels)
    below = (chances @ weights["w2"].T) * (hidden > 0)
    return {"w1": images.T @ below, "b1": below.sum(axis=0), "w2": hidden.T @ chances, "b2": chances.sum(axis=0)}


def fresh(units: int) -> dict:
    luck = np.random.default_rng(0)
    weights = {"w1": luck.normal(0, 0.15, (64, units)), "b1": np.zeros(units)}
    weights |= {"w2": luck.normal(0, 0.15, (units, 10)), "b2": np.zeros(10)}
    return weights | {f"v_{name}": np.zeros_like(value) for name, value in weights.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--decay", type=float, default=1e-4, help="L2 penalty")
    parser.add_argument("--units", type=int, default=64, help="of the hidden layer")
    parser.add_argument("--epochs", type=int, default=9, help="in all, those before a promotion included")
    parser.add_argument("--more", type=int, help="epochs to go on for, however many there were")
    args = parser.parse_args()

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images, labels = images[order] / 16, labels[order]
    train, held_out = slice(0, 1300), slice(1300, None)

    weights, done = fresh(args.units), 0
    if (place := resume_from()) and (place / "network.npz").exists():
        with np.load(place / "network.npz") as saved:
            weights = {name: saved[name] for name in saved.files if name != "epochs"}
            done = int(saved["epochs"])

    def show() -> None:
        loss, accuracy = loss_and_accuracy(weights, images[held_out], labels[held_out])
        print(f"epoch={done} loss={loss:.6f} accuracy={accuracy:.4f}", flush=True)

    show()
    until = done + args.more if args.more is not None else args.epochs
    while done < until:
        luck = np.random.default_rng(done)  # the same examples in the same order, resumed or not
        for batch in np.array_split(luck.permutation(1300), 1300 // BATCH):
            for name, gradient in gradients(weights, images[train][batch], labels[train][batch]).items():
                speed = weights[f"v_{name}"]
                speed *= args.momentum
                speed -= args.lr * (gradient + args.decay * weights[name])
                weights[name] += speed
        done += 1
        draft = checkpoint_dir() / "network.draft.npz"
        np.savez(draft, epochs=done, **weights)
        draft.replace(checkpoint_dir() / "network.npz")
        show()


if __name__ == "__main__":
    main()
